//! Split virtqueues (virtio 1.2 section 2.7), from the device's side: the chains that a guest offers.
//!
//! ```text
//! descriptor table   size * 16 bytes   buffers: address, length, flags, index of the next in the chain
//! driver area        the avail ring    flags, idx, heads of the chains that the guest offers
//! ```
//!
//! Everything in there is a claim. A chain is walked with every index, flag and length checked before a byte of its
//! buffers is touched; what section 2.7 forbids is a [`Refusal`] with the values. Addresses are checked where they
//! are used: the memory refuses what is not RAM. What chains mean is their device's business; how they go back to
//! the guest is too.

use std::fmt;

use crate::PhysAddr;

const DESCRIPTOR_BYTES: u64 = 16;
const DESCRIPTOR_NEXT: u16 = 1;
/// For the device to write; otherwise for it to read.
const DESCRIPTOR_WRITE: u16 = 2;
const DESCRIPTOR_INDIRECT: u16 = 4;
/// Flags and idx of the avail ring.
const RING_HEADER_BYTES: u64 = 4;
const CHAIN_BYTES_MAX: u64 = 1 << 32;

/// What a device reads rings from: the physical memory of a VM.
pub trait Dma {
    /// Fills `into` from `paddr` on. False: not all of it is RAM.
    fn read(&mut self, paddr: PhysAddr, into: &mut [u8]) -> bool;
}

/// Where the rings of a queue are, and how far the device has come.
#[derive(Clone, Copy, Debug)]
pub struct Rings {
    /// Entries; a power of two.
    pub size: u16,
    /// Most descriptors in an indirect table; 0: none is allowed. It is the largest size of the queue, not the size
    /// chosen: Linux makes requests by the device's limits even where it was short of memory for the full ring.
    pub indirect_max: u16,
    /// The descriptor table.
    pub descriptors: PhysAddr,
    /// The avail ring.
    pub driver: PhysAddr,
    /// The next entry of the avail ring, modulo 2^16.
    pub avail_index: u16,
}

/// A piece of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// Where it begins.
    pub paddr: u64,
    /// Its size in bytes, at least 1; it does not reach beyond 2^64.
    pub length: u32,
}

/// One request of the guest: buffers that the device may read, then buffers that it may write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Its first descriptor, by which it goes back.
    pub head: u16,
    /// What the device may read.
    pub readable: Vec<Buffer>,
    /// What it may write.
    pub writable: Vec<Buffer>,
}

/// What was found in the avail ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The ring's flags.
    pub flags: u16,
    /// The chains from the device's index on; of those that are offered, as many as were wanted.
    pub chains: Vec<Chain>,
}

