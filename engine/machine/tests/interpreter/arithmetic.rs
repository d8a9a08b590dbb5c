//! Integer instructions: tables of operands and results, odd rows first.

use super::*;

const MIN32: u64 = 0xffff_ffff_8000_0000;
const MIN64: u64 = 1 << 63;
const MINUS_1: u64 = u64::MAX;

/// `op v0, a0, a1` gives the result.
#[test]
fn two_registers_give_a_third() {
    let rows: &[(&str, u64, u64, u64)] = &[
        ("addu", 0x7fff_ffff, 1, MIN32),
        ("addu", 0x1_0000_0000, 5, 5), // high halves of the sources do not count
        ("subu", 0, 1, MINUS_1),
        ("daddu", MINUS_1, 1, 0),
        ("dsubu", 0, 1, MINUS_1),
        ("add", 0x7fff_ffff, MINUS_1, 0x7fff_fffe),
        ("dadd", MIN64, 1, MIN64 + 1),
        ("sub", MIN32, MINUS_1, MIN32 + 1),
        ("dsub", MIN64, MINUS_1, MIN64 + 1),
        ("slt", MINUS_1, 0, 1),
        ("sltu", MINUS_1, 0, 0),
        ("slt", 1 << 32, 1, 0), // compares 64 bits
        ("nor", 0, 0, MINUS_1),
        ("xor", MINUS_1, MIN64, !MIN64),
        ("and", 0xf0f0, 0xff00, 0xf000),
        ("or", 0xf0f0, 0x0f00, 0xfff0),
        ("sllv", 1, 63, MIN32),        // five bits of the amount count
        ("srlv", MINUS_1, 0, MINUS_1), // a word is sign-extended also when nothing is shifted
        ("srlv", MINUS_1, 1, 0x7fff_ffff),
        ("srav", 0x8000_0000, 31, MINUS_1), // the sign is bit 31
        ("rorv", 1, 1, MIN32),
        ("dsllv", 1, 127, MIN64),
        ("dsrlv", MIN64, 63, 1),
        ("dsrav", MIN64, 63, MINUS_1),
        ("drorv", 1, 1, MIN64),
        ("mul", MIN32, MINUS_1, MIN32),
        ("mul", 0x1_0000_0003, 5, 15),
        ("movz", 7, 1, 0xdead),
        ("movz", 7, 0, 7),
        ("movn", 7, 1 << 40, 7),
        ("movn", 7, 0, 0xdead),
    ];
    for &(op, a, b, result) in rows {
        let cpu = run(&format!("{op} v0, a0, a1"), &[(A0, a), (A1, b), (V0, 0xdead)]);
        assert_eq!(cpu.regs.gpr[V0], result, "{op} {a:#x}, {b:#x}");
    }
}

/// `op a0, a1` gives HI and LO, which start as 0 and 5.
#[test]
fn products_and_quotients_go_to_hi_and_lo() {
    let rows: &[(&str, u64, u64, u64, u64)] = &[
        ("div zero,", MIN32, MINUS_1, 0, MIN32), // the one signed overflow
        ("ddiv zero,", MIN64, MINUS_1, 0, MIN64),
        ("div zero,", 9, 0, 0, 9), // division by zero is defined here
        ("divu zero,", MIN32, 0, 0, MIN32),
        ("ddiv zero,", 9, 0, 0, 9),
        ("ddivu zero,", MINUS_1, 0, 0, MINUS_1),
        ("div zero,", (-7i64) as u64, 2, MINUS_1, (-3i64) as u64), // toward zero
        ("divu zero,", MINUS_1, 2, 1, 0x7fff_ffff),
        ("ddivu zero,", MINUS_1, 16, 15, MINUS_1 >> 4),
        ("mult", MINUS_1, MINUS_1, 0, 1),
        ("mult", MIN32, MIN32, 0x4000_0000, 0),
        ("multu", MINUS_1, MINUS_1, 0xffff_ffff_ffff_fffe, 1),
        ("dmult", MINUS_1, MINUS_1, 0, 1),
        ("dmult", MIN64, 2, MINUS_1, 0),
        ("dmultu", MINUS_1, MINUS_1, MINUS_1 - 1, 1),
        ("madd", MINUS_1, 6, MINUS_1, MINUS_1), // 5 - 6
        ("maddu", MINUS_1, 1, 1, 4),            // 5 + 2^32 - 1
        ("msub", 2, 3, MINUS_1, MINUS_1),
        ("msubu", 1, 5, 0, 0),
    ];
    for &(op, a, b, hi, lo) in rows {
        let source = format!("li v0, 5\n mtlo v0\n mthi zero\n {op} a0, a1");
        let cpu = run(&source, &[(A0, a), (A1, b)]);
        assert_eq!((cpu.regs.hi, cpu.regs.lo), (hi, lo), "{op} {a:#x}, {b:#x}");
    }
}

