//! The processor under the tests as second opinion: SSE2 with its own rounding modes and flags.
//!
//! x86-64 detects tininess after rounding, as we do, and differs in NaNs only, which are
//! checked apart. Rounding to nearest exercises the fast path, the other modes the reference.
//!
//! LLVM assumes the default MXCSR around every block, so each one restores what it found, flags
//! included.
#![cfg(target_arch = "x86_64")]

use std::arch::asm;

use mips::fpu::{self, Env, Flags, Rounding};
use operands::{DOUBLE, Random, SINGLE, Shape};

#[path = "../src/fpu/tests/operands.rs"]
mod operands;

/// Random cases a test: enough for every branch in a debug build, for rare roundings in release.
const CASES: u32 = if cfg!(debug_assertions) { 300_000 } else { 10_000_000 };

/// All exceptions masked, flags clear, and the mode in bits 13 and 14.
fn mxcsr(rounding: Rounding) -> u32 {
    let control = match rounding {
        Rounding::NearestEven => 0,
        Rounding::Down => 1,
        Rounding::Up => 2,
        Rounding::TowardZero => 3,
    };
    0x1f80 | control << 13
}

/// MXCSR holds IE, DE, ZE, OE, UE, PE in bits 0 to 5; DE has no counterpart.
fn flags(mxcsr: u32) -> Flags {
    [
        (0x01, Flags::INVALID),
        (0x04, Flags::DIVIDE_BY_ZERO),
        (0x08, Flags::OVERFLOW),
        (0x10, Flags::UNDERFLOW),
        (0x20, Flags::INEXACT),
    ]
    .into_iter()
    .filter(|&(bit, _)| mxcsr & bit != 0)
    .fold(Flags::NONE, |set, (_, flag)| set | flag)
}

/// Defines a function that runs one instruction on `x` = `a` and `y` = `b` under a rounding mode
/// and takes the result from `x`. `{a}` and `{b}` are also at hand as general registers.
macro_rules! sse {
    ($name:ident, $instruction:literal) => {
        fn $name(rounding: Rounding, a: u64, b: u64) -> (u64, Flags) {
            let (mut result, mut found, mut status) = (a, 0u32, mxcsr(rounding));
            // SAFETY: SSE2 is part of x86-64. The block writes the registers it names and the two
            // words it is given pointers to, and leaves MXCSR as it was.
            unsafe {
                asm!(
                    "stmxcsr [{found}]",
                    "ldmxcsr [{status}]",
                    "movq {x}, {a}",
                    "movq {y}, {b}",
                    $instruction,
                    "movq {a}, {x}",
                    "stmxcsr [{status}]",
                    "ldmxcsr [{found}]",
                    found = in(reg) &raw mut found,
                    status = in(reg) &raw mut status,
                    a = inout(reg) result,
                    b = in(reg) b,
                    x = out(xmm_reg) _,
                    y = out(xmm_reg) _,
                );
            }
            (result, flags(status))
        }
    };
}

sse!(addsd, "addsd {x}, {y}");
sse!(subsd, "subsd {x}, {y}");
sse!(mulsd, "mulsd {x}, {y}");
sse!(divsd, "divsd {x}, {y}");
sse!(sqrtsd, "sqrtsd {x}, {x}");
sse!(addss, "addss {x}, {y}");
sse!(subss, "subss {x}, {y}");
sse!(mulss, "mulss {x}, {y}");
sse!(divss, "divss {x}, {y}");
sse!(sqrtss, "sqrtss {x}, {x}");
sse!(cvtsd2ss, "cvtsd2ss {x}, {x}\nmovd {a:e}, {x}\nmovq {x}, {a}");
sse!(cvtss2sd, "cvtss2sd {x}, {x}");
sse!(cvtsi2sd, "cvtsi2sd {x}, {a}");
sse!(cvtsi2ss, "pxor {x}, {x}\ncvtsi2ss {x}, {a}");
sse!(cvtsd2si, "cvtsd2si {a}, {x}\nmovq {x}, {a}");
sse!(cvtss2si, "cvtss2si {a}, {x}\nmovq {x}, {a}");
sse!(cvtsd2si_w, "cvtsd2si {a:e}, {x}\nmovq {x}, {a}");
sse!(cvtss2si_w, "cvtss2si {a:e}, {x}\nmovq {x}, {a}");

