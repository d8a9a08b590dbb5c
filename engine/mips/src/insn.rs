//! One decoded instruction: which row of the table it is, and its fields taken apart.

use crate::Op;

/// An instruction word taken apart, 8 bytes, so that a page of code decodes to two pages.
///
/// The fields are those of the manual's three formats and overlap there as they do in the word:
///
/// ```text
///  31    26 25  21 20  16 15  11 10   6 5      0
/// | opcode |  rs  |  rt  |  rd  |  sa  |function|   R
/// | opcode |  rs  |  rt  |      immediate       |   I
/// | opcode |             target                 |   J    (rs, rt and imm together)
/// ```
///
/// Floating point (COP1): `fmt` = rs, `ft` = rt, `fs` = rd, `fd` = sa; COP1X: `fr` = rs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Insn {
    /// The table row.
    pub op: Op,
    /// Bits 25:21.
    pub rs: u8,
    /// Bits 20:16.
    pub rt: u8,
    /// Bits 15:11.
    pub rd: u8,
    /// Bits 10:6.
    pub sa: u8,
    /// Bits 15:0, signed.
    pub imm: i16,
}

const _: () = assert!(size_of::<Insn>() == 8);

impl Insn {
    /// The immediate sign-extended to 64 bits, as loads, stores and arithmetic use it.
    #[inline(always)]
    pub fn simm(self) -> u64 {
        i64::from(self.imm) as u64
    }

    /// The immediate zero-extended, as ANDI, ORI and XORI use it.
    #[inline(always)]
    pub fn uimm(self) -> u64 {
        u64::from(self.imm as u16)
    }

    /// The 26-bit target of J and JAL, in words.
    #[inline(always)]
    pub fn target(self) -> u64 {
        u64::from(self.rs) << 21 | u64::from(self.rt) << 16 | self.uimm()
    }

    /// Byte distance from the delay slot to the target of a conditional branch.
    #[inline(always)]
    pub fn branch_offset(self) -> u64 {
        self.simm() << 2
    }

    /// The select field of MFC0, MTC0, DMFC0 and DMTC0 (bits 2:0).
    #[inline(always)]
    pub fn sel(self) -> u8 {
        (self.imm & 7) as u8
    }
}
