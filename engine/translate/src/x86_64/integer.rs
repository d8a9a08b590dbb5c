//! Instructions on general registers: what is translated, and how.
//!
//! Results of 32 bits are computed in a scratch register and sign-extended into place; results of 64
//! bits in place where the sources allow. What may trap is checked before anything is written.

use dynasmrt::{DynasmApi, DynasmLabelApi, dynasm};
use machine::cpu::SINK;
use mips::{Insn, Op};

use super::codegen::Codegen;
use super::emitter::{Alu, Condition, Host, Place, RAX, RCX, RDX, Shift, Width};
use crate::region::is_handed_over;
use crate::uses::{HI, LO};

/// Whether the translator does this instruction; the interpreter does the others. `has_float`: whether
/// those of the floating-point unit may be translated.
pub fn is_translated(insn: Insn, has_float: bool) -> bool {
    use mips::Family::*;
    match insn.op {
        // Repeating these after a fault in the delay slot reads what the link has changed.
        Op::Jalr | Op::JalrHb => insn.rd != insn.rs,
        Op::Bltzal | Op::Bgezal | Op::Bltzall | Op::Bgezall => insn.rs != 31,
        Op::Rdhwr => true,
        _ if is_handed_over(insn) => true,
        op if op.ends_run() || op.is_privileged() => false,
        op if op.uses_cp1() => has_float && super::float::is_translated(op),
        op => matches!(op.family(), Arithmetic | Branch | Control | Memory | Logical | Move | Shift | Trap),
    }
}

