//! The reference: every operation computed with integers and rounded once, on any host.
//!
//! Each function handles the operands that are not finite numbers, forms the exact result (or one
//! jammed below the rounding place) and leaves the rest to [`round`].
//!
//! A signaling NaN among the operands is Invalid and gives the default NaN. Otherwise a quiet one is
//! the result, the first of two. The manual asks for this "when possible".

use super::env::{Env, Flags, Rounding};
use super::format::{Format, Number, Value, normalise, round, shift_right_jam, sign, unpack};

/// `a + b`.
#[inline(never)]
pub(super) fn add<F: Format>(env: Env, a: u64, b: u64) -> (u64, Flags) {
    match (unpack::<F>(a), unpack::<F>(b)) {
        (Value::Nan { .. }, _) | (_, Value::Nan { .. }) => nan::<F>(a, b),
        (Value::Infinity { is_negative: x }, Value::Infinity { is_negative: y }) if x != y => invalid::<F>(),
        (Value::Infinity { .. }, _) => (a, Flags::NONE),
        (_, Value::Infinity { .. }) => (b, Flags::NONE),
        (Value::Zero { is_negative: x }, Value::Zero { is_negative: y }) => {
            let is_negative = if x == y { x } else { env.rounding == Rounding::Down };
            (sign::<F>(is_negative), Flags::NONE)
        }
        (Value::Finite(x), Value::Zero { .. }) | (Value::Zero { .. }, Value::Finite(x)) => round::<F>(env, x),
        (Value::Finite(x), Value::Finite(y)) => add_finite::<F>(env, x, y),
    }
}

fn add_finite<F: Format>(env: Env, x: Number, y: Number) -> (u64, Flags) {
    let y_is_larger = (y.exponent, y.significand) > (x.exponent, x.significand);
    let (large, small) = if y_is_larger { (y, x) } else { (x, y) };
    // The top bit stays free for a carry, the low ones take what alignment shifts down.
    let addend = u128::from(large.significand) << 63;
    let shift = (large.exponent - small.exponent) as u32;
    let aligned = shift_right_jam(u128::from(small.significand) << 63, shift);
    let sum = if large.is_negative == small.is_negative { addend + aligned } else { addend - aligned };
    if sum == 0 {
        return (sign::<F>(env.rounding == Rounding::Down), Flags::NONE);
    }
    round::<F>(env, normalise(large.is_negative, large.exponent + 1, sum))
}

/// `a - b`: the addition of the negated operand, unless that is a NaN, which keeps its sign.
#[inline(never)]
pub(super) fn sub<F: Format>(env: Env, a: u64, b: u64) -> (u64, Flags) {
    match unpack::<F>(b) {
        Value::Nan { .. } => nan::<F>(a, b),
        _ => add::<F>(env, a, b ^ F::SIGN),
    }
}

/// `a * b`.
#[inline(never)]
pub(super) fn mul<F: Format>(env: Env, a: u64, b: u64) -> (u64, Flags) {
    let (x, y) = (unpack::<F>(a), unpack::<F>(b));
    let is_negative = x.is_negative() != y.is_negative();
    match (x, y) {
        (Value::Nan { .. }, _) | (_, Value::Nan { .. }) => nan::<F>(a, b),
        (Value::Infinity { .. }, Value::Zero { .. }) | (Value::Zero { .. }, Value::Infinity { .. }) => {
            invalid::<F>()
        }
        (Value::Infinity { .. }, _) | (_, Value::Infinity { .. }) => {
            (sign::<F>(is_negative) | F::INFINITY, Flags::NONE)
        }
        (Value::Zero { .. }, _) | (_, Value::Zero { .. }) => (sign::<F>(is_negative), Flags::NONE),
        (Value::Finite(x), Value::Finite(y)) => {
            let product = u128::from(x.significand) * u128::from(y.significand);
            round::<F>(env, normalise(is_negative, x.exponent + y.exponent + 1, product))
        }
    }
}

/// `a / b`.
#[inline(never)]
pub(super) fn div<F: Format>(env: Env, a: u64, b: u64) -> (u64, Flags) {
    let (x, y) = (unpack::<F>(a), unpack::<F>(b));
    let is_negative = x.is_negative() != y.is_negative();
    match (x, y) {
        (Value::Nan { .. }, _) | (_, Value::Nan { .. }) => nan::<F>(a, b),
        (Value::Infinity { .. }, Value::Infinity { .. }) | (Value::Zero { .. }, Value::Zero { .. }) => {
            invalid::<F>()
        }
        (Value::Infinity { .. }, _) => (sign::<F>(is_negative) | F::INFINITY, Flags::NONE),
        (Value::Zero { .. }, _) | (_, Value::Infinity { .. }) => (sign::<F>(is_negative), Flags::NONE),
        (Value::Finite(_), Value::Zero { .. }) => (sign::<F>(is_negative) | F::INFINITY, Flags::DIVIDE_BY_ZERO),
        (Value::Finite(x), Value::Finite(y)) => {
            // Above 2^62, so the quotient has more bits than either format keeps.
            let dividend = u128::from(x.significand) << 63;
            let divisor = u128::from(y.significand);
            let is_exact = dividend % divisor == 0;
            let quotient = (dividend / divisor) << 64 | u128::from(!is_exact);
            round::<F>(env, normalise(is_negative, x.exponent - y.exponent, quotient))
        }
    }
}

