//! Loads and stores: the quick way through the host translations, and the slow way that fills them.
//!
//! An access that cannot be done leaves its reason in `Cpu::fault` and returns "no value"; the loop
//! of the interpreter then knows what to stop with.

use super::translation::Plain;
use super::{Cpu, Fault, Use};
use crate::cp0::Mode;
use crate::segments::{self, Segment};
use crate::{AccessKind, Exception, MachineAddr, PAGE_BYTES};

/// What became of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    Done,
    /// Done, and the page that is being executed has changed.
    CodeChanged,
    /// Not done; `Cpu::fault` says why.
    Fault,
}

/// Where an address leads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) address: MachineAddr,
    /// Only in this address space, although the context does not have it.
    pub(super) is_private: bool,
    /// The entry of the TLB that says so.
    pub(super) entry: Option<usize>,
}

/// An access that found no memory behind its address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unanswered {
    pub(super) address: u64,
    pub(super) vaddr: u64,
    pub(super) bytes: u8,
    pub(super) value: Option<u64>,
}

impl Cpu {
    /// Loads the aligned value at `vaddr`.
    #[inline(always)]
    pub(super) fn load<T: Plain>(&mut self, vaddr: u64) -> Option<T> {
        match self.loads.load(vaddr, self.context) {
            Some(value) => Some(value),
            None => self.load_slowly(vaddr, size_of::<T>() as u64).map(T::narrow),
        }
    }

    /// Loads the aligned value that `vaddr` lies in, for LWL and its kin.
    #[inline(always)]
    pub(super) fn load_around<T: Plain>(&mut self, vaddr: u64) -> Option<T> {
        let bytes = size_of::<T>() as u64;
        match self.loads.load(vaddr & !(bytes - 1), self.context) {
            Some(value) => Some(value),
            None => self.load_around_slowly(vaddr, bytes).map(T::narrow),
        }
    }

    /// Stores the aligned value at `vaddr`.
    #[inline(always)]
    pub(super) fn store<T: Plain>(&mut self, vaddr: u64, value: T) -> Stored {
        if self.stores.store(vaddr, self.context, value) {
            return Stored::Done;
        }
        self.store_slowly(vaddr, size_of::<T>() as u64, value.widen())
    }

    #[cold]
    #[inline(never)]
    pub(super) fn load_slowly(&mut self, vaddr: u64, bytes: u64) -> Option<u64> {
        let vaddr = self.effective_address(vaddr);
        if !vaddr.is_multiple_of(bytes) {
            return self.refuse(Exception::AddressError { vaddr, access: AccessKind::Load });
        }
        self.load_around_slowly(vaddr, bytes)
    }

    #[cold]
    #[inline(never)]
    pub(super) fn load_around_slowly(&mut self, vaddr: u64, bytes: u64) -> Option<u64> {
        let vaddr = self.effective_address(vaddr);
        if let Some(address) = self.loads.machine_address(vaddr, self.context) {
            return Some(self.read_memory(MachineAddr(address.0 & !(bytes - 1)), bytes));
        }
        let found = match self.find(vaddr, AccessKind::Load) {
            Ok(found) => found,
            Err(exception) => return self.refuse(exception),
        };
        let address = MachineAddr(found.address.0 & !(bytes - 1));
        if !self.remember_load(vaddr, &found) {
            let bytes = bytes as u8;
            self.fault = Fault::Bus(Unanswered { address: address.0, vaddr, bytes, value: None });
            return None;
        }
        Some(self.read_memory(address, bytes))
    }

    /// Remembers where a load from `vaddr` leads, if to memory.
    #[inline]
    pub(super) fn remember_load(&mut self, vaddr: u64, found: &Found) -> bool {
        let is_memory = self.is_memory(found.address);
        if is_memory {
            self.counters.load_translations += 1;
            self.note_use(vaddr, found, Use::Load);
            self.loads.insert(vaddr, self.context, found.address.page(), found.is_private);
        }
        is_memory
    }

    /// Remembers where a store to `vaddr` leads, if to memory that is no code.
    #[inline]
    pub(super) fn remember_store(&mut self, vaddr: u64, found: &Found) -> bool {
        let page = found.address.page();
        let is_plain = self.is_memory(found.address) && !self.memory.is_code(page);
        if is_plain {
            self.counters.store_translations += 1;
            self.note_use(vaddr, found, Use::Store);
            self.stores.insert(vaddr, self.context, page, found.is_private);
        }
        is_plain
    }

    /// Stores the low `bytes` bytes of `value` at `vaddr`, which must be aligned to them.
    #[cold]
    #[inline(never)]
    fn store_slowly(&mut self, vaddr: u64, bytes: u64, value: u64) -> Stored {
        let vaddr = self.effective_address(vaddr);
        if !vaddr.is_multiple_of(bytes) {
            self.fault = Fault::Exception(Exception::AddressError { vaddr, access: AccessKind::Store });
            return Stored::Fault;
        }
        self.store_bytes(vaddr, 0, bytes, value)
    }

