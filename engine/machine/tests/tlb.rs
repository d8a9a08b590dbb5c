//! The TLB against the manual's definition of a match, searched one entry after the other.

mod cp0_random;

use cp0_random::Random;
use machine::cp0::{page_grain, register};
use machine::tlb::entry_lo;
use machine::{AccessKind, Asid, Cp0, CpuConfig, Cycles, Exception, Tlb, TlbEntry};

const NOW: Cycles = Cycles(0);
/// PageMask of 4 KiB, 16 KiB, ... 256 MiB pages.
const PAGE_MASKS: [u32; 9] =
    [0, 0x6000, 0x1_e000, 0x7_e000, 0x1f_e000, 0x7f_e000, 0x1ff_e000, 0x7ff_e000, 0x1fff_e000];

fn entry(vpn2: u64, asid: u8, global: bool, page_mask: u32) -> TlbEntry {
    TlbEntry { vpn2, asid: Asid(asid), global, page_mask, lo: [0; 2], hidden: false }
}

/// The manual in numbers that cannot overflow: a pair covers the addresses of its region from the
/// address that its page number says, and is twice the page size long.
fn naive_range(entry: &TlbEntry) -> (u128, u128) {
    let pair_bytes = u128::from(entry.page_mask / 0x2000 + 1) * 8192;
    let region = u128::from(entry.vpn2 >> 62);
    let number = u128::from(entry.vpn2 % (1 << 40)) / pair_bytes;
    let start = region * (1 << 100) + number * pair_bytes;
    (start, start + pair_bytes)
}

fn naive_matches(entry: &TlbEntry, vaddr: u64, asid: Asid) -> bool {
    let (start, end) = naive_range(entry);
    let place = u128::from(vaddr >> 62) * (1 << 100) + u128::from(vaddr % (1 << 40));
    let same_space = entry.global || entry.asid == asid;
    !entry.hidden && same_space && start <= place && place < end
}

fn naive_overlaps(one: &TlbEntry, two: &TlbEntry) -> bool {
    let (one_range, two_range) = (naive_range(one), naive_range(two));
    let meet = one_range.0 < two_range.1 && two_range.0 < one_range.1;
    let same_space = one.global || two.global || one.asid == two.asid;
    meet && same_space && !one.hidden && !two.hidden
}

/// Few enough places that entries of all sizes meet often.
fn random_vaddr(random: &mut Random) -> u64 {
    let region = random.choose(&[0u64, 0, 0, 1, 2, 3]) << 62;
    let high = random.choose(&[0u64, 0x1000_0000, 0x2000_0000, 0xc0_0000_0000, 0xff_ffff_e000, 0x80_0000_0000]);
    let above = random.choose(&[0u64, 0, 0x3fff_ff00_0000_0000, 0x3800_0000_0000_0000]);
    let low_bits = random.choose(&[0u64, 0x3fff, 0xffff, 0xf_ffff, 0x3fff_ffff]);
    let low = random.bits() & low_bits;
    region | above | ((high + low) % (1 << 40))
}

fn random_entry(random: &mut Random) -> TlbEntry {
    let page_mask = random.choose(&PAGE_MASKS);
    let vpn2 = random_vaddr(random) & 0xc000_00ff_ffff_e000 & !u64::from(page_mask);
    TlbEntry {
        vpn2,
        asid: Asid(random.choose(&[0, 1, 2, 0xff])),
        global: random.once_in(4),
        page_mask,
        lo: [random.bits() & !entry_lo::G, random.bits() & !entry_lo::G],
        hidden: random.once_in(8),
    }
}

fn compare_with_naive_model(entries: u8, seed: u64, steps: usize) {
    let mut random = Random::new(seed);
    let mut tlb = Tlb::new(entries);
    let mut model: Vec<TlbEntry> = (0..usize::from(entries)).map(TlbEntry::hidden).collect();
    let (mut hits, mut conflicts) = (0, 0);
    for step in 0..steps {
        let index = random.below(model.len());
        match random.below(8) {
            0 | 1 => {
                let new = random_entry(&mut random);
                let conflict =
                    (0..model.len()).find(|other| *other != index && naive_overlaps(&model[*other], &new));
                let expected = match conflict {
                    Some(other) => Err(other),
                    None => Ok(std::mem::replace(&mut model[index], new)),
                };
                conflicts += usize::from(conflict.is_some());
                assert_eq!(tlb.write(index, new), expected, "step {step}: write {new:x?} at {index}");
            }
            2 => {
                let old = std::mem::replace(&mut model[index], TlbEntry::hidden(index));
                assert_eq!(tlb.invalidate(index), old, "step {step}: invalidate {index}");
            }
            3 => {
                let asid = Asid(random.choose(&[0, 1, 2, 0xff]));
                let expected: Vec<usize> = (0..model.len())
                    .filter(|other| !model[*other].hidden && !model[*other].global && model[*other].asid == asid)
                    .collect();
                assert_eq!(tlb.of_asid(asid).collect::<Vec<_>>(), expected, "step {step}");
            }
            _ => {
                let near = model[index].vpn2 ^ (random.bits() & random.choose(&[0x1fff, 0x3fff, 0x1fff_ffff]));
                let vaddr = if random.once_in(2) { near } else { random_vaddr(&mut random) };
                let asid = Asid(random.choose(&[0, 1, 2, 3, 0xff]));
                let expected = (0..model.len()).find(|other| naive_matches(&model[*other], vaddr, asid));
                hits += usize::from(expected.is_some());
                assert_eq!(tlb.find(vaddr, asid), expected, "step {step}: find {vaddr:#x} in {asid}");
                for (index, entry) in model.iter().enumerate() {
                    assert_eq!(entry.matches(vaddr, asid), expected == Some(index), "step {step}: entry {index}");
                }
            }
        }
        assert_eq!(tlb.get(index), &model[index], "step {step}: entry {index}");
    }
    let has_company = entries > 1;
    assert!(hits > 100 && (conflicts > 100) == has_company, "{hits} hits, {conflicts} conflicts: a weak test");
}

