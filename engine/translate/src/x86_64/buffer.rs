//! The code buffer: one piece of host memory, mapped twice.
//!
//! Translations are written through a view that is never executable and run through a view that is
//! never writable (W^X). Both are views of one anonymous file, so neither needs changing while the
//! other is in use. The host supplies pages as they are first written, and takes those of the writable view
//! back once they are full; so code counts once in the memory of the process.
//!
//! Which parts of it are in use is the concern of `store.rs`.
//!
//! # Why `unsafe`
//! Mapping memory and copying into it. Who runs what is in it is the concern of `enter.rs`.

use std::ops::Range;
use std::ptr::NonNull;

use crate::BufferError;

/// A piece of memory for host code.
#[derive(Debug)]
pub struct CodeBuffer {
    writable: NonNull<u8>,
    executable: NonNull<u8>,
    bytes: usize,
    /// Bytes written since the writable view gave its pages back.
    written: usize,
}

/// Bytes written after which the writable view gives its pages back.
const RETURN_BYTES: usize = 64 << 10;
const HOST_PAGE_BYTES: usize = 4096;

// SAFETY: the mappings belong to this value alone and are plain bytes; nothing in them is tied to a thread.
unsafe impl Send for CodeBuffer {}
// SAFETY: a shared reference only reads the fields.
unsafe impl Sync for CodeBuffer {}

impl CodeBuffer {
    /// An empty buffer for `bytes` bytes, a multiple of the host's page size.
    ///
    /// # Errors
    /// [`BufferError`] when the host refuses.
    pub fn new(bytes: usize) -> Result<CodeBuffer, BufferError> {
        let refused = || BufferError { bytes, os_error: last_os_error() };
        // SAFETY: the name is a C string; the call touches no memory of ours.
        let file = unsafe { libc::memfd_create(c"disco-code".as_ptr(), libc::MFD_CLOEXEC) };
        if file < 0 {
            return Err(refused());
        }
        let views = map_twice(file, bytes);
        // SAFETY: `file` is ours and not used after this; mappings keep the file alive.
        unsafe { libc::close(file) };
        let (writable, executable) = views.ok_or_else(refused)?;
        Ok(CodeBuffer { writable, executable, bytes, written: 0 })
    }

    /// Where the first byte runs.
    pub fn address(&self) -> usize {
        self.executable.as_ptr() as usize
    }

    /// Writes code from the byte `offset` on. Nobody may run what was there.
    pub fn write(&mut self, offset: usize, code: &[u8]) {
        assert!(offset + code.len() <= self.bytes, "{} bytes at {offset} lie in the buffer", code.len());
        // SAFETY: the range lies inside the writable view, which no reference covers; `code` is elsewhere.
        unsafe { std::ptr::copy_nonoverlapping(code.as_ptr(), self.writable.as_ptr().add(offset), code.len()) };
        self.written += code.len();
        if self.written >= RETURN_BYTES {
            self.written = 0;
            self.return_pages();
        }
    }

    /// Gives the pages of the writable view back; their content stays in the file.
    fn return_pages(&mut self) {
        // SAFETY: our own shared mapping; the file keeps what it holds.
        let result = unsafe { libc::madvise(self.writable.as_ptr().cast(), self.bytes, libc::MADV_DONTNEED) };
        assert_eq!(result, 0, "MADV_DONTNEED on our own mapping cannot fail");
    }

    /// Forgets the code in `range`, which nobody needs, and gives the memory of whole pages back to the host.
    pub fn discard(&mut self, range: Range<usize>) {
        let first = range.start.next_multiple_of(HOST_PAGE_BYTES);
        let end = range.end.min(self.bytes) / HOST_PAGE_BYTES * HOST_PAGE_BYTES;
        if first < end {
            // SAFETY: whole pages of our own shared mapping; by the contract of this call nobody needs what they
            // hold. Where the host cannot do it, the memory is kept and used again.
            unsafe { libc::madvise(self.writable.as_ptr().add(first).cast(), end - first, libc::MADV_REMOVE) };
        }
    }
}

impl Drop for CodeBuffer {
    fn drop(&mut self) {
        for view in [self.writable, self.executable] {
            // SAFETY: our own mapping of that size, and nobody runs or writes it any more.
            unsafe { libc::munmap(view.as_ptr().cast(), self.bytes) };
        }
    }
}

fn map_twice(file: libc::c_int, bytes: usize) -> Option<(NonNull<u8>, NonNull<u8>)> {
    // SAFETY: sets the size of our own file.
    if unsafe { libc::ftruncate(file, bytes as libc::off_t) } != 0 {
        return None;
    }
    let writable = map(file, bytes, libc::PROT_READ | libc::PROT_WRITE)?;
    match map(file, bytes, libc::PROT_READ | libc::PROT_EXEC) {
        Some(executable) => Some((writable, executable)),
        None => {
            // SAFETY: the mapping made above, which nobody has seen.
            unsafe { libc::munmap(writable.as_ptr().cast(), bytes) };
            None
        }
    }
}

fn map(file: libc::c_int, bytes: usize, protection: libc::c_int) -> Option<NonNull<u8>> {
    // SAFETY: a new shared mapping at an address of the kernel's choice touches nothing of ours.
    let view = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, libc::MAP_SHARED, file, 0) };
    if view == libc::MAP_FAILED { None } else { NonNull::new(view.cast()) }
}

fn last_os_error() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}
