//! The translator against the interpreter: random programs, everything that can be seen compared.
//!
//! Two monitored CPUs run the same program on memories of their own, one with a translator that
//! translates at the second visit. They run for the same random spans of time; after each, how they
//! stopped and all of their registers, counts and memory must be equal. In between the test plays the
//! monitor: it maps pages when they are missed, skips what traps, takes mappings away, changes the
//! address space, rewrites code and sends interrupts. Programs jump into each other's middle, branch
//! into delay slots and store into their own code, because nothing keeps them from it.
//!
//! In every other program a trap handler takes the traps while the CPU runs: it answers refills, emulates
//! what is privileged, changes the address space and the mode under the program's feet, and charges time.
//! What each handler saw is compared too. Some programs are kernels, whose CP0 the handler lends.
//!
//! A second test runs each program on several host threads at once, with one store of translations.
//!
//! `DIFFERENTIAL_SECONDS` says how long (20 by default), `DIFFERENTIAL_SEED` where to begin; a failure
//! prints the seed that repeats it.

#![cfg(target_arch = "x86_64")]

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use machine::cp0::{Mode, cause, register, status};
use machine::cpu::DoneAtOnce;
use machine::tlb::{TlbEntry, entry_lo};
use machine::{
    AccessKind, Asid, Cp0, Cpu, CpuConfig, Cycles, Exception, MachineAddr, MachineMemory, Mpn, NodeId, PAGE_BYTES,
    Stop, Taken, Trap, TrapHandler,
};
use mips::fpu::Fcsr;
use mips::{Family, Fields, Insn, Op};
use translate::{Background, Options, Store, Translator};

const MEMORY_BYTES: u64 = 256 << 10;
/// Virtual pages that programs know of; the first `CODE_PAGES` hold code.
const PAGES: u64 = 24;
const CODE_PAGES: u64 = 4;
const BASE: u64 = 0x0040_0000;
/// Cycles of a program.
const PROGRAM_CYCLES: u64 = 30_000;

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators").
#[derive(Clone, Debug, PartialEq, Eq)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    /// A value of the kinds that arithmetic finds hard.
    fn value(&mut self) -> u64 {
        let value = self.next();
        match self.below(8) {
            0 => 0,
            1 => u64::MAX,
            2 => i32::MIN as u64,
            3 => i64::MIN as u64,
            4 => value as i32 as u64,
            5 => value & 0xff,
            6 => f64::from(value as i32).to_bits() ^ self.below(2) << 63,
            _ => value,
        }
    }
}

/// Registers that hold addresses; programs seldom write them.
fn is_pointer(register: u8) -> bool {
    (16..24).contains(&register) || register == 29
}

/// Two that hold what a kernel writes to its Status at first, and others.
const STATUS_REGISTERS: [u8; 4] = [2, 3, 0, 9];

/// What a program is made of: one operation in so many is of the kind.
#[derive(Clone, Copy)]
struct Mix {
    /// Of the floating-point unit.
    float_in: u64,
    /// What only a monitor does.
    rare_in: u64,
    /// An access, whatever else there is.
    access_in: u64,
}

