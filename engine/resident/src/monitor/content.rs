//! Sharing by content: pages that came to be equal in different ways become one, which nobody may write.
//!
//! Python says when how many pages of which VM are looked at; here they are hashed, compared and merged. A page is a
//! candidate when two looks in turn have found the same hash, so that pages that are being written are left alone. The
//! hash of a candidate leads to a machine page that had it when somebody looked last. If its bytes are still those of the
//! candidate, both become one by the means of `transfer.rs` and `sharing.rs`, and the first write gives its writer
//! a page of its own again. A hash decides nothing but whom to compare with.
//!
//! The page that was known first is the one that stays, on whichever node it is. A shared page cannot have been written
//! and is not hashed again. Nothing is kept here of a machine that never scans.
//!
//! Source: Waldspurger, Memory Resource Management in VMware ESX Server (OSDI'02) section 4; Arcangeli, Eidus,
//! Wright, Increasing memory density by using KSM (Linux Symposium 2009).

use std::collections::{BTreeMap, HashMap};

use machine::{Mpn, PAGE_BYTES, Ppn};

use super::rounds::vcpu_of;
use super::{Monitor, Result};
use crate::counters::Cause;
use crate::memmap::Owner;
use crate::pmap::PageState;

/// What sharing by content has come to so far, in pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContentCounts {
    /// Looked at.
    pub scanned: u64,
    /// Hashed: those that had not been shared at the last look.
    pub hashed: u64,
    /// With the hash of the last look.
    pub candidates: u64,
    /// Compared with another.
    pub compared: u64,
    /// Given up for an equal one.
    pub merged: u64,
    /// Of these, full of zeros.
    pub merged_zero: u64,
    /// Merged and written to afterwards, so that the writer has one of its own again.
    pub broken: u64,
}

impl ContentCounts {
    /// Every count with its name.
    pub fn rows(&self) -> [(&'static str, u64); 7] {
        [
            ("scanned", self.scanned),
            ("hashed", self.hashed),
            ("candidates", self.candidates),
            ("compared", self.compared),
            ("merged", self.merged),
            ("merged_zero", self.merged_zero),
            ("broken", self.broken),
        ]
    }
}

/// What a look at a page has found: its hash, and in bit 0 whether the page was shared. 0: nobody has looked.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Look(u64);

impl Look {
    fn new(hash: u64, is_shared: bool) -> Look {
        Look(hash | u64::from(is_shared))
    }

    fn was_shared(self) -> bool {
        self.0 & 1 != 0
    }
}

/// The last looks at the pages of a VM, and where the next one goes.
struct Looks {
    next: Ppn,
    /// A [`Look`] for each row of the pmap, as numbers: the host gives memory only to those that are not 0.
    last: Vec<u64>,
}

/// What is known of contents.
#[derive(Default)]
pub(super) struct Contents {
    pub(super) counts: ContentCounts,
    looks: BTreeMap<u32, Looks>,
    /// A machine page that had this hash when it was looked at last. It may have been freed or written since.
    known: HashMap<u64, Mpn>,
    /// How many of them there may be before those go that nobody shares.
    known_max: usize,
}

impl std::fmt::Debug for Contents {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Contents({:?}, {} known)", self.counts, self.known.len())
    }
}

impl Contents {
    /// 1 MiB.
    const KNOWN_MIN: usize = 1 << 16;

    /// Forgets a VM.
    pub(super) fn forget(&mut self, vm: u32) {
        self.looks.remove(&vm);
    }

    fn looks(&mut self, vm: u32) -> &mut Looks {
        self.looks.get_mut(&vm).expect("somebody looks at the VM")
    }

    fn last(&mut self, vm: u32, page: Ppn) -> Look {
        Look(self.looks(vm).last[page.0 as usize])
    }

    fn note(&mut self, vm: u32, page: Ppn, look: Look) {
        self.looks(vm).last[page.0 as usize] = look.0;
    }
}

impl Monitor {
    /// Looks at the VM's next `count` pages that have a machine page, but not beyond its last one: the look after that
    /// begins with the first. Merges those that it can. Only between rounds.
    ///
    /// # Errors
    /// [`super::MonitorError::NoVm`].
    pub fn share_content(&mut self, vm: u32, count: usize) -> Result<()> {
        let rows = self.vm(vm)?.pmap.table().rows();
        let new = || Looks { next: Ppn(0), last: vec![0; rows] };
        let first = self.contents.looks.entry(vm).or_insert_with(new).next;
        let pages: Vec<Ppn> = self.vm(vm)?.pmap.present_from(first).map(|(page, _)| page).take(count).collect();
        let is_at_end = pages.len() < count;
        let next = pages.last().filter(|_| !is_at_end).map_or(Ppn(0), |last| Ppn(last.0 + 1));
        self.contents.looks(vm).next = next;
        let before = self.contents.counts;
        for page in pages {
            self.look_at(vm, page)?;
        }
        self.forget_unshared();
        let counts = self.contents.counts;
        let costs = &self.config.costs;
        let hashing = (counts.hashed - before.hashed) * costs.page_hash;
        let comparing = (counts.compared - before.compared) * costs.page_compare;
        self.charge_vm(vm, Cause::Content, hashing + comparing);
        Ok(())
    }

