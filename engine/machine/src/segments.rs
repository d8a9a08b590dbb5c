//! Segments: which way a virtual address goes before any TLB is asked.
//!
//! ```text
//! 32-bit compatibility (addresses whose bits 63:31 are equal), each governed by a CFG field of SegCtl0-2
//!   CFG0  ffffffff_e0000000  kseg3           CFG3  ffffffff_80000000  kseg0
//!   CFG1  ffffffff_c0000000  sseg/ksseg      CFG4  00000000_40000000  useg, upper half
//!   CFG2  ffffffff_a0000000  kseg1           CFG5  00000000_00000000  useg, lower half
//! 64-bit, SEGBITS = 40
//!   xkseg   c0000000_00000000 .. c00000ff_7fffffff   mapped; SegCtl0.KAM
//!   xkphys  80000000_00000000 .. bfffffff_ffffffff   unmapped unless SegCtl2.XR; then SegCtl1.XAM
//!   xsseg   40000000_00000000 .. 400000ff_ffffffff   mapped; Status.SX
//!   xuseg   00000000_00000000 .. 000000ff_ffffffff   mapped; Status.UX
//! ```
//!
//! # Segmentation control
//! Release 3 gives each 32-bit segment an access mode (AM: who may use it, and who goes through the
//! TLB), a cache attribute (C), physical address bits for when it is unmapped (PA), and EU (unmapped and
//! uncached while Status.ERL is set). A CPU without `segmentation_control` behaves by the reset values,
//! which are the classic segments; so there is one path through this file.
//!
//! ```text
//!           63:62  61:59  58:56   31:25  22:20  19   18:16   15:9  6:4  3    2:0
//! SegCtl0     0     KAM     0      PA1    AM1   EU1   C1      PA0  AM0  EU0  C0
//! SegCtl1     0     XAM     0      PA3    AM3   EU3   C3      PA2  AM2  EU2  C2
//! SegCtl2   [        XR      ]     PA5    AM5   EU5   C5      PA4  AM4  EU4  C4
//! ```
//!
//! XR and XAM are Release 3's own: bit n of XR puts the XKPHYS region with cache attribute n under the
//! access mode XAM. **Our extension** is KAM, which does for XKSEG what XAM does for XKPHYS. It exists
//! because a guest kernel that runs in supervisor mode must find *every* kernel segment mapped and open
//! to it, and Release 3 leaves XKSEG to kernel mode. Its place mirrors XAM, in bits that Release 3
//! reserves; it resets to MK, which is what real hardware does, so software that does not know it sees
//! no difference.
//!
//! An access mode of a 64-bit segment counts only with Status.KX, SX or UX, whichever belongs to the
//! least privileged mode that AM lets in (so MSK asks for SX).
//!
//! A mapped XKPHYS address has R = 2 and VPN2 = bits 39:13; the cache attribute in bits 61:59 takes no
//! part in the match ([`tlb_address`]), so the eight regions are eight names of one. Bits 58:PABITS must
//! be zero, as for an unmapped one.
//!
//! # Other differences from real hardware
//! - The unmapped useg of Status.ERL is 2^31 bytes; xuseg above it stays mapped. (The manual says 2^29
//!   in one place and 2^31 in another.)
//! - The reserved access mode 6 is UK.
//! - Config5 has K but not CV (the vector base of exceptions follows EBase) and not EVA.
//! - A CPU without supervisor mode has SX = 0, so xsseg is an address error; ksseg is a kernel segment.
//!
//! Source: MIPS64 PRA vol. III, "Virtual Memory", and Release 3, "Segmentation Control".

use crate::cp0::{Cp0, CpuConfig, Mode, config0, config5, status};

/// Which way an address goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Through the TLB, as [`tlb_address`].
    Mapped,
    /// To a physical address that follows from the virtual one.
    Unmapped {
        /// The physical address.
        phys: u64,
        /// Whether caches keep it.
        cacheable: bool,
    },
}

/// The mode may not use the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressError;

/// Who may use a segment, and for whom it is mapped: K kernel, S supervisor, U user, M mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum AccessMode {
    /// Kernel only, unmapped.
    Uk = 0,
    /// Kernel only, mapped.
    Mk = 1,
    /// Supervisor and kernel, mapped.
    Msk = 2,
    /// All, mapped.
    Musk = 3,
    /// All, mapped for user and supervisor, unmapped for the kernel.
    Musuk = 4,
    /// Supervisor and kernel, unmapped.
    Usk = 5,
    /// All, unmapped.
    Uusk = 7,
}

const XKPHYS_CCA_SHIFT: u32 = 59;
const XKPHYS_CCA: u64 = 7 << XKPHYS_CCA_SHIFT;
/// Cache attributes that bypass the caches: uncached, and uncached accelerated.
const UNCACHED: u8 = 1 << 2 | 1 << 7;

/// A segment of the 64-bit space without bits 63:62 has this size. PABITS is at most SEGBITS.
const XSEGMENT_BYTES: u64 = 1 << 40;
/// XKSEG ends below what would be the 32-bit segments.
const XKSEG_BYTES: u64 = XSEGMENT_BYTES - (1 << 31);

