//! The monitor's face for Python. Every method is one call of [`resident::Monitor`].

use std::collections::BTreeMap;

use machine::cp0::REGISTERS;
use machine::{Cycles, Mpn, PAGE_BYTES, PhysAddr, PhysRange, Ppn};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyDict};
use resident::follow::MissKind;
use resident::memmap::Owner;
use resident::schedule::{PoolPlan, VcpuId};
use resident::{Costs, EngineKind, FootprintPages, Monitor, MonitorConfig};

use crate::events::{event_to_py, service_to_py, to_py};
use crate::tables::TableView;
use crate::virtqueue::{self, Chain, Rings, VmMemory};

/// The machine with Disco's resident part on it.
#[pyclass(module = "disco._engine")]
pub struct Engine {
    monitor: Monitor,
}

/// A pool as Python writes it: CPUs, vCPUs (VM, index, weight), whether they form gangs, cycles of a time slice.
type PoolRow = (Vec<u16>, Vec<(u32, u32, u32)>, bool, u64);

impl Engine {
    fn check_machine_page(&self, mpn: u32) -> PyResult<()> {
        let rows = self.monitor.memory().page_rows();
        if (mpn as usize) < rows {
            return Ok(());
        }
        Err(PyValueError::new_err(format!("machine page {mpn:#x} asked; those below {rows:#x} are possible")))
    }
}

/// [`resident::Footprint`] as Python has it: pages of VMs by use, machine pages by use, pages that two VMs have in
/// common, pages of the cache that nobody maps.
type FootprintRows =
    (Vec<(u32, &'static str, u64, u64, u64, u64)>, Vec<(&'static str, u64)>, Vec<(u32, u32, u64)>, u64);

