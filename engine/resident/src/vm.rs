//! A virtual machine: its pmap, its vCPUs and its device registers.

use machine::coherence::PowerAction;
use machine::memory::MemoryError;
use machine::{CpuConfig, Cycles, Mpn, PAGE_SHIFT, PhysRange};

use crate::pmap::Pmap;
use crate::reserve::Reserve;
use crate::vcpu::{Vcpu, VcpuState};
use machine::smp::Smp;
use machine::windows::Windows;

/// A virtual machine.
#[derive(Debug)]
pub struct Vm {
    /// Its number.
    pub id: u32,
    /// Physical to machine pages.
    pub pmap: Pmap,
    /// Machine pages for its next page faults.
    pub reserve: Reserve,
    /// Registers that need no trip to Python.
    pub windows: Windows,
    /// Its virtual CPUs.
    pub vcpus: Vec<Vcpu>,
    /// What connects them, if there are several.
    pub smp: Option<Smp>,
    /// Machine pages that hold the monitor's tables for it.
    pub table_pages: Vec<Mpn>,
}

/// Physical address space that a pmap covers at least, so that device windows below it have rows.
const PMAP_BYTES_MIN: u64 = 512 << 20;

impl Vm {
    /// A VM whose RAM is absent everywhere.
    ///
    /// # Errors
    /// [`MemoryError::Host`] when the host refuses the address space of the tables.
    pub fn new(
        id: u32,
        ram: &[PhysRange],
        vcpus: u32,
        l2tlb_entries: usize,
        large_pages: bool,
    ) -> Result<Vm, MemoryError> {
        let end = ram.iter().map(|range| range.end()).max().unwrap_or(0).max(PMAP_BYTES_MIN);
        let mut pmap = Pmap::new((end >> PAGE_SHIFT) as usize, ram, large_pages)?;
        let smp = (vcpus > 1).then(|| Smp::new(vcpus));
        if smp.is_some() {
            for page in Smp::WINDOWS.iter().flat_map(|window| window.pages()) {
                pmap.set_device(page);
            }
        }
        let config = CpuConfig { coherence_manager: smp.is_some(), ..CpuConfig::guest() };
        let vcpu = |number| Vcpu::new(config.clone(), number, l2tlb_entries);
        let vcpus = (0..vcpus).map(vcpu).collect::<Result<_, _>>()?;
        let (reserve, windows) = (Reserve::default(), Windows::default());
        Ok(Vm { id, pmap, reserve, windows, vcpus, smp, table_pages: Vec::new() })
    }

    /// Puts what connects the vCPUs into its reset state: vCPU 0 is up, the others are off.
    pub fn reset_platform(&mut self) {
        if self.smp.is_some() {
            self.smp = Some(Smp::new(self.vcpus.len() as u32));
            for vcpu in &mut self.vcpus[1..] {
                vcpu.state = VcpuState::Off;
            }
        }
    }

    /// Gives all vCPUs the clock of one that has set it: they have a single one, whatever a guest writes.
    pub fn share_clock(&mut self, vcpu: u32, now: Cycles) {
        if !self.smp.as_mut().is_some_and(|smp| smp.clock.take_set()) {
            return;
        }
        let count = self.vcpus[vcpu as usize].cp0.count(now);
        for vcpu in &mut self.vcpus {
            vcpu.cp0.set_count(count, now);
        }
    }

    /// Brings the interrupt lines of a vCPU up to date with the controller.
    pub fn refresh_lines(&mut self, vcpu: u32) {
        if let Some(smp) = &self.smp {
            self.vcpus[vcpu as usize].set_lines(smp.gic.lines(vcpu as usize));
        }
    }

    /// Carries out the starts and stops of vCPUs that have been asked for.
    pub fn apply_power_actions(&mut self) {
        let Some(smp) = &mut self.smp else { return };
        for action in smp.take_actions() {
            match action {
                PowerAction::Start { core, address } => self.vcpus[core].state = VcpuState::Starting(address),
                PowerAction::Stop { core } => self.vcpus[core].state = VcpuState::Off,
                PowerAction::None => {}
            }
        }
    }
}
