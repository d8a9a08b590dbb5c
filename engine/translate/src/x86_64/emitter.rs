//! The instructions of the host that translations are made of, behind functions that take registers
//! and places as values.
//!
//! ```text
//! rbp        the CPU (a little into it, so that the general registers are near)
//! r15        instructions left of the budget
//! rax rcx rdx   scratch
//! the rest   guest registers, chosen for each region
//! rsp        the frame that `enter.rs` made: Frame below
//! ```

use dynasmrt::x64::X64Relocation;
use dynasmrt::{DynamicLabel, DynasmApi, DynasmLabelApi, VecAssembler, dynasm};
use machine::cpu::Layout;

/// A host register by its number.
pub type Host = u8;

pub const RAX: Host = 0;
pub const RCX: Host = 1;
pub const RDX: Host = 2;
pub const R15: Host = 15;

/// Host registers that hold guest registers: the ones that calls preserve come first.
pub const PINS: [Host; 10] = [3, 12, 13, 14, 6, 7, 8, 9, 10, 11];

/// rbp points this far into the CPU.
pub const CPU_BIAS: usize = Layout::CPU.gpr + 128;

/// The frame of translated code, as offsets from rsp.
pub mod frame {
    /// Virtual address of the page being executed.
    pub const PAGE: i8 = 0;
    /// A condition or jump target that waits for the delay slot.
    pub const WAITING: i8 = 8;
    /// The address of an access that is being done out of line.
    pub const ADDRESS: i8 = 16;
    /// The budget, while a helper that may change it is called.
    pub const LEFT: i8 = 24;
    /// The site of the instruction that is handed over: `Site::word`, 32 bits.
    pub const SITE: i8 = 32;
    /// The address of the trap handler's `machine::cpu::Handler`.
    pub const HANDLER: i8 = 40;
    /// The first byte of the code buffer, from which entry points count.
    pub const CODE: i8 = 48;
    /// The first slot of `groups.rs`: what to add to a virtual address, or an odd number.
    pub const SLOTS: i8 = 56;
    /// Size of the frame. With the return address and six saved registers a multiple of 16.
    pub const BYTES: i32 = SLOTS as i32 + 8 * crate::groups::SLOT_COUNT as i32;
}

/// Width of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 32 bits; the upper half of a register becomes zero.
    Word,
    /// 64 bits.
    Double,
}

/// Where a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The value is 0.
    Zero,
    /// In a host register.
    Host(Host),
    /// In the CPU, as an offset from rbp.
    Cpu(i32),
}

/// Two-operand arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alu {
    Add,
    Sub,
    And,
    Or,
    Xor,
    Cmp,
}

impl Alu {
    /// The opcode of `register op= operand`.
    fn opcode(self) -> &'static [u8] {
        match self {
            Alu::Add => &[0x03],
            Alu::Or => &[0x0b],
            Alu::And => &[0x23],
            Alu::Sub => &[0x2b],
            Alu::Xor => &[0x33],
            Alu::Cmp => &[0x3b],
        }
    }

    /// Its number among the instructions with a constant.
    fn number(self) -> u8 {
        self.opcode()[0] >> 3
    }
}

/// Shifts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shift {
    Left,
    Right,
    RightSigned,
    RotateRight,
}

impl Shift {
    /// Its number among the shifts.
    fn number(self) -> u8 {
        match self {
            Shift::RotateRight => 1,
            Shift::Left => 4,
            Shift::Right => 5,
            Shift::RightSigned => 7,
        }
    }
}

const MOV_TO_REGISTER: &[u8] = &[0x8b];
const MOV_TO_OPERAND: &[u8] = &[0x89];
const MOV_CONSTANT: &[u8] = &[0xc7];
const MOVSXD: &[u8] = &[0x63];
const TEST: &[u8] = &[0x85];
const LEA: &[u8] = &[0x8d];

/// What an instruction works on beside a register.
#[derive(Clone, Copy, Debug)]
enum Operand {
    Host(Host),
    /// Memory at a register + an offset.
    At(Host, i32),
    /// Memory at a register + another, which is not rsp, + an offset.
    Sum(Host, Host, i32),
}

