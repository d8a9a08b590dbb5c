//! Loads and stores: the CPU's host translations inline, everything else by a call.
//!
//! The call answers what a TLB hit can answer, as the interpreter's slow path would, and remembers it
//! in the translations. What it refuses (faults, devices, stores to code) goes aside.

use dynasmrt::{DynamicLabel, DynasmApi, DynasmLabelApi, dynasm};
use machine::cpu::Layout;
use mips::{Insn, Op};

use super::codegen::Codegen;
use super::emitter::{Address, Alu, Host, Place, RAX, RCX, RDX, Virtual, Width, field, frame};
use crate::groups::Part;

/// Index of a size among 1, 2, 4 and 8.
fn size_index(bytes: u64) -> usize {
    bytes.trailing_zeros() as usize
}

fn width_of(bytes: u64) -> Width {
    if bytes == 8 { Width::Double } else { Width::Word }
}

/// In a slot: nothing. What is kept is a multiple of the page size.
const EMPTY: i32 = 1;

fn slot_offset(slot: usize) -> i8 {
    frame::SLOTS + 8 * slot as i8
}

impl Codegen<'_> {
    /// Emits a load or store of general registers.
    pub fn memory_instruction(&mut self, insn: Insn) {
        let bytes = insn.op.access_bytes();
        let wide = usize::from(bytes == 8);
        match insn.op {
            Op::Lb | Op::Lh | Op::Lw => self.load_register(insn, bytes, true),
            Op::Lbu | Op::Lhu | Op::Lwu | Op::Ld => self.load_register(insn, bytes, false),
            Op::Lwl | Op::Ldl => self.load_part(insn, bytes, true),
            Op::Lwr | Op::Ldr => self.load_part(insn, bytes, false),
            Op::Sb | Op::Sh | Op::Sw | Op::Sd => self.store_register(insn, bytes),
            Op::Swl | Op::Sdl => self.call_store(insn, self.thunks.store_left[wide]),
            Op::Swr | Op::Sdr => self.call_store(insn, self.thunks.store_right[wide]),
            Op::Ll | Op::Lld => self.load_linked(insn, bytes),
            Op::Sc | Op::Scd => self.store_conditional(insn, bytes),
            op => unreachable!("{op:?} is not translated"),
        }
    }

    fn load_register(&mut self, insn: Insn, bytes: u64, is_signed: bool) {
        let target = self.target(insn.rt, RAX);
        self.load_at(insn, bytes, is_signed, target);
        self.write(insn.rt, target);
    }

    /// `target` = the value of `bytes` bytes at the address of an instruction with base and offset.
    pub fn load_at(&mut self, insn: Insn, bytes: u64, is_signed: bool, target: Host) {
        let Some(Part::Other { slot }) = self.part() else {
            let at = self.address(insn);
            return self.load_value(bytes, is_signed, target, at);
        };
        let done = self.emitter.new_label();
        let address = self.kept_address(insn, slot, move |codegen| {
            codegen.load_value(bytes, is_signed, target, Virtual::IN_RAX);
            codegen.emitter.jump(done);
        });
        self.emitter.load_memory(bytes, is_signed, target, address);
        self.emitter.place(done);
    }

    /// `target` = the value of `bytes` bytes at an address.
    pub fn load_value(&mut self, bytes: u64, is_signed: bool, target: Host, at: Virtual) {
        let (missed, done) = (self.emitter.new_label(), self.emitter.new_label());
        let site = self.site;
        let aside = self.aside_here();
        self.translate(Layout::CPU.loads, bytes, at, missed);
        self.keep_translation(bytes, at);
        self.emitter.load_memory(bytes, is_signed, target, at.translated());
        self.emitter.place(done);
        let thunk = self.thunks.load[size_index(bytes)];
        self.later(move |codegen| {
            codegen.emitter.place(missed);
            codegen.emitter.add_constant(RAX, at.base, at.offset);
            codegen.call_access(thunk, site, aside);
            codegen.emitter.extend(bytes, is_signed, target, RAX);
            codegen.empty_slots();
            codegen.emitter.jump(done);
        });
    }

    fn store_register(&mut self, insn: Insn, bytes: u64) {
        let value = self.place(insn.rt);
        self.store_at(insn, bytes, value);
    }

    /// Stores the low `bytes` bytes of the value at the address of an instruction with base and offset.
    pub fn store_at(&mut self, insn: Insn, bytes: u64, value: Place) {
        let Some(Part::Other { slot }) = self.part() else {
            let at = self.address(insn);
            return self.store_value(bytes, value, at);
        };
        let done = self.emitter.new_label();
        let address = self.kept_address(insn, slot, move |codegen| {
            codegen.store_value(bytes, value, Virtual::IN_RAX);
            codegen.emitter.jump(done);
        });
        self.store_to(bytes, value, address);
        self.emitter.place(done);
    }

    /// Stores the low `bytes` bytes of the value at an address.
    pub fn store_value(&mut self, bytes: u64, value: Place, at: Virtual) {
        let (missed, done) = (self.emitter.new_label(), self.emitter.new_label());
        let site = self.site;
        let aside = self.aside_here();
        self.translate(Layout::CPU.stores, bytes, at, missed);
        self.keep_translation(bytes, at);
        self.store_to(bytes, value, at.translated());
        self.emitter.place(done);
        let thunk = self.thunks.store[size_index(bytes)];
        self.later(move |codegen| {
            codegen.emitter.place(missed);
            codegen.emitter.add_constant(RAX, at.base, at.offset);
            codegen.emitter.load(width_of(bytes), RDX, value);
            codegen.call_access(thunk, site, aside);
            codegen.empty_slots();
            codegen.emitter.jump(done);
        });
    }

    fn store_to(&mut self, bytes: u64, value: Place, address: Address) {
        let source = match value {
            Place::Host(host) => host,
            _ => {
                self.emitter.load(width_of(bytes), RDX, value);
                RDX
            }
        };
        self.emitter.store_memory(bytes, source, address);
    }

    /// LL and LLD: a load that leaves what SC asks for. CPUs that share memory take turns, so nothing more is needed.
    fn load_linked(&mut self, insn: Insn, bytes: u64) {
        let (missed, done) = (self.emitter.new_label(), self.emitter.new_label());
        let site = self.site;
        let aside = self.aside_here();
        self.host_and_machine_address(insn, Layout::CPU.loads, bytes, missed);
        dynasm!(self.emitter.ops()
            ; mov [rbp + field(Layout::CPU.ll_address)], rax
            ; shr rax, 4
            ; mov [rbp + field(Layout::CPU.ll_addr)], rax
            ; mov BYTE [rbp + field(Layout::CPU.ll_bit)], 1
        );
        self.load_from_rcx(bytes);
        dynasm!(self.emitter.ops(); mov [rbp + field(Layout::CPU.ll_value)], rax; =>done);
        let thunk = self.thunks.load_linked[usize::from(bytes == 8)];
        self.later(move |codegen| {
            codegen.emitter.place(missed);
            codegen.call_access(thunk, site, aside);
            codegen.emitter.jump(done);
        });
        match bytes {
            4 => self.write_word(insn.rt, RAX),
            _ => self.write(insn.rt, RAX),
        }
    }

    /// SC and SCD: a store if the address is the one of LL and holds what that loaded. 1 or 0 for the register.
    fn store_conditional(&mut self, insn: Insn, bytes: u64) {
        let (missed, failed, done) =
            (self.emitter.new_label(), self.emitter.new_label(), self.emitter.new_label());
        let site = self.site;
        let aside = self.aside_here();
        let value = self.place(insn.rt);
        self.host_and_machine_address(insn, Layout::CPU.stores, bytes, missed);
        dynasm!(self.emitter.ops()
            ; movzx edx, BYTE [rbp + field(Layout::CPU.ll_bit)]
            ; mov BYTE [rbp + field(Layout::CPU.ll_bit)], 0
            ; test edx, edx
            ; je =>failed
            ; cmp rax, [rbp + field(Layout::CPU.ll_address)]
            ; jne =>failed
        );
        self.load_from_rcx(bytes);
        dynasm!(self.emitter.ops(); cmp rax, [rbp + field(Layout::CPU.ll_value)]; jne =>failed);
        self.emitter.load(width_of(bytes), RDX, value);
        match bytes {
            4 => dynasm!(self.emitter.ops(); mov [rcx], edx),
            _ => dynasm!(self.emitter.ops(); mov [rcx], rdx),
        }
        dynasm!(self.emitter.ops(); mov eax, 1; =>done);
        let thunk = self.thunks.store_conditional[usize::from(bytes == 8)];
        self.later(move |codegen| {
            dynasm!(codegen.emitter.ops(); =>failed; xor eax, eax; jmp =>done);
            codegen.emitter.place(missed);
            codegen.emitter.load(Width::Double, RDX, value);
            codegen.call_access(thunk, site, aside);
            codegen.emitter.jump(done);
        });
        self.write(insn.rt, RAX);
    }

    /// rcx = the host address that an aligned access of `insn` leads to, rax = the machine address; with the virtual one in
    /// rax to `missed` if the host translations at `cache` do not have it.
    fn host_and_machine_address(&mut self, insn: Insn, cache: usize, bytes: u64, missed: DynamicLabel) {
        self.address_in_rax(insn);
        self.translate(cache, bytes, Virtual::IN_RAX, missed);
        dynasm!(self.emitter.ops()
            ; add rcx, rax
            ; mov rax, rcx
            ; sub rax, [rbp + field(Layout::CPU.memory)]
        );
    }

    /// rax = the value of 4 or 8 bytes at the host address in rcx, zero-extended.
    fn load_from_rcx(&mut self, bytes: u64) {
        match bytes {
            4 => dynasm!(self.emitter.ops(); mov eax, [rcx]),
            _ => dynasm!(self.emitter.ops(); mov rax, [rcx]),
        }
    }

    // -- groups ----------------------------------------------------------------------------------------

    /// Where the access of `insn` leads if the slot of its group has what to add. If not, `alone` does it with
    /// the address in rax.
    fn kept_address(&mut self, insn: Insn, slot: usize, alone: impl FnOnce(&mut Self) + 'static) -> Address {
        let is_empty = self.emitter.new_label();
        let offset = slot_offset(slot);
        let (place, imm) = (self.place(insn.rs), i32::from(insn.imm));
        dynasm!(self.emitter.ops(); mov rcx, [BYTE rsp + offset]; test cl, 1; jne =>is_empty);
        let base = match place {
            Place::Host(host) => host,
            _ => {
                self.emitter.load(Width::Double, RAX, place);
                RAX
            }
        };
        self.later(move |codegen| {
            codegen.emitter.place(is_empty);
            codegen.emitter.load(Width::Double, RAX, place);
            codegen.emitter.alu_constant(Alu::Add, Width::Double, RAX, imm);
            alone(codegen);
        });
        Address { base, index: RCX, offset: imm }
    }

    /// If the present access is the first of a group: keeps rcx in the group's slot, if all accesses of the
    /// group lie in the page of the address.
    fn keep_translation(&mut self, bytes: u64, at: Virtual) {
        let Some(Part::First { slot, low, high, alignment }) = self.part() else { return };
        let (does_not_fit, done) = (self.emitter.new_label(), self.emitter.new_label());
        let offset = slot_offset(slot);
        self.emitter.add_constant_to_word(RDX, at.base, at.offset + low);
        if alignment > bytes as i32 || low % alignment != 0 {
            dynasm!(self.emitter.ops(); test dl, alignment as i8 - 1; jne =>does_not_fit);
        }
        dynasm!(self.emitter.ops()
            ; and edx, 0xfff
            ; cmp edx, 4096 - (high - low)
            ; ja =>does_not_fit
            ; mov [BYTE rsp + offset], rcx
            ; =>done
        );
        self.later(move |codegen| {
            dynasm!(codegen.emitter.ops()
                ; =>does_not_fit
                ; mov QWORD [BYTE rsp + offset], EMPTY
                ; jmp =>done
            );
        });
    }

    /// Empties the slots of the groups around the present instruction.
    fn empty_slots(&mut self) {
        let slots: Vec<usize> = self.groups.slots_across(self.current).collect();
        for slot in slots {
            let offset = slot_offset(slot);
            dynasm!(self.emitter.ops(); mov QWORD [BYTE rsp + offset], EMPTY);
        }
    }

    /// The part of the present instruction in a group.
    fn part(&self) -> Option<Part> {
        self.groups.part(self.current)
    }

    /// A store that is always done by a call.
    fn call_store(&mut self, insn: Insn, thunk: usize) {
        let aside = self.aside_here();
        self.address_in_rax(insn);
        self.read(RDX, insn.rt);
        self.call_access(thunk, self.site, aside);
    }

    /// LWL and its kin: the bytes of the aligned value up to the address (`is_left`) or from it on take
    /// the place of the high or the low bytes of the register.
    fn load_part(&mut self, insn: Insn, bytes: u64, is_left: bool) {
        let (missed, merge) = (self.emitter.new_label(), self.emitter.new_label());
        let site = self.site;
        let aside = self.aside_here();
        let bits = bytes as i32 - 1;
        self.address_in_rax(insn);
        dynasm!(self.emitter.ops(); mov [BYTE rsp + frame::ADDRESS], rax; and rax, -(bytes as i32));
        self.translate(Layout::CPU.loads, 1, Virtual::IN_RAX, missed);
        self.emitter.load_memory(bytes, false, RAX, Virtual::IN_RAX.translated());
        self.emitter.place(merge);
        let thunk = self.thunks.load_around[usize::from(bytes == 8)];
        self.later(move |codegen| {
            codegen.emitter.place(missed);
            dynasm!(codegen.emitter.ops(); mov rax, [BYTE rsp + frame::ADDRESS]);
            codegen.call_access(thunk, site, aside);
            codegen.emitter.jump(merge);
        });
        // By how many bits the value is shifted.
        dynasm!(self.emitter.ops(); mov ecx, [BYTE rsp + frame::ADDRESS]);
        if is_left {
            dynasm!(self.emitter.ops(); not ecx);
        }
        dynasm!(self.emitter.ops(); and ecx, bits; shl ecx, 3; mov rdx, -1);
        match (bytes, is_left) {
            (4, true) => dynasm!(self.emitter.ops(); shl eax, cl; shl edx, cl),
            (4, false) => dynasm!(self.emitter.ops(); shr eax, cl; shr edx, cl),
            (_, true) => dynasm!(self.emitter.ops(); shl rax, cl; shl rdx, cl),
            (_, false) => dynasm!(self.emitter.ops(); shr rax, cl; shr rdx, cl),
        }
        // rdx has the bits that are new.
        self.read(RCX, insn.rt);
        match bytes {
            4 => {
                dynasm!(self.emitter.ops(); not edx; and edx, ecx; or eax, edx);
                self.write_word(insn.rt, RAX);
            }
            _ => {
                dynasm!(self.emitter.ops(); not rdx; and rdx, rcx; or rax, rdx);
                self.write(insn.rt, RAX);
            }
        }
    }
}
