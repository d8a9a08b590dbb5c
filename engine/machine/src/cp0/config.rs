//! What kind of CPU this is: sizes, optional parts, and the Config registers that tell software.

use super::{config0, config5, status};

/// What kind of CPU this is. One for the hardware, one for what the monitor shows to guests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuConfig {
    /// PRId.
    pub prid: u32,
    /// Entries of the TLB, 1 to 64.
    pub tlb_entries: u8,
    /// Whether Status.KSU can say supervisor, and SX exists.
    pub supervisor_mode: bool,
    /// Config3.SC: SegCtl0 to SegCtl2, with the reach described in `segments`.
    pub segmentation_control: bool,
    /// Config3.CMGCR: CMGCRBase exists.
    pub coherence_manager: bool,
    /// Physical address of the coherence manager's registers, a multiple of 32 KiB.
    pub gcr_base: u64,
    /// Cycles in one tick of Count (CCRes).
    pub clock_divider: u32,
    /// Width of a virtual address within a 64-bit segment. Always 40.
    pub seg_bits: u32,
    /// Width of a physical address, 36 to 40. Above 36, Config3.LPA is set.
    pub pa_bits: u32,
}

/// Both caches: 32 KiB in 8 ways, so that a way is no larger than a page and has no aliases.
const CACHE_WAYS: u32 = 8;
const CACHE_WAY_BYTES: u32 = 4096;
/// Long lines, because a guest executes one CACHE or SYNCI a line. Linux lacks 128-byte variants of some
/// instruction cache routines, so that cache stays at 64.
const ICACHE_LINE_BYTES: u32 = 64;
const DCACHE_LINE_BYTES: u32 = 128;

/// Cacheable, non-coherent in the manual's words: the attribute that every implementation has.
const CCA_CACHEABLE: u32 = 3;

impl CpuConfig {
    /// The CPU of the simulated machine.
    pub fn hardware() -> CpuConfig {
        CpuConfig { supervisor_mode: true, segmentation_control: true, pa_bits: 40, ..CpuConfig::guest() }
    }

    /// The CPU that a guest sees: what Debian's generic MIPS kernel wants, and nothing that costs traps.
    pub fn guest() -> CpuConfig {
        CpuConfig {
            // Company 1, "generic": the one identity without errata code in Linux.
            prid: 0x0001_0000,
            tlb_entries: 64,
            supervisor_mode: false,
            segmentation_control: false,
            coherence_manager: false,
            gcr_base: 0x1fbf_8000,
            clock_divider: 2,
            seg_bits: 40,
            pa_bits: 36,
        }
    }

    /// Asserts that such a CPU can exist.
    pub(super) fn check(&self) {
        assert!((1..=64).contains(&self.tlb_entries), "a TLB has 1 to 64 entries, not {}", self.tlb_entries);
        assert!(self.clock_divider > 0, "Count ticks every 1 or more cycles");
        assert_eq!(self.seg_bits, 40, "segments and TLB are made for SEGBITS = 40");
        assert!((36..=40).contains(&self.pa_bits), "PABITS is 36 to 40, not {}", self.pa_bits);
        assert!(self.gcr_base & 0x7fff == 0 && self.gcr_base < 1 << 36, "GCR base {:#x}", self.gcr_base);
    }

    /// The step that SYNCI loops need (RDHWR 1).
    pub fn synci_step_bytes(&self) -> u32 {
        ICACHE_LINE_BYTES.min(DCACHE_LINE_BYTES)
    }

    /// Bits that can hold an index of a TLB entry.
    pub(super) fn tlb_index_bits(&self) -> u64 {
        u64::from(self.tlb_entries).next_power_of_two() - 1
    }

    /// Status bits that exist. MX, RE and RP do not, nor do coprocessors 2 and 3.
    pub(super) fn status_bits(&self) -> u64 {
        let supervisor = if self.supervisor_mode { status::SX | 1 << status::KSU_SHIFT } else { 0 };
        let always = status::CU1
            | status::CU0
            | status::FR
            | status::PX
            | status::BEV
            | status::TS
            | status::SR
            | status::NMI
            | status::IM_MASK
            | status::KX
            | status::UX
            | 2 << status::KSU_SHIFT
            | status::ERL
            | status::EXL
            | status::IE;
        u64::from(always | supervisor)
    }

    /// PageGrain bits that exist: RIE, XIE and IEC, and ELPA where physical addresses need it.
    pub(super) fn page_grain_bits(&self) -> u64 {
        use super::page_grain::{ELPA, IEC, RIE, XIE};
        u64::from(RIE | XIE | IEC | if self.large_physical() { ELPA } else { 0 })
    }

    pub(super) fn large_physical(&self) -> bool {
        self.pa_bits > 36
    }

    /// Config: M, MIPS64, Release 2, standard TLB, little-endian, KSEG0 cached.
    pub(super) fn config0(&self) -> u64 {
        u64::from(1 << 31 | 2 << 13 | 1 << 10 | 1 << 7 | (CCA_CACHEABLE & config0::K0))
    }

    /// Config1: M, size of the TLB, the caches, FP; no watch registers, counters or EJTAG.
    pub(super) fn config1(&self) -> u64 {
        let mmu_size = u32::from(self.tlb_entries) - 1;
        let icache = cache_geometry(ICACHE_LINE_BYTES);
        let dcache = cache_geometry(DCACHE_LINE_BYTES);
        u64::from(1 << 31 | mmu_size << 25 | icache << 16 | dcache << 7 | 1)
    }

    /// Config2: M; no second-level or third-level cache.
    pub(super) fn config2(&self) -> u64 {
        1 << 31
    }

    /// Config3: M, ULRI, RXI, VInt, and LPA, SC, CMGCR if there.
    pub(super) fn config3(&self) -> u64 {
        let bit = |present: bool, position: u32| u32::from(present) << position;
        let optional =
            bit(self.coherence_manager, 29) | bit(self.segmentation_control, 25) | bit(self.large_physical(), 7);
        u64::from(1 << 31 | 1 << 13 | 1 << 12 | 1 << 5 | optional)
    }

    /// Config4: M where Config5 has a bit, IE = 2 (TLBINV and TLBINVF), KScratch in selects 2 to 7.
    pub(super) fn config4(&self) -> u64 {
        u64::from(u32::from(self.segmentation_control) << 31 | 2 << 29 | 0xfc << 16)
    }

    /// Config5 bits that can be written.
    pub(super) fn config5_bits(&self) -> u64 {
        if self.segmentation_control { u64::from(config5::K) } else { 0 }
    }

    /// CMGCRBase: physical address bits 35:15 in bits 31:11.
    pub(super) fn cmgcr_base(&self) -> u64 {
        if self.coherence_manager { self.gcr_base >> 4 } else { 0 }
    }
}

/// EntryLo bits other than RI and XI, for `physical_bits` bits of address.
pub(super) fn entry_lo_bits(physical_bits: u32) -> u64 {
    // The page frame number starts at bit 6; below it are C, D, V and G.
    (1 << (physical_bits - 12 + 6)) - 1
}

/// The nine bits of sets, line size and associativity that Config1 has for a cache.
fn cache_geometry(line_bytes: u32) -> u32 {
    // Sets are 64 << field, and 7 stands for 32; lines are 2 << field bytes; ways are field + 1.
    let sets = match CACHE_WAY_BYTES / line_bytes {
        32 => 7,
        count => count.ilog2() - 6,
    };
    sets << 6 | (line_bytes.ilog2() - 1) << 3 | (CACHE_WAYS - 1)
}
