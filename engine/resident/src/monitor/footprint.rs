//! What machine memory is used for, and who shares it: the paper's Figure 6 for the VMs that live.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use machine::{Mpn, PAGE_BYTES, Ppn};

use super::{Monitor, Result};
use crate::memmap::{Mapper, Owner};
use crate::pmap::PmapRow;

/// What a page of a VM is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Use {
    /// In the kernel's part of memory, with instructions that a CPU has executed since they were written.
    KernelText,
    /// Still what a disk has, on a page of the disk cache.
    BufferCache,
    /// Everything else: data of kernel and programs, and what they read in another way.
    Anonymous,
}

impl Use {
    /// All of them, with their names.
    pub const NAMES: [(Use, &str); 3] =
        [(Use::KernelText, "kernel_text"), (Use::BufferCache, "buffer_cache"), (Use::Anonymous, "anonymous")];

    /// The name for programs.
    pub fn name(self) -> &'static str {
        Use::NAMES.iter().find(|(kind, _)| *kind == self).map_or("", |(_, name)| *name)
    }
}

/// Pages of one VM, or of all, of one use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FootprintPages {
    /// As the guests count them.
    pub virtual_pages: u64,
    /// Of these, on machine pages that have another user too.
    pub shared_pages: u64,
    /// Of these, because they had the same content.
    pub merged_pages: u64,
    /// Bytes of machine memory: of a shared page, as many parts as it has users, rounded down.
    pub machine_bytes: u64,
}

/// Machine memory by use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Of each VM.
    pub vms: BTreeMap<(u32, Use), FootprintPages>,
    /// Machine pages, each once; a page that VMs use differently counts for the first.
    pub machine_pages: BTreeMap<Use, u64>,
    /// Machine pages that two VMs have in common.
    pub common: BTreeMap<(u32, u32), u64>,
    /// Pages of the disk cache that no VM maps.
    pub unused_cache_pages: u64,
}

impl Monitor {
    /// Counts what the memory of all living VMs is used for.
    ///
    /// `kernels` says for each VM before which physical page its kernel lies.
    ///
    /// # Errors
    /// [`super::MonitorError::NoVm`] for a number in `kernels` that no living VM has.
    pub fn footprint(&mut self, kernels: &BTreeMap<u32, Ppn>) -> Result<Footprint> {
        let mut footprint = Footprint::default();
        // How many users the pages have that are not one's alone: each is asked for once.
        let mut seen: BTreeMap<Mpn, u64> = BTreeMap::new();
        for (vm, kernel_end) in kernels {
            let present: Vec<_> = self.vm(*vm)?.pmap.present().collect();
            for (ppn, row) in present {
                let mpn = Mpn(row.mpn);
                let kind = self.use_of(ppn, row, *kernel_end);
                let (users, is_first) = match self.memmap.row(mpn).users {
                    0 | 1 => (1, true),
                    _ => match seen.entry(mpn) {
                        Entry::Occupied(entry) => (*entry.get(), false),
                        Entry::Vacant(entry) => {
                            let users = self.memmap.users(mpn);
                            note_common(&users, &mut footprint.common);
                            (*entry.insert(users.len() as u64), true)
                        }
                    },
                };
                let pages = footprint.vms.entry((*vm, kind)).or_default();
                pages.virtual_pages += 1;
                pages.shared_pages += u64::from(users > 1);
                pages.merged_pages += u64::from(users > 1 && row.merged != 0);
                pages.machine_bytes += PAGE_BYTES / users;
                *footprint.machine_pages.entry(kind).or_default() += u64::from(is_first);
            }
        }
        let rows = (0..self.memmap.table().rows() as u32).map(|page| self.memmap.row(Mpn(page)));
        footprint.unused_cache_pages =
            rows.filter(|row| row.owner == Owner::Cache as u8 && row.users == 0).count() as u64;
        Ok(footprint)
    }

    fn use_of(&self, ppn: Ppn, row: PmapRow, kernel_end: Ppn) -> Use {
        let mpn = Mpn(row.mpn);
        // What a VM has made itself is no buffer cache, though it happens to be what the disk has.
        if self.memmap.row(mpn).owner == Owner::Cache as u8 && row.merged == 0 {
            Use::BufferCache
        } else if ppn < kernel_end && self.memory.is_code(mpn) {
            Use::KernelText
        } else {
            Use::Anonymous
        }
    }
}

fn note_common(users: &[Mapper], common: &mut BTreeMap<(u32, u32), u64>) {
    let vms: BTreeSet<u32> = users.iter().map(|user| user.vm).collect();
    for one in &vms {
        for other in vms.range(one + 1..) {
            *common.entry((*one, *other)).or_default() += 1;
        }
    }
}
