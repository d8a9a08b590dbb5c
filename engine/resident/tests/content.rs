//! Sharing by content: equal pages become one after two looks, and nobody sees what another writes to it.
//!
//! The same under random operations, while guests run, is in `sharing.rs`.

mod guest;

use std::collections::BTreeMap;

use guest::PROGRAM_PHYS;
use machine::{Cycles, Mpn, PAGE_BYTES, Ppn};
use resident::counters::Cause;
use resident::memmap::Owner;
use resident::pmap::PageState;
use resident::{ContentCounts, Costs, Monitor, MonitorError, Use};

const RAM_BYTES: u64 = 1 << 20;
/// The number of register s0.
const S0: usize = 16;
const ALL: usize = 1 << 20;
const PAGE: usize = PAGE_BYTES as usize;

fn row(monitor: &mut Monitor, vm: u32, page: u32) -> resident::pmap::PmapRow {
    monitor.vm(vm).unwrap().pmap.row(Ppn(page))
}

fn fill(monitor: &mut Monitor, vm: u32, page: u32, byte: u8) {
    guest::store(monitor, vm, u64::from(page) * PAGE_BYTES, &[byte; PAGE]);
}

fn look(monitor: &mut Monitor, vms: &[u32], times: usize) {
    for _ in 0..times {
        vms.iter().for_each(|vm| monitor.share_content(*vm, ALL).unwrap());
    }
}

fn guest_pages(monitor: &Monitor) -> u64 {
    monitor.owned_pages_by_node(Owner::Guest).iter().sum()
}

/// A machine of two VMs that have page 5 alike and page 6 not.
fn alike() -> (Monitor, [u32; 2]) {
    let mut monitor = guest::machine(guest::config());
    let vms = [0, 1].map(|_| guest::create(&mut monitor, RAM_BYTES, 1));
    for vm in vms {
        fill(&mut monitor, vm, 5, 7);
        fill(&mut monitor, vm, 6, vm as u8);
    }
    (monitor, vms)
}

#[test]
fn equal_pages_become_one_at_the_second_look_and_are_two_again_after_a_write() {
    let (mut monitor, vms) = alike();
    look(&mut monitor, &vms, 1);
    assert_eq!(guest_pages(&monitor), 4, "one look says nothing");
    look(&mut monitor, &vms, 1);
    assert_eq!(guest_pages(&monitor), 3);
    let [one, other] = vms.map(|vm| row(&mut monitor, vm, 5));
    assert_eq!(one, other);
    assert_eq!((one.state(), one.writable, one.merged), (PageState::Shared, 0, 1));
    assert_eq!(row(&mut monitor, 0, 6).state(), PageState::Private);
    let counts =
        ContentCounts { scanned: 8, hashed: 8, candidates: 4, compared: 1, merged: 1, ..Default::default() };
    assert_eq!(monitor.content_counts(), counts);
    let copy = monitor.unshare_page(1, Ppn(5), 0).unwrap().unwrap();
    guest::store(&mut monitor, 1, 5 * PAGE_BYTES, &[8]);
    assert_ne!(copy, Mpn(one.mpn));
    assert_eq!(guest::load(&mut monitor, 0, 5 * PAGE_BYTES, 2), [7, 7]);
    assert_eq!(guest::load(&mut monitor, 1, 5 * PAGE_BYTES, 2), [8, 7]);
    assert_eq!(row(&mut monitor, 1, 5).merged, 0);
    assert_eq!(monitor.content_counts().broken, 1);
    // Alike again: two looks, and the one that is still shared is the one that stays.
    fill(&mut monitor, 1, 5, 7);
    look(&mut monitor, &vms, 2);
    assert_eq!(row(&mut monitor, 1, 5).mpn, one.mpn);
}

#[test]
fn what_is_written_between_two_looks_is_left_alone() {
    let (mut monitor, vms) = alike();
    for byte in 10..20 {
        vms.iter().for_each(|vm| fill(&mut monitor, *vm, 5, byte));
        look(&mut monitor, &vms, 1);
    }
    assert_eq!((guest_pages(&monitor), monitor.content_counts().merged), (4, 0));
}

#[test]
fn equal_pages_of_one_vm_become_one_too_and_zeros_are_counted() {
    let mut monitor = guest::machine(guest::config());
    let vm = guest::create(&mut monitor, RAM_BYTES, 1);
    (0..40).for_each(|page| fill(&mut monitor, vm, page, 0));
    look(&mut monitor, &[vm], 2);
    let counts = monitor.content_counts();
    assert_eq!((guest_pages(&monitor), counts.merged, counts.merged_zero), (1, 39, 39));
    look(&mut monitor, &[vm], 5);
    let later = monitor.content_counts();
    assert_eq!(later.scanned - counts.scanned, 200);
    assert_eq!(later.hashed - counts.hashed, 1, "a shared page is hashed once");
}

