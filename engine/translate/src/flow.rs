//! Which registers hold what at the borders of blocks: what an entry must load and a way out must store.
//!
//! A register is *dirty* where some way from an entry writes it. A way out stores what is dirty. On a way
//! from another entry it may not have been written, and is stored all the same; so it must hold its value
//! from the entry on, and a way out reads what is dirty like an instruction would. An entry loads what is
//! *live*: what may be read before it is written.

use std::collections::BTreeMap;

use mips::Insn;

use crate::region::{End, Region, Target, goes_on};
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
    borders: BTreeMap<usize, Border>,
}

/// A block as far as registers go.
struct Summary {
    /// Read before they are written.
    exposed: Registers,
    /// Perhaps written.
    written: Registers,
    /// Written for certain.
    replaced: Registers,
    /// Blocks that follow in the region.
    successors: Vec<usize>,
}

impl Flow {
    /// Of `region`.
    pub fn of(region: &Region, insn_at: &mut dyn FnMut(usize) -> Insn) -> Flow {
        let summaries: BTreeMap<usize, Summary> =
            region.blocks.keys().map(|first| (*first, summary(region, *first, insn_at))).collect();
        let mut borders: BTreeMap<usize, Border> =
            region.blocks.keys().map(|first| (*first, Border::default())).collect();
        settle(|| {
            let mut is_changed = false;
            for (first, summary) in &summaries {
                let dirty = borders[first].dirty.with(summary.written);
                for successor in &summary.successors {
                    is_changed |= add(&mut borders, *successor, |border| &mut border.dirty, dirty);
                }
            }
            is_changed
        });
        settle(|| {
            let mut is_changed = false;
            for (first, summary) in summaries.iter().rev() {
                let after = summary
                    .successors
                    .iter()
                    .fold(Registers::NONE, |all, successor| all.with(borders[successor].live));
                let live = summary.exposed.with(borders[first].dirty).with(after.without(summary.replaced));
                is_changed |= add(&mut borders, *first, |border| &mut border.live, live);
            }
            is_changed
        });
        Flow { borders }
    }

    /// At the beginning of the block at `first`.
    pub fn border(&self, first: usize) -> Border {
        self.borders.get(&first).copied().unwrap_or_default()
    }
}

/// Repeats `step` until it changes nothing.
fn settle(mut step: impl FnMut() -> bool) {
    while step() {}
}

fn add(
    borders: &mut BTreeMap<usize, Border>,
    first: usize,
    set: impl Fn(&mut Border) -> &mut Registers,
    more: Registers,
) -> bool {
    let Some(border) = borders.get_mut(&first) else { return false };
    let old = *set(border);
    let new = old.with(more);
    *set(border) = new;
    new != old
}

fn summary(region: &Region, first: usize, insn_at: &mut dyn FnMut(usize) -> Insn) -> Summary {
    let block = &region.blocks[&first];
    let (mut exposed, mut written, mut replaced) = (Registers::NONE, Registers::NONE, Registers::NONE);
    let mut is_likely = false;
    for index in first..first + block.count {
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
        End::Next(index) => vec![index],
        End::Branch(index) => {
            let insn = insn_at(index);
            let target = Target::of(insn, index).index(region.page_address);
            target.into_iter().chain(goes_on(insn).then_some(index + 2)).collect()
        }
        _ => vec![],
    };
    let successors = successors.into_iter().filter(|index| region.blocks.contains_key(index)).collect();
    Summary { exposed, written, replaced, successors }
}
