//! What the assembler makes of programs, and what it says of programs that are wrong.

use mips::{assemble, disassemble};

const BASE: u64 = 0xffff_ffff_8010_0000;

fn listing(source: &str) -> Vec<String> {
    let bytes = assemble(source, BASE).unwrap_or_else(|error| panic!("{source}: {error}"));
    let words = bytes.chunks(4).map(|word| u32::from_le_bytes(word.try_into().expect("words")));
    let addresses = (BASE..).step_by(4);
    words.zip(addresses).map(|(word, pc)| disassemble(word, pc)).collect()
}

#[test]
fn pseudo_instructions_become_the_shortest_of_our_sequences() {
    let table: [(&str, &[&str]); 16] = [
        ("li a0, -0x8000", &["li a0,-32768"]),
        ("li a0, 0x8000", &["li a0,0x8000"]),
        ("li a0, 0xffff8000", &["li a0,-32768"]), // the unsigned spelling of a signed value
        ("li a0, 0x80000000", &["lui a0,0x8000"]),
        ("li a0, 0x12345678", &["lui a0,0x1234", "ori a0,a0,0x5678"]),
        ("dli a0, 0x80000000", &["li a0,0x8000", "dsll a0,a0,0x10"]), // no sign extension
        ("dli a0, -1 << 63", &["lui a0,0x8000", "dsll a0,a0,0x10", "dsll a0,a0,0x10"]),
        ("la a0, .", &["lui a0,0x8010", "addiu a0,a0,0"]),
        ("la a0, . + 0x8000", &["lui a0,0x8011", "addiu a0,a0,-32768"]), // the low half is signed
        ("move a0, ra", &["move a0,ra"]),
        ("not a0, a1", &["nor a0,a1,zero"]),
        ("neg a0, a1", &["neg a0,a1"]),
        ("j ra", &["jr ra"]),
        ("jal t9", &["jalr t9"]),
        ("b .", &["b 0xffffffff80100000"]),
        ("bnez $12, . + 8", &["bnez t0,0xffffffff80100008"]),
    ];
    for (source, expected) in table {
        assert_eq!(listing(source), expected, "{source}");
    }
}

#[test]
fn dla_loads_any_address_in_six_instructions() {
    let lines = listing("dla t0, 0x9800000012345678");
    let expected = [
        "lui t0,0x9800",
        "ori t0,t0,0x0",
        "dsll t0,t0,0x10",
        "ori t0,t0,0x1234",
        "dsll t0,t0,0x10",
        "ori t0,t0,0x5678",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn optional_operands_and_every_spelling_of_a_register_are_read() {
    let table = [
        ("jalr s0, $25", "jalr s0,t9"),
        ("jalr $t9", "jalr t9"),
        ("break 0, 7", "break 0x0,0x7"),
        ("break", "break"),
        ("syscall 5", "syscall 0x5"),
        ("bc1t $fcc3, .", "bc1t $fcc3,0xffffffff80100000"),
        ("c.le.d $f2, $f4", "c.le.d $f2,$f4"),
        ("mfc0 v0, $16, 1", "mfc0 v0,c0_config1"),
        ("mtc0 v0, c0_perfcnt, 3", "mtc0 v0,c0_perfcnt,3"),
        ("rdhwr v1, $29", "rdhwr v1,hwr_ulr"),
        ("lw a4, (fp)", "lw a4,0(s8)"),
        ("lw a4, %lo(0x1f000 + 4 * 2)(sp)", "lw a4,-4088(sp)"),
        ("ldxc1 $f2, a0(a1)", "ldxc1 $f2,a0(a1)"),
        ("dext a0, a1, 3, 40", "dextm a0,a1,0x3,0x28"),
        ("dext a0, a1, 40, 3", "dextu a0,a1,0x28,0x3"),
        ("dins a0, a1, 20, 20", "dinsm a0,a1,0x14,0x14"),
        ("ori a0, zero, ','", "ori a0,zero,0x2c"),
    ];
    for (source, expected) in table {
        assert_eq!(listing(source), [expected], "{source}");
    }
}

#[test]
fn labels_reach_forward_and_back_and_nothing_fills_a_delay_slot() {
    let source = "
        .equ count, 3
        start: li t0, count      # three rounds
        loop:  bnez t0, loop     // the slot counts down
               addiu t0, t0, -1
               j     end
               nop
        data:  .word data - start, -1
        end:
    ";
    let expected = [
        "li t0,3",
        "bnez t0,0xffffffff80100004",
        "addiu t0,t0,-1",
        "j 0xffffffff8010001c",
        "nop",
        ".word 0x14",
        ".word 0xffffffff",
    ];
    let lines = listing(source);
    assert_eq!(lines[..5], expected[..5]);
    let bytes = assemble(source, BASE).expect("assembled above");
    assert_eq!(bytes[20..], [0x14, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
}

#[test]
fn directives_lay_out_little_endian_data() {
    let source = r#"
        .byte 1, -1, ',', 0xff
        .half 0x1234
        .align 3
        .dword 0x0102030405060708
        .asciiz "a#\"\n"
        .ascii "//"
        .space 2
        .org 0xffffffff8010001c
        .word 7
    "#;
    let mut expected = vec![1, 0xff, b',', 0xff, 0x34, 0x12, 0, 0];
    expected.extend([8, 7, 6, 5, 4, 3, 2, 1, b'a', b'#', b'"', b'\n', 0, b'/', b'/', 0, 0]);
    expected.resize(28, 0);
    expected.extend([7, 0, 0, 0]);
    assert_eq!(assemble(source, BASE), Ok(expected));
}

#[test]
fn a_program_that_is_wrong_names_its_line_and_the_reason() {
    let table = [
        ("nop\nfrob a0", 2, "frob is no instruction"),
        ("addu a0, a1", 1, "addu takes the operands `rd, rs, rt`"),
        ("nop a0", 1, "nop takes no operands"),
        ("addu a0, a1, a2, a3", 1, "a2, a3 is no general register"),
        ("addu a0, a1, t4", 1, "t4 is no general register"), // o32 only
        ("addiu a0, a1, 0x8000", 1, "32768 is outside -32768 to 32767"),
        ("b nowhere", 1, "nowhere is not defined"),
        ("b . + 0x20004", 1, "0xffffffff80120004 is further than a branch at 0xffffffff80100000 reaches"),
        ("b . + 2", 1, "0xffffffff80100002 is not aligned to a word"),
        ("j 0", 1, "0x0 is outside the 256 MiB of a jump at 0xffffffff80100000"),
        ("a: nop\na: nop", 2, "a is defined twice"),
        ("li a0, 1 << 32", 1, "0x100000000 does not fit in 32 bits; dli loads 64"),
        ("la a0, 1 << 32", 1, "0x100000000 is no sign-extended 32-bit address; dla loads it"),
        (".byte 256", 1, "0x100 does not fit in 1 bytes"),
        (".byte 1\nnop", 2, "an instruction at 0xffffffff80100001, not aligned to a word"),
        (".org 0", 1, "0x0 lies before 0xffffffff80100000"),
        (".asciiz x", 1, "x is not in quotes"),
        (".frob 1", 1, ".frob is no directive"),
        (".equ 1x, 2", 1, "1x cannot be a name"),
    ];
    for (source, line, message) in table {
        let error = assemble(source, BASE).expect_err(source);
        assert_eq!((error.line, error.message.as_str()), (line, message), "{source}");
    }
}
