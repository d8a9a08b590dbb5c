//! The words of the operand column of the table: how each prints and how each is read.
//!
//! ```text
//! rs rt rd            general registers           fr ft fs fd        floating-point registers
//! c0 c1 c2 hwr        registers of CP0 (with select), CP1 control, CP2, RDHWR
//! simm uimm           immediates                  simm(rs) rt(rs)    memory operands
//! branch target       absolute addresses          cc ccmp            condition codes
//! pos size width      bit fields, where _plus32 says by how much the number exceeds the field;
//!                     a width is written, and msb = pos + width - 1 is stored in rd
//! sa hint hintx stype code..   plain numbers      zero               the word `zero`
//! same                nothing: rt repeats rd
//! ```
//!
//! An operand in brackets may be left out; then it is zero, or 31 for the rd of JALR.

use crate::register::{C0_ARRAYS, C0_NAMES, C1_NAMES, GPR_NAMES, HWR_NAMES, parse_gpr, parse_number};

/// One operand of a row.
#[derive(Clone, Copy, Debug)]
pub struct Operand {
    kind: Kind,
    /// What it is when it is left out.
    default: Option<u32>,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Gpr { shift: u32 },
    Fpr { shift: u32 },
    C0,
    C1,
    C2,
    Hwr,
    ConditionCode { shift: u32 },
    Number { shift: u32, bits: u32 },
    Simm,
    Uimm,
    Memory,
    Indexed,
    Branch,
    Target,
    Position { bias: i64 },
    Size { bias: i64 },
    Width { bias: i64 },
    Zero,
    Same,
}

/// The operands of a row, from the text in the table.
pub fn operands_of(text: &'static str) -> impl Iterator<Item = Operand> {
    text.split(", ").filter(|word| !word.is_empty()).map(|word| {
        let optional = word.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let default = if word == "[rd]" { 31 } else { 0 };
        Operand { kind: kind_of(optional.unwrap_or(word)), default: optional.map(|_| default) }
    })
}

fn kind_of(word: &str) -> Kind {
    match word {
        "rs" => Kind::Gpr { shift: 21 },
        "rt" => Kind::Gpr { shift: 16 },
        "rd" => Kind::Gpr { shift: 11 },
        "fr" => Kind::Fpr { shift: 21 },
        "ft" => Kind::Fpr { shift: 16 },
        "fs" => Kind::Fpr { shift: 11 },
        "fd" => Kind::Fpr { shift: 6 },
        "c0" => Kind::C0,
        "c1" => Kind::C1,
        "c2" => Kind::C2,
        "hwr" => Kind::Hwr,
        "cc" => Kind::ConditionCode { shift: 18 },
        "ccmp" => Kind::ConditionCode { shift: 8 },
        "sa" | "stype" => Kind::Number { shift: 6, bits: 5 },
        "hint" => Kind::Number { shift: 16, bits: 5 },
        "hintx" => Kind::Number { shift: 11, bits: 5 },
        "code_high" => Kind::Number { shift: 16, bits: 10 },
        "code_low" => Kind::Number { shift: 6, bits: 10 },
        "code19" => Kind::Number { shift: 6, bits: 19 },
        "code20" => Kind::Number { shift: 6, bits: 20 },
        "code26" => Kind::Number { shift: 0, bits: 26 },
        "code32" => Kind::Number { shift: 0, bits: 32 },
        "simm" => Kind::Simm,
        "uimm" => Kind::Uimm,
        "simm(rs)" => Kind::Memory,
        "rt(rs)" => Kind::Indexed,
        "branch" => Kind::Branch,
        "target" => Kind::Target,
        "pos" => Kind::Position { bias: 0 },
        "pos_plus32" => Kind::Position { bias: 32 },
        "size" => Kind::Size { bias: 0 },
        "size_plus32" => Kind::Size { bias: 32 },
        "width" => Kind::Width { bias: 0 },
        "width_plus32" => Kind::Width { bias: 32 },
        "zero" => Kind::Zero,
        "same" => Kind::Same,
        _ => unreachable!("{word} is no word of the operand column"),
    }
}

impl Operand {
    /// What it is when it is left out; `None` when it may not be.
    pub fn default(self) -> Option<u32> {
        self.default
    }

    /// True when nothing is written for it.
    pub fn is_silent(self) -> bool {
        matches!(self.kind, Kind::Same)
    }

    /// True when `word` holds what it is when it is left out.
    pub fn is_default(self, word: u32) -> bool {
        match self.kind {
            Kind::Gpr { shift } => self.default == Some(field(word, shift, 5)),
            Kind::Number { shift, bits } => self.default == Some(field(word, shift, bits)),
            Kind::ConditionCode { shift } => self.default == Some(field(word, shift, 3)),
            _ => false,
        }
    }

