//! Loads and stores against a model of bytes.

use machine::AccessKind;

use super::*;

const PATTERN: [u8; 16] =
    [0x80, 0x91, 0xa2, 0xb3, 0xc4, 0xd5, 0xe6, 0xf7, 0x08, 0x19, 0x2a, 0x3b, 0x4c, 0x5d, 0x6e, 0x7f];
const OLD: u64 = 0x1122_3344_9566_7788;

fn with_pattern(source: &str) -> Cpu {
    let mut cpu = cpu_with(&format!("{source}\n break"));
    cpu.memory().write(DATA_MACHINE, &PATTERN);
    cpu.regs.gpr[V0] = OLD;
    cpu
}

fn word(value: u32) -> u64 {
    value as i32 as u64
}

fn bytes_at(cpu: &Cpu) -> [u8; 16] {
    let mut bytes = [0; 16];
    cpu.memory().read(DATA_MACHINE, &mut bytes);
    bytes
}

#[test]
fn loads_extend_by_sign_or_by_zeros() {
    let rows = [
        ("lb v0, 0(s0)", 0xffff_ffff_ffff_ff80),
        ("lb v0, 15(s0)", 0x7f),
        ("lbu v0, 0(s0)", 0x80),
        ("lh v0, 0(s0)", 0xffff_ffff_ffff_9180),
        ("lhu v0, 2(s0)", 0xb3a2),
        ("lw v0, 0(s0)", 0xffff_ffff_b3a2_9180),
        ("lwu v0, 4(s0)", 0xf7e6_d5c4),
        ("ld v0, 8(s0)", 0x7f6e_5d4c_3b2a_1908),
    ];
    for (text, value) in rows {
        let mut cpu = with_pattern(text);
        run_to_break(&mut cpu);
        assert_eq!(cpu.regs.gpr[V0], value, "{text}");
    }
}

#[test]
fn unaligned_loads_take_the_bytes_that_the_manual_draws() {
    for offset in 0..8usize {
        for op in ["lwl", "lwr", "ldl", "ldr"] {
            let mut cpu = with_pattern(&format!("{op} v0, {offset}(s0)"));
            run_to_break(&mut cpu);
            let size = if op.starts_with("lw") { 4 } else { 8 };
            let start = offset / size * size;
            let mut register = OLD.to_le_bytes();
            if op.ends_with('l') {
                // The bytes up to `offset` go to the high end.
                let count = offset - start + 1;
                register[size - count..size].copy_from_slice(&PATTERN[start..=offset]);
            } else {
                let count = start + size - offset;
                register[..count].copy_from_slice(&PATTERN[offset..start + size]);
            }
            let value = u64::from_le_bytes(register);
            let expected = if size == 4 { word(value as u32) } else { value };
            assert_eq!(cpu.regs.gpr[V0], expected, "{op} at {offset}");
        }
    }
}

#[test]
fn unaligned_stores_put_the_bytes_that_the_manual_draws() {
    for offset in 0..8usize {
        for op in ["swl", "swr", "sdl", "sdr"] {
            let mut cpu = with_pattern(&format!("{op} v0, {offset}(s0)"));
            run_to_break(&mut cpu);
            let size = if op.starts_with("sw") { 4 } else { 8 };
            let start = offset / size * size;
            let register = OLD.to_le_bytes();
            let mut expected = PATTERN;
            if op.ends_with('l') {
                let count = offset - start + 1;
                expected[start..=offset].copy_from_slice(&register[size - count..size]);
            } else {
                let count = start + size - offset;
                expected[offset..start + size].copy_from_slice(&register[..count]);
            }
            assert_eq!(bytes_at(&cpu), expected, "{op} at {offset}");
        }
    }
}

#[test]
fn a_pair_of_unaligned_accesses_moves_a_value_across_a_page_edge() {
    let cpu = run(
        "daddiu a0, s0, 0xffd - 0x1000
         swl v0, 3(a0)
         swr v0, 0(a0)
         lwl v1, 3(a0)
         lwr v1, 0(a0)
         sdl v0, 7(a0)
         sdr v0, 0(a0)
         ldl a2, 7(a0)
         ldr a2, 0(a0)",
        &[(V0, OLD)],
    );
    assert_eq!(cpu.regs.gpr[V1], word(OLD as u32));
    assert_eq!(cpu.regs.gpr[A2], OLD);
}

