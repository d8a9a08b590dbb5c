//! Into translated code and out of it: the code that all translations share, and the calls both ways.
//!
//! A *thunk* is a piece of host code at the beginning of the buffer. `enter` is called from here with
//! the address of a translation and returns through `jump`, `aside` or `absent`. The others are called
//! by translations whose access the caches do not answer; they preserve all registers but the scratch
//! ones.
//!
//! # Traps
//! What a monitor takes is handed to it from here, and execution goes on in host code. A TLB refill that takes
//! no more than an entry is answered in the middle of the access; a privileged instruction in the middle
//! of its block, with its general register in the CPU. For the rest all registers are written back first, and
//! execution goes on wherever the handler says. It is looked up again whether the page is still the one that
//! the program counter leads to: a handler may have taken the entry from the TLB. A fetch that the fetch cache
//! does not answer is a refill like that of an access, as far as the CPU knows the machine page as code.
//!
//! # Why `unsafe`
//! Calling code that was made at run time, and being called by it with the address of the CPU. While
//! translated code runs, the one reference to the CPU is the `&mut` that [`Thunks::run`] was given;
//! it is not used before the code returns, and the helpers get theirs from the same address, one
//! after the other.

use std::sync::atomic::{AtomicU32, Ordering::Acquire};

use dynasmrt::{DynasmApi, DynasmLabelApi, dynasm};
use machine::cpu::{HandedOver, Handler as TrapHandler, Layout, Looked, Ran, SINK, Trapping};
use machine::{AccessKind, Cpu, Exception, PAGE_BYTES, Taken};
use mips::Insn;

use super::codegen::{CROSSINGS_OFFSET, CROSSINGS_SAMPLE, Site, TORN_OFFSET};
use super::emitter::{CPU_BIAS, Emitter, field, frame};
use super::float::{self, scratch, scratch_word};

/// Addresses of the shared code.
#[derive(Debug)]
pub struct Thunks {
    /// The first byte of the buffer, from which entry points count.
    code: usize,
    enter: usize,
    /// Goes on at the virtual address in rax, which the fetch cache does not have.
    pub far: usize,
    /// Leaves; eax is the offset in the page of what the interpreter must do, and in its upper half
    /// the number of instructions to give back.
    pub aside: usize,
    /// What entry points are where nothing is translated; eax is the offset in the page.
    pub absent: usize,
    /// Counts crossings in the page whose table is in rcx, and goes on at the offset in eax. If they have been many, marks
    /// it as torn and takes away that entry point, so that the CPU offers it anew; leaves as `absent` does.
    pub crossed: usize,
    /// The helpers: of sizes 1, 2, 4 and 8 in this order.
    pub load: [usize; 4],
    pub store: [usize; 4],
    /// Hands over what `frame::SITE` and rdx (a packed instruction; 0 for the access that was refused) say.
    /// All registers are written back; does not come back.
    pub trap: usize,
    /// Hands over the privileged instruction that ecx (the site) and rdx (packed) say.
    pub privileged: usize,
    /// Goes on at the address in rax after a trap; edx is the `Answer`'s.
    pub redirect: usize,
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
#[derive(Debug)]
struct Answer {
    value: u64,
    outcome: u64,
}

/// The interpreter must do it.
const REFUSED: u64 = 0;
/// Done; `value` is the result.
const DONE: u64 = 1;
/// An access: it is to be handed over. Otherwise: execution goes on at the address `value`.
const ELSEWHERE: u64 = 2;
/// The run ends before the address `value`.
const LOOK_AROUND: u64 = 3;

impl Answer {
    const REFUSED: Answer = Answer { value: 0, outcome: REFUSED };
    const DONE: Answer = Answer { value: 0, outcome: DONE };
    const HAND_OVER: Answer = Answer { value: 0, outcome: ELSEWHERE };

    fn of(value: Option<u64>) -> Answer {
        value.map_or(Answer::REFUSED, |value| Answer { value, outcome: DONE })
    }