/// A random word that is an instruction more often than not.
fn random_word(random: &mut Random, mix: Mix) -> u32 {
    if random.one_in(200) {
        return random.next() as u32;
    }
    let op = random_op(random, mix);
    let mut fields = Fields {
        rs: random.below(32) as u8,
        rt: random.below(32) as u8,
        rd: random.below(32) as u8,
        sa: random.below(32) as u8,
        imm: random.next() as u16,
    };
    if op.is_branch() && op.row().operands.contains("branch") {
        // Near, and often backward.
        fields.imm = (random.below(40) as i16 - 24) as u16;
        return mips::encode(op, fields);
    }
    if matches!(op, Op::J | Op::Jal) {
        let target = (BASE >> 2) + random.below(CODE_PAGES * 1024);
        return mips::encode(op, Fields::default()) | (target as u32 & 0x03ff_ffff);
    }
    if matches!(op, Op::Jr | Op::Jalr) {
        // The registers that hold addresses of code.
        fields.rs = 20 + random.below(4) as u8;
        fields.rd = if random.one_in(4) { random.below(32) as u8 } else { 31 };
        return mips::encode(op, Fields { imm: 0, ..fields });
    }
    let row = op.row();
    if row.operands.contains("simm(rs)") && !random.one_in(50) {
        fields.rs = 16 + random.below(8) as u8;
        let bytes = op.access_bytes().max(1);
        // Often near each other, so that accesses of a block share translations.
        let span = [64, 512, 4096][random.below(3) as usize];
        fields.imm = (random.below(span) as u16).wrapping_sub(span as u16 / 4);
        if !random.one_in(4) {
            fields.rs = (fields.rs & !3) + random.below(2) as u8;
        }
        if !random.one_in(20) && !op.flags().has(mips::Flags::UNALIGNED) {
            fields.imm &= !(bytes as u16 - 1);
        }
        // Code is stored into now and then only.
        if op.is_store() && fields.rs >= 20 && !random.one_in(30) {
            fields.rs -= 4;
        }
        let word = mips::encode(op, Fields { imm: 0, ..fields });
        return word | u32::from(fields.imm);
    }
    if row.operands.contains("imm") {
        if is_pointer(fields.rt) && !random.one_in(100) {
            fields.rt &= 15;
        }
        return mips::encode(op, Fields { rd: 0, sa: 0, ..fields });
    }
    if matches!(op, Op::Mfc0 | Op::Dmfc0 | Op::Mtc0 | Op::Dmtc0) && !random.one_in(3) {
        // What kernels move most.
        fields.rd =
            [register::STATUS, register::STATUS, register::EPC, register::CONTEXT][random.below(4) as usize].0;
        fields.rt = STATUS_REGISTERS[random.below(4) as usize];
    }
    for register in [&mut fields.rd, &mut fields.rt] {
        if is_pointer(*register) && !random.one_in(100) {
            *register &= 15;
        }
    }
    mips::encode(op, Fields { imm: 0, ..fields })
}

/// One operation in `float_in` of the floating-point unit's is taken, and all of them where that is 1; then
/// few others are. Of those that trap and the like, one in `rare_in` is.
fn random_op(random: &mut Random, mix: Mix) -> Op {
    let Mix { float_in, rare_in, access_in } = mix;
    let is_access = random.one_in(access_in);
    loop {
        let op = Op::ALL[random.below(Op::COUNT as u64) as usize];
        let is_rare =
            matches!(op.family(), Family::Privileged | Family::Coprocessor2 | Family::Ejtag | Family::Reserved)
                || op.ends_run()
                || op.family() == Family::Trap;
        if is_rare && !random.one_in(rare_in) {
            continue;
        }
        let is_float = op.uses_cp1();
        if is_access && (op.family() != Family::Memory || op.flags().has(mips::Flags::UNALIGNED)) {
            continue;
        }
        if is_float && !random.one_in(float_in) || !is_float && float_in == 1 && !random.one_in(4) {
            continue;
        }
        return op;
    }
}

/// One of the two.
struct Side {
    cpu: Cpu,
    memory: Arc<MachineMemory>,
    handler: Option<TestHandler>,
}

/// A monitor that does what one may do, as its random numbers say, and remembers what it saw.
#[derive(Clone, Debug, PartialEq, Eq)]
struct TestHandler {
    random: Random,
    pages: Pages,
    /// The last traps, with the time and the sum of the registers that each began with.
    log: Vec<(Trap, Cycles, u64, u64)>,
    /// The last instructions that it carried out at once, with time, count, and a register.
    emulated: Vec<(Insn, Cycles, u64, u64)>,
    refills: u64,
    /// The CP0 of a program that is a kernel: it runs in supervisor mode. What is done to it at once is counted.
    lent: Option<Cp0>,
    done: DoneAtOnce,
}

