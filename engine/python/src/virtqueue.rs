//! Virtqueues for Python: the rings of a queue, and the chains that are taken from them.

use machine::PhysAddr;
use machine::virtqueue::{self, Buffer, Dma};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyList;
use resident::Monitor;

/// Where the rings of a queue are, and how far the device has come.
#[pyclass(module = "disco._engine")]
pub struct Rings(virtqueue::Rings);

#[pymethods]
impl Rings {
    #[new]
    #[pyo3(signature = (*, size, indirect_max, descriptors, driver, avail_index))]
    fn new(size: u16, indirect_max: u16, descriptors: u64, driver: u64, avail_index: u16) -> Rings {
        let (descriptors, driver) = (PhysAddr(descriptors), PhysAddr(driver));
        Rings(virtqueue::Rings { size, indirect_max, descriptors, driver, avail_index })
    }

    #[getter]
    fn avail_index(&self) -> u16 {
        self.0.avail_index
    }

    /// Puts the last `count` chains back.
    fn untake(&mut self, count: u16) {
        self.0.avail_index = self.0.avail_index.wrapping_sub(count);
    }
}

/// One request of the guest.
#[pyclass(frozen, get_all, module = "disco._engine")]
pub struct Chain {
    head: u16,
    readable: Py<PyList>,
    writable: Py<PyList>,
    readable_bytes: u64,
    writable_bytes: u64,
}

impl Chain {
    fn new(py: Python<'_>, chain: &virtqueue::Chain) -> PyResult<Chain> {
        let list = |buffers: &[Buffer]| {
            PyList::new(py, buffers.iter().map(|buffer| (buffer.paddr, buffer.length))).map(Bound::unbind)
        };
        let bytes = |buffers: &[Buffer]| buffers.iter().map(|buffer| u64::from(buffer.length)).sum();
        Ok(Chain {
            head: chain.head,
            readable: list(&chain.readable)?,
            writable: list(&chain.writable)?,
            readable_bytes: bytes(&chain.readable),
            writable_bytes: bytes(&chain.writable),
        })
    }
}

/// The avail ring's flags, and up to `wanted` chains; ValueError for what a guest may not do.
pub fn take(py: Python<'_>, memory: &mut dyn Dma, rings: &mut Rings, wanted: u16) -> PyResult<(u16, Vec<Chain>)> {
    let offer = rings.0.take(memory, wanted).map_err(|refusal| PyValueError::new_err(refusal.to_string()))?;
    let chains = offer.chains.iter().map(|chain| Chain::new(py, chain)).collect::<PyResult<_>>()?;
    Ok((offer.flags, chains))
}

/// The memory of one VM of a monitor.
pub struct VmMemory<'a> {
    pub monitor: &'a mut Monitor,
    pub vm: u32,
}

impl Dma for VmMemory<'_> {
    fn read(&mut self, paddr: PhysAddr, into: &mut [u8]) -> bool {
        self.monitor.read_physical(self.vm, paddr, into).is_ok()
    }
}

/// A `GuestMemory` that is written in Python.
struct PythonMemory<'py> {
    memory: Bound<'py, PyAny>,
    /// What it raised last.
    error: Option<PyErr>,
}

impl Dma for PythonMemory<'_> {
    fn read(&mut self, paddr: PhysAddr, into: &mut [u8]) -> bool {
        let bytes = self.memory.call_method1("read", (paddr.0, into.len()));
        match bytes.and_then(|bytes| bytes.extract::<Vec<u8>>()) {
            Ok(bytes) => {
                into.copy_from_slice(&bytes);
                true
            }
            Err(error) => {
                self.error = Some(error);
                false
            }
        }
    }
}

/// `Engine.take_chains` of any `GuestMemory`; raises what it raises.
#[pyfunction]
pub fn take_chains(
    py: Python<'_>,
    memory: Bound<'_, PyAny>,
    rings: &mut Rings,
    wanted: u16,
) -> PyResult<(u16, Vec<Chain>)> {
    let mut memory = PythonMemory { memory, error: None };
    let taken = take(py, &mut memory, rings, wanted);
    match (taken, memory.error) {
        (Err(refusal), Some(error)) => {
            refusal.set_cause(py, Some(error));
            Err(refusal)
        }
        (taken, _) => taken,
    }
}