#[test]
fn a_page_that_the_disk_cache_has_is_given_up_for_the_caches() {
    let mut monitor = guest::machine(guest::config());
    let vms = [0, 1].map(|_| guest::create(&mut monitor, RAM_BYTES, 1));
    let cached = monitor.fill_cache(0, &[7; PAGE]).unwrap();
    fill(&mut monitor, 1, 5, 7);
    look(&mut monitor, &vms, 2);
    monitor.map_cached(0, &[(Ppn(9), 1)], &cached).unwrap();
    look(&mut monitor, &vms, 2);
    assert_eq!(row(&mut monitor, 1, 5).mpn, cached[0].0);
    assert_eq!([row(&mut monitor, 0, 9).merged, row(&mut monitor, 1, 5).merged], [0, 1]);
    assert_eq!((guest_pages(&monitor), monitor.memmap().row(cached[0]).users), (0, 2));
    let found = monitor.footprint(&vms.map(|vm| (vm, Ppn(0))).into_iter().collect()).unwrap();
    let uses: Vec<_> = found.vms.keys().copied().collect();
    assert_eq!(uses, [(0, Use::BufferCache), (1, Use::Anonymous)]);
}

#[test]
fn a_page_that_is_known_and_has_gone_or_changed_misleads_nobody() {
    let (mut monitor, vms) = alike();
    look(&mut monitor, &[0], 2);
    fill(&mut monitor, 0, 5, 9);
    look(&mut monitor, &[1], 2);
    assert_eq!(guest_pages(&monitor), 4, "it has changed");
    monitor.destroy_vm(0).unwrap();
    let third = guest::create(&mut monitor, RAM_BYTES, 1);
    fill(&mut monitor, third, 1, 7);
    look(&mut monitor, &[third], 2);
    assert_eq!(row(&mut monitor, third, 1).mpn, row(&mut monitor, vms[1], 5).mpn);
    monitor.destroy_vm(vms[1]).unwrap();
    monitor.destroy_vm(third).unwrap();
    assert_eq!(guest_pages(&monitor), 0);
    assert_eq!(monitor.share_content(third, 1), Err(MonitorError::NoVm(third)));
}

#[test]
fn looks_go_on_where_the_last_one_ended_and_begin_again_behind_the_last_page() {
    let mut monitor = guest::machine(guest::config());
    let vm = guest::create(&mut monitor, RAM_BYTES, 1);
    for page in [3, 4, 50, 51, 200] {
        fill(&mut monitor, vm, page, page as u8);
    }
    let mut scanned = Vec::new();
    for _ in 0..5 {
        let before = monitor.content_counts().scanned;
        monitor.share_content(vm, 2).unwrap();
        scanned.push(monitor.content_counts().scanned - before);
    }
    assert_eq!(scanned, [2, 2, 1, 2, 2]);
    assert_eq!(monitor.content_counts().candidates, 4);
}

#[test]
fn looking_is_charged_to_the_cpu_that_runs_the_vm() {
    let mut monitor = guest::machine(resident::MonitorConfig { node_of_cpu: vec![0, 0], ..guest::config() });
    guest::boot(&mut monitor, RAM_BYTES, 0, "here: b here\n nop");
    let vm = guest::boot(&mut monitor, RAM_BYTES, 1, "here: b here\n nop");
    guest::run(&mut monitor, 60_000);
    let before = monitor.cpu_progress(1).unwrap().1;
    look(&mut monitor, &[vm], 1);
    let cost = Costs::default().page_hash;
    assert_eq!(monitor.counters(vm, 0).unwrap().monitor.of(Cause::Content), cost, "it has one page");
    assert_eq!(monitor.cpu_progress(1).unwrap().1, Cycles(before.0 + cost));
    assert_eq!(monitor.cpu_time(0).unwrap().monitor.of(Cause::Content), 0);
}

#[test]
fn code_that_runs_can_be_merged_and_goes_on() {
    let mut monitor = guest::machine(guest::config());
    let count = "again: daddiu s0, s0, 1\n b again\n nop";
    let vms = [0, 1].map(|_| guest::boot(&mut monitor, RAM_BYTES, 0, count));
    guest::run(&mut monitor, 100_000);
    look(&mut monitor, &vms, 2);
    let page = (PROGRAM_PHYS / PAGE_BYTES) as u32;
    assert_eq!(row(&mut monitor, 0, page).mpn, row(&mut monitor, 1, page).mpn);
    let counted = |monitor: &mut Monitor| vms.map(|vm| monitor.inspect(vm, 0, |_, regs| regs.gpr[S0]).unwrap());
    let before = counted(&mut monitor);
    guest::run(&mut monitor, 1_000_000);
    let after = counted(&mut monitor);
    assert!(before.iter().zip(after).all(|(before, after)| after > before + 10_000), "{before:?} {after:?}");
}

#[test]
fn the_footprint_says_what_was_merged() {
    let (mut monitor, vms) = alike();
    look(&mut monitor, &vms, 2);
    let kernels: BTreeMap<u32, Ppn> = vms.map(|vm| (vm, Ppn(0))).into_iter().collect();
    let found = monitor.footprint(&kernels).unwrap();
    for vm in vms {
        let pages = found.vms[&(vm, Use::Anonymous)];
        assert_eq!((pages.virtual_pages, pages.shared_pages, pages.merged_pages), (2, 1, 1));
    }
    assert_eq!(found.machine_pages[&Use::Anonymous], 3);
    monitor.destroy_vm(1).unwrap();
    let found = monitor.footprint(&[(0, Ppn(0))].into()).unwrap();
    assert_eq!(found.vms[&(0, Use::Anonymous)].merged_pages, 0, "nobody else has it");
}
