//! The instruction set: one table of MIPS64 Release 2, and what derives from it.
//!
//! Here belong the encodings, the decoder, the disassembler, a small assembler for our own guest
//! programs and tests, and the arithmetic of the floating-point unit. Nothing here knows a register
//! file, a memory or a machine, and nothing outside the standard library is used.
//!
//! ```text
//! table.rs    a row an instruction: encoding, operands, family, flags; the Op enum
//! insn.rs     a word taken apart
//! decode.rs   word -> row -> Insn, and back
//! fpu/        what COP1 instructions compute
//! ```

#![forbid(unsafe_code)]

mod decode;
pub mod fpu;
mod insn;
mod table;

pub use decode::{Fields, decode, encode, row_of};
pub use insn::Insn;
pub use table::{Family, Flags, Op, RELATED, ROWS, Row};
