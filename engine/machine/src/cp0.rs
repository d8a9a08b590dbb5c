//! Coprocessor 0: the privileged registers of one CPU, real or virtual.
//!
//! The same code is the CP0 of the machine's CPUs and the CP0 that the monitor shows to a guest; only
//! the [`CpuConfig`] differs. It is plain values: the TLB, the caches and the clock live elsewhere, and
//! whoever owns them asks [`Effect`] after a write whether something of theirs is outdated.
//!
//! What a register is called, where it is, which of its bits software can write and what they are at
//! reset stands in one table ([`REGISTERS`]); reads, writes, reset and names all come from its rows.
//! The files below this one: `config` (what kind of CPU), `registers` (the table), `fields` (bits),
//! `timer` (Count, Compare and interrupt lines), `exceptions` (entry, return, reset).
//!
//! # What is undefined in the manual is defined here
//! - Every register without a reset value in the manual resets to zero; an absent one reads as zero
//!   and ignores writes, as do bits that are not writable.
//! - Status.KSU = 3 (and 1 on a CPU without supervisor mode) is not written: KSU stays as it was.
//! - Status.TS, SR and NMI can be cleared, writing 1 leaves them.
//! - A PageMask that is not a run of an even number of ones from bit 13 is stored as zero (4 KiB).
//! - Wired at or above the number of entries is taken modulo that number.
//! - Random is not a counter but draws from a shift register that steps with each TLBWR, so a run does
//!   not depend on how instructions are counted; it starts at its upper bound as the manual says.
//! - Cause.CE is zero after every exception but Coprocessor Unusable.
//! - EntryLo.RI and XI can be written only while PageGrain.RIE and XIE are set.
//!
//! Not there, by Config or by being optional: Watch, performance counters, EJTAG debug, shadow register
//! sets (SRSCtl reads 0), BadInstr, ContextConfig, the page walker, 1 KiB pages, cache tags and errors.
//!
//! Source: MIPS64 Privileged Resource Architecture (vol. III), Release 2, and Release 3 for SegCtl,
//! EHINV, RI/XI and KScratch.

mod config;
mod exceptions;
mod fields;
mod registers;
mod timer;

pub use config::CpuConfig;
pub use exceptions::Reset;
pub use fields::{cause, config0, config5, entry_hi, int_ctl, page_grain, page_mask, status};
pub use registers::{REGISTERS, Register, register};

use std::mem::offset_of;

use crate::{Asid, Cycles};

/// The privilege of the running program.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Mode {
    /// Everything is allowed.
    Kernel,
    /// In between: its own segments, no CP0.
    Supervisor,
    /// User segments only.
    User,
}

/// Which state outside of CP0 a write may have outdated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// Mode, ASID, address sizes, segments, coprocessor bits, or what RI, XI and RDHWR may do.
    pub context: bool,
    /// Whether an interrupt is ready.
    pub interrupts: bool,
    /// [`Cp0::next_timer`].
    pub timer: bool,
}

/// CP0 registers of one CPU. Plain values; no TLB inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cp0 {
    /// What kind of CPU this is.
    pub config: CpuConfig,

    /// Index.
    pub index: u32,
    /// Random: where the next TLBWR writes.
    pub random: u32,
    /// EntryLo0 and EntryLo1.
    pub entry_lo: [u64; 2],
    /// Context.
    pub context: u64,
    /// UserLocal.
    pub user_local: u64,
    /// PageMask, a legal value.
    pub page_mask: u32,
    /// PageGrain.
    pub page_grain: u32,
    /// SegCtl0 to SegCtl2; see `segments`.
    pub seg_ctl: [u64; 3],
    /// Wired, below the number of entries.
    pub wired: u32,
    /// HWREna.
    pub hwrena: u32,
    /// BadVAddr.
    pub bad_vaddr: u64,
    /// EntryHi.
    pub entry_hi: u64,
    /// Compare.
    pub compare: u32,
    /// Status.
    pub status: u32,
    /// IntCtl.
    pub int_ctl: u32,
    /// Cause, with IP as of the last `tick` or `set_lines`.
    pub cause: u32,
    /// EPC.
    pub epc: u64,
    /// EBase.
    pub ebase: u32,
    /// Config (Config0), for its writable K0.
    pub config0: u32,
    /// Config5, for its writable K.
    pub config5: u32,
    /// LLAddr.
    pub ll_addr: u64,
    /// XContext.
    pub xcontext: u64,
    /// ErrorEPC.
    pub error_epc: u64,
    /// KScratch1 to KScratch6 (selects 2 to 7).
    pub kscratch: [u64; 6],

    /// Count minus the clock's own count; Count itself while Cause.DC stops it.
    pub count_offset: u32,
    /// When Count next becomes equal to Compare.
    pub timer_due: Cycles,
    /// External interrupt lines IP7..2 as last set.
    pub lines: u8,
    /// State of the shift register behind Random, never zero.
    pub random_state: u32,
}

