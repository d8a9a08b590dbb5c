//! The bare machine: CPUs with memory and device registers, and nothing between them and their kernel.
//!
//! The baseline of every comparison: the same kernel and the same devices as in a VM, but the kernel runs in
//! kernel mode, its segments bypass the TLB, and each exception goes where the manual says. Physical addresses
//! are machine addresses; an address without memory and without a device is a bus error. Several CPUs have what
//! the vCPUs of a VM have beside them ([`crate::smp`]) and take turns in the same slices.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::coherence::PowerAction;
use crate::cp0::{Mode, status};
use crate::memory::MemoryError;
use crate::services::{Cost, Nothing, Service};
use crate::smp::{CPUS_MAX, Smp, run_in_slices};
use crate::windows::{Level, Windows};
use crate::{BusAccess, Cp0, Cpu, CpuConfig, Cycles, MachineMemory, NodeId, PhysAddr, PhysRange, Registers, Stop};

/// What a CPU has done, and where its time has gone: the cycles together are its clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BareCounters {
    /// Instructions executed.
    pub instructions: u64,
    /// Cycles in user mode.
    pub cycles_user: u64,
    /// Cycles in the kernel.
    pub cycles_kernel: u64,
    /// Cycles between WAIT and the interrupt that ended it, and those of a CPU that is off.
    pub cycles_idle: u64,
    /// Exceptions, interrupts among them.
    pub exceptions: u64,
    /// Device accesses that somebody else answered.
    pub device_accesses: u64,
}

impl BareCounters {
    /// Every counter with its name, as a vCPU's are named.
    pub fn rows(&self) -> [(&'static str, u64); 6] {
        let BareCounters { instructions, cycles_user, cycles_kernel, cycles_idle, exceptions, device_accesses } =
            *self;
        [
            ("instructions", instructions),
            ("cycles_user", cycles_user),
            ("cycles_kernel", cycles_kernel),
            ("cycles_idle", cycles_idle),
            ("exceptions", exceptions),
            ("device_accesses", device_accesses),
        ]
    }
}

/// Why a CPU stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BareStop {
    /// It accesses a device register; [`Bare::complete_access`] goes on.
    Access(BusAccess),
    /// It executed WAIT with interrupts off and all lines masked: this platform's way to power off.
    Halted,
}

/// A stop, and where and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BareEvent {
    /// The CPU's number.
    pub cpu: u32,
    /// Why it stands still.
    pub stop: BareStop,
    /// The instruction that it goes on with.
    pub pc: u64,
    /// When.
    pub cycle: Cycles,
}

/// What cannot be asked of a bare machine; nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BareError {
    /// A machine has 1 to [`CPUS_MAX`] CPUs.
    Cpus(u32),
    /// No CPU has that number.
    NoCpu { cpu: u32, cpus: usize },
    /// A slice is at least 100 cycles.
    Interleave(Cycles),
    /// The machine has no such memory.
    Memory(MemoryError),
    /// No external interrupt line has that number, or the lines belong to the interrupt controller.
    NoLine { line: u8 },
    /// No interrupt source has that number, or there is no interrupt controller.
    NoSource { source: usize },
    /// No store to that address clears an interrupt.
    NoInterrupt { clear: PhysAddr },
    /// The CPU waits for no device.
    NoAccess { cpu: u32 },
}

impl std::fmt::Display for BareError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BareError::Cpus(cpus) => write!(f, "{cpus} CPUs asked; possible are 1 to {CPUS_MAX}"),
            BareError::NoCpu { cpu, cpus } => write!(f, "CPU {cpu} asked, the machine has {cpus}"),
            BareError::Interleave(cycles) => {
                write!(f, "an interleave of {} cycles asked; possible are 100 and more", cycles.0)
            }
            BareError::Memory(error) => write!(f, "{error}"),
            BareError::NoLine { line } => {
                write!(f, "interrupt line {line} asked; possible are 2 to 6 of a machine of one CPU")
            }
            BareError::NoSource { source } => write!(
                f,
                "interrupt source {source} asked; possible are 0 to {} of a machine of several CPUs",
                crate::gic::SOURCES - 1
            ),
            BareError::NoInterrupt { clear } => write!(f, "there is no interrupt at {clear}"),
            BareError::NoAccess { cpu } => write!(f, "CPU {cpu} waits for no device"),
        }
    }
}

