//! pmap and memmap under random operations of the monitor, while a guest hammers its memory.
//!
//! Between short runs pages are placed, taken away, protected, moved and written from outside. A naive model (a
//! map from page to what it holds) follows; after each step the tables must agree with each other, no TLB may
//! hold what the pmap does not allow, and memory must read as the model says.

mod guest;

use std::collections::{BTreeMap, HashSet};

use guest::{HALT, HAMMERED, HAMMERED_PAGES, KSEG0, PROGRAM, PROGRAM_PHYS, Random, hammer};
use machine::tlb::entry_lo;
use machine::{Cycles, Mpn, NodeId, PhysAddr, Ppn};
use resident::blocks::PART_PAGES;
use resident::memmap::Owner;
use resident::miss::machine_page;
use resident::pmap::{PageState, PmapRow};
use resident::{Event, Monitor, MonitorConfig, MonitorError};

const RAM_BYTES: u64 = 1 << 20;
const NODES: u16 = 3;

/// The state of both tables against each other, the free lists, and every TLB entry against the pmap.
fn check(monitor: &mut Monitor, vms: &[u32], free_at_start: usize) {
    let mut used = BTreeMap::new();
    for vm in vms {
        let rows: Vec<_> = {
            let table = monitor.vm(*vm).unwrap().pmap.table();
            let rows = (0..table.rows()).map(|row| (row as u32, table.get(row)));
            rows.filter(|(_, row)| *row != PmapRow::default()).collect()
        };
        for (page, row) in rows {
            match row.state() {
                PageState::Private => {
                    assert_eq!(used.insert(row.mpn, (*vm, page)), None, "machine page {} twice", row.mpn);
                }
                _ => assert_eq!((row.mpn, row.overflowed), (0, 0), "page {page}"),
            }
        }
    }
    let mut guest_pages = 0;
    for mpn in 0..monitor.memmap().table().rows() as u32 {
        let row = monitor.memmap().row(Mpn(mpn));
        let is_guest = row.owner == Owner::Guest as u8;
        guest_pages += usize::from(is_guest);
        let mapper = used.get(&mpn).copied();
        assert_eq!(is_guest, mapper.is_some(), "machine page {mpn}: {row:?}, used as {mapper:?}");
        if let Some((vm, page)) = mapper {
            assert_eq!((row.users, u32::from(row.vm), row.ppn), (1, vm, page));
        } else {
            assert!(row.users == 0 || row.owner == Owner::Monitor as u8, "machine page {mpn}");
        }
    }
    let free: usize = (0..NODES).map(|node| monitor.free_pages(node).unwrap()).sum();
    assert_eq!(free + guest_pages, free_at_start, "no page is lost");
    for vm in vms {
        check_tlbs(monitor, *vm);
    }
}

/// Every second-level entry that could answer leads to a page as the pmap has it.
fn check_tlbs(monitor: &mut Monitor, vm: u32) {
    let entries: Vec<_> = monitor.inspect(vm, 0, |vcpu, _| vcpu.l2tlb.alive().collect()).unwrap();
    let state = monitor.vm(vm).unwrap();
    let rows: BTreeMap<u32, u8> = (0..state.pmap.table().rows())
        .map(|row| state.pmap.table().get(row))
        .filter(|row| row.state() == PageState::Private)
        .map(|row| (row.mpn, row.writable))
        .collect();
    for lo in entries.iter().flat_map(|entry| entry.lo).filter(|lo| lo & entry_lo::V != 0) {
        let writable = rows.get(&machine_page(lo).0);
        let writable =
            writable.unwrap_or_else(|| panic!("an entry leads to {}, which the VM has not", machine_page(lo)));
        assert!(*writable != 0 || lo & entry_lo::D == 0, "a protected page may be written");
    }
}

struct World {
    monitor: Monitor,
    vm: u32,
    random: Random,
    /// The hammered pages that are present, and whether they may be written.
    present: BTreeMap<u32, bool>,
    free_at_start: usize,
}

