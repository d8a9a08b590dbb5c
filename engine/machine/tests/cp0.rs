//! CP0 registers: what they are at reset, what can be written, what reading them shows.

use machine::cp0::{Effect, Mode, REGISTERS, Register, Reset, page_grain, page_mask, register, status};
use machine::{Asid, Cp0, CpuConfig, Cycles};

const NOW: Cycles = Cycles(1000);

fn guest() -> Cp0 {
    Cp0::new(CpuConfig::guest(), 3)
}

fn hardware() -> Cp0 {
    Cp0::new(CpuConfig::hardware(), 3)
}

fn read(cp0: &Cp0, (number, select): (u8, u8)) -> u64 {
    cp0.read(number, select, NOW)
}

fn write(cp0: &mut Cp0, (number, select): (u8, u8), value: u64) -> Effect {
    cp0.write(number, select, value, NOW)
}

#[test]
fn a_guest_sees_the_configuration_that_its_kernel_wants() {
    let cp0 = guest();
    let rows = [
        (register::PRID, 0x0001_0000),
        // M, MIPS64, Release 2, standard TLB, K0 = 3
        (register::CONFIG, 0xffff_ffff_8000_4483),
        // M; 64 entries; I: 64 sets of 64 bytes, 8 ways; D: 32 sets of 128 bytes, 8 ways; FP; no WR, PC, EP
        (register::CONFIG1, 0xffff_ffff_fe2f_fb81),
        (register::CONFIG2, 0xffff_ffff_8000_0000),
        // M, ULRI, RXI, VInt and nothing else
        (register::CONFIG3, 0xffff_ffff_8000_3020),
        // IE = 2, KScrExist = 0xfc
        (register::CONFIG4, 0x40fc_0000),
        (register::CONFIG5, 0),
        ((16, 6), 0),
        ((16, 7), 0),
        (register::CMGCR_BASE, 0),
        (register::SRS_CTL, 0),
        (register::INT_CTL, 0xffff_ffff_fc00_0000), // IPTI and IPPCI = 7
        (register::EBASE, 0xffff_ffff_8000_0003),
        (register::STATUS, 0x0040_0004), // BEV and ERL
        (register::RANDOM, 63),
        (register::WIRED, 0),
        (register::PAGE_GRAIN, 0),
        (register::CAUSE, 0),
    ];
    for (place, value) in rows {
        assert_eq!(read(&cp0, place), value, "{place:?} {:#x}", read(&cp0, place));
    }
}

#[test]
fn hardware_adds_segmentation_control_supervisor_mode_and_large_physical_addresses() {
    let cp0 = hardware();
    assert_eq!(read(&cp0, register::CONFIG3), 0xffff_ffff_8200_30a0);
    assert_eq!(read(&cp0, register::CONFIG4), 0xffff_ffff_c0fc_0000);
    let with_manager = CpuConfig { coherence_manager: true, ..CpuConfig::guest() };
    let cp0 = Cp0::new(with_manager, 0);
    assert_eq!(read(&cp0, register::CONFIG3), 0xffff_ffff_a000_3020);
    assert_eq!(read(&cp0, register::CMGCR_BASE), 0x01fb_f800);
}

#[test]
fn a_cache_way_is_a_page() {
    let config1 = read(&guest(), register::CONFIG1);
    for (sets, line, ways, bytes) in [(22, 19, 16, 64), (13, 10, 7, 128)] {
        let field = |shift: u32| (config1 >> shift & 7) as u32;
        // The same arithmetic as software's: the sets field wraps so that 7 means 32.
        let sets = 32u64 << ((field(sets) + 1) & 7);
        let line_bytes = 2u64 << field(line);
        assert_eq!((line_bytes, sets * line_bytes, field(ways) + 1), (bytes, 4096, 8));
    }
    assert_eq!(guest().config.synci_step_bytes(), 64);
}