/// A virtual address: the sum of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Virtual {
    /// A guest register's or rax.
    pub base: Host,
    pub offset: i32,
}

impl Virtual {
    /// What is in rax.
    pub const IN_RAX: Virtual = Virtual { base: RAX, offset: 0 };

    /// Where it leads with what `Codegen::translate` puts into rcx.
    pub fn translated(self) -> Address {
        Address { base: self.base, index: RCX, offset: self.offset }
    }
}

/// A place in machine memory: the sum of all three.
#[derive(Clone, Copy, Debug)]
pub struct Address {
    pub base: Host,
    /// Not rsp.
    pub index: Host,
    pub offset: i32,
}

impl Address {
    fn operand(self) -> Operand {
        Operand::Sum(self.base, self.index, self.offset)
    }
}

fn operand(place: Place) -> Operand {
    const RBP: Host = 5;
    match place {
        Place::Host(host) => Operand::Host(host),
        Place::Cpu(offset) => Operand::At(RBP, offset),
        Place::Zero => unreachable!("zero is nowhere"),
    }
}

/// Conditions of jumps and of set and move instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    Equal,
    NotEqual,
    Less,
    GreaterEqual,
    LessEqual,
    Greater,
    Below,
    AboveEqual,
    BelowEqual,
    Above,
    Overflow,
    Negative,
    NotNegative,
}

impl Condition {
    /// The opposite.
    pub fn inverse(self) -> Condition {
        use Condition::*;
        match self {
            Equal => NotEqual,
            NotEqual => Equal,
            Less => GreaterEqual,
            GreaterEqual => Less,
            LessEqual => Greater,
            Greater => LessEqual,
            Below => AboveEqual,
            AboveEqual => Below,
            BelowEqual => Above,
            Above => BelowEqual,
            Negative => NotNegative,
            NotNegative => Negative,
            Overflow => unreachable!("nobody asks for the opposite of {self:?}"),
        }
    }
}

/// Offset from rbp of the field of the CPU at `offset`.
pub const fn field(offset: usize) -> i32 {
    offset as i32 - CPU_BIAS as i32
}

/// An assembler for one piece of code that will run at a known address.
#[derive(Debug)]
pub struct Emitter {
    ops: VecAssembler<X64Relocation>,
    base: usize,
}

impl Emitter {
    /// For code that will run at `base`, with room for what `insns` guest instructions mostly take.
    pub fn new(base: usize, insns: usize) -> Emitter {
        const BYTES: usize = 72;
        const LABELS: usize = 3;
        const REFERENCES: usize = 5;
        let ops =
            VecAssembler::new_with_capacity(base, BYTES * insns, 0, 0, LABELS * insns, insns, REFERENCES * insns);
        Emitter { ops, base }
    }

    /// The address of what is emitted next.
    pub fn address(&self) -> usize {
        self.base + self.ops.offset().0
    }

    /// The finished code.
    pub fn finish(self) -> Vec<u8> {
        self.ops.finalize().expect("every label is placed and in reach")
    }

    /// The assembler, for what is used in one place only.
    pub fn ops(&mut self) -> &mut VecAssembler<X64Relocation> {
        &mut self.ops
    }

    pub fn new_label(&mut self) -> DynamicLabel {
        self.ops.new_dynamic_label()
    }

    pub fn place(&mut self, label: DynamicLabel) {
        self.ops.dynamic_label(label);
    }

    pub fn jump(&mut self, label: DynamicLabel) {
        dynasm!(self.ops; jmp =>label);
    }

    pub fn jump_to(&mut self, address: usize) {
        dynasm!(self.ops; jmp extern address);
    }

    pub fn call(&mut self, address: usize) {
        dynasm!(self.ops; call extern address);
    }

