//! From a word to assembler text, in the manner of `objdump` from GNU binutils for n64.
//!
//! Registers have their n64 names, branches and jumps name absolute addresses, and the usual aliases
//! are printed (`move`, `li`, `b`, `beqz`). Unlike `objdump` we put one space after the mnemonic, keep
//! the manual's own names (`rotr`, `dextm`), and print an alias only if assembling it gives the same
//! word: `daddu v0,v1,zero` stays what it is. A word that no text means is a `.word`.

use crate::decode::row_of;
use crate::operand::{Operand, operands_of};
use crate::register::CONDITION_NAMES;
use crate::table::{ALIASES, Row};

/// The text of `word` at virtual address `pc`. It assembles to `word` again.
pub fn disassemble(word: u32, pc: u64) -> String {
    let alias = ALIASES.iter().find(|row| row.is_exact(word));
    let row = alias.unwrap_or_else(|| row_of(word));
    print_row(row, word, pc).unwrap_or_else(|| format!(".word {word:#x}"))
}

/// `word` as a case of `row`; `None` when the text would not say all of it.
fn print_row(row: &Row, word: u32, pc: u64) -> Option<String> {
    if !row.is_exact(word) {
        return None;
    }
    let mnemonic = row.mnemonic.replace('*', CONDITION_NAMES[(word & 15) as usize]);
    let operands: Vec<Operand> = operands_of(row.operands).collect();
    let mut texts = Vec::with_capacity(operands.len());
    for (index, operand) in operands.iter().enumerate() {
        let text = operand.print(word, pc)?;
        let is_left_out =
            operands[index..].iter().filter(|later| later.default().is_some()).all(|later| later.is_default(word));
        let is_default = operand.default().is_some() && is_left_out;
        if !is_default && !operand.is_silent() {
            texts.push(text);
        }
    }
    let separator = if texts.is_empty() { "" } else { " " };
    Some(format!("{mnemonic}{separator}{}", texts.join(",")))
}