/// Status bits that change which code may run or how it reaches memory.
const STATUS_CONTEXT: u32 = status::KSU_MASK
    | status::EXL
    | status::ERL
    | status::KX
    | status::SX
    | status::UX
    | status::PX
    | status::FR
    | status::CU0
    | status::CU1;
/// Status bits that decide whether a pending interrupt is taken.
const STATUS_INTERRUPTS: u32 = status::IM_MASK | status::IE | status::EXL | status::ERL;
/// Status bits that software can only clear.
const STATUS_CLEAR_ONLY: u32 = status::TS | status::SR | status::NMI;

impl Cp0 {
    /// Reset state at time 0. A CPU that starts later calls [`Cp0::set_count`].
    pub fn new(config: CpuConfig, cpu_number: u32) -> Cp0 {
        config.check();
        assert!(cpu_number <= fields::EBASE_CPU_NUM, "EBase.CPUNum has 10 bits, {cpu_number} does not fit");
        let mut cp0 = Cp0 {
            config,
            index: 0,
            random: 0,
            entry_lo: [0; 2],
            context: 0,
            user_local: 0,
            page_mask: 0,
            page_grain: 0,
            seg_ctl: [0; 3],
            wired: 0,
            hwrena: 0,
            bad_vaddr: 0,
            entry_hi: 0,
            compare: 0,
            status: 0,
            int_ctl: 0,
            cause: 0,
            epc: 0,
            ebase: cpu_number,
            config0: 0,
            config5: 0,
            ll_addr: 0,
            xcontext: 0,
            error_epc: 0,
            kscratch: [0; 6],
            count_offset: 0,
            timer_due: Cycles::NEVER,
            lines: 0,
            random_state: 0,
        };
        cp0.load_reset_values();
        cp0.rearm_timer(Cycles(0));
        cp0
    }

    /// The running program's privilege, from KSU, EXL and ERL.
    #[inline]
    pub fn mode(&self) -> Mode {
        if self.status & (status::EXL | status::ERL) != 0 {
            return Mode::Kernel;
        }
        match (self.status & status::KSU_MASK) >> status::KSU_SHIFT {
            0 => Mode::Kernel,
            1 => Mode::Supervisor,
            _ => Mode::User,
        }
    }

    /// Whether the 64-bit segments of `mode` can be reached (Status.KX, SX, UX).
    #[inline]
    pub fn address_bits_64(&self, mode: Mode) -> bool {
        let enable = match mode {
            Mode::Kernel => status::KX,
            Mode::Supervisor => status::SX,
            Mode::User => status::UX,
        };
        self.status & enable != 0
    }

    /// Whether 64-bit instructions are legal now: in user mode they need Status.PX or UX.
    #[inline]
    pub fn operations_64(&self) -> bool {
        self.mode() != Mode::User || self.status & (status::PX | status::UX) != 0
    }

    /// Whether instructions of coprocessor `unit` are legal now (unit 0 always is in kernel mode).
    #[inline]
    pub fn coprocessor_usable(&self, unit: u8) -> bool {
        self.status & (status::CU0 << (unit & 3)) != 0 || (unit == 0 && self.mode() == Mode::Kernel)
    }

