//! A toy format so small that every case of every operation can be tried, and rounding by the
//! definition: search the list of all magnitudes for the neighbours of the exact result.
//!
//! The implementations are generic in the format, so what holds here for all cases of five and four
//! bits holds for the code that singles and doubles run. Magnitudes are integers in *quarters* of
//! the least subnormal, because the midpoints that decide tininess lie there.

use std::cmp::Ordering;

use crate::fpu::env::{Env, Flags, Rounding};
use crate::fpu::format::{Format, Value, unpack};
use crate::fpu::soft;

/// Three fraction bits and four of exponent: 256 patterns.
struct Toy;

impl Format for Toy {
    const FRACTION_BITS: u32 = 3;
    const EXPONENT_BITS: u32 = 4;
}

/// A wider toy, to convert from: 1024 patterns, reaching past `Toy` on both sides.
struct Wide;

impl Format for Wide {
    const FRACTION_BITS: u32 = 4;
    const EXPONENT_BITS: u32 = 5;
}

/// A quarter of `Toy`'s least subnormal is 2^-QUARTER_PLACES.
const QUARTER_PLACES: u32 = Toy::BIAS as u32 - 1 + Toy::FRACTION_BITS + 2;

/// Magnitude of a finite pattern, or of infinity's as if the exponents went on, in quarters of the
/// format's least subnormal.
fn quarters<F: Format>(bits: u64) -> i128 {
    let magnitude = bits & !F::SIGN;
    let field = magnitude >> F::FRACTION_BITS;
    let fraction = i128::from(magnitude & F::FRACTION_MASK);
    match field {
        0 => fraction << 2,
        _ => (fraction + (1 << F::FRACTION_BITS)) << (field + 1),
    }
}

fn signed_quarters<F: Format>(bits: u64) -> i128 {
    if bits & F::SIGN != 0 { -quarters::<F>(bits) } else { quarters::<F>(bits) }
}

/// Rounds by definition. `exact` compares the exact magnitude, not zero, with one in quarters.
fn round_by_search(env: Env, is_negative: bool, exact: impl Fn(i128) -> Ordering) -> (u64, Flags) {
    let sign = if is_negative { Toy::SIGN } else { 0 };
    let least_normal = quarters::<Toy>(1 << Toy::FRACTION_BITS);
    if env.flush && exact(least_normal) == Ordering::Less {
        return (sign, Flags::UNDERFLOW | Flags::INEXACT);
    }
    let below = (0..Toy::INFINITY).rev().find(|&bits| exact(quarters::<Toy>(bits)).is_ge()).unwrap();
    let is_exact = exact(quarters::<Toy>(below)) == Ordering::Equal;
    let away = match env.rounding {
        Rounding::TowardZero => false,
        Rounding::Up => !is_negative,
        Rounding::Down => is_negative,
        Rounding::NearestEven => {
            let midpoint = (quarters::<Toy>(below) + quarters::<Toy>(below + 1)) / 2;
            exact(midpoint).then((below & 1).cmp(&0)) == Ordering::Greater
        }
    };
    let chosen = below + u64::from(away && !is_exact);
    // Beyond the greatest finite number, the next place of unbounded exponents is an overflow
    // whether or not the mode lets the result grow.
    let overflows = chosen == Toy::INFINITY || exact(quarters::<Toy>(Toy::INFINITY)) != Ordering::Less;
    if overflows {
        return (sign | chosen, Flags::OVERFLOW | Flags::INEXACT);
    }
    // With unbounded exponents the neighbour below the least normal is half a place away.
    let is_tiny = match env.rounding {
        Rounding::NearestEven => exact(least_normal - 1).is_lt(),
        _ if away => exact(least_normal - 2).is_le(),
        _ => exact(least_normal).is_lt(),
    };
    let is_underflow = is_tiny && (!is_exact || env.underflow_traps);
    let flags = Flags::INEXACT.when(!is_exact) | Flags::UNDERFLOW.when(is_underflow);
    (sign | chosen, flags)
}

fn every_env() -> impl Iterator<Item = Env> {
    (0..16).map(|n| Env { rounding: Rounding::from_rm(n), flush: n & 4 != 0, underflow_traps: n & 8 != 0 })
}

fn is_finite<F: Format>(bits: u64) -> bool {
    bits & !F::SIGN < F::INFINITY
}

fn is_zero<F: Format>(bits: u64) -> bool {
    bits & !F::SIGN == 0
}