    fn when(is_done: bool) -> Answer {
        if is_done { Answer::DONE } else { Answer::REFUSED }
    }
}

/// The frame of translated code, as `emitter::frame` has it.
#[repr(C)]
struct Frame<'h, 'd> {
    page: u64,
    waiting: u64,
    address: u64,
    left: i64,
    site: u64,
    handler: *mut TrapHandler<'h, 'd>,
}

const _: () = {
    use std::mem::offset_of;
    assert!(offset_of!(Frame, page) == frame::PAGE as usize);
    assert!(offset_of!(Frame, waiting) == frame::WAITING as usize);
    assert!(offset_of!(Frame, left) == frame::LEFT as usize);
    assert!(offset_of!(Frame, site) == frame::SITE as usize);
    assert!(offset_of!(Frame, handler) == frame::HANDLER as usize);
};

impl Frame<'_, '_> {
    fn site(&self) -> Site {
        Site::of(self.site as u32)
    }

    /// Address of the instruction that the interpreter would begin with.
    fn pc(&self) -> u64 {
        self.page + 4 * self.site().index as u64
    }

    /// What is left of the budget before that instruction.
    fn left_before(&self) -> i64 {
        self.left + self.site().not_executed as i64
    }

    /// What traps: the instruction at the site, or the one in its delay slot.
    fn trapping(&self) -> Trapping {
        match self.site().is_slot {
            true => Trapping { pc: self.pc(), in_delay_slot: true, next_pc: self.waiting },
            false => Trapping { pc: self.pc(), in_delay_slot: false, next_pc: self.pc().wrapping_add(4) },
        }
    }
}

/// Does an access. While it ends with TLB refills that the handler answers at once, tries again.
fn access(cpu: &mut Cpu, frame: &mut Frame<'_, '_>, attempt: impl Fn(&mut Cpu) -> Option<u64>) -> Answer {
    // After a trap in a delay slot the branch is executed again.
    let repeated = i64::from(frame.site().is_slot);
    loop {
        if let Some(value) = attempt(cpu) {
            return Answer { value, outcome: DONE };
        }
        // SAFETY: `Thunks::run` put the address of its caller's handler there, and waits for us.
        let handler = unsafe { &mut *frame.handler };
        if handler.is_none() || cpu.refused().is_none() {
            return Answer::REFUSED;
        }
        match cpu.refill(handler, frame.left) {
            Some((left, index)) => {
                frame.left = left - repeated;
                if frame.left < 0 || !cpu.is_fetched(frame.page) {
                    return Answer::REFUSED;
                }
                // The rest of the block is paid for, and there: on with it.
                cpu.remember_refilled(index);
            }
            // Who completes an access must know where execution goes on: not so in a delay slot.
            None if frame.site().is_slot => return Answer::REFUSED,
            None => return Answer::HAND_OVER,
        }
    }
}

/// Looks for the page of an aligned access that the caches do not answer. Whether it is there now; `None`: the block
/// ends here, as after any refill.
#[inline(always)]
fn look(cpu: &mut Cpu, frame: &mut Frame<'_, '_>, vaddr: u64, kind: AccessKind) -> Option<bool> {
    // SAFETY: as in `access`.
    let handler = unsafe { &mut *frame.handler };
    let (looked, left) = cpu.look(handler, vaddr, kind, frame.left);
    match looked {
        Looked::Remembered => Some(true),
        Looked::Found(index) => Some(cpu.remember(index, vaddr, kind)),
        Looked::Refilled(index) => {
            // After a trap in a delay slot the branch is executed again.
            frame.left = left - i64::from(frame.site().is_slot);
            (frame.left >= 0 && cpu.is_fetched(frame.page)).then(|| cpu.remember(index, vaddr, kind))
        }
        Looked::Nothing => Some(false),
    }
}

#[inline(always)]
fn load_aligned(cpu: &mut Cpu, frame: &mut Frame<'_, '_>, vaddr: u64, bytes: u64) -> Answer {
    if vaddr & (bytes - 1) == 0 {
        match look(cpu, frame, vaddr, AccessKind::Load) {
            Some(true) => return Answer::of(cpu.load_remembered(vaddr, bytes)),
            Some(false) => {}
            None => return Answer::REFUSED,
        }
    }
    access(cpu, frame, |cpu| cpu.try_load(vaddr, bytes))
}

#[inline(always)]
fn store_aligned(cpu: &mut Cpu, frame: &mut Frame<'_, '_>, vaddr: u64, bytes: u64, value: u64) -> Answer {
    if vaddr & (bytes - 1) == 0 {
        match look(cpu, frame, vaddr, AccessKind::Store) {
            Some(true) => return Answer::when(cpu.store_remembered(vaddr, bytes, value)),
            Some(false) => {}
            None => return Answer::REFUSED,
        }
    }
    access(cpu, frame, |cpu| cpu.try_store(vaddr, bytes, value).then_some(0))
}

/// The handler may change what the guard of the floating-point unit stands for. MXCSR is the host's already.
fn lower_guard(cpu: &mut Cpu) {
    if cpu.scratch()[scratch::GUARD] != 0 {
        float::settle(cpu);
        cpu.scratch()[scratch::GUARD] = 0;
    }
}

/// Hands the access at the frame's site, which was refused, to the trap handler.
fn hand_over_access(cpu: &mut Cpu, frame: &mut Frame<'_, '_>) -> Answer {
    lower_guard(cpu);
    cpu.refused().map_or(Answer::REFUSED, |exception| hand_over_at_site(cpu, exception, None, frame))
}

/// Hands the instruction at the frame's site to the trap handler.
fn hand_over(cpu: &mut Cpu, packed: u64, frame: &mut Frame<'_, '_>) -> Answer {
    lower_guard(cpu);
    let insn = as_encoded(float::unpack(packed));
    cpu.raised_by(insn).map_or(Answer::REFUSED, |exception| hand_over_at_site(cpu, exception, Some(insn), frame))
}

#[inline(always)]
fn hand_over_at_site(
    cpu: &mut Cpu,
    exception: Exception,
    insn: Option<Insn>,
    frame: &mut Frame<'_, '_>,
) -> Answer {
    if frame.left_before() <= 0 {
        // The time was up before the instruction.
        return Answer::REFUSED;
    }
    // SAFETY: as in `access`.
    let Some(handler) = (unsafe { &mut *frame.handler }) else { return Answer::REFUSED };
    // A branch has been executed when its delay slot traps.
    let left = frame.left_before() - i64::from(frame.site().is_slot);
    let (handed_over, left) = cpu.hand_over(*handler, exception, frame.trapping(), insn, left);
    frame.left = left;
    let value = cpu.regs.pc;
    match handed_over {
        HandedOver::Refused => Answer::REFUSED,
        HandedOver::Resume => Answer { value, outcome: ELSEWHERE },
        HandedOver::LookAround => Answer { value, outcome: LOOK_AROUND },
    }
}

/// Lets the handler carry out the instruction at the frame's site, if that takes no more than registers and time.
fn emulate(cpu: &mut Cpu, packed: u64, frame: &mut Frame<'_, '_>) -> Option<Answer> {
    // SAFETY: as in `access`.
    let handler = unsafe { &mut *frame.handler }.as_mut()?;
    if frame.left_before() <= 0 {
        return None;
    }
    lower_guard(cpu);
    let (taken, left) = cpu.emulate(*handler, as_encoded(float::unpack(packed)), frame.left_before())?;
    frame.left = left;
    let outcome = if taken == Taken::Resume { ELSEWHERE } else { LOOK_AROUND };
    Some(Answer { value: frame.pc().wrapping_add(4), outcome })
}

/// As `hand_over`, for an instruction in the middle of a block: done if the next one follows.
fn privileged(cpu: &mut Cpu, packed: u64, frame: &mut Frame<'_, '_>) -> Answer {
    let next = frame.pc().wrapping_add(4);
    let rest = frame.site().not_executed as i64 - 1;
    let answer = emulate(cpu, packed, frame).unwrap_or_else(|| hand_over(cpu, packed, frame));
    let goes_on = answer.outcome == ELSEWHERE && answer.value == next && !next.is_multiple_of(PAGE_BYTES);
    if goes_on && frame.left >= rest && cpu.is_fetched(next) {
        frame.left -= rest;
        return Answer::DONE;
    }
    answer
}

/// The decoder's register for writes to register 0 is register 0 to a handler.
fn as_encoded(mut insn: Insn) -> Insn {
    for register in [&mut insn.rt, &mut insn.rd] {
        *register = if *register == SINK { 0 } else { *register };
    }
    insn
}

type Helper = unsafe extern "sysv64" fn(*mut Cpu, u64, u64, u64, *mut Frame<'static, 'static>) -> Answer;

macro_rules! helpers {
    ($($name:ident: |$cpu:ident, $vaddr:ident, $bytes:ident, $value:ident, $frame:ident| $body:expr;)*) => {
        $(
            /// # Safety
            /// `cpu` must point to the CPU that runs translated code, `frame` to its frame, and nobody
            /// else may use them.
            #[allow(unused_variables)]
            unsafe extern "sysv64" fn $name(
                cpu: *mut Cpu,
                $vaddr: u64,
                $bytes: u64,
                $value: u64,
                frame: *mut Frame<'static, 'static>,
            ) -> Answer {
                // SAFETY: by the head of this file, the CPU and the frame are ours until we return.
                let ($cpu, $frame) = unsafe { (&mut *cpu, &mut *frame) };
                $body
            }
        )*
    };
}

helpers! {
    load: |cpu, vaddr, bytes, value, frame| load_aligned(cpu, frame, vaddr, bytes);
    load_around: |cpu, vaddr, bytes, value, frame| access(cpu, frame, |cpu| cpu.try_load_around(vaddr, bytes));
    store: |cpu, vaddr, bytes, value, frame| store_aligned(cpu, frame, vaddr, bytes, value);
    store_left: |cpu, vaddr, bytes, value, frame| {
        // The high bytes of the register go up to `vaddr`.
        let back = vaddr & (bytes - 1);
        let value = value << (64 - 8 * bytes) >> (64 - 8 * (back + 1));
        access(cpu, frame, |cpu| cpu.try_store_part(vaddr, back, back + 1, value).then_some(0))
    };
    store_right: |cpu, vaddr, bytes, value, frame| {
        let count = bytes - (vaddr & (bytes - 1));
        access(cpu, frame, |cpu| cpu.try_store_part(vaddr, 0, count, value).then_some(0))
    };
    load_linked: |cpu, vaddr, bytes, value, frame| {
        access(cpu, frame, |cpu| cpu.try_load_linked(vaddr, bytes))
    };
    store_conditional: |cpu, vaddr, bytes, value, frame| {
        access(cpu, frame, |cpu| cpu.try_store_conditional(vaddr, bytes, value))
    };
    trap_helper: |cpu, packed, bytes, value, frame| match value {
        0 => hand_over_access(cpu, frame),
        packed => hand_over(cpu, packed, frame),
    };
    privileged_helper: |cpu, packed, bytes, value, frame| privileged(cpu, value, frame);
    fetch: |cpu, pc, bytes, value, frame| {
        // SAFETY: as in `access`.
        let handler = unsafe { &mut *frame.handler };
        let (is_found, left) = cpu.fetch(handler, pc, frame.left);
        frame.left = left;
        Answer { value: pc, outcome: u64::from(is_found) }
    };
    user_local: |cpu, vaddr, bytes, value, frame| Answer::of(cpu.try_user_local());
    pass_guard: |cpu, vaddr, bytes, value, frame| Answer::when(float::pass_guard(cpu, value));
    execute_float: |cpu, vaddr, bytes, value, frame| {
        float::settle(cpu);
        Answer::when(cpu.try_float(float::unpack(value)))
    };
}

/// What `enter` gives back in rax and rdx.
#[repr(C)]
struct Left {
    budget: i64,
    how: u64,
}

/// `Left::how`.
const LEFT_JUMP: i32 = 0;
const LEFT_ASIDE: i32 = 1;
const LEFT_LOOK_AROUND: i32 = 2;

type Enter = unsafe extern "sysv64" fn(
    cpu: *mut u8,
    code: u64,
    budget: i64,
    page: u64,
    handler: *mut TrapHandler<'static, 'static>,
) -> Left;

impl Thunks {
    /// Emits the thunks at `emitter`'s address, the first byte of the buffer.
    pub fn emit(emitter: &mut Emitter) -> Thunks {
        let code = emitter.address();
        let enter = emit_enter(emitter, code);
        let absent = emitter.address();
        dynasm!(emitter.ops(); mov eax, eax; add rax, [BYTE rsp + frame::PAGE]);
        let jump = emitter.address();
        dynasm!(emitter.ops(); mov [rbp + field(Layout::CPU.pc)], rax; mov edx, LEFT_JUMP);
        emit_leave(emitter);
        let look_around = emitter.address();
        dynasm!(emitter.ops(); mov [rbp + field(Layout::CPU.pc)], rax; mov edx, LEFT_LOOK_AROUND);
        emit_leave(emitter);
        let crossed = emitter.address();
        dynasm!(emitter.ops()
            ; mov DWORD [rbp + scratch_word(scratch::CROSSINGS)], CROSSINGS_SAMPLE - 1
            ; sub DWORD [rcx + CROSSINGS_OFFSET as i32], CROSSINGS_SAMPLE
            ; js >torn
            ; mov ecx, [rcx + rax]
            ; add rcx, [BYTE rsp + frame::CODE]
            ; jmp rcx
            ; torn:
            ; mov DWORD [rcx + rax], (absent - code) as i32
            ; mov DWORD [rcx + CROSSINGS_OFFSET as i32], i32::MAX
            ; mov DWORD [rcx + TORN_OFFSET as i32], 1
            ; jmp extern absent
        );
        let aside = emitter.address();
        dynasm!(emitter.ops()
            ; mov ecx, eax
            ; shr ecx, 16
            ; add r15, rcx
            ; and eax, 0xffc
            ; add rax, [BYTE rsp + frame::PAGE]
            ; mov [rbp + field(Layout::CPU.pc)], rax
            ; mov edx, LEFT_ASIDE
        );
        emit_leave(emitter);
        let far = emit_far(emitter, jump);
        let redirect = emit_redirect(emitter, far, look_around);
        let trap = emit_trap(emitter, aside, redirect);
        let mut all = |helper: Helper| [1, 2, 4, 8].map(|bytes| emit_access(emitter, helper, bytes));
        let (load, store) = (all(load), all(store));
        let mut wide = |helper: Helper| [4, 8].map(|bytes| emit_access(emitter, helper, bytes));
        Thunks {
            code,
            enter,
            far,
            aside,
            absent,
            crossed,
            load,
            store,
            trap,
            redirect,
            load_around: wide(load_around),
            store_left: wide(store_left),
            store_right: wide(store_right),
            load_linked: wide(load_linked),
            store_conditional: wide(store_conditional),
            privileged: emit_privileged(emitter),
            user_local: emit_helper(emitter, user_local, 8),
            pass_guard: emit_pass_guard(emitter),
            float: emit_float(emitter),
        }
    }

