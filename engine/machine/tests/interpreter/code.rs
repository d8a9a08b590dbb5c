//! Stores into code are seen by the next fetch, whoever does them and through whatever mapping.

use super::*;

/// `daddiu v0, v0, 100` as a word, to be stored over another instruction.
fn patch() -> u64 {
    let bytes = mips::assemble("daddiu v0, v0, 100", 0).unwrap();
    u64::from(u32::from_le_bytes(bytes.try_into().unwrap()))
}

#[test]
fn a_store_into_the_next_instruction_is_executed() {
    let cpu = run(
        "la a1, target
         sw a0, 0(a1)
         target: daddiu v0, v0, 1",
        &[(A0, patch())],
    );
    assert_eq!(cpu.regs.gpr[V0], 100);
    assert_eq!(cpu.instructions, 4);
}

#[test]
fn a_store_in_a_delay_slot_changes_the_target() {
    let cpu = run(
        "la a1, target
         b target
         sw a0, 0(a1)
         target: daddiu v0, v0, 1",
        &[(A0, patch())],
    );
    assert_eq!(cpu.regs.gpr[V0], 100);
}

#[test]
fn a_store_into_a_loop_that_has_run_before_changes_it() {
    let cpu = run(
        "        la a1, target
                 addiu v1, zero, 10
         loop:
         target: daddiu v0, v0, 1
                 daddiu v1, v1, -1
                 bne v1, zero, loop
                 sw a0, 0(a1)",
        &[(A0, patch())],
    );
    assert_eq!(cpu.regs.gpr[V0], 1 + 9 * 100);
}

#[test]
fn a_store_into_another_page_that_has_run_before_changes_it() {
    let cpu = run(
        "        jal function
                 nop
                 la a1, target
                 sw a0, 0(a1)
                 jal function
                 nop
                 sw a2, 0(a1)
                 jal function
                 nop
                 break
                 nop
                 .align 12
         function:
         target: daddiu v0, v0, 1
                 jr ra
                 nop",
        &[(A0, patch())],
    );
    // The third call executes the word 0, a NOP.
    assert_eq!(cpu.regs.gpr[V0], 101);
}

#[test]
fn a_store_through_another_mapping_changes_the_code() {
    let mut cpu = cpu_with(
        "loop:   daddiu v0, v0, 1
                 daddiu v1, v1, -1
                 bne v1, zero, loop
                 sw a0, 0(a1)
                 break",
    );
    let alias = 0x40_0000;
    map(&mut cpu, 0, alias, PROGRAM_MACHINE.0, entry_lo::V | entry_lo::D);
    (cpu.regs.gpr[A0], cpu.regs.gpr[A1], cpu.regs.gpr[V1]) = (patch(), alias, 10);
    run_to_break(&mut cpu);
    assert_eq!(cpu.regs.gpr[V0], 1 + 9 * 100);
}

#[test]
fn a_page_written_quickly_before_it_became_code_is_written_slowly_after() {
    // The store translation of the target's page exists when the page is first executed.
    let cpu = run(
        "        la a1, target
                 sw a2, -8(a1)
                 sw a2, -8(a1)
                 jal target
                 nop
                 sw a0, 0(a1)
                 jal target
                 nop
                 break
                 .align 12
                 nop
                 nop
         target: daddiu v0, v0, 1
                 jr ra
                 nop",
        &[(A0, patch())],
    );
    assert_eq!(cpu.regs.gpr[V0], 101);
}

#[test]
fn memory_written_from_outside_between_runs_is_executed() {
    let mut cpu = cpu_with("loop: daddiu v0, v0, 1\n b loop\n nop");
    cpu.run(Cycles(3));
    cpu.memory().write(PROGRAM_MACHINE, &(patch() as u32).to_le_bytes());
    cpu.run(Cycles(6));
    assert_eq!(cpu.regs.gpr[V0], 101);
}

#[test]
fn another_cpu_of_the_same_memory_sees_and_is_seen() {
    let mut first = cpu_with("loop: daddiu v0, v0, 1\n b loop\n nop");
    let memory = Arc::clone(first.memory());
    let mut second = Cpu::new(1, NodeId(0), CpuConfig::hardware(), Arc::clone(&memory));
    set_status(&mut second, status::KX);
    second.monitored = true;
    let writer = PROGRAM + 0x1000;
    let source = "sw a0, 0(a1)\n b . - 4\n nop";
    memory.write(MachineAddr(PROGRAM_MACHINE.0 + 0x1000), &mips::assemble(source, writer).unwrap());
    second.regs.pc = writer;
    // It stores quickly to a page that is not code yet...
    (second.regs.gpr[A0], second.regs.gpr[A1]) = (0, PROGRAM + 0x800);
    second.run(Cycles(30));
    // ...then the first executes that page...
    first.run(Cycles(3));
    assert_eq!(first.regs.gpr[V0], 1);
    // ...and the next store must be noticed.
    (second.regs.gpr[A0], second.regs.gpr[A1]) = (patch(), PROGRAM);
    second.run(Cycles(60));
    first.run(Cycles(6));
    assert_eq!(first.regs.gpr[V0], 101);
}

#[test]
fn more_pages_of_code_than_are_kept_work() {
    // Each page is a jump to the next one, three times around.
    let pages = 450;
    let memory = Arc::new(MachineMemory::new(1, 4 << 20).unwrap());
    let kseg0 = 0xffff_ffff_8000_0000u64;
    for page in 0..pages {
        let next = kseg0 + (page + 1) % pages * 4096;
        let code = mips::assemble(&format!("j {next}\n daddiu v0, v0, 1"), kseg0).unwrap();
        memory.write(MachineAddr(page * 4096), &code);
    }
    let mut cpu = Cpu::new(0, NodeId(0), CpuConfig::hardware(), memory);
    set_status(&mut cpu, status::KX);
    cpu.regs.pc = kseg0;
    assert_eq!(cpu.run(Cycles(pages * 2 * 3)), Stop::Until);
    assert_eq!((cpu.regs.gpr[V0], cpu.regs.pc), (pages * 3, kseg0));
}

#[test]
fn one_page_runs_with_and_without_64_bit_operations() {
    let mut cpu = cpu_with("daddiu v0, v0, 1\n break");
    let vaddr = 0x1_0000;
    map(&mut cpu, 0, vaddr, PROGRAM_MACHINE.0, entry_lo::V);
    let user = 2 << status::KSU_SHIFT;
    for (bits, exception) in [
        (status::UX, Exception::Breakpoint),
        (0, Exception::ReservedInstruction),
        (status::PX, Exception::Breakpoint),
        (0, Exception::ReservedInstruction),
    ] {
        cpu.regs.pc = vaddr;
        set_status(&mut cpu, user | bits);
        let trap = run_to_trap(&mut cpu);
        assert_eq!(trap.exception, exception, "status bits {bits:#x}");
    }
    assert_eq!(cpu.regs.gpr[V0], 2);
}