/// What a guest may not do with a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The avail ring's idx is further ahead than the queue is long.
    IndexJumped { from: u16, to: u16, size: u16 },
    /// A descriptor that the table does not have.
    NoDescriptor { head: u16, index: u64, limit: u64 },
    /// It never ends, or too late.
    TooLong { head: u16, limit: u64 },
    /// Its buffers are too long together.
    TooManyBytes { head: u16 },
    /// Order of buffers.
    ReadableLate { head: u16 },
    /// A buffer without a byte.
    Empty { head: u16, paddr: u64 },
    /// A buffer that does not end below 2^64.
    Wraps { head: u16, paddr: u64, length: u32 },
    /// Without the feature.
    IndirectUnasked { head: u16 },
    /// Only one level is possible.
    IndirectTwice { head: u16 },
    /// It has to be the last of its chain.
    IndirectGoesOn { head: u16 },
    /// Not made of whole entries, or of none.
    IndirectBytes { head: u16, length: u32 },
    /// More entries than are possible.
    IndirectLong { head: u16, count: u32, limit: u16 },
    /// A structure of the queue is not, or not wholly, in RAM.
    NotRam { what: &'static str, paddr: u64, length: u64 },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::IndexJumped { from, to, size } => {
                write!(f, "avail idx jumped from {from} to {to}; at most {size} chains fit")
            }
            Refusal::NoDescriptor { head, index, limit } => {
                write!(f, "chain {head} goes to descriptor {index} of {limit}")
            }
            Refusal::TooLong { head, limit } => {
                write!(f, "chain {head} has a loop or more than {limit} descriptors")
            }
            Refusal::TooManyBytes { head } => write!(f, "chain {head} is longer than 2^32 bytes"),
            Refusal::ReadableLate { head } => {
                write!(f, "chain {head} has a readable buffer after a writable one")
            }
            Refusal::Empty { head, paddr } => write!(f, "chain {head} has a buffer of no bytes at {paddr:#x}"),
            Refusal::Wraps { head, paddr, length } => {
                write!(f, "chain {head} has a buffer of {length} bytes at {paddr:#x}: wraps around")
            }
            Refusal::IndirectUnasked { head } => {
                write!(f, "chain {head} has an indirect table, which was not negotiated")
            }
            Refusal::IndirectTwice { head } => {
                write!(f, "chain {head} has an indirect table inside an indirect table")
            }
            Refusal::IndirectGoesOn { head } => write!(f, "chain {head} goes on after its indirect table"),
            Refusal::IndirectBytes { head, length } => {
                write!(f, "chain {head} has an indirect table of {length} bytes, not entries of 16")
            }
            Refusal::IndirectLong { head, count, limit } => {
                write!(f, "chain {head} has {count} indirect descriptors, at most {limit}")
            }
            Refusal::NotRam { what, paddr, length } => {
                write!(f, "{what}: physical range {paddr:#x} + {length:#x} bytes is not RAM of this VM")
            }
        }
    }
}

impl std::error::Error for Refusal {}

impl Rings {
    /// Takes up to `wanted` of the chains that are offered and not yet taken.
    ///
    /// # Errors
    /// [`Refusal`]; nothing has been taken then.
    pub fn take(&mut self, memory: &mut dyn Dma, wanted: u16) -> Result<Offer, Refusal> {
        let flags = read_u16(memory, "avail ring", self.driver.0)?;
        let index = read_u16(memory, "avail ring", self.driver.0.wrapping_add(2))?;
        let offered = index.wrapping_sub(self.avail_index);
        if offered > self.size {
            return Err(Refusal::IndexJumped { from: self.avail_index, to: index, size: self.size });
        }
        let mut chains = Vec::with_capacity(usize::from(offered.min(wanted)));
        for step in 0..offered.min(wanted) {
            let slot = u64::from(self.avail_index.wrapping_add(step) % self.size);
            let entry = self.driver.0.wrapping_add(RING_HEADER_BYTES + 2 * slot);
            let head = read_u16(memory, "avail ring", entry)?;
            chains.push(self.walk(memory, head)?);
        }
        self.avail_index = self.avail_index.wrapping_add(chains.len() as u16);
        Ok(Offer { flags, chains })
    }

    /// Follows the chain from `head`, through at most one indirect table at its end.
    fn walk(&self, memory: &mut dyn Dma, head: u16) -> Result<Chain, Refusal> {
        let mut chain = Chain { head, ..Chain::default() };
        let mut table = Table::Ring { base: self.descriptors.0, size: self.size };
        let (mut index, mut steps, mut is_indirect) = (u64::from(head), 0, false);
        let mut total_bytes = 0;
        loop {
            let limit = table.limit();
            if index >= limit {
                return Err(Refusal::NoDescriptor { head, index, limit });
            }
            if steps == limit {
                return Err(Refusal::TooLong { head, limit });
            }
            steps += 1;
            let descriptor = table.descriptor(memory, index)?;
            if descriptor.flags & DESCRIPTOR_INDIRECT != 0 {
                table = self.indirect(memory, head, descriptor, is_indirect)?;
                (index, steps, is_indirect) = (0, 0, true);
                continue;
            }
            chain.add(descriptor)?;
            total_bytes += u64::from(descriptor.length);
            if total_bytes > CHAIN_BYTES_MAX {
                return Err(Refusal::TooManyBytes { head });
            }
            if descriptor.flags & DESCRIPTOR_NEXT == 0 {
                return Ok(chain);
            }
            index = u64::from(descriptor.next);
        }
    }

