//! The unit of translation: the blocks of one machine page that direct branches lead to from a hot run.
//!
//! A *block* is executed from its first instruction to its end or up to a fault; nobody jumps into its
//! middle. It ends with a branch and its delay slot, before an instruction that only the interpreter
//! does, before the first instruction of another block, or with the page. Each can be *entered* from elsewhere,
//! unless the interpreter would have to go on at once: other regions of the page lead there, and so does the
//! interpreter.

use std::collections::VecDeque;

use machine::cpu::{PAGE_INSNS, may_be_in_slot};
use mips::{Insn, Op};

use crate::indices::Indices;
use crate::uses::{CONDITIONS, REGISTER_COUNT, Registers, reads, writes};
use crate::x86_64::emitter::{Host, PINS};

/// Most instructions in a region.
const INSNS_MAX: usize = 400;
/// Most instructions in a block.
const BLOCK_INSNS_MAX: usize = 96;

/// How a block ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Execution goes on at this index; 1024 is the next page.
    Next(usize),
    /// With the branch at this index and its delay slot.
    Branch(usize),
    /// The interpreter goes on at this index.
    Aside(usize),
    /// With the instruction at this index, which is handed over and not counted.
    Trap(usize),
    /// With the branch at this index; its delay slot is handed over and not counted.
    SlotTrap(usize),
}

/// A block.
#[derive(Clone, Debug)]
pub struct Block {
    /// Index in the page of the first instruction.
    pub first: usize,
    /// How many there are, branch and delay slot included.
    pub count: usize,
    /// What comes then.
    pub end: End,
}

/// The blocks of a region.
#[derive(Clone, Debug)]
pub struct Region {
    /// In the order of their addresses.
    pub blocks: Vec<Block>,
    /// Where the page was mapped when it was read, which tells where J and JAL lead.
    pub page_address: u64,
}

/// Where a branch leads that is known before it is executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// To that many instructions after the beginning of the page.
    Relative(i64),
    /// To an address whose low 28 bits are these.
    Region(u32),
    /// To what a register holds.
    Register(u8),
}

impl Target {
    /// Of the branch `insn` at `index`.
    pub fn of(insn: Insn, index: usize) -> Target {
        match insn.op {
            Op::J | Op::Jal => Target::Region((insn.target() << 2) as u32),
            Op::Jr | Op::JrHb | Op::Jalr | Op::JalrHb => Target::Register(insn.rs),
            _ => Target::Relative(index as i64 + 1 + i64::from(insn.imm)),
        }
    }

    /// The index it has in the page mapped at `page_address`, if it is there.
    pub fn index(self, page_address: u64) -> Option<usize> {
        let index = match self {
            Target::Relative(index) => index,
            Target::Region(bits) => {
                let page_bits = page_address & 0x0fff_f000;
                (i64::from(bits) - page_bits as i64) / 4
            }
            Target::Register(_) => return None,
        };
        usize::try_from(index).ok().filter(|index| *index < PAGE_INSNS)
    }
}

/// Whether execution may go on after the delay slot: when the branch is not taken, or on return.
pub fn goes_on(insn: Insn) -> bool {
    match insn.op {
        Op::J | Op::Jr | Op::JrHb => false,
        Op::Beq => insn.rs != insn.rt,
        _ => true,
    }
}

/// Whether the instruction is handed to a trap handler where there is one, and execution then goes elsewhere.
pub fn ends_by_trap(op: Op) -> bool {
    matches!(op, Op::Syscall | Op::Break | Op::Eret | Op::Wait)
}

/// Whether the instruction is handed to a trap handler where there is one, and execution goes on after it.
pub fn is_handed_over(insn: Insn) -> bool {
    /// RDHWR of UserLocal is done without.
    const USER_LOCAL: u8 = 29;
    match insn.op {
        Op::Rdhwr => insn.rd != USER_LOCAL,
        op => op.family() == mips::Family::Privileged && !ends_by_trap(op),
    }
}

/// Whether the branch is a call: it comes back after its delay slot.
pub fn is_call(op: Op) -> bool {
    matches!(op, Op::Jal | Op::Jalr | Op::JalrHb | Op::Bltzal | Op::Bgezal | Op::Bltzall | Op::Bgezall)
}

/// The page that regions are found in.
pub struct Source<'a> {
    /// Where it is mapped.
    pub page_address: u64,
    /// Its instructions.
    pub insn_at: &'a mut dyn FnMut(usize) -> Insn,
    /// What the translator can do.
    pub is_translated: &'a dyn Fn(Insn) -> bool,
    /// Whether execution has come to an index before: what never ran is not translated.
    pub is_reached: &'a dyn Fn(usize) -> bool,
    /// Whether a block of another region begins at an index: nothing is translated twice.
    pub is_known: &'a dyn Fn(usize) -> bool,
}

