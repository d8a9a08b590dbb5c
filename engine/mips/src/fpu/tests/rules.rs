//! What follows from the table of the manual rather than from arithmetic: composite operations,
//! conditions, FCSR; and the fast path against the reference.

use super::operands::{DOUBLE, Random, SINGLE};
use super::{CASES, wide};
use crate::fpu::env::{Env, Flags, Rounding};
use crate::fpu::fcsr::{FIR, Fcsr, FpTrap};
use crate::fpu::format::{Double, Format, Single};
use crate::fpu::{self, Condition, soft};

const DEFAULT_D: u64 = 0x7ff7_ffff_ffff_ffff;
const DEFAULT_S: u32 = 0x7fbf_ffff;
const QUIET_D: u64 = 0xfff0_0000_0000_1234;
const SIGNALING_D: u64 = 0x7ff8_0000_0000_0000;

fn env(rounding: Rounding) -> Env {
    Env { rounding, ..Env::default() }
}

/// Any environment; most often the one that the fast path serves.
fn random_env(random: &mut Random) -> Env {
    let bits = random.bits();
    Env {
        rounding: Rounding::from_rm(if bits & 12 == 0 { bits as u32 } else { 0 }),
        flush: bits & 16 != 0,
        underflow_traps: bits & 32 != 0,
    }
}

#[test]
fn the_fast_path_gives_the_bits_and_flags_of_the_reference_in_double() {
    let check = |env: Env, a: u64, b: u64| {
        let context = format_args!("{env:?} {a:#x} {b:#x}");
        assert_eq!(fpu::add_d(env, a, b), soft::add::<Double>(env, a, b), "add {context}");
        assert_eq!(fpu::sub_d(env, a, b), soft::sub::<Double>(env, a, b), "sub {context}");
        assert_eq!(fpu::mul_d(env, a, b), soft::mul::<Double>(env, a, b), "mul {context}");
        assert_eq!(fpu::div_d(env, a, b), soft::div::<Double>(env, a, b), "div {context}");
        assert_eq!(fpu::sqrt_d(env, a), soft::sqrt::<Double>(env, a), "sqrt {context}");
        let narrow = soft::convert::<Double, Single>(env, a);
        assert_eq!(wide(fpu::cvt_s_d(env, a)), narrow, "cvt.s.d {context}");
    };
    for a in DOUBLE.odd() {
        DOUBLE.odd().for_each(|b| check(Env::default(), a, b));
    }
    let mut random = Random(5);
    for _ in 0..CASES {
        let env = random_env(&mut random);
        let a = random.operand(&DOUBLE);
        let b = random.partner(a, &DOUBLE);
        check(env, a, b);
        // Exact products, quotients and squares, which random operands never give.
        let (x, y) = (random.bits() >> 38, random.bits() >> 38);
        let (x, y) = ((x as f64).to_bits(), (y as f64).to_bits());
        let (product, _) = soft::mul::<Double>(env, x, y);
        check(env, x, y);
        check(env, product, x);
        check(env, soft::mul::<Double>(env, x, x).0, y);
    }
}

#[test]
fn the_fast_path_gives_the_bits_and_flags_of_the_reference_in_single() {
    let check = |env: Env, a: u64, b: u64| {
        let (x, y) = (a as u32, b as u32);
        let context = format_args!("{env:?} {a:#x} {b:#x}");
        assert_eq!(wide(fpu::add_s(env, x, y)), soft::add::<Single>(env, a, b), "add {context}");
        let difference = soft::sub::<Single>(env, a, b);
        assert_eq!(wide(fpu::sub_s(env, x, y)), difference, "sub {context}");
        assert_eq!(wide(fpu::mul_s(env, x, y)), soft::mul::<Single>(env, a, b), "mul {context}");
        assert_eq!(wide(fpu::div_s(env, x, y)), soft::div::<Single>(env, a, b), "div {context}");
        assert_eq!(wide(fpu::sqrt_s(env, x)), soft::sqrt::<Single>(env, a), "sqrt {context}");
        let double = soft::convert::<Single, Double>(env, a);
        assert_eq!(fpu::cvt_d_s(env, x), double, "cvt.d.s {context}");
    };
    for a in SINGLE.odd() {
        SINGLE.odd().for_each(|b| check(Env::default(), a, b));
    }
    let mut random = Random(6);
    for _ in 0..CASES {
        let env = random_env(&mut random);
        let a = random.operand(&SINGLE);
        let b = random.partner(a, &SINGLE);
        check(env, a, b);
        let x = u64::from(((random.bits() >> 52) as f32).to_bits());
        let y = u64::from(((random.bits() >> 52) as f32).to_bits());
        check(env, x, y);
        check(env, soft::mul::<Single>(env, x, y).0, x);
        check(env, soft::mul::<Single>(env, x, x).0, y);
    }
}

