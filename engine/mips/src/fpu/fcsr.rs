//! FCSR and the registers that are views of it; FIR.
//!
//! ```text
//!  31      25 24 23   22   18 17        12 11       7 6        2 1  0
//! | FCC7..1  |FS|FCC0|   0   | E V Z O U I | V Z O U I | V Z O U I | RM |
//!                               Cause         Enables     Flags
//! ```
//!
//! NAN2008 and ABS2008 (bits 18 and 19) read as zero, like the two bits left to implementations.
//! Bits that are reserved in a register are ignored when it is written.
//!
//! Source: MIPS64 Architecture For Programmers Volume I, "Floating Point Control Registers".

use super::env::{Env, Flags, Rounding};

/// FIR: formats S, D, W and L, a 64-bit FPU; no paired single, NaNs as before 2008.
pub const FIR: u32 = 1 << 16 | 1 << 17 | 1 << 20 | 1 << 21 | 1 << 22;

/// Numbers of the control registers, as CFC1 and CTC1 name them.
mod fcr {
    pub const FIR: u8 = 0;
    pub const FCCR: u8 = 25;
    pub const FEXR: u8 = 26;
    pub const FENR: u8 = 28;
    pub const FCSR: u8 = 31;
}

const RM: u32 = 0x3;
const FLAGS_SHIFT: u32 = 2;
const ENABLES_SHIFT: u32 = 7;
const CAUSE_SHIFT: u32 = 12;
const FIELD: u32 = 0x1f;
/// Cause.E, Unimplemented Operation: we never raise it, but software can write it.
const CAUSE_E: u32 = 1 << 17;
const FCC0: u32 = 1 << 23;
const FS: u32 = 1 << 24;
const FCC7_1: u32 = 0xfe00_0000;

const CAUSE_FIELD: u32 = FIELD << CAUSE_SHIFT | CAUSE_E;
const ENABLES_FIELD: u32 = FIELD << ENABLES_SHIFT;
const FLAGS_FIELD: u32 = FIELD << FLAGS_SHIFT;
const CONDITIONS: u32 = FCC7_1 | FCC0;
const FEXR_BITS: u32 = CAUSE_FIELD | FLAGS_FIELD;
const FENR_BITS: u32 = ENABLES_FIELD | RM;
const FCSR_BITS: u32 = CONDITIONS | FS | CAUSE_FIELD | ENABLES_FIELD | FLAGS_FIELD | RM;
/// FS is bit 2 of FENR and bit 24 of FCSR.
const FENR_FS_SHIFT: u32 = 22;

/// An enabled exception: the instruction takes a Floating Point exception; FCSR.Cause says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FpTrap;

/// The floating-point control and status register.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fcsr(u32);

impl Fcsr {
    /// The register with these bits; reserved ones are dropped. Raises nothing: for saved state.
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits & FCSR_BITS)
    }

    /// All bits, as CFC1 reads them.
    #[inline]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// RM, FS and Enables.U: what operations need to know.
    #[inline]
    pub const fn env(self) -> Env {
        Env {
            rounding: self.rounding(),
            flush: self.0 & FS != 0,
            underflow_traps: self.enables().contains(Flags::UNDERFLOW),
        }
    }

    /// RM.
    #[inline]
    pub const fn rounding(self) -> Rounding {
        Rounding::from_rm(self.0)
    }

    /// The exceptions of the last operation. Cause.E is not among them.
    pub const fn cause(self) -> Flags {
        Flags::from_field(self.0 >> CAUSE_SHIFT)
    }

    /// The exceptions that trap.
    #[inline]
    pub const fn enables(self) -> Flags {
        Flags::from_field(self.0 >> ENABLES_SHIFT)
    }

    /// The exceptions since software last cleared them.
    pub const fn flags(self) -> Flags {
        Flags::from_field(self.0 >> FLAGS_SHIFT)
    }

    /// Condition code `index`, 0 to 7.
    #[inline]
    pub const fn condition(self, index: u8) -> bool {
        self.0 & Self::condition_bit(index) != 0
    }

    /// Sets condition code `index`, 0 to 7.
    #[inline]
    pub const fn set_condition(&mut self, index: u8, is_true: bool) {
        let bit = Self::condition_bit(index);
        self.0 = if is_true { self.0 | bit } else { self.0 & !bit };
    }

    /// Records what an operation raised.
    ///
    /// # Errors
    /// [`FpTrap`] when one of `flags` is enabled: Cause is written, Flags is not, and the caller
    /// must leave the destination (or the condition code) as it was.
    #[inline]
    pub const fn commit(&mut self, flags: Flags) -> Result<(), FpTrap> {
        self.0 = self.0 & !CAUSE_FIELD | flags.field() << CAUSE_SHIFT;
        if self.is_trapping() {
            return Err(FpTrap);
        }
        self.0 |= flags.field() << FLAGS_SHIFT;
        Ok(())
    }

    /// The word that CFC1 reads from control register `number`; 0 for one that does not exist.
    pub const fn read_control(self, number: u8) -> u32 {
        match number {
            fcr::FIR => FIR,
            fcr::FCCR => (self.0 & FCC7_1) >> 24 | (self.0 & FCC0) >> 23,
            fcr::FEXR => self.0 & FEXR_BITS,
            fcr::FENR => self.0 & FENR_BITS | (self.0 & FS) >> FENR_FS_SHIFT,
            fcr::FCSR => self.0,
            _ => 0,
        }
    }

    /// What CTC1 does to control register `number`; FIR and missing registers ignore it.
    ///
    /// # Errors
    /// [`FpTrap`] when an enabled exception, or E, is now in Cause. The register has been written.
    pub const fn write_control(&mut self, number: u8, word: u32) -> Result<(), FpTrap> {
        let (written, bits) = match number {
            fcr::FCCR => (CONDITIONS, word << 24 & FCC7_1 | word << 23 & FCC0),
            fcr::FEXR => (FEXR_BITS, word),
            fcr::FENR => (FENR_BITS | FS, word & FENR_BITS | word << FENR_FS_SHIFT & FS),
            fcr::FCSR => (FCSR_BITS, word),
            _ => return Ok(()),
        };
        self.0 = self.0 & !written | bits & written;
        if self.is_trapping() { Err(FpTrap) } else { Ok(()) }
    }

    /// Whether Cause holds E or an enabled exception.
    #[inline]
    const fn is_trapping(self) -> bool {
        let enabled = (self.0 >> ENABLES_SHIFT & FIELD) << CAUSE_SHIFT;
        self.0 & (enabled | CAUSE_E) != 0
    }

    /// FCC0 lies apart from the others: FS came first.
    #[inline]
    const fn condition_bit(index: u8) -> u32 {
        match index & 7 {
            0 => FCC0,
            n => 1 << (24 + n),
        }
    }
}
