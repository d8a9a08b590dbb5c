//! The dispatcher: every exception of a guest comes here, and the guest goes on from here.
//!
//! [`Monitored`] is a vCPU with all that the monitor has of it; it lets it run, and is the trap handler of the
//! CPU meanwhile. [`Running`] is a vCPU on a CPU. It derives the hardware's mode, ASID and coprocessor bits from
//! the virtual CP0 whenever that changes, takes each trap apart, and hands it to the virtual memory part
//! ([`crate::miss`]), to the emulator ([`crate::emulate`]), or on to the guest.

use machine::cp0::{Mode, page_grain, status};
use machine::{AccessKind, Cp0, Cpu, Cycles, Exception, Stop, Taken, Trap, TrapHandler};
use mips::{Insn, Op};

use crate::Costs;
use crate::counters::Cause;
use crate::event::{Event, StopCause};
use crate::follow::{Step, Value};
use crate::l2tlb::{Origin, SLOTS};
use crate::pmap::Pmap;
use crate::reserve::Reserve;
use crate::vcpu::{Shadow, Vcpu, VcpuState};
use machine::smp::Smp;
use machine::windows::Windows;

/// A vCPU that has a CPU, without the CPU.
#[derive(Debug)]
pub struct Monitored<'a> {
    /// What the monitor knows about the CPU's TLB.
    pub shadow: &'a mut Shadow,
    /// The VM's number.
    pub vm: u32,
    /// The VM's pmap.
    pub pmap: &'a mut Pmap,
    /// Machine pages for the VM's next page faults.
    pub reserve: &'a mut Reserve,
    /// The VM's registers that need no trip.
    pub windows: &'a mut Windows,
    /// What connects the VM's vCPUs, if there are several.
    pub smp: &'a mut Option<Smp>,
    /// Index of the vCPU in its VM.
    pub vcpu_index: u32,
    /// The vCPU.
    pub vcpu: &'a mut Vcpu,
    /// What the monitor's actions cost.
    pub costs: &'a Costs,
    /// Where events go.
    pub events: &'a mut Vec<Event>,
}

/// Since when guest instructions have run that nobody has accounted for yet, and in which mode.
#[derive(Clone, Copy, Debug, Default)]
pub struct Since {
    now: Cycles,
    pc: u64,
    instructions: u64,
    is_user: bool,
}

/// A vCPU on a CPU.
#[derive(Debug)]
pub struct Running<'a> {
    /// The CPU.
    pub cpu: &'a mut Cpu,
    /// What the monitor knows about its TLB.
    pub shadow: &'a mut Shadow,
    /// The VM's number.
    pub vm: u32,
    /// The VM's pmap.
    pub pmap: &'a mut Pmap,
    /// Machine pages for the VM's next page faults.
    pub reserve: &'a mut Reserve,
    /// The VM's registers that need no trip.
    pub windows: &'a mut Windows,
    /// What connects the VM's vCPUs, if there are several.
    pub smp: &'a mut Option<Smp>,
    /// Index of the vCPU in its VM.
    pub vcpu_index: u32,
    /// The vCPU.
    pub vcpu: &'a mut Vcpu,
    /// What the monitor's actions cost.
    pub costs: &'a Costs,
    /// Where events go.
    pub events: &'a mut Vec<Event>,
}

/// What becomes of the vCPU after a trap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// It goes on.
    Resume,
    /// Its state says why not.
    Leave,
}

/// Times that a vector may fault on itself before the VM is stopped.
const VECTOR_FAULTS_MAX: u32 = 64;