/// What a privileged instruction costs that is done at once.
const AT_ONCE_COST: u64 = 5;
/// What Status of a kernel may be.
const KERNEL_STATUS: u32 = status::IE | status::EXL | status::IM_MASK | status::CU0;

impl TestHandler {
    /// Does an instruction as translated code may do it. False: it may not.
    fn at_once(&mut self, cpu: &mut Cpu, insn: Insn) -> bool {
        let Some(guest) = self.lent.as_mut().filter(|_| cpu.cp0.mode() != Mode::User) else { return false };
        let (place, value) = ((insn.rd, insn.sel()), cpu.regs.gpr[usize::from(insn.rt)]);
        let old_status = i64::from(guest.status as i32) as u64;
        let (result, done) = match insn.op {
            Op::Mfc0 if Cp0::place(place.0, place.1).is_some() => {
                (Some(guest.read_word(place.0, place.1, cpu.now)), &mut self.done.moves_from)
            }
            Op::Dmfc0 if Cp0::place(place.0, place.1).is_some() => {
                (Some(guest.read(place.0, place.1, cpu.now)), &mut self.done.moves_from)
            }
            Op::Mtc0 | Op::Dmtc0 if place == register::STATUS || Cp0::is_plain(place.0, place.1) => {
                let mut written = guest.clone();
                match insn.op {
                    Op::Mtc0 => written.write_word(place.0, place.1, value, cpu.now),
                    _ => written.write(place.0, place.1, value, cpu.now),
                };
                if written.mode() != Mode::Kernel {
                    return false;
                }
                *guest = written;
                (None, &mut self.done.moves_to)
            }
            Op::Di => {
                guest.status &= !status::IE;
                (Some(old_status), &mut self.done.switches)
            }
            Op::Ei => {
                guest.status |= status::IE;
                (Some(old_status), &mut self.done.switches)
            }
            _ => return false,
        };
        *done += 1;
        cpu.now.0 += AT_ONCE_COST;
        if let Some(result) = result.filter(|_| insn.rt != 0) {
            cpu.regs.gpr[usize::from(insn.rt)] = result;
        }
        true
    }

    fn take_done(&mut self, cpu: &mut Cpu) {
        let done = cpu.take_done_at_once();
        self.done.moves_from += done.moves_from;
        self.done.moves_to += done.moves_to;
        self.done.switches += done.switches;
    }

    fn victim(&mut self, cpu: &mut Cpu, vaddr: u64) -> Option<usize> {
        let entry = self.pages.entry(vaddr, cpu.cp0.asid())?;
        let index = self.random.below(8) as usize;
        cpu.tlb_write(index, entry).expect("the address was not mapped");
        Some(index)
    }

    /// Something that the guest's kernel may do with a privileged instruction.
    fn disturb(&mut self, cpu: &mut Cpu) {
        match self.random.below(12) {
            0 => cpu.cp0.entry_hi = self.random.below(3),
            1 => cpu.cp0.status ^= status::CU1,
            2 => cpu.cp0.status ^= status::FR,
            3 => {
                cpu.tlb_invalidate(self.random.below(8) as usize);
            }
            4 => cpu.regs.pc = BASE + self.random.below(CODE_PAGES * 1024) * 4,
            5 => cpu.cp0.status ^= status::UX,
            _ => return,
        }
        cpu.context_changed();
    }
}

impl TrapHandler for TestHandler {
    fn refill(&mut self, cpu: &mut Cpu, vaddr: u64) -> Option<usize> {
        // As a second-level TLB, which knows some of the pages.
        if (vaddr >> 13).is_multiple_of(3) {
            return None;
        }
        let index = self.victim(cpu, vaddr)?;
        self.refills += 1;
        cpu.now.0 += 7 + vaddr % 5;
        Some(index)
    }

