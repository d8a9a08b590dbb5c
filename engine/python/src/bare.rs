//! A bare CPU with its own memory: exceptions are delivered as the manual says, nobody is in between.
//!
//! For second opinions: a test loads a program here and into an independent emulator, and compares.

use std::sync::Arc;

use machine::cp0::Mode;
use machine::{Cpu, CpuConfig, Cycles, MachineAddr, MachineMemory, NodeId, Stop};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// One CPU on a machine of one node, without the monitor. Physical addresses are machine addresses.
#[pyclass(module = "disco._engine")]
pub struct BareCpu {
    cpu: Cpu,
    memory: Arc<MachineMemory>,
}

#[pymethods]
impl BareCpu {
    #[new]
    #[pyo3(signature = (*, memory_bytes))]
    fn new(memory_bytes: u64) -> PyResult<BareCpu> {
        let memory =
            MachineMemory::new(1, memory_bytes).map_err(|error| PyValueError::new_err(error.to_string()))?;
        let memory = Arc::new(memory);
        Ok(BareCpu { cpu: Cpu::new(0, NodeId(0), CpuConfig::hardware(), Arc::clone(&memory)), memory })
    }

    /// Runs until `until` cycles; "until", "wait", or "bus" when nothing answers at an address.
    fn run(&mut self, py: Python<'_>, until: u64) -> &'static str {
        match py.detach(|| self.cpu.run(Cycles(until))) {
            Stop::Until => "until",
            Stop::Wait => "wait",
            Stop::Bus(_) => "bus",
            Stop::Trap(trap) => unreachable!("a bare CPU delivers {trap:?}"),
        }
    }

    #[getter]
    fn now(&self) -> u64 {
        self.cpu.now.0
    }

    #[getter]
    fn instructions(&self) -> u64 {
        self.cpu.instructions
    }

    #[getter]
    fn get_pc(&self) -> u64 {
        self.cpu.regs.pc
    }

    #[setter]
    fn set_pc(&mut self, pc: u64) {
        self.cpu.regs.pc = pc;
    }

    #[getter]
    fn get_gpr(&self) -> Vec<u64> {
        self.cpu.regs.gpr[..32].to_vec()
    }

    #[setter]
    fn set_gpr(&mut self, values: Vec<u64>) -> PyResult<()> {
        check_32(&values)?;
        self.cpu.regs.gpr[1..32].copy_from_slice(&values[1..]);
        Ok(())
    }

    #[getter]
    fn get_fpr(&self) -> Vec<u64> {
        self.cpu.regs.fpr.to_vec()
    }

    #[setter]
    fn set_fpr(&mut self, values: Vec<u64>) -> PyResult<()> {
        check_32(&values)?;
        self.cpu.regs.fpr.copy_from_slice(&values);
        Ok(())
    }

    #[getter]
    fn get_hi(&self) -> u64 {
        self.cpu.regs.hi
    }

    #[setter]
    fn set_hi(&mut self, value: u64) {
        self.cpu.regs.hi = value;
    }

    #[getter]
    fn get_lo(&self) -> u64 {
        self.cpu.regs.lo
    }

    #[setter]
    fn set_lo(&mut self, value: u64) {
        self.cpu.regs.lo = value;
    }

    #[getter]
    fn get_fcsr(&self) -> u32 {
        self.cpu.regs.fcsr.bits()
    }

    #[setter]
    fn set_fcsr(&mut self, value: u32) {
        self.cpu.regs.fcsr = mips::fpu::Fcsr::from_bits(value);
    }

    /// "kernel", "supervisor" or "user".
    #[getter]
    fn mode(&self) -> &'static str {
        match self.cpu.cp0.mode() {
            Mode::Kernel => "kernel",
            Mode::Supervisor => "supervisor",
            Mode::User => "user",
        }
    }

    /// A CP0 register as DMFC0 reads it.
    fn read_cp0(&self, number: u8, select: u8) -> u64 {
        self.cpu.cp0.read(number, select, self.cpu.now)
    }

    /// Writes a CP0 register as DMTC0 does.
    fn write_cp0(&mut self, number: u8, select: u8, value: u64) {
        self.cpu.cp0.write(number, select, value, self.cpu.now);
        self.cpu.context_changed();
    }

    /// Drives the external interrupt lines: bit n is Cause.IPn, 2 to 7.
    fn set_lines(&mut self, lines: u8) {
        self.cpu.cp0.set_lines(lines);
    }

    fn read_memory<'py>(&self, py: Python<'py>, address: u64, length: usize) -> PyResult<Bound<'py, PyBytes>> {
        self.check(address, length)?;
        PyBytes::new_with(py, length, |bytes| {
            self.memory.read(MachineAddr(address), bytes);
            Ok(())
        })
    }

    fn write_memory(&mut self, address: u64, data: &[u8]) -> PyResult<()> {
        self.check(address, data.len())?;
        self.memory.write(MachineAddr(address), data);
        Ok(())
    }
}

impl BareCpu {
    fn check(&self, address: u64, length: usize) -> PyResult<()> {
        if self.memory.contains(MachineAddr(address), length as u64) {
            return Ok(());
        }
        let size = self.memory.bytes_per_node();
        Err(PyValueError::new_err(format!("{length} bytes at {address:#x} asked; memory has {size:#x} bytes")))
    }
}

fn check_32(values: &[u64]) -> PyResult<()> {
    if values.len() == 32 {
        return Ok(());
    }
    Err(PyValueError::new_err(format!("{} registers given; there are 32", values.len())))
}
