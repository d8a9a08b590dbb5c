//! A vCPU that has lost its CPU while it holds a lock, or is next in line, holds up all others; a gang is not held up.

#[path = "../examples/lock_holder.rs"]
mod lock_holder;

use lock_holder::{Policy, Setting, measure};

const ALONE: Setting = Setting { cpus: 4, lockers: 1, vcpus: 4, others: 0 };

#[test]
fn a_lock_costs_a_gang_what_it_costs_a_vm_that_has_the_machine_for_itself() {
    let alone = measure(ALONE, Policy::TimeSharing).unwrap();
    for setting in [Setting { lockers: 2, ..ALONE }, Setting { others: 3, ..ALONE }] {
        let shared = measure(setting, Policy::TimeSharing).unwrap();
        let gang = measure(setting, Policy::Gang).unwrap();
        assert!(shared.cycles_each() > 4.0 * alone.cycles_each(), "{setting:?}: {shared:?} against {alone:?}");
        assert!(gang.cycles_each() < 1.05 * alone.cycles_each(), "{setting:?}: {gang:?} against {alone:?}");
        assert!(gang.taken > 3 * shared.taken, "{setting:?}: {gang:?} against {shared:?}");
    }
}
