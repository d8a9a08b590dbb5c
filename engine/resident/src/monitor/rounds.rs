//! CPUs in a round: which vCPU runs where, until when, and what switching costs.
//!
//! Nothing here knows Python: a CPU runs until the end of the round or until its vCPU needs a decision, and leaves
//! its events behind. CPUs that share a VM are a [`Group`]. For the round they and their VMs are moved into it, and
//! it can run on any host thread: what is in another group is out of its reach.

use std::ops::Range;

use machine::smp::run_in_slices;
use machine::{Cycles, Mpn, PAGE_BYTES};

use crate::Costs;
use crate::counters::{Cause, CpuTime};
use crate::event::Event;
use crate::host_threads::Work;
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

/// The CPUs by their numbers. One that is in a group is not here.
pub(super) type Cpus = Vec<Option<Box<CpuSlot>>>;
/// The VMs by their numbers. One that is in a group is not here, nor one that is gone.
pub(super) type Vms = Vec<Option<Vm>>;

/// What running CPUs need to know, the same for all.
#[derive(Clone, Debug)]
pub(super) struct Round {
    pub(super) costs: Costs,
    pub(super) interleave: Cycles,
    pub(super) end: Cycles,
}

/// CPUs that must run on one host thread, because VMs span them; and in a round, these VMs.
#[derive(Debug)]
pub(super) struct Group {
    /// Numbers of the CPUs, in order.
    pub(super) members: Vec<usize>,
    cpus: Vec<Box<CpuSlot>>,
    /// In the order of their numbers.
    vms: Vec<Vm>,
    round: Round,
}

impl Group {
    /// A group of the CPUs with these numbers.
    pub(super) fn new(members: Vec<usize>, round: Round) -> Group {
        Group { members, cpus: Vec::new(), vms: Vec::new(), round }
    }

    /// Whether a CPU of the group may have instructions to execute before `end`.
    pub(super) fn is_busy(&self, cpus: &Cpus, vms: &mut Vms, end: Cycles) -> bool {
        self.members.iter().filter_map(|member| cpus[*member].as_ref()).any(|slot| {
            let now = slot.hardware.cpu.now;
            now < end
                && slot.queue.iter().any(|id| {
                    let vcpu = vcpu_of(vms, *id);
                    !vcpu.is_blocked() && (vcpu.is_runnable(now) || vcpu.wake_time() < end)
                })
        })
    }

    /// Moves the CPUs and their VMs into the group, to run until `end`.
    pub(super) fn gather(&mut self, cpus: &mut Cpus, vms: &mut Vms, end: Cycles) {
        self.round.end = end;
        self.cpus.extend(self.members.iter().filter_map(|member| cpus[*member].take()));
        for id in self.cpus.iter().flat_map(|slot| &slot.queue) {
            self.vms.extend(vms[id.vm as usize].take());
        }
        self.vms.sort_unstable_by_key(|vm| vm.id);
    }

    /// Moves them back to their places.
    pub(super) fn scatter(&mut self, cpus: &mut Cpus, vms: &mut Vms) {
        for (member, slot) in self.members.iter().zip(self.cpus.drain(..)) {
            cpus[*member] = Some(slot);
        }
        for vm in self.vms.drain(..) {
            let place = vm.id as usize;
            vms[place] = Some(vm);
        }
    }
}

impl Work for Group {
    /// Runs the CPUs to the end of the round: one alone in one go, several in short slices in turn. When one needs a
    /// decision, the others wait for it at the end of the slice.
    fn run(&mut self) {
        let Group { cpus, vms, round, .. } = self;
        run_in_slices(
            cpus,
            round.interleave,
            round.end,
            |slot| slot.hardware.cpu.now,
            |cpus, index, until| cpus[index].run(vms, &round.costs, until),
        );
    }

    fn size(&self) -> u64 {
        self.cpus.iter().map(|slot| self.round.end.0.saturating_sub(slot.hardware.cpu.now.0)).sum()
    }
}

