//! Count, Compare, and the interrupt lines.
//!
//! Count is not stored: it is the machine's clock divided, plus an offset, so the Counts of all CPUs
//! run together. The timer interrupt comes when Count *becomes* equal to Compare. Writing Compare with
//! the value that Count has now, or Count with the value that Compare has, therefore arms the timer for
//! a full turn of 2^32 ticks later, as QEMU does; the manual says neither yes nor no.

use super::{Cp0, cause, int_ctl, status};
use crate::Cycles;

/// External lines; IP1 and IP0 are software's.
const EXTERNAL_LINES: u8 = 0xfc;
/// Ticks from one equality of Count and Compare to the next.
const TURN_TICKS: u64 = 1 << 32;

impl Cp0 {
    /// Count at `now`.
    #[inline]
    pub fn count(&self, now: Cycles) -> u32 {
        if self.cause & cause::DC != 0 {
            self.count_offset
        } else {
            self.ticks(now).wrapping_add(self.count_offset)
        }
    }

    /// Makes Count `value` at `now`; it goes on from there. Cause.TI stays as it is.
    pub fn set_count(&mut self, value: u32, now: Cycles) {
        let stopped = self.cause & cause::DC != 0;
        self.count_offset = if stopped { value } else { value.wrapping_sub(self.ticks(now)) };
        self.rearm_timer(now);
    }

    /// The cycle at which Count next equals Compare; `NEVER` while Cause.DC stops Count.
    #[inline]
    pub fn next_timer(&self) -> Cycles {
        self.timer_due
    }

    /// Raises the timer interrupt (Cause.TI and its line) if it has become due by `now`.
    #[inline]
    pub fn tick(&mut self, now: Cycles) {
        if now >= self.timer_due {
            self.cause |= cause::TI;
            self.rearm_timer(now);
            self.update_lines();
        }
    }

    /// Sets the external interrupt lines IP7 to IP2 (bit n is IPn; bits 0 and 1 are ignored).
    pub fn set_lines(&mut self, lines: u8) {
        self.lines = lines & EXTERNAL_LINES;
        self.update_lines();
    }

    /// Cause.IP & Status.IM.
    #[inline]
    pub fn pending_interrupts(&self) -> u8 {
        ((self.cause & self.status & cause::IP_MASK) >> cause::IP_SHIFT) as u8
    }

    /// Whether an interrupt would be taken now.
    #[inline]
    pub fn interrupt_ready(&self) -> bool {
        let enabled = self.status & (status::IE | status::EXL | status::ERL) == status::IE;
        enabled && self.pending_interrupts() != 0
    }

    /// Cause with a timer interrupt that is due but that nobody has called `tick` for.
    pub(super) fn cause_at(&self, now: Cycles) -> u32 {
        if now >= self.timer_due { self.cause | cause::TI | self.timer_line() } else { self.cause }
    }

    pub(super) fn write_compare(&mut self, value: u32, now: Cycles) {
        self.compare = value;
        self.cause &= !cause::TI;
        self.update_lines();
        self.rearm_timer(now);
    }

    /// `value` is all of Cause; DC decides whether Count runs on.
    pub(super) fn write_cause(&mut self, value: u32, now: Cycles) {
        let count = self.count(now);
        self.cause = value;
        self.set_count(count, now);
    }

    /// Looks for the next equality strictly after `now`.
    pub(super) fn rearm_timer(&mut self, now: Cycles) {
        if self.cause & cause::DC != 0 {
            self.timer_due = Cycles::NEVER;
            return;
        }
        let ahead = u64::from(self.compare.wrapping_sub(self.count(now)));
        let ticks = if ahead == 0 { TURN_TICKS } else { ahead };
        let divider = u64::from(self.config.clock_divider);
        let tick = now.0 / divider;
        self.timer_due =
            tick.checked_add(ticks).and_then(|due| due.checked_mul(divider)).map_or(Cycles::NEVER, Cycles);
    }

    fn ticks(&self, now: Cycles) -> u32 {
        (now.0 / u64::from(self.config.clock_divider)) as u32
    }

    fn timer_line(&self) -> u32 {
        1 << (cause::IP_SHIFT + (self.int_ctl >> int_ctl::IPTI_SHIFT))
    }

    fn update_lines(&mut self) {
        self.cause &= !(u32::from(EXTERNAL_LINES) << cause::IP_SHIFT);
        self.cause |= u32::from(self.lines) << cause::IP_SHIFT;
        if self.cause & cause::TI != 0 {
            self.cause |= self.timer_line();
        }
    }
}
