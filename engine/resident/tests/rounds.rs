//! Rounds: the result depends on the guests and the configuration, on nothing else.
//!
//! The same mix of guests runs with several numbers of host threads and in differently large pieces of time;
//! what they computed, what was counted and what happened must be equal.

mod guest;

use std::collections::BTreeMap;

use guest::{HALT, KSEG0, PROGRAM, PROGRAM_PHYS};
use machine::PhysRange;
use machine::{Cycles, PhysAddr};
use resident::{Counters, Event, Monitor, MonitorConfig, StopCause};

const RAM_BYTES: u64 = 1 << 20;
const RESULT_PHYS: u64 = 0x3_0000;

/// Fills pages with a running number, `rounds` times, and halts.
fn busy(rounds: u32) -> String {
    format!(
        "
        li s0, {rounds}
        li t0, {result:#x}
again:  li t1, 0x80040000
        li t2, 0x80060000
fill:   daddiu v0, v0, 3
        sd v0, 0(t1)
        daddiu t1, t1, 520
        sltu t3, t1, t2
        bne t3, zero, fill
        nop
        sd v0, 0(t0)
        daddiu s0, s0, -1
        bne s0, zero, again
        nop
        {HALT}",
        result = KSEG0 + RESULT_PHYS
    )
}

/// Sleeps `ticks` of Count at a time, `times` times, then halts. The result is how often it woke.
fn sleeper(ticks: u32, times: u32) -> String {
    worker(ticks, times, 1)
}

/// As a sleeper, with `loops` turns of work after each sleep.
fn worker(ticks: u32, times: u32, loops: u32) -> String {
    format!(
        "
        b start
        nop
        .org {PROGRAM:#x} + 0x180
        mtc0 zero, c0_compare
        daddiu v0, v0, 1
        li k0, {result:#x}
        sd v0, 0(k0)
        eret
        .org {PROGRAM:#x} + 0x400
start:  li t0, {PROGRAM:#x}
        mtc0 t0, c0_ebase
        li t3, {times}
        or v0, zero, zero
again:  mfc0 t0, c0_count
        li t1, {ticks}
        addu t0, t0, t1
        mtc0 t0, c0_compare
        li t0, 0x8081
        mtc0 t0, c0_status
        or t2, v0, zero
sleep:  wait
        beq v0, t2, sleep
        nop
        li t1, {loops}
work:   daddiu t1, t1, -1
        bne t1, zero, work
        nop
        bne v0, t3, again
        nop
        {HALT}",
        result = KSEG0 + RESULT_PHYS
    )
}

const ENDLESS: &str = "mtc0 zero, c0_status\n here: b here\n nop";

/// What a run leaves behind.
#[derive(Debug, PartialEq)]
struct Outcome {
    memory: BTreeMap<u32, Vec<u8>>,
    counters: Vec<Counters>,
    events: Vec<Event>,
    progress: Vec<(u64, Cycles)>,
}

/// Nine VMs on four CPUs of two nodes.
fn mixed(host_threads: usize) -> Monitor {
    let mut monitor = guest::machine(MonitorConfig {
        node_of_cpu: vec![0, 0, 1, 1],
        nodes: 2,
        host_threads,
        l2tlb_entries: 64,
        large_pages: false,
        tlb_entries: 16,
        ..guest::config()
    });
    let programs = [
        (busy(300), 0),
        (sleeper(90_000, 9), 0),
        (busy(200), 1),
        (sleeper(7_001, 70), 1),
        (sleeper(7_001, 70), 1), // wakes together with the one before
        (busy(900), 2),
        (worker(100_000, 6, 30_000), 3), // these two wake together and do not finish in a time slice
        (worker(100_000, 6, 20_000), 3),
        (worker(10_000, 60, 5), 3),
    ];
    for (source, cpu) in programs {
        guest::boot(&mut monitor, RAM_BYTES, cpu, &source);
    }
    monitor
}

const VMS: u32 = 9;
const END: u64 = 4_000_000;

fn run_mixed(host_threads: usize, pieces: &[u64]) -> Outcome {
    let mut monitor = mixed(host_threads);
    let mut events = Vec::new();
    for piece in pieces.iter().cycle() {
        let until = (monitor.now().0 + piece).min(END);
        let before = monitor.now();
        events.extend(run_logged(&mut monitor, until));
        if monitor.now() >= Cycles(END) || (monitor.now() == before && monitor.next_event().is_none()) {
            break;
        }
    }
    let mut memory = BTreeMap::new();
    for vm in 0..VMS {
        memory.insert(vm, guest::load(&mut monitor, vm, 0, RAM_BYTES as usize));
    }
    let counters = (0..VMS).map(|vm| monitor.counters(vm, 0).unwrap()).collect();
    let progress = (0..4).map(|cpu| (monitor.cpu_progress(cpu).unwrap().0, Cycles(0))).collect();
    Outcome { memory, counters, events, progress }
}

/// As `guest::run`, with the page faults among the events.
fn run_logged(monitor: &mut Monitor, until: u64) -> Vec<Event> {
    let mut all = Vec::new();
    while monitor.now() < Cycles(until) {
        let events = monitor.run(Cycles(until));
        if events.is_empty() {
            break;
        }
        for event in events {
            if let Event::PageFault { vm, page, node, .. } = event {
                guest::provide(monitor, vm, page, node.0);
            }
            all.push(event);
        }
    }
    all
}

fn assert_same(a: &Outcome, b: &Outcome, who: &str) {
    for (vm, (a, b)) in a.counters.iter().zip(&b.counters).enumerate() {
        let differing: Vec<_> = a.rows().into_iter().zip(b.rows()).filter(|(a, b)| a != b).collect();
        assert!(differing.is_empty(), "{who}: counters of VM {vm}: {differing:?}");
    }
    assert!(a.memory == b.memory, "{who}: memory");
    assert_eq!(a.events, b.events, "{who}");
    assert_eq!(a.progress, b.progress, "{who}");
}

#[test]
fn any_number_of_host_threads_gives_the_same_run() {
    let one = run_mixed(1, &[END]);
    assert_eq!(one.events.iter().filter(|event| matches!(event, Event::VcpuStopped { .. })).count(), VMS as usize);
    for host_threads in [2, 4] {
        for _ in 0..3 {
            assert_same(&one, &run_mixed(host_threads, &[END]), &format!("{host_threads} threads"));
        }
    }
}

/// Four VMs that have a CPU each: their rounds grow while nothing happens.
fn spread(host_threads: usize) -> Monitor {
    let mut monitor =
        guest::machine(MonitorConfig { node_of_cpu: vec![0, 0, 1, 1], nodes: 2, host_threads, ..guest::config() });
    for (cpu, source) in (0..).zip([busy(2000), sleeper(90_000, 20), worker(100_000, 6, 30_000), busy(100)]) {
        guest::boot(&mut monitor, RAM_BYTES, cpu, &source);
    }
    monitor
}

#[test]
fn rounds_grow_while_nothing_happens_and_are_short_after_an_event() {
    let mut monitor = spread(1);
    let quantum = guest::config().quantum.0;
    let (mut lengths, mut longest, mut is_eventful) = (Vec::new(), quantum, false);
    while monitor.now() < Cycles(END) && monitor.next_event().is_some() {
        let before = monitor.now().0;
        for event in monitor.run(Cycles(before + 1)) {
            is_eventful = true;
            if let Event::PageFault { vm, page, node, .. } = event {
                guest::provide(&mut monitor, vm, page, node.0);
            }
        }
        let length = monitor.now().0 - before;
        if length == 0 {
            assert!(is_eventful, "it has stopped for nothing");
            continue;
        }
        // Those that begin in the middle of their length are shorter.
        assert!(length.is_multiple_of(quantum) && length <= longest, "{length} at {before}, {longest} expected");
        longest = if is_eventful { quantum } else { (2 * longest).min(16 * quantum) };
        is_eventful = false;
        lengths.push(length / quantum);
    }
    assert!([1, 2, 4, 8, 16].iter().all(|quanta| lengths.contains(quanta)), "{lengths:?}");
}

#[test]
fn long_rounds_do_not_depend_on_pieces_or_host_threads() {
    let run = |host_threads: usize, piece: u64| {
        let mut monitor = spread(host_threads);
        let mut events = Vec::new();
        while monitor.now() < Cycles(END) && monitor.next_event().is_some() {
            let until = (monitor.now().0 + piece).min(END);
            events.extend(run_logged(&mut monitor, until));
        }
        (events, [0, 1, 2, 3].map(|vm| monitor.counters(vm, 0).unwrap().rows()), monitor.now())
    };
    let whole = run(1, END);
    assert_eq!(whole.0.iter().filter(|event| matches!(event, Event::VcpuStopped { .. })).count(), 4);
    for (host_threads, piece) in [(1, 1), (1, 20_000), (2, 77_777), (4, 160_000), (2, 300_001), (4, END)] {
        assert_eq!(run(host_threads, piece), whole, "{host_threads} threads, pieces of {piece}");
    }
}

#[test]
fn a_run_in_pieces_is_the_same_run() {
    let whole = run_mixed(1, &[END]);
    for pieces in [&[20_000][..], &[1], &[77_777], &[19_999, 60_001], &[500_000, 1, 40_000]] {
        assert_same(&whole, &run_mixed(1, pieces), &format!("pieces of {pieces:?}"));
    }
}

/// Two that sleep most of the time and do not finish their work in a time slice.
#[test]
fn idle_time_skipped_or_not_is_the_same_run() {
    let run = |piece: u64| {
        let mut monitor = guest::machine(guest::config());
        let vms = [worker(150_000, 6, 40_000), worker(150_000, 6, 30_000)]
            .map(|source| guest::boot(&mut monitor, RAM_BYTES, 0, &source));
        let mut events = Vec::new();
        while monitor.now() < Cycles(5_000_000) && monitor.next_event().is_some() {
            let until = monitor.now().0 + piece;
            events.extend(run_logged(&mut monitor, until));
        }
        (events, vms.map(|vm| monitor.counters(vm, 0).unwrap().rows()))
    };
    let whole = run(5_000_000);
    assert_eq!(whole.0.iter().filter(|event| matches!(event, Event::VcpuStopped { .. })).count(), 2);
    for piece in [20_000, 60_000, 100_001] {
        assert_eq!(run(piece), whole, "pieces of {piece}");
    }
}

#[test]
fn more_vcpus_than_cpus_share_the_time_and_all_finish() {
    let mut monitor = guest::machine(guest::config());
    let vms: Vec<u32> = (0..5).map(|_| guest::boot(&mut monitor, RAM_BYTES, 0, &busy(100))).collect();
    let events = guest::run(&mut monitor, 20_000_000);
    assert_eq!(events.len(), vms.len());
    let ends: Vec<u64> = events.iter().map(|event| event.order().0.0).collect();
    assert!(ends[4] - ends[0] < ends[0], "they ran in turn, not one after the other: {ends:?}");
    let instructions: Vec<u64> = vms.iter().map(|vm| monitor.counters(*vm, 0).unwrap().instructions).collect();
    assert!(instructions.iter().all(|count| *count == instructions[0]), "{instructions:?}");
}

#[test]
fn a_guest_that_loops_with_interrupts_off_stops_nobody() {
    let mut monitor = guest::machine(guest::config());
    let endless = guest::boot(&mut monitor, RAM_BYTES, 0, ENDLESS);
    let sleeper = guest::boot(&mut monitor, RAM_BYTES, 0, &sleeper(5_000, 20));
    let busy = guest::boot(&mut monitor, RAM_BYTES, 0, &busy(100));
    let events = guest::run(&mut monitor, 30_000_000);
    let mut stopped: Vec<u32> = events.iter().map(Event::vm).collect();
    stopped.sort_unstable();
    assert_eq!(stopped, [sleeper, busy], "{events:?}");
    assert!(monitor.counters(endless, 0).unwrap().cycles_kernel > 5_000_000);
}

#[test]
fn idle_time_costs_no_rounds_and_timers_wake_in_time() {
    let mut monitor = guest::machine(guest::config());
    let vm = guest::boot(&mut monitor, RAM_BYTES, 0, &sleeper(400_000_000, 5));
    let events = guest::run(&mut monitor, 5_000_000_000);
    let [Event::VcpuStopped { cause: StopCause::Halted, cycle, .. }] = events.as_slice() else {
        panic!("{events:?}")
    };
    // Five sleeps of 400 million ticks of two cycles, and what the monitor needs.
    assert!((4_000_000_000..4_000_100_000).contains(&cycle.0), "{cycle}");
    let counters = monitor.counters(vm, 0).unwrap();
    assert_eq!((counters.interrupts, counters.emulated_wait), (5, 6), "the last WAIT is the halt");
    assert!(counters.cycles_idle > 3_999_000_000 && counters.instructions < 1_000);
}

#[test]
fn time_stands_still_when_nobody_will_ever_run_again() {
    let mut monitor = guest::machine(guest::config());
    guest::boot(&mut monitor, RAM_BYTES, 0, HALT);
    guest::run(&mut monitor, 1_000_000);
    assert_eq!(monitor.next_event(), None);
    let now = monitor.now();
    assert!(monitor.run(Cycles(u64::MAX)).is_empty());
    assert!(monitor.now().0 <= now.0 + guest::config().quantum.0);
}

#[test]
fn a_line_wakes_a_waiting_vcpu() {
    let mut monitor = guest::machine(guest::config());
    // Waits for IP2; the timer's line is masked.
    let source = format!(
        "li t0, 0x480\n mtc0 t0, c0_status\n wait\n li t0, {:#x}\n sd t0, 0(t0)\n {HALT}",
        KSEG0 + RESULT_PHYS
    );
    let vm = guest::boot(&mut monitor, RAM_BYTES, 0, &source);
    assert!(guest::run(&mut monitor, 200_000).is_empty());
    monitor.set_line(vm, 0, 2, true).unwrap();
    guest::run_to_halt(&mut monitor, 200_000);
    assert_eq!(guest::load_dwords(&mut monitor, vm, RESULT_PHYS, 1), [KSEG0 + RESULT_PHYS]);
}

#[test]
fn a_vector_that_faults_for_ever_stops_its_vm_and_no_other() {
    let rows = [
        "syscall", // BEV: the boot vectors, where nothing is
        "li t0, 0x80800000\n mtc0 t0, c0_ebase\n mtc0 zero, c0_status\n syscall", // behind the RAM
        "li t0, 1\n jr t0\n nop", // a misaligned pc
    ];
    let mut monitor = guest::machine(guest::config());
    let busy = guest::boot(&mut monitor, RAM_BYTES, 0, &busy(50));
    let broken: Vec<u32> = rows.iter().map(|source| guest::boot(&mut monitor, RAM_BYTES, 0, source)).collect();
    let events = guest::run(&mut monitor, 10_000_000);
    for vm in broken {
        let cause = events.iter().find_map(|event| match event {
            Event::VcpuStopped { vm: stopped, cause, .. } if *stopped == vm => Some(*cause),
            _ => None,
        });
        assert_eq!(cause, Some(StopCause::NoHandler), "VM {vm}");
    }
    assert!(
        events
            .iter()
            .any(|event| matches!(event, Event::VcpuStopped { vm, cause: StopCause::Halted, .. } if *vm == busy))
    );
}

#[test]
fn a_fetch_from_a_device_stops_the_vcpu() {
    for target in ["0x80200000", "0x801ffffc"] {
        let mut monitor = guest::machine(guest::config());
        let vm = guest::create(&mut monitor, 2 << 20, 1);
        monitor.add_window(vm, PhysRange { base: PhysAddr(0x20_0000), bytes: 0x1000 }).unwrap();
        // The second way leads there in the delay slot of a branch at the end of the last page of RAM.
        guest::store(&mut monitor, vm, 0x1f_fffc, &mips::assemble("b . + 8", 0).unwrap());
        guest::store(&mut monitor, vm, PROGRAM_PHYS, &guest::assemble(&format!("li t0, {target}\n jr t0\n nop")));
        guest::start(&mut monitor, vm, 0, 0, PROGRAM);
        let events = guest::run(&mut monitor, 1_000_000);
        let [Event::VcpuStopped { cause: StopCause::FetchFromDevice, .. }] = events.as_slice() else {
            panic!("{target}: {events:?}")
        };
    }
}

#[test]
fn a_guest_sees_and_clears_an_interrupt_of_a_device_without_an_event() {
    const STATUS: PhysAddr = PhysAddr(0x20_0060);
    const CLEAR: PhysAddr = PhysAddr(0x20_0064);
    const LINE: u8 = 3;
    let mut monitor = guest::machine(guest::config());
    let source = format!(
        "li t0, 0x80200000\n li t1, 0x80030000
         lw s0, 0x60(t0)\n mfc0 s1, c0_cause\n sw s0, 0x64(t0)\n lw s2, 0x60(t0)\n mfc0 s3, c0_cause
         sd s0, 0(t1)\n sd s1, 8(t1)\n sd s2, 16(t1)\n sd s3, 24(t1)\n {HALT}"
    );
    let vm = guest::boot(&mut monitor, 2 << 20, 0, &source);
    monitor.add_window(vm, PhysRange { base: PhysAddr(0x20_0000), bytes: 0x1000 }).unwrap();
    assert!(monitor.update_interrupt(vm, CLEAR, 0, 1).is_err(), "nobody has connected it");
    monitor.windows(vm).unwrap().connect_interrupt(STATUS, CLEAR, LINE);
    assert_eq!(monitor.update_interrupt(vm, CLEAR, 0, 7), Ok(7));
    assert_eq!(monitor.update_interrupt(vm, CLEAR, 2, 0), Ok(5));
    let events = guest::run(&mut monitor, 1_000_000);
    assert!(matches!(events.as_slice(), [Event::VcpuStopped { cause: StopCause::Halted, .. }]), "{events:?}");
    let [before, cause_before, after, cause_after] = guest::load_dwords(&mut monitor, vm, 0x3_0000, 4)[..] else {
        panic!("four were loaded")
    };
    let level = |cause: u64| cause >> (8 + LINE) & 1;
    assert_eq!((before, level(cause_before), after, level(cause_after)), (5, 1, 0, 0));
    assert_eq!(monitor.update_interrupt(vm, CLEAR, 0, 0), Ok(0));
}