    /// The entry point of the code at `address`.
    pub fn entry_point_of(&self, address: usize) -> EntryPoint {
        EntryPoint::try_from(address - self.code).expect("a code buffer is smaller than 4 GiB")
    }

    /// Where nothing is translated.
    pub fn absent(&self) -> EntryPoint {
        self.entry_point_of(self.absent)
    }

    /// Runs translated code from the entry point `entry`, which `regs.pc` leads to.
    pub fn run(
        &self,
        cpu: &mut Cpu,
        handler: &mut TrapHandler<'_, '_>,
        entry: EntryPoint,
        budget: i64,
    ) -> (Ran, i64) {
        let page = cpu.regs.pc & !(machine::PAGE_BYTES - 1);
        cpu.scratch()[scratch::GUARD] = 0;
        cpu.borrow_guest_cp0(handler);
        let code = self.code as u64 + u64::from(entry);
        let pointer: *mut Cpu = cpu;
        // SAFETY: `enter` holds the address of the thunk emitted for this signature, in a buffer that
        // lives as long as `self` does.
        let enter = unsafe { std::mem::transmute::<usize, Enter>(self.enter) };
        let handler: *mut TrapHandler<'_, '_> = handler;
        // SAFETY: `code` is an entry point of the same buffer; it keeps to the calling convention, touches
        // of the CPU what `Layout` names, and of machine memory what the CPU's translations lead to. It
        // gives `handler` to helpers alone, which are done with it before we are. The CP0 that the handler lends
        // is its own to change between their calls, and nobody has a reference to it then.
        let left =
            unsafe { enter(pointer.cast::<u8>().wrapping_add(CPU_BIAS), code, budget, page, handler.cast()) };
        if cpu.scratch()[scratch::GUARD] != 0 {
            float::settle(cpu);
        }
        let ran = match left.how as i32 {
            LEFT_JUMP => Ran::Jump,
            LEFT_ASIDE => Ran::Aside,
            _ => Ran::LookAround,
        };
        (ran, left.budget)
    }
}

fn emit_enter(emitter: &mut Emitter, code: usize) -> usize {
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
        ; mov [BYTE rsp + frame::HANDLER], r8
        ; mov rax, QWORD code as i64
        ; mov [BYTE rsp + frame::CODE], rax
        ; jmp rsi
    );
    enter
}