impl Monitored<'_> {
    /// The vCPU on its CPU.
    #[inline]
    pub fn on<'r>(&'r mut self, cpu: &'r mut Cpu) -> Running<'r> {
        Running {
            cpu,
            shadow: self.shadow,
            vm: self.vm,
            pmap: self.pmap,
            reserve: self.reserve,
            windows: self.windows,
            smp: self.smp,
            vcpu_index: self.vcpu_index,
            vcpu: self.vcpu,
            costs: self.costs,
            events: self.events,
        }
    }

    /// Runs the vCPU until the bound, or until it cannot go on (its state then says why).
    pub fn run(&mut self, cpu: &mut Cpu, until: Cycles) {
        self.on(cpu).resume();
        while self.vcpu.state == VcpuState::Ready {
            self.on(cpu).take_interrupt();
            if cpu.now >= until || self.pauses(cpu) {
                return;
            }
            self.execute(cpu, until.min(self.vcpu.cp0.next_timer()));
        }
    }

    /// Lets guest instructions run, and the traps between them be taken.
    fn execute(&mut self, cpu: &mut Cpu, until: Cycles) {
        self.begin(cpu);
        // A follower wants to see each instruction, and a debugger may pause behind it.
        let is_single = self.is_recording() || self.vcpu.debugger.is_some();
        let until = if is_single { until.min(Cycles(cpu.now.0 + 1)) } else { until };
        let stop = cpu.run_monitored(self, until);
        if !matches!(stop, Stop::Until | Stop::LookAround) {
            unreachable!("a monitored CPU traps instead of {stop:?}")
        }
        self.account(cpu);
    }

    /// Pauses the vCPU if its debugger says so. Whether it does.
    fn pauses(&mut self, cpu: &Cpu) -> bool {
        let Some(debugger) = &self.vcpu.debugger else { return false };
        let Some(cause) = debugger.pauses(cpu.regs.pc, self.vcpu.counters.instructions) else { return false };
        self.vcpu.state = VcpuState::Paused;
        let (vm, vcpu) = (self.vm, self.vcpu_index);
        self.events.push(Event::Paused { vm, vcpu, cpu: cpu.id, cause, pc: cpu.regs.pc, cycle: cpu.now });
        true
    }

    /// Whether the guest's instructions go on after a trap before which the timer was due at `timer`.
    #[inline]
    fn goes_on(&self, timer: Cycles) -> Taken {
        let goes_on =
            self.vcpu.cp0.next_timer() == timer && !self.vcpu.cp0.interrupt_ready() && !self.vcpu.is_watched();
        if goes_on { Taken::Resume } else { Taken::LookAround }
    }

    fn is_recording(&self) -> bool {
        self.vcpu.follower.as_ref().is_some_and(|follower| follower.is_recording())
    }

    /// Guest instructions run from now on.
    fn begin(&mut self, cpu: &Cpu) {
        let is_user = cpu.cp0.mode() == Mode::User;
        self.vcpu.since = Since { instructions: cpu.instructions, now: cpu.now, pc: cpu.regs.pc, is_user };
    }

    /// Accounts for privileged instructions that the CPU has carried out at once, as `emulate` would have.
    #[inline]
    fn account_at_once(&mut self, cpu: &mut Cpu) {
        let done = cpu.take_done_at_once();
        let count = done.count();
        if count == 0 {
            return;
        }
        let cost = count * self.costs.at_once();
        let counters = &mut self.vcpu.counters;
        counters.traps += count;
        counters.traps_privileged += count;
        counters.emulated_mfc0 += done.moves_from;
        counters.emulated_mtc0 += done.moves_to;
        counters.emulated_di_ei += done.switches;
        counters.monitor.add(Cause::Privileged, cost);
        self.vcpu.since.now.0 += cost;
    }

    /// Accounts for the guest instructions since `begin`, and shows them to a follower that records: also a branch
    /// whose delay slot has trapped, which will be executed again.
    fn account(&mut self, cpu: &mut Cpu) {
        self.account_at_once(cpu);
        let since = self.vcpu.since;
        let cycles = cpu.now.0 - since.now.0;
        self.vcpu.counters.instructions += cpu.instructions - since.instructions;
        if since.is_user {
            self.vcpu.counters.cycles_user += cycles;
        } else {
            self.vcpu.counters.cycles_kernel += cycles;
        }
        if cycles > 0 && self.is_recording() {
            self.on(cpu).note_instruction(since.pc, since.now, cycles);
        }
    }
}

