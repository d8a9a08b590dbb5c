//! Branches, delay slots and where exceptions in them point.

use super::*;

/// The branch is taken if v0 ends as 2; its slot was executed if v1 ends as 1.
fn outcome(branch: &str, a: u64, b: u64) -> (bool, bool, u64) {
    let source = format!(
        "        {branch}, target
                 addiu v1, zero, 1
                 break
         target: addiu v0, zero, 2
                 break"
    );
    let cpu = run(&source, &[(A0, a), (A1, b)]);
    (cpu.regs.gpr[V0] == 2, cpu.regs.gpr[V1] == 1, cpu.instructions)
}

#[test]
fn branches_test_all_64_bits_and_likely_ones_skip_the_slot() {
    const MINUS_1: u64 = u64::MAX;
    let rows: &[(&str, u64, u64, bool)] = &[
        ("beq a0, a1", 1 << 32, 0, false),
        ("bne a0, a1", 1 << 32, 0, true),
        ("blez a0", 0, 0, true),
        ("blez a0", 0x8000_0000, 0, false), // not negative in 64 bits
        ("bgtz a0", 0, 0, false),
        ("bgtz a0", 1 << 40, 0, true),
        ("bltz a0", MINUS_1, 0, true),
        ("bltz a0", 0, 0, false),
        ("bgez a0", 0, 0, true),
        ("bgez a0", MINUS_1, 0, false),
    ];
    for &(branch, a, b, taken) in rows {
        let count = if taken { 3 } else { 2 };
        assert_eq!(outcome(branch, a, b), (taken, true, count), "{branch}");
        let (name, operands) = branch.split_once(' ').unwrap();
        let count = if taken { 3 } else { 1 };
        let likely = format!("{name}l {operands}");
        assert_eq!(outcome(&likely, a, b), (taken, taken, count), "{likely}");
    }
}

#[test]
fn branches_and_link_link_also_when_not_taken() {
    for (branch, a) in [("bltzal a0", 5), ("bgezal a0", 5), ("bltzall a0", 5), ("bgezall a0", 5)] {
        let cpu = run(&format!("{branch}, next\n nop\n next: nop"), &[(A0, a)]);
        assert_eq!(cpu.regs.gpr[RA], PROGRAM + 8, "{branch}");
    }
}

#[test]
fn jumps_stay_in_the_256_mib_around_their_slot() {
    let cpu = run("jal there\n nop\n nop\n there: nop", &[]);
    assert_eq!(cpu.regs.gpr[RA], PROGRAM + 8);
    let cpu = run("jalr a1, a0\n nop\n nop\n nop", &[(A0, PROGRAM + 12)]);
    assert_eq!(cpu.regs.gpr[A1], PROGRAM + 8);
    let cpu = run("jalr a0, a0\n nop\n nop\n nop", &[(A0, PROGRAM + 12)]);
    assert_eq!(cpu.regs.gpr[A0], PROGRAM + 8, "the target is read before the link is written");
}

#[test]
fn an_exception_in_a_delay_slot_points_to_the_branch() {
    // The branch at 0xffc of a page has its slot on the next one.
    for padding in [0, 5, 1022, 1023] {
        for (branch, next) in [("bne zero, s0, 16", 16), ("beq zero, s0, 16", 8), ("beql zero, zero, 16", 16)] {
            let source = format!(".space {}\n {branch}\n lw a0, 1(s0)", padding * 4);
            let source = source.replace(", 16", &format!(", . + {next_target}", next_target = 16));
            let mut cpu = cpu_with(&source);
            let trap = run_to_trap(&mut cpu);
            let branch_pc = PROGRAM + padding * 4;
            assert_eq!(
                trap.exception,
                Exception::AddressError { vaddr: DATA + 1, access: machine::AccessKind::Load }
            );
            assert_eq!((trap.pc, trap.in_delay_slot), (branch_pc, true), "{branch} at {padding}");
            assert_eq!(trap.next_pc, branch_pc + next, "{branch} at {padding}");
            assert_eq!(trap.insn.op, mips::Op::Lw);
            assert_eq!(cpu.regs.pc, branch_pc);
            assert_eq!(cpu.instructions, padding + 1, "the branch was executed, its slot was not");
        }
    }
}