#[test]
fn a_signaling_nan_gives_the_default_nan_and_a_quiet_one_itself() {
    let one = 1f64.to_bits();
    for (a, b, expected) in [
        (SIGNALING_D, one, (DEFAULT_D, Flags::INVALID)),
        (one, SIGNALING_D, (DEFAULT_D, Flags::INVALID)),
        (QUIET_D, SIGNALING_D, (DEFAULT_D, Flags::INVALID)), // signaling wins from behind
        (QUIET_D, one, (QUIET_D, Flags::NONE)),
        (one, QUIET_D, (QUIET_D, Flags::NONE)), // SUB does not negate it
        (QUIET_D, DEFAULT_D, (QUIET_D, Flags::NONE)), // the first of two
        (Double::INFINITY, QUIET_D, (QUIET_D, Flags::NONE)),
    ] {
        for operation in [fpu::add_d, fpu::sub_d, fpu::mul_d, fpu::div_d] {
            assert_eq!(operation(Env::default(), a, b), expected, "{a:#x} {b:#x}");
        }
    }
}

#[test]
fn conversions_keep_what_fits_of_a_quiet_nan() {
    let env = Env::default();
    assert_eq!(fpu::cvt_s_d(env, 0xfff4_0000_0000_1234), (0xffa0_0000, Flags::NONE));
    assert_eq!(fpu::cvt_s_d(env, QUIET_D), (DEFAULT_S, Flags::NONE)); // nothing is left
    assert_eq!(fpu::cvt_s_d(env, SIGNALING_D), (DEFAULT_S, Flags::INVALID));
    assert_eq!(fpu::cvt_d_s(env, 0xffbf_ffff), (0xfff7_ffff_e000_0000, Flags::NONE));
    assert_eq!(fpu::cvt_d_s(env, 0x7fff_ffff), (DEFAULT_D, Flags::INVALID));
}

#[test]
fn a_quiet_nan_has_its_top_fraction_bit_clear() {
    assert_eq!((Single::DEFAULT_NAN, Double::DEFAULT_NAN), (DEFAULT_S.into(), DEFAULT_D));
    let env = Env::default();
    let host_quiet_nan = 0x7fc0_0000;
    assert_eq!(fpu::sqrt_s(env, host_quiet_nan), (DEFAULT_S, Flags::INVALID));
    assert_eq!(fpu::sqrt_s(env, DEFAULT_S), (DEFAULT_S, Flags::NONE));
}

#[test]
fn abs_and_neg_change_the_sign_alone_even_of_nans() {
    assert_eq!(fpu::neg_d(SIGNALING_D), SIGNALING_D | 1 << 63);
    assert_eq!(fpu::abs_d(QUIET_D), QUIET_D & !(1 << 63));
    assert_eq!(fpu::neg_s(0), 1 << 31);
    assert_eq!(fpu::abs_s(1 << 31 | 5), 5);
}

#[test]
fn madd_rounds_after_the_multiplication_and_after_the_addition() {
    // (1 + 2^-52)^2 - 1: a fused operation would keep 2^-104.
    let x = 0x3ff0_0000_0000_0001;
    let minus_one = (-1f64).to_bits();
    let expected = (f64::from_bits(x).powi(2) - 1.0).to_bits();
    assert_eq!(fpu::madd_d(Env::default(), minus_one, x, x), (expected, Flags::INEXACT));
    assert_eq!(fpu::msub_d(Env::default(), 1f64.to_bits(), x, x), (expected, Flags::INEXACT));
    let negated = expected | 1 << 63;
    assert_eq!(fpu::nmadd_d(Env::default(), minus_one, x, x), (negated, Flags::INEXACT));
    assert_eq!(fpu::nmsub_d(Env::default(), 1f64.to_bits(), x, x), (negated, Flags::INEXACT));
}

#[test]
fn madd_merges_the_flags_of_both_steps() {
    let (greatest, two) = (f64::MAX.to_bits(), 2f64.to_bits());
    let minus_infinity = f64::NEG_INFINITY.to_bits();
    let flags = Flags::OVERFLOW | Flags::INEXACT | Flags::INVALID;
    assert_eq!(fpu::madd_d(Env::default(), minus_infinity, greatest, two), (DEFAULT_D, flags));
}