#[test]
fn a_misaligned_access_is_an_address_error_with_its_address() {
    let rows = [
        ("lh v0, 1(s0)", 1, AccessKind::Load),
        ("lw v0, 2(s0)", 2, AccessKind::Load),
        ("ld v0, 4(s0)", 4, AccessKind::Load),
        ("lld v0, 4(s0)", 4, AccessKind::Load),
        ("sh v0, 3(s0)", 3, AccessKind::Store),
        ("sw v0, 1(s0)", 1, AccessKind::Store),
        ("sd v0, 4(s0)", 4, AccessKind::Store),
        ("sc v0, 2(s0)", 2, AccessKind::Store),
        ("ldc1 $f0, 4(s0)", 4, AccessKind::Load),
        ("swc1 $f0, 2(s0)", 2, AccessKind::Store),
    ];
    for (text, offset, access) in rows {
        // Also when the page has a host translation.
        let mut cpu = with_pattern(&format!("lb v1, 0(s0)\n sb v1, 0(s0)\n {text}"));
        let vaddr = DATA + offset;
        assert_eq!(run_to_trap(&mut cpu).exception, Exception::AddressError { vaddr, access }, "{text}");
        assert_eq!(bytes_at(&cpu), PATTERN, "{text}");
    }
}

#[test]
fn with_32_bit_addresses_a_sum_wraps_and_is_sign_extended() {
    let mut cpu = cpu_with("lw v0, -4(a0)\n lw v1, 4(a1)\n sw v1, -8(a0)\n lw a2, 0x7ffc(a1)\n break");
    set_status(&mut cpu, 0);
    let page = 0x7fff_f000;
    map(&mut cpu, 0, page, DATA_MACHINE.0, entry_lo::V | entry_lo::D);
    cpu.memory().write(MachineAddr(DATA_MACHINE.0 + 0xffc), &7u32.to_le_bytes());
    cpu.memory().write(MachineAddr(0), &9u32.to_le_bytes());
    // Down from KSEG0 into useg; up from useg into KSEG0.
    (cpu.regs.gpr[A0], cpu.regs.gpr[A1]) = (0xffff_ffff_8000_0000, 0x7fff_fffc);
    let trap = run_to_trap(&mut cpu);
    assert_eq!((cpu.regs.gpr[V0], cpu.regs.gpr[V1], trap.exception), (7, 9, Exception::Breakpoint));
    let mut stored = [0; 4];
    cpu.memory().read(MachineAddr(DATA_MACHINE.0 + 0xff8), &mut stored);
    assert_eq!(stored, [9, 0, 0, 0]);
}

#[test]
fn with_64_bit_addresses_a_sum_does_not_wrap() {
    let mut cpu = cpu_with("lw v0, -4(a0)");
    cpu.regs.gpr[A0] = 0xffff_ffff_8000_0000;
    let exception = run_to_trap(&mut cpu).exception;
    assert_eq!(exception.bad_vaddr(), Some(0xffff_ffff_7fff_fffc));
}

#[test]
fn host_translations_follow_the_tlb() {
    let (vaddr, first, second) = (0x40_0000, 0x8_0000, 0x9_0000);
    let mut cpu = cpu_with("loop: lw v0, 0(a0)\n sw a1, 4(a0)\n b loop\n nop");
    cpu.memory().write(MachineAddr(first), &1u32.to_le_bytes());
    cpu.memory().write(MachineAddr(second), &2u32.to_le_bytes());
    cpu.regs.gpr[A0] = vaddr;
    let all = entry_lo::V | entry_lo::D;
    let trap = run_to_trap(&mut cpu);
    assert_eq!(trap.exception, Exception::TlbRefill { vaddr, access: AccessKind::Load });
    map(&mut cpu, 3, vaddr, first, all);
    cpu.run(Cycles(cpu.now.0 + 40));
    assert_eq!(cpu.regs.gpr[V0], 1);
    map(&mut cpu, 3, vaddr, second, all);
    cpu.run(Cycles(cpu.now.0 + 40));
    assert_eq!(cpu.regs.gpr[V0], 2);
    map(&mut cpu, 3, vaddr, second, entry_lo::V);
    assert_eq!(run_to_trap(&mut cpu).exception, Exception::TlbModified { vaddr: vaddr + 4 });
    cpu.tlb_invalidate(3);
    assert!(matches!(run_to_trap(&mut cpu).exception, Exception::TlbRefill { .. }));
}

