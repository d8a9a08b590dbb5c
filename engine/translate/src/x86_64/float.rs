//! Floating point: the host's arithmetic where it is provably the guest's.
//!
//! Registers stay in the CPU. Before its first instruction of the unit a block has a *guard*: that CP1 is
//! usable with the register model that was translated for, that no exception is enabled and FCSR.FS is
//! clear, and that MXCSR rounds as FCSR.RM says. The guard is one comparison once it has been passed.
//!
//! # Results
//! Addition, subtraction, multiplication, division, square root and the conversions are IEEE 754's on
//! both sides. They differ in NaNs, so a result that is one is left to the interpreter, before the
//! register is written; and in conversions to integers that do not fit, likewise. What the host has no
//! instruction for is done by a call of `mips::fpu`.
//!
//! # Flags
//! The sticky flags of MXCSR (but Invalid and Denormal) are FCSR.Flags; they are taken over when
//! translated code is left. FCSR.Cause is of the last operation alone, and hardly anybody looks: an
//! operation notes what it was and its operands, and Cause is computed from that when the code is left.
//! A host instruction that yields NaN raises nothing but Invalid, so that the interpreter may repeat it.
//! MADD and its kin are a multiplication and an addition, whose flags Release 2 merges.

use dynasmrt::{DynasmApi, DynasmLabelApi, dynasm};
use machine::Cpu;
use machine::cpu::Layout;
use mips::fpu::{self, Fcsr, Flags, Rounding};
use mips::{Insn, Op};

use super::codegen::Codegen;
use super::emitter::{Alu, Condition, Place, RAX, RCX, RDX, Virtual, Width, field};

/// Words of `Cpu::scratch`.
pub mod scratch {
    /// 0, or the guard that has been passed: `Guard::passed`.
    pub const GUARD: usize = 0;
    /// What the last operation was: `NOTHING`, `EXACT` or an `Op` and `OPERATION`.
    pub const LAST: usize = 1;
    /// Its operands.
    pub const OPERANDS: [usize; 3] = [2, 3, 4];
    /// MXCSR as the host had it, for translated code, and as translated code left it.
    pub const MXCSR_HOST: usize = 5;
    pub const MXCSR_CLEAN: usize = 6;
    pub const MXCSR_LEFT: usize = 7;
    /// Crossings between regions until the page of the next one counts for all (32 bits).
    pub const CROSSINGS: usize = 8;
}

/// FCSR.Cause is up to date.
const NOTHING: u64 = 0;
/// The last operation raised nothing.
const EXACT: u64 = 1;
/// Added to the number of an `Op`.
const OPERATION: u64 = 0x1_0000;

/// FCSR.FS.
const FLUSH: u32 = 1 << 24;

/// Where a word of the scratch area is.
pub fn scratch_word(word: usize) -> i32 {
    field(Layout::CPU.scratch + 8 * word)
}

/// What a guard that has been passed leaves in its word.
fn passed(has_32_doubles: bool) -> u64 {
    1 + u64::from(has_32_doubles)
}

/// Passes the guard of a register model if that is possible: prepares the words of MXCSR.
pub fn pass_guard(cpu: &mut Cpu, guard: u64) -> bool {
    let fcsr = cpu.regs.fcsr;
    let is_ordinary = fcsr.enables().is_empty() && fcsr.bits() & FLUSH == 0;
    let is_fresh = cpu.scratch()[scratch::GUARD] == 0;
    if !is_fresh || !is_ordinary || cpu.float_model().map(passed) != Some(guard) {
        return false;
    }
    /// All exceptions masked, no flag set.
    const MXCSR_DEFAULT: u64 = 0x1f80;
    let rounding = match fcsr.rounding() {
        Rounding::NearestEven => 0,
        Rounding::Down => 1,
        Rounding::Up => 2,
        Rounding::TowardZero => 3,
    };
    let words = cpu.scratch();
    words[scratch::GUARD] = guard;
    words[scratch::LAST] = NOTHING;
    words[scratch::MXCSR_CLEAN] = MXCSR_DEFAULT | rounding << 13;
    true
}

