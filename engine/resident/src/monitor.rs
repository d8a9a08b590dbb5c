//! The machine under the monitor: rounds, run queues, and everything that happens between rounds.
//!
//! Time advances in rounds of one quantum. In a round each CPU runs its vCPU to the end of the round. A vCPU
//! that needs a decision stops; its CPU stands still while the others finish; then [`Monitor::run`] returns
//! the events in the order (cycle, CPU), Python decides, and the CPU catches up before time goes on. So what
//! VMs see of each other is decided at boundaries only, and CPUs of different VMs can run on different host
//! threads with the same result.
//!
//! A CPU's run queue holds the vCPUs assigned to it. The one at the front runs; one that waits makes way at
//! once, and after a time slice the next in line has its turn.

use std::fmt;
use std::sync::{Arc, Mutex};

use machine::memory::MemoryError;
use machine::{CpuConfig, Cycles, MachineMemory, Mpn, NodeId, PAGE_BYTES, PhysAddr, Ppn};

use crate::event::Event;
use crate::follow::{Follower, MissKind};
use crate::l2tlb::L2Tlb;
use crate::memmap::Memmap;
use crate::pmap::{Backmap, PageState, PmapRow};
use crate::trap::Running;
use crate::vcpu::{HardwareCpu, Vcpu, VcpuState};
use crate::vm::{PhysRange, Vm};
use crate::{Costs, Counters};

/// What the machine and its monitor are made of.
#[derive(Clone, Debug)]
pub struct MonitorConfig {
    /// The node of each CPU.
    pub node_of_cpu: Vec<u16>,
    /// Nodes.
    pub nodes: u16,
    /// Memory of each node.
    pub memory_bytes_per_node: u64,
    /// Length of a round.
    pub quantum: Cycles,
    /// Length of a slice in which one vCPU of a multiprocessor VM runs before the next.
    pub interleave: Cycles,
    /// Rounds after which the next vCPU of a CPU has its turn.
    pub slice_rounds: u32,
    /// Entries of the hardware TLB.
    pub tlb_entries: u8,
    /// Entries of each second-level TLB; 0 switches it off.
    pub l2tlb_entries: usize,
    /// Host threads that run CPUs.
    pub host_threads: usize,
    /// What the monitor's actions cost.
    pub costs: Costs,
}

/// A caller's mistake; nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MonitorError {
    /// The machine cannot exist, for the reason given.
    Machine(String),
    /// No VM has that number.
    NoVm(u32),
    /// The VM has fewer vCPUs.
    NoVcpu { vm: u32, vcpu: u32, vcpus: usize },
    /// The machine has fewer CPUs.
    NoCpu { cpu: u16, cpus: usize },
    /// The machine has fewer nodes.
    NoNode { node: u16, nodes: u16 },
    /// The range is not made of whole pages in 36 bits.
    BadRange(PhysRange),
    /// The page is in another state than the call needs.
    PageState { vm: u32, page: Ppn, state: &'static str, needed: &'static str },
    /// Some byte of the range is not RAM of the VM.
    NotRam { vm: u32, paddr: PhysAddr, bytes: u64 },
    /// The page has to be made present (or writable) first.
    NotPresent { vm: u32, page: Ppn },
    /// The vCPU waits for no device.
    NoAccess { vm: u32, vcpu: u32 },
    /// The host or a node has no memory for it.
    Memory(MemoryError),
    /// No node has room for the monitor's tables of the VM.
    NoRoomForTables { vm: u32, pages: usize },
    /// The vCPU's state forbids it.
    VcpuState { vm: u32, vcpu: u32, state: String, needed: &'static str },
    /// The address has no translation now.
    NoTranslation { vaddr: u64 },
}

impl fmt::Display for MonitorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MonitorError::Machine(reason) => write!(f, "{reason}"),
            MonitorError::NoVm(vm) => write!(f, "no VM has the number {vm}"),
            MonitorError::NoVcpu { vm, vcpu, vcpus } => {
                write!(f, "VM {vm}: vCPU {vcpu} asked, it has {vcpus}")
            }
            MonitorError::NoCpu { cpu, cpus } => write!(f, "CPU {cpu} asked, the machine has {cpus}"),
            MonitorError::NoNode { node, nodes } => write!(f, "node {node} asked, the machine has {nodes}"),
            MonitorError::BadRange(range) => write!(
                f,
                "{} bytes at {} asked; possible are whole pages of {PAGE_BYTES} bytes below 2^36",
                range.bytes, range.base
            ),
            MonitorError::PageState { vm, page, state, needed } => {
                write!(f, "VM {vm}: page {page} is {state}, not {needed}")
            }
            MonitorError::NotRam { vm, paddr, bytes } => {
                write!(f, "VM {vm}: {bytes} bytes at {paddr} are not all RAM")
            }
            MonitorError::NotPresent { vm, page } => write!(f, "VM {vm}: page {page} is not present and writable"),
            MonitorError::NoAccess { vm, vcpu } => write!(f, "VM {vm}: vCPU {vcpu} waits for no device"),
            MonitorError::Memory(error) => write!(f, "{error}"),
            MonitorError::NoRoomForTables { vm, pages } => {
                write!(f, "VM {vm}: the monitor needs {pages} pages for its tables, and no node has as many free")
            }
            MonitorError::VcpuState { vm, vcpu, state, needed } => {
                write!(f, "VM {vm}: vCPU {vcpu} is {state}, not {needed}")
            }
            MonitorError::NoTranslation { vaddr } => write!(f, "{vaddr:#x} has no translation now"),
        }
    }
}

impl std::error::Error for MonitorError {}

