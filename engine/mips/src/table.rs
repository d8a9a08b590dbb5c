//! The instruction set, one row an instruction: MIPS64 Release 2 with its MIPS32 subset.
//!
//! Everything that knows an encoding derives from these rows: the [`Op`] enum, the decoder, the
//! encoder, the disassembler, the assembler, the random programs of the tests and the list of what
//! is supported. A row reads
//!
//! ```text
//! Op     mnemonic  31                                     0  operands      family        flags
//! Daddu  "daddu"   "000000 sssss ttttt ddddd ----- 101101"   "rd, rs, rt"  Arithmetic    [BITS64];
//! ```
//!
//! In a pattern `0` and `1` must match, and a letter is a field:
//!
//! ```text
//! s rs 25:21   t rt 20:16   d rd 15:11   a sa 10:6      i immediate 15:0   j target 25:0
//! R fr 25:21   T ft 20:16   S fs 15:11   D fd 10:6      l sel 2:0          o condition 3:0
//! c condition code (20:18 or 10:8)       h hint, cache operation, stype    k code of a trap
//! -  zero in the manual, written as zero, ignored when read
//! ```
//!
//! Real processors and QEMU ignore most of the fields that the manual wants zero, and so do we: they
//! are `-`. The ones that do raise Reserved Instruction are `0`: rs of SRL, DSRL and DSRL32 and sa of
//! SRLV and DSRLV (1 there means rotate), rd and sa of the multiplications and divisions of SPECIAL,
//! rd of MADD and its family and two bits of MFHI, MFLO, MTHI and MTLO (accumulators of an extension),
//! the fields that choose inside BSHFL, DBSHFL and MFMC0, the bit beside `tf` in MOVF, MOVT and their
//! floating-point forms, and bit 6 of C.cond.fmt (1 is CABS of MIPS-3D).
//!
//! Rows may overlap only where an earlier row is a special case of a later one (NOP of SLL); the
//! earlier row wins. The operand words are explained in `operand.rs`.
//!
//! Source: MIPS64 Architecture For Programmers, Volume II, Release 2 (encodings and entry names) and
//! Volume III (privileged instructions; TLBINV and TLBINVF come from its Release 3).

/// Families of instructions, as the summary tables of the manual's volume II group them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// CPU Arithmetic.
    Arithmetic,
    /// CPU Branch and Jump, with the obsolete branches likely.
    Branch,
    /// CPU Instruction Control: instructions that only order or wait.
    Control,
    /// CPU Load, Store and Memory Control.
    Memory,
    /// CPU Logical.
    Logical,
    /// CPU Insert, Extract and Move.
    Move,
    /// CPU Shift.
    Shift,
    /// CPU Trap, with SYSCALL and BREAK.
    Trap,
    /// FPU Arithmetic.
    FpuArithmetic,
    /// FPU Branch, with the obsolete branches likely.
    FpuBranch,
    /// FPU Compare.
    FpuCompare,
    /// FPU Convert.
    FpuConvert,
    /// FPU Load, Store and Memory Control.
    FpuMemory,
    /// FPU Move.
    FpuMove,
    /// Everything of coprocessor 2, which the machine does not have.
    Coprocessor2,
    /// Privileged.
    Privileged,
    /// EJTAG.
    Ejtag,
    /// Words that are no instruction.
    Reserved,
}

/// What the interpreter, the translator and the random programs must know of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags(u32);

impl Flags {
    /// No flag.
    pub const NONE: Flags = Flags(0);
    /// Has a delay slot.
    pub const BRANCH: Flags = Flags(1 << 0);
    /// Nullifies its delay slot when it is not taken.
    pub const LIKELY: Flags = Flags(1 << 1);
    /// Reads memory.
    pub const LOAD: Flags = Flags(1 << 2);
    /// Writes memory.
    pub const STORE: Flags = Flags(1 << 3);
    /// Accesses one byte.
    pub const SIZE1: Flags = Flags(1 << 4);
    /// Accesses a halfword.
    pub const SIZE2: Flags = Flags(1 << 5);
    /// Accesses a word.
    pub const SIZE4: Flags = Flags(1 << 6);
    /// Accesses a doubleword.
    pub const SIZE8: Flags = Flags(1 << 7);
    /// Accesses a part of an unaligned word or doubleword, or ignores the low address bits.
    pub const UNALIGNED: Flags = Flags(1 << 8);
    /// Last of a run of instructions: it always raises an exception, or it may change the mode, the
    /// translation of addresses, the instructions in memory or what interrupts are taken.
    pub const ENDS: Flags = Flags(1 << 9);
    /// Reserved Instruction where 64-bit operations are not enabled.
    pub const BITS64: Flags = Flags(1 << 10);
    /// Coprocessor Unusable where CP1 is not enabled.
    pub const CP1: Flags = Flags(1 << 11);
    /// Coprocessor Unusable where CP0 is not accessible: the privileged instructions.
    pub const CP0: Flags = Flags(1 << 12);

    /// Every flag of both.
    pub const fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// True when all of `other` are set.
    pub const fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// What a word that matches decodes to.
    pub op: Op,
    /// The assembler's name in lower case. `*` stands for the condition of a floating-point compare.
    pub mnemonic: &'static str,
    /// The 32 characters of the pattern and spaces, as in the head of this file.
    pub pattern: &'static str,
    /// The assembler's operands in the words of `operand.rs`.
    pub operands: &'static str,
    /// Where the manual lists it.
    pub family: Family,
    /// What it does to the run of instructions around it.
    pub flags: Flags,
    /// Bits that must match.
    pub mask: u32,
    /// The value of the bits of `mask`; zero elsewhere.
    pub value: u32,
    /// Bits that belong to a field.
    pub fields: u32,
}

impl Row {
    const fn new(
        (op, mnemonic, pattern, operands): (Op, &'static str, &'static str, &'static str),
        family: Family,
        flags: Flags,
    ) -> Row {
        let (mask, value, fields) = parse_pattern(pattern);
        Row { op, mnemonic, pattern, operands, family, flags, mask, value, fields }
    }

    /// True when `word` is of this row, unless an earlier row claims it.
    pub const fn matches(&self, word: u32) -> bool {
        word & self.mask == self.value
    }

    /// True when `word` is of this row and every bit that the manual wants zero is zero.
    pub const fn is_exact(&self, word: u32) -> bool {
        word & !self.fields == self.value
    }
}

/// Mask, value and field bits of a pattern.
const fn parse_pattern(pattern: &str) -> (u32, u32, u32) {
    let text = pattern.as_bytes();
    let (mut mask, mut value, mut fields) = (0u32, 0u32, 0u32);
    let (mut index, mut bits) = (0, 0);
    while index < text.len() {
        let shift = match text[index] {
            b' ' => 0,
            _ => 1,
        };
        (mask, value, fields) = (mask << shift, value << shift, fields << shift);
        match text[index] {
            b' ' | b'-' => {}
            b'0' => mask |= 1,
            b'1' => (mask, value) = (mask | 1, value | 1),
            _ => fields |= 1,
        }
        bits += shift;
        index += 1;
    }
    assert!(bits == 32, "a pattern has 32 bits");
    (mask, value, fields)
}

macro_rules! rows {
    ($($op:ident $mnemonic:literal $pattern:literal $operands:literal $family:ident
        [$($flag:ident)*];)*) => {
        [$(Row::new(
            (Op::$op, $mnemonic, $pattern, $operands),
            Family::$family,
            Flags::NONE$(.with(Flags::$flag))*,
        )),*]
    };
}

macro_rules! instructions {
    ($($op:ident $mnemonic:literal $pattern:literal $operands:literal $family:ident
        [$($flag:ident)*];)*) => {
        /// What a word decodes to: one variant a row, in the order of the table.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u16)]
        pub enum Op {
            $(
                #[doc = concat!("`", $mnemonic, "` ", $pattern)]
                $op
            ),*
        }

        impl Op {
            /// Every variant, in the order of the table.
            pub const ALL: &[Op] = &[$(Op::$op),*];
        }

        /// The table: the row of `op` is `ROWS[op as usize]`.
        pub static ROWS: [Row; Op::ALL.len()] = rows! {
            $($op $mnemonic $pattern $operands $family [$($flag)*];)*
        };
    };
}

impl Op {
    /// How many variants there are; every `op as usize` is below.
    pub const COUNT: usize = Op::ALL.len();

