//! CPUs in a round: which vCPU runs where, until when, and what switching costs.
//!
//! Nothing here knows Python: a CPU runs until the end of the round or until its vCPU needs a decision, and leaves
//! its events behind. VMs are behind locks that are never contended, since CPUs that share a VM run on one host
//! thread; they make that promise checkable.

use std::sync::Mutex;

use machine::smp::run_in_slices;
use machine::{Cycles, Mpn};

use crate::Costs;
use crate::counters::{Cause, CpuTime};
use crate::event::Event;
use crate::schedule::VcpuId;
use crate::trap::Monitored;
use crate::vcpu::{HardwareCpu, Shadow, Vcpu, VcpuState};
use crate::vm::Vm;

/// A CPU with what it may run in this round.
#[derive(Debug)]
pub(super) struct CpuSlot {
    pub(super) hardware: HardwareCpu,
    /// The vCPUs that it may run, as they were dealt.
    pub(super) queue: Vec<VcpuId>,
    /// Place in the queue of the vCPU whose turn it is.
    pub(super) turn: usize,
    /// The vCPU that it runs, unless that one waits.
    pub(super) running: Option<VcpuId>,
    /// The vCPU whose registers are on the CPU.
    pub(super) loaded: Option<VcpuId>,
    /// Where its time has gone.
    pub(super) time: CpuTime,
    pub(super) events: Vec<Event>,
}

pub(super) type Vms = Vec<Option<Mutex<Vm>>>;

/// What running CPUs need to know, the same for all.
#[derive(Clone, Copy)]
pub(super) struct Round<'a> {
    pub(super) vms: &'a Vms,
    pub(super) costs: &'a Costs,
    pub(super) interleave: Cycles,
    pub(super) end: Cycles,
}

impl Round<'_> {
    /// Whether a CPU of the group may have instructions to execute in this round.
    pub(super) fn is_busy(self, group: &[&mut CpuSlot]) -> bool {
        group.iter().any(|slot| {
            let now = slot.hardware.cpu.now;
            now < self.end
                && slot.queue.iter().any(|id| {
                    let vcpu = &mut lock(self.vms, id.vm).vcpus[id.vcpu as usize];
                    !vcpu.is_blocked() && (vcpu.is_runnable(now) || vcpu.wake_time() < self.end)
                })
        })
    }

    /// Runs the CPUs of a group to the end of the round: one alone in one go, several in short slices in turn.
    /// When one needs a decision, the others wait for it at the end of the slice.
    pub(super) fn run(self, mut group: Vec<&mut CpuSlot>) {
        run_in_slices(
            &mut group,
            self.interleave,
            self.end,
            |slot| slot.hardware.cpu.now,
            |group, index, until| group[index].run(self.vms, self.costs, until),
        );
    }
}

impl CpuSlot {
    /// Runs the CPU to the bound, or until its vCPU needs a decision.
    fn run(&mut self, vms: &Vms, costs: &Costs, until: Cycles) {
        while self.hardware.cpu.now < until {
            let Some(id) = self.choose(vms) else {
                self.idle(vms, until);
                continue;
            };
            let mut vm = lock(vms, id.vm);
            if vm.vcpus[id.vcpu as usize].is_blocked() {
                return;
            }
            let before = vm.vcpus[id.vcpu as usize].counters.clone();
            self.load(id, &mut vm, vms, costs);
            let HardwareCpu { cpu, shadow } = &mut self.hardware;
            vm.vcpus[id.vcpu as usize].account_for_absence(cpu.now);
            monitored(shadow, &mut vm, id.vcpu, costs, &mut self.events).run(cpu, until);
            let vcpu = &mut vm.vcpus[id.vcpu as usize];
            vcpu.accounted_until = cpu.now;
            self.time.add_run(&before, &vcpu.counters);
            if vm.smp.is_some() {
                // Others may write to the line before this vCPU runs again: its SC must not succeed then.
                self.hardware.cpu.regs.ll_bit = false;
                vm.apply_power_actions();
                vm.share_clock(id.vcpu, self.hardware.cpu.now);
            }
        }
    }