impl TrapHandler for Monitored<'_> {
    fn refill(&mut self, cpu: &mut Cpu, vaddr: u64) -> Option<usize> {
        if self.vcpu.is_observed() {
            return None;
        }
        let before = cpu.now;
        let index = self.on(cpu).refill_from_l2tlb(vaddr)?;
        // The guest's instructions go on: what was charged is not theirs.
        self.vcpu.since.now.0 += cpu.now.0 - before.0;
        Some(index)
    }

    fn emulate(&mut self, cpu: &mut Cpu, insn: Insn) -> Option<Taken> {
        if self.vcpu.is_observed() {
            return None;
        }
        let (before, timer) = (cpu.now, self.vcpu.cp0.next_timer());
        if !self.on(cpu).emulate_at_once(insn) {
            return None;
        }
        self.vcpu.since.now.0 += cpu.now.0 - before.0;
        Some(self.goes_on(timer))
    }

    fn guest_cp0(&mut self) -> Option<(&mut Cp0, u64)> {
        let cost = self.costs.at_once();
        (!self.vcpu.is_observed()).then_some((&mut self.vcpu.cp0, cost))
    }

    fn take(&mut self, cpu: &mut Cpu, trap: &Trap) -> Taken {
        self.account(cpu);
        let timer = self.vcpu.cp0.next_timer();
        let flow = self.on(cpu).handle(trap);
        self.begin(cpu);
        if flow == Flow::Resume { self.goes_on(timer) } else { Taken::LookAround }
    }
}

