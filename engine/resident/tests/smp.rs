//! Several vCPUs of a VM: what they do to the same memory, to each other's interrupts and to each other.
//!
//! Every guest here counts what it does, and the host knows what the counts must be. Each runs as two VMs at once, with
//! the interpreter and the translator and on one, two and four host threads; what it computed, what was counted
//! and how far each CPU came must be the same.
//!
//! The vCPUs of a VM run one after the other in slices on one host thread, so they are *sequentially
//! consistent*: what they read is what some interleaving of their instructions gives. The litmus tests compare
//! with the list of all interleavings.

mod guest;

use std::collections::BTreeSet;

use guest::PROGRAM;
use machine::Cycles;
use resident::{EngineKind, Event, Monitor, MonitorConfig, StopCause};

const RAM_BYTES: u64 = 1 << 20;
/// Where guests count: 8 bytes a vCPU each.
const DONE: u64 = 0x3_0000;
const COUNTS: u64 = 0x3_0100;
const ERRORS: u64 = 0x3_0200;
const SHARED: u64 = 0x3_1000;
const RESULTS_BYTES: usize = 0x2000;

/// In every program: the vCPU's number in s7, and addresses that depend on it.
const PROLOGUE: &str = "
        mfc0 s7, c0_ebase
        andi s7, s7, 0x3ff
        dsll t0, s7, 3
        li s6, 0x80030100
        daddu s6, s6, t0            # its count
        li s5, 0x80030200
        daddu s5, s5, t0            # its errors
        li s4, 0x80031000           # what all share
";

/// Says that it is done, and stops.
const EPILOGUE: &str = "
finish: dsll t0, s7, 3
        li t1, 0x80030000
        daddu t0, t0, t1
        li t1, 1
        sd t1, 0(t0)
        mtc0 zero, c0_status
halt:   wait
        b halt
        nop
";

/// How a guest is run.
#[derive(Clone, Copy, Debug)]
struct Setup {
    vcpus: u32,
    /// CPUs of each VM; vCPUs are dealt to them in turn.
    cpus: u32,
    engine: EngineKind,
    host_threads: usize,
    interleave: u64,
}

/// What two VMs with the same guest leave behind.
#[derive(PartialEq)]
struct Outcome {
    results: [Vec<u8>; 2],
    counters: Vec<Vec<(&'static str, u64)>>,
    instructions: Vec<u64>,
    events: Vec<Event>,
}

impl Outcome {
    fn dword(&self, vm: usize, paddr: u64) -> u64 {
        let place = (paddr - DONE) as usize;
        u64::from_le_bytes(self.results[vm][place..place + 8].try_into().unwrap())
    }

