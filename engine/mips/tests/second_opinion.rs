//! GNU binutils, where it is installed for mips64el, reads every word as we do.
//!
//! Exclusions, each with its reason, are `EXTENSIONS` and the functions `excuse`, `expected_text` and
//! `is_plain_word`.

mod words;

use std::path::PathBuf;
use std::process::Command;

use mips::{Op, RELATED, ROWS, disassemble, row_of};
use words::{random_words, words_of};

const OBJDUMP: &str = "mips64el-linux-gnuabi64-objdump";
const BASE: u64 = 0x8010_0000;

/// The second opinion on each of `words`, the first of which lies at `BASE`; `None` without binutils.
fn objdump(name: &str, words: &[u32]) -> Option<Vec<String>> {
    if Command::new(OBJDUMP).arg("--version").output().is_err() {
        eprintln!("not run: {OBJDUMP} is not installed");
        return None;
    }
    let path = write_image(name, words);
    let output = Command::new(OBJDUMP)
        .args(["-D", "-z", "-EL", "-b", "binary", "-m", "mips:isa64r2"])
        .arg(format!("--adjust-vma={BASE:#x}"))
        .args(["-M", "gpr-names=64,cp0-names=mips64r2,hwr-names=mips64r2"])
        .arg(&path)
        .output()
        .expect("objdump runs");
    std::fs::remove_file(&path).expect("the image is ours");
    let text = String::from_utf8(output.stdout).expect("objdump prints ASCII");
    let lines: Vec<String> = text.lines().filter_map(text_of_line).collect();
    assert_eq!(lines.len(), words.len(), "one line a word");
    Some(lines)
}

fn write_image(name: &str, words: &[u32]) -> PathBuf {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let path = std::env::temp_dir().join(format!("disco-mips-{name}-{}", std::process::id()));
    std::fs::write(&path, bytes).expect("the temporary directory is writable");
    path
}

/// `    80100000:\t00000000 \tnop` without the first two columns.
fn text_of_line(line: &str) -> Option<String> {
    let mut columns = line.splitn(3, '\t');
    let (address, _word) = (columns.next()?, columns.next()?);
    address.trim_end().strip_suffix(':')?;
    Some(columns.next().unwrap_or("").trim().replace('\t', " "))
}

/// Words of extensions that binutils knows and the machine does not have: mask, value, extension.
const EXTENSIONS: [(u32, u32, &str); 21] = [
    (0xfc00_002f, 0x0000_0005, "MSA: LSA, DLSA"),
    (0xfc1f_0000, 0x0407_0000, "MCU: ASET, ACLR"),
    (0xfc1e_0000, 0x041c_0000, "DSP: BPOSGE"),
    (0xffe0_0000, 0x4060_0000, "virtualization"),
    (0xffe0_0000, 0x40c0_0000, "XPA"),
    (0xff60_0000, 0x4100_0000, "MT: MFTR, MTTR"),
    (0xfe00_003f, 0x4200_0028, "virtualization: HYPCALL"),
    (0xffe0_0000, 0x4520_0000, "MIPS-3D: BC1ANY2"),
    (0xffe0_0000, 0x4540_0000, "MIPS-3D: BC1ANY4"),
    (0xffe0_0000, 0x4560_0000, "MSA: BZ.V"),
    (0xffe0_0000, 0x45e0_0000, "MSA: BNZ.V"),
    (0xff00_0000, 0x4700_0000, "MSA: BZ, BNZ"),
    (0xffc0_003c, 0x4600_001c, "MIPS-3D: RECIP1, RSQRT1 and their second steps"),
    (0xffc0_0070, 0x4600_0070, "MIPS-3D: CABS"),
    (0xffe0_0000, 0x46c0_0000, "paired single and MIPS-3D"),
    (0xffe0_003f, 0x4680_0026, "MIPS-3D: CVT.PS.PW"),
    (0xfc00_0030, 0x7000_0010, "user-defined instructions"),
    (0xfc00_0000, 0x7400_0000, "MIPS16: JALX"),
    (0xfc00_0000, 0x7800_0000, "MSA"),
    (0xfc00_0020, 0x7c00_0000, "DSP, EVA and MT below function 32"),
    (0xfc00_0020, 0x7c00_0020, "DSP and EVA from function 32"),
];

