//! Where simulated time goes: every cycle is in exactly one part, and a trap's are in the part that it turned
//! out to belong to.

mod guest;

use guest::{HALT, KSEG0};
use machine::{Cycles, Ppn};
use resident::counters::Cause;
use resident::{Costs, Monitor, MonitorConfig};

const RAM_BYTES: u64 = 1 << 20;
const END: u64 = 3_000_000;

/// Touches memory, uses its TLB, takes timer interrupts, sleeps in between, and halts.
fn varied(rounds: u32) -> String {
    format!(
        "   li t0, {base:#x}
            mtc0 t0, c0_ebase
            b start
            nop
            .org {vector:#x}
            mfc0 k0, c0_count
            daddiu k0, k0, 9000
            mtc0 k0, c0_compare
            eret
            .org {after:#x}
    start:  lui s0, 0x8002
            li s1, {rounds}
            mfc0 t0, c0_count
            daddiu t0, t0, 5000
            mtc0 t0, c0_compare
            li t0, 0x8001
            mtc0 t0, c0_status
    round:  daddiu s0, s0, 0x1000
            sd s1, 0(s0)
            dsll t1, s1, 13
            dmtc0 t1, c0_entryhi
            or t2, t1, zero
            li t1, 0x1e
            dmtc0 t1, c0_entrylo0
            dmtc0 t1, c0_entrylo1
            tlbwr
            lw t2, 0(t2)
            li t3, 2000
    loop:   daddiu t3, t3, -1
            bne t3, zero, loop
            nop
            wait
            daddiu s1, s1, -1
            bne s1, zero, round
            nop
            {HALT}",
        base = guest::PROGRAM,
        vector = guest::PROGRAM + 0x180,
        after = guest::PROGRAM + 0x400,
    )
}

/// Five VMs on two CPUs, in kernel mode with their vectors in KSEG0 at the program.
fn crowd(costs: Costs) -> (Monitor, Vec<(u32, u16)>) {
    let config = MonitorConfig { node_of_cpu: vec![0, 0], tlb_entries: 16, costs, ..guest::config() };
    let mut monitor = guest::machine(config);
    let vms = (0..5u16)
        .map(|number| {
            (guest::boot(&mut monitor, RAM_BYTES, number % 2, &varied(10 + u32::from(number))), number % 2)
        })
        .collect();
    guest::run(&mut monitor, END);
    (monitor, vms)
}

#[test]
fn every_cycle_of_a_cpu_is_in_exactly_one_part() {
    let (mut monitor, vms) = crowd(Costs::default());
    monitor.protect_page(vms[0].0, Ppn(0x10), false).unwrap();
    for cpu in 0..2 {
        let time = monitor.cpu_time(cpu).unwrap();
        assert_eq!(time.total(), monitor.cpu_progress(cpu).unwrap().1.0, "CPU {cpu}: {time:?}");
        assert!(time.kernel > 0 && time.idle > 0 && time.monitor.total() > 0, "{time:?}");
    }
}

#[test]
fn the_time_of_a_cpu_is_that_of_its_vcpus() {
    let (mut monitor, vms) = crowd(Costs::default());
    for cpu in 0..2 {
        let time = monitor.cpu_time(cpu).unwrap();
        let counters: Vec<_> =
            vms.iter().filter(|(_, of)| *of == cpu).map(|(vm, _)| monitor.counters(*vm, 0).unwrap()).collect();
        assert_eq!(time.user, counters.iter().map(|all| all.cycles_user).sum::<u64>());
        assert_eq!(time.kernel, counters.iter().map(|all| all.cycles_kernel).sum::<u64>());
        for (name, cause) in Cause::NAMES {
            assert_eq!(
                time.monitor.of(cause),
                counters.iter().map(|all| all.monitor.of(cause)).sum::<u64>(),
                "{name}"
            );
        }
    }
}

#[test]
fn a_lone_vcpu_that_goes_on_has_all_the_time_there_is() {
    let mut monitor = guest::machine(guest::config());
    let vm = guest::boot(&mut monitor, RAM_BYTES, 0, &varied(1_000_000));
    guest::run(&mut monitor, END);
    let counters = monitor.counters(vm, 0).unwrap();
    let parts = counters.cycles_user + counters.cycles_kernel + counters.monitor.total() + counters.cycles_idle;
    assert_eq!(parts, monitor.cpu_progress(0).unwrap().1.0);
}

/// With a cost of one for each trap and nothing else, the cycles of a cause are its traps.
#[test]
fn a_trap_is_charged_to_what_it_turned_out_to_be() {
    let mut costs = Costs::default();
    for (action, _) in costs.rows() {
        costs.set(action, u64::from(action == "trap"));
    }
    let (mut monitor, vms) = crowd(costs);
    for (vm, _) in vms {
        let counters = monitor.counters(vm, 0).unwrap();
        let of = |cause| counters.monitor.of(cause);
        assert_eq!(counters.monitor.total(), counters.traps);
        assert_eq!(of(Cause::TlbWrite), counters.emulated_tlbwr);
        assert_eq!(of(Cause::PageFault), counters.page_faults_absent);
        let privileged =
            [counters.emulated_mfc0, counters.emulated_mtc0, counters.emulated_eret, counters.emulated_wait];
        assert_eq!(of(Cause::Privileged), privileged.iter().sum::<u64>());
        let answered = counters.tlb_l2tlb_hits + counters.tlb_virtual_hits + counters.tlb_kernel_segment;
        assert_eq!(of(Cause::KernelTlbMiss), answered, "the guest has no user");
        assert!(answered > 0 && counters.emulated_tlbwr > 0 && counters.interrupts > 0);
        for none in [Cause::TlbMiss, Cause::Interrupt, Cause::Device, Cause::Switch, Cause::Forward] {
            assert_eq!(of(none), 0, "{none:?}");
        }
    }
}

#[test]
fn a_shootdown_is_charged_to_the_vcpu_whose_tlb_it_is() {
    let mut monitor = guest::machine(guest::config());
    let vm = guest::boot(&mut monitor, RAM_BYTES, 0, "here: b here\n nop");
    guest::run(&mut monitor, 50_000);
    let now = monitor.cpu_progress(0).unwrap().1;
    monitor.protect_page(vm, Ppn(((guest::PROGRAM - KSEG0) >> 12) as u32), false).unwrap();
    let cost = Costs::default().shootdown;
    assert_eq!(monitor.counters(vm, 0).unwrap().monitor.of(Cause::Shootdown), cost);
    assert_eq!(monitor.cpu_progress(0).unwrap().1, Cycles(now.0 + cost));
    assert_eq!(monitor.cpu_time(0).unwrap().monitor.of(Cause::Shootdown), cost);
}
