//! The resident part of Disco: what the monitor does at every trap.
//!
//! What belongs here: trap dispatch, the virtual CP0, the virtual TLB and the second-level TLB, and the
//! mechanics of pmap and memmap. What does not: decisions. Where a page goes, what a device answers and
//! what becomes of a VM is Python's; this crate stops the vCPU, says what it needs ([`Event`]) and carries
//! out the answer.
//!
//! A guest kernel runs in supervisor mode and a guest user in user mode, on a CPU whose segmentation
//! control maps every kernel segment. So each privileged instruction and each reference that the TLB does
//! not cover traps, and [`trap`] is the only way in.
//!
//! Reading order: [`pmap`], [`memmap`], [`reserve`], [`l2tlb`] (the tables), [`vcpu`] and [`vm`] (what is virtual),
//! [`miss`] (the life of a TLB miss), [`emulate`] (privileged instructions), [`trap`] (the dispatcher),
//! [`schedule`] (who runs where), [`monitor`] (rounds), [`debug`] (who pauses).

pub mod blocks;
pub mod costs;
pub mod counters;
pub mod debug;
pub mod emulate;
pub mod event;
pub mod follow;
mod free;
pub mod host_threads;
pub mod l2tlb;
pub mod memmap;
pub mod miss;
pub mod monitor;
pub mod pmap;
mod record;
pub mod reserve;
pub mod schedule;
pub mod table;
pub mod trap;
pub mod vcpu;
pub mod vm;

pub use costs::Costs;
pub use counters::Counters;
pub use event::{Event, StopCause};
pub use monitor::{
    ContentCounts, EngineKind, Footprint, FootprintPages, Monitor, MonitorConfig, MonitorError, Transferred, Use,
};