impl From<MemoryError> for MonitorError {
    fn from(error: MemoryError) -> MonitorError {
        MonitorError::Memory(error)
    }
}

type Result<T> = std::result::Result<T, MonitorError>;

/// A vCPU by the numbers of its VM and of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct VcpuId {
    vm: u32,
    vcpu: u32,
}

/// A CPU with its run queue.
#[derive(Debug)]
struct CpuSlot {
    hardware: HardwareCpu,
    queue: Vec<VcpuId>,
    /// Place in the queue of the vCPU whose turn it is.
    turn: usize,
    /// The vCPU whose registers are on the CPU.
    loaded: Option<VcpuId>,
    slice_rounds_left: u32,
    /// A vCPU has run in this round.
    has_run: bool,
    events: Vec<Event>,
}

/// As many as the interrupt controller and the coherence manager serve.
const VCPUS_MAX: u32 = 32;

type Vms = Vec<Option<Mutex<Vm>>>;

/// The machine with the resident part of the monitor on it.
#[derive(Debug)]
pub struct Monitor {
    config: MonitorConfig,
    memory: Arc<MachineMemory>,
    memmap: Memmap,
    cpus: Vec<CpuSlot>,
    vms: Vms,
    /// The last boundary.
    now: Cycles,
    /// CPUs that must run on one host thread, because VMs span them.
    groups: Vec<Vec<usize>>,
    threads: Option<rayon::ThreadPool>,
}

impl Monitor {
    /// A machine without VMs.
    ///
    /// # Errors
    /// [`MonitorError`] naming what was asked and what is possible.
    pub fn new(config: MonitorConfig) -> Result<Monitor> {
        check(&config)?;
        let memory = Arc::new(MachineMemory::new(config.nodes, config.memory_bytes_per_node)?);
        let cpu_config = CpuConfig { tlb_entries: config.tlb_entries, ..CpuConfig::hardware() };
        let cpus = (0u16..)
            .zip(&config.node_of_cpu)
            .map(|(id, node)| CpuSlot {
                hardware: HardwareCpu::new(id, NodeId(*node), cpu_config.clone(), Arc::clone(&memory)),
                queue: Vec::new(),
                turn: 0,
                loaded: None,
                slice_rounds_left: config.slice_rounds,
                has_run: false,
                events: Vec::new(),
            })
            .collect();
        let threads = (config.host_threads > 1)
            .then(|| rayon::ThreadPoolBuilder::new().num_threads(config.host_threads).build())
            .transpose()
            .map_err(|error| MonitorError::Machine(format!("host threads: {error}")))?;
        let memmap = Memmap::new(Arc::clone(&memory))?;
        Ok(Monitor { config, memory, memmap, cpus, vms: Vec::new(), now: Cycles(0), groups: Vec::new(), threads })
    }

    /// Simulated time of the last boundary.
    pub fn now(&self) -> Cycles {
        self.now
    }

    /// The machine's memory.
    pub fn memory(&self) -> &Arc<MachineMemory> {
        &self.memory
    }

    /// The memmap.
    pub fn memmap(&self) -> &Memmap {
        &self.memmap
    }

    // -- virtual machines --------------------------------------------------------------------------

    /// Makes a VM whose RAM is absent everywhere; returns its number.
    ///
    /// # Errors
    /// When a range is not whole pages, or no node has room for the monitor's tables.
    pub fn create_vm(&mut self, ram: &[PhysRange], vcpus: u32) -> Result<u32> {
        if let Some(bad) = ram.iter().find(|range| !range.is_valid()) {
            return Err(MonitorError::BadRange(*bad));
        }
        if !(1..=VCPUS_MAX).contains(&vcpus) {
            return Err(MonitorError::Machine(format!(
                "a VM of {vcpus} vCPUs asked; possible are 1 to {VCPUS_MAX}"
            )));
        }
        let id = self.vms.len() as u32;
        let mut vm = Vm::new(id, ram, vcpus, self.config.l2tlb_entries)?;
        vm.table_pages = self.take_table_pages(id, ram, vcpus)?;
        self.vms.push(Some(Mutex::new(vm)));
        Ok(id)
    }

    /// The monitor's tables of a VM live in machine memory: a pmap row a page of RAM, and the TLBs.
    fn take_table_pages(&mut self, vm: u32, ram: &[PhysRange], vcpus: u32) -> Result<Vec<Mpn>> {
        const L2TLB_ENTRY_BYTES: u64 = 32;
        let rows: u64 = ram.iter().map(|range| range.bytes / PAGE_BYTES).sum();
        let tlbs = u64::from(vcpus) * self.config.l2tlb_entries as u64 * L2TLB_ENTRY_BYTES;
        let bytes = rows * size_of::<PmapRow>() as u64 + tlbs;
        let pages = bytes.div_ceil(PAGE_BYTES) as usize;
        let node = (0..self.config.nodes)
            .map(NodeId)
            .max_by_key(|node| (self.memmap.free_pages(*node), std::cmp::Reverse(node.0)))
            .filter(|node| self.memmap.free_pages(*node) >= pages)
            .ok_or(MonitorError::NoRoomForTables { vm, pages })?;
        let take = |_| self.memmap.allocate_for_monitor(node, vm).expect("counted above");
        Ok((0..pages).map(take).collect())
    }

    /// Frees every machine page of a VM and forgets it.
    ///
    /// # Errors
    /// [`MonitorError::NoVm`].
    pub fn destroy_vm(&mut self, vm: u32) -> Result<()> {
        self.vm(vm)?;
        for slot in &mut self.cpus {
            slot.forget(vm);
        }
        let gone = self.vms[vm as usize].take().expect("checked above");
        let gone = gone.into_inner().expect("no run panicked inside");
        for page in 0..gone.pmap.table().rows() as u32 {
            let row = gone.pmap.row(Ppn(page));
            if matches!(row.state(), PageState::Private | PageState::Shared) {
                self.memmap.release(Mpn(row.mpn), vm, Ppn(page));
            }
        }
        for page in gone.table_pages {
            self.memmap.release_for_monitor(page);
        }
        self.regroup();
        Ok(())
    }

