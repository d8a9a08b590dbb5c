//! Segments against the manual's tables, written down again as a list of decisions.

mod cp0_random;

use cp0_random::Random;
use machine::cp0::{Mode, config5, register, status};
use machine::segments::{AddressError, Segment, classify, monitor_segments, tlb_address};
use machine::{Cp0, CpuConfig, Cycles};

const MODES: [Mode; 3] = [Mode::Kernel, Mode::Supervisor, Mode::User];
const UNCACHED: bool = false;
const CACHED: bool = true;

fn set_status(cp0: &mut Cp0, mode: Mode, enables: u32, erl: bool) {
    let ksu = match mode {
        Mode::Kernel => 0,
        Mode::Supervisor => 1,
        Mode::User => 2,
    };
    cp0.status = ksu << status::KSU_SHIFT | enables | if erl { status::ERL } else { 0 };
}

fn unmapped(phys: u64, cacheable: bool) -> Result<Segment, AddressError> {
    Ok(Segment::Unmapped { phys, cacheable })
}

fn allowed(condition: bool, then: Result<Segment, AddressError>) -> Result<Segment, AddressError> {
    if condition { then } else { Err(AddressError) }
}

/// "Virtual Address Spaces" of the manual, from the top down, for SEGBITS = 40 and PABITS = 36.
fn by_the_manual(vaddr: u64, mode: Mode, status_value: u32, k0: u32) -> Result<Segment, AddressError> {
    let has = |bit: u32| status_value & bit != 0;
    let kernel = mode == Mode::Kernel;
    let not_user = mode != Mode::User;
    let mapped = Ok(Segment::Mapped);
    match vaddr {
        0xffff_ffff_e000_0000.. => allowed(kernel, mapped),
        0xffff_ffff_c000_0000.. => allowed(not_user, mapped),
        0xffff_ffff_a000_0000.. => allowed(kernel, unmapped(vaddr - 0xffff_ffff_a000_0000, UNCACHED)),
        0xffff_ffff_8000_0000.. => allowed(kernel, unmapped(vaddr - 0xffff_ffff_8000_0000, k0 != 2 && k0 != 7)),
        0xc000_00ff_8000_0000.. => Err(AddressError),
        0xc000_0000_0000_0000.. => allowed(kernel && has(status::KX), mapped),
        0x8000_0000_0000_0000.. => {
            // Eight windows of 2^59 bytes, of which the first 2^36 are there.
            let window = (vaddr - 0x8000_0000_0000_0000) / 0x0800_0000_0000_0000;
            let phys = vaddr % 0x0800_0000_0000_0000;
            let legal = kernel && has(status::KX) && phys < 0x10_0000_0000;
            allowed(legal, unmapped(phys, window != 2 && window != 7))
        }
        0x4000_0100_0000_0000.. => Err(AddressError),
        0x4000_0000_0000_0000.. => allowed(not_user && has(status::SX), mapped),
        0x0000_0100_0000_0000.. => Err(AddressError),
        0x0000_0000_8000_0000.. => allowed(has(status::UX), mapped),
        _ if has(status::ERL) => unmapped(vaddr, UNCACHED),
        _ => mapped,
    }
}

/// Both sides of every border there is, and of every power of two.
fn edge_addresses() -> Vec<u64> {
    let mut borders: Vec<u64> = (0..64).map(|bit| 1 << bit).collect();
    for region in 0..4u64 {
        for bit in 0..62 {
            borders.push(region << 62 | 1 << bit);
            borders.push((region << 62).wrapping_sub(1 << bit));
        }
    }
    for window in 0..8u64 {
        for offset in [0, 0x10_0000_0000, 0x100_0000_0000] {
            borders.push(0x8000_0000_0000_0000 + (window << 59) + offset);
        }
    }
    borders.extend([0xc000_00ff_8000_0000, 0xffff_ffff_a000_0000, 0xffff_ffff_c000_0000, 0xffff_ffff_e000_0000]);
    borders.iter().flat_map(|border| [border.wrapping_sub(1), *border, border.wrapping_add(1)]).collect()
}

fn random_address(random: &mut Random) -> u64 {
    let bits = random.bits();
    match random.below(4) {
        0 => bits,
        1 => i64::from(bits as i32) as u64,
        2 => bits & 0xf800_00ff_ffff_ffff,
        _ => bits & 0xf800_000f_ffff_ffff,
    }
}

fn every_status() -> Vec<(Mode, u32, bool)> {
    let mut all = Vec::new();
    for mode in MODES {
        for enables in 0..8 {
            all.push((mode, enables << 5, false));
            if mode == Mode::Kernel {
                all.push((mode, enables << 5, true));
            }
        }
    }
    all
}

