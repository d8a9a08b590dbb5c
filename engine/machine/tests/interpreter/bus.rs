//! Accesses without memory: what stops the CPU, and what completes them.

use machine::cpu::access_of;
use machine::{AccessKind, BusAccess};

use super::*;

/// Nothing is there: KSEG1 of an address above the memory.
const DEVICE: u64 = 0xffff_ffff_b000_0000;

fn stopped_at(source: &str) -> (Cpu, BusAccess) {
    let mut cpu = cpu_with(source);
    cpu.regs.gpr[A0] = DEVICE;
    cpu.regs.gpr[V0] = 0x1122_3344_5566_7788;
    match cpu.run(Cycles(100)) {
        Stop::Bus(access) => (cpu, access),
        other => panic!("an access was expected, not {other:?}"),
    }
}

#[test]
fn a_load_is_completed_as_its_instruction_says() {
    const VALUE: u64 = 0x8182_8384_8586_8788;
    let rows = [
        ("lb v0, 3(a0)", 3, 1, 0xffff_ffff_ffff_ff88),
        ("lbu v0, 3(a0)", 3, 1, 0x88),
        ("lh v0, 2(a0)", 2, 2, 0xffff_ffff_ffff_8788),
        ("lw v0, 4(a0)", 4, 4, 0xffff_ffff_8586_8788),
        ("lwu v0, 4(a0)", 4, 4, 0x8586_8788),
        ("ld v0, 8(a0)", 8, 8, VALUE),
        ("lwl v0, 5(a0)", 4, 4, 0xffff_ffff_8788_7788), // two bytes into the high half
        ("lwr v0, 6(a0)", 4, 4, 0x5566_8586),           // the upper two into the low half
        ("ldr v0, 15(a0)", 8, 8, 0x1122_3344_5566_7781),
    ];
    for (text, offset, bytes, result) in rows {
        let (mut cpu, access) = stopped_at(&format!("nop\n {text}\n break"));
        assert_eq!((access.address, access.bytes, access.store), (0x1000_0000 + offset, bytes, false), "{text}");
        assert_eq!((cpu.regs.pc, cpu.instructions), (PROGRAM + 4, 1), "before the access: {text}");
        cpu.complete_bus_load(&access, VALUE);
        assert_eq!((cpu.regs.pc, cpu.instructions, cpu.now.0), (PROGRAM + 8, 2, 2));
        assert_eq!(cpu.regs.gpr[V0], result, "{text}");
    }
}

#[test]
fn a_store_carries_its_bytes() {
    let rows = [
        ("sb v0, 1(a0)", 1, 1, 0x88),
        ("sh v0, 2(a0)", 2, 2, 0x7788),
        ("sw v0, 4(a0)", 4, 4, 0x5566_7788),
        ("sd v0, 8(a0)", 8, 8, 0x1122_3344_5566_7788),
        ("swl v0, 6(a0)", 4, 3, 0x0055_6677), // three bytes up to 6, the upper ones of the word
        ("swr v0, 5(a0)", 5, 3, 0x0066_7788),
        ("sdr v0, 15(a0)", 15, 1, 0x88),
    ];
    for (text, offset, bytes, value) in rows {
        let (mut cpu, access) = stopped_at(&format!("{text}\n break"));
        assert_eq!((access.address, access.bytes), (0x1000_0000 + offset, bytes), "{text}");
        assert_eq!((access.store, access.value), (true, value), "{text}");
        cpu.complete_bus_store(&access);
        run_to_break(&mut cpu);
        assert_eq!(cpu.instructions, 1);
    }
}

#[test]
fn an_access_in_a_delay_slot_goes_on_at_the_target() {
    let (mut cpu, access) = stopped_at("b target\n lw v0, 0(a0)\n break\n target: nop\n break");
    assert_eq!((access.pc, access.in_delay_slot, cpu.instructions), (PROGRAM, true, 1));
    cpu.complete_bus_load(&access, 5);
    assert_eq!((cpu.regs.pc, cpu.regs.gpr[V0], cpu.instructions), (PROGRAM + 12, 5, 2));
}

#[test]
fn a_refused_access_is_a_bus_error() {
    let (mut cpu, access) = stopped_at("lw v0, 0(a0)");
    let Some(Stop::Trap(trap)) = cpu.refuse_bus_access(&access) else { panic!("a trap was expected") };
    assert_eq!(trap.exception, Exception::BusError { access: AccessKind::Load });
    assert_eq!((trap.pc, trap.insn.op), (PROGRAM, mips::Op::Lw));
    let (mut cpu, access) = stopped_at("sw v0, 0(a0)");
    cpu.monitored = false;
    assert_eq!(cpu.refuse_bus_access(&access), None);
    assert_eq!((cpu.cp0.cause >> 2 & 31, cpu.cp0.epc), (7, PROGRAM));
}

#[test]
fn a_fetch_without_memory_is_a_bus_error() {
    let mut cpu = cpu_with("jr a0\n nop");
    cpu.regs.gpr[A0] = DEVICE;
    let trap = run_to_trap(&mut cpu);
    assert_eq!((trap.exception, trap.pc), (Exception::BusError { access: AccessKind::Fetch }, DEVICE));
}

#[test]
fn the_access_of_a_trap_is_the_one_of_the_bus() {
    let accesses =
        ["lb v0, 3(a0)", "lwl v0, 5(a0)", "ldc1 $f2, 8(a0)", "sw v0, 4(a0)", "swl v0, 6(a0)", "sdr v0, 13(a0)"];
    for text in accesses {
        let (_, expected) = stopped_at(text);
        let mut cpu = cpu_with(text);
        let vaddr = 0x40_0000;
        (cpu.regs.gpr[A0], cpu.regs.gpr[V0]) = (vaddr, 0x1122_3344_5566_7788);
        let trap = run_to_trap(&mut cpu);
        let address = trap.exception.bad_vaddr().unwrap() - vaddr + 0x1000_0000;
        let access = cpu.bus_access(&trap, address).unwrap();
        assert_eq!(
            (access.address, access.bytes, access.store, access.value, access.next_pc),
            (expected.address, expected.bytes, expected.store, expected.value, expected.next_pc),
            "{text}"
        );
    }
}

#[test]
fn only_plain_loads_and_stores_have_an_access() {
    let access = |text: &str| {
        let bytes = mips::assemble(text, 0).unwrap();
        access_of(mips::decode(u32::from_le_bytes(bytes.try_into().unwrap())))
    };
    for text in ["addu v0, v0, v0", "ll v0, 0(a0)", "scd v0, 0(a0)", "pref 0, 0(a0)", "cache 0, 0(a0)"] {
        assert_eq!(access(text), None, "{text}");
    }
    let load = access("lh v0, 0(a0)").unwrap();
    assert_eq!((load.bytes, load.store, load.signed, load.float, load.partial), (2, false, true, false, false));
    let store = access("sdl v0, 0(a0)").unwrap();
    assert_eq!((store.bytes, store.store, store.partial), (8, true, true));
    assert!(access("swc1 $f0, 0(a0)").unwrap().float);
}