    /// Resets a vCPU and makes it ready to run at `pc` with these registers. With vCPU 0, what connects it to
    /// others is reset too, and they wait for it to start them.
    ///
    /// # Errors
    /// [`MonitorError::NoVm`], [`MonitorError::NoVcpu`].
    pub fn set_vcpu(&mut self, vm: u32, vcpu: u32, pc: u64, gpr: &[(u8, u64)]) -> Result<()> {
        self.vcpu(vm, vcpu)?;
        for slot in &mut self.cpus {
            slot.unload(VcpuId { vm, vcpu }, &mut self.vms);
        }
        let now = self.now;
        let state = self.vm(vm)?;
        state.vcpus[vcpu as usize].reset(vcpu, pc, gpr);
        state.vcpus[vcpu as usize].cp0.set_count(0, now);
        if vcpu == 0 {
            state.reset_platform();
        }
        Ok(())
    }

    /// Puts a vCPU at the end of the run queue of a CPU, and takes it off another's.
    ///
    /// # Errors
    /// [`MonitorError::NoVm`], [`MonitorError::NoVcpu`], [`MonitorError::NoCpu`].
    pub fn assign(&mut self, vm: u32, vcpu: u32, cpu: u16) -> Result<()> {
        self.vcpu(vm, vcpu)?;
        let id = VcpuId { vm, vcpu };
        let cpus = self.cpus.len();
        if usize::from(cpu) >= cpus {
            return Err(MonitorError::NoCpu { cpu, cpus });
        }
        for slot in &mut self.cpus {
            slot.unload(id, &mut self.vms);
            slot.dequeue(|queued| queued == id);
        }
        self.cpus[usize::from(cpu)].queue.push(id);
        self.regroup();
        Ok(())
    }

    /// Looks at a vCPU with its registers where they are now.
    ///
    /// # Errors
    /// [`MonitorError::NoVm`], [`MonitorError::NoVcpu`].
    pub fn inspect<T>(
        &mut self,
        vm: u32,
        vcpu: u32,
        look: impl FnOnce(&Vcpu, &machine::Registers) -> T,
    ) -> Result<T> {
        self.vcpu(vm, vcpu)?;
        let id = VcpuId { vm, vcpu };
        let loaded = self.cpus.iter().find(|slot| slot.loaded == Some(id)).map(|slot| &slot.hardware.cpu.regs);
        let vm = self.vms[vm as usize].as_mut().expect("checked above").get_mut().expect("no run panicked inside");
        let vcpu = &vm.vcpus[vcpu as usize];
        Ok(look(vcpu, loaded.unwrap_or(&vcpu.regs)))
    }

    // -- devices -------------------------------------------------------------------------------------

    /// Declares whole pages as device registers.
    ///
    /// # Errors
    /// [`MonitorError::BadRange`]; [`MonitorError::PageState`] when a page is something else already.
    pub fn add_window(&mut self, vm: u32, range: PhysRange) -> Result<()> {
        if !range.is_valid() {
            return Err(MonitorError::BadRange(range));
        }
        let rows = self.vm(vm)?.pmap.table().rows();
        let vm_state = self.vm(vm)?;
        for page in range.pages() {
            let state = vm_state.pmap.row(page).state();
            if state != PageState::Nothing || page.0 as usize >= rows {
                let state = crate::miss::state_name(state);
                return Err(MonitorError::PageState { vm, page, state, needed: "free for a device" });
            }
        }
        for page in range.pages() {
            vm_state.pmap.declare(page, PageState::Device);
        }
        Ok(())
    }

    /// The VM's registers that need no trip to Python.
    ///
    /// # Errors
    /// [`MonitorError::NoVm`].
    pub fn windows(&mut self, vm: u32) -> Result<&mut crate::windows::Windows> {
        Ok(&mut self.vm(vm)?.windows)
    }

    /// Answers the device access that a vCPU waits for.
    ///
    /// # Errors
    /// [`MonitorError::NoAccess`] when it waits for none.
    pub fn complete_access(&mut self, vm: u32, vcpu: u32, value: u64) -> Result<()> {
        match &mut self.vcpu(vm, vcpu)?.state {
            VcpuState::Accessing(pending) if pending.answer.is_none() => {
                pending.answer = Some(value);
                Ok(())
            }
            _ => Err(MonitorError::NoAccess { vm, vcpu }),
        }
    }

    /// Drives the wire of a source of the VM's global interrupt controller.
    ///
    /// # Errors
    /// [`MonitorError::Machine`] for a source that does not exist, or a VM without such a controller.
    pub fn set_wire(&mut self, vm: u32, source: usize, level: bool) -> Result<()> {
        let smp = self.vm(vm)?.smp.as_mut();
        match smp.filter(|_| source < machine::gic::SOURCES) {
            Some(smp) => {
                smp.gic.set_wire(source, level);
                Ok(())
            }
            None => Err(MonitorError::Machine(format!(
                "interrupt source {source} of VM {vm} asked; possible are 0 to {} of a VM with several vCPUs",
                machine::gic::SOURCES - 1
            ))),
        }
    }