/// Where AM starts in SegCtl0.KAM and SegCtl1.XAM; where XR starts in SegCtl2.
const EXTENDED_AM_SHIFT: u32 = 59;
const XR_SHIFT: u32 = 56;

/// A CFG half of a SegCtl register.
#[derive(Clone, Copy)]
struct Cfg(u16);

impl Cfg {
    const AM_SHIFT: u32 = 4;
    const EU: u16 = 1 << 3;
    const PA_SHIFT: u32 = 9;
    const WRITABLE: Cfg = Cfg(0xfe7f);
    /// Of a segment of 1 GiB, whose lowest PA bit is part of the offset.
    const WRITABLE_1_GIB: Cfg = Cfg(0xfc7f);

    const fn new(access_mode: AccessMode, cache_attribute: u16, pa: u16, eu: bool) -> Cfg {
        let eu = if eu { Cfg::EU } else { 0 };
        Cfg((access_mode as u16) << Cfg::AM_SHIFT | cache_attribute | pa << Cfg::PA_SHIFT | eu)
    }

    /// Number `index` (0 to 5) of the three registers.
    fn of(seg_ctl: &[u64; 3], index: usize) -> Cfg {
        Cfg((seg_ctl[index / 2] >> (16 * (index % 2))) as u16)
    }

    fn access_mode(self) -> AccessMode {
        AccessMode::from_field(self.0 >> Cfg::AM_SHIFT)
    }

    fn cache_attribute(self) -> u8 {
        (self.0 & 7) as u8
    }

    fn is_unmapped_on_error_level(self) -> bool {
        self.0 & Cfg::EU != 0
    }

    /// Physical address of the 512 MiB that the segment starts with.
    fn base(self) -> u64 {
        u64::from(self.0 >> Cfg::PA_SHIFT) << 29
    }
}

const fn seg_ctl(high: Cfg, low: Cfg, top: u64) -> u64 {
    top | (high.0 as u64) << 16 | low.0 as u64
}

/// The classic segments.
const CLASSIC: [u64; 3] = [
    seg_ctl(
        Cfg::new(AccessMode::Msk, 0, 0, false),
        Cfg::new(AccessMode::Mk, 0, 0, false),
        (AccessMode::Mk as u64) << EXTENDED_AM_SHIFT,
    ),
    seg_ctl(Cfg::new(AccessMode::Uk, 3, 0, false), Cfg::new(AccessMode::Uk, 2, 0, false), 0),
    seg_ctl(Cfg::new(AccessMode::Musk, 2, 0, true), Cfg::new(AccessMode::Musk, 2, 2, true), 0),
];

/// SegCtl0 to SegCtl2 under the monitor: every kernel segment, XKPHYS and XKSEG included, is mapped for
/// supervisor and kernel mode, and user segments are mapped for all, also while ERL is set.
pub fn monitor_segments() -> [u64; 3] {
    let kernel = Cfg::new(AccessMode::Msk, 3, 0, false);
    let user = Cfg::new(AccessMode::Musk, 3, 0, false);
    let extended = (AccessMode::Msk as u64) << EXTENDED_AM_SHIFT;
    [seg_ctl(kernel, kernel, extended), seg_ctl(kernel, kernel, extended), seg_ctl(user, user, 0xff << XR_SHIFT)]
}

/// Writable bits of SegCtl register `index`.
pub(crate) fn writable(config: &CpuConfig, index: usize) -> u64 {
    let (cfg, top) = match index {
        2 => (Cfg::WRITABLE_1_GIB, 0xff << XR_SHIFT),
        _ => (Cfg::WRITABLE, 7 << EXTENDED_AM_SHIFT),
    };
    if config.segmentation_control { seg_ctl(cfg, cfg, top) } else { 0 }
}

/// Reset value of SegCtl register `index`.
pub(crate) fn at_reset(config: &CpuConfig, index: usize) -> u64 {
    if config.segmentation_control { CLASSIC[index] } else { 0 }
}

/// The name by which the TLB knows a mapped address: XKPHYS without its cache attribute.
#[inline]
pub fn tlb_address(vaddr: u64) -> u64 {
    if vaddr >> 62 == 2 { vaddr & !XKPHYS_CCA } else { vaddr }
}

/// Which way an address goes in the given mode, before any TLB.
///
/// # Errors
/// The mode may not use the address, or nothing is there.
pub fn classify(vaddr: u64, mode: Mode, cp0: &Cp0) -> Result<Segment, AddressError> {
    let seg_ctl = if cp0.config.segmentation_control { &cp0.seg_ctl } else { &CLASSIC };
    if vaddr == i64::from(vaddr as i32) as u64 {
        return compatibility(vaddr as u32, mode, cp0, seg_ctl);
    }
    let offset = vaddr & !(3 << 62);
    match vaddr >> 62 {
        0 => mapped_if(offset < XSEGMENT_BYTES && cp0.status & status::UX != 0),
        1 => mapped_if(offset < XSEGMENT_BYTES && cp0.status & status::SX != 0 && mode != Mode::User),
        2 => xkphys(vaddr, mode, cp0, seg_ctl),
        _ => xkseg(offset, mode, cp0, seg_ctl),
    }
}

