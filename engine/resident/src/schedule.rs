//! Who runs where: pools of CPUs, and the vCPUs that share them.
//!
//! A policy (Python) divides the machine into *pools*: some CPUs, the vCPUs that share them, a weight for each
//! VM, and the length of a time slice. What follows from that is mechanism and is here. A pool is *dealt* at
//! round boundaries, and the deal says which vCPUs each CPU may run in the round, in which order:
//!
//! 1. *Virtual time.* What a vCPU has used, divided by its share, is its virtual time. When a slice is over,
//!    those with the least have the next turns. Within a slice only CPUs whose vCPU waits are dealt anew.
//! 2. *Affinity.* A turn is best had on the CPU of the last one. A vCPU counts as half a turn ahead on another
//!    CPU of that node, and as a whole one elsewhere; so it moves if that is worth it, or if a CPU is free.
//! 3. *Nobody saves up.* Whoever slept, or had a CPU alone, is behind the latest turn by one turn at most: the
//!    longest in virtual time, which is that of the VM of least weight.
//! 4. *Gangs.* In a pool of gangs the vCPUs of a VM that have something to do have their turns together or not at
//!    all. So a vCPU that spins for a lock does not wait for one that is on no CPU.
//!
//! The share of a VM is its weight, divided among those of its vCPUs that have something to do. This file knows
//! neither CPUs nor guests; `engine/resident/tests/schedule.rs` runs it against a naive model.
//!
//! Sources: start-time fair queueing (Goyal, Guo, Vin: OSDI'96) for 1 and 3; Ousterhout's matrix for 4.

use std::collections::BTreeMap;

/// A vCPU by the numbers of its VM and of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VcpuId {
    /// Number of the VM.
    pub vm: u32,
    /// Index in the VM.
    pub vcpu: u32,
}

/// The most that one VM can weigh against another of weight 1.
pub const WEIGHT_MAX: u32 = 10_000;

/// Virtual time of a cycle that a VM of weight 1 uses; so that a cycle of the heaviest counts as well.
const VIRTUAL_CYCLE: u64 = WEIGHT_MAX as u64;

/// A pool as a policy asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolPlan {
    /// Its CPUs.
    pub cpus: Vec<u16>,
    /// The vCPUs that share them, each with the weight of its VM.
    pub vcpus: Vec<(VcpuId, u32)>,
    /// The vCPUs of a VM have their turns together.
    pub gang: bool,
    /// Length of a turn.
    pub slice_rounds: u32,
}

/// What a deal has to know of a vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    /// It could execute something.
    pub is_ready: bool,
    /// It is the one that its CPU ran until now, and it does not wait.
    pub is_running: bool,
    /// Cycles that it has used in its life.
    pub used: u64,
}

/// Where CPUs are.
#[derive(Clone, Copy, Debug)]
pub struct Topology<'a> {
    /// The node of each CPU.
    pub node_of_cpu: &'a [u16],
    /// Nodes, in a ring.
    pub nodes: u16,
}

impl Topology<'_> {
    /// Nodes between two CPUs along the ring.
    fn hops(self, a: u16, b: u16) -> u16 {
        let (a, b) = (self.node_of_cpu[usize::from(a)], self.node_of_cpu[usize::from(b)]);
        let there = a.abs_diff(b);
        there.min(self.nodes - there)
    }
}

/// What a vCPU takes from a pool into the next one.
#[derive(Clone, Copy, Debug)]
pub struct Past {
    /// Where it was last.
    pub cpu: u16,
    virtual_time: u64,
    clock: u64,
    charged: Option<u64>,
}

/// Some CPUs and the vCPUs that share them.
#[derive(Debug)]
pub struct Pool {
    cpus: Vec<u16>,
    gang: bool,
    slice_rounds: u32,
    units: Vec<Unit>,
    /// Virtual time at which the latest turn began.
    clock: u64,
    /// Turns given so far.
    turns: u64,
    /// Not dealt yet, or vCPUs have come or gone since.
    is_new: bool,
}

/// What has turns: a vCPU, or in a pool of gangs the vCPUs of a VM.
#[derive(Debug)]
struct Unit {
    vm: u32,
    members: Vec<Member>,
    weight: u64,
    virtual_time: u64,
    /// The number of its turn while it has one.
    turn: Option<u64>,
}