    /// The row of the table.
    #[inline]
    pub fn row(self) -> &'static Row {
        &ROWS[self as usize]
    }

    /// The assembler's name.
    pub fn mnemonic(self) -> &'static str {
        self.row().mnemonic
    }

    /// The manual's family.
    pub fn family(self) -> Family {
        self.row().family
    }

    /// The flags of the row.
    #[inline]
    pub fn flags(self) -> Flags {
        self.row().flags
    }

    /// True when a delay slot follows.
    #[inline]
    pub fn is_branch(self) -> bool {
        self.flags().has(Flags::BRANCH)
    }

    /// True for a branch that nullifies its delay slot when it is not taken.
    #[inline]
    pub fn is_likely(self) -> bool {
        self.flags().has(Flags::LIKELY)
    }

    /// True when it reads memory.
    #[inline]
    pub fn is_load(self) -> bool {
        self.flags().has(Flags::LOAD)
    }

    /// True when it writes memory.
    #[inline]
    pub fn is_store(self) -> bool {
        self.flags().has(Flags::STORE)
    }

    /// True when a run of instructions ends here ([`Flags::ENDS`]).
    #[inline]
    pub fn ends_run(self) -> bool {
        self.flags().has(Flags::ENDS)
    }

    /// True when it is reserved where 64-bit operations are not enabled.
    #[inline]
    pub fn is_64bit(self) -> bool {
        self.flags().has(Flags::BITS64)
    }

    /// True when it needs CP1.
    #[inline]
    pub fn uses_cp1(self) -> bool {
        self.flags().has(Flags::CP1)
    }

    /// True when it needs access to CP0.
    #[inline]
    pub fn is_privileged(self) -> bool {
        self.flags().has(Flags::CP0)
    }

    /// Size in bytes of the memory access; 0 for instructions that are no load or store. LWL and its
    /// like give the size of the whole that they access a part of.
    pub fn access_bytes(self) -> u64 {
        [(Flags::SIZE1, 1), (Flags::SIZE2, 2), (Flags::SIZE4, 4), (Flags::SIZE8, 8)]
            .iter()
            .find(|(flag, _)| self.flags().has(*flag))
            .map_or(0, |(_, bytes)| *bytes)
    }
}