impl World {
    fn new(seed: u64, large_pages: bool) -> World {
        let mut random = Random(seed);
        let config = MonitorConfig {
            node_of_cpu: vec![0],
            nodes: NODES,
            memory_bytes_per_node: 4 << 20,
            tlb_entries: random.pick(&[8, 16, 64]),
            l2tlb_entries: random.pick(&[0, 16, 1024]),
            large_pages,
            ..guest::config()
        };
        let mut monitor = guest::machine(config);
        let vm = guest::create(&mut monitor, RAM_BYTES, 1);
        let free_at_start = (0..NODES).map(|node| monitor.free_pages(node).unwrap()).sum();
        guest::store(&mut monitor, vm, PROGRAM_PHYS, &guest::assemble(&hammer()));
        guest::store(&mut monitor, vm, 0x3_0000, &[0; 8 * HAMMERED_PAGES as usize]);
        guest::start(&mut monitor, vm, 0, 0, PROGRAM + 0x400);
        World { monitor, vm, random, present: BTreeMap::new(), free_at_start }
    }

    /// Runs for a while; pages that the guest misses appear on random nodes, some of them in advance.
    fn run(&mut self) {
        let until = Cycles(self.monitor.now().0 + 40_000);
        while self.monitor.now() < until {
            let events = self.monitor.run(until);
            self.notice_pages();
            for event in events {
                let Event::PageFault { page, protected, store, .. } = event else {
                    let regs = self.monitor.inspect(self.vm, 0, |_, regs| regs.gpr[..32].to_vec()).unwrap();
                    panic!("the guest read something wrong: {event:?}, {regs:x?}");
                };
                let was = self.present.get(&page.0).copied();
                assert_eq!(was, if protected { Some(false) } else { None }, "page {page}");
                assert!(store || !protected, "a load needs no permission");
                let node = self.node();
                guest::provide(&mut self.monitor, self.vm, page, node);
                self.present.insert(page.0, true);
                if self.random.chance(30) {
                    let count = self.random.below(5);
                    self.monitor.set_pages_aside(self.vm, 0, node, count).unwrap();
                }
            }
        }
    }

    /// The guest has taken pages that were set aside for it.
    fn notice_pages(&mut self) {
        let pmap = &self.monitor.vm(self.vm).unwrap().pmap;
        for page in HAMMERED..HAMMERED + HAMMERED_PAGES {
            if pmap.row(Ppn(page)).state() == PageState::Private {
                self.present.entry(page).or_insert(true);
            }
        }
    }

    /// A node, mostly the first: memory in one piece is to be found now and then.
    fn node(&mut self) -> u16 {
        if self.random.chance(90) { 0 } else { self.random.below(usize::from(NODES)) as u16 }
    }

    fn change(&mut self) {
        let (vm, page) = (self.vm, HAMMERED + self.random.below(HAMMERED_PAGES as usize) as u32);
        let node = self.node();
        let state = self.present.get(&page).copied();
        let content = self.content(page);
        match self.random.below(6) {
            0 | 1 => self.move_page(page, node),
            2 | 3 => {
                let writable = self.random.chance(20);
                let result = self.monitor.protect_page(vm, Ppn(page), writable);
                self.expect(state.is_some(), result);
                self.present.entry(page).and_modify(|old| *old = writable);
            }
            4 if page == self.page_in_use() => {}
            4 if self.random.chance(50) => {
                let count = self.monitor.discard_pages(vm, &[(Ppn(page), 1), (Ppn(page), 1)]);
                assert_eq!(count, Ok(usize::from(state.is_some())), "once, and only if it is there");
                self.present.remove(&page);
                self.set_shadow(page, 0);
                assert_eq!(self.content(page), 0, "an absent page reads as zero");
                return;
            }
            4 => {
                // Its content is gone: the guest's shadow must say so.
                let result = self.monitor.unmap_page(vm, Ppn(page));
                self.expect(state.is_some(), result);
                if self.present.remove(&page).is_some() {
                    self.set_shadow(page, 0);
                    assert_eq!(self.content(page), 0, "an absent page reads as zero");
                    return;
                }
            }
            _ => {
                let result = self.monitor.place_page(vm, Ppn(page), node).map(|_| ());
                self.expect(state.is_none(), result);
                self.present.entry(page).or_insert(true);
            }
        }
        assert_eq!(self.content(page), content, "page {page}");
    }

