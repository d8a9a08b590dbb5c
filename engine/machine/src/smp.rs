//! What CPUs of one kernel have beside them when there are several: interrupt controller, coherence manager, and
//! one clock. A virtual machine with several vCPUs has it, and so has the bare machine with several CPUs.
//!
//! Such CPUs run on one host thread, one after the other in short slices ([`run_in_slices`]), so they see each
//! other's writes at slice boundaries. A CPU's interrupt lines are looked up when its slice begins, and a slice
//! ends every LL that waits for its SC, because others may write there before the CPU runs again. All of this is
//! the same on every host.
//!
//! Slices mean that one CPU can be ahead of another by up to a slice. Count must not tell: Linux takes a clock
//! that goes backwards between CPUs for a wrap-around and loses 43 seconds. So there is one clock. No read of
//! Count is earlier than the last one by any of the CPUs ([`SharedClock::read`]); a write of nearly what it shows,
//! which is how Linux synchronises a new CPU, changes nothing ([`SharedClock::keeps`]); and any other write sets it
//! for all of them.

use crate::coherence::{CPC_BASE, CPC_BYTES, CoherenceManager, GCR_BASE, GCR_BYTES, GIC_BASE, PowerAction};
use crate::gic::{GIC_BYTES, Gic};
use crate::{BusAccess, Cp0, Cycles, PhysAddr, PhysRange};

/// As many CPUs as the interrupt controller and the coherence manager serve.
pub const CPUS_MAX: u32 = 32;

/// Runs CPUs to the bound: one alone in one go, several in turn, in slices that end at the multiples of
/// `interleave`. When one stands still before the end of its slice, because it needs somebody's decision, the
/// others wait for it there.
pub fn run_in_slices<C>(
    cpus: &mut [C],
    interleave: Cycles,
    end: Cycles,
    now: impl Fn(&C) -> Cycles,
    mut run: impl FnMut(&mut [C], usize, Cycles),
) {
    if cpus.len() == 1 {
        return run(cpus, 0, end);
    }
    loop {
        let latest = cpus.iter().map(&now).min().unwrap_or(end);
        if latest >= end {
            return;
        }
        let slice_end = Cycles((latest.0 / interleave.0 + 1) * interleave.0).min(end);
        for index in 0..cpus.len() {
            run(cpus, index, slice_end);
        }
        if cpus.iter().any(|cpu| now(cpu) < slice_end) {
            return;
        }
    }
}

/// The clock that several CPUs have together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SharedClock {
    latest_read: Cycles,
    is_set: bool,
}

/// Ticks of Count by which two CPUs may think that they differ while they synchronise: some slices.
const SYNCHRONISING_TICKS: u32 = 200_000;

impl SharedClock {
    /// The time that a CPU at `now` reads from the clock.
    pub fn read(&mut self, now: Cycles) -> Cycles {
        self.latest_read = self.latest_read.max(now);
        self.latest_read
    }

    /// Whether writing `value` to the Count of a CPU is only meant to make clocks agree, and so changes nothing.
    /// If not, the CPU sets the clock for all.
    pub fn keeps(&mut self, cp0: &Cp0, value: u32, now: Cycles) -> bool {
        let count = cp0.count(self.read(now));
        let keeps = (value.wrapping_sub(count) as i32).unsigned_abs() <= SYNCHRONISING_TICKS;
        self.is_set |= !keeps;
        keeps
    }

    /// Whether a CPU has set the clock, so that the others have to take it over from that CPU. Once.
    pub fn take_set(&mut self) -> bool {
        std::mem::take(&mut self.is_set)
    }
}

/// The platform of a multiprocessor.
#[derive(Debug)]
pub struct Smp {
    /// The global interrupt controller.
    pub gic: Gic,
    manager: CoherenceManager,
    /// The clock.
    pub clock: SharedClock,
    /// Starts and stops of CPUs that have been asked for and not yet carried out.
    actions: Vec<PowerAction>,
}

impl Smp {
    /// The platform for `cpus` CPUs (1 to [`CPUS_MAX`]), of which CPU 0 is up.
    pub fn new(cpus: u32) -> Smp {
        let cpus = cpus as usize;
        Smp {
            gic: Gic::new(cpus),
            manager: CoherenceManager::new(cpus),
            clock: SharedClock::default(),
            actions: Vec::new(),
        }
    }

    /// The registers' place in physical memory.
    pub const WINDOWS: [PhysRange; 3] = [
        PhysRange { base: PhysAddr(GCR_BASE), bytes: GCR_BYTES },
        PhysRange { base: PhysAddr(CPC_BASE), bytes: CPC_BYTES },
        PhysRange { base: PhysAddr(GIC_BASE), bytes: GIC_BYTES },
    ];

    /// Carries out an access of a CPU if it is to one of these registers, and returns what it reads. All of
    /// them have 4 bytes; an access of another size reads 0 and writes nothing.
    pub fn access(&mut self, cpu: u32, access: &BusAccess) -> Option<u64> {
        let cpu = cpu as usize;
        let place =
            Smp::WINDOWS.iter().position(|window| (window.base.0..window.end()).contains(&access.address))?;
        if access.bytes != 4 {
            return Some(0);
        }
        let offset = access.address - Smp::WINDOWS[place].base.0;
        let value = access.value as u32;
        let answer = match (place, access.store) {
            (0, false) => self.manager.read_gcr(cpu, offset),
            (1, false) => self.manager.read_cpc(cpu, offset),
            (_, false) => self.gic.read(cpu, offset),
            (0, true) => {
                self.manager.write_gcr(cpu, offset, value);
                0
            }
            (1, true) => {
                let action = self.manager.write_cpc(cpu, offset, value);
                self.actions.extend((action != PowerAction::None).then_some(action));
                0
            }
            (_, true) => {
                self.gic.write(cpu, offset, value);
                0
            }
        };
        Some(u64::from(answer))
    }

    /// Whether a CPU is to stop.
    pub fn stops(&self, cpu: u32) -> bool {
        self.actions.contains(&PowerAction::Stop { core: cpu as usize })
    }

    /// Takes the starts and stops that have been asked for.
    pub fn take_actions(&mut self) -> Vec<PowerAction> {
        std::mem::take(&mut self.actions)
    }
}
