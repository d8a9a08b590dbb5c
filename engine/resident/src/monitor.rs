//! The machine under the monitor: rounds, run queues, and everything that happens between rounds.
//!
//! Time advances in rounds of one quantum, or of several while nothing happens. In a round each CPU runs its vCPU to the end of the round. A vCPU
//! that needs a decision stops; its CPU stands still while the others finish; then [`Monitor::run`] returns
//! the events in the order (cycle, CPU), Python decides, and the CPU catches up before time goes on. So what
//! VMs see of each other is decided at boundaries only, and CPUs of different VMs can run on different host
//! threads with the same result.
//!
//! Who runs where is dealt when a round begins ([`crate::schedule`]), and vCPUs change their CPU only then. In the
//! round a CPU runs the first of those that it was dealt; one that waits makes way at once for the next.

mod census;
mod config;
mod content;
mod error;
mod footprint;
mod pages;
mod plan;
mod rounds;
mod sharing;
mod transfer;

pub use config::{EngineKind, MonitorConfig};
pub use content::ContentCounts;
pub use error::MonitorError;
pub use footprint::{Footprint, FootprintPages, Use};
pub use transfer::Transferred;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use machine::services::{Cost, Service};
use machine::smp::CPUS_MAX;
use machine::{CpuConfig, Cycles, MachineMemory, Mpn, NodeId, PAGE_BYTES, PhysAddr, PhysRange};

use crate::Counters;
use crate::counters::{ByCause, CpuTime};
use crate::event::Event;
use crate::follow::{Follower, MissKind};
use crate::host_threads::{Habit, HostThreads, Task, Work};
use crate::memmap::{Memmap, VMS_MAX};
use crate::pmap::{PageState, Pmap};
use crate::schedule::{Pool, PoolPlan, VcpuId};
use crate::vcpu::{HardwareCpu, Vcpu, VcpuState};
use crate::vm::Vm;
use content::Contents;
use error::Result;
use rounds::{CpuSlot, Cpus, Group, Round, Vms, refreshed};

/// The longest round, in quanta. A boot of four VMs on two host threads takes a seventh less time than with rounds of
/// one, because what each VM finds in the caches is worth more and the threads wait less for each other. A VM that
/// has begun to talk to others waits that long once: rounds are of one quantum as soon as something happens.
const ROUND_QUANTA_MAX: u64 = 16;

/// The machine with the resident part of the monitor on it.
#[derive(Debug)]
pub struct Monitor {
    config: MonitorConfig,
    memory: Arc<MachineMemory>,
    memmap: Memmap,
    cpus: Cpus,
    vms: Vms,
    pools: Vec<Pool>,
    contents: Contents,
    /// The last boundary.
    now: Cycles,
    /// The round that has begun last: from when to when.
    begun: Option<(Cycles, Cycles)>,
    /// Quanta of the next round; 0 as soon as something has happened in this one.
    quanta: u64,
    /// All CPUs that have something on their run queues.
    groups: Vec<Task<Group>>,
    threads: HostThreads<Group>,
}

impl Monitor {
    /// A machine without VMs.
    ///
    /// # Errors
    /// [`MonitorError`] naming what was asked and what is possible.
    pub fn new(config: MonitorConfig) -> Result<Monitor> {
        config.check()?;
        let memory = Arc::new(MachineMemory::new(config.nodes, config.memory_bytes_per_node)?);
        let cpu_config = CpuConfig { tlb_entries: config.tlb_entries, ..CpuConfig::hardware() };
        let mut cpus: Cpus = (0u16..)
            .zip(&config.node_of_cpu)
            .map(|(id, node)| {
                Some(Box::new(CpuSlot {
                    hardware: HardwareCpu::new(id, NodeId(*node), cpu_config.clone(), Arc::clone(&memory)),
                    queue: Vec::new(),
                    turn: 0,
                    running: None,
                    loaded: None,
                    time: CpuTime::default(),
                    events: Vec::new(),
                }))
            })
            .collect();
        let accelerators = config.engine.accelerators(config.node_of_cpu.len(), config.host_threads)?;
        for (slot, accelerator) in cpus.iter_mut().flatten().zip(accelerators) {
            slot.hardware.cpu.set_accelerator(accelerator);
        }
        let threads = HostThreads::new(config.host_threads.min(cpus.len()))
            .map_err(|error| MonitorError::Machine(format!("{} host threads: {error}", config.host_threads)))?;
        let memmap = Memmap::new(Arc::clone(&memory))?;
        let alone =
            |cpu| PoolPlan { cpus: vec![cpu], vcpus: Vec::new(), gang: false, slice_rounds: config.slice_rounds };
        let pools = (0..cpus.len() as u16).map(|cpu| Pool::new(&alone(cpu), |_| None)).collect();
        Ok(Monitor {
            config,
            memory,
            memmap,
            cpus,
            vms: Vec::new(),
            pools,
            contents: Contents::default(),
            now: Cycles(0),
            begun: None,
            quanta: 1,
            groups: Vec::new(),
            threads,
        })
    }

