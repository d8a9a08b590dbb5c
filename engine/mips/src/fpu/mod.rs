//! The arithmetic of the floating-point unit: pure functions on bit patterns, and FCSR.
//!
//! An operation takes its operands as register bits with the [`Env`] that FCSR sets, and returns
//! the result's bits with the IEEE 754 [`Flags`] that it raised. It touches no state: the caller
//! gives the flags to [`Fcsr::commit`] and writes the destination only if that does not trap.
//!
//! ```
//! use mips::fpu::{Fcsr, Flags, div_d};
//!
//! let mut fcsr = Fcsr::default();
//! let (third, flags) = div_d(fcsr.env(), 1f64.to_bits(), 3f64.to_bits());
//! assert_eq!((f64::from_bits(third), flags), (1.0 / 3.0, Flags::INEXACT));
//! assert!(fcsr.commit(flags).is_ok());
//! ```
//!
//! There are two implementations. `soft` computes everything with integers and is the reference.
//! `host` uses the host's arithmetic where the result is provably the same; functions here try it
//! first when rounding to nearest. Both give the same bits and flags on every host.
//!
//! # Rules
//! - NaNs are encoded as before 2008: a set top fraction bit is signaling. A signaling operand
//!   raises Invalid and gives the default NaN; else the first quiet operand is the result.
//!   Unicorn 2.1 (QEMU 5.0) does the same; QEMU today gives the default NaN for quiet ones too.
//! - CVT.S.D of a quiet NaN keeps the upper fraction bits; if they are all zero the result is the
//!   default NaN, where Unicorn 2.1 makes an infinity.
//! - Tininess is detected after rounding. Underflow needs inexactness too, unless it would trap.
//! - With FCSR.FS a tiny result becomes a zero of its sign in every rounding mode, Underflow and
//!   Inexact. Operands are not flushed. By the manual RP and RM can also give the smallest normal
//!   number of their direction; QEMU gives zero, but raises neither flag.
//! - ABS and NEG change the sign bit and nothing else, as QEMU does. The manual calls them
//!   arithmetic here (FCSR.ABS2008 = 0): a signaling NaN would raise Invalid.
//! - MADD and its kin round twice, after the multiplication and after the addition, as Release 2
//!   does. NMADD and NMSUB negate the result, a NaN included.
//! - RECIP is a division. RSQRT is a rounded square root and a division, flags merged; the manual
//!   allows less precision than that.
//!
//! Source: MIPS64 Architecture For Programmers Volumes I and II, Release 2; IEEE 754-1985; QEMU's
//! MIPS helpers for what these leave open.

mod compare;
mod env;
mod fcsr;
mod format;
mod host;
mod soft;
#[cfg(test)]
mod tests;

pub use compare::{Condition, compare_d, compare_s};
pub use env::{Env, Flags, Rounding};
pub use fcsr::{FIR, Fcsr, FpTrap};
use format::{Double, Format, Single};

/// Takes the host's answer where there may be one, else computes it.
#[inline]
fn fast_or_soft(
    env: Env,
    fast: impl FnOnce() -> Option<(u64, Flags)>,
    soft: impl FnOnce() -> (u64, Flags),
) -> (u64, Flags) {
    match env.rounding {
        Rounding::NearestEven => fast().unwrap_or_else(soft),
        _ => soft(),
    }
}

/// A result of format S, which the implementations carry in the low half.
#[inline]
fn low((bits, flags): (u64, Flags)) -> (u32, Flags) {
    (bits as u32, flags)
}