    /// Drives an external interrupt line of the vCPU of a VM that has one.
    ///
    /// # Errors
    /// [`MonitorError::NoVcpu`]; [`MonitorError::Machine`] for a line outside of 2 to 6.
    pub fn set_line(&mut self, vm: u32, vcpu: u32, line: u8, level: bool) -> Result<()> {
        if !(2..=6).contains(&line) {
            return Err(MonitorError::Machine(format!("interrupt line {line} asked; possible are 2 to 6")));
        }
        self.vcpu(vm, vcpu)?.set_line(line, level);
        Ok(())
    }

    // -- memory --------------------------------------------------------------------------------------

    /// Takes a free page of the node, zeroed, and gives it to an absent page of the VM, private and writable.
    /// `None`: the node is full.
    ///
    /// # Errors
    /// [`MonitorError::NoNode`]; [`MonitorError::PageState`] when the page is not absent RAM.
    pub fn place_page(&mut self, vm: u32, page: Ppn, node: u16) -> Result<Option<Mpn>> {
        self.check_node(node)?;
        self.check_state(vm, page, &[PageState::Absent], "absent RAM")?;
        let Some(mpn) = self.memmap.allocate(NodeId(node), vm, page) else { return Ok(None) };
        self.vm(vm)?.pmap.set_page(page, mpn, PageState::Private, true);
        self.charge_faulted(vm, self.config.costs.page_zero);
        Ok(Some(mpn))
    }

    /// Takes a page away from a VM; it is absent then, and its content is gone.
    ///
    /// # Errors
    /// [`MonitorError::PageState`] when the page is not present.
    pub fn unmap_page(&mut self, vm: u32, page: Ppn) -> Result<()> {
        self.check_state(vm, page, &[PageState::Private, PageState::Shared], "present")?;
        self.shoot_down(vm, page)?;
        let pmap = &mut self.vm(vm)?.pmap;
        let mpn = Mpn(pmap.row(page).mpn);
        pmap.declare(page, PageState::Absent);
        self.memmap.release(mpn, vm, page);
        Ok(())
    }

    /// Changes whether a VM may write a page of its own.
    ///
    /// # Errors
    /// [`MonitorError::PageState`] when the page is not private.
    pub fn protect_page(&mut self, vm: u32, page: Ppn, writable: bool) -> Result<()> {
        self.check_state(vm, page, &[PageState::Private], "private")?;
        self.shoot_down(vm, page)?;
        self.vm(vm)?.pmap.set_writable(page, writable);
        Ok(())
    }

    /// Copies a private page to a free page of the node and redirects the VM to it. `None`: the node is full.
    ///
    /// # Errors
    /// [`MonitorError::NoNode`]; [`MonitorError::PageState`] when the page is not private.
    pub fn move_page(&mut self, vm: u32, page: Ppn, node: u16) -> Result<Option<Mpn>> {
        self.check_node(node)?;
        self.check_state(vm, page, &[PageState::Private], "private")?;
        let Some(target) = self.memmap.allocate(NodeId(node), vm, page) else { return Ok(None) };
        self.shoot_down(vm, page)?;
        let pmap = &mut self.vm(vm)?.pmap;
        let row = pmap.row(page);
        pmap.set_page(page, target, PageState::Private, row.writable != 0);
        self.memory.copy_page(Mpn(row.mpn), target);
        self.memmap.release(Mpn(row.mpn), vm, page);
        self.charge_faulted(vm, self.config.costs.page_copy);
        Ok(Some(target))
    }

    /// Takes a physical page out of every TLB of its VM, by the backmaps of its pmap row.
    fn shoot_down(&mut self, vm: u32, page: Ppn) -> Result<()> {
        let row = self.vm(vm)?.pmap.row(page);
        let backmaps: Vec<Backmap> =
            row.backmaps[..usize::from(row.backmap_count)].iter().map(|raw| Backmap(*raw)).collect();
        let state = self.vm(vm)?;
        for vcpu in &mut state.vcpus {
            if row.overflowed != 0 {
                vcpu.l2tlb.shoot_down_page(Mpn(row.mpn));
            }
            for backmap in &backmaps {
                vcpu.l2tlb.shoot_down(backmap.vaddr());
            }
        }
        state.pmap.clear_backmaps(page);
        let costs = self.config.costs.shootdown;
        for slot in self.cpus.iter_mut().filter(|slot| slot.loaded.is_some_and(|id| id.vm == vm)) {
            slot.hardware.cpu.now.0 += costs;
            slot.shoot_down(Mpn(row.mpn));
        }
        Ok(())
    }

    /// Free pages of a node.
    ///
    /// # Errors
    /// [`MonitorError::NoNode`].
    pub fn free_pages(&self, node: u16) -> Result<usize> {
        self.check_node(node)?;
        Ok(self.memmap.free_pages(NodeId(node)))
    }

    /// Reads a VM's physical memory; absent pages read as zero.
    ///
    /// # Errors
    /// [`MonitorError::NotRam`].
    pub fn read_physical(&mut self, vm: u32, paddr: PhysAddr, into: &mut [u8]) -> Result<()> {
        self.check_ram(vm, paddr, into.len() as u64)?;
        let memory = Arc::clone(&self.memory);
        let pmap = &self.vm(vm)?.pmap;
        for (page, offset, piece) in pieces_mut(paddr, into) {
            let row = pmap.row(page);
            if row.state() == PageState::Absent {
                piece.fill(0);
            } else {
                memory.read(machine::MachineAddr(Mpn(row.mpn).address().0 + offset), piece);
            }
        }
        Ok(())
    }

