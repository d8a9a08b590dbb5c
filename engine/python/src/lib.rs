//! The extension module `disco._engine`: it converts, it does not think.
//!
//! One file maps errors and events ([`events`]), one lends tables to NumPy ([`tables`]), one is the
//! monitor's face ([`engine`]), one has what devices take from a guest's queues ([`virtqueue`]), one the face of a bare CPU for tests ([`bare`]), one shows them the instruction
//! table ([`rows`]). No logic lives here that a Rust test of another crate cannot reach.

mod bare;
mod engine;
mod events;
mod rows;
mod tables;
mod virtqueue;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// Assembles MIPS64 text at virtual address `base`.
#[pyfunction]
fn assemble<'py>(py: Python<'py>, source: &str, base: u64) -> PyResult<Bound<'py, PyBytes>> {
    let code = mips::assemble(source, base).map_err(|error| PyValueError::new_err(error.to_string()))?;
    Ok(PyBytes::new(py, &code))
}

/// The text of an instruction word at `pc`.
#[pyfunction]
fn disassemble(word: u32, pc: u64) -> String {
    mips::disassemble(word, pc)
}

#[pymodule]
mod _engine {
    use pyo3::prelude::*;
    use pyo3::types::PyDict;

    #[pymodule_export]
    use super::bare::{BareCpu, BareMachine};
    #[pymodule_export]
    use super::engine::Engine;
    #[pymodule_export]
    use super::events::{DeviceAccess, Followed, PageFault, Paused, PostedWrites, VcpuStopped};
    #[pymodule_export]
    use super::rows::{InstructionRow, instruction_rows};
    #[pymodule_export]
    use super::virtqueue::{Chain, Rings, take_chains};
    #[pymodule_export]
    use super::{assemble, disassemble};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        let py = module.py();
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        module.add("build_profile", if cfg!(debug_assertions) { "debug" } else { "release" })?;
        let costs = PyDict::new(py);
        for (action, cycles) in resident::Costs::default().rows() {
            costs.set_item(action, cycles)?;
        }
        module.add("default_costs", costs)?;
        let meanings = PyDict::new(py);
        for (action, meaning) in resident::Costs::meanings() {
            meanings.set_item(action, meaning)?;
        }
        module.add("cost_meanings", meanings)?;
        let mut event = module.getattr("PageFault")?;
        for class in ["DeviceAccess", "PostedWrites", "VcpuStopped", "Paused", "Followed"] {
            event = event.bitor(module.getattr(class)?)?;
        }
        module.add("Event", event)?;
        module.add("pmap_dtype", super::tables::pmap_dtype(py)?)?;
        module.add("backmap_dtype", super::tables::backmap_dtype(py)?)?;
        module.add("memmap_dtype", super::tables::memmap_dtype(py)?)?;
        Ok(())
    }
}
