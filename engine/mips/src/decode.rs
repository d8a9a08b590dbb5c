//! From a word to its row and back.
//!
//! The rows are sorted once, at first use, into buckets by the bits that tell most instructions of
//! an opcode apart (the function, rt for REGIMM, format and function for COP0 and COP1), so that a
//! look-up is two table reads and one or two comparisons. A bucket keeps the order of the table,
//! in which special cases come first, and ends with the row of Reserved, which matches every word.

use std::sync::LazyLock;

use crate::insn::Insn;
use crate::table::{Op, RELATED, ROWS, Row};

/// The fields of an instruction to encode. Fields overlap as they do in the word: for one row,
/// give either `imm` or the fields that lie in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    /// Bits 25:21.
    pub rs: u8,
    /// Bits 20:16.
    pub rt: u8,
    /// Bits 15:11.
    pub rd: u8,
    /// Bits 10:6.
    pub sa: u8,
    /// Bits 15:0.
    pub imm: u16,
}

/// Takes a word apart. Words that are no instruction of the table give [`Op::Reserved`].
#[inline]
pub fn decode(word: u32) -> Insn {
    take_apart(INDEX.claims[claim_of(word)].op, word)
}

/// Puts a word together. Bits outside the fields of the row are dropped.
pub fn encode(op: Op, fields: Fields) -> u32 {
    let row = op.row();
    let bits = u32::from(fields.rs) << 21
        | u32::from(fields.rt) << 16
        | u32::from(fields.rd) << 11
        | u32::from(fields.sa) << 6
        | u32::from(fields.imm);
    row.value | bits & row.fields
}

/// The row that claims `word`; the row of Reserved when no other does.
pub fn row_of(word: u32) -> &'static Row {
    INDEX.rows[claim_of(word)]
}

/// The place in `INDEX` of the claim to `word`.
#[inline]
fn claim_of(word: u32) -> usize {
    let index = &*INDEX;
    let start = usize::from(index.starts[INDEX_KEYS[(word >> 26) as usize].bucket(word)]);
    let claims = &index.claims[start..];
    let place = claims.iter().position(|claim| word & claim.mask == claim.value);
    start + place.expect("every bucket ends with the row of Reserved, which matches every word")
}

fn take_apart(op: Op, word: u32) -> Insn {
    let field = |shift: u32| (word >> shift & 31) as u8;
    Insn { op, rs: field(21), rt: field(16), rd: field(11), sa: field(6), imm: word as i16 }
}

/// Which bits of a word choose the bucket, for one opcode.
#[derive(Clone, Copy)]
struct Key {
    /// The first bucket of the opcode.
    base: usize,
    has_rs: bool,
    has_rt: bool,
    has_function: bool,
}

impl Key {
    fn bucket(self, word: u32) -> usize {
        let select = |shift: u32, mask: u32, wanted: bool| ((word >> shift) & (mask * u32::from(wanted))) as usize;
        self.base
            + (select(21, 31, self.has_rs) << 6 | select(16, 31, self.has_rt) | select(0, 63, self.has_function))
    }

    const fn bucket_count(self) -> usize {
        match (self.has_rs, self.has_rt, self.has_function) {
            (true, _, _) => 1 << 11,
            (false, true, _) => 1 << 5,
            (false, false, true) => 1 << 6,
            (false, false, false) => 1,
        }
    }

    /// Bits of a word that the bucket fixes, beside the opcode.
    fn mask(self) -> u32 {
        let (rs, rt, function) = (0x03e0_0000, 0x001f_0000, 0x3f);
        [(self.has_rs, rs), (self.has_rt, rt), (self.has_function, function)]
            .iter()
            .map(|(wanted, bits)| u32::from(*wanted) * bits)
            .sum()
    }
}

const INDEX_KEYS: [Key; 64] = index_keys();
const BUCKET_COUNT: usize = INDEX_KEYS[63].base + INDEX_KEYS[63].bucket_count();

