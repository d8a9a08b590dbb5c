//! The rules, each with the second opinion that fits it: rounding by search on a toy format, the
//! host's processor with its own flags on the real ones, the reference for the fast path.

mod exact;
mod operands;
#[cfg(target_arch = "x86_64")]
mod processor;
mod rules;

use super::Flags;

/// Random cases a test: enough for every branch in a debug build, for rare roundings in release.
const CASES: u32 = if cfg!(debug_assertions) {
    300_000
} else {
    10_000_000
};

/// A result of format S or W as the reference carries it.
fn wide((bits, flags): (u32, Flags)) -> (u64, Flags) {
    (u64::from(bits), flags)
}
