//! Pages of the disk cache under random operations, while guests of several VMs hammer what they map.
//!
//! Between short runs pages are cached, mapped in place of VMs' pages, given up, sent from VM to VM, merged because they
//! are equal, written from outside and taken away. Each guest compares its memory with a copy of its own and stops at a difference; the content of
//! cached pages must stay as it was, whoever maps them; the tables must agree, and no TLB may allow a store to a
//! shared page. All of it is the same with any number of host threads.

mod guest;

use std::collections::{BTreeMap, BTreeSet};

use guest::{HAMMERED, HAMMERED_PAGES, PROGRAM, PROGRAM_PHYS, Random, hammer};
use machine::tlb::entry_lo;
use machine::{Cycles, Mpn, PAGE_BYTES, PhysAddr, Ppn};
use resident::memmap::{Mapper, Owner};
use resident::miss::machine_page;
use resident::pmap::PageState;
use resident::{Event, Monitor, MonitorConfig, MonitorError};

const RAM_BYTES: u64 = 1 << 20;
const VMS: u32 = 3;
const NODES: u16 = 2;
const SHADOWS: u64 = 0x3_0000;

struct World {
    monitor: Monitor,
    random: Random,
    /// Pages of the cache, and what each doubleword of them is.
    cached: BTreeMap<Mpn, u64>,
    free_at_start: usize,
    unshared: usize,
}

impl World {
    fn new(seed: u64, host_threads: usize) -> World {
        let mut random = Random(seed);
        let config = MonitorConfig {
            node_of_cpu: vec![0, 1, 0],
            nodes: NODES,
            memory_bytes_per_node: 4 << 20,
            tlb_entries: random.pick(&[8, 64]),
            l2tlb_entries: random.pick(&[0, 16, 1024]),
            large_pages: random.chance(60),
            host_threads,
            ..guest::config()
        };
        let mut monitor = guest::machine(config);
        for vm in 0..VMS {
            assert_eq!(guest::create(&mut monitor, RAM_BYTES, 1), vm);
        }
        let free_at_start = (0..NODES).map(|node| monitor.free_pages(node).unwrap()).sum();
        for vm in 0..VMS {
            guest::store(&mut monitor, vm, PROGRAM_PHYS, &guest::assemble(&hammer()));
            guest::store(&mut monitor, vm, SHADOWS, &[0; 8 * HAMMERED_PAGES as usize]);
            guest::start(&mut monitor, vm, 0, vm as u16, PROGRAM + 0x400);
        }
        World { monitor, random, cached: BTreeMap::new(), free_at_start, unshared: 0 }
    }

    fn run(&mut self) {
        let until = Cycles(self.monitor.now().0 + 40_000);
        while self.monitor.now() < until {
            for event in self.monitor.run(until) {
                let Event::PageFault { vm, page, protected, node, .. } = event else {
                    panic!("a guest read something wrong: {event:?}");
                };
                self.provide(vm, page, node.0, protected);
            }
        }
    }

    fn provide(&mut self, vm: u32, page: Ppn, node: u16, protected: bool) {
        assert_eq!(self.monitor.is_shared(vm, page).unwrap(), protected, "nothing else is protected here");
        if protected {
            self.monitor.unshare_page(vm, page, node).unwrap().expect("room");
            self.unshared += 1;
        } else {
            guest::provide(&mut self.monitor, vm, page, node);
        }
    }

    /// Writes a VM's memory from outside, as a device would.
    fn store(&mut self, vm: u32, paddr: u64, value: u64) {
        while let Err(error) = self.monitor.write_physical(vm, PhysAddr(paddr), &value.to_le_bytes()) {
            let MonitorError::NotPresent { pages, .. } = error else { panic!("{error}") };
            for page in pages {
                let is_shared = self.monitor.is_shared(vm, page).unwrap();
                self.provide(vm, page, 0, is_shared);
            }
        }
    }

    /// A page that the guest is not in the middle of.
    fn some_page(&mut self, vm: u32) -> u32 {
        const S0: usize = 16;
        let state = self.monitor.inspect(vm, 0, |_, regs| regs.gpr[S0]).unwrap();
        let busy = (state % u64::from(HAMMERED_PAGES)) as u32;
        let offset = 1 + self.random.below(HAMMERED_PAGES as usize - 1) as u32;
        HAMMERED + (busy + offset) % HAMMERED_PAGES
    }

