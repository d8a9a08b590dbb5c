//! What it costs when a vCPU loses its CPU while it holds a lock, and what gangs do about it.
//!
//! VMs of several vCPUs work under one ticket lock each, as kernels do: who comes first is served first, the others
//! spin. `cargo run --release -p disco-resident --example lock_holder` prints the table of `docs/scheduling.md`.

use machine::{Cycles, PhysAddr, PhysRange};
use resident::schedule::{PoolPlan, VcpuId};
use resident::{Costs, EngineKind, Event, Monitor, MonitorConfig, MonitorError};

const PROGRAM: u64 = 0xffff_ffff_8001_0000;
const PROGRAM_PHYS: u64 = 0x1_0000;
const DATA_PHYS: u64 = 0x3_0000;
const RAM_BYTES: u64 = 1 << 20;
/// A tenth of a second at 200 MHz.
const CYCLES: u64 = 20_000_000;

/// s0: the ticket that is served, at 64(s0) the next ticket, at 128(s0) the times that a ticket was served.
const LOCKED: &str = "
        li s0, 0x80030000
ticket: ll t0, 64(s0)
        daddiu t1, t0, 1
        sc t1, 64(s0)
        beq t1, zero, ticket
        nop
spin:   lw t1, 0(s0)
        bne t1, t0, spin
        nop
        li t2, 300
inside: daddiu t2, t2, -1
        bne t2, zero, inside
        nop
        ld t1, 128(s0)
        daddiu t1, t1, 1
        sd t1, 128(s0)
        daddiu t0, t0, 1
        sw t0, 0(s0)
        li t2, 1500
out:    daddiu t2, t2, -1
        bne t2, zero, out
        nop
        b ticket
        nop
";

/// Works alone, for ever.
const ALONE: &str = "here: b here\n nop";

/// How the CPUs are shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Whoever has had least.
    TimeSharing,
    /// The vCPUs of a VM together.
    Gang,
}

/// A machine and its VMs.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// CPUs, all of one node.
    pub cpus: u16,
    /// VMs with a lock.
    pub lockers: u32,
    /// vCPUs of each.
    pub vcpus: u32,
    /// VMs of one vCPU without a lock.
    pub others: u32,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Times that some lock was taken.
    pub taken: u64,
    /// Cycles that the vCPUs of the VMs with a lock have used.
    pub used: u64,
}

impl Outcome {
    /// Cycles for each time that a lock was taken.
    pub fn cycles_each(&self) -> f64 {
        self.used as f64 / self.taken as f64
    }
}

/// Runs it.
pub fn measure(setting: Setting, policy: Policy) -> Result<Outcome, MonitorError> {
    let Setting { cpus, lockers, vcpus, others } = setting;
    let mut monitor = Monitor::new(MonitorConfig {
        node_of_cpu: vec![0; usize::from(cpus)],
        nodes: 1,
        memory_bytes_per_node: 64 << 20,
        quantum: Cycles(100_000),
        interleave: Cycles(2_000),
        slice_rounds: 4,
        tlb_entries: 64,
        l2tlb_entries: 1024,
        large_pages: false,
        host_threads: 1,
        costs: Costs::default(),
        engine: EngineKind::Translator,
    })?;
    let mut all = Vec::new();
    for number in 0..lockers + others {
        let (vcpus, source) = if number < lockers { (vcpus, LOCKED) } else { (1, ALONE) };
        let vm = monitor.create_vm(&[PhysRange { base: PhysAddr(0), bytes: RAM_BYTES }], vcpus)?;
        let code = mips::assemble(source, PROGRAM).map_err(|error| MonitorError::Machine(error.to_string()))?;
        for page in [PROGRAM_PHYS, DATA_PHYS] {
            monitor.place_page(vm, PhysAddr(page).page(), 0)?;
        }
        monitor.write_physical(vm, PhysAddr(PROGRAM_PHYS), &code)?;
        for vcpu in 0..vcpus {
            monitor.set_vcpu(vm, vcpu, PROGRAM, &[])?;
            all.push((VcpuId { vm, vcpu }, 1));
        }
    }
    let gang = policy == Policy::Gang;
    monitor.set_pools(&[PoolPlan { cpus: (0..cpus).collect(), vcpus: all.clone(), gang, slice_rounds: 4 }])?;
    while monitor.now() < Cycles(CYCLES) {
        for event in monitor.run(Cycles(CYCLES)) {
            if let Event::PageFault { vm, page, .. } = event {
                monitor.place_page(vm, page, 0)?;
            }
        }
    }
    let mut outcome = Outcome { taken: 0, used: 0 };
    for vm in 0..lockers {
        let mut word = [0; 8];
        monitor.read_physical(vm, PhysAddr(DATA_PHYS + 128), &mut word)?;
        outcome.taken += u64::from_le_bytes(word);
        for vcpu in 0..vcpus {
            let counters = monitor.counters(vm, vcpu)?;
            outcome.used += counters.cycles_user + counters.cycles_kernel + counters.monitor.total();
        }
    }
    Ok(outcome)
}

#[allow(dead_code, reason = "a test uses the rest of this file")]
fn main() -> Result<(), MonitorError> {
    println!("| VMs on 4 CPUs | scheduler | locks taken | cycles each |\n| --- | --- | --- | --- |");
    let alone = Setting { cpus: 4, lockers: 1, vcpus: 4, others: 0 };
    let rows = [
        ("one of 4 vCPUs", alone),
        ("two of 4 vCPUs", Setting { lockers: 2, ..alone }),
        ("two of 3 vCPUs", Setting { lockers: 2, vcpus: 3, ..alone }),
        ("three of 3 vCPUs", Setting { lockers: 3, vcpus: 3, ..alone }),
        ("one of 4 vCPUs, three of 1 without a lock", Setting { others: 3, ..alone }),
    ];
    for (words, setting) in rows {
        for (name, policy) in [("time sharing", Policy::TimeSharing), ("gang", Policy::Gang)] {
            let outcome = measure(setting, policy)?;
            println!("| {words} | {name} | {} | {:.0} |", outcome.taken, outcome.cycles_each());
        }
    }
    Ok(())
}