    /// EntryHi.ASID.
    #[inline]
    pub fn asid(&self) -> Asid {
        Asid((self.entry_hi & entry_hi::ASID) as u8)
    }

    /// EBase.CPUNum.
    pub fn cpu_number(&self) -> u32 {
        self.ebase & fields::EBASE_CPU_NUM
    }

    /// Width of a physical address now: above 36 bits only with PageGrain.ELPA.
    #[inline]
    pub fn physical_bits(&self) -> u32 {
        if self.page_grain & page_grain::ELPA != 0 { self.config.pa_bits } else { self.config.pa_bits.min(36) }
    }

    /// DMFC0: the register's 64-bit view. 32-bit registers come sign-extended.
    pub fn read(&self, number: u8, select: u8, now: Cycles) -> u64 {
        match (number, select) {
            register::COUNT => sign_extend(self.count(now)),
            register::CAUSE => sign_extend(self.cause_at(now)),
            _ => self.stored(number, select),
        }
    }

    /// MFC0: the low word, sign-extended; of EntryLo, RI and XI move from bits 63:62 to 31:30.
    pub fn read_word(&self, number: u8, select: u8, now: Cycles) -> u64 {
        let value = self.read(number, select, now);
        match (number, select) {
            register::ENTRY_LO0 | register::ENTRY_LO1 => {
                let inhibits = (value >> 32) as u32 & ENTRY_LO_WORD_INHIBITS;
                sign_extend(inhibits | (value as u32 & !ENTRY_LO_WORD_INHIBITS))
            }
            _ => sign_extend(value as u32),
        }
    }

    /// Where a register is that reads as it is stored: its offset in bytes from the address of a [`Cp0`], and its width in
    /// bits. Of those with 32 bits, reads are sign-extended.
    pub fn place(number: u8, select: u8) -> Option<(usize, u32)> {
        let doubleword = match (number, select) {
            register::STATUS => return Some((offset_of!(Cp0, status), 32)),
            register::CONTEXT => offset_of!(Cp0, context),
            register::USER_LOCAL => offset_of!(Cp0, user_local),
            register::BAD_VADDR => offset_of!(Cp0, bad_vaddr),
            register::ENTRY_HI => offset_of!(Cp0, entry_hi),
            register::EPC => offset_of!(Cp0, epc),
            register::XCONTEXT => offset_of!(Cp0, xcontext),
            (31, 2..=7) => offset_of!(Cp0, kscratch) + size_of::<u64>() * usize::from(select - 2),
            _ => return None,
        };
        Some((doubleword, 64))
    }

    /// Whether a register is one that is written as it comes, and nobody has to hear of it.
    pub fn is_plain(number: u8, select: u8) -> bool {
        matches!((number, select), register::EPC | (31, 2..=7))
    }

    /// DMTC0: writes what software may write of the register.
    pub fn write(&mut self, number: u8, select: u8, value: u64, now: Cycles) -> Effect {
        let before = Outside::of(self);
        self.tick(now);
        let writable = self.writable(number, select);
        let value = (self.stored(number, select) & !writable) | (value & writable);
        match (number, select) {
            register::COUNT => self.set_count(value as u32, now),
            register::COMPARE => self.write_compare(value as u32, now),
            register::STATUS => self.write_status(value as u32),
            register::CAUSE => self.write_cause(value as u32, now),
            register::WIRED => self.write_wired(value as u32),
            register::PAGE_MASK => self.page_mask = page_mask::legal(value as u32),
            register::ENTRY_LO0 => self.entry_lo[0] = value & self.entry_lo_bits(),
            register::ENTRY_LO1 => self.entry_lo[1] = value & self.entry_lo_bits(),
            _ => self.store(number, select, value),
        }
        before.effect(self)
    }

    /// MTC0: sign-extends the low word into the register; of EntryLo, bits 31:30 are RI and XI.
    pub fn write_word(&mut self, number: u8, select: u8, value: u64, now: Cycles) -> Effect {
        let word = value as u32;
        let value = match (number, select) {
            register::ENTRY_LO0 | register::ENTRY_LO1 => {
                u64::from(word & ENTRY_LO_WORD_INHIBITS) << 32 | u64::from(word & !ENTRY_LO_WORD_INHIBITS)
            }
            _ => sign_extend(word),
        };
        self.write(number, select, value, now)
    }