/// Goes on at the virtual address in rax, as `Codegen::leave_for_rax` does, or leaves if edx says so.
fn emit_redirect(emitter: &mut Emitter, far: usize, look_around: usize) -> usize {
    let redirect = emitter.address();
    dynasm!(emitter.ops(); cmp edx, LOOK_AROUND as i32; je extern look_around);
    emit_go_on(emitter, far);
    redirect
}

/// Fetches from the virtual address in rax, which the fetch cache does not have, and goes on there; leaves by
/// `jump` if that takes more.
fn emit_far(emitter: &mut Emitter, jump: usize) -> usize {
    let far = emitter.address();
    let helper: Helper = fetch;
    let helper = helper as usize;
    dynasm!(emitter.ops()
        ; mov [BYTE rsp + frame::LEFT], r15
        ; lea rdi, [rbp - CPU_BIAS as i32]
        ; mov rsi, rax
        ; mov r8, rsp
        ; mov rax, QWORD helper as i64
        ; call rax
        ; mov r15, [BYTE rsp + frame::LEFT]
        ; test edx, edx
        ; je extern jump
    );
    emit_go_on(emitter, jump);
    far
}

/// Goes on at the virtual address in rax: through the fetch cache to the page's entry points, or to `far`.
pub fn emit_go_on(emitter: &mut Emitter, far: usize) {
    const _: () = assert!(Layout::FETCH_BYTES == 32 && Layout::FETCH_COUNT == 1024);
    let fetches = field(Layout::CPU.fetches);
    dynasm!(emitter.ops()
        ; mov ecx, eax
        ; mov edx, eax
        ; shr ecx, 7
        ; shr edx, 17
        ; xor ecx, edx
        ; mov rdx, rax
        ; and ecx, 0x7fe0
        // An address that is no multiple of 4 keeps bits that no tag has, and `far` leaves with it.
        ; and rdx, -4096 + 3
        ; mov [BYTE rsp + frame::PAGE], rdx
        ; or rdx, [rbp + field(Layout::CPU.context)]
        ; cmp rdx, [rbp + rcx + fetches]
        ; jne extern far
        ; mov rdx, [rbp + rcx + fetches + 8]
        ; and eax, 0xffc
        ; mov ecx, [rdx + rax]
        ; add rcx, [BYTE rsp + frame::CODE]
        ; jmp rcx
    );
}

