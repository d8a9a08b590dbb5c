//! The translator: guest code becomes host code, with the same results as the interpreter's.
//!
//! What belongs here: finding what is worth translating, making host code of it, keeping that code and
//! running it. What does not: anything a guest could tell apart. Translated code does only what is
//! ordinary and returns for the rest, with registers and counts as before the instruction, so that
//! exceptions, privileged instructions and devices exist once, in crate `machine`.
//!
//! ```text
//! translator.rs  the translator of a CPU: what it knows of the machine's translations
//! background.rs  translating on a thread of its own
//! store.rs       the translations of a machine: how they are found, shared and dropped
//! page.rs        those of a page
//! extents.rs     which parts of the code buffer are free
//! indices.rs     sets of instructions of a page
//! region.rs      which instructions are translated together, and in which host registers they work
//! flow.rs        which registers hold what at the borders of blocks
//! groups.rs      which accesses share a translation
//! uses.rs        which registers an instruction reads and writes
//! x86_64/        the back end
//!   codegen.rs   blocks, branches, and the ways out
//!   integer.rs   instructions on general registers
//!   memory.rs    loads and stores
//!   float.rs     floating point
//!   enter.rs     in and out of host code, and the calls that it makes
//!   emitter.rs   host instructions
//!   buffer.rs    the memory that holds them
//! ```
//!
//! # What a translation depends on
//! What the page holds, and whether 64-bit operations are reserved. Not on the CPU, the machine page, the
//! virtual address, the ASID or the mode: one translation serves them all, and survives TLB flushes and
//! switches. Only within a page do translations jump to each other directly. From page to page execution
//! goes through the CPU's fetch cache, whose entries vanish with the TLB entries behind them.
//!
//! # Time
//! A block takes what it will execute from the budget when it begins, and goes aside if that is not
//! there. A way out in its middle gives back what was not executed.

//!
//! # Hosts
//! x86-64 with Linux. Elsewhere [`accelerator`] has none, and the interpreter does everything.

#![deny(unsafe_code)]

#[cfg(target_arch = "x86_64")]
mod background;
#[cfg(target_arch = "x86_64")]
mod extents;
#[cfg(target_arch = "x86_64")]
mod flow;
#[cfg(target_arch = "x86_64")]
mod groups;
#[cfg(target_arch = "x86_64")]
mod indices;
#[cfg(target_arch = "x86_64")]
mod page;
#[cfg(target_arch = "x86_64")]
mod region;
#[cfg(target_arch = "x86_64")]
mod store;
#[cfg(target_arch = "x86_64")]
mod translator;
#[cfg(target_arch = "x86_64")]
mod uses;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "x86_64")]
pub use background::Background;
#[cfg(target_arch = "x86_64")]
pub use store::{Counters, Store};
#[cfg(target_arch = "x86_64")]
pub use translator::{Options, Translator};

use machine::Accelerator;

/// Why a translator cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferError {
    /// Bytes of code buffer asked.
    pub bytes: usize,
    /// The host's error number.
    pub os_error: i32,
}

impl std::fmt::Display for BufferError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the host refused a code buffer of {} bytes (os error {})", self.bytes, self.os_error)
    }
}

impl std::error::Error for BufferError {}

/// A translator for each of `cpus` CPUs, if there is one for this host. They share their translations, which
/// take a bounded amount of the host's memory. The CPUs run on at most `host_threads` threads; of several, one that is
/// idle translates.
///
/// # Errors
/// [`BufferError`] when the host gives no memory for code.
#[cfg(target_arch = "x86_64")]
pub fn accelerators(cpus: usize, host_threads: usize) -> Result<Vec<Option<Box<dyn Accelerator>>>, BufferError> {
    let store = Store::new(Options::for_machine(cpus))?;
    // A host that gives no thread has none to spare.
    let background = if host_threads > 1 { Background::start(&store, host_threads).ok() } else { None };
    let one = |_| -> Option<Box<dyn Accelerator>> {
        Some(Box::new(Translator::sharing(&store, background.as_ref().map(Background::share))))
    };
    Ok((0..cpus).map(one).collect())
}

/// A translator for each of `cpus` CPUs, if there is one for this host.
///
/// # Errors
/// None on this host.
#[cfg(not(target_arch = "x86_64"))]
pub fn accelerators(cpus: usize, _host_threads: usize) -> Result<Vec<Option<Box<dyn Accelerator>>>, BufferError> {
    Ok((0..cpus).map(|_| None).collect())
}
