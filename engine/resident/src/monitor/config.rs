//! What the machine and its monitor are made of, and whether that can be.

use machine::{Accelerator, Cycles};

use super::{MonitorError, Result};
use crate::Costs;
use crate::l2tlb::L2Tlb;

/// What the machine and its monitor are made of.
#[derive(Clone, Debug)]
pub struct MonitorConfig {
    /// The node of each CPU.
    pub node_of_cpu: Vec<u16>,
    /// Nodes.
    pub nodes: u16,
    /// Memory of each node.
    pub memory_bytes_per_node: u64,
    /// Length of a round.
    pub quantum: Cycles,
    /// Length of a slice in which one vCPU of a multiprocessor VM runs before the next.
    pub interleave: Cycles,
    /// Length of a turn of the vCPUs that share a CPU, until a plan says otherwise.
    pub slice_rounds: u32,
    /// Entries of the hardware TLB.
    pub tlb_entries: u8,
    /// Entries of each second-level TLB; 0 switches it off.
    pub l2tlb_entries: usize,
    /// Whether memory is handed out by blocks, and mapped by entries of large pages where it lies in one piece.
    pub large_pages: bool,
    /// Host threads that run CPUs.
    pub host_threads: usize,
    /// What the monitor's actions cost.
    pub costs: Costs,
    /// What executes instructions.
    pub engine: EngineKind,
}

/// What executes a CPU's instructions. The results are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineKind {
    /// The interpreter of crate `machine`.
    Interpreter,
    /// The translator where the host has one, and the interpreter for the rest.
    Translator,
}

impl EngineKind {
    /// Names and values, for messages and for Python.
    pub const NAMES: [(&str, EngineKind); 2] =
        [("interpreter", EngineKind::Interpreter), ("translator", EngineKind::Translator)];

    /// What each of `cpus` CPUs is given beside its interpreter, if they run on `host_threads` threads.
    ///
    /// # Errors
    /// [`MonitorError::Machine`] when the host has no translator, or no memory for it.
    pub fn accelerators(self, cpus: usize, host_threads: usize) -> Result<Vec<Option<Box<dyn Accelerator>>>> {
        let made = match self {
            EngineKind::Interpreter => return Ok((0..cpus).map(|_| None).collect()),
            EngineKind::Translator => translate::accelerators(cpus, host_threads),
        };
        made.map_err(|error| MonitorError::Machine(error.to_string()))
    }
}

impl MonitorConfig {
    /// Whether such a machine can be.
    ///
    /// # Errors
    /// [`MonitorError::Machine`] with what was asked and what is possible.
    pub(super) fn check(&self) -> Result<()> {
        let fail = |text: String| Err(MonitorError::Machine(text));
        let cpus = self.node_of_cpu.len();
        if !(1..=128).contains(&cpus) {
            return fail(format!("{cpus} CPUs asked; possible are 1 to 128"));
        }
        if let Some(node) = self.node_of_cpu.iter().find(|node| **node >= self.nodes) {
            return fail(format!("a CPU on node {node} asked; the machine has {} nodes", self.nodes));
        }
        if !(100..=self.quantum.0).contains(&self.interleave.0) {
            return fail(format!(
                "an interleave of {} cycles asked; possible are 100 to {}, a quantum",
                self.interleave.0, self.quantum.0
            ));
        }
        if self.quantum.0 < 1000 {
            return fail(format!("a quantum of {} cycles asked; possible are 1000 and more", self.quantum.0));
        }
        if !(8..=64).contains(&self.tlb_entries) {
            return fail(format!("{} TLB entries asked; possible are 8 to 64", self.tlb_entries));
        }
        if !L2Tlb::is_size(self.l2tlb_entries) {
            return fail(format!(
                "a second-level TLB of {} entries asked; possible are 0 (off) and powers of two from 4",
                self.l2tlb_entries
            ));
        }
        if self.slice_rounds == 0 || self.host_threads == 0 {
            return fail("slice_rounds and host_threads must be at least 1".to_owned());
        }
        Ok(())
    }
}