    fn guest_cp0(&mut self) -> Option<(&mut Cp0, u64)> {
        self.lent.as_mut().map(|guest| (guest, AT_ONCE_COST))
    }

    fn emulate(&mut self, cpu: &mut Cpu, insn: Insn) -> Option<Taken> {
        if self.at_once(cpu, insn) {
            return Some(Taken::Resume);
        }
        // As a monitor, which does the common ones at once.
        let reads = matches!(insn.op, Op::Mfc0 | Op::Dmfc0 | Op::Di | Op::Ei);
        if !reads && !matches!(insn.op, Op::Mtc0 | Op::Dmtc0) || insn.rd.is_multiple_of(3) {
            return None;
        }
        self.emulated.push((insn, cpu.now, cpu.instructions, cpu.regs.gpr[usize::from(insn.rt)]));
        cpu.now.0 += 1 + self.random.below(20);
        if reads && insn.rt != 0 {
            cpu.regs.gpr[usize::from(insn.rt)] = self.random.value();
        }
        let pc = cpu.regs.pc;
        self.disturb(cpu);
        cpu.regs.pc = pc;
        Some(if self.random.one_in(8) { Taken::LookAround } else { Taken::Resume })
    }

    fn take(&mut self, cpu: &mut Cpu, trap: &Trap) -> Taken {
        self.take_done(cpu);
        if trap.exception == (Exception::CoprocessorUnusable { unit: 0 })
            && let Some(taken) = self.emulate(cpu, trap.insn)
        {
            cpu.regs.pc = trap.next_pc;
            cpu.now.0 += 1;
            cpu.instructions += 1;
            return taken;
        }
        if let Exception::TlbRefill { vaddr, .. } = trap.exception
            && self.refill(cpu, vaddr).is_some()
        {
            return Taken::Resume;
        }
        // What may not be up to date in the CPU is what this adds up: a register in the middle of a block
        // only where the instruction has it.
        let is_insn = match trap.insn.op {
            Op::Eret | Op::Wait => false,
            Op::Rdhwr => true,
            _ => trap.exception == (Exception::CoprocessorUnusable { unit: 0 }),
        };
        let seen = match trap.insn.op {
            Op::Mtc0 | Op::Dmtc0 => cpu.regs.gpr[usize::from(trap.insn.rt)],
            _ if is_insn => 0,
            _ => sum(cpu),
        };
        self.log.push((*trap, cpu.now, cpu.instructions, seen));
        cpu.now.0 += 1 + self.random.below(20);
        if let Exception::TlbRefill { vaddr, .. } = trap.exception
            && self.victim(cpu, vaddr).is_some()
        {
            return self.next(trap);
        }
        cpu.regs.pc =
            if is_fetch(trap.exception) { BASE + self.random.below(CODE_PAGES * 1024) * 4 } else { trap.next_pc };
        cpu.now.0 += 1;
        cpu.instructions += 1;
        let writes = matches!(trap.insn.op, Op::Mfc0 | Op::Dmfc0 | Op::Di | Op::Ei | Op::Rdhwr);
        if is_insn && writes && trap.insn.rt != 0 {
            cpu.regs.gpr[usize::from(trap.insn.rt)] = self.random.value();
        }
        self.disturb(cpu);
        self.next(trap)
    }
}

impl TestHandler {
    fn next(&mut self, trap: &Trap) -> Taken {
        if trap.insn.op == Op::Wait || self.random.one_in(9) { Taken::LookAround } else { Taken::Resume }
    }
}

/// All general registers in one number.
fn sum(cpu: &Cpu) -> u64 {
    cpu.regs.gpr[..32].iter().fold(cpu.regs.hi ^ cpu.regs.lo, |sum, value| sum.rotate_left(7) ^ value)
}

