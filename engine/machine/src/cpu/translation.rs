//! Host translations: from a virtual page straight to the host memory behind it.
//!
//! Two direct-mapped caches, one for loads and one for stores, spare nearly every access the walk
//! through segments, TLB and memory. An entry carries the *context* (mode, and in user mode ASID) in the low
//! bits of its tag, so that changing either flushes nothing. A kernel's context has no ASID, since nearly all
//! that it touches is the same in every address space; the few translations that are not are *private*, and
//! dropped when the ASID changes ([`Private`]). The caches are always a subset of what TLB
//! and segments say: whoever changes those removes the entries first. A store entry exists only for
//! a page that is writable and holds no decoded code.
//!
//! # Why `unsafe`
//! This is the one place where the CPU touches machine memory without bounds checks; a checked
//! copy for each load would cost more than the rest of the instruction. The invariant that every
//! access rests on: an entry is only made by [`HostTranslations::insert`], from a page of the
//! memory that the cache itself keeps alive, and adding `addend` to any address of the tagged
//! virtual page gives an address in that page. When CPUs may touch which page is the rule in the
//! head of `memory.rs`; memory is plain bytes, and every value read here is valid for every bits.

use std::sync::Arc;

use crate::tlb::ones;
use crate::{MachineAddr, MachineMemory, Mpn, PAGE_BYTES, PAGE_SHIFT};

/// What translations depend on beside the address: the ASID in bits 10:3 in user mode; otherwise bit 11 is set and the
/// others tell the mode. Bits 2:0 are clear, so that one comparison with a tag can check the alignment as well.
pub(super) type Context = u64;

/// Places of a cache that may hold translations of one address space in a context without ASID.
#[derive(Clone, Copy, Debug)]
pub(super) struct Private<const WORDS: usize>([u64; WORDS]);

impl<const WORDS: usize> Default for Private<WORDS> {
    fn default() -> Private<WORDS> {
        Private([0; WORDS])
    }
}

impl<const WORDS: usize> Private<WORDS> {
    /// Notes a place.
    pub(super) fn add(&mut self, place: usize) {
        self.0[place / 64] |= 1 << (place % 64);
    }

    /// Forgets the places, and says which they were.
    pub(super) fn take(&mut self) -> impl Iterator<Item = usize> + use<WORDS> {
        let words = std::mem::take(self).0;
        words.into_iter().enumerate().flat_map(|(index, word)| ones(word).map(move |bit| 64 * index + bit))
    }
}

/// Bits of an address that tell pages apart in the TLB. The higher ones choose a segment, and several
/// segments may be aliases of one page, so removal looks at these bits only.
pub(super) const TLB_PAGE_BITS: u64 = (1 << 40) - PAGE_BYTES;

pub(super) const ENTRY_COUNT: usize = 1024;

/// Contexts leave bits 2:0 of a tag clear, so nothing matches this.
const EMPTY: Entry = Entry { tag: u64::MAX, addend: 0 };

#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Entry {
    /// Virtual page address | context.
    tag: u64,
    /// Host address minus virtual address.
    addend: u64,
}

/// A direct-mapped cache of host translations.
#[derive(Debug)]
pub(super) struct HostTranslations {
    entries: [Entry; ENTRY_COUNT],
    private: Private<{ ENTRY_COUNT / 64 }>,
    /// Keeps the pages behind `entries` alive.
    memory: Arc<MachineMemory>,
    /// Host address of machine address 0.
    base: u64,
}

/// Values that memory holds: any bits are one.
pub(super) trait Plain: Copy {
    /// The value as the low bits of a register, zero-extended.
    fn widen(self) -> u64;
    /// The low bits of a register.
    fn narrow(value: u64) -> Self;
}

macro_rules! plain {
    ($($name:ident)*) => {
        $(impl Plain for $name {
            #[inline(always)]
            fn widen(self) -> u64 {
                u64::from(self)
            }
            #[inline(always)]
            fn narrow(value: u64) -> Self {
                value as $name
            }
        })*
    };
}

plain!(u8 u16 u32 u64);

// Guests are little-endian, and values are read and written as the host's own.
const _: () = assert!(cfg!(target_endian = "little"), "the host must be little-endian");

impl HostTranslations {
    /// Where the entries are, for `Layout`.
    pub(super) const ENTRIES_OFFSET: usize = std::mem::offset_of!(HostTranslations, entries);

    /// Where the host address of machine address 0 is.
    pub(super) const BASE_OFFSET: usize = std::mem::offset_of!(HostTranslations, base);