    /// The vCPU whose turn it is, or the next one that can run. One that needs a decision keeps its CPU.
    fn choose(&mut self, vms: &Vms) -> Option<VcpuId> {
        let now = self.hardware.cpu.now;
        for step in 0..self.queue.len() {
            let place = (self.turn + step) % self.queue.len();
            let id = self.queue[place];
            let mut vm = lock(vms, id.vm);
            vm.refresh_lines(id.vcpu);
            let vcpu = &mut vm.vcpus[id.vcpu as usize];
            if vcpu.is_blocked() || vcpu.is_runnable(now) {
                self.turn = place;
                self.running = Some(id);
                return Some(id);
            }
        }
        self.running = None;
        None
    }

    /// Lets time pass without a vCPU.
    pub(super) fn idle_until(&mut self, time: Cycles) {
        self.time.idle += time.0.saturating_sub(self.hardware.cpu.now.0);
        self.hardware.cpu.now = self.hardware.cpu.now.max(time);
    }

    /// Nobody can run: to the first timer, or to the end of the round.
    fn idle(&mut self, vms: &Vms, round_end: Cycles) {
        let wake = self
            .queue
            .iter()
            .map(|id| lock(vms, id.vm).vcpus[id.vcpu as usize].wake_time())
            .min()
            .unwrap_or(Cycles::NEVER);
        self.idle_until(wake.min(round_end));
    }

    /// Charges work of the monitor on behalf of a vCPU that is on this CPU, outside of a round.
    pub(super) fn charge(&mut self, vcpu: &mut Vcpu, cause: Cause, cycles: u64) {
        vcpu.account_for_absence(self.hardware.cpu.now);
        self.hardware.cpu.now.0 += cycles;
        self.time.monitor.add(cause, cycles);
        vcpu.charge(cause, cycles);
        vcpu.accounted_until = self.hardware.cpu.now;
    }

    /// Puts a vCPU on the CPU. ASIDs are the guest's own, so the TLB is flushed (SOSP'97 section 4.2.2).
    fn load(&mut self, id: VcpuId, vm: &mut Vm, vms: &Vms, costs: &Costs) {
        if let VcpuState::Starting(address) = vm.vcpus[id.vcpu as usize].state {
            self.loaded = self.loaded.filter(|loaded| *loaded != id);
            let now = self.hardware.cpu.now;
            let count = vm.vcpus[0].cp0.count(now);
            vm.vcpus[id.vcpu as usize].reset(id.vcpu, address, &[], now);
            vm.vcpus[id.vcpu as usize].cp0.set_count(count, now);
        }
        if self.loaded == Some(id) {
            return;
        }
        if let Some(old) = self.loaded.take() {
            if old.vm == id.vm {
                std::mem::swap(&mut self.hardware.cpu.regs, &mut vm.vcpus[old.vcpu as usize].regs);
            } else {
                let mut old_vm = lock(vms, old.vm);
                std::mem::swap(&mut self.hardware.cpu.regs, &mut old_vm.vcpus[old.vcpu as usize].regs);
            }
        }
        let vcpu = &mut vm.vcpus[id.vcpu as usize];
        std::mem::swap(&mut self.hardware.cpu.regs, &mut vcpu.regs);
        self.hardware.cpu.regs.ll_bit = false;
        self.loaded = Some(id);
        self.hardware.cpu.tlb_flush();
        // It may come from a CPU that is ahead by what it did beyond the end of a round.
        self.idle_until(vcpu.accounted_until);
        vcpu.account_for_absence(self.hardware.cpu.now);
        vcpu.note_move(self.hardware.cpu.id, self.hardware.cpu.node);
        self.hardware.cpu.now.0 += costs.vcpu_switch;
        vcpu.accounted_until = self.hardware.cpu.now;
        vcpu.counters.vcpu_switches += 1;
        vcpu.charge(Cause::Switch, costs.vcpu_switch);
        let HardwareCpu { cpu, shadow } = &mut self.hardware;
        monitored(shadow, vm, id.vcpu, costs, &mut self.events).on(cpu).sync_hardware();
    }