const fn index_keys() -> [Key; 64] {
    const SPECIAL: usize = 0o00;
    const REGIMM: usize = 0o01;
    const COP0: usize = 0o20;
    const COP1: usize = 0o21;
    const COP1X: usize = 0o23;
    const SPECIAL2: usize = 0o34;
    const SPECIAL3: usize = 0o37;
    let plain = Key { base: 0, has_rs: false, has_rt: false, has_function: false };
    let mut keys = [plain; 64];
    let (mut opcode, mut base) = (0, 0);
    while opcode < 64 {
        keys[opcode] = Key {
            base,
            has_rs: matches!(opcode, COP0 | COP1),
            has_rt: opcode == REGIMM,
            has_function: matches!(opcode, SPECIAL | COP0 | COP1 | COP1X | SPECIAL2 | SPECIAL3),
        };
        base += keys[opcode].bucket_count();
        opcode += 1;
    }
    keys
}

/// What the search needs of a row, so that it does not touch the rows themselves.
struct Claim {
    mask: u32,
    value: u32,
    op: Op,
}

impl Claim {
    fn of(row: &Row) -> Claim {
        Claim { mask: row.mask, value: row.value, op: row.op }
    }
}

struct Index {
    /// Of each bucket, where in `claims` it begins.
    starts: Vec<u16>,
    /// The buckets one after the other.
    claims: Vec<Claim>,
    /// And their rows.
    rows: Vec<&'static Row>,
}

static INDEX: LazyLock<Index> = LazyLock::new(|| {
    let mut buckets: Vec<Vec<&'static Row>> = vec![Vec::new(); BUCKET_COUNT];
    let reserved = Op::Reserved.row();
    let specific = ROWS.iter().chain(RELATED).filter(|row| row.mask != reserved.mask);
    for row in specific {
        for bucket in buckets_of(row) {
            buckets[bucket].push(row);
        }
    }
    let mut index = Index { starts: Vec::with_capacity(BUCKET_COUNT), claims: Vec::new(), rows: Vec::new() };
    for bucket in buckets {
        let start = index.rows.len().try_into().expect("the buckets hold under 65536 rows");
        index.starts.push(start);
        index.rows.extend(bucket);
        index.rows.push(reserved);
    }
    index.claims = index.rows.iter().map(|row| Claim::of(row)).collect();
    index
});

/// Every bucket that a word of `row` can fall into.
fn buckets_of(row: &Row) -> impl Iterator<Item = usize> {
    let key = INDEX_KEYS[(row.value >> 26) as usize];
    let free = key.mask() & !row.mask;
    let value = row.value;
    subsets(free).map(move |bits| key.bucket(value | bits))
}

/// Every value that has bits of `mask` only.
fn subsets(mask: u32) -> impl Iterator<Item = u32> {
    let mut next = Some(0u32);
    std::iter::from_fn(move || {
        let bits = next?;
        next = (bits != mask).then(|| bits.wrapping_sub(mask) & mask);
        Some(bits)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first row that matches, by walking the whole table.
    fn naive_row_of(word: u32) -> &'static Row {
        let reserved = Op::Reserved.row();
        ROWS.iter().chain(RELATED).find(|row| row.mask != 0 && row.matches(word)).unwrap_or(reserved)
    }

    fn random_words(count: usize) -> impl Iterator<Item = u32> {
        let mut state = 7u64;
        std::iter::repeat_with(move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 32) as u32
        })
        .take(count)
    }

    #[test]
    fn the_index_finds_the_row_that_a_walk_over_the_table_finds() {
        for bits in random_words(1_000_000) {
            assert_eq!(row_of(bits).pattern, naive_row_of(bits).pattern, "{bits:08x}");
        }
        for row in ROWS.iter().chain(RELATED) {
            for bits in random_words(1_000) {
                let word = row.value | bits & !row.mask;
                assert_eq!(row_of(word).pattern, naive_row_of(word).pattern, "{word:08x}");
            }
        }
    }

    #[test]
    fn rows_overlap_only_where_the_earlier_is_a_special_case() {
        let rows: Vec<&Row> = ROWS[..Op::Reserved as usize].iter().chain(RELATED).collect();
        for (index, earlier) in rows.iter().enumerate() {
            for later in &rows[index + 1..] {
                let is_disjoint = (earlier.value ^ later.value) & earlier.mask & later.mask != 0;
                let is_special = later.matches(earlier.value)
                    && earlier.mask & later.mask == later.mask
                    && earlier.mask != later.mask;
                assert!(is_disjoint || is_special, "{} {}", earlier.mnemonic, later.mnemonic);
            }
        }
    }
}
