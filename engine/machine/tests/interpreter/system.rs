//! Privileged instructions on the bare CPU, and who may use them.

use super::*;

/// A bare CPU in kernel mode, with handlers that store Cause to v0 and EPC to v1 and stop.
fn bare(source: &str) -> Cpu {
    let mut cpu = cpu_with(source);
    cpu.monitored = false;
    let stop = "mfc0 v0, $13\n dmfc0 v1, $14\n here: b here\n nop\n";
    for vector in [0u64, 0x80, 0x180, 0x200] {
        let code = mips::assemble(stop, 0xffff_ffff_8000_0000 + vector).unwrap();
        cpu.memory().write(MachineAddr(vector), &code);
    }
    cpu
}

#[test]
fn coprocessor_0_needs_kernel_mode_or_cu0() {
    let user = 2 << status::KSU_SHIFT;
    let supervisor = 1 << status::KSU_SHIFT;
    let privileged = [
        "mfc0 v0, $12",
        "dmfc0 v0, $14",
        "mtc0 v0, $9",
        "dmtc0 v0, $14",
        "tlbr",
        "tlbwi",
        "tlbwr",
        "tlbp",
        "tlbinvf",
        "eret",
        "wait",
        "di",
        "ei",
        "cache 0, 0(zero)",
        "rdpgpr v0, v1",
        "wrpgpr v0, v1",
    ];
    for text in privileged {
        for mode in [user, supervisor] {
            let mut cpu = cpu_with(text);
            map(&mut cpu, 40, 0x1_0000, PROGRAM_MACHINE.0, entry_lo::V);
            cpu.regs.pc = 0x1_0000;
            set_status(&mut cpu, status::UX | status::SX | mode);
            let trap = run_to_trap(&mut cpu);
            assert_eq!(trap.exception, Exception::CoprocessorUnusable { unit: 0 }, "{text}");
            assert_eq!(trap.insn.op.mnemonic(), text.split(' ').next().unwrap());
        }
    }
    let mut cpu = cpu_with("mfc0 v0, $12\n break");
    map(&mut cpu, 0, 0x1_0000, PROGRAM_MACHINE.0, entry_lo::V);
    cpu.regs.pc = 0x1_0000;
    set_status(&mut cpu, status::UX | user | status::CU0);
    run_to_break(&mut cpu);
    assert_eq!(cpu.regs.gpr[V0], u64::from(cpu.cp0.status));
}

#[test]
fn rdhwr_needs_its_bit_of_hwrena_in_user_mode() {
    for (number, enable, allowed) in
        [(3, 0, false), (3, 8, true), (29, 8, false), (29, 1 << 29, true), (5, !0, false)]
    {
        let mut cpu = cpu_with(&format!("rdhwr v0, ${number}\n break"));
        map(&mut cpu, 0, 0x1_0000, PROGRAM_MACHINE.0, entry_lo::V);
        cpu.regs.pc = 0x1_0000;
        cpu.cp0.hwrena = enable;
        cpu.cp0.user_local = 0x1234_5678_9abc;
        set_status(&mut cpu, status::UX | 2 << status::KSU_SHIFT);
        let expected = if allowed { Exception::Breakpoint } else { Exception::ReservedInstruction };
        assert_eq!(run_to_trap(&mut cpu).exception, expected, "rdhwr {number}, HWREna {enable:#x}");
        if number == 29 && allowed {
            assert_eq!(cpu.regs.gpr[V0], 0x1234_5678_9abc);
        }
    }
}

#[test]
fn count_is_exact_in_the_middle_of_a_run() {
    let cpu = run("nop\n mfc0 v0, $9\n nop\n nop\n nop\n rdhwr v1, $2\n nop", &[]);
    // Count ticks every second cycle; the reads happen at 1 and 5.
    assert_eq!((cpu.regs.gpr[V0], cpu.regs.gpr[V1]), (0, 2));
}

#[test]
fn coprocessors_that_are_off_or_absent_are_unusable() {
    let rows = [
        ("add.d $f0, $f0, $f0", 1),
        ("lwc1 $f0, 0(s0)", 1),
        ("sdc1 $f0, 0(s0)", 1),
        ("bc1t . + 8", 1),
        ("mfc1 v0, $f0", 1),
        ("movf v0, v1, 0", 1),
        ("cop2 5", 2),
    ];
    for (text, unit) in rows {
        let text = text.replace("movf v0, v1, 0", "movf v0, v1, $fcc0");
        let mut cpu = cpu_with(&text);
        set_status(&mut cpu, status::KX);
        assert_eq!(run_to_trap(&mut cpu).exception, Exception::CoprocessorUnusable { unit }, "{text}");
    }
}

#[test]
fn a_reserved_word_raises_with_its_word() {
    let mut cpu = cpu_with(".word 0x00000005");
    let trap = run_to_trap(&mut cpu);
    assert_eq!((trap.exception, trap.word), (Exception::ReservedInstruction, 5));
    assert_eq!(trap.insn.op, mips::Op::Reserved);
}

