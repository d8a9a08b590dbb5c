//! The rule of `run`: it stops at the first instruction boundary at or after its bound that is not
//! between a branch and its delay slot, and nothing that a program sees depends on the bounds.

use machine::cp0::{Mode, int_ctl};
use mips::{Family, Fields, Op, encode};

use super::*;

#[test]
fn a_bound_is_met_exactly_except_between_a_branch_and_its_slot() {
    let mut cpu = cpu_with("nop\n nop\n beq zero, zero, there\n nop\n nop\n there: nop\n nop");
    // Time after a run to 1, 2, ...: the branch at 2 takes its slot with it.
    for (until, now, pc) in [(1, 1, 4), (2, 2, 8), (3, 4, 20), (5, 5, 24)] {
        assert_eq!(cpu.run(Cycles(until)), Stop::Until);
        assert_eq!((cpu.now.0, cpu.instructions), (now, now));
        assert_eq!(cpu.regs.pc, PROGRAM + pc, "until {until}");
    }
    assert_eq!(cpu.run(Cycles(3)), Stop::Until, "a bound in the past");
    assert_eq!(cpu.now.0, 5);
}

#[test]
fn a_likely_branch_that_is_not_taken_costs_one_cycle() {
    let mut cpu = cpu_with("bnel zero, zero, there\n nop\n there: nop");
    cpu.run(Cycles(1));
    assert_eq!((cpu.now.0, cpu.regs.pc), (1, PROGRAM + 8));
}

#[test]
fn straight_code_longer_than_a_run_keeps_its_count() {
    let mut cpu = cpu_with(&format!("{} break", "daddiu v0, v0, 1\n".repeat(3000)));
    let trap = run_to_trap(&mut cpu);
    assert_eq!((trap.pc, cpu.regs.gpr[V0]), (PROGRAM + 12_000, 3000));
    assert_eq!((cpu.now.0, cpu.instructions), (3000, 3000));
}

#[test]
fn a_cpu_that_raises_one_exception_for_ever_lets_time_pass() {
    let mut cpu = cpu_with("syscall");
    cpu.monitored = false;
    cpu.cp0.ebase = 0xbf00_0000; // no memory there
    assert_eq!(cpu.run(Cycles(1000)), Stop::Until);
    assert_eq!((cpu.now.0, cpu.instructions), (1000, 0));
}

/// Handlers at the vectors: the timer is set anew, any other exception is skipped.
const HANDLERS: &str = "
        j       general         # TLB refill
        nop
        .org    0xffffffff80000080
        j       general         # XTLB refill
        nop
        .org    0xffffffff80000180
general:
        mfc0    k0, $13
        andi    k0, k0, 0x7c
        bne     k0, zero, skip
        mfc0    k1, $9
        addiu   k1, k1, 37
        mtc0    k1, $11
        eret
skip:   dmfc0   k0, $14
        daddiu  k0, k0, 4
        dmtc0   k0, $14
        eret";

/// A generator of random programs. s0 (data), s1 (the program's own page boundary) and a3 (an
/// instruction to store there) are left alone, as are k0 and k1.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    fn register(&mut self) -> u8 {
        const FREE: &[u8] = &[0, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 20, 21, 22, 29, 30, 31];
        FREE[self.below(FREE.len() as u64) as usize]
    }

    fn plain(&mut self, op: Op) -> u32 {
        let mut fields = Fields {
            rs: self.register(),
            rt: self.register(),
            rd: self.register(),
            sa: self.below(32) as u8,
            imm: 0,
        };
        if op.flags().has(mips::Flags::CP1) {
            // Register numbers of the floating-point unit are free.
            (fields.rd, fields.sa) = (self.below(32) as u8, self.below(32) as u8);
        }
        if matches!(op, Op::Movf | Op::Movt | Op::Movz | Op::Movn) {
            fields.rd = self.register();
        }
        let has_immediate = op.row().pattern.ends_with("iiii");
        if has_immediate {
            (fields.rd, fields.sa) = (0, 0);
            fields.imm = self.below(1 << 16) as u16;
        }
        if op.is_branch() {
            fields.imm = (self.below(24) as i16 - 8) as u16;
        }
        if op.is_load() || op.is_store() {
            fields.rs = S0 as u8;
            fields.imm = if has_immediate { (self.below(128) as i16 - 64) as u16 } else { fields.imm };
            if self.below(4) != 0 {
                fields.imm &= !7; // most are aligned
            }
        }
        if op == Op::Rdhwr {
            fields.rd = self.below(4) as u8;
        }
        encode(op, fields)
    }

    fn insn(&mut self, ops: &[Op]) -> u32 {
        match self.below(40) {
            0 => encode(Op::Syscall, Fields::default()),
            1..=3 => {
                let imm = (self.below(512) as i16 * 4 - 1024) as u16;
                encode(Op::Sw, Fields { rs: 17, rt: 7, imm, ..Fields::default() })
            }
            _ => {
                let op = ops[self.below(ops.len() as u64) as usize];
                self.plain(op)
            }
        }
    }
}

fn ops() -> Vec<Op> {
    let is_wanted = |op: &Op| match op.family() {
        Family::Branch => op.row().pattern.ends_with("iiii"),
        Family::Privileged | Family::Ejtag | Family::Reserved | Family::Coprocessor2 => false,
        _ => !matches!(op, Op::Syscall | Op::Break | Op::Ctc1),
    };
    Op::ALL.iter().copied().filter(is_wanted).collect()
}