    fn of_each_vcpu(&self, vm: usize, paddr: u64, vcpus: u32) -> Vec<u64> {
        (0..u64::from(vcpus)).map(|vcpu| self.dword(vm, paddr + 8 * vcpu)).collect()
    }
}

const VMS: usize = 2;

fn monitor_for(setup: Setup) -> Monitor {
    guest::machine(MonitorConfig {
        node_of_cpu: vec![0; VMS * setup.cpus as usize],
        interleave: Cycles(setup.interleave),
        engine: setup.engine,
        host_threads: setup.host_threads,
        l2tlb_entries: 256,
        large_pages: true,
        ..guest::config()
    })
}

/// A VM whose vCPUs below `started` are about to execute `source`, on CPUs from `first_cpu`.
fn boot(monitor: &mut Monitor, setup: Setup, first_cpu: u32, started: u32, source: &str) -> u32 {
    let vm = guest::create(monitor, RAM_BYTES, setup.vcpus);
    guest::store(monitor, vm, guest::PROGRAM_PHYS, &guest::assemble(source));
    for vcpu in 0..setup.vcpus {
        if vcpu < started {
            monitor.set_vcpu(vm, vcpu, PROGRAM, &[]).unwrap();
        }
        monitor.assign(vm, vcpu, (first_cpu + vcpu % setup.cpus) as u16).unwrap();
    }
    vm
}

/// Runs the guest in both VMs until all that `started` and all that those start are done.
fn run(setup: Setup, started: u32, source: &str, cycles_max: u64) -> Outcome {
    let mut monitor = monitor_for(setup);
    let vms = [0, setup.cpus].map(|first| boot(&mut monitor, setup, first, started, source));
    let mut events = Vec::new();
    let is_done = |monitor: &mut Monitor| {
        vms.iter()
            .all(|vm| guest::load_dwords(monitor, *vm, DONE, setup.vcpus as usize).iter().all(|done| *done == 1))
    };
    while !is_done(&mut monitor) {
        assert!(monitor.now() < Cycles(cycles_max), "not done after {cycles_max} cycles: {setup:?}, {events:?}");
        let until = monitor.now().0 + 1_000_000;
        events.extend(guest::run(&mut monitor, until));
        assert!(monitor.next_event().is_some() || is_done(&mut monitor), "all wait for ever: {setup:?}");
    }
    let counted = vms.iter().flat_map(|vm| (0..setup.vcpus).map(|vcpu| (*vm, vcpu)));
    Outcome {
        counters: counted.map(|(vm, vcpu)| monitor.counters(vm, vcpu).unwrap().rows()).collect(),
        instructions: (0..VMS as u32 * setup.cpus)
            .map(|cpu| monitor.cpu_progress(cpu as u16).unwrap().0)
            .collect(),
        results: vms.map(|vm| guest::load(&mut monitor, vm, DONE, RESULTS_BYTES)),
        events,
    }
}

/// Runs the guest in every way, and returns what all of them gave.
fn run_in_every_way(vcpus: u32, cpus: u32, started: u32, source: &str, cycles_max: u64) -> Outcome {
    let way = |engine, host_threads| {
        let setup = Setup { vcpus, cpus, engine, host_threads, interleave: 2_000 };
        run(setup, started, source, cycles_max)
    };
    let first = way(EngineKind::Interpreter, 1);
    for host_threads in [1, 2, 4] {
        let other = way(EngineKind::Translator, host_threads);
        let who = format!("{vcpus} vCPUs on {cpus} CPUs, {host_threads} threads");
        assert_eq!(first.counters, other.counters, "{who}");
        assert_eq!(first.instructions, other.instructions, "{who}");
        assert!(first.events == other.events && first.results == other.results, "{who}");
    }
    first
}

/// (vCPUs, CPUs): as many, and two or four to a CPU.
const SHAPES: [(u32, u32); 5] = [(2, 2), (3, 3), (8, 8), (4, 2), (8, 2)];

// -- locks and barriers --------------------------------------------------------------------------------

/// `turns` times: takes the lock, adds 1 to a number in several instructions, gives the lock back.
fn spin_lock(turns: u32) -> String {
    format!(
        "{PROLOGUE}
        li s0, {turns}
lock:   ll t0, 0(s4)
        bne t0, zero, lock
        li t0, 1
        sc t0, 0(s4)
        beq t0, zero, lock
        nop
        sync
        ld t1, 8(s4)
        daddiu t1, t1, 1
        lw t2, 16(s4)               # nobody else may be inside
        beq t2, zero, alone
        sw s4, 16(s4)
        sd t0, 0(s5)
alone:  sd t1, 8(s4)
        sw zero, 16(s4)
        sync
        sw zero, 0(s4)
        ld t1, 0(s6)
        daddiu t1, t1, 1
        daddiu s0, s0, -1
        bne s0, zero, lock
        sd t1, 0(s6)
        {EPILOGUE}"
    )
}

#[test]
fn a_spin_lock_lets_in_one_at_a_time() {
    for (vcpus, cpus) in SHAPES {
        let turns = 2_000 / vcpus;
        let outcome = run_in_every_way(vcpus, cpus, vcpus, &spin_lock(turns), 100_000_000);
        for vm in 0..VMS {
            assert_eq!(outcome.dword(vm, SHARED + 8), u64::from(vcpus * turns), "{vcpus} vCPUs");
            assert_eq!(outcome.of_each_vcpu(vm, COUNTS, vcpus), vec![u64::from(turns); vcpus as usize]);
            assert_eq!(outcome.of_each_vcpu(vm, ERRORS, vcpus), vec![0; vcpus as usize]);
        }
    }
}

/// Draws a ticket, waits for its number, and notes that its turn was the one before's plus 1.
fn ticket_lock(turns: u32) -> String {
    format!(
        "{PROLOGUE}
        li s0, {turns}
draw:   ll t0, 0(s4)
        addiu t1, t0, 1
        sc t1, 0(s4)
        beq t1, zero, draw
        nop
turn:   lw t2, 4(s4)
        bne t2, t0, turn
        nop
        lw t3, 8(s4)                # a plain counter, protected by the lock
        beq t3, t0, right
        nop
        sd s4, 0(s5)
right:  addiu t3, t3, 1
        sw t3, 8(s4)
        sync
        addiu t2, t2, 1
        sw t2, 4(s4)
        daddiu s0, s0, -1
        bne s0, zero, draw
        nop
        {EPILOGUE}"
    )
}

#[test]
fn a_ticket_lock_serves_in_the_order_of_tickets() {
    for (vcpus, cpus) in [(2, 2), (5, 5), (4, 2)] {
        let turns = 60;
        let outcome = run_in_every_way(vcpus, cpus, vcpus, &ticket_lock(turns), 400_000_000);
        for vm in 0..VMS {
            let both = u64::from(vcpus * turns) << 32 | u64::from(vcpus * turns);
            assert_eq!(outcome.dword(vm, SHARED), both, "drawn and served");
            assert_eq!(outcome.of_each_vcpu(vm, ERRORS, vcpus), vec![0; vcpus as usize]);
        }
    }
}

/// Adds to a doubleword by LLD and SCD, both halves at once, and to a word beside it by LL and SC.
fn atomic_adds(turns: u32) -> String {
    format!(
        "{PROLOGUE}
        li s0, {turns}
        li s1, 1
        dsll32 s1, s1, 0
        daddiu s1, s1, 1
wide:   lld t0, 0(s4)
        daddu t0, t0, s1
        scd t0, 0(s4)
        beq t0, zero, wide
        nop
narrow: ll t0, 12(s4)
        addiu t0, t0, 1
        sc t0, 12(s4)
        beq t0, zero, narrow
        nop
        daddiu s0, s0, -1
        bne s0, zero, wide
        nop
        {EPILOGUE}"
    )
}

#[test]
fn no_addition_by_ll_and_sc_is_lost() {
    for (vcpus, cpus) in SHAPES {
        let turns = 12_000 / vcpus;
        let outcome = run_in_every_way(vcpus, cpus, vcpus, &atomic_adds(turns), 100_000_000);
        for vm in 0..VMS {
            let sum = u64::from(vcpus * turns);
            assert_eq!(outcome.dword(vm, SHARED), sum << 32 | sum, "{vcpus} vCPUs");
            assert_eq!(outcome.dword(vm, SHARED + 8), sum << 32);
        }
    }
}

/// A barrier that turns its sense around: before it each vCPU writes the number of the round, behind it all must
/// have written it.
fn barrier(vcpus: u32, rounds: u32) -> String {
    format!(
        "{PROLOGUE}
        li s0, 0                    # rounds
        li s1, 0                    # sense
        li s2, {vcpus}
round:  daddiu s0, s0, 1
        sd s0, 0(s6)
        xori s1, s1, 1
arrive: ll t0, 0(s4)
        addiu t0, t0, 1
        or t1, t0, zero
        sc t1, 0(s4)
        beq t1, zero, arrive
        nop
        bne t0, s2, stand
        nop
        sw zero, 0(s4)              # the last one lets the others go
        sync
        b check
        sw s1, 4(s4)
stand:  lw t0, 4(s4)
        bne t0, s1, stand
        nop
check:  li t0, 0x80030100
        or t1, s2, zero
each:   ld t2, 0(t0)
        sltu t3, t2, s0             # one that is behind has not been waited for
        beq t3, zero, there
        nop
        sd s0, 0(s5)
there:  daddiu t1, t1, -1
        bne t1, zero, each
        daddiu t0, t0, 8
        li t0, {rounds}
        bne s0, t0, round
        nop
        {EPILOGUE}"
    )
}

#[test]
fn a_barrier_waits_for_all() {
    for (vcpus, cpus) in [(2, 2), (7, 7), (4, 2)] {
        let rounds = 50;
        let outcome = run_in_every_way(vcpus, cpus, vcpus, &barrier(vcpus, rounds), 400_000_000);
        for vm in 0..VMS {
            assert_eq!(outcome.of_each_vcpu(vm, COUNTS, vcpus), vec![u64::from(rounds); vcpus as usize]);
            assert_eq!(outcome.of_each_vcpu(vm, ERRORS, vcpus), vec![0; vcpus as usize]);
        }
    }
}

// -- memory ordering -----------------------------------------------------------------------------------

/// An access of a litmus test to one of two locations.
#[derive(Clone, Copy, Debug)]
enum Access {
    /// Stores the value.
    W(usize, u64),
    /// Loads.
    R(usize),
}
use Access::{R, W};

/// What the loads gave, in the order of threads and accesses, and the two locations in the end.
type Seen = Vec<u64>;

/// A litmus test and the outcome that weakly ordered machines are known for.
struct Litmus {
    name: &'static str,
    threads: &'static [&'static [Access]],
    relaxed: &'static [u64],
}

