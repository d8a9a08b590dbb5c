//! A hostile guest reaches nothing that is not its own, and never stops the host.
//!
//! The hostile guest shares the machine, and in one test a CPU, with a victim. Whatever it executes, the
//! victim's memory and results, the machine pages of the monitor's tables and free memory stay as they are.

mod guest;

use guest::{HALT, KSEG0, PROGRAM, PROGRAM_PHYS, Random};
use machine::PhysRange;
use machine::{Cycles, Mpn, PAGE_BYTES, PhysAddr, Ppn};
use resident::follow::MissKind;
use resident::memmap::Owner;
use resident::pmap::PageState;
use resident::{Event, Monitor, MonitorConfig};

const RAM_BYTES: u64 = 1 << 20;
/// Where the victim has what must not change.
const TREASURE_PHYS: u64 = 0x4_0000;
const TREASURE_BYTES: usize = 0x8000;

/// Adds the treasure up again and again, and stores the sum and how often.
const VICTIM: &str = "
        li t0, 0x80040000
        li t1, 0x80048000
        or v0, zero, zero
sum:    ld t2, 0(t0)
        daddu v0, v0, t2
        daddiu t0, t0, 8
        bne t0, t1, sum
        nop
        li t0, 0x80030000
        sd v0, 0(t0)
        ld t2, 8(t0)
        daddiu t2, t2, 1
        sd t2, 8(t0)
        li t0, 0x80040000
        b sum
        or v0, zero, zero
";

/// A machine with a victim on the last CPU, run until it has its memory.
fn with_victim(cpus: u16) -> (Monitor, u32) {
    let config = MonitorConfig {
        node_of_cpu: vec![0; usize::from(cpus)],
        memory_bytes_per_node: 8 << 20,
        l2tlb_entries: 256,
        large_pages: true,
        ..guest::config()
    };
    let mut monitor = guest::machine(config);
    let victim = guest::boot(&mut monitor, RAM_BYTES, cpus - 1, VICTIM);
    guest::store_dwords(&mut monitor, victim, TREASURE_PHYS, &treasure());
    let events = guest::run(&mut monitor, 400_000);
    assert!(events.is_empty(), "{events:?}");
    (monitor, victim)
}

fn treasure() -> Vec<u64> {
    let mut random = Random(4711);
    (0..TREASURE_BYTES / 8).map(|_| random.next()).collect()
}

/// The content of every machine page that the hostile VM does not own.
fn others_memory(monitor: &Monitor, hostile: u32, victim_results: Mpn) -> Vec<(Mpn, u64)> {
    let memory = monitor.memory();
    let table = monitor.memmap().table();
    let mut sums = Vec::new();
    for page in (0..table.rows() as u32).map(Mpn) {
        let row = monitor.memmap().row(page);
        let is_own = row.owner == Owner::Guest as u8 && u32::from(row.vm) == hostile;
        // Pages may move between the free list and the hostile VM; free ones read as zero, which is checked too.
        if is_own || !memory.contains(page.address(), PAGE_BYTES) || page == victim_results {
            continue;
        }
        let mut bytes = vec![0; PAGE_BYTES as usize];
        memory.read(page.address(), &mut bytes);
        let sum = guest::dwords(&bytes).iter().fold(0u64, |sum, value| sum.rotate_left(5) ^ value);
        if row.owner == Owner::Nobody as u8 {
            assert_eq!(sum, 0, "free machine page {page} was written");
        } else {
            sums.push((page, sum));
        }
    }
    sums
}

/// The hostile VM's hardware and second-level entries lead to its own pages only, and no store to a protected one.
fn check_translations(monitor: &mut Monitor, vm: u32) {
    let pmap: Vec<_> = {
        let state = monitor.vm(vm).unwrap();
        let table = state.pmap.table();
        (0..table.rows())
            .map(|row| table.get(row))
            .filter(|row| row.mpn != 0)
            .map(|row| (row.mpn, row.writable))
            .collect()
    };
    let entries: Vec<_> = monitor.inspect(vm, 0, |vcpu, _| vcpu.l2tlb.alive().collect()).unwrap();
    for entry in entries {
        for lo in entry.lo.iter().filter(|lo| **lo & machine::tlb::entry_lo::V != 0) {
            let mpn = resident::miss::machine_page(*lo);
            let row = pmap.iter().find(|(own, _)| *own == mpn.0);
            let (_, writable) = row.unwrap_or_else(|| panic!("an entry leads to machine page {mpn}"));
            assert!(*writable != 0 || lo & machine::tlb::entry_lo::D == 0, "a protected page may be written");
        }
    }
}