#[derive(Debug)]
struct Member {
    id: VcpuId,
    /// The CPU that it is on, or was on last.
    cpu: u16,
    /// Used cycles that are in the virtual time; `None`: it was in no pool that counts.
    charged: Option<u64>,
    sight: Sight,
}

/// What each CPU of a pool may run, in that order.
pub type Deal = Vec<(u16, Vec<VcpuId>)>;

impl Unit {
    fn is_ready(&self) -> bool {
        self.members.iter().any(|member| member.sight.is_ready)
    }

    fn is_running(&self) -> bool {
        self.members.iter().any(|member| member.sight.is_running)
    }

    fn order(&self) -> (u64, VcpuId) {
        (self.virtual_time, self.members[0].id)
    }
}

impl Pool {
    /// The pool of a plan that makes sense. `past` is what a vCPU brings along from the pool that it was in.
    pub fn new(plan: &PoolPlan, mut past: impl FnMut(VcpuId) -> Option<Past>) -> Pool {
        let mut pool = Pool {
            cpus: plan.cpus.clone(),
            gang: plan.gang,
            slice_rounds: plan.slice_rounds,
            units: Vec::new(),
            clock: 0,
            turns: 0,
            is_new: true,
        };
        pool.cpus.sort_unstable();
        let each = plan.vcpus.len().div_ceil(pool.cpus.len().max(1));
        let pasts: Vec<Option<Past>> = plan.vcpus.iter().map(|(id, _)| past(*id)).collect();
        let mut homes: Vec<Option<u16>> = vec![None; plan.vcpus.len()];
        let count = |homes: &[Option<u16>], cpu: u16| homes.iter().filter(|home| **home == Some(cpu)).count();
        for (place, past) in pasts.iter().enumerate() {
            homes[place] =
                past.map(|past| past.cpu).filter(|cpu| pool.cpus.contains(cpu) && count(&homes, *cpu) < each);
        }
        for place in 0..homes.len() {
            if homes[place].is_none() {
                homes[place] = pool.cpus.iter().copied().min_by_key(|cpu| count(&homes, *cpu));
            }
        }
        for (((id, weight), past), home) in plan.vcpus.iter().zip(&pasts).zip(&homes) {
            pool.clock = pool.clock.max(past.map_or(0, |past| past.clock));
            pool.join(*id, *weight, home.expect("a plan with vCPUs has CPUs"), *past);
        }
        pool
    }

    fn join(&mut self, id: VcpuId, weight: u32, cpu: u16, past: Option<Past>) {
        let virtual_time = past.map_or(0, |past| past.virtual_time);
        let sight = Sight { is_ready: false, is_running: false, used: 0 };
        let member = Member { id, cpu, charged: past.and_then(|past| past.charged), sight };
        match self.units.iter_mut().find(|unit| self.gang && unit.vm == id.vm) {
            Some(unit) => {
                unit.virtual_time = unit.virtual_time.max(virtual_time);
                unit.members.push(member);
            }
            None => self.units.push(Unit {
                vm: id.vm,
                members: vec![member],
                weight: u64::from(weight.max(1)),
                virtual_time,
                turn: None,
            }),
        }
    }

    /// Takes one more vCPU of a VM of weight 1 in, at that CPU.
    pub fn add(&mut self, id: VcpuId, cpu: u16) {
        self.disturb();
        self.join(id, 1, cpu, None);
    }

    /// Forgets the vCPUs that satisfy the condition.
    pub fn remove(&mut self, condition: impl Fn(VcpuId) -> bool) {
        if !self.members().any(|(id, _)| condition(id)) {
            return;
        }
        self.disturb();
        for unit in &mut self.units {
            unit.members.retain(|member| !condition(member.id));
        }
        self.units.retain(|unit| !unit.members.is_empty());
    }

    /// It has to be dealt anew. What was used while nobody had to share is no debt.
    fn disturb(&mut self) {
        if self.is_settled() {
            for member in self.units.iter_mut().flat_map(|unit| &mut unit.members) {
                member.charged = None;
            }
        }
        self.is_new = true;
    }

    /// Whether the next deal is its first, or the first since vCPUs came or went.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Its CPUs.
    pub fn cpus(&self) -> &[u16] {
        &self.cpus
    }

    /// Its vCPUs, each with the CPU that it is on, or was on last.
    pub fn members(&self) -> impl Iterator<Item = (VcpuId, u16)> {
        self.units.iter().flat_map(|unit| &unit.members).map(|member| (member.id, member.cpu))
    }

