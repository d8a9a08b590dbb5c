//! Addresses and numbers, each with its own type, so that they cannot be mixed.
//!
//! Disco is one more address translation: *virtual* (what an instruction uses, a plain `u64` because
//! any 64-bit value can be one), *physical* (what a guest believes is memory), *machine* (what it is).

use std::fmt;

/// log2 of the machine's page size.
pub const PAGE_SHIFT: u32 = 12;
/// The machine's page size in bytes.
pub const PAGE_BYTES: u64 = 1 << PAGE_SHIFT;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    };
}

number! {
    /// Byte address in one VM's physical memory; its pmap turns it into a `MachineAddr`.
    PhysAddr(u64)
}
number! {
    /// Byte address in the memory of the simulated machine; the high bits name the node.
    MachineAddr(u64)
}
number! {
    /// Physical page number in a VM.
    Ppn(u32)
}
number! {
    /// Machine page number.
    Mpn(u32)
}
number! {
    /// A node of the machine, from 0.
    NodeId(u16)
}
number! {
    /// Address space identifier of a TLB entry.
    Asid(u8)
}
number! {
    /// Simulated time or a duration, in cycles of the machine's clock.
    Cycles(u64)
}

impl PhysAddr {
    /// The page this address lies in.
    pub fn page(self) -> Ppn {
        Ppn((self.0 >> PAGE_SHIFT) as u32)
    }
    /// Byte offset in that page.
    pub fn offset(self) -> u64 {
        self.0 & (PAGE_BYTES - 1)
    }
}

impl Ppn {
    /// First byte of the page.
    pub fn address(self) -> PhysAddr {
        PhysAddr(u64::from(self.0) << PAGE_SHIFT)
    }
}

impl MachineAddr {
    /// The page this address lies in.
    pub fn page(self) -> Mpn {
        Mpn((self.0 >> PAGE_SHIFT) as u32)
    }
    /// Byte offset in that page.
    pub fn offset(self) -> u64 {
        self.0 & (PAGE_BYTES - 1)
    }
}

impl Mpn {
    /// First byte of the page.
    pub fn address(self) -> MachineAddr {
        MachineAddr(u64::from(self.0) << PAGE_SHIFT)
    }
}

impl Cycles {
    /// A time that never comes.
    pub const NEVER: Cycles = Cycles(u64::MAX);
}

/// A stretch of physical memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PhysRange {
    /// First byte, a multiple of the page size.
    pub base: PhysAddr,
    /// Size, a multiple of the page size.
    pub bytes: u64,
}

impl PhysRange {
    /// Whether base and size are whole pages inside 36 bits of physical address.
    pub fn is_valid(self) -> bool {
        let whole = self.base.0.is_multiple_of(PAGE_BYTES) && self.bytes.is_multiple_of(PAGE_BYTES);
        whole && self.base.0.checked_add(self.bytes).is_some_and(|end| end <= 1 << 36)
    }

    /// The pages of the range.
    pub fn pages(self) -> impl Iterator<Item = Ppn> {
        let first = (self.base.0 >> PAGE_SHIFT) as u32;
        (first..first + (self.bytes >> PAGE_SHIFT) as u32).map(Ppn)
    }

    /// First byte after the range.
    pub fn end(self) -> u64 {
        self.base.0 + self.bytes
    }
}

/// What an access wants to do with its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AccessKind {
    /// Fetch an instruction.
    Fetch,
    /// Load data.
    Load,
    /// Store data.
    Store,
}