    /// An empty cache over `memory`.
    pub(super) fn new(memory: Arc<MachineMemory>) -> HostTranslations {
        let base = memory.page_pointer(Mpn(0)).expose_provenance() as u64;
        HostTranslations { entries: [EMPTY; ENTRY_COUNT], private: Private::default(), memory, base }
    }

    /// Remembers that in `context` the page of `vaddr` is machine page `page`; `is_private`: until the ASID
    /// changes.
    pub(super) fn insert(&mut self, vaddr: u64, context: Context, page: Mpn, is_private: bool) {
        if is_private {
            self.private.add(index_of(vaddr));
        }
        let host = self.memory.page_pointer(page).expose_provenance() as u64;
        let virtual_page = vaddr & !(PAGE_BYTES - 1);
        self.entries[index_of(vaddr)] =
            Entry { tag: virtual_page | context, addend: host.wrapping_sub(virtual_page) };
    }

    /// Forgets everything.
    pub(super) fn flush(&mut self) {
        self.entries = [EMPTY; ENTRY_COUNT];
        self.private = Private::default();
    }

    /// Forgets what is private to the address space.
    pub(super) fn forget_private(&mut self) {
        for place in self.private.take() {
            self.entries[place] = EMPTY;
        }
    }

    /// Forgets `bytes` bytes from `vaddr` in every context, and whatever may be an alias of them.
    pub(super) fn remove(&mut self, vaddr: u64, bytes: u64) {
        if bytes > (ENTRY_COUNT as u64) << PAGE_SHIFT {
            return self.flush();
        }
        for page in (vaddr..vaddr + bytes).step_by(PAGE_BYTES as usize) {
            self.remove_page_if(page, true);
        }
    }

    /// If `is_known`, forgets a page in every context, and whatever may be an alias of it. Without a branch: which pages of
    /// an entry are known, the host cannot foresee.
    #[inline]
    pub(super) fn remove_page_if(&mut self, page: u64, is_known: bool) {
        let tag = &mut self.entries[index_of(page)].tag;
        let is_its = (*tag ^ page) & TLB_PAGE_BITS == 0;
        // All ones is the tag that nothing matches.
        *tag |= u64::from(is_its & is_known).wrapping_neg();
    }

    /// The machine address of `vaddr`, if it is remembered.
    #[inline]
    pub(super) fn machine_address(&self, vaddr: u64, context: Context) -> Option<MachineAddr> {
        self.host_address(vaddr, context).map(|host| MachineAddr(host.wrapping_sub(self.base)))
    }

    /// Reads the aligned value at `vaddr`; `None` if it is not aligned or not remembered.
    #[inline(always)]
    pub(super) fn load<T: Plain>(&self, vaddr: u64, context: Context) -> Option<T> {
        let host = self.aligned_host_address::<T>(vaddr, context)?;
        // SAFETY: by the invariant in the head, `host` lies in a page of `memory`, and being aligned
        // as `vaddr` is, so do all bytes of the value.
        Some(unsafe { std::ptr::with_exposed_provenance::<T>(host as usize).read() })
    }

    /// Writes the aligned value at `vaddr`; `false` if it is not aligned or not remembered.
    #[inline(always)]
    pub(super) fn store<T: Plain>(&self, vaddr: u64, context: Context, value: T) -> bool {
        let Some(host) = self.aligned_host_address::<T>(vaddr, context) else {
            return false;
        };
        // SAFETY: as for `load`; no reference to machine memory exists that the write could break.
        unsafe { std::ptr::with_exposed_provenance_mut::<T>(host as usize).write(value) };
        true
    }

    #[inline(always)]
    fn aligned_host_address<T>(&self, vaddr: u64, context: Context) -> Option<u64> {
        match vaddr & (size_of::<T>() as u64 - 1) {
            0 => self.host_address(vaddr, context),
            _ => None,
        }
    }

    #[inline(always)]
    fn host_address(&self, vaddr: u64, context: Context) -> Option<u64> {
        let entry = &self.entries[index_of(vaddr)];
        (entry.tag == vaddr & !(PAGE_BYTES - 1) | context).then(|| vaddr.wrapping_add(entry.addend))
    }
}

/// Removal finds an entry by these bits of any alias of its page.
#[inline(always)]
fn index_of(vaddr: u64) -> usize {
    (vaddr >> PAGE_SHIFT) as usize % ENTRY_COUNT
}