/// The square root of `a`.
#[inline(never)]
pub(super) fn sqrt<F: Format>(env: Env, a: u64) -> (u64, Flags) {
    match unpack::<F>(a) {
        Value::Nan { .. } => nan::<F>(a, a),
        Value::Zero { .. } => (a, Flags::NONE),
        Value::Finite(Number { is_negative: true, .. }) | Value::Infinity { is_negative: true } => invalid::<F>(),
        Value::Infinity { is_negative: false } => (a, Flags::NONE),
        Value::Finite(x) => {
            // An even exponent halves; the odd one lends a factor of two to the radicand.
            let radicand = u128::from(x.significand) << (63 + (x.exponent & 1));
            let root = radicand.isqrt();
            let wide = root << 64 | u128::from(root * root != radicand);
            round::<F>(env, normalise(false, x.exponent >> 1, wide))
        }
    }
}

/// From one floating-point format to another.
#[inline(never)]
pub(super) fn convert<F: Format, G: Format>(env: Env, a: u64) -> (u64, Flags) {
    match unpack::<F>(a) {
        Value::Nan { is_signaling: true } => invalid::<G>(),
        Value::Nan { is_signaling: false } => (convert_quiet_nan::<F, G>(a), Flags::NONE),
        Value::Zero { is_negative } => (sign::<G>(is_negative), Flags::NONE),
        Value::Infinity { is_negative } => (sign::<G>(is_negative) | G::INFINITY, Flags::NONE),
        Value::Finite(number) => round::<G>(env, number),
    }
}

/// From a signed integer.
pub(super) fn from_integer<F: Format>(env: Env, integer: i64) -> (u64, Flags) {
    if integer == 0 {
        return (0, Flags::NONE);
    }
    let wide = u128::from(integer.unsigned_abs()) << 64;
    round::<F>(env, normalise(integer < 0, 63, wide))
}

/// To a signed integer of `width_bits` (32 or 64), sign-extended.
///
/// What cannot be represented after rounding, of either sign, and every NaN are Invalid and give
/// the largest positive integer: the result that the manual names for FIR.HAS2008 = 0.
pub(super) fn to_integer<F: Format>(rounding: Rounding, a: u64, width_bits: u32) -> (i64, Flags) {
    let largest = i64::MAX >> (64 - width_bits);
    let number = match unpack::<F>(a) {
        Value::Zero { .. } => return (0, Flags::NONE),
        Value::Finite(number) if number.exponent < width_bits as i32 => number,
        _ => return (largest, Flags::INVALID),
    };
    // Fixed point: the integer, a bit of half and a jammed bit of less.
    let fixed = shift_right_jam(u128::from(number.significand) << 2, (63 - number.exponent) as u32);
    let dropped = fixed as u64 & 3;
    let is_odd = fixed & 4 != 0;
    let increment = rounding.increments(number.is_negative, is_odd, dropped, 2);
    let magnitude = (fixed >> 2) + u128::from(increment);
    if magnitude > largest as u128 + u128::from(number.is_negative) {
        return (largest, Flags::INVALID);
    }
    let integer = if number.is_negative { (magnitude as i64).wrapping_neg() } else { magnitude as i64 };
    (integer, Flags::INEXACT.when(dropped != 0))
}

/// The result of an operation with a NaN among its operands; one with a single operand names it
/// twice.
#[cold]
fn nan<F: Format>(a: u64, b: u64) -> (u64, Flags) {
    let is_nan = |bits, is_signaling| unpack::<F>(bits) == Value::Nan { is_signaling };
    if is_nan(a, true) || is_nan(b, true) {
        return invalid::<F>();
    }
    (if is_nan(a, false) { a } else { b }, Flags::NONE)
}

/// Keeps the sign and the upper fraction bits; where nothing of a fraction is left, which would be
/// an infinity, the result is the default NaN.
#[cold]
fn convert_quiet_nan<F: Format, G: Format>(a: u64) -> u64 {
    let fraction = (a & F::FRACTION_MASK) << F::DROPPED_BITS >> G::DROPPED_BITS;
    if fraction == 0 {
        return G::DEFAULT_NAN;
    }
    sign::<G>(a & F::SIGN != 0) | G::INFINITY | fraction
}

/// The result of an operation that has none.
#[cold]
fn invalid<F: Format>() -> (u64, Flags) {
    (F::DEFAULT_NAN, Flags::INVALID)
}