/// Brings FCSR up to date with what translated code did, as `MXCSR_LEFT` and `LAST` tell.
pub fn settle(cpu: &mut Cpu) {
    let words = *cpu.scratch();
    let last = words[scratch::LAST];
    if last != NOTHING {
        let flags = if last == EXACT { Flags::NONE } else { flags_of(cpu.regs.fcsr, last, &words) };
        cpu.regs.fcsr.commit(flags).expect("no exception is enabled");
        cpu.scratch()[scratch::LAST] = NOTHING;
    }
    /// Divide by Zero, Overflow, Underflow and Precision are bits 2 to 5 there, in the opposite order.
    const STICKY: [(u64, Flags); 4] = [
        (1 << 2, Flags::DIVIDE_BY_ZERO),
        (1 << 3, Flags::OVERFLOW),
        (1 << 4, Flags::UNDERFLOW),
        (1 << 5, Flags::INEXACT),
    ];
    const FLAGS_SHIFT: u32 = 2;
    let left = words[scratch::MXCSR_LEFT];
    let raised = STICKY.iter().filter(|(bit, _)| left & bit != 0).fold(Flags::NONE, |all, (_, flag)| all | *flag);
    cpu.regs.fcsr = Fcsr::from_bits(cpu.regs.fcsr.bits() | raised.field() << FLAGS_SHIFT);
}

/// The flags that the last operation raised, computed again.
fn flags_of(fcsr: Fcsr, last: u64, words: &[u64; Layout::SCRATCH_COUNT]) -> Flags {
    let op = Op::ALL[(last - OPERATION) as usize];
    let [a, b, c] = scratch::OPERANDS.map(|word| words[word]);
    let (sa, sb, sc) = (a as u32, b as u32, c as u32);
    let env = fcsr.env();
    match op {
        Op::AddS => fpu::add_s(env, sa, sb).1,
        Op::SubS => fpu::sub_s(env, sa, sb).1,
        Op::MulS => fpu::mul_s(env, sa, sb).1,
        Op::DivS => fpu::div_s(env, sa, sb).1,
        Op::SqrtS => fpu::sqrt_s(env, sa).1,
        Op::MaddS | Op::NmaddS => fpu::madd_s(env, sc, sa, sb).1,
        Op::MsubS | Op::NmsubS => fpu::msub_s(env, sc, sa, sb).1,
        Op::AddD => fpu::add_d(env, a, b).1,
        Op::SubD => fpu::sub_d(env, a, b).1,
        Op::MulD => fpu::mul_d(env, a, b).1,
        Op::DivD => fpu::div_d(env, a, b).1,
        Op::SqrtD => fpu::sqrt_d(env, a).1,
        Op::MaddD | Op::NmaddD => fpu::madd_d(env, c, a, b).1,
        Op::MsubD | Op::NmsubD => fpu::msub_d(env, c, a, b).1,
        Op::CvtSD => fpu::cvt_s_d(env, a).1,
        Op::CvtSW => fpu::cvt_s_w(env, sa).1,
        Op::CvtSL => fpu::cvt_s_l(env, a).1,
        Op::CvtDL => fpu::cvt_d_l(env, a).1,
        Op::CvtWS => fpu::cvt_w_s(env.rounding, sa).1,
        Op::TruncWS => fpu::cvt_w_s(Rounding::TowardZero, sa).1,
        Op::CvtWD => fpu::cvt_w_d(env.rounding, a).1,
        Op::TruncWD => fpu::cvt_w_d(Rounding::TowardZero, a).1,
        Op::CvtLS => fpu::cvt_l_s(env.rounding, sa).1,
        Op::TruncLS => fpu::cvt_l_s(Rounding::TowardZero, sa).1,
        Op::CvtLD => fpu::cvt_l_d(env.rounding, a).1,
        Op::TruncLD => fpu::cvt_l_d(Rounding::TowardZero, a).1,
        op => unreachable!("{op:?} notes no operands"),
    }
}

/// Whether the translator does this instruction of the unit, once the guard is passed.
pub fn is_translated(op: Op) -> bool {
    !matches!(op, Op::Cfc1 | Op::Ctc1 | Op::Luxc1 | Op::Suxc1)
}

/// Format of an operand or a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Single,
    Double,
}