type Ours = fn(Env, u64, u64) -> (u64, Flags);
type Processor = fn(Rounding, u64, u64) -> (u64, Flags);

/// One operation, ours and the processor's.
struct Pair {
    name: &'static str,
    ours: Ours,
    processor: Processor,
}

/// A bit pattern that is a NaN of the format.
fn is_nan(shape: &Shape, bits: u64) -> bool {
    match shape.sign() {
        0x8000_0000 => f32::from_bits(bits as u32).is_nan(),
        _ => f64::from_bits(bits).is_nan(),
    }
}

/// The default NaN: every fraction bit but the top one.
fn default_nan(shape: &Shape) -> u64 {
    match shape.sign() {
        0x8000_0000 => 0x7fbf_ffff,
        _ => 0x7ff7_ffff_ffff_ffff,
    }
}

/// A result of format S or W as the processor's registers carry it.
fn wide((bits, flags): (u32, Flags)) -> (u64, Flags) {
    (u64::from(bits), flags)
}

impl Pair {
    /// Compares one case of an operation from format `source` to format `target`.
    ///
    /// Of an operation on a NaN only that it gives a NaN: the two disagree about which ones signal.
    /// Where the processor makes a NaN from numbers, ours is the default one and Invalid.
    fn check(&self, [source, target]: [&Shape; 2], rm: u32, a: u64, b: u64) {
        let rounding = Rounding::from_rm(rm);
        let got = (self.ours)(Env { rounding, ..Env::default() }, a, b);
        let expected = (self.processor)(rounding, a, b);
        let agrees = if is_nan(source, a) || is_nan(source, b) {
            is_nan(target, got.0)
        } else if is_nan(target, expected.0) {
            got == (default_nan(target), Flags::INVALID)
        } else {
            got == expected
        };
        let name = self.name;
        assert!(agrees, "{name} {rounding:?} {a:#x} {b:#x}: {got:x?}, processor {expected:x?}");
    }

    /// Compares on all pairs of odd operands and many random ones.
    fn check_binary(&self, shape: &Shape) {
        for a in shape.odd() {
            for b in shape.odd() {
                (0..4).for_each(|rm| self.check([shape; 2], rm, a, b));
            }
        }
        let mut random = Random(1);
        for case in 0..CASES {
            let a = random.operand(shape);
            let b = random.partner(a, shape);
            self.check([shape; 2], case, a, b);
        }
    }

    /// Compares on all odd operands and many random ones.
    fn check_unary(&self, [source, target]: [&Shape; 2]) {
        for a in source.odd() {
            (0..4).for_each(|rm| self.check([source, target], rm, a, 0));
        }
        let mut random = Random(2);
        for case in 0..CASES {
            self.check([source, target], case, random.operand(source), 0);
        }
    }
}

#[test]
fn double_arithmetic_agrees_with_the_processor() {
    let pairs = [
        Pair { name: "add.d", ours: fpu::add_d, processor: addsd },
        Pair { name: "sub.d", ours: fpu::sub_d, processor: subsd },
        Pair { name: "mul.d", ours: fpu::mul_d, processor: mulsd },
        Pair { name: "div.d", ours: fpu::div_d, processor: divsd },
    ];
    pairs.iter().for_each(|pair| pair.check_binary(&DOUBLE));
}

#[test]
fn single_arithmetic_agrees_with_the_processor() {
    let add: Ours = |env, a, b| wide(fpu::add_s(env, a as u32, b as u32));
    let sub: Ours = |env, a, b| wide(fpu::sub_s(env, a as u32, b as u32));
    let mul: Ours = |env, a, b| wide(fpu::mul_s(env, a as u32, b as u32));
    let div: Ours = |env, a, b| wide(fpu::div_s(env, a as u32, b as u32));
    let pairs = [
        Pair { name: "add.s", ours: add, processor: addss },
        Pair { name: "sub.s", ours: sub, processor: subss },
        Pair { name: "mul.s", ours: mul, processor: mulss },
        Pair { name: "div.s", ours: div, processor: divss },
    ];
    pairs.iter().for_each(|pair| pair.check_binary(&SINGLE));
}