impl Side {
    fn new(
        program: &[u8],
        registers: &[u64; 32],
        floats: &[u64; 32],
        status_bits: u32,
        store: Option<&Arc<Store>>,
        background: Option<&Background>,
        handler: Option<TestHandler>,
    ) -> Side {
        let memory = Arc::new(MachineMemory::new(1, MEMORY_BYTES).unwrap());
        memory.write(MachineAddr(0), program);
        let mut cpu = Cpu::new(0, NodeId(0), CpuConfig::hardware(), Arc::clone(&memory));
        cpu.monitored = true;
        cpu.cp0.status = status_bits;
        cpu.cp0.hwrena = 1 << 29;
        cpu.context_changed();
        cpu.regs.gpr[..32].copy_from_slice(registers);
        cpu.regs.fpr = *floats;
        cpu.regs.pc = BASE;
        if let Some(store) = store {
            let background = background.map(Background::share);
            cpu.set_accelerator(Some(Box::new(Translator::sharing(store, background))));
        }
        Side { cpu, memory, handler }
    }

    fn run(&mut self, until: Cycles) -> Stop {
        match &mut self.handler {
            Some(handler) => {
                handler.log.clear();
                handler.emulated.clear();
                let stop = self.cpu.run_monitored(handler, until);
                handler.take_done(&mut self.cpu);
                stop
            }
            None => self.cpu.run(until),
        }
    }

    fn memory_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; MEMORY_BYTES as usize];
        self.memory.read(MachineAddr(0), &mut bytes);
        bytes
    }
}

/// What the test does between two spans, so that both sides get the same.
struct Monitor {
    random: Random,
    pages: Pages,
}

/// The machine page behind each virtual page, and whether it may be written.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pages(Vec<(Mpn, bool)>);

impl Pages {
    fn new(random: &mut Random) -> Pages {
        let machine_pages = MEMORY_BYTES / PAGE_BYTES;
        let pages = (0..PAGES)
            .map(|page| {
                // Some pages are names of one; some of the data is code.
                let target = if random.one_in(5) { random.below(machine_pages) } else { page };
                (Mpn(target as u32), !random.one_in(6))
            })
            .collect();
        Pages(pages)
    }

    fn entry(&self, vaddr: u64, asid: Asid) -> Option<TlbEntry> {
        let pair = vaddr & !(2 * PAGE_BYTES - 1);
        let lo = |page: u64| -> u64 {
            let Some(number) = page.checked_sub(BASE).map(|offset| offset / PAGE_BYTES) else { return 0 };
            match self.0.get(number as usize) {
                Some((mpn, is_writable)) => {
                    entry_lo::frame(mpn.address().0) | entry_lo::V | (u64::from(*is_writable) * entry_lo::D)
                }
                None => 0,
            }
        };
        (BASE..BASE + PAGES * PAGE_BYTES).contains(&vaddr).then(|| TlbEntry {
            vpn2: pair,
            asid,
            global: false,
            page_mask: 0,
            lo: [lo(pair), lo(pair + PAGE_BYTES)],
            hidden: false,
        })
    }
}

impl Monitor {
    /// Answers a stop of both sides. False when the program has ended.
    fn answer(&mut self, stop: Stop, sides: &mut [Side; 2]) -> bool {
        let Stop::Trap(trap) = stop else { return stop != Stop::Wait };
        if let Exception::TlbRefill { vaddr, .. } = trap.exception {
            let index = self.random.below(64) as usize;
            if let Some(entry) = self.pages.entry(vaddr, sides[0].cpu.cp0.asid()) {
                for side in sides {
                    side.cpu.tlb_write(index, entry).expect("the address was not mapped");
                }
                return true;
            }
        }
        if is_fetch(trap.exception) {
            let pc = BASE + self.random.below(CODE_PAGES * 1024) * 4;
            sides.iter_mut().for_each(|side| side.cpu.regs.pc = pc);
            return true;
        }
        for side in sides {
            side.cpu.regs.pc = trap.next_pc;
        }
        true
    }