fn victim_state(monitor: &mut Monitor, victim: u32) -> (Vec<u64>, u64, Mpn) {
    let treasure = guest::load_dwords(monitor, victim, TREASURE_PHYS, TREASURE_BYTES / 8);
    let results = guest::load_dwords(monitor, victim, 0x3_0000, 2);
    let mpn = monitor.vm(victim).unwrap().pmap.row(Ppn(0x30)).mpn;
    (treasure, results[0], Mpn(mpn))
}

/// Runs a hostile VM for a while beside the victim and checks that only it has changed.
fn attack(monitor: &mut Monitor, victim: u32, hostile: u32, cycles: u64) -> Vec<Event> {
    let (treasure, sum, results) = victim_state(monitor, victim);
    let before = others_memory(monitor, hostile, results);
    let until = monitor.now().0 + cycles;
    let events = run_hostile(monitor, hostile, until);
    let (treasure_after, sum_after, _) = victim_state(monitor, victim);
    assert!(treasure == treasure_after && sum == sum_after, "the victim has changed");
    assert!(before == others_memory(monitor, hostile, results), "memory of others has changed");
    check_translations(monitor, hostile);
    events
}

/// As Python would: pages for who needs them, an answer for who asks a device; events of the victim are errors.
fn run_hostile(monitor: &mut Monitor, hostile: u32, until: u64) -> Vec<Event> {
    let mut others = Vec::new();
    while monitor.now() < Cycles(until) {
        let events = monitor.run(Cycles(until));
        if events.is_empty() {
            break;
        }
        for event in events {
            assert_eq!(event.vm(), hostile, "{event:?}");
            match event {
                Event::PageFault { vm, page, .. } => guest::provide(monitor, vm, page, 0),
                Event::DeviceAccess { vm, vcpu, .. } => {
                    monitor.complete_access(vm, vcpu, 0x5a5a_5a5a_5a5a_5a5a).unwrap();
                }
                other => others.push(other),
            }
        }
    }
    others
}

/// Handlers that go on behind whatever faults, at all vectors; starts with 64-bit addresses on.
const SKIP_FAULTS: &str = "
        b skip
        nop
        .org 0xffffffff80010080
        b skip
        nop
        .org 0xffffffff80010180
skip:   dmfc0 k0, c0_epc
        daddiu k0, k0, 4
        dmtc0 k0, c0_epc
        eret
        .org 0xffffffff80010400
start:  li t0, 0x80010000
        mtc0 t0, c0_ebase
        li t0, 0xa0
        mtc0 t0, c0_status
";

fn hostile_with(monitor: &mut Monitor, cpu: u16, text: &str) -> u32 {
    let vm = guest::create(monitor, RAM_BYTES, 1);
    guest::store(monitor, vm, PROGRAM_PHYS, &guest::assemble(&format!("{SKIP_FAULTS}{text}\n{HALT}")));
    guest::start(monitor, vm, 0, cpu, PROGRAM + 0x400);
    vm
}

/// Every 4 KiB of the first 8 MiB, which is all machine memory there is, in every segment that could show it.
#[test]
fn a_scan_of_all_segments_finds_only_own_memory() {
    let mut text = String::new();
    let mut segments: Vec<u64> = (0..8).map(|attribute| 0x8000_0000_0000_0000 | attribute << 59).collect();
    segments.extend([KSEG0, KSEG0 + 0x2000_0000, 0xffff_ffff_c000_0000, 0xffff_ffff_e000_0000]);
    segments.extend([0, 0x4000_0000_0000_0000, 0xc000_0000_0000_0000, 0x8000_0000, 0x9000_0010_0000_0000]);
    for (index, segment) in segments.into_iter().enumerate() {
        text += &format!(
            "dli t0, {:#x}
             li t1, 2048
scan_{index}: or t2, zero, zero
             ld t2, 0x10(t0)
             bne t2, zero, found_{index}
             li t3, -1
             sd t3, 0x18(t0)
found_{index}: daddiu t0, t0, 0x1000
             daddiu t1, t1, -1
             bne t1, zero, scan_{index}
             nop\n",
            segment as i64
        );
    }
    // The guest's own program must survive its own stores: they go to offset 0x18 of a page, where a NOP is.
    let (mut monitor, victim) = with_victim(2);
    let hostile = hostile_with(&mut monitor, 0, &text);
    let events = attack(&mut monitor, victim, hostile, 30_000_000);
    assert!(matches!(events.as_slice(), [Event::VcpuStopped { .. }]), "the scan ends: {events:?}");
}

