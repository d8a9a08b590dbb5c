//! Without the monitor: exceptions are delivered as the manual says, nobody is in between.
//!
//! [`BareCpu`] is for second opinions: a test loads a program here and into an independent emulator, and
//! compares. [`BareMachine`] has devices too and boots a kernel: the baseline of a comparison. Where its calls
//! name a VM, that is there so that devices can be wired to it as to a VM, and always 0; a vCPU is a CPU.

use std::sync::Arc;

use machine::bare::{Bare, BareError, BareEvent, BareStop};
use machine::cp0::Mode;
use machine::{Cpu, CpuConfig, Cycles, MachineAddr, MachineMemory, NodeId, PhysAddr, PhysRange, Stop};
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::engine::engine_of;
use crate::events::{DeviceAccess, PostedWrites, VcpuStopped, service_to_py};

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
            stop @ (Stop::Trap(_) | Stop::LookAround) => unreachable!("{stop:?} of a bare CPU"),
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
        check_range(&self.memory, address, length)
    }
}

fn check_32(values: &[u64]) -> PyResult<()> {
    if values.len() == 32 {
        return Ok(());
    }
    Err(PyValueError::new_err(format!("{} registers given; there are 32", values.len())))
}

/// A machine with devices.
#[pyclass(module = "disco._engine")]
pub struct BareMachine {
    machine: Bare,
}

#[pymethods]
#[expect(unused_variables, reason = "devices are wired to a VM and to a bare machine by the same calls")]
impl BareMachine {
    #[new]
    #[pyo3(signature = (*, memory_bytes, cpus=1, interleave_cycles=2000, engine="translator"))]
    fn new(memory_bytes: u64, cpus: u32, interleave_cycles: u64, engine: &str) -> PyResult<BareMachine> {
        let engine = engine_of(engine)?;
        let mut machine = Bare::new(memory_bytes, cpus, Cycles(interleave_cycles)).map_err(to_py)?;
        let accelerators = engine.accelerators(cpus as usize, 1).map_err(crate::events::to_py)?;
        for (cpu, accelerator) in (0..cpus).zip(accelerators) {
            machine.cpu(cpu).map_err(to_py)?.set_accelerator(accelerator);
        }
        Ok(BareMachine { machine })
    }

    #[getter]
    fn now(&mut self) -> u64 {
        self.machine.now().0
    }

    #[pyo3(signature = (*, pc, gpr))]
    fn set_cpu(&mut self, pc: u64, gpr: std::collections::BTreeMap<u8, u64>) -> PyResult<()> {
        if let Some(register) = gpr.keys().find(|register| !(1..32).contains(*register)) {
            return Err(PyValueError::new_err(format!("register {register} asked; possible are 1 to 31")));
        }
        let cpu = self.machine.cpu(0).map_err(to_py)?;
        for (register, value) in gpr {
            cpu.regs.gpr[usize::from(register)] = value;
        }
        cpu.regs.pc = pc;
        Ok(())
    }

    fn add_window(&mut self, vm: u32, paddr: u64, size: u64) {
        self.machine.add_device(PhysRange { base: PhysAddr(paddr), bytes: size });
    }

    fn latch(&mut self, vm: u32, paddr: u64, size: u8, value: u64) {
        self.machine.windows().latch(PhysAddr(paddr), size, value);
    }

    fn post(&mut self, vm: u32, paddr: u64, size: u8) {
        self.machine.windows().post(PhysAddr(paddr), size);
    }

    fn trap(&mut self, vm: u32, paddr: u64, size: u8) {
        self.machine.windows().trap(PhysAddr(paddr));
    }

    fn set_line(&mut self, vm: u32, vcpu: u32, line: u8, level: bool) -> PyResult<()> {
        self.machine.set_line(line, level).map_err(to_py)
    }

    fn set_wire(&mut self, vm: u32, source: usize, level: bool) -> PyResult<()> {
        self.machine.set_wire(source, level).map_err(to_py)
    }

    fn connect_interrupt(&mut self, vm: u32, status: u64, clear: u64, line: u8) {
        self.machine.windows().connect_interrupt(PhysAddr(status), PhysAddr(clear), line);
    }

    fn update_interrupt(&mut self, vm: u32, clear: u64, cleared: u32, raised: u32) -> PyResult<u32> {
        self.machine.update_interrupt(PhysAddr(clear), cleared, raised).map_err(to_py)
    }

    fn complete_access(&mut self, vm: u32, vcpu: u32, value: u64) -> PyResult<()> {
        self.machine.complete_access(vcpu, value).map_err(to_py)
    }

    fn read_physical<'py>(
        &mut self,
        py: Python<'py>,
        vm: u32,
        paddr: u64,
        length: usize,
    ) -> PyResult<Bound<'py, PyBytes>> {
        self.check(paddr, length)?;
        PyBytes::new_with(py, length, |bytes| {
            self.machine.memory().read(MachineAddr(paddr), bytes);
            Ok(())
        })
    }

    fn write_physical(&mut self, vm: u32, paddr: u64, data: &[u8]) -> PyResult<()> {
        self.check(paddr, data.len())?;
        self.machine.memory().write(MachineAddr(paddr), data);
        Ok(())
    }

    /// Runs without the GIL until CPUs stand still, or time reaches `until`.
    fn run(&mut self, py: Python<'_>, until: u64) -> PyResult<Vec<Py<PyAny>>> {
        let stops = py.detach(|| self.machine.run(Cycles(until)));
        let mut events = Vec::new();
        if self.machine.windows().has_log() {
            let log = self.machine.windows().take_log();
            let writes = log.into_iter().map(|w| (w.cycle.0, w.paddr.0, w.size, w.value)).collect();
            events.push(PostedWrites::new(0, writes).into_py_any(py)?);
        }
        for BareEvent { cpu, stop, pc, cycle } in stops {
            events.push(match stop {
                BareStop::Access(access) => DeviceAccess::new(0, cpu, &access, cycle.0).into_py_any(py)?,
                BareStop::Halted => VcpuStopped::halted(cpu, pc, cycle.0).into_py_any(py)?,
            });
        }
        Ok(events)
    }

    fn next_event(&mut self) -> Option<u64> {
        self.machine.next_event().map(|cycles| cycles.0)
    }

    fn record_services(&mut self) {
        self.machine.record_services();
    }

    fn services<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let services = self.machine.services();
        services.iter().map(|(service, cost)| service_to_py(py, *service, cost, |_| Vec::new())).collect()
    }

    fn counters<'py>(&mut self, py: Python<'py>, cpu: u32) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        for (name, value) in self.machine.counters(cpu).map_err(to_py)?.rows() {
            dict.set_item(name, value)?;
        }
        Ok(dict)
    }
}

impl BareMachine {
    fn check(&self, paddr: u64, length: usize) -> PyResult<()> {
        check_range(self.machine.memory(), paddr, length)
    }
}

fn to_py(error: BareError) -> PyErr {
    PyValueError::new_err(error.to_string())
}

fn check_range(memory: &MachineMemory, address: u64, length: usize) -> PyResult<()> {
    if memory.contains(MachineAddr(address), length as u64) {
        return Ok(());
    }
    let size = memory.bytes_per_node();
    Err(PyValueError::new_err(format!("{length} bytes at {address:#x} asked; memory has {size:#x} bytes")))
}
