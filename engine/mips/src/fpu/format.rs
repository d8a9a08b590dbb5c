//! The two binary formats: taking a bit pattern apart, rounding once, putting it together.
//!
//! A finite number that is not zero is held as a sign, an exponent and a 64-bit significand whose
//! top bit is set: its magnitude is `significand / 2^63 * 2^exponent`. Sixty-four bits leave eleven
//! below a double's last place. An operation makes them exact by *jamming*: bit 0 is set whenever
//! anything below it was lost, which is all that rounding needs to know.
//!
//! NaNs have the encoding of MIPS before 2008 (FIR.HAS2008 = 0): a set top fraction bit means
//! *signaling*. Source: MIPS64 Architecture For Programmers Volume I, chapter on the FPU, "FPU
//! Data Types"; IEEE 754-1985, sections 4 and 7.

use super::env::{Env, Flags, Rounding};

/// A binary interchange format. Bit patterns are carried in the low bits of a `u64`.
pub(super) trait Format {
    /// Width of the fraction field.
    const FRACTION_BITS: u32;
    /// Width of the exponent field.
    const EXPONENT_BITS: u32;

    /// The exponent field of infinities and NaNs.
    const EXPONENT_MAX: i32 = (1 << Self::EXPONENT_BITS) - 1;
    /// What is added to an exponent to make its field.
    const BIAS: i32 = Self::EXPONENT_MAX >> 1;
    /// All bits of the fraction field; also the bit pattern of the largest subnormal.
    const FRACTION_MASK: u64 = (1 << Self::FRACTION_BITS) - 1;
    /// The sign bit.
    const SIGN: u64 = 1 << (Self::FRACTION_BITS + Self::EXPONENT_BITS);
    /// The top bit of the fraction, which marks a NaN as signaling.
    const SIGNALING: u64 = 1 << (Self::FRACTION_BITS - 1);
    /// Plus infinity.
    const INFINITY: u64 = (Self::EXPONENT_MAX as u64) << Self::FRACTION_BITS;
    /// The NaN that operations make: every fraction bit except the signaling one.
    const DEFAULT_NAN: u64 = Self::INFINITY | (Self::SIGNALING - 1);
    /// Plus one.
    const ONE: u64 = (Self::BIAS as u64) << Self::FRACTION_BITS;
    /// How many bits of a 64-bit significand rounding drops.
    const DROPPED_BITS: u32 = 63 - Self::FRACTION_BITS;
}

/// Format S: 32 bits.
pub(super) struct Single;

impl Format for Single {
    const FRACTION_BITS: u32 = 23;
    const EXPONENT_BITS: u32 = 8;
}

/// Format D: 64 bits.
pub(super) struct Double;

impl Format for Double {
    const FRACTION_BITS: u32 = 52;
    const EXPONENT_BITS: u32 = 11;
}

/// A finite number other than zero: `significand / 2^63 * 2^exponent`, negated if `is_negative`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Number {
    pub is_negative: bool,
    pub exponent: i32,
    /// Bit 63 is set.
    pub significand: u64,
}

/// What a bit pattern stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Zero { is_negative: bool },
    Finite(Number),
    Infinity { is_negative: bool },
    Nan { is_signaling: bool },
}

impl Value {
    /// Whether the sign bit counts against the value; a NaN has no sign.
    pub(super) fn is_negative(self) -> bool {
        match self {
            Self::Zero { is_negative } | Self::Infinity { is_negative } => is_negative,
            Self::Finite(number) => number.is_negative,
            Self::Nan { .. } => false,
        }
    }
}

/// Takes a bit pattern apart.
#[inline]
pub(super) fn unpack<F: Format>(bits: u64) -> Value {
    let is_negative = bits & F::SIGN != 0;
    let field = (bits >> F::FRACTION_BITS) as i32 & F::EXPONENT_MAX;
    let fraction = bits & F::FRACTION_MASK;
    if field == F::EXPONENT_MAX {
        return match fraction {
            0 => Value::Infinity { is_negative },
            _ => Value::Nan { is_signaling: fraction & F::SIGNALING != 0 },
        };
    }
    if field == 0 && fraction == 0 {
        return Value::Zero { is_negative };
    }
    // A subnormal has no hidden bit and the exponent of field 1; normalising it takes the rest.
    let hidden = u64::from(field != 0) << F::FRACTION_BITS;
    let significand = (fraction | hidden) << F::DROPPED_BITS;
    let shift = significand.leading_zeros();
    Value::Finite(Number {
        is_negative,
        exponent: field.max(1) - F::BIAS - shift as i32,
        significand: significand << shift,
    })
}