    /// Changes something, the same on both sides.
    fn disturb(&mut self, sides: &mut [Side; 2]) {
        let choice = self.random.below(40);
        let (a, b) = (self.random.next(), self.random.next());
        for side in sides {
            let cpu = &mut side.cpu;
            match choice {
                0 => {
                    cpu.tlb_invalidate((a % 64) as usize);
                }
                1 => cpu.tlb_flush(),
                2 => {
                    cpu.cp0.entry_hi = a & 3;
                    cpu.context_changed();
                }
                // A device writes, perhaps code.
                3 => side.memory.write(MachineAddr((a % MEMORY_BYTES) & !3), &(b as u32).to_le_bytes()),
                4 => {
                    let (source, target) = (a % CODE_PAGES, CODE_PAGES + b % 8);
                    side.memory.copy_page(Mpn(source as u32), Mpn(target as u32));
                }
                5 => cpu.regs.pc = BASE + a % (CODE_PAGES * 1024) * 4,
                6 => cpu.regs.gpr[(16 + a % 8) as usize] = (BASE + b % (PAGES * PAGE_BYTES)) & !7,
                7 => {
                    cpu.regs.fcsr = Fcsr::from_bits(if b % 3 == 0 { a as u32 & 0xffc_0fff } else { a as u32 & 3 });
                }
                8 => {
                    cpu.cp0.status ^= [status::FR, status::CU1, status::UX][(a % 3) as usize];
                    cpu.context_changed();
                }
                _ => {}
            }
        }
    }
}

fn is_fetch(exception: Exception) -> bool {
    matches!(
        exception,
        Exception::TlbRefill { access: AccessKind::Fetch, .. }
            | Exception::TlbInvalid { access: AccessKind::Fetch, .. }
            | Exception::AddressError { access: AccessKind::Fetch, .. }
    )
}

/// Where the two sides differed.
struct Difference {
    /// When the span began in which they did, and how long it was.
    start: Cycles,
    span: u64,
    text: String,
}

/// On as many threads CPUs run, as far as translating in the background is told.
const HOST_THREADS: usize = 2;

/// A store that translates early and is full often.
fn small_store() -> Arc<Store> {
    let options = Options { heat_min: 2, buffer_bytes: 384 << 10, crossings_min: 4, ..Options::default() };
    Store::new(options).unwrap()
}