fn mapped_if(legal: bool) -> Result<Segment, AddressError> {
    if legal { Ok(Segment::Mapped) } else { Err(AddressError) }
}

fn compatibility(vaddr: u32, mode: Mode, cp0: &Cp0, seg_ctl: &[u64; 3]) -> Result<Segment, AddressError> {
    let (index, offset) = match vaddr >> 29 {
        0 | 1 => (5, vaddr & 0x3fff_ffff),
        2 | 3 => (4, vaddr & 0x3fff_ffff),
        eighth => (7 - eighth as usize, vaddr & 0x1fff_ffff),
    };
    let cfg = Cfg::of(seg_ctl, index);
    let phys = cfg.base() | u64::from(offset);
    if cp0.status & status::ERL != 0 && cfg.is_unmapped_on_error_level() {
        cfg.access_mode().admits(mode)?;
        return Ok(Segment::Unmapped { phys, cacheable: false });
    }
    if cfg.access_mode().is_mapped(mode)? {
        return Ok(Segment::Mapped);
    }
    let from_config = index == 3 && cp0.config5 & config5::K == 0;
    let cache_attribute = if from_config { (cp0.config0 & config0::K0) as u8 } else { cfg.cache_attribute() };
    Ok(Segment::Unmapped { phys, cacheable: is_cacheable(cache_attribute) })
}

fn xkphys(vaddr: u64, mode: Mode, cp0: &Cp0, seg_ctl: &[u64; 3]) -> Result<Segment, AddressError> {
    let cache_attribute = ((vaddr & XKPHYS_CCA) >> XKPHYS_CCA_SHIFT) as u8;
    let phys = vaddr & !(3 << 62) & !XKPHYS_CCA;
    let governed = seg_ctl[2] >> XR_SHIFT >> cache_attribute & 1 != 0;
    let access_mode =
        if governed { AccessMode::from_field((seg_ctl[1] >> EXTENDED_AM_SHIFT) as u16) } else { AccessMode::Uk };
    if phys >> cp0.physical_bits() != 0 || !access_mode.is_enabled(cp0.status) {
        return Err(AddressError);
    }
    if access_mode.is_mapped(mode)? {
        return Ok(Segment::Mapped);
    }
    Ok(Segment::Unmapped { phys, cacheable: is_cacheable(cache_attribute) })
}

/// An unmapped XKSEG has no physical address of its own; its offset is taken, uncached.
fn xkseg(offset: u64, mode: Mode, cp0: &Cp0, seg_ctl: &[u64; 3]) -> Result<Segment, AddressError> {
    let access_mode = AccessMode::from_field((seg_ctl[0] >> EXTENDED_AM_SHIFT) as u16);
    if offset >= XKSEG_BYTES || !access_mode.is_enabled(cp0.status) {
        return Err(AddressError);
    }
    if access_mode.is_mapped(mode)? {
        return Ok(Segment::Mapped);
    }
    Ok(Segment::Unmapped { phys: offset, cacheable: false })
}

fn is_cacheable(cache_attribute: u8) -> bool {
    UNCACHED >> cache_attribute & 1 == 0
}

impl AccessMode {
    /// From the low three bits of `field`; 6 is reserved and taken as UK.
    fn from_field(field: u16) -> AccessMode {
        match field & 7 {
            1 => AccessMode::Mk,
            2 => AccessMode::Msk,
            3 => AccessMode::Musk,
            4 => AccessMode::Musuk,
            5 => AccessMode::Usk,
            7 => AccessMode::Uusk,
            _ => AccessMode::Uk,
        }
    }

    /// The least privileged mode that may use the segment.
    fn least_mode(self) -> Mode {
        match self {
            AccessMode::Uk | AccessMode::Mk => Mode::Kernel,
            AccessMode::Msk | AccessMode::Usk => Mode::Supervisor,
            AccessMode::Musk | AccessMode::Musuk | AccessMode::Uusk => Mode::User,
        }
    }

    fn admits(self, mode: Mode) -> Result<(), AddressError> {
        if mode as u8 <= self.least_mode() as u8 { Ok(()) } else { Err(AddressError) }
    }

    /// Whether the TLB translates the segment for `mode`, which must be admitted.
    fn is_mapped(self, mode: Mode) -> Result<bool, AddressError> {
        self.admits(mode)?;
        Ok(match self {
            AccessMode::Mk | AccessMode::Msk | AccessMode::Musk => true,
            AccessMode::Musuk => mode != Mode::Kernel,
            AccessMode::Uk | AccessMode::Usk | AccessMode::Uusk => false,
        })
    }

    /// Whether Status lets this access mode have 64-bit addresses.
    fn is_enabled(self, status_value: u32) -> bool {
        let enable = match self.least_mode() {
            Mode::Kernel => status::KX,
            Mode::Supervisor => status::SX,
            Mode::User => status::UX,
        };
        status_value & enable != 0
    }
}
