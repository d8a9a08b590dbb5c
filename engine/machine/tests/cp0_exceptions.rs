//! Exception entry, ERET and reset, against the manual's description written down again.

use machine::cp0::{Reset, cause, register, status};
use machine::{AccessKind, Cp0, CpuConfig, Cycles, Exception};

const NOW: Cycles = Cycles(0);
const PC: u64 = 0x0000_0012_3456_7890;
const OLD_EPC: u64 = 0x1111;
const EBASE: u64 = 0xffff_ffff_8123_4000;

/// Every exception, with its code in Cause; addresses of each region.
fn exceptions() -> Vec<(Exception, u32)> {
    use AccessKind::{Fetch, Load, Store};
    let mut all = vec![
        (Exception::Interrupt, 0),
        (Exception::BusError { access: Fetch }, 6),
        (Exception::BusError { access: Load }, 7),
        (Exception::BusError { access: Store }, 7),
        (Exception::Syscall, 8),
        (Exception::Breakpoint, 9),
        (Exception::ReservedInstruction, 10),
        (Exception::Overflow, 12),
        (Exception::Trap, 13),
        (Exception::FloatingPoint, 15),
        (Exception::MachineCheck, 24),
    ];
    all.extend((0..4).map(|unit| (Exception::CoprocessorUnusable { unit }, 11)));
    for vaddr in [0, 0x7fff_ffff, 0x40_1234_5678, 0x4000_0000_0000_0000, 0x9800_0012_3456_789a, u64::MAX] {
        for (access, load_or_store) in [(Fetch, 0), (Load, 0), (Store, 1)] {
            all.push((Exception::TlbRefill { vaddr, access }, 2 + load_or_store));
            all.push((Exception::TlbInvalid { vaddr, access }, 2 + load_or_store));
            all.push((Exception::AddressError { vaddr, access }, 4 + load_or_store));
        }
        all.push((Exception::TlbModified { vaddr }, 1));
        all.push((Exception::TlbReadInhibit { vaddr }, 19));
        all.push((Exception::TlbExecuteInhibit { vaddr }, 20));
    }
    all
}

/// All switches that exception entry looks at.
#[derive(Clone, Copy, Debug)]
struct Switches {
    exl: bool,
    erl: bool,
    bev: bool,
    iv: bool,
    vs: u32,
    delay_slot: bool,
    enables: u32,
}

fn every_combination() -> Vec<Switches> {
    let mut all = Vec::new();
    for bits in 0..32u32 {
        for vs in [0, 1, 4] {
            for enables in 0..8 {
                let bit = |position: u32| bits >> position & 1 != 0;
                let (exl, erl, bev, iv, delay_slot) = (bit(0), bit(1), bit(2), bit(3), bit(4));
                all.push(Switches { exl, erl, bev, iv, vs, delay_slot, enables: enables << 5 });
            }
        }
    }
    all
}

fn prepared(switches: Switches) -> Cp0 {
    let mut cp0 = Cp0::new(CpuConfig::hardware(), 5);
    cp0.write(15, 1, EBASE, NOW);
    cp0.write(12, 1, u64::from(switches.vs << 5), NOW);
    cp0.set_lines(0x24); // IP5 and IP2
    cp0.status = 0xff00 | switches.enables | status::IE | 2 << status::KSU_SHIFT;
    for (on, bit) in [(switches.exl, status::EXL), (switches.erl, status::ERL), (switches.bev, status::BEV)] {
        cp0.status |= if on { bit } else { 0 };
    }
    cp0.cause |= if switches.iv { cause::IV } else { 0 };
    // Everything that an entry may or may not replace has a value of its own.
    cp0.cause |= 31 << 2 | 3 << 28 | if switches.delay_slot { 0 } else { cause::BD };
    cp0.epc = OLD_EPC;
    cp0.bad_vaddr = 0x2222;
    cp0.context = 0xabcd_ef01_2380_0000 | 0x10;
    cp0.xcontext = 0xabcd_ef00_0000_0000 | 0x20;
    cp0.entry_hi = 0x4000_0000_0000_40a5;
    cp0
}