const LITMUS: [Litmus; 6] = [
    Litmus { name: "MP", threads: &[&[W(0, 1), W(1, 1)], &[R(1), R(0)]], relaxed: &[1, 0, 1, 1] },
    Litmus { name: "SB", threads: &[&[W(0, 1), R(1)], &[W(1, 1), R(0)]], relaxed: &[0, 0, 1, 1] },
    Litmus { name: "LB", threads: &[&[R(0), W(1, 1)], &[R(1), W(0, 1)]], relaxed: &[1, 1, 1, 1] },
    Litmus {
        name: "IRIW",
        threads: &[&[W(0, 1)], &[W(1, 1)], &[R(0), R(1)], &[R(1), R(0)]],
        relaxed: &[1, 0, 1, 0, 1, 1],
    },
    Litmus { name: "CoRR", threads: &[&[W(0, 1)], &[R(0), R(0)]], relaxed: &[1, 0, 1, 0] },
    Litmus { name: "2+2W", threads: &[&[W(0, 1), W(1, 2)], &[W(1, 1), W(0, 2)]], relaxed: &[1, 1] },
];

/// Every outcome that some interleaving has.
fn interleavings(threads: &[&[Access]]) -> BTreeSet<Seen> {
    fn go(
        threads: &[&[Access]],
        next: &mut Vec<usize>,
        memory: [u64; 2],
        seen: &mut Vec<Vec<u64>>,
        all: &mut BTreeSet<Seen>,
    ) {
        let mut is_end = true;
        for thread in 0..threads.len() {
            let Some(access) = threads[thread].get(next[thread]) else { continue };
            is_end = false;
            next[thread] += 1;
            match *access {
                W(place, value) => {
                    let mut after = memory;
                    after[place] = value;
                    go(threads, next, after, seen, all);
                }
                R(place) => {
                    seen[thread].push(memory[place]);
                    go(threads, next, memory, seen, all);
                    seen[thread].pop();
                }
            }
            next[thread] -= 1;
        }
        if is_end {
            all.insert(seen.concat().into_iter().chain(memory).collect());
        }
    }
    let mut all = BTreeSet::new();
    go(threads, &mut vec![0; threads.len()], [0; 2], &mut vec![Vec::new(); threads.len()], &mut all);
    all
}