impl std::error::Error for BareError {}

/// Whether a CPU can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ready,
    /// In WAIT; an interrupt wakes it.
    Waiting,
    /// It waits for the answer to a device access.
    Accessing(BusAccess),
    /// Not started, or stopped by software.
    Off,
    /// It will not run again.
    Halted,
}

#[derive(Debug)]
struct BareCpu {
    cpu: Cpu,
    number: u32,
    state: State,
    cycles_idle: u64,
    device_accesses: u64,
}

impl BareCpu {
    /// Lets time go by.
    fn idle_until(&mut self, time: Cycles) {
        self.cycles_idle += time.0.saturating_sub(self.cpu.now.0);
        self.cpu.now = time.max(self.cpu.now);
    }

    fn is_halted(&self) -> bool {
        self.cpu.cp0.status & (status::IM_MASK | status::IE) == 0
    }

    fn complete(&mut self, access: &BusAccess, value: u64) {
        if access.store {
            self.cpu.complete_bus_store(access);
        } else {
            self.cpu.complete_bus_load(access, value);
        }
    }

    /// When it can go on: now, at its timer, or never.
    fn next_event(&self) -> Cycles {
        match self.state {
            State::Ready | State::Accessing(_) => self.cpu.now,
            State::Waiting if self.cpu.cp0.pending_interrupts() != 0 => self.cpu.now,
            State::Waiting => self.cpu.cp0.next_timer(),
            State::Off | State::Halted => Cycles::NEVER,
        }
    }

    fn counters(&self) -> BareCounters {
        let in_kernel = self.cpu.cycles_in(Mode::Kernel) + self.cpu.cycles_in(Mode::Supervisor);
        BareCounters {
            instructions: self.cpu.instructions,
            cycles_user: self.cpu.cycles_in(Mode::User),
            cycles_kernel: in_kernel - self.cycles_idle,
            cycles_idle: self.cycles_idle,
            exceptions: self.cpu.counters.exceptions,
            device_accesses: self.device_accesses,
        }
    }
}

/// What the CPUs have in common.
#[derive(Debug)]
struct Platform {
    devices: Vec<PhysRange>,
    windows: Windows,
    /// External lines of the only CPU.
    lines: u8,
    smp: Option<Smp>,
    events: Vec<BareEvent>,
}

/// The machine.
#[derive(Debug)]
pub struct Bare {
    cpus: Vec<BareCpu>,
    memory: Arc<MachineMemory>,
    interleave: Cycles,
    platform: Platform,
}

impl Bare {
    /// A machine with `memory_bytes` of memory from address 0, its CPUs in the reset state and all but the first
    /// off. Several CPUs take turns in slices of `interleave`.
    ///
    /// # Errors
    /// [`BareError`] when that cannot be.
    pub fn new(memory_bytes: u64, cpus: u32, interleave: Cycles) -> Result<Bare, BareError> {
        if !(1..=CPUS_MAX).contains(&cpus) {
            return Err(BareError::Cpus(cpus));
        }
        if interleave < Cycles(100) {
            return Err(BareError::Interleave(interleave));
        }
        let memory = Arc::new(MachineMemory::new(1, memory_bytes).map_err(BareError::Memory)?);
        let config = CpuConfig { coherence_manager: cpus > 1, ..CpuConfig::hardware() };
        let cpu = |number: u32| BareCpu {
            cpu: Cpu::new(number as u16, NodeId(0), config.clone(), Arc::clone(&memory)),
            number,
            state: if number == 0 { State::Ready } else { State::Off },
            cycles_idle: 0,
            device_accesses: 0,
        };
        let mut cpus: Vec<BareCpu> = (0..cpus).map(cpu).collect();
        let smp = (cpus.len() > 1).then(|| Smp::new(cpus.len() as u32));
        for cpu in &mut cpus {
            cpu.cpu.shared_clock = smp.as_ref().map(|smp| smp.clock);
        }
        let platform =
            Platform { devices: Vec::new(), windows: Windows::default(), lines: 0, smp, events: Vec::new() };
        Ok(Bare { cpus, memory, interleave, platform })
    }