    /// Writes a VM's physical memory.
    ///
    /// # Errors
    /// [`MonitorError::NotRam`]; [`MonitorError::NotPresent`] naming the first page that has to be placed or
    /// made writable. Nothing has been written then.
    pub fn write_physical(&mut self, vm: u32, paddr: PhysAddr, bytes: &[u8]) -> Result<()> {
        self.check_ram(vm, paddr, bytes.len() as u64)?;
        let memory = Arc::clone(&self.memory);
        let pmap = &self.vm(vm)?.pmap;
        if let Some((page, ..)) = pieces(paddr, bytes).find(|(page, ..)| pmap.row(*page).writable == 0) {
            return Err(MonitorError::NotPresent { vm, page });
        }
        for (page, offset, piece) in pieces(paddr, bytes) {
            memory.write(machine::MachineAddr(Mpn(pmap.row(page).mpn).address().0 + offset), piece);
        }
        Ok(())
    }

    /// Reads through a vCPU's own translation, as its kernel would, without side effects.
    ///
    /// # Errors
    /// [`MonitorError::NoTranslation`] at the first byte that has none.
    pub fn read_virtual(&mut self, vm: u32, vcpu: u32, vaddr: u64, into: &mut [u8]) -> Result<()> {
        let mut done = 0;
        while done < into.len() {
            let at = vaddr.wrapping_add(done as u64);
            let paddr = self.guest_physical(vm, vcpu, at)?;
            let length = (PAGE_BYTES - (at & (PAGE_BYTES - 1))).min((into.len() - done) as u64) as usize;
            self.read_physical(vm, paddr, &mut into[done..done + length])
                .map_err(|_| MonitorError::NoTranslation { vaddr: at })?;
            done += length;
        }
        Ok(())
    }

    fn guest_physical(&mut self, vm: u32, vcpu: u32, vaddr: u64) -> Result<PhysAddr> {
        use machine::segments::{Segment, classify, tlb_address};
        let none = MonitorError::NoTranslation { vaddr };
        let vcpu = self.vcpu(vm, vcpu)?;
        match classify(vaddr, machine::cp0::Mode::Kernel, &vcpu.cp0) {
            Err(_) => Err(none),
            Ok(Segment::Unmapped { phys, .. }) => Ok(PhysAddr(phys)),
            Ok(Segment::Mapped) => {
                let asid = machine::Asid(vcpu.cp0.entry_hi as u8);
                let index = vcpu.tlb.find(tlb_address(vaddr), asid).ok_or(none.clone())?;
                let entry = vcpu.tlb.get(index);
                let lo = entry.lo[entry.half(vaddr)];
                if lo & machine::tlb::entry_lo::V == 0 {
                    return Err(none);
                }
                Ok(PhysAddr(entry.physical(vaddr)))
            }
        }
    }

    // -- running -------------------------------------------------------------------------------------

    /// Runs rounds until there is something to decide, time reaches `until`, or nobody will ever run again.
    pub fn run(&mut self, until: Cycles) -> Vec<Event> {
        self.retry_faults();
        while self.now < until {
            let round_end = Cycles((self.now.0 / self.config.quantum.0 + 1) * self.config.quantum.0);
            self.run_cpus(round_end);
            let events = self.take_events();
            if !events.is_empty() {
                return events;
            }
            self.now = round_end;
            self.take_turns();
            let posted = self.take_posted(None);
            if !posted.is_empty() {
                return posted;
            }
            if !self.skip_idle_time(until) {
                break;
            }
        }
        Vec::new()
    }

    /// Python has seen every page fault: the accesses are tried again.
    fn retry_faults(&mut self) {
        for vm in self.vms.iter_mut().flatten() {
            for vcpu in &mut vm.get_mut().expect("no run panicked inside").vcpus {
                if vcpu.state == VcpuState::Faulted {
                    vcpu.state = VcpuState::Ready;
                }
            }
        }
    }

    fn run_cpus(&mut self, round_end: Cycles) {
        let round = Round {
            vms: &self.vms,
            costs: &self.config.costs,
            interleave: self.config.interleave,
            end: round_end,
        };
        let mut groups = grouped(&mut self.cpus, &self.groups);
        groups.retain(|group| group.iter().any(|slot| slot.hardware.cpu.now < round_end));
        match &self.threads {
            Some(threads) if groups.len() > 1 => threads.scope(|scope| {
                for group in groups {
                    scope.spawn(move |_| round.run(group));
                }
            }),
            _ => groups.into_iter().for_each(|group| round.run(group)),
        }
    }

    /// The events of the boundary, with a VM's posted stores before its first other event.
    fn take_events(&mut self) -> Vec<Event> {
        let mut events: Vec<Event> = self.cpus.iter_mut().flat_map(|slot| slot.events.drain(..)).collect();
        events.sort_by_key(Event::order);
        let mut told: Vec<u32> = Vec::new();
        let mut posted = Vec::new();
        for event in &events {
            let vm = event.vm();
            if !told.contains(&vm) {
                told.push(vm);
                posted.extend(self.take_posted(Some(vm)));
            }
        }
        posted.extend(events);
        posted
    }

    fn take_posted(&mut self, only: Option<u32>) -> Vec<Event> {
        let mut events = Vec::new();
        for vm in self.vms.iter_mut().flatten() {
            let vm = vm.get_mut().expect("no run panicked inside");
            if vm.windows.has_log() && only.is_none_or(|only| only == vm.id) {
                events.push(Event::PostedWrites { vm: vm.id, writes: vm.windows.take_log() });
            }
        }
        events
    }

    /// Rounds in which a CPU was idle are no part of a time slice: whether they are skipped must not show.
    fn take_turns(&mut self) {
        for slot in &mut self.cpus {
            if !std::mem::take(&mut slot.has_run) || slot.queue.len() < 2 {
                continue;
            }
            slot.slice_rounds_left = slot.slice_rounds_left.saturating_sub(1);
            if slot.slice_rounds_left == 0 {
                slot.slice_rounds_left = self.config.slice_rounds;
                slot.turn = (slot.turn + 1) % slot.queue.len();
            }
        }
    }

