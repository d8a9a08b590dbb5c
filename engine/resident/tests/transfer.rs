//! What goes from VM to VM, against bytes in arrays: random lists of pieces at both ends, mapped or copied, and writes
//! by either end afterwards, which must not reach the other.

mod guest;

use guest::Random;
use machine::{Mpn, PAGE_BYTES, PhysAddr, Ppn};
use resident::pmap::PageState;
use resident::{Monitor, MonitorError, Transferred};

const PAGES: u64 = 24;
const VMS: u32 = 3;

/// VMs, and what their memory has to be.
struct World {
    monitor: Monitor,
    memory: Vec<Vec<u8>>,
    remapped: usize,
    whole: usize,
}

impl World {
    fn new() -> World {
        let mut monitor = guest::machine(guest::config());
        for vm in 0..VMS {
            assert_eq!(guest::create(&mut monitor, PAGES * PAGE_BYTES, 1), vm);
        }
        let memory = vec![vec![0; (PAGES * PAGE_BYTES) as usize]; VMS as usize];
        World { monitor, memory, remapped: 0, whole: 0 }
    }

    /// Gives a VM the pages that were in the way, as Python does.
    fn make_way(&mut self, error: MonitorError) {
        let MonitorError::NotPresent { vm, pages } = error else { panic!("{error}") };
        for page in pages {
            let given = if self.monitor.is_shared(vm, page).unwrap() {
                self.monitor.unshare_page(vm, page, 0)
            } else {
                self.monitor.place_page(vm, page, 0)
            };
            given.unwrap().expect("room");
        }
    }

    fn write(&mut self, vm: u32, at: u64, bytes: &[u8]) {
        while let Err(error) = self.monitor.write_physical(vm, PhysAddr(at), bytes) {
            self.make_way(error);
        }
        self.memory[vm as usize][at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
    }

    fn transfer(&mut self, from: u32, source: &[(u64, u64)], to: u32, target: &[(u64, u64)], remap: bool) {
        let physical = |ranges: &[(u64, u64)]| -> Vec<(PhysAddr, u64)> {
            ranges.iter().map(|(at, bytes)| (PhysAddr(*at), *bytes)).collect()
        };
        let done = loop {
            match self.monitor.transfer(from, &physical(source), to, &physical(target), remap) {
                Ok(done) => break done,
                Err(error) => self.make_way(error),
            }
        };
        assert!(remap || done.pages_remapped == 0);
        self.remapped += done.pages_remapped;
        self.whole += done.pages_whole;
        let sent: Vec<u8> = source
            .iter()
            .flat_map(|(at, bytes)| self.memory[from as usize][*at as usize..(at + bytes) as usize].to_vec())
            .collect();
        let mut rest = &sent[..];
        for (at, bytes) in target {
            let (piece, behind) = rest.split_at(*bytes as usize);
            self.memory[to as usize][*at as usize..(at + bytes) as usize].copy_from_slice(piece);
            rest = behind;
        }
    }

    /// Content of all memory, and both tables against each other.
    fn check(&mut self) {
        let mut users = std::collections::BTreeMap::<Mpn, u16>::new();
        for vm in 0..VMS {
            let mut bytes = vec![0; (PAGES * PAGE_BYTES) as usize];
            self.monitor.read_physical(vm, PhysAddr(0), &mut bytes).unwrap();
            assert!(bytes == self.memory[vm as usize], "VM {vm} has not what was sent to it");
            for (_, row) in self.monitor.vm(vm).unwrap().pmap.present() {
                assert_eq!(row.writable != 0, row.state() == PageState::Private);
                *users.entry(Mpn(row.mpn)).or_default() += 1;
            }
        }
        for (mpn, count) in users {
            assert_eq!(u16::from(self.monitor.memmap().row(mpn).users), count, "users of {mpn}");
        }
    }
}

/// Pieces of `bytes` together at places of their own, so that no page is met twice; whole aligned pages often.
fn pieces(random: &mut Random, cuts: &[u64]) -> Vec<(u64, u64)> {
    let mut at = 0;
    let mut found = Vec::new();
    for bytes in cuts {
        if !random.chance(70) {
            at += random.below(PAGE_BYTES as usize) as u64;
        } else {
            at = at.next_multiple_of(PAGE_BYTES);
        }
        if at + bytes > PAGES * PAGE_BYTES {
            return Vec::new();
        }
        found.push((at, *bytes));
        at += bytes;
    }
    found
}

fn cuts(random: &mut Random, mut bytes: u64) -> Vec<u64> {
    let mut found = Vec::new();
    while bytes > 0 {
        let whole = PAGE_BYTES * (1 + random.below(3) as u64);
        let cut = if random.chance(60) { whole } else { 1 + random.below(5000) as u64 };
        found.push(cut.min(bytes));
        bytes -= cut.min(bytes);
    }
    found
}

#[test]
fn what_was_sent_arrives_and_neither_end_sees_what_the_other_writes_afterwards() {
    let mut all = (0, 0);
    for seed in 0..40 {
        let mut random = Random(seed);
        let mut world = World::new();
        for _ in 0..60 {
            for _ in 0..random.below(8) {
                let value = random.next().to_le_bytes();
                let at = random.below((PAGES * PAGE_BYTES) as usize - 8) as u64;
                world.write(random.below(VMS as usize) as u32, at, &value);
            }
            let bytes = 1 + random.below(40_000) as u64;
            let (source, target) = (cuts(&mut random, bytes), cuts(&mut random, bytes));
            let (source, target) = (pieces(&mut random, &source), pieces(&mut random, &target));
            if !source.is_empty() && !target.is_empty() {
                let from = random.below(VMS as usize) as u32;
                let to = (from + 1 + random.below(VMS as usize - 1) as u32) % VMS;
                let remap = random.chance(75);
                world.transfer(from, &source, to, &target, remap);
            }
            world.check();
        }
        all = (all.0 + world.whole, all.1 + world.remapped);
    }
    assert!(all.0 > 500 && all.1 > 200, "whole pages met: {all:?}");
}

#[test]
fn a_page_that_is_also_written_piece_by_piece_is_copied() {
    let mut world = World::new();
    world.write(0, 0, &[7; 2 * PAGE_BYTES as usize]);
    let source = [(PhysAddr(0), PAGE_BYTES), (PhysAddr(PAGE_BYTES), 8)];
    let target = [(PhysAddr(0), PAGE_BYTES), (PhysAddr(16), 8)];
    let refused = world.monitor.transfer(0, &source, 1, &target, true);
    assert_eq!(refused, Err(MonitorError::NotPresent { vm: 1, pages: vec![Ppn(0)] }));
    world.make_way(refused.unwrap_err());
    let done = world.monitor.transfer(0, &source, 1, &target, true);
    assert_eq!(done, Ok(Transferred { pages_whole: 1, pages_remapped: 0 }));
}

#[test]
fn what_is_not_ram_is_refused_and_nothing_has_changed() {
    let mut world = World::new();
    world.write(0, 0, &[7; 16]);
    let (inside, outside) = ([(PhysAddr(0), 16)], [(PhysAddr(PAGES * PAGE_BYTES - 8), 16)]);
    for (source, target) in [(inside, outside), (outside, inside)] {
        assert!(matches!(world.monitor.transfer(0, &source, 1, &target, true), Err(MonitorError::NotRam { .. })));
    }
    world.check();
}
