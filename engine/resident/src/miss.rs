//! The life of a TLB miss: from a virtual address to an entry in the hardware TLB.
//!
//! 1. The second-level TLB is asked ([`Running::tlb_refill`]). A hit is written to the hardware TLB; the
//!    guest never knows.
//! 2. Otherwise the address is looked at as the guest's CPU would look at it ([`GuestView`]): in a segment that
//!    it does not map, the physical page follows from the address; elsewhere the virtual TLB decides, and what
//!    it does not hold, or forbids, is the guest's to handle.
//! 3. The pmap says what the physical page is. Present: a hardware entry is made of the guest's protection and
//!    the pmap's, and goes into both TLBs, with a backmap. Where the guest maps more than two pages at once and they
//!    lie in one piece, it is an entry of large pages, for the hardware TLB alone ([`crate::blocks`]). Absent, or not to
//!    be written: a page fault, for Python. A device's registers: the access is carried out.
//!
//! Source: Disco (SOSP'97) section 4.2.2; docs/architecture.md, The life of a TLB miss.

use machine::cp0::{Mode, page_grain};
use machine::segments::{self, Segment};
use machine::tlb::entry_lo;
use machine::{
    AccessKind, Asid, BusAccess, Exception, MachineAddr, Mpn, PAGE_BYTES, PAGE_SHIFT, PhysAddr, Ppn, TlbEntry,
    Trap,
};
use mips::Op;

use crate::blocks::RUN_PAGES;
use crate::counters::Cause;
use crate::event::{Event, StopCause};
use crate::l2tlb::{L2Entry, Origin};
use crate::pmap::{Backmap, PageState, PmapRow};
use crate::trap::{Flow, Running};
use crate::vcpu::{PendingAccess, VcpuState};

/// A pair of 4 KiB pages as the guest means it: two physical pages, with the guest's protection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GuestPair {
    /// Address of the pair as the TLB sees it.
    vpn2: u64,
    asid: Asid,
    global: bool,
    origin: Origin,
    /// The physical pages of the even and odd half.
    pages: [Ppn; 2],
    /// EntryLo of each half; only C, D, V, RI and XI count.
    protection: [u64; 2],
    /// The guest's entry around it, if it is not of a segment that the guest does not map.
    entry: Option<TlbEntry>,
}

impl GuestPair {
    /// Bytes around the pair that lie in physical memory as they do virtually: a page of the guest's entry, or the
    /// whole segment.
    fn page_bytes(&self) -> u64 {
        self.entry.map_or(u64::MAX, |entry| entry.page_bytes())
    }

    /// The physical page and the EntryLo of an address near by: in the guest's entry, or in the segment.
    fn neighbour(&self, vaddr: u64) -> (Ppn, u64) {
        match self.entry {
            Some(entry) => (PhysAddr(entry.physical(vaddr)).page(), entry.lo[entry.half(vaddr)]),
            None => {
                let distance = (vaddr.wrapping_sub(self.vpn2) as i64 >> PAGE_SHIFT) as u32;
                (Ppn(self.pages[0].0.wrapping_add(distance)), self.protection[0])
            }
        }
    }
}

/// How the guest's CPU would translate an address.
enum GuestView {
    /// To a page of this pair.
    Pair(GuestPair),
    /// Its TLB has no entry.
    NoEntry,
    /// It raises this exception.
    Fault(Exception),
}

/// Bytes of a pair of the smallest pages.
const PAIR_BYTES: u32 = 2 << PAGE_SHIFT;
/// C field of every entry the monitor makes: cacheable, non-coherent (all memory is coherent here).
const CACHED: u64 = 3 << entry_lo::C_SHIFT;

