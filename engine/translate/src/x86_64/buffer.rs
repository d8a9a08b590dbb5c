//! The code buffer: an anonymous file of host memory, mapped to be run and never to be written (W^X).
//!
//! Code is written with the file's own calls: that needs no writable view, whose pages the host would have to
//! supply for each write, and which would count in the memory of the process. The host gives memory to the file
//! as it is first written.
//!
//! Which parts of it are in use is the concern of `store.rs`.
//!
//! # Why `unsafe`
//! Making and mapping memory. Who runs what is in it is the concern of `enter.rs`.

use std::fs::File;
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;

use crate::BufferError;

/// A piece of memory for host code.
#[derive(Debug)]
pub struct CodeBuffer {
    file: File,
    executable: NonNull<u8>,
    bytes: usize,
}

const HOST_PAGE_BYTES: usize = 4096;

// SAFETY: the mapping belongs to this value alone and is plain bytes; nothing in it is tied to a thread.
unsafe impl Send for CodeBuffer {}
// SAFETY: a shared reference only reads the fields.
unsafe impl Sync for CodeBuffer {}

impl CodeBuffer {
    /// An empty buffer for `bytes` bytes, a multiple of the host's page size.
    ///
    /// # Errors
    /// [`BufferError`] when the host refuses.
    pub fn new(bytes: usize) -> Result<CodeBuffer, BufferError> {
        let refused = |error: std::io::Error| BufferError { bytes, os_error: error.raw_os_error().unwrap_or(0) };
        // SAFETY: the name is a C string; the call touches no memory of ours.
        let file = unsafe { libc::memfd_create(c"disco-code".as_ptr(), libc::MFD_CLOEXEC) };
        if file < 0 {
            return Err(refused(std::io::Error::last_os_error()));
        }
        // SAFETY: the file was made above, and nobody else has it.
        let file = unsafe { File::from_raw_fd(file) };
        file.set_len(bytes as u64).map_err(refused)?;
        let (protection, flags) = (libc::PROT_READ | libc::PROT_EXEC, libc::MAP_SHARED);
        // SAFETY: a new shared mapping at an address of the kernel's choice touches nothing of ours.
        let view = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, file.as_raw_fd(), 0) };
        match NonNull::new(view.cast()).filter(|_| view != libc::MAP_FAILED) {
            Some(executable) => Ok(CodeBuffer { file, executable, bytes }),
            None => Err(refused(std::io::Error::last_os_error())),
        }
    }

    /// Where the first byte runs.
    pub fn address(&self) -> usize {
        self.executable.as_ptr() as usize
    }

    /// Writes code from the byte `offset` on. Nobody may run what was there.
    pub fn write(&mut self, offset: usize, code: &[u8]) {
        assert!(offset + code.len() <= self.bytes, "{} bytes at {offset} lie in the buffer", code.len());
        let written = self.file.write_all_at(code, offset as u64);
        written.expect("the host has memory for an anonymous file");
    }

    /// Forgets the code in `range`, which nobody needs, and gives the memory of whole pages back to the host.
    pub fn discard(&mut self, range: Range<usize>) {
        let first = range.start.next_multiple_of(HOST_PAGE_BYTES);
        let end = range.end.min(self.bytes) / HOST_PAGE_BYTES * HOST_PAGE_BYTES;
        if first < end {
            let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
            let (first, bytes) = (first as libc::off_t, (end - first) as libc::off_t);
            // SAFETY: whole pages of our own file; by the contract of this call nobody needs what they hold.
            // Where the host cannot do it, the memory is kept and used again.
            unsafe { libc::fallocate(self.file.as_raw_fd(), mode, first, bytes) };
        }
    }
}

impl Drop for CodeBuffer {
    fn drop(&mut self) {
        // SAFETY: our own mapping of that size, and nobody runs it any more.
        unsafe { libc::munmap(self.executable.as_ptr().cast(), self.bytes) };
    }
}
