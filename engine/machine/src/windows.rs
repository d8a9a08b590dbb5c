//! Device registers as the engine sees them: which ones it may answer by itself.
//!
//! A device lives in Python, and asking it costs a trip across the boundary. Two kinds of register need no
//! trip: a *latched* one, whose loads return the value that the device last latched (a UART's line status),
//! and a *posted* one, whose stores are only logged and handed over in one piece at the end of the round (a
//! UART's transmit register). Everything else stops the CPU and is an event.

use std::collections::BTreeMap;

use crate::{BusAccess, Cycles, PhysAddr};

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

/// The registers of one VM or bare machine that need no trip, and the log.
#[derive(Debug, Default)]
pub struct Windows {
    /// (value, bytes) by address.
    latched: BTreeMap<PhysAddr, (u64, u8)>,
    /// Bytes by address.
    posted: BTreeMap<PhysAddr, u8>,
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

    /// Carries out an access if it needs no trip: what a load reads, 0 for a store.
    pub fn answer(&mut self, access: &BusAccess, cycle: Cycles) -> Option<u64> {
        let paddr = PhysAddr(access.address);
        if access.store {
            self.store(PostedWrite { cycle, paddr, size: access.bytes, value: access.value }).then_some(0)
        } else {
            self.load(paddr, access.bytes)
        }
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