#[test]
fn a_full_size_tlb_agrees_with_a_search_by_definition() {
    for seed in 1..=4 {
        compare_with_naive_model(64, seed, 100_000);
    }
}

#[test]
fn small_and_odd_sizes_agree_with_a_search_by_definition() {
    for (entries, seed) in [(1, 11), (3, 12), (16, 13), (63, 14)] {
        compare_with_naive_model(entries, seed, 30_000);
    }
}

#[test]
fn overlap_is_the_same_from_both_sides() {
    let mut random = Random::new(21);
    for _ in 0..100_000 {
        let (one, two) = (random_entry(&mut random), random_entry(&mut random));
        let expected = naive_overlaps(&one, &two);
        assert_eq!((one.overlaps(&two), two.overlaps(&one)), (expected, expected), "{one:x?} {two:x?}");
    }
}

#[test]
fn after_reset_nothing_matches_and_every_entry_is_its_own() {
    let tlb = Tlb::new(64);
    for index in 0..tlb.len() {
        assert_eq!(tlb.find(tlb.get(index).vpn2, Asid(0)), None);
        assert_eq!(tlb.get(index).vpn2, 0xc000_00ff_8000_0000 + index as u64 * 0x2000);
    }
}

#[test]
fn match_edges() {
    let rows = [
        // entry, vaddr, asid, matches
        (entry(0xc000_00ff_ffff_e000, 0, true, 0), 0xffff_ffff_ffff_ffff, 9, true), // last page; bits 61:40 do not count
        (entry(0xc000_00ff_ffff_e000, 0, true, 0), 0x0000_00ff_ffff_ffff, 9, false), // another region
        (entry(0x8000_0000_0000_0000, 5, false, 0), 0x8000_0000_0000_1fff, 5, true), // mapped XKPHYS
        (entry(0x8000_0000_0000_0000, 5, false, 0), 0x8000_0000_0000_2000, 5, false),
        (entry(0, 0, false, 0x1fff_e000), 0x1fff_ffff, 0, true), // a pair of 256 MiB pages is 512 MiB
        (entry(0, 0, false, 0x1fff_e000), 0x2000_0000, 0, false),
        (entry(0x4000, 0xff, false, 0), 0x4000, 0, false), // another address space
        (entry(0x4000, 0xff, true, 0), 0x4000, 0, true),   // global
    ];
    for (entry, vaddr, asid, matches) in rows {
        let mut tlb = Tlb::new(8);
        tlb.write(7, entry).unwrap();
        assert_eq!(tlb.find(vaddr, Asid(asid)), matches.then_some(7), "{entry:x?} {vaddr:#x}");
        assert_eq!(entry.matches(vaddr, Asid(asid)), matches, "{entry:x?} {vaddr:#x}");
    }
}

#[test]
fn a_rewrite_of_the_same_entry_is_no_conflict() {
    let mut tlb = Tlb::new(4);
    let first = entry(0x10_0000, 1, false, 0);
    tlb.write(2, first).unwrap();
    assert_eq!(tlb.write(2, first), Ok(first));
    assert_eq!(tlb.write(3, first), Err(2));
    assert!(tlb.get(3).hidden, "a refused write changes nothing");
    assert!(tlb.write(3, TlbEntry { hidden: true, ..first }).is_ok(), "a hidden entry is in nobody's way");
}

