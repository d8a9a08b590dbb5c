//! A virtual CPU: what a guest believes it runs on.
//!
//! The virtual CP0 and the virtual TLB are the same types as the hardware's. The monitor keeps them true for
//! the guest, and derives from them the few hardware registers that the guest's instructions depend on.

use std::sync::Arc;

use machine::cp0::page_grain;
use machine::memory::MemoryError;
use machine::services::{Moment, Recorder};
use machine::{BusAccess, Cp0, Cpu, CpuConfig, Cycles, Exception, MachineMemory, NodeId, Ppn, Registers, Tlb};

use crate::counters::{ByCause, Cause, Counters};
use crate::debug::Debugger;
use crate::event::StopCause;
use crate::follow::Follower;
use crate::l2tlb::{L2Tlb, Origin, SLOTS};
use crate::trap::Since;

/// Whether a vCPU can run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VcpuState {
    /// Not started.
    Off,
    /// Another vCPU has started it; it will begin there.
    Starting(u64),
    /// It can run.
    Ready,
    /// In WAIT; an interrupt wakes it.
    Waiting,
    /// It needs this page; it tries again when the run goes on.
    Faulted(Ppn),
    /// It needs a page that nobody has; it tries again at that time.
    Postponed(Cycles),
    /// It waits for the answer to a device access.
    Accessing(PendingAccess),
    /// Somebody debugs it; it goes on when it is told to.
    Paused,
    /// It will not run again.
    Stopped(StopCause),
}

/// A device access whose answer is awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingAccess {
    /// What the instruction does.
    pub access: BusAccess,
    /// The answer, once there.
    pub answer: Option<u64>,
}

/// What a trap has cost, and what it has turned out to be.
#[derive(Clone, Copy, Debug)]
pub struct TrapCost {
    /// What it is, as far as is known.
    pub cause: Cause,
    /// Cycles charged for it.
    pub cycles: u64,
    /// The exception that the guest was given.
    pub forwarded: Option<Exception>,
}

impl Default for TrapCost {
    fn default() -> TrapCost {
        TrapCost { cause: Cause::Forward, cycles: 0, forwarded: None }
    }
}

/// A virtual CPU.
#[derive(Debug)]
pub struct Vcpu {
    /// Its registers while it is on no CPU.
    pub regs: Registers,
    /// The virtual CP0.
    pub cp0: Cp0,
    /// What the guest believes its TLB holds.
    pub tlb: Tlb,
    /// The second-level TLB.
    pub l2tlb: L2Tlb,
    /// Whether it can run.
    pub state: VcpuState,
    /// External interrupt lines as the devices drive them (Cause.IP bits).
    pub lines: u8,
    /// What has been counted.
    pub counters: Counters,
    /// Set while somebody wants to follow a miss.
    pub follower: Option<Box<Follower>>,
    /// Set while somebody debugs it.
    pub debugger: Option<Box<Debugger>>,
    /// Follows the services of the guest's kernel, if somebody wants to know.
    pub recorder: Option<Box<Recorder<ByCause>>>,
    /// What the trap being handled has cost so far.
    pub trap: TrapCost,
    /// Forwarded exceptions in a row that came from the vector's own first instruction.
    pub vector_faults: u32,
    /// While it runs: since when.
    pub since: Since,
    /// All of its time up to here is in the counters.
    pub accounted_until: Cycles,
    /// When an interrupt became pending that ends its WAIT.
    pub woken_at: Option<Cycles>,
    /// The CPU that it ran on last, and its node.
    pub last_cpu: Option<(u16, NodeId)>,
}

impl Vcpu {
    /// A vCPU that has not been started.
    ///
    /// # Errors
    /// [`MemoryError::Host`] when the host refuses the address space of the second-level TLB.
    pub fn new(config: CpuConfig, number: u32, l2tlb_entries: usize) -> Result<Vcpu, MemoryError> {
        Ok(Vcpu::with(config, number, L2Tlb::new(l2tlb_entries)?))
    }

