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

/// The pages that [`hammer`] hammers; it keeps a copy of what it wrote last from 0x3_0000 on.
pub const HAMMERED: u32 = 0x40;
/// How many they are.
pub const HAMMERED_PAGES: u32 = 32;

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
        large_pages: false,
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
            Err(MonitorError::NotPresent { pages, .. }) => {
                pages.into_iter().for_each(|page| provide(monitor, vm, page, 0));
            }
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

/// Stores a running number to a random place of the hammered pages, through one of five names of the page, and
/// keeps the number in the page's shadow; halts if a load does not give what was stored last.
///
/// The names are KSEG0, KSEG1, XKPHYS and two mapped ones, so that backmaps overflow.
pub fn hammer() -> String {
    format!(
        "
        b refill
        nop
        .org {PROGRAM:#x} + 0x80
refill: dmfc0 k0, c0_badvaddr
        dsrl k0, k0, 13
        dsll k0, k0, 7
        lui k1, 0x3
        ori k1, k1, 0xffff
        and k0, k0, k1
        ori k0, k0, 0x1f
        dmtc0 k0, c0_entrylo0
        daddiu k0, k0, 0x40
        dmtc0 k0, c0_entrylo1
        tlbwr
        eret
        .org {PROGRAM:#x} + 0x400
        li t0, {PROGRAM:#x}
        mtc0 t0, c0_ebase
        li t0, 0xa0
        mtc0 t0, c0_status
        li s0, 1            # the shift register
        li s1, 0            # the number
        la s2, names
        li s3, 0x80030000   # shadows
again:  dsll t0, s0, 13
        xor s0, s0, t0
        dsrl t0, s0, 7
        xor s0, s0, t0
        dsll t0, s0, 17
        xor s0, s0, t0
        andi t0, s0, 31     # page
        dsrl t1, s0, 8
        andi t1, t1, 7      # name
        dsll t1, t1, 3
        daddu t1, t1, s2
        ld t1, 0(t1)
        dsll t2, t0, 12
        daddu t1, t1, t2
        dsll t2, t0, 3
        daddu t2, t2, s3
        ld t3, 0(t2)        # what the page should hold
        ld v0, 0(t1)
        bne v0, t3, wrong
        dsrl t0, s0, 16
        andi t0, t0, 1
        beq t0, zero, again # half of the accesses are loads only
        nop
        daddiu s1, s1, 1
        sd s1, 0(t1)
        b again
        sd s1, 0(t2)
wrong:  {HALT}
        .align 3
names:  .dword 0xffffffff80040000, 0xffffffffa0040000, 0x9800000000040000, 0x9000000000040000
        .dword 0x0000000000040000, 0xc000000000040000, 0x0000000010040000, 0xffffffffc0040000
        "
    )
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