impl Running<'_> {
    /// No hardware entry matches.
    pub(crate) fn tlb_refill(&mut self, trap: &Trap) -> Flow {
        let (vaddr, access) = address_of(trap.exception);
        let key = segments::tlb_address(vaddr);
        self.start_following(trap, vaddr, access);
        if let Some(way) = self.answer_in_l2tlb(key) {
            self.vcpu.counters.tlb_l2tlb_hits += 1;
            self.charge(self.costs.l2tlb_hit);
            let [even, odd] = self.vcpu.l2tlb.get(way).lo;
            self.note("l2tlb", || vec![("hit", true.into()), ("lo0", even.into()), ("lo1", odd.into())]);
            self.write_from_l2tlb(way, vaddr);
            return Flow::Resume;
        }
        self.charge(self.costs.l2tlb_miss);
        self.note("l2tlb", || vec![("hit", false.into())]);
        self.resolve(trap, vaddr, access)
    }

    /// Answers a refill at once if the second-level TLB can, with the entry at the index that it gives back;
    /// nothing has changed if not.
    pub(crate) fn refill_from_l2tlb(&mut self, vaddr: u64) -> Option<usize> {
        let key = segments::tlb_address(vaddr);
        let way = self.answer_in_l2tlb(key)?;
        self.vcpu.counters.traps += 1;
        self.vcpu.counters.traps_tlb_refill += 1;
        self.vcpu.counters.tlb_l2tlb_hits += 1;
        let is_user = self.vcpu.cp0.mode() == Mode::User;
        self.vcpu.trap.cause = if is_user { Cause::TlbMiss } else { Cause::KernelTlbMiss };
        self.charge(self.costs.trap + self.costs.l2tlb_hit);
        let index = self.write_from_l2tlb(way, vaddr);
        self.vcpu.settle_trap();
        Some(index)
    }

    /// Where the second-level TLB has a valid page at an address as the TLB sees it.
    #[inline(always)]
    fn answer_in_l2tlb(&self, key: u64) -> Option<usize> {
        let l2tlb = &self.vcpu.l2tlb;
        l2tlb.find(key, self.asid()).filter(|way| l2tlb.lo(*way, half_of(key)) & entry_lo::V != 0)
    }

    /// A hardware entry matches but does not allow the access.
    pub(crate) fn tlb_fault(&mut self, trap: &Trap) -> Flow {
        let (vaddr, access) = address_of(trap.exception);
        self.start_following(trap, vaddr, access);
        self.resolve(trap, vaddr, access)
    }

    fn asid(&self) -> Asid {
        Asid(self.vcpu.cp0.entry_hi as u8)
    }

    fn resolve(&mut self, trap: &Trap, vaddr: u64, access: AccessKind) -> Flow {
        match self.guest_view(vaddr, access) {
            GuestView::Pair(pair) => self.map_and_resume(trap, &pair, vaddr, access),
            GuestView::NoEntry => {
                self.drop_ghosts(segments::tlb_address(vaddr));
                self.vcpu.counters.tlb_forwarded += 1;
                self.forward(Exception::TlbRefill { vaddr, access }, trap)
            }
            GuestView::Fault(exception) => {
                match exception {
                    Exception::TlbInvalid { .. } => self.vcpu.counters.tlb_forwarded_invalid += 1,
                    Exception::TlbModified { .. } => self.vcpu.counters.tlb_forwarded_modified += 1,
                    _ => {}
                }
                self.forward(exception, trap)
            }
        }
    }

    fn guest_view(&mut self, vaddr: u64, access: AccessKind) -> GuestView {
        match segments::classify(vaddr, self.vcpu.cp0.mode(), &self.vcpu.cp0) {
            Err(_) => GuestView::Fault(Exception::AddressError { vaddr, access }),
            Ok(Segment::Unmapped { phys, .. }) => {
                self.note("kernel segment", || vec![("paddr", phys.into())]);
                GuestView::Pair(direct_pair(vaddr, phys))
            }
            Ok(Segment::Mapped) => self.virtual_tlb_view(vaddr, access),
        }
    }

    fn virtual_tlb_view(&mut self, vaddr: u64, access: AccessKind) -> GuestView {
        self.charge(self.costs.virtual_tlb_lookup);
        let found = self.vcpu.tlb.find(vaddr, self.asid());
        self.note("virtual tlb", || match found {
            Some(index) => vec![("hit", true.into()), ("index", (index as u64).into())],
            None => vec![("hit", false.into())],
        });
        let Some(index) = found else { return GuestView::NoEntry };
        let entry = *self.vcpu.tlb.get(index);
        match self.guest_verdict(&entry, vaddr, access) {
            Some(exception) => GuestView::Fault(exception),
            None => GuestView::Pair(self.mapped_pair(&entry, vaddr, index)),
        }
    }

    /// The exception that the guest's own protection raises, if any.
    fn guest_verdict(&self, entry: &TlbEntry, vaddr: u64, access: AccessKind) -> Option<Exception> {
        let lo = self.honoured(entry.lo[entry.half(vaddr)]);
        if lo & entry_lo::V == 0 {
            return Some(Exception::TlbInvalid { vaddr, access });
        }
        match access {
            AccessKind::Load if lo & entry_lo::RI != 0 => Some(Exception::TlbReadInhibit { vaddr }),
            AccessKind::Fetch if lo & entry_lo::XI != 0 => Some(Exception::TlbExecuteInhibit { vaddr }),
            AccessKind::Store if lo & entry_lo::D == 0 => Some(Exception::TlbModified { vaddr }),
            _ => None,
        }
    }

    /// EntryLo without the inhibit bits that the guest has not switched on.
    fn honoured(&self, lo: u64) -> u64 {
        let grain = self.vcpu.cp0.page_grain;
        let ri = if grain & page_grain::RIE != 0 { 0 } else { entry_lo::RI };
        let xi = if grain & page_grain::XIE != 0 { 0 } else { entry_lo::XI };
        lo & !(ri | xi)
    }

    /// The 4 KiB pair at `vaddr` of an entry of any page size.
    fn mapped_pair(&self, entry: &TlbEntry, vaddr: u64, index: usize) -> GuestPair {
        let vpn2 = segments::tlb_address(vaddr) & !0x1fff;
        let halves = [vpn2, vpn2 | 0x1000];
        let lo = halves.map(|half| entry.lo[entry.half(half)]);
        let pages = halves.map(|half| PhysAddr(entry.physical(half)).page());
        GuestPair {
            vpn2,
            asid: entry.asid,
            global: entry.global,
            origin: Origin::slot(index),
            pages,
            protection: lo.map(|lo| self.honoured(lo)),
            entry: Some(*entry),
        }
    }

    /// The guest may have the access; the pmap says what the page is.
    fn map_and_resume(&mut self, trap: &Trap, pair: &GuestPair, vaddr: u64, access: AccessKind) -> Flow {
        let half = half_of(pair.vpn2 | (vaddr & 0x1000));
        let page = pair.pages[half];
        let row = self.pmap.row(page);
        if !row.state().has_page() {
            self.note_pmap(page, &row);
        }
        match row.state() {
            PageState::Nothing => self.forward(Exception::BusError { access }, trap),
            PageState::Device => self.device_access(trap, PhysAddr(page.address().0 | (vaddr & 0xfff)), access),
            PageState::Absent => self.page_fault(page, access, false),
            PageState::Private | PageState::Shared if access == AccessKind::Store && row.writable == 0 => {
                self.page_fault(page, access, true)
            }
            PageState::Private | PageState::Shared => {
                if pair.origin.is_guest() {
                    self.vcpu.counters.tlb_virtual_hits += 1;
                } else {
                    self.vcpu.counters.tlb_kernel_segment += 1;
                }
                self.map_pair(pair, vaddr);
                Flow::Resume
            }
        }
    }

    /// Puts a guest's pair, in which `wanted` lies, into the hardware TLB and the second-level TLB, as far as its pages
    /// are present.
    fn map_pair(&mut self, pair: &GuestPair, wanted: u64) {
        if let Some((entry, is_new)) = RUN_PAGES.into_iter().find_map(|pages| self.large_entry(pair, pages)) {
            return self.map_large(&entry, pair.origin, is_new, wanted);
        }
        let lo = [0, 1].map(|half| self.hardware_lo(pair, half));
        if lo[0] | lo[1] == 0 {
            return;
        }
        self.charge(self.costs.map);
        let entry = L2Entry::new(pair.vpn2, pair.asid, pair.global, pair.origin, lo);
        self.vcpu.l2tlb.insert(entry);
        let index = self.cpu.tlb().find(pair.vpn2, pair.asid);
        self.write_hardware(&entry, index, wanted);
    }

    /// An entry of pages of that size around a pair, if the guest maps it all and both pages are runs; and whether such an
    /// entry is new for a part of them.
    fn large_entry(&mut self, pair: &GuestPair, pages: u32) -> Option<(TlbEntry, bool)> {
        let bytes = u64::from(pages) << PAGE_SHIFT;
        if pair.page_bytes() < bytes {
            return None;
        }
        let vpn2 = pair.vpn2 & !(2 * bytes - 1);
        let mut lo = [0; 2];
        for (lo, vaddr) in lo.iter_mut().zip([vpn2, vpn2 + bytes]) {
            let (first, protection) = pair.neighbour(vaddr);
            let run = self.pmap.run(first, pages).filter(|_| protection & entry_lo::V != 0)?;
            *lo = merged(run.mpn, self.honoured(protection), run.writable);
        }
        let mut is_new = false;
        for vaddr in [vpn2, vpn2 + bytes] {
            let (first, _) = pair.neighbour(vaddr);
            is_new |= self.pmap.record_run(first, pages);
            self.note_run(first, pages);
        }
        let page_mask = (2 * bytes) as u32 - PAIR_BYTES;
        Some((TlbEntry { vpn2, asid: pair.asid, global: pair.global, page_mask, lo, hidden: false }, is_new))
    }

    /// Puts an entry of large pages into the hardware TLB, in place of all smaller ones. When it is new, the smaller
    /// ones of the second-level TLB go too, or they would be found first for ever; under another address some may be
    /// left, which are as good.
    fn map_large(&mut self, entry: &TlbEntry, origin: Origin, is_new: bool, wanted: u64) {
        self.charge(self.costs.map_large);
        self.vcpu.counters.tlb_large += 1;
        if is_new {
            let bytes = 2 * entry.page_bytes();
            self.charge(self.costs.l2tlb_miss * (bytes / u64::from(PAIR_BYTES)));
            self.vcpu.l2tlb.shoot_down_range(entry.vpn2, bytes);
        }
        while let Some(index) = self.cpu.tlb().find_overlap(entry, usize::MAX) {
            self.cpu.tlb_invalidate(index);
        }
        self.write_entry(*entry, origin, None, wanted);
    }

    /// Hardware EntryLo of one half: the guest's protection and the pmap's, merged. 0: not to be used.
    fn hardware_lo(&mut self, pair: &GuestPair, half: usize) -> u64 {
        let protection = pair.protection[half];
        let row = self.pmap.row(pair.pages[half]);
        if protection & entry_lo::V == 0 || !row.state().has_page() {
            return 0;
        }
        self.note_pmap(pair.pages[half], &row);
        let vaddr = pair.vpn2 | (half as u64) << PAGE_SHIFT;
        self.pmap.record(pair.pages[half], Backmap::new(vaddr, pair.asid, pair.global));
        merged(Mpn(row.mpn), protection, row.writable != 0)
    }

    /// Writes the entry at a place in the second-level TLB for an address that no hardware entry matches. Where.
    #[inline(always)]
    fn write_from_l2tlb(&mut self, way: usize, wanted: u64) -> usize {
        let page = entry_lo::address(self.vcpu.l2tlb.lo(way, half_of(wanted)));
        self.cpu.memory().prefetch(MachineAddr(page | (wanted & (PAGE_BYTES - 1))));
        let index = self.next_victim();
        let L2Entry { vpn2, asid, global, lo, origin } = self.vcpu.l2tlb.get(way);
        self.cpu.tlb_write_apart(index, vpn2, asid, global, lo);
        self.shadow.origins[index] = origin;
        self.note_insert(index);
        index
    }

    /// The oldest hardware entry.
    #[inline]
    fn next_victim(&mut self) -> usize {
        let victim = self.shadow.next_victim;
        self.shadow.next_victim = if victim + 1 == self.cpu.tlb().len() { 0 } else { victim + 1 };
        victim
    }

    /// Writes a hardware entry of the second-level TLB's. Where.
    fn write_hardware(&mut self, entry: &L2Entry, index: Option<usize>, wanted: u64) -> usize {
        let L2Entry { vpn2, asid, global, lo, .. } = *entry;
        let entry_of_tlb = TlbEntry { vpn2, asid, global, page_mask: 0, lo, hidden: false };
        self.write_entry(entry_of_tlb, entry.origin, index, wanted)
    }

    /// Writes a hardware entry, at `index` if the pair is there already, else in place of the oldest. Where.
    ///
    /// The access to `wanted` comes next, and who misses the TLB misses the host's caches too: they fetch it meanwhile.
    fn write_entry(&mut self, entry: TlbEntry, origin: Origin, index: Option<usize>, wanted: u64) -> usize {
        self.cpu.memory().prefetch(MachineAddr(entry.physical(wanted)));
        let index = index.unwrap_or_else(|| self.next_victim());
        let written = self.cpu.tlb_write(index, entry);
        assert!(written.is_ok(), "two hardware entries for {:#x}: {written:?}", entry.vpn2);
        self.shadow.origins[index] = origin;
        self.note_insert(index);
        index
    }

    fn note_insert(&mut self, index: usize) {
        if self.vcpu.follower.is_none() {
            return;
        }
        let entry = *self.cpu.tlb().get(index);
        self.note("insert", || {
            vec![
                ("index", (index as u64).into()),
                ("vpn2", entry.vpn2.into()),
                ("asid", u64::from(entry.asid.0).into()),
                ("global", entry.global.into()),
                ("lo0", entry.lo[0].into()),
                ("lo1", entry.lo[1].into()),
                ("page_bytes", entry.page_bytes().into()),
            ]
        });
    }

    /// The guest wrote slot `index` of its TLB: nothing older may answer for that address, and the new entry is
    /// ready in the hardware (SOSP'97: the emulated TLB write is what inserts).
    pub(crate) fn virtual_tlb_written(&mut self, index: usize, old: &TlbEntry, is_blind: bool) {
        let entry = *self.vcpu.tlb.get(index);
        if !is_blind || old.page_mask != 0 {
            self.drop_slot_ghosts(index);
        }
        if entry.hidden {
            return;
        }
        let segment = segments::classify(sign_extended(entry.vpn2), Mode::Kernel, &self.vcpu.cp0);
        if matches!(segment, Ok(Segment::Unmapped { .. })) {
            // Nobody asks the TLB there: what software writes to make an entry harmless.
            return;
        }
        // Of large pages, what the handler was called for is likely to be wanted.
        let wanted = self.vcpu.cp0.bad_vaddr;
        let is_inside = entry.matches(segments::tlb_address(wanted), entry.asid);
        let vaddr = if is_inside { wanted } else { sign_extended(entry.vpn2) };
        let pair = self.mapped_pair(&entry, vaddr, index);
        pair.pages.iter().for_each(|page| self.pmap.prefetch(*page));
        self.drop_overlapping(&entry);
        if segment == Ok(Segment::Mapped) {
            self.map_pair(&pair, vaddr);
        }
    }

    /// Drops what is cached of slot `index` of the guest's TLB, now and before.
    pub(crate) fn drop_slot_ghosts(&mut self, index: usize) {
        self.vcpu.l2tlb.drop_slot(index);
        self.hardware_drop(|origin| origin == Origin::slot(index));
    }

    /// Drops ghosts that would answer for the address of a new entry.
    fn drop_overlapping(&mut self, entry: &TlbEntry) {
        let asid = (!entry.global).then_some(entry.asid);
        self.vcpu.l2tlb.drop_range(entry.vpn2, 2 * entry.page_bytes(), asid);
        while let Some(index) = self.cpu.tlb().find_overlap(entry, usize::MAX) {
            self.cpu.tlb_invalidate(index);
        }
    }

    /// Drops what the guest would find gone at this address in its current address space.
    pub(crate) fn drop_ghosts(&mut self, key: u64) {
        let asid = self.asid();
        self.vcpu.counters.tlb_l2tlb_dropped += self.vcpu.l2tlb.drop_pair(key, Some(asid));
        if let Some(index) = self.cpu.tlb().find(key, asid) {
            self.cpu.tlb_invalidate(index);
        }
    }

    fn page_fault(&mut self, page: Ppn, access: AccessKind, protected: bool) -> Flow {
        if protected {
            self.vcpu.counters.page_faults_protected += 1;
        } else {
            self.vcpu.counters.page_faults_absent += 1;
        }
        self.vcpu.trap.cause = Cause::PageFault;
        self.charge(self.costs.page_fault);
        self.note("page fault", || vec![("ppn", u64::from(page.0).into()), ("protected", protected.into())]);
        if !protected && self.place_from_reserve(page) {
            return Flow::Resume;
        }
        self.vcpu.state = VcpuState::Faulted(page);
        let cpu = &self.cpu;
        self.events.push(Event::PageFault {
            vm: self.vm,
            vcpu: self.vcpu_index,
            cpu: cpu.id,
            node: cpu.node,
            page,
            store: access == AccessKind::Store,
            protected,
            cycle: cpu.now,
        });
        Flow::Leave
    }

    /// Gives the guest a page that was decided on in advance. The access is tried again, as after a decision.
    fn place_from_reserve(&mut self, page: Ppn) -> bool {
        let Some(mpn) = self.reserve.take(self.cpu.node, page) else { return false };
        self.pmap.set_page(page, mpn, PageState::Private, true);
        self.charge(self.costs.page_zero);
        true
    }

    fn device_access(&mut self, trap: &Trap, paddr: PhysAddr, kind: AccessKind) -> Flow {
        let Some(access) = self.cpu.bus_access(trap, paddr.0) else {
            // CACHE and PREF name an address but access nothing; a fetch or LL has no business here.
            return match trap.insn.op {
                Op::Cache | Op::Pref | Op::Prefx | Op::Synci => {
                    self.skip_to(trap.next_pc);
                    Flow::Resume
                }
                _ if kind == AccessKind::Fetch => self.stop(StopCause::FetchFromDevice),
                _ => self.forward(Exception::BusError { access: kind }, trap),
            };
        };
        self.vcpu.trap.cause = Cause::Device;
        self.charge(self.costs.device_access);
        if let Some(answer) = self.platform_register(&access) {
            self.complete_access(&access, answer);
            return if self.vcpu.state == VcpuState::Ready { Flow::Resume } else { Flow::Leave };
        }
        if let Some(answer) = self.answer_without_trip(&access) {
            self.complete_access(&access, answer);
            return Flow::Resume;
        }
        self.vcpu.counters.device_accesses += 1;
        self.vcpu.state = VcpuState::Accessing(PendingAccess { access, answer: None });
        let cpu = &self.cpu;
        self.events.push(Event::DeviceAccess {
            vm: self.vm,
            vcpu: self.vcpu_index,
            cpu: cpu.id,
            paddr: PhysAddr(access.address),
            size: access.bytes,
            store: access.store,
            value: access.value,
            cycle: cpu.now,
        });
        Flow::Leave
    }

    /// What a register of the multiprocessor platform answers. A vCPU may switch itself off.
    fn platform_register(&mut self, access: &BusAccess) -> Option<u64> {
        let smp = self.smp.as_mut()?;
        let answer = smp.access(self.vcpu_index, access)?;
        self.vcpu.set_lines(smp.gic.lines(self.vcpu_index as usize));
        if smp.stops(self.vcpu_index) {
            self.vcpu.state = VcpuState::Off;
        }
        Some(answer)
    }

    /// What a latched or posted register answers.
    fn answer_without_trip(&mut self, access: &BusAccess) -> Option<u64> {
        let answer = self.windows.answer(access, self.cpu.now)?;
        match (answer.level, self.smp.as_mut()) {
            (Some(level), Some(smp)) => {
                smp.gic.set_wire(level.line.into(), level.is_high);
                self.vcpu.set_lines(smp.gic.lines(self.vcpu_index as usize));
            }
            (Some(level), None) => self.vcpu.set_line(level.line, level.is_high),
            (None, _) => {}
        }
        if access.store {
            self.vcpu.counters.device_posted += 1;
        } else {
            self.vcpu.counters.device_latched += 1;
        }
        Some(answer.value)
    }

    /// Carries out a device access whose answer is known.
    pub(crate) fn complete_access(&mut self, access: &BusAccess, answer: u64) {
        let cpu = &mut self.cpu;
        if access.store {
            cpu.complete_bus_store(access);
        } else {
            cpu.complete_bus_load(access, answer);
        }
        self.vcpu.counters.instructions += 1;
        self.vcpu.counters.cycles_kernel += 1;
    }

    fn note_pmap(&mut self, page: Ppn, row: &PmapRow) {
        self.note("pmap", || {
            vec![
                ("ppn", u64::from(page.0).into()),
                ("state", state_name(row.state()).into()),
                ("mpn", u64::from(row.mpn).into()),
                ("writable", (row.writable != 0).into()),
            ]
        });
    }

    fn note_run(&mut self, first: Ppn, pages: u32) {
        let Some(run) = self.pmap.run(first, pages).filter(|_| self.vcpu.follower.is_some()) else { return };
        self.note("run", || {
            vec![
                ("ppn", u64::from(first.0).into()),
                ("pages", u64::from(pages).into()),
                ("mpn", u64::from(run.mpn.0).into()),
                ("writable", run.writable.into()),
            ]
        });
    }

    fn start_following(&mut self, trap: &Trap, vaddr: u64, access: AccessKind) {
        let Some(follower) = &mut self.vcpu.follower else { return };
        follower.miss(trap.pc);
        let word = trap.word;
        let (cpu, node) = (u64::from(self.cpu.id), u64::from(self.cpu.node.0));
        let asid = u64::from(self.vcpu.cp0.entry_hi as u8);
        let kernel = self.vcpu.cp0.mode() == machine::cp0::Mode::Kernel;
        self.note("miss", || {
            vec![
                ("vaddr", vaddr.into()),
                ("access", access_name(access).into()),
                ("pc", trap.insn_pc().into()),
                ("in_delay_slot", trap.in_delay_slot.into()),
                ("word", u64::from(word).into()),
                ("asid", asid.into()),
                ("mode", if kernel { "kernel" } else { "user" }.into()),
                ("cpu", cpu.into()),
                ("node", node.into()),
            ]
        });
    }
}

