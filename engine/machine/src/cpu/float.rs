//! The floating-point unit's registers and instructions; the arithmetic is `mips::fpu`.
//!
//! A register file of 32 doublewords serves both register models. With Status.FR = 1 each holds a
//! single, a double or an integer of its own. With FR = 0 an even register and the odd one above it
//! are the halves of one double, which lives in the even doubleword: the single in an odd register
//! is the high half of its neighbour below, and a double named by an odd register is the pair.
//! Writing a single leaves the other half of the doubleword as it was.

use mips::fpu::{self, Condition, Flags, Rounding};
use mips::{Insn, Op};

use super::{Cpu, Fault, Outcome, Registers};
use crate::Exception;

/// How register numbers lead to doublewords, by Status.FR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RegisterModel {
    /// Bits of the number that choose the doubleword; the others choose the half.
    mask: u8,
}

impl RegisterModel {
    pub(super) fn new(has_32_doubles: bool) -> RegisterModel {
        RegisterModel { mask: if has_32_doubles { 31 } else { 30 } }
    }

    #[inline(always)]
    fn doubleword(self, number: u8) -> usize {
        usize::from(number & self.mask & 31)
    }

    #[inline(always)]
    fn half_shift(self, number: u8) -> u32 {
        u32::from(number & !self.mask & 1) * 32
    }
}

impl Registers {
    #[inline(always)]
    pub(super) fn single(&self, model: RegisterModel, number: u8) -> u32 {
        (self.fpr[model.doubleword(number)] >> model.half_shift(number)) as u32
    }

    #[inline(always)]
    pub(super) fn set_single(&mut self, model: RegisterModel, number: u8, value: u32) {
        let shift = model.half_shift(number);
        let target = &mut self.fpr[model.doubleword(number)];
        *target = *target & !(0xffff_ffff << shift) | u64::from(value) << shift;
    }

    #[inline(always)]
    pub(super) fn double(&self, model: RegisterModel, number: u8) -> u64 {
        self.fpr[model.doubleword(number)]
    }

    #[inline(always)]
    pub(super) fn set_double(&mut self, model: RegisterModel, number: u8, value: u64) {
        self.fpr[model.doubleword(number)] = value;
    }
}

/// The condition code that MOVF, MOVT and BC1 test: bits 20:18.
#[inline(always)]
pub(super) fn tested_condition(insn: Insn) -> u8 {
    insn.rt >> 2
}