    /// Takes a vCPU's registers off the CPU, if they are on it.
    pub(super) fn unload(&mut self, id: VcpuId, vms: &mut Vms) {
        if self.loaded == Some(id) {
            std::mem::swap(&mut self.hardware.cpu.regs, &mut vcpu_of(vms, id).regs);
            self.hardware.cpu.tlb_flush();
            self.loaded = None;
        }
    }

    /// Forgets a VM that is about to go.
    pub(super) fn forget(&mut self, vm: u32) {
        if self.loaded.is_some_and(|id| id.vm == vm) {
            self.hardware.cpu.tlb_flush();
            self.loaded = None;
        }
        let in_turn = self.queue.get(self.turn).copied();
        self.queue.retain(|id| id.vm != vm);
        self.turn = self.queue.iter().position(|id| Some(*id) == in_turn).unwrap_or(0);
        self.running = self.running.filter(|id| id.vm != vm);
        self.events.retain(|event| event.vm() != vm);
    }

    /// Takes a machine page out of the hardware TLB.
    pub(super) fn shoot_down(&mut self, page: Mpn) {
        for index in 0..self.hardware.cpu.tlb().len() {
            let entry = self.hardware.cpu.tlb().get(index);
            let holds = |lo: &u64| *lo & machine::tlb::entry_lo::V != 0 && crate::miss::machine_page(*lo) == page;
            if !entry.hidden && entry.lo.iter().any(holds) {
                self.hardware.cpu.tlb_invalidate(index);
            }
        }
    }
}

/// A vCPU for the CPU with that shadow.
fn monitored<'a>(
    shadow: &'a mut Shadow,
    vm: &'a mut Vm,
    vcpu: u32,
    costs: &'a Costs,
    events: &'a mut Vec<Event>,
) -> Monitored<'a> {
    Monitored {
        shadow,
        vm: vm.id,
        pmap: &mut vm.pmap,
        windows: &mut vm.windows,
        smp: &mut vm.smp,
        vcpu_index: vcpu,
        vcpu: &mut vm.vcpus[vcpu as usize],
        costs,
        events,
    }
}

/// Each group's CPUs, apart from the others'.
pub(super) fn grouped<'a>(cpus: &'a mut [CpuSlot], groups: &[Vec<usize>]) -> Vec<Vec<&'a mut CpuSlot>> {
    let mut work: Vec<Vec<&mut CpuSlot>> = groups.iter().map(|_| Vec::new()).collect();
    for (index, slot) in cpus.iter_mut().enumerate() {
        match groups.iter().position(|group| group.contains(&index)) {
            Some(group) => work[group].push(slot),
            None => work.push(vec![slot]),
        }
    }
    work
}

/// A VM that is on a run queue. The lock is never contended: CPUs that share a VM run on one thread.
fn lock(vms: &Vms, vm: u32) -> std::sync::MutexGuard<'_, Vm> {
    let vm = vms[vm as usize].as_ref().expect("run queues name existing VMs");
    vm.try_lock().expect("CPUs that share a VM run on one host thread")
}

pub(super) fn vcpu_of(vms: &mut Vms, id: VcpuId) -> &mut Vcpu {
    let vm = vms[id.vm as usize].as_mut().expect("run queues name existing VMs");
    &mut vm.get_mut().expect("no run panicked inside").vcpus[id.vcpu as usize]
}

/// A vCPU with its interrupt lines up to date.
pub(super) fn refreshed(vms: &mut Vms, id: VcpuId) -> &mut Vcpu {
    let vm = vms[id.vm as usize].as_mut().expect("pools name existing VMs");
    let vm = vm.get_mut().expect("no run panicked inside");
    vm.refresh_lines(id.vcpu);
    &mut vm.vcpus[id.vcpu as usize]
}
