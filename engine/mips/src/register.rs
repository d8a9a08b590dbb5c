//! Names of registers, as the n64 calling convention and the manual's volume III give them.
//!
//! In n64 the registers 8 to 11 carry arguments: they are a4 to a7, and t0 to t3 are 12 to 15. There
//! is no t4 to t7. CP0 registers have the names that GNU binutils prints, without those of the MT
//! extension and with those of later releases that the machine has.

/// General registers by number.
pub const GPR_NAMES: [&str; 32] = [
    "zero", "at", "v0", "v1", "a0", "a1", "a2", "a3", "a4", "a5", "a6", "a7", "t0", "t1", "t2", "t3", "s0", "s1",
    "s2", "s3", "s4", "s5", "s6", "s7", "t8", "t9", "k0", "k1", "gp", "sp", "s8", "ra",
];

/// CP0 registers: name, number, select.
pub const C0_NAMES: [(&str, u8, u8); 77] = [
    ("c0_index", 0, 0),
    ("c0_random", 1, 0),
    ("c0_entrylo0", 2, 0),
    ("c0_entrylo1", 3, 0),
    ("c0_context", 4, 0),
    ("c0_contextconfig", 4, 1),
    ("c0_userlocal", 4, 2),
    ("c0_pagemask", 5, 0),
    ("c0_pagegrain", 5, 1),
    ("c0_segctl0", 5, 2),
    ("c0_segctl1", 5, 3),
    ("c0_segctl2", 5, 4),
    ("c0_wired", 6, 0),
    ("c0_srsconf0", 6, 1),
    ("c0_srsconf1", 6, 2),
    ("c0_srsconf2", 6, 3),
    ("c0_srsconf3", 6, 4),
    ("c0_srsconf4", 6, 5),
    ("c0_hwrena", 7, 0),
    ("c0_badvaddr", 8, 0),
    ("c0_count", 9, 0),
    ("c0_entryhi", 10, 0),
    ("c0_compare", 11, 0),
    ("c0_status", 12, 0),
    ("c0_intctl", 12, 1),
    ("c0_srsctl", 12, 2),
    ("c0_srsmap", 12, 3),
    ("c0_cause", 13, 0),
    ("c0_epc", 14, 0),
    ("c0_prid", 15, 0),
    ("c0_ebase", 15, 1),
    ("c0_cmgcrbase", 15, 3),
    ("c0_config", 16, 0),
    ("c0_config1", 16, 1),
    ("c0_config2", 16, 2),
    ("c0_config3", 16, 3),
    ("c0_config4", 16, 4),
    ("c0_config5", 16, 5),
    ("c0_config6", 16, 6),
    ("c0_config7", 16, 7),
    ("c0_lladdr", 17, 0),
    ("c0_watchlo", 18, 0),
    ("c0_watchhi", 19, 0),
    ("c0_xcontext", 20, 0),
    ("c0_debug", 23, 0),
    ("c0_tracecontrol", 23, 1),
    ("c0_tracecontrol2", 23, 2),
    ("c0_usertracedata", 23, 3),
    ("c0_tracebpc", 23, 4),
    ("c0_depc", 24, 0),
    ("c0_perfcnt", 25, 0),
    ("c0_errctl", 26, 0),
    ("c0_cacheerr", 27, 0),
    ("c0_taglo", 28, 0),
    ("c0_datalo", 28, 1),
    ("c0_taglo1", 28, 2),
    ("c0_datalo1", 28, 3),
    ("c0_taglo2", 28, 4),
    ("c0_datalo2", 28, 5),
    ("c0_taglo3", 28, 6),
    ("c0_datalo3", 28, 7),
    ("c0_taghi", 29, 0),
    ("c0_datahi", 29, 1),
    ("c0_taghi1", 29, 2),
    ("c0_datahi1", 29, 3),
    ("c0_taghi2", 29, 4),
    ("c0_datahi2", 29, 5),
    ("c0_taghi3", 29, 6),
    ("c0_datahi3", 29, 7),
    ("c0_errorepc", 30, 0),
    ("c0_desave", 31, 0),
    ("c0_kscratch1", 31, 2),
    ("c0_kscratch2", 31, 3),
    ("c0_kscratch3", 31, 4),
    ("c0_kscratch4", 31, 5),
    ("c0_kscratch5", 31, 6),
    ("c0_kscratch6", 31, 7),
];

/// CP0 registers with one name for all their selects.
pub const C0_ARRAYS: [u8; 3] = [18, 19, 25];

/// Control registers of CP1.
pub const C1_NAMES: [(&str, u8); 7] = [
    ("c1_fir", 0),
    ("c1_ufr", 1),
    ("c1_unfr", 4),
    ("c1_fccr", 25),
    ("c1_fexr", 26),
    ("c1_fenr", 28),
    ("c1_fcsr", 31),
];

/// Hardware registers of RDHWR. GNU binutils prints the last one as `$29`.
pub const HWR_NAMES: [(&str, u8); 5] =
    [("hwr_cpunum", 0), ("hwr_synci_step", 1), ("hwr_cc", 2), ("hwr_ccres", 3), ("hwr_ulr", 29)];

/// Conditions of the floating-point compare by number.
pub const CONDITION_NAMES: [&str; 16] =
    ["f", "un", "eq", "ueq", "olt", "ult", "ole", "ule", "sf", "ngle", "seq", "ngl", "lt", "nge", "le", "ngt"];

/// The number of a general register: `$4`, `$a0` or `a0`.
pub fn parse_gpr(text: &str) -> Option<u32> {
    let name = text.strip_prefix('$').unwrap_or(text);
    let by_name = GPR_NAMES.iter().position(|known| *known == name);
    match name {
        "fp" => Some(30),
        _ => by_name.map(|number| number as u32).or_else(|| parse_number(text, "$")),
    }
}

/// The number in `prefix` and a decimal number below 32: `$f4`, `$4`.
pub fn parse_number(text: &str, prefix: &str) -> Option<u32> {
    let digits = text.strip_prefix(prefix)?;
    let is_decimal = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = is_decimal.then(|| digits.parse().ok())??;
    (number < 32).then_some(number)
}