    /// What sharing by content has come to.
    pub fn content_counts(&self) -> ContentCounts {
        self.contents.counts
    }

    fn look_at(&mut self, vm: u32, page: Ppn) -> Result<()> {
        let row = self.vm(vm)?.pmap.row(page);
        let (mpn, is_shared) = (Mpn(row.mpn), row.state() == PageState::Shared);
        self.contents.counts.scanned += 1;
        let last = self.contents.last(vm, page);
        if is_shared && last.was_shared() {
            return Ok(());
        }
        let mut bytes = [0; PAGE_BYTES as usize];
        self.memory.read(mpn.address(), &mut bytes);
        let hash = hash(&bytes);
        let look = Look::new(hash, is_shared);
        self.contents.note(vm, page, look);
        self.contents.counts.hashed += 1;
        if !is_shared && look != last {
            return Ok(());
        }
        self.contents.counts.candidates += 1;
        let is_cached = self.memmap.row(mpn).owner == Owner::Cache as u8;
        match self.contents.known.get(&hash).copied().filter(|_| !is_cached) {
            Some(known) if known == mpn => {}
            Some(known) if self.has_content(known, &bytes) => {
                self.merge(vm, page, known)?;
                self.contents.note(vm, page, Look::new(hash, true));
                self.contents.counts.merged_zero += u64::from(bytes.iter().all(|byte| *byte == 0));
            }
            _ => _ = self.contents.known.insert(hash, mpn),
        }
        Ok(())
    }

    /// Whether a machine page is still one that VMs can share, and has these bytes.
    fn has_content(&mut self, mpn: Mpn, bytes: &[u8; PAGE_BYTES as usize]) -> bool {
        let row = self.memmap.row(mpn);
        if row.owner != Owner::Cache as u8 && (row.owner != Owner::Guest as u8 || row.users == 0) {
            return false;
        }
        self.contents.counts.compared += 1;
        let mut there = [0; PAGE_BYTES as usize];
        self.memory.read(mpn.address(), &mut there);
        there == *bytes
    }

    /// Maps `known` as the VM's page, for its own with the same content.
    fn merge(&mut self, vm: u32, page: Ppn, known: Mpn) -> Result<()> {
        let row = self.memmap.row(known);
        if row.users == 1 {
            let (lender, lent) = (u32::from(row.vm), Ppn(row.ppn));
            let pmap = &self.vm(lender)?.pmap;
            if pmap.row(lent).state() == PageState::Private {
                self.lend_page(lender, lent)?;
                self.vm(lender)?.pmap.mark_merged(lent);
            }
        }
        self.map_shared(vm, page, known)?;
        self.vm(vm)?.pmap.mark_merged(page);
        self.contents.counts.merged += 1;
        Ok(())
    }

    /// Pages change and their hashes stay behind: when there are many, those of pages that nobody shares go. A page that
    /// is a candidate still is known again after its next look.
    fn forget_unshared(&mut self) {
        let Monitor { contents, memmap, .. } = self;
        if contents.known.len() <= contents.known_max.max(Contents::KNOWN_MIN) {
            return;
        }
        contents.known.retain(|_, mpn| {
            let row = memmap.row(*mpn);
            row.owner == Owner::Cache as u8 || (row.owner == Owner::Guest as u8 && row.users > 1)
        });
        contents.known_max = 2 * contents.known.len();
    }

    /// Charges work of the monitor for a VM to the first CPU that runs it.
    fn charge_vm(&mut self, vm: u32, cause: Cause, cycles: u64) {
        for slot in self.cpus.iter_mut().flatten() {
            let Some(id) = slot.queue.iter().copied().find(|id| id.vm == vm) else { continue };
            slot.charge(vcpu_of(&mut self.vms, id), cause, cycles);
            return;
        }
    }
}

/// A hash of a page, even and not 0.
fn hash(bytes: &[u8; PAGE_BYTES as usize]) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15; // 2^64 over the golden ratio
    let (dwords, _) = bytes.as_chunks();
    let hash = dwords
        .iter()
        .fold(0, |hash: u64, dword| (hash.rotate_right(37) ^ u64::from_le_bytes(*dword)).wrapping_mul(ODD));
    (hash & !1).max(2)
}
