//! Pools against naive models: random machines, loads and weights.
//!
//! [`Machine`] plays the CPUs: in each round each runs the first vCPU of its queue that is ready, and the next one
//! when that waits. What must hold after every deal is checked there; shares are compared with those of an ideal
//! machine that divides time without turns ([`ideal_shares`]).

mod guest;

use std::collections::BTreeMap;

use guest::Random;
use resident::schedule::{Pool, PoolPlan, Sight, Topology, VcpuId};

const QUANTUM: u64 = 1000;

/// What a vCPU does: each round with these chances in 100.
#[derive(Clone, Copy, Debug)]
struct Habit {
    falls_asleep: usize,
    wakes: usize,
}

const BUSY: Habit = Habit { falls_asleep: 0, wakes: 100 };

#[derive(Clone, Debug)]
struct Guest {
    habit: Habit,
    is_ready: bool,
    used: u64,
    /// Rounds in which it was ready and ran nowhere, since it ran last.
    hungry: u64,
}

/// CPUs that run what they are dealt.
struct Machine {
    random: Random,
    pool: Pool,
    plan: PoolPlan,
    nodes: u16,
    node_of_cpu: Vec<u16>,
    guests: BTreeMap<VcpuId, Guest>,
    queues: BTreeMap<u16, Vec<VcpuId>>,
    running: BTreeMap<u16, VcpuId>,
    round: u64,
    moves: u64,
}

impl Machine {
    fn new(plan: PoolPlan, nodes: u16, mut random: Random, habit: impl Fn(&mut Random) -> Habit) -> Machine {
        let guests = plan
            .vcpus
            .iter()
            .map(|(id, _)| {
                let habit = habit(&mut random);
                (*id, Guest { habit, is_ready: random.chance(80), used: 0, hungry: 0 })
            })
            .collect();
        Machine {
            random,
            pool: Pool::new(&plan, |_| None),
            nodes,
            node_of_cpu: (0..128).map(|cpu| cpu % nodes).collect(),
            queues: plan.cpus.iter().map(|cpu| (*cpu, Vec::new())).collect(),
            plan,
            guests,
            running: BTreeMap::new(),
            round: 0,
            moves: 0,
        }
    }

    fn step(&mut self) {
        for guest in self.guests.values_mut() {
            let chance = if guest.is_ready { guest.habit.falls_asleep } else { guest.habit.wakes };
            // Some doze off and wake between two boundaries, which a deal does not see.
            guest.is_ready ^= self.random.chance(chance);
        }
        self.deal();
        self.run();
        self.round += 1;
    }

    fn deal(&mut self) {
        let is_kept = !self.pool.is_new() && !self.pool.is_slice_end(self.round);
        let before = self.running.clone();
        let topology = Topology { node_of_cpu: &self.node_of_cpu, nodes: self.nodes };
        let (guests, running) = (&self.guests, &self.running);
        let deal = self.pool.deal(self.round, QUANTUM, topology, |id, cpu| {
            let guest = &guests[&id];
            let is_running = guest.is_ready && running.get(&cpu) == Some(&id);
            Sight { is_ready: guest.is_ready, is_running, used: guest.used }
        });
        let homes: BTreeMap<VcpuId, u16> = self.pool.members().collect();
        for (cpu, queue) in deal.into_iter().flatten() {
            for id in queue.iter().filter(|id| !self.queues[&cpu].contains(id)) {
                self.moves += 1;
                assert_eq!(homes[id], cpu, "{id:?} is queued where it lives");
            }
            if self.running.get(&cpu) != queue.first() {
                self.running.remove(&cpu);
            }
            self.queues.insert(cpu, queue);
        }
        self.check(is_kept, &before);
    }

    /// What holds after every deal.
    fn check(&self, is_kept: bool, before: &BTreeMap<u16, VcpuId>) {
        let ready = |id: &VcpuId| self.guests[id].is_ready;
        let mut places: BTreeMap<VcpuId, u16> = BTreeMap::new();
        for (cpu, queue) in &self.queues {
            for id in queue {
                assert!(places.insert(*id, *cpu).is_none(), "{id:?} is on two CPUs, or twice on one");
            }
        }
        if self.plan.gang {
            self.check_gangs(&places);
            return;
        }
        for id in self.guests.keys() {
            assert!(places.contains_key(id), "{id:?} is nowhere: its wake-up would be lost");
        }
        let ready_on = |cpu: &u16| self.queues[cpu].iter().filter(|id| ready(id)).count();
        let idle = self.plan.cpus.iter().any(|cpu| ready_on(cpu) == 0);
        let crowded = self.plan.cpus.iter().any(|cpu| ready_on(cpu) > 1);
        assert!(!(idle && crowded), "a CPU is idle while vCPUs wait for another: {:?}", self.queues);
        for (cpu, id) in before.iter().filter(|(_, id)| is_kept && ready(id)) {
            assert_eq!(self.order(*cpu).first(), Some(id), "within a slice nobody loses a CPU");
        }
    }