fn is_refill(exception: Exception) -> bool {
    matches!(exception, Exception::TlbRefill { .. })
}

fn expected_vector(exception: Exception, switches: Switches) -> u64 {
    let base = if switches.bev { 0xffff_ffff_bfc0_0200 } else { EBASE };
    let offset = if switches.exl {
        0x180
    } else if is_refill(exception) {
        let vaddr = exception.bad_vaddr().unwrap();
        let (kx, ux) = (switches.enables & status::KX != 0, switches.enables & status::UX != 0);
        let wide = match vaddr >> 62 {
            0 => ux,
            3 => kx,
            _ => true,
        };
        if wide { 0x080 } else { 0x000 }
    } else if exception == Exception::Interrupt && switches.iv {
        // The highest pending line is 5.
        if switches.bev { 0x200 } else { 0x200 + 5 * 32 * u64::from(switches.vs) }
    } else {
        0x180
    };
    base + offset
}

#[test]
fn entry_does_what_the_manual_says_for_every_exception_and_state() {
    for switches in every_combination() {
        for (exception, code) in exceptions() {
            let before = prepared(switches);
            let mut cp0 = before.clone();
            let what = format!("{exception:x?} {switches:?}");
            let vector = cp0.enter(exception, PC, switches.delay_slot);
            assert_eq!(vector, expected_vector(exception, switches), "vector of {what}");

            let mut expected = before.clone();
            expected.status |= status::EXL;
            if !switches.exl {
                expected.epc = PC;
                expected.cause = expected.cause & !cause::BD | u32::from(switches.delay_slot) << 31;
            }
            let unit = if let Exception::CoprocessorUnusable { unit } = exception { u32::from(unit) } else { 0 };
            expected.cause = expected.cause & !0x3000_007c | code << 2 | unit << 28;
            if let Some(vaddr) = exception.bad_vaddr() {
                expected.bad_vaddr = vaddr;
                if !matches!(exception, Exception::AddressError { .. }) {
                    let page_pair = vaddr / 0x2000;
                    expected.context = 0xabcd_ef01_2380_0000 | (page_pair % (1 << 19) * 16);
                    let region = vaddr >> 62;
                    expected.xcontext = 0xabcd_ef00_0000_0000 | region << 31 | (page_pair % (1 << 27) * 16);
                    expected.entry_hi = region << 62 | (page_pair % (1 << 27) * 0x2000) | 0xa5;
                }
            }
            if exception == Exception::MachineCheck {
                expected.status |= status::TS;
            }
            assert_eq!(cp0, expected, "{what}");
        }
    }
}

#[test]
fn a_nested_exception_keeps_the_first_return_address() {
    let mut cp0 = Cp0::new(CpuConfig::guest(), 0);
    cp0.status = 0;
    cp0.enter(Exception::Syscall, 0x1000, true);
    let refill = Exception::TlbRefill { vaddr: 0xffff_ffff_c000_0000, access: AccessKind::Store };
    assert_eq!(cp0.enter(refill, 0x2000, false), 0xffff_ffff_8000_0180);
    assert_eq!((cp0.epc, cp0.cause & cause::BD), (0x1000, cause::BD));
    assert_eq!(cp0.bad_vaddr, 0xffff_ffff_c000_0000);
    assert_eq!(cp0.eret(), 0x1000);
    assert_eq!(cp0.status & status::EXL, 0);
}