/// Defines an operation on two operands in both formats.
macro_rules! binary {
    ($doc:literal, $single:ident, $double:ident, $soft:ident) => {
        #[doc = concat!($doc, ", format S.")]
        #[inline]
        pub fn $single(env: Env, fs: u32, ft: u32) -> (u32, Flags) {
            low(fast_or_soft(
                env,
                || host::$single(fs, ft),
                || soft::$soft::<Single>(env, u64::from(fs), u64::from(ft)),
            ))
        }

        #[doc = concat!($doc, ", format D.")]
        #[inline]
        pub fn $double(env: Env, fs: u64, ft: u64) -> (u64, Flags) {
            fast_or_soft(env, || host::$double(fs, ft), || soft::$soft::<Double>(env, fs, ft))
        }
    };
}

binary!("ADD.fmt: `fs + ft`", add_s, add_d, add);
binary!("SUB.fmt: `fs - ft`", sub_s, sub_d, sub);
binary!("MUL.fmt: `fs * ft`", mul_s, mul_d, mul);
binary!("DIV.fmt: `fs / ft`", div_s, div_d, div);

/// Defines the operations that follow from the others, once for each format.
macro_rules! derived {
    ($format:ty, $bits:ty, $name:literal, $neg:ident $abs:ident $recip:ident
     $rsqrt:ident $madd:ident $msub:ident $nmadd:ident $nmsub:ident,
     from $add:ident $sub:ident $mul:ident $div:ident $sqrt:ident) => {
        #[doc = concat!("NEG.fmt: `fs` with its sign inverted, format ", $name, ".")]
        #[inline]
        pub const fn $neg(fs: $bits) -> $bits {
            fs ^ <$format>::SIGN as $bits
        }

        #[doc = concat!("ABS.fmt: `fs` with its sign cleared, format ", $name, ".")]
        #[inline]
        pub const fn $abs(fs: $bits) -> $bits {
            fs & !(<$format>::SIGN as $bits)
        }

        #[doc = concat!("RECIP.fmt: `1 / fs`, format ", $name, ".")]
        #[inline]
        pub fn $recip(env: Env, fs: $bits) -> ($bits, Flags) {
            $div(env, <$format>::ONE as $bits, fs)
        }

        #[doc = concat!("RSQRT.fmt: 1 divided by the root of `fs`, format ", $name, ".")]
        #[inline]
        pub fn $rsqrt(env: Env, fs: $bits) -> ($bits, Flags) {
            let (root, root_flags) = $sqrt(env, fs);
            let (result, flags) = $recip(env, root);
            (result, root_flags | flags)
        }

        #[doc = concat!("MADD.fmt: `fs * ft + fr`, rounded twice, format ", $name, ".")]
        #[inline]
        pub fn $madd(env: Env, fr: $bits, fs: $bits, ft: $bits) -> ($bits, Flags) {
            let (product, product_flags) = $mul(env, fs, ft);
            let (sum, flags) = $add(env, product, fr);
            (sum, product_flags | flags)
        }

        #[doc = concat!("MSUB.fmt: `fs * ft - fr`, rounded twice, format ", $name, ".")]
        #[inline]
        pub fn $msub(env: Env, fr: $bits, fs: $bits, ft: $bits) -> ($bits, Flags) {
            let (product, product_flags) = $mul(env, fs, ft);
            let (difference, flags) = $sub(env, product, fr);
            (difference, product_flags | flags)
        }

        #[doc = concat!("NMADD.fmt: `-(fs * ft + fr)`, rounded twice, format ", $name, ".")]
        #[inline]
        pub fn $nmadd(env: Env, fr: $bits, fs: $bits, ft: $bits) -> ($bits, Flags) {
            let (sum, flags) = $madd(env, fr, fs, ft);
            ($neg(sum), flags)
        }

        #[doc = concat!("NMSUB.fmt: `-(fs * ft - fr)`, rounded twice, format ", $name, ".")]
        #[inline]
        pub fn $nmsub(env: Env, fr: $bits, fs: $bits, ft: $bits) -> ($bits, Flags) {
            let (difference, flags) = $msub(env, fr, fs, ft);
            ($neg(difference), flags)
        }
    };
}