instructions! {
    // ---- SPECIAL: shifts; the first five are SLL to the register zero
    Nop      "nop"      "000000 00000 00000 00000 00000 000000" ""             Control    [];
    Ssnop    "ssnop"    "000000 00000 00000 00000 00001 000000" ""             Control    [];
    Ehb      "ehb"      "000000 00000 00000 00000 00011 000000" ""             Control    [];
    Pause    "pause"    "000000 00000 00000 00000 00101 000000" ""             Control    [];
    Sll      "sll"      "000000 ----- ttttt ddddd aaaaa 000000" "rd, rt, sa"   Shift      [];
    Srl      "srl"      "000000 00000 ttttt ddddd aaaaa 000010" "rd, rt, sa"   Shift      [];
    Rotr     "rotr"     "000000 00001 ttttt ddddd aaaaa 000010" "rd, rt, sa"   Shift      [];
    Sra      "sra"      "000000 ----- ttttt ddddd aaaaa 000011" "rd, rt, sa"   Shift      [];
    Sllv     "sllv"     "000000 sssss ttttt ddddd ----- 000100" "rd, rt, rs"   Shift      [];
    Srlv     "srlv"     "000000 sssss ttttt ddddd 00000 000110" "rd, rt, rs"   Shift      [];
    Rotrv    "rotrv"    "000000 sssss ttttt ddddd 00001 000110" "rd, rt, rs"   Shift      [];
    Srav     "srav"     "000000 sssss ttttt ddddd ----- 000111" "rd, rt, rs"   Shift      [];
    Dsllv    "dsllv"    "000000 sssss ttttt ddddd ----- 010100" "rd, rt, rs"   Shift      [BITS64];
    Dsrlv    "dsrlv"    "000000 sssss ttttt ddddd 00000 010110" "rd, rt, rs"   Shift      [BITS64];
    Drotrv   "drotrv"   "000000 sssss ttttt ddddd 00001 010110" "rd, rt, rs"   Shift      [BITS64];
    Dsrav    "dsrav"    "000000 sssss ttttt ddddd ----- 010111" "rd, rt, rs"   Shift      [BITS64];
    Dsll     "dsll"     "000000 ----- ttttt ddddd aaaaa 111000" "rd, rt, sa"   Shift      [BITS64];
    Dsrl     "dsrl"     "000000 00000 ttttt ddddd aaaaa 111010" "rd, rt, sa"   Shift      [BITS64];
    Drotr    "drotr"    "000000 00001 ttttt ddddd aaaaa 111010" "rd, rt, sa"   Shift      [BITS64];
    Dsra     "dsra"     "000000 ----- ttttt ddddd aaaaa 111011" "rd, rt, sa"   Shift      [BITS64];
    Dsll32   "dsll32"   "000000 ----- ttttt ddddd aaaaa 111100" "rd, rt, sa"   Shift      [BITS64];
    Dsrl32   "dsrl32"   "000000 00000 ttttt ddddd aaaaa 111110" "rd, rt, sa"   Shift      [BITS64];
    Drotr32  "drotr32"  "000000 00001 ttttt ddddd aaaaa 111110" "rd, rt, sa"   Shift      [BITS64];
    Dsra32   "dsra32"   "000000 ----- ttttt ddddd aaaaa 111111" "rd, rt, sa"   Shift      [BITS64];

    // ---- SPECIAL: arithmetic and logic
    Add      "add"      "000000 sssss ttttt ddddd ----- 100000" "rd, rs, rt"   Arithmetic [];
    Addu     "addu"     "000000 sssss ttttt ddddd ----- 100001" "rd, rs, rt"   Arithmetic [];
    Sub      "sub"      "000000 sssss ttttt ddddd ----- 100010" "rd, rs, rt"   Arithmetic [];
    Subu     "subu"     "000000 sssss ttttt ddddd ----- 100011" "rd, rs, rt"   Arithmetic [];
    And      "and"      "000000 sssss ttttt ddddd ----- 100100" "rd, rs, rt"   Logical    [];
    Or       "or"       "000000 sssss ttttt ddddd ----- 100101" "rd, rs, rt"   Logical    [];
    Xor      "xor"      "000000 sssss ttttt ddddd ----- 100110" "rd, rs, rt"   Logical    [];
    Nor      "nor"      "000000 sssss ttttt ddddd ----- 100111" "rd, rs, rt"   Logical    [];
    Slt      "slt"      "000000 sssss ttttt ddddd ----- 101010" "rd, rs, rt"   Arithmetic [];
    Sltu     "sltu"     "000000 sssss ttttt ddddd ----- 101011" "rd, rs, rt"   Arithmetic [];
    Dadd     "dadd"     "000000 sssss ttttt ddddd ----- 101100" "rd, rs, rt"   Arithmetic [BITS64];
    Daddu    "daddu"    "000000 sssss ttttt ddddd ----- 101101" "rd, rs, rt"   Arithmetic [BITS64];
    Dsub     "dsub"     "000000 sssss ttttt ddddd ----- 101110" "rd, rs, rt"   Arithmetic [BITS64];
    Dsubu    "dsubu"    "000000 sssss ttttt ddddd ----- 101111" "rd, rs, rt"   Arithmetic [BITS64];
    Mult     "mult"     "000000 sssss ttttt 00000 00000 011000" "rs, rt"       Arithmetic [];
    Multu    "multu"    "000000 sssss ttttt 00000 00000 011001" "rs, rt"       Arithmetic [];
    Div      "div"      "000000 sssss ttttt 00000 00000 011010" "zero, rs, rt" Arithmetic [];
    Divu     "divu"     "000000 sssss ttttt 00000 00000 011011" "zero, rs, rt" Arithmetic [];
    Dmult    "dmult"    "000000 sssss ttttt 00000 00000 011100" "rs, rt"       Arithmetic [BITS64];
    Dmultu   "dmultu"   "000000 sssss ttttt 00000 00000 011101" "rs, rt"       Arithmetic [BITS64];
    Ddiv     "ddiv"     "000000 sssss ttttt 00000 00000 011110" "zero, rs, rt" Arithmetic [BITS64];
    Ddivu    "ddivu"    "000000 sssss ttttt 00000 00000 011111" "zero, rs, rt" Arithmetic [BITS64];

    // ---- SPECIAL: moves
    Mfhi     "mfhi"     "000000 ---00 ----- ddddd ----- 010000" "rd"           Move       [];
    Mthi     "mthi"     "000000 sssss ----- ---00 ----- 010001" "rs"           Move       [];
    Mflo     "mflo"     "000000 ---00 ----- ddddd ----- 010010" "rd"           Move       [];
    Mtlo     "mtlo"     "000000 sssss ----- ---00 ----- 010011" "rs"           Move       [];
    Movz     "movz"     "000000 sssss ttttt ddddd ----- 001010" "rd, rs, rt"   Move       [];
    Movn     "movn"     "000000 sssss ttttt ddddd ----- 001011" "rd, rs, rt"   Move       [];
    Movf     "movf"     "000000 sssss ccc 0 0 ddddd ----- 000001" "rd, rs, cc" Move       [CP1];
    Movt     "movt"     "000000 sssss ccc 0 1 ddddd ----- 000001" "rd, rs, cc" Move       [CP1];

    // ---- SPECIAL: jumps, traps, ordering
    JrHb     "jr.hb"    "000000 sssss ----- ----- 1---- 001000" "rs"           Branch     [BRANCH];
    Jr       "jr"       "000000 sssss ----- ----- 0---- 001000" "rs"           Branch     [BRANCH];
    JalrHb   "jalr.hb"  "000000 sssss ----- ddddd 1---- 001001" "[rd], rs"     Branch     [BRANCH];
    Jalr     "jalr"     "000000 sssss ----- ddddd 0---- 001001" "[rd], rs"     Branch     [BRANCH];
    Syscall  "syscall"  "000000 kkkkk kkkkk kkkkk kkkkk 001100" "[code20]"     Trap       [ENDS];
    Break    "break"    "000000 kkkkk kkkkk kkkkk kkkkk 001101" "[code_high], [code_low]" Trap [ENDS];
    Sync     "sync"     "000000 ----- ----- ----- hhhhh 001111" "[stype]"      Memory     [];
    Tge      "tge"      "000000 sssss ttttt kkkkk kkkkk 110000" "rs, rt, [code_low]" Trap [];
    Tgeu     "tgeu"     "000000 sssss ttttt kkkkk kkkkk 110001" "rs, rt, [code_low]" Trap [];
    Tlt      "tlt"      "000000 sssss ttttt kkkkk kkkkk 110010" "rs, rt, [code_low]" Trap [];
    Tltu     "tltu"     "000000 sssss ttttt kkkkk kkkkk 110011" "rs, rt, [code_low]" Trap [];
    Teq      "teq"      "000000 sssss ttttt kkkkk kkkkk 110100" "rs, rt, [code_low]" Trap [];
    Tne      "tne"      "000000 sssss ttttt kkkkk kkkkk 110110" "rs, rt, [code_low]" Trap [];

    // ---- REGIMM
    Bltz     "bltz"     "000001 sssss 00000 iiiiiiiiiiiiiiii" "rs, branch"     Branch     [BRANCH];
    Bgez     "bgez"     "000001 sssss 00001 iiiiiiiiiiiiiiii" "rs, branch"     Branch     [BRANCH];
    Bltzl    "bltzl"    "000001 sssss 00010 iiiiiiiiiiiiiiii" "rs, branch"     Branch     [BRANCH LIKELY];
    Bgezl    "bgezl"    "000001 sssss 00011 iiiiiiiiiiiiiiii" "rs, branch"     Branch     [BRANCH LIKELY];
    Tgei     "tgei"     "000001 sssss 01000 iiiiiiiiiiiiiiii" "rs, simm"       Trap       [];
    Tgeiu    "tgeiu"    "000001 sssss 01001 iiiiiiiiiiiiiiii" "rs, simm"       Trap       [];
    Tlti     "tlti"     "000001 sssss 01010 iiiiiiiiiiiiiiii" "rs, simm"       Trap       [];
    Tltiu    "tltiu"    "000001 sssss 01011 iiiiiiiiiiiiiiii" "rs, simm"       Trap       [];
    Teqi     "teqi"     "000001 sssss 01100 iiiiiiiiiiiiiiii" "rs, simm"       Trap       [];
    Tnei     "tnei"     "000001 sssss 01110 iiiiiiiiiiiiiiii" "rs, simm"       Trap       [];
    Bltzal   "bltzal"   "000001 sssss 10000 iiiiiiiiiiiiiiii" "rs, branch"     Branch     [BRANCH];
    Bgezal   "bgezal"   "000001 sssss 10001 iiiiiiiiiiiiiiii" "rs, branch"     Branch     [BRANCH];
    Bltzall  "bltzall"  "000001 sssss 10010 iiiiiiiiiiiiiiii" "rs, branch"     Branch     [BRANCH LIKELY];
    Bgezall  "bgezall"  "000001 sssss 10011 iiiiiiiiiiiiiiii" "rs, branch"     Branch     [BRANCH LIKELY];
    Synci    "synci"    "000001 sssss 11111 iiiiiiiiiiiiiiii" "simm(rs)"       Memory     [ENDS];

    // ---- Jumps, branches and immediates
    J        "j"        "000010 jjjjjjjjjjjjjjjjjjjjjjjjjj"   "target"         Branch     [BRANCH];
    Jal      "jal"      "000011 jjjjjjjjjjjjjjjjjjjjjjjjjj"   "target"         Branch     [BRANCH];
    Beq      "beq"      "000100 sssss ttttt iiiiiiiiiiiiiiii" "rs, rt, branch" Branch     [BRANCH];
    Bne      "bne"      "000101 sssss ttttt iiiiiiiiiiiiiiii" "rs, rt, branch" Branch     [BRANCH];
    Blez     "blez"     "000110 sssss ----- iiiiiiiiiiiiiiii" "rs, branch"     Branch     [BRANCH];
    Bgtz     "bgtz"     "000111 sssss ----- iiiiiiiiiiiiiiii" "rs, branch"     Branch     [BRANCH];
    Beql     "beql"     "010100 sssss ttttt iiiiiiiiiiiiiiii" "rs, rt, branch" Branch     [BRANCH LIKELY];
    Bnel     "bnel"     "010101 sssss ttttt iiiiiiiiiiiiiiii" "rs, rt, branch" Branch     [BRANCH LIKELY];
    Blezl    "blezl"    "010110 sssss ----- iiiiiiiiiiiiiiii" "rs, branch"     Branch     [BRANCH LIKELY];
    Bgtzl    "bgtzl"    "010111 sssss ----- iiiiiiiiiiiiiiii" "rs, branch"     Branch     [BRANCH LIKELY];
    Addi     "addi"     "001000 sssss ttttt iiiiiiiiiiiiiiii" "rt, rs, simm"   Arithmetic [];
    Addiu    "addiu"    "001001 sssss ttttt iiiiiiiiiiiiiiii" "rt, rs, simm"   Arithmetic [];
    Slti     "slti"     "001010 sssss ttttt iiiiiiiiiiiiiiii" "rt, rs, simm"   Arithmetic [];
    Sltiu    "sltiu"    "001011 sssss ttttt iiiiiiiiiiiiiiii" "rt, rs, simm"   Arithmetic [];
    Andi     "andi"     "001100 sssss ttttt iiiiiiiiiiiiiiii" "rt, rs, uimm"   Logical    [];
    Ori      "ori"      "001101 sssss ttttt iiiiiiiiiiiiiiii" "rt, rs, uimm"   Logical    [];
    Xori     "xori"     "001110 sssss ttttt iiiiiiiiiiiiiiii" "rt, rs, uimm"   Logical    [];
    Lui      "lui"      "001111 ----- ttttt iiiiiiiiiiiiiiii" "rt, uimm"       Logical    [];
    Daddi    "daddi"    "011000 sssss ttttt iiiiiiiiiiiiiiii" "rt, rs, simm"   Arithmetic [BITS64];
    Daddiu   "daddiu"   "011001 sssss ttttt iiiiiiiiiiiiiiii" "rt, rs, simm"   Arithmetic [BITS64];

    // ---- Loads and stores
    Lb       "lb"       "100000 sssss ttttt iiiiiiiiiiiiiiii" "rt, simm(rs)"   Memory     [LOAD SIZE1];
    Lh       "lh"       "100001 sssss ttttt iiiiiiiiiiiiiiii" "rt, simm(rs)"   Memory     [LOAD SIZE2];
    Lwl      "lwl"      "100010 sssss ttttt iiiiiiiiiiiiiiii" "rt, simm(rs)"   Memory     [LOAD SIZE4 UNALIGNED];
    Lw       "lw"       "100011 sssss ttttt iiiiiiiiiiiiiiii" "rt, simm(rs)"   Memory     [LOAD SIZE4];
    Lbu      "lbu"      "100100 sssss ttttt iiiiiiiiiiiiiiii" "rt, simm(rs)"   Memory     [LOAD SIZE1];
    Lhu      "lhu"      "100101 sssss ttttt iiiiiiiiiiiiiiii" "rt, simm(rs)"   Memory     [LOAD SIZE2];
    Lwr      "lwr"      "100110 sssss ttttt iiiiiiiiiiiiiiii" "rt, simm(rs)"   Memory     [LOAD SIZE4 UNALIGNED];
    Lwu      "lwu"      "100111 sssss ttttt iiiiiiiiiiiiiiii" "rt, simm(rs)"   Memory     [LOAD SIZE4 BITS64];
    Ldl      "ldl"      "011010 sssss ttttt iiiiiiiiiiiiiiii" "rt, simm(rs)"   Memory     [LOAD SIZE8 UNALIGNED BITS64];
    Ldr      "ldr"      "011011 sssss ttttt iiiiiiiiiiiiiiii" "rt, simm(rs)"   Memory     [LOAD SIZE8 UNALIGNED BITS64];
    Ld       "ld"       "110111 sssss ttttt iiiiiiiiiiiiiiii" "rt, simm(rs)"   Memory     [LOAD SIZE8 BITS64];
    Ll       "ll"       "110000 sssss ttttt iiiiiiiiiiiiiiii" "rt, simm(rs)"   Memory     [LOAD SIZE4];
    Lld      "lld"      "110100 sssss ttttt iiiiiiiiiiiiiiii" "rt, simm(rs)"   Memory     [LOAD SIZE8 BITS64];
    Sb       "sb"       "101000 sssss ttttt iiiiiiiiiiiiiiii" "rt, simm(rs)"   Memory     [STORE SIZE1];
    Sh       "sh"       "101001 sssss ttttt iiiiiiiiiiiiiiii" "rt, simm(rs)"   Memory     [STORE SIZE2];
    Swl      "swl"      "101010 sssss ttttt iiiiiiiiiiiiiiii" "rt, simm(rs)"   Memory     [STORE SIZE4 UNALIGNED];
    Sw       "sw"       "101011 sssss ttttt iiiiiiiiiiiiiiii" "rt, simm(rs)"   Memory     [STORE SIZE4];
    Sdl      "sdl"      "101100 sssss ttttt iiiiiiiiiiiiiiii" "rt, simm(rs)"   Memory     [STORE SIZE8 UNALIGNED BITS64];
    Sdr      "sdr"      "101101 sssss ttttt iiiiiiiiiiiiiiii" "rt, simm(rs)"   Memory     [STORE SIZE8 UNALIGNED BITS64];
    Swr      "swr"      "101110 sssss ttttt iiiiiiiiiiiiiiii" "rt, simm(rs)"   Memory     [STORE SIZE4 UNALIGNED];
    Sd       "sd"       "111111 sssss ttttt iiiiiiiiiiiiiiii" "rt, simm(rs)"   Memory     [STORE SIZE8 BITS64];
    Sc       "sc"       "111000 sssss ttttt iiiiiiiiiiiiiiii" "rt, simm(rs)"   Memory     [STORE SIZE4];
    Scd      "scd"      "111100 sssss ttttt iiiiiiiiiiiiiiii" "rt, simm(rs)"   Memory     [STORE SIZE8 BITS64];
    Pref     "pref"     "110011 sssss hhhhh iiiiiiiiiiiiiiii" "hint, simm(rs)" Memory     [];
    Cache    "cache"    "101111 sssss hhhhh iiiiiiiiiiiiiiii" "hint, simm(rs)" Privileged [CP0 ENDS];

    // ---- SPECIAL2
    Madd     "madd"     "011100 sssss ttttt 00000 ----- 000000" "rs, rt"       Arithmetic [];
    Maddu    "maddu"    "011100 sssss ttttt 00000 ----- 000001" "rs, rt"       Arithmetic [];
    Mul      "mul"      "011100 sssss ttttt ddddd ----- 000010" "rd, rs, rt"   Arithmetic [];
    Msub     "msub"     "011100 sssss ttttt 00000 ----- 000100" "rs, rt"       Arithmetic [];
    Msubu    "msubu"    "011100 sssss ttttt 00000 ----- 000101" "rs, rt"       Arithmetic [];
    // The manual has rt repeat rd here; the result goes to rd and rt is not looked at.
    Clz      "clz"      "011100 sssss ttttt ddddd ----- 100000" "rd, rs, same" Arithmetic [];
    Clo      "clo"      "011100 sssss ttttt ddddd ----- 100001" "rd, rs, same" Arithmetic [];
    Dclz     "dclz"     "011100 sssss ttttt ddddd ----- 100100" "rd, rs, same" Arithmetic [BITS64];
    Dclo     "dclo"     "011100 sssss ttttt ddddd ----- 100101" "rd, rs, same" Arithmetic [BITS64];
    Sdbbp    "sdbbp"    "011100 kkkkk kkkkk kkkkk kkkkk 111111" "[code20]"     Ejtag      [ENDS];

    // ---- SPECIAL3: msb and msbd are in rd, lsb in sa
    Ext      "ext"      "011111 sssss ttttt ddddd aaaaa 000000" "rt, rs, pos, size"            Move [];
    Dextm    "dextm"    "011111 sssss ttttt ddddd aaaaa 000001" "rt, rs, pos, size_plus32"     Move [BITS64];
    Dextu    "dextu"    "011111 sssss ttttt ddddd aaaaa 000010" "rt, rs, pos_plus32, size"     Move [BITS64];
    Dext     "dext"     "011111 sssss ttttt ddddd aaaaa 000011" "rt, rs, pos, size"            Move [BITS64];
    Ins      "ins"      "011111 sssss ttttt ddddd aaaaa 000100" "rt, rs, pos, width"           Move [];
    Dinsm    "dinsm"    "011111 sssss ttttt ddddd aaaaa 000101" "rt, rs, pos, width_plus32"    Move [BITS64];
    Dinsu    "dinsu"    "011111 sssss ttttt ddddd aaaaa 000110" "rt, rs, pos_plus32, width"    Move [BITS64];
    Dins     "dins"     "011111 sssss ttttt ddddd aaaaa 000111" "rt, rs, pos, width"           Move [BITS64];
    Wsbh     "wsbh"     "011111 ----- ttttt ddddd 00010 100000" "rd, rt"       Move       [];
    Seb      "seb"      "011111 ----- ttttt ddddd 10000 100000" "rd, rt"       Arithmetic [];
    Seh      "seh"      "011111 ----- ttttt ddddd 11000 100000" "rd, rt"       Arithmetic [];
    Dsbh     "dsbh"     "011111 ----- ttttt ddddd 00010 100100" "rd, rt"       Move       [BITS64];
    Dshd     "dshd"     "011111 ----- ttttt ddddd 00101 100100" "rd, rt"       Move       [BITS64];
    Rdhwr    "rdhwr"    "011111 ----- ttttt ddddd ----- 111011" "rt, hwr"      Move       [];

    // ---- COP0
    Mfc0     "mfc0"     "010000 00000 ttttt ddddd --------lll"  "rt, c0"       Privileged [CP0];
    Dmfc0    "dmfc0"    "010000 00001 ttttt ddddd --------lll"  "rt, c0"       Privileged [CP0 BITS64];
    Mtc0     "mtc0"     "010000 00100 ttttt ddddd --------lll"  "rt, c0"       Privileged [CP0 ENDS];
    Dmtc0    "dmtc0"    "010000 00101 ttttt ddddd --------lll"  "rt, c0"       Privileged [CP0 ENDS BITS64];
    Rdpgpr   "rdpgpr"   "010000 01010 ttttt ddddd -----------"  "rd, rt"       Privileged [CP0];
    Wrpgpr   "wrpgpr"   "010000 01110 ttttt ddddd -----------"  "rd, rt"       Privileged [CP0];
    Di       "di"       "010000 01011 ttttt 01100 00000 000000" "[rt]"         Privileged [CP0 ENDS];
    Ei       "ei"       "010000 01011 ttttt 01100 00000 100000" "[rt]"         Privileged [CP0 ENDS];
    Tlbr     "tlbr"     "010000 1 ------------------- 000001"   ""             Privileged [CP0 ENDS];
    Tlbwi    "tlbwi"    "010000 1 ------------------- 000010"   ""             Privileged [CP0 ENDS];
    Tlbinv   "tlbinv"   "010000 1 ------------------- 000011"   ""             Privileged [CP0 ENDS];
    Tlbinvf  "tlbinvf"  "010000 1 ------------------- 000100"   ""             Privileged [CP0 ENDS];
    Tlbwr    "tlbwr"    "010000 1 ------------------- 000110"   ""             Privileged [CP0 ENDS];
    Tlbp     "tlbp"     "010000 1 ------------------- 001000"   ""             Privileged [CP0 ENDS];
    Eret     "eret"     "010000 1 ------------------- 011000"   ""             Privileged [CP0 ENDS];
    Deret    "deret"    "010000 1 ------------------- 011111"   ""             Ejtag      [CP0 ENDS];
    Wait     "wait"     "010000 1 kkkkkkkkkkkkkkkkkkk 100000"   "[code19]"     Privileged [CP0 ENDS];

    // ---- COP1: moves and branches
    Mfc1     "mfc1"     "010001 00000 ttttt SSSSS -----------"  "rt, fs"       FpuMove    [CP1];
    Dmfc1    "dmfc1"    "010001 00001 ttttt SSSSS -----------"  "rt, fs"       FpuMove    [CP1 BITS64];
    Cfc1     "cfc1"     "010001 00010 ttttt SSSSS -----------"  "rt, c1"       FpuMove    [CP1];
    Mfhc1    "mfhc1"    "010001 00011 ttttt SSSSS -----------"  "rt, fs"       FpuMove    [CP1];
    Mtc1     "mtc1"     "010001 00100 ttttt SSSSS -----------"  "rt, fs"       FpuMove    [CP1];
    Dmtc1    "dmtc1"    "010001 00101 ttttt SSSSS -----------"  "rt, fs"       FpuMove    [CP1 BITS64];
    Ctc1     "ctc1"     "010001 00110 ttttt SSSSS -----------"  "rt, c1"       FpuMove    [CP1];
    Mthc1    "mthc1"    "010001 00111 ttttt SSSSS -----------"  "rt, fs"       FpuMove    [CP1];
    Bc1f     "bc1f"     "010001 01000 ccc 0 0 iiiiiiiiiiiiiiii" "[cc], branch" FpuBranch  [CP1 BRANCH];
    Bc1t     "bc1t"     "010001 01000 ccc 0 1 iiiiiiiiiiiiiiii" "[cc], branch" FpuBranch  [CP1 BRANCH];
    Bc1fl    "bc1fl"    "010001 01000 ccc 1 0 iiiiiiiiiiiiiiii" "[cc], branch" FpuBranch  [CP1 BRANCH LIKELY];
    Bc1tl    "bc1tl"    "010001 01000 ccc 1 1 iiiiiiiiiiiiiiii" "[cc], branch" FpuBranch  [CP1 BRANCH LIKELY];

    // ---- COP1, fmt S
    AddS     "add.s"    "010001 10000 TTTTT SSSSS DDDDD 000000" "fd, fs, ft"     FpuArithmetic [CP1];
    SubS     "sub.s"    "010001 10000 TTTTT SSSSS DDDDD 000001" "fd, fs, ft"     FpuArithmetic [CP1];
    MulS     "mul.s"    "010001 10000 TTTTT SSSSS DDDDD 000010" "fd, fs, ft"     FpuArithmetic [CP1];
    DivS     "div.s"    "010001 10000 TTTTT SSSSS DDDDD 000011" "fd, fs, ft"     FpuArithmetic [CP1];
    SqrtS    "sqrt.s"   "010001 10000 ----- SSSSS DDDDD 000100" "fd, fs"         FpuArithmetic [CP1];
    AbsS     "abs.s"    "010001 10000 ----- SSSSS DDDDD 000101" "fd, fs"         FpuArithmetic [CP1];
    MovS     "mov.s"    "010001 10000 ----- SSSSS DDDDD 000110" "fd, fs"         FpuMove       [CP1];
    NegS     "neg.s"    "010001 10000 ----- SSSSS DDDDD 000111" "fd, fs"         FpuArithmetic [CP1];
    RecipS   "recip.s"  "010001 10000 ----- SSSSS DDDDD 010101" "fd, fs"         FpuArithmetic [CP1];
    RsqrtS   "rsqrt.s"  "010001 10000 ----- SSSSS DDDDD 010110" "fd, fs"         FpuArithmetic [CP1];
    RoundLS  "round.l.s" "010001 10000 ----- SSSSS DDDDD 001000" "fd, fs"         FpuConvert    [CP1];
    TruncLS  "trunc.l.s" "010001 10000 ----- SSSSS DDDDD 001001" "fd, fs"         FpuConvert    [CP1];
    CeilLS   "ceil.l.s" "010001 10000 ----- SSSSS DDDDD 001010" "fd, fs"         FpuConvert    [CP1];
    FloorLS  "floor.l.s" "010001 10000 ----- SSSSS DDDDD 001011" "fd, fs"         FpuConvert    [CP1];
    RoundWS  "round.w.s" "010001 10000 ----- SSSSS DDDDD 001100" "fd, fs"         FpuConvert    [CP1];
    TruncWS  "trunc.w.s" "010001 10000 ----- SSSSS DDDDD 001101" "fd, fs"         FpuConvert    [CP1];
    CeilWS   "ceil.w.s" "010001 10000 ----- SSSSS DDDDD 001110" "fd, fs"         FpuConvert    [CP1];
    FloorWS  "floor.w.s" "010001 10000 ----- SSSSS DDDDD 001111" "fd, fs"         FpuConvert    [CP1];
    MovfS    "movf.s"   "010001 10000 ccc 0 0 SSSSS DDDDD 010001" "fd, fs, cc"     FpuMove       [CP1];
    MovtS    "movt.s"   "010001 10000 ccc 0 1 SSSSS DDDDD 010001" "fd, fs, cc"     FpuMove       [CP1];
    MovzS    "movz.s"   "010001 10000 ttttt SSSSS DDDDD 010010" "fd, fs, rt"     FpuMove       [CP1];
    MovnS    "movn.s"   "010001 10000 ttttt SSSSS DDDDD 010011" "fd, fs, rt"     FpuMove       [CP1];
    CvtDS    "cvt.d.s"  "010001 10000 ----- SSSSS DDDDD 100001" "fd, fs"         FpuConvert    [CP1];
    CvtWS    "cvt.w.s"  "010001 10000 ----- SSSSS DDDDD 100100" "fd, fs"         FpuConvert    [CP1];
    CvtLS    "cvt.l.s"  "010001 10000 ----- SSSSS DDDDD 100101" "fd, fs"         FpuConvert    [CP1];
    CCondS   "c.*.s"    "010001 10000 TTTTT SSSSS ccc -0 11 oooo" "[ccmp], fs, ft" FpuCompare    [CP1];

    // ---- COP1, fmt D
    AddD     "add.d"    "010001 10001 TTTTT SSSSS DDDDD 000000" "fd, fs, ft"     FpuArithmetic [CP1];
    SubD     "sub.d"    "010001 10001 TTTTT SSSSS DDDDD 000001" "fd, fs, ft"     FpuArithmetic [CP1];
    MulD     "mul.d"    "010001 10001 TTTTT SSSSS DDDDD 000010" "fd, fs, ft"     FpuArithmetic [CP1];
    DivD     "div.d"    "010001 10001 TTTTT SSSSS DDDDD 000011" "fd, fs, ft"     FpuArithmetic [CP1];
    SqrtD    "sqrt.d"   "010001 10001 ----- SSSSS DDDDD 000100" "fd, fs"         FpuArithmetic [CP1];
    AbsD     "abs.d"    "010001 10001 ----- SSSSS DDDDD 000101" "fd, fs"         FpuArithmetic [CP1];
    MovD     "mov.d"    "010001 10001 ----- SSSSS DDDDD 000110" "fd, fs"         FpuMove       [CP1];
    NegD     "neg.d"    "010001 10001 ----- SSSSS DDDDD 000111" "fd, fs"         FpuArithmetic [CP1];
    RecipD   "recip.d"  "010001 10001 ----- SSSSS DDDDD 010101" "fd, fs"         FpuArithmetic [CP1];
    RsqrtD   "rsqrt.d"  "010001 10001 ----- SSSSS DDDDD 010110" "fd, fs"         FpuArithmetic [CP1];
    RoundLD  "round.l.d" "010001 10001 ----- SSSSS DDDDD 001000" "fd, fs"         FpuConvert    [CP1];
    TruncLD  "trunc.l.d" "010001 10001 ----- SSSSS DDDDD 001001" "fd, fs"         FpuConvert    [CP1];
    CeilLD   "ceil.l.d" "010001 10001 ----- SSSSS DDDDD 001010" "fd, fs"         FpuConvert    [CP1];
    FloorLD  "floor.l.d" "010001 10001 ----- SSSSS DDDDD 001011" "fd, fs"         FpuConvert    [CP1];
    RoundWD  "round.w.d" "010001 10001 ----- SSSSS DDDDD 001100" "fd, fs"         FpuConvert    [CP1];
    TruncWD  "trunc.w.d" "010001 10001 ----- SSSSS DDDDD 001101" "fd, fs"         FpuConvert    [CP1];
    CeilWD   "ceil.w.d" "010001 10001 ----- SSSSS DDDDD 001110" "fd, fs"         FpuConvert    [CP1];
    FloorWD  "floor.w.d" "010001 10001 ----- SSSSS DDDDD 001111" "fd, fs"         FpuConvert    [CP1];
    MovfD    "movf.d"   "010001 10001 ccc 0 0 SSSSS DDDDD 010001" "fd, fs, cc"     FpuMove       [CP1];
    MovtD    "movt.d"   "010001 10001 ccc 0 1 SSSSS DDDDD 010001" "fd, fs, cc"     FpuMove       [CP1];
    MovzD    "movz.d"   "010001 10001 ttttt SSSSS DDDDD 010010" "fd, fs, rt"     FpuMove       [CP1];
    MovnD    "movn.d"   "010001 10001 ttttt SSSSS DDDDD 010011" "fd, fs, rt"     FpuMove       [CP1];
    CvtSD    "cvt.s.d"  "010001 10001 ----- SSSSS DDDDD 100000" "fd, fs"         FpuConvert    [CP1];
    CvtWD    "cvt.w.d"  "010001 10001 ----- SSSSS DDDDD 100100" "fd, fs"         FpuConvert    [CP1];
    CvtLD    "cvt.l.d"  "010001 10001 ----- SSSSS DDDDD 100101" "fd, fs"         FpuConvert    [CP1];
    CCondD   "c.*.d"    "010001 10001 TTTTT SSSSS ccc -0 11 oooo" "[ccmp], fs, ft" FpuCompare    [CP1];

    // ---- COP1, fmt W
    CvtSW    "cvt.s.w"  "010001 10100 ----- SSSSS DDDDD 100000" "fd, fs"         FpuConvert    [CP1];
    CvtDW    "cvt.d.w"  "010001 10100 ----- SSSSS DDDDD 100001" "fd, fs"         FpuConvert    [CP1];

    // ---- COP1, fmt L
    CvtSL    "cvt.s.l"  "010001 10101 ----- SSSSS DDDDD 100000" "fd, fs"         FpuConvert    [CP1];
    CvtDL    "cvt.d.l"  "010001 10101 ----- SSSSS DDDDD 100001" "fd, fs"         FpuConvert    [CP1];

    // ---- COP1X
    Lwxc1    "lwxc1"    "010011 sssss ttttt ----- DDDDD 000000" "fd, rt(rs)"     FpuMemory [CP1 LOAD SIZE4];
    Ldxc1    "ldxc1"    "010011 sssss ttttt ----- DDDDD 000001" "fd, rt(rs)"     FpuMemory [CP1 LOAD SIZE8];
    Luxc1    "luxc1"    "010011 sssss ttttt ----- DDDDD 000101" "fd, rt(rs)"     FpuMemory [CP1 LOAD SIZE8 UNALIGNED];
    Swxc1    "swxc1"    "010011 sssss ttttt SSSSS ----- 001000" "fs, rt(rs)"     FpuMemory [CP1 STORE SIZE4];
    Sdxc1    "sdxc1"    "010011 sssss ttttt SSSSS ----- 001001" "fs, rt(rs)"     FpuMemory [CP1 STORE SIZE8];
    Suxc1    "suxc1"    "010011 sssss ttttt SSSSS ----- 001101" "fs, rt(rs)"     FpuMemory [CP1 STORE SIZE8 UNALIGNED];
    Prefx    "prefx"    "010011 sssss ttttt hhhhh ----- 001111" "hintx, rt(rs)"  FpuMemory [CP1];
    MaddS    "madd.s"   "010011 RRRRR TTTTT SSSSS DDDDD 100000" "fd, fr, fs, ft" FpuArithmetic [CP1];
    MaddD    "madd.d"   "010011 RRRRR TTTTT SSSSS DDDDD 100001" "fd, fr, fs, ft" FpuArithmetic [CP1];
    MsubS    "msub.s"   "010011 RRRRR TTTTT SSSSS DDDDD 101000" "fd, fr, fs, ft" FpuArithmetic [CP1];
    MsubD    "msub.d"   "010011 RRRRR TTTTT SSSSS DDDDD 101001" "fd, fr, fs, ft" FpuArithmetic [CP1];
    NmaddS   "nmadd.s"  "010011 RRRRR TTTTT SSSSS DDDDD 110000" "fd, fr, fs, ft" FpuArithmetic [CP1];
    NmaddD   "nmadd.d"  "010011 RRRRR TTTTT SSSSS DDDDD 110001" "fd, fr, fs, ft" FpuArithmetic [CP1];
    NmsubS   "nmsub.s"  "010011 RRRRR TTTTT SSSSS DDDDD 111000" "fd, fr, fs, ft" FpuArithmetic [CP1];
    NmsubD   "nmsub.d"  "010011 RRRRR TTTTT SSSSS DDDDD 111001" "fd, fr, fs, ft" FpuArithmetic [CP1];

    // ---- FPU loads and stores
    Lwc1     "lwc1"     "110001 sssss TTTTT iiiiiiiiiiiiiiii" "ft, simm(rs)"   FpuMemory  [CP1 LOAD SIZE4];
    Ldc1     "ldc1"     "110101 sssss TTTTT iiiiiiiiiiiiiiii" "ft, simm(rs)"   FpuMemory  [CP1 LOAD SIZE8];
    Swc1     "swc1"     "111001 sssss TTTTT iiiiiiiiiiiiiiii" "ft, simm(rs)"   FpuMemory  [CP1 STORE SIZE4];
    Sdc1     "sdc1"     "111101 sssss TTTTT iiiiiiiiiiiiiiii" "ft, simm(rs)"   FpuMemory  [CP1 STORE SIZE8];

    // ---- What the machine does not have; RELATED below has the rows that share these two
    Cop2     "cop2"     "010010 kkkkkkkkkkkkkkkkkkkkkkkkkk"   "code26"         Coprocessor2 [ENDS];
    Reserved ".word"    "kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk"    "code32"         Reserved   [ENDS];
}