    fn change(&mut self) {
        let vm = self.random.below(VMS as usize) as u32;
        let page = self.some_page(vm);
        let shadow = SHADOWS + 8 * u64::from(page - HAMMERED);
        match self.random.below(12) {
            10 => {
                let count = self.random.below(80);
                self.look(vm, count);
            }
            11 => self.make_alike(vm, page),
            0 | 1 => self.fill(),
            8 | 9 => self.transfer(vm, page),
            2..=4 => {
                let known: Vec<(Mpn, u64)> = self.cached.iter().map(|(mpn, value)| (*mpn, *value)).collect();
                if known.is_empty() {
                    return;
                }
                let (mpn, value) = self.random.pick(&known);
                self.monitor.map_cached(vm, &[(Ppn(page), 1)], &[mpn]).unwrap();
                assert_eq!(self.monitor.vm(vm).unwrap().pmap.row(Ppn(page)).mpn, mpn.0);
                self.store(vm, shadow, value);
            }
            5 => {
                let known: Vec<Mpn> = self.cached.keys().copied().collect();
                if let Some(mpn) = known.first() {
                    self.monitor.drop_cached(&[*mpn]).unwrap();
                    self.cached.remove(mpn);
                }
            }
            6 if self.random.chance(50) => self.discard(vm, page),
            6 => {
                if self.monitor.vm(vm).unwrap().pmap.row(Ppn(page)).state().has_page() {
                    self.monitor.unmap_page(vm, Ppn(page)).unwrap();
                    self.store(vm, shadow, 0);
                }
            }
            _ => {
                let value = self.random.next();
                self.store(vm, u64::from(page) * PAGE_BYTES, value);
                self.store(vm, shadow, value);
            }
        }
    }

    /// Gives a VM a page of which others may have the like, and has the monitor look at all until it has seen that.
    fn make_alike(&mut self, vm: u32, page: u32) {
        let value = self.random.below(3) as u64;
        for dword in 0..PAGE_BYTES / 8 {
            self.store(vm, u64::from(page) * PAGE_BYTES + 8 * dword, value);
        }
        self.store(vm, SHADOWS + 8 * u64::from(page - HAMMERED), value);
        for vm in (0..VMS).flat_map(|vm| [vm; 3]) {
            self.look(vm, 1 << 20);
        }
    }

    /// Has the monitor look for equal pages, which no guest notices.
    fn look(&mut self, vm: u32, count: usize) {
        let (first, bytes) = (u64::from(HAMMERED) * PAGE_BYTES, HAMMERED_PAGES as usize * PAGE_BYTES as usize);
        let all = |monitor: &mut Monitor| [0, 1, 2].map(|vm| guest::load(monitor, vm, first, bytes));
        let before = all(&mut self.monitor);
        self.monitor.share_content(vm, count).unwrap();
        assert!(before == all(&mut self.monitor), "a look has changed what a VM has");
    }

    /// The guest says of this page, and of more, that it does not need them.
    fn discard(&mut self, vm: u32, page: u32) {
        let mut pages = vec![page];
        pages.extend((0..self.random.below(4)).map(|_| self.some_page(vm)));
        let runs: Vec<(Ppn, u32)> = pages.iter().map(|page| (Ppn(*page), 1)).collect();
        let had: BTreeSet<u32> = {
            let pmap = &self.monitor.vm(vm).unwrap().pmap;
            pages.iter().copied().filter(|page| pmap.row(Ppn(*page)).state().has_page()).collect()
        };
        assert_eq!(self.monitor.discard_pages(vm, &runs).unwrap(), had.len());
        for page in pages {
            self.store(vm, SHADOWS + 8 * u64::from(page - HAMMERED), 0);
        }
    }

