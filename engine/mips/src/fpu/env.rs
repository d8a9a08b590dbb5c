//! What an operation is told and what it tells: rounding mode and switches in, IEEE flags out.
//!
//! Both mirror fields of FCSR, so that a conversion to or from the register is a shift and a mask.

use std::ops::{BitOr, BitOrAssign};

/// A rounding mode; the discriminant is the encoding of FCSR.RM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rounding {
    /// RN: to nearest, ties to the even neighbour.
    #[default]
    NearestEven = 0,
    /// RZ: toward zero.
    TowardZero = 1,
    /// RP: toward plus infinity.
    Up = 2,
    /// RM: toward minus infinity.
    Down = 3,
}

impl Rounding {
    /// The mode that FCSR.RM encodes; only the low two bits of `rm` count.
    #[inline]
    pub const fn from_rm(rm: u32) -> Self {
        match rm & 3 {
            0 => Self::NearestEven,
            1 => Self::TowardZero,
            2 => Self::Up,
            _ => Self::Down,
        }
    }

    /// Whether a magnitude whose kept part is `is_odd` and whose dropped part is `dropped` (`half`
    /// being a half of the last kept place) grows by one in the last kept place.
    #[inline]
    pub(super) const fn increments(self, is_negative: bool, is_odd: bool, dropped: u64, half: u64) -> bool {
        match self {
            Self::NearestEven => dropped > half || (dropped == half && is_odd),
            Self::TowardZero => false,
            Self::Up => !is_negative && dropped != 0,
            Self::Down => is_negative && dropped != 0,
        }
    }
}

/// The part of FCSR that changes results: it is an input of every operation that rounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Env {
    /// FCSR.RM.
    pub rounding: Rounding,
    /// FCSR.FS: a tiny result becomes a zero of its sign, Underflow and Inexact.
    pub flush: bool,
    /// FCSR.Enables.U: a tiny result is an Underflow even when it is exact.
    pub underflow_traps: bool,
}

/// A set of IEEE 754 exceptions, in the bit order of FCSR's Cause, Enables and Flags fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u8);

impl Flags {
    /// No exception.
    pub const NONE: Self = Self(0);
    /// I: the result was rounded.
    pub const INEXACT: Self = Self(1);
    /// U: the result is tiny, and also inexact unless the underflow trap is enabled.
    pub const UNDERFLOW: Self = Self(2);
    /// O: the result is beyond the largest finite number.
    pub const OVERFLOW: Self = Self(4);
    /// Z: a finite number was divided by zero.
    pub const DIVIDE_BY_ZERO: Self = Self(8);
    /// V: the operation has no defined result.
    pub const INVALID: Self = Self(16);

    /// The set with the bits of a 5-bit field of FCSR; higher bits of `field` are dropped.
    #[inline]
    pub const fn from_field(field: u32) -> Self {
        Self((field & 0x1f) as u8)
    }

    /// The set as a 5-bit field of FCSR.
    #[inline]
    pub const fn field(self) -> u32 {
        self.0 as u32
    }

    /// Whether no exception is in the set.
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether every exception of `other` is in this set.
    #[inline]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// This set if `condition` holds, else the empty one.
    #[inline]
    pub(super) const fn when(self, condition: bool) -> Self {
        Self(self.0 * condition as u8)
    }
}

impl BitOr for Flags {
    type Output = Self;

    #[inline]
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Flags {
    #[inline]
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}
