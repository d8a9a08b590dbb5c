//! The bare machine: one CPU with memory and device registers, and nothing between it and its kernel.
//!
//! The baseline of every comparison: the same kernel and the same devices as in a VM, but the kernel runs in
//! kernel mode, its segments bypass the TLB, and each exception goes where the manual says. Physical addresses
//! are machine addresses; an address without memory and without a device is a bus error.

use std::sync::Arc;

use crate::cp0::{Mode, status};
use crate::memory::MemoryError;
use crate::windows::Windows;
use crate::{BusAccess, Cpu, CpuConfig, Cycles, MachineMemory, NodeId, PhysRange, Stop};

/// What a CPU has done, and what it has cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BareCounters {
    /// Instructions executed.
    pub instructions: u64,
    /// Cycles in user mode.
    pub cycles_user: u64,
    /// Cycles in the kernel.
    pub cycles_kernel: u64,
    /// Cycles between WAIT and the interrupt that ended it.
    pub cycles_idle: u64,
    /// Exceptions, interrupts among them.
    pub exceptions: u64,
    /// Device accesses that somebody else answered.
    pub device_accesses: u64,
}

/// Why the machine stopped running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BareStop {
    /// The bound is reached.
    Until,
    /// A device register is accessed; [`Bare::complete_access`] goes on.
    Access(BusAccess),
    /// WAIT with interrupts off and all lines masked: this platform's way to power off.
    Halted,
}

/// A machine of one CPU.
#[derive(Debug)]
pub struct Bare {
    cpu: Cpu,
    memory: Arc<MachineMemory>,
    devices: Vec<PhysRange>,
    /// Registers that need no trip.
    pub windows: Windows,
    lines: u8,
    pending: Option<BusAccess>,
    is_waiting: bool,
    cycles_idle: u64,
    device_accesses: u64,
}

impl Bare {
    /// A machine with `memory_bytes` of memory from address 0, its CPU in the reset state.
    ///
    /// # Errors
    /// [`MemoryError`] when that cannot be.
    pub fn new(memory_bytes: u64) -> Result<Bare, MemoryError> {
        let memory = Arc::new(MachineMemory::new(1, memory_bytes)?);
        Ok(Bare {
            cpu: Cpu::new(0, NodeId(0), CpuConfig::hardware(), Arc::clone(&memory)),
            memory,
            devices: Vec::new(),
            windows: Windows::default(),
            lines: 0,
            pending: None,
            is_waiting: false,
            cycles_idle: 0,
            device_accesses: 0,
        })
    }

    /// The CPU, to look at and to set up.
    pub fn cpu(&mut self) -> &mut Cpu {
        &mut self.cpu
    }

    /// The memory.
    pub fn memory(&self) -> &MachineMemory {
        &self.memory
    }

    /// Declares device registers where there is no memory.
    pub fn add_device(&mut self, range: PhysRange) {
        self.devices.push(range);
    }

    /// Drives an external interrupt line (Cause.IP bit 2 to 6).
    pub fn set_line(&mut self, line: u8, level: bool) {
        let bit = 1 << line;
        self.lines = if level { self.lines | bit } else { self.lines & !bit };
        self.cpu.cp0.set_lines(self.lines);
    }

    /// Runs until the bound, a device access, or the end.
    pub fn run(&mut self, until: Cycles) -> BareStop {
        while self.cpu.now < until {
            if self.is_waiting && !self.wait(until) {
                continue;
            }
            match self.cpu.run(until) {
                Stop::Until => {}
                Stop::Wait if self.is_halted() => return BareStop::Halted,
                Stop::Wait => self.is_waiting = true,
                Stop::Bus(access) => {
                    if let Some(stop) = self.access(access) {
                        return stop;
                    }
                }
                Stop::Trap(trap) => unreachable!("a bare CPU delivers {trap:?}"),
            }
        }
        BareStop::Until
    }

    /// Lets time go by to the next timer or the bound. True: an interrupt is pending.
    fn wait(&mut self, until: Cycles) -> bool {
        let from = self.cpu.now;
        if self.cpu.cp0.pending_interrupts() == 0 {
            self.cpu.now = self.cpu.cp0.next_timer().clamp(from, until);
            self.cpu.cp0.tick(self.cpu.now);
            self.cycles_idle += self.cpu.now.0 - from.0;
        }
        self.is_waiting = self.cpu.cp0.pending_interrupts() == 0;
        !self.is_waiting
    }

    fn is_halted(&self) -> bool {
        self.cpu.cp0.status & (status::IM_MASK | status::IE) == 0
    }

    /// An access that memory does not answer. `Some` if somebody else has to.
    fn access(&mut self, access: BusAccess) -> Option<BareStop> {
        let is_device = self.devices.iter().any(|range| (range.base.0..range.end()).contains(&access.address));
        if !is_device {
            self.cpu.refuse_bus_access(&access);
            return None;
        }
        if let Some(answer) = self.windows.answer(&access, self.cpu.now) {
            self.complete(&access, answer);
            return None;
        }
        self.device_accesses += 1;
        self.pending = Some(access);
        Some(BareStop::Access(access))
    }

    /// Ends the access that `run` stopped with. False: there is none.
    pub fn complete_access(&mut self, value: u64) -> bool {
        let Some(access) = self.pending.take() else { return false };
        self.complete(&access, value);
        true
    }

    fn complete(&mut self, access: &BusAccess, value: u64) {
        if access.store {
            self.cpu.complete_bus_store(access);
        } else {
            self.cpu.complete_bus_load(access, value);
        }
    }

    /// When the CPU can go on: now, at its timer, or never.
    pub fn next_event(&self) -> Option<Cycles> {
        let is_ready = !self.is_waiting || self.cpu.cp0.pending_interrupts() != 0;
        let next = if is_ready { self.cpu.now } else { self.cpu.cp0.next_timer() };
        (next != Cycles::NEVER).then_some(next)
    }

    /// What has been counted.
    pub fn counters(&self) -> BareCounters {
        let user = self.cpu.cycles_in(Mode::User);
        BareCounters {
            instructions: self.cpu.instructions,
            cycles_user: user,
            cycles_kernel: self.cpu.now.0 - user - self.cycles_idle,
            cycles_idle: self.cycles_idle,
            exceptions: self.cpu.counters.exceptions,
            device_accesses: self.device_accesses,
        }
    }
}
