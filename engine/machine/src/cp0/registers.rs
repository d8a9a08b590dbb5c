//! The table of CP0 registers: one row each, from which reads, writes, reset and names derive.

use super::{Cp0, CpuConfig, cause, config, config0, entry_hi, int_ctl, page_mask, sign_extend};
use crate::segments;

/// A row of the table.
#[derive(Debug)]
pub struct Register {
    /// The manual's name.
    pub name: &'static str,
    /// Register number.
    pub number: u8,
    /// Select.
    pub select: u8,
    /// 32 or 64.
    pub width_bits: u32,
    /// Bits that MTC0 and DMTC0 can change.
    pub writable: fn(&CpuConfig) -> u64,
    /// Value after reset; zero where the manual leaves it undefined.
    pub reset: fn(&CpuConfig) -> u64,
}

impl Register {
    /// The row of `number` and `select`, if such a register exists on some CPU of ours.
    pub fn find(number: u8, select: u8) -> Option<&'static Register> {
        REGISTERS.iter().find(|row| (row.number, row.select) == (number, select))
    }
}

macro_rules! registers {
    ($($constant:ident ($number:literal, $select:literal) $name:literal $width:tt [$($place:tt)*]
        $writable:expr, $reset:expr;)*) => {
        /// Number and select of each register, by its manual name.
        pub mod register {
            $(#[doc = $name] pub const $constant: (u8, u8) = ($number, $select);)*
        }

        /// All registers that some CPU of ours has, in order of number and select.
        pub static REGISTERS: &[Register] = &[$(Register {
            name: $name,
            number: $number,
            select: $select,
            width_bits: $width,
            writable: $writable,
            reset: $reset,
        }),*];

        impl Cp0 {
            /// The register as stored; a constant one comes from its reset column.
            pub(super) fn stored(&self, number: u8, select: u8) -> u64 {
                match (number, select) {
                    $(($number, $select) => registers!(@load self $width $reset, $($place)*),)*
                    _ => 0,
                }
            }

            /// Replaces all of the register, unless it is constant.
            pub(super) fn store(&mut self, number: u8, select: u8, value: u64) {
                match (number, select) {
                    $(($number, $select) => registers!(@store self value $width $($place)*),)*
                    _ => (),
                }
            }

            /// Bits that software can change on this CPU.
            pub(super) fn writable(&self, number: u8, select: u8) -> u64 {
                let bits: fn(&CpuConfig) -> u64 = match (number, select) {
                    $(($number, $select) => $writable,)*
                    _ => none,
                };
                bits(&self.config)
            }
        }
    };
    (@load $cp0:ident 32 $reset:expr,) => { sign_extend(registers!(@load $cp0 64 $reset,) as u32) };
    (@load $cp0:ident 64 $reset:expr,) => {{
        let constant: fn(&CpuConfig) -> u64 = $reset;
        constant(&$cp0.config)
    }};
    (@load $cp0:ident 32 $reset:expr, $($place:tt)+) => { sign_extend($cp0.$($place)+) };
    (@load $cp0:ident 64 $reset:expr, $($place:tt)+) => { $cp0.$($place)+ };
    (@store $cp0:ident $value:ident $width:tt) => { () };
    (@store $cp0:ident $value:ident 32 $($place:tt)+) => { $cp0.$($place)+ = $value as u32 };
    (@store $cp0:ident $value:ident 64 $($place:tt)+) => { $cp0.$($place)+ = $value };
}

fn none(_: &CpuConfig) -> u64 {
    0
}

fn all(_: &CpuConfig) -> u64 {
    u64::MAX
}

// Context.PTEBase; BadVPN2 below it is the CPU's.
const CONTEXT_PTE_BASE: u64 = !0 << 23;
// XContext.PTEBase; R and BadVPN2 (27 bits for SEGBITS = 40) below it are the CPU's.
const XCONTEXT_PTE_BASE: u64 = !0 << 33;
// HWREna: CPUNum, SYNCI_Step, CC, CCRes and UserLocal.
const HWRENA: u64 = 0x2000_000f;
// EBase: bits 29:12; 31:30 are always binary 10, there is no WG.
const EBASE: u64 = 0x3fff_f000;
const EBASE_RESET: u64 = 0x8000_0000;
// Software interrupts, IV and DC.
const CAUSE: u64 = 3 << cause::IP_SHIFT | cause::IV as u64 | cause::DC as u64;
// IPTI and IPPCI.
const INT_CTL_LINES: u64 = 7 << int_ctl::IPTI_SHIFT | 7 << int_ctl::IPPCI_SHIFT;
const STATUS_RESET: u64 = (super::status::BEV | super::status::ERL) as u64;
const ENTRY_HI: u64 = entry_hi::R | entry_hi::VPN2 | entry_hi::EHINV | entry_hi::ASID;
// EntryLo.RI and XI; PageGrain decides at the time of the write.
const ENTRY_LO_INHIBITS: u64 = 3 << 62;

fn entry_lo_bits(config: &CpuConfig) -> u64 {
    config::entry_lo_bits(config.pa_bits) | ENTRY_LO_INHIBITS
}

registers! {
//  constant      select    name         bits [field]         writable bits                            at reset
    INDEX         (0, 0)    "Index"        32 [index]         |c| c.tlb_index_bits(),                  none;
    RANDOM        (1, 0)    "Random"       32 [random]        none,                                    |c| u64::from(c.tlb_entries) - 1;
    ENTRY_LO0     (2, 0)    "EntryLo0"     64 [entry_lo[0]]   |c| entry_lo_bits(c),                    none;
    ENTRY_LO1     (3, 0)    "EntryLo1"     64 [entry_lo[1]]   |c| entry_lo_bits(c),                    none;
    CONTEXT       (4, 0)    "Context"      64 [context]       |_| CONTEXT_PTE_BASE,                    none;
    USER_LOCAL    (4, 2)    "UserLocal"    64 [user_local]    all,                                     none;
    PAGE_MASK     (5, 0)    "PageMask"     32 [page_mask]     |_| u64::from(page_mask::MASK),          none;
    PAGE_GRAIN    (5, 1)    "PageGrain"    32 [page_grain]    |c| c.page_grain_bits(),                 none;
    SEG_CTL0      (5, 2)    "SegCtl0"      64 [seg_ctl[0]]    |c| segments::writable(c, 0),            |c| segments::at_reset(c, 0);
    SEG_CTL1      (5, 3)    "SegCtl1"      64 [seg_ctl[1]]    |c| segments::writable(c, 1),            |c| segments::at_reset(c, 1);
    SEG_CTL2      (5, 4)    "SegCtl2"      64 [seg_ctl[2]]    |c| segments::writable(c, 2),            |c| segments::at_reset(c, 2);
    WIRED         (6, 0)    "Wired"        32 [wired]         |c| c.tlb_index_bits(),                  none;
    HWRENA        (7, 0)    "HWREna"       32 [hwrena]        |_| HWRENA,                              none;
    BAD_VADDR     (8, 0)    "BadVAddr"     64 [bad_vaddr]     none,                                    none;
    COUNT         (9, 0)    "Count"        32 []              all,                                     none;
    ENTRY_HI      (10, 0)   "EntryHi"      64 [entry_hi]      |_| ENTRY_HI,                            none;
    COMPARE       (11, 0)   "Compare"      32 [compare]       all,                                     none;
    STATUS        (12, 0)   "Status"       32 [status]        |c| c.status_bits(),                     |_| STATUS_RESET;
    INT_CTL       (12, 1)   "IntCtl"       32 [int_ctl]       |_| u64::from(int_ctl::VS_MASK),         |_| INT_CTL_LINES;
    SRS_CTL       (12, 2)   "SRSCtl"       32 []              none,                                    none;
    CAUSE         (13, 0)   "Cause"        32 [cause]         |_| CAUSE,                               none;
    EPC           (14, 0)   "EPC"          64 [epc]           all,                                     none;
    PRID          (15, 0)   "PRId"         32 []              none,                                    |c| u64::from(c.prid);
    EBASE         (15, 1)   "EBase"        32 [ebase]         |_| EBASE,                               |_| EBASE_RESET;
    CMGCR_BASE    (15, 3)   "CMGCRBase"    64 []              none,                                    |c| c.cmgcr_base();
    CONFIG        (16, 0)   "Config"       32 [config0]       |_| u64::from(config0::K0),              |c| c.config0();
    CONFIG1       (16, 1)   "Config1"      32 []              none,                                    |c| c.config1();
    CONFIG2       (16, 2)   "Config2"      32 []              none,                                    |c| c.config2();
    CONFIG3       (16, 3)   "Config3"      32 []              none,                                    |c| c.config3();
    CONFIG4       (16, 4)   "Config4"      32 []              none,                                    |c| c.config4();
    CONFIG5       (16, 5)   "Config5"      32 [config5]       |c| c.config5_bits(),                    none;
    LL_ADDR       (17, 0)   "LLAddr"       64 [ll_addr]       none,                                    none;
    XCONTEXT      (20, 0)   "XContext"     64 [xcontext]      |_| XCONTEXT_PTE_BASE,                   none;
    ERROR_EPC     (30, 0)   "ErrorEPC"     64 [error_epc]     all,                                     none;
    KSCRATCH1     (31, 2)   "KScratch1"    64 [kscratch[0]]   all,                                     none;
    KSCRATCH2     (31, 3)   "KScratch2"    64 [kscratch[1]]   all,                                     none;
    KSCRATCH3     (31, 4)   "KScratch3"    64 [kscratch[2]]   all,                                     none;
    KSCRATCH4     (31, 5)   "KScratch4"    64 [kscratch[3]]   all,                                     none;
    KSCRATCH5     (31, 6)   "KScratch5"    64 [kscratch[4]]   all,                                     none;
    KSCRATCH6     (31, 7)   "KScratch6"    64 [kscratch[5]]   all,                                     none;
}