    /// RDHWR: the value, or `None` (Reserved Instruction) if there is no such register or this mode may
    /// not read it.
    pub fn read_hardware(&self, number: u8, now: Cycles) -> Option<u64> {
        let allowed =
            self.coprocessor_usable(0) || self.hwrena.checked_shr(u32::from(number)).unwrap_or(0) & 1 != 0;
        let value = match number {
            0 => sign_extend(self.cpu_number()),
            1 => u64::from(self.config.synci_step_bytes()),
            2 => sign_extend(self.count(now)),
            3 => u64::from(self.config.clock_divider),
            29 => self.user_local,
            _ => return None,
        };
        allowed.then_some(value)
    }

    /// The index that TLBWR writes; the next one is drawn from `wired..entries`.
    pub fn random(&mut self) -> u32 {
        let index = self.random;
        self.random_state ^= self.random_state << 13;
        self.random_state ^= self.random_state >> 17;
        self.random_state ^= self.random_state << 5;
        self.random = self.wired + self.random_state % (u32::from(self.config.tlb_entries) - self.wired);
        index
    }

    /// EntryLo bits that a write can set as PageGrain stands.
    fn entry_lo_bits(&self) -> u64 {
        // RIE and XIE are bits 31 and 30 of their register, RI and XI bits 63 and 62 of theirs.
        let inhibits = u64::from(self.page_grain & (page_grain::RIE | page_grain::XIE)) << 32;
        config::entry_lo_bits(self.physical_bits()) | inhibits
    }

    fn write_status(&mut self, value: u32) {
        let ksu = (value & status::KSU_MASK) >> status::KSU_SHIFT;
        let ksu_source = if ksu == 3 { self.status } else { value };
        let cleared = STATUS_CLEAR_ONLY & !value;
        self.status = (value & !status::KSU_MASK & !STATUS_CLEAR_ONLY)
            | (ksu_source & status::KSU_MASK)
            | (self.status & STATUS_CLEAR_ONLY & !cleared);
    }

    fn write_wired(&mut self, value: u32) {
        let entries = u32::from(self.config.tlb_entries);
        self.wired = value % entries;
        self.random = entries - 1;
    }

    /// Every register as in the table's last column; CPUNum stays.
    fn load_reset_values(&mut self) {
        let cpu_number = self.cpu_number();
        for row in REGISTERS {
            self.store(row.number, row.select, (row.reset)(&self.config));
        }
        self.ebase |= cpu_number;
        self.random_state = RANDOM_SEED;
    }
}

/// RI and XI in the 32-bit view of EntryLo.
const ENTRY_LO_WORD_INHIBITS: u32 = 3 << 30;
/// Any value but zero will do; this is 2^32 divided by the golden ratio.
const RANDOM_SEED: u32 = 0x9e37_79b9;

fn sign_extend(word: u32) -> u64 {
    i64::from(word as i32) as u64
}

/// The part of CP0 that others keep conclusions about, as it was before a write.
struct Outside {
    status: u32,
    cause: u32,
    timer_due: Cycles,
    translation: (u64, u32, u32, u32, u32, [u64; 3]),
}

impl Outside {
    fn of(cp0: &Cp0) -> Outside {
        Outside {
            status: cp0.status,
            cause: cp0.cause,
            timer_due: cp0.timer_due,
            translation: (
                cp0.entry_hi & entry_hi::ASID,
                cp0.page_grain,
                cp0.hwrena,
                cp0.config0,
                cp0.config5,
                cp0.seg_ctl,
            ),
        }
    }

    fn effect(&self, cp0: &Cp0) -> Effect {
        let after = Outside::of(cp0);
        let status = self.status ^ after.status;
        Effect {
            context: status & STATUS_CONTEXT != 0 || self.translation != after.translation,
            interrupts: status & STATUS_INTERRUPTS != 0 || (self.cause ^ after.cause) & cause::IP_MASK != 0,
            timer: self.timer_due != after.timer_due,
        }
    }
}
