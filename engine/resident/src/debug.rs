//! Breakpoints and single steps of a vCPU.
//!
//! A vCPU that somebody debugs executes its instructions one by one, as if a follower recorded them. Before one that has a
//! breakpoint, or behind the last of the steps, it *pauses*: an event says so, and it goes on when it is told to. An
//! instruction that traps into Disco and is tried again has not been executed meanwhile, so it stops nobody
//! twice. A branch and its delay slot are one step, and a slot has no breakpoint, as with EJTAG.
//!
//! While it pauses its CPU stands still, as for any decision, and the round is not over: so a run is the same to the last
//! count, time included, whether somebody looks or not.
//!
//! Source: MIPS EJTAG specification, debug single step and instruction breakpoints.

use std::collections::BTreeSet;

/// Why a vCPU has paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PauseCause {
    /// It has executed as many instructions as it was to.
    Step,
    /// The next instruction has a breakpoint.
    Breakpoint,
}

impl PauseCause {
    /// A short name for programs.
    pub fn name(self) -> &'static str {
        match self {
            PauseCause::Step => "step",
            PauseCause::Breakpoint => "breakpoint",
        }
    }
}

/// What one vCPU is to pause for. Instructions are counted as its counters do.
#[derive(Clone, Debug, Default)]
pub struct Debugger {
    breakpoints: BTreeSet<u64>,
    /// Where it has paused and been told to go on: it does not pause there again.
    resumed_at: Option<u64>,
    /// When the steps are done.
    stop_at: Option<u64>,
}

impl Debugger {
    /// Pauses at these addresses, and at no others.
    pub fn set_breakpoints(&mut self, addresses: impl IntoIterator<Item = u64>) {
        self.breakpoints = addresses.into_iter().collect();
    }

    /// Goes on after `instructions`, for `steps` of them if that is said.
    pub fn go_on(&mut self, instructions: u64, steps: Option<u64>) {
        self.resumed_at = Some(instructions);
        self.stop_at = steps.map(|steps| instructions + steps);
    }

    /// Why the vCPU pauses before the instruction at `pc`, if it does.
    pub fn pauses(&self, pc: u64, instructions: u64) -> Option<PauseCause> {
        if self.resumed_at == Some(instructions) {
            None
        } else if self.stop_at.is_some_and(|end| instructions >= end) {
            Some(PauseCause::Step)
        } else {
            self.breakpoints.contains(&pc).then_some(PauseCause::Breakpoint)
        }
    }

    /// Whether there is nothing to pause for.
    pub fn is_idle(&self) -> bool {
        self.breakpoints.is_empty() && self.stop_at.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_pauses_where_it_was_told_and_not_twice_before_one_instruction() {
        let mut debugger = Debugger::default();
        assert!(debugger.is_idle());
        debugger.set_breakpoints([0x1000]);
        assert_eq!(debugger.pauses(0x1000, 7), Some(PauseCause::Breakpoint));
        debugger.go_on(7, None);
        assert_eq!(debugger.pauses(0x1000, 7), None, "it has been told to go on");
        assert_eq!(debugger.pauses(0x1004, 8), None);
        assert_eq!(debugger.pauses(0x1000, 9), Some(PauseCause::Breakpoint), "round a loop");
        debugger.go_on(9, Some(2));
        assert_eq!(debugger.pauses(0x1004, 10), None);
        assert_eq!(debugger.pauses(0x1008, 11), Some(PauseCause::Step));
        debugger.set_breakpoints([]);
        debugger.go_on(11, None);
        assert!(debugger.is_idle());
    }
}
