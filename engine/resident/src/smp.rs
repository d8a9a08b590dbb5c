//! What a VM with several vCPUs has beside them: the interrupt controller and the coherence manager.
//!
//! Their registers are the resident part's own business: an inter-processor interrupt must not take a trip
//! to Python. vCPUs of one VM run on one host thread, one after the other in short slices, so they see each
//! other's writes at slice boundaries; a vCPU's interrupt lines are looked up when its slice begins.
//!
//! Slices mean that one vCPU can be ahead of another by up to a slice. Count must not tell: Linux takes a clock
//! that goes backwards between CPUs for a wrap-around and loses 43 seconds. So there is one clock. No read of
//! Count is earlier than the last one by any vCPU of the VM ([`Smp::clock`]); a write of nearly what it shows,
//! which is how Linux synchronises a new CPU, changes nothing ([`Smp::is_synchronising`]); and any other write
//! sets it for all vCPUs.

use machine::coherence::{CPC_BASE, CPC_BYTES, CoherenceManager, GCR_BASE, GCR_BYTES, GIC_BASE, PowerAction};
use machine::gic::{GIC_BYTES, Gic};
use machine::{BusAccess, Cycles, PhysAddr, PhysRange};

/// The platform of a multiprocessor VM.
#[derive(Debug)]
pub struct Smp {
    /// The global interrupt controller.
    pub gic: Gic,
    manager: CoherenceManager,
    /// Starts and stops of vCPUs that have been asked for and not yet carried out.
    actions: Vec<PowerAction>,
    latest_read: Cycles,
    /// The vCPU that has set the clock, until the others have been told.
    clock_source: Option<u32>,
}

/// Ticks of Count by which two vCPUs may think that they differ while they synchronise: some slices.
const SYNCHRONISING_TICKS: u32 = 200_000;

impl Smp {
    /// The platform for `vcpus` vCPUs, of which vCPU 0 is up.
    pub fn new(vcpus: u32) -> Smp {
        let vcpus = vcpus as usize;
        Smp {
            gic: Gic::new(vcpus),
            manager: CoherenceManager::new(vcpus),
            actions: Vec::new(),
            latest_read: Cycles(0),
            clock_source: None,
        }
    }

    /// The registers' place in physical memory.
    pub const WINDOWS: [PhysRange; 3] = [
        PhysRange { base: PhysAddr(GCR_BASE), bytes: GCR_BYTES },
        PhysRange { base: PhysAddr(CPC_BASE), bytes: CPC_BYTES },
        PhysRange { base: PhysAddr(GIC_BASE), bytes: GIC_BYTES },
    ];

    /// Carries out an access of a vCPU if it is to one of these registers, and returns what it reads. All of
    /// them have 4 bytes; an access of another size reads 0 and writes nothing.
    pub fn access(&mut self, vcpu: u32, access: &BusAccess) -> Option<u64> {
        let vcpu = vcpu as usize;
        let place =
            Smp::WINDOWS.iter().position(|window| (window.base.0..window.end()).contains(&access.address))?;
        if access.bytes != 4 {
            return Some(0);
        }
        let offset = access.address - Smp::WINDOWS[place].base.0;
        let value = access.value as u32;
        let answer = match (place, access.store) {
            (0, false) => self.manager.read_gcr(vcpu, offset),
            (1, false) => self.manager.read_cpc(vcpu, offset),
            (_, false) => self.gic.read(vcpu, offset),
            (0, true) => {
                self.manager.write_gcr(vcpu, offset, value);
                0
            }
            (1, true) => {
                let action = self.manager.write_cpc(vcpu, offset, value);
                self.actions.extend((action != PowerAction::None).then_some(action));
                0
            }
            (_, true) => {
                self.gic.write(vcpu, offset, value);
                0
            }
        };
        Some(u64::from(answer))
    }

    /// Whether a vCPU is to stop.
    pub fn stops(&self, vcpu: u32) -> bool {
        self.actions.contains(&PowerAction::Stop { core: vcpu as usize })
    }

    /// Takes the starts and stops that have been asked for.
    pub fn take_actions(&mut self) -> Vec<PowerAction> {
        std::mem::take(&mut self.actions)
    }

    /// Whether writing `value` to a Count that shows `count` is only meant to make clocks agree.
    pub fn is_synchronising(count: u32, value: u32) -> bool {
        (value.wrapping_sub(count) as i32).unsigned_abs() <= SYNCHRONISING_TICKS
    }

    /// Notes that a vCPU has set the clock.
    pub fn set_clock_source(&mut self, vcpu: u32) {
        self.clock_source = Some(vcpu);
    }

    /// The vCPU whose clock the others have to take over.
    pub fn take_clock_source(&mut self) -> Option<u32> {
        self.clock_source.take()
    }

    /// The time that a vCPU at `now` reads from the clock.
    pub fn clock(&mut self, now: Cycles) -> Cycles {
        self.latest_read = self.latest_read.max(now);
        self.latest_read
    }
}