/// Rows that decode to an [`Op`] of the table above: known, but nothing of their own to execute.
///
/// Coprocessor 2 has its loads and stores here, which raise Coprocessor Unusable as the rest of it
/// does. The paired-single format is optional in Release 2; a processor whose FIR.PS is zero raises
/// Reserved Instruction on it.
pub static RELATED: &[Row] = &rows! {
    Cop2     "lwc2"     "110010 sssss ttttt iiiiiiiiiiiiiiii" "c2, simm(rs)"   Coprocessor2 [ENDS];
    Cop2     "ldc2"     "110110 sssss ttttt iiiiiiiiiiiiiiii" "c2, simm(rs)"   Coprocessor2 [ENDS];
    Cop2     "swc2"     "111010 sssss ttttt iiiiiiiiiiiiiiii" "c2, simm(rs)"   Coprocessor2 [ENDS];
    Cop2     "sdc2"     "111110 sssss ttttt iiiiiiiiiiiiiiii" "c2, simm(rs)"   Coprocessor2 [ENDS];
    Reserved "add.ps"   "010001 10110 TTTTT SSSSS DDDDD 000000" "fd, fs, ft"     FpuArithmetic [ENDS];
    Reserved "sub.ps"   "010001 10110 TTTTT SSSSS DDDDD 000001" "fd, fs, ft"     FpuArithmetic [ENDS];
    Reserved "mul.ps"   "010001 10110 TTTTT SSSSS DDDDD 000010" "fd, fs, ft"     FpuArithmetic [ENDS];
    Reserved "abs.ps"   "010001 10110 ----- SSSSS DDDDD 000101" "fd, fs"         FpuArithmetic [ENDS];
    Reserved "mov.ps"   "010001 10110 ----- SSSSS DDDDD 000110" "fd, fs"         FpuArithmetic [ENDS];
    Reserved "neg.ps"   "010001 10110 ----- SSSSS DDDDD 000111" "fd, fs"         FpuArithmetic [ENDS];
    Reserved "movf.ps"  "010001 10110 ccc 0 0 SSSSS DDDDD 010001" "fd, fs, cc"     FpuMove       [ENDS];
    Reserved "movt.ps"  "010001 10110 ccc 0 1 SSSSS DDDDD 010001" "fd, fs, cc"     FpuMove       [ENDS];
    Reserved "movz.ps"  "010001 10110 ttttt SSSSS DDDDD 010010" "fd, fs, rt"     FpuMove       [ENDS];
    Reserved "movn.ps"  "010001 10110 ttttt SSSSS DDDDD 010011" "fd, fs, rt"     FpuMove       [ENDS];
    Reserved "cvt.s.pu" "010001 10110 ----- SSSSS DDDDD 100000" "fd, fs"         FpuConvert    [ENDS];
    Reserved "cvt.s.pl" "010001 10110 ----- SSSSS DDDDD 101000" "fd, fs"         FpuConvert    [ENDS];
    Reserved "pll.ps"   "010001 10110 TTTTT SSSSS DDDDD 101100" "fd, fs, ft"     FpuConvert    [ENDS];
    Reserved "plu.ps"   "010001 10110 TTTTT SSSSS DDDDD 101101" "fd, fs, ft"     FpuConvert    [ENDS];
    Reserved "pul.ps"   "010001 10110 TTTTT SSSSS DDDDD 101110" "fd, fs, ft"     FpuConvert    [ENDS];
    Reserved "puu.ps"   "010001 10110 TTTTT SSSSS DDDDD 101111" "fd, fs, ft"     FpuConvert    [ENDS];
    Reserved "cvt.ps.s" "010001 10000 TTTTT SSSSS DDDDD 100110" "fd, fs, ft"     FpuConvert    [ENDS];
    Reserved "c.*.ps"   "010001 10110 TTTTT SSSSS ccc -0 11 oooo" "[ccmp], fs, ft" FpuCompare    [ENDS];
    Reserved "alnv.ps"  "010011 sssss TTTTT SSSSS DDDDD 011110" "fd, fs, ft, rs" FpuConvert    [ENDS];
    Reserved "madd.ps"  "010011 RRRRR TTTTT SSSSS DDDDD 100110" "fd, fr, fs, ft" FpuArithmetic [ENDS];
    Reserved "msub.ps"  "010011 RRRRR TTTTT SSSSS DDDDD 101110" "fd, fr, fs, ft" FpuArithmetic [ENDS];
    Reserved "nmadd.ps" "010011 RRRRR TTTTT SSSSS DDDDD 110110" "fd, fr, fs, ft" FpuArithmetic [ENDS];
    Reserved "nmsub.ps" "010011 RRRRR TTTTT SSSSS DDDDD 111110" "fd, fr, fs, ft" FpuArithmetic [ENDS];
};