/// The test is done this often, each time on locations of its own, a cache line apart.
const INSTANCES: u64 = 400;
const LOCATIONS: u64 = 0x4_0000;
const LOADED: u64 = 0x6_0000;

/// Each thread's accesses to one pair of locations after the other, with pauses that differ before each.
fn litmus_program(threads: &[&[Access]]) -> String {
    let mut source = format!(
        "{PROLOGUE}
        li s0, 0x80040000
        li s1, 0x80060000
        dsll t0, s7, 5
        daddu s1, s1, t0
        li s2, {INSTANCES}
        dsll t0, s7, 1
        daddiu s3, t0, 7            # the pause's state
        li v0, 0x80030100           # how far all are
        or v1, zero, zero
"
    );
    for thread in 0..threads.len() {
        source += &format!("li t0, {thread}\n beq t0, s7, thread{thread}\n nop\n");
    }
    for (thread, accesses) in threads.iter().enumerate() {
        source += &format!("thread{thread}: daddiu v1, v1, 1\n sd v1, 0(s6)\n");
        for other in 0..threads.len() {
            // All begin an instance together, as far as slices let them.
            source += &format!(
                "meet{thread}_{other}: ld t0, {at}(v0)\n sltu t0, t0, v1\n bne t0, zero, meet{thread}_{other}\n nop\n",
                at = 8 * other
            );
        }
        let mut loads = 0;
        for (number, access) in accesses.iter().enumerate() {
            source += &format!(
                "li t0, 1103515245\n multu s3, t0\n mflo s3\n addiu s3, s3, {odd}\n srl t0, s3, 25\n\
                 pause{thread}_{number}: bne t0, zero, pause{thread}_{number}\n daddiu t0, t0, -1\n",
                odd = 12345 + 2 * thread
            );
            source += &match access {
                W(place, value) => format!("li t0, {value}\n sd t0, {}(s0)\n", 64 * place),
                R(place) => {
                    loads += 1;
                    format!("ld t0, {}(s0)\n sd t0, {}(s1)\n", 64 * place, 8 * (loads - 1))
                }
            };
        }
        source += &format!(
            "daddiu s0, s0, 128\n daddiu s1, s1, 256\n daddiu s2, s2, -1\n bne s2, zero, thread{thread}\n nop\n\
             b finish\n nop\n"
        );
    }
    source + EPILOGUE
}

