//! The processor under the tests as second opinion: SSE2 with its own rounding modes and flags.
//!
//! x86-64 detects tininess after rounding, as we do, and differs in NaNs only, which are left out.
//! LLVM assumes the default MXCSR around every block, so each one restores what it found, flags
//! included.

use std::arch::asm;

use super::operands::{ODD_DOUBLES, ODD_SINGLES, Random, signed};
use super::{CASES, wide};
use crate::fpu::env::{Env, Flags, Rounding};
use crate::fpu::format::{Double, Format, Single};
use crate::fpu::{self, soft};

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
    Flags::INVALID.when(mxcsr & 0x01 != 0)
        | Flags::DIVIDE_BY_ZERO.when(mxcsr & 0x04 != 0)
        | Flags::OVERFLOW.when(mxcsr & 0x08 != 0)
        | Flags::UNDERFLOW.when(mxcsr & 0x10 != 0)
        | Flags::INEXACT.when(mxcsr & 0x20 != 0)
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
sse!(
    cvtsd2ss,
    "cvtsd2ss {x}, {x}\nmovd {a:e}, {x}\nmovq {x}, {a}"
);
sse!(cvtss2sd, "cvtss2sd {x}, {x}");
sse!(cvtsi2sd, "cvtsi2sd {x}, {a}");
sse!(cvtsi2ss, "pxor {x}, {x}\ncvtsi2ss {x}, {a}");
sse!(cvtsd2si, "cvtsd2si {a}, {x}\nmovq {x}, {a}");
sse!(cvtss2si, "cvtss2si {a}, {x}\nmovq {x}, {a}");
sse!(cvtsd2si_w, "cvtsd2si {a:e}, {x}\nmovq {x}, {a}");
sse!(cvtss2si_w, "cvtss2si {a:e}, {x}\nmovq {x}, {a}");

type Ours = fn(Env, u64, u64) -> (u64, Flags);
type Processor = fn(Rounding, u64, u64) -> (u64, Flags);

/// One operation from format `F` to format `G`, ours and the processor's.
struct Pair {
    name: &'static str,
    ours: Ours,
    processor: Processor,
}

fn is_nan<F: Format>(bits: u64) -> bool {
    bits & !F::SIGN > F::INFINITY
}

impl Pair {
    /// Compares one case.
    ///
    /// Where the processor gives a NaN ours is the default one, and Invalid is compared only when
    /// no operand was a NaN: the two disagree about which NaNs signal.
    fn check<F: Format, G: Format>(&self, rm: u32, a: u64, b: u64) {
        let rounding = Rounding::from_rm(rm);
        let got = (self.ours)(
            Env {
                rounding,
                ..Env::default()
            },
            a,
            b,
        );
        let expected = (self.processor)(rounding, a, b);
        let has_nan_operand = is_nan::<F>(a) || is_nan::<F>(b);
        let agrees = if has_nan_operand {
            got.0 == G::DEFAULT_NAN
        } else if is_nan::<G>(expected.0) {
            got == (G::DEFAULT_NAN, Flags::INVALID)
        } else {
            got == expected
        };
        let name = self.name;
        assert!(
            agrees,
            "{name} {rounding:?} {a:#x} {b:#x}: {got:x?}, processor {expected:x?}"
        );
    }

    /// Compares on all pairs of odd operands and many random ones.
    fn check_binary<F: Format>(&self, odd: &[u64]) {
        for a in signed::<F>(odd) {
            for b in signed::<F>(odd) {
                (0..4).for_each(|rm| self.check::<F, F>(rm, a, b));
            }
        }
        let mut random = Random(1);
        for case in 0..CASES {
            let a = random.operand::<F>(odd);
            let b = random.partner::<F>(a, odd);
            self.check::<F, F>(case, a, b);
        }
    }

    /// Compares on all odd operands and many random ones.
    fn check_unary<F: Format, G: Format>(&self, odd: &[u64]) {
        for a in signed::<F>(odd) {
            (0..4).for_each(|rm| self.check::<F, G>(rm, a, 0));
        }
        let mut random = Random(2);
        for case in 0..CASES {
            self.check::<F, G>(case, random.operand::<F>(odd), 0);
        }
    }
}

#[test]
fn double_arithmetic_agrees_with_the_processor() {
    let pairs = [
        Pair {
            name: "add.d",
            ours: soft::add::<Double>,
            processor: addsd,
        },
        Pair {
            name: "mul.d",
            ours: soft::mul::<Double>,
            processor: mulsd,
        },
        Pair {
            name: "div.d",
            ours: soft::div::<Double>,
            processor: divsd,
        },
        Pair {
            name: "sub.d",
            ours: |env, a, b| fpu::sub_d(env, a, b),
            processor: subsd,
        },
    ];
    pairs
        .iter()
        .for_each(|pair| pair.check_binary::<Double>(&ODD_DOUBLES));
}