#[test]
fn only_writable_bits_change() {
    const ONES: u64 = u64::MAX;
    let rows = [
        // register, all ones read back on the guest's CPU, and on the hardware's
        (register::INDEX, 0x3f, 0x3f),
        (register::RANDOM, 63, 63),
        (register::ENTRY_LO0, 0x3fff_ffff, 0x3fff_ffff), // RI, XI and PFN above 36 bits need PageGrain
        (register::CONTEXT, 0xffff_ffff_ff80_0000, 0xffff_ffff_ff80_0000),
        (register::USER_LOCAL, ONES, ONES),
        (register::PAGE_MASK, 0x1fff_e000, 0x1fff_e000),
        (register::PAGE_GRAIN, 0xffff_ffff_c800_0000, 0xffff_ffff_e800_0000), // ELPA
        (register::SEG_CTL0, 0, 0x3800_0000_fe7f_fe7f),
        (register::SEG_CTL1, 0, 0x3800_0000_fe7f_fe7f),
        (register::SEG_CTL2, 0, 0xff00_0000_fc7f_fc7f),
        (register::WIRED, 0x3f, 0x3f),
        (register::HWRENA, 0x2000_000f, 0x2000_000f),
        (register::BAD_VADDR, 0, 0),
        (register::ENTRY_HI, 0xc000_00ff_ffff_e4ff, 0xc000_00ff_ffff_e4ff), // SEGBITS is probed by this
        (register::COMPARE, ONES, ONES),
        (register::STATUS, 0x34c0_ffb7, 0x34c0_ffe7), // KSU = 3 is refused; SX only with supervisor mode
        (register::INT_CTL, 0xffff_ffff_fc00_03e0, 0xffff_ffff_fc00_03e0),
        (register::CAUSE, 0x0880_0300, 0x0880_0300),
        (register::EPC, ONES, ONES),
        (register::PRID, 0x1_0000, 0x1_0000),
        (register::EBASE, 0xffff_ffff_bfff_f003, 0xffff_ffff_bfff_f003), // WG reads 0, CPUNum stays
        (register::CONFIG, 0xffff_ffff_8000_4487, 0xffff_ffff_8000_4487),
        (register::CONFIG5, 0, 0x4000_0000),
        (register::LL_ADDR, 0, 0),
        (register::XCONTEXT, 0xffff_fffe_0000_0000, 0xffff_fffe_0000_0000),
        (register::ERROR_EPC, ONES, ONES),
        (register::KSCRATCH1, ONES, ONES),
        (register::KSCRATCH6, ONES, ONES),
        ((31, 0), 0, 0), // DESAVE: no EJTAG
        ((18, 0), 0, 0), // WatchLo
        ((25, 0), 0, 0), // PerfCnt
        ((5, 5), 0, 0),  // PWBase
        ((8, 1), 0, 0),  // BadInstr
        ((255, 255), 0, 0),
    ];
    for (place, on_guest, on_hardware) in rows {
        for (mut cp0, expected) in [(guest(), on_guest), (hardware(), on_hardware)] {
            write(&mut cp0, place, ONES);
            assert_eq!(read(&cp0, place), expected, "{place:?} {:#x}", read(&cp0, place));
        }
    }
}

#[test]
fn every_row_reads_its_reset_value_and_keeps_what_is_not_writable() {
    for config in [CpuConfig::guest(), CpuConfig::hardware()] {
        for row in REGISTERS {
            let mut cp0 = Cp0::new(config.clone(), 0);
            let place = (row.number, row.select);
            let sign =
                if row.width_bits == 32 { |value: u64| i64::from(value as i32) as u64 } else { |value| value };
            if place != register::COUNT {
                assert_eq!(read(&cp0, place), sign((row.reset)(&config)), "{}", row.name);
                let before = read(&cp0, place);
                write(&mut cp0, place, !before);
                let changed = before ^ read(&cp0, place);
                assert_eq!(changed & !sign((row.writable)(&config)), 0, "{}", row.name);
            }
        }
    }
}

#[test]
fn the_table_is_ordered_and_finds_names() {
    let places: Vec<_> = REGISTERS.iter().map(|row| (row.number, row.select)).collect();
    assert!(places.is_sorted() && places.windows(2).all(|pair| pair[0] != pair[1]));
    assert_eq!(Register::find(12, 0).map(|row| row.name), Some("Status"));
    assert_eq!(Register::find(31, 7).map(|row| row.name), Some("KScratch6"));
    assert!(Register::find(31, 0).is_none());
}

#[test]
fn mfc0_and_mtc0_move_the_inhibit_bits_of_entrylo_to_the_word() {
    let mut cp0 = guest();
    write(&mut cp0, register::PAGE_GRAIN, u64::from(page_grain::RIE | page_grain::XIE));
    for (number, select) in [register::ENTRY_LO0, register::ENTRY_LO1] {
        cp0.write_word(number, select, 0xffff_ffff_8123_4567, NOW);
        assert_eq!(cp0.read(number, select, NOW), 0x8000_0000_0123_4567);
        cp0.write(number, select, 0x4000_0000_3fff_ffff, NOW);
        assert_eq!(cp0.read_word(number, select, NOW), 0x7fff_ffff);
    }
}

