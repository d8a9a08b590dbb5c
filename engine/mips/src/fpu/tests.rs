//! The rules, each with the second opinion that fits it: rounding by search on a toy format, the
//! reference for the fast path. The processor's opinion on the real formats is asked outside the
//! crate, in `tests/fpu_processor.rs`: it takes `unsafe` code, which the crate forbids.

mod exact;
mod operands;
mod rules;

use super::Flags;

/// Random cases a test: enough for every branch in a debug build, for rare roundings in release.
const CASES: u32 = if cfg!(debug_assertions) { 300_000 } else { 10_000_000 };

/// A result of format S or W as the reference carries it.
fn wide((bits, flags): (u32, Flags)) -> (u64, Flags) {
    (u64::from(bits), flags)
}