use Format::{Double, Single};

impl Codegen<'_> {
    /// Emits the guard.
    pub fn float_guard(&mut self) {
        let Some(has_32_doubles) = self.float_model else {
            unreachable!("nothing of the unit is translated then")
        };
        let guard = passed(has_32_doubles);
        let (unprepared, prepared) = (self.emitter.new_label(), self.emitter.new_label());
        let aside = self.aside_here();
        dynasm!(self.emitter.ops()
            ; cmp DWORD [rbp + scratch_word(scratch::GUARD)], guard as i32
            ; jne =>unprepared
            ; =>prepared
        );
        let thunk = self.thunks.pass_guard;
        self.later(move |codegen| {
            codegen.emitter.place(unprepared);
            codegen.emitter.constant(RDX, guard);
            codegen.call_helper(thunk, aside);
            codegen.emitter.jump(prepared);
        });
    }

    /// Emits an instruction of the floating-point unit that is no branch.
    pub fn float_instruction(&mut self, insn: Insn) {
        match insn.op {
            Op::AddS | Op::SubS | Op::MulS | Op::DivS => self.arithmetic(insn, Single),
            Op::AddD | Op::SubD | Op::MulD | Op::DivD => self.arithmetic(insn, Double),
            Op::MaddS | Op::MsubS | Op::NmaddS | Op::NmsubS => self.multiply_add(insn, Single),
            Op::MaddD | Op::MsubD | Op::NmaddD | Op::NmsubD => self.multiply_add(insn, Double),
            Op::SqrtS => self.root(insn, Single),
            Op::SqrtD => self.root(insn, Double),
            Op::CvtSD | Op::CvtDS => self.convert_format(insn),
            Op::CvtSW | Op::CvtSL | Op::CvtDW | Op::CvtDL => self.convert_integer(insn),
            Op::CvtWS | Op::TruncWS | Op::CvtLS | Op::TruncLS => self.convert_to_integer(insn, Single),
            Op::CvtWD | Op::TruncWD | Op::CvtLD | Op::TruncLD => self.convert_to_integer(insn, Double),
            Op::CCondS => self.compare_float(insn, Single),
            Op::CCondD => self.compare_float(insn, Double),

            Op::MovS => self.move_float(insn, Single),
            Op::MovD => self.move_float(insn, Double),
            Op::AbsS => self.change_sign(insn, Single, Alu::And),
            Op::AbsD => self.change_sign(insn, Double, Alu::And),
            Op::NegS => self.change_sign(insn, Single, Alu::Xor),
            Op::NegD => self.change_sign(insn, Double, Alu::Xor),
            Op::MovzS => self.move_float_on(insn, Single, Condition::Equal),
            Op::MovnS => self.move_float_on(insn, Single, Condition::NotEqual),
            Op::MovzD => self.move_float_on(insn, Double, Condition::Equal),
            Op::MovnD => self.move_float_on(insn, Double, Condition::NotEqual),
            Op::MovfS => self.move_float_on_code(insn, Single, Condition::Equal),
            Op::MovtS => self.move_float_on_code(insn, Single, Condition::NotEqual),
            Op::MovfD => self.move_float_on_code(insn, Double, Condition::Equal),
            Op::MovtD => self.move_float_on_code(insn, Double, Condition::NotEqual),
            Op::Movf => self.move_on_code(insn, Condition::Equal),
            Op::Movt => self.move_on_code(insn, Condition::NotEqual),

            Op::Mfc1 => {
                let (target, source) = (self.target(insn.rt, RAX), self.float_place(Single, insn.rd));
                self.emitter.load_signed(target, source);
                self.write(insn.rt, target);
            }
            Op::Dmfc1 => {
                let (target, source) = (self.target(insn.rt, RAX), self.float_place(Double, insn.rd));
                self.emitter.load(Width::Double, target, source);
                self.write(insn.rt, target);
            }
            Op::Mfhc1 => {
                let (target, source) = (self.target(insn.rt, RAX), self.high_half(insn.rd));
                self.emitter.load_signed(target, source);
                self.write(insn.rt, target);
            }
            Op::Mtc1 => {
                self.read(RAX, insn.rt);
                self.store_float(Single, insn.rd);
            }
            Op::Dmtc1 => {
                self.read(RAX, insn.rt);
                self.store_float(Double, insn.rd);
            }
            Op::Mthc1 => {
                self.read(RAX, insn.rt);
                let offset = offset_of(self.high_half(insn.rd));
                dynasm!(self.emitter.ops(); mov [rbp + offset], eax);
            }

            Op::Lwc1 => {
                self.load_at(insn, 4, false, RAX);
                self.store_float(Single, insn.rt);
            }
            Op::Ldc1 => {
                self.load_at(insn, 8, false, RAX);
                self.store_float(Double, insn.rt);
            }
            Op::Lwxc1 => {
                self.indexed_address(insn);
                self.load_float(Single, insn.sa);
            }
            Op::Ldxc1 => {
                self.indexed_address(insn);
                self.load_float(Double, insn.sa);
            }
            Op::Swc1 => {
                let value = self.float_place(Single, insn.rt);
                self.store_at(insn, 4, value);
            }
            Op::Sdc1 => {
                let value = self.float_place(Double, insn.rt);
                self.store_at(insn, 8, value);
            }
            Op::Swxc1 => {
                let value = self.float_place(Single, insn.rd);
                self.indexed_address(insn);
                self.store_value(4, value, Virtual::IN_RAX);
            }
            Op::Sdxc1 => {
                let value = self.float_place(Double, insn.rd);
                self.indexed_address(insn);
                self.store_value(8, value, Virtual::IN_RAX);
            }
            Op::Prefx => {}
            _ => self.call_float(insn),
        }
    }

    /// Compares for BC1F and BC1T; the condition holds if the branch is taken.
    pub fn compare_code(&mut self, insn: Insn) -> Condition {
        self.test_code(insn);
        match insn.op {
            Op::Bc1f | Op::Bc1fl => Condition::Equal,
            _ => Condition::NotEqual,
        }
    }

    // -- registers ---------------------------------------------------------------------------------

    /// Where a register of the unit is, by the rules in the head of the machine's `cpu/float.rs`.
    fn float_place(&self, format: Format, number: u8) -> Place {
        let has_32_doubles = self.float_model == Some(true);
        let (doubleword, half) = if has_32_doubles { (number, 0) } else { (number & 30, number & 1) };
        let offset = match format {
            Single => 8 * usize::from(doubleword) + 4 * usize::from(half),
            Double => 8 * usize::from(doubleword),
        };
        Place::Cpu(field(Layout::CPU.fpr + offset))
    }

    /// The high half of the double in a register.
    fn high_half(&self, number: u8) -> Place {
        Place::Cpu(offset_of(self.float_place(Double, number)) + 4)
    }

    /// Stores rax.
    fn store_float(&mut self, format: Format, number: u8) {
        let offset = offset_of(self.float_place(format, number));
        match format {
            Single => dynasm!(self.emitter.ops(); mov [rbp + offset], eax),
            Double => dynasm!(self.emitter.ops(); mov [rbp + offset], rax),
        }
    }

    /// Loads from the address in rax.
    fn load_float(&mut self, format: Format, number: u8) {
        let bytes = if format == Single { 4 } else { 8 };
        self.load_value(bytes, false, RAX, Virtual::IN_RAX);
        self.store_float(format, number);
    }

    /// rax = the sum of two registers.
    fn indexed_address(&mut self, insn: Insn) {
        let place = self.place(insn.rt);
        self.read(RAX, insn.rs);
        if place != Place::Zero {
            self.emitter.alu(Alu::Add, Width::Double, RAX, place);
        }
    }

    // -- arithmetic ----------------------------------------------------------------------------------

    /// Notes that the last operation was `insn`, whose operands are in xmm1, xmm2 and xmm3.
    fn note(&mut self, insn: Insn, operand_count: usize) {
        let last = (OPERATION + insn.op as u64) as i32;
        let [a, b, c] = scratch::OPERANDS.map(scratch_word);
        dynasm!(self.emitter.ops()
            ; mov DWORD [rbp + scratch_word(scratch::LAST)], last
            ; movsd [rbp + a], xmm1
        );
        if operand_count > 1 {
            dynasm!(self.emitter.ops(); movsd [rbp + b], xmm2);
        }
        if operand_count > 2 {
            dynasm!(self.emitter.ops(); movsd [rbp + c], xmm3);
        }
    }

    /// Notes that the last operation raised nothing.
    fn note_exact(&mut self) {
        dynasm!(self.emitter.ops(); mov DWORD [rbp + scratch_word(scratch::LAST)], EXACT as i32);
    }

    /// xmm1, xmm2 or xmm3 = an operand.
    fn operand(&mut self, number: u8, format: Format, register: u8) {
        let offset = offset_of(self.float_place(format, register));
        match format {
            Single => dynasm!(self.emitter.ops(); movss Rx(number), [rbp + offset]),
            Double => dynasm!(self.emitter.ops(); movsd Rx(number), [rbp + offset]),
        }
    }

    /// Goes aside if xmm0 is a NaN.
    fn check_result(&mut self, format: Format) {
        let aside = self.aside_here();
        match format {
            Single => dynasm!(self.emitter.ops(); ucomiss xmm0, xmm0; jp =>aside),
            Double => dynasm!(self.emitter.ops(); ucomisd xmm0, xmm0; jp =>aside),
        }
    }

    /// Writes xmm0.
    fn result(&mut self, format: Format, register: u8) {
        let offset = offset_of(self.float_place(format, register));
        match format {
            Single => dynasm!(self.emitter.ops(); movss [rbp + offset], xmm0),
            Double => dynasm!(self.emitter.ops(); movsd [rbp + offset], xmm0),
        }
    }

    fn arithmetic(&mut self, insn: Insn, format: Format) {
        self.operand(1, format, insn.rd);
        self.operand(2, format, insn.rt);
        let ops = self.emitter.ops();
        dynasm!(ops; movaps xmm0, xmm1);
        match insn.op {
            Op::AddS => dynasm!(ops; addss xmm0, xmm2),
            Op::SubS => dynasm!(ops; subss xmm0, xmm2),
            Op::MulS => dynasm!(ops; mulss xmm0, xmm2),
            Op::DivS => dynasm!(ops; divss xmm0, xmm2),
            Op::AddD => dynasm!(ops; addsd xmm0, xmm2),
            Op::SubD => dynasm!(ops; subsd xmm0, xmm2),
            Op::MulD => dynasm!(ops; mulsd xmm0, xmm2),
            _ => dynasm!(ops; divsd xmm0, xmm2),
        }
        self.check_result(format);
        self.note(insn, 2);
        self.result(format, insn.sa);
    }

    fn multiply_add(&mut self, insn: Insn, format: Format) {
        let is_difference = matches!(insn.op, Op::MsubS | Op::MsubD | Op::NmsubS | Op::NmsubD);
        let is_negated = matches!(insn.op, Op::NmaddS | Op::NmaddD | Op::NmsubS | Op::NmsubD);
        self.operand(1, format, insn.rd);
        self.operand(2, format, insn.rt);
        self.operand(3, format, insn.rs);
        let ops = self.emitter.ops();
        dynasm!(ops; movaps xmm0, xmm1);
        match (format, is_difference) {
            (Single, false) => dynasm!(ops; mulss xmm0, xmm2; addss xmm0, xmm3),
            (Single, true) => dynasm!(ops; mulss xmm0, xmm2; subss xmm0, xmm3),
            (Double, false) => dynasm!(ops; mulsd xmm0, xmm2; addsd xmm0, xmm3),
            (Double, true) => dynasm!(ops; mulsd xmm0, xmm2; subsd xmm0, xmm3),
        }
        self.check_result(format);
        self.note(insn, 3);
        self.result(format, insn.sa);
        if is_negated {
            let offset = offset_of(self.float_place(format, insn.sa));
            let top = if format == Single { 3 } else { 7 };
            dynasm!(self.emitter.ops(); xor BYTE [rbp + offset + top], -128);
        }
    }

    fn root(&mut self, insn: Insn, format: Format) {
        self.operand(1, format, insn.rd);
        match format {
            Single => dynasm!(self.emitter.ops(); sqrtss xmm0, xmm1),
            Double => dynasm!(self.emitter.ops(); sqrtsd xmm0, xmm1),
        }
        self.check_result(format);
        self.note(insn, 1);
        self.result(format, insn.sa);
    }

    // -- conversions ---------------------------------------------------------------------------------

    fn convert_format(&mut self, insn: Insn) {
        if insn.op == Op::CvtSD {
            self.operand(1, Double, insn.rd);
            dynasm!(self.emitter.ops(); cvtsd2ss xmm0, xmm1);
            self.check_result(Single);
            self.note(insn, 1);
            return self.result(Single, insn.sa);
        }
        self.operand(1, Single, insn.rd);
        dynasm!(self.emitter.ops(); cvtss2sd xmm0, xmm1);
        self.check_result(Double);
        self.note_exact();
        self.result(Double, insn.sa);
    }

    fn convert_integer(&mut self, insn: Insn) {
        let source = if matches!(insn.op, Op::CvtSW | Op::CvtDW) { Single } else { Double };
        let target = if matches!(insn.op, Op::CvtSW | Op::CvtSL) { Single } else { Double };
        let offset = offset_of(self.float_place(source, insn.rd));
        self.operand(1, source, insn.rd);
        let ops = self.emitter.ops();
        dynasm!(ops; xorps xmm0, xmm0);
        match insn.op {
            Op::CvtSW => dynasm!(ops; cvtsi2ss xmm0, DWORD [rbp + offset]),
            Op::CvtSL => dynasm!(ops; cvtsi2ss xmm0, QWORD [rbp + offset]),
            Op::CvtDW => dynasm!(ops; cvtsi2sd xmm0, DWORD [rbp + offset]),
            _ => dynasm!(ops; cvtsi2sd xmm0, QWORD [rbp + offset]),
        }
        match insn.op {
            Op::CvtDW => self.note_exact(),
            _ => self.note(insn, 1),
        }
        self.result(target, insn.sa);
    }

    /// What does not fit gives the most negative integer; that goes aside, deserved or not.
    fn convert_to_integer(&mut self, insn: Insn, format: Format) {
        self.operand(1, format, insn.rd);
        let is_word = matches!(insn.op, Op::CvtWS | Op::TruncWS | Op::CvtWD | Op::TruncWD);
        let aside = self.aside_here();
        let ops = self.emitter.ops();
        match insn.op {
            Op::CvtWS => dynasm!(ops; cvtss2si eax, xmm1),
            Op::TruncWS => dynasm!(ops; cvttss2si eax, xmm1),
            Op::CvtWD => dynasm!(ops; cvtsd2si eax, xmm1),
            Op::TruncWD => dynasm!(ops; cvttsd2si eax, xmm1),
            Op::CvtLS => dynasm!(ops; cvtss2si rax, xmm1),
            Op::TruncLS => dynasm!(ops; cvttss2si rax, xmm1),
            Op::CvtLD => dynasm!(ops; cvtsd2si rax, xmm1),
            _ => dynasm!(ops; cvttsd2si rax, xmm1),
        }
        // Only the most negative integer minus 1 overflows.
        match is_word {
            true => dynasm!(ops; cmp eax, 1; jo =>aside),
            false => dynasm!(ops; cmp rax, 1; jo =>aside),
        }
        self.note(insn, 1);
        self.store_float(if is_word { Single } else { Double }, insn.sa);
    }

    /// An instruction that touches registers of the unit only, by a call.
    fn call_float(&mut self, insn: Insn) {
        let aside = self.aside_here();
        self.emitter.constant(RDX, pack(insn));
        self.call_helper(self.thunks.float, aside);
    }

    // -- comparisons and moves -------------------------------------------------------------------------

    /// Bits 0 to 2 of the condition: unordered, equal, less; unordered goes aside.
    fn compare_float(&mut self, insn: Insn, format: Format) {
        const EQUAL: i16 = 2;
        const LESS: i16 = 4;
        let aside = self.aside_here();
        self.operand(1, format, insn.rd);
        self.operand(2, format, insn.rt);
        // Of ft with fs, so that less is above: that is false when unordered.
        match format {
            Single => dynasm!(self.emitter.ops(); ucomiss xmm2, xmm1; jp =>aside),
            Double => dynasm!(self.emitter.ops(); ucomisd xmm2, xmm1; jp =>aside),
        }
        let condition = match insn.imm & (EQUAL | LESS) {
            0 => None,
            EQUAL => Some(Condition::Equal),
            LESS => Some(Condition::Above),
            _ => Some(Condition::AboveEqual),
        };
        let bit = i32::from(condition_bit(insn.sa >> 2));
        match condition {
            None => dynasm!(self.emitter.ops(); xor eax, eax),
            Some(condition) => self.emitter.set_if(condition, RAX),
        }
        self.note_exact();
        let fcsr = field(Layout::CPU.fcsr);
        dynasm!(self.emitter.ops()
            ; shl eax, bit as i8
            ; mov ecx, [rbp + fcsr]
            ; and ecx, !(1 << bit)
            ; or ecx, eax
            ; mov [rbp + fcsr], ecx
        );
    }

    /// Tests the condition code that an instruction names: not equal if it is set.
    fn test_code(&mut self, insn: Insn) {
        let bit = 1i32 << condition_bit(insn.rt >> 2);
        dynasm!(self.emitter.ops(); test DWORD [rbp + field(Layout::CPU.fcsr)], bit);
    }

    fn move_float(&mut self, insn: Insn, format: Format) {
        let source = self.float_place(format, insn.rd);
        self.emitter.load(width(format), RAX, source);
        self.store_float(format, insn.sa);
    }

    fn change_sign(&mut self, insn: Insn, format: Format, alu: Alu) {
        let source = self.float_place(format, insn.rd);
        self.emitter.load(width(format), RAX, source);
        let sign = if format == Single { 1 << 31 } else { 1 << 63 };
        let mask = if alu == Alu::And { sign - 1 } else { sign };
        self.emitter.constant(RCX, mask);
        self.emitter.alu(alu, Width::Double, RAX, Place::Host(RCX));
        self.store_float(format, insn.sa);
    }

    fn move_float_on(&mut self, insn: Insn, format: Format, condition: Condition) {
        let place = self.place(insn.rt);
        self.emitter.compare_constant(place, 0);
        self.move_float_if(insn, format, condition);
    }

    fn move_float_on_code(&mut self, insn: Insn, format: Format, condition: Condition) {
        self.test_code(insn);
        self.move_float_if(insn, format, condition);
    }

    fn move_float_if(&mut self, insn: Insn, format: Format, condition: Condition) {
        let skip = self.emitter.new_label();
        self.emitter.jump_if(condition.inverse(), skip);
        self.move_float(insn, format);
        self.emitter.place(skip);
    }

    fn move_on_code(&mut self, insn: Insn, condition: Condition) {
        self.read(RCX, insn.rs);
        let target = self.target(insn.rd, RDX);
        if insn.rd != machine::cpu::SINK {
            self.read(target, insn.rd);
        }
        self.test_code(insn);
        self.emitter.move_if(condition, target, RCX);
        self.write(insn.rd, target);
    }
}

fn width(format: Format) -> Width {
    if format == Single { Width::Word } else { Width::Double }
}

fn offset_of(place: Place) -> i32 {
    match place {
        Place::Cpu(offset) => offset,
        place => unreachable!("a register of the unit is not at {place:?}"),
    }
}

/// The bit of FCSR that holds a condition code: code 0 lies apart.
fn condition_bit(code: u8) -> u8 {
    if code == 0 { 23 } else { 24 + code }
}

/// An instruction in one word, for a helper.
pub fn pack(insn: Insn) -> u64 {
    let fields = [insn.rs, insn.rt, insn.rd, insn.sa].map(u64::from);
    insn.op as u64 | fields[0] << 16 | fields[1] << 24 | fields[2] << 32 | fields[3] << 40 | insn.uimm() << 48
}

/// The reverse of `pack`.
pub fn unpack(word: u64) -> Insn {
    let field = |shift: u32| (word >> shift) as u8;
    Insn {
        op: Op::ALL[usize::from(word as u16)],
        rs: field(16),
        rt: field(24),
        rd: field(32),
        sa: field(40),
        imm: (word >> 48) as i16,
    }
}