#[test]
fn square_roots_agree_with_the_processor() {
    let double: Ours = |env, a, _| fpu::sqrt_d(env, a);
    let single: Ours = |env, a, _| wide(fpu::sqrt_s(env, a as u32));
    Pair { name: "sqrt.d", ours: double, processor: sqrtsd }.check_unary([&DOUBLE; 2]);
    Pair { name: "sqrt.s", ours: single, processor: sqrtss }.check_unary([&SINGLE; 2]);
}

#[test]
fn conversions_between_formats_agree_with_the_processor() {
    let narrow: Ours = |env, a, _| wide(fpu::cvt_s_d(env, a));
    let widen: Ours = |env, a, _| fpu::cvt_d_s(env, a as u32);
    Pair { name: "cvt.s.d", ours: narrow, processor: cvtsd2ss }.check_unary([&DOUBLE, &SINGLE]);
    Pair { name: "cvt.d.s", ours: widen, processor: cvtss2sd }.check_unary([&SINGLE, &DOUBLE]);
}

#[test]
fn conversions_from_integers_agree_with_the_processor() {
    let mut random = Random(3);
    let boundaries = (0..64).flat_map(|n| (0..5).map(move |d| (1 << n) + d - 2));
    let more = (0..CASES).map(|n| i128::from(random.bits() as i64 >> (n % 64)));
    for integer in boundaries.flat_map(|n: i128| [n, -n]).chain(more) {
        let integer = integer as u64;
        for rm in 0..4 {
            let rounding = Rounding::from_rm(rm);
            let env = Env { rounding, ..Env::default() };
            let word = integer as i32 as u64;
            assert_eq!(fpu::cvt_d_l(env, integer), cvtsi2sd(rounding, integer, 0));
            assert_eq!(wide(fpu::cvt_s_l(env, integer)), cvtsi2ss(rounding, integer, 0));
            assert_eq!(fpu::cvt_d_w(integer as u32), cvtsi2sd(rounding, word, 0));
            assert_eq!(wide(fpu::cvt_s_w(env, integer as u32)), cvtsi2ss(rounding, word, 0));
        }
    }
}

/// The processor's answer with our default in the place of its own for what cannot be represented.
fn with_legacy_default(answer: (u64, Flags), largest: u64) -> (u64, Flags) {
    if answer.1 == Flags::INVALID { (largest, Flags::INVALID) } else { answer }
}

#[test]
fn conversions_to_integers_agree_with_the_processor() {
    const W: u64 = i32::MAX as u64;
    const L: u64 = i64::MAX as u64;
    let mut random = Random(4);
    let mut operands = DOUBLE.odd().collect::<Vec<u64>>();
    // Around every power of two, in steps of a place and of an eighth.
    for n in -3..66 {
        let power = 2f64.powi(n);
        let near = power.to_bits();
        operands.extend([near - 1, near, near + 1]);
        operands.extend((-20..20).map(|eighths| (power + f64::from(eighths) / 8.0).to_bits()));
    }
    operands.extend((0..CASES).map(|_| random.operand(&DOUBLE)));
    for a in operands.into_iter().flat_map(|a| [a, a ^ DOUBLE.sign()]) {
        for rounding in (0..4).map(Rounding::from_rm) {
            let single = fpu::cvt_s_d(Env::default(), a).0;
            let source = u64::from(single);
            let expected = with_legacy_default(cvtsd2si(rounding, a, 0), L);
            assert_eq!(fpu::cvt_l_d(rounding, a), expected, "cvt.l.d {rounding:?} {a:#x}");
            let expected = with_legacy_default(cvtsd2si_w(rounding, a, 0), W);
            assert_eq!(wide(fpu::cvt_w_d(rounding, a)), expected, "cvt.w.d {rounding:?} {a:#x}");
            let expected = with_legacy_default(cvtss2si(rounding, source, 0), L);
            assert_eq!(fpu::cvt_l_s(rounding, single), expected, "cvt.l.s {rounding:?} {single:#x}");
            let expected = with_legacy_default(cvtss2si_w(rounding, source, 0), W);
            assert_eq!(wide(fpu::cvt_w_s(rounding, single)), expected, "cvt.w.s {single:#x}");
        }
    }
}