impl CpuSlot {
    /// Runs the CPU to the bound, or until its vCPU needs a decision.
    fn run(&mut self, vms: &mut [Vm], costs: &Costs, until: Cycles) {
        while self.hardware.cpu.now < until {
            let Some(id) = self.choose(vms) else {
                self.idle(vms, until);
                continue;
            };
            if vm_in(vms, id.vm).vcpus[id.vcpu as usize].is_blocked() {
                return;
            }
            self.make_room(id, vms);
            let vm = vm_in(vms, id.vm);
            let before = vm.vcpus[id.vcpu as usize].counters.used();
            self.load(id, vm, costs);
            let HardwareCpu { cpu, shadow } = &mut self.hardware;
            vm.vcpus[id.vcpu as usize].account_for_absence(cpu.now);
            monitored(shadow, vm, id.vcpu, costs, &mut self.events).run(cpu, until);
            let vcpu = &mut vm.vcpus[id.vcpu as usize];
            vcpu.accounted_until = cpu.now;
            self.time.add_run(before, vcpu.counters.used());
            if vm.smp.is_some() {
                // Others may write to the line before this vCPU runs again: its SC must not succeed then.
                self.hardware.cpu.regs.ll_bit = false;
                vm.apply_power_actions();
                vm.share_clock(id.vcpu, self.hardware.cpu.now);
            }
        }
    }

    /// The vCPU whose turn it is, or the next one that can run. One that needs a decision keeps its CPU.
    fn choose(&mut self, vms: &mut [Vm]) -> Option<VcpuId> {
        let now = self.hardware.cpu.now;
        for place in in_turn(self.turn, self.queue.len()) {
            let id = self.queue[place];
            let vm = vm_in(vms, id.vm);
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
    fn idle(&mut self, vms: &mut [Vm], round_end: Cycles) {
        let wakes = self.queue.iter().map(|id| vm_in(vms, id.vm).vcpus[id.vcpu as usize].wake_time());
        let wake = wakes.min().unwrap_or(Cycles::NEVER);
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

    /// Takes the registers of another vCPU off the CPU, and old ones of a vCPU that starts anew.
    fn make_room(&mut self, id: VcpuId, vms: &mut [Vm]) {
        let Some(old) = self.loaded else { return };
        if old != id {
            let vcpu = &mut vm_in(vms, old.vm).vcpus[old.vcpu as usize];
            std::mem::swap(&mut self.hardware.cpu.regs, &mut vcpu.regs);
            self.loaded = None;
        } else if matches!(vm_in(vms, id.vm).vcpus[id.vcpu as usize].state, VcpuState::Starting(_)) {
            self.loaded = None;
        }
    }

    /// Puts a vCPU on the CPU if it has room. ASIDs are the guest's own, so the TLB is flushed (SOSP'97 section 4.2.2).
    fn load(&mut self, id: VcpuId, vm: &mut Vm, costs: &Costs) {
        if let VcpuState::Starting(address) = vm.vcpus[id.vcpu as usize].state {
            let now = self.hardware.cpu.now;
            let count = vm.vcpus[0].cp0.count(now);
            vm.vcpus[id.vcpu as usize].reset(id.vcpu, address, &[], now);
            vm.vcpus[id.vcpu as usize].cp0.set_count(count, now);
        }
        if self.loaded.is_some() {
            return;
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
            let pages = (entry.page_bytes() / PAGE_BYTES) as u32;
            let holds = |lo: &u64| {
                let first = crate::miss::machine_page(*lo).0;
                *lo & machine::tlb::entry_lo::V != 0 && (first..first + pages).contains(&page.0)
            };
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
        reserve: &mut vm.reserve,
        windows: &mut vm.windows,
        smp: &mut vm.smp,
        vcpu_index: vcpu,
        vcpu: &mut vm.vcpus[vcpu as usize],
        costs,
        events,
    }
}

/// A VM of the group.
fn vm_in(vms: &mut [Vm], vm: u32) -> &mut Vm {
    let place = vms.binary_search_by_key(&vm, |vm| vm.id).expect("a group has the VMs of its run queues");
    &mut vms[place]
}

/// The places of a queue, from one on all around.
fn in_turn(first: usize, places: usize) -> impl Iterator<Item = usize> {
    let before: Range<usize> = 0..first.min(places);
    (before.end..places).chain(before)
}

pub(super) fn vcpu_of(vms: &mut Vms, id: VcpuId) -> &mut Vcpu {
    let vm = vms[id.vm as usize].as_mut().expect("run queues name existing VMs");
    &mut vm.vcpus[id.vcpu as usize]
}

/// A vCPU with its interrupt lines up to date.
pub(super) fn refreshed(vms: &mut Vms, id: VcpuId) -> &mut Vcpu {
    let vm = vms[id.vm as usize].as_mut().expect("pools name existing VMs");
    vm.refresh_lines(id.vcpu);
    &mut vm.vcpus[id.vcpu as usize]
}
