//! C.cond.fmt: one predicate of sixteen on two operands.
//!
//! A condition is four bits, each an alternative that makes it true, except the top one, which
//! asks for Invalid on a quiet NaN as well: bit 0 unordered, bit 1 equal, bit 2 less.
//!
//! Source: MIPS64 Architecture For Programmers Volume II, C.cond.fmt.

use super::env::Flags;
use super::format::{Double, Format, Single};

/// The condition field of C.cond.fmt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition(u8);

impl Condition {
    const UNORDERED: u8 = 1;
    const EQUAL: u8 = 2;
    const LESS: u8 = 4;
    const SIGNALING: u8 = 8;

    /// The manual's mnemonics, by encoding.
    const NAMES: [&str; 16] =
        ["f", "un", "eq", "ueq", "olt", "ult", "ole", "ule", "sf", "ngle", "seq", "ngl", "lt", "nge", "le", "ngt"];

    /// The condition that the low four bits of an instruction's function field encode.
    #[inline]
    pub const fn from_bits(bits: u32) -> Self {
        Self((bits & 0xf) as u8)
    }

    /// The part of the mnemonic between the dots.
    pub const fn name(self) -> &'static str {
        Self::NAMES[self.0 as usize]
    }
}

/// C.cond.S: whether `condition` holds between `fs` and `ft`.
#[inline]
pub fn compare_s(condition: Condition, fs: u32, ft: u32) -> (bool, Flags) {
    compare::<Single>(condition, u64::from(fs), u64::from(ft))
}

/// C.cond.D: whether `condition` holds between `fs` and `ft`.
#[inline]
pub fn compare_d(condition: Condition, fs: u64, ft: u64) -> (bool, Flags) {
    compare::<Double>(condition, fs, ft)
}

#[inline]
fn compare<F: Format>(Condition(condition): Condition, fs: u64, ft: u64) -> (bool, Flags) {
    let (magnitude_s, magnitude_t) = (fs & !F::SIGN, ft & !F::SIGN);
    if magnitude_s > F::INFINITY || magnitude_t > F::INFINITY {
        let is_invalid = condition & Condition::SIGNALING != 0
            || is_signaling::<F>(magnitude_s)
            || is_signaling::<F>(magnitude_t);
        return (condition & Condition::UNORDERED != 0, Flags::INVALID.when(is_invalid));
    }
    let (key_s, key_t) = (order_key::<F>(fs), order_key::<F>(ft));
    let relation = if key_s < key_t {
        Condition::LESS
    } else if key_s == key_t {
        Condition::EQUAL
    } else {
        0
    };
    (condition & relation != 0, Flags::NONE)
}

#[inline]
fn is_signaling<F: Format>(magnitude: u64) -> bool {
    magnitude > F::INFINITY && magnitude & F::SIGNALING != 0
}

/// An integer in the order of the numbers: the magnitude's bits, negated with the sign.
#[inline]
fn order_key<F: Format>(bits: u64) -> i64 {
    let magnitude = (bits & !F::SIGN) as i64;
    if bits & F::SIGN != 0 { -magnitude } else { magnitude }
}
