//! What the resident part asks Python to decide. One enum lists every reason.

use machine::{Cycles, NodeId, PhysAddr, Ppn};

use crate::debug::PauseCause;
use crate::follow::Step;
use machine::windows::PostedWrite;

/// Why a vCPU cannot go on by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopCause {
    /// WAIT with interrupts off and all lines masked: this platform's way to power off.
    Halted,
    /// The first instruction of its own exception vector raises an exception, for ever.
    NoHandler,
    /// It executes instructions from a device's registers.
    FetchFromDevice,
}

impl StopCause {
    /// A short name for programs.
    pub fn name(self) -> &'static str {
        match self {
            StopCause::Halted => "halted",
            StopCause::NoHandler => "no handler",
            StopCause::FetchFromDevice => "bad access",
        }
    }

    /// A sentence for people.
    pub fn detail(self) -> &'static str {
        match self {
            StopCause::Halted => "waits with all interrupts off",
            StopCause::NoHandler => "its exception vector itself raises an exception, for ever",
            StopCause::FetchFromDevice => "it executes the registers of a device",
        }
    }
}

/// Something to decide, or to know.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A page is absent, or may not be written; the access is retried when the run goes on.
    PageFault {
        vm: u32,
        vcpu: u32,
        cpu: u16,
        node: NodeId,
        page: Ppn,
        store: bool,
        protected: bool,
        cycle: Cycles,
    },
    /// A device register is read or written; the vCPU waits for the answer.
    DeviceAccess {
        vm: u32,
        vcpu: u32,
        cpu: u16,
        paddr: PhysAddr,
        size: u8,
        store: bool,
        value: u64,
        cycle: Cycles,
    },
    /// Stores to posted registers since the last such event.
    PostedWrites { vm: u32, writes: Vec<PostedWrite> },
    /// A vCPU that will not run again.
    VcpuStopped { vm: u32, vcpu: u32, cpu: u16, cause: StopCause, pc: u64, cycle: Cycles },
    /// A vCPU that somebody debugs has paused before the instruction at `pc`.
    Paused { vm: u32, vcpu: u32, cpu: u16, cause: PauseCause, pc: u64, cycle: Cycles },
    /// The miss that somebody asked to follow.
    Followed { vm: u32, vcpu: u32, cpu: u16, steps: Vec<Step>, cycle: Cycles },
}

impl Event {
    /// The order in which events of one boundary are handled.
    pub fn order(&self) -> (Cycles, u16) {
        match self {
            Event::PostedWrites { .. } => (Cycles(0), 0),
            Event::PageFault { cycle, cpu, .. }
            | Event::DeviceAccess { cycle, cpu, .. }
            | Event::VcpuStopped { cycle, cpu, .. }
            | Event::Paused { cycle, cpu, .. }
            | Event::Followed { cycle, cpu, .. } => (*cycle, *cpu),
        }
    }

    /// The VM it is about.
    pub fn vm(&self) -> u32 {
        match self {
            Event::PageFault { vm, .. }
            | Event::DeviceAccess { vm, .. }
            | Event::PostedWrites { vm, .. }
            | Event::VcpuStopped { vm, .. }
            | Event::Paused { vm, .. }
            | Event::Followed { vm, .. } => *vm,
        }
    }
}
