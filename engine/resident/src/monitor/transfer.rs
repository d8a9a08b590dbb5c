//! Bytes from one VM's memory to another's: what is left to do with a frame when both ends are VMs.
//!
//! Where a whole page of the sender meets a whole page of the receiver, the sender's machine page can become the page
//! of both, which neither may write, in place of a copy. What its first writer then does is that of any shared page
//! (`sharing.rs`). All of it between rounds.
//!
//! Source: Disco (SOSP'97) section 4.2.6.

use machine::{MachineAddr, Mpn, PAGE_BYTES, PhysAddr, Ppn};

use super::{Monitor, MonitorError, Result};
use crate::pmap::PageState;

/// A stretch of physical memory: where it begins, bytes.
pub type Range = (PhysAddr, u64);

/// What became of the pages of a transfer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transferred {
    /// Whole pages at both ends.
    pub pages_whole: usize,
    /// Those of them that both have now.
    pub pages_remapped: usize,
}

/// Bytes that lie in one page at each end.
#[derive(Clone, Copy)]
struct Step {
    source: PhysAddr,
    target: PhysAddr,
    bytes: u64,
}

impl Step {
    fn is_whole(&self) -> bool {
        self.bytes == PAGE_BYTES
    }
}

impl Monitor {
    /// Stores what one VM has in the ranges `source` over those of another, `target`, which are as long together.
    /// Whole pages are mapped into both if `remap` says so, all else is copied. Absent pages are zeros.
    ///
    /// # Errors
    /// As [`Monitor::write_pieces`]; nothing has changed then.
    pub fn transfer(
        &mut self,
        from: u32,
        source: &[Range],
        to: u32,
        target: &[Range],
        remap: bool,
    ) -> Result<Transferred> {
        for (vm, ranges) in [(from, source), (to, target)] {
            for (paddr, bytes) in ranges {
                self.check_ram(vm, *paddr, *bytes)?;
            }
        }
        let all = steps(source, target);
        let mut copied: Vec<Ppn> = Vec::with_capacity(all.len());
        copied.extend(all.iter().filter(|step| !step.is_whole()).map(|step| step.target.page()));
        copied.sort_unstable();
        // A page that is also written piece by piece has to be the receiver's own.
        let is_mapped = |monitor: &mut Self, step: &Step| -> Result<bool> {
            let is_possible =
                remap && from != to && step.is_whole() && copied.binary_search(&step.target.page()).is_err();
            Ok(is_possible && monitor.vm(from)?.pmap.row(step.source.page()).state().has_page())
        };
        let (mut mapped, mut rest) = (Vec::new(), Vec::with_capacity(all.len()));
        for step in &all {
            if is_mapped(self, step)? { mapped.push(*step) } else { rest.push(*step) }
        }
        self.check_writable(to, &rest)?;
        for step in &rest {
            self.copy_step(from, to, step)?;
        }
        for step in &mapped {
            let mpn = self.lend_page(from, step.source.page())?;
            self.map_shared(to, step.target.page(), mpn)?;
        }
        let pages_whole = all.iter().filter(|step| step.is_whole()).count();
        Ok(Transferred { pages_whole, pages_remapped: mapped.len() })
    }

    /// Makes a page of a VM one that it may not write, so that others can have it too.
    pub(super) fn lend_page(&mut self, vm: u32, page: Ppn) -> Result<Mpn> {
        let row = self.vm(vm)?.pmap.row(page);
        if row.state() == PageState::Private {
            self.shoot_down(vm, page)?;
            self.vm(vm)?.pmap.set_page(page, Mpn(row.mpn), PageState::Shared, false);
        }
        Ok(Mpn(row.mpn))
    }

    fn check_writable(&mut self, vm: u32, steps: &[Step]) -> Result<()> {
        let pmap = &self.vm(vm)?.pmap;
        let targets = steps.iter().map(|step| step.target.page());
        let mut pages: Vec<Ppn> = targets.filter(|page| pmap.row(*page).writable == 0).collect();
        if pages.is_empty() {
            return Ok(());
        }
        pages.sort_unstable();
        pages.dedup();
        Err(MonitorError::NotPresent { vm, pages })
    }

    fn copy_step(&mut self, from: u32, to: u32, step: &Step) -> Result<()> {
        let row = self.vm(from)?.pmap.row(step.source.page());
        let mpn = Mpn(self.vm(to)?.pmap.row(step.target.page()).mpn);
        let in_page = |mpn: Mpn, paddr: PhysAddr| MachineAddr(mpn.address().0 + (paddr.0 & (PAGE_BYTES - 1)));
        let mut buffer = [0; PAGE_BYTES as usize];
        let bytes = &mut buffer[..step.bytes as usize];
        if row.state().has_page() {
            self.memory.read(in_page(Mpn(row.mpn), step.source), bytes);
        }
        self.memory.write(in_page(mpn, step.target), bytes);
        Ok(())
    }
}

/// Both lists cut where either crosses a page or begins a new range.
fn steps(source: &[Range], target: &[Range]) -> Vec<Step> {
    let (mut sources, mut targets) = (source.iter().copied(), target.iter().copied());
    let (mut source, mut target) = (sources.next(), targets.next());
    let mut all = Vec::new();
    while let (Some((from, from_bytes)), Some((to, to_bytes))) = (source, target) {
        let in_page = |paddr: PhysAddr| PAGE_BYTES - (paddr.0 & (PAGE_BYTES - 1));
        let bytes = from_bytes.min(to_bytes).min(in_page(from)).min(in_page(to));
        if bytes > 0 {
            all.push(Step { source: from, target: to, bytes });
        }
        let behind = |paddr: PhysAddr, left: u64| (PhysAddr(paddr.0 + bytes), left - bytes);
        source = Some(behind(from, from_bytes)).filter(|(_, left)| *left > 0).or_else(|| sources.next());
        target = Some(behind(to, to_bytes)).filter(|(_, left)| *left > 0).or_else(|| targets.next());
    }
    all
}