#[test]
fn each_interrupt_line_has_its_vector() {
    for (line, spacing, vector) in [(7, 1, 0x2e0), (0, 1, 0x200), (1, 2, 0x240), (7, 16, 0x1000), (3, 0, 0x200)] {
        let mut cp0 = Cp0::new(CpuConfig::guest(), 0);
        cp0.write(12, 0, 0xff01, NOW);
        cp0.write(12, 1, spacing << 5, NOW);
        cp0.write(13, 0, u64::from(cause::IV) | 1 << (8 + line), NOW);
        cp0.set_lines(1 << line);
        assert_eq!(cp0.enter(Exception::Interrupt, 0, false), 0xffff_ffff_8000_0000 + vector, "line {line}");
    }
}

#[test]
fn a_masked_line_does_not_choose_the_vector() {
    let mut cp0 = Cp0::new(CpuConfig::guest(), 0);
    cp0.write(12, 0, 0x0401, NOW);
    cp0.write(12, 1, 1 << 5, NOW);
    cp0.write(13, 0, u64::from(cause::IV), NOW);
    cp0.set_lines(0xfc);
    assert_eq!(cp0.enter(Exception::Interrupt, 0, false), 0xffff_ffff_8000_0240);
}

#[test]
fn a_vector_offset_does_not_carry_out_of_the_segment() {
    let mut cp0 = Cp0::new(CpuConfig::guest(), 0);
    cp0.write(12, 0, 0x8001, NOW);
    cp0.write(12, 1, 31 << 5, NOW);
    cp0.write(13, 0, u64::from(cause::IV), NOW);
    cp0.write(15, 1, 0xbfff_f000, NOW);
    cp0.set_lines(0x80);
    let offset = 0x200 + 7 * 31 * 32;
    assert_eq!(cp0.enter(Exception::Interrupt, 0, false), 0xffff_ffff_8000_0000 + offset - 0x1000);
}

#[test]
fn the_error_level_returns_first() {
    let mut cp0 = Cp0::new(CpuConfig::guest(), 0);
    cp0.status = status::ERL | status::EXL;
    (cp0.epc, cp0.error_epc) = (0x1000, 0x2000);
    assert_eq!((cp0.eret(), cp0.status), (0x2000, status::EXL));
    assert_eq!((cp0.eret(), cp0.status), (0x1000, 0));
}

#[test]
fn each_reset_starts_at_the_boot_vector_and_remembers_where_it_was() {
    for (reset, flag) in [(Reset::Cold, 0), (Reset::Soft, status::SR), (Reset::Nmi, status::NMI)] {
        let mut cp0 = prepared(every_combination()[0]);
        cp0.kscratch[0] = 77;
        cp0.status |= status::TS;
        let before = cp0.clone();
        assert_eq!(cp0.reset(reset, PC, Cycles(500)), 0xffff_ffff_bfc0_0000);
        assert_eq!(cp0.error_epc, PC);
        let levels = status::BEV | status::ERL | status::SR | status::NMI | status::TS;
        assert_eq!(cp0.status & levels, status::BEV | status::ERL | flag, "{reset:?}");
        if reset == Reset::Cold {
            let mut fresh = Cp0::new(CpuConfig::hardware(), 5);
            fresh.error_epc = PC;
            fresh.set_lines(0x24);
            fresh.set_count(0, Cycles(500));
            assert_eq!(cp0, fresh, "as new, with its lines and number");
        } else {
            let expected = Cp0 { status: cp0.status, error_epc: PC, ..before };
            assert_eq!(cp0, expected, "{reset:?} leaves the other registers");
        }
    }
}

#[test]
fn ptebase_survives_a_refill() {
    let mut cp0 = Cp0::new(CpuConfig::guest(), 0);
    cp0.write(register::CONTEXT.0, register::CONTEXT.1, u64::MAX, NOW);
    cp0.write(register::XCONTEXT.0, register::XCONTEXT.1, u64::MAX, NOW);
    cp0.enter(Exception::TlbRefill { vaddr: 0, access: AccessKind::Load }, 0, false);
    assert_eq!((cp0.context, cp0.xcontext), (!0 << 23, !0 << 33));
}
