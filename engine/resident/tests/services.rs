//! What services cost: a kernel of a few instructions and its program, on the bare machine and under Disco.
//!
//! Every exception of the program is known, so every count is.

mod guest;

use std::collections::BTreeMap;

use guest::{HALT, PROGRAM, PROGRAM_PHYS};
use machine::bare::{Bare, BareStop};
use machine::services::{Cost, Service};
use machine::{Cycles, MachineAddr};
use resident::counters::Cause;
use resident::{EngineKind, MonitorConfig};

const RAM_BYTES: u64 = 1 << 20;
/// Where the program is, and memory that it reads.
const USER: u64 = 0x2_0000;
const DATA: u64 = 0x4_0000;

/// Instructions of the refill handler, and of the shortest way through the other one.
const REFILL_INSNS: u64 = 8;
const SYSCALL_INSNS: u64 = 16;

/// Maps user addresses to the same physical ones. System calls: 7 switches threads, 8 waits for an interrupt, 9
/// halts, and all others do nothing.
fn kernel() -> String {
    format!(
        "       mfc0 k0, c0_context
                dsll k0, k0, 3
                ori k0, k0, 0x1e
                dmtc0 k0, c0_entrylo0
                daddiu k0, k0, 0x40
                dmtc0 k0, c0_entrylo1
                tlbwr
                eret
                .org {PROGRAM:#x} + 0x180
                mfc0 k0, c0_cause
                andi k0, k0, 0x7c
                beq k0, zero, interrupt
                daddiu k0, k0, -32
                bne k0, zero, other
                dmfc0 k0, c0_epc
                daddiu k0, k0, 4
                dmtc0 k0, c0_epc
                daddiu k1, v0, -7
                beq k1, zero, switch
                daddiu k1, v0, -8
                beq k1, zero, wait
                daddiu k1, v0, -9
                beq k1, zero, end
                nop
                eret
        interrupt: mtc0 zero, c0_compare
                li s7, 1
                li k1, 500
        work:   bne k1, zero, work
                daddiu k1, k1, -1
                eret
        switch: dmtc0 zero, c0_userlocal
                eret
        wait:   or s7, zero, zero
                dmfc0 s6, c0_epc
                mfc0 k1, c0_count
                daddiu k1, k1, 400
                mtc0 k1, c0_compare
                li k1, 0x8001
                mtc0 k1, c0_status
        until:  beq s7, zero, until
                nop
                li k1, 0x8012
                mtc0 k1, c0_status
                dmtc0 s6, c0_epc
                eret
        end:    {HALT}
        other:  b other
                nop
                .org {PROGRAM:#x} + 0x400
        start:  lui k0, 0x8001
                mtc0 k0, c0_ebase
                li k0, 0x8012
                mtc0 k0, c0_status
                mtc0 zero, c0_cause
                li k0, {USER:#x}
                dmtc0 k0, c0_epc
                eret"
    )
}

/// Three calls that do nothing, two switches, one call with an interrupt in it, and four pages touched.
fn program() -> String {
    format!(
        "       li v0, 5
                syscall
                syscall
                syscall
                li v0, 7
                syscall
                syscall
                li v0, 8
                syscall
                lui t0, {data:#x}
                lw t1, 0(t0)
                lw t1, 0x2000(t0)
                lw t1, 0x4000(t0)
                lw t1, 0x6000(t0)
                li v0, 9
                syscall",
        data = DATA >> 16,
    )
}

fn images() -> [(u64, Vec<u8>); 2] {
    let user = mips::assemble(&program(), USER).unwrap_or_else(|error| panic!("{error}"));
    [(PROGRAM_PHYS, guest::assemble(&kernel())), (USER, user)]
}

fn bare(engine: EngineKind) -> (BTreeMap<Service, Cost<machine::services::Nothing>>, u64) {
    let mut bare = Bare::new(RAM_BYTES, 1, Cycles(2_000)).unwrap();
    for (paddr, bytes) in images() {
        bare.memory().write(MachineAddr(paddr), &bytes);
    }
    bare.record_services();
    let cpu = bare.cpu(0).unwrap();
    cpu.set_accelerator(engine.accelerators(1, 1).unwrap().remove(0));
    cpu.regs.pc = PROGRAM + 0x400;
    let events = bare.run(Cycles(1_000_000));
    assert!(matches!(events.as_slice(), [event] if event.stop == BareStop::Halted), "{events:?}");
    (bare.services(), bare.counters(0).unwrap().instructions)
}

fn in_vm(is_recorded: bool) -> (BTreeMap<Service, Cost<resident::counters::ByCause>>, resident::Counters) {
    let mut monitor = guest::machine(MonitorConfig { slice_rounds: 100, ..guest::config() });
    let vm = guest::create(&mut monitor, RAM_BYTES, 1);
    for (paddr, bytes) in images() {
        guest::store(&mut monitor, vm, paddr, &bytes);
    }
    guest::start(&mut monitor, vm, 0, 0, PROGRAM + 0x400);
    if is_recorded {
        monitor.record_services(vm).unwrap();
    }
    guest::run_to_halt(&mut monitor, 1_000_000);
    (monitor.services(vm).unwrap(), monitor.counters(vm, 0).unwrap())
}

#[test]
fn every_call_is_counted_with_its_instructions_on_both_sides() {
    let (disco, _) = in_vm(true);
    for engine in [EngineKind::Interpreter, EngineKind::Translator] {
        let (bare, _) = bare(engine);
        let nothing = &bare[&Service::Syscall(5)];
        assert_eq!((nothing.count, nothing.switched, nothing.interrupted), (3, 0, 0));
        assert_eq!(nothing.total.instructions, 3 * SYSCALL_INSNS);
        assert_eq!(nothing.median_cycles(), SYSCALL_INSNS);
        let refills = &bare[&Service::TlbRefill];
        assert_eq!((refills.count, refills.total.instructions), (5, 5 * REFILL_INSNS));
        for (service, cost) in &bare {
            let other = &disco[service];
            assert_eq!((cost.count, cost.switched), (other.count, other.switched), "{service:?}");
            assert_eq!(cost.total.cycles, cost.total.instructions, "a bare instruction is a cycle");
            let busy = other.total.instructions + other.total.monitor.total();
            assert_eq!(other.total.cycles, busy, "{service:?}: the parts are the whole");
        }
        for service in [Service::Syscall(5), Service::TlbRefill] {
            assert_eq!(bare[&service].total.instructions, disco[&service].total.instructions, "{service:?}");
        }
    }
}

#[test]
fn a_switch_is_left_out_and_an_interrupt_taken_out() {
    let (bare, _) = bare(EngineKind::Translator);
    let (disco, _) = in_vm(true);
    assert_eq!((bare[&Service::Syscall(7)].count, bare[&Service::Syscall(7)].switched), (0, 2));
    assert_eq!((disco[&Service::Syscall(7)].count, disco[&Service::Syscall(7)].switched), (0, 2));
    let waited = &bare[&Service::Syscall(8)];
    assert_eq!((waited.count, waited.interrupted), (1, 1));
    // 400 ticks of two cycles, and without the 1000 instructions of the interrupt's handler.
    assert!((780..900).contains(&waited.total.cycles), "{}", waited.total.cycles);
}

#[test]
fn disco_is_charged_by_cause_inside_a_service() {
    let (disco, _) = in_vm(true);
    let refill = &disco[&Service::TlbRefill].total;
    let cost = |cause| refill.monitor.of(cause);
    let costs = resident::Costs::default();
    assert_eq!(cost(Cause::TlbWrite), 5 * (costs.trap + costs.emulate_tlb) + mapped(refill.monitor, &costs));
    // MFC0, two DMTC0 and ERET.
    assert_eq!(cost(Cause::Privileged), 5 * 4 * (costs.trap + costs.emulate));
    let forwarded = costs.trap + costs.l2tlb_miss + costs.virtual_tlb_lookup + costs.forward;
    assert_eq!(cost(Cause::Forward), 5 * forwarded);
}

/// What mapping the pairs has cost, as far as their pages are present.
fn mapped(spent: resident::counters::ByCause, costs: &resident::Costs) -> u64 {
    let without = spent.of(Cause::TlbWrite) - 5 * (costs.trap + costs.emulate_tlb);
    assert!(without.is_multiple_of(costs.map) && without <= 5 * costs.map, "{without}");
    without
}

#[test]
fn whoever_records_changes_nothing() {
    let (recorded, counters) = in_vm(true);
    let (nothing, plain) = in_vm(false);
    assert!(!recorded.is_empty() && nothing.is_empty());
    assert_eq!(counters, plain);
    assert_eq!(bare(EngineKind::Interpreter).1, bare(EngineKind::Translator).1);
}
