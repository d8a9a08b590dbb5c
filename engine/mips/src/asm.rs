//! A small two-pass assembler over the same table, for our own guest programs and tests.
//!
//! ```text
//! label:  addiu a0, zero, 5        # to the end of the line, as after //
//!         lw    t0, %lo(data)(a0)
//!         .equ  size, 4 * 16
//! ```
//!
//! One statement a line, any number of labels before it. Nothing is reordered or filled in: what
//! follows a branch is its delay slot. Registers are `$4`, `$a0` or `a0` with the n64 names, so t0 is
//! $12 and there is no t4. Instructions are those of the table, its aliases and synonyms, and
//!
//! ```text
//! li  rt, value    at most 2 instructions; value of 32 bits, signed or not, is sign-extended
//! dli rt, value    at most 6 instructions; any value known at this point of the text
//! la  rt, address  2 instructions; an address that is a sign-extended 32-bit value
//! dla rt, address  6 instructions; any address
//! ```
//!
//! Directives: `.byte`, `.half`, `.word`, `.dword` (lists of values, not aligned for you), `.ascii`,
//! `.asciiz`, `.space bytes`, `.align n` (to 2^n), `.org address` (forward, zeros between) and
//! `.equ name, value`. Expressions are those of `expression.rs`.
//!
//! The first pass gives every statement its address and size, the second its bytes.

use std::collections::HashMap;
use std::fmt;
use std::sync::LazyLock;

use crate::decode::{Fields, encode};
use crate::expression::{evaluate, is_symbol, unescape};
use crate::operand::{Operand, operands_of};
use crate::register::{CONDITION_NAMES, parse_gpr};
use crate::table::{ALIASES, Op, RELATED, ROWS, Row, SYNONYMS};

/// A program that does not assemble: the first line that is wrong, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AsmError {
    /// Counted from 1.
    pub line: usize,
    /// A sentence without the line number.
    pub message: String,
}

impl fmt::Display for AsmError {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "line {}: {}", self.line, self.message)
    }
}

impl std::error::Error for AsmError {}

/// The bytes of `source`, little endian, to be placed at virtual address `base`.
///
/// # Errors
/// [`AsmError`] for the first line that cannot be assembled.
pub fn assemble(source: &str, base: u64) -> Result<Vec<u8>, AsmError> {
    let mut program = Program { symbols: HashMap::new(), placed: Vec::new(), address: base };
    for (index, text) in source.lines().enumerate() {
        let line = index + 1;
        program.read_line(line, text).map_err(|message| AsmError { line, message })?;
    }
    let Program { symbols, placed, .. } = program;
    let mut bytes = Vec::new();
    for statement in placed {
        let emitted = statement.emit(&symbols);
        let emitted = emitted.map_err(|message| AsmError { line: statement.line, message })?;
        bytes.extend(emitted);
    }
    Ok(bytes)
}

type Symbols = HashMap<String, i64>;

/// What the first pass gathers.
struct Program<'a> {
    symbols: Symbols,
    placed: Vec<Statement<'a>>,
    /// Where the next statement goes.
    address: u64,
}

/// A statement that makes bytes.
struct Statement<'a> {
    line: usize,
    address: u64,
    name: &'a str,
    operands: &'a str,
    size: u64,
}

impl<'a> Program<'a> {
    fn read_line(&mut self, line: usize, text: &'a str) -> Result<(), String> {
        let mut rest = without_comment(text).trim();
        while let Some((label, after)) = split_label(rest) {
            self.define(label, self.address as i64)?;
            rest = after;
        }
        let (name, operands) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        match name {
            "" => Ok(()),
            ".equ" => self.equate(operands),
            _ => self.place(line, name, operands.trim()),
        }
    }

    fn define(&mut self, name: &str, value: i64) -> Result<(), String> {
        match self.symbols.insert(name.to_string(), value) {
            None => Ok(()),
            Some(_) => Err(format!("{name} is defined twice")),
        }
    }

