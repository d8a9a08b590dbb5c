//! Integer arithmetic of the manual as functions of values.
//!
//! Whatever is UNPREDICTABLE there has one answer here: 32-bit operations take the low halves of
//! their sources, and a division by zero gives quotient = dividend and remainder 0, as QEMU does.

/// A 32-bit result as a register holds it.
#[inline(always)]
pub(super) fn word(value: u32) -> u64 {
    value as i32 as u64
}

/// HI and LO of a 64-bit product or sum, each 32 bits.
#[inline(always)]
pub(super) fn word_pair(value: u64) -> (u64, u64) {
    (word((value >> 32) as u32), word(value as u32))
}

/// The 64 bits that MADD and MSUB work on.
#[inline(always)]
pub(super) fn accumulator((hi, lo): (u64, u64)) -> u64 {
    hi << 32 | lo & 0xffff_ffff
}

/// The signed product of two words.
#[inline(always)]
pub(super) fn product(a: u64, b: u64) -> u64 {
    i64::from(a as i32).wrapping_mul(i64::from(b as i32)) as u64
}

/// The unsigned product of two words.
#[inline(always)]
pub(super) fn product_unsigned(a: u64, b: u64) -> u64 {
    u64::from(a as u32) * u64::from(b as u32)
}

/// HI and LO of DMULT.
#[inline(always)]
pub(super) fn dmult(a: u64, b: u64) -> (u64, u64) {
    let product = i128::from(a as i64) * i128::from(b as i64);
    ((product >> 64) as u64, product as u64)
}

/// HI and LO of DMULTU.
#[inline(always)]
pub(super) fn dmultu(a: u64, b: u64) -> (u64, u64) {
    let product = u128::from(a) * u128::from(b);
    ((product >> 64) as u64, product as u64)
}

/// HI and LO of DIV.
#[inline(always)]
pub(super) fn div(a: u64, b: u64) -> (u64, u64) {
    match (a as i32, b as i32) {
        (a, 0) => (0, word(a as u32)),
        (a, b) => (word(a.wrapping_rem(b) as u32), word(a.wrapping_div(b) as u32)),
    }
}

/// HI and LO of DIVU.
#[inline(always)]
pub(super) fn divu(a: u64, b: u64) -> (u64, u64) {
    match (a as u32, b as u32) {
        (a, 0) => (0, word(a)),
        (a, b) => (word(a % b), word(a / b)),
    }
}

/// HI and LO of DDIV.
#[inline(always)]
pub(super) fn ddiv(a: u64, b: u64) -> (u64, u64) {
    match (a as i64, b as i64) {
        (_, 0) => (0, a),
        (a, b) => (a.wrapping_rem(b) as u64, a.wrapping_div(b) as u64),
    }
}

/// HI and LO of DDIVU.
#[inline(always)]
pub(super) fn ddivu(a: u64, b: u64) -> (u64, u64) {
    match b {
        0 => (0, a),
        b => (a % b, a / b),
    }
}

/// `size` bits of `value` from bit `position`; `size` is 1 to 64.
#[inline(always)]
pub(super) fn extract(value: u64, position: u32, size: u32) -> u64 {
    value >> position & u64::MAX >> (64 - size)
}

/// `target` with bits `first` to `last` replaced by the low bits of `source`.
#[inline(always)]
pub(super) fn insert(target: u64, source: u64, first: u32, last: u32) -> u64 {
    let mask = u64::MAX >> (63 - (last - first)) << first;
    target & !mask | source << first & mask
}

/// WSBH: the bytes of each halfword of a word swapped.
#[inline(always)]
pub(super) fn wsbh(value: u64) -> u64 {
    word(dsbh(value) as u32)
}

/// DSBH: the bytes of each halfword swapped.
#[inline(always)]
pub(super) fn dsbh(value: u64) -> u64 {
    const EVEN: u64 = 0x00ff_00ff_00ff_00ff;
    (value >> 8 & EVEN) | (value & EVEN) << 8
}

/// DSHD: the halfwords reversed.
#[inline(always)]
pub(super) fn dshd(value: u64) -> u64 {
    dsbh(value.swap_bytes())
}

/// LWL: the bytes up to `vaddr` of the word around it, into the high end of `old`.
#[inline(always)]
pub(super) fn merge_lwl(old: u64, memory: u32, vaddr: u64) -> u64 {
    let shift = 24 - 8 * (vaddr as u32 & 3);
    word(memory << shift | old as u32 & !(u32::MAX << shift))
}

/// LWR: the bytes from `vaddr` of the word around it, into the low end of `old`.
#[inline(always)]
pub(super) fn merge_lwr(old: u64, memory: u32, vaddr: u64) -> u64 {
    let shift = 8 * (vaddr as u32 & 3);
    word(memory >> shift | old as u32 & !(u32::MAX >> shift))
}

/// LDL, as LWL.
#[inline(always)]
pub(super) fn merge_ldl(old: u64, memory: u64, vaddr: u64) -> u64 {
    let shift = 56 - 8 * (vaddr as u32 & 7);
    memory << shift | old & !(u64::MAX << shift)
}

/// LDR, as LWR.
#[inline(always)]
pub(super) fn merge_ldr(old: u64, memory: u64, vaddr: u64) -> u64 {
    let shift = 8 * (vaddr as u32 & 7);
    memory >> shift | old & !(u64::MAX >> shift)
}