/// EntryLo of machine pages from `mpn` on: the guest's protection and the pmap's, merged.
fn merged(mpn: Mpn, protection: u64, writable: bool) -> u64 {
    let dirty = if writable { protection & entry_lo::D } else { 0 };
    let inhibit = protection & (entry_lo::RI | entry_lo::XI);
    entry_lo::frame(mpn.address().0) | CACHED | entry_lo::V | dirty | inhibit
}

/// The pair of a segment that the guest does not map.
fn direct_pair(vaddr: u64, phys: u64) -> GuestPair {
    let even = Ppn(((phys >> PAGE_SHIFT) & !1) as u32);
    let protection = entry_lo::V | entry_lo::D;
    GuestPair {
        vpn2: segments::tlb_address(vaddr) & !0x1fff,
        asid: Asid(0),
        global: true,
        origin: Origin::KERNEL,
        pages: [even, Ppn(even.0 | 1)],
        protection: [protection; 2],
        entry: None,
    }
}

fn address_of(exception: Exception) -> (u64, AccessKind) {
    match exception {
        Exception::TlbRefill { vaddr, access } | Exception::TlbInvalid { vaddr, access } => (vaddr, access),
        Exception::TlbModified { vaddr } => (vaddr, AccessKind::Store),
        Exception::TlbReadInhibit { vaddr } => (vaddr, AccessKind::Load),
        Exception::TlbExecuteInhibit { vaddr } => (vaddr, AccessKind::Fetch),
        other => unreachable!("{other:?} is no TLB exception"),
    }
}

/// The address that a VPN2 stands for: the 32-bit kernel segments repeat their sign above bit 39.
fn sign_extended(vpn2: u64) -> u64 {
    const COMPATIBILITY: u64 = 3 << 62 | 0x1ff << 31;
    if vpn2 & COMPATIBILITY == COMPATIBILITY { vpn2 | 0x3fff_ff00_0000_0000 } else { vpn2 }
}

fn half_of(vaddr: u64) -> usize {
    ((vaddr >> PAGE_SHIFT) & 1) as usize
}

fn access_name(access: AccessKind) -> &'static str {
    match access {
        AccessKind::Fetch => "fetch",
        AccessKind::Load => "load",
        AccessKind::Store => "store",
    }
}

/// The pmap's word for a state.
pub fn state_name(state: PageState) -> &'static str {
    match state {
        PageState::Nothing => "nothing",
        PageState::Absent => "absent",
        PageState::Private => "private",
        PageState::Shared => "shared",
        PageState::Device => "device",
    }
}

/// The machine page that a hardware EntryLo names.
pub fn machine_page(lo: u64) -> Mpn {
    MachineAddr(entry_lo::address(lo)).page()
}
