//! Which general registers an instruction reads and writes, from the operand column of the table.

use std::sync::LazyLock;

use machine::cpu::SINK;
use mips::{Insn, Op};

/// Number of HI among the registers of a translation; 0 to 31 are the general ones.
pub const HI: u8 = 33;
/// Number of LO.
pub const LO: u8 = 34;
/// Number of the condition codes of the floating-point unit, together; never in a host register.
pub const CONDITIONS: u8 = 35;
/// How many numbers there are. `SINK` (32) is never read.
pub const REGISTER_COUNT: usize = 36;

/// A set of registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers(u64);

impl Registers {
    /// Nothing.
    pub const NONE: Registers = Registers(0);

    /// One register; nothing for register 0 and the sink, which hold no value.
    pub fn of(register: u8) -> Registers {
        if register == 0 || register == SINK { Registers(0) } else { Registers(1 << register) }
    }

    /// Those of both.
    pub fn with(self, other: Registers) -> Registers {
        Registers(self.0 | other.0)
    }

    /// Those that are not in `other`.
    pub fn without(self, other: Registers) -> Registers {
        Registers(self.0 & !other.0)
    }

    /// Those that are in both.
    pub fn both(self, other: Registers) -> Registers {
        Registers(self.0 & other.0)
    }

    /// Whether the two have one in common.
    pub fn meets(self, other: Registers) -> bool {
        self.0 & other.0 != 0
    }

    /// The numbers.
    pub fn iter(self) -> impl Iterator<Item = u8> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let lowest = (rest != 0).then(|| rest.trailing_zeros() as u8);
            rest &= rest.wrapping_sub(1);
            lowest
        })
    }
}

/// What an instruction reads.
pub fn reads(insn: Insn) -> Registers {
    let uses = USES[insn.op as usize];
    let field = |used: bool, register: u8| if used { Registers::of(register) } else { Registers::NONE };
    field(uses.reads_rs, insn.rs)
        .with(field(uses.reads_rt, insn.rt))
        .with(field(uses.reads_rd, insn.rd))
        .with(uses.reads_fixed)
}

/// What an instruction writes.
pub fn writes(insn: Insn) -> Registers {
    let uses = USES[insn.op as usize];
    let written = match uses.writes {
        Some(Field::Rt) => Registers::of(insn.rt),
        Some(Field::Rd) => Registers::of(insn.rd),
        None => Registers::NONE,
    };
    written.with(uses.writes_fixed)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Rt,
    Rd,
}

#[derive(Clone, Copy, Debug)]
struct Uses {
    reads_rs: bool,
    reads_rt: bool,
    reads_rd: bool,
    reads_fixed: Registers,
    writes: Option<Field>,
    writes_fixed: Registers,
}

static USES: LazyLock<Vec<Uses>> = LazyLock::new(|| Op::ALL.iter().map(|op| uses_of(*op)).collect());

fn uses_of(op: Op) -> Uses {
    let operands = op.row().operands;
    let names = |name: &str| operands.split([',', ' ', '(', ')', '[', ']']).any(|word| word == name);
    let first = operands.trim_start_matches('[');
    let is_conditional = matches!(op, Op::Sc | Op::Scd);
    let keeps_rt = op.is_store() && !is_conditional
        || matches!(op, Op::Mtc0 | Op::Dmtc0 | Op::Mtc1 | Op::Dmtc1 | Op::Mthc1 | Op::Ctc1)
        || op.is_branch()
        || op.family() == mips::Family::Trap;
    let writes = if first.starts_with("rd") {
        Some(Field::Rd)
    } else if first.starts_with("rt") && !keeps_rt {
        Some(Field::Rt)
    } else {
        None
    };
    // Some keep a part of what they write, or all of it.
    let reads_target = op.is_load() && op.flags().has(mips::Flags::UNALIGNED)
        || matches!(op, Op::Ins | Op::Dins | Op::Dinsm | Op::Dinsu | Op::Movz | Op::Movn | Op::Movf | Op::Movt)
        || is_conditional;
    let hi_lo = Registers::of(HI).with(Registers::of(LO));
    let (reads_fixed, writes_fixed) = match op {
        Op::Mult | Op::Multu | Op::Dmult | Op::Dmultu | Op::Div | Op::Divu | Op::Ddiv | Op::Ddivu => {
            (Registers::NONE, hi_lo)
        }
        Op::Madd | Op::Maddu | Op::Msub | Op::Msubu => (hi_lo, hi_lo),
        Op::Mfhi => (Registers::of(HI), Registers::NONE),
        Op::Mflo => (Registers::of(LO), Registers::NONE),
        Op::Mthi => (Registers::NONE, Registers::of(HI)),
        Op::Mtlo => (Registers::NONE, Registers::of(LO)),
        Op::Bc1f | Op::Bc1t | Op::Bc1fl | Op::Bc1tl | Op::Movf | Op::Movt => {
            (Registers::of(CONDITIONS), Registers::NONE)
        }
        Op::CCondS | Op::CCondD => (Registers::NONE, Registers::of(CONDITIONS)),
        Op::Jal | Op::Bltzal | Op::Bgezal | Op::Bltzall | Op::Bgezall => (Registers::NONE, Registers::of(31)),
        _ => (Registers::NONE, Registers::NONE),
    };
    Uses {
        reads_rs: names("rs"),
        reads_rt: names("rt") && (writes != Some(Field::Rt) || reads_target),
        reads_rd: writes == Some(Field::Rd) && reads_target,
        reads_fixed,
        writes,
        writes_fixed,
    }
}