impl Running<'_> {
    /// Ends what the vCPU was waiting for.
    fn resume(&mut self) {
        match std::mem::replace(&mut self.vcpu.state, VcpuState::Ready) {
            VcpuState::Accessing(pending) => {
                let answer = pending.answer.expect("a vCPU is resumed only with the answer");
                self.complete_access(&pending.access, answer);
            }
            VcpuState::Ready | VcpuState::Waiting | VcpuState::Faulted(_) | VcpuState::Postponed(_) => {}
            state @ (VcpuState::Off | VcpuState::Starting(_) | VcpuState::Paused | VcpuState::Stopped(_)) => {
                unreachable!("a {state:?} vCPU is not run")
            }
        }
    }

    /// Takes one trap, and accounts for it as what it turned out to be.
    fn handle(&mut self, trap: &Trap) -> Flow {
        self.vcpu.trap.cause = self.cause_of(trap);
        let before = self.before_recorded();
        let flow = self.dispatch(trap);
        self.vcpu.settle_trap();
        if let Some(before) = before {
            self.record_trap(trap, before, flow);
        }
        flow
    }

    /// What a trap is at first sight.
    fn cause_of(&self, trap: &Trap) -> Cause {
        match trap.exception {
            Exception::CoprocessorUnusable { unit: 0 } => match trap.insn.op {
                Op::Tlbwr | Op::Tlbwi => Cause::TlbWrite,
                _ => Cause::Privileged,
            },
            exception if exception.is_tlb() && self.vcpu.cp0.mode() == Mode::User => Cause::TlbMiss,
            exception if exception.is_tlb() => Cause::KernelTlbMiss,
            _ => Cause::Forward,
        }
    }

    fn dispatch(&mut self, trap: &Trap) -> Flow {
        self.vcpu.counters.traps += 1;
        if let Some(follower) = &mut self.vcpu.follower {
            follower.trapped();
        }
        self.charge(self.costs.trap);
        match trap.exception {
            Exception::TlbRefill { .. } => {
                self.vcpu.counters.traps_tlb_refill += 1;
                self.tlb_refill(trap)
            }
            Exception::TlbInvalid { .. } => {
                self.vcpu.counters.traps_tlb_invalid += 1;
                self.tlb_fault(trap)
            }
            Exception::TlbModified { .. } => {
                self.vcpu.counters.traps_tlb_modified += 1;
                self.tlb_fault(trap)
            }
            Exception::TlbReadInhibit { .. } | Exception::TlbExecuteInhibit { .. } => {
                self.vcpu.counters.traps_tlb_inhibit += 1;
                self.tlb_fault(trap)
            }
            Exception::CoprocessorUnusable { unit: 0 } if self.guest_may_use_cp0() => {
                self.vcpu.counters.traps_privileged += 1;
                self.privileged(trap)
            }
            Exception::CoprocessorUnusable { .. } => {
                self.vcpu.counters.traps_coprocessor += 1;
                self.forward(trap.exception, trap)
            }
            Exception::Syscall => {
                self.vcpu.counters.traps_syscall += 1;
                self.forward(trap.exception, trap)
            }
            Exception::AddressError { .. } => {
                self.vcpu.counters.traps_address_error += 1;
                self.forward(trap.exception, trap)
            }
            Exception::ReservedInstruction => {
                self.vcpu.counters.traps_other += 1;
                self.reserved(trap)
            }
            _ => {
                self.vcpu.counters.traps_other += 1;
                self.forward(trap.exception, trap)
            }
        }
    }

    /// Kernel mode, or CU0 granted to the user.
    pub(crate) fn guest_may_use_cp0(&self) -> bool {
        self.vcpu.cp0.mode() == Mode::Kernel || self.vcpu.cp0.status & status::CU0 != 0
    }

    /// Gives the guest an exception that is its own to handle.
    pub(crate) fn forward(&mut self, exception: Exception, trap: &Trap) -> Flow {
        let exception = self.as_guest_sees(exception);
        self.vcpu.trap.cause = Cause::Forward;
        self.vcpu.trap.forwarded = Some(exception);
        self.charge(self.costs.forward);
        self.enter(exception, trap.pc, trap.in_delay_slot);
        let vector = self.cpu.regs.pc;
        self.note("forward", || {
            vec![("code", u64::from(exception.code()).into()), ("vector", vector.into()), ("epc", trap.pc.into())]
        });
        if vector == trap.pc {
            self.vcpu.vector_faults += 1;
        } else {
            self.vcpu.vector_faults = 0;
        }
        if self.vcpu.vector_faults > VECTOR_FAULTS_MAX { self.stop(StopCause::NoHandler) } else { Flow::Resume }
    }

    /// Inhibit exceptions are TLBL to a guest that has not asked for codes of their own (PageGrain.IEC).
    fn as_guest_sees(&self, exception: Exception) -> Exception {
        if self.vcpu.cp0.page_grain & page_grain::IEC != 0 {
            return exception;
        }
        match exception {
            Exception::TlbReadInhibit { vaddr } => Exception::TlbInvalid { vaddr, access: AccessKind::Load },
            Exception::TlbExecuteInhibit { vaddr } => Exception::TlbInvalid { vaddr, access: AccessKind::Fetch },
            other => other,
        }
    }

    fn enter(&mut self, exception: Exception, pc: u64, in_delay_slot: bool) {
        let vector = self.vcpu.cp0.enter(exception, pc, in_delay_slot);
        self.cpu.regs.pc = vector;
        self.sync_hardware();
    }

    /// Notices a due timer and delivers an interrupt if the guest would take one now.
    fn take_interrupt(&mut self) {
        let now = self.cpu.now;
        if now >= self.vcpu.cp0.next_timer() {
            self.vcpu.cp0.tick(now);
        }
        if self.vcpu.cp0.interrupt_ready() {
            self.vcpu.counters.interrupts += 1;
            let before = self.before_recorded();
            self.cpu.now.0 += self.costs.interrupt;
            self.vcpu.charge(Cause::Interrupt, self.costs.interrupt);
            let pc = self.cpu.regs.pc;
            self.enter(Exception::Interrupt, pc, false);
            if let Some(before) = before {
                self.record_interrupt(before);
            }
        }
    }

    /// The time that the guest's clock shows now.
    pub(crate) fn clock(&mut self) -> Cycles {
        let now = self.cpu.now;
        self.smp.as_mut().map_or(now, |smp| smp.clock.read(now))
    }

    /// Derives the hardware's view of the guest from its virtual CP0.
    ///
    /// Guest kernel mode is supervisor mode. KX becomes SX; UX, PX, FR and the FPU's CU1 go through; CU0 never
    /// does, so that CP0 instructions trap; interrupts are the monitor's.
    pub fn sync_hardware(&mut self) {
        const THROUGH: u32 = status::UX | status::PX | status::FR | status::CU1;
        let guest = &self.vcpu.cp0;
        let mode = if guest.mode() == Mode::Kernel { KSU_SUPERVISOR } else { KSU_USER };
        let sx = if guest.status & status::KX != 0 { status::SX } else { 0 };
        let wanted = status::KX | sx | mode | (guest.status & THROUGH);
        let hardware = &mut self.cpu.cp0;
        let hwrena = guest.hwrena & !HWRENA_TRAPPED;
        let asid = guest.entry_hi & 0xff;
        let same = hardware.status == wanted && hardware.entry_hi & 0xff == asid && hardware.hwrena == hwrena;
        hardware.user_local = guest.user_local;
        if same {
            return;
        }
        hardware.status = wanted;
        hardware.hwrena = hwrena;
        hardware.entry_hi = asid;
        self.cpu.context_changed();
    }

    /// Goes on at `next_pc` after an instruction that the monitor carried out.
    pub(crate) fn skip_to(&mut self, next_pc: u64) {
        let pc = self.cpu.regs.pc;
        self.cpu.regs.pc = next_pc;
        self.cpu.instructions += 1;
        self.vcpu.counters.instructions += 1;
        // It takes a cycle like any other; or a loop of them would stop time where the monitor costs nothing.
        self.cpu.now.0 += 1;
        self.vcpu.counters.cycles_kernel += 1;
        if self.vcpu.follower.is_some() {
            self.note_emulated(pc);
        }
    }

    /// The instruction at `pc` has been carried out, which may end a followed miss.
    #[cold]
    fn note_emulated(&mut self, pc: u64) {
        let done = self.vcpu.follower.as_mut().and_then(|follower| follower.executed(pc));
        if let Some(steps) = done {
            self.report_followed(steps);
        }
    }

    /// Stops the vCPU for good and says so.
    pub(crate) fn stop(&mut self, cause: StopCause) -> Flow {
        self.vcpu.state = VcpuState::Stopped(cause);
        let cpu = &self.cpu;
        self.events.push(Event::VcpuStopped {
            vm: self.vm,
            vcpu: self.vcpu_index,
            cpu: cpu.id,
            cause,
            pc: cpu.regs.pc,
            cycle: cpu.now,
        });
        Flow::Leave
    }

    /// Charges an action of the monitor to the trap being handled.
    pub(crate) fn charge(&mut self, cycles: u64) {
        self.cpu.now.0 += cycles;
        self.vcpu.trap.cycles += cycles;
        if let Some(follower) = &mut self.vcpu.follower {
            follower.charge(cycles);
        }
    }

    /// Adds a step for the follower, if there is one that records.
    pub(crate) fn note(&mut self, kind: &'static str, values: impl FnOnce() -> Vec<(&'static str, Value)>) {
        let Some(follower) = self.vcpu.follower.as_mut().filter(|follower| follower.is_recording()) else {
            return;
        };
        follower.step(kind, self.cpu.now.0, values());
    }

    /// Notes the instruction at `pc`; two cycles are a branch with its delay slot.
    #[cold]
    fn note_instruction(&mut self, pc: u64, cycle: Cycles, cycles: u64) {
        let words = (0..cycles).map(|step| (pc + 4 * step, self.cpu.word_at(pc + 4 * step)));
        let words: Vec<(u64, u32)> = words.collect();
        let Some(follower) = &mut self.vcpu.follower else { return };
        if let Some(steps) = follower.executed(pc) {
            self.report_followed(steps);
            return;
        }
        for (step, (pc, word)) in (0..).zip(words) {
            follower.instruction(pc, word, cycle.0 + step);
        }
    }

    fn report_followed(&mut self, steps: Vec<Step>) {
        self.vcpu.follower = None;
        let cpu = &self.cpu;
        let event = Event::Followed { vm: self.vm, vcpu: self.vcpu_index, cpu: cpu.id, steps, cycle: cpu.now };
        self.events.push(event);
    }

    /// Takes every entry out of the hardware TLB that came from the guest's TLB.
    pub(crate) fn hardware_drop_guest(&mut self) {
        self.hardware_drop(|origin| origin.is_guest());
    }

    /// Takes the entries out of the hardware TLB whose origin satisfies the condition.
    pub(crate) fn hardware_drop(&mut self, condition: impl Fn(Origin) -> bool) {
        for index in 0..self.cpu.tlb().len().min(SLOTS) {
            if condition(self.shadow.origins[index]) && !self.cpu.tlb().get(index).hidden {
                self.cpu.tlb_invalidate(index);
                self.shadow.origins[index] = Origin::KERNEL;
            }
        }
    }
}

/// Status.KSU of the guest's two modes.
const KSU_SUPERVISOR: u32 = 1 << status::KSU_SHIFT;
const KSU_USER: u32 = 2 << status::KSU_SHIFT;
/// RDHWR registers that the monitor answers: the number is the vCPU's, the cycle counter runs in virtual time.
const HWRENA_TRAPPED: u32 = 1 << 2 | 1;
