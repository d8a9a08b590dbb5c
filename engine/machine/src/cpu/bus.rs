//! Accesses that memory does not answer: what they are, and how whoever answers completes them.
//!
//! On the bare machine a load or store to a machine address without memory stops the CPU with a
//! [`BusAccess`], registers as before the instruction. Its owner asks the device and calls one of the
//! completion functions; only then is the instruction executed and counted. Under the monitor a
//! device is a page without translation: [`Cpu::bus_access`] makes the same value of the trap.

use mips::{Insn, Op};

use super::data::Unanswered;
use super::integer::{merge_ldl, merge_ldr, merge_lwl, merge_lwr, word};
use super::{Cpu, FaultSite, Stop, Trap};
use crate::{AccessKind, Exception};

/// What a load or store instruction does, apart from the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Size of the value, or of the whole around it for LWL and its kin.
    pub bytes: u8,
    /// Writes memory.
    pub store: bool,
    /// The loaded value is sign-extended.
    pub signed: bool,
    /// The register is one of the floating-point unit.
    pub float: bool,
    /// Accesses a part of the value only: LWL, LWR, LDL, LDR, SWL, SWR, SDL, SDR.
    pub partial: bool,
}

/// What the load or store `insn` does; `None` if it is neither, or LL, LLD, SC or SCD, which work on
/// memory only.
pub fn access_of(insn: Insn) -> Option<Access> {
    let op = insn.op;
    let is_linked = matches!(op, Op::Ll | Op::Lld | Op::Sc | Op::Scd);
    if is_linked || !(op.is_load() || op.is_store()) {
        return None;
    }
    Some(Access {
        bytes: op.access_bytes() as u8,
        store: op.is_store(),
        signed: matches!(op, Op::Lb | Op::Lh | Op::Lw | Op::Lwl | Op::Lwr),
        float: op.uses_cp1(),
        partial: merge_of(op).is_some() || matches!(op, Op::Swl | Op::Swr | Op::Sdl | Op::Sdr),
    })
}

/// An access that waits for somebody to complete it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusAccess {
    /// Address of the lowest byte: a machine address, or what [`Cpu::bus_access`] was given.
    pub address: u64,
    /// Bytes accessed: 1, 2, 4 or 8; for stores of a part of a value any number up to 8.
    pub bytes: u8,
    /// Writes.
    pub store: bool,
    /// The bytes to store, the lowest address in the low bits; 0 for a load.
    pub value: u64,
    /// The virtual address, for BadVAddr and the merging loads.
    pub vaddr: u64,
    /// The instruction.
    pub insn: Insn,
    /// Restart address: the branch if it is in a delay slot.
    pub pc: u64,
    /// The instruction is in a delay slot.
    pub in_delay_slot: bool,
    /// Where execution goes on.
    pub next_pc: u64,
}

impl Cpu {
    /// The access that `trap` wanted to do, with `address` (whatever that means to the caller) for
    /// its virtual address; `None` if the instruction is no ordinary load or store.
    pub fn bus_access(&self, trap: &Trap, address: u64) -> Option<BusAccess> {
        let access = access_of(trap.insn)?;
        let vaddr = trap.exception.bad_vaddr()?;
        let mask = u64::from(access.bytes) - 1;
        let (back, bytes, value) = match access.store {
            true => self.stored_part(trap.insn, vaddr),
            false => (address & mask, u64::from(access.bytes), 0),
        };
        Some(BusAccess {
            address: address - back,
            bytes: bytes as u8,
            store: access.store,
            value,
            vaddr,
            insn: trap.insn,
            pc: trap.pc,
            in_delay_slot: trap.in_delay_slot,
            next_pc: trap.next_pc,
        })
    }

    /// What a store at `vaddr` stores: from how many bytes before it, how many bytes, their value.
    fn stored_part(&self, insn: Insn, vaddr: u64) -> (u64, u64, u64) {
        let rt = self.regs.gpr[usize::from(insn.rt)];
        let model = self.register_model;
        match insn.op {
            Op::Swl => (vaddr & 3, (vaddr & 3) + 1, (rt & 0xffff_ffff) >> (24 - 8 * (vaddr & 3))),
            Op::Sdl => (vaddr & 7, (vaddr & 7) + 1, rt >> (56 - 8 * (vaddr & 7))),
            Op::Swr => (0, 4 - (vaddr & 3), low_bytes(rt, 4 - (vaddr & 3))),
            Op::Sdr => (0, 8 - (vaddr & 7), low_bytes(rt, 8 - (vaddr & 7))),
            Op::Swc1 => (0, 4, u64::from(self.regs.single(model, insn.rt))),
            Op::Sdc1 => (0, 8, self.regs.double(model, insn.rt)),
            Op::Swxc1 => (0, 4, u64::from(self.regs.single(model, insn.rd))),
            Op::Sdxc1 | Op::Suxc1 => (0, 8, self.regs.double(model, insn.rd)),
            op => (0, op.access_bytes(), low_bytes(rt, op.access_bytes())),
        }
    }

