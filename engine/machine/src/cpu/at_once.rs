//! Privileged instructions of a guest kernel that translated code carries out at once.
//!
//! A kernel under a monitor moves Status and EPC and switches interrupts more often than it does anything else that
//! traps. A trap handler that lends the guest's CP0 ([`super::TrapHandler::guest_cp0`]) allows translated code to do
//! those of them that change nothing but that CP0 and a general register, without a call. Their time is
//! charged as if they had trapped; what has been done is counted here, and the handler takes it into its own accounts
//! ([`Cpu::take_done_at_once`]).

use std::mem::offset_of;

use super::{Cpu, Handler};
use crate::Cp0;

/// Instructions done at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct DoneAtOnce {
    /// MFC0 and DMFC0.
    pub moves_from: u64,
    /// MTC0 and DMTC0.
    pub moves_to: u64,
    /// DI and EI.
    pub switches: u64,
}

impl DoneAtOnce {
    /// All of them.
    pub fn count(&self) -> u64 {
        self.moves_from + self.moves_to + self.switches
    }

    fn add(&mut self, more: DoneAtOnce) {
        self.moves_from += more.moves_from;
        self.moves_to += more.moves_to;
        self.switches += more.switches;
    }
}

/// What translated code needs for them.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct AtOnce {
    /// Host address of the guest's CP0 while it is lent; 0: none is.
    cp0: u64,
    /// Cycles that each costs beside its own.
    cost: u64,
    /// Since `Cpu::settle`.
    done: DoneAtOnce,
    /// Before that, and not taken yet.
    settled: DoneAtOnce,
}

impl AtOnce {
    pub(super) const CP0_OFFSET: usize = offset_of!(AtOnce, cp0);
    pub(super) const COST_OFFSET: usize = offset_of!(AtOnce, cost);
    pub(super) const DONE_OFFSET: usize = offset_of!(AtOnce, done);
}

impl Cpu {
    /// Translated code is about to run, with this handler: takes what it lends.
    pub fn borrow_guest_cp0(&mut self, handler: &mut Handler<'_, '_>) {
        let lent = handler.as_mut().and_then(|handler| handler.guest_cp0());
        (self.at_once.cp0, self.at_once.cost) = match lent {
            Some((cp0, cost)) => (std::ptr::from_mut::<Cp0>(cp0).expose_provenance() as u64, cost),
            None => (0, 0),
        };
    }

    /// Counts what was done at once since the last time, whose cost is in the time that has gone by; gives back the cost.
    #[inline]
    pub(super) fn settle_done_at_once(&mut self) -> u64 {
        let done = self.at_once.done;
        let count = done.count();
        if count == 0 {
            return 0;
        }
        self.at_once.done = DoneAtOnce::default();
        self.at_once.settled.add(done);
        self.counters.exceptions += count;
        count * self.at_once.cost
    }

    /// What was done at once since the last call, as of when time was last settled. Its cost is in the CPU's time, and
    /// its instructions are among the CPU's.
    #[inline]
    pub fn take_done_at_once(&mut self) -> DoneAtOnce {
        std::mem::take(&mut self.at_once.settled)
    }
}