    /// How many CPUs there are.
    pub fn cpu_count(&self) -> usize {
        self.cpus.len()
    }

    /// A CPU, to look at and to set up.
    ///
    /// # Errors
    /// [`BareError::NoCpu`].
    pub fn cpu(&mut self, cpu: u32) -> Result<&mut Cpu, BareError> {
        Ok(&mut self.slot(cpu)?.cpu)
    }

    fn slot(&mut self, cpu: u32) -> Result<&mut BareCpu, BareError> {
        let cpus = self.cpus.len();
        self.cpus.get_mut(cpu as usize).ok_or(BareError::NoCpu { cpu, cpus })
    }

    /// Simulated time: that of the CPU that is furthest behind.
    pub fn now(&self) -> Cycles {
        self.cpus.iter().map(|cpu| cpu.cpu.now).min().expect("there is a CPU")
    }

    /// The memory.
    pub fn memory(&self) -> &MachineMemory {
        &self.memory
    }

    /// Registers that need no trip.
    pub fn windows(&mut self) -> &mut Windows {
        &mut self.platform.windows
    }

    /// Declares device registers where there is no memory.
    pub fn add_device(&mut self, range: PhysRange) {
        self.platform.devices.push(range);
    }

    /// Drives an external interrupt line (Cause.IP bit 2 to 6) of the only CPU.
    ///
    /// # Errors
    /// [`BareError::NoLine`].
    pub fn set_line(&mut self, line: u8, level: bool) -> Result<(), BareError> {
        if !(2..=6).contains(&line) || self.platform.smp.is_some() {
            return Err(BareError::NoLine { line });
        }
        let (bit, lines) = (1 << line, self.platform.lines);
        self.platform.lines = if level { lines | bit } else { lines & !bit };
        self.cpus[0].cpu.cp0.set_lines(self.platform.lines);
        Ok(())
    }

    /// Drives the wire of a source of the global interrupt controller.
    ///
    /// # Errors
    /// [`BareError::NoSource`].
    pub fn set_wire(&mut self, source: usize, level: bool) -> Result<(), BareError> {
        match self.platform.smp.as_mut().filter(|_| source < crate::gic::SOURCES) {
            Some(smp) => {
                smp.gic.set_wire(source, level);
                Ok(())
            }
            None => Err(BareError::NoSource { source }),
        }
    }

    /// Clears bits of an interrupt that stores to `clear` clear, sets some, and drives its line. What it has then.
    ///
    /// # Errors
    /// [`BareError::NoInterrupt`].
    pub fn update_interrupt(&mut self, clear: PhysAddr, cleared: u32, raised: u32) -> Result<u32, BareError> {
        let updated = self.platform.windows.update_interrupt(clear, cleared, raised);
        let (bits, level) = updated.ok_or(BareError::NoInterrupt { clear })?;
        if self.platform.smp.is_some() {
            self.set_wire(level.line.into(), level.is_high)?;
        } else {
            self.set_line(level.line, level.is_high)?;
        }
        Ok(bits)
    }

    /// Runs until the bound, or until CPUs stand still; the events are in the order (cycle, CPU).
    pub fn run(&mut self, until: Cycles) -> Vec<BareEvent> {
        self.skip_idle_time(until);
        let Bare { cpus, interleave, platform, .. } = self;
        run_in_slices(
            cpus,
            *interleave,
            until,
            |cpu| cpu.cpu.now,
            |cpus, index, until| {
                platform.run(&mut cpus[index], until);
                platform.end_slice(cpus, index);
            },
        );
        let mut events = std::mem::take(&mut platform.events);
        events.sort_by_key(|event| (event.cycle, event.cpu));
        events
    }