#[test]
fn nmadd_and_nmsub_negate_a_nan_too() {
    let one = 1f64.to_bits();
    let (negated, default) = (fpu::neg_d(QUIET_D), fpu::neg_d(DEFAULT_D));
    assert_eq!(fpu::nmadd_d(Env::default(), QUIET_D, one, one), (negated, Flags::NONE));
    assert_eq!(fpu::nmsub_d(Env::default(), SIGNALING_D, one, one), (default, Flags::INVALID));
    assert_eq!(fpu::nmsub_s(Env::default(), DEFAULT_S, 0, 0), (DEFAULT_S | 1 << 31, Flags::NONE));
}

#[test]
fn recip_and_rsqrt_of_odd_operands() {
    let check = |operation: fn(Env, u64) -> (u64, Flags), x: f64, result: f64, flags: Flags| {
        assert_eq!(operation(Env::default(), x.to_bits()), (result.to_bits(), flags), "{x}");
    };
    let nan = f64::from_bits(DEFAULT_D);
    check(fpu::recip_d, -0.0, f64::NEG_INFINITY, Flags::DIVIDE_BY_ZERO);
    check(fpu::recip_d, f64::NEG_INFINITY, -0.0, Flags::NONE);
    check(fpu::recip_d, 3.0, 1.0 / 3.0, Flags::INEXACT);
    check(fpu::recip_d, f64::from_bits(1), f64::INFINITY, Flags::OVERFLOW | Flags::INEXACT);
    check(fpu::rsqrt_d, -0.0, f64::NEG_INFINITY, Flags::DIVIDE_BY_ZERO);
    check(fpu::rsqrt_d, -1.0, nan, Flags::INVALID);
    check(fpu::rsqrt_d, 0.25, 2.0, Flags::NONE);
    check(fpu::rsqrt_d, 2.0, 1.0 / 2f64.sqrt(), Flags::INEXACT);
}

#[test]
fn flushing_makes_tiny_results_zero_in_every_mode_and_leaves_operands_alone() {
    let (least, half) = (f64::MIN_POSITIVE.to_bits(), 0.5f64.to_bits());
    let both = Flags::UNDERFLOW | Flags::INEXACT;
    for rounding in (0..4).map(Rounding::from_rm) {
        let env = Env { flush: true, ..env(rounding) };
        assert_eq!(fpu::mul_d(env, least | 1 << 63, half), (1 << 63, both));
        assert_eq!(fpu::add_d(env, 1, least), (least + 1, Flags::NONE));
    }
}

#[test]
fn an_exact_tiny_result_underflows_only_where_that_traps() {
    let (least, half) = (f64::MIN_POSITIVE.to_bits(), 0.5f64.to_bits());
    let trapping = Env { underflow_traps: true, ..Env::default() };
    assert_eq!(fpu::mul_d(Env::default(), least, half), (least / 2, Flags::NONE));
    assert_eq!(fpu::mul_d(trapping, least, half), (least / 2, Flags::UNDERFLOW));
}

#[test]
fn a_condition_is_true_for_the_relations_in_its_name() {
    let (one, two) = (1f64.to_bits(), 2f64.to_bits());
    // Of each condition, in the order of its encodings: unordered, equal, less.
    let table = [
        ("f", "sf", [false, false, false]),
        ("un", "ngle", [true, false, false]),
        ("eq", "seq", [false, true, false]),
        ("ueq", "ngl", [true, true, false]),
        ("olt", "lt", [false, false, true]),
        ("ult", "nge", [true, false, true]),
        ("ole", "le", [false, true, true]),
        ("ule", "ngt", [true, true, true]),
    ];
    for (bits, (name, signaling_name, [unordered, equal, less])) in (0..).zip(table) {
        for (bits, name, quiet_flags) in [(bits, name, Flags::NONE), (bits + 8, signaling_name, Flags::INVALID)] {
            let condition = Condition::from_bits(bits);
            assert_eq!(condition.name(), name);
            for (fs, ft, expected) in [
                (QUIET_D, QUIET_D, (unordered, quiet_flags)),
                (one, QUIET_D, (unordered, quiet_flags)),
                (SIGNALING_D, one, (unordered, Flags::INVALID)),
                (QUIET_D, SIGNALING_D, (unordered, Flags::INVALID)),
                (0, 1 << 63, (equal, Flags::NONE)),
                (two, two, (equal, Flags::NONE)),
                (one, two, (less, Flags::NONE)),
                (fpu::neg_d(two), fpu::neg_d(one), (less, Flags::NONE)),
                (f64::NEG_INFINITY.to_bits(), 1 << 63, (less, Flags::NONE)),
                (two, one, (false, Flags::NONE)),
            ] {
                assert_eq!(fpu::compare_d(condition, fs, ft), expected, "{name} {fs:#x} {ft:#x}");
            }
        }
    }
}

