//! Bits of the CP0 registers, by their manual names.

/// EBase.CPUNum.
pub(super) const EBASE_CPU_NUM: u32 = 0x3ff;

/// Status.
pub mod status {
    /// Interrupts enabled.
    pub const IE: u32 = 1;
    /// Exception level: kernel mode, interrupts off.
    pub const EXL: u32 = 1 << 1;
    /// Error level: as EXL, and user segments unmapped.
    pub const ERL: u32 = 1 << 2;
    /// Where KSU starts.
    pub const KSU_SHIFT: u32 = 3;
    /// Base mode: 0 kernel, 1 supervisor, 2 user.
    pub const KSU_MASK: u32 = 3 << KSU_SHIFT;
    /// 64-bit user segments.
    pub const UX: u32 = 1 << 5;
    /// 64-bit supervisor segments.
    pub const SX: u32 = 1 << 6;
    /// 64-bit kernel segments.
    pub const KX: u32 = 1 << 7;
    /// Where IM starts.
    pub const IM_SHIFT: u32 = 8;
    /// Interrupt mask, a bit for each of Cause.IP.
    pub const IM_MASK: u32 = 0xff << IM_SHIFT;
    /// The reset exception was an NMI.
    pub const NMI: u32 = 1 << 19;
    /// The reset exception was a soft reset.
    pub const SR: u32 = 1 << 20;
    /// The TLB found two matching entries.
    pub const TS: u32 = 1 << 21;
    /// Exceptions go to the boot vectors.
    pub const BEV: u32 = 1 << 22;
    /// 64-bit operations in user mode without 64-bit addresses.
    pub const PX: u32 = 1 << 23;
    /// MDMX or DSP enabled.
    pub const MX: u32 = 1 << 24;
    /// Reversed endianness in user mode.
    pub const RE: u32 = 1 << 25;
    /// 32 floating-point registers of 64 bits.
    pub const FR: u32 = 1 << 26;
    /// Reduced power.
    pub const RP: u32 = 1 << 27;
    /// Coprocessor 0 usable outside of kernel mode.
    pub const CU0: u32 = 1 << 28;
    /// Coprocessor 1 usable.
    pub const CU1: u32 = 1 << 29;
    /// Coprocessor 2 usable.
    pub const CU2: u32 = 1 << 30;
    /// Coprocessor 3 usable.
    pub const CU3: u32 = 1 << 31;
}

/// Cause.
pub mod cause {
    /// Where ExcCode starts.
    pub const EXC_CODE_SHIFT: u32 = 2;
    /// ExcCode.
    pub const EXC_CODE_MASK: u32 = 0x1f << EXC_CODE_SHIFT;
    /// Where IP starts.
    pub const IP_SHIFT: u32 = 8;
    /// Pending interrupts; the lowest two are software's.
    pub const IP_MASK: u32 = 0xff << IP_SHIFT;
    /// A watch exception was put off.
    pub const WP: u32 = 1 << 22;
    /// Interrupts have a vector of their own.
    pub const IV: u32 = 1 << 23;
    /// A performance counter interrupt is pending.
    pub const PCI: u32 = 1 << 26;
    /// Count stands still.
    pub const DC: u32 = 1 << 27;
    /// Where CE starts.
    pub const CE_SHIFT: u32 = 28;
    /// The unit of a Coprocessor Unusable exception.
    pub const CE_MASK: u32 = 3 << CE_SHIFT;
    /// The timer interrupt is pending.
    pub const TI: u32 = 1 << 30;
    /// The exception hit a delay slot; EPC is the branch.
    pub const BD: u32 = 1 << 31;
}

/// EntryHi, for SEGBITS = 40.
pub mod entry_hi {
    /// ASID.
    pub const ASID: u64 = 0xff;
    /// TLB writes make a hidden entry.
    pub const EHINV: u64 = 1 << 10;
    /// VPN2, address bits 39:13.
    pub const VPN2: u64 = 0xff_ffff_e000;
    /// R, address bits 63:62.
    pub const R: u64 = 3 << 62;
}

/// PageGrain.
pub mod page_grain {
    /// RI and XI have exception codes of their own.
    pub const IEC: u32 = 1 << 27;
    /// Physical addresses above 36 bits.
    pub const ELPA: u32 = 1 << 29;
    /// EntryLo.XI works.
    pub const XIE: u32 = 1 << 30;
    /// EntryLo.RI works.
    pub const RIE: u32 = 1 << 31;
}

/// PageMask.
pub mod page_mask {
    /// Largest mask: two pages of 256 MiB.
    pub const MASK: u32 = 0x1fff_e000;

    /// `value` if it is a page size (4^n times 4 KiB), else the mask of the smallest.
    pub fn legal(value: u32) -> u32 {
        let ones = (value & MASK) >> 13;
        if ones & (ones + 1) == 0 && ones.count_ones().is_multiple_of(2) { ones << 13 } else { 0 }
    }
}

/// IntCtl.
pub mod int_ctl {
    /// Where VS starts.
    pub const VS_SHIFT: u32 = 5;
    /// Spacing of the interrupt vectors, in 32 bytes.
    pub const VS_MASK: u32 = 0x1f << VS_SHIFT;
    /// Where IPPCI, the performance counters' line, starts.
    pub const IPPCI_SHIFT: u32 = 26;
    /// Where IPTI, the timer's line, starts.
    pub const IPTI_SHIFT: u32 = 29;
}

/// Config.
pub mod config0 {
    /// Cache attribute of KSEG0.
    pub const K0: u32 = 7;
}

/// Config5.
pub mod config5 {
    /// The cache attribute of KSEG0 comes from SegCtl1, not from Config.K0.
    pub const K: u32 = 1 << 30;
}