derived!(Single, u32, "S", neg_s abs_s recip_s rsqrt_s madd_s msub_s nmadd_s nmsub_s,
         from add_s sub_s mul_s div_s sqrt_s);
derived!(Double, u64, "D", neg_d abs_d recip_d rsqrt_d madd_d msub_d nmadd_d nmsub_d,
         from add_d sub_d mul_d div_d sqrt_d);

/// SQRT.S: the square root of `fs`.
#[inline]
pub fn sqrt_s(env: Env, fs: u32) -> (u32, Flags) {
    low(fast_or_soft(env, || host::sqrt_s(fs), || soft::sqrt::<Single>(env, u64::from(fs))))
}

/// SQRT.D: the square root of `fs`.
#[inline]
pub fn sqrt_d(env: Env, fs: u64) -> (u64, Flags) {
    fast_or_soft(env, || host::sqrt_d(fs), || soft::sqrt::<Double>(env, fs))
}

/// CVT.S.D: a double rounded to single precision.
#[inline]
pub fn cvt_s_d(env: Env, fs: u64) -> (u32, Flags) {
    low(fast_or_soft(env, || host::cvt_s_d(fs), || soft::convert::<Double, Single>(env, fs)))
}

/// CVT.D.S: a single in double precision; exact.
#[inline]
pub fn cvt_d_s(env: Env, fs: u32) -> (u64, Flags) {
    fast_or_soft(env, || host::cvt_d_s(fs), || soft::convert::<Single, Double>(env, u64::from(fs)))
}

/// CVT.S.W: the 32-bit integer `fs`.
#[inline]
pub fn cvt_s_w(env: Env, fs: u32) -> (u32, Flags) {
    low(soft::from_integer::<Single>(env, i64::from(fs as i32)))
}

/// CVT.S.L: the 64-bit integer `fs`.
#[inline]
pub fn cvt_s_l(env: Env, fs: u64) -> (u32, Flags) {
    low(soft::from_integer::<Single>(env, fs as i64))
}

/// CVT.D.W: the 32-bit integer `fs`; exact.
#[inline]
pub fn cvt_d_w(fs: u32) -> (u64, Flags) {
    (f64::from(fs as i32).to_bits(), Flags::NONE)
}

/// CVT.D.L: the 64-bit integer `fs`.
#[inline]
pub fn cvt_d_l(env: Env, fs: u64) -> (u64, Flags) {
    soft::from_integer::<Double>(env, fs as i64)
}

/// CVT.W.S with `rounding` from FCSR; ROUND, TRUNC, CEIL and FLOOR.W.S with their own.
#[inline]
pub fn cvt_w_s(rounding: Rounding, fs: u32) -> (u32, Flags) {
    let (integer, flags) = soft::to_integer::<Single>(rounding, u64::from(fs), 32);
    (integer as u32, flags)
}

/// CVT.W.D with `rounding` from FCSR; ROUND, TRUNC, CEIL and FLOOR.W.D with their own.
#[inline]
pub fn cvt_w_d(rounding: Rounding, fs: u64) -> (u32, Flags) {
    let (integer, flags) = soft::to_integer::<Double>(rounding, fs, 32);
    (integer as u32, flags)
}

/// CVT.L.S with `rounding` from FCSR; ROUND, TRUNC, CEIL and FLOOR.L.S with their own.
#[inline]
pub fn cvt_l_s(rounding: Rounding, fs: u32) -> (u64, Flags) {
    let (integer, flags) = soft::to_integer::<Single>(rounding, u64::from(fs), 64);
    (integer as u64, flags)
}

/// CVT.L.D with `rounding` from FCSR; ROUND, TRUNC, CEIL and FLOOR.L.D with their own.
#[inline]
pub fn cvt_l_d(rounding: Rounding, fs: u64) -> (u64, Flags) {
    let (integer, flags) = soft::to_integer::<Double>(rounding, fs, 64);
    (integer as u64, flags)
}
