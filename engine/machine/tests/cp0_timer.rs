//! Count, Compare and the interrupt lines.

mod cp0_random;

use cp0_random::Random;
use machine::cp0::{cause, register, status};
use machine::{Cp0, CpuConfig, Cycles};

/// Cycles in one turn of Count.
const TURN: u64 = 2 << 32;

fn guest() -> Cp0 {
    Cp0::new(CpuConfig::guest(), 0)
}

fn write(cp0: &mut Cp0, (number, select): (u8, u8), value: u64, now: u64) {
    cp0.write(number, select, value, Cycles(now));
}

#[test]
fn count_ticks_every_second_cycle_and_wraps() {
    let cp0 = guest();
    for (now, count) in [(0, 0), (1, 0), (2, 1), (TURN - 1, u32::MAX), (TURN, 0), (TURN + 2, 1)] {
        assert_eq!(cp0.count(Cycles(now)), count, "at {now}");
    }
}

#[test]
fn count_goes_on_from_what_is_written() {
    let mut cp0 = guest();
    for (value, at) in [(0xffff_fffe, 7), (0, 1_000_001), (0x8000_0000, TURN + 3)] {
        cp0.set_count(value, Cycles(at));
        assert_eq!(cp0.count(Cycles(at)), value);
        assert_eq!(cp0.count(Cycles(at + 2)), value.wrapping_add(1));
        assert_eq!(cp0.count(Cycles(at + 6)), value.wrapping_add(3));
    }
}

#[test]
fn the_timer_is_due_when_count_becomes_equal() {
    let rows = [
        // Count, Compare, at, due
        (100, 100, 0, TURN), // written equal: a full turn
        (100, 99, 0, TURN - 2),
        (0xffff_ffff, 0, 0, 2), // across the wrap
        (100, 101, 0, 2),
        (100, 101, 5, 6), // the tick at cycle 6, from the middle of a tick
        (100, 101, 4, 6),
        (0, 0x8000_0000, 10, 10 + (1 << 32)),
    ];
    for (count, compare, at, due) in rows {
        let mut cp0 = guest();
        cp0.set_count(count, Cycles(at));
        write(&mut cp0, register::COMPARE, compare, at);
        assert_eq!(cp0.next_timer(), Cycles(due), "Count {count} Compare {compare} at {at}");
        let compared = cp0.compare;
        assert_eq!(cp0.count(Cycles(due)), compared);
        assert_ne!(cp0.count(Cycles(due - 1)), compared);
        // The order of the two writes does not matter.
        let mut other = guest();
        write(&mut other, register::COMPARE, compare, at);
        write(&mut other, register::COUNT, count.into(), at);
        assert_eq!(other.next_timer(), Cycles(due));
    }
}

#[test]
fn next_timer_is_the_first_cycle_that_a_walk_over_cycles_finds() {
    let mut random = Random::new(1);
    for _ in 0..2_000 {
        let mut cp0 = guest();
        let at = random.bits() % (3 * TURN);
        let count = random.bits() as u32;
        let ahead = random.below(500) as u32 + 1;
        cp0.set_count(count, Cycles(at));
        write(&mut cp0, register::COMPARE, count.wrapping_add(ahead).into(), at);
        let found = (at + 1..).find(|now| cp0.count(Cycles(*now)) == cp0.compare).unwrap();
        assert_eq!(cp0.next_timer(), Cycles(found), "Count {count:#x} + {ahead} at {at}");
    }
}

