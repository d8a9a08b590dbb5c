//! Pages set aside for a VM, so that its page faults need no decision of their own, and its memory lies in one piece.
//!
//! A placement policy that always gives the same answer (the node of the fault, for one) can give it in advance:
//! "for faults of this VM on CPUs of that node, these pages". A fault that finds a page here is answered where it
//! happens; one that does not is an event, as it is for a policy that wants to be asked each time. What the guest
//! sees and pays is the same.
//!
//! With large pages, memory is handed out by *blocks* ([`crate::blocks`]): the first fault in a block of physical pages
//! begins a block of machine pages, and the others get the pages of it that lie as theirs do. A policy that wants another
//! node for one of them gets it; the block has a hole then.
//!
//! Pages are set aside and put back at boundaries only. Within a round a VM takes from its own and touches
//! nobody else's, so which page it gets does not depend on what other VMs do at the same time. The memmap learns of
//! it at the boundary ([`Reserve::take_placed`]); until then nobody looks.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use machine::{Mpn, NodeId, Ppn};

use crate::blocks::BLOCK_PAGES;
use crate::free::PageSet;

/// The pages set aside for one VM.
#[derive(Debug, Default)]
pub struct Reserve {
    /// By the node of the CPU that faults.
    answers: BTreeMap<NodeId, Answer>,
    /// The blocks that have been begun, by the number of the block of physical pages.
    begun: BTreeMap<u32, Begun>,
    /// What has gone since the last boundary, and for which physical page.
    placed: Vec<(Mpn, Ppn)>,
}

/// What the policy has decided for the faults on CPUs of a node.
#[derive(Debug)]
struct Answer {
    /// Where their pages are.
    node: NodeId,
    /// Blocks to begin, and single pages; the last of each goes first.
    blocks: Vec<Mpn>,
    pages: Vec<Mpn>,
}

/// A block of machine pages for a block of physical pages.
#[derive(Debug)]
struct Begun {
    base: Mpn,
    node: NodeId,
    /// Those that have not gone.
    rest: PageSet,
}

impl Begun {
    fn new(base: Mpn, node: NodeId) -> Begun {
        Begun { base, node, rest: PageSet::ALL }
    }

    fn take(&mut self, page: Ppn) -> Option<Mpn> {
        let place = page.0 % BLOCK_PAGES;
        self.rest.remove(place).then_some(Mpn(self.base.0 + place))
    }

    fn rest(&self) -> impl Iterator<Item = Mpn> + use<> {
        let base = self.base.0;
        self.rest.iter().map(move |place| Mpn(base + place))
    }
}

impl Reserve {
    /// Sets zeroed pages of `node` aside for faults on CPUs of `cpu_node`: whole blocks by their first pages, and
    /// single ones, to go in this order, before those that are there.
    pub fn add(&mut self, cpu_node: NodeId, node: NodeId, blocks: Vec<Mpn>, pages: Vec<Mpn>) {
        let answer = Answer { node, blocks: Vec::new(), pages: Vec::new() };
        let answer = self.answers.entry(cpu_node).or_insert(answer);
        answer.node = node;
        answer.blocks.extend(blocks.into_iter().rev());
        answer.pages.extend(pages.into_iter().rev());
    }

    /// A page for a fault on a CPU of `cpu_node`.
    pub fn take(&mut self, cpu_node: NodeId, page: Ppn) -> Option<Mpn> {
        let answer = self.answers.get_mut(&cpu_node)?;
        let begun = match self.begun.entry(page.0 / BLOCK_PAGES) {
            Entry::Occupied(begun) => Some(begun.into_mut()),
            Entry::Vacant(place) => answer.blocks.pop().map(|base| place.insert(Begun::new(base, answer.node))),
        };
        let begun = begun.filter(|begun| begun.node == answer.node);
        let mpn = begun.and_then(|begun| begun.take(page)).or_else(|| answer.pages.pop())?;
        self.placed.push((mpn, page));
        Some(mpn)
    }

    /// The page that lies as `page` does in its block, if that has been begun on `node`.
    pub fn take_in_place(&mut self, node: NodeId, page: Ppn) -> Option<Mpn> {
        let begun = self.begun.get_mut(&(page.0 / BLOCK_PAGES)).filter(|begun| begun.node == node)?;
        begun.take(page)
    }

    /// Whether the block of `page` has been begun, wherever.
    pub fn has_begun(&self, page: Ppn) -> bool {
        self.begun.contains_key(&(page.0 / BLOCK_PAGES))
    }

    /// Begins the block of `page` with the machine pages from `base` on, which are on `node`.
    pub fn begin(&mut self, page: Ppn, base: Mpn, node: NodeId) {
        self.begun.insert(page.0 / BLOCK_PAGES, Begun::new(base, node));
    }

    /// Ends the block of `page`: a new one is begun for the next fault there. Gives up what has not gone of it.
    pub fn end(&mut self, page: Ppn) -> Vec<Mpn> {
        self.begun.remove(&(page.0 / BLOCK_PAGES)).map_or_else(Vec::new, |begun| begun.rest().collect())
    }

    /// Whether faults on CPUs of `cpu_node` can begin blocks.
    pub fn has_block(&self, cpu_node: NodeId) -> bool {
        self.answers.get(&cpu_node).is_some_and(|answer| !answer.blocks.is_empty())
    }

    /// What has gone since the last call, in order.
    pub fn take_placed(&mut self) -> impl Iterator<Item = (Mpn, Ppn)> {
        self.placed.drain(..)
    }

    /// Gives everything up that has not gone.
    pub fn take_rest(&mut self) -> Vec<Mpn> {
        let rest = self.rest().collect();
        self.answers.clear();
        self.begun.clear();
        rest
    }

    /// The pages that have not gone.
    pub fn rest(&self) -> impl Iterator<Item = Mpn> {
        let of_block = |base: &Mpn| (base.0..base.0 + BLOCK_PAGES).map(Mpn);
        let blocks = self.answers.values().flat_map(|answer| &answer.blocks).flat_map(of_block);
        let pages = self.answers.values().flat_map(|answer| &answer.pages).copied();
        blocks.chain(pages).chain(self.begun.values().flat_map(Begun::rest))
    }
}