    fn with(config: CpuConfig, number: u32, l2tlb: L2Tlb) -> Vcpu {
        Vcpu {
            regs: Registers::new(0),
            tlb: Tlb::new(config.tlb_entries),
            cp0: Cp0::new(config, number),
            l2tlb,
            state: VcpuState::Off,
            lines: 0,
            counters: Counters::default(),
            follower: None,
            debugger: None,
            recorder: None,
            trap: TrapCost::default(),
            vector_faults: 0,
            since: Since::default(),
            accounted_until: Cycles(0),
            woken_at: None,
            last_cpu: None,
        }
    }

    /// Back to the state after reset at `now`, with these start values; what was counted stays, and whoever counts.
    pub fn reset(&mut self, number: u32, pc: u64, gpr: &[(u8, u64)], now: Cycles) {
        let counters = std::mem::take(&mut self.counters);
        let recorder = self.recorder.take();
        let l2tlb = self.l2tlb.take_emptied();
        *self = Vcpu { counters, recorder, ..Vcpu::with(self.cp0.config.clone(), number, l2tlb) };
        self.regs.pc = pc;
        for (register, value) in gpr {
            self.regs.gpr[usize::from(*register)] = *value;
        }
        self.state = VcpuState::Ready;
        self.accounted_until = now;
    }

    /// The time up to `now` in which it was on no CPU, in cycles: idle until the interrupt that ends its WAIT, and
    /// from then on waiting for a CPU.
    pub fn absence(&self, now: Cycles) -> (u64, u64) {
        let absent = now.0.saturating_sub(self.accounted_until.0);
        let idle = match self.state {
            VcpuState::Off | VcpuState::Stopped(_) => return (0, 0),
            VcpuState::Waiting => {
                self.woken_at.map_or(absent, |woken_at| woken_at.0.saturating_sub(self.accounted_until.0))
            }
            _ => 0,
        };
        (idle.min(absent), absent - idle.min(absent))
    }

    /// Accounts for the time up to `now` in which it was on no CPU.
    pub fn account_for_absence(&mut self, now: Cycles) {
        let (idle, waiting) = self.absence(now);
        self.counters.cycles_idle += idle;
        self.counters.cycles_waiting += waiting;
        self.accounted_until = self.accounted_until.max(now);
    }

    /// It is put on a CPU of that node.
    pub fn note_move(&mut self, cpu: u16, node: NodeId) {
        if let Some((last_cpu, last_node)) = self.last_cpu.replace((cpu, node)) {
            self.counters.vcpu_moves += u64::from(last_cpu != cpu);
            self.counters.vcpu_moves_between_nodes += u64::from(last_node != node);
        }
    }

    /// Cycles that it has used, the monitor's work on its behalf included.
    pub fn cycles_used(&self) -> u64 {
        self.counters.cycles_user + self.counters.cycles_kernel + self.counters.monitor.total()
    }

    /// Accounts for cycles that the monitor spends on its behalf.
    pub fn charge(&mut self, cause: Cause, cycles: u64) {
        self.counters.monitor.add(cause, cycles);
        if let Some(follower) = &mut self.follower {
            follower.charge(cycles);
        }
    }

    /// Whether somebody looks at each of its traps, so that all of them must be handled one by one.
    pub fn is_observed(&self) -> bool {
        self.is_watched() || self.recorder.is_some()
    }

    /// Whether somebody looks at each of its instructions.
    pub fn is_watched(&self) -> bool {
        self.follower.is_some() || self.debugger.is_some()
    }

    /// Where it is in its own time.
    pub fn moment(&self) -> Moment<ByCause> {
        let Counters { monitor, instructions, cycles_user, cycles_kernel, .. } = self.counters;
        Moment { cycles: cycles_user + cycles_kernel + monitor.total(), instructions, monitor }
    }

