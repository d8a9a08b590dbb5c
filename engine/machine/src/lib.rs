//! The simulated hardware: CPUs with software-managed TLBs, their nodes and their memory.
//!
//! What belongs here: everything that a MIPS64 Release 2 chip of the ccNUMA machine does. What does
//! not: the monitor (crate `resident`), the meaning of an instruction word (crate `mips`), Python.
//!
//! # One CPU, two employers
//! A [`Cpu`] runs instructions until something stops it. On the *bare* machine an exception is
//! delivered as the manual says: CP0 is updated and the CPU goes on at the vector, in kernel mode.
//! Under the monitor (`monitored`), every exception instead ends [`Cpu::run`] with
//! [`Stop::Trap`]: Disco's trap handlers are the kernel-mode software of this machine, and they are
//! Rust. Nothing else differs, so whatever holds for the bare CPU holds below the monitor.
//!
//! # Time
//! A cycle is the machine's unit of time; in fast mode an executed instruction takes one. `run`
//! takes a bound, and stops at the first instruction boundary at or after it that does not lie
//! between a branch and its delay slot. An instruction that raises an exception is not executed and
//! costs nothing by itself. These two rules make every count independent of how the instructions
//! were grouped, so the interpreter and the translator agree to the last cycle.
//!
//! # What is unpredictable in the manual is defined here
//! - A branch in a delay slot raises Reserved Instruction (in the slot).
//! - Stores are seen by the next instruction fetch: SYNCI and CACHE have nothing left to do.
//! - A TLB write that would make two entries match one address raises Machine Check and does not
//!   happen.
//! - 32-bit results are taken from the low halves of their sources, whatever the high halves hold.

pub mod address;
pub mod bare;
pub mod coherence;
pub mod cp0;
pub mod cpu;
pub mod exception;
pub mod gic;
pub mod memory;
pub mod segments;
pub mod services;
pub mod smp;
pub mod tlb;
pub mod virtqueue;
pub mod windows;

pub use address::{
    AccessKind, Asid, Cycles, MachineAddr, Mpn, NodeId, PAGE_BYTES, PAGE_SHIFT, PhysAddr, PhysRange, Ppn,
};
pub use cp0::{Cp0, CpuConfig};
pub use cpu::{Accelerator, BusAccess, Cpu, Handler, Registers, Stop, Taken, Trap, TrapHandler};
pub use exception::Exception;
pub use memory::MachineMemory;
pub use tlb::{Tlb, TlbEntry};
