//! The fast path: the host's own arithmetic, with Inexact proved instead of read.
//!
//! Rounding to nearest, the host's `f32` and `f64` give the right bits. What is missing is whether
//! they were rounded, and asking the host's status register costs more than the operation and needs
//! `unsafe` code for each host. The question has an exact answer in ordinary arithmetic:
//!
//! - a sum's rounding error is itself a number of the format and five more additions find it
//!   (Knuth's TwoSum; The Art of Computer Programming, volume 2, section 4.2.2);
//! - a product of two 53-bit integers has as many trailing zeros as its factors together;
//! - a quotient or root is exact when multiplying back restores the operand;
//! - in single precision, all products fit in a double.
//!
//! Every function returns `None` where this does not hold or where the guest's rules differ from
//! the host's: operands or results that are NaN, infinite or subnormal, and results at either
//! edge of the range. Nearly all work of real programs stays inside. So an answer never depends on
//! FCSR.FS or FCSR.Enables, and its only possible flag is Inexact.

use super::env::Flags;
use super::format::{Double, Format, Single};

/// The implicit top bit of a normal double's significand.
const HIDDEN: u64 = 1 << Double::FRACTION_BITS;

/// Whether a result is a normal number away from both edges, or a host's error terms may be wrong.
#[inline]
fn is_inside<F: Format>(bits: u64) -> bool {
    let field = (bits & !F::SIGN) >> F::FRACTION_BITS;
    field.wrapping_sub(2) < F::EXPONENT_MAX as u64 - 4
}

#[inline]
fn exponent_field(bits: u64) -> u64 {
    (bits & !Double::SIGN) >> Double::FRACTION_BITS
}

/// Neither zero nor subnormal; infinities and NaNs are caught at the result.
#[inline]
fn has_hidden_bit(bits: u64) -> bool {
    bits & Double::INFINITY != 0
}

#[inline]
fn significand(bits: u64) -> u64 {
    bits & Double::FRACTION_MASK | HIDDEN
}

#[inline]
fn single(result: f32, is_inexact: bool) -> Option<(u64, Flags)> {
    let bits = u64::from(result.to_bits());
    is_inside::<Single>(bits).then_some((bits, Flags::INEXACT.when(is_inexact)))
}

/// `a + b` in double precision.
#[inline]
pub(super) fn add_d(a: u64, b: u64) -> Option<(u64, Flags)> {
    let (x, y) = (f64::from_bits(a), f64::from_bits(b));
    let sum = x + y;
    if !is_inside::<Double>(sum.to_bits()) {
        return None;
    }
    let y_in_sum = sum - x;
    let error = (x - (sum - y_in_sum)) + (y - y_in_sum);
    Some((sum.to_bits(), Flags::INEXACT.when(error != 0.0)))
}

/// `a - b` in double precision.
#[inline]
pub(super) fn sub_d(a: u64, b: u64) -> Option<(u64, Flags)> {
    add_d(a, b ^ Double::SIGN)
}

/// `a * b` in double precision.
#[inline]
pub(super) fn mul_d(a: u64, b: u64) -> Option<(u64, Flags)> {
    let product = (f64::from_bits(a) * f64::from_bits(b)).to_bits();
    if !(is_inside::<Double>(product) && has_hidden_bit(a) && has_hidden_bit(b)) {
        return None;
    }
    // The integer product has 105 bits, or 106 when the exponents say that it carried; 53 are kept.
    let carry = exponent_field(product).wrapping_add(Double::BIAS as u64) - exponent_field(a) - exponent_field(b);
    let zeros = (a | HIDDEN).trailing_zeros() + (b | HIDDEN).trailing_zeros();
    Some((product, Flags::INEXACT.when(u64::from(zeros) < 52 + carry)))
}

/// `a / b` in double precision.
#[inline]
pub(super) fn div_d(a: u64, b: u64) -> Option<(u64, Flags)> {
    let quotient = (f64::from_bits(a) / f64::from_bits(b)).to_bits();
    if !(is_inside::<Double>(quotient) && has_hidden_bit(a) && has_hidden_bit(b)) {
        return None;
    }
    // The quotient is off by half a place at most, so multiplying back is off by less than 2^53
    // and the low 64 bits tell.
    let places = exponent_field(a) + Double::BIAS as u64 + 52 - exponent_field(b) - exponent_field(quotient);
    let product = significand(quotient).wrapping_mul(significand(b));
    Some((quotient, Flags::INEXACT.when(product != significand(a) << places)))
}

/// The square root of `a` in double precision.
#[inline]
pub(super) fn sqrt_d(a: u64) -> Option<(u64, Flags)> {
    let root = f64::from_bits(a).sqrt().to_bits();
    if !(is_inside::<Double>(root) && has_hidden_bit(a)) {
        return None;
    }
    // As for division: the square is off by less than 2^54.
    let places = exponent_field(a) + Double::BIAS as u64 + 52 - 2 * exponent_field(root);
    let square = significand(root).wrapping_mul(significand(root));
    Some((root, Flags::INEXACT.when(square != significand(a) << places)))
}

/// `a + b` in single precision.
#[inline]
pub(super) fn add_s(a: u32, b: u32) -> Option<(u64, Flags)> {
    let (x, y) = (f32::from_bits(a), f32::from_bits(b));
    let sum = x + y;
    let y_in_sum = sum - x;
    let error = (x - (sum - y_in_sum)) + (y - y_in_sum);
    single(sum, error != 0.0)
}

/// `a - b` in single precision.
#[inline]
pub(super) fn sub_s(a: u32, b: u32) -> Option<(u64, Flags)> {
    add_s(a, b ^ Single::SIGN as u32)
}

/// `a * b` in single precision.
#[inline]
pub(super) fn mul_s(a: u32, b: u32) -> Option<(u64, Flags)> {
    let exact = f64::from(f32::from_bits(a)) * f64::from(f32::from_bits(b));
    let product = exact as f32;
    single(product, f64::from(product) != exact)
}

/// `a / b` in single precision.
#[inline]
pub(super) fn div_s(a: u32, b: u32) -> Option<(u64, Flags)> {
    let (x, y) = (f32::from_bits(a), f32::from_bits(b));
    let quotient = x / y;
    single(quotient, f64::from(quotient) * f64::from(y) != f64::from(x))
}

/// The square root of `a` in single precision.
#[inline]
pub(super) fn sqrt_s(a: u32) -> Option<(u64, Flags)> {
    let x = f32::from_bits(a);
    let root = x.sqrt();
    single(root, f64::from(root) * f64::from(root) != f64::from(x))
}

/// From double to single precision.
#[inline]
pub(super) fn cvt_s_d(a: u64) -> Option<(u64, Flags)> {
    let wide = f64::from_bits(a);
    let narrow = wide as f32;
    single(narrow, f64::from(narrow) != wide)
}

/// From single to double precision, which is exact.
#[inline]
pub(super) fn cvt_d_s(a: u32) -> Option<(u64, Flags)> {
    let wide = f64::from(f32::from_bits(a));
    is_inside::<Single>(u64::from(a)).then_some((wide.to_bits(), Flags::NONE))
}
