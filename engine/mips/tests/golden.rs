//! One line an instruction: the whole set, easier read than asserted.
//!
//! `DISCO_UPDATE_GOLDEN=1 cargo test -p disco-mips --test golden` writes the text anew; review the
//! difference.

mod words;

use mips::{ALIASES, RELATED, ROWS, disassemble};
use words::words_of;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/instructions.txt");

fn text() -> String {
    let mut lines = String::new();
    for row in ROWS.iter().chain(RELATED).chain(ALIASES) {
        let word = words_of(row, 100)
            .skip(2)
            .find(|word| !disassemble(*word, 0x8000_0000).starts_with(".word"))
            .unwrap_or(row.value);
        let text = disassemble(word, 0x8000_0000);
        lines += &format!("{word:08x} {:<13} {text}\n", format!("{:?}", row.op));
    }
    lines
}

#[test]
fn the_instruction_set_prints_as_reviewed() {
    if std::env::var_os("DISCO_UPDATE_GOLDEN").is_some() {
        std::fs::write(GOLDEN, text()).expect("the golden text is writable");
    }
    let golden = std::fs::read_to_string(GOLDEN).expect("the golden text is in the repository");
    for (line, reviewed) in text().lines().zip(golden.lines()) {
        assert_eq!(line, reviewed);
    }
    assert_eq!(text().lines().count(), golden.lines().count());
}
