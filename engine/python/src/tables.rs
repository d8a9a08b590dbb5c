//! Tables lent to Python: a buffer over the engine's own memory, kept alive by a handle.

use std::ffi::{c_int, c_void};
use std::sync::Arc;

use machine::memory::HostRegion;
use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use resident::{memmap, pmap};

/// Bytes of a table. Read-only from Python: rows change through the engine's calls.
#[pyclass(frozen, module = "disco._engine")]
pub struct TableView {
    region: Arc<HostRegion>,
    bytes: usize,
}

impl TableView {
    /// A memoryview over the table.
    pub fn memoryview<'py>(
        py: Python<'py>,
        (region, bytes): (Arc<HostRegion>, usize),
    ) -> PyResult<Bound<'py, PyAny>> {
        let view = Bound::new(py, TableView { region, bytes })?;
        py.import("builtins")?.getattr("memoryview")?.call1((view,))
    }
}

#[pymethods]
impl TableView {
    // SAFETY: called by the interpreter with a valid view to fill in.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        if view.is_null() {
            return Err(PyBufferError::new_err("no view to fill in"));
        }
        let table = slf.get();
        let (pointer, length) = (table.region.base().cast::<c_void>(), table.bytes as ffi::Py_ssize_t);
        // SAFETY: the region outlives the view, which holds a reference to `slf`, which holds the region.
        let result = unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), pointer, length, 1, flags) };
        if result == 0 { Ok(()) } else { Err(PyErr::fetch(slf.py())) }
    }
}

/// `names`, `formats`, `offsets` and `itemsize` as `numpy.dtype` takes them.
fn dtype<'py>(py: Python<'py>, fields: &[(&str, &str, usize)], itemsize: usize) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("names", fields.iter().map(|field| field.0).collect::<Vec<_>>())?;
    dict.set_item("formats", fields.iter().map(|field| field.1).collect::<Vec<_>>())?;
    dict.set_item("offsets", fields.iter().map(|field| field.2).collect::<Vec<_>>())?;
    dict.set_item("itemsize", itemsize)?;
    Ok(dict)
}

/// The rows of the pmap.
pub fn pmap_dtype(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    use pmap::PmapRow;
    let fields = [
        ("mpn", "<u4", std::mem::offset_of!(PmapRow, mpn)),
        ("state", "u1", std::mem::offset_of!(PmapRow, state)),
        ("writable", "u1", std::mem::offset_of!(PmapRow, writable)),
        ("overflowed", "u1", std::mem::offset_of!(PmapRow, overflowed)),
        ("merged", "u1", std::mem::offset_of!(PmapRow, merged)),
    ];
    dtype(py, &fields, size_of::<PmapRow>())
}

/// The rows of backmaps.
pub fn backmap_dtype(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    use pmap::BackmapRow;
    let fields = [
        ("ppn", "<u4", std::mem::offset_of!(BackmapRow, ppn)),
        ("count", "<u4", std::mem::offset_of!(BackmapRow, count)),
        ("backmaps", "(3,)<u8", std::mem::offset_of!(BackmapRow, backmaps)),
    ];
    dtype(py, &fields, size_of::<BackmapRow>())
}

/// The rows of the memmap.
pub fn memmap_dtype(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    use memmap::MemmapRow;
    let fields = [
        ("ppn", "<u4", std::mem::offset_of!(MemmapRow, ppn)),
        ("vm", "<u2", std::mem::offset_of!(MemmapRow, vm)),
        ("owner", "u1", std::mem::offset_of!(MemmapRow, owner)),
        ("users", "u1", std::mem::offset_of!(MemmapRow, users)),
    ];
    dtype(py, &fields, size_of::<MemmapRow>())
}