    /// Accounts for the trap that has been handled.
    pub fn settle_trap(&mut self) {
        let TrapCost { cause, cycles, .. } = self.trap;
        self.counters.monitor.add(cause, cycles);
        self.trap.cycles = 0;
    }

    /// Drives one external line into the virtual Cause.
    pub fn set_line(&mut self, line: u8, level: bool) {
        let bit = 1 << line;
        self.set_lines(if level { self.lines | bit } else { self.lines & !bit });
    }

    /// Drives all external lines into the virtual Cause.
    pub fn set_lines(&mut self, lines: u8) {
        self.lines = lines;
        self.cp0.set_lines(lines);
    }

    /// Whether it could execute something at `now`; a due timer is noticed first.
    pub fn is_runnable(&mut self, now: Cycles) -> bool {
        match &self.state {
            VcpuState::Ready | VcpuState::Starting(_) => true,
            VcpuState::Accessing(pending) => pending.answer.is_some(),
            VcpuState::Waiting => self.is_woken(now),
            VcpuState::Postponed(until) => now >= *until,
            VcpuState::Off | VcpuState::Faulted(_) | VcpuState::Paused | VcpuState::Stopped(_) => false,
        }
    }

    /// Whether an interrupt ends its WAIT at `now`, and since when.
    fn is_woken(&mut self, now: Cycles) -> bool {
        let timer = self.cp0.next_timer();
        let mut since = now;
        if self.cp0.pending_interrupts() == 0 && now >= timer {
            since = timer;
        }
        if now >= timer {
            self.cp0.tick(now);
        }
        let is_woken = self.cp0.pending_interrupts() != 0;
        if is_woken {
            self.woken_at.get_or_insert(since);
        }
        is_woken
    }

    /// Goes into WAIT at `now`. False: an interrupt is pending, so it goes on.
    pub fn wait(&mut self, now: Cycles) -> bool {
        self.woken_at = None;
        let waits = !self.is_woken(now);
        self.state = if waits { VcpuState::Waiting } else { VcpuState::Ready };
        waits
    }

    /// Whether it stands still until Python has decided something, and its CPU with it.
    pub fn is_blocked(&self) -> bool {
        match &self.state {
            VcpuState::Faulted(_) | VcpuState::Paused => true,
            VcpuState::Accessing(pending) => pending.answer.is_none(),
            _ => false,
        }
    }

    /// When a waiting vCPU wakes by itself.
    pub fn wake_time(&self) -> Cycles {
        match self.state {
            VcpuState::Waiting => self.cp0.next_timer(),
            VcpuState::Postponed(until) => until,
            _ => Cycles::NEVER,
        }
    }
}

/// A CPU of the machine, with what the monitor knows about its TLB.
#[derive(Debug)]
pub struct HardwareCpu {
    /// The CPU.
    pub cpu: Cpu,
    /// What the monitor knows about its TLB.
    pub shadow: Shadow,
}

/// What the monitor knows about the TLB of a CPU.
#[derive(Debug)]
pub struct Shadow {
    /// For each hardware TLB entry, where it came from.
    pub origins: [Origin; SLOTS],
    /// The hardware entry that goes next.
    pub next_victim: usize,
}

impl HardwareCpu {
    /// CPU `id` of `node`, in the monitor's hands.
    pub fn new(id: u16, node: NodeId, config: CpuConfig, memory: Arc<MachineMemory>) -> HardwareCpu {
        let mut cpu = Cpu::new(id, node, config, memory);
        cpu.monitored = true;
        cpu.cp0.seg_ctl = machine::segments::monitor_segments();
        // A guest's RIE and XIE decide what goes into an entry; the hardware always honours what is there.
        cpu.cp0.page_grain = page_grain::RIE | page_grain::XIE | page_grain::IEC | page_grain::ELPA;
        cpu.context_changed();
        HardwareCpu { cpu, shadow: Shadow { origins: [Origin::KERNEL; SLOTS], next_victim: 0 } }
    }
}