#[test]
fn a_change_of_asid_hides_what_is_not_global() {
    let vaddr = 0x40_0000;
    let mut cpu = cpu_with("loop: lw v0, 0(a0)\n b loop\n nop");
    cpu.regs.gpr[A0] = vaddr;
    let mut entry = TlbEntry::hidden(0);
    (entry.vpn2, entry.asid, entry.hidden) = (vaddr, Asid(5), false);
    entry.lo = [entry_lo::frame(DATA_MACHINE.0) | entry_lo::V; 2];
    (entry.global, entry.page_mask) = (false, 0);
    cpu.tlb_write(0, entry).unwrap();
    cpu.cp0.entry_hi = 5;
    cpu.context_changed();
    assert_eq!(cpu.run(Cycles(100)), Stop::Until);
    cpu.cp0.entry_hi = 6;
    cpu.context_changed();
    assert!(matches!(run_to_trap(&mut cpu).exception, Exception::TlbRefill { .. }));
    cpu.cp0.entry_hi = 5;
    cpu.context_changed();
    assert_eq!(cpu.run(Cycles(cpu.now.0 + 100)), Stop::Until);
}

#[test]
fn user_mode_does_not_inherit_the_kernels_translations() {
    let mut cpu = cpu_with("loop: lw v0, 0(s0)\n b loop\n nop");
    assert_eq!(cpu.run(Cycles(100)), Stop::Until);
    let user = 2 << status::KSU_SHIFT;
    let vaddr = 0x1_0000;
    map(&mut cpu, 0, vaddr, PROGRAM_MACHINE.0, entry_lo::V);
    cpu.regs.pc = vaddr;
    set_status(&mut cpu, status::KX | status::SX | status::UX | user);
    let exception = run_to_trap(&mut cpu).exception;
    assert_eq!(exception, Exception::AddressError { vaddr: DATA, access: AccessKind::Load });
}

#[test]
fn a_store_conditional_needs_its_link() {
    let linked = run("ll a0, 0(s0)\n addiu v0, zero, 5\n sc v0, 0(s0)\n lw v1, 0(s0)", &[]);
    assert_eq!((linked.regs.gpr[V0], linked.regs.gpr[V1]), (1, 5));
    let rows = [
        ("without LL", "sc v0, 0(s0)"),
        ("other address", "ll a0, 8(s0)\n sc v0, 0(s0)"),
        ("written in between", "ll a0, 0(s0)\n sw s0, 0(s0)\n sc v0, 0(s0)"),
        ("a second SC", "lld a0, 0(s0)\n move a1, zero\n scd a1, 0(s0)\n scd v0, 0(s0)"),
    ];
    for (name, text) in rows {
        assert_eq!(run(text, &[(V0, 7)]).regs.gpr[V0], 0, "{name}");
    }
}

#[test]
fn a_trap_keeps_the_link_and_eret_breaks_it() {
    let mut cpu = cpu_with("ll a0, 0(s0)\n syscall\n sc v0, 0(s0)\n break");
    assert_eq!(run_to_trap(&mut cpu).exception, Exception::Syscall);
    cpu.regs.pc += 4;
    run_to_break(&mut cpu);
    assert_eq!(cpu.regs.gpr[V0], 1);
    let mut cpu = cpu_with("ll a0, 0(s0)\n dla a1, on\n dmtc0 a1, $14\n eret\n on: sc v0, 0(s0)\n break");
    run_to_break(&mut cpu);
    assert_eq!(cpu.regs.gpr[V0], 0);
}

#[test]
fn a_large_page_that_goes_takes_all_its_host_translations_along() {
    // 64 KiB and 16 MiB pages: removed one by one, and all at once.
    for page_mask in [0x1_e000, 0x1ff_e000] {
        let page_bytes = (u64::from(page_mask) + 0x2000) / 2;
        let vaddr = 0x4000_0000;
        let mut cpu = cpu_with("lw v0, 0(a0)\n sw v0, 4(a0)\n lw v0, 0(a1)\n sw v0, 4(a1)\n break");
        let mut entry = TlbEntry::hidden(0);
        (entry.vpn2, entry.hidden, entry.global, entry.page_mask) = (vaddr, false, true, page_mask);
        entry.lo = [entry_lo::frame(0) | entry_lo::V | entry_lo::D | entry_lo::G; 2];
        (cpu.regs.gpr[A0], cpu.regs.gpr[A1]) = (vaddr + 0xf000, vaddr + page_bytes + 0x7000);
        for flush in [false, true] {
            cpu.tlb_write(0, entry).unwrap();
            cpu.regs.pc = PROGRAM;
            run_to_break(&mut cpu);
            if flush {
                cpu.tlb_flush();
            } else {
                cpu.tlb_invalidate(0);
            }
            for instruction in 0..4 {
                cpu.regs.pc = PROGRAM + 4 * instruction;
                let exception = run_to_trap(&mut cpu).exception;
                assert!(matches!(exception, Exception::TlbRefill { .. }), "{instruction}: {exception:?}");
            }
        }
    }
}