    /// When nobody can run, goes to the round in which the first timer is due. False: there is none.
    fn skip_idle_time(&mut self, until: Cycles) -> bool {
        let Some(next) = self.next_event() else { return false };
        let quantum = self.config.quantum.0;
        let round_start = Cycles(next.0.min(until.0) / quantum * quantum);
        if round_start > self.now {
            self.now = round_start;
            for slot in &mut self.cpus {
                slot.hardware.cpu.now = slot.hardware.cpu.now.max(round_start);
            }
        }
        true
    }

    /// When a vCPU can run next: now, at a timer, or never.
    pub fn next_event(&mut self) -> Option<Cycles> {
        let now = self.now;
        let mut next = Cycles::NEVER;
        for slot in &self.cpus {
            for id in &slot.queue {
                self.vms[id.vm as usize]
                    .as_mut()
                    .and_then(|vm| vm.get_mut().ok())
                    .expect("run queues name existing VMs")
                    .refresh_lines(id.vcpu);
                let vcpu = vcpu_of(&mut self.vms, *id);
                if vcpu.is_runnable(now) || vcpu.is_blocked() {
                    return Some(now);
                }
                next = next.min(vcpu.wake_time());
            }
        }
        (next != Cycles::NEVER).then_some(next)
    }

    /// What has been counted for a vCPU.
    ///
    /// # Errors
    /// [`MonitorError::NoVm`], [`MonitorError::NoVcpu`].
    pub fn counters(&mut self, vm: u32, vcpu: u32) -> Result<Counters> {
        Ok(self.vcpu(vm, vcpu)?.counters.clone())
    }

    /// Instructions executed by a CPU and its time.
    ///
    /// # Errors
    /// [`MonitorError::NoCpu`].
    pub fn cpu_progress(&self, cpu: u16) -> Result<(u64, Cycles)> {
        let slot = self.cpus.get(usize::from(cpu)).ok_or(MonitorError::NoCpu { cpu, cpus: self.cpus.len() })?;
        Ok((slot.hardware.cpu.instructions, slot.hardware.cpu.now))
    }

    /// Records the next miss of that kind on any vCPU of the VM.
    ///
    /// # Errors
    /// [`MonitorError::NoVm`].
    pub fn follow(&mut self, vm: u32, kind: MissKind) -> Result<()> {
        for vcpu in &mut self.vm(vm)?.vcpus {
            vcpu.follower = Some(Box::new(Follower::new(kind)));
        }
        Ok(())
    }

    // -- inside --------------------------------------------------------------------------------------

    /// A VM by its number.
    ///
    /// # Errors
    /// [`MonitorError::NoVm`].
    pub fn vm(&mut self, vm: u32) -> Result<&mut Vm> {
        let state = self.vms.get_mut(vm as usize).and_then(Option::as_mut).ok_or(MonitorError::NoVm(vm))?;
        Ok(state.get_mut().expect("no run panicked inside"))
    }

    fn vcpu(&mut self, vm: u32, vcpu: u32) -> Result<&mut Vcpu> {
        let state = self.vm(vm)?;
        let vcpus = state.vcpus.len();
        state.vcpus.get_mut(vcpu as usize).ok_or(MonitorError::NoVcpu { vm, vcpu, vcpus })
    }

    fn check_node(&self, node: u16) -> Result<()> {
        let nodes = self.config.nodes;
        if node < nodes { Ok(()) } else { Err(MonitorError::NoNode { node, nodes }) }
    }

    fn check_state(&mut self, vm: u32, page: Ppn, wanted: &[PageState], needed: &'static str) -> Result<()> {
        let state = self.vm(vm)?.pmap.row(page).state();
        if wanted.contains(&state) {
            return Ok(());
        }
        Err(MonitorError::PageState { vm, page, state: crate::miss::state_name(state), needed })
    }

    fn check_ram(&mut self, vm: u32, paddr: PhysAddr, bytes: u64) -> Result<()> {
        let error = MonitorError::NotRam { vm, paddr, bytes };
        let end = paddr.0.checked_add(bytes).filter(|end| *end <= 1 << 36).ok_or(error.clone())?;
        let pmap = &self.vm(vm)?.pmap;
        let is_ram = |page: u64| {
            matches!(
                pmap.row(Ppn(page as u32)).state(),
                PageState::Absent | PageState::Private | PageState::Shared
            )
        };
        let mut pages = paddr.0 / PAGE_BYTES..end.div_ceil(PAGE_BYTES);
        if pages.all(is_ram) { Ok(()) } else { Err(error) }
    }

    /// Charges the monitor's work on a page to the CPU whose vCPU waits for it.
    fn charge_faulted(&mut self, vm: u32, cycles: u64) {
        for slot in &mut self.cpus {
            let Some(id) = slot.loaded.filter(|id| id.vm == vm) else { continue };
            let vcpu = vcpu_of(&mut self.vms, id);
            if vcpu.state == VcpuState::Faulted {
                slot.hardware.cpu.now.0 += cycles;
                vcpu.charge(cycles);
            }
        }
    }