/// `text` with a0 gives v0, which starts as -1 or what INS keeps of it.
#[test]
fn one_register_gives_another() {
    let rows: &[(&str, u64, u64)] = &[
        ("sll v0, a0, 0", 0x1234_5678_8000_0000, MIN32),
        ("sra v0, a0, 4", 0x8000_0000, 0xffff_ffff_f800_0000),
        ("srl v0, a0, 31", MINUS_1, 1),
        ("ror v0, a0, 4", 0xf, 0xffff_ffff_f000_0000),
        ("dsll32 v0, a0, 31", 1, MIN64),
        ("dsrl32 v0, a0, 0", MINUS_1, 0xffff_ffff),
        ("dsra32 v0, a0, 31", MIN64, MINUS_1),
        ("dsll v0, a0, 31", 1, 1 << 31),
        ("dsrl v0, a0, 1", MIN64, 1 << 62),
        ("dsra v0, a0, 1", MIN64, 3 << 62),
        ("dror v0, a0, 1", 1, MIN64),
        ("dror32 v0, a0, 1", 1, 1 << 31),
        ("addiu v0, a0, -1", MIN32, 0x7fff_ffff),
        ("daddiu v0, a0, -32768", 0, (-32768i64) as u64),
        ("slti v0, a0, -1", (-2i64) as u64, 1),
        ("sltiu v0, a0, -1", 5, 1), // the immediate is sign-extended, then compared unsigned
        ("andi v0, a0, 0xffff", MINUS_1, 0xffff),
        ("ori v0, a0, 0x8000", 0, 0x8000),
        ("xori v0, a0, 0xffff", MINUS_1, 0xffff_ffff_ffff_0000),
        ("lui v0, 0x8000", 0, MIN32),
        ("clz v0, a0", MINUS_1 << 32, 32),
        ("clo v0, a0", 0xffff_0000, 16),
        ("dclz v0, a0", 0, 64),
        ("dclo v0, a0", MINUS_1, 64),
        ("seb v0, a0", 0x180, (-128i64) as u64),
        ("seh v0, a0", 0x1_8000, (-32768i64) as u64),
        ("wsbh v0, a0", 0x1122_3384, 0x2211_8433),
        ("wsbh v0, a0", 0x1180_3384, 0xffff_ffff_8011_8433),
        ("dsbh v0, a0", 0x1122_3344_5566_7788, 0x2211_4433_6655_8877),
        ("dshd v0, a0", 0x1122_3344_5566_7788, 0x7788_5566_3344_1122),
        ("ext v0, a0, 0, 32", 0x1_8000_0000, MIN32),
        ("ext v0, a0, 31, 1", 0x8000_0000, 1),
        ("ext v0, a0, 4, 8", 0xabcd, 0xbc),
        ("dext v0, a0, 31, 32", MINUS_1, 0xffff_ffff),
        ("dextm v0, a0, 0, 64", MIN64 | 1, MIN64 | 1),
        ("dextu v0, a0, 63, 1", MIN64, 1),
        ("ins v0, a0, 31, 1", 0, 0x7fff_ffff),
        ("ins v0, a0, 0, 32", 5, 5),
        ("dins v0, a0, 0, 1", 0, MINUS_1 - 1),
        ("dinsm v0, a0, 31, 33", 0, 0x7fff_ffff),
        ("dinsm v0, a0, 0, 64", 0x1234, 0x1234),
        ("dinsu v0, a0, 63, 1", 0, MINUS_1 >> 1),
        ("mthi a0\n mfhi v0", MIN64 | 3, MIN64 | 3),
    ];
    for &(text, a, result) in rows {
        let cpu = run(text, &[(A0, a), (V0, MINUS_1)]);
        assert_eq!(cpu.regs.gpr[V0], result, "{text} with {a:#x}");
    }
}