    /// What each of its vCPUs takes along to another pool.
    pub fn pasts(&self) -> impl Iterator<Item = (VcpuId, Past)> {
        self.units.iter().flat_map(move |unit| {
            unit.members.iter().map(move |member| {
                let charged = member.charged.filter(|_| !self.is_settled());
                let past = Past { cpu: member.cpu, virtual_time: unit.virtual_time, clock: self.clock, charged };
                (member.id, past)
            })
        })
    }

    /// Every vCPU has a CPU to itself, and nothing will change that.
    pub fn is_settled(&self) -> bool {
        !self.is_new && self.members().count() <= self.cpus.len()
    }

    /// Whether `round` begins a slice.
    pub fn is_slice_end(&self, round: u64) -> bool {
        round.is_multiple_of(u64::from(self.slice_rounds))
    }

    /// Deals the pool for the round that begins. `None`: all stays as it is.
    pub fn deal(
        &mut self,
        round: u64,
        quantum: u64,
        topology: Topology<'_>,
        mut look: impl FnMut(VcpuId, u16) -> Sight,
    ) -> Option<Deal> {
        if self.is_settled() {
            return None;
        }
        for member in self.units.iter_mut().flat_map(|unit| &mut unit.members) {
            member.sight = look(member.id, member.cpu);
        }
        let is_over = self.is_new || self.is_slice_end(round);
        if !self.is_new && (!self.units.iter().any(Unit::is_ready) || !is_over && self.is_every_cpu_busy()) {
            return None;
        }
        self.is_new = false;
        let turn_times = self.charge(quantum * u64::from(self.slice_rounds));
        let mut free = self.cpus.clone();
        self.keep(is_over, &mut free, topology);
        self.fill(&turn_times, &mut free, topology);
        Some(self.queues())
    }

    /// Within a slice, time sharing has nothing to decide while no CPU is free. A gang can grow.
    fn is_every_cpu_busy(&self) -> bool {
        let running = self.units.iter().flat_map(|unit| &unit.members).filter(|member| member.sight.is_running);
        !self.gang && running.count() == self.cpus.len()
    }

    /// Brings virtual times up to date; returns what a turn of each unit is in virtual time.
    fn charge(&mut self, slice_cycles: u64) -> Vec<u64> {
        let mut sharing: BTreeMap<u32, u64> = BTreeMap::new();
        for unit in &self.units {
            let count = unit.members.iter().filter(|member| {
                member.sight.is_ready || member.charged.is_some_and(|charged| charged < member.sight.used)
            });
            *sharing.entry(unit.vm).or_default() += count.count() as u64;
        }
        let mut turn_times = Vec::with_capacity(self.units.len());
        for unit in &mut self.units {
            let sharers = sharing[&unit.vm].max(1);
            // The members of a gang use the VM's share together, so each counts once.
            let factor = if self.gang { 1 } else { sharers };
            for member in &mut unit.members {
                let used = member.sight.used - member.charged.unwrap_or(member.sight.used);
                unit.virtual_time += used * factor * VIRTUAL_CYCLE / unit.weight;
                member.charged = Some(member.sight.used);
            }
            turn_times.push(slice_cycles * sharers * VIRTUAL_CYCLE / unit.weight);
        }
        let competing = self.units.iter().zip(&turn_times).filter(|(unit, _)| unit.is_ready());
        let longest = competing.map(|(_, turn_time)| *turn_time).max().unwrap_or(0);
        let earliest = self.clock.saturating_sub(longest);
        for unit in self.units.iter_mut().filter(|unit| unit.is_ready()) {
            unit.virtual_time = unit.virtual_time.max(earliest);
        }
        turn_times
    }

    /// Seats those whose turn goes on, in the order in which their turns began.
    fn keep(&mut self, is_over: bool, free: &mut Vec<u16>, topology: Topology<'_>) {
        for unit in &mut self.units {
            if is_over || !unit.is_running() {
                unit.turn = None;
            } else if unit.turn.is_none() {
                // It has taken over from one that waits.
                self.turns += 1;
                unit.turn = Some(self.turns);
            }
        }
        let mut kept: Vec<usize> = (0..self.units.len()).filter(|unit| self.units[*unit].turn.is_some()).collect();
        kept.sort_unstable_by_key(|unit| self.units[*unit].turn);
        for unit in kept {
            match seats(&self.units[unit], free, topology) {
                Some((seats, _)) => self.seat(unit, &seats, free),
                None => self.units[unit].turn = None,
            }
        }
    }