    /// The bits of what it is when it is left out.
    pub fn default_bits(self) -> u32 {
        match (self.kind, self.default) {
            (Kind::Gpr { shift }, Some(number)) => number << shift,
            _ => 0,
        }
    }

    /// Its text in `word` at address `pc`; `None` when no assembler text means these bits.
    pub fn print(self, word: u32, pc: u64) -> Option<String> {
        let number = |shift, bits| field(word, shift, bits);
        Some(match self.kind {
            Kind::Gpr { shift } => gpr_name(number(shift, 5)).to_string(),
            Kind::Fpr { shift } => format!("$f{}", number(shift, 5)),
            Kind::C0 => print_c0(number(11, 5) as u8, number(0, 3) as u8),
            Kind::C1 => print_named(&C1_NAMES, number(11, 5)),
            Kind::C2 => format!("${}", number(16, 5)),
            Kind::Hwr => print_named(&HWR_NAMES, number(11, 5)),
            Kind::ConditionCode { shift } => format!("$fcc{}", number(shift, 3)),
            Kind::Number { shift, bits } => format!("{:#x}", number(shift, bits)),
            Kind::Simm => (word as i16).to_string(),
            Kind::Uimm => format!("{:#x}", word as u16),
            Kind::Memory => format!("{}({})", word as i16, gpr_name(number(21, 5))),
            Kind::Indexed => format!("{}({})", gpr_name(number(16, 5)), gpr_name(number(21, 5))),
            Kind::Branch => format!("{:#x}", branch_address(word, pc)),
            Kind::Target => format!("{:#x}", target_address(word, pc)),
            Kind::Position { bias } => format!("{:#x}", i64::from(number(6, 5)) + bias),
            Kind::Size { bias } => format!("{:#x}", i64::from(number(11, 5)) + 1 + bias),
            Kind::Width { bias } => {
                let width = i64::from(number(11, 5)) + 1 + bias - i64::from(number(6, 5));
                (width > 0).then(|| format!("{width:#x}"))?
            }
            Kind::Zero => "zero".to_string(),
            Kind::Same => (number(16, 5) == number(11, 5)).then(String::new)?,
        })
    }

    /// The bits that `text` means. `word` has the bits of the operands before it; `evaluate` gives
    /// the value of an expression.
    ///
    /// # Errors
    /// What is wrong with `text`, as a sentence without a line number.
    pub fn parse(
        self,
        text: &str,
        (word, pc): (u32, u64),
        evaluate: &dyn Fn(&str) -> Result<i64, String>,
    ) -> Result<u32, String> {
        let in_range = |text: &str, low: i64, high: i64| {
            let value = evaluate(text)?;
            let is_inside = (low..=high).contains(&value);
            is_inside.then_some(value).ok_or(format!("{value} is outside {low} to {high}"))
        };
        let simm = |text: &str| Ok(in_range(text, -0x8000, 0x7fff)? as u32 & 0xffff);
        match self.kind {
            Kind::Gpr { shift } => Ok(gpr(text)? << shift),
            Kind::Fpr { shift } => named(text, parse_number(text, "$f"), shift),
            Kind::C0 => parse_c0(text),
            Kind::C1 => named(text, parse_named(&C1_NAMES, text), 11),
            Kind::C2 => named(text, parse_number(text, "$"), 16),
            Kind::Hwr => named(text, parse_named(&HWR_NAMES, text), 11),
            Kind::ConditionCode { shift } => {
                named(text, parse_number(text, "$fcc").filter(|number| *number < 8), shift)
            }
            Kind::Number { shift, bits } => Ok((in_range(text, 0, (1 << bits) - 1)? as u32) << shift),
            Kind::Simm => simm(text),
            Kind::Uimm => Ok(in_range(text, 0, 0xffff)? as u32),
            Kind::Memory => {
                let (offset, base) = split_memory(text)?;
                let offset = if offset.is_empty() { 0 } else { simm(offset)? };
                Ok(gpr(base)? << 21 | offset)
            }
            Kind::Indexed => {
                let (index, base) = split_memory(text)?;
                Ok(gpr(base)? << 21 | gpr(index)? << 16)
            }
            Kind::Branch => branch_bits(evaluate(text)? as u64, pc),
            Kind::Target => target_bits(evaluate(text)? as u64, pc),
            Kind::Position { bias } => Ok(((in_range(text, bias, bias + 31)? - bias) as u32) << 6),
            Kind::Size { bias } => Ok(((in_range(text, bias + 1, bias + 32)? - bias - 1) as u32) << 11),
            Kind::Width { bias } => {
                let position = i64::from(field(word, 6, 5));
                let low = (1 + bias - position).max(1);
                let width = in_range(text, low, 32 + bias - position)?;
                Ok(((position + width - 1 - bias) as u32) << 11)
            }
            Kind::Zero => match gpr(text)? {
                0 => Ok(0),
                _ => Err(format!("{text}: only the register zero can stand here")),
            },
            Kind::Same => Ok(field(word, 11, 5) << 16),
        }
    }
}