#[test]
fn a_due_timer_raises_ti_and_its_line_until_compare_is_written() {
    let mut cp0 = guest();
    write(&mut cp0, register::STATUS, 0x8001, 0);
    write(&mut cp0, register::COMPARE, 50, 0);
    cp0.tick(Cycles(99));
    assert!(!cp0.interrupt_ready());
    cp0.tick(Cycles(100));
    assert_eq!((cp0.pending_interrupts(), cp0.interrupt_ready()), (0x80, true));
    assert_ne!(cp0.cause & cause::TI, 0);
    assert_eq!(cp0.next_timer(), Cycles(100 + TURN), "once a turn");
    cp0.set_lines(0);
    assert_eq!(cp0.pending_interrupts(), 0x80, "the line is the timer's own");
    write(&mut cp0, register::COUNT, 10, 100);
    assert_eq!(cp0.pending_interrupts(), 0x80, "Count does not acknowledge");
    write(&mut cp0, register::COMPARE, 60, 102);
    assert_eq!((cp0.pending_interrupts(), cp0.cause & cause::TI), (0, 0));
}

#[test]
fn cause_shows_a_due_timer_before_anybody_ticks() {
    let mut cp0 = guest();
    write(&mut cp0, register::COMPARE, 50, 0);
    let at = |now| cp0.read(13, 0, Cycles(now)) as u32 & (cause::TI | cause::IP_MASK);
    assert_eq!((at(99), at(100)), (0, cause::TI | 0x8000));
}

#[test]
fn a_late_tick_does_not_lose_the_next_turn() {
    let mut cp0 = guest();
    write(&mut cp0, register::COMPARE, 50, 0);
    cp0.tick(Cycles(5000));
    assert_eq!(cp0.next_timer(), Cycles(100 + TURN));
    cp0.tick(Cycles(100 + 3 * TURN));
    assert_eq!(cp0.next_timer(), Cycles(100 + 4 * TURN));
}

#[test]
fn a_write_does_not_swallow_a_timer_that_is_already_due() {
    let mut cp0 = guest();
    write(&mut cp0, register::COMPARE, 50, 0);
    write(&mut cp0, register::COUNT, 0, 200);
    assert_ne!(cp0.cause & cause::TI, 0);
}

#[test]
fn dc_stops_count_and_the_timer() {
    let mut cp0 = guest();
    write(&mut cp0, register::COMPARE, 50, 0);
    write(&mut cp0, register::CAUSE, cause::DC.into(), 20);
    assert_eq!((cp0.count(Cycles(20)), cp0.count(Cycles(1000))), (10, 10));
    assert_eq!(cp0.next_timer(), Cycles::NEVER);
    write(&mut cp0, register::COUNT, 40, 1000);
    assert_eq!(cp0.count(Cycles(2000)), 40);
    write(&mut cp0, register::CAUSE, 0, 3000);
    assert_eq!((cp0.count(Cycles(3000)), cp0.next_timer()), (40, Cycles(3020)));
}

#[test]
fn time_may_run_to_its_end() {
    let mut cp0 = guest();
    write(&mut cp0, register::COMPARE, 0, u64::MAX - 1);
    assert!(cp0.next_timer() > Cycles(u64::MAX - 1));
    cp0.tick(Cycles::NEVER);
}

#[test]
fn only_hardware_lines_come_from_outside() {
    let mut cp0 = guest();
    write(&mut cp0, register::STATUS, 0xff01, 0);
    for lines in 0..=255 {
        cp0.set_lines(lines);
        assert_eq!(cp0.pending_interrupts(), lines & 0xfc);
    }
    cp0.set_lines(0x04);
    write(&mut cp0, register::CAUSE, 0xff00, 0);
    assert_eq!(cp0.pending_interrupts(), 0x07, "software has its two and cannot touch the others");
}

#[test]
fn an_interrupt_is_ready_when_pending_unmasked_enabled_and_no_level_is_raised() {
    for ip in [0, 0x04u32, 0x80, 0xfc] {
        for im in [0, 0x04u32, 0x78, 0xff] {
            for low in 0..8u32 {
                let mut cp0 = guest();
                cp0.set_lines(ip as u8);
                cp0.status = im << status::IM_SHIFT | low;
                let (ie, exl, erl) = (low & 1 != 0, low & 2 != 0, low & 4 != 0);
                assert_eq!(cp0.interrupt_ready(), ip & im != 0 && ie && !exl && !erl, "{ip:#x} {im:#x} {low}");
            }
        }
    }
}