    /// Sends a page of another VM, which that guest compares with its copy as before.
    fn transfer(&mut self, to: u32, page: u32) {
        let from = (to + 1 + self.random.below(VMS as usize - 1) as u32) % VMS;
        let sent = self.some_page(from);
        let whole = |page: u32| [(PhysAddr(u64::from(page) * PAGE_BYTES), PAGE_BYTES)];
        let remap = self.random.chance(80);
        while let Err(error) = self.monitor.transfer(from, &whole(sent), to, &whole(page), remap) {
            let MonitorError::NotPresent { vm, pages } = error else { panic!("{error}") };
            for page in pages {
                let is_shared = self.monitor.is_shared(vm, page).unwrap();
                self.provide(vm, page, 0, is_shared);
            }
        }
        let shadow = |page: u32| SHADOWS + 8 * u64::from(page - HAMMERED);
        let value = guest::load_dwords(&mut self.monitor, from, shadow(sent), 1)[0];
        self.store(to, shadow(page), value);
    }

    fn fill(&mut self) {
        let values: Vec<u64> = (0..1 + self.random.below(3)).map(|_| self.random.next()).collect();
        let page = |value: &u64| value.to_le_bytes().repeat(PAGE_BYTES as usize / 8);
        let mut contents: Vec<u8> = values.iter().flat_map(page).collect();
        contents.extend([1, 2, 3]); // fills no page
        let node = self.random.below(usize::from(NODES)) as u16;
        let pages = self.monitor.fill_cache(node, &contents).unwrap();
        assert_eq!(pages.len(), values.len(), "there is room");
        self.cached.extend(pages.into_iter().zip(values));
    }

    /// Both tables against each other, the cache's content, the free lists, and every TLB entry.
    fn check(&mut self) {
        for (mpn, value) in &self.cached {
            let mut bytes = vec![0; PAGE_BYTES as usize];
            self.monitor.memory().read(mpn.address(), &mut bytes);
            assert!(guest::dwords(&bytes).iter().all(|dword| dword == value), "cached page {mpn} was written");
        }
        let mut users: BTreeMap<Mpn, Vec<Mapper>> = BTreeMap::new();
        for vm in 0..VMS {
            for (page, row) in self.monitor.vm(vm).unwrap().pmap.present() {
                assert_eq!(row.writable != 0, row.state() == PageState::Private, "{page}");
                users.entry(Mpn(row.mpn)).or_default().push(Mapper { vm, ppn: page.0 });
            }
        }
        let (mut guest_pages, mut cached_pages) = (0, 0);
        for mpn in (0..self.monitor.memmap().table().rows() as u32).map(Mpn) {
            let row = self.monitor.memmap().row(mpn);
            guest_pages += usize::from(row.owner == Owner::Guest as u8);
            cached_pages += usize::from(row.owner == Owner::Cache as u8);
            assert_eq!(row.owner == Owner::Cache as u8, self.cached.contains_key(&mpn), "{mpn}");
            if row.owner != Owner::Monitor as u8 {
                let expected = users.remove(&mpn).unwrap_or_default();
                assert_eq!(usize::from(row.users), expected.len());
                assert_eq!(self.monitor.memmap().users(mpn), expected);
            }
        }
        let free: usize = (0..NODES).map(|node| self.monitor.free_pages(node).unwrap()).sum();
        assert_eq!(free + guest_pages + cached_pages, self.free_at_start, "no page is lost");
        (0..VMS).for_each(|vm| self.check_tlbs(vm));
    }

    fn check_tlbs(&mut self, vm: u32) {
        let entries: Vec<_> = self.monitor.inspect(vm, 0, |vcpu, _| vcpu.l2tlb.alive().collect()).unwrap();
        let state = self.monitor.vm(vm).unwrap();
        let writable: BTreeMap<u32, u8> = state.pmap.present().map(|(_, row)| (row.mpn, row.writable)).collect();
        for lo in entries.iter().flat_map(|entry| entry.lo).filter(|lo| lo & entry_lo::V != 0) {
            let may_write = writable.get(&machine_page(lo).0);
            let may_write = *may_write.unwrap_or_else(|| panic!("VM {vm} has not the page {}", machine_page(lo)));
            assert!(may_write != 0 || lo & entry_lo::D == 0, "a shared page may be written");
        }
    }

    fn counted(&mut self) -> Vec<(&'static str, u64)> {
        (0..VMS).flat_map(|vm| self.monitor.counters(vm, 0).unwrap().rows()).collect()
    }
}

