//! The second-level TLB is invisible: the argument in the head of `l2tlb.rs`, tested.
//!
//! A guest with page tables in KSEG0 executes random sequences of accesses, page-table changes and flushes. It
//! is a disciplined guest: after it changes a translation it flushes, by one of the idioms that real kernels
//! use, before it uses the address again. So what its accesses read, which faults its general exception vector sees, and
//! whether TLBP finds the entry at fault there, follow from the page tables alone; the number of refills does
//! not, and the guest does not count them.
//!
//! Three opinions must agree: a naive model of the page tables (no TLB at all), the guest on a bare CPU with a
//! plain TLB, and the guest under the monitor with second-level TLBs and hardware TLBs of several sizes.
//!
//! The idioms: TLBP and TLBWI of a harmless entry (Linux, one page), TLBP and TLBWI of the new entry or TLBWR
//! if there is none (Linux, update), a sweep of TLBWI over all slots, TLBINVF, TLBINV, a scan of all slots by
//! TLBR (BSD), a new ASID, TLBWR without looking with a Machine Check handler that replaces what is still there, and
//! TLBWI over a wired slot whose content the guest knows.

mod guest;

use std::collections::HashMap;
use std::sync::Arc;

use guest::{KSEG0, PROGRAM, PROGRAM_PHYS, Random};
use machine::cp0::{page_grain, status};
use machine::tlb::entry_lo;
use machine::{Cpu, CpuConfig, Cycles, MachineAddr, MachineMemory, NodeId, Stop};
use resident::MonitorConfig;

const TABLE_PHYS: u64 = 0x2_0000;
const TABLE: u64 = KSEG0 + TABLE_PHYS;
const VARIABLES_PHYS: u64 = 0x3_0000;
const STEPS_PHYS: u64 = 0x4_0000;
const LOG_PHYS: u64 = 0x8_0000;
/// Small frames, and then the halves of large pages, 64 KiB each.
const FRAMES_PHYS: u64 = 0x20_0000;
const SMALL_FRAMES: usize = 32;
const LARGE_PHYS: u64 = FRAMES_PHYS + 0x2_0000;
const LARGE_FRAMES: usize = 8;
const RAM_BYTES: u64 = 4 << 20;

const ROW_BYTES: u64 = 96;
/// What a skipped access gives.
const SKIPPED: u64 = u64::MAX;
/// EntryLo bits that only the page table knows: may become D, may become V.
const MAY_WRITE: u64 = 1 << 40;
const IS_YOUNG: u64 = 1 << 41;
const SPACES: usize = 3;
/// ASIDs in use are 1 to this, so that they run out often.
const ASID_MAX: u64 = 6;
/// Slots of wired mappings that come and go, and one for decoys.
const WIRED_SLOTS: usize = 3;
const DECOY_SLOT: usize = 3;
const VPN2: u64 = 3 << 62 | 0xff_ffff_e000;

/// What the guest can do in a step; the order is that of its jump table.
#[derive(Clone, Copy, Debug)]
#[repr(u64)]
enum Op {
    End,
    Load,
    Store,
    Fetch,
    Space,
    Poke,
    FlushPage,
    Place,
    Sweep,
    Invalidate,
    InvalidateSpace,
    ScanSpace,
    ScanPage,
    Drop,
    Read,
    Wired,
    ErrorLevel,
    Preload,
}

/// `k0` is EntryHi; leaves the row in t8, or the end of the table.
fn find_row(label: &str) -> String {
    format!(
        "dsrl k0, k0, 13
         dsll k0, k0, 13
         or t8, s2, zero
         {label}: beq t8, s4, {label}_end
         ld k1, 8(t8)
         and k1, k1, k0
         ld gp, 0(t8)
         bne k1, gp, {label}
         daddiu t8, t8, {ROW_BYTES}
         daddiu t8, t8, -{ROW_BYTES}
         {label}_end: nop\n"
    )
}

