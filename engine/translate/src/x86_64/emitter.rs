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

/// Host registers that hold guest registers: the ones that calls preserve come first.
pub const PINS: [Host; 10] = [3, 12, 13, 14, 6, 7, 8, 9, 10, 11];

/// rbp points this far into the CPU.
pub const CPU_BIAS: usize = Layout::CPU.gpr + 128;

/// The frame of translated code, as offsets from rsp.
pub mod frame {
    /// Virtual address of the page being executed.
    pub const PAGE: i32 = 0;
    /// A condition or jump target that waits for the delay slot.
    pub const WAITING: i32 = 8;
    /// The address of an access that is being done out of line.
    pub const ADDRESS: i32 = 16;
    /// Size of the frame. With the return address and six saved registers a multiple of 16.
    pub const BYTES: i32 = 40;
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

/// Shifts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shift {
    Left,
    Right,
    RightSigned,
    RotateRight,
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
    /// For code that will run at `base`.
    pub fn new(base: usize) -> Emitter {
        Emitter { ops: VecAssembler::new(base), base }
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

    /// `target` = 1 if `condition`, else 0. `target` is rax, rcx or rdx.
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

    /// `target` = the value at `source`.
    pub fn load(&mut self, width: Width, target: Host, source: Place) {
        match (width, source) {
            // Keeps the flags.
            (_, Place::Zero) => dynasm!(self.ops; mov Rd(target), 0),
            (Width::Double, Place::Host(source)) if source == target => {}
            (Width::Double, Place::Host(source)) => dynasm!(self.ops; mov Rq(target), Rq(source)),
            (Width::Word, Place::Host(source)) => dynasm!(self.ops; mov Rd(target), Rd(source)),
            (Width::Double, Place::Cpu(offset)) => dynasm!(self.ops; mov Rq(target), QWORD [rbp + offset]),
            (Width::Word, Place::Cpu(offset)) => dynasm!(self.ops; mov Rd(target), DWORD [rbp + offset]),
        }
    }

    /// `target` = the low half of the value at `source`, sign-extended.
    pub fn load_signed(&mut self, target: Host, source: Place) {
        match source {
            Place::Zero => dynasm!(self.ops; mov Rd(target), 0),
            Place::Host(source) => dynasm!(self.ops; movsxd Rq(target), Rd(source)),
            Place::Cpu(offset) => dynasm!(self.ops; movsxd Rq(target), DWORD [rbp + offset]),
        }
    }

    /// Stores all of `source` at `target`.
    pub fn store(&mut self, target: Place, source: Host) {
        match target {
            Place::Zero => {}
            Place::Host(target) if target == source => {}
            Place::Host(target) => dynasm!(self.ops; mov Rq(target), Rq(source)),
            Place::Cpu(offset) => dynasm!(self.ops; mov QWORD [rbp + offset], Rq(source)),
        }
    }

    /// `target` = `value`.
    pub fn constant(&mut self, target: Host, value: u64) {
        if let Ok(value) = u32::try_from(value) {
            dynasm!(self.ops; mov Rd(target), value as i32);
        } else if let Ok(value) = i32::try_from(value as i64) {
            dynasm!(self.ops; mov Rq(target), value);
        } else {
            dynasm!(self.ops; mov Rq(target), QWORD value as i64);
        }
    }

    /// `target` = `target` op the value at `source`.
    pub fn alu(&mut self, op: Alu, width: Width, target: Host, source: Place) {
        macro_rules! forms {
            ($name:ident) => {
                match (width, source) {
                    (Width::Double, Place::Host(source)) => dynasm!(self.ops; $name Rq(target), Rq(source)),
                    (Width::Word, Place::Host(source)) => dynasm!(self.ops; $name Rd(target), Rd(source)),
                    (Width::Double, Place::Cpu(offset)) => {
                        dynasm!(self.ops; $name Rq(target), QWORD [rbp + offset]);
                    }
                    (Width::Word, Place::Cpu(offset)) => dynasm!(self.ops; $name Rd(target), DWORD [rbp + offset]),
                    (Width::Double, Place::Zero) => dynasm!(self.ops; $name Rq(target), 0),
                    (Width::Word, Place::Zero) => dynasm!(self.ops; $name Rd(target), 0),
                }
            };
        }
        match op {
            Alu::Add => forms!(add),
            Alu::Sub => forms!(sub),
            Alu::And => forms!(and),
            Alu::Or => forms!(or),
            Alu::Xor => forms!(xor),
            Alu::Cmp => forms!(cmp),
        }
    }

    /// `target` = `target` op `value`, sign-extended.
    pub fn alu_constant(&mut self, op: Alu, width: Width, target: Host, value: i32) {
        macro_rules! forms {
            ($name:ident) => {
                match width {
                    Width::Double => dynasm!(self.ops; $name Rq(target), value),
                    Width::Word => dynasm!(self.ops; $name Rd(target), value),
                }
            };
        }
        match op {
            Alu::Add => forms!(add),
            Alu::Sub => forms!(sub),
            Alu::And => forms!(and),
            Alu::Or => forms!(or),
            Alu::Xor => forms!(xor),
            Alu::Cmp => forms!(cmp),
        }
    }

    /// Compares the 64-bit value at `place` with `value`, sign-extended.
    pub fn compare_constant(&mut self, place: Place, value: i32) {
        match place {
            Place::Host(host) if value == 0 => dynasm!(self.ops; test Rq(host), Rq(host)),
            Place::Host(host) => self.alu_constant(Alu::Cmp, Width::Double, host, value),
            Place::Cpu(offset) => dynasm!(self.ops; cmp QWORD [rbp + offset], value),
            Place::Zero => {
                dynasm!(self.ops; xor eax, eax);
                self.alu_constant(Alu::Cmp, Width::Double, RAX, value);
            }
        }
    }

    /// `target` shifted by `count`, which is below the width.
    pub fn shift(&mut self, op: Shift, width: Width, target: Host, count: u8) {
        let count = count as i8;
        match (op, width) {
            _ if count == 0 => {}
            (Shift::Left, Width::Word) => dynasm!(self.ops; shl Rd(target), BYTE count),
            (Shift::Left, Width::Double) => dynasm!(self.ops; shl Rq(target), BYTE count),
            (Shift::Right, Width::Word) => dynasm!(self.ops; shr Rd(target), BYTE count),
            (Shift::Right, Width::Double) => dynasm!(self.ops; shr Rq(target), BYTE count),
            (Shift::RightSigned, Width::Word) => dynasm!(self.ops; sar Rd(target), BYTE count),
            (Shift::RightSigned, Width::Double) => dynasm!(self.ops; sar Rq(target), BYTE count),
            (Shift::RotateRight, Width::Word) => dynasm!(self.ops; ror Rd(target), BYTE count),
            (Shift::RotateRight, Width::Double) => dynasm!(self.ops; ror Rq(target), BYTE count),
        }
    }

    /// `target` shifted by cl, modulo the width.
    pub fn shift_by_cl(&mut self, op: Shift, width: Width, target: Host) {
        match (op, width) {
            (Shift::Left, Width::Word) => dynasm!(self.ops; shl Rd(target), cl),
            (Shift::Left, Width::Double) => dynasm!(self.ops; shl Rq(target), cl),
            (Shift::Right, Width::Word) => dynasm!(self.ops; shr Rd(target), cl),
            (Shift::Right, Width::Double) => dynasm!(self.ops; shr Rq(target), cl),
            (Shift::RightSigned, Width::Word) => dynasm!(self.ops; sar Rd(target), cl),
            (Shift::RightSigned, Width::Double) => dynasm!(self.ops; sar Rq(target), cl),
            (Shift::RotateRight, Width::Word) => dynasm!(self.ops; ror Rd(target), cl),
            (Shift::RotateRight, Width::Double) => dynasm!(self.ops; ror Rq(target), cl),
        }
    }

    /// `target` = `base` + `value`.
    pub fn add_constant(&mut self, target: Host, base: Host, value: i32) {
        if value == 0 {
            return self.store(Place::Host(target), base);
        }
        if target == base {
            return self.alu_constant(Alu::Add, Width::Double, target, value);
        }
        match i8::try_from(value) {
            Ok(value) => dynasm!(self.ops; lea Rq(target), [BYTE Rq(base) + value]),
            Err(_) => dynasm!(self.ops; lea Rq(target), [DWORD Rq(base) + value]),
        }
    }

    /// `target` = the value of `bytes` bytes at the address in `base` + `index`, extended to 64 bits.
    pub fn load_memory(&mut self, bytes: u64, is_signed: bool, target: Host, base: Host, index: Host) {
        match (bytes, is_signed) {
            (1, false) => dynasm!(self.ops; movzx Rd(target), BYTE [Rq(base) + Rq(index)]),
            (1, true) => dynasm!(self.ops; movsx Rq(target), BYTE [Rq(base) + Rq(index)]),
            (2, false) => dynasm!(self.ops; movzx Rd(target), WORD [Rq(base) + Rq(index)]),
            (2, true) => dynasm!(self.ops; movsx Rq(target), WORD [Rq(base) + Rq(index)]),
            (4, false) => dynasm!(self.ops; mov Rd(target), DWORD [Rq(base) + Rq(index)]),
            (4, true) => dynasm!(self.ops; movsxd Rq(target), DWORD [Rq(base) + Rq(index)]),
            _ => dynasm!(self.ops; mov Rq(target), QWORD [Rq(base) + Rq(index)]),
        }
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

    /// Stores the low `bytes` bytes of `source` at the address in `base` + `index`.
    pub fn store_memory(&mut self, bytes: u64, source: Host, base: Host, index: Host) {
        match bytes {
            1 => dynasm!(self.ops; mov BYTE [Rq(base) + Rq(index)], Rb(source)),
            2 => dynasm!(self.ops; mov WORD [Rq(base) + Rq(index)], Rw(source)),
            4 => dynasm!(self.ops; mov DWORD [Rq(base) + Rq(index)], Rd(source)),
            _ => dynasm!(self.ops; mov QWORD [Rq(base) + Rq(index)], Rq(source)),
        }
    }
}