#[test]
fn guests_see_what_was_mapped_for_them_and_never_what_others_write() {
    let (mut unshared, mut merged, mut broken) = (0, 0, 0);
    for seed in 0..8 {
        let outcomes = [1, 3].map(|host_threads| {
            let mut world = World::new(seed, host_threads);
            for _ in 0..50 {
                world.run();
                for _ in 0..world.random.below(16) {
                    world.change();
                }
                world.check();
            }
            (world.counted(), world.unshared, world.cached.len(), world.monitor.content_counts())
        });
        assert!(outcomes[0] == outcomes[1], "seed {seed}: other counts with several host threads");
        unshared += outcomes[0].1;
        merged += outcomes[0].3.merged;
        broken += outcomes[0].3.broken;
    }
    assert!(merged > 500 && broken > 200, "equal pages were merged and written: {merged}, {broken}");
    assert!(unshared > 500, "shared pages were written: {unshared}");
}

#[test]
fn a_page_that_the_cache_gave_up_is_not_copied_for_its_last_user() {
    let mut monitor = guest::machine(guest::config());
    let vms = [0, 1].map(|_| guest::create(&mut monitor, RAM_BYTES, 1));
    let pages = monitor.fill_cache(0, &[7; PAGE_BYTES as usize]).unwrap();
    for vm in vms {
        monitor.map_cached(vm, &[(Ppn(3), pages.len() as u32)], &pages).unwrap();
    }
    monitor.drop_cached(&pages).unwrap();
    assert_ne!(monitor.unshare_page(vms[0], Ppn(3), 0).unwrap(), Some(pages[0]), "the other has it");
    assert_eq!(monitor.unshare_page(vms[1], Ppn(3), 0).unwrap(), Some(pages[0]));
    monitor.write_physical(vms[1], PhysAddr(0x3000), &[8]).unwrap();
    assert_eq!(guest::load(&mut monitor, vms[0], 0x3000, 2), [7, 7]);
    assert_eq!(guest::load(&mut monitor, vms[1], 0x3000, 2), [8, 7]);
}

#[test]
fn a_page_that_a_tlb_has_seen_in_a_large_one_only_is_mapped_all_the_same() {
    let mut monitor = guest::machine(MonitorConfig { large_pages: true, ..guest::config() });
    let wait_for_page_5 =
        format!("again: lui t0, 0x8004\n ld t1, 0x5000(t0)\n beq t1, zero, again\n nop\n {}", guest::HALT);
    let vm = guest::boot(&mut monitor, RAM_BYTES, 0, &wait_for_page_5);
    guest::store(&mut monitor, vm, 0x4_0000, &[0; 32 * PAGE_BYTES as usize]);
    assert!(monitor.run(Cycles(100_000)).is_empty());
    assert_eq!(monitor.counters(vm, 0).unwrap().tlb_large, 1);
    assert_eq!(monitor.vm(vm).unwrap().pmap.backmaps(Ppn(0x45)).count, 0);
    let page = monitor.fill_cache(0, &[7; PAGE_BYTES as usize]).unwrap();
    monitor.map_cached(vm, &[(Ppn(0x45), 1)], &page).unwrap();
    guest::run_to_halt(&mut monitor, 1_000_000);
}

#[test]
fn what_cannot_be_mapped_is_refused_and_nothing_has_changed() {
    let mut monitor = guest::machine(guest::config());
    let vm = guest::create(&mut monitor, RAM_BYTES, 1);
    let page = monitor.fill_cache(0, &[7; PAGE_BYTES as usize]).unwrap()[0];
    let last = Ppn((RAM_BYTES / PAGE_BYTES) as u32 - 1);
    let too_far = monitor.map_cached(vm, &[(last, 2)], &[page, page]);
    assert!(matches!(too_far, Err(MonitorError::PageState { state: "nothing", .. })), "{too_far:?}");
    for strange in [Mpn(0), Mpn(page.0 + 1), Mpn(u32::MAX)] {
        assert_eq!(
            monitor.map_cached(vm, &[(Ppn(0), 2)], &[page, strange]),
            Err(MonitorError::NotCached(strange))
        );
        assert_eq!(monitor.drop_cached(&[page, strange]), Err(MonitorError::NotCached(strange)));
    }
    assert_eq!(monitor.vm(vm).unwrap().pmap.present().count(), 0);
    let absent = monitor.unshare_page(vm, Ppn(0), 0);
    assert!(matches!(absent, Err(MonitorError::PageState { needed: "shared", .. })), "{absent:?}");
    monitor.map_cached(vm, &[(Ppn(8), 1), (Ppn(2), 1)], &[page, page]).unwrap(); // one page may be there twice
    assert_eq!(monitor.memmap().row(page).users, 2);
    monitor.destroy_vm(vm).unwrap();
    assert_eq!(monitor.memmap().row(page).users, 0);
}

