//! Which registers hold what at the borders of blocks: what an entry must load and a way out must store.
//!
//! A register is *dirty* where some way from an entry writes it. A way out stores what is dirty. On a way
//! from another entry it may not have been written, and is stored all the same; so it must hold its value
//! from the entry on, and a way out reads what is dirty like an instruction would. An entry loads what is
//! *live*: what may be read before it is written.

use mips::Insn;

use crate::region::{Block, End, Region, Target, goes_on};
use crate::uses::{Registers, reads, writes};

/// The registers at the beginning of a block.
#[derive(Clone, Copy, Debug, Default)]
pub struct Border {
    /// Written on some way from an entry.
    pub dirty: Registers,
    /// Read before they are written, on some way from here.
    pub live: Registers,
}

/// What the blocks of a region do to registers.
#[derive(Clone, Debug)]
pub struct Flow {
    /// Of the blocks, by the index of their first instruction and in its order.
    borders: Vec<(usize, Border)>,
}

/// A block as far as registers go.
struct Summary {
    /// Read before they are written.
    exposed: Registers,
    /// Perhaps written.
    written: Registers,
    /// Written for certain.
    replaced: Registers,
    /// The places of the blocks that follow in the region.
    successors: [Option<usize>; 2],
}

impl Flow {
    /// Of `region`.
    pub fn of(region: &Region, insn_at: &mut dyn FnMut(usize) -> Insn) -> Flow {
        let summaries: Vec<Summary> = region.blocks.iter().map(|block| summary(region, block, insn_at)).collect();
        let mut borders: Vec<(usize, Border)> =
            region.blocks.iter().map(|block| (block.first, Border::default())).collect();
        settle(|| {
            let mut is_changed = false;
            for (place, summary) in summaries.iter().enumerate() {
                let dirty = borders[place].1.dirty.with(summary.written);
                for successor in summary.successors.into_iter().flatten() {
                    is_changed |= add(&mut borders[successor].1.dirty, dirty);
                }
            }
            is_changed
        });
        settle(|| {
            let mut is_changed = false;
            for (place, summary) in summaries.iter().enumerate().rev() {
                let after = summary
                    .successors
                    .into_iter()
                    .flatten()
                    .fold(Registers::NONE, |all, successor| all.with(borders[successor].1.live));
                let border = &mut borders[place].1;
                let live = summary.exposed.with(border.dirty).with(after.without(summary.replaced));
                is_changed |= add(&mut border.live, live);
            }
            is_changed
        });
        Flow { borders }
    }

    /// At the beginning of the block at `first`.
    pub fn border(&self, first: usize) -> Border {
        let place = self.borders.binary_search_by_key(&first, |(first, _)| *first);
        place.map_or(Border::default(), |place| self.borders[place].1)
    }
}

/// Repeats `step` until it changes nothing.
fn settle(mut step: impl FnMut() -> bool) {
    while step() {}
}

/// Adds `more` to `set`. Whether that changed it.
fn add(set: &mut Registers, more: Registers) -> bool {
    let old = std::mem::replace(set, set.with(more));
    *set != old
}

fn summary(region: &Region, block: &Block, insn_at: &mut dyn FnMut(usize) -> Insn) -> Summary {
    let (mut exposed, mut written, mut replaced) = (Registers::NONE, Registers::NONE, Registers::NONE);
    let mut is_likely = false;
    for index in block.first..block.first + block.count {
        let insn = insn_at(index);
        exposed = exposed.with(reads(insn).without(replaced));
        written = written.with(writes(insn));
        // The slot of a branch-likely is executed only if the branch is taken.
        if !is_likely {
            replaced = replaced.with(writes(insn));
        }
        is_likely = insn.op.is_likely();
    }
    let successors = match block.end {
        End::Next(index) => [Some(index), None],
        End::Branch(index) => {
            let insn = insn_at(index);
            [Target::of(insn, index).index(region.page_address), goes_on(insn).then_some(index + 2)]
        }
        _ => [None, None],
    };
    let successors = successors.map(|index| index.and_then(|index| region.place(index)));
    Summary { exposed, written, replaced, successors }
}