/// Runs one program, whose translations are in `store` and made by `background` if that is idle; returns how many
/// instructions it executed. `cut` makes the span that begins at a time that long, and the last one.
fn run_program(
    seed: u64,
    store: &Arc<Store>,
    background: Option<&Background>,
    cut: Option<(Cycles, u64)>,
) -> Result<u64, Difference> {
    let mut random = Random(seed);
    let float_in = [1, 4, 20][random.below(3) as usize];
    let rare_in = [60, 6][random.below(2) as usize];
    let access_in = [2, 10, 1000][random.below(3) as usize];
    let mix = Mix { float_in, rare_in, access_in };
    let words = (0..CODE_PAGES * 1024).map(|_| random_word(&mut random, mix));
    let program: Vec<u8> = words.flat_map(u32::to_le_bytes).collect();
    let mut registers: [u64; 32] = std::array::from_fn(|_| random.value());
    registers[0] = 0;
    for (register, value) in (16..24).zip(&mut registers[16..]) {
        let pages = if register < 20 { CODE_PAGES..PAGES } else { 0..CODE_PAGES };
        let page = pages.start + random.below(pages.end - pages.start);
        // Often at the end of a page, so that accesses near each other lie in two.
        let first = if random.one_in(3) { PAGE_BYTES - 64 } else { 0 };
        *value = BASE + page * PAGE_BYTES + first + random.below((PAGE_BYTES - first) / 8) * 8;
    }
    registers[29] = BASE + 6 * PAGE_BYTES;
    let floats = std::array::from_fn(|_| random.value());
    let modes = [status::UX | status::SX | status::KX, status::UX, 0];
    let is_kernel = random.one_in(3);
    let mode = modes[random.below(3) as usize] | (if is_kernel { 1 } else { 2 }) << status::KSU_SHIFT;
    let float = [status::FR | status::CU1, status::CU1, status::FR][random.below(3) as usize];
    let pages = Pages::new(&mut random);
    let handler = random.one_in(2).then(|| TestHandler {
        random: Random(random.next()),
        pages: pages.clone(),
        log: Vec::new(),
        emulated: Vec::new(),
        refills: 0,
        lent: is_kernel.then(|| {
            let mut guest = Cp0::new(CpuConfig::hardware(), 0);
            guest.status = random.next() as u32 & KERNEL_STATUS;
            guest.cause = random.next() as u32 & random.next() as u32 & cause::IP_MASK;
            registers[2] = random.next() & u64::from(KERNEL_STATUS);
            registers[3] = random.next() & u64::from(KERNEL_STATUS | 2 << status::KSU_SHIFT);
            guest
        }),
        done: DoneAtOnce::default(),
    });
    let mut sides = [None, Some(store)]
        .map(|store| Side::new(&program, &registers, &floats, mode | float, store, background, handler.clone()));
    let mut monitor = Monitor { random: Random(random.next()), pages };
    while sides[0].cpu.now.0 < PROGRAM_CYCLES {
        let mut span = match monitor.random.below(4) {
            0 => 1 + monitor.random.below(4),
            1 => 1 + monitor.random.below(60),
            _ => 1 + monitor.random.below(1500),
        };
        let start = sides[0].cpu.now;
        let is_last = cut.is_some_and(|(cut_start, _)| cut_start == start);
        if let Some((_, cut_span)) = cut.filter(|_| is_last) {
            span = cut_span;
        }
        if is_last {
            for side in &sides {
                eprintln!("at {:x}", side.cpu.regs.pc);
            }
        }
        let until = Cycles(start.0 + span);
        let stops = [0, 1].map(|side: usize| sides[side].run(until));
        if let Some(text) = difference(stops, &sides) {
            return Err(Difference { start, span, text });
        }
        if is_last || !monitor.answer(stops[0], &mut sides) {
            break;
        }
        // A monitor's work takes time, so that a trap that traps again comes to an end.
        for side in &mut sides {
            side.cpu.now.0 += 1;
        }
        monitor.disturb(&mut sides);
    }
    if sides[0].memory_bytes() != sides[1].memory_bytes() {
        return Err(Difference { start: Cycles(0), span: 0, text: "memory differs".to_owned() });
    }
    Ok(sides[0].cpu.instructions)
}

/// What differs between the two sides, in words.
fn difference(stops: [Stop; 2], sides: &[Side; 2]) -> Option<String> {
    let cpus = [&sides[0].cpu, &sides[1].cpu];
    let counts = cpus.map(|cpu| {
        let counters = &cpu.counters;
        (cpu.now.0, cpu.instructions, counters.exceptions, counters.load_translations, counters.store_translations)
    });
    let handlers = [&sides[0].handler, &sides[1].handler];
    if stops[0] == stops[1] && counts[0] == counts[1] && cpus[0].regs == cpus[1].regs && handlers[0] == handlers[1]
    {
        return None;
    }
    let mut text = format!("stops: {stops:x?}\ncounts: {counts:?}\n");
    if let [Some(a), Some(b)] = handlers {
        text += &format!("refills: {} {}\n", a.refills, b.refills);
        text += &format!("at once: {:?} {:?}\n", a.done, b.done);
        let common = a.log.iter().zip(&b.log).take_while(|(a, b)| a == b).count();
        let next = |handler: &TestHandler| handler.log.get(common).copied();
        text += &format!("traps after {common} equal ones: {:x?}\n{:x?}\n", next(a), next(b));
    }
    for register in 0..32 {
        for (name, values) in
            [("gpr", cpus.map(|cpu| cpu.regs.gpr[register])), ("fpr", cpus.map(|cpu| cpu.regs.fpr[register]))]
        {
            if values[0] != values[1] {
                text += &format!("{name} {register}: {values:x?}\n");
            }
        }
    }
    let others = cpus.map(|cpu| {
        let regs = &cpu.regs;
        (regs.pc, regs.hi, regs.lo, regs.fcsr.bits(), regs.ll_bit, regs.ll_address, regs.ll_value)
    });
    text += &format!("pc hi lo fcsr ll: {others:x?}\n");
    for pc in cpus.map(|cpu| cpu.regs.pc) {
        text += "around pc:\n";
        for vaddr in (0..8).map(|back| pc.wrapping_add(8).wrapping_sub(4 * back)).rev() {
            let words = cpus.map(|cpu| cpu.word_at(vaddr));
            text += &format!("{vaddr:x}: {words:08x?} {}\n", mips::disassemble(words[0], vaddr));
        }
    }
    Some(text)
}