impl Cpu {
    /// Executes an instruction of the floating-point unit that is no branch, load or store.
    #[inline(never)]
    pub(super) fn execute_float(&mut self, insn: Insn) -> Outcome {
        if !self.has_float {
            self.fault = Fault::Exception(Exception::CoprocessorUnusable { unit: 1 });
            return Outcome::Fault;
        }
        let model = self.register_model;
        let env = self.regs.fcsr.env();
        // fs, ft and fr in the format that the instruction reads.
        macro_rules! s {
            ($field:ident) => {
                self.regs.single(model, insn.$field)
            };
        }
        macro_rules! d {
            ($field:ident) => {
                self.regs.double(model, insn.$field)
            };
        }
        use Rounding::{Down, NearestEven, TowardZero, Up};
        match insn.op {
            Op::AddS => self.finish_single(insn, fpu::add_s(env, s!(rd), s!(rt))),
            Op::SubS => self.finish_single(insn, fpu::sub_s(env, s!(rd), s!(rt))),
            Op::MulS => self.finish_single(insn, fpu::mul_s(env, s!(rd), s!(rt))),
            Op::DivS => self.finish_single(insn, fpu::div_s(env, s!(rd), s!(rt))),
            Op::SqrtS => self.finish_single(insn, fpu::sqrt_s(env, s!(rd))),
            Op::RecipS => self.finish_single(insn, fpu::recip_s(env, s!(rd))),
            Op::RsqrtS => self.finish_single(insn, fpu::rsqrt_s(env, s!(rd))),
            Op::MaddS => self.finish_single(insn, fpu::madd_s(env, s!(rs), s!(rd), s!(rt))),
            Op::MsubS => self.finish_single(insn, fpu::msub_s(env, s!(rs), s!(rd), s!(rt))),
            Op::NmaddS => self.finish_single(insn, fpu::nmadd_s(env, s!(rs), s!(rd), s!(rt))),
            Op::NmsubS => self.finish_single(insn, fpu::nmsub_s(env, s!(rs), s!(rd), s!(rt))),
            Op::AddD => self.finish_double(insn, fpu::add_d(env, d!(rd), d!(rt))),
            Op::SubD => self.finish_double(insn, fpu::sub_d(env, d!(rd), d!(rt))),
            Op::MulD => self.finish_double(insn, fpu::mul_d(env, d!(rd), d!(rt))),
            Op::DivD => self.finish_double(insn, fpu::div_d(env, d!(rd), d!(rt))),
            Op::SqrtD => self.finish_double(insn, fpu::sqrt_d(env, d!(rd))),
            Op::RecipD => self.finish_double(insn, fpu::recip_d(env, d!(rd))),
            Op::RsqrtD => self.finish_double(insn, fpu::rsqrt_d(env, d!(rd))),
            Op::MaddD => self.finish_double(insn, fpu::madd_d(env, d!(rs), d!(rd), d!(rt))),
            Op::MsubD => self.finish_double(insn, fpu::msub_d(env, d!(rs), d!(rd), d!(rt))),
            Op::NmaddD => self.finish_double(insn, fpu::nmadd_d(env, d!(rs), d!(rd), d!(rt))),
            Op::NmsubD => self.finish_double(insn, fpu::nmsub_d(env, d!(rs), d!(rd), d!(rt))),

            Op::CvtSD => self.finish_single(insn, fpu::cvt_s_d(env, d!(rd))),
            Op::CvtSW => self.finish_single(insn, fpu::cvt_s_w(env, s!(rd))),
            Op::CvtSL => self.finish_single(insn, fpu::cvt_s_l(env, d!(rd))),
            Op::CvtDS => self.finish_double(insn, fpu::cvt_d_s(env, s!(rd))),
            Op::CvtDW => self.finish_double(insn, fpu::cvt_d_w(s!(rd))),
            Op::CvtDL => self.finish_double(insn, fpu::cvt_d_l(env, d!(rd))),
            Op::CvtWS => self.finish_single(insn, fpu::cvt_w_s(env.rounding, s!(rd))),
            Op::RoundWS => self.finish_single(insn, fpu::cvt_w_s(NearestEven, s!(rd))),
            Op::TruncWS => self.finish_single(insn, fpu::cvt_w_s(TowardZero, s!(rd))),
            Op::CeilWS => self.finish_single(insn, fpu::cvt_w_s(Up, s!(rd))),
            Op::FloorWS => self.finish_single(insn, fpu::cvt_w_s(Down, s!(rd))),
            Op::CvtWD => self.finish_single(insn, fpu::cvt_w_d(env.rounding, d!(rd))),
            Op::RoundWD => self.finish_single(insn, fpu::cvt_w_d(NearestEven, d!(rd))),
            Op::TruncWD => self.finish_single(insn, fpu::cvt_w_d(TowardZero, d!(rd))),
            Op::CeilWD => self.finish_single(insn, fpu::cvt_w_d(Up, d!(rd))),
            Op::FloorWD => self.finish_single(insn, fpu::cvt_w_d(Down, d!(rd))),
            Op::CvtLS => self.finish_double(insn, fpu::cvt_l_s(env.rounding, s!(rd))),
            Op::RoundLS => self.finish_double(insn, fpu::cvt_l_s(NearestEven, s!(rd))),
            Op::TruncLS => self.finish_double(insn, fpu::cvt_l_s(TowardZero, s!(rd))),
            Op::CeilLS => self.finish_double(insn, fpu::cvt_l_s(Up, s!(rd))),
            Op::FloorLS => self.finish_double(insn, fpu::cvt_l_s(Down, s!(rd))),
            Op::CvtLD => self.finish_double(insn, fpu::cvt_l_d(env.rounding, d!(rd))),
            Op::RoundLD => self.finish_double(insn, fpu::cvt_l_d(NearestEven, d!(rd))),
            Op::TruncLD => self.finish_double(insn, fpu::cvt_l_d(TowardZero, d!(rd))),
            Op::CeilLD => self.finish_double(insn, fpu::cvt_l_d(Up, d!(rd))),
            Op::FloorLD => self.finish_double(insn, fpu::cvt_l_d(Down, d!(rd))),

            Op::CCondS => self.finish_compare(insn, fpu::compare_s(condition(insn), s!(rd), s!(rt))),
            Op::CCondD => self.finish_compare(insn, fpu::compare_d(condition(insn), d!(rd), d!(rt))),

            Op::AbsS => self.move_single(insn, fpu::abs_s(s!(rd)), true),
            Op::NegS => self.move_single(insn, fpu::neg_s(s!(rd)), true),
            Op::MovS => self.move_single(insn, s!(rd), true),
            Op::MovfS => self.move_single(insn, s!(rd), !self.is_condition_set(insn)),
            Op::MovtS => self.move_single(insn, s!(rd), self.is_condition_set(insn)),
            Op::MovzS => self.move_single(insn, s!(rd), self.regs.gpr[usize::from(insn.rt)] == 0),
            Op::MovnS => self.move_single(insn, s!(rd), self.regs.gpr[usize::from(insn.rt)] != 0),
            Op::AbsD => self.move_double(insn, fpu::abs_d(d!(rd)), true),
            Op::NegD => self.move_double(insn, fpu::neg_d(d!(rd)), true),
            Op::MovD => self.move_double(insn, d!(rd), true),
            Op::MovfD => self.move_double(insn, d!(rd), !self.is_condition_set(insn)),
            Op::MovtD => self.move_double(insn, d!(rd), self.is_condition_set(insn)),
            Op::MovzD => self.move_double(insn, d!(rd), self.regs.gpr[usize::from(insn.rt)] == 0),
            Op::MovnD => self.move_double(insn, d!(rd), self.regs.gpr[usize::from(insn.rt)] != 0),
            _ => self.execute_float_transfer(insn),
        }
    }