fn run_litmus(test: &Litmus, engine: EngineKind, interleave: u64) -> BTreeSet<Seen> {
    let vcpus = test.threads.len() as u32;
    let setup = Setup { vcpus, cpus: vcpus, engine, host_threads: 1, interleave };
    let mut monitor = monitor_for(setup);
    let vm = boot(&mut monitor, setup, 0, vcpus, &litmus_program(test.threads));
    guest::run(&mut monitor, 20_000_000);
    assert_eq!(guest::load_dwords(&mut monitor, vm, DONE, vcpus as usize), vec![1; vcpus as usize]);
    let one = |instance: u64| {
        let mut seen = Vec::new();
        for (thread, accesses) in (0u64..).zip(test.threads) {
            let loads = accesses.iter().filter(|access| matches!(access, R(_))).count();
            seen.extend(guest::load_dwords(&mut monitor, vm, LOADED + 256 * instance + 32 * thread, loads));
        }
        for place in 0..2 {
            seen.extend(guest::load_dwords(&mut monitor, vm, LOCATIONS + 128 * instance + 64 * place, 1));
        }
        seen
    };
    (0..INSTANCES).map(one).collect()
}

#[test]
fn what_vcpus_read_is_what_some_interleaving_gives() {
    for test in &LITMUS {
        let possible = interleavings(test.threads);
        assert!(!possible.contains(test.relaxed), "{}: sequential consistency forbids it", test.name);
        let mut seen = BTreeSet::new();
        for interleave in [100, 130, 170, 230, 2_000] {
            let interpreted = run_litmus(test, EngineKind::Interpreter, interleave);
            assert_eq!(interpreted, run_litmus(test, EngineKind::Translator, interleave), "{}", test.name);
            seen.extend(interpreted);
        }
        let impossible: Vec<_> = seen.difference(&possible).collect();
        assert!(impossible.is_empty(), "{}: {impossible:?}", test.name);
        let missing = possible.len() - seen.len();
        assert!(seen.len() >= 3.min(possible.len()), "{}: {missing} of {} never seen", test.name, possible.len());
    }
}

