//! Pages that are set aside for page faults to come: no guest can tell, none is lost, and what each VM gets is the
//! same with any number of host threads, while VMs come and go and fault at random.

mod guest;

use std::collections::BTreeMap;

use guest::{HALT, KSEG0, Random};
use machine::{Cycles, Mpn, NodeId};
use resident::memmap::MemmapRow;
use resident::{EngineKind, Event, Monitor, MonitorConfig, StopCause};

const RAM_BYTES: u64 = 1 << 20;
const NODES: u16 = 2;
const CPUS: u16 = 5;

/// Stores to pages drawn by lot, `times` times, after a while each; then halts.
fn toucher(seed: u32, times: u32) -> String {
    format!(
        "
        li s0, {seed}
        li s1, {times}
        li s2, {first:#x}
        dli s3, 6364136223846793005
again:  dmultu s0, s3
        mflo s0
        daddiu s0, s0, 1443
        dsrl32 t0, s0, 20
while:  daddiu t0, t0, -1
        bgtz t0, while
        dsrl32 t1, s0, 8
        andi t1, t1, 0xbf
        dsll t1, t1, 12
        daddu t1, t1, s2
        ld t2, 0(t1)
        daddu t2, t2, s0
        sd t2, 0(t1)
        daddiu s1, s1, -1
        bne s1, zero, again
        nop
        {HALT}",
        first = KSEG0 + 0x4_0000,
    )
}

fn machine(host_threads: usize, engine: EngineKind) -> Monitor {
    guest::machine(MonitorConfig {
        node_of_cpu: (0..CPUS).map(|cpu| cpu % NODES).collect(),
        nodes: NODES,
        memory_bytes_per_node: 4 << 20,
        host_threads,
        engine,
        ..guest::config()
    })
}

/// Counters with their names.
type Rows = Vec<(&'static str, u64)>;

#[derive(Debug, Default, PartialEq)]
struct Outcome {
    events: Vec<Event>,
    ends: Vec<(Rows, Vec<u8>)>,
    memmap: Vec<MemmapRow>,
    now: u64,
}

fn memmap_rows(monitor: &Monitor) -> Vec<MemmapRow> {
    let table = monitor.memmap().table();
    (0..table.rows()).map(|row| table.get(row)).collect()
}

/// VMs come, fault, are given pages one by one or in advance, and go, all by lot.
fn come_and_go(seed: u64, host_threads: usize, engine: EngineKind) -> Outcome {
    let mut random = Random(seed);
    let mut monitor = machine(host_threads, engine);
    let mut living: Vec<u32> = Vec::new();
    let mut outcome = Outcome::default();
    for step in 0..60 {
        if living.len() < 7 && random.chance(70) {
            let program = toucher(step + 1, 20 + random.below(200) as u32);
            living.push(guest::boot(&mut monitor, RAM_BYTES, random.below(usize::from(CPUS)) as u16, &program));
        }
        if !living.is_empty() && random.chance(20) {
            let vm = living.swap_remove(random.below(living.len()));
            let memory = guest::load(&mut monitor, vm, 0, RAM_BYTES as usize);
            outcome.ends.push((monitor.counters(vm, 0).unwrap().rows(), memory));
            monitor.destroy_vm(vm).unwrap();
        }
        let until = Cycles(monitor.now().0 + 1 + random.below(150_000) as u64);
        while monitor.now() < until {
            let events = monitor.run(until);
            if events.is_empty() {
                break;
            }
            for event in &events {
                if let Event::PageFault { vm, page, node, .. } = event {
                    let target = random.below(usize::from(NODES)) as u16;
                    guest::provide(&mut monitor, *vm, *page, target);
                    if random.chance(50) {
                        let count = random.below(30);
                        monitor.set_pages_aside(*vm, node.0, target, count).unwrap();
                    }
                }
            }
            outcome.events.extend(events);
        }
        assert_eq!(
            memmap_rows(&monitor).iter().filter(|row| row.owner == 1).count(),
            pages_of(&mut monitor, &living)
        );
    }
    Outcome { memmap: memmap_rows(&monitor), now: monitor.now().0, ..outcome }
}

fn pages_of(monitor: &mut Monitor, vms: &[u32]) -> usize {
    vms.iter().map(|vm| monitor.vm(*vm).unwrap().pmap.present().count()).sum()
}

#[test]
fn vms_that_come_and_go_and_fault_at_random_give_one_run_with_any_number_of_host_threads() {
    for seed in 0..4 {
        let one = come_and_go(seed, 1, EngineKind::Translator);
        let count = |wanted: fn(&Event) -> bool| one.events.iter().filter(|event| wanted(event)).count();
        let faults = count(|event| matches!(event, Event::PageFault { .. }));
        let halts = count(|event| matches!(event, Event::VcpuStopped { cause: StopCause::Halted, .. }));
        assert!(faults > 100 && halts > 5, "seed {seed}: {faults} faults, {halts} halts");
        assert_eq!(faults + halts, one.events.len(), "seed {seed}");
        let rows = one.ends.iter().flat_map(|(rows, _)| rows);
        let all: u64 = rows.filter(|(name, _)| *name == "page_faults_absent").map(|(_, count)| count).sum();
        assert!(all > 100, "seed {seed}: {all} faults of VMs that have gone");
        for (host_threads, engine) in
            [(2, EngineKind::Translator), (4, EngineKind::Translator), (2, EngineKind::Interpreter)]
        {
            let other = come_and_go(seed, host_threads, engine);
            assert_eq!(other.events, one.events, "seed {seed}, {host_threads} threads, {engine:?}");
            assert!(other == one, "seed {seed}, {host_threads} threads, {engine:?}");
        }
    }
}

/// What a VM computed and what was counted, with `ahead` pages set aside at each fault.
fn alone(ahead: usize) -> (usize, Rows, Vec<u8>) {
    let mut monitor = machine(1, EngineKind::Translator);
    let vm = guest::boot(&mut monitor, RAM_BYTES, 1, &toucher(7, 300));
    let mut faults = 0;
    loop {
        for event in monitor.run(Cycles(100_000_000)) {
            let Event::PageFault { vm, page, node, .. } = event else {
                let memory = guest::load(&mut monitor, vm, 0, RAM_BYTES as usize);
                return (faults, monitor.counters(vm, 0).unwrap().rows(), memory);
            };
            faults += 1;
            guest::provide(&mut monitor, vm, page, node.0);
            monitor.set_pages_aside(vm, node.0, node.0, ahead).unwrap();
        }
    }
}

#[test]
fn no_guest_can_tell_whether_its_pages_were_set_aside() {
    let (faults, counters, memory) = alone(0);
    for ahead in [1, 2, 50, 500] {
        let (fewer, same, as_well) = alone(ahead);
        assert_eq!(fewer, faults.div_ceil(ahead + 1), "{ahead} ahead, {faults} without");
        assert_eq!(same, counters, "{ahead} ahead");
        assert!(as_well == memory, "{ahead} ahead");
    }
}

#[test]
fn a_cpu_takes_what_was_set_aside_for_its_node_only() {
    let mut monitor = machine(1, EngineKind::Translator);
    let vm = guest::boot(&mut monitor, RAM_BYTES, 1, &toucher(3, 100));
    monitor.set_pages_aside(vm, 0, 1, 10).unwrap();
    let Some(Event::PageFault { .. }) = monitor.run(Cycles(1_000_000)).first().cloned() else {
        panic!("a CPU of node 1 has taken a page that was meant for node 0")
    };
    monitor.set_pages_aside(vm, 1, 0, 1000).unwrap();
    let before = pages_of(&mut monitor, &[vm]);
    assert!(guest::run(&mut monitor, 100_000_000).iter().all(|event| matches!(event, Event::VcpuStopped { .. })));
    assert!(pages_of(&mut monitor, &[vm]) > before + 10);
}

#[test]
fn what_is_set_aside_is_free_until_somebody_needs_it() {
    let mut monitor = machine(1, EngineKind::Translator);
    let vms = [0, 1].map(|cpu| guest::boot(&mut monitor, RAM_BYTES, cpu, HALT));
    let free = [0, 1].map(|node| monitor.free_pages(node).unwrap());
    let owners = memmap_rows(&monitor);
    monitor.set_pages_aside(vms[0], 0, 1, usize::MAX).unwrap();
    monitor.set_pages_aside(vms[1], 1, 1, 5).unwrap(); // there is none left
    assert_eq!([0, 1].map(|node| monitor.free_pages(node).unwrap()), free);
    assert_eq!(memmap_rows(&monitor), owners);
    let mut places = BTreeMap::new();
    for page in 0x80..0x90 {
        let mpn: Mpn = monitor.place_page(vms[1], machine::Ppn(page), 1).unwrap().unwrap();
        assert_eq!(monitor.memory().node_of(mpn), NodeId(1));
        assert_eq!(places.insert(mpn, page), None);
    }
    assert_eq!(monitor.free_pages(1).unwrap(), free[1] - places.len());
    monitor.set_pages_aside(vms[0], 0, 0, 3).unwrap();
    monitor.destroy_vm(vms[0]).unwrap();
    monitor.destroy_vm(vms[1]).unwrap();
    let vm = guest::create(&mut monitor, RAM_BYTES, 1);
    assert!(vm > vms[1]);
    assert!((0..NODES).all(|node| monitor.free_pages(node).unwrap() >= free[usize::from(node)]));
    assert!(monitor.set_pages_aside(vms[0], 0, 0, 1).is_err() && monitor.set_pages_aside(vm, 2, 0, 1).is_err());
    assert!(monitor.set_pages_aside(vm, 0, 2, 1).is_err());
}