fn finite<F: Format>() -> impl Iterator<Item = u64> + Clone {
    (0..F::SIGN << 1).filter(|&bits| is_finite::<F>(bits))
}

/// All pairs of finite operands in every environment.
fn for_every_pair(check: impl Fn(Env, u64, u64)) {
    for env in every_env() {
        for a in finite::<Toy>() {
            for b in finite::<Toy>() {
                check(env, a, b);
            }
        }
    }
}

#[test]
fn every_toy_sum_is_the_exact_sum_rounded() {
    for_every_pair(|env, a, b| {
        let sum = signed_quarters::<Toy>(a) + signed_quarters::<Toy>(b);
        if sum == 0 {
            return;
        }
        let expected = round_by_search(env, sum < 0, |m| sum.abs().cmp(&m));
        assert_eq!(soft::add::<Toy>(env, a, b), expected, "{env:?} {a:#x} + {b:#x}");
    });
}

#[test]
fn every_toy_product_is_the_exact_product_rounded() {
    for_every_pair(|env, a, b| {
        let product = quarters::<Toy>(a) * quarters::<Toy>(b);
        if product == 0 {
            return;
        }
        let is_negative = (a ^ b) & Toy::SIGN != 0;
        let expected = round_by_search(env, is_negative, |m| product.cmp(&(m << QUARTER_PLACES)));
        assert_eq!(soft::mul::<Toy>(env, a, b), expected, "{env:?} {a:#x} * {b:#x}");
    });
}

#[test]
fn every_toy_quotient_is_the_exact_quotient_rounded() {
    for_every_pair(|env, a, b| {
        let (dividend, divisor) = (quarters::<Toy>(a), quarters::<Toy>(b));
        if dividend == 0 || divisor == 0 {
            return;
        }
        let is_negative = (a ^ b) & Toy::SIGN != 0;
        let exact = |m: i128| (dividend << QUARTER_PLACES).cmp(&(m * divisor));
        let expected = round_by_search(env, is_negative, exact);
        assert_eq!(soft::div::<Toy>(env, a, b), expected, "{env:?} {a:#x} / {b:#x}");
    });
}

#[test]
fn every_toy_root_is_the_exact_root_rounded() {
    for env in every_env() {
        for a in finite::<Toy>().filter(|&a| a != 0 && a & Toy::SIGN == 0) {
            let square = quarters::<Toy>(a) << QUARTER_PLACES;
            let expected = round_by_search(env, false, |m| square.cmp(&(m * m)));
            assert_eq!(soft::sqrt::<Toy>(env, a), expected, "{env:?} sqrt {a:#x}");
        }
    }
}

#[test]
fn every_wide_number_converts_to_toy_rounded_once() {
    let places = Wide::BIAS - 1 + Wide::FRACTION_BITS as i32 + 2 - QUARTER_PLACES as i32;
    for env in every_env() {
        for a in finite::<Wide>().filter(|&a| !is_zero::<Wide>(a)) {
            let magnitude = quarters::<Wide>(a);
            let is_negative = a & Wide::SIGN != 0;
            let expected = round_by_search(env, is_negative, |m| magnitude.cmp(&(m << places)));
            assert_eq!(soft::convert::<Wide, Toy>(env, a), expected, "{env:?} {a:#x}");
        }
    }
}

#[test]
fn every_toy_number_survives_the_way_through_wide() {
    for a in finite::<Toy>() {
        let (wide, flags) = soft::convert::<Toy, Wide>(Env::default(), a);
        assert_eq!(flags, Flags::NONE);
        assert_eq!(soft::convert::<Wide, Toy>(Env::default(), wide), (a, Flags::NONE));
    }
}

#[test]
fn every_wide_nan_converts_to_toy_as_a_nan() {
    for a in (0..Wide::SIGN << 1).filter(|&a| a & !Wide::SIGN > Wide::INFINITY) {
        let fraction = (a & Wide::FRACTION_MASK) >> 1;
        let sign = if a & Wide::SIGN != 0 { Toy::SIGN } else { 0 };
        let expected = match (a & Wide::SIGNALING != 0, fraction) {
            (true, _) => (Toy::DEFAULT_NAN, Flags::INVALID),
            (false, 0) => (Toy::DEFAULT_NAN, Flags::NONE),
            (false, _) => (sign | Toy::INFINITY | fraction, Flags::NONE),
        };
        assert_eq!(soft::convert::<Wide, Toy>(Env::default(), a), expected, "{a:#x}");
    }
}