/// A slice ends every LL that waits for its SC; within one, an SC fails only if address or value differ.
#[test]
fn an_sc_compares_address_and_value_and_an_ll_lasts_for_a_slice() {
    let source = format!(
        "{PROLOGUE}
        li t0, 5
        sd t0, 0(s4)
        ll t0, 0(s4)                # plain: succeeds
        li v0, 7
        sc v0, 0(s4)
        sd v0, 0(s6)
        ll t0, 0(s4)                # another address: fails
        li v0, 7
        sc v0, 8(s4)
        sd v0, 8(s6)
        ll t0, 0(s4)                # its own store of another value between: fails
        li v0, 8
        sw v0, 0(s4)
        li v0, 9
        sc v0, 0(s4)
        sd v0, 16(s6)
        ll t0, 0(s4)                # a store of the same value between: succeeds
        sw t0, 0(s4)
        li v0, 9
        sc v0, 0(s4)
        sd v0, 24(s6)
        ll t0, 0(s4)                # longer than any slice: fails
        li t1, 3000
later:  bne t1, zero, later
        daddiu t1, t1, -1
        li v0, 9
        sc v0, 0(s4)
        sd v0, 32(s6)
        {EPILOGUE}"
    );
    // vCPU 1 would get into the way: it is off, and says that it is done from outside.
    for engine in [EngineKind::Interpreter, EngineKind::Translator] {
        let setup = Setup { vcpus: 2, cpus: 2, engine, host_threads: 1, interleave: 2_000 };
        let mut monitor = monitor_for(setup);
        let vm = boot(&mut monitor, setup, 0, 1, &source);
        guest::run(&mut monitor, 100_000);
        assert_eq!(guest::load_dwords(&mut monitor, vm, COUNTS, 5), [1, 0, 0, 1, 0], "{engine:?}");
    }
}

// -- interrupts ----------------------------------------------------------------------------------------

