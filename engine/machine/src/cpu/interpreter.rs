//! The loop that executes decoded instructions of one page.
//!
//! It goes a run at a time: at the run's first instruction it is known how many follow, so time and
//! counts are settled once a run, and an early exit settles what was executed. Only the last two
//! instructions of a run can be a branch and its delay slot. A branch just notes in `after` where the
//! program counter goes when the run ends; the delay slot is then executed like any instruction.
//!
//! Whatever is not an ordinary run (not decoded yet, longer than the time left, a branch whose slot
//! must be looked at separately, such a slot itself) has a length that fails one comparison and is
//! planned aside, in [`Cpu::plan_run`].

use mips::Op;

use super::code::{CodePage, OPEN_BRANCH, PAGE_INSNS, RUN_MAX, UNDECODED, may_be_in_slot};
use super::data::Stored;
use super::float::tested_condition;
use super::integer::{
    accumulator, ddiv, ddivu, div, divu, dmult, dmultu, dsbh, dshd, extract, insert, merge_ldl, merge_ldr,
    merge_lwl, merge_lwr, product, product_unsigned, word, word_pair, wsbh,
};
use super::{Cpu, Fault, FaultSite, Leave, Outcome};
use crate::{Cycles, Exception, MachineAddr, PAGE_BYTES};

/// Where execution enters a page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) pc: u64,
    /// `Some(target)`: just one instruction, the delay slot of a branch to `target`.
    pub(super) slot_of: Option<u64>,
    /// The first run is executed here, even if the accelerator wants it.
    pub(super) is_aside: bool,
}

/// What [`Cpu::plan_run`] has decided.
struct Plan {
    length: u8,
    after: u64,
    /// The run is a branch without its delay slot.
    is_open: bool,
}

/// How the loop came to its end.
enum End {
    /// A run is complete, and the next instruction is elsewhere, or no time is left.
    Jump,
    /// As `Jump`, and the next run may be hot.
    Hot,
    /// The instruction at `index` is complete, and the CPU must look around.
    Boundary,
    /// An open branch is complete.
    Slot,
    /// The instruction at `index` was not executed.
    Fault,
    /// WAIT, complete.
    Wait,
}