    pub fn jump_if(&mut self, condition: Condition, label: DynamicLabel) {
        use Condition::*;
        match condition {
            Equal => dynasm!(self.ops; je =>label),
            NotEqual => dynasm!(self.ops; jne =>label),
            Less => dynasm!(self.ops; jl =>label),
            GreaterEqual => dynasm!(self.ops; jge =>label),
            LessEqual => dynasm!(self.ops; jle =>label),
            Greater => dynasm!(self.ops; jg =>label),
            Below => dynasm!(self.ops; jb =>label),
            AboveEqual => dynasm!(self.ops; jae =>label),
            BelowEqual => dynasm!(self.ops; jbe =>label),
            Above => dynasm!(self.ops; ja =>label),
            Overflow => dynasm!(self.ops; jo =>label),
            Negative => dynasm!(self.ops; js =>label),
            NotNegative => dynasm!(self.ops; jns =>label),
        }
    }

    /// `target` = 1 if `condition`, else 0.
    pub fn set_if(&mut self, condition: Condition, target: Host) {
        use Condition::*;
        match condition {
            Equal => dynasm!(self.ops; sete Rb(target)),
            NotEqual => dynasm!(self.ops; setne Rb(target)),
            Less => dynasm!(self.ops; setl Rb(target)),
            GreaterEqual => dynasm!(self.ops; setge Rb(target)),
            LessEqual => dynasm!(self.ops; setle Rb(target)),
            Greater => dynasm!(self.ops; setg Rb(target)),
            Below => dynasm!(self.ops; setb Rb(target)),
            AboveEqual => dynasm!(self.ops; setae Rb(target)),
            BelowEqual => dynasm!(self.ops; setbe Rb(target)),
            Above => dynasm!(self.ops; seta Rb(target)),
            Overflow => dynasm!(self.ops; seto Rb(target)),
            Negative => dynasm!(self.ops; sets Rb(target)),
            NotNegative => dynasm!(self.ops; setns Rb(target)),
        }
        dynasm!(self.ops; movzx Rd(target), Rb(target));
    }

    /// `target` = `source` if `condition` (Equal, NotEqual).
    pub fn move_if(&mut self, condition: Condition, target: Host, source: Host) {
        match condition {
            Condition::Equal => dynasm!(self.ops; cmove Rq(target), Rq(source)),
            Condition::NotEqual => dynasm!(self.ops; cmovne Rq(target), Rq(source)),
            _ => unreachable!("no conditional move needs {condition:?}"),
        }
    }

    /// `target` = the value at `source`. Keeps the flags.
    pub fn load(&mut self, width: Width, target: Host, source: Place) {
        match source {
            Place::Zero => self.constant_keeping_flags(target, 0),
            Place::Host(source) if source == target && width == Width::Double => {}
            _ => self.encode(width, MOV_TO_REGISTER, target, operand(source)),
        }
    }

    /// `target` = the low half of the value at `source`, sign-extended. Keeps the flags.
    pub fn load_signed(&mut self, target: Host, source: Place) {
        match source {
            Place::Zero => self.constant_keeping_flags(target, 0),
            _ => self.encode(Width::Double, MOVSXD, target, operand(source)),
        }
    }

    /// Stores all of `source` at `target`. Keeps the flags.
    pub fn store(&mut self, target: Place, source: Host) {
        match target {
            Place::Zero => {}
            Place::Host(target) if target == source => {}
            Place::Host(target) => self.encode(Width::Double, MOV_TO_REGISTER, target, Operand::Host(source)),
            Place::Cpu(_) => self.encode(Width::Double, MOV_TO_OPERAND, source, operand(target)),
        }
    }

    /// `target` = `value`.
    pub fn constant(&mut self, target: Host, value: u64) {
        match value {
            0 => self.encode(Width::Word, Alu::Xor.opcode(), target, Operand::Host(target)),
            _ => self.constant_keeping_flags(target, value),
        }
    }