/// Each vCPU sends interrupts to the next one by a source of the interrupt controller, one at a time: when the
/// handler there has counted one, the next is sent.
fn interrupts(vcpus: u32, each: u32) -> String {
    let map = |source: u32| {
        format!(
            "
        li t1, {pin:#x}
        li t2, 0x80000000           # to pin 0, which is IP2
        sw t2, 0(t1)
        li t1, {vp:#x}
        li t2, {bit}
        sw t2, 0(t1)",
            pin = 0xbfba_0500u32 + 4 * source,
            vp = 0xbfba_2000u32 + 0x20 * source,
            bit = 1 << source
        )
    };
    let maps: String = (0..vcpus).map(map).collect();
    format!(
        "
        b start
        nop
        .org {PROGRAM:#x} + 0x180
        li k0, 0xbfba0280           # acknowledge, then count
        sw s7, 0(k0)
        ld k1, 0(s6)
        daddiu k1, k1, 1
        sd k1, 0(s6)
        eret
        .org {PROGRAM:#x} + 0x400
start:  {PROLOGUE}
        li t0, {PROGRAM:#x}
        mtc0 t0, c0_ebase
        bne s7, zero, others
        nop
        {maps}
        li t1, 0xbfba0180           # edges
        li t2, {all:#x}
        sw t2, 0(t1)
        li t1, 0xbfba0380           # not masked
        sw t2, 0(t1)
        sync
        sw t2, 0(s4)
others: lw t0, 0(s4)
        beq t0, zero, others
        nop
        li t0, 0x401                # IP2
        mtc0 t0, c0_status
        daddiu s1, s7, 1            # the next vCPU
        li t0, {vcpus}
        bne s1, t0, next
        nop
        or s1, zero, zero
next:   dsll t0, s1, 3
        li s2, 0x80030100
        daddu s2, s2, t0            # its count
        li t0, 0x80000000
        or s3, s1, t0
        or s0, zero, zero
send:   li t0, 0xbfba0280
        sw s3, 0(t0)
        daddiu s0, s0, 1
counted: ld t0, 0(s2)
        bne t0, s0, counted
        nop
        li t1, {each}
        bne s0, t1, send
        nop
        li t2, {each}
mine:   ld t0, 0(s6)                # until the last one to this vCPU is counted, and then a while
        bne t0, t2, mine
        li t1, 5000
more:   bne t1, zero, more
        daddiu t1, t1, -1
        {EPILOGUE}",
        all = (1u32 << vcpus) - 1
    )
}

/// A lost one would be waited for in vain, and the count would show a doubled one. `SMP_INTERRUPTS=1000000` sends a
/// million in each way of running.
#[test]
fn no_interrupt_between_vcpus_is_lost_or_doubled() {
    let sent: u32 = std::env::var("SMP_INTERRUPTS").ok().and_then(|text| text.parse().ok()).unwrap_or(6_000);
    for (vcpus, cpus) in [(2, 2), (8, 8), (4, 2)] {
        let each = sent / vcpus / VMS as u32;
        let limit = 100_000_000 + 200_000 * u64::from(each);
        let outcome = run_in_every_way(vcpus, cpus, vcpus, &interrupts(vcpus, each), limit);
        for vm in 0..VMS {
            assert_eq!(outcome.of_each_vcpu(vm, COUNTS, vcpus), vec![u64::from(each); vcpus as usize]);
        }
        let taken: Vec<u64> = outcome.counters.iter().map(|rows| count(rows, "interrupts")).collect();
        assert_eq!(taken, vec![u64::from(each); VMS * vcpus as usize], "taken once each");
    }
}

fn count(rows: &[(&'static str, u64)], name: &str) -> u64 {
    rows.iter().find(|(row, _)| *row == name).unwrap().1
}

/// Each vCPU sleeps until its own timer wakes it, `times` times, for a time that depends on its number.
fn timers(times: u32) -> String {
    format!(
        "
        b start
        nop
        .org {PROGRAM:#x} + 0x180
        mtc0 zero, c0_compare
        ld k1, 0(s6)
        daddiu k1, k1, 1
        sd k1, 0(s6)
        eret
        .org {PROGRAM:#x} + 0x400
start:  {PROLOGUE}
        li t0, {PROGRAM:#x}
        mtc0 t0, c0_ebase
        li s0, {times}
        li s1, 1700
        daddiu t0, s7, 3
        multu s1, t0
        mflo s1
again:  ld s2, 0(s6)
        mfc0 t0, c0_count
        addu t0, t0, s1
        mtc0 t0, c0_compare
        li t0, 0x8001
        mtc0 t0, c0_status
sleep:  ld t0, 0(s6)
        beq t0, s2, sleep
        nop
        mtc0 zero, c0_status
        mfc0 t1, c0_count           # not before its time
        daddiu s0, s0, -1
        bne s0, zero, again
        nop
        {EPILOGUE}"
    )
}

#[test]
fn every_vcpu_has_a_timer_of_its_own() {
    for (vcpus, cpus) in [(2, 2), (8, 8), (8, 2)] {
        let outcome = run_in_every_way(vcpus, cpus, vcpus, &timers(25), 400_000_000);
        for vm in 0..VMS {
            assert_eq!(outcome.of_each_vcpu(vm, COUNTS, vcpus), vec![25; vcpus as usize], "{vcpus} vCPUs");
        }
        assert!(outcome.counters.iter().all(|rows| count(rows, "interrupts") == 25));
    }
}

// -- start and stop ------------------------------------------------------------------------------------

/// vCPU 0 starts every other vCPU, sees it work, stops it and sees that it has stopped, `rounds` times.
fn power_storm(vcpus: u32, rounds: u32) -> String {
    format!(
        "{PROLOGUE}
        bne s7, zero, work
        nop
        li s0, {rounds}
round:  li s1, 1                    # the vCPU whose turn it is
one:    dsll t0, s1, 3
        li s2, 0x80030100
        daddu s2, s2, t0            # its count
        dsll s3, s1, 16
        li t0, 0xbfbfa018           # GCR: core-local, other core
        sw s3, 0(t0)
        li t0, 0xbfbfc020           # GCR of the other: reset base
        li t1, {PROGRAM:#x}
        sw t1, 0(t0)
        li t0, 0xbfbe2010           # CPC: other core
        sw s3, 0(t0)
        ld t2, 0(s2)
        li t0, 0xbfbe4000           # CPC of the other: command
        li t1, 4
        sw t1, 0(t0)                # reset
works:  ld t3, 0(s2)
        beq t3, t2, works
        nop
        lw t1, 8(t0)                # status: U6
        srl t1, t1, 19
        andi t1, t1, 15
        xori t1, t1, 7
        beq t1, zero, up
        nop
        sd t1, 0(s5)
up:     li t1, 2
        sw t1, 0(t0)                # power down
        li t1, 3000                 # more than a slice: a slice that was begun ends
begun:  bne t1, zero, begun
        daddiu t1, t1, -1
        ld t2, 0(s2)
        li t1, 9000
stands: bne t1, zero, stands
        daddiu t1, t1, -1
        ld t3, 0(s2)
        beq t2, t3, stood
        nop
        sd s1, 0(s5)
stood:  daddiu s1, s1, 1
        li t0, {vcpus}
        bne s1, t0, one
        nop
        ld t1, 0(s6)
        daddiu t1, t1, 1
        sd t1, 0(s6)
        daddiu s0, s0, -1
        bne s0, zero, round
        nop
        li t0, 0x80030008           # the others cannot say that they are done
        li t1, {vcpus}
        li t2, 1
rest:   daddiu t1, t1, -1
        beq t1, zero, finish
        nop
        sd t2, 0(t0)
        b rest
        daddiu t0, t0, 8
work:   dsll t0, s7, 3              # how often it was started
        li t1, 0x80030300
        daddu t0, t0, t1
        ld t1, 0(t0)
        daddiu t1, t1, 1
        sd t1, 0(t0)
busy:   ld t1, 0(s6)
        daddiu t1, t1, 1
        b busy
        sd t1, 0(s6)
        {EPILOGUE}"
    )
}

#[test]
fn vcpus_start_and_stop_as_they_are_told() {
    const STARTS: u64 = 0x3_0300;
    for (vcpus, cpus) in [(2, 2), (8, 8), (4, 1)] {
        let rounds = 12;
        let outcome = run_in_every_way(vcpus, cpus, 1, &power_storm(vcpus, rounds), 400_000_000);
        for vm in 0..VMS {
            assert_eq!(outcome.dword(vm, COUNTS), u64::from(rounds));
            let starts = outcome.of_each_vcpu(vm, STARTS, vcpus);
            assert_eq!(starts[1..], vec![u64::from(rounds); vcpus as usize - 1], "{vcpus} vCPUs on {cpus}");
            assert_eq!(outcome.of_each_vcpu(vm, ERRORS, vcpus), vec![0; vcpus as usize]);
        }
    }
}

// -- neighbours ----------------------------------------------------------------------------------------

#[test]
fn vms_that_loop_with_interrupts_off_or_die_leave_the_others_their_work() {
    const ENDLESS: &str = "mtc0 zero, c0_status\n here: b here\n nop";
    const NO_HANDLER: &str = "li t0, 0x80800000\n mtc0 t0, c0_ebase\n mtc0 zero, c0_status\n syscall";
    let turns = 500;
    for engine in [EngineKind::Interpreter, EngineKind::Translator] {
        let setup = Setup { vcpus: 3, cpus: 3, engine, host_threads: 2, interleave: 2_000 };
        let mut monitor = monitor_for(setup);
        // All on the same three CPUs.
        let endless = boot(&mut monitor, setup, 0, 3, ENDLESS);
        let dying = boot(&mut monitor, setup, 0, 3, NO_HANDLER);
        let good = boot(&mut monitor, setup, 0, 3, &spin_lock(turns));
        let events = guest::run(&mut monitor, 100_000_000);
        assert_eq!(guest::load_dwords(&mut monitor, good, SHARED + 8, 1), [3 * u64::from(turns)], "{engine:?}");
        let dead = |event: &&Event| matches!(event, Event::VcpuStopped { vm, cause: StopCause::NoHandler, .. } if *vm == dying);
        assert_eq!(events.iter().filter(dead).count(), 3, "{events:?}");
        for vcpu in 0..3 {
            assert!(monitor.counters(endless, vcpu).unwrap().cycles_kernel > 10_000_000);
        }
    }
}