impl Cpu {
    /// Executes instructions of `page` from `entry` on, up to the first that is elsewhere or begins at
    /// or after `until`. Leaves `regs.pc`, `now` and `instructions` settled.
    #[inline(never)]
    pub(super) fn run_page(&mut self, page: &mut CodePage, entry: Entry, until: Cycles) -> Leave {
        let base = entry.pc & !(PAGE_BYTES - 1);
        let mut slot_of = entry.slot_of;
        let mut is_aside = entry.is_aside;
        // A slot is planned aside because no time is left: it belongs to its branch.
        let budget = match slot_of {
            Some(_) => 0,
            None => until.0.saturating_sub(self.now.0).min(i64::MAX as u64) as i64,
        };
        let mut left = budget;
        let mut index = (entry.pc >> 2) as usize % PAGE_INSNS;
        let mut start;
        let mut after;
        let mut last = index;

        macro_rules! rs {
            ($insn:ident) => {
                self.regs.gpr[usize::from($insn.rs)]
            };
        }
        macro_rules! rt {
            ($insn:ident) => {
                self.regs.gpr[usize::from($insn.rt)]
            };
        }
        macro_rules! rd {
            ($insn:ident) => {
                self.regs.gpr[usize::from($insn.rd)]
            };
        }
        macro_rules! address {
            ($insn:ident) => {
                rs!($insn).wrapping_add($insn.simm())
            };
        }

        let end = 'page: loop {
            start = index;
            let mut length = page.length(index);
            after = insn_address(base, index + usize::from(length));
            let mut is_open = false;
            if i64::from(length) > left.min(i64::from(RUN_MAX)) {
                match self.plan_run(page, base, index, left, &mut slot_of, &mut is_aside) {
                    Ok(plan) => Plan { length, after, is_open } = plan,
                    Err(end) => {
                        after = insn_address(base, index);
                        break 'page end;
                    }
                }
            }
            last = index + usize::from(length);

            for &insn in page.run(start, last) {
                // Where the instruction has more than one end.
                macro_rules! fault {
                    ($exception:expr) => {{
                        self.fault = Fault::Exception($exception);
                        break 'page End::Fault;
                    }};
                }
                macro_rules! trap_if {
                    ($condition:expr) => {
                        if $condition {
                            fault!(Exception::Trap);
                        }
                    };
                }
                macro_rules! checked {
                    ($result:expr) => {
                        match $result {
                            Some(value) => value as u64,
                            None => fault!(Exception::Overflow),
                        }
                    };
                }
                macro_rules! branch {
                    ($condition:expr) => {
                        if $condition {
                            after = insn_address(base, index + 1).wrapping_add(insn.branch_offset());
                        }
                    };
                }
                macro_rules! branch_likely {
                    ($condition:expr) => {
                        if $condition {
                            after = insn_address(base, index + 1).wrapping_add(insn.branch_offset());
                        } else if is_open {
                            is_open = false;
                        } else {
                            // The slot is skipped: not executed, not counted.
                            left += 1;
                            break;
                        }
                    };
                }
                macro_rules! link {
                    ($register:expr) => {
                        self.regs.gpr[$register] = insn_address(base, index + 2)
                    };
                }
                macro_rules! load {
                    ($type:ty, $address:expr) => {
                        match self.load::<$type>($address) {
                            Some(value) => value,
                            None => break 'page End::Fault,
                        }
                    };
                }
                macro_rules! load_around {
                    ($type:ty, $merge:ident) => {{
                        let address = address!(insn);
                        match self.load_around::<$type>(address) {
                            Some(value) => rt!(insn) = $merge(rt!(insn), value, address),
                            None => break 'page End::Fault,
                        }
                    }};
                }
                macro_rules! end_store {
                    ($stored:expr) => {
                        match $stored {
                            Stored::Done => {}
                            Stored::CodeChanged => break 'page End::Boundary,
                            Stored::Fault => break 'page End::Fault,
                        }
                    };
                }
                macro_rules! store {
                    ($type:ty, $address:expr, $value:expr) => {
                        end_store!(self.store::<$type>($address, $value as $type))
                    };
                }
                macro_rules! need_float {
                    () => {
                        if !self.has_float {
                            fault!(Exception::CoprocessorUnusable { unit: 1 });
                        }
                    };
                }
                macro_rules! outcome {
                    ($outcome:expr) => {
                        match $outcome {
                            Outcome::Next => {}
                            Outcome::Fault => break 'page End::Fault,
                            Outcome::Boundary => break 'page End::Boundary,
                            Outcome::Wait => break 'page End::Wait,
                            Outcome::Return => {
                                after = self.regs.pc;
                                break 'page End::Boundary;
                            }
                        }
                    };
                }

                match insn.op {
                    Op::Nop | Op::Ssnop | Op::Ehb | Op::Pause | Op::Sync | Op::Pref => {}

                    // Shifts
                    Op::Sll => rd!(insn) = word((rt!(insn) as u32) << (insn.sa & 31)),
                    Op::Srl => rd!(insn) = word(rt!(insn) as u32 >> (insn.sa & 31)),
                    Op::Sra => rd!(insn) = (rt!(insn) as i32 >> (insn.sa & 31)) as u64,
                    Op::Rotr => rd!(insn) = word((rt!(insn) as u32).rotate_right(u32::from(insn.sa))),
                    Op::Sllv => rd!(insn) = word((rt!(insn) as u32) << (rs!(insn) & 31)),
                    Op::Srlv => rd!(insn) = word(rt!(insn) as u32 >> (rs!(insn) & 31)),
                    Op::Srav => rd!(insn) = (rt!(insn) as i32 >> (rs!(insn) & 31)) as u64,
                    Op::Rotrv => rd!(insn) = word((rt!(insn) as u32).rotate_right(rs!(insn) as u32 & 31)),
                    Op::Dsll => rd!(insn) = rt!(insn) << (insn.sa & 31),
                    Op::Dsrl => rd!(insn) = rt!(insn) >> (insn.sa & 31),
                    Op::Dsra => rd!(insn) = (rt!(insn) as i64 >> (insn.sa & 31)) as u64,
                    Op::Drotr => rd!(insn) = rt!(insn).rotate_right(u32::from(insn.sa)),
                    Op::Dsll32 => rd!(insn) = rt!(insn) << (insn.sa & 31 | 32),
                    Op::Dsrl32 => rd!(insn) = rt!(insn) >> (insn.sa & 31 | 32),
                    Op::Dsra32 => rd!(insn) = (rt!(insn) as i64 >> (insn.sa & 31 | 32)) as u64,
                    Op::Drotr32 => rd!(insn) = rt!(insn).rotate_right(u32::from(insn.sa | 32)),
                    Op::Dsllv => rd!(insn) = rt!(insn) << (rs!(insn) & 63),
                    Op::Dsrlv => rd!(insn) = rt!(insn) >> (rs!(insn) & 63),
                    Op::Dsrav => rd!(insn) = (rt!(insn) as i64 >> (rs!(insn) & 63)) as u64,
                    Op::Drotrv => rd!(insn) = rt!(insn).rotate_right(rs!(insn) as u32 & 63),

                    // Arithmetic
                    Op::Addu => rd!(insn) = word((rs!(insn) as u32).wrapping_add(rt!(insn) as u32)),
                    Op::Subu => rd!(insn) = word((rs!(insn) as u32).wrapping_sub(rt!(insn) as u32)),
                    Op::Daddu => rd!(insn) = rs!(insn).wrapping_add(rt!(insn)),
                    Op::Dsubu => rd!(insn) = rs!(insn).wrapping_sub(rt!(insn)),
                    Op::Addiu => rt!(insn) = word((rs!(insn) as u32).wrapping_add(insn.simm() as u32)),
                    Op::Daddiu => rt!(insn) = rs!(insn).wrapping_add(insn.simm()),
                    Op::Add => rd!(insn) = checked!((rs!(insn) as i32).checked_add(rt!(insn) as i32)),
                    Op::Sub => rd!(insn) = checked!((rs!(insn) as i32).checked_sub(rt!(insn) as i32)),
                    Op::Dadd => rd!(insn) = checked!((rs!(insn) as i64).checked_add(rt!(insn) as i64)),
                    Op::Dsub => rd!(insn) = checked!((rs!(insn) as i64).checked_sub(rt!(insn) as i64)),
                    Op::Addi => rt!(insn) = checked!((rs!(insn) as i32).checked_add(i32::from(insn.imm))),
                    Op::Daddi => rt!(insn) = checked!((rs!(insn) as i64).checked_add(i64::from(insn.imm))),
                    Op::Slt => rd!(insn) = u64::from((rs!(insn) as i64) < rt!(insn) as i64),
                    Op::Sltu => rd!(insn) = u64::from(rs!(insn) < rt!(insn)),
                    Op::Slti => rt!(insn) = u64::from((rs!(insn) as i64) < i64::from(insn.imm)),
                    Op::Sltiu => rt!(insn) = u64::from(rs!(insn) < insn.simm()),
                    Op::Clz => rd!(insn) = u64::from((rs!(insn) as u32).leading_zeros()),
                    Op::Clo => rd!(insn) = u64::from((rs!(insn) as u32).leading_ones()),
                    Op::Dclz => rd!(insn) = u64::from(rs!(insn).leading_zeros()),
                    Op::Dclo => rd!(insn) = u64::from(rs!(insn).leading_ones()),
                    Op::Seb => rd!(insn) = rt!(insn) as i8 as u64,
                    Op::Seh => rd!(insn) = rt!(insn) as i16 as u64,

                    // Multiplication and division
                    Op::Mul => rd!(insn) = word(product(rs!(insn), rt!(insn)) as u32),
                    Op::Mult => (self.regs.hi, self.regs.lo) = word_pair(product(rs!(insn), rt!(insn))),
                    Op::Multu => {
                        (self.regs.hi, self.regs.lo) = word_pair(product_unsigned(rs!(insn), rt!(insn)));
                    }
                    Op::Madd | Op::Maddu | Op::Msub | Op::Msubu => {
                        let old = accumulator((self.regs.hi, self.regs.lo));
                        let product = match insn.op {
                            Op::Madd | Op::Msub => product(rs!(insn), rt!(insn)),
                            _ => product_unsigned(rs!(insn), rt!(insn)),
                        };
                        let new = match insn.op {
                            Op::Madd | Op::Maddu => old.wrapping_add(product),
                            _ => old.wrapping_sub(product),
                        };
                        (self.regs.hi, self.regs.lo) = word_pair(new);
                    }
                    Op::Div => (self.regs.hi, self.regs.lo) = div(rs!(insn), rt!(insn)),
                    Op::Divu => (self.regs.hi, self.regs.lo) = divu(rs!(insn), rt!(insn)),
                    Op::Dmult => (self.regs.hi, self.regs.lo) = dmult(rs!(insn), rt!(insn)),
                    Op::Dmultu => (self.regs.hi, self.regs.lo) = dmultu(rs!(insn), rt!(insn)),
                    Op::Ddiv => (self.regs.hi, self.regs.lo) = ddiv(rs!(insn), rt!(insn)),
                    Op::Ddivu => (self.regs.hi, self.regs.lo) = ddivu(rs!(insn), rt!(insn)),
                    Op::Mfhi => rd!(insn) = self.regs.hi,
                    Op::Mflo => rd!(insn) = self.regs.lo,
                    Op::Mthi => self.regs.hi = rs!(insn),
                    Op::Mtlo => self.regs.lo = rs!(insn),

                    // Logic and moves
                    Op::And => rd!(insn) = rs!(insn) & rt!(insn),
                    Op::Or => rd!(insn) = rs!(insn) | rt!(insn),
                    Op::Xor => rd!(insn) = rs!(insn) ^ rt!(insn),
                    Op::Nor => rd!(insn) = !(rs!(insn) | rt!(insn)),
                    Op::Andi => rt!(insn) = rs!(insn) & insn.uimm(),
                    Op::Ori => rt!(insn) = rs!(insn) | insn.uimm(),
                    Op::Xori => rt!(insn) = rs!(insn) ^ insn.uimm(),
                    Op::Lui => rt!(insn) = insn.simm() << 16,
                    Op::Movz => {
                        if rt!(insn) == 0 {
                            rd!(insn) = rs!(insn);
                        }
                    }
                    Op::Movn => {
                        if rt!(insn) != 0 {
                            rd!(insn) = rs!(insn);
                        }
                    }
                    Op::Ext => {
                        let (position, size) = (u32::from(insn.sa), u32::from(insn.rd) + 1);
                        rt!(insn) = word(extract(rs!(insn) & 0xffff_ffff, position, size) as u32);
                    }
                    Op::Dext => {
                        let (position, size) = (u32::from(insn.sa), u32::from(insn.rd) + 1);
                        rt!(insn) = extract(rs!(insn), position, size);
                    }
                    Op::Dextm => {
                        let (position, size) = (u32::from(insn.sa), u32::from(insn.rd) + 33);
                        rt!(insn) = extract(rs!(insn), position, size);
                    }
                    Op::Dextu => {
                        let (position, size) = (u32::from(insn.sa) + 32, u32::from(insn.rd) + 1);
                        rt!(insn) = extract(rs!(insn), position, size);
                    }
                    Op::Ins => {
                        let (first, last) = (u32::from(insn.sa), u32::from(insn.rd));
                        rt!(insn) = word(insert(rt!(insn), rs!(insn), first, last) as u32);
                    }
                    Op::Dins => {
                        let (first, last) = (u32::from(insn.sa), u32::from(insn.rd));
                        rt!(insn) = insert(rt!(insn), rs!(insn), first, last);
                    }
                    Op::Dinsm => {
                        let (first, last) = (u32::from(insn.sa), u32::from(insn.rd) + 32);
                        rt!(insn) = insert(rt!(insn), rs!(insn), first, last);
                    }
                    Op::Dinsu => {
                        let (first, last) = (u32::from(insn.sa) + 32, u32::from(insn.rd) + 32);
                        rt!(insn) = insert(rt!(insn), rs!(insn), first, last);
                    }
                    Op::Wsbh => rd!(insn) = wsbh(rt!(insn)),
                    Op::Dsbh => rd!(insn) = dsbh(rt!(insn)),
                    Op::Dshd => rd!(insn) = dshd(rt!(insn)),

                    // Loads
                    Op::Lb => rt!(insn) = load!(u8, address!(insn)) as i8 as u64,
                    Op::Lbu => rt!(insn) = u64::from(load!(u8, address!(insn))),
                    Op::Lh => rt!(insn) = load!(u16, address!(insn)) as i16 as u64,
                    Op::Lhu => rt!(insn) = u64::from(load!(u16, address!(insn))),
                    Op::Lw => rt!(insn) = word(load!(u32, address!(insn))),
                    Op::Lwu => rt!(insn) = u64::from(load!(u32, address!(insn))),
                    Op::Ld => rt!(insn) = load!(u64, address!(insn)),
                    Op::Lwl => load_around!(u32, merge_lwl),
                    Op::Lwr => load_around!(u32, merge_lwr),
                    Op::Ldl => load_around!(u64, merge_ldl),
                    Op::Ldr => load_around!(u64, merge_ldr),
                    Op::Ll => {
                        let address = address!(insn);
                        let value = load!(u32, address);
                        self.link(address, u64::from(value));
                        rt!(insn) = word(value);
                    }
                    Op::Lld => {
                        let address = address!(insn);
                        let value = load!(u64, address);
                        self.link(address, value);
                        rt!(insn) = value;
                    }

                    // Stores
                    Op::Sb => store!(u8, address!(insn), rt!(insn)),
                    Op::Sh => store!(u16, address!(insn), rt!(insn)),
                    Op::Sw => store!(u32, address!(insn), rt!(insn)),
                    Op::Sd => store!(u64, address!(insn), rt!(insn)),
                    Op::Swl => {
                        let (address, bytes) = (address!(insn), address!(insn) & 3);
                        let value = (rt!(insn) & 0xffff_ffff) >> (24 - 8 * bytes);
                        end_store!(self.store_bytes(address, bytes, bytes + 1, value));
                    }
                    Op::Sdl => {
                        let (address, bytes) = (address!(insn), address!(insn) & 7);
                        let value = rt!(insn) >> (56 - 8 * bytes);
                        end_store!(self.store_bytes(address, bytes, bytes + 1, value));
                    }
                    Op::Swr => {
                        let address = address!(insn);
                        end_store!(self.store_bytes(address, 0, 4 - (address & 3), rt!(insn)));
                    }
                    Op::Sdr => {
                        let address = address!(insn);
                        end_store!(self.store_bytes(address, 0, 8 - (address & 7), rt!(insn)));
                    }

                    // Branches and jumps
                    Op::Beq => branch!(rs!(insn) == rt!(insn)),
                    Op::Bne => branch!(rs!(insn) != rt!(insn)),
                    Op::Blez => branch!(rs!(insn) as i64 <= 0),
                    Op::Bgtz => branch!(rs!(insn) as i64 > 0),
                    Op::Bltz => branch!((rs!(insn) as i64) < 0),
                    Op::Bgez => branch!(rs!(insn) as i64 >= 0),
                    Op::Beql => branch_likely!(rs!(insn) == rt!(insn)),
                    Op::Bnel => branch_likely!(rs!(insn) != rt!(insn)),
                    Op::Blezl => branch_likely!(rs!(insn) as i64 <= 0),
                    Op::Bgtzl => branch_likely!(rs!(insn) as i64 > 0),
                    Op::Bltzl => branch_likely!((rs!(insn) as i64) < 0),
                    Op::Bgezl => branch_likely!(rs!(insn) as i64 >= 0),
                    Op::Bltzal => {
                        let is_taken = (rs!(insn) as i64) < 0;
                        link!(31);
                        branch!(is_taken);
                    }
                    Op::Bgezal => {
                        let is_taken = rs!(insn) as i64 >= 0;
                        link!(31);
                        branch!(is_taken);
                    }
                    Op::Bltzall => {
                        let is_taken = (rs!(insn) as i64) < 0;
                        link!(31);
                        branch_likely!(is_taken);
                    }
                    Op::Bgezall => {
                        let is_taken = rs!(insn) as i64 >= 0;
                        link!(31);
                        branch_likely!(is_taken);
                    }
                    Op::J => after = jump_target(base, index, insn.target()),
                    Op::Jal => {
                        after = jump_target(base, index, insn.target());
                        link!(31);
                    }
                    Op::Jr | Op::JrHb => after = rs!(insn),
                    Op::Jalr | Op::JalrHb => {
                        after = rs!(insn);
                        link!(usize::from(insn.rd));
                    }

                    // Traps
                    Op::Tge => trap_if!(rs!(insn) as i64 >= rt!(insn) as i64),
                    Op::Tgeu => trap_if!(rs!(insn) >= rt!(insn)),
                    Op::Tlt => trap_if!((rs!(insn) as i64) < rt!(insn) as i64),
                    Op::Tltu => trap_if!(rs!(insn) < rt!(insn)),
                    Op::Teq => trap_if!(rs!(insn) == rt!(insn)),
                    Op::Tne => trap_if!(rs!(insn) != rt!(insn)),
                    Op::Tgei => trap_if!(rs!(insn) as i64 >= i64::from(insn.imm)),
                    Op::Tgeiu => trap_if!(rs!(insn) >= insn.simm()),
                    Op::Tlti => trap_if!((rs!(insn) as i64) < i64::from(insn.imm)),
                    Op::Tltiu => trap_if!(rs!(insn) < insn.simm()),
                    Op::Teqi => trap_if!(rs!(insn) == insn.simm()),
                    Op::Tnei => trap_if!(rs!(insn) != insn.simm()),

                    // Floating point: loads, stores and branches
                    Op::Lwc1 => {
                        need_float!();
                        let value = load!(u32, address!(insn));
                        self.regs.set_single(self.register_model, insn.rt, value);
                    }
                    Op::Ldc1 => {
                        need_float!();
                        let value = load!(u64, address!(insn));
                        self.regs.set_double(self.register_model, insn.rt, value);
                    }
                    Op::Swc1 => {
                        need_float!();
                        store!(u32, address!(insn), self.regs.single(self.register_model, insn.rt));
                    }
                    Op::Sdc1 => {
                        need_float!();
                        store!(u64, address!(insn), self.regs.double(self.register_model, insn.rt));
                    }
                    Op::Lwxc1 => {
                        need_float!();
                        let value = load!(u32, rs!(insn).wrapping_add(rt!(insn)));
                        self.regs.set_single(self.register_model, insn.sa, value);
                    }
                    Op::Ldxc1 => {
                        need_float!();
                        let value = load!(u64, rs!(insn).wrapping_add(rt!(insn)));
                        self.regs.set_double(self.register_model, insn.sa, value);
                    }
                    Op::Luxc1 => {
                        need_float!();
                        let value = load!(u64, rs!(insn).wrapping_add(rt!(insn)) & !7);
                        self.regs.set_double(self.register_model, insn.sa, value);
                    }
                    Op::Swxc1 => {
                        need_float!();
                        let value = self.regs.single(self.register_model, insn.rd);
                        store!(u32, rs!(insn).wrapping_add(rt!(insn)), value);
                    }
                    Op::Sdxc1 => {
                        need_float!();
                        let value = self.regs.double(self.register_model, insn.rd);
                        store!(u64, rs!(insn).wrapping_add(rt!(insn)), value);
                    }
                    Op::Suxc1 => {
                        need_float!();
                        let value = self.regs.double(self.register_model, insn.rd);
                        store!(u64, rs!(insn).wrapping_add(rt!(insn)) & !7, value);
                    }
                    Op::Bc1f => {
                        need_float!();
                        branch!(!self.regs.fcsr.condition(tested_condition(insn)));
                    }
                    Op::Bc1t => {
                        need_float!();
                        branch!(self.regs.fcsr.condition(tested_condition(insn)));
                    }
                    Op::Bc1fl => {
                        need_float!();
                        branch_likely!(!self.regs.fcsr.condition(tested_condition(insn)));
                    }
                    Op::Bc1tl => {
                        need_float!();
                        branch_likely!(self.regs.fcsr.condition(tested_condition(insn)));
                    }

                    Op::Syscall
                    | Op::Break
                    | Op::Sdbbp
                    | Op::Synci
                    | Op::Sc
                    | Op::Scd
                    | Op::Cache
                    | Op::Rdhwr
                    | Op::Mfc0
                    | Op::Dmfc0
                    | Op::Mtc0
                    | Op::Dmtc0
                    | Op::Rdpgpr
                    | Op::Wrpgpr
                    | Op::Di
                    | Op::Ei
                    | Op::Tlbr
                    | Op::Tlbwi
                    | Op::Tlbinv
                    | Op::Tlbinvf
                    | Op::Tlbwr
                    | Op::Tlbp
                    | Op::Eret
                    | Op::Deret
                    | Op::Wait
                    | Op::Cop2
                    | Op::Reserved => {
                        let executed = (budget - left) as u64 + (index - start) as u64;
                        outcome!(self.execute_system(insn, Cycles(self.now.0 + executed)));
                    }
                    _ => outcome!(self.execute_float(insn)),
                }

                index += 1;
            }

            left -= i64::from(length);
            if is_open {
                break 'page End::Slot;
            }
            if (after ^ base) & !(PAGE_BYTES - 4) != 0 {
                break 'page End::Jump;
            }
            index = (after >> 2) as usize % PAGE_INSNS;
        };