/// TLB entries with every frame number, those of others' machine pages among them, used for loads and stores.
#[test]
fn tlb_entries_lead_to_own_pages_only() {
    let text = "
        li s0, 0            # frame number
        li s1, 0x12345      # a shift register
again:  mtc0 zero, c0_index
        li t0, 0x10000
        dmtc0 t0, c0_entryhi
        dsll t1, s0, 6
        ori t1, t1, 0x1f
        dmtc0 t1, c0_entrylo0
        dmtc0 t1, c0_entrylo1
        mtc0 zero, c0_pagemask
        tlbwi
        ld t2, 0x10(t0)
        li t3, -1
        daddiu t2, s0, -16
        beq t2, zero, own   # its own program
        nop
        sd t3, 0x18(t0)
own:    daddiu s0, s0, 1
        slti t1, s0, 2048
        bne t1, zero, again
        nop
large:  dsll t0, s1, 13     # and at random, with large pages too
        xor s1, s1, t0
        dsrl t0, s1, 7
        xor s1, s1, t0
        dsll t0, s1, 17
        xor s1, s1, t0
        mtc0 zero, c0_index
        li t0, 0x40000000
        dmtc0 t0, c0_entryhi
        ori t1, s1, 0x1f
        dmtc0 t1, c0_entrylo0
        dmtc0 t1, c0_entrylo1
        li t1, 0x1fffe000
        mtc0 t1, c0_pagemask
        tlbwi
        ld t2, 0x10(t0)
        daddiu s0, s0, 1
        slti t1, s0, 4096
        bne t1, zero, large
        nop
    ";
    let (mut monitor, victim) = with_victim(2);
    let hostile = hostile_with(&mut monitor, 0, text);
    let events = attack(&mut monitor, victim, hostile, 60_000_000);
    assert!(matches!(events.as_slice(), [Event::VcpuStopped { .. }]), "the program ends: {events:?}");
}

/// Handlers that go on at another place of the program every time, in kernel mode most times.
const ELSEWHERE: &str = "
        b elsewhere
        nop
        .org 0xffffffff80000080
        b elsewhere
        nop
        .org 0xffffffff80000180
elsewhere: dmfc0 k0, c0_kscratch1
        daddiu k0, k0, 44
        dmtc0 k0, c0_kscratch1
        andi k1, k0, 0x300
        bne k1, zero, go
        andi k0, k0, 0xffc
        li k1, 0xe2
        mtc0 k1, c0_status
go:     lui k1, 0x8001
        or k0, k0, k1
        dmtc0 k0, c0_epc
        dmtc0 k0, c0_errorepc
        eret
        .org 0xffffffff80000200
        b elsewhere
        nop
";

