//! Pages that several VMs map, none of which may write them, and the disk cache from which they come.
//!
//! What goes into the cache, and out of it, is decided in Python; here pages are filled, mapped and copied, many at
//! a call. A machine page of the cache is mapped in place of the page that a VM had: the old one is shot down and
//! freed, as if a disk had written the new content over it. The first write to a shared page is a page fault,
//! and [`Monitor::unshare_page`] answers it with a page of the VM's own. All of it between rounds.
//!
//! Source: Disco (SOSP'97) section 4.2.5.

use machine::{Mpn, NodeId, PAGE_BYTES, Ppn};

use super::{Monitor, MonitorError, Result};
use crate::memmap::Owner;
use crate::pmap::PageState;

impl Monitor {
    /// Takes free pages of the node into the cache, filled with `contents`, until these or the node's free pages
    /// are at an end. What does not fill a page is left out.
    ///
    /// # Errors
    /// [`MonitorError::NoNode`].
    pub fn fill_cache(&mut self, node: u16, contents: &[u8]) -> Result<Vec<Mpn>> {
        self.check_node(node)?;
        let mut pages = Vec::with_capacity(contents.len() / PAGE_BYTES as usize);
        for content in contents.chunks_exact(PAGE_BYTES as usize) {
            let Some(mpn) = self.allocate_for_cache(NodeId(node)) else { break };
            self.memory.write(mpn.address(), content);
            pages.push(mpn);
        }
        Ok(pages)
    }

    /// As for a VM, what has been set aside is free when nothing else is.
    fn allocate_for_cache(&mut self, node: NodeId) -> Option<Mpn> {
        self.memmap.allocate_for_cache(node).or_else(|| {
            self.put_reserves_back();
            self.memmap.allocate_for_cache(node)
        })
    }

    /// Which of these pages of the cache have another content than the one beside them, as places in the list.
    ///
    /// # Errors
    /// [`MonitorError::NotCached`] naming the first that is not in it.
    pub fn differing(&self, pairs: &[(Mpn, &[u8])]) -> Result<Vec<usize>> {
        let pages: Vec<Mpn> = pairs.iter().map(|(page, _)| *page).collect();
        self.check_cached(&pages)?;
        let mut there = [0; PAGE_BYTES as usize];
        let mut differs = |(page, content): &(Mpn, &[u8])| {
            self.memory.read(page.address(), &mut there);
            there != **content
        };
        let places = pairs.iter().enumerate();
        Ok(places.filter(|(_, pair)| differs(pair)).map(|(place, _)| place).collect())
    }

    /// Takes pages out of the cache: free then, or their users' alone.
    ///
    /// # Errors
    /// [`MonitorError::NotCached`] naming the first that is not in it; nothing has changed then.
    pub fn drop_cached(&mut self, pages: &[Mpn]) -> Result<()> {
        self.check_cached(pages)?;
        pages.iter().for_each(|page| self.memmap.release_from_cache(*page));
        Ok(())
    }

    /// Maps pages of the cache read-only as the VM's pages in these runs (first, count), in place of what it had
    /// there. There are as many pages in the runs as in `pages`.
    ///
    /// # Errors
    /// [`MonitorError::PageState`] when a page is not RAM, [`MonitorError::NotCached`]; nothing has changed then.
    pub fn map_cached(&mut self, vm: u32, runs: &[(Ppn, u32)], pages: &[Mpn]) -> Result<()> {
        self.check_cached(pages)?;
        self.check_runs(vm, runs)?;
        let targets = runs.iter().flat_map(|(first, count)| (first.0..first.0 + count).map(Ppn));
        for (ppn, mpn) in targets.zip(pages) {
            self.map_shared(vm, ppn, *mpn)?;
        }
        Ok(())
    }

    pub(super) fn map_shared(&mut self, vm: u32, ppn: Ppn, mpn: Mpn) -> Result<()> {
        let pmap = &self.vm(vm)?.pmap;
        let old = pmap.row(ppn);
        let had_page = old.state().has_page();
        if had_page && old.mpn == mpn.0 {
            return Ok(());
        }
        if had_page && pmap.may_be_in_tlb(ppn) {
            self.shoot_down(vm, ppn)?;
        }
        self.vm(vm)?.pmap.set_page(ppn, mpn, PageState::Shared, false);
        self.memmap.share(mpn, vm, ppn);
        if had_page {
            self.memmap.release(Mpn(old.mpn), vm, ppn);
        }
        Ok(())
    }

    /// Gives the VM a page of its own with the content of a shared one: a copy on a free page of the node, or, if
    /// nobody else has it, the page itself. `None`: the node is full.
    ///
    /// # Errors
    /// [`MonitorError::NoNode`]; [`MonitorError::PageState`] when the page is not shared.
    pub fn unshare_page(&mut self, vm: u32, page: Ppn, node: u16) -> Result<Option<Mpn>> {
        self.check_node(node)?;
        self.check_state(vm, page, &[PageState::Shared], "shared")?;
        let pmap_row = self.vm(vm)?.pmap.row(page);
        let source = Mpn(pmap_row.mpn);
        let row = self.memmap.row(source);
        if row.owner == Owner::Guest as u8 && row.users == 1 {
            self.contents.counts.broken += u64::from(pmap_row.merged);
            self.shoot_down(vm, page)?;
            self.vm(vm)?.pmap.set_page(page, source, PageState::Private, true);
            return Ok(Some(source));
        }
        let Some(target) = self.allocate(NodeId(node), vm, page) else { return Ok(None) };
        self.contents.counts.broken += u64::from(pmap_row.merged);
        self.shoot_down(vm, page)?;
        self.memory.copy_page(source, target);
        self.vm(vm)?.pmap.set_page(page, target, PageState::Private, true);
        self.memmap.release(source, vm, page);
        self.charge_faulted(vm, page, self.config.costs.page_copy);
        Ok(Some(target))
    }

    /// Whether a VM's page is shared, so that a write to it needs [`Monitor::unshare_page`].
    ///
    /// # Errors
    /// [`MonitorError::NoVm`].
    pub fn is_shared(&mut self, vm: u32, page: Ppn) -> Result<bool> {
        Ok(self.vm(vm)?.pmap.row(page).state() == PageState::Shared)
    }

    fn check_cached(&self, pages: &[Mpn]) -> Result<()> {
        let rows = self.memmap.table().rows();
        let is_cached =
            |page: &Mpn| (page.0 as usize) < rows && self.memmap.row(*page).owner == Owner::Cache as u8;
        match pages.iter().find(|page| !is_cached(page)) {
            Some(page) => Err(MonitorError::NotCached(*page)),
            None => Ok(()),
        }
    }
}