#[test]
fn syscall_enters_the_general_vector_and_eret_returns() {
    let mut cpu = bare("nop\n syscall\n nop");
    cpu.run(Cycles(10));
    assert_eq!((cpu.regs.gpr[V0] >> 2 & 31, cpu.regs.gpr[V1]), (8, PROGRAM + 4));
    assert_ne!(cpu.cp0.status & status::EXL, 0);
    let mut cpu = bare("dmtc0 a0, $14\n eret\n nop\n nop\n addiu v0, zero, 9\n here: b here\n nop");
    cpu.regs.gpr[A0] = PROGRAM + 16;
    set_status(&mut cpu, status::KX | status::EXL);
    cpu.run(Cycles(8));
    assert_eq!((cpu.regs.gpr[V0], cpu.cp0.status), (9, status::KX));
}

#[test]
fn an_exception_in_a_slot_sets_bd() {
    let mut cpu = bare("nop\n b . + 8\n syscall");
    cpu.run(Cycles(10));
    assert_eq!((cpu.regs.gpr[V0] as u32 >> 31, cpu.regs.gpr[V1]), (1, PROGRAM + 4));
}

#[test]
fn a_timer_interrupt_comes_at_the_first_boundary_after_count_reaches_compare() {
    for due in 0..12u32 {
        let mut cpu = bare(&"nop\n".repeat(64));
        cpu.cp0.write(11, 0, u64::from(due + 1), Cycles(0));
        set_status(&mut cpu, status::KX | status::IE | status::IM_MASK);
        cpu.run(Cycles(100));
        assert_eq!(cpu.regs.gpr[V1], PROGRAM + 4 * 2 * u64::from(due + 1), "Compare {due}");
    }
}

#[test]
fn ei_takes_a_pending_interrupt_at_once_and_di_holds_it() {
    let mut cpu = bare("nop\n ei\n nop\n nop");
    set_status(&mut cpu, status::KX | status::IM_MASK);
    cpu.cp0.set_lines(1 << 2);
    cpu.run(Cycles(20));
    assert_eq!(cpu.regs.gpr[V1], PROGRAM + 8);
    let mut cpu = bare("di v0\n here: b here\n nop");
    set_status(&mut cpu, status::KX | status::IM_MASK | status::IE);
    cpu.run(Cycles(20));
    cpu.cp0.set_lines(1 << 2);
    cpu.run(Cycles(40));
    assert_eq!(cpu.counters.exceptions, 0);
    assert_eq!(cpu.regs.gpr[V0] & 1, 1, "DI returns the Status of before");
}

#[test]
fn wait_stops_unless_an_interrupt_is_pending() {
    let mut cpu = bare("nop\n wait\n nop");
    assert_eq!(cpu.run(Cycles(100)), Stop::Wait);
    assert_eq!((cpu.now.0, cpu.regs.pc), (2, PROGRAM + 8));
    // Pending, though not enabled: it goes on.
    let mut cpu = bare("wait\n here: b here\n nop");
    set_status(&mut cpu, status::KX | status::IM_MASK);
    cpu.cp0.set_lines(1 << 3);
    assert_eq!(cpu.run(Cycles(100)), Stop::Until);
}

#[test]
fn the_tlb_instructions_write_find_and_read_entries() {
    let cpu = run(
        "li      t0, 0x40000005        # address and ASID
         dmtc0   t0, $10
         li      t1, 0x1007            # frame 0x40: V, D, G
         dmtc0   t1, $2
         dmtc0   t1, $3
         li      t2, 7
         mtc0    t2, $0
         tlbwi
         mtc0    zero, $0
         tlbp
         mfc0    v0, $0
         dmtc0   zero, $10
         tlbr
         dmfc0   v1, $10
         lw      a0, 0(a1)
         tlbinvf
         tlbp
         mfc0    a2, $0",
        &[(A1, 0x4000_0000)],
    );
    assert_eq!(cpu.regs.gpr[V0], 7);
    assert_eq!(cpu.regs.gpr[V1] & !0xff, 0x4000_0000);
    assert_eq!(cpu.regs.gpr[A2], 0xffff_ffff_8000_0000, "nothing is found after TLBINVF");
}

#[test]
fn a_second_entry_for_one_address_is_a_machine_check() {
    let mut cpu = cpu_with(
        "li t0, 0x40000000\n dmtc0 t0, $10\n li t1, 7\n dmtc0 t1, $2\n dmtc0 t1, $3
         tlbwi\n li t2, 1\n mtc0 t2, $0\n tlbwi\n break",
    );
    let trap = run_to_trap(&mut cpu);
    assert_eq!((trap.exception, trap.insn.op), (Exception::MachineCheck, mips::Op::Tlbwi));
    assert!(cpu.tlb().get(1).hidden, "nothing was written");
}

#[test]
fn a_reset_starts_over_at_the_reset_vector() {
    let mut cpu = cpu_with("ll v0, 0(s0)\n nop\n break");
    run_to_break(&mut cpu);
    cpu.reset(machine::cp0::Reset::Cold);
    assert_eq!((cpu.regs.pc, cpu.regs.ll_bit), (0xffff_ffff_bfc0_0000, false));
    assert_ne!(cpu.cp0.status & status::ERL, 0);
    // Nothing is in the boot ROM's place.
    let exception = run_to_trap(&mut cpu).exception;
    assert_eq!(exception, Exception::BusError { access: machine::AccessKind::Fetch });
}

#[test]
fn a_cpu_can_be_moved_to_another_host_thread() {
    fn is_send<T: Send>() {}
    is_send::<Cpu>();
}