#[test]
fn a_jump_into_a_slot_is_not_in_it() {
    let mut cpu = cpu_with("b skip\n lw a0, 1(s0)\n skip: nop");
    cpu.regs.pc = PROGRAM + 4;
    let trap = run_to_trap(&mut cpu);
    assert_eq!((trap.pc, trap.in_delay_slot, trap.next_pc), (PROGRAM + 4, false, PROGRAM + 8));
}

#[test]
fn a_branch_in_a_delay_slot_is_reserved_in_the_slot() {
    for slot in ["b . + 8", "jr ra", "beql zero, zero, . + 8", "eret"] {
        let mut cpu = cpu_with(&format!("b . + 12\n {slot}\n nop\n break"));
        let trap = run_to_trap(&mut cpu);
        assert_eq!(trap.exception, Exception::ReservedInstruction, "{slot}");
        assert_eq!((trap.pc, trap.in_delay_slot, trap.next_pc), (PROGRAM, true, PROGRAM + 12), "{slot}");
    }
}

#[test]
fn a_nullified_slot_on_the_next_page_is_not_fetched() {
    let mut cpu = cpu_with("");
    let user = 0x1_0000;
    map(&mut cpu, 0, user, PROGRAM_MACHINE.0, entry_lo::V);
    cpu.regs.pc = user + 0xffc;
    let word = mips::assemble("bnel zero, zero, . + 8", 0).unwrap();
    machine_memory_write(&mut cpu, user + 0xffc, &word);
    let trap = run_to_trap(&mut cpu);
    // Not taken: execution goes on after the slot, on the page that is not mapped.
    assert_eq!((trap.pc, trap.in_delay_slot), (user + 0x1004, false));
    assert_eq!(cpu.instructions, 1);
}

#[test]
fn a_fetch_fault_in_a_slot_points_to_the_branch() {
    let mut cpu = cpu_with("");
    let user = 0x1_0000;
    map(&mut cpu, 0, user, PROGRAM_MACHINE.0, entry_lo::V);
    cpu.regs.pc = user + 0xffc;
    let word = mips::assemble("beq zero, zero, . + 64", 0).unwrap();
    machine_memory_write(&mut cpu, user + 0xffc, &word);
    let trap = run_to_trap(&mut cpu);
    let vaddr = user + 0x1000;
    assert_eq!(trap.exception, Exception::TlbInvalid { vaddr, access: machine::AccessKind::Fetch });
    assert_eq!((trap.pc, trap.in_delay_slot, trap.next_pc), (user + 0xffc, true, user + 0x103c));
    assert_eq!(trap.insn.op, mips::Op::Reserved);
    // Mapped now, the branch is executed again.
    cpu.tlb_invalidate(0);
    map_pair(&mut cpu, user, PROGRAM_MACHINE.0);
    cpu.run(Cycles(cpu.now.0 + 1));
    assert_eq!((cpu.regs.pc, cpu.instructions), (user + 0x103c, 3));
}

#[test]
fn a_jump_to_a_misaligned_address_fails_at_the_target() {
    let mut cpu = cpu_with("jr a0\n nop");
    cpu.regs.gpr[A0] = PROGRAM + 2;
    let trap = run_to_trap(&mut cpu);
    let access = machine::AccessKind::Fetch;
    assert_eq!(trap.exception, Exception::AddressError { vaddr: PROGRAM + 2, access });
    assert_eq!((trap.pc, trap.in_delay_slot, cpu.instructions), (PROGRAM + 2, false, 2));
}

fn map_pair(cpu: &mut Cpu, vaddr: u64, address: u64) {
    let mut entry = TlbEntry::hidden(0);
    entry.vpn2 = vaddr;
    entry.hidden = false;
    entry.global = true;
    entry.page_mask = 0;
    entry.lo = [0, 0x1000].map(|offset| entry_lo::frame(address + offset) | entry_lo::G | entry_lo::V);
    cpu.tlb_write(0, entry).unwrap();
}

/// Writes through a fetch translation, whatever its protection.
fn machine_memory_write(cpu: &mut Cpu, vaddr: u64, bytes: &[u8]) {
    let address = cpu.probe(vaddr, machine::AccessKind::Fetch).unwrap();
    cpu.memory().write(address, bytes);
}