    fn equate(&mut self, operands: &str) -> Result<(), String> {
        let (name, value) = operands.split_once(',').ok_or(".equ takes a name and a value")?;
        let name = name.trim();
        if !is_symbol(name) {
            return Err(format!("{name} cannot be a name"));
        }
        let value = value_of(value, self.address, &self.symbols)?;
        self.define(name, value)
    }

    fn place(&mut self, line: usize, name: &'a str, operands: &'a str) -> Result<(), String> {
        let address = self.address;
        let size = size_of_statement(name, operands, address, &self.symbols)?;
        self.address = address.wrapping_add(size);
        self.placed.push(Statement { line, address, name, operands, size });
        Ok(())
    }
}

/// The line up to `#` or `//` outside of quotes.
fn without_comment(text: &str) -> &str {
    let (mut quote, mut is_escaped) = (None, false);
    for (index, byte) in text.bytes().enumerate() {
        match (quote, byte) {
            (Some(_), _) if is_escaped => is_escaped = false,
            (Some(_), b'\\') => is_escaped = true,
            (Some(open), _) if open == byte => quote = None,
            (None, b'"' | b'\'') => quote = Some(byte),
            (None, b'#') => return &text[..index],
            (None, b'/') if text[index..].starts_with("//") => return &text[..index],
            _ => {}
        }
    }
    text
}

fn split_label(text: &str) -> Option<(&str, &str)> {
    let (label, rest) = text.split_once(':')?;
    is_symbol(label).then(|| (label, rest.trim_start()))
}

fn value_of(text: &str, address: u64, symbols: &Symbols) -> Result<i64, String> {
    evaluate(text, &|name| match (name, symbols.get(name)) {
        (".", _) => Ok(address as i64),
        (_, Some(value)) => Ok(*value),
        (_, None) => Err(format!("{name} is not defined")),
    })
}

/// Bytes of a statement at `address`, with the symbols defined so far.
fn size_of_statement(name: &str, operands: &str, address: u64, symbols: &Symbols) -> Result<u64, String> {
    let value = |text| value_of(text, address, symbols);
    match name {
        ".space" => u64::try_from(value(operands)?).map_err(|_| "a size is negative".to_string()),
        ".align" => match u32::try_from(value(operands)?) {
            Ok(power @ 0..=16) => Ok(address.wrapping_neg() & ((1 << power) - 1)),
            _ => Err(format!("{operands}: .align takes a power of two from 0 to 16")),
        },
        ".org" => {
            let target = value(operands)? as u64;
            let distance = target.checked_sub(address);
            distance.ok_or(format!("{target:#x} lies before {address:#x}"))
        }
        ".ascii" => Ok(quoted(operands)?.len() as u64),
        ".asciiz" => Ok(quoted(operands)?.len() as u64 + 1),
        "la" => Ok(2 * 4),
        "dla" => Ok(6 * 4),
        "li" | "dli" => {
            let (_, text) = register_and_value(operands)?;
            Ok(4 * load_value(0, loadable(name, value(text)?)?).len() as u64)
        }
        _ => match value_bytes(name) {
            Some(bytes) => Ok(bytes * split_list(operands).len() as u64),
            None if name.starts_with('.') => Err(format!("{name} is no directive")),
            None => Ok(4),
        },
    }
}

/// Bytes of one value of a data directive.
fn value_bytes(name: &str) -> Option<u64> {
    match name {
        ".byte" => Some(1),
        ".half" => Some(2),
        ".word" => Some(4),
        ".dword" => Some(8),
        _ => None,
    }
}

/// The values between the commas; a comma in quotes is a value.
fn split_list(text: &str) -> Vec<&str> {
    let text_without = text.replace("','", "'-'");
    let ends = text_without.match_indices(',').map(|(index, _)| index).chain([text.len()]);
    let mut start = 0;
    ends.map(|end| &text[std::mem::replace(&mut start, end + 1)..end]).collect()
}

