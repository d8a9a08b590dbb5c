//! Operands: a table of odd values, and random ones that gather where rounding is interesting.
//!
//! On its own, because the tests outside the crate include it too.

/// A format and its odd operands.
pub struct Shape {
    fraction_bits: u32,
    exponent_bits: u32,
    odd: &'static [u64],
}

/// Format S.
pub const SINGLE: Shape = Shape { fraction_bits: 23, exponent_bits: 8, odd: &ODD_SINGLES };

/// Format D.
pub const DOUBLE: Shape = Shape { fraction_bits: 52, exponent_bits: 11, odd: &ODD_DOUBLES };

/// Magnitudes of format S that begin or end something.
const ODD_SINGLES: [u64; 26] = [
    0x0000_0000, // zero
    0x0000_0001, // least subnormal
    0x0000_0002,
    0x0040_0000, // half the least normal
    0x007f_ffff, // greatest subnormal
    0x0080_0000, // least normal
    0x0080_0001,
    0x00ff_ffff,
    0x1fff_ffff, // its square is about the least normal
    0x2000_0000,
    0x3380_0000, // 2^-24: half a place of one
    0x3380_0001,
    0x3f7f_ffff, // below one
    0x3f80_0000, // one
    0x3f80_0001,
    0x3fc0_0000, // one and a half
    0x4040_0000, // three
    0x4b00_0001, // 2^23 + 1: no bit for a half
    0x4eff_ffff, // below 2^31
    0x4f00_0000, // 2^31
    0x5f00_0000, // 2^63
    0x5f7f_ffff, // its square is about the greatest finite number
    0x7f7f_ffff, // greatest finite number
    0x7f80_0000, // infinity
    0x7fbf_ffff, // default (quiet) NaN
    0x7fc0_0001, // signaling NaN
];

/// Magnitudes of format D that begin or end something.
const ODD_DOUBLES: [u64; 30] = [
    0x0000_0000_0000_0000, // zero
    0x0000_0000_0000_0001, // least subnormal
    0x0000_0000_0000_0002,
    0x0008_0000_0000_0000, // half the least normal
    0x000f_ffff_ffff_ffff, // greatest subnormal
    0x0010_0000_0000_0000, // least normal
    0x0010_0000_0000_0001,
    0x001f_ffff_ffff_ffff,
    0x1fff_ffff_ffff_ffff, // its square is about the least normal
    0x2000_0000_0000_0000,
    0x36a0_0000_0000_0000, // least subnormal of format S
    0x380f_ffff_ffff_ffff, // below the least normal of format S
    0x3810_0000_0000_0000, // least normal of format S
    0x3ca0_0000_0000_0000, // 2^-53: half a place of one
    0x3ca0_0000_0000_0001,
    0x3fef_ffff_ffff_ffff, // below one
    0x3ff0_0000_0000_0000, // one
    0x3ff0_0000_1000_0000, // halfway between two singles
    0x3ff0_0000_3000_0000, // the same, odd below
    0x4008_0000_0000_0000, // three
    0x41df_ffff_ffc0_0000, // 2^31 - 1
    0x41e0_0000_0000_0000, // 2^31
    0x4330_0000_0000_0001, // 2^52 + 1: no bit for a half
    0x43e0_0000_0000_0000, // 2^63
    0x47ef_ffff_f000_0000, // overflows format S to nearest
    0x5fef_ffff_ffff_ffff, // its square is about the greatest finite number
    0x7fef_ffff_ffff_ffff, // greatest finite number
    0x7ff0_0000_0000_0000, // infinity
    0x7ff7_ffff_ffff_ffff, // default (quiet) NaN
    0x7ff8_0000_0000_0001, // signaling NaN
];

/// A reproducible source of numbers (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.bits() % limit
    }

    /// One operand: any pattern, an odd value or its neighbour, few bits, or close to one.
    pub fn operand(&mut self, shape: &Shape) -> u64 {
        let (sign, fraction_mask) = (shape.sign(), shape.fraction_mask());
        let pattern = self.bits() & (sign | (sign - 1));
        let odd = shape.odd[self.below(shape.odd.len() as u64) as usize];
        let ones = fraction_mask >> self.below(shape.fraction_bits.into());
        match self.below(8) {
            0 | 1 => pattern,
            2 => odd | pattern & sign,
            3 => odd.wrapping_add(self.below(9)).wrapping_sub(4) & (sign - 1) | pattern & sign,
            4 => pattern & !ones,
            5 => shape.with_field(pattern, shape.bias() - 4 + self.below(8)),
            // Runs of ones at the bottom make carries and ties.
            6 => shape.with_field(pattern & sign | ones, shape.bias() - 32 + self.below(64)),
            // Near the bottom of the range, where products and quotients become tiny.
            _ => shape.with_field(pattern, self.below(shape.bias() / 4)),
        }
    }

    /// A second operand; often within reach of the first, so that sums cancel and align.
    pub fn partner(&mut self, other: u64, shape: &Shape) -> u64 {
        let operand = self.operand(shape);
        if self.below(3) != 0 {
            return operand;
        }
        let span = 2 * u64::from(shape.fraction_bits) + 8;
        let field = (other & (shape.sign() - 1)) >> shape.fraction_bits;
        let near = (field + self.below(span)).saturating_sub(span / 2);
        shape.with_field(operand, near.min(2 * shape.bias()))
    }
}

impl Shape {
    /// The sign bit.
    pub const fn sign(&self) -> u64 {
        1 << (self.fraction_bits + self.exponent_bits)
    }

    /// Every odd value with either sign.
    pub fn odd(&self) -> impl Iterator<Item = u64> + Clone + use<> {
        let (odd, sign) = (self.odd, self.sign());
        odd.iter().flat_map(move |&magnitude| [magnitude, magnitude | sign])
    }

    const fn fraction_mask(&self) -> u64 {
        (1 << self.fraction_bits) - 1
    }

    const fn bias(&self) -> u64 {
        (1 << (self.exponent_bits - 1)) - 1
    }

    const fn with_field(&self, bits: u64, field: u64) -> u64 {
        bits & (self.sign() | self.fraction_mask()) | field << self.fraction_bits
    }
}