fn field(word: u32, shift: u32, bits: u32) -> u32 {
    (word >> shift) & (u32::MAX >> (32 - bits))
}

fn gpr_name(number: u32) -> &'static str {
    GPR_NAMES[number as usize]
}

fn gpr(text: &str) -> Result<u32, String> {
    parse_gpr(text).ok_or(format!("{text} is no general register"))
}

fn named(text: &str, number: Option<u32>, shift: u32) -> Result<u32, String> {
    let number = number.ok_or(format!("{text} is no register of the kind wanted here"))?;
    Ok(number << shift)
}

fn print_named(names: &[(&str, u8)], number: u32) -> String {
    let known = names.iter().find(|(_, register)| u32::from(*register) == number);
    known.map_or_else(|| format!("${number}"), |(name, _)| name.to_string())
}

fn parse_named(names: &[(&str, u8)], text: &str) -> Option<u32> {
    let known = names.iter().find(|(name, _)| *name == text);
    known.map(|(_, register)| u32::from(*register)).or_else(|| parse_number(text, "$"))
}

fn print_c0(register: u8, select: u8) -> String {
    let name_of = |select| {
        let is_it = |row: &&(&str, u8, u8)| (row.1, row.2) == (register, select);
        C0_NAMES.iter().find(is_it).map(|(name, ..)| name.to_string())
    };
    let base = C0_ARRAYS.contains(&register).then(|| name_of(0)).flatten();
    match (name_of(select), base, select) {
        (Some(name), ..) => name,
        (None, Some(base), _) => format!("{base},{select}"),
        (None, None, 0) => format!("${register}"),
        (None, None, _) => format!("${register},{select}"),
    }
}

/// `c0_name`, `c0_name,select` or `$number,select`; a select adds to that of the name.
fn parse_c0(text: &str) -> Result<u32, String> {
    let (name, select) = text.split_once(',').unwrap_or((text, "0"));
    let (name, select) = (name.trim(), select.trim());
    let known = C0_NAMES.iter().find(|(known, ..)| *known == name);
    let base = match known {
        Some((_, register, select)) => Some((u32::from(*register), u32::from(*select))),
        None => parse_number(name, "$").map(|register| (register, 0)),
    };
    let (register, base) = base.ok_or(format!("{name} is no register of CP0"))?;
    let select = select.parse::<u32>().map_or(8, |select| select.saturating_add(base));
    let is_select = select < 8;
    is_select.then_some(register << 11 | select).ok_or(format!("{text}: a select is 0 to 7"))
}

/// Offset and register of `offset(register)`.
fn split_memory(text: &str) -> Result<(&str, &str), String> {
    let inner = text.strip_suffix(')').and_then(|rest| rest.rsplit_once('('));
    let (offset, base) = inner.ok_or(format!("{text} is not of the form offset(register)"))?;
    Ok((offset.trim(), base.trim()))
}

fn branch_address(word: u32, pc: u64) -> u64 {
    let offset = i64::from(word as i16) << 2;
    pc.wrapping_add(4).wrapping_add_signed(offset)
}

fn target_address(word: u32, pc: u64) -> u64 {
    let region = pc.wrapping_add(4) & !0x0fff_ffff;
    region | u64::from(field(word, 0, 26)) << 2
}

fn branch_bits(address: u64, pc: u64) -> Result<u32, String> {
    let distance = address.wrapping_sub(pc.wrapping_add(4)) as i64;
    match (distance & 3, i16::try_from(distance >> 2)) {
        (0, Ok(words)) => Ok(u32::from(words as u16)),
        (0, Err(_)) => Err(format!("{address:#x} is further than a branch at {pc:#x} reaches")),
        _ => Err(format!("{address:#x} is not aligned to a word")),
    }
}

fn target_bits(address: u64, pc: u64) -> Result<u32, String> {
    let word = (address >> 2) as u32 & 0x03ff_ffff;
    match (address & 3, target_address(word, pc) == address) {
        (0, true) => Ok(word),
        (0, false) => Err(format!("{address:#x} is outside the 256 MiB of a jump at {pc:#x}")),
        _ => Err(format!("{address:#x} is not aligned to a word")),
    }
}