#[test]
fn conditions_agree_with_the_order_of_the_host() {
    let mut random = Random(7);
    for _ in 0..CASES {
        let a = random.operand(&SINGLE);
        let b = random.partner(a, &SINGLE);
        let (a, b) = (a as u32, b as u32);
        let (x, y) = (f32::from_bits(a), f32::from_bits(b));
        let holds = |bits| fpu::compare_s(Condition::from_bits(bits), a, b).0;
        assert_eq!(holds(1), x.is_nan() || y.is_nan());
        assert_eq!((holds(2), holds(4), holds(6)), (x == y, x < y, x <= y), "{a:#x} {b:#x}");
    }
}

#[test]
fn committing_accumulates_flags_unless_one_traps() {
    let mut fcsr = Fcsr::from_bits(0x0000_0400); // Enables.Z
    assert_eq!(fcsr.commit(Flags::INEXACT), Ok(()));
    assert_eq!((fcsr.cause(), fcsr.flags()), (Flags::INEXACT, Flags::INEXACT));
    assert_eq!(fcsr.commit(Flags::NONE), Ok(()));
    assert_eq!((fcsr.cause(), fcsr.flags()), (Flags::NONE, Flags::INEXACT));
    let both = Flags::DIVIDE_BY_ZERO | Flags::OVERFLOW;
    assert_eq!(fcsr.commit(both), Err(FpTrap));
    assert_eq!((fcsr.cause(), fcsr.flags()), (both, Flags::INEXACT));
}

#[test]
fn writing_an_enabled_cause_traps_after_the_write() {
    let mut fcsr = Fcsr::default();
    assert_eq!(fcsr.write_control(31, 1 << 17), Err(FpTrap)); // E has no enable
    assert_eq!(fcsr.bits(), 1 << 17);
    assert_eq!(fcsr.write_control(31, 1 << 12), Ok(()));
    assert_eq!(fcsr.write_control(28, 1 << 7), Err(FpTrap));
    assert_eq!(fcsr.bits(), 1 << 12 | 1 << 7);
    assert_eq!(fcsr.write_control(26, 0), Ok(()));
    assert_eq!(fcsr.bits(), 1 << 7);
}

#[test]
fn views_of_fcsr_show_and_change_their_own_fields_only() {
    let all = 0xff83_ffff;
    for (number, field_bits, view_bits) in [
        (25, 0xfe80_0000, 0x0000_00ff),
        (26, 0x0003_f07c, 0x0003_f07c),
        (28, 0x0100_0f83, 0x0000_0f87),
        (31, all, all),
    ] {
        let mut fcsr = Fcsr::default();
        let _ = fcsr.write_control(number, u32::MAX);
        assert_eq!((fcsr.bits(), fcsr.read_control(number)), (field_bits, view_bits), "{number}");
        let mut fcsr = Fcsr::from_bits(u32::MAX);
        assert_eq!(fcsr.bits(), all);
        let _ = fcsr.write_control(number, 0);
        assert_eq!(fcsr.bits(), all & !field_bits, "{number}");
    }
}

#[test]
fn each_condition_code_has_its_bit_in_fccr() {
    for index in 0..8 {
        let mut fcsr = Fcsr::default();
        fcsr.set_condition(index, true);
        assert_eq!(fcsr.read_control(25), 1 << index);
        assert!((0..8).all(|other| fcsr.condition(other) == (other == index)));
        fcsr.set_condition(index, false);
        assert_eq!(fcsr, Fcsr::default());
    }
}

#[test]
fn fir_and_missing_registers_cannot_be_written() {
    let mut fcsr = Fcsr::default();
    for number in (0..31).filter(|number| ![25, 26, 28].contains(number)) {
        assert_eq!(fcsr.write_control(number, u32::MAX), Ok(()));
        assert_eq!(fcsr, Fcsr::default());
        assert_eq!(fcsr.read_control(number), if number == 0 { FIR } else { 0 });
    }
    assert_eq!(FIR, 0x0073_0000);
}

#[test]
fn fcsr_sets_the_environment_of_operations() {
    let fcsr = Fcsr::from_bits(1 << 24 | 1 << 8 | 3);
    let expected = Env { rounding: Rounding::Down, flush: true, underflow_traps: true };
    assert_eq!(fcsr.env(), expected);
    assert_eq!(Fcsr::default().env(), Env::default());
}
