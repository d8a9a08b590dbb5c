//! Events and errors of the resident part, as Python objects.

use machine::services::{Cost, Service, Spent};
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::{PyIndexError, PyKeyError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use resident::follow::{Step, Value};
use resident::{Event, MonitorError};

/// A caller's mistake: KeyError with the list of pages that have to be placed first, IndexError with address and
/// length of what is not RAM, ValueError otherwise.
pub fn to_py(error: MonitorError) -> PyErr {
    match error {
        MonitorError::NotPresent { pages, .. } => {
            PyKeyError::new_err((pages.into_iter().map(|page| page.0).collect::<Vec<u32>>(),))
        }
        MonitorError::NotRam { paddr, bytes, .. } => PyIndexError::new_err((paddr.0, bytes)),
        other => PyValueError::new_err(other.to_string()),
    }
}

/// A vCPU needs a page that its VM does not have, or may not write.
#[pyclass(frozen, get_all, module = "disco._engine")]
pub struct PageFault {
    vm: u32,
    vcpu: u32,
    cpu: u16,
    node: u16,
    ppn: u32,
    store: bool,
    protected: bool,
    cycle: u64,
}

/// A vCPU read or wrote a device register.
#[pyclass(frozen, get_all, module = "disco._engine")]
pub struct DeviceAccess {
    vm: u32,
    vcpu: u32,
    paddr: u64,
    size: u8,
    store: bool,
    value: u64,
    cycle: u64,
}

/// Stores to posted registers of one VM, in order.
#[pyclass(frozen, get_all, module = "disco._engine")]
pub struct PostedWrites {
    vm: u32,
    writes: Vec<(u64, u64, u8, u64)>,
}

/// A vCPU cannot go on.
#[pyclass(frozen, get_all, module = "disco._engine")]
pub struct VcpuStopped {
    vm: u32,
    vcpu: u32,
    cause: &'static str,
    detail: &'static str,
    pc: u64,
    cycle: u64,
}

/// A vCPU that somebody debugs has paused.
#[pyclass(frozen, get_all, module = "disco._engine")]
pub struct Paused {
    vm: u32,
    vcpu: u32,
    cause: &'static str,
    pc: u64,
    cycle: u64,
}

/// A miss with all its steps.
#[pyclass(frozen, get_all, module = "disco._engine")]
pub struct Followed {
    vm: u32,
    vcpu: u32,
    steps: Py<PyList>,
}

impl DeviceAccess {
    /// An access as `run` reports it.
    pub fn new(vm: u32, vcpu: u32, access: &machine::BusAccess, cycle: u64) -> DeviceAccess {
        let machine::BusAccess { address, bytes, store, value, .. } = *access;
        DeviceAccess { vm, vcpu, paddr: address, size: bytes, store, value, cycle }
    }
}

impl PostedWrites {
    /// (cycle, address, bytes, value) of each store.
    pub fn new(vm: u32, writes: Vec<(u64, u64, u8, u64)>) -> PostedWrites {
        PostedWrites { vm, writes }
    }
}

impl VcpuStopped {
    /// A CPU of a bare machine has powered it off.
    pub fn halted(cpu: u32, pc: u64, cycle: u64) -> VcpuStopped {
        let cause = resident::StopCause::Halted;
        VcpuStopped { vm: 0, vcpu: cpu, cause: cause.name(), detail: cause.detail(), pc, cycle }
    }
}

/// One event as the object of its class.
pub fn event_to_py(py: Python<'_>, event: Event) -> PyResult<Py<PyAny>> {
    match event {
        Event::PageFault { vm, vcpu, cpu, node, page, store, protected, cycle } => {
            PageFault { vm, vcpu, cpu, node: node.0, ppn: page.0, store, protected, cycle: cycle.0 }
                .into_py_any(py)
        }
        Event::DeviceAccess { vm, vcpu, cpu: _, paddr, size, store, value, cycle } => {
            DeviceAccess { vm, vcpu, paddr: paddr.0, size, store, value, cycle: cycle.0 }.into_py_any(py)
        }
        Event::PostedWrites { vm, writes } => {
            let writes = writes.into_iter().map(|w| (w.cycle.0, w.paddr.0, w.size, w.value)).collect();
            PostedWrites { vm, writes }.into_py_any(py)
        }
        Event::VcpuStopped { vm, vcpu, cpu: _, cause, pc, cycle } => {
            VcpuStopped { vm, vcpu, cause: cause.name(), detail: cause.detail(), pc, cycle: cycle.0 }
                .into_py_any(py)
        }
        Event::Paused { vm, vcpu, cpu: _, cause, pc, cycle } => {
            Paused { vm, vcpu, cause: cause.name(), pc, cycle: cycle.0 }.into_py_any(py)
        }
        Event::Followed { vm, vcpu, cpu: _, steps, cycle: _ } => {
            let steps = steps.into_iter().map(|step| step_to_py(py, step)).collect::<PyResult<Vec<_>>>()?;
            Followed { vm, vcpu, steps: PyList::new(py, steps)?.unbind() }.into_py_any(py)
        }
    }
}

/// What a service has cost, as a dict; `parts` names the monitor's cycles.
pub fn service_to_py<'py, M: Spent>(
    py: Python<'py>,
    service: Service,
    cost: &Cost<M>,
    parts: impl Fn(&M) -> Vec<(&'static str, u64)>,
) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("service", service.name())?;
    let number = if let Service::Syscall(number) = service { Some(number) } else { None };
    dict.set_item("number", number)?;
    dict.set_item("count", cost.count)?;
    dict.set_item("switched", cost.switched)?;
    dict.set_item("interrupted", cost.interrupted)?;
    dict.set_item("cycles", cost.total.cycles)?;
    dict.set_item("median_cycles", cost.median_cycles())?;
    dict.set_item("instructions", cost.total.instructions)?;
    let monitor = PyDict::new(py);
    for (name, cycles) in parts(&cost.total.monitor) {
        monitor.set_item(name, cycles)?;
    }
    dict.set_item("monitor", monitor)?;
    Ok(dict)
}

fn step_to_py(py: Python<'_>, step: Step) -> PyResult<Bound<'_, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("kind", step.kind)?;
    dict.set_item("cycle", step.cycle)?;
    dict.set_item("cycles", step.cycles)?;
    for (name, value) in step.values {
        match value {
            Value::Number(number) => dict.set_item(name, number)?,
            Value::Text(text) => dict.set_item(name, text)?,
            Value::Flag(flag) => dict.set_item(name, flag)?,
        }
    }
    Ok(dict)
}