/// The difference in the shortest span that shows one.
fn narrow(seed: u64, found: Difference) -> Difference {
    let shorter = (1..found.span)
        .filter_map(|span| run_program(seed, &small_store(), None, Some((found.start, span))).err());
    shorter.into_iter().next().unwrap_or(found)
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

#[test]
fn random_programs_do_the_same_with_the_interpreter_and_with_the_translator() {
    let end = Instant::now() + Duration::from_secs(number("DIFFERENTIAL_SECONDS", 20));
    let first = number("DIFFERENTIAL_SEED", 1);
    let (mut seed, mut instructions) = (first, 0);
    while seed == first || Instant::now() < end {
        let store = small_store();
        // Every other program is translated while it runs.
        let background = (seed % 2 == 0).then(|| Background::start(&store, HOST_THREADS).unwrap());
        match run_program(seed, &store, background.as_ref(), None) {
            Ok(count) => instructions += count,
            Err(found) => {
                let Difference { start, span, text } = narrow(seed, found);
                panic!("DIFFERENTIAL_SEED={seed}: in {span} cycles from {start}\n{text}");
            }
        }
        seed += 1;
    }
    println!("{} programs, {instructions} instructions", seed - first);
}

#[test]
fn random_programs_on_cpus_that_share_translations_do_the_same() {
    /// More than some hosts have CPUs.
    const THREADS: usize = 3;
    let end = Instant::now() + Duration::from_secs(number("DIFFERENTIAL_SECONDS", 20) / 2);
    let first = number("DIFFERENTIAL_SEED", 1);
    let store = small_store();
    // At times fewer CPUs run than that, so both they and the thread translate.
    let background = Background::start(&store, HOST_THREADS).unwrap();
    let (barrier, is_over) = (Barrier::new(THREADS), AtomicBool::new(false));
    // Each program runs on all threads at once: they find each other's translations, and drop them.
    let run = || -> u64 {
        let mut count = 0;
        loop {
            let result = run_program(first + count, &store, Some(&background), None);
            count += 1;
            if let Err(Difference { start, span, text }) = &result {
                eprintln!("DIFFERENTIAL_SEED={}: in {span} cycles from {start}\n{text}", first + count - 1);
            }
            if result.is_err() || Instant::now() >= end {
                is_over.store(true, SeqCst);
            }
            barrier.wait();
            // All look before one can say so of the next program, or who looks late would leave the others waiting.
            let is_last = is_over.load(SeqCst);
            barrier.wait();
            assert!(result.is_ok(), "the difference is above");
            if is_last {
                return count;
            }
        }
    };
    let counts: Vec<u64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(run)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let counters = store.counters();
    assert!(counters.found > 0 && counters.dropped > 0, "{counters:?}");
    println!("{counts:?} programs, {counters:?}");
}
