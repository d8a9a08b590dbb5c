//! Flat tables that Rust and Python share: allocated once, zeroed, never moved.
//!
//! A table is a stretch of host memory with fixed-size rows. Python sees the same bytes as a NumPy
//! structured array. Python touches them only between rounds, and inside a round a table is touched by one
//! host thread (docs/architecture.md, Rounds).

use std::marker::PhantomData;
use std::sync::Arc;

use machine::memory::{HostRegion, MemoryError};

/// A type whose every bit pattern is a value, zero among them, so that a row can be any bytes.
///
/// # Safety
/// The type is `Copy`, `repr(C)`, has no padding, no pointers, no references and no invalid bit patterns.
pub unsafe trait Row: Copy + 'static {}

/// A flat table of rows.
#[derive(Clone, Debug)]
pub struct Table<R: Row> {
    region: Arc<HostRegion>,
    rows: usize,
    row: PhantomData<R>,
}

impl<R: Row> Table<R> {
    /// A table of zeroed rows. Untouched rows take no host memory.
    ///
    /// # Errors
    /// [`MemoryError::Host`] when the host refuses the address space.
    pub fn new(rows: usize) -> Result<Table<R>, MemoryError> {
        let region = Arc::new(HostRegion::sparse((rows * size_of::<R>()) as u64)?);
        Ok(Table { region, rows, row: PhantomData })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The bytes, kept alive by the handle, for a view from Python.
    pub fn region(&self) -> (Arc<HostRegion>, usize) {
        (Arc::clone(&self.region), self.rows * size_of::<R>())
    }

    /// A copy of one row.
    #[inline]
    pub fn get(&self, row: usize) -> R {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        // SAFETY: inside the region (asserted), aligned because the base is page-aligned and rows are
        // `repr(C)`; any bytes are a valid `R` (trait contract).
        unsafe { self.region.base().cast::<R>().add(row).read() }
    }

    /// What `look` finds in a row.
    #[inline(always)]
    pub fn look<T>(&self, row: usize, look: impl FnOnce(&R) -> T) -> T {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        // SAFETY: as in `get`; the reference ends here, and nobody writes the table meanwhile (file's head).
        look(unsafe { &*self.region.base().cast::<R>().add(row) })
    }

    /// Has the host fetch a row that will be asked for soon.
    #[inline]
    pub fn prefetch(&self, row: usize) {
        self.region.prefetch(row * size_of::<R>());
    }

    /// Overwrites one row.
    #[inline]
    pub fn set(&mut self, row: usize, value: R) {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        // SAFETY: as in `get`; nobody else touches the table meanwhile (file's head).
        unsafe { self.region.base().cast::<R>().add(row).write(value) }
    }

    /// Changes one row in place.
    #[inline]
    pub fn update(&mut self, row: usize, change: impl FnOnce(&mut R)) {
        let mut value = self.get(row);
        change(&mut value);
        self.set(row, value);
    }
}
