//! vCPUs that move from CPU to CPU: nothing of them is lost, nothing of others stays behind.
//!
//! Guests that would notice run under plans that change at random. What they have computed, what was counted and
//! every event must be the same with any number of host threads.

mod guest;

use guest::{HALT, KSEG0, PROGRAM, PROGRAM_PHYS, Random};
use machine::Cycles;
use resident::counters::CpuTime;
use resident::schedule::{PoolPlan, VcpuId};
use resident::{Event, Monitor, MonitorConfig, MonitorError, StopCause};

const RAM_BYTES: u64 = 1 << 20;
const RESULT_PHYS: u64 = 0x3_0000;
const ROUND: u64 = 20_000;

/// Fills every register with a value of its own, and looks for ever whether all are still there; the number of
/// looks is the result. With the first difference it halts.
fn keeper(seed: u64) -> String {
    let value = |register: u64| (seed << 8 | register).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    // at holds what is expected, sp where the result goes.
    let general: Vec<u64> = (2..=31).filter(|register| ![29].contains(register)).collect();
    let mut text = format!(
        "
        li t0, 0x24000000
        mtc0 t0, c0_status
        dli t0, {user_local:#x}
        dmtc0 t0, c0_userlocal
        li t0, 0x20000000
        mtc0 t0, c0_hwrena
        dli t0, {hi:#x}
        mthi t0
        dli t0, {lo:#x}
        mtlo t0
        li t0, {fcsr}
        ctc1 t0, $31
        li sp, {result:#x}
        sd zero, 0(sp)
        ",
        user_local = value(100),
        hi = value(101),
        lo = value(102),
        fcsr = 1 + seed % 3,
        result = KSEG0 + RESULT_PHYS,
    );
    for register in 0..32 {
        text += &format!("dli t0, {:#x}\n dmtc1 t0, $f{register}\n", value(200 + register));
    }
    for register in &general {
        text += &format!("dli ${register}, {:#x}\n", value(*register));
    }
    text += "look:\n";
    for register in &general {
        text += &format!("dli at, {:#x}\n bne at, ${register}, lost\n nop\n", value(*register));
    }
    // t0 is free for what is no general register; it gets its value back at the end.
    let mut check = |read: &str, expected: u64| {
        text += &format!("{read}\n dli at, {expected:#x}\n bne at, t0, lost\n nop\n");
    };
    check("mfhi t0", value(101));
    check("mflo t0", value(102));
    check("cfc1 t0, $31", 1 + seed % 3);
    check("rdhwr t0, $29", value(100));
    for register in 0..32 {
        check(&format!("dmfc1 t0, $f{register}"), value(200 + register));
    }
    text += &format!(
        "
        ld t0, 0(sp)
        daddiu t0, t0, 1
        sd t0, 0(sp)
        dli t0, {t0:#x}
        b look
        nop
lost:   {HALT}",
        t0 = value(12)
    );
    text
}

/// Adds to its own counter under a lock that all vCPUs of the VM share, and to one that the lock protects.
/// Two counters that differ mean that a store was lost or two were inside at once.
const LOCKED: &str = "
        li s0, 0x80030000
        sll t0, a0, 3
        daddu s1, s0, t0
        li s2, 0x80030800
enter:  ll t0, 0(s2)
        bne t0, zero, enter
        li t0, 1
        sc t0, 0(s2)
        beq t0, zero, enter
        nop
        ld t1, 0x400(s0)
        li t2, 20
hold:   daddiu t2, t2, -1
        bne t2, zero, hold
        nop
        daddiu t1, t1, 1
        sd t1, 0x400(s0)
        sw zero, 0(s2)
        ld t1, 0(s1)
        daddiu t1, t1, 1
        sd t1, 0(s1)
        b enter
        nop
";

const CPUS: u16 = 6;
const KEEPERS: u32 = 5;
/// vCPUs of the two VMs with a lock, whose numbers follow those of the keepers.
const LOCKERS: [u32; 2] = [3, 4];

fn mixed(host_threads: usize) -> Monitor {
    let mut monitor = guest::machine(MonitorConfig {
        node_of_cpu: vec![0, 0, 1, 1, 2, 2],
        nodes: 3,
        host_threads,
        l2tlb_entries: 64,
        large_pages: false,
        tlb_entries: 16,
        ..guest::config()
    });
    for vm in 0..KEEPERS {
        guest::boot(&mut monitor, RAM_BYTES, vm as u16 % CPUS, &keeper(u64::from(vm)));
    }
    for vcpus in LOCKERS {
        let vm = guest::create(&mut monitor, RAM_BYTES, vcpus);
        guest::store(&mut monitor, vm, PROGRAM_PHYS, &guest::assemble(LOCKED));
        for vcpu in 0..vcpus {
            monitor.set_vcpu(vm, vcpu, PROGRAM, &[(4, u64::from(vcpu))]).unwrap();
            monitor.assign(vm, vcpu, vcpu as u16).unwrap();
        }
    }
    monitor
}

fn all_vcpus() -> Vec<(VcpuId, u32)> {
    let sizes = (0..KEEPERS).map(|_| 1).chain(LOCKERS);
    (0..).zip(sizes).flat_map(|(vm, size)| (0..size).map(move |vcpu| (VcpuId { vm, vcpu }, 1 + vm % 3))).collect()
}

/// Each CPU in a pool drawn by lot, each VM too.
fn random_plan(random: &mut Random) -> Vec<PoolPlan> {
    let count = 1 + random.below(3);
    let mut plans: Vec<PoolPlan> = (0..count)
        .map(|_| PoolPlan { cpus: vec![], vcpus: vec![], gang: false, slice_rounds: 1 + random.below(3) as u32 })
        .collect();
    for cpu in 0..CPUS {
        let place = if usize::from(cpu) < count { usize::from(cpu) } else { random.below(count) };
        plans[place].cpus.push(cpu);
    }
    for (id, weight) in all_vcpus() {
        let place = random.below(count);
        plans[place].vcpus.push((id, weight));
    }
    for plan in &mut plans {
        let size = |vm: u32| plan.vcpus.iter().filter(|(id, _)| id.vm == vm).count();
        let largest = plan.vcpus.iter().map(|(id, _)| size(id.vm)).max().unwrap_or(0);
        plan.gang = random.chance(40) && largest <= plan.cpus.len();
    }
    plans
}

#[derive(Debug, PartialEq)]
struct Outcome {
    counters: Vec<Vec<(&'static str, u64)>>,
    memory: Vec<Vec<u8>>,
    times: Vec<(CpuTime, u64)>,
    events: Vec<Event>,
    now: u64,
}

fn run(host_threads: usize, seed: u64) -> Outcome {
    let mut random = Random(seed);
    let mut monitor = mixed(host_threads);
    let mut events = Vec::new();
    for _ in 0..60 {
        monitor.set_pools(&random_plan(&mut random)).unwrap();
        let until = monitor.now().0 + ROUND * (1 + random.below(5) as u64);
        while monitor.now() < Cycles(until) {
            for event in monitor.run(Cycles(until)) {
                if let Event::PageFault { vm, page, node, .. } = event {
                    guest::provide(&mut monitor, vm, page, node.0);
                }
                events.push(event);
            }
        }
    }
    let now = monitor.now().0;
    let counters = all_vcpus().iter().map(|(id, _)| monitor.counters(id.vm, id.vcpu).unwrap().rows()).collect();
    let vms = KEEPERS + LOCKERS.len() as u32;
    let memory = (0..vms).map(|vm| guest::load(&mut monitor, vm, RESULT_PHYS, 0x1000)).collect();
    let times =
        (0..CPUS).map(|cpu| (monitor.cpu_time(cpu).unwrap(), monitor.cpu_progress(cpu).unwrap().1.0)).collect();
    Outcome { counters, memory, times, events, now }
}

fn counter(outcome: &Outcome, place: usize, name: &str) -> u64 {
    outcome.counters[place].iter().find(|(known, _)| *known == name).unwrap().1
}

#[test]
fn whoever_moves_takes_everything_along_with_any_number_of_host_threads() {
    for seed in 0..3 {
        let one = run(1, seed);
        assert!(!one.events.iter().any(|event| matches!(event, Event::VcpuStopped { .. })), "a register was lost");
        let moves: Vec<u64> = (0..all_vcpus().len()).map(|place| counter(&one, place, "vcpu_moves")).collect();
        let sum: u64 = moves.iter().sum();
        assert!(
            moves.iter().all(|count| *count > 0) && sum > 60,
            "seed {seed}: they have hardly moved: {moves:?}"
        );
        for memory in &one.memory[..KEEPERS as usize] {
            assert!(guest::dwords(memory)[0] > 100, "it has looked");
        }
        for memory in &one.memory[KEEPERS as usize..] {
            let words = guest::dwords(memory);
            let (own, common): (u64, u64) = (words[..8].iter().sum(), words[0x400 / 8]);
            // One of them can be between the two additions.
            assert!(own > 100 && common - own <= 1, "{own} additions, of which {common} are left");
        }
        for host_threads in [2, 4] {
            assert!(run(host_threads, seed) == one, "seed {seed}: {host_threads} threads give another run");
        }
    }
}

#[test]
fn every_cycle_of_a_vcpu_and_of_a_cpu_is_accounted_for() {
    let outcome = run(1, 77);
    for place in 0..all_vcpus().len() {
        let names = ["cycles_user", "cycles_kernel", "cycles_monitor", "cycles_idle", "cycles_waiting"];
        let sum: u64 = names.iter().map(|name| counter(&outcome, place, name)).sum();
        // What it has done beyond the end of the last round is in its counters too.
        assert!((outcome.now..outcome.now + 2000).contains(&sum), "{sum} of {}", outcome.now);
        assert!(counter(&outcome, place, "cycles_waiting") > outcome.now / 10, "it has had to wait");
    }
    for (times, now) in &outcome.times {
        assert_eq!(times.total(), *now, "{times:?}");
        assert!(times.kernel > now / 10);
    }
}

/// The load linked, and the store conditional much later: with a neighbour on the CPU the LL bit is gone by then.
#[test]
fn a_switch_drops_the_ll_bit() {
    let source = format!(
        "
        li s0, {result:#x}
        li t1, 100000
        ll t0, 8(s0)
spin:   daddiu t1, t1, -1
        bne t1, zero, spin
        nop
        li t0, 7
        sc t0, 8(s0)
        sd t0, 0(s0)
        {HALT}",
        result = KSEG0 + RESULT_PHYS
    );
    for (neighbours, succeeds) in [(0, 1), (1, 0)] {
        let mut monitor = guest::machine(guest::config());
        let vm = guest::boot(&mut monitor, RAM_BYTES, 0, &source);
        guest::store_dwords(&mut monitor, vm, RESULT_PHYS, &[99]);
        for _ in 0..neighbours {
            guest::boot(&mut monitor, RAM_BYTES, 0, &keeper(1));
        }
        let events = guest::run(&mut monitor, 1_000_000);
        assert!(matches!(events[..], [Event::VcpuStopped { cause: StopCause::Halted, .. }]), "{events:?}");
        assert_eq!(guest::load_dwords(&mut monitor, vm, RESULT_PHYS, 1), [succeeds], "{neighbours} neighbours");
    }
}

#[test]
fn the_largest_machine_runs_more_vcpus_than_it_has_cpus() {
    let mut monitor = guest::machine(MonitorConfig {
        node_of_cpu: (0..128).map(|cpu| cpu % 64).collect(),
        nodes: 64,
        memory_bytes_per_node: 2 << 20,
        host_threads: 2,
        l2tlb_entries: 64,
        large_pages: false,
        tlb_entries: 8,
        ..guest::config()
    });
    let source = format!("li t1, 60000\n spin: daddiu t1, t1, -1\n bne t1, zero, spin\n nop\n {HALT}");
    let vms: Vec<u32> = (0..200).map(|vm| guest::boot(&mut monitor, 0x2_0000, vm % 128, &source)).collect();
    let pool = PoolPlan {
        cpus: (0..128).collect(),
        vcpus: vms.iter().map(|vm| (VcpuId { vm: *vm, vcpu: 0 }, 1)).collect(),
        gang: false,
        slice_rounds: 1,
    };
    monitor.set_pools(&[pool]).unwrap();
    assert_eq!(guest::run(&mut monitor, 3_000_000).len(), vms.len(), "all have ended");
}

#[test]
fn a_plan_that_cannot_be_is_refused_and_changes_nothing() {
    let mut monitor = guest::machine(MonitorConfig { node_of_cpu: vec![0, 0], ..guest::config() });
    let vm = guest::create(&mut monitor, RAM_BYTES, 2);
    guest::store(&mut monitor, vm, PROGRAM_PHYS, &guest::assemble(LOCKED));
    for vcpu in 0..2 {
        guest::start(&mut monitor, vm, vcpu, vcpu as u16, PROGRAM);
    }
    let id = |vcpu| (VcpuId { vm, vcpu }, 1);
    let pool = |cpus: &[u16], vcpus: &[(VcpuId, u32)]| PoolPlan {
        cpus: cpus.to_vec(),
        vcpus: vcpus.to_vec(),
        gang: false,
        slice_rounds: 1,
    };
    let both = pool(&[0, 1], &[id(0), id(1)]);
    let rows: [(Vec<PoolPlan>, &str); 12] = [
        (vec![], "vCPU 0 is in no pool"),
        (vec![pool(&[0], &[id(1)])], "vCPU 0 is in no pool"),
        (vec![pool(&[2], &[id(0), id(1)])], "CPU 2 asked; possible are 0 to 1"),
        (vec![pool(&[0, 0], &[id(0), id(1)])], "CPU 0 asked twice"),
        (vec![pool(&[0], &[id(0)]), pool(&[0], &[id(1)])], "CPU 0 asked twice"),
        (vec![pool(&[0], &[id(0), id(0), id(1)])], "vCPU 0 asked twice"),
        (vec![pool(&[0], &[id(0), id(1), id(2)])], "vCPU 2 asked, it has 2"),
        (vec![pool(&[0], &[id(0), id(1), (VcpuId { vm: 7, vcpu: 0 }, 1)])], "no VM has the number 7"),
        (vec![pool(&[], &[id(0), id(1)])], "a pool without a CPU"),
        (vec![pool(&[0], &[id(0), (VcpuId { vm, vcpu: 1 }, 0)])], "weight 0 asked; possible are 1 to 10000"),
        (vec![PoolPlan { slice_rounds: 0, ..both.clone() }], "a time slice of 0 rounds"),
        (vec![PoolPlan { gang: true, cpus: vec![1], ..both.clone() }], "a gang of 2 vCPUs asked"),
    ];
    for (plans, said) in rows {
        match monitor.set_pools(&plans) {
            Err(MonitorError::Plan(text)) => assert!(text.contains(said), "{text:?}, not {said:?}"),
            other => panic!("{said}: {other:?}"),
        }
        assert_eq!((monitor.cpu_of(vm, 0), monitor.cpu_of(vm, 1)), (Ok(Some(0)), Ok(Some(1))), "{said}");
    }
    monitor.set_pools(&[both]).unwrap();
    assert!(guest::run(&mut monitor, 200_000).is_empty());
}