/// Other names of special cases, which the disassembler prints in place of the row's own.
pub static ALIASES: &[Row] = &rows! {
    Or       "move"    "000000 sssss 00000 ddddd 00000 100101" "rd, rs"       Logical    [];
    Addiu    "li"      "001001 00000 ttttt iiiiiiiiiiiiiiii"   "rt, simm"     Arithmetic [];
    // Below 0x8000 `li` is ADDIU.
    Ori      "li"      "001101 00000 ttttt 1iiiiiiiiiiiiiii"   "rt, uimm"     Logical    [];
    Sub      "neg"     "000000 00000 ttttt ddddd 00000 100010" "rd, rt"       Arithmetic [];
    Subu     "negu"    "000000 00000 ttttt ddddd 00000 100011" "rd, rt"       Arithmetic [];
    Dsub     "dneg"    "000000 00000 ttttt ddddd 00000 101110" "rd, rt"       Arithmetic [BITS64];
    Dsubu    "dnegu"   "000000 00000 ttttt ddddd 00000 101111" "rd, rt"       Arithmetic [BITS64];
    Beq      "b"       "000100 00000 00000 iiiiiiiiiiiiiiii"   "branch"       Branch     [BRANCH];
    Bgezal   "bal"     "000001 00000 10001 iiiiiiiiiiiiiiii"   "branch"       Branch     [BRANCH];
    Beq      "beqz"    "000100 sssss 00000 iiiiiiiiiiiiiiii"   "rs, branch"   Branch     [BRANCH];
    Bne      "bnez"    "000101 sssss 00000 iiiiiiiiiiiiiiii"   "rs, branch"   Branch     [BRANCH];
    Beql     "beqzl"   "010100 sssss 00000 iiiiiiiiiiiiiiii"   "rs, branch"   Branch     [BRANCH LIKELY];
    Bnel     "bnezl"   "010101 sssss 00000 iiiiiiiiiiiiiiii"   "rs, branch"   Branch     [BRANCH LIKELY];
    Sync     "sync_wmb"     "000000 00000 00000 00000 00100 001111" ""        Memory     [];
    Sync     "sync_mb"      "000000 00000 00000 00000 10000 001111" ""        Memory     [];
    Sync     "sync_acquire" "000000 00000 00000 00000 10001 001111" ""        Memory     [];
    Sync     "sync_release" "000000 00000 00000 00000 10010 001111" ""        Memory     [];
    Sync     "sync_rmb"     "000000 00000 00000 00000 10011 001111" ""        Memory     [];
};

