//! Pages set aside for a VM, so that its page faults need no decision of their own.
//!
//! A placement policy that always gives the same answer (the node of the fault, for one) can give it in advance:
//! "for faults of this VM on CPUs of that node, these pages". A fault that finds a page here is answered where it
//! happens; one that does not is an event, as it is for a policy that wants to be asked each time. What the guest
//! sees and pays is the same.
//!
//! Pages are set aside and put back at boundaries only. Within a round a VM takes from its own and touches
//! nobody else's, so which page it gets does not depend on what other VMs do at the same time. The memmap learns of
//! it at the boundary ([`Reserve::take_placed`]); until then nobody looks.

use std::collections::BTreeMap;

use machine::{Mpn, NodeId, Ppn};

/// The pages set aside for one VM.
#[derive(Debug, Default)]
pub struct Reserve {
    /// By the node of the CPU that faults; the last of each list goes first.
    pages: BTreeMap<NodeId, Vec<Mpn>>,
    /// What has gone since the last boundary, and for which physical page.
    placed: Vec<(Mpn, Ppn)>,
}

impl Reserve {
    /// Sets zeroed pages aside for faults on CPUs of `node`, to go in this order, before those that are there.
    pub fn add(&mut self, node: NodeId, pages: Vec<Mpn>) {
        self.pages.entry(node).or_default().extend(pages.into_iter().rev());
    }

    /// A page for a fault on a CPU of `node`.
    pub fn take(&mut self, node: NodeId, page: Ppn) -> Option<Mpn> {
        let mpn = self.pages.get_mut(&node)?.pop()?;
        self.placed.push((mpn, page));
        Some(mpn)
    }

    /// What has gone since the last call, in order.
    pub fn take_placed(&mut self) -> impl Iterator<Item = (Mpn, Ppn)> {
        self.placed.drain(..)
    }

    /// Gives everything up that has not gone.
    pub fn take_rest(&mut self) -> impl Iterator<Item = Mpn> {
        std::mem::take(&mut self.pages).into_values().flatten()
    }

    /// The pages that have not gone.
    pub fn rest(&self) -> impl Iterator<Item = Mpn> {
        self.pages.values().flatten().copied()
    }
}
