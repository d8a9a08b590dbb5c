//! Device registers as the engine sees them: which ones it may answer by itself.
//!
//! A device lives in Python, and asking it costs a trip across the boundary. Two kinds of register need no
//! trip: a *latched* one, whose loads return the value that the device last latched (a UART's line status),
//! and a *posted* one, whose stores are only logged and handed over in one piece at the end of the round (a
//! UART's transmit register). A third kind is here whole, because a guest answers each interrupt by it: bits that a
//! device sets and the guest clears, and a line that is high while any of them is set ([`Interrupt`]). Everything
//! else stops the CPU and is an event.

use std::collections::BTreeMap;

use crate::{BusAccess, Cycles, PhysAddr};

/// Registers of interrupts have 32 bits.
const INTERRUPT_BYTES: u8 = 4;

/// A store to a posted register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PostedWrite {
    /// When.
    pub cycle: Cycles,
    /// Which register.
    pub paddr: PhysAddr,
    /// Bytes stored.
    pub size: u8,
    /// What was stored, zero-extended.
    pub value: u64,
}

/// An interrupt of a device: loads of one register return its bits, stores to another clear those that they have.
#[derive(Clone, Copy, Debug)]
struct Interrupt {
    status: PhysAddr,
    line: u8,
    bits: u32,
}

/// The level that an interrupt line has now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// Which line, or which source of a controller.
    pub line: u8,
    /// Whether any interrupt that has this line asks for attention.
    pub is_high: bool,
}

/// What became of an access that needed no trip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What a load reads; 0 for a store.
    pub value: u64,
    /// The line that may have changed.
    pub level: Option<Level>,
}

/// The registers of one VM or bare machine that need no trip, and the log.
#[derive(Debug, Default)]
pub struct Windows {
    /// (value, bytes) by address.
    latched: BTreeMap<PhysAddr, (u64, u8)>,
    /// Bytes by address.
    posted: BTreeMap<PhysAddr, u8>,
    /// By the address that clears their bits.
    interrupts: BTreeMap<PhysAddr, Interrupt>,
    log: Vec<PostedWrite>,
}

impl Windows {
    /// Answers loads of up to `size` bytes at `paddr` with `value` from now on.
    pub fn latch(&mut self, paddr: PhysAddr, size: u8, value: u64) {
        self.latched.insert(paddr, (value, size));
    }

    /// Logs stores of up to `size` bytes at `paddr` from now on.
    pub fn post(&mut self, paddr: PhysAddr, size: u8) {
        self.posted.insert(paddr, size);
    }

    /// Makes the register an ordinary one again.
    pub fn trap(&mut self, paddr: PhysAddr) {
        self.latched.remove(&paddr);
        self.posted.remove(&paddr);
    }

    /// What a load reads, if the register is latched and no smaller.
    pub fn load(&self, paddr: PhysAddr, size: u8) -> Option<u64> {
        let (value, bytes) = self.latched.get(&paddr)?;
        (size <= *bytes).then_some(*value & u64::MAX >> (64 - 8 * u32::from(size)))
    }

    /// Logs a store and says so, if the register is posted and no smaller.
    pub fn store(&mut self, write: PostedWrite) -> bool {
        let posted = self.posted.get(&write.paddr).is_some_and(|bytes| write.size <= *bytes);
        if posted {
            self.log.push(write);
        }
        posted
    }

    /// From now on loads of `status` return the bits of an interrupt on `line`, and stores to `clear` clear them; both
    /// of up to 32 bits.
    pub fn connect_interrupt(&mut self, status: PhysAddr, clear: PhysAddr, line: u8) {
        self.interrupts.insert(clear, Interrupt { status, line, bits: 0 });
        self.latch(status, INTERRUPT_BYTES, 0);
    }

    /// Clears bits of the interrupt that stores to `clear` clear, then sets some. What it has then, and its line;
    /// `None`: there is no such.
    pub fn update_interrupt(&mut self, clear: PhysAddr, cleared: u32, raised: u32) -> Option<(u32, Level)> {
        let interrupt = self.interrupts.get_mut(&clear)?;
        interrupt.bits = interrupt.bits & !cleared | raised;
        let Interrupt { status, line, bits } = *interrupt;
        self.latch(status, INTERRUPT_BYTES, bits.into());
        let is_high = self.interrupts.values().any(|other| other.line == line && other.bits != 0);
        Some((bits, Level { line, is_high }))
    }