/// The guest. s0 is the next step, s1 the log, s2 and s4 the table and its end, s3 the variables (the current
/// space's offset in a row, the log's end), s5 whether a fetch is under way, s6 the jump table.
/// A row: 0 VPN2 (1: switched off), 8 bits to compare, 16 PageMask, 24 global, 32 EntryLo pairs of the spaces.
fn source(rows: usize, grain: u32) -> String {
    let refill_row = find_row("refill_row");
    let fault_row = find_row("fault_row");
    let table_end = TABLE + rows as u64 * ROW_BYTES;
    let error_level = status::KX | status::UX | status::ERL;
    let running = status::KX | status::UX;
    format!(
        "
        b refill
        nop
        .org {PROGRAM:#x} + 0x80
        b refill
        nop
        .org {PROGRAM:#x} + 0x180
        b fault
        nop
        .org {PROGRAM:#x} + 0x400
        li t0, {running}
        mtc0 t0, c0_status
        li t0, {PROGRAM:#x}
        mtc0 t0, c0_ebase
        li t0, {grain}
        mtc0 t0, c0_pagegrain
        li s0, {steps:#x}
        li s1, {log:#x}
        li s2, {TABLE:#x}
        li s3, {variables:#x}
        li s4, {table_end:#x}
        la s6, jump_table
        or s5, zero, zero
next:   ld a0, 0(s0)
        ld a1, 8(s0)
        ld a2, 16(s0)
        ld a3, 24(s0)
        daddiu s0, s0, 32
        andi t0, a0, 0xff
        dsll t0, t0, 3
        daddu t0, t0, s6
        ld t0, 0(t0)
        dsrl a0, a0, 16
        dmfc0 s7, c0_entryhi
        jr t0
        nop
restore: dmtc0 s7, c0_entryhi
        b next
        nop

op_load: ld v0, 0(a1)
log_v0: sd v0, 0(s1)
        b next
        daddiu s1, s1, 8
op_store: or v0, zero, zero
        sd a2, 0(a1)
        b log_v0
        nop
op_fetch: li s5, 1
        jalr ra, a1
        nop
        b log_v0
        or s5, zero, zero
op_space: sd a1, 0(s3)
        dmtc0 a2, c0_entryhi
        b next
        nop
op_poke: b next
        sd a2, 0(a1)
op_flush_page: dmtc0 a1, c0_entryhi
        tlbp
        mfc0 t2, c0_index
        bltz t2, restore
        nop
        jal drop
        nop
        b restore
        nop
op_place: dmtc0 a1, c0_entryhi
        tlbp
        mtc0 a3, c0_pagemask
        ld t0, 0(a2)
        dmtc0 t0, c0_entrylo0
        ld t0, 8(a2)
        dmtc0 t0, c0_entrylo1
        mfc0 t2, c0_index
        bgez t2, place_found
        li t0, 0xff
        beq a0, t0, place_anywhere
        nop
        mtc0 a0, c0_index
place_found: tlbwi
        b restore
        nop
place_anywhere: tlbwr
        b restore
        nop
op_preload: dmtc0 a1, c0_entryhi
        mtc0 zero, c0_pagemask
        ld t0, 0(a2)
        dmtc0 t0, c0_entrylo0
        ld t0, 8(a2)
        dmtc0 t0, c0_entrylo1
        tlbwr
        b restore
        nop
op_sweep: or t2, zero, zero
sweep:  jal drop
        daddiu t2, t2, 1
        slti t0, t2, 64
        bne t0, zero, sweep
        nop
        b restore
        nop
op_invalidate: tlbinvf
        b next
        nop
op_invalidate_space: dmtc0 a1, c0_entryhi
        tlbinv
        b restore
        nop
op_scan_space: or t2, zero, zero
scan_space: mtc0 t2, c0_index
        tlbr
        dmfc0 t3, c0_entryhi
        andi t0, t3, 0x400
        bne t0, zero, scan_space_next
        andi t0, t3, 0xff
        bne t0, a1, scan_space_next
        dmfc0 t0, c0_entrylo0
        andi t0, t0, 1
        bne t0, zero, scan_space_next
        nop
        jal drop
        nop
scan_space_next: daddiu t2, t2, 1
        slti t0, t2, 64
        bne t0, zero, scan_space
        nop
        b restore
        nop
op_scan_page: or t2, zero, zero
scan_page: mtc0 t2, c0_index
        tlbr
        dmfc0 t3, c0_entryhi
        andi t0, t3, 0x400
        bne t0, zero, scan_page_next
        and t0, t3, a3
        bne t0, a1, scan_page_next
        dmfc0 t0, c0_entrylo0
        andi t0, t0, 1
        bne t0, zero, scan_page_hit
        andi t0, t3, 0xff
        bne t0, a2, scan_page_next
        nop
scan_page_hit: jal drop
        nop
scan_page_next: daddiu t2, t2, 1
        slti t0, t2, 64
        bne t0, zero, scan_page
        nop
        b restore
        nop
op_drop: or t2, a0, zero
        jal drop
        nop
        b restore
        nop
op_read: mtc0 a0, c0_index
        tlbr
        dmfc0 t0, c0_entryhi
        sd t0, 0(s1)
        dmfc0 t0, c0_entrylo0
        sd t0, 8(s1)
        dmfc0 t0, c0_entrylo1
        sd t0, 16(s1)
        mfc0 t0, c0_pagemask
        sd t0, 24(s1)
        b restore
        daddiu s1, s1, 32
op_wired: mtc0 a1, c0_wired
        b next
        nop
op_error_level: li t0, {running}
        beq a1, zero, set_status
        nop
        li t0, {error_level}
set_status: mtc0 t0, c0_status
        b next
        nop
op_end: sd s1, 8(s3)
        mtc0 zero, c0_status
halt:   wait
        b halt
        nop

drop:   mtc0 t2, c0_index
        dsll t0, t2, 13
        li t1, {KSEG0:#x}
        daddu t0, t0, t1
        dmtc0 t0, c0_entryhi
        dmtc0 zero, c0_entrylo0
        dmtc0 zero, c0_entrylo1
        mtc0 zero, c0_pagemask
        tlbwi
        jr ra
        nop

refill: dmfc0 k0, c0_entryhi
        {refill_row}
        beq t8, s4, bad
        ld k1, 16(t8)
        mtc0 k1, c0_pagemask
        ld k1, 0(s3)
        daddu t8, t8, k1
        ld k1, 32(t8)
        dmtc0 k1, c0_entrylo0
        ld k1, 40(t8)
        dmtc0 k1, c0_entrylo1
        tlbwr
        eret

bad:    li k1, 0xbad
        sd k1, 0(s1)
        mfc0 k1, c0_cause
        sd k1, 8(s1)
        dmfc0 k1, c0_badvaddr
        sd k1, 16(s1)
        b op_end
        daddiu s1, s1, 24

fault:  mfc0 t9, c0_cause
        andi t9, t9, 0x7c
        srl t9, t9, 2
        li k1, 24
        beq t9, k1, machine_check
        tlbp
        mfc0 k1, c0_index
        dsrl32 k1, k1, 31
        dsll k1, k1, 8
        or k1, k1, t9
        sd k1, 0(s1)
        dmfc0 k1, c0_badvaddr
        sd k1, 8(s1)
        daddiu s1, s1, 16
        slti k1, t9, 4
        bne k1, zero, fault_known
        slti k1, t9, 21
        beq k1, zero, bad
        slti k1, t9, 19
        bne k1, zero, bad
fault_known: mfc0 k1, c0_index
        bltz k1, skip
        dmfc0 k0, c0_entryhi
        {fault_row}
        beq t8, s4, bad
        dmfc0 k0, c0_badvaddr
        ld gp, 16(t8)
        daddiu gp, gp, 0x2000
        dsrl gp, gp, 1
        and gp, gp, k0
        sltu gp, zero, gp
        dsll gp, gp, 3
        ld k1, 0(s3)
        daddu gp, gp, k1
        daddu gp, gp, t8
        daddiu gp, gp, 32
        ld k0, 0(gp)
        li k1, 1
        beq t9, k1, modified
        slti k1, t9, 4
        beq k1, zero, skip
        andi k1, k0, 2
        bne k1, zero, skip
        dsrl32 k1, k0, 9
        andi k1, k1, 1
        beq k1, zero, skip
        nop
        b update
        ori k0, k0, 2
modified: dsrl32 k1, k0, 8
        andi k1, k1, 1
        beq k1, zero, skip
        nop
        ori k0, k0, 4
update: ld k1, 24(t8)
        beq k1, zero, update_one
        nop
        ld k1, 0(s3)
        dsubu gp, gp, k1
        sd k0, 16(gp)
        sd k0, 32(gp)
update_one: sd k0, 0(gp)
        ld k1, 16(t8)
        mtc0 k1, c0_pagemask
        ld k1, 0(s3)
        daddu t8, t8, k1
        ld k1, 32(t8)
        dmtc0 k1, c0_entrylo0
        ld k1, 40(t8)
        dmtc0 k1, c0_entrylo1
        tlbwi
        eret
machine_check: tlbp
        dmfc0 k0, c0_epc
        daddiu k0, k0, 4
        dmtc0 k0, c0_epc
        tlbwi
        eret
skip:   bne s5, zero, skip_fetch
        dmfc0 k0, c0_epc
        daddiu k0, k0, 4
        dmtc0 k0, c0_epc
        li v0, -1
        eret
skip_fetch: dmtc0 ra, c0_epc
        li v0, -1
        eret

        .align 3
jump_table:
        .dword op_end, op_load, op_store, op_fetch, op_space, op_poke, op_flush_page, op_place
        .dword op_sweep, op_invalidate, op_invalidate_space, op_scan_space, op_scan_page, op_drop, op_read
        .dword op_wired, op_error_level, op_preload
        ",
        steps = KSEG0 + STEPS_PHYS,
        log = KSEG0 + LOG_PHYS,
        variables = KSEG0 + VARIABLES_PHYS,
    )
}

/// A row of the guest's page tables: a pair of pages in all spaces.
#[derive(Clone, Debug)]
struct Row {
    vaddr: u64,
    mask: u64,
    is_global: bool,
    is_on: bool,
    kind: RowKind,
    lo: [[u64; 2]; SPACES],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RowKind {
    /// Refilled from the table.
    Ordinary,
    /// Never valid in the table; wired entries translate it.
    Wired,
    /// One of the views of region `usize`: as a large pair, or as pairs of 4 KiB pages.
    View(usize),
}

impl Row {
    fn page_bytes(&self) -> u64 {
        (self.mask + 0x2000) / 2
    }
    fn half(&self, vaddr: u64) -> usize {
        usize::from(vaddr & self.page_bytes() != 0)
    }
    fn compared(&self) -> u64 {
        VPN2 & !self.mask
    }
    fn vpn2(&self) -> u64 {
        self.vaddr & self.compared()
    }
    fn covers(&self, vaddr: u64) -> bool {
        vaddr & self.compared() == self.vpn2()
    }
}

#[derive(Clone, Copy, Debug)]
struct WiredMap {
    row: usize,
    asid: u64,
    lo: [u64; 2],
}

/// The naive model, which makes up the steps and knows what the guest must log. It has no TLB.
struct Model {
    random: Random,
    rows: Vec<Row>,
    /// The ASID of each space, and the next one that is free.
    asids: [u64; SPACES],
    asid_next: u64,
    space: usize,
    wired: [Option<WiredMap>; WIRED_SLOTS],
    own_codes: bool,
    /// How this seed's guest likes to flush, and whether it has large pages: what is rare in one is frequent in another.
    habits: Habits,
    memory: HashMap<u64, u64>,
    steps: Vec<[u64; 4]>,
    log: Vec<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Habits {
    scan_percent: usize,
    preload_percent: usize,
    large_pages: bool,
    full_flushes: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Load,
    Store(u64),
    Fetch,
}

impl Model {
    fn new(seed: u64) -> Model {
        let mut random = Random(seed);
        let own_codes = random.chance(50);
        let habits = Habits {
            scan_percent: random.pick(&[0, 0, 5, 40]),
            preload_percent: random.pick(&[0, 30, 90]),
            large_pages: random.chance(60),
            full_flushes: random.chance(60),
        };
        let mut model = Model {
            random,
            rows: Vec::new(),
            asids: [1, 2, 3],
            asid_next: 4,
            space: 0,
            wired: [None; WIRED_SLOTS],
            own_codes,
            habits,
            memory: HashMap::new(),
            steps: Vec::new(),
            log: Vec::new(),
        };
        model.add_rows();
        model
    }

    fn add_rows(&mut self) {
        // Equal VPN2 bits in several regions, sign-extended and not; useg lies where its physical namesake is.
        let small = [
            0x20_0000,
            0x20_2000,
            0x20_4000,
            0xff_0000_0000,
            0xff_0020_0000,
            0xffff_ffff_c020_0000,
            0xffff_ffff_c020_2000,
            0xffff_ffff_e000_0000,
            0xc000_0000_0020_0000,
            0xc000_00ff_4020_0000,
        ];
        for (index, vaddr) in small.into_iter().enumerate() {
            self.add_row(vaddr, 0, index % 4 == 1, true, RowKind::Ordinary);
        }
        for (index, vaddr) in [0x40_0000, 0xffff_ffff_c040_0000, 0xc000_0000_0040_0000].into_iter().enumerate() {
            self.add_row(vaddr, 0, index == 1, true, RowKind::Wired);
        }
        let regions = [(0x60_0000, 0x6000), (0xffff_ffff_c060_0000, 0x1_e000), (0xc000_0000_0080_0000, 0x6000)];
        for (region, (vaddr, mask)) in regions.into_iter().enumerate() {
            let is_global = region == 1;
            self.add_row(vaddr, mask, is_global, true, RowKind::View(region));
            for offset in [0, mask] {
                self.add_row(vaddr + offset, 0, is_global, false, RowKind::View(region));
            }
        }
    }

    fn add_row(&mut self, vaddr: u64, mask: u64, is_global: bool, is_on: bool, kind: RowKind) {
        let nothing = u64::from(is_global);
        self.rows.push(Row { vaddr, mask, is_global, is_on, kind, lo: [[nothing; 2]; SPACES] });
        let row = self.rows.len() - 1;
        if kind != RowKind::Wired {
            for space in 0..SPACES {
                let lo = [self.random_lo(row), self.random_lo(row)];
                self.set_lo(row, space, lo);
            }
        }
    }

    fn set_lo(&mut self, row: usize, space: usize, lo: [u64; 2]) {
        match self.rows[row].is_global {
            true => self.rows[row].lo = [lo; SPACES],
            false => self.rows[row].lo[space] = lo,
        }
    }

    fn random_lo(&mut self, row: usize) -> u64 {
        let is_large = self.rows[row].mask != 0;
        let frame = if is_large {
            LARGE_PHYS + self.random.below(LARGE_FRAMES) as u64 * 0x1_0000
        } else {
            FRAMES_PHYS + self.random.below(SMALL_FRAMES) as u64 * 0x1000
        };
        let mut lo = entry_lo::frame(frame) | 3 << entry_lo::C_SHIFT | u64::from(self.rows[row].is_global);
        let bits = [
            (entry_lo::V, 75),
            (entry_lo::D, 40),
            (entry_lo::RI, 8),
            (entry_lo::XI, 12),
            (MAY_WRITE, 60),
            (IS_YOUNG, 60),
        ];
        for (bit, percent) in bits {
            lo |= if self.random.chance(percent) { bit } else { 0 };
        }
        lo
    }

    fn step(&mut self, op: Op, a: u64, b: u64, c: u64) {
        self.steps.push([op as u64, a, b, c]);
    }

    fn step_at(&mut self, op: Op, index: usize, a: u64, b: u64, c: u64) {
        self.steps.push([op as u64 | (index as u64) << 16, a, b, c]);
    }

    fn asid(&self) -> u64 {
        self.asids[self.space]
    }

    // -- accesses ----------------------------------------------------------------------------------

    fn random_access(&mut self, avoid: Option<usize>) {
        let on: Vec<usize> = (0..self.rows.len())
            .filter(|row| self.rows[*row].is_on && Some(*row) != avoid)
            .filter(|row| self.habits.large_pages || self.rows[*row].mask == 0)
            .collect();
        let row = self.random.pick(&on);
        let half = self.random.below(2) as u64;
        let bytes = self.rows[row].page_bytes();
        let page = self.random.pick(&[0, bytes - 0x1000]);
        let vaddr = self.rows[row].vaddr + half * bytes + page;
        let kind = match self.random.below(3) {
            0 => Kind::Load,
            1 => Kind::Store(self.random.next() >> 1),
            _ => Kind::Fetch,
        };
        self.access(row, vaddr, kind);
    }

    fn access(&mut self, row: usize, vaddr: u64, kind: Kind) {
        let slot = vaddr + self.random.pick(&[8, 16]);
        let (vaddr, result) = match kind {
            Kind::Load => {
                self.step(Op::Load, slot, 0, 0);
                (slot, self.translate(row, slot, kind).map(|paddr| self.read(paddr)))
            }
            Kind::Store(value) => {
                let vaddr = vaddr + 16;
                self.step(Op::Store, vaddr, value, 0);
                let paddr = self.translate(row, vaddr, kind);
                (vaddr, paddr.map(|paddr| self.memory.insert(paddr, value)).map(|_| 0))
            }
            Kind::Fetch => {
                self.step(Op::Fetch, vaddr, 0, 0);
                (vaddr, self.translate(row, vaddr, kind).map(|paddr| paddr >> 12))
            }
        };
        debug_assert!(self.rows[row].covers(vaddr));
        self.log.push(result.unwrap_or(SKIPPED));
    }

    fn read(&self, paddr: u64) -> u64 {
        self.memory.get(&paddr).copied().unwrap_or(if paddr & 0xfff == 8 { initial(paddr) } else { 0 })
    }

    /// The physical address, after the faults that the guest handles; `None` if it gives up.
    fn translate(&mut self, row: usize, vaddr: u64, kind: Kind) -> Option<u64> {
        let half = self.rows[row].half(vaddr);
        if let Some(map) = self.wired_map(row) {
            return Some(entry_lo::address(map.lo[half]) + (vaddr & 0xfff));
        }
        loop {
            let lo = self.rows[row].lo[self.space][half];
            let (code, may, bit) = if lo & entry_lo::V == 0 {
                (if matches!(kind, Kind::Store(_)) { 3 } else { 2 }, IS_YOUNG, entry_lo::V)
            } else if kind == Kind::Load && lo & entry_lo::RI != 0 {
                (if self.own_codes { 19 } else { 2 }, 0, 0)
            } else if kind == Kind::Fetch && lo & entry_lo::XI != 0 {
                (if self.own_codes { 20 } else { 2 }, 0, 0)
            } else if matches!(kind, Kind::Store(_)) && lo & entry_lo::D == 0 {
                (1, MAY_WRITE, entry_lo::D)
            } else {
                let bytes = self.rows[row].page_bytes();
                let frame = entry_lo::address(lo & (MAY_WRITE - 1)) & !(bytes - 1);
                return Some(frame | vaddr & (bytes - 1));
            };
            // The guest notes the code with Index.P in bit 8, which must be clear: TLBP finds the entry at fault.
            self.log.extend([code, vaddr]);
            if lo & may == 0 {
                return None;
            }
            let mut lo = self.rows[row].lo[self.space];
            lo[half] |= bit;
            self.set_lo(row, self.space, lo);
        }
    }

    fn wired_map(&self, row: usize) -> Option<WiredMap> {
        let is_seen = |map: &&WiredMap| map.row == row && (self.rows[row].is_global || map.asid == self.asid());
        self.wired.iter().flatten().find(is_seen).copied()
    }

    // -- flushes -----------------------------------------------------------------------------------

    /// Takes what the wired slots hold of the row in that ASID out of the model.
    fn unwire(&mut self, row: usize, asid: u64) {
        let is_global = self.rows[row].is_global;
        for slot in &mut self.wired {
            slot.take_if(|map| map.row == row && (is_global || map.asid == asid));
        }
    }

    fn unwire_space(&mut self, asid: u64) {
        for slot in &mut self.wired {
            let rows = &self.rows;
            slot.take_if(|map| map.asid == asid && !rows[map.row].is_global);
        }
    }

    fn flush_all(&mut self) {
        let op = self.random.pick(&[Op::Sweep, Op::Invalidate]);
        self.step(op, 0, 0, 0);
        self.wired = [None; WIRED_SLOTS];
    }

    fn flush_page(&mut self, row: usize, asid: u64) {
        let (vaddr, vpn2, compared) = (self.rows[row].vaddr, self.rows[row].vpn2(), self.rows[row].compared());
        if !self.random.chance(self.habits.scan_percent) {
            self.step(Op::FlushPage, vaddr & !0xff | asid, 0, 0);
        } else {
            self.step(Op::ScanPage, vpn2, asid, compared);
        }
        self.unwire(row, asid);
    }

    /// The row has changed in the space: one of the idioms makes the TLB forget what it was.
    fn flush_row(&mut self, row: usize, space: usize) {
        let asid = self.asids[space];
        let is_global = self.rows[row].is_global;
        match self.random.below(10) {
            0 if self.habits.full_flushes => self.flush_all(),
            1..=3 if !is_global && self.habits.full_flushes => {
                let op = self.random.pick(&[Op::InvalidateSpace, Op::ScanSpace]);
                self.step(op, asid, 0, 0);
                self.unwire_space(asid);
            }
            4 if !is_global => self.take_new_asid(space),
            5 | 6 => self.place(row, space),
            _ => self.flush_page(row, asid),
        }
    }

    /// TLBP, and TLBWI where it is, or TLBWI or TLBWR where the guest likes.
    fn place(&mut self, row: usize, space: usize) {
        let index = if self.random.chance(50) { 0xff } else { 4 + self.random.below(60) };
        let Row { vaddr, mask, .. } = self.rows[row];
        let lo = TABLE + row as u64 * ROW_BYTES + 32 + 16 * space as u64;
        self.step_at(Op::Place, index, vaddr & !0xff | self.asids[space], lo, mask);
    }

    /// TLBWR without looking; if the old entry is still there, Machine Check says so and is the time to replace it.
    fn preload(&mut self, row: usize, space: usize) {
        let lo = TABLE + row as u64 * ROW_BYTES + 32 + 16 * space as u64;
        self.step(Op::Preload, self.rows[row].vaddr & !0xff | self.asids[space], lo, 0);
    }

    fn take_new_asid(&mut self, space: usize) {
        if self.asid_next > ASID_MAX {
            self.flush_all();
            self.asids = [1, 2, 3];
            self.asid_next = 4;
        } else {
            self.asids[space] = self.asid_next;
            self.asid_next += 1;
        }
        self.enter_space(self.space);
    }

    fn enter_space(&mut self, space: usize) {
        self.space = space;
        self.step(Op::Space, 16 * space as u64, self.asids[space], 0);
    }

    // -- changes -----------------------------------------------------------------------------------

    fn poke_row(&mut self, row: usize, space: usize, lo: [u64; 2]) {
        self.set_lo(row, space, lo);
        let base = TABLE + row as u64 * ROW_BYTES + 32;
        let spaces = if self.rows[row].is_global { 0..SPACES } else { space..space + 1 };
        for space in spaces {
            self.step(Op::Poke, base + 16 * space as u64, lo[0], 0);
            self.step(Op::Poke, base + 16 * space as u64 + 8, lo[1], 0);
        }
    }

    fn change_row(&mut self) {
        let changeable: Vec<usize> = (0..self.rows.len())
            .filter(|row| self.rows[*row].is_on && self.rows[*row].kind != RowKind::Wired)
            .collect();
        let row = self.random.pick(&changeable);
        let space = self.random.below(SPACES);
        let mut lo = self.rows[row].lo[space];
        for half in &mut lo {
            if self.random.chance(70) {
                *half = self.random_lo(row);
            }
        }
        let is_small = self.rows[row].mask == 0 && self.rows[row].kind == RowKind::Ordinary;
        let is_preloaded = is_small && self.random.chance(self.habits.preload_percent);
        if is_preloaded && self.random.chance(50) {
            // An entry with nothing in it must end the old one too.
            lo = lo.map(|lo| lo & !(entry_lo::V | IS_YOUNG));
        }
        self.poke_row(row, space, lo);
        for _ in 0..self.random.below(4) {
            self.random_access(Some(row));
        }
        if is_preloaded {
            self.preload(row, space);
        } else {
            self.flush_row(row, space);
        }
    }

    /// A space that moves to a new ASID may change without any flush.
    fn change_space(&mut self) {
        let space = self.random.below(SPACES);
        for _ in 0..1 + self.random.below(4) {
            let own: Vec<usize> = (0..self.rows.len())
                .filter(|row| !self.rows[*row].is_global && self.rows[*row].kind == RowKind::Ordinary)
                .collect();
            let row = self.random.pick(&own);
            let lo = [self.random_lo(row), self.random_lo(row)];
            self.poke_row(row, space, lo);
        }
        self.take_new_asid(space);
    }

    /// The region is seen as a large pair from now on, or as small ones.
    fn change_view(&mut self) {
        let region = self.random.below(3);
        let views: Vec<usize> =
            (0..self.rows.len()).filter(|row| self.rows[*row].kind == RowKind::View(region)).collect();
        let was_on: Vec<usize> = views.iter().copied().filter(|row| self.rows[*row].is_on).collect();
        for row in &views {
            self.rows[*row].is_on = !self.rows[*row].is_on;
            let vpn2 = if self.rows[*row].is_on { self.rows[*row].vpn2() } else { 1 };
            self.step(Op::Poke, TABLE + *row as u64 * ROW_BYTES, vpn2, 0);
        }
        if self.random.chance(20) {
            return self.flush_all();
        }
        for row in was_on {
            for space in 0..SPACES {
                self.flush_page(row, self.asids[space]);
            }
        }
        // Entries of older ASIDs do not matter until ASIDs run out, and then everything is flushed.
    }

    fn map_wired(&mut self) {
        let wired: Vec<usize> =
            (0..self.rows.len()).filter(|row| self.rows[*row].kind == RowKind::Wired).collect();
        let row = self.random.pick(&wired);
        let slot = self.random.below(WIRED_SLOTS);
        let asid = self.asid();
        self.flush_page(row, asid);
        let frame = |model: &mut Model| {
            let frame = FRAMES_PHYS + model.random.below(SMALL_FRAMES) as u64 * 0x1000;
            entry_lo::frame(frame) | entry_lo::V | entry_lo::D | u64::from(model.rows[row].is_global)
        };
        let lo = [frame(self), frame(self)];
        let scratch = TABLE + row as u64 * ROW_BYTES + 80;
        self.step(Op::Poke, scratch, lo[0], 0);
        self.step(Op::Poke, scratch + 8, lo[1], 0);
        let vaddr = self.rows[row].vaddr;
        self.step_at(Op::Place, slot, vaddr & !0xff | asid, scratch, 0);
        self.wired[slot] = Some(WiredMap { row, asid, lo });
        for half in [0, 0x1000] {
            self.access(row, vaddr + half, Kind::Load);
        }
        self.read_slot(slot);
    }

    fn read_slot(&mut self, slot: usize) {
        let Some(map) = self.wired[slot] else { return };
        self.step_at(Op::Read, slot, 0, 0, 0);
        self.log.extend([self.rows[map.row].vpn2() | map.asid, map.lo[0], map.lo[1], 0]);
    }

    /// TLBWI over a slot whose content the guest knows.
    fn unmap_wired(&mut self) {
        let slot = self.random.below(WIRED_SLOTS);
        let gone = self.wired[slot].take();
        self.step_at(Op::Drop, slot, 0, 0, 0);
        if let Some(map) = gone {
            self.access(map.row, self.rows[map.row].vaddr, Kind::Load);
        }
    }

    /// A valid entry for an address that is not mapped; nobody may see it.
    fn decoy(&mut self) {
        let frame = FRAMES_PHYS + self.random.below(SMALL_FRAMES) as u64 * 0x1000;
        let other = FRAMES_PHYS + self.random.below(SMALL_FRAMES) as u64 * 0x1000;
        let global = self.random.below(2) as u64;
        let scratch = VARIABLES_PHYS + KSEG0 + 64;
        let lo = entry_lo::frame(other) | entry_lo::V | entry_lo::D | global;
        self.step(Op::Poke, scratch, lo, 0);
        self.step(Op::Poke, scratch + 8, lo, 0);
        let segment =
            self.random.pick(&[KSEG0, KSEG0 + 0x2000_0000, 0x9800_0000_0000_0000, 0x8000_0000_0000_0000]);
        let asid = 1 + self.random.below(ASID_MAX as usize) as u64;
        self.step_at(Op::Drop, DECOY_SLOT, 0, 0, 0);
        self.step_at(Op::Place, DECOY_SLOT, (segment + (frame & !0x1fff)) | asid, scratch, 0);
        self.direct_load(segment + frame + 8, frame + 8);
    }

    fn direct_load(&mut self, vaddr: u64, paddr: u64) {
        self.step(Op::Load, vaddr, 0, 0);
        self.log.push(self.read(paddr));
    }

    /// While ERL is set useg is unmapped, whatever the TLB holds and is given.
    fn error_level(&mut self) {
        self.step(Op::ErrorLevel, 1, 0, 0);
        for _ in 0..1 + self.random.below(4) {
            let row = self.random.below(3);
            if self.random.chance(50) {
                self.place(row, self.space);
            }
            let vaddr = self.rows[row].vaddr + 8;
            self.direct_load(vaddr, vaddr);
        }
        self.step(Op::ErrorLevel, 0, 0, 0);
    }

    fn random_steps(&mut self, count: usize) {
        self.enter_space(0);
        let wired = self.random.pick(&[4, 40, 50, 58, 60]);
        self.step(Op::Wired, wired, 0, 0);
        for _ in 0..count {
            match self.random.below(100) {
                0..=54 => self.random_access(None),
                55..=64 => {
                    let space = self.random.below(SPACES);
                    self.enter_space(space);
                }
                65..=81 => self.change_row(),
                82..=84 => self.change_space(),
                85..=87 if self.habits.large_pages => self.change_view(),
                88..=90 => self.map_wired(),
                91..=92 => self.unmap_wired(),
                93 => self.read_slot(0),
                94..=95 => self.decoy(),
                96..=97 => self.error_level(),
                98 => {
                    let wired = self.random.pick(&[4, 20, 40, 58, 60]);
                    self.step(Op::Wired, wired, 0, 0);
                }
                _ if self.habits.full_flushes => self.flush_all(),
                _ => self.random_access(None),
            }
        }
        self.step(Op::End, 0, 0, 0);
    }
}

fn initial(paddr: u64) -> u64 {
    (paddr >> 12) * 0x0101_0101
}

/// Everything that is in memory before the guest starts: (physical address, bytes).
fn image(seed: u64, model: &Model, before: &[Row]) -> Vec<(u64, Vec<u8>)> {
    let mut grain = page_grain::RIE | page_grain::XIE;
    grain |= if model.own_codes { page_grain::IEC } else { 0 };
    let program = guest::assemble(&source(before.len(), grain));
    let bytes = |values: &[u64]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let mut table = Vec::new();
    for row in before {
        let vpn2 = if row.is_on { row.vpn2() } else { 1 };
        table.extend([vpn2, row.compared(), row.mask, u64::from(row.is_global)]);
        table.extend(row.lo.iter().flatten());
        table.extend([0; 2]);
    }
    let steps: Vec<u64> = model.steps.iter().flatten().copied().collect();
    assert!(steps.len() as u64 * 8 < LOG_PHYS - STEPS_PHYS, "seed {seed}: too many steps");
    let mut image = vec![
        (PROGRAM_PHYS, program),
        (TABLE_PHYS, bytes(&table)),
        (VARIABLES_PHYS, bytes(&[0; 16])),
        (STEPS_PHYS, bytes(&steps)),
    ];
    let frames_end = LARGE_PHYS + LARGE_FRAMES as u64 * 0x1_0000;
    for paddr in (FRAMES_PHYS..frames_end).step_by(0x1000) {
        let code =
            guest::assemble(&format!("jr ra\n addiu v0, zero, {}\n .dword {}", paddr >> 12, initial(paddr + 8)));
        image.push((paddr, code));
    }
    image
}

const START: u64 = PROGRAM + 0x400;

fn run_bare(image: &[(u64, Vec<u8>)]) -> Vec<u64> {
    let memory = Arc::new(MachineMemory::new(1, RAM_BYTES).unwrap());
    for (paddr, bytes) in image {
        memory.write(MachineAddr(*paddr), bytes);
    }
    let mut cpu = Cpu::new(0, NodeId(0), CpuConfig::guest(), Arc::clone(&memory));
    cpu.regs.pc = START;
    let stop = cpu.run(Cycles(20_000_000));
    assert_eq!(stop, Stop::Wait, "pc {:#x}", cpu.regs.pc);
    let read = |paddr: u64, count: usize| {
        let mut bytes = vec![0; count];
        memory.read(MachineAddr(paddr), &mut bytes);
        guest::dwords(&bytes)
    };
    let end = read(VARIABLES_PHYS + 8, 8)[0];
    read(LOG_PHYS, (end - KSEG0 - LOG_PHYS) as usize)
}

fn run_monitored(image: &[(u64, Vec<u8>)], config: MonitorConfig) -> Vec<u64> {
    let mut monitor = guest::machine(config);
    let vm = guest::create(&mut monitor, RAM_BYTES, 1);
    for (paddr, bytes) in image {
        guest::store(&mut monitor, vm, *paddr, bytes);
    }
    guest::start(&mut monitor, vm, 0, 0, START);
    guest::run_to_halt(&mut monitor, 200_000_000);
    let end = guest::load_dwords(&mut monitor, vm, VARIABLES_PHYS + 8, 1)[0];
    guest::load_dwords(&mut monitor, vm, LOG_PHYS, (end - KSEG0 - LOG_PHYS) as usize / 8)
}

fn compare(seed: u64, who: &str, log: &[u64], model: &Model) {
    let common = log.iter().zip(&model.log).take_while(|(a, b)| a == b).count();
    let around = |log: &[u64]| log[common.saturating_sub(4)..log.len().min(common + 4)].to_vec();
    assert!(
        log == model.log,
        "seed {seed}: {who} differs from the page tables at entry {common} of {}: {:x?} instead of {:x?}",
        model.log.len(),
        around(log),
        around(&model.log),
    );
}

fn check_seed(seed: u64, steps: usize) {
    let mut model = Model::new(seed);
    let before = model.rows.clone();
    model.random_steps(steps);
    let image = image(seed, &model, &before);
    compare(seed, "the bare CPU", &run_bare(&image), &model);
    let shapes = [(64, 0, true), (8, 4, false), (8, 1024, true), (64, 64, true), (32, 256, false)];
    for (tlb_entries, l2tlb_entries, large_pages) in shapes {
        let shape = MonitorConfig { tlb_entries, l2tlb_entries, large_pages, ..guest::config() };
        let config = MonitorConfig { memory_bytes_per_node: 8 << 20, ..shape };
        let who = format!("a second-level TLB of {l2tlb_entries} over {tlb_entries}, large pages: {large_pages}");
        compare(seed, &who, &run_monitored(&image, config), &model);
    }
}

/// One seed or all: `GHOSTS_SEED=17 cargo test --test ghosts` replays a failure.
#[test]
fn no_visible_answer_differs_from_that_of_a_plain_tlb() {
    match std::env::var("GHOSTS_SEED") {
        Ok(seed) => check_seed(seed.parse().expect("a number"), 400),
        Err(_) => (0..300).for_each(|seed| check_seed(seed, 400)),
    }
}
