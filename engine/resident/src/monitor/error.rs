//! A caller's mistakes, each with what was asked and what is possible.

use std::fmt;

use machine::memory::MemoryError;
use machine::{Mpn, PAGE_BYTES, PhysAddr, PhysRange, Ppn};

/// A caller's mistake; nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MonitorError {
    /// The machine cannot exist, for the reason given.
    Machine(String),
    /// vCPUs cannot be scheduled like this, for the reason given.
    Plan(String),
    /// No VM has that number.
    NoVm(u32),
    /// The VM has fewer vCPUs.
    NoVcpu { vm: u32, vcpu: u32, vcpus: usize },
    /// The machine has fewer CPUs.
    NoCpu { cpu: u16, cpus: usize },
    /// The machine has fewer nodes.
    NoNode { node: u16, nodes: u16 },
    /// The range is not made of whole pages in 36 bits.
    BadRange(PhysRange),
    /// The page is in another state than the call needs.
    PageState { vm: u32, page: Ppn, state: &'static str, needed: &'static str },
    /// Some byte of the range is not RAM of the VM.
    NotRam { vm: u32, paddr: PhysAddr, bytes: u64 },
    /// The pages have to be made present (or writable) first.
    NotPresent { vm: u32, pages: Vec<Ppn> },
    /// The machine page is not one of the disk cache.
    NotCached(Mpn),
    /// The vCPU waits for no device.
    NoAccess { vm: u32, vcpu: u32 },
    /// The host or a node has no memory for it.
    Memory(MemoryError),
    /// No node has room for the monitor's tables of the VM.
    NoRoomForTables { vm: u32, pages: usize },
    /// The vCPU's state forbids it.
    VcpuState { vm: u32, vcpu: u32, state: String, needed: &'static str },
    /// The address has no translation now.
    NoTranslation { vaddr: u64 },
}

impl fmt::Display for MonitorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MonitorError::Machine(reason) | MonitorError::Plan(reason) => write!(f, "{reason}"),
            MonitorError::NoVm(vm) => write!(f, "no VM has the number {vm}"),
            MonitorError::NoVcpu { vm, vcpu, vcpus } => {
                write!(f, "VM {vm}: vCPU {vcpu} asked, it has {vcpus}")
            }
            MonitorError::NoCpu { cpu, cpus } => write!(f, "CPU {cpu} asked, the machine has {cpus}"),
            MonitorError::NoNode { node, nodes } => write!(f, "node {node} asked, the machine has {nodes}"),
            MonitorError::BadRange(range) => write!(
                f,
                "{} bytes at {} asked; possible are whole pages of {PAGE_BYTES} bytes below 2^36",
                range.bytes, range.base
            ),
            MonitorError::PageState { vm, page, state, needed } => {
                write!(f, "VM {vm}: page {page} is {state}, not {needed}")
            }
            MonitorError::NotRam { vm, paddr, bytes } => {
                write!(f, "VM {vm}: {bytes} bytes at {paddr} are not all RAM")
            }
            MonitorError::NotPresent { vm, pages } => {
                write!(f, "VM {vm}: {} pages are not present and writable", pages.len())
            }
            MonitorError::NotCached(page) => write!(f, "machine page {page} is not in the disk cache"),
            MonitorError::NoAccess { vm, vcpu } => write!(f, "VM {vm}: vCPU {vcpu} waits for no device"),
            MonitorError::Memory(error) => write!(f, "{error}"),
            MonitorError::NoRoomForTables { vm, pages } => {
                write!(f, "VM {vm}: the monitor needs {pages} pages for its tables, and no node has as many free")
            }
            MonitorError::VcpuState { vm, vcpu, state, needed } => {
                write!(f, "VM {vm}: vCPU {vcpu} is {state}, not {needed}")
            }
            MonitorError::NoTranslation { vaddr } => write!(f, "{vaddr:#x} has no translation now"),
        }
    }
}

impl std::error::Error for MonitorError {}

impl From<MemoryError> for MonitorError {
    fn from(error: MemoryError) -> MonitorError {
        MonitorError::Memory(error)
    }
}

pub(super) type Result<T> = std::result::Result<T, MonitorError>;
