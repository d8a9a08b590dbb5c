//! Pages of VMs: given, taken, protected, moved, read and written. All of it between rounds.

use std::sync::Arc;

use machine::{Mpn, NodeId, PAGE_BYTES, PhysAddr, Ppn};

use super::rounds::vcpu_of;
use super::{Monitor, MonitorError, Result};
use crate::blocks::BLOCK_PAGES;
use crate::counters::Cause;
use crate::pmap::{Backmap, PageState};
use crate::vcpu::VcpuState;

impl Monitor {
    /// Takes a free page of the node, zeroed, and gives it to an absent page of the VM, private and writable.
    /// `None`: the node is full.
    ///
    /// # Errors
    /// [`MonitorError::NoNode`]; [`MonitorError::PageState`] when the page is not absent RAM.
    pub fn place_page(&mut self, vm: u32, page: Ppn, node: u16) -> Result<Option<Mpn>> {
        self.check_node(node)?;
        self.check_state(vm, page, &[PageState::Absent], "absent RAM")?;
        let Some(mpn) = self.allocate(NodeId(node), vm, page) else { return Ok(None) };
        self.vm(vm)?.pmap.set_page(page, mpn, PageState::Private, true);
        self.charge_faulted(vm, page, self.config.costs.page_zero);
        Ok(Some(mpn))
    }

    /// Answers page faults of the VM on CPUs of `cpu_node` in advance, with up to `count` free pages of `node`. When
    /// they are used up, such faults are events again; when the node is full, it takes them back.
    ///
    /// # Errors
    /// [`MonitorError::NoVm`], [`MonitorError::NoNode`].
    pub fn set_pages_aside(&mut self, vm: u32, cpu_node: u16, node: u16, count: usize) -> Result<()> {
        self.check_node(cpu_node)?;
        self.check_node(node)?;
        // A VM that has a block to begin and faults nevertheless does so where pages of a block have been taken away.
        let is_for_blocks = self.config.large_pages && !self.vm(vm)?.reserve.has_block(NodeId(cpu_node));
        let blocks = if is_for_blocks { count.div_ceil(BLOCK_PAGES as usize) } else { 0 };
        let blocks = self.memmap.set_blocks_aside(NodeId(node), blocks);
        let pages = self.memmap.set_aside(NodeId(node), count.saturating_sub(blocks.len() * BLOCK_PAGES as usize));
        self.vm(vm)?.reserve.add(NodeId(cpu_node), NodeId(node), blocks, pages);
        Ok(())
    }

    /// Takes a free page, the one that lies as `page` does if memory is handed out by blocks and it is there. What has
    /// been set aside for VMs is free when nothing else is.
    pub(super) fn allocate(&mut self, node: NodeId, vm: u32, page: Ppn) -> Option<Mpn> {
        if let Some(mpn) = self.take_in_place(node, vm, page) {
            self.memmap.own(mpn, vm, page);
            return Some(mpn);
        }
        self.memmap.allocate(node, vm, page).or_else(|| {
            self.put_reserves_back();
            self.memmap.allocate(node, vm, page)
        })
    }

    /// The page of a VM's block on the node that lies as `page` does, in a new block if there is none.
    fn take_in_place(&mut self, node: NodeId, vm: u32, page: Ppn) -> Option<Mpn> {
        let reserve = &mut self.vms[vm as usize].as_mut().filter(|_| self.config.large_pages)?.reserve;
        if !reserve.has_begun(page) {
            reserve.begin(page, self.memmap.set_block_aside(node)?, node);
        }
        reserve.take_in_place(node, page)
    }

    /// Nothing is set aside for any VM any more.
    pub(super) fn put_reserves_back(&mut self) {
        for vm in self.vms.iter_mut().flatten() {
            self.memmap.put_back(vm.reserve.take_rest());
        }
    }

    /// The memmap learns which pages VMs have taken from what was set aside for them.
    pub(super) fn settle_reserves(&mut self) {
        for vm in self.vms.iter_mut().flatten() {
            for (mpn, page) in vm.reserve.take_placed() {
                self.memmap.own(mpn, vm.id, page);
            }
        }
    }

    /// Takes a page away from a VM; it is absent then, and its content is gone.
    ///
    /// # Errors
    /// [`MonitorError::PageState`] when the page is not present.
    pub fn unmap_page(&mut self, vm: u32, page: Ppn) -> Result<()> {
        self.check_state(vm, page, &[PageState::Private, PageState::Shared], "present")?;
        self.shoot_down(vm, page)?;
        let pmap = &mut self.vm(vm)?.pmap;
        let mpn = Mpn(pmap.row(page).mpn);
        pmap.set_absent(page);
        self.memmap.release(mpn, vm, page);
        Ok(())
    }

