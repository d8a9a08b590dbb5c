//! Into translated code and out of it: the code that all translations share, and the calls both ways.
//!
//! A *thunk* is a piece of host code at the beginning of the buffer. `enter` is called from here with
//! the address of a translation and returns through `jump`, `aside` or `absent`. The others are called
//! by translations whose access the caches do not answer; they preserve all registers but the scratch
//! ones.
//!
//! # Why `unsafe`
//! Calling code that was made at run time, and being called by it with the address of the CPU. While
//! translated code runs, the one reference to the CPU is the `&mut` that [`Thunks::run`] was given;
//! it is not used before the code returns, and the helpers get theirs from the same address, one
//! after the other.

use dynasmrt::{DynasmApi, DynasmLabelApi, dynasm};
use machine::Cpu;
use machine::cpu::{Layout, Ran};

use super::codegen::{CROSSINGS_OFFSET, TORN_OFFSET};
use super::emitter::{CPU_BIAS, Emitter, field, frame};
use super::float::{self, scratch, scratch_word};

/// Addresses of the shared code.
#[derive(Debug)]
pub struct Thunks {
    enter: usize,
    /// Leaves; rax is where execution goes on.
    pub jump: usize,
    /// Leaves; eax is the offset in the page of what the interpreter must do, and in its upper half
    /// the number of instructions to give back.
    pub aside: usize,
    /// What entry points are where nothing is translated; eax is the offset in the page.
    pub absent: usize,
    /// Marks the page whose table is in rcx as torn and takes away its entry point at the offset in eax, so
    /// that the CPU offers it anew; leaves as `absent` does.
    pub torn: usize,
    /// The helpers: of sizes 1, 2, 4 and 8 in this order.
    pub load: [usize; 4],
    pub store: [usize; 4],
    /// Of sizes 4 and 8.
    pub load_around: [usize; 2],
    pub store_left: [usize; 2],
    pub store_right: [usize; 2],
    pub load_linked: [usize; 2],
    pub store_conditional: [usize; 2],
    /// RDHWR of the register that holds UserLocal.
    pub user_local: usize,
    /// Passes the guard in rdx of the floating-point unit.
    pub pass_guard: usize,
    /// Executes the packed instruction in rdx of the floating-point unit.
    pub float: usize,
}

/// What a helper gives back in rax and rdx.
#[repr(C)]
struct Answer {
    value: u64,
    is_done: u64,
}

impl Answer {
    const REFUSED: Answer = Answer { value: 0, is_done: 0 };
    const DONE: Answer = Answer { value: 0, is_done: 1 };

    fn of(value: Option<u64>) -> Answer {
        value.map_or(Answer::REFUSED, |value| Answer { value, is_done: 1 })
    }

    fn when(is_done: bool) -> Answer {
        if is_done { Answer::DONE } else { Answer::REFUSED }
    }
}

type Helper = unsafe extern "sysv64" fn(*mut Cpu, u64, u64, u64) -> Answer;

macro_rules! helpers {
    ($($name:ident: |$cpu:ident, $vaddr:ident, $bytes:ident, $value:ident| $body:expr;)*) => {
        $(
            /// # Safety
            /// `cpu` must point to the CPU that runs translated code, and nobody else may use it.
            #[allow(unused_variables)]
            unsafe extern "sysv64" fn $name(cpu: *mut Cpu, $vaddr: u64, $bytes: u64, $value: u64) -> Answer {
                // SAFETY: by the head of this file, the CPU is ours until we return.
                let $cpu = unsafe { &mut *cpu };
                $body
            }
        )*
    };
}

