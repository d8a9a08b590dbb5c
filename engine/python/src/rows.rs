//! The rows of the instruction table, for tests that make programs from it.

use mips::{Flags, RELATED, ROWS, Row};
use pyo3::prelude::*;

/// The names of the flags, as in the table.
const FLAG_NAMES: [(Flags, &str); 13] = [
    (Flags::BRANCH, "BRANCH"),
    (Flags::LIKELY, "LIKELY"),
    (Flags::LOAD, "LOAD"),
    (Flags::STORE, "STORE"),
    (Flags::SIZE1, "SIZE1"),
    (Flags::SIZE2, "SIZE2"),
    (Flags::SIZE4, "SIZE4"),
    (Flags::SIZE8, "SIZE8"),
    (Flags::UNALIGNED, "UNALIGNED"),
    (Flags::ENDS, "ENDS"),
    (Flags::BITS64, "BITS64"),
    (Flags::CP1, "CP1"),
    (Flags::CP0, "CP0"),
];

/// One row of the instruction table.
#[pyclass(frozen, get_all, module = "disco._engine")]
pub struct InstructionRow {
    op: String,
    mnemonic: &'static str,
    pattern: &'static str,
    operands: &'static str,
    family: String,
    flags: Vec<&'static str>,
}

impl From<&Row> for InstructionRow {
    fn from(row: &Row) -> InstructionRow {
        InstructionRow {
            op: format!("{:?}", row.op),
            mnemonic: row.mnemonic,
            pattern: row.pattern,
            operands: row.operands,
            family: format!("{:?}", row.family),
            flags: FLAG_NAMES.iter().filter(|(flag, _)| row.flags.has(*flag)).map(|(_, name)| *name).collect(),
        }
    }
}

/// Every row: those that decode to an operation of their own first, in the order of the table.
#[pyfunction]
pub fn instruction_rows() -> Vec<InstructionRow> {
    ROWS.iter().chain(RELATED).map(InstructionRow::from).collect()
}