    /// The page that the guest is at; it compares and stores in several instructions.
    fn page_in_use(&mut self) -> u32 {
        const S0: usize = 16;
        HAMMERED
            + self.monitor.inspect(self.vm, 0, |_, regs| regs.gpr[S0] % u64::from(HAMMERED_PAGES)).unwrap() as u32
    }

    fn move_page(&mut self, page: u32, node: u16) {
        let old = self.machine_page(page);
        let result = self.monitor.move_page(self.vm, Ppn(page), node);
        self.expect(self.present.contains_key(&page), result.clone().map(|_| ()));
        if let Ok(Some(new)) = result {
            assert_eq!(self.monitor.memory().node_of(new), NodeId(node));
            assert_eq!(self.machine_page(page), new);
            assert_eq!(self.monitor.memmap().row(old).owner, Owner::Nobody as u8, "the old page is free");
        }
    }

    fn expect(&self, possible: bool, result: Result<(), MonitorError>) {
        let is_refused = matches!(result, Err(MonitorError::PageState { .. }));
        assert_eq!(possible, result.is_ok(), "{result:?}");
        assert_eq!(!possible, is_refused);
    }

    fn machine_page(&mut self, page: u32) -> Mpn {
        Mpn(self.monitor.vm(self.vm).unwrap().pmap.row(Ppn(page)).mpn)
    }

    fn content(&mut self, page: u32) -> u64 {
        guest::load_dwords(&mut self.monitor, self.vm, u64::from(page) << 12, 1)[0]
    }

    fn shadow(&mut self, page: u32) -> u64 {
        guest::load_dwords(&mut self.monitor, self.vm, 0x3_0000 + 8 * u64::from(page - HAMMERED), 1)[0]
    }

    fn set_shadow(&mut self, page: u32, value: u64) {
        guest::store_dwords(&mut self.monitor, self.vm, 0x3_0000 + 8 * u64::from(page - HAMMERED), &[value]);
    }

    /// Between a store and its shadow the guest may be interrupted by the end of the round, not by more.
    fn check(&mut self) {
        let differing: Vec<u32> = (HAMMERED..HAMMERED + HAMMERED_PAGES)
            .filter(|page| self.content(*page) != self.shadow(*page))
            .collect();
        assert!(differing.len() <= 1, "{differing:?}");
        check(&mut self.monitor, &[self.vm], self.free_at_start);
    }
}

#[test]
fn a_guest_sees_its_memory_whatever_is_done_with_its_pages() {
    let mut overflowed = 0;
    for seed in 0..12 {
        let large_pages = seed % 2 == 0;
        let mut world = World::new(seed, large_pages);
        for _ in 0..60 {
            world.run();
            overflowed += count_overflowed(&mut world);
            for _ in 0..world.random.below(12) {
                world.change();
            }
            world.check();
        }
    }
    assert!(overflowed > 100, "rows whose backmaps overflowed were there: {overflowed}");
}

/// The program and the hammered pages lie in blocks, which TLBs map by large pages until something is done with one.
#[test]
fn a_guest_sees_its_memory_whatever_is_done_with_a_page_of_a_large_one() {
    let (mut large, mut broken) = (0, 0);
    for seed in 100..140 {
        let mut world = World::new(seed, true);
        (0..8).for_each(|_| world.run());
        for _ in 0..6 {
            world.run();
            let mapped = |world: &mut World| {
                let pmap = &world.monitor.vm(world.vm).unwrap().pmap;
                let pages = (HAMMERED..HAMMERED + HAMMERED_PAGES).map(Ppn);
                pages.filter(|page| pmap.run(*page, PART_PAGES).is_some()).count()
            };
            let before = mapped(&mut world);
            world.change();
            broken += usize::from(mapped(&mut world) < before);
            world.check();
        }
        large += world.monitor.counters(world.vm, 0).unwrap().tlb_large;
    }
    assert!(large > 200 && broken > 30, "{large} entries of large pages, {broken} broken up");
}