#[pymethods]
impl Engine {
    #[new]
    #[pyo3(signature = (*, node_of_cpu, nodes, memory_bytes_per_node, quantum_cycles, tlb_entries,
                        l2tlb_entries, host_threads, costs, interleave_cycles=2000, large_pages=true,
                        engine="translator"))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments of a Python constructor")]
    fn new(
        node_of_cpu: Vec<u16>,
        nodes: u16,
        memory_bytes_per_node: u64,
        quantum_cycles: u64,
        tlb_entries: u8,
        l2tlb_entries: usize,
        host_threads: usize,
        costs: BTreeMap<String, u64>,
        interleave_cycles: u64,
        large_pages: bool,
        engine: &str,
    ) -> PyResult<Engine> {
        let config = MonitorConfig {
            node_of_cpu,
            nodes,
            memory_bytes_per_node,
            quantum: Cycles(quantum_cycles),
            interleave: Cycles(interleave_cycles),
            slice_rounds: 1,
            tlb_entries,
            l2tlb_entries,
            large_pages,
            host_threads,
            costs: costs_of(&costs)?,
            engine: engine_of(engine)?,
        };
        Ok(Engine { monitor: Monitor::new(config).map_err(to_py)? })
    }

    #[getter]
    fn translation_seconds(&self) -> f64 {
        self.monitor.translation_time().as_secs_f64()
    }

    #[getter]
    fn now(&self) -> u64 {
        self.monitor.now().0
    }

    #[pyo3(signature = (*, ram, vcpus))]
    fn create_vm(&mut self, ram: Vec<(u64, u64)>, vcpus: u32) -> PyResult<u32> {
        let ram: Vec<PhysRange> = ram.into_iter().map(|(base, bytes)| range(base, bytes)).collect();
        self.monitor.create_vm(&ram, vcpus).map_err(to_py)
    }

    fn destroy_vm(&mut self, vm: u32) -> PyResult<()> {
        self.monitor.destroy_vm(vm).map_err(to_py)
    }

    #[pyo3(signature = (vm, vcpu, *, pc, gpr))]
    fn set_vcpu(&mut self, vm: u32, vcpu: u32, pc: u64, gpr: BTreeMap<u8, u64>) -> PyResult<()> {
        if let Some(register) = gpr.keys().find(|register| !(1..32).contains(*register)) {
            return Err(PyValueError::new_err(format!("register {register} asked; possible are 1 to 31")));
        }
        let gpr: Vec<(u8, u64)> = gpr.into_iter().collect();
        self.monitor.set_vcpu(vm, vcpu, pc, &gpr).map_err(to_py)
    }

    fn set_pools(&mut self, pools: Vec<PoolRow>) -> PyResult<()> {
        let quantum = self.monitor.quantum().0;
        let plans: Vec<PoolPlan> = pools
            .into_iter()
            .map(|(cpus, vcpus, gang, slice_cycles)| PoolPlan {
                cpus,
                vcpus: vcpus.into_iter().map(|(vm, vcpu, weight)| (VcpuId { vm, vcpu }, weight)).collect(),
                gang,
                slice_rounds: slice_cycles.div_ceil(quantum).try_into().unwrap_or(u32::MAX),
            })
            .collect();
        self.monitor.set_pools(&plans).map_err(to_py)
    }

    fn cpu_of(&mut self, vm: u32, vcpu: u32) -> PyResult<Option<u16>> {
        self.monitor.cpu_of(vm, vcpu).map_err(to_py)
    }

    fn vcpu_registers(&mut self, vm: u32, vcpu: u32) -> PyResult<BTreeMap<String, u64>> {
        let now = self.monitor.now();
        self.monitor
            .inspect(vm, vcpu, |vcpu, regs| {
                let mut all: BTreeMap<String, u64> =
                    (0..32).map(|number| (format!("r{number}"), regs.gpr[number])).collect();
                all.extend([("pc", regs.pc), ("hi", regs.hi), ("lo", regs.lo)].map(|(n, v)| (n.to_owned(), v)));
                all.extend(
                    REGISTERS.iter().map(|row| (row.name.to_owned(), vcpu.cp0.read(row.number, row.select, now))),
                );
                all
            })
            .map_err(to_py)
    }

    fn add_window(&mut self, vm: u32, paddr: u64, size: u64) -> PyResult<()> {
        self.monitor.add_window(vm, range(paddr, size)).map_err(to_py)
    }

    fn latch(&mut self, vm: u32, paddr: u64, size: u8, value: u64) -> PyResult<()> {
        self.monitor.windows(vm).map_err(to_py)?.latch(PhysAddr(paddr), size, value);
        Ok(())
    }

    fn post(&mut self, vm: u32, paddr: u64, size: u8) -> PyResult<()> {
        self.monitor.windows(vm).map_err(to_py)?.post(PhysAddr(paddr), size);
        Ok(())
    }

    #[expect(unused_variables, reason = "the three calls have one shape in Python")]
    fn trap(&mut self, vm: u32, paddr: u64, size: u8) -> PyResult<()> {
        self.monitor.windows(vm).map_err(to_py)?.trap(PhysAddr(paddr));
        Ok(())
    }

    fn connect_interrupt(&mut self, vm: u32, status: u64, clear: u64, line: u8) -> PyResult<()> {
        self.monitor.windows(vm).map_err(to_py)?.connect_interrupt(PhysAddr(status), PhysAddr(clear), line);
        Ok(())
    }

    fn update_interrupt(&mut self, vm: u32, clear: u64, cleared: u32, raised: u32) -> PyResult<u32> {
        self.monitor.update_interrupt(vm, PhysAddr(clear), cleared, raised).map_err(to_py)
    }

    fn complete_access(&mut self, vm: u32, vcpu: u32, value: u64) -> PyResult<()> {
        self.monitor.complete_access(vm, vcpu, value).map_err(to_py)
    }

    fn postpone_fault(&mut self, vm: u32, vcpu: u32, until: u64) -> PyResult<()> {
        self.monitor.postpone_fault(vm, vcpu, Cycles(until)).map_err(to_py)
    }

    fn set_line(&mut self, vm: u32, vcpu: u32, line: u8, level: bool) -> PyResult<()> {
        self.monitor.set_line(vm, vcpu, line, level).map_err(to_py)
    }

    fn set_wire(&mut self, vm: u32, source: usize, level: bool) -> PyResult<()> {
        self.monitor.set_wire(vm, source, level).map_err(to_py)
    }

    fn place_page(&mut self, vm: u32, ppn: u32, node: u16) -> PyResult<i64> {
        let placed = self.monitor.place_page(vm, Ppn(ppn), node).map_err(to_py)?;
        Ok(placed.map_or(-1, |mpn| i64::from(mpn.0)))
    }

    fn set_pages_aside(&mut self, vm: u32, cpu_node: u16, node: u16, count: usize) -> PyResult<()> {
        self.monitor.set_pages_aside(vm, cpu_node, node, count).map_err(to_py)
    }

    fn unmap_page(&mut self, vm: u32, ppn: u32) -> PyResult<()> {
        self.monitor.unmap_page(vm, Ppn(ppn)).map_err(to_py)
    }

    /// Whole pages in these ranges of RAM; what fills no page stays.
    fn discard(&mut self, vm: u32, ranges: Vec<(u64, u64)>) -> PyResult<usize> {
        let mut runs = Vec::with_capacity(ranges.len());
        for (paddr, bytes) in ranges {
            self.monitor.check_ram(vm, PhysAddr(paddr), bytes).map_err(to_py)?;
            let (first, end) = (paddr.div_ceil(PAGE_BYTES), (paddr + bytes) / PAGE_BYTES);
            runs.push((Ppn(first as u32), end.saturating_sub(first) as u32));
        }
        self.monitor.discard_pages(vm, &runs).map_err(to_py)
    }

    fn unmap_all(&mut self, vm: u32) -> PyResult<()> {
        self.monitor.unmap_all(vm).map_err(to_py)
    }

    fn protect_page(&mut self, vm: u32, ppn: u32, writable: bool) -> PyResult<()> {
        self.monitor.protect_page(vm, Ppn(ppn), writable).map_err(to_py)
    }

    fn move_page(&mut self, vm: u32, ppn: u32, node: u16) -> PyResult<i64> {
        let moved = self.monitor.move_page(vm, Ppn(ppn), node).map_err(to_py)?;
        Ok(moved.map_or(-1, |mpn| i64::from(mpn.0)))
    }

    fn fill_cache(&mut self, node: u16, contents: &[u8]) -> PyResult<Vec<u32>> {
        let pages = self.monitor.fill_cache(node, contents).map_err(to_py)?;
        Ok(pages.into_iter().map(|page| page.0).collect())
    }

    fn differing(&self, pages: Vec<u32>, contents: Vec<PyBackedBytes>) -> PyResult<Vec<usize>> {
        let pairs: Vec<(Mpn, &[u8])> =
            pages.into_iter().map(Mpn).zip(contents.iter().map(|content| &**content)).collect();
        self.monitor.differing(&pairs).map_err(to_py)
    }

    fn drop_cached(&mut self, pages: Vec<u32>) -> PyResult<()> {
        let pages: Vec<Mpn> = pages.into_iter().map(Mpn).collect();
        self.monitor.drop_cached(&pages).map_err(to_py)
    }

    /// `pages` are 32-bit numbers in the host's byte order: a call a request, and no object a page.
    fn map_cached(&mut self, vm: u32, target: Vec<(u64, u64)>, pages: &[u8]) -> PyResult<()> {
        let numbers =
            pages.chunks_exact(4).map(|bytes| u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
        let pages: Vec<Mpn> = numbers.map(Mpn).collect();
        let mut runs = Vec::with_capacity(target.len());
        for (paddr, bytes) in target {
            self.monitor.check_ram(vm, PhysAddr(paddr), bytes).map_err(to_py)?;
            runs.push((PhysAddr(paddr).page(), (bytes / PAGE_BYTES) as u32));
        }
        self.monitor.map_cached(vm, &runs, &pages).map_err(to_py)
    }

    fn unshare_page(&mut self, vm: u32, ppn: u32, node: u16) -> PyResult<i64> {
        let own = self.monitor.unshare_page(vm, Ppn(ppn), node).map_err(to_py)?;
        Ok(own.map_or(-1, |mpn| i64::from(mpn.0)))
    }

    fn is_shared(&mut self, vm: u32, ppn: u32) -> PyResult<bool> {
        self.monitor.is_shared(vm, Ppn(ppn)).map_err(to_py)
    }

    fn share_content(&mut self, vm: u32, count: usize) -> PyResult<()> {
        self.monitor.share_content(vm, count).map_err(to_py)
    }

    fn content_counts(&self) -> BTreeMap<&'static str, u64> {
        BTreeMap::from(self.monitor.content_counts().rows())
    }

    fn footprint(&mut self, kernels: BTreeMap<u32, u32>) -> PyResult<FootprintRows> {
        let kernels = kernels.into_iter().map(|(vm, end)| (vm, Ppn(end))).collect();
        let found = self.monitor.footprint(&kernels).map_err(to_py)?;
        let vms = found.vms.iter().map(|((vm, kind), pages)| {
            let FootprintPages { virtual_pages, shared_pages, merged_pages, machine_bytes } = *pages;
            (*vm, kind.name(), virtual_pages, shared_pages, merged_pages, machine_bytes)
        });
        let machine = found.machine_pages.iter().map(|(kind, pages)| (kind.name(), *pages));
        let common = found.common.iter().map(|((one, other), pages)| (*one, *other, *pages));
        Ok((vms.collect(), machine.collect(), common.collect(), found.unused_cache_pages))
    }

    fn free_pages(&self, node: u16) -> PyResult<usize> {
        self.monitor.free_pages(node).map_err(to_py)
    }

    fn pages_by_node(&mut self, vm: u32) -> PyResult<Vec<u64>> {
        self.monitor.pages_by_node(vm).map_err(to_py)
    }

    fn table_pages_by_node(&mut self, vm: u32) -> PyResult<Vec<u64>> {
        self.monitor.table_pages_by_node(vm).map_err(to_py)
    }

    fn owned_pages_by_node(&self, owner: u8) -> PyResult<Vec<u64>> {
        let owner = Owner::from_byte(owner)
            .ok_or_else(|| PyValueError::new_err(format!("owner {owner} asked; the memmap has no such")))?;
        Ok(self.monitor.owned_pages_by_node(owner))
    }

    fn node_of(&self, mpn: u32) -> PyResult<u16> {
        self.check_machine_page(mpn)?;
        Ok(self.monitor.memory().node_of(Mpn(mpn)).0)
    }

    fn read_physical<'py>(
        &mut self,
        py: Python<'py>,
        vm: u32,
        paddr: u64,
        length: usize,
    ) -> PyResult<Bound<'py, PyBytes>> {
        PyBytes::new_with(py, length, |bytes| {
            self.monitor.read_physical(vm, PhysAddr(paddr), bytes).map_err(to_py)
        })
    }

    fn gather<'py>(&mut self, py: Python<'py>, vm: u32, ranges: Vec<(u64, u64)>) -> PyResult<Bound<'py, PyBytes>> {
        for (paddr, length) in &ranges {
            self.monitor.check_ram(vm, PhysAddr(*paddr), *length).map_err(to_py)?;
        }
        let total: u64 = ranges.iter().map(|(_, length)| length).sum();
        PyBytes::new_with(py, total as usize, |bytes| {
            let mut rest = bytes;
            for (paddr, length) in ranges {
                let (piece, behind) = rest.split_at_mut(length as usize);
                self.monitor.read_physical(vm, PhysAddr(paddr), piece).map_err(to_py)?;
                rest = behind;
            }
            Ok(())
        })
    }

    fn write_pieces(&mut self, vm: u32, pieces: Vec<(u64, PyBackedBytes)>) -> PyResult<()> {
        let pieces: Vec<(PhysAddr, &[u8])> =
            pieces.iter().map(|(paddr, bytes)| (PhysAddr(*paddr), &**bytes)).collect();
        self.monitor.write_pieces(vm, &pieces).map_err(to_py)
    }

    fn check_ram(&mut self, vm: u32, ranges: Vec<(u64, u64)>) -> PyResult<()> {
        ranges
            .iter()
            .try_for_each(|(paddr, bytes)| self.monitor.check_ram(vm, PhysAddr(*paddr), *bytes))
            .map_err(to_py)
    }

    fn transfer(
        &mut self,
        vm: u32,
        source: Vec<(u64, u64)>,
        to: u32,
        target: Vec<(u64, u64)>,
        remap: bool,
    ) -> PyResult<(usize, usize)> {
        let physical = |ranges: Vec<(u64, u64)>| -> Vec<(PhysAddr, u64)> {
            ranges.into_iter().map(|(paddr, bytes)| (PhysAddr(paddr), bytes)).collect()
        };
        let done = self.monitor.transfer(vm, &physical(source), to, &physical(target), remap).map_err(to_py)?;
        Ok((done.pages_whole, done.pages_remapped))
    }

    fn take_chains(
        &mut self,
        py: Python<'_>,
        vm: u32,
        rings: &mut Rings,
        wanted: u16,
    ) -> PyResult<(u16, Vec<Chain>)> {
        self.monitor.vm(vm).map_err(to_py)?;
        virtqueue::take(py, &mut VmMemory { monitor: &mut self.monitor, vm }, rings, wanted)
    }

    fn read_virtual<'py>(
        &mut self,
        py: Python<'py>,
        vm: u32,
        vcpu: u32,
        vaddr: u64,
        length: usize,
    ) -> PyResult<Bound<'py, PyBytes>> {
        PyBytes::new_with(py, length, |bytes| self.monitor.read_virtual(vm, vcpu, vaddr, bytes).map_err(to_py))
    }

    fn pmap<'py>(&mut self, py: Python<'py>, vm: u32) -> PyResult<Bound<'py, PyAny>> {
        TableView::memoryview(py, self.monitor.vm(vm).map_err(to_py)?.pmap.table().region())
    }

    fn backmaps<'py>(&mut self, py: Python<'py>, vm: u32) -> PyResult<Bound<'py, PyAny>> {
        TableView::memoryview(py, self.monitor.vm(vm).map_err(to_py)?.pmap.backmap_table().region())
    }

    /// The (VM, physical page) pairs that use a machine page.
    fn users(&self, mpn: u32) -> PyResult<Vec<(u32, u32)>> {
        self.check_machine_page(mpn)?;
        Ok(self.monitor.memmap().users(Mpn(mpn)).iter().map(|user| (user.vm, user.ppn)).collect())
    }

    fn memmap<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        TableView::memoryview(py, self.monitor.memmap().table().region())
    }

    /// Runs without the GIL until there is something to decide or time reaches `until`.
    fn run(&mut self, py: Python<'_>, until: u64) -> PyResult<Vec<Py<PyAny>>> {
        let events = py.detach(|| self.monitor.run(Cycles(until)));
        events.into_iter().map(|event| event_to_py(py, event)).collect()
    }

    fn next_event(&mut self) -> Option<u64> {
        self.monitor.next_event().map(|cycles| cycles.0)
    }

    fn counters<'py>(&mut self, py: Python<'py>, vm: u32, vcpu: u32) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        for (name, value) in self.monitor.counters(vm, vcpu).map_err(to_py)?.rows() {
            dict.set_item(name, value)?;
        }
        Ok(dict)
    }

    fn record_services(&mut self, vm: u32) -> PyResult<()> {
        self.monitor.record_services(vm).map_err(to_py)
    }

    fn services<'py>(&mut self, py: Python<'py>, vm: u32) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let services = self.monitor.services(vm).map_err(to_py)?;
        services
            .iter()
            .map(|(service, cost)| service_to_py(py, *service, cost, |spent| spent.rows().collect()))
            .collect()
    }

    fn cpu_counters<'py>(&self, py: Python<'py>, cpu: u16) -> PyResult<Bound<'py, PyDict>> {
        let (instructions, now) = self.monitor.cpu_progress(cpu).map_err(to_py)?;
        let dict = PyDict::new(py);
        dict.set_item("instructions", instructions)?;
        dict.set_item("now", now.0)?;
        for (name, cycles) in self.monitor.cpu_time(cpu).map_err(to_py)?.rows() {
            dict.set_item(name, cycles)?;
        }
        Ok(dict)
    }

    fn set_breakpoints(&mut self, vm: u32, addresses: Vec<u64>) -> PyResult<()> {
        self.monitor.set_breakpoints(vm, &addresses).map_err(to_py)
    }

    #[pyo3(signature = (vm, *, vcpu = 0, steps = None))]
    fn go_on(&mut self, vm: u32, vcpu: u32, steps: Option<u64>) -> PyResult<()> {
        self.monitor.go_on(vm, steps.map(|steps| (vcpu, steps))).map_err(to_py)
    }

    fn follow(&mut self, vm: u32, kind: &str) -> PyResult<()> {
        let known = MissKind::NAMES;
        let Some((_, kind)) = known.iter().find(|(name, _)| *name == kind) else {
            let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
            return Err(PyValueError::new_err(format!(
                "a miss of kind '{kind}' asked; possible are {}",
                names.join(", ")
            )));
        };
        self.monitor.follow(vm, *kind).map_err(to_py)
    }
}

fn range(base: u64, bytes: u64) -> PhysRange {
    PhysRange { base: PhysAddr(base), bytes }
}

/// The engine of that name.
pub fn engine_of(name: &str) -> PyResult<EngineKind> {
    let known = EngineKind::NAMES;
    known.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind).ok_or_else(|| {
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        PyValueError::new_err(format!("the engine '{name}' asked; possible are {}", names.join(" and ")))
    })
}

fn costs_of(changes: &BTreeMap<String, u64>) -> PyResult<Costs> {
    let mut costs = Costs::default();
    for (action, cycles) in changes {
        if !costs.set(action, *cycles) {
            let known: Vec<&str> = costs.rows().into_iter().map(|(name, _)| name).collect();
            return Err(PyValueError::new_err(format!(
                "a cost of '{action}' asked; possible are {}",
                known.join(", ")
            )));
        }
    }
    Ok(costs)
}