    /// CPUs that share a VM belong together; so do those that share one with a CPU of the group.
    fn regroup(&mut self) {
        let mut groups: Vec<(Vec<usize>, Vec<u32>)> = Vec::new();
        for (cpu, slot) in self.cpus.iter().enumerate().filter(|(_, slot)| !slot.queue.is_empty()) {
            let mut cpus = vec![cpu];
            let mut vms: Vec<u32> = slot.queue.iter().map(|id| id.vm).collect();
            groups.retain(|(other_cpus, other_vms)| {
                let is_apart = !other_vms.iter().any(|vm| vms.contains(vm));
                if !is_apart {
                    cpus.extend(other_cpus);
                    vms.extend(other_vms);
                }
                is_apart
            });
            cpus.sort_unstable();
            groups.push((cpus, vms));
        }
        self.groups = groups.into_iter().map(|(cpus, _)| cpus).collect();
    }
}

/// What running CPUs need to know, the same for all.
#[derive(Clone, Copy)]
struct Round<'a> {
    vms: &'a Vms,
    costs: &'a Costs,
    interleave: Cycles,
    end: Cycles,
}

impl Round<'_> {
    /// Runs the CPUs of a group to the end of the round: one alone in one go, several in short slices in turn.
    /// When one needs a decision, the others wait for it at the end of the slice.
    fn run(self, mut group: Vec<&mut CpuSlot>) {
        if let [slot] = group.as_mut_slice() {
            return slot.run(self.vms, self.costs, self.end);
        }
        loop {
            let latest = group.iter().map(|slot| slot.hardware.cpu.now).min().unwrap_or(self.end);
            if latest >= self.end {
                return;
            }
            let slice_end = Cycles((latest.0 / self.interleave.0 + 1) * self.interleave.0).min(self.end);
            for slot in &mut group {
                slot.run(self.vms, self.costs, slice_end);
            }
            if group.iter().any(|slot| slot.hardware.cpu.now < slice_end) {
                return;
            }
        }
    }
}

impl CpuSlot {
    /// Runs the CPU to the bound, or until its vCPU needs a decision.
    fn run(&mut self, vms: &Vms, costs: &Costs, until: Cycles) {
        while self.hardware.cpu.now < until {
            let Some(id) = self.choose(vms) else {
                self.idle(vms, until);
                continue;
            };
            let mut vm = lock(vms, id.vm);
            if vm.vcpus[id.vcpu as usize].is_blocked() {
                return;
            }
            self.has_run = true;
            self.load(id, &mut vm, vms, costs);
            running(&mut self.hardware, &mut vm, id.vcpu, costs, &mut self.events).run(until);
            if vm.smp.is_some() {
                // Others may write to the line before this vCPU runs again: its SC must not succeed then.
                self.hardware.cpu.regs.ll_bit = false;
                vm.apply_power_actions();
                vm.share_clock(self.hardware.cpu.now);
            }
        }
    }

    /// The vCPU whose turn it is, or the next one that can run. One that needs a decision keeps its CPU.
    fn choose(&mut self, vms: &Vms) -> Option<VcpuId> {
        let now = self.hardware.cpu.now;
        for step in 0..self.queue.len() {
            let place = (self.turn + step) % self.queue.len();
            let id = self.queue[place];
            let mut vm = lock(vms, id.vm);
            vm.refresh_lines(id.vcpu);
            let vcpu = &mut vm.vcpus[id.vcpu as usize];
            if vcpu.is_blocked() || vcpu.is_runnable(now) {
                self.turn = place;
                return Some(id);
            }
        }
        None
    }

    /// Nobody can run: to the first timer, or to the end of the round.
    fn idle(&mut self, vms: &Vms, round_end: Cycles) {
        let wake = self
            .queue
            .iter()
            .map(|id| lock(vms, id.vm).vcpus[id.vcpu as usize].wake_time())
            .min()
            .unwrap_or(Cycles::NEVER);
        self.hardware.cpu.now = wake.clamp(self.hardware.cpu.now, round_end);
    }

    /// Puts a vCPU on the CPU. ASIDs are the guest's own, so the TLB is flushed (SOSP'97 section 4.2.2).
    fn load(&mut self, id: VcpuId, vm: &mut Vm, vms: &Vms, costs: &Costs) {
        if let VcpuState::Starting(address) = vm.vcpus[id.vcpu as usize].state {
            self.loaded = self.loaded.filter(|loaded| *loaded != id);
            let now = self.hardware.cpu.now;
            let count = vm.vcpus[0].cp0.count(now);
            vm.vcpus[id.vcpu as usize].reset(id.vcpu, address, &[]);
            vm.vcpus[id.vcpu as usize].cp0.set_count(count, now);
        }
        if self.loaded == Some(id) {
            return;
        }
        if let Some(old) = self.loaded.take() {
            if old.vm == id.vm {
                std::mem::swap(&mut self.hardware.cpu.regs, &mut vm.vcpus[old.vcpu as usize].regs);
            } else {
                let mut old_vm = lock(vms, old.vm);
                std::mem::swap(&mut self.hardware.cpu.regs, &mut old_vm.vcpus[old.vcpu as usize].regs);
            }
        }
        let vcpu = &mut vm.vcpus[id.vcpu as usize];
        std::mem::swap(&mut self.hardware.cpu.regs, &mut vcpu.regs);
        self.loaded = Some(id);
        self.hardware.cpu.tlb_flush();
        self.hardware.cpu.now.0 += costs.vcpu_switch;
        vcpu.counters.vcpu_switches += 1;
        vcpu.charge(costs.vcpu_switch);
        running(&mut self.hardware, vm, id.vcpu, costs, &mut self.events).sync_hardware();
    }

    /// Takes a vCPU's registers off the CPU, if they are on it.
    fn unload(&mut self, id: VcpuId, vms: &mut Vms) {
        if self.loaded == Some(id) {
            std::mem::swap(&mut self.hardware.cpu.regs, &mut vcpu_of(vms, id).regs);
            self.hardware.cpu.tlb_flush();
            self.loaded = None;
        }
    }