/// Gives MXCSR back to the host if the guest has it; `settle` needs what it was.
fn emit_host_mxcsr(emitter: &mut Emitter) {
    dynasm!(emitter.ops()
        ; cmp DWORD [rbp + scratch_word(scratch::GUARD)], 0
        ; je >host
        ; stmxcsr [rbp + scratch_word(scratch::MXCSR_LEFT)]
        ; ldmxcsr [rbp + scratch_word(scratch::MXCSR_HOST)]
        ; host:
    );
}

fn emit_trap(emitter: &mut Emitter, aside: usize, redirect: usize) -> usize {
    let trap = emitter.address();
    let helper: Helper = trap_helper;
    let helper = helper as usize;
    emit_host_mxcsr(emitter);
    dynasm!(emitter.ops()
        ; mov [BYTE rsp + frame::LEFT], r15
        ; lea rdi, [rbp - CPU_BIAS as i32]
        ; mov rcx, rdx
        ; mov r8, rsp
        ; mov rax, QWORD helper as i64
        ; call rax
        ; mov r15, [BYTE rsp + frame::LEFT]
        ; test edx, edx
        ; jne extern redirect
        ; mov eax, [BYTE rsp + frame::SITE]
        ; jmp extern aside
    );
    trap
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

/// A thunk that calls `helper` with the address in rax and the value in rdx. The flags compare the outcome
/// with `DONE`.
fn emit_helper(emitter: &mut Emitter, helper: Helper, bytes: u64) -> usize {
    let thunk = emitter.address();
    emit_call(emitter, helper, bytes);
    dynasm!(emitter.ops(); cmp edx, DONE as i32; ret);
    thunk
}

/// As `emit_helper`, for a helper that may change the budget in the frame.
fn emit_helper_with_frame(emitter: &mut Emitter, helper: Helper, bytes: u64) -> usize {
    let thunk = emitter.address();
    emit_call(emitter, helper, bytes);
    dynasm!(emitter.ops(); mov r15, [BYTE rsp + 8 + frame::LEFT]; cmp edx, DONE as i32; ret);
    thunk
}

/// Calls `helper` from a thunk that translated code has called, and that has pushed nothing: the stack is aligned
/// as the calling convention wants it.
fn emit_call(emitter: &mut Emitter, helper: Helper, bytes: u64) {
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
        ; lea r8, [rsp + BELOW_FRAME]
        ; mov rax, QWORD helper as i64
        ; call rax
        ; add rsp, 8
        ; pop r11
        ; pop r10
        ; pop r9
        ; pop r8
        ; pop rdi
        ; pop rsi
    );
}