#[test]
fn single_arithmetic_agrees_with_the_processor() {
    let sub_s: Ours = |env, a, b| wide(fpu::sub_s(env, a as u32, b as u32));
    let pairs = [
        Pair {
            name: "add.s",
            ours: soft::add::<Single>,
            processor: addss,
        },
        Pair {
            name: "mul.s",
            ours: soft::mul::<Single>,
            processor: mulss,
        },
        Pair {
            name: "div.s",
            ours: soft::div::<Single>,
            processor: divss,
        },
        Pair {
            name: "sub.s",
            ours: sub_s,
            processor: subss,
        },
    ];
    pairs
        .iter()
        .for_each(|pair| pair.check_binary::<Single>(&ODD_SINGLES));
}

#[test]
fn square_roots_agree_with_the_processor() {
    let double: Ours = |env, a, _| soft::sqrt::<Double>(env, a);
    let single: Ours = |env, a, _| soft::sqrt::<Single>(env, a);
    Pair {
        name: "sqrt.d",
        ours: double,
        processor: sqrtsd,
    }
    .check_unary::<Double, Double>(&ODD_DOUBLES);
    Pair {
        name: "sqrt.s",
        ours: single,
        processor: sqrtss,
    }
    .check_unary::<Single, Single>(&ODD_SINGLES);
}

#[test]
fn conversions_between_formats_agree_with_the_processor() {
    let narrow: Ours = |env, a, _| soft::convert::<Double, Single>(env, a);
    let widen: Ours = |env, a, _| soft::convert::<Single, Double>(env, a);
    Pair {
        name: "cvt.s.d",
        ours: narrow,
        processor: cvtsd2ss,
    }
    .check_unary::<Double, Single>(&ODD_DOUBLES);
    Pair {
        name: "cvt.d.s",
        ours: widen,
        processor: cvtss2sd,
    }
    .check_unary::<Single, Double>(&ODD_SINGLES);
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
            let env = Env {
                rounding,
                ..Env::default()
            };
            let word = integer as i32 as u64;
            assert_eq!(fpu::cvt_d_l(env, integer), cvtsi2sd(rounding, integer, 0));
            assert_eq!(
                wide(fpu::cvt_s_l(env, integer)),
                cvtsi2ss(rounding, integer, 0)
            );
            assert_eq!(fpu::cvt_d_w(integer as u32), cvtsi2sd(rounding, word, 0));
            assert_eq!(
                wide(fpu::cvt_s_w(env, integer as u32)),
                cvtsi2ss(rounding, word, 0)
            );
        }
    }
}

/// The processor's answer with our default in the place of its own for what cannot be represented.
fn with_legacy_default(answer: (u64, Flags), largest: u64) -> (u64, Flags) {
    if answer.1 == Flags::INVALID {
        (largest, Flags::INVALID)
    } else {
        answer
    }
}

#[test]
fn conversions_to_integers_agree_with_the_processor() {
    const W: u64 = i32::MAX as u64;
    const L: u64 = i64::MAX as u64;
    let mut random = Random(4);
    let mut operands = signed::<Double>(&ODD_DOUBLES);
    // Around every power of two, in steps of a place and of an eighth.
    for n in -3..66 {
        let power = 2f64.powi(n);
        let near = power.to_bits();
        operands.extend([near - 1, near, near + 1]);
        operands.extend((-20..20).map(|eighths| (power + f64::from(eighths) / 8.0).to_bits()));
    }
    operands.extend((0..CASES).map(|_| random.operand::<Double>(&ODD_DOUBLES)));
    for a in operands.into_iter().flat_map(|a| [a, a ^ Double::SIGN]) {
        for rounding in (0..4).map(Rounding::from_rm) {
            let single = fpu::cvt_s_d(Env::default(), a).0;
            let source = u64::from(single);
            let expected = with_legacy_default(cvtsd2si(rounding, a, 0), L);
            assert_eq!(
                fpu::cvt_l_d(rounding, a),
                expected,
                "cvt.l.d {rounding:?} {a:#x}"
            );
            let expected = with_legacy_default(cvtsd2si_w(rounding, a, 0), W);
            assert_eq!(
                wide(fpu::cvt_w_d(rounding, a)),
                expected,
                "cvt.w.d {rounding:?} {a:#x}"
            );
            let expected = with_legacy_default(cvtss2si(rounding, source, 0), L);
            assert_eq!(
                fpu::cvt_l_s(rounding, single),
                expected,
                "cvt.l.s {rounding:?} {single:#x}"
            );
            let expected = with_legacy_default(cvtss2si_w(rounding, source, 0), W);
            assert_eq!(
                wide(fpu::cvt_w_s(rounding, single)),
                expected,
                "cvt.w.s {single:#x}"
            );
        }
    }
}