#[test]
fn pages_of_the_cache_with_another_content_are_found() {
    const PAGE: usize = PAGE_BYTES as usize;
    let mut monitor = guest::machine(guest::config());
    let pages = monitor.fill_cache(0, &[[1; PAGE], [2; PAGE], [3; PAGE]].concat()).unwrap();
    let mut nearly = [3; PAGE];
    nearly[PAGE - 1] = 4;
    let pairs = [(pages[1], &[2; PAGE][..]), (pages[2], &nearly), (pages[0], &[2; PAGE]), (pages[0], &[1; PAGE])];
    assert_eq!(monitor.differing(&pairs), Ok(vec![1, 2]));
    let strange = Mpn(pages[2].0 + 1);
    assert_eq!(monitor.differing(&[(strange, &nearly)]), Err(MonitorError::NotCached(strange)));
}

#[test]
fn the_cache_takes_no_more_than_the_node_has() {
    let mut monitor = guest::machine(MonitorConfig { memory_bytes_per_node: 1 << 20, ..guest::config() });
    let free = monitor.free_pages(0).unwrap();
    let pages = monitor.fill_cache(0, &vec![1; 2 << 20]).unwrap();
    assert_eq!((pages.len(), monitor.free_pages(0).unwrap()), (free, 0));
    monitor.drop_cached(&pages).unwrap();
    assert_eq!(monitor.free_pages(0).unwrap(), free);
}

#[test]
fn the_footprint_counts_each_machine_page_once_and_names_who_shares_it() {
    let mut monitor = guest::machine(guest::config());
    let vms = [0, 1, 2].map(|_| guest::create(&mut monitor, RAM_BYTES, 1));
    let pages = monitor.fill_cache(0, &[7; 5 * PAGE_BYTES as usize]).unwrap();
    monitor.map_cached(vms[0], &[(Ppn(0x40), 4)], &pages[..4]).unwrap();
    monitor.map_cached(vms[1], &[(Ppn(0x50), 2)], &pages[..2]).unwrap();
    monitor.map_cached(vms[2], &[(Ppn(0x60), 1)], &pages[..1]).unwrap();
    guest::store(&mut monitor, vms[0], PROGRAM_PHYS, &guest::assemble(guest::HALT));
    guest::store(&mut monitor, vms[0], SHADOWS, &[1]);
    guest::start(&mut monitor, vms[0], 0, 0, PROGRAM);
    guest::run_to_halt(&mut monitor, 1_000_000);
    let kernels = vms.map(|vm| (vm, Ppn(0x40))).into_iter().collect();
    let found = monitor.footprint(&kernels).unwrap();
    let page = PAGE_BYTES;
    let rows: Vec<_> = found
        .vms
        .iter()
        .map(|((vm, kind), pages)| {
            (*vm, kind.name(), pages.virtual_pages, pages.shared_pages, pages.machine_bytes)
        })
        .collect();
    assert_eq!(
        rows,
        [
            (0, "kernel_text", 1, 0, page),
            (0, "buffer_cache", 4, 2, 2 * page + page / 2 + page / 3),
            (0, "anonymous", 1, 0, page),
            (1, "buffer_cache", 2, 2, page / 2 + page / 3),
            (2, "buffer_cache", 1, 1, page / 3),
        ]
    );
    let machine: Vec<_> = found.machine_pages.iter().map(|(kind, pages)| (kind.name(), *pages)).collect();
    assert_eq!(machine, [("kernel_text", 1), ("buffer_cache", 4), ("anonymous", 1)]);
    let common: Vec<_> = found.common.into_iter().collect();
    assert_eq!(common, [((0, 1), 2), ((0, 2), 1), ((1, 2), 1)]);
    assert_eq!(found.unused_cache_pages, 1);
}