    /// Takes the VM's pages in these runs (first, count) away where it has any; they are absent then, so their content
    /// is gone. A block of which nothing is left goes as a whole. Returns how many pages it had there.
    ///
    /// # Errors
    /// [`MonitorError::PageState`] when a page is not RAM; nothing has changed then.
    pub fn discard_pages(&mut self, vm: u32, runs: &[(Ppn, u32)]) -> Result<usize> {
        self.check_runs(vm, runs)?;
        let mut taken = Vec::new();
        for page in runs.iter().flat_map(|(first, count)| (first.0..first.0 + count).map(Ppn)) {
            let pmap = &self.vm(vm)?.pmap;
            let row = pmap.row(page);
            if !row.state().has_page() {
                continue;
            }
            if pmap.may_be_in_tlb(page) {
                self.shoot_down(vm, page)?;
            }
            self.vm(vm)?.pmap.set_absent(page);
            taken.push((Mpn(row.mpn), page));
        }
        let count = taken.len();
        let state = self.vm(vm)?;
        let mut rest = Vec::new();
        for (_, page) in taken.iter().filter(|(_, page)| !state.pmap.has_any_of_block(*page)) {
            rest.extend(state.reserve.end(*page));
        }
        self.memmap.release_all(vm, taken.into_iter());
        self.memmap.put_back(rest);
        Ok(count)
    }

    /// Whether all pages of these runs are RAM of the VM.
    pub(super) fn check_runs(&mut self, vm: u32, runs: &[(Ppn, u32)]) -> Result<()> {
        const RAM: [PageState; 3] = [PageState::Absent, PageState::Private, PageState::Shared];
        for (first, count) in runs {
            let end = first.0.checked_add(*count).ok_or(MonitorError::PageState {
                vm,
                page: *first,
                state: "nothing",
                needed: "RAM",
            })?;
            for ppn in (first.0..end).map(Ppn) {
                self.check_state(vm, ppn, &RAM, "RAM")?;
            }
        }
        Ok(())
    }

    /// Takes all pages away from a VM; its memory is as at the start.
    ///
    /// # Errors
    /// [`MonitorError::NoVm`].
    pub fn unmap_all(&mut self, vm: u32) -> Result<()> {
        let pages: Vec<Ppn> = self.vm(vm)?.pmap.present().map(|(page, _)| page).collect();
        pages.into_iter().try_for_each(|page| self.unmap_page(vm, page))?;
        let rest = self.vm(vm)?.reserve.take_rest();
        self.memmap.put_back(rest);
        Ok(())
    }

    /// Changes whether a VM may write a page of its own.
    ///
    /// # Errors
    /// [`MonitorError::PageState`] when the page is not private.
    pub fn protect_page(&mut self, vm: u32, page: Ppn, writable: bool) -> Result<()> {
        self.check_state(vm, page, &[PageState::Private], "private")?;
        self.shoot_down(vm, page)?;
        self.vm(vm)?.pmap.set_writable(page, writable);
        Ok(())
    }

    /// Copies a private page to a free page of the node and redirects the VM to it. `None`: the node is full.
    ///
    /// # Errors
    /// [`MonitorError::NoNode`]; [`MonitorError::PageState`] when the page is not private.
    pub fn move_page(&mut self, vm: u32, page: Ppn, node: u16) -> Result<Option<Mpn>> {
        self.check_node(node)?;
        self.check_state(vm, page, &[PageState::Private], "private")?;
        let Some(target) = self.allocate(NodeId(node), vm, page) else { return Ok(None) };
        self.shoot_down(vm, page)?;
        let pmap = &mut self.vm(vm)?.pmap;
        let row = pmap.row(page);
        pmap.set_page(page, target, PageState::Private, row.writable != 0);
        self.memory.copy_page(Mpn(row.mpn), target);
        self.memmap.release(Mpn(row.mpn), vm, page);
        self.charge_faulted(vm, page, self.config.costs.page_copy);
        Ok(Some(target))
    }

