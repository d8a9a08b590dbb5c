//! The instruction set: one table of MIPS64 Release 2, and what derives from it.
//!
//! Here belong the encodings, the decoder, the disassembler, a small assembler for our own guest
//! programs and tests, and the arithmetic of the floating-point unit. Nothing here knows a register
//! file, a memory or a machine, and nothing outside the standard library is used.
//!
//! ```text
//! table.rs       a row an instruction: encoding, operands, family, flags; the Op enum
//! insn.rs        a word taken apart
//! decode.rs      word -> row -> Insn, and back
//! register.rs    names of registers
//! operand.rs     the words of the operand column: printing and reading
//! disasm.rs      word -> text
//! expression.rs  constant expressions
//! asm.rs         text -> bytes
//! fpu/           what COP1 instructions compute
//! ```

#![forbid(unsafe_code)]

mod asm;
mod decode;
mod disasm;
mod expression;
pub mod fpu;
mod insn;
mod operand;
mod register;
mod table;

pub use asm::{AsmError, assemble};
pub use decode::{Fields, decode, encode, row_of};
pub use disasm::disassemble;
pub use insn::Insn;
pub use register::{C0_NAMES, GPR_NAMES};
pub use table::{ALIASES, Family, Flags, Op, RELATED, ROWS, Row, SYNONYMS};
