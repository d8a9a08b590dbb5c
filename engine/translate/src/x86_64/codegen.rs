//! From a region to host code: blocks, their ends, and the ways out.
//!
//! ```text
//! entry:   load pinned registers, jump to the block
//! block:   budget -= count; if negative, go aside at the first instruction
//!          the instructions
//!          the end: jump to a block of the region, or write back and leave for elsewhere
//! aside:   number of instructions not executed and index of the one to interpret; write back; leave
//! ```
//!
//! A way out stores the pinned registers that are dirty there, and an entry loads those that are live:
//! `flow.rs`. What is rare is emitted behind the blocks.

use std::rc::Rc;

use dynasmrt::{DynamicLabel, DynasmApi, DynasmLabelApi, dynasm};
use machine::PAGE_BYTES;
use machine::cpu::{Layout, PAGE_INSNS, SINK};
use mips::{Insn, Op};

use super::emitter::{Alu, Condition, Emitter, Host, Place, R15, RAX, RCX, RDX, Virtual, Width, field, frame};
use super::enter::{EntryPoint, Thunks, emit_go_on};
use super::float::{self, scratch, scratch_word};
use crate::flow::Flow;
use crate::groups::Groups;
use crate::region::{Block, End, Pins, Region, Target, goes_on, is_call};
use crate::uses::{HI, LO, Registers, reads, writes};

/// Where the interpreter goes on if the instruction that is being emitted cannot be done here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Site {
    /// The instruction, or the branch whose delay slot it is.
    pub index: usize,
    /// Instructions of the block from there on.
    pub not_executed: usize,
    /// What cannot be done is in the delay slot, which may count among the instructions of the block or not.
    pub is_slot: bool,
}

impl Site {
    /// In one word: the offset in the page, 1 for a slot, and in the upper half how many are not executed.
    pub fn word(self) -> u32 {
        ((self.not_executed << 16) | (self.index * 4) | usize::from(self.is_slot)) as u32
    }

    /// The reverse of `word`.
    pub fn of(word: u32) -> Site {
        Site {
            index: (word as usize >> 2) % PAGE_INSNS,
            not_executed: word as usize >> 16,
            is_slot: word & 1 != 0,
        }
    }
}

/// How the code of a region is left, once what is dirty has been stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WayOut {
    /// The interpreter goes on; eax says where.
    Aside,
    /// The access that was refused is handed over.
    AccessTrap,
    /// After a trap, as rax and edx say.
    Redirect,
}

/// Where in a page's table crossings between regions are counted, and where it is said that they are many. Emitted code
/// counts in the CPU, and every [`CROSSINGS_SAMPLE`]th counts that many in its page: CPUs on several host threads that
/// execute the same page would wait for each other at each crossing.
pub const CROSSINGS_OFFSET: usize = size_of::<EntryPoint>() * PAGE_INSNS;
pub const TORN_OFFSET: usize = CROSSINGS_OFFSET + 4;
pub const CROSSINGS_SAMPLE: i32 = 61;

/// Code that is emitted behind the blocks.
type Later<'a> = Box<dyn FnOnce(&mut Codegen<'a>) + 'a>;

/// The code of a region, as it is made.
pub struct Codegen<'a> {
    pub emitter: Emitter,
    pub thunks: &'a Thunks,
    region: &'a Region,
    pins: &'a Pins,
    flow: &'a Flow,
    /// Address of the page's table of entry points.
    entry_points: u64,
    /// Of the region's blocks.
    labels: Vec<DynamicLabel>,
    /// The ways out by what is dirty there; there are few.
    ways_out: Vec<((WayOut, Registers), DynamicLabel)>,
    /// Pinned registers that may differ from what the CPU holds, at the present instruction.
    dirty: Registers,
    pub site: Site,
    /// The label of the way out at a site, with what is dirty there.
    site_label: Option<(Site, Registers, DynamicLabel)>,
    later: Vec<Later<'a>>,
    /// The register model of the floating-point unit, if it was usable: `Cpu::float_model`.
    pub float_model: Option<bool>,
    /// The accesses of this block that share translations.
    pub groups: Rc<Groups>,
    /// Index of the present instruction.
    pub current: usize,
    /// What registers are known to hold in this block.
    known: [Option<u64>; 32],
    /// The guard of the floating-point unit has been passed in this block.
    is_guarded: bool,
}

