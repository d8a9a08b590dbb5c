//! The memory of the machine: one stretch of host memory, dealt to nodes.
//!
//! A machine address is `node * stride + offset`, where the stride is the node's memory rounded up to
//! a power of two: the high bits name the node and every table with a row a machine page is indexed by
//! the page number itself. The host gives pages on first touch, so holes and untouched memory cost
//! nothing.
//!
//! Each page has a *code word*: bit 0 says that some CPU keeps decoded instructions of the page, the
//! other bits are a version that changes when such a page is written. A CPU compares versions when it
//! enters a page of code; a store to a page without the bit costs nothing extra.
//!
//! # Why `unsafe` is sound here
//! Host threads run CPUs of different VMs at the same time, and these never write a page that another
//! can reach inside a round (docs/architecture.md, Rounds); device DMA, page copies and all Python access
//! happen at round boundaries, when no CPU runs. Memory is raw bytes, valid for every bit pattern, and
//! is only ever touched through raw pointers, so no Rust reference to it exists that could alias.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::{MachineAddr, Mpn, NodeId, PAGE_BYTES, PAGE_SHIFT};

/// Why a memory could not be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemoryError {
    /// Zero nodes, a size that is no multiple of a page, or more than 40 bits of machine address.
    Shape { nodes: u16, bytes_per_node: u64 },
    /// The host refuses that much address space.
    Host { bytes: u64, os_error: i32 },
}

impl std::fmt::Display for MemoryError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            MemoryError::Shape { nodes, bytes_per_node } => write!(
                f,
                "{nodes} nodes of {bytes_per_node} bytes asked; possible are 1 to 64 nodes, whole pages of \
                 {PAGE_BYTES} bytes, 2^40 bytes in all"
            ),
            MemoryError::Host { bytes, os_error } => {
                write!(f, "the host refused {bytes} bytes of address space (os error {os_error})")
            }
        }
    }
}

impl std::error::Error for MemoryError {}

/// A zeroed, page-aligned stretch of host memory that is given back on drop.
#[derive(Debug)]
pub struct HostRegion {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the region is plain bytes; who may touch which of them when is the rule in the file's head.
unsafe impl Send for HostRegion {}
// SAFETY: as above.
unsafe impl Sync for HostRegion {}

impl HostRegion {
    /// Reserves `bytes` (at least one page) of zeroed memory; the host supplies pages on first touch.
    ///
    /// # Errors
    /// [`MemoryError::Host`] when the host refuses.
    pub fn new(bytes: u64) -> Result<HostRegion, MemoryError> {
        let length = bytes.max(PAGE_BYTES) as usize;
        // SAFETY: an anonymous private mapping at an address of the kernel's choice touches nothing of ours.
        let pointer = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if pointer == libc::MAP_FAILED {
            let os_error = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
            return Err(MemoryError::Host { bytes, os_error });
        }
        let base = NonNull::new(pointer.cast()).expect("mmap without MAP_FIXED never returns page 0");
        Ok(HostRegion { base, bytes: length })
    }

    /// As `new`, for bytes that are touched here and there: the host is not to supply them by the 2 MiB, as
    /// some do unasked.
    ///
    /// # Errors
    /// [`MemoryError::Host`] when the host refuses.
    pub fn sparse(bytes: u64) -> Result<HostRegion, MemoryError> {
        let region = HostRegion::new(bytes)?;
        // SAFETY: our own mapping, whose content the advice leaves alone. A kernel without huge pages refuses
        // the advice, and does not need it.
        unsafe { libc::madvise(region.base().cast(), region.bytes, libc::MADV_NOHUGEPAGE) };
        Ok(region)
    }

    /// First byte.
    pub fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Has the host fetch the bytes around `offset` into its caches, as they will be asked for soon. Nothing else
    /// depends on it.
    #[inline]
    pub fn prefetch(&self, offset: usize) {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: a prefetch reads nothing and faults never, wherever the address leads.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(self.base().wrapping_add(offset).cast()) };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = offset;
    }

    /// Gives the host pages of `[offset, offset + bytes)` back; they read as zero afterwards.
    pub fn discard(&self, offset: usize, bytes: usize) {
        assert!(offset.checked_add(bytes).is_some_and(|end| end <= self.bytes), "discard inside the region");
        // SAFETY: the range lies inside our own anonymous mapping; DONTNEED leaves it mapped and zero.
        let result = unsafe { libc::madvise(self.base().add(offset).cast(), bytes, libc::MADV_DONTNEED) };
        assert_eq!(result, 0, "MADV_DONTNEED on our own anonymous mapping cannot fail");
    }
}