#[test]
fn an_overflow_leaves_the_destination() {
    let rows: &[(&str, u64, u64)] = &[
        ("add a2, a0, a1", 0x7fff_ffff, 1),
        ("sub a2, a0, a1", MIN32, 1),
        ("dadd a2, a0, a1", MIN64, MINUS_1),
        ("dsub a2, a0, a1", MIN64, 1),
        ("addi a2, a0, -1", MIN32, 0),
        ("daddi a2, a0, 1", MIN64 - 1, 0),
    ];
    for &(text, a, b) in rows {
        let mut cpu = cpu_with(text);
        (cpu.regs.gpr[A0], cpu.regs.gpr[A1], cpu.regs.gpr[A2]) = (a, b, 77);
        let trap = run_to_trap(&mut cpu);
        assert_eq!((trap.exception, cpu.regs.gpr[A2]), (Exception::Overflow, 77), "{text}");
        assert_eq!(cpu.instructions, 0, "an instruction that raises an exception is not counted");
    }
}

#[test]
fn register_zero_stays_zero_whatever_writes_it() {
    let writers = [
        "addiu zero, a0, 1",
        "addu zero, a0, a1",
        "lui zero, 1",
        "sll zero, a0, 1",
        "ld zero, 0(s0)",
        "lwl zero, 3(s0)",
        "ins zero, a0, 0, 8",
        "mflo zero",
        "movn zero, a0, a0",
        "mfc0 zero, $15",
        "dmfc1 zero, $f0",
        "cfc1 zero, $0",
        "rdhwr zero, $3",
        "jalr zero, a2\n nop",
        "ll zero, 0(s0)\n sc zero, 0(s0)",
        "mul zero, a0, a0",
        "di zero",
    ];
    for writer in writers {
        let source = format!("{writer}\n addu v0, zero, zero");
        let cpu = run(&source, &[(A0, 3), (A2, PROGRAM + 8), (V0, 9)]);
        assert_eq!((cpu.regs.gpr[0], cpu.regs.gpr[V0]), (0, 0), "{writer}");
        assert_eq!(cpu.regs.gpr[32], 0, "the sink is empty between runs: {writer}");
    }
}

#[test]
fn a_trap_instruction_traps_when_its_condition_holds() {
    let rows: &[(&str, u64, u64, bool)] = &[
        ("tge a0, a1", MINUS_1, 0, false),
        ("tgeu a0, a1", MINUS_1, 0, true),
        ("tlt a0, a1", MINUS_1, 0, true),
        ("tltu a0, a1", MINUS_1, 0, false),
        ("teq a0, a1", 3, 3, true),
        ("tne a0, a1", 3, 3, false),
        ("tgei a0, -1", MINUS_1, 0, true),
        ("tgeiu a0, -1", 5, 0, false),
        ("tlti a0, 0", MIN64, 0, true),
        ("tltiu a0, -1", 5, 0, true),
        ("teqi a0, -1", MINUS_1, 0, true),
        ("tnei a0, -1", MINUS_1, 0, false),
    ];
    for &(text, a, b, traps) in rows {
        let mut cpu = cpu_with(&format!("{text}\n break"));
        (cpu.regs.gpr[A0], cpu.regs.gpr[A1]) = (a, b);
        let expected = if traps { Exception::Trap } else { Exception::Breakpoint };
        assert_eq!(run_to_trap(&mut cpu).exception, expected, "{text} {a:#x} {b:#x}");
    }
}