/// Translated code, and at which offsets execution enters it at which indices.
pub struct Translation {
    pub code: Vec<u8>,
    pub entries: Vec<(usize, usize)>,
}

/// What code is made of.
#[derive(Clone, Copy)]
pub struct Plan<'a> {
    pub region: &'a Region,
    pub pins: &'a Pins,
    pub flow: &'a Flow,
    /// Address of the page's table of entry points.
    pub entry_points: u64,
    /// The register model of the floating-point unit, if it is usable.
    pub float_model: Option<bool>,
}

/// Emits code for address `base`.
pub fn generate(
    plan: Plan<'_>,
    insn_at: &mut dyn FnMut(usize) -> Insn,
    thunks: &Thunks,
    base: usize,
) -> Translation {
    let Plan { region, pins, flow, entry_points, float_model } = plan;
    let insns = region.blocks.iter().map(|block| block.count).sum();
    let mut emitter = Emitter::new(base, insns);
    let labels = region.blocks.iter().map(|_| emitter.new_label()).collect();
    let site = Site { index: 0, not_executed: 0, is_slot: false };
    let mut codegen = Codegen {
        emitter,
        thunks,
        region,
        pins,
        flow,
        entry_points,
        labels,
        ways_out: Vec::new(),
        dirty: Registers::NONE,
        site,
        site_label: None,
        later: Vec::new(),
        float_model,
        groups: Rc::default(),
        current: 0,
        known: [None; 32],
        is_guarded: false,
    };
    for (number, block) in region.blocks.iter().enumerate() {
        let next = region.blocks.get(number + 1).map(|next| next.first);
        codegen.block(block, next, insn_at);
    }
    let entries = region.entries().map(|first| codegen.entry(first)).collect();
    while !codegen.later.is_empty() {
        for later in std::mem::take(&mut codegen.later) {
            later(&mut codegen);
        }
    }
    codegen.finish_ways_out();
    Translation { code: codegen.emitter.finish(), entries }
}

impl<'a> Codegen<'a> {
    // -- registers ---------------------------------------------------------------------------------

    /// Where a guest register is.
    pub fn place(&self, register: u8) -> Place {
        match self.pins.host(register) {
            _ if register == 0 => Place::Zero,
            Some(host) => Place::Host(host),
            None => home(register),
        }
    }

    /// The host register to compute a result for `register` in: its own, or `scratch`.
    pub fn target(&self, register: u8, scratch: Host) -> Host {
        self.pins.host(register).unwrap_or(scratch)
    }

    /// Writes `host` to a guest register.
    pub fn write(&mut self, register: u8, host: Host) {
        if register == SINK || register == 0 {
            return;
        }
        if let Some(known) = self.known.get_mut(usize::from(register)) {
            *known = None;
        }
        let place = self.place(register);
        self.emitter.store(place, host);
        self.dirty = self.dirty.with(self.pins.pinned(Registers::of(register)));
    }

    /// Writes a value known now.
    pub fn write_constant(&mut self, register: u8, value: u64) {
        let target = self.target(register, RAX);
        self.emitter.constant(target, value);
        self.write(register, target);
        if let Some(known) = self.known.get_mut(usize::from(register)) {
            *known = Some(value);
        }
    }

    /// The value of a register, if it is known.
    pub fn known(&self, register: u8) -> Option<u64> {
        match register {
            0 => Some(0),
            _ => self.known.get(usize::from(register)).copied().flatten(),
        }
    }

    /// Loads a register's 64 bits.
    pub fn read(&mut self, target: Host, register: u8) {
        let place = self.place(register);
        self.emitter.load(Width::Double, target, place);
    }

    /// Loads a register's low 32 bits, zero-extended.
    pub fn read_word(&mut self, target: Host, register: u8) {
        let place = self.place(register);
        self.emitter.load(Width::Word, target, place);
    }

    // -- ways out ----------------------------------------------------------------------------------

    /// Where to jump if the interpreter must do the present instruction.
    pub fn aside_here(&mut self) -> DynamicLabel {
        let (site, dirty) = (self.site, self.dirty);
        if let Some((known_site, known_dirty, label)) = self.site_label
            && (known_site, known_dirty) == (site, dirty)
        {
            return label;
        }
        let label = self.emitter.new_label();
        self.site_label = Some((site, dirty, label));
        self.later(move |codegen| {
            codegen.emitter.place(label);
            codegen.go_aside(site);
        });
        label
    }