    /// Moves between the general registers and the floating-point unit.
    fn execute_float_transfer(&mut self, insn: Insn) -> Outcome {
        let (rt, fs) = (usize::from(insn.rt), insn.rd);
        let high_shift = 32;
        let model = self.register_model;
        let double = self.regs.double(model, fs);
        match insn.op {
            Op::Movf | Op::Movt => {
                if self.is_condition_set(insn) == (insn.op == Op::Movt) {
                    self.regs.gpr[usize::from(insn.rd)] = self.regs.gpr[usize::from(insn.rs)];
                }
            }
            Op::Mfc1 => self.regs.gpr[rt] = self.regs.single(model, fs) as i32 as u64,
            Op::Mfhc1 => self.regs.gpr[rt] = (double >> high_shift) as i32 as u64,
            Op::Dmfc1 => self.regs.gpr[rt] = double,
            Op::Mtc1 => self.regs.set_single(model, fs, self.regs.gpr[rt] as u32),
            Op::Mthc1 => {
                let value = self.regs.gpr[rt] << high_shift | double & 0xffff_ffff;
                self.regs.set_double(model, fs, value);
            }
            Op::Dmtc1 => self.regs.set_double(model, fs, self.regs.gpr[rt]),
            Op::Cfc1 => self.regs.gpr[rt] = self.regs.fcsr.read_control(fs) as i32 as u64,
            Op::Ctc1 => {
                let word = self.regs.gpr[rt] as u32;
                if self.regs.fcsr.write_control(fs, word).is_err() {
                    return self.float_trap();
                }
            }
            Op::Prefx => {}
            op => unreachable!("{op:?} is no instruction of the floating-point unit"),
        }
        Outcome::Next
    }

    fn is_condition_set(&self, insn: Insn) -> bool {
        self.regs.fcsr.condition(tested_condition(insn))
    }

    fn float_trap(&mut self) -> Outcome {
        self.fault = Fault::Exception(Exception::FloatingPoint);
        Outcome::Fault
    }

    #[inline(always)]
    fn finish_single(&mut self, insn: Insn, (value, flags): (u32, Flags)) -> Outcome {
        if self.regs.fcsr.commit(flags).is_err() {
            return self.float_trap();
        }
        self.move_single(insn, value, true)
    }

    #[inline(always)]
    fn finish_double(&mut self, insn: Insn, (value, flags): (u64, Flags)) -> Outcome {
        if self.regs.fcsr.commit(flags).is_err() {
            return self.float_trap();
        }
        self.move_double(insn, value, true)
    }

    #[inline(always)]
    fn finish_compare(&mut self, insn: Insn, (is_true, flags): (bool, Flags)) -> Outcome {
        if self.regs.fcsr.commit(flags).is_err() {
            return self.float_trap();
        }
        self.regs.fcsr.set_condition(insn.sa >> 2, is_true);
        Outcome::Next
    }

    #[inline(always)]
    fn move_single(&mut self, insn: Insn, value: u32, holds: bool) -> Outcome {
        if holds {
            self.regs.set_single(self.register_model, insn.sa, value);
        }
        Outcome::Next
    }

    #[inline(always)]
    fn move_double(&mut self, insn: Insn, value: u64, holds: bool) -> Outcome {
        if holds {
            self.regs.set_double(self.register_model, insn.sa, value);
        }
        Outcome::Next
    }
}

/// The condition of C.cond.fmt: bits 3:0.
#[inline(always)]
fn condition(insn: Insn) -> Condition {
    Condition::from_bits(u32::from(insn.imm as u16 & 15))
}