#[test]
fn mtc0_sign_extends_into_a_64_bit_register() {
    let mut cp0 = guest();
    let rows = [
        (register::EPC, 0x1_8000_0180, 0xffff_ffff_8000_0180),
        (register::ENTRY_HI, 0xc000_2001, 0xc000_00ff_c000_2001),
        (register::ENTRY_HI, 0x4000_2001, 0x4000_2001),
        (register::STATUS, 0x1_0000_0080, 0x80),
    ];
    for ((number, select), value, stored) in rows {
        cp0.write_word(number, select, value, NOW);
        assert_eq!(cp0.read(number, select, NOW), stored);
        assert_eq!(cp0.read_word(number, select, NOW), i64::from(stored as i32) as u64);
    }
}

#[test]
fn entrylo_takes_what_pagegrain_allows() {
    for (grain, pfn_and_inhibits) in [
        (0, 0x3fff_ffff),
        (page_grain::RIE, 0x8000_0000_3fff_ffff),
        (page_grain::XIE, 0x4000_0000_3fff_ffff),
        (page_grain::ELPA, 0x3_ffff_ffff),
    ] {
        let mut cp0 = hardware();
        write(&mut cp0, register::PAGE_GRAIN, u64::from(grain));
        write(&mut cp0, register::ENTRY_LO1, u64::MAX);
        assert_eq!(read(&cp0, register::ENTRY_LO1), pfn_and_inhibits, "{grain:#x}");
    }
}

#[test]
fn a_page_mask_is_a_size_or_the_smallest() {
    let legal: Vec<u32> = (0..=8).map(|pairs| ((1 << (2 * pairs)) - 1) << 13).collect();
    let mut cp0 = guest();
    for ones in 0..=0xffffu32 {
        let value = ones << 13;
        let expected = if legal.contains(&value) { value } else { 0 };
        assert_eq!(page_mask::legal(value), expected);
        write(&mut cp0, register::PAGE_MASK, u64::from(value | 0xe000_1fff));
        assert_eq!(cp0.page_mask, expected, "{value:#x}");
    }
}

#[test]
fn mode_follows_ksu_unless_a_level_is_raised() {
    let (um, sm) = (2 << status::KSU_SHIFT, 1 << status::KSU_SHIFT);
    let rows = [
        (um | status::EXL, Mode::Kernel),
        (um | status::ERL, Mode::Kernel),
        (sm | status::EXL, Mode::Kernel),
        (um, Mode::User),
        (sm, Mode::Supervisor),
        (0, Mode::Kernel),
    ];
    for (value, mode) in rows {
        let mut cp0 = hardware();
        write(&mut cp0, register::STATUS, u64::from(value));
        assert_eq!(cp0.mode(), mode, "{value:#x}");
    }
    let mut virtual_cpu = guest();
    write(&mut virtual_cpu, register::STATUS, u64::from(sm));
    assert_eq!(virtual_cpu.mode(), Mode::Kernel, "no supervisor mode there");
}

#[test]
fn what_each_mode_may_do() {
    let um = 2 << status::KSU_SHIFT;
    let rows = [
        // Status, 64-bit operations, CP0, CP1
        (um, false, false, false),
        (um | status::PX, true, false, false),
        (um | status::UX, true, false, false),
        (um | status::CU0, false, true, false),
        (um | status::CU1, false, false, true),
        (um | status::EXL, true, true, false),
        (1 << status::KSU_SHIFT, true, false, false),
        (0, true, true, false),
    ];
    for (value, operations, cp0_usable, cp1_usable) in rows {
        let mut cp0 = hardware();
        write(&mut cp0, register::STATUS, u64::from(value));
        assert_eq!(cp0.operations_64(), operations, "{value:#x}");
        assert_eq!(cp0.coprocessor_usable(0), cp0_usable, "{value:#x}");
        assert_eq!(cp0.coprocessor_usable(1), cp1_usable, "{value:#x}");
    }
    for (enable, mode) in [(status::KX, Mode::Kernel), (status::SX, Mode::Supervisor), (status::UX, Mode::User)] {
        let mut cp0 = hardware();
        cp0.status = enable;
        for other in [Mode::Kernel, Mode::Supervisor, Mode::User] {
            assert_eq!(cp0.address_bits_64(other), other == mode);
        }
    }
}

#[test]
fn reset_flags_of_status_can_only_be_cleared() {
    let mut cp0 = guest();
    cp0.reset(Reset::Nmi, 0, NOW);
    write(&mut cp0, register::STATUS, u64::from(status::NMI | status::SR | status::TS));
    assert_eq!(cp0.status, status::NMI);
    write(&mut cp0, register::STATUS, 0);
    write(&mut cp0, register::STATUS, u64::from(status::NMI));
    assert_eq!(cp0.status, 0);
}