/// The sign bit of a result.
#[inline]
pub(super) fn sign<F: Format>(is_negative: bool) -> u64 {
    if is_negative { F::SIGN } else { 0 }
}

/// Shifts right; bit 0 of the result is also set when a set bit was shifted out.
#[inline]
pub(super) fn shift_right_jam(value: u128, count: u32) -> u128 {
    if count >= u128::BITS {
        return u128::from(value != 0);
    }
    let kept = value >> count;
    kept | u128::from(kept << count != value)
}

/// Makes a [`Number`] of `wide / 2^127 * 2^exponent`, jamming what does not fit. `wide` is not 0.
#[inline]
pub(super) fn normalise(is_negative: bool, exponent: i32, wide: u128) -> Number {
    let shift = wide.leading_zeros();
    let wide = wide << shift;
    Number {
        is_negative,
        exponent: exponent - shift as i32,
        significand: (wide >> 64) as u64 | u64::from(wide as u64 != 0),
    }
}

/// Rounds an exact (or jammed) number to the format: the one place where results are rounded.
///
/// Tininess is detected after rounding, as if the exponent were unbounded. With `env.flush` the
/// test is made before rounding instead: what would not be a normal number exactly is flushed.
#[inline]
pub(super) fn round<F: Format>(env: Env, number: Number) -> (u64, Flags) {
    let field = number.exponent + F::BIAS;
    if field < 1 {
        return round_tiny::<F>(env, number, field);
    }
    let (kept, is_inexact) = drop_bits::<F>(env.rounding, number.is_negative, number.significand);
    // The hidden bit adds one to the exponent field, and a carry out of rounding another one.
    let magnitude = ((field as u64 - 1) << F::FRACTION_BITS) + kept;
    if field >= F::EXPONENT_MAX || magnitude >= F::INFINITY {
        return overflow::<F>(env.rounding, number.is_negative);
    }
    (sign::<F>(number.is_negative) | magnitude, Flags::INEXACT.when(is_inexact))
}

/// Rounds a number below the smallest normal one; `field` is its exponent field, 0 or less.
fn round_tiny<F: Format>(env: Env, number: Number, field: i32) -> (u64, Flags) {
    let Number { is_negative, significand, .. } = number;
    if env.flush {
        return (sign::<F>(is_negative), Flags::UNDERFLOW | Flags::INEXACT);
    }
    let shift = (1 - field) as u32;
    let denormalised = shift_right_jam(u128::from(significand), shift) as u64;
    let (magnitude, is_inexact) = drop_bits::<F>(env.rounding, is_negative, denormalised);
    let (unbounded, _) = drop_bits::<F>(env.rounding, is_negative, significand);
    let rounds_to_normal = field == 0 && unbounded > (F::FRACTION_MASK << 1 | 1);
    let is_underflow = !rounds_to_normal && (is_inexact || env.underflow_traps);
    let flags = Flags::INEXACT.when(is_inexact) | Flags::UNDERFLOW.when(is_underflow);
    (sign::<F>(is_negative) | magnitude, flags)
}

/// Rounds a significand to the format's precision; the second value says whether that changed it.
#[inline]
fn drop_bits<F: Format>(rounding: Rounding, is_negative: bool, significand: u64) -> (u64, bool) {
    let kept = significand >> F::DROPPED_BITS;
    let dropped = significand & ((1 << F::DROPPED_BITS) - 1);
    let half = 1 << (F::DROPPED_BITS - 1);
    let increment = rounding.increments(is_negative, kept & 1 != 0, dropped, half);
    (kept + u64::from(increment), dropped != 0)
}

/// Infinity or the largest finite number, whichever the mode rounds to.
fn overflow<F: Format>(rounding: Rounding, is_negative: bool) -> (u64, Flags) {
    let to_infinity = match rounding {
        Rounding::NearestEven => true,
        Rounding::TowardZero => false,
        Rounding::Up => !is_negative,
        Rounding::Down => is_negative,
    };
    let magnitude = F::INFINITY - u64::from(!to_infinity);
    (sign::<F>(is_negative) | magnitude, Flags::OVERFLOW | Flags::INEXACT)
}