    fn constant_keeping_flags(&mut self, target: Host, value: u64) {
        if let Ok(value) = u32::try_from(value) {
            self.encode_short(Width::Word, 0xb8, target);
            self.ops.push_u32(value);
        } else if let Ok(value) = i32::try_from(value as i64) {
            self.encode(Width::Double, MOV_CONSTANT, 0, Operand::Host(target));
            self.ops.push_i32(value);
        } else {
            self.encode_short(Width::Double, 0xb8, target);
            self.ops.push_u64(value);
        }
    }

    /// `target` = `target` op the value at `source`.
    pub fn alu(&mut self, op: Alu, width: Width, target: Host, source: Place) {
        match source {
            Place::Zero => self.alu_constant(op, width, target, 0),
            _ => self.encode(width, op.opcode(), target, operand(source)),
        }
    }

    /// `target` = `target` op `value`, sign-extended.
    pub fn alu_constant(&mut self, op: Alu, width: Width, target: Host, value: i32) {
        self.encode_with_constant(op, width, Operand::Host(target), value);
    }

    /// Compares the 64-bit value at `place` with `value`, sign-extended.
    pub fn compare_constant(&mut self, place: Place, value: i32) {
        match place {
            Place::Host(host) if value == 0 => {
                self.encode(Width::Double, TEST, host, Operand::Host(host));
            }
            Place::Host(_) | Place::Cpu(_) => {
                self.encode_with_constant(Alu::Cmp, Width::Double, operand(place), value);
            }
            Place::Zero => {
                self.constant(RAX, 0);
                self.alu_constant(Alu::Cmp, Width::Double, RAX, value);
            }
        }
    }

    // -- encoding ------------------------------------------------------------------------------------
    //
    // dynasm knows no short forms for registers and offsets that are values here, and translations are
    // made of little else. Source of the encodings: the manufacturers' manuals, volume 2.

    /// An instruction with a register and an operand.
    fn encode(&mut self, width: Width, opcode: &[u8], register: Host, operand: Operand) {
        let (index, base) = match operand {
            Operand::Host(host) => (0, host),
            Operand::At(base, _) => (0, base),
            Operand::Sum(base, index, _) => (index, base),
        };
        let is_wide = width == Width::Double;
        let extensions = u8::from(is_wide) << 3 | register >> 3 << 2 | index >> 3 << 1 | base >> 3;
        if extensions != 0 {
            self.ops.push(0x40 | extensions);
        }
        opcode.iter().for_each(|byte| self.ops.push(*byte));
        self.encode_operand(register & 7, operand);
    }

    fn encode_operand(&mut self, register: u8, operand: Operand) {
        /// In place of a base: there is a second byte.
        const HAS_SUM: u8 = 4;
        /// In a sum: there is no index.
        const NO_INDEX: u8 = 4;
        /// A base that is never without an offset.
        const BASE_WITH_OFFSET: u8 = 5;
        let mode = |bits: u8, rest: u8| bits << 6 | register << 3 | rest;
        match operand {
            Operand::Host(host) => self.ops.push(mode(3, host & 7)),
            Operand::At(base, offset) | Operand::Sum(base, _, offset) => {
                let low = base & 7;
                let bits = match i8::try_from(offset) {
                    Ok(0) if low != BASE_WITH_OFFSET => 0,
                    Ok(_) => 1,
                    Err(_) => 2,
                };
                match operand {
                    Operand::Sum(_, index, _) => {
                        self.ops.push(mode(bits, HAS_SUM));
                        self.ops.push((index & 7) << 3 | low);
                    }
                    _ => {
                        self.ops.push(mode(bits, low));
                        if low == HAS_SUM {
                            self.ops.push(NO_INDEX << 3 | low);
                        }
                    }
                }
                match bits {
                    0 => {}
                    1 => self.ops.push_i8(offset as i8),
                    _ => self.ops.push_i32(offset),
                }
            }
        }
    }

    /// An instruction with the register in its opcode.
    fn encode_short(&mut self, width: Width, opcode: u8, register: Host) {
        let extensions = u8::from(width == Width::Double) << 3 | register >> 3;
        if extensions != 0 {
            self.ops.push(0x40 | extensions);
        }
        self.ops.push(opcode | register & 7);
    }