    /// The stop for an access that found no memory.
    pub(super) fn bus_stop(&self, unanswered: Unanswered, site: FaultSite) -> Stop {
        let Unanswered { address, vaddr, bytes, value } = unanswered;
        Stop::Bus(BusAccess {
            address,
            bytes,
            store: value.is_some(),
            value: value.map_or(0, |value| low_bytes(value, u64::from(bytes))),
            vaddr,
            insn: mips::decode(site.word),
            pc: self.regs.pc,
            in_delay_slot: site.in_delay_slot,
            next_pc: site.next_pc,
        })
    }

    /// Finishes a load with `value`, zero-extended: writes the register and goes on after it.
    pub fn complete_bus_load(&mut self, access: &BusAccess, value: u64) {
        assert!(!access.store, "a store is completed by complete_bus_store");
        self.write_loaded(access.insn, access.vaddr, low_bytes(value, u64::from(access.bytes)));
        self.complete(access);
    }

    /// Finishes a store that has been done: goes on after it.
    pub fn complete_bus_store(&mut self, access: &BusAccess) {
        assert!(access.store, "a load is completed by complete_bus_load");
        self.complete(access);
    }

    /// Nothing answers: the access ends with a Bus Error. `Some` under the monitor, as from `run`.
    pub fn refuse_bus_access(&mut self, access: &BusAccess) -> Option<Stop> {
        let kind = if access.store { AccessKind::Store } else { AccessKind::Load };
        let site = FaultSite {
            in_delay_slot: access.in_delay_slot,
            next_pc: access.next_pc,
            word: self.word_at(access.pc.wrapping_add(4 * u64::from(access.in_delay_slot))),
        };
        self.raise(Exception::BusError { access: kind }, site, &mut None)
    }

    fn complete(&mut self, access: &BusAccess) {
        self.regs.pc = access.next_pc;
        self.now.0 += 1;
        self.instructions += 1;
    }

    fn write_loaded(&mut self, insn: Insn, vaddr: u64, value: u64) {
        let model = self.register_model;
        match insn.op {
            Op::Lwc1 => return self.regs.set_single(model, insn.rt, value as u32),
            Op::Lwxc1 => return self.regs.set_single(model, insn.sa, value as u32),
            Op::Ldc1 => return self.regs.set_double(model, insn.rt, value),
            Op::Ldxc1 | Op::Luxc1 => return self.regs.set_double(model, insn.sa, value),
            _ => {}
        }
        let rt = usize::from(insn.rt);
        let old = self.regs.gpr[rt];
        let loaded = match (merge_of(insn.op), insn.op) {
            (Some(merge), _) => merge(old, value, vaddr),
            (_, Op::Lb) => value as i8 as u64,
            (_, Op::Lh) => value as i16 as u64,
            (_, Op::Lw | Op::Ll) => word(value as u32),
            _ => value,
        };
        if rt != 0 {
            self.regs.gpr[rt] = loaded;
        }
    }
}

type Merge = fn(old: u64, memory: u64, vaddr: u64) -> u64;

/// How a load of a part joins it with the register's old value.
fn merge_of(op: Op) -> Option<Merge> {
    match op {
        Op::Lwl => Some(|old, memory, vaddr| merge_lwl(old, memory as u32, vaddr)),
        Op::Lwr => Some(|old, memory, vaddr| merge_lwr(old, memory as u32, vaddr)),
        Op::Ldl => Some(merge_ldl),
        Op::Ldr => Some(merge_ldr),
        _ => None,
    }
}

/// The low `bytes` bytes of `value`, 1 to 8.
fn low_bytes(value: u64, bytes: u64) -> u64 {
    value & u64::MAX >> (64 - 8 * bytes)
}