helpers! {
    load: |cpu, vaddr, bytes, value| Answer::of(cpu.try_load(vaddr, bytes));
    load_around: |cpu, vaddr, bytes, value| Answer::of(cpu.try_load_around(vaddr, bytes));
    store: |cpu, vaddr, bytes, value| Answer::when(cpu.try_store(vaddr, bytes, value));
    store_left: |cpu, vaddr, bytes, value| {
        // The high bytes of the register go up to `vaddr`.
        let back = vaddr & (bytes - 1);
        let value = value << (64 - 8 * bytes) >> (64 - 8 * (back + 1));
        Answer::when(cpu.try_store_part(vaddr, back, back + 1, value))
    };
    store_right: |cpu, vaddr, bytes, value| {
        Answer::when(cpu.try_store_part(vaddr, 0, bytes - (vaddr & (bytes - 1)), value))
    };
    load_linked: |cpu, vaddr, bytes, value| Answer::of(cpu.try_load_linked(vaddr, bytes));
    store_conditional: |cpu, vaddr, bytes, value| Answer::of(cpu.try_store_conditional(vaddr, bytes, value));
    user_local: |cpu, vaddr, bytes, value| Answer::of(cpu.try_user_local());
    pass_guard: |cpu, vaddr, bytes, value| Answer::when(float::pass_guard(cpu, value));
    execute_float: |cpu, vaddr, bytes, value| {
        float::settle(cpu);
        Answer::when(cpu.try_float(float::unpack(value)))
    };
}

/// What `enter` gives back in rax and rdx.
#[repr(C)]
struct Left {
    budget: i64,
    is_aside: u64,
}

type Enter = unsafe extern "sysv64" fn(cpu: *mut u8, code: u64, budget: i64, page: u64) -> Left;

impl Thunks {
    /// Emits the thunks at `emitter`'s address.
    pub fn emit(emitter: &mut Emitter) -> Thunks {
        let enter = emit_enter(emitter);
        let absent = emitter.address();
        dynasm!(emitter.ops(); mov eax, eax; add rax, [BYTE rsp + frame::PAGE]);
        let jump = emitter.address();
        dynasm!(emitter.ops(); mov [rbp + field(Layout::CPU.pc)], rax; xor edx, edx);
        emit_leave(emitter);
        let torn = emitter.address();
        dynasm!(emitter.ops()
            ; lea rdx, [extern absent]
            ; mov [rcx + rax * 2], rdx
            ; mov DWORD [rcx + CROSSINGS_OFFSET as i32], i32::MAX
            ; mov DWORD [rcx + TORN_OFFSET as i32], 1
            ; jmp extern absent
        );
        let aside = emitter.address();
        dynasm!(emitter.ops()
            ; mov ecx, eax
            ; shr ecx, 16
            ; add r15, rcx
            ; movzx eax, ax
            ; add rax, [BYTE rsp + frame::PAGE]
            ; mov [rbp + field(Layout::CPU.pc)], rax
            ; mov edx, 1
        );
        emit_leave(emitter);
        let mut all = |helper: Helper| [1, 2, 4, 8].map(|bytes| emit_helper(emitter, helper, bytes));
        let (load, store) = (all(load), all(store));
        let mut wide = |helper: Helper| [4, 8].map(|bytes| emit_helper(emitter, helper, bytes));
        Thunks {
            enter,
            jump,
            aside,
            absent,
            torn,
            load,
            store,
            load_around: wide(load_around),
            store_left: wide(store_left),
            store_right: wide(store_right),
            load_linked: wide(load_linked),
            store_conditional: wide(store_conditional),
            user_local: emit_helper(emitter, user_local, 8),
            pass_guard: emit_pass_guard(emitter),
            float: emit_float(emitter),
        }
    }

    /// Runs translated code from the entry point `code`, which `regs.pc` leads to.
    pub fn run(&self, cpu: &mut Cpu, code: u64, budget: i64) -> (Ran, i64) {
        let page = cpu.regs.pc & !(machine::PAGE_BYTES - 1);
        cpu.scratch()[scratch::GUARD] = 0;
        let pointer: *mut Cpu = cpu;
        // SAFETY: `enter` holds the address of the thunk emitted for this signature, in a buffer that
        // lives as long as `self` does.
        let enter = unsafe { std::mem::transmute::<usize, Enter>(self.enter) };
        // SAFETY: `code` is an entry point of the same buffer; it keeps to the calling convention, touches
        // of the CPU what `Layout` names, and of machine memory what the CPU's translations lead to.
        let left = unsafe { enter(pointer.cast::<u8>().wrapping_add(CPU_BIAS), code, budget, page) };
        if cpu.scratch()[scratch::GUARD] != 0 {
            float::settle(cpu);
        }
        (if left.is_aside == 0 { Ran::Jump } else { Ran::Aside }, left.budget)
    }
}