#[test]
fn every_small_integer_converts_to_toy_rounded_once() {
    for env in every_env() {
        for integer in (-600..600i64).filter(|&n| n != 0) {
            let magnitude = i128::from(integer.unsigned_abs()) << QUARTER_PLACES;
            let expected = round_by_search(env, integer < 0, |m| magnitude.cmp(&m));
            assert_eq!(soft::from_integer::<Toy>(env, integer), expected, "{env:?} {integer}");
        }
    }
}

/// Operands and results that are not all finite numbers, by the rules of the manual.
#[test]
fn every_toy_operation_on_infinities_nans_and_zeros_follows_the_table() {
    let env = Env::default();
    let inf = |negative: bool| Toy::INFINITY | if negative { Toy::SIGN } else { 0 };
    let zero = |negative: bool| if negative { Toy::SIGN } else { 0 };
    let invalid = (Toy::DEFAULT_NAN, Flags::INVALID);
    for a in 0..Toy::SIGN << 1 {
        for b in 0..Toy::SIGN << 1 {
            let (x, y) = (unpack::<Toy>(a), unpack::<Toy>(b));
            let negative = (a ^ b) & Toy::SIGN != 0;
            let signaling = [x, y].contains(&Value::Nan { is_signaling: true });
            let quiet = |value| value == Value::Nan { is_signaling: false };
            let nan = match (signaling, quiet(x), quiet(y)) {
                (true, ..) => Some(invalid),
                (_, true, _) => Some((a, Flags::NONE)),
                (_, _, true) => Some((b, Flags::NONE)),
                _ => None,
            };
            let infinite = |v| matches!(v, Value::Infinity { .. });
            let null = |v| matches!(v, Value::Zero { .. });

            let sum = match (infinite(x), infinite(y)) {
                (true, true) if negative => Some(invalid),
                (true, _) => Some((a, Flags::NONE)),
                (_, true) => Some((b, Flags::NONE)),
                _ => None,
            };
            let product = match (infinite(x) || infinite(y), null(x) || null(y)) {
                (true, true) => Some(invalid),
                (true, false) => Some((inf(negative), Flags::NONE)),
                (false, true) => Some((zero(negative), Flags::NONE)),
                _ => None,
            };
            let quotient = match (infinite(x), infinite(y), null(x), null(y)) {
                (true, true, ..) | (_, _, true, true) => Some(invalid),
                (true, ..) => Some((inf(negative), Flags::NONE)),
                (_, true, ..) | (_, _, true, _) => Some((zero(negative), Flags::NONE)),
                (_, _, _, true) => Some((inf(negative), Flags::DIVIDE_BY_ZERO)),
                _ => None,
            };
            // Subtracting what is negated is adding; only a NaN is not negated.
            let negated_b = if nan.is_some() { b } else { b ^ Toy::SIGN };
            for (got, expected) in [
                (soft::add::<Toy>(env, a, b), nan.or(sum)),
                (soft::sub::<Toy>(env, a, negated_b), nan.or(sum)),
                (soft::mul::<Toy>(env, a, b), nan.or(product)),
                (soft::div::<Toy>(env, a, b), nan.or(quotient)),
            ] {
                assert!(expected.is_none_or(|e| e == got), "{a:#x} {b:#x}: {got:?} {expected:?}");
            }
        }
    }
}

#[test]
fn a_zero_sum_is_negative_only_when_both_are_or_rounding_down() {
    for env in every_env() {
        for a in finite::<Toy>() {
            let opposite = a ^ Toy::SIGN;
            let sign = if env.rounding == Rounding::Down { Toy::SIGN } else { 0 };
            assert_eq!(soft::add::<Toy>(env, a, opposite), (sign, Flags::NONE));
        }
        assert_eq!(soft::add::<Toy>(env, Toy::SIGN, Toy::SIGN), (Toy::SIGN, Flags::NONE));
    }
}

#[test]
fn roots_of_zeros_negatives_infinities_and_nans_follow_the_table() {
    let env = Env::default();
    for a in (0..Toy::SIGN << 1).filter(|&a| a & Toy::SIGN != 0 || !is_finite::<Toy>(a)) {
        let expected = match unpack::<Toy>(a) {
            Value::Zero { .. } | Value::Infinity { is_negative: false } => (a, Flags::NONE),
            Value::Nan { is_signaling: false } => (a, Flags::NONE),
            _ => (Toy::DEFAULT_NAN, Flags::INVALID),
        };
        assert_eq!(soft::sqrt::<Toy>(env, a), expected, "{a:#x}");
    }
}