#[test]
fn a_user_reads_only_the_hardware_registers_that_hwrena_opens() {
    let now = Cycles(2 * 0xffff_ffff + 1);
    let values = [(0, 3), (1, 64), (2, u64::MAX), (3, 2), (29, 0x7fff_1234_5678)];
    for number in 0..=255 {
        let value = values.iter().find(|row| row.0 == number).map(|row| row.1);
        let mut cp0 = guest();
        cp0.user_local = 0x7fff_1234_5678;
        assert_eq!(cp0.read_hardware(number, now), value, "kernel reads {number}");
        cp0.status = 2 << status::KSU_SHIFT;
        assert_eq!(cp0.read_hardware(number, now), None, "user reads {number}");
        cp0.hwrena = if number < 32 { 1 << number } else { u32::MAX };
        assert_eq!(cp0.read_hardware(number, now), value, "user reads {number} with HWREna");
        cp0.hwrena = if number < 32 { !(1 << number) } else { 0 };
        assert_eq!(cp0.read_hardware(number, now), None, "user reads {number} with the other bits");
        cp0.status |= status::CU0;
        assert_eq!(cp0.read_hardware(number, now), value, "user with CU0 reads {number}");
    }
}

#[test]
fn random_stays_between_wired_and_the_end_and_repeats() {
    for (entries, wired) in [(64, 0), (64, 63), (64, 5), (48, 47), (1, 0), (3, 1)] {
        let config = CpuConfig { tlb_entries: entries, ..CpuConfig::guest() };
        let mut cp0 = Cp0::new(config, 0);
        write(&mut cp0, register::WIRED, wired);
        assert_eq!(read(&cp0, register::RANDOM), u64::from(entries) - 1, "its upper bound after a write of Wired");
        let mut twin = cp0.clone();
        let mut hits = vec![0; usize::from(entries)];
        for _ in 0..20_000 {
            let shown = read(&cp0, register::RANDOM);
            let index = cp0.random();
            assert_eq!((u64::from(index), index), (shown, twin.random()));
            hits[index as usize] += 1;
        }
        let (fixed, free) = hits.split_at(wired as usize);
        assert!(fixed.iter().all(|count| *count == 0), "wired entries are left alone");
        let fair = 20_000 / free.len();
        assert!(free.iter().all(|count| *count > fair / 2 && *count < fair * 2), "{hits:?}");
    }
}

#[test]
fn wired_stays_below_the_number_of_entries() {
    let config = CpuConfig { tlb_entries: 48, ..CpuConfig::guest() };
    for (value, wired) in [(47, 47), (48, 0), (63, 15), (64, 0)] {
        let mut cp0 = Cp0::new(config.clone(), 0);
        write(&mut cp0, register::WIRED, value);
        assert_eq!(u64::from(cp0.wired), wired);
    }
}

#[test]
fn a_write_tells_what_it_outdates() {
    let none = Effect::default();
    let context = Effect { context: true, ..none };
    let interrupts = Effect { interrupts: true, ..none };
    let rows = [
        (register::ENTRY_HI, 0x2000, none), // VPN2 is only a value
        (register::ENTRY_HI, 0x2001, context),
        (register::ENTRY_LO0, 0x3f, none),
        (register::STATUS, u64::from(status::BEV | status::ERL), none), // as it was
        (register::STATUS, u64::from(status::ERL | status::BEV | status::UX), context),
        (register::STATUS, u64::from(status::ERL | status::BEV | status::IE), interrupts),
        (register::STATUS, 0, Effect { context: true, interrupts: true, timer: false }),
        (register::STATUS, u64::from(status::ERL | status::CU1), context),
        (register::CAUSE, 0x100, interrupts),
        (register::CAUSE, 1 << 27, Effect { timer: true, ..none }),
        (register::CAUSE, 1 << 23, none),
        (register::COMPARE, 0x1000, Effect { timer: true, ..none }),
        (register::COUNT, 0x1000, Effect { timer: true, ..none }),
        (register::PAGE_GRAIN, 1 << 31, context),
        (register::SEG_CTL1, 0, context),
        (register::CONFIG, 2, context),
        (register::HWRENA, 0xf, context),
        (register::EPC, 0xf, none),
        (register::EBASE, 0x1000, none),
    ];
    for (place, value, effect) in rows {
        assert_eq!(write(&mut hardware(), place, value), effect, "{place:?} = {value:#x}");
    }
}

#[test]
fn asid_and_cpu_number_are_fields() {
    let mut cp0 = guest();
    write(&mut cp0, register::ENTRY_HI, 0xc000_0000_0000_01a5);
    assert_eq!((cp0.asid(), cp0.cpu_number()), (Asid(0xa5), 3));
}

#[test]
#[should_panic(expected = "a TLB has 1 to 64 entries")]
fn a_cpu_without_tlb_entries_cannot_exist() {
    Cp0::new(CpuConfig { tlb_entries: 0, ..CpuConfig::guest() }, 0);
}