    /// Who can run on a CPU: whoever runs there goes on, the others follow as they were dealt.
    fn order(&self, cpu: u16) -> Vec<VcpuId> {
        let queue = &self.queues[&cpu];
        let running = self.running.get(&cpu);
        let turn = queue.iter().position(|id| Some(id) == running).unwrap_or(0);
        let (behind, ahead) = queue.split_at(turn);
        ahead.iter().chain(behind).copied().filter(|id| self.guests[id].is_ready).collect()
    }

    /// Of a VM all that have something to do have CPUs to themselves, or none may run.
    fn check_gangs(&self, places: &BTreeMap<VcpuId, u16>) {
        let vms: std::collections::BTreeSet<u32> = self.guests.keys().map(|id| id.vm).collect();
        for vm in vms {
            let ready: Vec<&VcpuId> =
                self.guests.iter().filter(|(id, guest)| id.vm == vm && guest.is_ready).map(|(id, _)| id).collect();
            let dealt = ready.iter().filter(|id| places.contains_key(id)).count();
            assert!(dealt == 0 || dealt == ready.len(), "VM {vm}: {dealt} of {} run", ready.len());
            for id in ready.iter().filter(|id| places.contains_key(id)) {
                assert_eq!(self.order(places[id]).first(), Some(*id), "a gang shares no CPU");
            }
        }
    }

    fn run(&mut self) {
        let mut has_run: Vec<VcpuId> = Vec::new();
        for cpu in self.plan.cpus.clone() {
            let mut left = QUANTUM;
            let order = self.order(cpu);
            self.running.remove(&cpu);
            for id in order {
                let guest = self.guests.get_mut(&id).unwrap();
                let is_tired = self.random.chance(guest.habit.falls_asleep);
                let cycles = if is_tired { self.random.below(left as usize + 1) as u64 } else { left };
                guest.used += cycles;
                left -= cycles;
                guest.is_ready = !is_tired;
                has_run.push(id);
                if !is_tired {
                    self.running.insert(cpu, id);
                    break;
                }
            }
        }
        for (id, guest) in &mut self.guests {
            guest.hungry = if guest.is_ready && !has_run.contains(id) { guest.hungry + 1 } else { 0 };
        }
    }

    fn used(&self) -> Vec<u64> {
        self.guests.values().map(|guest| guest.used).collect()
    }
}

/// Shares of CPUs when all vCPUs are always ready: to each VM by weight, none more than one CPU a vCPU, and what
/// one cannot use goes to the others.
fn ideal_shares(plan: &PoolPlan) -> Vec<f64> {
    let of_vm = |vm: u32| plan.vcpus.iter().filter(|(id, _)| id.vm == vm).count() as f64;
    let weights: Vec<f64> = plan.vcpus.iter().map(|(id, weight)| f64::from(*weight) / of_vm(id.vm)).collect();
    let mut shares = vec![0.0; weights.len()];
    let mut open: Vec<usize> = (0..weights.len()).collect();
    let mut cpus = plan.cpus.len() as f64;
    loop {
        let total: f64 = open.iter().map(|place| weights[*place]).sum();
        let full: Vec<usize> =
            open.iter().copied().filter(|place| cpus * weights[*place] >= total * 0.999_999).collect();
        if full.is_empty() {
            open.iter().for_each(|place| shares[*place] = cpus * weights[*place] / total);
            return shares;
        }
        for place in full {
            shares[place] = 1.0;
            cpus -= 1.0;
            open.retain(|other| *other != place);
        }
        if open.is_empty() {
            return shares;
        }
    }
}

fn random_plan(random: &mut Random, gang: bool) -> PoolPlan {
    let cpus = 1 + random.below(8);
    let vms = 1 + random.below(10) as u32;
    let most = if gang { cpus } else { 4 };
    let mut vcpus = Vec::new();
    for vm in 0..vms {
        let weight = 1 + random.below(5) as u32;
        let size = 1 + random.below(most) as u32;
        vcpus.extend((0..size).map(|vcpu| (VcpuId { vm, vcpu }, weight)));
    }
    PoolPlan { cpus: (0..cpus as u16).collect(), vcpus, gang, slice_rounds: 1 + random.below(5) as u32 }
}