    /// Forgets a VM that is about to go.
    fn forget(&mut self, vm: u32) {
        if self.loaded.is_some_and(|id| id.vm == vm) {
            self.hardware.cpu.tlb_flush();
            self.loaded = None;
        }
        self.dequeue(|id| id.vm == vm);
        self.events.retain(|event| event.vm() != vm);
    }

    fn dequeue(&mut self, condition: impl Fn(VcpuId) -> bool) {
        self.queue.retain(|id| !condition(*id));
        self.turn = if self.queue.is_empty() { 0 } else { self.turn % self.queue.len() };
    }

    /// Takes a machine page out of the hardware TLB.
    fn shoot_down(&mut self, page: Mpn) {
        for index in 0..self.hardware.cpu.tlb().len() {
            let entry = self.hardware.cpu.tlb().get(index);
            let holds = |lo: &u64| *lo & machine::tlb::entry_lo::V != 0 && crate::miss::machine_page(*lo) == page;
            if !entry.hidden && entry.lo.iter().any(holds) {
                self.hardware.cpu.tlb_invalidate(index);
            }
        }
    }
}

/// A vCPU on a CPU.
fn running<'a>(
    hardware: &'a mut HardwareCpu,
    vm: &'a mut Vm,
    vcpu: u32,
    costs: &'a Costs,
    events: &'a mut Vec<Event>,
) -> Running<'a> {
    Running {
        hardware,
        vm: vm.id,
        pmap: &mut vm.pmap,
        windows: &mut vm.windows,
        smp: &mut vm.smp,
        vcpu_index: vcpu,
        vcpu: &mut vm.vcpus[vcpu as usize],
        costs,
        events,
    }
}

/// Each group's CPUs, apart from the others'.
fn grouped<'a>(cpus: &'a mut [CpuSlot], groups: &[Vec<usize>]) -> Vec<Vec<&'a mut CpuSlot>> {
    let mut work: Vec<Vec<&mut CpuSlot>> = groups.iter().map(|_| Vec::new()).collect();
    for (index, slot) in cpus.iter_mut().enumerate() {
        match groups.iter().position(|group| group.contains(&index)) {
            Some(group) => work[group].push(slot),
            None => work.push(vec![slot]),
        }
    }
    work
}

/// A VM that is on a run queue. The lock is never contended: CPUs that share a VM run on one thread.
fn lock(vms: &Vms, vm: u32) -> std::sync::MutexGuard<'_, Vm> {
    let vm = vms[vm as usize].as_ref().expect("run queues name existing VMs");
    vm.try_lock().expect("CPUs that share a VM run on one host thread")
}

fn vcpu_of(vms: &mut Vms, id: VcpuId) -> &mut Vcpu {
    let vm = vms[id.vm as usize].as_mut().expect("run queues name existing VMs");
    &mut vm.get_mut().expect("no run panicked inside").vcpus[id.vcpu as usize]
}

fn check(config: &MonitorConfig) -> Result<()> {
    let fail = |text: String| Err(MonitorError::Machine(text));
    let cpus = config.node_of_cpu.len();
    if !(1..=128).contains(&cpus) {
        return fail(format!("{cpus} CPUs asked; possible are 1 to 128"));
    }
    if let Some(node) = config.node_of_cpu.iter().find(|node| **node >= config.nodes) {
        return fail(format!("a CPU on node {node} asked; the machine has {} nodes", config.nodes));
    }
    if !(100..=config.quantum.0).contains(&config.interleave.0) {
        return fail(format!(
            "an interleave of {} cycles asked; possible are 100 to {}, a quantum",
            config.interleave.0, config.quantum.0
        ));
    }
    if config.quantum.0 < 1000 {
        return fail(format!("a quantum of {} cycles asked; possible are 1000 and more", config.quantum.0));
    }
    if !(8..=64).contains(&config.tlb_entries) {
        return fail(format!("{} TLB entries asked; possible are 8 to 64", config.tlb_entries));
    }
    if !L2Tlb::is_size(config.l2tlb_entries) {
        return fail(format!(
            "a second-level TLB of {} entries asked; possible are 0 (off) and powers of two from 4",
            config.l2tlb_entries
        ));
    }
    if config.slice_rounds == 0 || config.host_threads == 0 {
        return fail("slice_rounds and host_threads must be at least 1".to_owned());
    }
    Ok(())
}

/// The pages that a stretch of physical memory lies in: page, offset in it, length.
fn spans(paddr: PhysAddr, bytes: usize) -> impl Iterator<Item = (Ppn, u64, usize)> {
    let mut at = paddr.0;
    let end = paddr.0 + bytes as u64;
    std::iter::from_fn(move || {
        (at < end).then(|| {
            let offset = at & (PAGE_BYTES - 1);
            let length = (PAGE_BYTES - offset).min(end - at);
            let page = PhysAddr(at).page();
            at += length;
            (page, offset, length as usize)
        })
    })
}

fn pieces(paddr: PhysAddr, bytes: &[u8]) -> impl Iterator<Item = (Ppn, u64, &[u8])> {
    let mut rest = bytes;
    spans(paddr, bytes.len()).map(move |(page, offset, length)| {
        let (piece, behind) = rest.split_at(length);
        rest = behind;
        (page, offset, piece)
    })
}

fn pieces_mut(paddr: PhysAddr, bytes: &mut [u8]) -> impl Iterator<Item = (Ppn, u64, &mut [u8])> {
    let length = bytes.len();
    let mut rest = bytes;
    spans(paddr, length).map(move |(page, offset, length)| {
        let (piece, behind) = std::mem::take(&mut rest).split_at_mut(length);
        rest = behind;
        (page, offset, piece)
    })
}
