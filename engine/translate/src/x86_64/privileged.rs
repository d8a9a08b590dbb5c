//! Privileged instructions: at once in a guest's CP0 that is lent, or handed over.
//!
//! What is done at once is what `resident` calls so too, less what is rare or changes more than CP0. The code checks
//! that there is a CP0, that the guest is in kernel mode and that the time is enough for the cost; nothing
//! has changed if not, and the instruction is handed over as all others are.

use std::mem::offset_of;

use dynasmrt::{DynamicLabel, DynasmApi, DynasmLabelApi, dynasm};
use machine::Cp0;
use machine::cp0::{register, status};
use machine::cpu::{DoneAtOnce, Layout, SINK};
use mips::{Insn, Op};

use super::codegen::Codegen;
use super::emitter::{RCX, RDX, Width, field};

/// Bit of the context that is set unless the CPU is in user mode.
const NOT_USER: i32 = 1 << 11;
const STATUS: i32 = offset_of!(Cp0, status) as i32;
const CAUSE: i32 = offset_of!(Cp0, cause) as i32;
/// Bits of Status that change nothing outside of the guest's CP0 as long as its mode stays kernel mode.
const STATUS_AT_ONCE: u32 = status::IE | status::EXL | status::KSU_MASK | status::IM_MASK | status::CU0;
/// Status.KSU of supervisor mode, and a part of what is not written.
const KSU_LOW: i32 = 1 << status::KSU_SHIFT;

/// What is done at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AtOnce {
    /// To a general register: the place in CP0, and whether all of it is wanted.
    MoveFrom {
        offset: i32,
        is_double: bool,
    },
    /// To a register that is written as it comes.
    MoveTo {
        offset: i32,
        is_double: bool,
    },
    MoveToStatus,
    Disable,
    Enable,
}

impl AtOnce {
    fn of(insn: Insn) -> Option<AtOnce> {
        let place = Cp0::place(insn.rd, insn.sel());
        match insn.op {
            Op::Mfc0 | Op::Dmfc0 => place.map(|(offset, width)| AtOnce::MoveFrom {
                offset: offset as i32,
                is_double: insn.op == Op::Dmfc0 && width == 64,
            }),
            Op::Mtc0 | Op::Dmtc0 if (insn.rd, insn.sel()) == register::STATUS => Some(AtOnce::MoveToStatus),
            Op::Mtc0 | Op::Dmtc0 if Cp0::is_plain(insn.rd, insn.sel()) => {
                place.map(|(offset, _)| AtOnce::MoveTo { offset: offset as i32, is_double: insn.op == Op::Dmtc0 })
            }
            Op::Di => Some(AtOnce::Disable),
            Op::Ei => Some(AtOnce::Enable),
            _ => None,
        }
    }

    /// Where it is counted.
    fn count(self) -> i32 {
        let offset = match self {
            AtOnce::MoveFrom { .. } => offset_of!(DoneAtOnce, moves_from),
            AtOnce::MoveTo { .. } | AtOnce::MoveToStatus => offset_of!(DoneAtOnce, moves_to),
            AtOnce::Disable | AtOnce::Enable => offset_of!(DoneAtOnce, switches),
        };
        field(Layout::CPU.done_at_once + offset)
    }
}

impl Codegen<'_> {
    /// Emits an instruction that a handler takes, and after which execution goes on.
    pub fn privileged(&mut self, insn: Insn) {
        let Some(at_once) = AtOnce::of(insn) else { return self.hand_over(insn) };
        let (trapped, done) = (self.emitter.new_label(), self.emitter.new_label());
        self.later(move |codegen| {
            codegen.emitter.place(trapped);
            codegen.hand_over(insn);
            codegen.emitter.jump(done);
        });
        dynasm!(self.emitter.ops()
            ; mov rax, [rbp + field(Layout::CPU.guest_cp0)]
            ; test rax, rax
            ; je =>trapped
            ; test DWORD [rbp + field(Layout::CPU.context)], NOT_USER
            ; je =>trapped
        );
        match at_once {
            AtOnce::MoveFrom { offset, is_double } => {
                self.pay(at_once, trapped);
                self.load_cp0(insn.rt, offset, is_double);
            }
            AtOnce::MoveTo { offset, is_double } => {
                let source = self.place(insn.rt);
                match is_double {
                    true => self.emitter.load(Width::Double, RDX, source),
                    false => self.emitter.load_signed(RDX, source),
                }
                self.pay(at_once, trapped);
                dynasm!(self.emitter.ops(); mov [rax + offset], rdx);
            }
            AtOnce::MoveToStatus => {
                self.read_word(RDX, insn.rt);
                self.check_new_status(trapped);
                self.pay(at_once, trapped);
                dynasm!(self.emitter.ops(); mov [rax + STATUS], edx);
            }
            AtOnce::Disable => {
                self.pay(at_once, trapped);
                self.load_cp0(insn.rt, STATUS, false);
                dynasm!(self.emitter.ops(); and DWORD [rax + STATUS], !(status::IE as i32));
            }
            AtOnce::Enable => {
                dynasm!(self.emitter.ops()
                    ; mov edx, [rax + STATUS]
                    ; and edx, [rax + CAUSE]
                    ; test edx, status::IM_MASK as i32
                    ; jne =>trapped
                );
                self.pay(at_once, trapped);
                self.load_cp0(insn.rt, STATUS, false);
                dynasm!(self.emitter.ops(); or DWORD [rax + STATUS], status::IE as i32);
            }
        }
        self.emitter.place(done);
        self.note_handed_over(insn);
    }

    /// Takes the cost from the budget, and counts. rcx is lost.
    fn pay(&mut self, at_once: AtOnce, trapped: DynamicLabel) {
        dynasm!(self.emitter.ops()
            ; mov rcx, r15
            ; sub rcx, [rbp + field(Layout::CPU.at_once_cost)]
            ; js =>trapped
            ; mov r15, rcx
            ; add QWORD [rbp + at_once.count()], 1
        );
    }

    /// A general register = what is at `offset` from rax, or its low word, sign-extended. rcx is lost.
    fn load_cp0(&mut self, register: u8, offset: i32, is_double: bool) {
        if register == 0 || register == SINK {
            return;
        }
        let target = self.target(register, RCX);
        match is_double {
            true => dynasm!(self.emitter.ops(); mov Rq(target), [rax + offset]),
            false => dynasm!(self.emitter.ops(); movsxd Rq(target), DWORD [rax + offset]),
        }
        self.write(register, target);
    }

    /// Status is to become edx: jumps to `trapped` if that changes more than it, leaves kernel mode or allows an interrupt
    /// that is pending. ecx is lost.
    fn check_new_status(&mut self, trapped: DynamicLabel) {
        dynasm!(self.emitter.ops()
            ; mov ecx, [rax + STATUS]
            ; xor ecx, edx
            ; test ecx, !STATUS_AT_ONCE as i32
            ; jne =>trapped
            ; test edx, KSU_LOW
            ; jne =>trapped
            ; test edx, (status::EXL | status::ERL) as i32
            ; jne >masked
            ; test edx, status::KSU_MASK as i32
            ; jne =>trapped
            ; mov ecx, [rax + CAUSE]
            ; and ecx, edx
            ; test ecx, status::IM_MASK as i32
            ; jne =>trapped
            ; masked:
        );
    }
}