/// Names that the assembler reads beside those above and the disassembler never prints.
pub static SYNONYMS: &[Row] = &rows! {
    Nor      "not"     "000000 sssss 00000 ddddd 00000 100111" "rd, rs"       Logical    [];
    Jr       "j"       "000000 sssss 00000 00000 00000 001000" "rs"           Branch     [BRANCH];
    Jalr     "jal"     "000000 sssss 00000 11111 00000 001001" "rs"           Branch     [BRANCH];
    Rotr     "ror"     "000000 00001 ttttt ddddd aaaaa 000010" "rd, rt, sa"   Shift      [];
    Rotrv    "rorv"    "000000 sssss ttttt ddddd 00001 000110" "rd, rt, rs"   Shift      [];
    Drotr    "dror"    "000000 00001 ttttt ddddd aaaaa 111010" "rd, rt, sa"   Shift      [BITS64];
    Drotrv   "drorv"   "000000 sssss ttttt ddddd 00001 010110" "rd, rt, rs"   Shift      [BITS64];
    Drotr32  "dror32"  "000000 00001 ttttt ddddd aaaaa 111110" "rd, rt, sa"   Shift      [BITS64];
    Dextm    "dext"    "011111 sssss ttttt ddddd aaaaa 000001" "rt, rs, pos, size_plus32"   Move [BITS64];
    Dextu    "dext"    "011111 sssss ttttt ddddd aaaaa 000010" "rt, rs, pos_plus32, size"   Move [BITS64];
    Dinsm    "dins"    "011111 sssss ttttt ddddd aaaaa 000101" "rt, rs, pos, width_plus32"  Move [BITS64];
    Dinsu    "dins"    "011111 sssss ttttt ddddd aaaaa 000110" "rt, rs, pos_plus32, width"  Move [BITS64];
};
