//! Pages that a guest gives back while all of its CPUs have them in their TLBs.
//!
//! Four vCPUs on as many CPUs read the same pages over and over and leave what they saw. Between runs pages are given
//! back and written anew by lot; what every vCPU sees then is zero, or what was written since. A CPU that were forgotten
//! would go on reading the machine page that has gone, which others have by then.

mod guest;

use guest::{KSEG0, PROGRAM, PROGRAM_PHYS, Random};
use machine::{Cycles, PAGE_BYTES, Ppn};
use resident::{EngineKind, Event, Monitor, MonitorConfig, MonitorError};

const RAM_BYTES: u64 = 1 << 20;
const VCPUS: u32 = 4;
const READ: u64 = 0x4_0000;
const READ_PAGES: u32 = 16;
const SEEN: u64 = 0x3_0000;

/// Reads the first doubleword of each page, and stores what it saw to a row of the vCPU's own.
fn reader() -> String {
    format!(
        "
        mfc0 s7, c0_ebase
        andi s7, s7, 0x3ff
        dsll t0, s7, 8
        li s1, {seen:#x}
        daddu s1, s1, t0
        li s0, {read:#x}
again:  li t0, 0
next:   dsll t1, t0, 12
        daddu t1, t1, s0
        ld t2, 0(t1)
        dsll t3, t0, 3
        daddu t3, t3, s1
        sd t2, 0(t3)
        daddiu t0, t0, 1
        slti v0, t0, {READ_PAGES}
        bne v0, zero, next
        nop
        b again
        nop",
        seen = KSEG0 + SEEN,
        read = KSEG0 + READ,
    )
}

struct World {
    monitor: Monitor,
    vm: u32,
    content: [u64; READ_PAGES as usize],
    free: usize,
}

impl World {
    fn new(random: &mut Random, host_threads: usize, engine: EngineKind) -> World {
        let mut monitor = guest::machine(MonitorConfig {
            node_of_cpu: vec![0; VCPUS as usize],
            large_pages: random.chance(50),
            l2tlb_entries: random.pick(&[0, 16, 1024]),
            tlb_entries: random.pick(&[8, 64]),
            host_threads,
            engine,
            ..guest::config()
        });
        let vm = guest::create(&mut monitor, RAM_BYTES, VCPUS);
        let free = monitor.free_pages(0).unwrap();
        guest::store(&mut monitor, vm, PROGRAM_PHYS, &guest::assemble(&reader()));
        (0..VCPUS).for_each(|vcpu| guest::start(&mut monitor, vm, vcpu, vcpu as u16, PROGRAM));
        World { monitor, vm, content: [0; READ_PAGES as usize], free }
    }

    /// So long that each vCPU reads all pages at least once.
    fn run(&mut self) -> usize {
        let until = Cycles(self.monitor.now().0 + 100_000);
        let mut faults = 0;
        while self.monitor.now() < until {
            for event in self.monitor.run(until) {
                let Event::PageFault { page, .. } = event else { panic!("no other event: {event:?}") };
                faults += 1;
                let placed = self.monitor.place_page(self.vm, page, 0);
                assert!(matches!(placed, Ok(Some(_))), "a page is asked for once: {placed:?}");
            }
        }
        faults
    }

    fn change(&mut self, random: &mut Random) {
        let first = random.below(READ_PAGES as usize) as u32;
        if random.chance(50) {
            let count = 1 + random.below((READ_PAGES - first) as usize) as u32;
            self.monitor.discard_pages(self.vm, &[(Ppn((READ / PAGE_BYTES) as u32 + first), count)]).unwrap();
            self.content[first as usize..(first + count) as usize].fill(0);
        } else {
            let value = random.next();
            let paddr = READ + u64::from(first) * PAGE_BYTES;
            guest::store_dwords(&mut self.monitor, self.vm, paddr, &[value]);
            self.content[first as usize] = value;
        }
    }

    fn check(&mut self) {
        for vcpu in 0..u64::from(VCPUS) {
            let seen = guest::load_dwords(&mut self.monitor, self.vm, SEEN + 256 * vcpu, READ_PAGES as usize);
            assert_eq!(seen, self.content, "vCPU {vcpu}");
        }
        let present = self.monitor.vm(self.vm).unwrap().pmap.present().count();
        assert_eq!(self.monitor.free_pages(0).unwrap() + present, self.free, "no page is lost");
    }
}

fn give_back(seed: u64, host_threads: usize, engine: EngineKind) -> (u64, usize, Vec<(&'static str, u64)>) {
    let mut random = Random(seed);
    let mut world = World::new(&mut random, host_threads, engine);
    let mut faults = 0;
    for _ in 0..25 {
        for _ in 0..1 + random.below(6) {
            world.change(&mut random);
        }
        faults += world.run();
        world.check();
    }
    (world.monitor.now().0, faults, world.monitor.counters(world.vm, 3).unwrap().rows())
}

#[test]
fn all_vcpus_see_zero_or_what_was_written_after_a_page_was_given_back() {
    for seed in 0..6 {
        let one = give_back(seed, 1, EngineKind::Interpreter);
        assert!(one.1 > 50, "seed {seed}: {} faults", one.1);
        for host_threads in [1, 2, 4] {
            assert!(give_back(seed, host_threads, EngineKind::Translator) == one, "seed {seed}, {host_threads}");
        }
    }
}

#[test]
fn a_postponed_fault_is_tried_again_at_its_time_and_others_have_the_cpu_meanwhile() {
    let mut monitor = guest::machine(guest::config());
    let waiting = guest::boot(
        &mut monitor,
        RAM_BYTES,
        0,
        &format!("li t0, {:#x}\nld t1, 0(t0)\n{}", KSEG0 + READ, guest::HALT),
    );
    let events = monitor.run(Cycles(10_000));
    let [Event::PageFault { page, .. }] = events[..] else { panic!("one page fault is expected: {events:?}") };
    monitor.postpone_fault(waiting, 0, Cycles(5_000_000)).unwrap();
    assert!(matches!(monitor.postpone_fault(waiting, 0, Cycles(1)), Err(MonitorError::VcpuState { .. })));
    let other = guest::boot(
        &mut monitor,
        RAM_BYTES,
        0,
        &format!("li t0, 1000\nw: bnez t0, w\naddiu t0, t0, -1\n{}", guest::HALT),
    );
    let events = monitor.run(Cycles(4_000_000));
    assert!(matches!(events.as_slice(), [Event::VcpuStopped { vm, .. }] if *vm == other), "{events:?}");
    let events = monitor.run(Cycles(10_000_000));
    assert!(
        matches!(events.as_slice(), [Event::PageFault { page: again, cycle, .. }] if *again == page && cycle.0 >= 5_000_000),
        "{events:?}"
    );
    guest::provide(&mut monitor, waiting, page, 0);
    guest::run_to_halt(&mut monitor, 1_000_000);
}

#[test]
fn a_page_is_zeroed_at_the_cost_of_the_vcpu_that_waits_for_it() {
    let mut monitor = guest::machine(MonitorConfig { node_of_cpu: vec![0; 2], ..guest::config() });
    let vm = guest::create(&mut monitor, RAM_BYTES, 2);
    let source = format!(
        "
        mfc0 t0, c0_ebase
        andi t0, t0, 1
        dsll t0, t0, 12
        li t1, {:#x}
        daddu t0, t0, t1
        ld t1, 0(t0)
        {}",
        KSEG0 + READ,
        guest::HALT
    );
    guest::store(&mut monitor, vm, PROGRAM_PHYS, &guest::assemble(&source));
    (0..2).for_each(|vcpu| guest::start(&mut monitor, vm, vcpu, vcpu as u16, PROGRAM));
    let pages: Vec<(u32, Ppn)> = monitor
        .run(Cycles(20_000))
        .iter()
        .map(|event| match event {
            Event::PageFault { vcpu, page, .. } => (*vcpu, *page),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(pages.len(), 2, "both wait at once, each for a page of its own");
    let paid = |monitor: &mut Monitor| {
        [0, 1].map(|vcpu| {
            let rows = monitor.counters(vm, vcpu).unwrap().rows();
            rows.iter().find(|(name, _)| *name == "cycles_monitor").unwrap().1
        })
    };
    for (vcpu, page) in pages {
        let before = paid(&mut monitor);
        guest::provide(&mut monitor, vm, page, 0);
        let after = paid(&mut monitor);
        let other = 1 - vcpu as usize;
        assert!(after[vcpu as usize] > before[vcpu as usize], "vCPU {vcpu} pays for page {page}");
        assert_eq!(after[other], before[other], "vCPU {other} has nothing to do with page {page}");
    }
}