    /// Takes a physical page out of every TLB of its VM, by the backmaps of its pmap row.
    pub(super) fn shoot_down(&mut self, vm: u32, page: Ppn) -> Result<()> {
        let state = self.vm(vm)?;
        let row = state.pmap.row(page);
        let backmaps = state.pmap.backmaps(page);
        for vcpu in &mut state.vcpus {
            if row.overflowed != 0 {
                vcpu.l2tlb.shoot_down_page(Mpn(row.mpn));
            }
            for backmap in backmaps.used() {
                vcpu.l2tlb.shoot_down(Backmap(*backmap).vaddr());
            }
        }
        state.pmap.clear_backmaps(page);
        for slot in self.cpus.iter_mut().flatten() {
            let Some(id) = slot.loaded.filter(|id| id.vm == vm) else { continue };
            slot.charge(vcpu_of(&mut self.vms, id), Cause::Shootdown, self.config.costs.shootdown);
            slot.shoot_down(Mpn(row.mpn));
        }
        Ok(())
    }

    /// Free pages of a node, with those that are set aside for VMs.
    ///
    /// # Errors
    /// [`MonitorError::NoNode`].
    pub fn free_pages(&self, node: u16) -> Result<usize> {
        self.check_node(node)?;
        let is_there = |page: &Mpn| self.memory.node_of(*page).0 == node;
        let vms = self.vms.iter().flatten();
        let set_aside: usize = vms.map(|vm| vm.reserve.rest().filter(is_there).count()).sum();
        Ok(self.memmap.free_pages(NodeId(node)) + set_aside)
    }

    /// Reads a VM's physical memory; absent pages read as zero.
    ///
    /// # Errors
    /// [`MonitorError::NotRam`].
    pub fn read_physical(&mut self, vm: u32, paddr: PhysAddr, into: &mut [u8]) -> Result<()> {
        self.check_ram(vm, paddr, into.len() as u64)?;
        let memory = Arc::clone(&self.memory);
        let pmap = &self.vm(vm)?.pmap;
        for (page, offset, piece) in pieces_mut(paddr, into) {
            let row = pmap.row(page);
            if row.state() == PageState::Absent {
                piece.fill(0);
            } else {
                memory.read(machine::MachineAddr(Mpn(row.mpn).address().0 + offset), piece);
            }
        }
        Ok(())
    }

    /// Writes a VM's physical memory.
    ///
    /// # Errors
    /// As [`Monitor::write_pieces`].
    pub fn write_physical(&mut self, vm: u32, paddr: PhysAddr, bytes: &[u8]) -> Result<()> {
        self.write_pieces(vm, &[(paddr, bytes)])
    }

    /// Writes pieces of a VM's physical memory, all or none.
    ///
    /// # Errors
    /// [`MonitorError::NotRam`]; [`MonitorError::NotPresent`] naming the pages that have to be placed or made
    /// writable. Nothing has been written then.
    pub fn write_pieces(&mut self, vm: u32, all: &[(PhysAddr, &[u8])]) -> Result<()> {
        for (paddr, bytes) in all {
            self.check_ram(vm, *paddr, bytes.len() as u64)?;
        }
        let memory = Arc::clone(&self.memory);
        let pmap = &self.vm(vm)?.pmap;
        let pieces = || all.iter().flat_map(|(paddr, bytes)| pieces(*paddr, bytes));
        let mut in_the_way: Vec<Ppn> =
            pieces().map(|(page, ..)| page).filter(|page| pmap.row(*page).writable == 0).collect();
        if !in_the_way.is_empty() {
            in_the_way.sort_unstable();
            in_the_way.dedup();
            return Err(MonitorError::NotPresent { vm, pages: in_the_way });
        }
        for (page, offset, piece) in pieces() {
            memory.write(machine::MachineAddr(Mpn(pmap.row(page).mpn).address().0 + offset), piece);
        }
        Ok(())
    }

    /// Reads through a vCPU's own translation, as its kernel would, without side effects.
    ///
    /// # Errors
    /// [`MonitorError::NoTranslation`] at the first byte that has none.
    pub fn read_virtual(&mut self, vm: u32, vcpu: u32, vaddr: u64, into: &mut [u8]) -> Result<()> {
        let mut done = 0;
        while done < into.len() {
            let at = vaddr.wrapping_add(done as u64);
            let paddr = self.guest_physical(vm, vcpu, at)?;
            let length = (PAGE_BYTES - (at & (PAGE_BYTES - 1))).min((into.len() - done) as u64) as usize;
            self.read_physical(vm, paddr, &mut into[done..done + length])
                .map_err(|_| MonitorError::NoTranslation { vaddr: at })?;
            done += length;
        }
        Ok(())
    }