fn random_cpu(seed: u64) -> Cpu {
    let mut random = Random(seed);
    let ops = ops();
    let mut cpu = cpu_with("");
    let words: Vec<u8> = (0..1024)
        .flat_map(|_| random.insn(&ops).to_le_bytes())
        .chain(mips::assemble(&format!("j {PROGRAM}\n nop"), PROGRAM + 0x1000).unwrap())
        .collect();
    // The program's end lies in the middle of a page, and its middle at a page boundary.
    let start = PROGRAM + 0x800;
    let memory = Arc::clone(cpu.memory());
    memory.write(MachineAddr(start & 0xf_ffff), &words);
    memory.write(PROGRAM_MACHINE, &mips::assemble(&format!("j {start}\n nop"), PROGRAM).unwrap());
    memory.write(MachineAddr(0), &mips::assemble(HANDLERS, 0xffff_ffff_8000_0000).unwrap());
    cpu.monitored = false;
    for register in [2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 20, 21, 22, 29, 30, 31] {
        cpu.regs.gpr[register] = random.below(1 << 31) << random.below(33) >> random.below(40);
    }
    for register in &mut cpu.regs.fpr {
        *register = (random.below(2000) as f64 / 7.0 - 100.0).to_bits();
    }
    cpu.regs.gpr[17] = PROGRAM + 0x1000;
    cpu.regs.gpr[7] = u64::from(random.insn(&[Op::Daddiu, Op::Bne, Op::Sd, Op::Beql]));
    let fr = if seed.is_multiple_of(2) { status::FR } else { 0 };
    let kernel = status::KX | status::SX | status::UX | status::CU1 | fr;
    set_status(&mut cpu, kernel | status::IE | status::IM_MASK);
    cpu.cp0.write(11, 0, 20, cpu.now);
    assert_eq!(cpu.cp0.int_ctl >> int_ctl::IPTI_SHIFT, 7);
    assert_eq!(cpu.cp0.mode(), Mode::Kernel);
    cpu
}

/// Runs to `end` in chunks; nobody answers on the bus.
fn run_in_chunks(cpu: &mut Cpu, end: u64, chunk: u64) {
    let mut bound = 0;
    while bound < end {
        bound = (bound + chunk).min(end);
        while let Stop::Bus(access) = cpu.run(Cycles(bound)) {
            assert_eq!(cpu.refuse_bus_access(&access), None);
        }
    }
}

fn memory_of(cpu: &Cpu) -> Vec<u8> {
    let mut bytes = vec![0; MEMORY_BYTES as usize];
    cpu.memory().read(MachineAddr(0), &mut bytes);
    bytes
}

#[test]
fn chunks_of_any_size_lead_to_the_same_state() {
    let mut exceptions = 0;
    for seed in 0..60 {
        let end = 4000 + seed;
        let mut whole = random_cpu(seed);
        run_in_chunks(&mut whole, end, end);
        for chunk in (1..=50).step_by(if seed < 10 { 1 } else { 7 }) {
            let mut parts = random_cpu(seed);
            run_in_chunks(&mut parts, end, chunk);
            let context = format!("seed {seed}, chunks of {chunk}");
            assert_eq!((parts.now, parts.instructions), (whole.now, whole.instructions), "{context}");
            assert_eq!(parts.regs, whole.regs, "{context}");
            assert_eq!(parts.cp0, whole.cp0, "{context}");
            assert_eq!(parts.counters.exceptions, whole.counters.exceptions, "{context}");
            assert!(memory_of(&parts) == memory_of(&whole), "memory: {context}");
        }
        exceptions += whole.counters.exceptions;
        assert!(whole.now.0 <= end + 1, "at most a delay slot over the bound");
    }
    assert!(exceptions > 5000, "the programs raise exceptions: {exceptions}");
}

#[test]
fn a_monitored_cpu_sees_the_same_exceptions_at_the_same_times() {
    for seed in 0..20 {
        let mut whole = random_cpu(seed);
        let mut parts = random_cpu(seed);
        for cpu in [&mut whole, &mut parts] {
            cpu.monitored = true;
            let status = cpu.cp0.status & !status::IE;
            set_status(cpu, status);
        }
        let next_trap = |cpu: &mut Cpu, chunk: u64| loop {
            match cpu.run(Cycles(cpu.now.0 + chunk)) {
                Stop::Until if cpu.now.0 < 20_000 => {}
                Stop::Until => return None,
                stop => return Some(stop),
            }
        };
        loop {
            let (a, b) = (next_trap(&mut whole, 20_000), next_trap(&mut parts, 1));
            if a.is_none() || b.is_none() {
                break;
            }
            assert_eq!(a, b, "seed {seed}");
            assert_eq!((whole.now, &whole.regs), (parts.now, &parts.regs), "seed {seed}");
            let next_pc = match a {
                Some(Stop::Trap(trap)) => trap.next_pc,
                Some(Stop::Bus(access)) => access.next_pc,
                other => panic!("{other:?}"),
            };
            whole.regs.pc = next_pc;
            parts.regs.pc = next_pc;
        }
    }
}