#[test]
fn no_random_load_breaks_a_rule() {
    for seed in 0..200 {
        let mut random = Random(seed);
        let plan = random_plan(&mut random, seed % 2 == 0);
        let nodes = 1 + random.below(4) as u16;
        let most = random.below(60);
        let mut machine = Machine::new(plan, nodes, random, |random| {
            if random.chance(30) {
                BUSY
            } else {
                Habit { falls_asleep: random.below(most + 1), wakes: 1 + random.below(60) }
            }
        });
        let units = machine.guests.len() as u64;
        for _ in 0..600 {
            machine.step();
            let hungry = machine.guests.values().map(|guest| guest.hungry).max().unwrap_or(0);
            // A VM of weight 5 has up to 5 turns where another has one; a large gang has to wait for all CPUs.
            let patience = 2 * 5 * units * units * u64::from(machine.plan.slice_rounds) + 10;
            assert!(hungry < patience, "seed {seed}: a vCPU starves for {hungry} rounds");
        }
    }
}

#[test]
fn busy_vcpus_have_the_shares_of_an_ideal_machine() {
    for seed in 0..150 {
        let mut random = Random(1000 + seed);
        let plan = PoolPlan { slice_rounds: 1 + random.below(3) as u32, ..random_plan(&mut random, false) };
        let ideal = ideal_shares(&plan);
        let mut machine = Machine::new(plan, 1 + random.below(4) as u16, random, |_| BUSY);
        let rounds = 3000;
        for _ in 0..rounds {
            machine.step();
        }
        let turn = QUANTUM * u64::from(machine.plan.slice_rounds);
        for (used, share) in machine.used().iter().zip(&ideal) {
            let due = share * (rounds * QUANTUM) as f64;
            let turns_off = (*used as f64 - due).abs() / turn as f64;
            assert!(turns_off < 8.0, "seed {seed}: {used} cycles, {due} due: {turns_off} turns off");
        }
    }
}

/// Whoever sleeps, or had a CPU to itself, does not come back with a claim on the time of others.
#[test]
fn nobody_saves_up() {
    let id = |vm| VcpuId { vm, vcpu: 0 };
    let plan = |weight| PoolPlan {
        cpus: vec![0],
        vcpus: vec![(id(0), weight), (id(1), 1), (id(2), 1)],
        gang: false,
        slice_rounds: 2,
    };
    for weight in [1, 4] {
        let mut machine = Machine::new(plan(weight), 1, Random(7), |_| BUSY);
        let sleeper = |machine: &mut Machine, sleeps: bool| {
            let guest = machine.guests.get_mut(&id(0)).unwrap();
            guest.habit = if sleeps { Habit { falls_asleep: 100, wakes: 0 } } else { BUSY };
        };
        machine.guests.values_mut().for_each(|guest| guest.is_ready = true);
        sleeper(&mut machine, true);
        (0..3000).for_each(|_| machine.step());
        let before = machine.used();
        sleeper(&mut machine, false);
        (0..60).for_each(|_| machine.step());
        let since: Vec<u64> = machine.used().iter().zip(&before).map(|(now, before)| now - before).collect();
        let due = 60.0 * f64::from(weight) / f64::from(weight + 2);
        assert!((since[0] as f64 / QUANTUM as f64 - due).abs() <= 6.0, "weight {weight}: {since:?}, {due} due");
    }
}

#[test]
fn a_vcpu_stays_where_it_is_unless_moving_is_worth_it() {
    let ids = |count: u32| (0..count).map(|vm| (VcpuId { vm, vcpu: 0 }, 1)).collect();
    let plan = |vcpus| PoolPlan { cpus: vec![0, 1, 2, 3], vcpus: ids(vcpus), gang: false, slice_rounds: 4 };
    let moves = |vcpus| {
        let mut machine = Machine::new(plan(vcpus), 2, Random(3), |_| BUSY);
        (0..50).for_each(|_| machine.step());
        let before = machine.moves;
        (0..400).for_each(|_| machine.step());
        machine.moves - before
    };
    assert_eq!(moves(8), 0, "two on each CPU");
    assert!(moves(9) > 0, "nine on four cannot be fair at home");
    assert!(moves(9) < 100, "and need not move at each of the 400 turns");
}

#[test]
fn a_plan_that_is_renewed_all_the_time_is_as_fair() {
    let id = |vm| VcpuId { vm, vcpu: 0 };
    let plan = PoolPlan {
        cpus: vec![0, 1],
        vcpus: vec![(id(0), 3), (id(1), 2), (id(2), 2), (id(3), 1)],
        gang: false,
        slice_rounds: 2,
    };
    let ideal = ideal_shares(&plan);
    let mut machine = Machine::new(plan.clone(), 2, Random(11), |_| BUSY);
    let rounds = 4000;
    for round in 0..rounds {
        if round % 2 == 0 {
            let pasts: BTreeMap<_, _> = machine.pool.pasts().collect();
            machine.pool = Pool::new(&plan, |id| pasts.get(&id).copied());
        }
        machine.step();
    }
    for (used, share) in machine.used().iter().zip(&ideal) {
        let due = share * (rounds * QUANTUM) as f64;
        assert!((*used as f64 - due).abs() / due < 0.02, "{used} cycles, {due} due");
    }
}