    /// One table, negotiated, last in its chain, of whole entries (section 2.7.5.3.1).
    fn indirect(
        &self,
        memory: &mut dyn Dma,
        head: u16,
        descriptor: Descriptor,
        is_indirect: bool,
    ) -> Result<Table, Refusal> {
        let Descriptor { paddr, length, flags, .. } = descriptor;
        let count = length / DESCRIPTOR_BYTES as u32;
        if self.indirect_max == 0 {
            return Err(Refusal::IndirectUnasked { head });
        }
        if is_indirect {
            return Err(Refusal::IndirectTwice { head });
        }
        if flags & DESCRIPTOR_NEXT != 0 {
            return Err(Refusal::IndirectGoesOn { head });
        }
        if length == 0 || u64::from(length) % DESCRIPTOR_BYTES != 0 {
            return Err(Refusal::IndirectBytes { head, length });
        }
        if count > u32::from(self.indirect_max) {
            return Err(Refusal::IndirectLong { head, count, limit: self.indirect_max });
        }
        let mut bytes = vec![0; length as usize];
        read(memory, "indirect table", paddr, &mut bytes)?;
        Ok(Table::Indirect(bytes))
    }
}

impl Chain {
    fn add(&mut self, descriptor: Descriptor) -> Result<(), Refusal> {
        let (head, Descriptor { paddr, length, flags, .. }) = (self.head, descriptor);
        if length == 0 {
            return Err(Refusal::Empty { head, paddr });
        }
        if u128::from(paddr) + u128::from(length) > 1 << 64 {
            return Err(Refusal::Wraps { head, paddr, length });
        }
        if flags & DESCRIPTOR_WRITE != 0 {
            self.writable.push(Buffer { paddr, length });
        } else if self.writable.is_empty() {
            self.readable.push(Buffer { paddr, length });
        } else {
            return Err(Refusal::ReadableLate { head });
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
struct Descriptor {
    paddr: u64,
    length: u32,
    flags: u16,
    next: u16,
}

/// Descriptors that a chain goes through.
enum Table {
    /// The queue's, of which a chain needs a few.
    Ring { base: u64, size: u16 },
    /// One chain's, whole.
    Indirect(Vec<u8>),
}

impl Table {
    fn limit(&self) -> u64 {
        match self {
            Table::Ring { size, .. } => u64::from(*size),
            Table::Indirect(bytes) => bytes.len() as u64 / DESCRIPTOR_BYTES,
        }
    }

    /// The descriptor at `index`, which is below the limit.
    fn descriptor(&self, memory: &mut dyn Dma, index: u64) -> Result<Descriptor, Refusal> {
        let mut bytes = [0; DESCRIPTOR_BYTES as usize];
        let at = index * DESCRIPTOR_BYTES;
        match self {
            Table::Ring { base, .. } => read(memory, "descriptor table", base.wrapping_add(at), &mut bytes)?,
            Table::Indirect(table) => bytes.copy_from_slice(&table[at as usize..(at + DESCRIPTOR_BYTES) as usize]),
        }
        let number = |from: usize, length: usize| {
            bytes[from..from + length].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
        };
        Ok(Descriptor {
            paddr: number(0, 8),
            length: number(8, 4) as u32,
            flags: number(12, 2) as u16,
            next: number(14, 2) as u16,
        })
    }
}

fn read_u16(memory: &mut dyn Dma, what: &'static str, paddr: u64) -> Result<u16, Refusal> {
    let mut bytes = [0; 2];
    read(memory, what, paddr, &mut bytes)?;
    Ok(u16::from_le_bytes(bytes))
}

fn read(memory: &mut dyn Dma, what: &'static str, paddr: u64, into: &mut [u8]) -> Result<(), Refusal> {
    if memory.read(PhysAddr(paddr), into) {
        Ok(())
    } else {
        Err(Refusal::NotRam { what, paddr, length: into.len() as u64 })
    }
}