fn compare_with_the_manual(config: CpuConfig) {
    let mut random = Random::new(1);
    let mut addresses = edge_addresses();
    addresses.extend((0..20_000).map(|_| random_address(&mut random)));
    let mut cp0 = Cp0::new(config, 0);
    for (mode, enables, erl) in every_status() {
        for k0 in [2, 3, 5, 7] {
            set_status(&mut cp0, mode, enables, erl);
            cp0.config0 = cp0.config0 & !7 | k0;
            for vaddr in &addresses {
                let expected = by_the_manual(*vaddr, mode, cp0.status, k0);
                let found = classify(*vaddr, mode, &cp0);
                assert_eq!(found, expected, "{vaddr:#x} {mode:?} status {:#x} k0 {k0}", cp0.status);
            }
        }
    }
}

#[test]
fn the_classic_segments_are_those_of_the_manual() {
    compare_with_the_manual(CpuConfig { supervisor_mode: true, ..CpuConfig::guest() });
}

#[test]
fn segmentation_control_resets_to_the_classic_segments() {
    // PageGrain.ELPA is clear at reset, so 36 bits are physical although PABITS is 40.
    compare_with_the_manual(CpuConfig::hardware());
}

#[test]
fn large_physical_addresses_need_elpa() {
    let mut cp0 = Cp0::new(CpuConfig::hardware(), 0);
    cp0.status = status::KX;
    assert_eq!(classify(0x9800_0010_0000_0000, Mode::Kernel, &cp0), Err(AddressError));
    cp0.write(5, 1, 1 << 29, Cycles(0));
    assert_eq!(classify(0x9800_0010_0000_0000, Mode::Kernel, &cp0), unmapped(0x10_0000_0000, CACHED));
    assert_eq!(classify(0x9800_00ff_ffff_ffff, Mode::Kernel, &cp0), unmapped(0xff_ffff_ffff, CACHED));
    assert_eq!(classify(0x9800_0100_0000_0000, Mode::Kernel, &cp0), Err(AddressError));
}

/// What each access mode does, a letter for kernel, supervisor, user: Mapped, Unmapped, Error.
const ACCESS_MODES: [(u64, &str); 8] = [
    (6, "UEE"), // reserved: as UK
    (0, "UEE"), // UK
    (1, "MEE"), // MK
    (2, "MME"), // MSK
    (3, "MMM"), // MUSK
    (4, "UMM"), // MUSUK
    (5, "UUE"), // USK
    (7, "UUU"), // UUSK
];

fn expected_of(letters: &str, mode: Mode, when_unmapped: Segment) -> Result<Segment, AddressError> {
    let letter = letters.as_bytes()[mode as usize];
    match letter {
        b'M' => Ok(Segment::Mapped),
        b'U' => Ok(when_unmapped),
        _ => Err(AddressError),
    }
}

#[test]
fn an_access_mode_governs_its_segment_and_no_other() {
    // SegCtl register, lowest bit of the CFG, first address, size
    let segments: [(usize, u32, u64, u64); 6] = [
        (2, 16, 0, 0x4000_0000),
        (2, 0, 0x4000_0000, 0x4000_0000),
        (1, 16, 0xffff_ffff_8000_0000, 0x2000_0000),
        (1, 0, 0xffff_ffff_a000_0000, 0x2000_0000),
        (0, 16, 0xffff_ffff_c000_0000, 0x2000_0000),
        (0, 0, 0xffff_ffff_e000_0000, 0x2000_0000),
    ];
    for (register, lowest, start, size) in segments {
        for (access_mode, letters) in ACCESS_MODES {
            for (pa, cca, eu, erl) in
                [(0u64, 3u64, 0u64, false), (0x7e, 2, 1, false), (0x7e, 7, 1, true), (4, 5, 0, true)]
            {
                let mut cp0 = Cp0::new(CpuConfig::hardware(), 0);
                cp0.config5 = config5::K;
                let classic = cp0.clone();
                let cfg = pa << 9 | access_mode << 4 | eu << 3 | cca;
                cp0.seg_ctl[register] = cp0.seg_ctl[register] & !(0xffff << lowest) | cfg << lowest;
                for mode in MODES {
                    if erl && mode != Mode::Kernel {
                        continue;
                    }
                    set_status(&mut cp0, mode, 0, erl);
                    for offset in [0, 0x1234, size - 1] {
                        let phys = pa << 29 | offset;
                        let cacheable = cca != 2 && cca != 7;
                        let expected = if erl && eu == 1 {
                            unmapped(phys, UNCACHED)
                        } else {
                            expected_of(letters, mode, Segment::Unmapped { phys, cacheable })
                        };
                        let found = classify(start + offset, mode, &cp0);
                        assert_eq!(found, expected, "{:#x} AM {access_mode} {mode:?}", start + offset);
                    }
                    let mut others = classic.clone();
                    others.status = cp0.status;
                    for (_, _, other, _) in segments.into_iter().filter(|segment| segment.2 != start) {
                        assert_eq!(classify(other, mode, &cp0), classify(other, mode, &others), "{other:#x}");
                    }
                }
            }
        }
    }
}