impl Source<'_> {
    /// Finds the region from `head` on.
    pub fn discover(&mut self, head: usize) -> Region {
        let leaders = self.leaders(head);
        let blocks = leaders.iter().map(|first| self.block(first, &leaders)).collect();
        Region { blocks, page_address: self.page_address }
    }

    /// First instructions of blocks: breadth first, so that what is near the head is in the region when it becomes
    /// too long.
    fn leaders(&mut self, head: usize) -> Indices {
        let mut leaders = Indices::default();
        leaders.add(head);
        let mut waiting = VecDeque::from([head]);
        let mut count = 0;
        while let Some(first) = waiting.pop_front() {
            if count >= INSNS_MAX {
                leaders.remove(first);
                continue;
            }
            let block = self.block(first, &leaders);
            count += block.count;
            for index in self.successors(&block).into_iter().flatten() {
                if (self.is_reached)(index) && !(self.is_known)(index) && leaders.add(index) {
                    waiting.push_back(index);
                }
            }
        }
        leaders
    }

    /// The block from `first`, which ends before any other of `leaders`.
    fn block(&mut self, first: usize, leaders: &Indices) -> Block {
        let mut index = first;
        let end = loop {
            if index == PAGE_INSNS || index - first >= BLOCK_INSNS_MAX {
                break End::Next(index);
            }
            if index > first && (leaders.has(index) || (self.is_known)(index)) {
                break End::Next(index);
            }
            let insn = (self.insn_at)(index);
            if ends_by_trap(insn.op) {
                break End::Trap(index);
            }
            if !(self.is_translated)(insn) {
                break End::Aside(index);
            }
            if insn.op.is_branch() {
                match self.slot(index) {
                    None => break End::Aside(index),
                    Some(slot) if is_handed_over(slot) => {
                        return Block { first, count: index + 1 - first, end: End::SlotTrap(index) };
                    }
                    Some(_) => return Block { first, count: index + 2 - first, end: End::Branch(index) },
                }
            }
            index += 1;
        };
        Block { first, count: index - first, end }
    }

    /// What is in the delay slot of a branch, if the translator can do that there.
    fn slot(&mut self, branch: usize) -> Option<Insn> {
        if branch + 1 >= PAGE_INSNS {
            return None;
        }
        let slot = (self.insn_at)(branch + 1);
        let is_skipped_sometimes = (self.insn_at)(branch).op.is_likely();
        let can_be = may_be_in_slot(slot.op) && (self.is_translated)(slot);
        (can_be && !(is_handed_over(slot) && is_skipped_sometimes)).then_some(slot)
    }

    /// Indices of the blocks that follow.
    fn successors(&mut self, block: &Block) -> [Option<usize>; 2] {
        match block.end {
            End::Next(index) if index < PAGE_INSNS => [Some(index), None],
            End::Next(_) | End::Aside(_) | End::Trap(_) => [None, None],
            End::Branch(index) | End::SlotTrap(index) => {
                let insn = (self.insn_at)(index);
                let next = goes_on(insn) && index + 2 < PAGE_INSNS;
                [Target::of(insn, index).index(self.page_address), next.then_some(index + 2)]
            }
        }
    }
}

/// Which host register holds which guest register in a region.
#[derive(Clone, Debug)]
pub struct Pins {
    hosts: [Option<Host>; REGISTER_COUNT],
}

impl Pins {
    /// Gives host registers to the guest registers that `region` uses most. What is used in loops
    /// counts more.
    pub fn choose(region: &Region, insn_at: &mut dyn FnMut(usize) -> Insn) -> Pins {
        /// Fewer uses than this do not pay for loading and storing.
        const USES_MIN: u64 = 3;
        let mut uses = [0u64; REGISTER_COUNT];
        let loops = region.loops(insn_at);
        for block in &region.blocks {
            let weight = weight(block, &loops);
            for index in block.first..block.first + block.count {
                let insn = insn_at(index);
                for register in reads(insn).iter().chain(writes(insn).iter()) {
                    uses[usize::from(register)] += weight;
                }
            }
        }
        let mut order: Vec<u8> = (0..CONDITIONS).filter(|r| uses[usize::from(*r)] >= USES_MIN).collect();
        order.sort_by_key(|register| (std::cmp::Reverse(uses[usize::from(*register)]), *register));
        let mut hosts = [None; REGISTER_COUNT];
        for (register, host) in order.into_iter().zip(PINS) {
            hosts[usize::from(register)] = Some(host);
        }
        Pins { hosts }
    }

    /// The host register of `register`.
    pub fn host(&self, register: u8) -> Option<Host> {
        self.hosts[usize::from(register)]
    }

    /// The pairs of guest and host registers whose guest register is among `registers`.
    pub fn among(&self, registers: Registers) -> impl Iterator<Item = (u8, Host)> + '_ {
        registers.iter().filter_map(|register| Some((register, self.host(register)?)))
    }

    /// Those of `registers` that are in host registers.
    pub fn pinned(&self, registers: Registers) -> Registers {
        self.among(registers).fold(Registers::NONE, |all, (register, _)| all.with(Registers::of(register)))
    }
}

impl Region {
    /// The place in `blocks` of the block from `first`.
    pub fn place(&self, first: usize) -> Option<usize> {
        self.blocks.binary_search_by_key(&first, |block| block.first).ok()
    }

    /// First instructions of the blocks that are entered from elsewhere.
    pub fn entries(&self) -> impl Iterator<Item = usize> {
        let is_empty = |block: &Block| block.count == 0 && matches!(block.end, End::Aside(_));
        self.blocks.iter().filter(move |block| !is_empty(block)).map(|block| block.first)
    }

    /// First and last index of each loop, as far as backward branches tell.
    fn loops(&self, insn_at: &mut dyn FnMut(usize) -> Insn) -> Vec<(usize, usize)> {
        let mut loops = Vec::new();
        for block in &self.blocks {
            let End::Branch(index) = block.end else { continue };
            let insn = insn_at(index);
            match Target::of(insn, index).index(self.page_address) {
                Some(target) if target <= index && !is_call(insn.op) => loops.push((target, index)),
                _ => {}
            }
        }
        loops
    }
}

/// How much the registers of `block` count: eightfold for each loop around it.
fn weight(block: &Block, loops: &[(usize, usize)]) -> u64 {
    const DEPTH_MAX: usize = 3;
    let depth = loops.iter().filter(|(first, last)| (*first..=*last).contains(&block.first)).count();
    8u64.pow(depth.min(DEPTH_MAX) as u32)
}
