//! The register models of the floating-point unit and its traps; its arithmetic is tested in `mips`.

use super::*;

fn float_cpu(source: &str, fr: bool) -> Cpu {
    let mut cpu = cpu_with(&format!("{source}\n break"));
    let fr = if fr { status::FR } else { 0 };
    set_status(&mut cpu, status::KX | status::CU1 | fr);
    cpu.regs.gpr[A0] = 0x1111_2222_3333_4444;
    cpu.regs.gpr[A1] = 0x5555_6666_7777_8888;
    cpu
}

#[test]
fn with_fr_0_an_odd_single_is_the_high_half_of_the_pair() {
    let mut cpu = float_cpu("dmtc1 a0, $f2\n mtc1 a1, $f3\n dmfc1 v0, $f2\n mfc1 v1, $f2\n mfhc1 a2, $f2", false);
    run_to_break(&mut cpu);
    assert_eq!(cpu.regs.gpr[V0], 0x7777_8888_3333_4444);
    assert_eq!((cpu.regs.gpr[V1], cpu.regs.gpr[A2]), (0x3333_4444, 0x7777_8888));
}

#[test]
fn with_fr_1_every_register_is_its_own() {
    let mut cpu = float_cpu(
        "dmtc1 a0, $f2\n dmtc1 a1, $f3\n mtc1 a0, $f3\n mthc1 a1, $f2\n dmfc1 v0, $f2\n dmfc1 v1, $f3",
        true,
    );
    run_to_break(&mut cpu);
    assert_eq!(cpu.regs.gpr[V0], 0x7777_8888_3333_4444);
    assert_eq!(cpu.regs.gpr[V1], 0x5555_6666_3333_4444, "a single leaves the high half");
}

#[test]
fn loads_and_stores_reach_the_same_registers_as_moves() {
    for fr in [false, true] {
        let mut cpu = float_cpu(
            "sd a0, 0(s0)\n ldc1 $f4, 0(s0)\n lwc1 $f5, 0(s0)\n sdc1 $f4, 8(s0)\n swc1 $f5, 16(s0)
             ld v0, 8(s0)\n lw v1, 16(s0)\n addiu a2, zero, 8\n ldxc1 $f6, a2(s0)\n dmfc1 a2, $f6",
            fr,
        );
        run_to_break(&mut cpu);
        let double = if fr { 0x1111_2222_3333_4444 } else { 0x3333_4444_3333_4444 };
        assert_eq!((cpu.regs.gpr[V0], cpu.regs.gpr[V1]), (double, 0x3333_4444), "FR {fr}");
        assert_eq!(cpu.regs.gpr[A2], double);
    }
}

#[test]
fn arithmetic_goes_to_fd_and_its_flags_to_fcsr() {
    let mut cpu = float_cpu(
        "li v0, 1\n dmtc1 v0, $f0\n cvt.d.l $f0, $f0\n li v0, 3\n dmtc1 v0, $f1\n cvt.d.l $f1, $f1
         div.d $f2, $f0, $f1\n cfc1 v1, $31\n c.lt.d $f2, $f0\n bc1t less\n nop\n break\n less: trunc.w.d $f3, $f1\n mfc1 v0, $f3",
        true,
    );
    run_to_break(&mut cpu);
    assert_eq!(f64::from_bits(cpu.regs.fpr[2]), 1.0 / 3.0);
    assert_eq!(cpu.regs.gpr[V1], 1 << 12 | 1 << 2, "Inexact in Cause and Flags");
    assert_eq!(cpu.regs.gpr[V0], 3);
}

#[test]
fn an_enabled_exception_traps_and_leaves_the_destination() {
    // Enable division by zero.
    let mut cpu = float_cpu("li v0, 0x400\n ctc1 v0, $31\n div.d $f2, $f0, $f1", true);
    cpu.regs.fpr[0] = 1f64.to_bits();
    cpu.regs.fpr[2] = 77;
    let trap = run_to_trap(&mut cpu);
    assert_eq!((trap.exception, cpu.regs.fpr[2]), (Exception::FloatingPoint, 77));
    assert_eq!(trap.insn.op, mips::Op::DivD);
    assert_eq!(cpu.regs.fcsr.bits(), 0x400 | 1 << 15);
}

#[test]
fn ctc1_that_makes_a_cause_enabled_traps_after_writing() {
    let mut cpu = float_cpu("li v0, 0x1f080\n ctc1 v0, $31", true);
    assert_eq!(run_to_trap(&mut cpu).exception, Exception::FloatingPoint);
    assert_eq!(cpu.regs.fcsr.bits(), 0x1f080);
}

#[test]
fn conditional_moves_look_at_a_condition_or_a_register() {
    let mut cpu = float_cpu(
        "li v0, 0x800000\n ctc1 v0, $31\n movt.d $f2, $f0, $fcc0\n movf.d $f3, $f0, $fcc0
         movt v1, a0, $fcc1\n movf a2, a0, $fcc1\n movz.s $f4, $f0, zero\n movn.s $f5, $f0, zero",
        true,
    );
    cpu.regs.fpr[0] = 0xaaaa_bbbb_cccc_dddd;
    run_to_break(&mut cpu);
    assert_eq!((cpu.regs.fpr[2], cpu.regs.fpr[3]), (0xaaaa_bbbb_cccc_dddd, 0));
    assert_eq!((cpu.regs.fpr[4], cpu.regs.fpr[5]), (0xcccc_dddd, 0));
    assert_eq!((cpu.regs.gpr[V1], cpu.regs.gpr[A2]), (0, cpu.regs.gpr[A0]));
}