    /// Gives turns on the free CPUs to those that have had least, one after the other.
    fn fill(&mut self, turn_times: &[u64], free: &mut Vec<u16>, topology: Topology<'_>) {
        let mut waiting: Vec<usize> = (0..self.units.len())
            .filter(|unit| self.units[*unit].turn.is_none() && self.units[*unit].is_ready())
            .collect();
        waiting.sort_unstable_by_key(|unit| self.units[*unit].order());
        while !free.is_empty() {
            let mut best: Option<(u64, usize, Vec<u16>)> = None;
            for (place, unit) in waiting.iter().enumerate() {
                let virtual_time = self.units[*unit].virtual_time;
                if best.as_ref().is_some_and(|(time, ..)| *time <= virtual_time) {
                    break; // in order: the rest cannot be better
                }
                let Some((seats, distance)) = seats(&self.units[*unit], free, topology) else { continue };
                let time = virtual_time + turn_times[*unit] * distance / 2;
                if best.as_ref().is_none_or(|(best, ..)| time < *best) {
                    best = Some((time, place, seats));
                }
            }
            let Some((_, place, seats)) = best else { return };
            let unit = waiting.remove(place);
            self.turns += 1;
            self.clock = self.clock.max(self.units[unit].virtual_time);
            self.units[unit].turn = Some(self.turns);
            self.seat(unit, &seats, free);
        }
    }

    fn seat(&mut self, unit: usize, seats: &[u16], free: &mut Vec<u16>) {
        let ready = self.units[unit].members.iter_mut().filter(|member| member.sight.is_ready);
        for (member, seat) in ready.zip(seats) {
            member.cpu = *seat;
        }
        free.retain(|cpu| !seats.contains(cpu));
    }

    /// The one whose turn it is first, then whoever may run there when that one waits.
    fn queues(&self) -> Deal {
        let mut deal: Deal = self.cpus.iter().map(|cpu| (*cpu, Vec::new())).collect();
        let mut push = |member: &Member| {
            let place = deal.binary_search_by_key(&member.cpu, |(cpu, _)| *cpu);
            deal[place.expect("a pool's vCPUs are on its CPUs")].1.push(member.id);
        };
        let mut units: Vec<&Unit> = self.units.iter().collect();
        units.sort_unstable_by_key(|unit| unit.order());
        let (on, off): (Vec<&Unit>, Vec<&Unit>) = units.into_iter().partition(|unit| unit.turn.is_some());
        let has_seat = |member: &&Member| member.sight.is_ready;
        on.iter().flat_map(|unit| &unit.members).filter(has_seat).for_each(&mut push);
        on.iter().flat_map(|unit| &unit.members).filter(|member| !has_seat(member)).for_each(&mut push);
        // A gang that has something to do and no turn must not begin with some of its members.
        let may_run = |unit: &&&Unit| !self.gang || !unit.is_ready();
        off.iter().filter(may_run).flat_map(|unit| &unit.members).for_each(&mut push);
        deal
    }
}

/// Free CPUs for all members of a unit that have something to do, if there are enough, and how far the farthest
/// has to move: 0 not at all, 1 within its node, 2 to another.
fn seats(unit: &Unit, free: &[u16], topology: Topology<'_>) -> Option<(Vec<u16>, u64)> {
    let ready: Vec<u16> =
        unit.members.iter().filter(|member| member.sight.is_ready).map(|member| member.cpu).collect();
    if ready.len() > free.len() {
        return None;
    }
    let mut seats: Vec<Option<u16>> = Vec::with_capacity(ready.len());
    for cpu in &ready {
        let is_possible = free.contains(cpu) && !seats.contains(&Some(*cpu));
        seats.push(is_possible.then_some(*cpu));
    }
    let mut distance = 0;
    for place in 0..ready.len() {
        if seats[place].is_none() {
            let left = free.iter().filter(|cpu| !seats.contains(&Some(**cpu)));
            let seat = *left.min_by_key(|cpu| (topology.hops(ready[place], **cpu), **cpu))?;
            distance = distance.max(if topology.hops(ready[place], seat) == 0 { 1 } else { 2 });
            seats[place] = Some(seat);
        }
    }
    Some((seats.into_iter().flatten().collect(), distance))
}