impl Drop for HostRegion {
    fn drop(&mut self) {
        // SAFETY: base and length are those of our own mapping, and nobody holds it any more.
        unsafe { libc::munmap(self.base().cast(), self.bytes) };
    }
}

/// All memory of the machine.
#[derive(Debug)]
pub struct MachineMemory {
    region: HostRegion,
    code_words: HostRegion,
    nodes: u16,
    bytes_per_node: u64,
    node_shift: u32,
    /// Counts pages that became code; a CPU that sees it change drops its store translations.
    code_epoch: AtomicU64,
    /// Counts writes to pages of code.
    code_writes: AtomicU64,
}

impl MachineMemory {
    /// Memory of `nodes` nodes with `bytes_per_node` each, all zero.
    ///
    /// # Errors
    /// [`MemoryError`] when the shape is impossible or the host refuses.
    pub fn new(nodes: u16, bytes_per_node: u64) -> Result<MachineMemory, MemoryError> {
        let shape = MemoryError::Shape { nodes, bytes_per_node };
        if nodes == 0 || nodes > 64 || bytes_per_node == 0 || !bytes_per_node.is_multiple_of(PAGE_BYTES) {
            return Err(shape);
        }
        let stride = bytes_per_node.checked_next_power_of_two().ok_or(shape.clone())?;
        let span = stride.checked_mul(u64::from(nodes)).filter(|span| *span <= 1 << 40).ok_or(shape)?;
        Ok(MachineMemory {
            region: HostRegion::new(span)?,
            code_words: HostRegion::sparse((span >> PAGE_SHIFT) * 4)?,
            nodes,
            bytes_per_node,
            node_shift: stride.trailing_zeros(),
            code_epoch: AtomicU64::new(0),
            code_writes: AtomicU64::new(0),
        })
    }

    /// Number of nodes.
    pub fn nodes(&self) -> u16 {
        self.nodes
    }

    /// Memory of each node, in bytes.
    pub fn bytes_per_node(&self) -> u64 {
        self.bytes_per_node
    }

    /// Rows that a table with a row a machine page needs (holes between nodes included).
    pub fn page_rows(&self) -> usize {
        usize::from(self.nodes) << (self.node_shift - PAGE_SHIFT)
    }

    /// The node whose memory holds `page`.
    pub fn node_of(&self, page: Mpn) -> NodeId {
        NodeId((page.0 >> (self.node_shift - PAGE_SHIFT)) as u16)
    }

    /// First page of `node`; its pages follow without gap.
    pub fn first_page(&self, node: NodeId) -> Mpn {
        Mpn(u32::from(node.0) << (self.node_shift - PAGE_SHIFT))
    }

    /// Pages of each node.
    pub fn pages_per_node(&self) -> u32 {
        (self.bytes_per_node >> PAGE_SHIFT) as u32
    }

    /// Whether `bytes` bytes at `address` are memory of one node.
    #[inline]
    pub fn contains(&self, address: MachineAddr, bytes: u64) -> bool {
        let node = address.0 >> self.node_shift;
        let offset = address.0 & ((1 << self.node_shift) - 1);
        node < u64::from(self.nodes) && offset.checked_add(bytes).is_some_and(|end| end <= self.bytes_per_node)
    }

    /// Host address of a page. Dereferencing it is subject to the rule in the file's head.
    #[inline]
    pub fn page_pointer(&self, page: Mpn) -> *mut u8 {
        assert!(self.contains(page.address(), PAGE_BYTES), "machine page {page} exists");
        // SAFETY: the assertion keeps the offset inside the region.
        unsafe { self.region.base().add(page.address().0 as usize) }
    }

    /// Has the host fetch what is at `address`, if that is memory: an access is about to ask for it.
    #[inline]
    pub fn prefetch(&self, address: MachineAddr) {
        if self.contains(address, 1) {
            self.region.prefetch(address.0 as usize);
        }
    }

    /// Copies bytes out. Only at a round boundary, or from the CPU that owns the page.
    #[inline]
    pub fn read(&self, address: MachineAddr, into: &mut [u8]) {
        assert!(self.contains(address, into.len() as u64), "machine range at {address} exists");
        // SAFETY: the range is inside the region; no CPU writes it meanwhile (file's head).
        unsafe {
            let from = self.region.base().add(address.0 as usize);
            std::ptr::copy_nonoverlapping(from, into.as_mut_ptr(), into.len());
        }
    }

