//! Loads and stores: the CPU's host translations inline, everything else by a call.
//!
//! The call answers what a TLB hit can answer, as the interpreter's slow path would, and remembers it
//! in the translations. What it refuses (faults, devices, stores to code) goes aside.

use dynasmrt::{DynasmApi, dynasm};
use machine::cpu::Layout;
use mips::{Insn, Op};

use super::codegen::Codegen;
use super::emitter::{Host, Place, RAX, RCX, RDX, Width, frame};

/// Index of a size among 1, 2, 4 and 8.
fn size_index(bytes: u64) -> usize {
    bytes.trailing_zeros() as usize
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
            Op::Ll | Op::Lld => {
                let aside = self.aside_here();
                self.address(insn);
                self.call_access(self.thunks.load_linked[wide], self.site, aside);
                match bytes {
                    4 => self.write_word(insn.rt, RAX),
                    _ => self.write(insn.rt, RAX),
                }
            }
            Op::Sc | Op::Scd => {
                self.call_store(insn, self.thunks.store_conditional[wide]);
                self.write(insn.rt, RAX);
            }
            op => unreachable!("{op:?} is not translated"),
        }
    }

    fn load_register(&mut self, insn: Insn, bytes: u64, is_signed: bool) {
        let target = self.target(insn.rt, RAX);
        self.address(insn);
        self.load_value(bytes, is_signed, target);
        self.write(insn.rt, target);
    }

    /// `target` = the value of `bytes` bytes at the address in rax.
    pub fn load_value(&mut self, bytes: u64, is_signed: bool, target: Host) {
        let (missed, done) = (self.emitter.new_label(), self.emitter.new_label());
        let site = self.site;
        let aside = self.aside_here();
        self.translate(Layout::CPU.loads, bytes, missed);
        self.emitter.load_memory(bytes, is_signed, target, RAX, RCX);
        self.emitter.place(done);
        let thunk = self.thunks.load[size_index(bytes)];
        self.later(move |codegen| {
            codegen.emitter.place(missed);
            codegen.call_access(thunk, site, aside);
            codegen.emitter.extend(bytes, is_signed, target, RAX);
            codegen.emitter.jump(done);
        });
    }

    fn store_register(&mut self, insn: Insn, bytes: u64) {
        let value = self.place(insn.rt);
        self.address(insn);
        self.store_value(bytes, value);
    }

    /// Stores the low `bytes` bytes of the value at the address in rax.
    pub fn store_value(&mut self, bytes: u64, value: Place) {
        let (missed, done) = (self.emitter.new_label(), self.emitter.new_label());
        let site = self.site;
        let aside = self.aside_here();
        self.translate(Layout::CPU.stores, bytes, missed);
        let width = if bytes == 8 { Width::Double } else { Width::Word };
        let source = match value {
            Place::Host(host) => host,
            _ => {
                self.emitter.load(width, RDX, value);
                RDX
            }
        };
        self.emitter.store_memory(bytes, source, RAX, RCX);
        self.emitter.place(done);
        let thunk = self.thunks.store[size_index(bytes)];
        self.later(move |codegen| {
            codegen.emitter.place(missed);
            codegen.emitter.load(width, RDX, value);
            codegen.call_access(thunk, site, aside);
            codegen.emitter.jump(done);
        });
    }

    /// A store that is always done by a call.
    fn call_store(&mut self, insn: Insn, thunk: usize) {
        let aside = self.aside_here();
        self.address(insn);
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
        self.address(insn);
        dynasm!(self.emitter.ops(); mov [BYTE rsp + frame::ADDRESS], rax; and rax, -(bytes as i32));
        self.translate(Layout::CPU.loads, 1, missed);
        self.emitter.load_memory(bytes, false, RAX, RAX, RCX);
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