    /// Simulated time of the last boundary.
    pub fn now(&self) -> Cycles {
        self.now
    }

    /// Length of a round.
    pub fn quantum(&self) -> Cycles {
        self.config.quantum
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
        if !(1..=CPUS_MAX).contains(&vcpus) {
            return Err(MonitorError::Machine(format!(
                "a VM of {vcpus} vCPUs asked; possible are 1 to {CPUS_MAX}"
            )));
        }
        let id = self.vms.len() as u32;
        if id >= VMS_MAX {
            return Err(MonitorError::Machine(format!("VM {id} asked; a machine can have had {VMS_MAX}")));
        }
        let mut vm = Vm::new(id, ram, vcpus, self.config.l2tlb_entries, self.config.large_pages)?;
        vm.table_pages = self.take_table_pages(id, ram, vcpus)?;
        self.vms.push(Some(vm));
        self.make_room_for_code();
        Ok(id)
    }

    /// VMs that take turns on a CPU shall not displace each other's decoded code: room for each but the first.
    fn make_room_for_code(&mut self) {
        /// 2 MiB.
        const CHUNKS_A_VM: usize = 3000;
        let further = self.vms.iter().flatten().count().saturating_sub(1);
        let cpus = self.config.node_of_cpu.len();
        for slot in self.cpus.iter_mut().flatten() {
            slot.hardware.cpu.set_further_decoded_chunks(further * CHUNKS_A_VM / cpus);
        }
    }

    /// The monitor's tables of a VM live in machine memory: the pmap, and the TLBs. What has been set aside for other VMs
    /// is taken for them when no node has room without it.
    fn take_table_pages(&mut self, vm: u32, ram: &[PhysRange], vcpus: u32) -> Result<Vec<Mpn>> {
        const L2TLB_ENTRY_BYTES: u64 = 32;
        let ram_pages: u64 = ram.iter().map(|range| range.bytes / PAGE_BYTES).sum();
        let tlbs = u64::from(vcpus) * self.config.l2tlb_entries as u64 * L2TLB_ENTRY_BYTES;
        let bytes = Pmap::bytes(ram_pages) + tlbs;
        let pages = bytes.div_ceil(PAGE_BYTES) as usize;
        let node = self.node_with_most_room(pages).or_else(|| {
            self.put_reserves_back();
            self.node_with_most_room(pages)
        });
        let node = node.ok_or(MonitorError::NoRoomForTables { vm, pages })?;
        let take = |_| self.memmap.allocate_for_monitor(node, vm).expect("counted above");
        Ok((0..pages).map(take).collect())
    }

    /// The node with the most free pages, the first of several, if it has that many.
    fn node_with_most_room(&self, pages: usize) -> Option<NodeId> {
        (0..self.config.nodes)
            .map(NodeId)
            .max_by_key(|node| (self.memmap.free_pages(*node), std::cmp::Reverse(node.0)))
            .filter(|node| self.memmap.free_pages(*node) >= pages)
    }