    /// When nobody can run, goes to the slice in which the first timer is due.
    fn skip_idle_time(&mut self, until: Cycles) {
        self.refresh_lines();
        let next = self.cpus.iter().map(BareCpu::next_event).min().expect("there is a CPU").min(until);
        let slice_start = Cycles(next.0 / self.interleave.0 * self.interleave.0);
        if self.cpus.iter().all(|cpu| cpu.next_event() > cpu.cpu.now) {
            for cpu in &mut self.cpus {
                cpu.idle_until(slice_start);
            }
        }
    }

    fn refresh_lines(&mut self) {
        for cpu in &mut self.cpus {
            self.platform.refresh_lines(cpu);
        }
    }

    /// Ends the access that a CPU stands still for.
    ///
    /// # Errors
    /// [`BareError::NoCpu`], [`BareError::NoAccess`].
    pub fn complete_access(&mut self, cpu: u32, value: u64) -> Result<(), BareError> {
        let slot = self.slot(cpu)?;
        let State::Accessing(access) = slot.state else { return Err(BareError::NoAccess { cpu }) };
        slot.state = State::Ready;
        slot.complete(&access, value);
        Ok(())
    }

    /// When a CPU can go on: now, at its timer, or never.
    pub fn next_event(&mut self) -> Option<Cycles> {
        self.refresh_lines();
        let next = self.cpus.iter().map(BareCpu::next_event).min()?;
        (next != Cycles::NEVER).then_some(next)
    }

    /// Records from now on what the services of the kernel cost.
    pub fn record_services(&mut self) {
        for cpu in &mut self.cpus {
            cpu.cpu.recorder = Some(Box::default());
        }
    }

    /// What the services of the kernel have cost on all CPUs; nothing if nobody records.
    pub fn services(&self) -> BTreeMap<Service, Cost<Nothing>> {
        let mut all: BTreeMap<Service, Cost<Nothing>> = BTreeMap::new();
        for recorder in self.cpus.iter().filter_map(|cpu| cpu.cpu.recorder.as_ref()) {
            for (service, cost) in recorder.costs() {
                all.entry(*service).or_default().merge(cost);
            }
        }
        all
    }

    /// What has been counted for a CPU.
    ///
    /// # Errors
    /// [`BareError::NoCpu`].
    pub fn counters(&mut self, cpu: u32) -> Result<BareCounters, BareError> {
        Ok(self.slot(cpu)?.counters())
    }
}

impl Platform {
    /// Runs a CPU to the bound, or until it stands still.
    fn run(&mut self, slot: &mut BareCpu, until: Cycles) {
        self.refresh_lines(slot);
        slot.cpu.shared_clock = self.smp.as_ref().map(|smp| smp.clock);
        while slot.cpu.now < until {
            match slot.state {
                State::Ready => self.execute(slot, until),
                State::Waiting => wait(slot, until),
                State::Off | State::Halted => slot.idle_until(until),
                State::Accessing(_) => break,
            }
        }
        if let (Some(smp), Some(clock)) = (&mut self.smp, slot.cpu.shared_clock) {
            smp.clock = clock;
        }
    }

    fn refresh_lines(&self, slot: &mut BareCpu) {
        if let Some(smp) = &self.smp {
            slot.cpu.cp0.set_lines(smp.gic.lines(slot.number as usize));
        }
    }

    fn execute(&mut self, slot: &mut BareCpu, until: Cycles) {
        match slot.cpu.run(until) {
            Stop::Until => {}
            Stop::Wait if slot.is_halted() => {
                slot.state = State::Halted;
                self.note(slot, BareStop::Halted);
            }
            Stop::Wait => slot.state = State::Waiting,
            Stop::Bus(access) => self.access(slot, access),
            stop @ (Stop::Trap(_) | Stop::LookAround) => unreachable!("{stop:?} of a bare CPU"),
        }
    }