#[test]
fn an_extended_access_mode_needs_the_enable_of_its_least_mode() {
    for (access_mode, letters) in ACCESS_MODES {
        let least = letters.bytes().rposition(|letter| letter != b'E').unwrap();
        let needed = [status::KX, status::SX, status::UX][least];
        let mut cp0 = Cp0::new(CpuConfig::hardware(), 0);
        cp0.seg_ctl[0] = cp0.seg_ctl[0] & !(7 << 59) | access_mode << 59;
        cp0.seg_ctl[1] = cp0.seg_ctl[1] & !(7 << 59) | access_mode << 59;
        cp0.seg_ctl[2] |= 0x08 << 56; // region 3 only
        for (mode, enables, erl) in every_status() {
            set_status(&mut cp0, mode, enables, erl);
            let expect = |when_unmapped| {
                if enables & needed == 0 { Err(AddressError) } else { expected_of(letters, mode, when_unmapped) }
            };
            let what = format!("AM {access_mode} {mode:?} enables {enables:#x}");
            let xkphys = Segment::Unmapped { phys: 0x1_2345_6789, cacheable: CACHED };
            assert_eq!(classify(0x9800_0001_2345_6789, mode, &cp0), expect(xkphys), "{what}");
            let xkseg = Segment::Unmapped { phys: 0x1_2345_6789, cacheable: UNCACHED };
            assert_eq!(classify(0xc000_0001_2345_6789, mode, &cp0), expect(xkseg), "{what}");
            let region_2 = by_the_manual(0x9000_0001_2345_6789, mode, cp0.status, 3);
            assert_eq!(classify(0x9000_0001_2345_6789, mode, &cp0), region_2, "{what}: region without XR");
        }
    }
}

#[test]
fn under_the_monitor_every_legal_address_of_a_guest_kernel_is_mapped() {
    let mut random = Random::new(2);
    let mut addresses = edge_addresses();
    addresses.extend((0..50_000).map(|_| random_address(&mut random)));
    let mut hardware = Cp0::new(CpuConfig::hardware(), 0);
    hardware.seg_ctl = monitor_segments();
    let all = status::KX | status::SX | status::UX;
    for vaddr in addresses {
        let as_guest = by_the_manual(vaddr, Mode::Kernel, all, 3);
        set_status(&mut hardware, Mode::Supervisor, all, false);
        let expected = as_guest.map(|_| Segment::Mapped);
        assert_eq!(classify(vaddr, Mode::Supervisor, &hardware), expected, "{vaddr:#x} guest kernel");
        set_status(&mut hardware, Mode::User, all, false);
        let user = by_the_manual(vaddr, Mode::User, all, 3);
        assert_eq!(classify(vaddr, Mode::User, &hardware), user, "{vaddr:#x} guest user");
    }
}

#[test]
fn the_monitors_segments_are_writable_values() {
    let mut cp0 = Cp0::new(CpuConfig::hardware(), 0);
    for (index, value) in monitor_segments().into_iter().enumerate() {
        let (number, select) = [register::SEG_CTL0, register::SEG_CTL1, register::SEG_CTL2][index];
        assert!(cp0.write(number, select, value, Cycles(0)).context);
        assert_eq!(cp0.read(number, select, Cycles(0)), value);
    }
    assert_eq!(cp0.seg_ctl, monitor_segments());
}

#[test]
fn segctl_is_absent_without_segmentation_control() {
    let mut cp0 = Cp0::new(CpuConfig::guest(), 0);
    for (number, select) in [register::SEG_CTL0, register::SEG_CTL1, register::SEG_CTL2] {
        assert!(!cp0.write(number, select, u64::MAX, Cycles(0)).context);
        assert_eq!(cp0.read(number, select, Cycles(0)), 0);
    }
}

#[test]
fn a_guest_cpu_without_supervisor_mode_has_no_xsseg() {
    let mut cp0 = Cp0::new(CpuConfig::guest(), 0);
    cp0.write(12, 0, u64::from(status::KX | status::SX | status::UX), Cycles(0));
    assert_eq!(cp0.read(12, 0, Cycles(0)), u64::from(status::KX | status::UX));
    assert_eq!(classify(0x4000_0000_0000_0000, Mode::Kernel, &cp0), Err(AddressError));
    assert_eq!(classify(0xffff_ffff_c000_0000, Mode::Kernel, &cp0), Ok(Segment::Mapped));
}

#[test]
fn the_eight_names_of_a_mapped_xkphys_page_are_one() {
    let rows = [
        (0x9800_0001_2345_6789, 0x8000_0001_2345_6789),
        (0xb800_0000_0000_0000, 0x8000_0000_0000_0000),
        (0xffff_ffff_ffff_ffff, 0xffff_ffff_ffff_ffff), // only XKPHYS has cache attributes in its addresses
        (0xc000_0000_0000_0000, 0xc000_0000_0000_0000),
        (0x7800_0000_0000_0000, 0x7800_0000_0000_0000),
    ];
    for (vaddr, folded) in rows {
        assert_eq!(tlb_address(vaddr), folded, "{vaddr:#x}");
    }
}