fn emit_enter(emitter: &mut Emitter) -> usize {
    let enter = emitter.address();
    dynasm!(emitter.ops()
        ; push rbp
        ; push rbx
        ; push r12
        ; push r13
        ; push r14
        ; push r15
        ; sub rsp, frame::BYTES
        ; mov rbp, rdi
        ; stmxcsr [rbp + scratch_word(scratch::MXCSR_HOST)]
        ; mov r15, rdx
        ; mov [BYTE rsp + frame::PAGE], rcx
        ; jmp rsi
    );
    enter
}

fn emit_leave(emitter: &mut Emitter) {
    dynasm!(emitter.ops()
        ; cmp DWORD [rbp + scratch_word(scratch::GUARD)], 0
        ; je >integers
        ; stmxcsr [rbp + scratch_word(scratch::MXCSR_LEFT)]
        ; ldmxcsr [rbp + scratch_word(scratch::MXCSR_HOST)]
        ; integers:
        ; mov rax, r15
        ; add rsp, frame::BYTES
        ; pop r15
        ; pop r14
        ; pop r13
        ; pop r12
        ; pop rbx
        ; pop rbp
        ; ret
    );
}

/// A thunk that calls `helper` with the address in rax and the value in rdx. The zero flag is set if it
/// refused.
fn emit_helper(emitter: &mut Emitter, helper: Helper, bytes: u64) -> usize {
    let thunk = emitter.address();
    let helper = helper as usize;
    dynasm!(emitter.ops()
        ; push rsi
        ; push rdi
        ; push r8
        ; push r9
        ; push r10
        ; push r11
        ; sub rsp, 8
        ; lea rdi, [rbp - CPU_BIAS as i32]
        ; mov rsi, rax
        ; mov rcx, rdx
        ; mov edx, bytes as i32
        ; mov rax, QWORD helper as i64
        ; call rax
        ; add rsp, 8
        ; pop r11
        ; pop r10
        ; pop r9
        ; pop r8
        ; pop rdi
        ; pop rsi
        ; test rdx, rdx
        ; ret
    );
    thunk
}

/// A thunk for `pass_guard`; MXCSR is the guest's afterwards.
fn emit_pass_guard(emitter: &mut Emitter) -> usize {
    let helper = emit_helper(emitter, pass_guard, 0);
    let thunk = emitter.address();
    emitter.call(helper);
    dynasm!(emitter.ops()
        ; je >refused
        ; ldmxcsr [rbp + scratch_word(scratch::MXCSR_CLEAN)]
        ; refused:
        ; ret
    );
    thunk
}

/// A thunk for `execute_float`, which runs with the host's MXCSR.
fn emit_float(emitter: &mut Emitter) -> usize {
    let helper = emit_helper(emitter, execute_float, 0);
    let thunk = emitter.address();
    dynasm!(emitter.ops()
        ; stmxcsr [rbp + scratch_word(scratch::MXCSR_LEFT)]
        ; ldmxcsr [rbp + scratch_word(scratch::MXCSR_HOST)]
    );
    emitter.call(helper);
    dynasm!(emitter.ops(); ldmxcsr [rbp + scratch_word(scratch::MXCSR_CLEAN)]; ret);
    thunk
}

/// The entry point at `index` of a table that the fetch cache names.
pub fn entry_point(entry_points: u64, index: usize) -> u64 {
    assert!(index < machine::cpu::PAGE_INSNS, "a page has no instruction {index}");
    // SAFETY: the fetch cache names tables of the translator only, and forgets them before they go.
    unsafe { (entry_points as *const u64).add(index).read() }
}