/// What `emit_helper` pushes, and its return address.
const BELOW_FRAME: i32 = 64;

/// A thunk that calls `helper` with the address in rax, the value in rdx and the site in ecx. The flags
/// compare the outcome with `DONE`.
fn emit_access(emitter: &mut Emitter, helper: Helper, bytes: u64) -> usize {
    let called = emit_helper_with_frame(emitter, helper, bytes);
    let thunk = emitter.address();
    dynasm!(emitter.ops()
        ; mov [BYTE rsp + 8 + frame::SITE], rcx
        ; mov [BYTE rsp + 8 + frame::LEFT], r15
        ; jmp extern called
    );
    thunk
}

/// As `emit_access` for `privileged_helper`.
fn emit_privileged(emitter: &mut Emitter) -> usize {
    let called = emit_helper_with_frame(emitter, privileged_helper, 0);
    let thunk = emitter.address();
    emit_host_mxcsr(emitter);
    dynasm!(emitter.ops()
        ; mov [BYTE rsp + 8 + frame::SITE], rcx
        ; mov [BYTE rsp + 8 + frame::LEFT], r15
        ; jmp extern called
    );
    thunk
}

/// A thunk for `pass_guard`; MXCSR is the guest's afterwards.
fn emit_pass_guard(emitter: &mut Emitter) -> usize {
    let thunk = emitter.address();
    emit_call(emitter, pass_guard, 0);
    dynasm!(emitter.ops()
        ; cmp edx, DONE as i32
        ; jb >refused
        ; ldmxcsr [rbp + scratch_word(scratch::MXCSR_CLEAN)]
        ; refused:
        ; ret
    );
    thunk
}

/// A thunk for `execute_float`, which runs with the host's MXCSR.
fn emit_float(emitter: &mut Emitter) -> usize {
    let thunk = emitter.address();
    dynasm!(emitter.ops()
        ; stmxcsr [rbp + scratch_word(scratch::MXCSR_LEFT)]
        ; ldmxcsr [rbp + scratch_word(scratch::MXCSR_HOST)]
    );
    emit_call(emitter, execute_float, 0);
    dynasm!(emitter.ops()
        ; cmp edx, DONE as i32
        ; ldmxcsr [rbp + scratch_word(scratch::MXCSR_CLEAN)]
        ; ret
    );
    thunk
}

/// Where code begins, in bytes from the first of its buffer: half the size of an address, and there is one for
/// each instruction of a page.
pub type EntryPoint = u32;

/// The entry point at `index` of a table that the fetch cache names.
pub fn entry_point(entry_points: u64, index: usize) -> EntryPoint {
    assert!(index < machine::cpu::PAGE_INSNS, "a page has no instruction {index}");
    // SAFETY: the fetch cache names tables of the translator only, and forgets them before they go. Whoever writes
    // them does so atomically.
    unsafe { (*(entry_points as *const AtomicU32).add(index)).load(Acquire) }
}