/// A page of random words and registers, run from where they start. Words are biased to CP0 and memory.
fn random_program(random: &mut Random) -> Vec<u8> {
    let mut words = Vec::new();
    for _ in 0..1024 {
        let word = random.next() as u32;
        let register = random.below(32) as u32;
        words.push(match random.below(12) {
            0 | 1 => word,
            2 | 3 => 0x4080_0000 | word & 0x001f_f807, // MTC0
            4 => 0x40a0_0000 | word & 0x001f_f807,     // DMTC0
            5 => 0x4200_0000 | random.pick(&[1u32, 2, 3, 4, 6, 8, 8, 6, 2, 24]), // TLB instructions and ERET
            6 => 0x4000_0000 | word & 0x003f_f807,     // MFC0, DMFC0
            7 => {
                random.pick(&[0xdc00_0000u32, 0xfc00_0000, 0x8c00_0000, 0xac00_0000, 0xc000_0000, 0xe000_0000])
                    | word & 0x03ff_fff8
            } // loads, stores, LL, SC
            8 => 0x3c00_0000 | register << 16 | word & 0xffff, // LUI
            9 => 0x1000_0000 | word & 0x0c00_001f | (word >> 11 & 0x3ff) << 16, // branches forward
            10 => 0x0000_0008 | word & 0x03e0_0000 | (word >> 10 & 1), // JR, JALR
            _ => 0x6400_0000 | word & 0x03ff_ffff,     // DADDIU
        });
    }
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn random_register(random: &mut Random) -> u64 {
    let base = random.pick(&[
        KSEG0 + PROGRAM_PHYS,
        KSEG0,
        KSEG0 + 0x2000_0000,
        0x9800_0000_0000_0000,
        0xc000_0000_0000_0000,
        0xffff_ffff_c000_0000,
        0,
        0x1_0000,
    ]);
    match random.below(4) {
        0 => random.next(),
        1 => base + random.below(0x10_0000) as u64,
        2 => base + (random.below(0x1000) as u64) * 8,
        _ => random.below(0x1_0000) as u64,
    }
}

/// A few thousand short lives of random kernels: events and stops are all that comes of them.
#[test]
fn random_code_in_kernel_mode_gives_only_events_and_stops() {
    let seeds = match std::env::var("ISOLATION_SEED") {
        Ok(seed) => {
            let seed: u64 = seed.parse().expect("a number");
            seed..seed + 1
        }
        Err(_) => 0..2000,
    };
    let (mut monitor, victim) = with_victim(1);
    for seed in seeds {
        let mut random = Random(seed);
        let ram = PhysRange { base: PhysAddr(0), bytes: RAM_BYTES };
        let hostile = monitor.create_vm(&[ram], 1).unwrap();
        let device = PhysRange { base: PhysAddr(0x20_0000), bytes: 0x4000 };
        monitor.add_window(hostile, device).unwrap();
        let program = random_program(&mut random);
        guest::store(&mut monitor, hostile, PROGRAM_PHYS, &program);
        // Most have handlers that lead to yet another place of the program; some have noise there, or nothing.
        match random.below(10) {
            0 => {}
            1 => guest::store(&mut monitor, hostile, 0, &random_program(&mut random)),
            _ => guest::store(&mut monitor, hostile, 0, &mips::assemble(ELSEWHERE, KSEG0).unwrap()),
        }
        let gpr: Vec<(u8, u64)> = (1..32).map(|register| (register, random_register(&mut random))).collect();
        let pc =
            random.pick(&[PROGRAM, PROGRAM, PROGRAM, 0x9800_0000_0001_0000, KSEG0 + 0x2001_0000, PROGRAM + 2]);
        monitor.set_vcpu(hostile, 0, pc, &gpr).unwrap();
        if random.chance(90) {
            let vcpu = &mut monitor.vm(hostile).unwrap().vcpus[0];
            vcpu.cp0.status =
                random.pick(&[0xe0, 0xe0, 0x3400_00e0, 0x00, 0x80, 0x0400_ffe1, 0xe4, 0x30, 0x1000_0010]);
            vcpu.cp0.ebase = 0x8000_0000;
        }
        monitor.assign(hostile, 0, 0).unwrap();
        if random.chance(20) {
            let kind = random.pick(&[
                MissKind::Any,
                MissKind::L2Tlb,
                MissKind::Forwarded,
                MissKind::Kernel,
                MissKind::PageFault,
            ]);
            monitor.follow(hostile, kind).unwrap();
        }
        let is_checked = seed % 50 == 0;
        let until = monitor.now().0 + 120_000;
        if is_checked {
            attack(&mut monitor, victim, hostile, 120_000);
        } else {
            run_hostile(&mut monitor, hostile, until);
        }
        check_own_pages(&mut monitor, hostile, seed);
        monitor.destroy_vm(hostile).unwrap();
    }
    let (treasure_after, sum, _) = victim_state(&mut monitor, victim);
    assert_eq!(treasure_after, treasure());
    assert_eq!(sum, treasure().iter().fold(0u64, |sum, value| sum.wrapping_add(*value)));
}

/// Every page of the pmap is a machine page that the memmap gives to that VM.
fn check_own_pages(monitor: &mut Monitor, vm: u32, seed: u64) {
    let rows: Vec<_> = {
        let table = monitor.vm(vm).unwrap().pmap.table();
        (0..table.rows()).map(|row| (row as u32, table.get(row))).filter(|(_, row)| row.mpn != 0).collect()
    };
    for (page, row) in rows {
        assert_eq!(row.state(), PageState::Private, "seed {seed}");
        let owner = monitor.memmap().row(Mpn(row.mpn));
        assert_eq!((u32::from(owner.vm), owner.ppn), (vm, page), "seed {seed}");
    }
}