    fn encode_with_constant(&mut self, op: Alu, width: Width, operand: Operand, value: i32) {
        match i8::try_from(value) {
            Ok(value) => {
                self.encode(width, &[0x83], op.number(), operand);
                self.ops.push_i8(value);
            }
            Err(_) => {
                self.encode(width, &[0x81], op.number(), operand);
                self.ops.push_i32(value);
            }
        }
    }

    /// `target` shifted by `count`, which is below the width.
    pub fn shift(&mut self, op: Shift, width: Width, target: Host, count: u8) {
        match count {
            0 => {}
            1 => self.encode(width, &[0xd1], op.number(), Operand::Host(target)),
            _ => {
                self.encode(width, &[0xc1], op.number(), Operand::Host(target));
                self.ops.push(count);
            }
        }
    }

    /// `target` shifted by cl, modulo the width.
    pub fn shift_by_cl(&mut self, op: Shift, width: Width, target: Host) {
        self.encode(width, &[0xd3], op.number(), Operand::Host(target));
    }

    /// `target` = `base` + `value`.
    pub fn add_constant(&mut self, target: Host, base: Host, value: i32) {
        if value == 0 {
            return self.store(Place::Host(target), base);
        }
        if target == base {
            return self.alu_constant(Alu::Add, Width::Double, target, value);
        }
        self.encode(Width::Double, LEA, target, Operand::At(base, value));
    }

    /// `target` = `a` + `b`, without the flags.
    pub fn sum(&mut self, width: Width, target: Host, a: Host, b: Host) {
        self.encode(width, LEA, target, Operand::Sum(a, b, 0));
    }

    /// `target` = the low half of `base` + `value`.
    pub fn add_constant_to_word(&mut self, target: Host, base: Host, value: i32) {
        self.encode(Width::Word, LEA, target, Operand::At(base, value));
    }

    /// `target` = the value of `bytes` bytes at `address`, extended to 64 bits.
    pub fn load_memory(&mut self, bytes: u64, is_signed: bool, target: Host, address: Address) {
        let (width, opcode): (Width, &[u8]) = match (bytes, is_signed) {
            (1, false) => (Width::Word, &[0x0f, 0xb6]),
            (1, true) => (Width::Double, &[0x0f, 0xbe]),
            (2, false) => (Width::Word, &[0x0f, 0xb7]),
            (2, true) => (Width::Double, &[0x0f, 0xbf]),
            (4, false) => (Width::Word, MOV_TO_REGISTER),
            (4, true) => (Width::Double, MOVSXD),
            _ => (Width::Double, MOV_TO_REGISTER),
        };
        self.encode(width, opcode, target, address.operand());
    }

    /// Extends the value of `bytes` bytes in `source`, zero-extended so far, into `target`.
    pub fn extend(&mut self, bytes: u64, is_signed: bool, target: Host, source: Host) {
        match (bytes, is_signed) {
            (1, true) => dynasm!(self.ops; movsx Rq(target), Rb(source)),
            (2, true) => dynasm!(self.ops; movsx Rq(target), Rw(source)),
            (4, true) => dynasm!(self.ops; movsxd Rq(target), Rd(source)),
            _ => self.store(Place::Host(target), source),
        }
    }

    /// Stores the low `bytes` bytes of `source` at `address`.
    pub fn store_memory(&mut self, bytes: u64, source: Host, address: Address) {
        match bytes {
            // Always with a prefix, without which some registers would be other ones.
            1 => {
                let Address { base, index, offset } = address;
                dynasm!(self.ops; mov BYTE [Rq(base) + Rq(index) + offset], Rb(source));
            }
            2 => {
                self.ops.push(0x66);
                self.encode(Width::Word, MOV_TO_OPERAND, source, address.operand());
            }
            4 => self.encode(Width::Word, MOV_TO_OPERAND, source, address.operand()),
            _ => self.encode(Width::Double, MOV_TO_OPERAND, source, address.operand()),
        }
    }
}