    /// Frees every machine page of a VM and forgets it.
    ///
    /// # Errors
    /// [`MonitorError::NoVm`].
    pub fn destroy_vm(&mut self, vm: u32) -> Result<()> {
        self.vm(vm)?;
        for slot in self.cpus.iter_mut().flatten() {
            slot.forget(vm);
        }
        for pool in &mut self.pools {
            pool.remove(|id| id.vm == vm);
        }
        let mut gone = self.vms[vm as usize].take().expect("checked above");
        self.contents.forget(vm);
        self.memmap.put_back(gone.reserve.take_rest());
        self.memmap.release_all(vm, gone.pmap.present().map(|(page, row)| (Mpn(row.mpn), page)));
        for page in gone.table_pages {
            self.memmap.release_for_monitor(page);
        }
        self.make_room_for_code();
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
        for slot in self.cpus.iter_mut().flatten() {
            slot.unload(VcpuId { vm, vcpu }, &mut self.vms);
        }
        let now = self.now;
        let state = self.vm(vm)?;
        state.vcpus[vcpu as usize].reset(vcpu, pc, gpr, now);
        state.vcpus[vcpu as usize].cp0.set_count(0, now);
        if vcpu == 0 {
            state.reset_platform();
        }
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
        let loaded =
            self.cpus.iter().flatten().find(|slot| slot.loaded == Some(id)).map(|slot| &slot.hardware.cpu.regs);
        let vm = self.vms[vm as usize].as_mut().expect("checked above");
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
            vm_state.pmap.set_device(page);
        }
        Ok(())
    }

    /// The VM's registers that need no trip to Python.
    ///
    /// # Errors
    /// [`MonitorError::NoVm`].
    pub fn windows(&mut self, vm: u32) -> Result<&mut machine::windows::Windows> {
        Ok(&mut self.vm(vm)?.windows)
    }

    /// Clears bits of an interrupt that stores to `clear` clear, sets some, and drives its line. What it has then.
    ///
    /// # Errors
    /// [`MonitorError::NoVm`]; [`MonitorError::Machine`] when there is no such interrupt.
    pub fn update_interrupt(&mut self, vm: u32, clear: PhysAddr, cleared: u32, raised: u32) -> Result<u32> {
        let updated = self.windows(vm)?.update_interrupt(clear, cleared, raised);
        let (bits, level) =
            updated.ok_or_else(|| MonitorError::Machine(format!("VM {vm} has no interrupt at {clear}")))?;
        if self.vm(vm)?.smp.is_some() {
            self.set_wire(vm, level.line.into(), level.is_high)?;
        } else {
            self.set_line(vm, 0, level.line, level.is_high)?;
        }
        if raised != 0 {
            // Whoever gets an interrupt soon has something for the device again, which waits for the round's end.
            self.quanta = u64::from(self.is_at_boundary());
        }
        Ok(bits)
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

    /// Lets a vCPU try the access again that needs a page no earlier than at `until`. Others have its CPU meanwhile.
    ///
    /// # Errors
    /// [`MonitorError::VcpuState`] when it needs no page.
    pub fn postpone_fault(&mut self, vm: u32, vcpu: u32, until: Cycles) -> Result<()> {
        let state = &mut self.vcpu(vm, vcpu)?.state;
        if !matches!(state, VcpuState::Faulted(_)) {
            let state = format!("{state:?}");
            return Err(MonitorError::VcpuState { vm, vcpu, state, needed: "in need of a page" });
        }
        *state = VcpuState::Postponed(until);
        Ok(())
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

    // -- running -------------------------------------------------------------------------------------

    /// Runs rounds until there is something to decide, time reaches `until`, or nobody will ever run again.
    pub fn run(&mut self, until: Cycles) -> Vec<Event> {
        self.retry_faults();
        while self.now < until {
            if self.is_at_boundary() {
                if !self.skip_idle_time(until) || self.now >= until {
                    break;
                }
                self.begin_round();
            }
            let round_end = self.round_end();
            self.run_cpus(round_end);
            self.settle_reserves();
            let events = self.take_events();
            if !events.is_empty() {
                // That somebody looks makes no round shorter.
                if !events.iter().all(|event| matches!(event, Event::Paused { .. })) {
                    self.quanta = 0;
                }
                return events;
            }
            self.now = round_end;
            self.quanta = (2 * self.quanta).clamp(1, ROUND_QUANTA_MAX);
            let posted = self.take_posted(None);
            if !posted.is_empty() {
                return posted;
            }
        }
        Vec::new()
    }

    /// Whether no round is under way.
    fn is_at_boundary(&self) -> bool {
        self.begun.is_none_or(|(start, _)| start != self.now)
    }

    /// Deals, and decides when the round ends: after a quantum where vCPUs share CPUs; where each has its own, a
    /// round without an event is followed by one of twice the length. It never depends on how long somebody asked
    /// for, and begins and ends at multiples of its length, or with the next shorter ones.
    fn begin_round(&mut self) {
        self.deal();
        if !self.pools.iter().all(Pool::is_settled) {
            self.quanta = 1;
        }
        let length = self.config.quantum.0 * self.quanta;
        self.begun = Some((self.now, Cycles((self.now.0 / length + 1) * length)));
    }

    fn round_end(&self) -> Cycles {
        self.begun.expect("a round has begun").1
    }

    /// Python has seen every page fault: the accesses are tried again.
    fn retry_faults(&mut self) {
        for vm in self.vms.iter_mut().flatten() {
            for vcpu in &mut vm.vcpus {
                if matches!(vcpu.state, VcpuState::Faulted(_)) {
                    vcpu.state = VcpuState::Ready;
                }
            }
        }
    }

    /// Runs each CPU to the end of the round, or until it needs a decision.
    fn run_cpus(&mut self, round_end: Cycles) {
        let (cpus, vms) = (&mut self.cpus, &mut self.vms);
        for slot in cpus.iter_mut().flatten().filter(|slot| slot.queue.is_empty()) {
            slot.idle_until(round_end);
        }
        let is_busy = |group: &Task<Group>| group.work.is_busy(cpus, vms, round_end);
        let (mut busy, mut idle): (Vec<_>, Vec<_>) = self.groups.drain(..).partition(is_busy);
        for group in busy.iter_mut().chain(&mut idle) {
            group.work.gather(cpus, vms, round_end);
        }
        // Whoever has nothing to execute lets time go by: no work for another thread.
        idle.iter_mut().for_each(|group| group.work.run());
        self.threads.run(&mut busy);
        for group in busy.iter_mut().chain(&mut idle) {
            group.work.scatter(cpus, vms);
        }
        self.groups.append(&mut busy);
        self.groups.append(&mut idle);
    }

    /// The events of the boundary, with a VM's posted stores before its first other event.
    fn take_events(&mut self) -> Vec<Event> {
        let mut events: Vec<Event> =
            self.cpus.iter_mut().flatten().flat_map(|slot| slot.events.drain(..)).collect();
        events.sort_by_key(Event::order);
        // vCPUs of a VM may need the same page: it is asked for once, and all of them try again.
        let mut asked = BTreeSet::new();
        events.retain(|event| match event {
            Event::PageFault { vm, page, .. } => asked.insert((*vm, *page)),
            _ => true,
        });
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
            if vm.windows.has_log() && only.is_none_or(|only| only == vm.id) {
                events.push(Event::PostedWrites { vm: vm.id, writes: vm.windows.take_log() });
            }
        }
        events
    }

    /// When nobody can run, goes to the quantum in which the first timer is due. False: there is none.
    fn skip_idle_time(&mut self, until: Cycles) -> bool {
        let Some(next) = self.next_event() else { return false };
        let quantum = self.config.quantum.0;
        let round_start = Cycles((next.0 / quantum).min(until.0.div_ceil(quantum)) * quantum);
        if round_start > self.now {
            self.now = round_start;
            for slot in self.cpus.iter_mut().flatten() {
                slot.idle_until(round_start);
            }
        }
        true
    }

    /// When a vCPU can run next: now, at a timer, or never.
    pub fn next_event(&mut self) -> Option<Cycles> {
        let now = self.now;
        let mut next = Cycles::NEVER;
        for (id, _) in self.pools.iter().flat_map(Pool::members) {
            let vcpu = refreshed(&mut self.vms, id);
            if vcpu.is_runnable(now) || vcpu.is_blocked() {
                return Some(now);
            }
            next = next.min(vcpu.wake_time());
        }
        (next != Cycles::NEVER).then_some(next)
    }

    /// What has been counted for a vCPU up to now.
    ///
    /// # Errors
    /// [`MonitorError::NoVm`], [`MonitorError::NoVcpu`].
    pub fn counters(&mut self, vm: u32, vcpu: u32) -> Result<Counters> {
        let now = self.now;
        let vcpu = self.vcpu(vm, vcpu)?;
        let mut counters = vcpu.counters.clone();
        let (idle, waiting) = vcpu.absence(now);
        counters.cycles_idle += idle;
        counters.cycles_waiting += waiting;
        Ok(counters)
    }

    /// Instructions executed by a CPU and its time.
    ///
    /// # Errors
    /// [`MonitorError::NoCpu`].
    pub fn cpu_progress(&self, cpu: u16) -> Result<(u64, Cycles)> {
        let cpu = &self.cpu(cpu)?.hardware.cpu;
        Ok((cpu.instructions, cpu.now))
    }

    /// Host time that the translators of all CPUs have spent so far.
    pub fn translation_time(&self) -> Duration {
        let accelerators = self.cpus.iter().flatten().filter_map(|slot| slot.hardware.cpu.accelerator());
        accelerators.map(|accelerator| accelerator.translation_time()).sum()
    }

    /// Where the time of a CPU has gone.
    ///
    /// # Errors
    /// [`MonitorError::NoCpu`].
    pub fn cpu_time(&self, cpu: u16) -> Result<CpuTime> {
        Ok(self.cpu(cpu)?.time)
    }

    fn cpu(&self, cpu: u16) -> Result<&CpuSlot> {
        let slot = self.cpus.get(usize::from(cpu)).and_then(Option::as_deref);
        slot.ok_or(MonitorError::NoCpu { cpu, cpus: self.cpus.len() })
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

    /// Pauses vCPUs of the VM before the instructions at these addresses, and at no others. With none, they are executed as
    /// ever once they have been told to go on.
    ///
    /// # Errors
    /// [`MonitorError::NoVm`].
    pub fn set_breakpoints(&mut self, vm: u32, addresses: &[u64]) -> Result<()> {
        for vcpu in &mut self.vm(vm)?.vcpus {
            if !addresses.is_empty() || vcpu.debugger.is_some() {
                vcpu.debugger.get_or_insert_default().set_breakpoints(addresses.iter().copied());
            }
        }
        Ok(())
    }

    /// Lets paused vCPUs of the VM go on. `steps`: one of them, whatever its state, pauses after so many instructions.
    ///
    /// # Errors
    /// [`MonitorError::NoVm`].
    pub fn go_on(&mut self, vm: u32, steps: Option<(u32, u64)>) -> Result<()> {
        for (index, vcpu) in (0..).zip(&mut self.vm(vm)?.vcpus) {
            let count = steps.filter(|(stepped, _)| *stepped == index).map(|(_, count)| count);
            let is_paused = vcpu.state == VcpuState::Paused;
            if count.is_some() {
                vcpu.debugger.get_or_insert_default();
            }
            if let Some(debugger) = vcpu.debugger.as_mut().filter(|_| is_paused || count.is_some()) {
                debugger.go_on(vcpu.counters.instructions, count);
            }
            if is_paused {
                vcpu.state = VcpuState::Ready;
            }
            if vcpu.debugger.as_ref().is_some_and(|debugger| debugger.is_idle()) {
                vcpu.debugger = None;
            }
        }
        Ok(())
    }

    /// Records from now on what the services of the VM's kernel cost.
    ///
    /// # Errors
    /// [`MonitorError::NoVm`].
    pub fn record_services(&mut self, vm: u32) -> Result<()> {
        for vcpu in &mut self.vm(vm)?.vcpus {
            vcpu.recorder = Some(Box::default());
        }
        Ok(())
    }

    /// What the services of the VM's kernel have cost on all vCPUs; nothing if nobody records.
    ///
    /// # Errors
    /// [`MonitorError::NoVm`].
    pub fn services(&mut self, vm: u32) -> Result<BTreeMap<Service, Cost<ByCause>>> {
        let mut all: BTreeMap<Service, Cost<ByCause>> = BTreeMap::new();
        for recorder in self.vm(vm)?.vcpus.iter().filter_map(|vcpu| vcpu.recorder.as_ref()) {
            for (service, cost) in recorder.costs() {
                all.entry(*service).or_default().merge(cost);
            }
        }
        Ok(all)
    }

    // -- inside --------------------------------------------------------------------------------------

    /// A VM by its number.
    ///
    /// # Errors
    /// [`MonitorError::NoVm`].
    pub fn vm(&mut self, vm: u32) -> Result<&mut Vm> {
        let state = self.vms.get_mut(vm as usize).and_then(Option::as_mut).ok_or(MonitorError::NoVm(vm))?;
        Ok(state)
    }

    fn vcpu(&mut self, vm: u32, vcpu: u32) -> Result<&mut Vcpu> {
        let state = self.vm(vm)?;
        let vcpus = state.vcpus.len();
        state.vcpus.get_mut(vcpu as usize).ok_or(MonitorError::NoVcpu { vm, vcpu, vcpus })
    }

    /// CPUs that share a VM belong together; so do those that share one with a CPU of the group.
    fn regroup(&mut self) {
        let mut groups: Vec<(Vec<usize>, Vec<u32>)> = Vec::new();
        let slots = self.cpus.iter().enumerate().filter_map(|(cpu, slot)| Some((cpu, slot.as_ref()?)));
        for (cpu, slot) in slots.filter(|(_, slot)| !slot.queue.is_empty()) {
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
        let round = Round { costs: self.config.costs.clone(), interleave: self.config.interleave, end: self.now };
        let habit = |cpu: usize| {
            let before = self.groups.iter().find(|group| group.work.members.contains(&cpu));
            before.map_or(Habit::default(), |group| group.habit())
        };
        let task = |cpus: Vec<usize>| {
            let habit = habit(cpus[0]);
            Task::new(Group::new(cpus, round.clone()), habit)
        };
        self.groups = groups.into_iter().map(|(cpus, _)| task(cpus)).collect();
    }
}