    fn guest_physical(&mut self, vm: u32, vcpu: u32, vaddr: u64) -> Result<PhysAddr> {
        use machine::segments::{Segment, classify, tlb_address};
        let none = MonitorError::NoTranslation { vaddr };
        let vcpu = self.vcpu(vm, vcpu)?;
        match classify(vaddr, machine::cp0::Mode::Kernel, &vcpu.cp0) {
            Err(_) => Err(none),
            Ok(Segment::Unmapped { phys, .. }) => Ok(PhysAddr(phys)),
            Ok(Segment::Mapped) => {
                let asid = machine::Asid(vcpu.cp0.entry_hi as u8);
                let index = vcpu.tlb.find(tlb_address(vaddr), asid).ok_or(none.clone())?;
                let entry = vcpu.tlb.get(index);
                let lo = entry.lo[entry.half(vaddr)];
                if lo & machine::tlb::entry_lo::V == 0 {
                    return Err(none);
                }
                Ok(PhysAddr(entry.physical(vaddr)))
            }
        }
    }

    pub(super) fn check_node(&self, node: u16) -> Result<()> {
        let nodes = self.config.nodes;
        if node < nodes { Ok(()) } else { Err(MonitorError::NoNode { node, nodes }) }
    }

    pub(super) fn check_state(
        &mut self,
        vm: u32,
        page: Ppn,
        wanted: &[PageState],
        needed: &'static str,
    ) -> Result<()> {
        let state = self.vm(vm)?.pmap.row(page).state();
        if wanted.contains(&state) {
            return Ok(());
        }
        Err(MonitorError::PageState { vm, page, state: crate::miss::state_name(state), needed })
    }

    /// Whether all of the bytes are RAM of the VM.
    ///
    /// # Errors
    /// [`MonitorError::NotRam`] if not.
    pub fn check_ram(&mut self, vm: u32, paddr: PhysAddr, bytes: u64) -> Result<()> {
        let error = MonitorError::NotRam { vm, paddr, bytes };
        let end = paddr.0.checked_add(bytes).filter(|end| *end <= 1 << 36).ok_or(error.clone())?;
        let pmap = &self.vm(vm)?.pmap;
        let is_ram = |page: u64| {
            matches!(
                pmap.row(Ppn(page as u32)).state(),
                PageState::Absent | PageState::Private | PageState::Shared
            )
        };
        let mut pages = paddr.0 / PAGE_BYTES..end.div_ceil(PAGE_BYTES);
        if pages.all(is_ram) { Ok(()) } else { Err(error) }
    }

    /// Charges the monitor's work on a page to the first CPU whose vCPU waits for that page.
    pub(super) fn charge_faulted(&mut self, vm: u32, page: Ppn, cycles: u64) {
        for slot in self.cpus.iter_mut().flatten() {
            let Some(id) = slot.loaded.filter(|id| id.vm == vm) else { continue };
            let vcpu = vcpu_of(&mut self.vms, id);
            if vcpu.state == VcpuState::Faulted(page) {
                slot.charge(vcpu, Cause::PageFault, cycles);
                return;
            }
        }
    }
}

/// The pages that a stretch of physical memory lies in: page, offset in it, length.
fn spans(paddr: PhysAddr, bytes: usize) -> impl Iterator<Item = (Ppn, u64, usize)> {
    let mut at = paddr.0;
    let end = paddr.0 + bytes as u64;
    std::iter::from_fn(move || {
        (at < end).then(|| {
            let offset = at & (PAGE_BYTES - 1);
            let length = (PAGE_BYTES - offset).min(end - at);
            let page = PhysAddr(at).page();
            at += length;
            (page, offset, length as usize)
        })
    })
}

fn pieces(paddr: PhysAddr, bytes: &[u8]) -> impl Iterator<Item = (Ppn, u64, &[u8])> {
    let mut rest = bytes;
    spans(paddr, bytes.len()).map(move |(page, offset, length)| {
        let (piece, behind) = rest.split_at(length);
        rest = behind;
        (page, offset, piece)
    })
}

fn pieces_mut(paddr: PhysAddr, bytes: &mut [u8]) -> impl Iterator<Item = (Ppn, u64, &mut [u8])> {
    let length = bytes.len();
    let mut rest = bytes;
    spans(paddr, length).map(move |(page, offset, length)| {
        let (piece, behind) = std::mem::take(&mut rest).split_at_mut(length);
        rest = behind;
        (page, offset, piece)
    })
}
