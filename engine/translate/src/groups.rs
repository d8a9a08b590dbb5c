//! Accesses of a block that share a translation.
//!
//! A function saves its registers in one frame, and works on the fields of one structure: several accesses
//! with the same base, a few bytes apart. They lie in one page nearly always. The first of such a *group*
//! looks its page up, as any access does, and checks that no other leaves the page. If so, it keeps what
//! leads from virtual to host addresses in a slot of the frame, and the others need no look.
//!
//! # Why that is the same
//! Translations change only when the CPU looks around, which ends translated code, or when an access misses
//! them or an instruction is handed over. A group has no such instruction between its members but other
//! accesses; one of those that misses empties the slots of the groups around it, and then their members look
//! for themselves. A member of a group in one page cannot raise anything: the first would have.

use mips::{Insn, Op};

use crate::region::is_handed_over;
use crate::uses::{Registers, writes};

/// How many groups may be open at once: slots in the frame.
pub const SLOT_COUNT: usize = 4;
/// A group spans no more bytes than this; more would leave the page too often.
const SPAN_MAX: i32 = 512;

/// The part of an access in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The first: the offsets from its address of the lowest byte and of the first byte behind, and what the
    /// lowest address is a multiple of.
    First { slot: usize, low: i32, high: i32, alignment: i32 },
    /// One of the others.
    Other { slot: usize },
}

/// The accesses of a block that are in groups.
#[derive(Clone, Debug, Default)]
pub struct Groups {
    parts: Vec<(usize, Part)>,
    /// Index of the first and the last member, by group, with its slot.
    spans: Vec<(usize, usize, usize)>,
}

/// A group that is being found.
struct Open {
    base: u8,
    is_store: bool,
    /// Index, offset and size of each member.
    members: Vec<(usize, i32, i32)>,
}

impl Groups {
    /// Of the instructions at `first` and those after it, `count` of them. An instruction that may be skipped
    /// must not be among them.
    pub fn of(first: usize, count: usize, insn_at: &mut dyn FnMut(usize) -> Insn) -> Groups {
        let mut found = Vec::new();
        let mut open: Vec<Open> = Vec::new();
        for index in first..first + count {
            let insn = insn_at(index);
            if let Some(is_store) = is_store(insn.op) {
                add(&mut open, &mut found, insn, index, is_store);
            } else if may_change_translations(insn) {
                found.append(&mut open);
            }
            let written = writes(insn);
            found.extend(open.extract_if(.., |group| written.meets(Registers::of(group.base))));
        }
        found.append(&mut open);
        Groups::with_slots(found)
    }

    /// The part of the access at `index`, if it is in a group.
    pub fn part(&self, index: usize) -> Option<Part> {
        self.parts.iter().find(|(member, _)| *member == index).map(|(_, part)| *part)
    }

    /// The slots that are in use across the instruction at `index`.
    pub fn slots_across(&self, index: usize) -> impl Iterator<Item = usize> + '_ {
        self.spans.iter().filter(move |(first, last, _)| *first <= index && index < *last).map(|span| span.2)
    }

    fn with_slots(mut found: Vec<Open>) -> Groups {
        let mut groups = Groups::default();
        found.retain(|group| group.members.len() > 1);
        found.sort_by_key(|group| group.members[0].0);
        for group in found {
            let (first, last) = (group.members[0].0, group.members[group.members.len() - 1].0);
            let is_taken = |slot: usize| groups.spans.iter().any(|(_, end, taken)| *taken == slot && *end > first);
            let Some(slot) = (0..SLOT_COUNT).find(|slot| !is_taken(*slot)) else { continue };
            groups.spans.push((first, last, slot));
            groups.parts.push((first, group.first_part(slot)));
            groups.parts.extend(group.members[1..].iter().map(|(index, ..)| (*index, Part::Other { slot })));
        }
        groups
    }
}

impl Open {
    /// Lowest offset, first offset behind, and largest size, with another member.
    fn extent(&self, offset: i32, size: i32) -> (i32, i32, i32) {
        self.members.iter().fold((offset, offset + size, size), |(low, high, largest), (_, offset, size)| {
            (low.min(*offset), high.max(offset + size), largest.max(*size))
        })
    }

    /// Whether all members are multiples of their sizes if the lowest address is one of the largest.
    fn takes(&self, offset: i32, size: i32) -> bool {
        let (low, high, _) = self.extent(offset, size);
        let is_aligned = |offset: i32, size: i32| (offset - low) % size == 0;
        high - low <= SPAN_MAX
            && is_aligned(offset, size)
            && self.members.iter().all(|(_, offset, size)| is_aligned(*offset, *size))
    }

    fn first_part(&self, slot: usize) -> Part {
        let (_, offset, size) = self.members[0];
        let (low, high, alignment) = self.extent(offset, size);
        Part::First { slot, low: low - offset, high: high - offset, alignment }
    }
}

fn add(open: &mut Vec<Open>, found: &mut Vec<Open>, insn: Insn, index: usize, is_store: bool) {
    let (offset, size) = (i32::from(insn.imm), insn.op.access_bytes() as i32);
    let member = (index, offset, size);
    match open.iter().position(|group| (group.base, group.is_store) == (insn.rs, is_store)) {
        _ if insn.rs == 0 => {}
        Some(place) if open[place].takes(offset, size) => open[place].members.push(member),
        place => {
            found.extend(place.map(|place| open.swap_remove(place)));
            open.push(Open { base: insn.rs, is_store, members: vec![member] });
        }
    }
}

/// Whether a load or a store that a group may have is a store.
fn is_store(op: Op) -> Option<bool> {
    match op {
        Op::Lb | Op::Lbu | Op::Lh | Op::Lhu | Op::Lw | Op::Lwu | Op::Ld | Op::Lwc1 | Op::Ldc1 => Some(false),
        Op::Sb | Op::Sh | Op::Sw | Op::Sd | Op::Swc1 | Op::Sdc1 => Some(true),
        _ => None,
    }
}

/// Whether an instruction that no group has may change translations: by an access, or in a handler.
fn may_change_translations(insn: Insn) -> bool {
    insn.op.is_load() || insn.op.is_store() || is_handed_over(insn) || insn.op.access_bytes() != 0
}