fn count_overflowed(world: &mut World) -> usize {
    let pmap = &world.monitor.vm(world.vm).unwrap().pmap;
    (HAMMERED..HAMMERED + HAMMERED_PAGES).filter(|page| pmap.row(Ppn(*page)).overflowed != 0).count()
}

/// A store loop on one page, interrupted by protection: the value may not change until the fault is answered.
#[test]
fn after_protect_no_store_passes() {
    for l2tlb_entries in [0, 64] {
        let mut monitor = guest::machine(MonitorConfig { l2tlb_entries, ..guest::config() });
        let source = format!("li t0, {:#x}\n again: daddiu v0, v0, 1\n b again\n sd v0, 0(t0)", KSEG0 + 0x4_0000);
        let vm = guest::boot(&mut monitor, RAM_BYTES, 0, &source);
        let mut last = 0;
        for _ in 0..20 {
            let until = monitor.now().0 + 50_000;
            guest::run(&mut monitor, until);
            monitor.protect_page(vm, Ppn(0x40), false).unwrap();
            let before = guest::load_dwords(&mut monitor, vm, 0x4_0000, 1)[0];
            assert!(before > last, "it stores when it may");
            let events = monitor.run(Cycles(until + 100_000));
            assert!(
                matches!(
                    events.as_slice(),
                    [Event::PageFault { page: Ppn(0x40), store: true, protected: true, .. }]
                ),
                "{events:?}"
            );
            assert_eq!(guest::load_dwords(&mut monitor, vm, 0x4_0000, 1)[0], before);
            let refused = monitor.write_physical(vm, PhysAddr(0x4_0000), &[1]);
            assert_eq!(refused, Err(MonitorError::NotPresent { vm, pages: vec![Ppn(0x40)] }));
            last = before;
        }
    }
}

/// Code that moves, or is replaced where it lies, is executed as it is now.
#[test]
fn moved_and_rewritten_code_is_executed_as_it_is() {
    let mut monitor = guest::machine(MonitorConfig { nodes: 2, ..guest::config() });
    let code = |number: u32| mips::assemble(&format!("jr ra\n addiu v0, zero, {number}"), 0).unwrap();
    let source = "
        li t0, 0x80040000
        li t1, 0x80050000
again:  jalr t0
        nop
        b again
        sd v0, 0(t1)
    ";
    let vm = guest::boot(&mut monitor, RAM_BYTES, 0, source);
    for number in 1..20 {
        guest::store(&mut monitor, vm, 0x4_0000, &code(number));
        if number % 3 == 0 {
            monitor.move_page(vm, Ppn(0x40), (number % 2) as u16).unwrap().unwrap();
        }
        let until = monitor.now().0 + 40_000;
        assert!(guest::run(&mut monitor, until).is_empty());
        assert_eq!(guest::load_dwords(&mut monitor, vm, 0x5_0000, 1), [u64::from(number)]);
    }
}

#[test]
fn a_destroyed_vm_returns_every_page_zeroed() {
    let mut monitor = guest::machine(MonitorConfig { nodes: 2, ..guest::config() });
    let free = |monitor: &Monitor| [0, 1].map(|node| monitor.free_pages(node).unwrap());
    let before = free(&monitor);
    for seed in 0..10 {
        let mut random = Random(seed);
        let vm = guest::boot(&mut monitor, RAM_BYTES, 0, &format!("li v0, 5\n {HALT}"));
        for _ in 0..40 {
            guest::store(&mut monitor, vm, random.below(RAM_BYTES as usize - 8) as u64 & !7, &[0xff; 8]);
        }
        guest::run_to_halt(&mut monitor, 1_000_000);
        monitor.destroy_vm(vm).unwrap();
        assert_eq!(free(&monitor), before);
        assert_eq!(monitor.vm(vm).err(), Some(MonitorError::NoVm(vm)));
    }
    let dirty: HashSet<u32> = (0..monitor.memmap().table().rows() as u32)
        .filter(|mpn| {
            let mut bytes = [0; 4096];
            monitor.memory().read(Mpn(*mpn).address(), &mut bytes);
            bytes.iter().any(|byte| *byte != 0)
        })
        .collect();
    assert!(dirty.is_empty(), "{dirty:?}");
}