    /// Carries out an access if it needs no trip.
    pub fn answer(&mut self, access: &BusAccess, cycle: Cycles) -> Option<Answer> {
        let paddr = PhysAddr(access.address);
        if !access.store {
            return self.load(paddr, access.bytes).map(|value| Answer { value, level: None });
        }
        if access.bytes == INTERRUPT_BYTES
            && let Some((_, level)) = self.update_interrupt(paddr, access.value as u32, 0)
        {
            return Some(Answer { value: 0, level: Some(level) });
        }
        let write = PostedWrite { cycle, paddr, size: access.bytes, value: access.value };
        self.store(write).then_some(Answer { value: 0, level: None })
    }

    /// Whether there are stores that the device has not seen.
    pub fn has_log(&self) -> bool {
        !self.log.is_empty()
    }

    /// Hands the logged stores over, in order.
    pub fn take_log(&mut self) -> Vec<PostedWrite> {
        std::mem::take(&mut self.log)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_register_answers_loads_up_to_the_size_it_was_latched_with() {
        let mut windows = Windows::default();
        windows.latch(PhysAddr(0x14), 4, 0x1160);
        assert_eq!(windows.load(PhysAddr(0x14), 1), Some(0x60));
        assert_eq!(windows.load(PhysAddr(0x14), 4), Some(0x1160));
        assert_eq!(windows.load(PhysAddr(0x14), 8), None);
        windows.trap(PhysAddr(0x14));
        assert_eq!(windows.load(PhysAddr(0x14), 1), None);
    }

    fn store(address: u64, bytes: u8, value: u64) -> BusAccess {
        BusAccess {
            address,
            bytes,
            store: true,
            value,
            vaddr: address,
            insn: mips::decode(0),
            pc: 0,
            next_pc: 4,
            in_delay_slot: false,
        }
    }

    #[test]
    fn a_line_is_high_until_every_interrupt_on_it_was_cleared() {
        let level = |is_high| Some(Level { line: 3, is_high });
        let mut windows = Windows::default();
        windows.connect_interrupt(PhysAddr(0x60), PhysAddr(0x64), 3);
        windows.connect_interrupt(PhysAddr(0x160), PhysAddr(0x164), 3);
        windows.connect_interrupt(PhysAddr(0x260), PhysAddr(0x264), 5);
        windows.update_interrupt(PhysAddr(0x264), 0, 1);
        assert_eq!(windows.update_interrupt(PhysAddr(0x64), 0, 3).unwrap().1, level(true).unwrap());
        windows.update_interrupt(PhysAddr(0x164), 0, 1);
        assert_eq!(windows.load(PhysAddr(0x60), 4), Some(3));
        let mut clear = |address, bits| windows.answer(&store(address, 4, bits), Cycles(9)).unwrap().level;
        assert_eq!([clear(0x64, 1), clear(0x164, 1), clear(0x64, 6)], [level(true), level(true), level(false)]);
        assert_eq!(windows.load(PhysAddr(0x60), 4), Some(0));
        assert_eq!(windows.answer(&store(0x64, 8, 1), Cycles(9)), None, "a trip, which refuses it");
        assert_eq!(windows.update_interrupt(PhysAddr(0x60), 0, 1), None);
        assert!(!windows.has_log());
    }

    #[test]
    fn posted_stores_come_back_in_order_once() {
        let mut windows = Windows::default();
        windows.post(PhysAddr(0), 2);
        let write = |value| PostedWrite { cycle: Cycles(value), paddr: PhysAddr(0), size: 1, value };
        assert!(windows.store(write(1)) && windows.store(write(2)));
        assert!(!windows.store(PostedWrite { size: 4, ..write(3) }));
        assert_eq!(windows.take_log(), [write(1), write(2)]);
        assert!(!windows.has_log());
    }
}