fn quoted(text: &str) -> Result<Vec<u8>, String> {
    let inner = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    unescape(inner.ok_or(format!("{text} is not in quotes"))?)
}

impl Statement<'_> {
    fn emit(&self, symbols: &Symbols) -> Result<Vec<u8>, String> {
        match self.name {
            ".space" | ".align" | ".org" => Ok(vec![0; self.size as usize]),
            ".ascii" => quoted(self.operands),
            ".asciiz" => Ok([quoted(self.operands)?, vec![0]].concat()),
            _ => match value_bytes(self.name) {
                Some(bytes) => self.emit_values(bytes as usize, symbols),
                None => self.emit_words(symbols),
            },
        }
    }

    fn emit_values(&self, value_bytes: usize, symbols: &Symbols) -> Result<Vec<u8>, String> {
        let mut emitted = Vec::with_capacity(self.size as usize);
        for text in split_list(self.operands) {
            let value = value_of(text, self.address, symbols)?;
            let unused_bits = 64 - 8 * value_bytes as u32;
            let is_signed = value << unused_bits >> unused_bits == value;
            let is_unsigned = (value as u64) << unused_bits >> unused_bits == value as u64;
            if !is_signed && !is_unsigned {
                return Err(format!("{value:#x} does not fit in {value_bytes} bytes"));
            }
            emitted.extend(&value.to_le_bytes()[..value_bytes]);
        }
        Ok(emitted)
    }

    fn emit_words(&self, symbols: &Symbols) -> Result<Vec<u8>, String> {
        if self.address & 3 != 0 {
            return Err(format!("an instruction at {:#x}, not aligned to a word", self.address));
        }
        let words = match self.name {
            "la" | "dla" | "li" | "dli" => {
                let (register, text) = register_and_value(self.operands)?;
                let value = value_of(text, self.address, symbols)?;
                match self.name {
                    "la" => load_address(register, value)?,
                    "dla" => load_long_address(register, value),
                    _ => load_value(register, loadable(self.name, value)?),
                }
            }
            _ => vec![self.instruction(symbols)?],
        };
        Ok(words.iter().flat_map(|word| word.to_le_bytes()).collect())
    }

    /// The first row of this name that the operands fit; the complaint is that of the first row.
    fn instruction(&self, symbols: &Symbols) -> Result<u32, String> {
        let candidates = NAMES.get(self.name).map_or(&[][..], Vec::as_slice);
        let mut complaint = format!("{} is no instruction", self.name);
        for (index, (row, condition)) in candidates.iter().enumerate() {
            match self.instruction_of(row, symbols) {
                Ok(word) => return Ok(word | condition),
                Err(message) if index == 0 => complaint = message,
                Err(_) => {}
            }
        }
        Err(complaint)
    }

    fn instruction_of(&self, row: &Row, symbols: &Symbols) -> Result<u32, String> {
        let operands: Vec<Operand> = operands_of(row.operands).collect();
        let written = operands.iter().filter(|operand| !operand.is_silent()).count();
        let texts: Vec<&str> = match self.operands {
            "" => Vec::new(),
            text => text.splitn(written.max(1), ',').map(str::trim).collect(),
        };
        let mut missing = written.checked_sub(texts.len());
        let optional = operands.iter().filter(|operand| operand.default().is_some()).count();
        missing = missing.filter(|missing| *missing <= optional);
        let missing = missing.ok_or(format!("{} takes {}", self.name, describe(row)))?;
        let mut given_optional = optional - missing;
        let mut texts = texts.into_iter();
        let mut word = row.value;
        for operand in operands {
            let is_given = operand.default().is_none() || given_optional > 0;
            if operand.default().is_some() && is_given {
                given_optional -= 1;
            }
            word |= match is_given {
                true => {
                    let text = if operand.is_silent() { None } else { texts.next() };
                    let evaluate = |text: &str| value_of(text, self.address, symbols);
                    operand.parse(text.unwrap_or(""), (word, self.address), &evaluate)?
                }
                false => operand.default_bits(),
            };
        }
        Ok(word)
    }
}