    /// An access that memory does not answer.
    fn access(&mut self, slot: &mut BareCpu, access: BusAccess) {
        if let Some(answer) = self.multiprocessor_register(slot, &access) {
            return slot.complete(&access, answer);
        }
        let is_device = self.devices.iter().any(|range| (range.base.0..range.end()).contains(&access.address));
        if !is_device {
            slot.cpu.refuse_bus_access(&access);
            return;
        }
        if let Some(answer) = self.windows.answer(&access, slot.cpu.now) {
            if let Some(level) = answer.level {
                self.drive(slot, level);
            }
            return slot.complete(&access, answer.value);
        }
        slot.device_accesses += 1;
        slot.state = State::Accessing(access);
        self.note(slot, BareStop::Access(access));
    }

    /// Drives a line, or a source of the global interrupt controller, as a CPU has made it.
    fn drive(&mut self, slot: &mut BareCpu, level: Level) {
        if let Some(smp) = &mut self.smp {
            smp.gic.set_wire(level.line.into(), level.is_high);
            slot.cpu.cp0.set_lines(smp.gic.lines(slot.number as usize));
        } else {
            let bit = 1 << level.line;
            self.lines = if level.is_high { self.lines | bit } else { self.lines & !bit };
            slot.cpu.cp0.set_lines(self.lines);
        }
    }

    /// What a register of the multiprocessor platform answers. A CPU may switch itself off.
    fn multiprocessor_register(&mut self, slot: &mut BareCpu, access: &BusAccess) -> Option<u64> {
        let smp = self.smp.as_mut()?;
        let answer = smp.access(slot.number, access)?;
        slot.cpu.cp0.set_lines(smp.gic.lines(slot.number as usize));
        if smp.stops(slot.number) {
            slot.state = State::Off;
        }
        Some(answer)
    }

    fn note(&mut self, slot: &BareCpu, stop: BareStop) {
        let (pc, cycle) = (slot.cpu.regs.pc, slot.cpu.now);
        self.events.push(BareEvent { cpu: slot.number, stop, pc, cycle });
    }

    /// What the others learn of a CPU's slice: starts, stops, and a clock that it has set.
    fn end_slice(&mut self, cpus: &mut [BareCpu], index: usize) {
        let Some(smp) = &mut self.smp else { return };
        cpus[index].cpu.regs.ll_bit = false;
        for action in smp.take_actions() {
            match action {
                PowerAction::Start { core, address } => start(cpus, core, address),
                PowerAction::Stop { core } => cpus[core].state = State::Off,
                PowerAction::None => {}
            }
        }
        if smp.clock.take_set() {
            let source = &cpus[index].cpu;
            let (count, now) = (source.cp0.count(source.now), source.now);
            for cpu in cpus.iter_mut() {
                cpu.cpu.cp0.set_count(count, now);
            }
        }
    }
}

/// Lets time go by to the next timer or the bound; a pending interrupt ends the wait.
fn wait(slot: &mut BareCpu, until: Cycles) {
    if slot.cpu.cp0.pending_interrupts() == 0 {
        slot.idle_until(slot.cpu.cp0.next_timer().clamp(slot.cpu.now, until));
        slot.cpu.cp0.tick(slot.cpu.now);
    }
    if slot.cpu.cp0.pending_interrupts() != 0 {
        slot.state = State::Ready;
    }
}

/// A CPU comes out of reset at `address`, with the clock of CPU 0.
fn start(cpus: &mut [BareCpu], core: usize, address: u64) {
    let now = cpus[core].cpu.now;
    let count = cpus[0].cpu.cp0.count(now);
    let slot = &mut cpus[core];
    slot.state = State::Ready;
    slot.cpu.regs = Registers::new(address);
    slot.cpu.cp0 = Cp0::new(slot.cpu.cp0.config.clone(), slot.number);
    slot.cpu.cp0.set_count(count, now);
    slot.cpu.tlb_flush();
    slot.cpu.context_changed();
}
