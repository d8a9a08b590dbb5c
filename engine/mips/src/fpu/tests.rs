//! The rules, each with the second opinion that fits it: rounding by search on a toy format, the
//! host's processor with its own flags on the real ones, the reference for the fast path.

mod exact;
mod operands;