    /// Stores the low `bytes` bytes of `value` from `back` bytes before `vaddr` on; they lie in the
    /// doubleword around it. Exceptions name `vaddr`.
    #[inline(never)]
    pub(super) fn store_bytes(&mut self, vaddr: u64, back: u64, bytes: u64, value: u64) -> Stored {
        let vaddr = self.effective_address(vaddr);
        let Some(address) = self.store_address(vaddr) else {
            return Stored::Fault;
        };
        let address = MachineAddr(address.0 - back);
        if !self.is_memory(address) {
            let (address, bytes) = (address.0, bytes as u8);
            self.fault = Fault::Bus(Unanswered { address, vaddr, bytes, value: Some(value) });
            return Stored::Fault;
        }
        let is_code = self.memory.is_code(address.page());
        self.write_memory(address, bytes, value);
        if is_code && address.page() == self.executing {
            return Stored::CodeChanged;
        }
        Stored::Done
    }

    /// The machine address that a store to `vaddr` goes to, remembered for the next one if it may be.
    pub(super) fn store_address(&mut self, vaddr: u64) -> Option<MachineAddr> {
        if let Some(address) = self.stores.machine_address(vaddr, self.context) {
            return Some(address);
        }
        let found = match self.find(vaddr, AccessKind::Store) {
            Ok(found) => found,
            Err(exception) => return self.refuse(exception),
        };
        self.remember_store(vaddr, &found);
        Some(found.address)
    }

    /// Notes `exception` as the reason why there is no value.
    pub(super) fn refuse<T>(&mut self, exception: Exception) -> Option<T> {
        self.fault = Fault::Exception(exception);
        None
    }

    /// Whether the page around `address` is memory.
    #[inline]
    pub(super) fn is_memory(&self, address: MachineAddr) -> bool {
        self.memory.contains(MachineAddr(address.0 & !(PAGE_BYTES - 1)), PAGE_BYTES)
    }

    /// The `bytes` bytes at `address`, zero-extended.
    #[inline]
    pub(super) fn read_memory(&self, address: MachineAddr, bytes: u64) -> u64 {
        let mut value = [0; 8];
        // Sizes known to the compiler, which then makes no call of it.
        match bytes {
            8 => self.memory.read(address, &mut value),
            4 => self.memory.read(address, &mut value[..4]),
            _ => self.memory.read(address, &mut value[..bytes as usize]),
        }
        u64::from_le_bytes(value)
    }

    /// Writes the low `bytes` bytes of `value` at `address`.
    #[inline]
    fn write_memory(&self, address: MachineAddr, bytes: u64, value: u64) {
        let value = value.to_le_bytes();
        match bytes {
            8 => self.memory.write(address, &value),
            4 => self.memory.write(address, &value[..4]),
            _ => self.memory.write(address, &value[..bytes as usize]),
        }
    }

    /// With 32-bit addressing an effective address is the low half of the sum, sign-extended.
    pub(super) fn effective_address(&self, vaddr: u64) -> u64 {
        match self.has_64bit_addresses {
            true => vaddr,
            false => vaddr as i32 as u64,
        }
    }

    /// Walks segments and TLB as an access would, without side effects.
    pub(super) fn translate(&self, vaddr: u64, access: AccessKind) -> Result<MachineAddr, Exception> {
        self.find(vaddr, access).map(|found| found.address)
    }

    /// As `translate`, with all that a host translation depends on.
    #[inline]
    pub(super) fn find(&self, vaddr: u64, access: AccessKind) -> Result<Found, Exception> {
        match segments::classify(vaddr, self.mode, &self.cp0) {
            Err(_) => Err(Exception::AddressError { vaddr, access }),
            Ok(Segment::Unmapped { phys, .. }) => {
                Ok(Found { address: MachineAddr(phys), is_private: false, entry: None })
            }
            Ok(Segment::Mapped) => self.find_mapped(vaddr, access),
        }
    }

    fn find_mapped(&self, vaddr: u64, access: AccessKind) -> Result<Found, Exception> {
        let Some(index) = self.tlb.find(segments::tlb_address(vaddr), self.asid) else {
            return Err(Exception::TlbRefill { vaddr, access });
        };
        self.found_in(index, vaddr, access)
    }

    /// Where `vaddr` leads by the TLB entry at `index`, which matches it.
    #[inline]
    pub(super) fn found_in(&self, index: usize, vaddr: u64, access: AccessKind) -> Result<Found, Exception> {
        let entry = self.tlb.get(index);
        let address = entry.translate(vaddr, access, self.cp0.page_grain)?;
        let is_private = !entry.global && self.mode != Mode::User;
        Ok(Found { address: MachineAddr(address), is_private, entry: Some(index) })
    }
}
