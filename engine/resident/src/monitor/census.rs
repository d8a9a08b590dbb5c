//! Machine pages by node and owner, counted in the tables when somebody asks.

use std::sync::Arc;

use machine::{Mpn, NodeId};

use super::{Monitor, Result};
use crate::memmap::Owner;

impl Monitor {
    /// Machine pages in a VM's pmap, by node.
    ///
    /// # Errors
    /// [`super::MonitorError::NoVm`].
    pub fn pages_by_node(&mut self, vm: u32) -> Result<Vec<u64>> {
        let (memory, nodes) = (Arc::clone(&self.memory), self.config.nodes);
        let present = self.vm(vm)?.pmap.present();
        Ok(by_node(nodes, present.map(|(_, row)| memory.node_of(Mpn(row.mpn)))))
    }

    /// Machine pages that hold the monitor's tables for a VM, by node.
    ///
    /// # Errors
    /// [`super::MonitorError::NoVm`].
    pub fn table_pages_by_node(&mut self, vm: u32) -> Result<Vec<u64>> {
        let (memory, nodes) = (Arc::clone(&self.memory), self.config.nodes);
        let pages = &self.vm(vm)?.table_pages;
        Ok(by_node(nodes, pages.iter().map(|page| memory.node_of(*page))))
    }

    /// Machine pages of the whole machine that `owner` has, by node.
    pub fn owned_pages_by_node(&self, owner: Owner) -> Vec<u64> {
        let count = |node: u16| {
            let first = self.memory.first_page(NodeId(node)).0;
            let rows = (first..first + self.memory.pages_per_node()).map(|page| self.memmap.row(Mpn(page)));
            rows.filter(|row| row.owner == owner as u8).count() as u64
        };
        (0..self.config.nodes).map(count).collect()
    }
}

fn by_node(nodes: u16, of_pages: impl Iterator<Item = NodeId>) -> Vec<u64> {
    let mut counts = vec![0; usize::from(nodes)];
    for node in of_pages {
        counts[usize::from(node.0)] += 1;
    }
    counts
}
