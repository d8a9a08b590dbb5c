//! Tiny guests for the tests of the resident part, and Python's part in running them.
//!
//! A guest is assembled text at [`PROGRAM`] in KSEG0. Page faults are answered in the plainest way: an absent
//! page is placed on the node of the CPU that wants it, a protected one is made writable.
#![allow(dead_code, reason = "each test file uses a part")]

use machine::PhysRange;
use machine::{Cycles, PhysAddr, Ppn};
use resident::{Costs, EngineKind, Event, Monitor, MonitorConfig, MonitorError, StopCause};

/// Where programs start, virtually and physically.
pub const PROGRAM: u64 = KSEG0 + PROGRAM_PHYS;
/// See [`PROGRAM`].
pub const PROGRAM_PHYS: u64 = 0x1_0000;
/// The segment that a guest kernel does not map.
pub const KSEG0: u64 = 0xffff_ffff_8000_0000;
/// Ends a guest for good: WAIT with interrupts off.
pub const HALT: &str = "mtc0 zero, c0_status\n halt: wait\n b halt\n nop\n";

/// What executes the guests of all tests.
const ENGINE: EngineKind = EngineKind::Translator;

/// One CPU, one node, everything switched on.
pub fn config() -> MonitorConfig {
    MonitorConfig {
        node_of_cpu: vec![0],
        nodes: 1,
        memory_bytes_per_node: 16 << 20,
        quantum: Cycles(20_000),
        interleave: Cycles(2_000),
        slice_rounds: 2,
        tlb_entries: 64,
        l2tlb_entries: 1024,
        host_threads: 1,
        costs: Costs::default(),
        engine: ENGINE,
    }
}

/// A machine that must be possible.
pub fn machine(config: MonitorConfig) -> Monitor {
    Monitor::new(config).unwrap_or_else(|error| panic!("{error}"))
}

/// A VM with RAM from 0.
pub fn create(monitor: &mut Monitor, ram_bytes: u64, vcpus: u32) -> u32 {
    let ram = PhysRange { base: PhysAddr(0), bytes: ram_bytes };
    monitor.create_vm(&[ram], vcpus).unwrap_or_else(|error| panic!("{error}"))
}

/// Assembles text for [`PROGRAM`].
pub fn assemble(source: &str) -> Vec<u8> {
    mips::assemble(source, PROGRAM).unwrap_or_else(|error| panic!("{error}\n{source}"))
}

/// A VM with one vCPU on `cpu` that is about to execute `source`.
pub fn boot(monitor: &mut Monitor, ram_bytes: u64, cpu: u16, source: &str) -> u32 {
    let vm = create(monitor, ram_bytes, 1);
    store(monitor, vm, PROGRAM_PHYS, &assemble(source));
    start(monitor, vm, 0, cpu, PROGRAM);
    vm
}

/// Puts a vCPU on a CPU, about to execute `pc`.
pub fn start(monitor: &mut Monitor, vm: u32, vcpu: u32, cpu: u16, pc: u64) {
    monitor.set_vcpu(vm, vcpu, pc, &[]).unwrap();
    monitor.assign(vm, vcpu, cpu).unwrap();
}

/// Writes guest memory, making pages present and writable as needed.
pub fn store(monitor: &mut Monitor, vm: u32, paddr: u64, bytes: &[u8]) {
    loop {
        match monitor.write_physical(vm, PhysAddr(paddr), bytes) {
            Ok(()) => return,
            Err(MonitorError::NotPresent { page, .. }) => provide(monitor, vm, page, 0),
            Err(other) => panic!("{other}"),
        }
    }
}

/// Writes doublewords of guest memory.
pub fn store_dwords(monitor: &mut Monitor, vm: u32, paddr: u64, values: &[u64]) {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    store(monitor, vm, paddr, &bytes);
}

/// Reads guest memory.
pub fn load(monitor: &mut Monitor, vm: u32, paddr: u64, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    monitor.read_physical(vm, PhysAddr(paddr), &mut bytes).unwrap();
    bytes
}

/// Reads doublewords of guest memory.
pub fn load_dwords(monitor: &mut Monitor, vm: u32, paddr: u64, count: usize) -> Vec<u64> {
    dwords(&load(monitor, vm, paddr, 8 * count))
}

/// Bytes as doublewords.
pub fn dwords(bytes: &[u8]) -> Vec<u64> {
    bytes.chunks_exact(8).map(|chunk| u64::from_le_bytes(chunk.try_into().unwrap())).collect()
}

/// Makes a page present and writable, on `node` if it has room.
pub fn provide(monitor: &mut Monitor, vm: u32, page: Ppn, node: u16) {
    match monitor.place_page(vm, page, node) {
        Ok(Some(_)) => {}
        Ok(None) => {
            let other = (0..).find(|node| monitor.free_pages(*node).unwrap() > 0).unwrap();
            monitor.place_page(vm, page, other).unwrap().unwrap();
        }
        Err(MonitorError::PageState { .. }) => monitor.protect_page(vm, page, true).unwrap(),
        Err(other) => panic!("{other}"),
    }
}

/// Runs to `until` with page faults answered; returns the other events.
pub fn run(monitor: &mut Monitor, until: u64) -> Vec<Event> {
    let mut others = Vec::new();
    while monitor.now() < Cycles(until) {
        let events = monitor.run(Cycles(until));
        if events.is_empty() {
            break;
        }
        for event in events {
            match event {
                Event::PageFault { vm, page, node, .. } => provide(monitor, vm, page, node.0),
                other => others.push(other),
            }
        }
    }
    others
}

/// Runs one vCPU to its end, which must be the halt of [`HALT`].
pub fn run_to_halt(monitor: &mut Monitor, cycles_max: u64) {
    let until = monitor.now().0 + cycles_max;
    let events = run(monitor, until);
    match events.as_slice() {
        [Event::VcpuStopped { cause: StopCause::Halted, .. }] => {}
        other => panic!("a halt was expected, not {other:x?} at {}", monitor.now()),
    }
}

/// A generator of test cases: the same seed gives the same run (splitmix64).
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// Any value.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ value >> 31
    }

    /// A value below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// True in `percent` of 100 cases.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())]
    }
}
