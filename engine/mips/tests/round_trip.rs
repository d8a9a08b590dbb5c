//! What the table says, every part that derives from it says too: decoder and encoder,
//! disassembler and assembler.

mod words;

use mips::{
    ALIASES, Fields, Flags, Op, RELATED, ROWS, Row, SYNONYMS, assemble, decode, disassemble, encode, row_of,
};
use words::{random_words, words_of};

const PC: u64 = 0xffff_ffff_8010_0000;

fn all_rows() -> impl Iterator<Item = &'static Row> {
    ROWS.iter().chain(RELATED).chain(ALIASES).chain(SYNONYMS)
}

fn word_of(text: &str) -> u32 {
    let bytes = assemble(text, PC).unwrap_or_else(|error| panic!("`{text}`: {error}"));
    u32::from_le_bytes(bytes.try_into().expect("one instruction"))
}

#[test]
fn a_row_stands_where_its_op_says() {
    for (index, row) in ROWS.iter().enumerate() {
        assert_eq!(row.op as usize, index);
        assert_eq!(Op::ALL[index], row.op);
    }
}

#[test]
fn a_letter_stands_where_its_field_lies() {
    let places = [
        ('s', 21..26),
        ('R', 21..26),
        ('t', 16..21),
        ('T', 16..21),
        ('d', 11..16),
        ('S', 11..16),
        ('a', 6..11),
        ('D', 6..11),
        ('i', 0..16),
        ('j', 0..26),
        ('l', 0..3),
        ('o', 0..4),
        ('c', 8..21),
        ('h', 6..21),
        ('k', 0..32),
    ];
    for row in all_rows() {
        let letters = row.pattern.chars().filter(|letter| *letter != ' ').rev();
        for (bit, letter) in letters.enumerate() {
            let place = places.iter().find(|(known, _)| *known == letter);
            let is_right = place.map_or("01-".contains(letter), |(_, bits)| bits.contains(&bit));
            assert!(is_right, "{}: {letter} at bit {bit}", row.mnemonic);
        }
    }
}

#[test]
fn the_fields_of_a_decoded_word_encode_to_the_word() {
    for row in ROWS.iter().filter(|row| row.op != Op::Reserved) {
        for word in words_of(row, 2_000) {
            let insn = decode(word);
            let fields = Fields { rs: insn.rs, rt: insn.rt, rd: insn.rd, sa: insn.sa, imm: insn.imm as u16 };
            assert_eq!(encode(insn.op, fields), word, "{} {word:08x}", row.mnemonic);
            let is_own = insn.op == row.op;
            assert!(is_own || row_of(word).mask & row.mask == row.mask, "{word:08x}");
        }
    }
}

#[test]
fn bits_that_are_ignored_do_not_change_the_row() {
    // SLL apart: its special cases are words of which all bits count.
    for row in ROWS.iter().filter(|row| !matches!(row.op, Op::Sll | Op::Reserved)) {
        for word in random_words(3, 200).map(|bits| row.value | bits & !row.mask) {
            assert_eq!(decode(word).op, row.op, "{word:08x}");
        }
    }
}

#[test]
fn disassembled_text_assembles_to_the_word() {
    let by_row = all_rows().flat_map(|row| words_of(row, 500));
    for word in by_row.chain(random_words(11, 100_000)) {
        let text = disassemble(word, PC);
        assert_eq!(word_of(&text), word, "{word:08x} `{text}`");
    }
}

#[test]
fn every_row_has_a_text_of_its_own() {
    let silent = |row: &&Row| row.op == Op::Reserved && row.mnemonic == ".word";
    for row in ROWS.iter().chain(RELATED).filter(|row| !silent(row)) {
        let is_text = |word| !disassemble(word, PC).starts_with(".word");
        assert!(words_of(row, 100).any(is_text), "{}", row.mnemonic);
    }
}

#[test]
fn flags_agree_with_each_other() {
    for row in ROWS.iter() {
        let op = row.op;
        assert!(!op.is_likely() || op.is_branch(), "{op:?}");
        assert!(!(op.is_branch() && op.ends_run()), "{op:?}");
        assert_eq!(op.access_bytes() != 0, op.is_load() || op.is_store(), "{op:?}");
        assert!(!(op.is_load() && op.is_store()), "{op:?}");
        assert!(!op.flags().has(Flags::UNALIGNED) || op.access_bytes() >= 4, "{op:?}");
        assert_eq!(op.is_privileged(), matches!(row.value >> 26, 0o20 | 0o57), "{op:?}");
        assert_eq!(
            op.is_likely(),
            row.mnemonic.ends_with('l') && op.is_branch() && !matches!(op, Op::Jal | Op::Bltzal | Op::Bgezal),
            "{op:?}"
        );
    }
}