fn describe(row: &Row) -> String {
    match row.operands {
        "" => "no operands".to_string(),
        operands => format!("the operands `{operands}`"),
    }
}

/// Every mnemonic with its rows in order of preference, and the condition bits of a compare.
static NAMES: LazyLock<HashMap<String, Vec<(&'static Row, u32)>>> = LazyLock::new(|| {
    let mut names: HashMap<String, Vec<(&'static Row, u32)>> = HashMap::new();
    let specific = ROWS.iter().filter(|row| row.op != Op::Reserved);
    for row in specific.chain(RELATED).chain(ALIASES).chain(SYNONYMS) {
        let conditions = if row.mnemonic.contains('*') { &CONDITION_NAMES[..] } else { &[""] };
        for (condition, name) in (0..).zip(conditions) {
            let mnemonic = row.mnemonic.replace('*', name);
            names.entry(mnemonic).or_default().push((row, condition));
        }
    }
    names
});

fn register_and_value(operands: &str) -> Result<(u8, &str), String> {
    let (register, value) = operands.split_once(',').ok_or("a register and a value are wanted")?;
    let register = register.trim();
    let number = parse_gpr(register).ok_or(format!("{register} is no general register"))?;
    Ok((number as u8, value))
}

/// What `li` and `dli` load for `value`.
fn loadable(name: &str, value: i64) -> Result<i64, String> {
    match (name, i32::try_from(value), u32::try_from(value)) {
        ("dli", ..) => Ok(value),
        (_, Ok(signed), _) => Ok(i64::from(signed)),
        (_, _, Ok(unsigned)) => Ok(i64::from(unsigned as i32)),
        _ => Err(format!("{value:#x} does not fit in 32 bits; dli loads 64")),
    }
}

/// The shortest of our sequences that leaves `value` in `register`.
fn load_value(register: u8, value: i64) -> Vec<u32> {
    let low = value as u16;
    if i16::try_from(value).is_ok() {
        vec![immediate(Op::Addiu, register, 0, low)]
    } else if u16::try_from(value).is_ok() {
        vec![immediate(Op::Ori, register, 0, low)]
    } else {
        let mut words = match i32::try_from(value) {
            Ok(_) => vec![immediate(Op::Lui, register, 0, (value >> 16) as u16)],
            Err(_) => shifted(load_value(register, value >> 16), register),
        };
        if low != 0 {
            words.push(immediate(Op::Ori, register, register, low));
        }
        words
    }
}

fn load_address(register: u8, address: i64) -> Result<Vec<u32>, String> {
    if i32::try_from(address).is_err() {
        return Err(format!("{address:#x} is no sign-extended 32-bit address; dla loads it"));
    }
    let high = (address.wrapping_add(0x8000) >> 16) as u16;
    Ok(vec![immediate(Op::Lui, register, 0, high), immediate(Op::Addiu, register, register, address as u16)])
}

fn load_long_address(register: u8, address: i64) -> Vec<u32> {
    let part = |shift: u32| (address >> shift) as u16;
    let or = |shift| immediate(Op::Ori, register, register, part(shift));
    let mut words = shifted(vec![immediate(Op::Lui, register, 0, part(48)), or(32)], register);
    words.push(or(16));
    words = shifted(words, register);
    words.push(or(0));
    words
}

/// `words`, then the register moved left by 16 bits.
fn shifted(mut words: Vec<u32>, register: u8) -> Vec<u32> {
    let fields = Fields { rt: register, rd: register, sa: 16, ..Fields::default() };
    words.push(encode(Op::Dsll, fields));
    words
}

fn immediate(op: Op, rt: u8, rs: u8, imm: u16) -> u32 {
    encode(op, Fields { rs, rt, imm, ..Fields::default() })
}