#[test]
fn each_page_size_splits_its_pair_in_half() {
    for (power, page_mask) in PAGE_MASKS.into_iter().enumerate() {
        let page_bytes = 4096u64 << (2 * power);
        let frame = 0xf_f000_0000u64;
        let lo = [entry_lo::frame(frame), entry_lo::frame(frame + page_bytes)];
        let entry = TlbEntry { lo, ..entry(0x4000_0000, 0, true, page_mask) };
        assert_eq!(entry.page_bytes(), page_bytes);
        let ends = [
            (0x4000_0000, 0, frame),
            (0x4000_0000 + page_bytes - 1, 0, frame + page_bytes - 1),
            (0x4000_0000 + page_bytes, 1, frame + page_bytes),
            (0x4000_0000 + 2 * page_bytes - 1, 1, frame + 2 * page_bytes - 1),
        ];
        for (vaddr, half, physical) in ends {
            assert_eq!((entry.half(vaddr), entry.physical(vaddr)), (half, physical), "{page_bytes}: {vaddr:#x}");
        }
    }
}

#[test]
fn frame_number_bits_below_the_page_size_are_ignored() {
    let lo = entry_lo::frame(0x0123_4567_f000);
    let large = TlbEntry { lo: [lo; 2], ..entry(0, 0, true, 0x1f_e000) };
    assert_eq!(large.physical(0x1234), 0x0123_4560_1234);
}

#[test]
fn protection_is_checked_in_the_order_of_the_manual() {
    use AccessKind::{Fetch, Load, Store};
    use entry_lo::{D, RI, V, XI};
    let vaddr = 0x5432;
    let invalid = |access| Err(Exception::TlbInvalid { vaddr, access });
    let (rie, xie, iec) = (page_grain::RIE, page_grain::XIE, page_grain::IEC);
    let rows = [
        // EntryLo, PageGrain, access, result
        (RI | XI | D, rie | xie | iec, Load, invalid(Load)), // V comes first
        (RI | XI, rie | xie | iec, Store, invalid(Store)),
        (V | D | RI, iec | xie, Load, Ok(0x432)), // RI without RIE
        (V | D | XI, iec | rie, Fetch, Ok(0x432)),
        (V | RI, rie | iec, Load, Err(Exception::TlbReadInhibit { vaddr })),
        (V | RI, rie, Load, invalid(Load)), // no code of its own
        (V | XI, xie | iec, Fetch, Err(Exception::TlbExecuteInhibit { vaddr })),
        (V | XI, xie, Fetch, invalid(Fetch)),
        (V | RI, rie | xie | iec, Fetch, Ok(0x432)), // an execute-only page
        (V | D | RI, rie | xie | iec, Store, Ok(0x432)), // RI says nothing of stores
        (V | RI | XI, rie | xie | iec, Store, Err(Exception::TlbModified { vaddr })),
        (V, 0, Store, Err(Exception::TlbModified { vaddr })),
        (V, 0, Load, Ok(0x432)),
        (V | D, 0, Store, Ok(0x432)),
    ];
    for (lo, grain, access, result) in rows {
        // The odd page is the one asked for; the even one would answer otherwise.
        let entry = TlbEntry { lo: [entry_lo::frame(0x1000) | (lo ^ V), lo], ..entry(0x4000, 0, true, 0) };
        assert_eq!(entry.translate(vaddr, access, grain), result, "lo {lo:#x} grain {grain:#x} {access:?}");
    }
}

#[test]
fn an_entry_is_global_only_if_both_pages_are() {
    for (even, odd, global) in [(0, 1, false), (1, 0, false), (0, 0, false), (1, 1, true)] {
        let mut cp0 = Cp0::new(CpuConfig::guest(), 0);
        for (lo, g) in [(register::ENTRY_LO0, even), (register::ENTRY_LO1, odd)] {
            cp0.write(lo.0, lo.1, 0x1234_5640 | g, NOW);
        }
        let entry = TlbEntry::from_cp0(&cp0);
        assert_eq!(entry.global, global);
        assert_eq!(entry.lo, [0x1234_5640; 2]);
        entry.to_cp0(&mut cp0);
        assert_eq!(cp0.entry_lo, [0x1234_5640 | u64::from(global); 2], "TLBR shows one G in both");
    }
}

#[test]
fn what_tlbwi_writes_tlbr_reads() {
    let mut random = Random::new(31);
    for _ in 0..10_000 {
        let mut entry = random_entry(&mut random);
        entry.lo = entry.lo.map(|lo| lo & 0xc000_0000_3fff_fffe);
        let mut cp0 = Cp0::new(CpuConfig::guest(), 0);
        entry.to_cp0(&mut cp0);
        if entry.hidden {
            assert_eq!((cp0.entry_hi, cp0.page_mask, cp0.entry_lo), (1 << 10, 0, [0; 2]));
        } else {
            assert_eq!(TlbEntry::from_cp0(&cp0), entry);
        }
    }
}

#[test]
fn page_number_bits_under_the_mask_are_stored_as_zero() {
    let mut cp0 = Cp0::new(CpuConfig::guest(), 0);
    cp0.write(10, 0, !(1 << 10), NOW);
    cp0.write(5, 0, 0x1f_e000, NOW);
    assert_eq!(TlbEntry::from_cp0(&cp0).vpn2, 0xc000_00ff_ffe0_0000);
}
