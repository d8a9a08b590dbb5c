//! Plans: what a policy may ask for, and what they make of the CPUs when a round begins.

use std::collections::{BTreeMap, BTreeSet};

use super::rounds::refreshed;
use super::{Monitor, MonitorError, Result};
use crate::schedule::{Deal, Past, Pool, PoolPlan, Sight, Topology, VcpuId, WEIGHT_MAX};
use crate::vcpu::VcpuState;

/// The longest turn: virtual time must not overflow within one.
const SLICE_CYCLES_MAX: u64 = 1 << 40;

impl Monitor {
    /// Divides CPUs and vCPUs into pools. It takes effect when the next round begins.
    ///
    /// # Errors
    /// [`MonitorError::Plan`] when a CPU or vCPU does not exist or is in two pools, a living VM's vCPU is in none,
    /// a pool has no CPU, a weight or slice is not possible, or a gang is larger than its pool.
    pub fn set_pools(&mut self, plans: &[PoolPlan]) -> Result<()> {
        self.check_plan(plans).map_err(MonitorError::Plan)?;
        let pasts: BTreeMap<VcpuId, Past> = self.pools.iter().flat_map(Pool::pasts).collect();
        self.pools = plans.iter().map(|plan| Pool::new(plan, |id| pasts.get(&id).copied())).collect();
        Ok(())
    }

    /// Puts a vCPU into the pool of a CPU, to begin there, and takes it out of another.
    ///
    /// # Errors
    /// [`MonitorError::NoVm`], [`MonitorError::NoVcpu`], [`MonitorError::NoCpu`].
    pub fn assign(&mut self, vm: u32, vcpu: u32, cpu: u16) -> Result<()> {
        self.vcpu(vm, vcpu)?;
        let id = VcpuId { vm, vcpu };
        let cpus = self.cpus.len();
        let holds = |pool: &Pool| pool.cpus().contains(&cpu);
        let target = self.pools.iter().position(holds).ok_or(MonitorError::NoCpu { cpu, cpus })?;
        for pool in &mut self.pools {
            pool.remove(|member| member == id);
        }
        self.pools[target].add(id, cpu);
        Ok(())
    }

    /// The CPU that a vCPU is on, or was on last; `None` if it is in no pool.
    ///
    /// # Errors
    /// [`MonitorError::NoVm`], [`MonitorError::NoVcpu`].
    pub fn cpu_of(&mut self, vm: u32, vcpu: u32) -> Result<Option<u16>> {
        self.vcpu(vm, vcpu)?;
        let id = VcpuId { vm, vcpu };
        Ok(self.pools.iter().flat_map(Pool::members).find(|(member, _)| *member == id).map(|(_, cpu)| cpu))
    }

    fn check_plan(&mut self, plans: &[PoolPlan]) -> std::result::Result<(), String> {
        let cpu_count = self.cpus.len();
        let mut cpus = BTreeSet::new();
        let mut vcpus = BTreeSet::new();
        for plan in plans {
            for cpu in &plan.cpus {
                if usize::from(*cpu) >= cpu_count {
                    return Err(format!("CPU {cpu} asked; possible are 0 to {}", cpu_count - 1));
                }
                if !cpus.insert(*cpu) {
                    return Err(format!("CPU {cpu} asked twice; a CPU can be in one pool"));
                }
            }
            for (VcpuId { vm, vcpu }, weight) in &plan.vcpus {
                self.vcpu(*vm, *vcpu).map_err(|error| error.to_string())?;
                if !vcpus.insert(VcpuId { vm: *vm, vcpu: *vcpu }) {
                    return Err(format!("VM {vm}: vCPU {vcpu} asked twice; a vCPU can be in one pool"));
                }
                if !(1..=WEIGHT_MAX).contains(weight) {
                    return Err(format!("VM {vm}: weight {weight} asked; possible are 1 to {WEIGHT_MAX}"));
                }
            }
            self.check_sizes(plan)?;
        }
        let living = self.vms.iter_mut().flatten();
        let mut ids = living.flat_map(|vm| (0..vm.vcpus.len() as u32).map(|vcpu| VcpuId { vm: vm.id, vcpu }));
        match ids.find(|id| !vcpus.contains(id)) {
            Some(VcpuId { vm, vcpu }) => Err(format!("VM {vm}: vCPU {vcpu} is in no pool; each has to be in one")),
            None => Ok(()),
        }
    }

    fn check_sizes(&self, plan: &PoolPlan) -> std::result::Result<(), String> {
        if plan.cpus.is_empty() {
            return Err("a pool without a CPU asked; one and more are possible".to_owned());
        }
        let quantum = self.config.quantum.0;
        let rounds_max = (SLICE_CYCLES_MAX / quantum).max(1);
        if !(1..=rounds_max).contains(&u64::from(plan.slice_rounds)) {
            return Err(format!(
                "a time slice of {} rounds of {quantum} cycles asked; possible are 1 to {rounds_max}",
                plan.slice_rounds
            ));
        }
        let mut gangs: BTreeMap<u32, usize> = BTreeMap::new();
        for (id, _) in plan.vcpus.iter().filter(|_| plan.gang) {
            *gangs.entry(id.vm).or_default() += 1;
        }
        match gangs.iter().find(|(_, size)| **size > plan.cpus.len()) {
            Some((vm, size)) => {
                let cpus = plan.cpus.len();
                Err(format!("VM {vm}: a gang of {size} vCPUs asked; its pool has CPUs for {cpus}"))
            }
            None => Ok(()),
        }
    }

    /// Deals the pools when a round begins.
    pub(super) fn deal(&mut self) {
        let (now, quantum) = (self.now, self.config.quantum.0);
        let topology = Topology { node_of_cpu: &self.config.node_of_cpu, nodes: self.config.nodes };
        let mut deals: Deal = Vec::new();
        let mut has_new = false;
        for pool in &mut self.pools {
            has_new |= pool.is_new();
            let (vms, cpus) = (&mut self.vms, &self.cpus);
            let deal = pool.deal(now.0 / quantum, quantum, topology, |id, cpu| {
                let vcpu = refreshed(vms, id);
                let used = vcpu.cycles_used();
                let is_ready = vcpu.is_blocked() || vcpu.is_runnable(now);
                let is_on = cpus[usize::from(cpu)].as_ref().is_some_and(|slot| slot.running == Some(id))
                    && vcpu.state != VcpuState::Waiting;
                Sight { is_ready, is_running: is_ready && is_on, used }
            });
            deals.extend(deal.into_iter().flatten());
        }
        if has_new {
            // CPUs and vCPUs that have left a pool are not in its deal.
            let left: Vec<u16> = (0..self.cpus.len() as u16)
                .filter(|cpu| !self.pools.iter().any(|pool| pool.cpus().contains(cpu)))
                .collect();
            deals.extend(left.into_iter().map(|cpu| (cpu, Vec::new())));
        }
        if !deals.is_empty() {
            self.apply(deals);
        }
    }

    /// Gives each CPU what it was dealt. Whoever has left a CPU takes its registers along.
    fn apply(&mut self, deals: Deal) {
        for (cpu, queue) in deals {
            let Some(slot) = &mut self.cpus[usize::from(cpu)] else { continue };
            if let Some(loaded) = slot.loaded.filter(|loaded| !queue.contains(loaded)) {
                slot.unload(loaded, &mut self.vms);
            }
            slot.running = slot.running.filter(|running| queue.first() == Some(running));
            slot.queue = queue;
            slot.turn = 0;
        }
        self.regroup();
    }
}