        // Settle what the last run has executed if it was left early.
        let is_run_complete = matches!(end, End::Jump | End::Hot | End::Slot);
        let is_insn_complete = !matches!(end, End::Fault);
        if !is_run_complete {
            left -= (index - start) as i64 + i64::from(is_insn_complete);
        }
        let executed = (budget - left) as u64;
        self.now.0 += executed;
        self.instructions += executed;

        let pc = insn_address(base, index);
        let next_pc = match entry.slot_of {
            Some(target) => target,
            None if is_run_complete || index + 1 == last => after,
            None => insn_address(base, index + 1),
        };
        match end {
            End::Jump => {
                self.regs.pc = after;
                Leave::Jump
            }
            End::Hot => {
                self.regs.pc = after;
                Leave::Hot
            }
            End::Boundary => {
                self.regs.pc = next_pc;
                Leave::Boundary
            }
            End::Wait => {
                self.regs.pc = next_pc;
                Leave::Wait
            }
            End::Slot => {
                self.regs.pc = insn_address(base, last - 1);
                Leave::Slot { target: after }
            }
            End::Fault => {
                let is_in_slot = entry.slot_of.is_some()
                    || (index > start && page.run(start, index)[index - 1 - start].op.is_branch());
                self.regs.pc = if is_in_slot { pc.wrapping_sub(4) } else { pc };
                let offset = 4 * index as u64;
                let address = MachineAddr(page.machine_page().address().0 + offset);
                let word = self.read_memory(address, 4) as u32;
                Leave::Fault(FaultSite { in_delay_slot: is_in_slot, next_pc, word })
            }
        }
    }

    /// What to do at `index` when it is not an ordinary run.
    #[cold]
    #[inline(never)]
    fn plan_run(
        &mut self,
        page: &mut CodePage,
        base: u64,
        index: usize,
        left: i64,
        slot_of: &mut Option<u64>,
        is_aside: &mut bool,
    ) -> Result<Plan, End> {
        if let Some(target) = slot_of.take() {
            if !may_be_in_slot(page.decode_one(&self.memory, index).op) {
                self.fault = Fault::Exception(Exception::ReservedInstruction);
                return Err(End::Fault);
            }
            return Ok(Plan { length: 1, after: target, is_open: false });
        }
        if left <= 0 {
            return Err(End::Jump);
        }
        if page.length(index) == UNDECODED {
            page.decode_run(&self.memory, index, self.heat_min != 0);
        }
        if page.length(index) == OPEN_BRANCH {
            return Ok(Plan { length: 1, after: insn_address(base, index + 2), is_open: true });
        }
        if page.is_counted(index) {
            let is_hot = page.heat(index, self.heat_min);
            if is_hot && !std::mem::take(is_aside) {
                return Err(End::Hot);
            }
        }
        let mut length = i64::from(page.plain_length(index));
        if length > left {
            // A branch and its delay slot stay together.
            let is_last_branch = page.run(index, index + left as usize)[left as usize - 1].op.is_branch();
            length = left + i64::from(is_last_branch);
        }
        Ok(Plan { length: length as u8, after: insn_address(base, index + length as usize), is_open: false })
    }
}

/// The address of the instruction `index` instructions after `base`.
#[inline(always)]
fn insn_address(base: u64, index: usize) -> u64 {
    base.wrapping_add(4 * index as u64)
}

/// The target of J and JAL: in the 256 MiB around the delay slot.
#[inline(always)]
fn jump_target(base: u64, index: usize, words: u64) -> u64 {
    insn_address(base, index + 1) & !0x0fff_ffff | words << 2
}