/// Why binutils prints something else, for words on which both need not agree.
fn excuse(word: u32, theirs: &str) -> Option<&'static str> {
    let row = row_of(word);
    let theirs_is_alias = |name: &str| theirs.split(' ').next() == Some(name);
    let c0_register = (word >> 11 & 31, word & 7);
    let extension = EXTENSIONS.iter().find(|(mask, value, _)| word & mask == *value);
    match row.op {
        Op::Reserved => extension.map(|(_, _, name)| *name),
        Op::Clz | Op::Clo | Op::Dclz | Op::Dclo if (word >> 16 & 31) != (word >> 11 & 31) => {
            Some("rt does not repeat rd: no text of ours says so")
        }
        Op::Ins | Op::Dins | Op::Dinsu if (word >> 11 & 31) < (word >> 6 & 31) => {
            Some("msb below lsb: a width of no bits or less")
        }
        Op::Tlbinv | Op::Tlbinvf => Some("Release 3, which `-m mips:isa64r2` does not have"),
        Op::Cop2 if word >> 26 == 0o22 => Some("we do not look into coprocessor 2"),
        Op::Daddu | Op::Addu if theirs_is_alias("move") => Some("our `move` is OR"),
        Op::Bgez if theirs_is_alias("b") => Some("our `b` is BEQ"),
        Op::Ori if theirs_is_alias("li") => Some("our `li` below 0x8000 is ADDIU"),
        Op::Mfc0 | Op::Mtc0 | Op::Dmfc0 | Op::Dmtc0 => match c0_register {
            (0..=2, 1..) => Some("registers of the MT extension"),
            (4, 2) | (5, 2..=4) | (15, 3) | (16, 4..) | (31, 2..) => Some("later releases"),
            (27, 1..=3) => Some("binutils knows four selects of CacheErr"),
            _ => None,
        },
        Op::Rdhwr if word >> 11 & 31 == 29 => Some("binutils prints UserLocal as $29"),
        _ => None,
    }
}

/// True for what binutils prints of words it does not know; `c0` and `c1` name any coprocessor
/// operation, with a number for the rest of the word.
fn is_plain_word(text: &str) -> bool {
    ["0x", ".word", "c0 0x", "c1 0x"].iter().any(|start| text.starts_with(start))
}

/// Our text in binutils' words: it has one name for DEXT, DEXTM and DEXTU, and `ror` for ROTR.
fn expected_text(word: u32, pc: u64) -> String {
    let text = disassemble(word, pc);
    let (mnemonic, operands) = text.split_once(' ').unwrap_or((&text, ""));
    let name = match mnemonic {
        "dextm" | "dextu" => "dext",
        "dinsm" | "dinsu" => "dins",
        "rotr" => "ror",
        "rotrv" => "rorv",
        "drotr" => "dror",
        "drotrv" => "drorv",
        "drotr32" => "dror32",
        same => same,
    };
    format!("{name} {operands}").trim_end().to_string()
}

#[test]
fn binutils_prints_every_row_as_we_do() {
    let words: Vec<u32> = ROWS.iter().chain(RELATED).flat_map(|row| words_of(row, 300)).collect();
    let Some(theirs) = objdump("rows", &words) else {
        return;
    };
    let mut differences = Vec::new();
    for ((word, theirs), pc) in words.iter().zip(theirs).zip((BASE..).step_by(4)) {
        let ours = expected_text(*word, pc);
        let is_same = ours == theirs || is_plain_word(&ours) && is_plain_word(&theirs);
        if !is_same && excuse(*word, &theirs).is_none() {
            differences.push(format!("{word:08x} ours `{ours}` theirs `{theirs}`"));
        }
    }
    assert!(differences.is_empty(), "{}\n{differences:#?}", differences.len());
}

#[test]
fn binutils_knows_the_words_that_we_know() {
    let words: Vec<u32> = random_words(5, 300_000).collect();
    let Some(theirs) = objdump("random", &words) else {
        return;
    };
    let mut differences = Vec::new();
    for (word, theirs) in words.iter().zip(theirs) {
        let row = row_of(*word);
        let is_known_here = row.mnemonic != Op::Reserved.mnemonic() && row.is_exact(*word);
        let is_known_there = !is_plain_word(&theirs);
        if is_known_here != is_known_there && excuse(*word, &theirs).is_none() {
            differences.push(format!("{word:08x} {:?} `{theirs}`", row.op));
        }
    }
    assert!(differences.is_empty(), "{}\n{differences:#?}", differences.len());
}