impl Codegen<'_> {
    /// Emits an instruction that is no branch.
    pub fn instruction(&mut self, insn: Insn) {
        self.guard(insn);
        match insn.op {
            Op::Nop | Op::Ssnop | Op::Ehb | Op::Pause | Op::Sync | Op::Pref => {}

            Op::Sll => self.shift_word(insn, Shift::Left),
            Op::Srl => self.shift_word(insn, Shift::Right),
            Op::Sra => self.shift_word(insn, Shift::RightSigned),
            Op::Rotr => self.shift_word(insn, Shift::RotateRight),
            Op::Sllv => self.shift_variable(insn, Shift::Left, Width::Word),
            Op::Srlv => self.shift_variable(insn, Shift::Right, Width::Word),
            Op::Srav => self.shift_variable(insn, Shift::RightSigned, Width::Word),
            Op::Rotrv => self.shift_variable(insn, Shift::RotateRight, Width::Word),
            Op::Dsll => self.shift_double(insn, Shift::Left, insn.sa),
            Op::Dsrl => self.shift_double(insn, Shift::Right, insn.sa),
            Op::Dsra => self.shift_double(insn, Shift::RightSigned, insn.sa),
            Op::Drotr => self.shift_double(insn, Shift::RotateRight, insn.sa),
            Op::Dsll32 => self.shift_double(insn, Shift::Left, insn.sa | 32),
            Op::Dsrl32 => self.shift_double(insn, Shift::Right, insn.sa | 32),
            Op::Dsra32 => self.shift_double(insn, Shift::RightSigned, insn.sa | 32),
            Op::Drotr32 => self.shift_double(insn, Shift::RotateRight, insn.sa | 32),
            Op::Dsllv => self.shift_variable(insn, Shift::Left, Width::Double),
            Op::Dsrlv => self.shift_variable(insn, Shift::Right, Width::Double),
            Op::Dsrav => self.shift_variable(insn, Shift::RightSigned, Width::Double),
            Op::Drotrv => self.shift_variable(insn, Shift::RotateRight, Width::Double),

            Op::Addu => self.word_operation(insn, Alu::Add),
            Op::Subu => self.word_operation(insn, Alu::Sub),
            Op::Daddu => self.double_operation(insn, Alu::Add),
            Op::Dsubu => self.double_operation(insn, Alu::Sub),
            Op::And => self.double_operation(insn, Alu::And),
            Op::Or => self.double_operation(insn, Alu::Or),
            Op::Xor => self.double_operation(insn, Alu::Xor),
            Op::Nor => {
                self.double_operation(insn, Alu::Or);
                if insn.rd != SINK {
                    let target = self.target(insn.rd, RAX);
                    self.read(target, insn.rd);
                    dynasm!(self.emitter.ops(); not Rq(target));
                    self.write(insn.rd, target);
                }
            }
            Op::Addiu => self.add_immediate(insn, Width::Word),
            Op::Daddiu => self.add_immediate(insn, Width::Double),
            Op::Andi => {
                let target = self.target(insn.rt, RAX);
                let place = self.place(insn.rs);
                self.read_word_in_place(target, place);
                self.emitter.alu_constant(Alu::And, Width::Word, target, insn.uimm() as i32);
                self.write(insn.rt, target);
            }
            Op::Ori => self.or_immediate(insn),
            Op::Xori => {
                let target = self.target(insn.rt, RAX);
                self.read(target, insn.rs);
                self.emitter.alu_constant(Alu::Xor, Width::Double, target, insn.uimm() as i32);
                self.write(insn.rt, target);
            }
            Op::Lui => self.write_constant(insn.rt, insn.simm() << 16),
            Op::Add => self.checked_operation(insn, Alu::Add, Width::Word),
            Op::Sub => self.checked_operation(insn, Alu::Sub, Width::Word),
            Op::Dadd => self.checked_operation(insn, Alu::Add, Width::Double),
            Op::Dsub => self.checked_operation(insn, Alu::Sub, Width::Double),
            Op::Addi => self.checked_immediate(insn, Width::Word),
            Op::Daddi => self.checked_immediate(insn, Width::Double),
            Op::Slt => self.set_on(insn, Condition::Less),
            Op::Sltu => self.set_on(insn, Condition::Below),
            Op::Slti => self.set_on_immediate(insn, Condition::Less),
            Op::Sltiu => self.set_on_immediate(insn, Condition::Below),
            Op::Clz => self.count_leading(insn, Width::Word, false),
            Op::Clo => self.count_leading(insn, Width::Word, true),
            Op::Dclz => self.count_leading(insn, Width::Double, false),
            Op::Dclo => self.count_leading(insn, Width::Double, true),
            Op::Seb => self.sign_extend(insn, 1),
            Op::Seh => self.sign_extend(insn, 2),

            Op::Mul => {
                self.read_word(RAX, insn.rs);
                self.read_word(RCX, insn.rt);
                dynasm!(self.emitter.ops(); imul eax, ecx);
                self.write_word(insn.rd, RAX);
            }
            Op::Mult | Op::Multu => {
                self.word_product(insn);
                self.write_pair();
            }
            Op::Madd | Op::Maddu | Op::Msub | Op::Msubu => self.accumulate(insn),
            Op::Dmult | Op::Dmultu => {
                self.read(RAX, insn.rs);
                self.read(RCX, insn.rt);
                match insn.op {
                    Op::Dmult => dynasm!(self.emitter.ops(); imul rcx),
                    _ => dynasm!(self.emitter.ops(); mul rcx),
                }
                self.write(LO, RAX);
                self.write(HI, RDX);
            }
            Op::Div => self.divide_signed(insn, Width::Word),
            Op::Divu => self.divide_unsigned(insn, Width::Word),
            Op::Ddiv => self.divide_signed(insn, Width::Double),
            Op::Ddivu => self.divide_unsigned(insn, Width::Double),
            Op::Mfhi => self.copy(insn.rd, HI),
            Op::Mflo => self.copy(insn.rd, LO),
            Op::Mthi => self.copy(HI, insn.rs),
            Op::Mtlo => self.copy(LO, insn.rs),

            Op::Movz => self.move_on(insn, Condition::Equal),
            Op::Movn => self.move_on(insn, Condition::NotEqual),
            Op::Ext => self.extract(insn, Width::Word, insn.sa, insn.rd + 1),
            Op::Dext => self.extract(insn, Width::Double, insn.sa, insn.rd + 1),
            Op::Dextm => self.extract(insn, Width::Double, insn.sa, insn.rd + 33),
            Op::Dextu => self.extract(insn, Width::Double, insn.sa + 32, insn.rd + 1),
            Op::Ins => self.insert(insn, Width::Word, insn.sa, insn.rd),
            Op::Dins => self.insert(insn, Width::Double, insn.sa, insn.rd),
            Op::Dinsm => self.insert(insn, Width::Double, insn.sa, insn.rd + 32),
            Op::Dinsu => self.insert(insn, Width::Double, insn.sa + 32, insn.rd + 32),
            Op::Wsbh => {
                self.read_word(RAX, insn.rt);
                dynasm!(self.emitter.ops(); bswap eax; ror eax, 16);
                self.write_word(insn.rd, RAX);
            }
            Op::Dsbh => {
                self.read(RAX, insn.rt);
                self.swap_halfword_bytes();
                self.write(insn.rd, RAX);
            }
            Op::Dshd => {
                self.read(RAX, insn.rt);
                dynasm!(self.emitter.ops(); bswap rax);
                self.swap_halfword_bytes();
                self.write(insn.rd, RAX);
            }

            Op::Tge => self.trap_on(insn, Condition::GreaterEqual),
            Op::Tgeu => self.trap_on(insn, Condition::AboveEqual),
            Op::Tlt => self.trap_on(insn, Condition::Less),
            Op::Tltu => self.trap_on(insn, Condition::Below),
            Op::Teq => self.trap_on(insn, Condition::Equal),
            Op::Tne => self.trap_on(insn, Condition::NotEqual),
            Op::Tgei => self.trap_on_immediate(insn, Condition::GreaterEqual),
            Op::Tgeiu => self.trap_on_immediate(insn, Condition::AboveEqual),
            Op::Tlti => self.trap_on_immediate(insn, Condition::Less),
            Op::Tltiu => self.trap_on_immediate(insn, Condition::Below),
            Op::Teqi => self.trap_on_immediate(insn, Condition::Equal),
            Op::Tnei => self.trap_on_immediate(insn, Condition::NotEqual),

            _ if is_handed_over(insn) => self.privileged(insn),
            Op::Rdhwr => {
                let aside = self.aside_here();
                self.call_helper(self.thunks.user_local, aside);
                self.write(insn.rt, RAX);
            }
            op if op.uses_cp1() => self.float_instruction(insn),
            _ => self.memory_instruction(insn),
        }
    }

    /// Writes the low half of `host`, sign-extended.
    pub fn write_word(&mut self, register: u8, host: Host) {
        if register == SINK || register == 0 {
            return;
        }
        let target = self.target(register, RAX);
        self.emitter.load_signed(target, Place::Host(host));
        self.write(register, target);
    }

    fn copy(&mut self, to: u8, from: u8) {
        let target = self.target(to, RAX);
        self.read(target, from);
        self.write(to, target);
    }

    // -- shifts ------------------------------------------------------------------------------------

    fn shift_word(&mut self, insn: Insn, shift: Shift) {
        if insn.sa == 0 {
            let (target, place) = (self.target(insn.rd, RAX), self.place(insn.rt));
            self.emitter.load_signed(target, place);
            return self.write(insn.rd, target);
        }
        let target = self.target(insn.rd, RAX);
        match shift {
            Shift::RightSigned => {
                let place = self.place(insn.rt);
                self.emitter.load_signed(target, place);
                self.emitter.shift(shift, Width::Double, target, insn.sa);
            }
            _ => {
                let place = self.place(insn.rt);
                self.read_word_in_place(target, place);
                self.emitter.shift(shift, Width::Word, target, insn.sa);
                // A word shifted right is its own extension.
                if shift != Shift::Right {
                    self.emitter.load_signed(target, Place::Host(target));
                }
            }
        }
        self.write(insn.rd, target);
    }

    fn shift_double(&mut self, insn: Insn, shift: Shift, count: u8) {
        let target = self.target(insn.rd, RAX);
        self.read(target, insn.rt);
        self.emitter.shift(shift, Width::Double, target, count);
        self.write(insn.rd, target);
    }

    fn shift_variable(&mut self, insn: Insn, shift: Shift, width: Width) {
        self.read_word(RCX, insn.rs);
        self.read(RAX, insn.rt);
        self.emitter.shift_by_cl(shift, width, RAX);
        match width {
            Width::Word => self.write_word(insn.rd, RAX),
            Width::Double => self.write(insn.rd, RAX),
        }
    }

    // -- sums and logic ------------------------------------------------------------------------------

    fn word_operation(&mut self, insn: Insn, alu: Alu) {
        if insn.rt == 0 {
            let (target, place) = (self.target(insn.rd, RAX), self.place(insn.rs));
            self.emitter.load_signed(target, place);
            return self.write(insn.rd, target);
        }
        match (alu, self.place(insn.rs), self.place(insn.rt)) {
            (Alu::Add, Place::Host(left), Place::Host(right)) => {
                self.emitter.sum(Width::Word, RAX, left, right);
            }
            (_, left, right) if left == self.place(insn.rd) && right != left && left != Place::Zero => {
                let target = self.target(insn.rd, RAX);
                self.read_word_in_place(target, left);
                self.emitter.alu(alu, Width::Word, target, right);
                return self.write_word(insn.rd, target);
            }
            (_, left, right) => {
                self.emitter.load(Width::Word, RAX, left);
                self.emitter.alu(alu, Width::Word, RAX, right);
            }
        }
        self.write_word(insn.rd, RAX);
    }

    /// `target` = the low half of a value; its upper half is lost in the operation that follows.
    fn read_word_in_place(&mut self, target: Host, place: Place) {
        if place != Place::Host(target) {
            self.emitter.load(Width::Word, target, place);
        }
    }

    fn double_operation(&mut self, insn: Insn, alu: Alu) {
        if insn.rd == SINK {
            return;
        }
        let target = self.target(insn.rd, RAX);
        let (mut left, mut right) = (insn.rs, insn.rt);
        let commutes = alu != Alu::Sub;
        let overwrites = |codegen: &Self, register: u8| codegen.place(register) == Place::Host(target);
        if overwrites(self, right) && !overwrites(self, left) {
            if !commutes {
                return self.double_operation_in_scratch(insn, alu);
            }
            std::mem::swap(&mut left, &mut right);
        }
        let (left_place, right_place) = (self.place(left), self.place(right));
        match (alu, left_place, right_place) {
            (Alu::Add, Place::Host(left), Place::Host(right)) if left != target => {
                self.emitter.sum(Width::Double, target, left, right);
            }
            (Alu::Add | Alu::Or | Alu::Xor, Place::Zero, _) => {
                self.emitter.load(Width::Double, target, right_place);
            }
            _ => {
                self.emitter.load(Width::Double, target, left_place);
                let is_neutral = right_place == Place::Zero && alu != Alu::And;
                if !is_neutral {
                    self.emitter.alu(alu, Width::Double, target, right_place);
                }
            }
        }
        self.write(insn.rd, target);
    }

    fn double_operation_in_scratch(&mut self, insn: Insn, alu: Alu) {
        let right = self.place(insn.rt);
        self.read(RAX, insn.rs);
        self.emitter.alu(alu, Width::Double, RAX, right);
        self.write(insn.rd, RAX);
    }

    fn add_immediate(&mut self, insn: Insn, width: Width) {
        if let Some(known) = self.known(insn.rs) {
            let sum = known.wrapping_add(insn.simm());
            let sum = if width == Width::Word { sum as i32 as u64 } else { sum };
            return self.write_constant(insn.rt, sum);
        }
        let value = i32::from(insn.imm);
        match width {
            Width::Word if value == 0 => {
                let (target, place) = (self.target(insn.rt, RAX), self.place(insn.rs));
                self.emitter.load_signed(target, place);
                self.write(insn.rt, target);
            }
            Width::Word => {
                match self.place(insn.rs) {
                    Place::Host(host) => self.emitter.add_constant_to_word(RAX, host, value),
                    place => {
                        self.emitter.load(Width::Word, RAX, place);
                        self.emitter.alu_constant(Alu::Add, Width::Word, RAX, value);
                    }
                }
                self.write_word(insn.rt, RAX);
            }
            Width::Double => {
                let target = self.target(insn.rt, RAX);
                self.sum(target, insn.rs, value);
                self.write(insn.rt, target);
            }
        }
    }

    /// `target` = a register + `value`.
    fn sum(&mut self, target: Host, register: u8, value: i32) {
        match self.place(register) {
            Place::Host(host) => self.emitter.add_constant(target, host, value),
            place => {
                self.emitter.load(Width::Double, target, place);
                self.emitter.alu_constant(Alu::Add, Width::Double, target, value);
            }
        }
    }

    fn or_immediate(&mut self, insn: Insn) {
        if let Some(known) = self.known(insn.rs) {
            return self.write_constant(insn.rt, known | insn.uimm());
        }
        let target = self.target(insn.rt, RAX);
        self.read(target, insn.rs);
        self.emitter.alu_constant(Alu::Or, Width::Double, target, insn.uimm() as i32);
        self.write(insn.rt, target);
    }

    fn checked_operation(&mut self, insn: Insn, alu: Alu, width: Width) {
        let (aside, right) = (self.aside_here(), self.place(insn.rt));
        self.read(RAX, insn.rs);
        self.emitter.alu(alu, width, RAX, right);
        self.emitter.jump_if(Condition::Overflow, aside);
        self.write_width(insn.rd, width);
    }

    fn checked_immediate(&mut self, insn: Insn, width: Width) {
        let aside = self.aside_here();
        self.read(RAX, insn.rs);
        self.emitter.alu_constant(Alu::Add, width, RAX, i32::from(insn.imm));
        self.emitter.jump_if(Condition::Overflow, aside);
        self.write_width(insn.rt, width);
    }

    /// Writes rax, sign-extended if it is a word.
    fn write_width(&mut self, register: u8, width: Width) {
        match width {
            Width::Word => self.write_word(register, RAX),
            Width::Double => self.write(register, RAX),
        }
    }

    // -- comparisons ---------------------------------------------------------------------------------

    fn set_on(&mut self, insn: Insn, condition: Condition) {
        self.compare_registers(insn.rs, insn.rt);
        let target = self.target(insn.rd, RAX);
        self.emitter.set_if(condition, target);
        self.write(insn.rd, target);
    }

    fn set_on_immediate(&mut self, insn: Insn, condition: Condition) {
        let place = self.place(insn.rs);
        self.emitter.compare_constant(place, i32::from(insn.imm));
        let target = self.target(insn.rt, RAX);
        self.emitter.set_if(condition, target);
        self.write(insn.rt, target);
    }

    fn trap_on(&mut self, insn: Insn, condition: Condition) {
        let aside = self.aside_here();
        self.compare_registers(insn.rs, insn.rt);
        self.emitter.jump_if(condition, aside);
    }

    fn trap_on_immediate(&mut self, insn: Insn, condition: Condition) {
        let (aside, place) = (self.aside_here(), self.place(insn.rs));
        self.emitter.compare_constant(place, i32::from(insn.imm));
        self.emitter.jump_if(condition, aside);
    }

    fn move_on(&mut self, insn: Insn, condition: Condition) {
        if insn.rd == SINK {
            return;
        }
        self.read(RCX, insn.rs);
        let target = self.target(insn.rd, RDX);
        self.read(target, insn.rd);
        let place = self.place(insn.rt);
        self.emitter.compare_constant(place, 0);
        self.emitter.move_if(condition, target, RCX);
        self.write(insn.rd, target);
    }

    // -- bits ------------------------------------------------------------------------------------------

    fn count_leading(&mut self, insn: Insn, width: Width, ones: bool) {
        self.read(RAX, insn.rs);
        match (width, ones) {
            (Width::Word, true) => dynasm!(self.emitter.ops(); not eax),
            (Width::Double, true) => dynasm!(self.emitter.ops(); not rax),
            (_, false) => {}
        }
        // Without LZCNT: the number of the highest bit, or all ones and more if there is none.
        match width {
            Width::Word => dynasm!(self.emitter.ops()
                ; mov edx, 63
                ; bsr ecx, eax
                ; cmove ecx, edx
                ; xor ecx, 31
            ),
            Width::Double => dynasm!(self.emitter.ops()
                ; mov edx, 127
                ; bsr rcx, rax
                ; cmove ecx, edx
                ; xor ecx, 63
            ),
        }
        self.write(insn.rd, RCX);
    }

    fn sign_extend(&mut self, insn: Insn, bytes: u64) {
        self.read_word(RAX, insn.rt);
        let target = self.target(insn.rd, RAX);
        self.emitter.extend(bytes, true, target, RAX);
        self.write(insn.rd, target);
    }

    fn extract(&mut self, insn: Insn, width: Width, position: u8, size: u8) {
        let target = self.target(insn.rt, RAX);
        if size == 32 && position == 0 {
            self.read_word(target, insn.rs);
        } else {
            self.read(target, insn.rs);
            self.emitter.shift(Shift::Right, width, target, position);
            match i32::try_from(u64::MAX >> (64 - size)) {
                Ok(mask) => self.emitter.alu_constant(Alu::And, Width::Word, target, mask),
                Err(_) if size == 32 => self.emitter.load(Width::Word, target, Place::Host(target)),
                Err(_) => {
                    self.emitter.shift(Shift::Left, Width::Double, target, 64 - size);
                    self.emitter.shift(Shift::Right, Width::Double, target, 64 - size);
                }
            }
        }
        match width {
            Width::Word => self.write_word(insn.rt, target),
            Width::Double => self.write(insn.rt, target),
        }
    }

    fn insert(&mut self, insn: Insn, width: Width, first: u8, last: u8) {
        let mask = u64::MAX >> (63 - (last - first)) << first;
        self.read(RAX, insn.rs);
        self.emitter.shift(Shift::Left, Width::Double, RAX, first);
        self.emitter.constant(RCX, mask);
        self.emitter.alu(Alu::And, Width::Double, RAX, Place::Host(RCX));
        dynasm!(self.emitter.ops(); not rcx);
        let place = self.place(insn.rt);
        self.emitter.alu(Alu::And, Width::Double, RCX, place);
        self.emitter.alu(Alu::Or, Width::Double, RAX, Place::Host(RCX));
        self.write_width(insn.rt, width);
    }

    /// Swaps the bytes of each halfword of rax.
    fn swap_halfword_bytes(&mut self) {
        const EVEN: i64 = 0x00ff_00ff_00ff_00ff;
        dynasm!(self.emitter.ops()
            ; mov rcx, QWORD EVEN
            ; mov rdx, rax
            ; shr rdx, 8
            ; and rdx, rcx
            ; and rax, rcx
            ; shl rax, 8
            ; or rax, rdx
        );
    }

    // -- multiplication and division -------------------------------------------------------------------

    /// rax = the 64-bit product of two words.
    fn word_product(&mut self, insn: Insn) {
        let (left, right) = (self.place(insn.rs), self.place(insn.rt));
        if matches!(insn.op, Op::Mult | Op::Madd | Op::Msub) {
            self.emitter.load_signed(RAX, left);
            self.emitter.load_signed(RCX, right);
        } else {
            self.emitter.load(Width::Word, RAX, left);
            self.emitter.load(Width::Word, RCX, right);
        }
        dynasm!(self.emitter.ops(); imul rax, rcx);
    }

    /// HI and LO = the halves of rax, sign-extended.
    fn write_pair(&mut self) {
        let lo = self.target(LO, RCX);
        self.emitter.load_signed(lo, Place::Host(RAX));
        self.write(LO, lo);
        self.emitter.shift(Shift::RightSigned, Width::Double, RAX, 32);
        self.write(HI, RAX);
    }

    fn accumulate(&mut self, insn: Insn) {
        self.word_product(insn);
        self.read(RDX, HI);
        self.read_word(RCX, LO);
        self.emitter.shift(Shift::Left, Width::Double, RDX, 32);
        dynasm!(self.emitter.ops(); or rdx, rcx);
        match insn.op {
            Op::Madd | Op::Maddu => dynasm!(self.emitter.ops(); add rax, rdx),
            _ => dynasm!(self.emitter.ops(); sub rdx, rax; mov rax, rdx),
        }
        self.write_pair();
    }

    /// By zero: quotient = dividend, remainder 0. By -1, where the host may trap: quotient = -dividend.
    fn divide_signed(&mut self, insn: Insn, width: Width) {
        let (special, done) = (self.emitter.new_label(), self.emitter.new_label());
        self.read(RAX, insn.rs);
        self.read(RCX, insn.rt);
        match width {
            Width::Word => dynasm!(self.emitter.ops()
                ; lea edx, [rcx + 1]
                ; cmp edx, 1
                ; jbe =>special
                ; cdq
                ; idiv ecx
                ; =>done
            ),
            Width::Double => dynasm!(self.emitter.ops()
                ; lea rdx, [rcx + 1]
                ; cmp rdx, 1
                ; jbe =>special
                ; cqo
                ; idiv rcx
                ; =>done
            ),
        }
        self.later(move |codegen| match width {
            Width::Word => dynasm!(codegen.emitter.ops()
                ; =>special
                ; xor edx, edx
                ; test ecx, ecx
                ; je =>done
                ; neg eax
                ; jmp =>done
            ),
            Width::Double => dynasm!(codegen.emitter.ops()
                ; =>special
                ; xor edx, edx
                ; test rcx, rcx
                ; je =>done
                ; neg rax
                ; jmp =>done
            ),
        });
        self.write_quotient(width);
    }

    fn divide_unsigned(&mut self, insn: Insn, width: Width) {
        let done = self.emitter.new_label();
        self.read(RAX, insn.rs);
        self.read(RCX, insn.rt);
        match width {
            Width::Word => dynasm!(self.emitter.ops()
                ; xor edx, edx
                ; test ecx, ecx
                ; je =>done
                ; div ecx
                ; =>done
            ),
            Width::Double => dynasm!(self.emitter.ops()
                ; xor edx, edx
                ; test rcx, rcx
                ; je =>done
                ; div rcx
                ; =>done
            ),
        }
        self.write_quotient(width);
    }

    fn write_quotient(&mut self, width: Width) {
        match width {
            Width::Word => {
                self.emitter.load_signed(RDX, Place::Host(RDX));
                self.write(HI, RDX);
                self.write_word(LO, RAX);
            }
            Width::Double => {
                self.write(LO, RAX);
                self.write(HI, RDX);
            }
        }
    }
}