    /// Copies bytes in and lets decoded code of the pages lapse. Only at a round boundary, or from the
    /// CPU that owns the page.
    #[inline]
    pub fn write(&self, address: MachineAddr, bytes: &[u8]) {
        assert!(self.contains(address, bytes.len() as u64), "machine range at {address} exists");
        if bytes.is_empty() {
            return;
        }
        // SAFETY: the range is inside the region; no CPU reads or writes it meanwhile (file's head).
        unsafe {
            let to = self.region.base().add(address.0 as usize);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
        }
        let last = MachineAddr(address.0 + bytes.len() as u64 - 1).page();
        for page in address.page().0..=last.0 {
            self.code_written(Mpn(page));
        }
    }

    /// Whether a page is all zeros. Only at a round boundary, or from the CPU that owns the page.
    pub fn is_zero_page(&self, page: Mpn) -> bool {
        let mut bytes = [0; PAGE_BYTES as usize];
        self.read(page.address(), &mut bytes);
        bytes.iter().all(|byte| *byte == 0)
    }

    /// Zeroes a page, giving nothing back to the host.
    pub fn zero_page(&self, page: Mpn) {
        // SAFETY: a whole page of the region; no CPU uses it meanwhile (file's head).
        unsafe { std::ptr::write_bytes(self.page_pointer(page), 0, PAGE_BYTES as usize) };
        self.code_written(page);
    }

    /// Gives a page's host memory back; it reads as zero afterwards.
    pub fn discard_page(&self, page: Mpn) {
        self.region.discard(page.address().0 as usize, PAGE_BYTES as usize);
        self.code_written(page);
    }

    /// As `discard_page` for many pages, with one call of the host for each run of neighbours.
    pub fn discard_pages(&self, mut pages: Vec<Mpn>) {
        pages.sort_unstable();
        for run in pages.chunk_by(|page, next| page.0 + 1 == next.0) {
            self.region.discard(run[0].address().0 as usize, run.len() * PAGE_BYTES as usize);
            run.iter().for_each(|page| self.code_written(*page));
        }
    }

    /// Copies one page to another.
    pub fn copy_page(&self, source: Mpn, target: Mpn) {
        assert_ne!(source, target, "a page is not copied onto itself");
        // SAFETY: two different whole pages of the region; no CPU uses the target meanwhile.
        unsafe {
            std::ptr::copy_nonoverlapping(
                self.page_pointer(source),
                self.page_pointer(target),
                PAGE_BYTES as usize,
            );
        }
        self.code_written(target);
    }

    fn code_word(&self, page: Mpn) -> &AtomicU32 {
        assert!((page.0 as usize) < self.page_rows(), "machine page {page} has a row");
        // SAFETY: the table has a 4-byte row for each page row, zeroed, aligned, only used as atomics.
        unsafe { &*self.code_words.base().cast::<AtomicU32>().add(page.0 as usize) }
    }

    /// The page's code version (even) with bit 0 set when decoded code of it may exist.
    #[inline]
    pub fn code_state(&self, page: Mpn) -> u32 {
        self.code_word(page).load(Ordering::Relaxed)
    }

    /// Whether a store must take the slow path because decoded code of the page may exist.
    #[inline]
    pub fn is_code(&self, page: Mpn) -> bool {
        self.code_state(page) & 1 != 0
    }

    /// Notes that a CPU is about to keep decoded instructions of the page; returns its state.
    pub fn mark_code(&self, page: Mpn) -> u32 {
        let before = self.code_word(page).fetch_or(1, Ordering::Relaxed);
        if before & 1 == 0 {
            self.code_epoch.fetch_add(1, Ordering::Relaxed);
        }
        before | 1
    }

    /// Notes a write to the page: if it held code, its version changes and the mark is taken off, so
    /// that a run of stores pays once. Whoever executes it next decodes and marks it again.
    #[inline]
    pub fn code_written(&self, page: Mpn) {
        let word = self.code_word(page);
        let state = word.load(Ordering::Relaxed);
        if state & 1 != 0 {
            word.store((state & !1).wrapping_add(2), Ordering::Relaxed);
            self.code_writes.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Changes whenever a page becomes code. A CPU that sees a new value drops its store translations
    /// (another CPU of the same VM may have marked a page that this one can still write quickly).
    #[inline]
    pub fn code_epoch(&self) -> u64 {
        self.code_epoch.load(Ordering::Relaxed)
    }

    /// Changes whenever a page of code is written: what is known of code without asking for its state
    /// must then be dropped.
    #[inline]
    pub fn code_writes(&self) -> u64 {
        self.code_writes.load(Ordering::Relaxed)
    }
}