    /// Emits something behind the blocks, where the present instruction will be as it is now.
    pub fn later(&mut self, emit: impl FnOnce(&mut Codegen<'a>) + 'a) {
        let (dirty, site, current, groups) = (self.dirty, self.site, self.current, Rc::clone(&self.groups));
        self.later.push(Box::new(move |codegen| {
            (codegen.dirty, codegen.site, codegen.current, codegen.groups) = (dirty, site, current, groups);
            emit(codegen);
        }));
    }

    fn go_aside(&mut self, site: Site) {
        self.emitter.constant(RAX, u64::from(site.word()));
        let aside = self.way_out(WayOut::Aside);
        self.emitter.jump(aside);
    }

    /// The label of a way out with what is dirty now.
    fn way_out(&mut self, way: WayOut) -> DynamicLabel {
        let wanted = (way, self.dirty);
        if let Some((_, label)) = self.ways_out.iter().find(|(known, _)| *known == wanted) {
            return *label;
        }
        let label = self.emitter.new_label();
        self.ways_out.push((wanted, label));
        label
    }

    fn finish_ways_out(&mut self) {
        for ((way, dirty), label) in std::mem::take(&mut self.ways_out) {
            self.emitter.place(label);
            self.dirty = dirty;
            self.write_back();
            match way {
                WayOut::Aside => self.emitter.jump_to(self.thunks.aside),
                WayOut::AccessTrap => {
                    self.emitter.constant(RDX, 0);
                    self.emitter.jump_to(self.thunks.trap);
                }
                WayOut::Redirect => self.emitter.jump_to(self.thunks.redirect),
            }
        }
    }

    /// Hands over the present instruction, after which execution goes elsewhere.
    fn trap(&mut self, insn: Insn) {
        self.write_back();
        let word = self.site.word() as i32;
        dynasm!(self.emitter.ops(); mov QWORD [BYTE rsp + frame::SITE], word);
        self.emitter.constant(RDX, float::pack(insn));
        self.emitter.jump_to(self.thunks.trap);
    }

    /// Hands over the present instruction, after which execution goes on behind it. The handler finds its
    /// general registers in the CPU, and leaves them there.
    pub fn hand_over(&mut self, insn: Insn) {
        let passed = self.pins.pinned(reads(insn).with(writes(insn)));
        for (register, host) in self.pins.among(passed.both(self.dirty)) {
            self.emitter.store(home(register), host);
        }
        self.dirty = self.dirty.without(passed);
        let aside = self.aside_here();
        self.emitter.constant(RCX, u64::from(self.site.word()));
        self.emitter.constant(RDX, float::pack(insn));
        self.emitter.call(self.thunks.privileged);
        for (register, host) in self.pins.among(passed) {
            self.emitter.load(Width::Double, host, home(register));
        }
        self.note_handed_over(insn);
        let redirect = self.way_out(WayOut::Redirect);
        dynasm!(self.emitter.ops(); jb =>aside; ja =>redirect);
    }

    /// What was known before `insn` was perhaps handed over, and is not any more.
    pub fn note_handed_over(&mut self, insn: Insn) {
        for register in writes(insn).iter() {
            if let Some(known) = self.known.get_mut(usize::from(register)) {
                *known = None;
            }
        }
        // The handler may have changed what the guard stands for.
        self.is_guarded = false;
    }

    fn write_back(&mut self) {
        for (register, host) in self.pins.among(self.dirty) {
            self.emitter.store(home(register), host);
        }
    }

    /// Emits the entry to the block at `first`; returns its offset.
    fn entry(&mut self, first: usize) -> (usize, usize) {
        let offset = self.emitter.ops().offset().0;
        for (register, host) in self.pins.among(self.flow.border(first).live) {
            self.emitter.load(Width::Double, host, home(register));
        }
        let label = self.label_of(first).expect("an entry is a block of the region");
        self.emitter.jump(label);
        (first, offset)
    }

    fn label_of(&self, first: usize) -> Option<DynamicLabel> {
        self.region.place(first).map(|place| self.labels[place])
    }

    // -- blocks ------------------------------------------------------------------------------------

    fn block(&mut self, block: &Block, next: Option<usize>, insn_at: &mut dyn FnMut(usize) -> Insn) {
        let label = self.label_of(block.first).expect("every block has a label");
        self.emitter.place(label);
        self.known = [None; 32];
        self.dirty = self.pins.pinned(self.flow.border(block.first).dirty);
        self.is_guarded = false;
        self.site = Site { index: block.first, not_executed: block.count, is_slot: false };
        if block.count > 0 {
            let spent = self.aside_here();
            self.emitter.alu_constant(Alu::Sub, Width::Double, R15, block.count as i32);
            // The host makes one operation of both, as it would not if the sign alone were asked for; nothing overflows.
            self.emitter.jump_if(Condition::Less, spent);
        }
        let plain_count = match block.end {
            End::Branch(branch) | End::SlotTrap(branch) => branch - block.first,
            End::Next(_) | End::Aside(_) | End::Trap(_) => block.count,
        };
        let has_likely = matches!(block.end, End::Branch(branch) if insn_at(branch).op.is_likely());
        self.groups = Rc::new(Groups::of(block.first, block.count - usize::from(has_likely), insn_at));
        for index in block.first..block.first + plain_count {
            self.current = index;
            self.site = Site { index, not_executed: block.first + block.count - index, is_slot: false };
            self.instruction(insn_at(index));
        }
        match block.end {
            End::Next(index) => self.go_to_index(index, next),
            End::Aside(index) => self.go_aside(Site { index, not_executed: 0, is_slot: false }),
            End::Trap(index) => {
                self.site = Site { index, not_executed: 0, is_slot: false };
                self.trap(insn_at(index));
            }
            End::SlotTrap(index) => {
                self.site = Site { index, not_executed: 1, is_slot: false };
                self.branch_to_trap(index, insn_at(index), insn_at(index + 1));
            }
            End::Branch(index) => {
                // The branch counts only when its delay slot does, and is repeated with it.
                self.site = Site { index, not_executed: 2, is_slot: false };
                self.branch(index, insn_at(index), insn_at(index + 1), next);
            }
        }
    }

    fn branch(&mut self, index: usize, insn: Insn, slot: Insn, next: Option<usize>) {
        self.guard(insn);
        let target = Target::of(insn, index);
        let after = index + 2;
        if insn.op.is_likely() {
            return self.branch_likely(index, insn, slot, next);
        }
        let slot_writes = writes(slot);
        if let Target::Register(register) = target {
            let is_early = slot_writes.with(writes(insn)).meets(reads(insn));
            if is_early {
                self.read(RAX, register);
                dynasm!(self.emitter.ops(); mov [BYTE rsp + frame::WAITING], rax);
            }
            self.link(insn, after);
            self.slot(slot);
            match is_early {
                true => dynasm!(self.emitter.ops(); mov rax, [BYTE rsp + frame::WAITING]),
                false => self.read(RAX, register),
            }
            self.write_back();
            if is_switch(insn) {
                self.stay_in_page();
            }
            return emit_go_on(&mut self.emitter, self.thunks.far);
        }
        if !is_conditional(insn) {
            self.link(insn, after);
            self.slot(slot);
            return self.go_to(target, next);
        }
        self.link(insn, after);
        if slot_writes.meets(reads(insn)) {
            return self.branch_before_slot(insn, slot, target, after, next);
        }
        self.slot(slot);
        let condition = self.compare(insn);
        self.go_to_if(condition, target);
        self.go_to_index(after, next);
    }

    /// A branch whose delay slot writes what it reads: the slot is emitted on both ways, once behind the blocks. In
    /// line is what comes more often: the way back of a loop.
    fn branch_before_slot(&mut self, insn: Insn, slot: Insn, target: Target, after: usize, next: Option<usize>) {
        let is_back = target.index(self.region.page_address).is_some_and(|index| index < after);
        let condition = self.compare(insn);
        let rare = self.emitter.new_label();
        self.emitter.jump_if(if is_back { condition.inverse() } else { condition }, rare);
        let (known, is_guarded) = (self.known, self.is_guarded);
        self.later(move |codegen| {
            (codegen.known, codegen.is_guarded) = (known, is_guarded);
            codegen.emitter.place(rare);
            codegen.slot(slot);
            match is_back {
                true => codegen.go_to_index(after, None),
                false => codegen.go_to(target, None),
            }
        });
        self.slot(slot);
        match is_back {
            true => self.go_to(target, next),
            false => self.go_to_index(after, next),
        }
    }

    /// A branch whose delay slot is handed over: the handler is told where execution goes on then.
    fn branch_to_trap(&mut self, index: usize, insn: Insn, slot: Insn) {
        self.guard(insn);
        let after = 4 * (index + 2) as i32;
        if let Target::Register(register) = Target::of(insn, index) {
            self.read(RAX, register);
        } else if is_conditional(insn) {
            let (taken, done) = (self.emitter.new_label(), self.emitter.new_label());
            let condition = self.compare(insn);
            self.emitter.jump_if(condition, taken);
            self.page_address(RAX, after);
            self.emitter.jump(done);
            self.emitter.place(taken);
            self.target_address(Target::of(insn, index));
            self.emitter.place(done);
        } else {
            self.target_address(Target::of(insn, index));
        }
        dynasm!(self.emitter.ops(); mov [BYTE rsp + frame::WAITING], rax);
        self.link(insn, index + 2);
        self.site.is_slot = true;
        self.trap(slot);
    }

    /// rax = where a branch leads that names no register.
    fn target_address(&mut self, target: Target) {
        match target {
            Target::Relative(index) => self.page_address(RAX, 4 * index as i32),
            Target::Region(bits) => self.region_address(bits),
            Target::Register(_) => unreachable!("a register has the address itself"),
        }
    }

    /// Emits the instruction in the delay slot.
    fn slot(&mut self, insn: Insn) {
        self.site.is_slot = true;
        self.current = self.site.index + 1;
        self.instruction(insn);
        self.site.is_slot = false;
    }

    /// The delay slot is skipped, and not counted, when the branch is not taken.
    fn branch_likely(&mut self, index: usize, insn: Insn, slot: Insn, next: Option<usize>) {
        self.guard(insn);
        let not_taken = self.emitter.new_label();
        self.link(insn, index + 2);
        let condition = self.compare(insn).inverse();
        self.emitter.jump_if(condition, not_taken);
        let (known, dirty) = (self.known, self.dirty);
        self.slot(slot);
        self.go_to(Target::of(insn, index), None);
        (self.known, self.dirty) = (known, dirty);
        self.emitter.place(not_taken);
        dynasm!(self.emitter.ops(); lea r15, [r15 + 1]);
        self.go_to_index(index + 2, next);
    }

    /// Writes the return address of a call. Repeating that does no harm.
    fn link(&mut self, insn: Insn, after: usize) {
        if !is_call(insn.op) {
            return;
        }
        let register = match insn.op {
            Op::Jalr | Op::JalrHb => insn.rd,
            _ => 31,
        };
        if register == SINK {
            return;
        }
        let target = self.target(register, RAX);
        self.page_address(target, 4 * after as i32);
        self.write(register, target);
    }

    /// `target` = the address `offset` bytes after the beginning of the page.
    fn page_address(&mut self, target: Host, offset: i32) {
        dynasm!(self.emitter.ops(); mov Rq(target), [BYTE rsp + frame::PAGE]);
        self.emitter.add_constant(target, target, offset);
    }

    /// Before an instruction of the floating-point unit: emits the guard if it has not been passed.
    pub fn guard(&mut self, insn: Insn) {
        if insn.op.uses_cp1() && !std::mem::replace(&mut self.is_guarded, true) {
            self.float_guard();
        }
    }

    /// Compares for a conditional branch; the condition holds if it is taken.
    fn compare(&mut self, insn: Insn) -> Condition {
        match insn.op {
            Op::Bc1f | Op::Bc1t | Op::Bc1fl | Op::Bc1tl => self.compare_code(insn),
            Op::Beq | Op::Bne | Op::Beql | Op::Bnel => {
                self.compare_registers(insn.rs, insn.rt);
                match insn.op {
                    Op::Beq | Op::Beql => Condition::Equal,
                    _ => Condition::NotEqual,
                }
            }
            _ => {
                let place = self.place(insn.rs);
                self.emitter.compare_constant(place, 0);
                match insn.op {
                    Op::Blez | Op::Blezl => Condition::LessEqual,
                    Op::Bgtz | Op::Bgtzl => Condition::Greater,
                    Op::Bltz | Op::Bltzl | Op::Bltzal | Op::Bltzall => Condition::Less,
                    _ => Condition::GreaterEqual,
                }
            }
        }
    }

    /// Compares two registers.
    pub fn compare_registers(&mut self, a: u8, b: u8) {
        let (a, b) = (self.place(a), self.place(b));
        match (a, b) {
            (_, Place::Zero) => self.emitter.compare_constant(a, 0),
            (Place::Host(host), _) => self.emitter.alu(Alu::Cmp, Width::Double, host, b),
            _ => {
                self.emitter.load(Width::Double, RAX, a);
                self.emitter.alu(Alu::Cmp, Width::Double, RAX, b);
            }
        }
    }

    // -- going elsewhere -----------------------------------------------------------------------------

    fn go_to_if(&mut self, condition: Condition, target: Target) {
        if let Target::Relative(_) = target
            && let Some(index) = target.index(self.region.page_address)
            && let Some(label) = self.label_of(index)
        {
            return self.emitter.jump_if(condition, label);
        }
        let label = self.emitter.new_label();
        self.emitter.jump_if(condition, label);
        self.later(move |codegen| {
            codegen.emitter.place(label);
            codegen.go_to(target, None);
        });
    }

    fn go_to(&mut self, target: Target, next: Option<usize>) {
        let index = target.index(self.region.page_address);
        match (target, index) {
            (Target::Relative(_), Some(index)) => self.go_to_index(index, next),
            (Target::Relative(index), None) => self.leave_for_offset(4 * index),
            (Target::Region(bits), Some(index)) => {
                // In this page, if it is mapped where it was when it was read.
                let elsewhere = self.emitter.new_label();
                let page_bits = (self.region.page_address & 0x0fff_f000) as i32;
                dynasm!(self.emitter.ops()
                    ; mov eax, [BYTE rsp + frame::PAGE]
                    ; and eax, 0x0fff_f000
                    ; cmp eax, page_bits
                    ; jne =>elsewhere
                );
                self.later(move |codegen| {
                    codegen.emitter.place(elsewhere);
                    codegen.leave_for_region(bits);
                });
                self.go_to_index(index, next);
            }
            (Target::Region(bits), None) => self.leave_for_region(bits),
            (Target::Register(_), _) => unreachable!("a register's jump is emitted with its delay slot"),
        }
    }

    /// Goes on at an index of this page, or at the next page; `next` is the block that follows here.
    fn go_to_index(&mut self, index: usize, next: Option<usize>) {
        if index >= PAGE_INSNS {
            return self.leave_for_offset(4 * index as i64);
        }
        if next == Some(index) {
            return;
        }
        if let Some(label) = self.label_of(index) {
            return self.emitter.jump(label);
        }
        // To another region, through the table. When that happens often, they are merged.
        self.write_back();
        let often = self.emitter.new_label();
        let entry_points = self.entry_points as i64;
        self.emitter.constant(RAX, 4 * index as u64);
        dynasm!(self.emitter.ops()
            ; mov rcx, QWORD entry_points
            ; sub DWORD [rbp + scratch_word(scratch::CROSSINGS)], 1
            ; js =>often
            ; mov ecx, [rcx + rax]
            ; add rcx, [BYTE rsp + frame::CODE]
            ; jmp rcx
        );
        self.later(move |codegen| {
            codegen.emitter.place(often);
            codegen.emitter.jump_to(codegen.thunks.crossed);
        });
    }

    fn leave_for_offset(&mut self, offset: i64) {
        self.page_address(RAX, offset as i32);
        self.leave_for_rax();
    }

    fn leave_for_region(&mut self, bits: u32) {
        self.region_address(bits);
        self.leave_for_rax();
    }

    /// rax = the address with these low 28 bits in the 256 MiB around this page.
    fn region_address(&mut self, bits: u32) {
        dynasm!(self.emitter.ops()
            ; mov rax, [BYTE rsp + frame::PAGE]
            ; and rax, 0xf000_0000u32 as i32
            ; or rax, bits as i32
        );
    }

    /// Goes on at the virtual address in rax: through the fetch cache to the page's entry points.
    fn leave_for_rax(&mut self) {
        self.write_back();
        emit_go_on(&mut self.emitter, self.thunks.far);
    }

    /// Goes on at the virtual address in rax if it is in this page, which is the one that is executed: nothing has to
    /// be looked up then but where its code is.
    fn stay_in_page(&mut self) {
        let elsewhere = self.emitter.new_label();
        let entry_points = self.entry_points as i64;
        dynasm!(self.emitter.ops()
            ; mov rdx, rax
            ; xor rdx, [BYTE rsp + frame::PAGE]
            ; test rdx, -4096 + 3
            ; jne =>elsewhere
            ; mov rcx, QWORD entry_points
            ; mov eax, edx
            ; mov ecx, [rcx + rdx]
            ; add rcx, [BYTE rsp + frame::CODE]
            ; jmp rcx
            ; =>elsewhere
        );
    }

    // -- loads and stores ------------------------------------------------------------------------------

    /// The effective address of an instruction with base and offset; rax is lost.
    pub fn address(&mut self, insn: Insn) -> Virtual {
        if let Some(base) = self.known(insn.rs) {
            self.emitter.constant(RAX, base.wrapping_add(insn.simm()));
            return Virtual::IN_RAX;
        }
        let offset = i32::from(insn.imm);
        match self.place(insn.rs) {
            Place::Host(base) => Virtual { base, offset },
            place => {
                self.emitter.load(Width::Double, RAX, place);
                Virtual { base: RAX, offset }
            }
        }
    }

    /// rax = the effective address of an instruction with base and offset.
    pub fn address_in_rax(&mut self, insn: Insn) {
        let Virtual { base, offset } = self.address(insn);
        self.emitter.add_constant(RAX, base, offset);
    }

    /// Looks an address up in the host translations at `cache`: rcx becomes what to add. Jumps to `missed` if
    /// it is not there, or not a multiple of `bytes`, whose lowest bits are left in what is compared. rdx is lost.
    pub fn translate(&mut self, cache: usize, bytes: u64, at: Virtual, missed: DynamicLabel) {
        const _: () = assert!(Layout::TRANSLATION_COUNT == 1024);
        let entries = field(cache);
        self.emitter.add_constant(RDX, at.base, at.offset);
        dynasm!(self.emitter.ops()
            ; mov ecx, edx
            ; shr ecx, 8
            ; and ecx, 0x3ff0
        );
        self.emitter.alu_constant(Alu::And, Width::Double, RDX, bytes as i32 - 1 - PAGE_BYTES as i32);
        dynasm!(self.emitter.ops()
            ; or rdx, [rbp + field(Layout::CPU.context)]
            ; cmp rdx, [rbp + rcx + entries]
            ; jne =>missed
            ; mov rcx, [rbp + rcx + entries + 8]
        );
    }

    /// Calls a helper with a value in rdx; jumps aside if it refuses. The result is in rax.
    pub fn call_helper(&mut self, thunk: usize, aside: DynamicLabel) {
        self.emitter.call(thunk);
        dynasm!(self.emitter.ops(); jb =>aside);
    }

    /// Calls a helper that does an access, with the address in rax and a value in rdx, for the instruction
    /// at `site`, whose way out is `aside`. The result is in rax.
    pub fn call_access(&mut self, thunk: usize, site: Site, aside: DynamicLabel) {
        self.emitter.constant(RCX, u64::from(site.word()));
        self.emitter.call(thunk);
        let access_trap = self.way_out(WayOut::AccessTrap);
        dynasm!(self.emitter.ops(); jb =>aside; ja =>access_trap);
    }
}

/// Whether a jump to what a register holds is likely to stay in the function: it is no call and no return.
fn is_switch(insn: Insn) -> bool {
    const RETURN_ADDRESS: u8 = 31;
    matches!(insn.op, Op::Jr | Op::JrHb) && insn.rs != RETURN_ADDRESS
}

fn is_conditional(insn: Insn) -> bool {
    match insn.op {
        Op::J | Op::Jal => false,
        // BAL.
        Op::Bgezal => insn.rs != 0,
        _ => goes_on(insn),
    }
}

/// Where a register is when no translated code runs.
pub fn home(register: u8) -> Place {
    let offset = match register {
        HI => Layout::CPU.hi,
        LO => Layout::CPU.lo,
        general => Layout::CPU.gpr + 8 * usize::from(general),
    };
    Place::Cpu(field(offset))
}
