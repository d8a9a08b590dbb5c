//! The bare machine with several CPUs: what they see of each other, with the interpreter and the translator.
//!
//! Every program runs with both, and in pieces of several lengths; memory, counters and events must be equal.

use machine::bare::{Bare, BareCounters, BareError, BareEvent, BareStop};
use machine::coherence::{CPC_BASE, GCR_BASE, GIC_BASE};
use machine::{Cycles, MachineAddr, PhysAddr, PhysRange};

const MEMORY_BYTES: u64 = 1 << 20;
const INTERLEAVE: Cycles = Cycles(2_000);
/// Programs begin here, in KSEG0; CPUs that are started begin here in KSEG1.
const PROGRAM_PHYS: u64 = 0x1_0000;
const KSEG0: u64 = 0xffff_ffff_8000_0000;
const KSEG1: u64 = 0xffff_ffff_a000_0000;
/// Where programs leave their results.
const RESULT: u64 = 0x2_0000;
const RESULT_BYTES: usize = 0x600;
/// Runs end at a multiple of this.
const ROUND: u64 = 100_000;
const DEVICE: PhysRange = PhysRange { base: PhysAddr(0x1f00_0000), bytes: 0x1000 };

/// Starts every other CPU at `others`, and goes on there itself. s0: results. s7: this CPU's number.
fn prologue(cpus: u32) -> String {
    let bring_up: String = (1..cpus)
        .map(|cpu| {
            format!(
                "li t1, {}
                 sw t1, 0x2018(s1)
                 sw t1, 0x2010(s2)
                 lui t2, {:#x}
                 sw t2, 0x4020(s1)
                 li t2, 4
                 sw t2, 0x4000(s2)\n",
                cpu << 16,
                (KSEG1 + PROGRAM_PHYS) >> 16 & 0xffff,
            )
        })
        .collect();
    format!(
        "       lui s0, {results:#x}
                lui s1, {gcr:#x}
                ori s1, s1, {gcr_low:#x}
                lui s2, {cpc:#x}
                lui s3, {gic:#x}
                lui s4, {device:#x}
                mtc0 zero, c0_cause
                li t0, 0x400000
                mtc0 t0, c0_status
                mfc0 s7, c0_ebase
                andi s7, s7, 0x3ff
                bne s7, zero, others
                nop
                {bring_up}
        others: lui t0, {ebase:#x}
                li t1, 0
                mtc0 t1, c0_status
                mtc0 t0, c0_ebase
                nop\n",
        results = (KSEG0 + RESULT) >> 16 & 0xffff,
        gcr = (KSEG1 + GCR_BASE) >> 16 & 0xffff,
        gcr_low = GCR_BASE & 0xffff,
        cpc = (KSEG1 + CPC_BASE) >> 16 & 0xffff,
        gic = (KSEG1 + GIC_BASE) >> 16 & 0xffff,
        device = (KSEG1 + DEVICE.base.0) >> 16 & 0xffff,
        ebase = (KSEG0 + PROGRAM_PHYS) >> 16 & 0xffff,
    )
}

/// Waits with all interrupts off: powers off.
const HALT: &str = "mtc0 zero, c0_status\n halt: wait\n b halt\n nop\n";
/// Switches this CPU off for good.
const OFF: &str = "li t0, 2\n sw t0, 0x2000(s2)\n gone: b gone\n nop\n";

/// Waits until all of `cpus` CPUs have come here; the place is a word of the results.
fn barrier(name: &str, place: u64, cpus: u32) -> String {
    format!(
        "{name}: ll t0, {place}(s0)
                addiu t0, t0, 1
                sc t0, {place}(s0)
                beq t0, zero, {name}
                nop
        {name}_wait: lw t0, {place}(s0)
                addiu t0, t0, -{cpus}
                bne t0, zero, {name}_wait
                nop\n"
    )
}

/// What a run leaves behind.
#[derive(Debug, PartialEq)]
struct Outcome {
    results: Vec<u32>,
    counters: Vec<BareCounters>,
    events: Vec<BareEvent>,
}

fn machine(cpus: u32, source: &str, is_translated: bool) -> Bare {
    let mut bare = Bare::new(MEMORY_BYTES, cpus, INTERLEAVE).unwrap();
    let code = mips::assemble(source, KSEG0 + PROGRAM_PHYS).unwrap_or_else(|error| panic!("{error}\n{source}"));
    bare.memory().write(MachineAddr(PROGRAM_PHYS), &code);
    bare.add_device(DEVICE);
    let accelerators = if is_translated { translate::accelerators(cpus as usize, 1).unwrap() } else { vec![] };
    for (cpu, accelerator) in (0..cpus).zip(accelerators) {
        bare.cpu(cpu).unwrap().set_accelerator(accelerator);
    }
    bare.cpu(0).unwrap().regs.pc = KSEG0 + PROGRAM_PHYS;
    bare
}

/// Runs to a halt, loads from the device giving their number, and checks that time adds up.
fn run(cpus: u32, source: &str, is_translated: bool, piece: u64) -> Outcome {
    let mut bare = machine(cpus, source, is_translated);
    let mut events = Vec::new();
    let is_halted = |events: &[BareEvent]| events.iter().any(|event| event.stop == BareStop::Halted);
    while !is_halted(&events) || !bare.now().0.is_multiple_of(ROUND) {
        let until = Cycles((bare.now().0 / piece + 1) * piece);
        assert!(until < Cycles(50_000_000), "no halt; {events:?}");
        for event in bare.run(until) {
            if let BareStop::Access(_) = event.stop {
                bare.complete_access(event.cpu, events.len() as u64).unwrap();
            }
            events.push(event);
        }
    }
    let counters: Vec<BareCounters> = (0..cpus).map(|cpu| bare.counters(cpu).unwrap()).collect();
    for (cpu, all) in (0..).zip(&counters) {
        let parts = all.cycles_user + all.cycles_kernel + all.cycles_idle;
        assert_eq!(parts, bare.cpu(cpu).unwrap().now.0, "CPU {cpu}: {all:?}");
    }
    let mut bytes = vec![0; RESULT_BYTES];
    bare.memory().read(MachineAddr(RESULT), &mut bytes);
    let results = bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect();
    Outcome { results, counters, events }
}

/// The outcome, after a look that engine and pieces do not change it.
fn outcome(cpus: u32, body: &str) -> Outcome {
    let source = prologue(cpus) + body;
    let first = run(cpus, &source, false, ROUND);
    for (is_translated, piece) in [(true, ROUND), (false, ROUND / 5), (true, 2_000)] {
        let other = run(cpus, &source, is_translated, piece);
        let who = format!("translated: {is_translated}, pieces of {piece}");
        assert_eq!(other.counters, first.counters, "{who}");
        assert_eq!(other.events, first.events, "{who}");
        assert!(other.results == first.results, "{who}");
    }
    first
}

fn words(outcome: &Outcome, offset: usize, count: usize) -> &[u32] {
    &outcome.results[offset / 4..offset / 4 + count]
}

#[test]
fn what_all_cpus_add_with_ll_and_sc_is_all_there() {
    for cpus in [2, 3, 8] {
        let body = format!(
            "       li s5, 3000
            add:    ll t0, 0x100(s0)
                    addiu t0, t0, 3
                    sc t0, 0x100(s0)
                    beq t0, zero, add
                    nop
                    addiu s5, s5, -1
                    bne s5, zero, add
                    nop
                    {}
                    bne s7, zero, away
                    nop
                    {HALT}
            away:   {OFF}",
            barrier("end", 0, cpus)
        );
        let outcome = outcome(cpus, &body);
        assert_eq!(words(&outcome, 0x100, 1), [cpus * 9_000]);
        assert!(outcome.counters.iter().all(|all| all.instructions > 20_000), "{:?}", outcome.counters);
    }
}

#[test]
fn a_cpu_in_wait_is_woken_by_an_interrupt_from_another_and_none_is_lost_or_doubled() {
    const TIMES: u32 = 200;
    let vector = format!(
        "       b start
                nop
                .org {:#x}
                lw k0, 0x200(s0)
                addiu k0, k0, 1
                sw k0, 0x200(s0)
                li k0, 63
                sw k0, 0x280(s3)
                eret
                .org {:#x}
        start:  bne s7, zero, receive
                nop\n",
        KSEG0 + PROGRAM_PHYS + 0x180,
        KSEG0 + PROGRAM_PHYS + 0x400,
    );
    let body = format!(
        "{vector}
                li t0, 0x80000000
                sw t0, {map_pin}(s3)
                li t0, 2
                sw t0, {map_vp}(s3)
                li t0, 0x80000000
                sw t0, 0x184(s3)
                sw t0, 0x384(s3)
                li s5, {TIMES}
        send:   lw s6, 0x200(s0)
                li t0, 0x8000003f
                sw t0, 0x280(s3)
        taken:  lw t0, 0x200(s0)
                beq t0, s6, taken
                nop
                addiu s5, s5, -1
                bne s5, zero, send
                nop
                {HALT}
        receive: li t0, 0x401
                mtc0 t0, c0_status
        sleep:  wait
                b sleep
                nop",
        map_pin = 0x500 + 4 * 63,
        map_vp = 0x2000 + 0x20 * 63,
    );
    let outcome = outcome(2, &body);
    assert_eq!(words(&outcome, 0x200, 1), [TIMES]);
    assert_eq!(outcome.counters[1].exceptions, u64::from(TIMES));
    assert!(outcome.counters[1].cycles_idle > 0);
}

#[test]
fn count_never_goes_backwards_between_cpus() {
    const CPUS: u32 = 4;
    let body = format!(
        "       li s5, 400
        lock:   ll t0, 0x300(s0)
                bne t0, zero, lock
                li t0, 1
                sc t0, 0x300(s0)
                beq t0, zero, lock
                nop
                mfc0 t1, c0_count
                lw t2, 0x304(s0)
                subu t3, t1, t2
                bgez t3, later
                sw t1, 0x304(s0)
                lw t3, 0x308(s0)
                addiu t3, t3, 1
                sw t3, 0x308(s0)
        later:  sw zero, 0x300(s0)
                li t0, 40
        pause:  addiu t0, t0, -1
                bne t0, zero, pause
                nop
                addiu s5, s5, -1
                bne s5, zero, lock
                nop
                {}
                bne s7, zero, away
                nop
                {HALT}
        away:   {OFF}",
        barrier("end", 0, CPUS)
    );
    let outcome = outcome(CPUS, &body);
    assert!(words(&outcome, 0x304, 1)[0] > 10_000);
    assert_eq!(words(&outcome, 0x308, 1), [0], "reads that were earlier than one before");
}

#[test]
fn a_cpu_that_sets_count_sets_it_for_all() {
    let body = format!(
        "       bne s7, zero, setter
                nop
        watch:  mfc0 t0, c0_count
                srl t0, t0, 28
                beq t0, zero, watch
                nop
                sw t0, 0x400(s0)
                {HALT}
        setter: lui t0, 0x7000
                mtc0 t0, c0_count
                mfc0 t1, c0_count
                addiu t1, t1, 1000
                mtc0 t1, c0_count
                {OFF}"
    );
    assert_eq!(words(&outcome(2, &body), 0x400, 1), [7]);
}

#[test]
fn each_cpu_has_its_own_answer_from_a_device() {
    const CPUS: u32 = 4;
    let body = format!(
        "       lw t0, 0(s4)
                sll t1, s7, 2
                daddu t1, t1, s0
                sw t0, 0x500(t1)
                {}
                bne s7, zero, away
                nop
                {HALT}
        away:   {OFF}",
        barrier("end", 0, CPUS)
    );
    let outcome = outcome(CPUS, &body);
    let mut answers = words(&outcome, 0x500, CPUS as usize).to_vec();
    answers.sort_unstable();
    assert_eq!(answers, [0, 1, 2, 3]);
    assert!(outcome.counters.iter().all(|all| all.device_accesses == 1));
}

#[test]
fn a_machine_that_waits_for_its_timer_skips_the_time() {
    let body = format!(
        "       bne s7, zero, away
                nop
                mfc0 t0, c0_count
                lui t1, 0x40
                addu t0, t0, t1
                mtc0 t0, c0_compare
                li t0, 0x8000
                mtc0 t0, c0_status
                wait
                {HALT}
        away:   {OFF}"
    );
    let outcome = outcome(3, &body);
    assert!(outcome.counters[0].cycles_idle > 8_000_000);
    assert!(outcome.counters.iter().all(|all| all.instructions < 200), "{:?}", outcome.counters);
}

#[test]
fn what_cannot_be_asked_says_what_is_possible() {
    let new = |cpus, interleave| Bare::new(MEMORY_BYTES, cpus, Cycles(interleave)).map(|_| ()).unwrap_err();
    assert_eq!(new(0, 2_000).to_string(), "0 CPUs asked; possible are 1 to 32");
    assert_eq!(new(33, 2_000), BareError::Cpus(33));
    assert_eq!(new(2, 99).to_string(), "an interleave of 99 cycles asked; possible are 100 and more");
    let mut one = Bare::new(MEMORY_BYTES, 1, INTERLEAVE).unwrap();
    let mut two = Bare::new(MEMORY_BYTES, 2, INTERLEAVE).unwrap();
    assert_eq!(two.counters(2).unwrap_err().to_string(), "CPU 2 asked, the machine has 2");
    assert_eq!(one.set_wire(0, true), Err(BareError::NoSource { source: 0 }));
    assert_eq!(two.set_wire(64, true), Err(BareError::NoSource { source: 64 }));
    assert_eq!(one.set_line(7, true), Err(BareError::NoLine { line: 7 }));
    assert_eq!(two.set_line(2, true), Err(BareError::NoLine { line: 2 }));
    assert_eq!(two.complete_access(1, 0).unwrap_err().to_string(), "CPU 1 waits for no device");
}
