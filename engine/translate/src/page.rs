//! The translations of a page: where code begins for each of its instructions, and which blocks there are.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicI32, AtomicU32, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};

use machine::cpu::PAGE_INSNS;

use crate::indices::Indices;
use crate::x86_64::codegen;
use crate::x86_64::enter::EntryPoint;

/// What translated code knows of a page. Code on any CPU reads and writes here, hence the atomics; in lines of
/// its own, since the counter may change often.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Table {
    /// The host code for each instruction.
    entry_points: [AtomicU32; PAGE_INSNS],
    /// How often execution may yet cross from region to region in the page before they are merged.
    crossings_left: AtomicI32,
    /// They are to be merged.
    is_torn: AtomicU32,
    /// The generation in which a CPU last came to the page.
    used: AtomicU64,
}

// The emitted code has the same idea of it.
const _: () = assert!(std::mem::offset_of!(Table, crossings_left) == codegen::CROSSINGS_OFFSET);
const _: () = assert!(std::mem::offset_of!(Table, is_torn) == codegen::TORN_OFFSET);

impl Table {
    /// Without translations.
    pub fn new(absent: EntryPoint, crossings_min: u32) -> Table {
        Table {
            entry_points: std::array::from_fn(|_| AtomicU32::new(absent)),
            crossings_left: AtomicI32::new(crossings(crossings_min, 0)),
            is_torn: AtomicU32::new(0),
            used: AtomicU64::new(0),
        }
    }

    /// The generation in which a CPU last came to the page.
    pub fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    /// Notes that one comes to it.
    pub fn use_in(&self, generation: u64) {
        self.used.store(generation, Relaxed);
    }

    /// Its address, which is what the fetch cache holds.
    pub fn address(&self) -> u64 {
        std::ptr::from_ref(self).expose_provenance() as u64
    }

    pub fn entry_point(&self, index: usize) -> EntryPoint {
        self.entry_points[index].load(Acquire)
    }

    /// Whoever finds the entry point finds the code too, which must have been written.
    pub fn set_entry_point(&self, index: usize, entry: EntryPoint) {
        self.entry_points[index].store(entry, Release);
    }
}

/// How many crossings it takes when there were `merged_count` mergers.
fn crossings(crossings_min: u32, merged_count: u32) -> i32 {
    const DOUBLINGS_MAX: u32 = 30;
    let crossings = u64::from(crossings_min) << (2 * merged_count).min(DOUBLINGS_MAX);
    crossings.min(i32::MAX as u64) as i32
}

/// A page's translations.
#[derive(Debug)]
pub struct Page {
    pub table: Arc<Table>,
    /// First instructions of the blocks that are translated.
    pub known: Indices,
    /// Where its code is in the buffer.
    pub code: Vec<Range<usize>>,
    /// How often its regions were merged.
    merged_count: u32,
}

impl Page {
    /// Without translations.
    pub fn new(absent: EntryPoint, crossings_min: u32) -> Page {
        Page {
            table: Arc::new(Table::new(absent, crossings_min)),
            known: Indices::default(),
            code: Vec::new(),
            merged_count: 0,
        }
    }

    /// Whether the next region takes in the blocks of others. Each time that takes more crossings.
    pub fn begin_merging(&mut self, crossings_min: u32) -> bool {
        let is_torn = self.table.is_torn.swap(0, Relaxed) != 0;
        if is_torn {
            self.merged_count += 1;
            self.table.crossings_left.store(crossings(crossings_min, self.merged_count), Relaxed);
        }
        is_torn
    }

    /// Takes all entry points away: nobody enters the code any more.
    pub fn close(&self, absent: EntryPoint) {
        (0..PAGE_INSNS).for_each(|index| self.table.set_entry_point(index, absent));
    }

    /// Bytes of the host's memory that it takes beside its code.
    pub fn bytes(&self) -> usize {
        size_of::<Table>() + size_of::<Page>() + self.code.capacity() * size_of::<Range<usize>>()
    }

    /// And with its code.
    pub fn bytes_with_code(&self) -> usize {
        self.bytes() + self.code.iter().map(Range::len).sum::<usize>()
    }
}
