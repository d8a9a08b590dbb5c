//! Small programs whose speed is measured, with the interpreter and with the translator.

use machine::{MachineAddr, MachineMemory};

/// Machine address of the programs' data.
pub const DATA: u64 = 4 << 20;

/// Each program loops for ever. s0 points to 1 MiB of memory that holds a cycle of pointers.
pub const PROGRAMS: &[(&str, &str)] = &[
    (
        "integer loop",
        "loop:   addu   v0, v0, a0
                 xor    v1, v0, a1
                 sll    a2, v1, 3
                 srl    a3, v1, 5
                 or     v0, a2, a3
                 daddiu a0, a0, 1
                 sltu   a4, a0, a1
                 and    a5, v0, v1
                 bne    a0, zero, loop
                 daddu  a1, a1, a5",
    ),
    (
        "loads and stores",
        "loop:   lw     v0, 0(a0)
                 ld     v1, 8(a0)
                 addu   v0, v0, v1
                 sw     v0, 16(a0)
                 lbu    a1, 24(a0)
                 sd     v1, 32(a0)
                 andi   a2, a2, 0xffc
                 daddu  a0, s0, a2
                 bne    s0, zero, loop
                 daddiu a2, a2, 64",
    ),
    (
        "pointer chase",
        "        move   a0, s0
         loop:   ld     a0, 0(a0)
                 ld     a0, 0(a0)
                 ld     a0, 0(a0)
                 ld     a0, 0(a0)
                 bne    a0, zero, loop
                 nop",
    ),
    (
        "floating point",
        "        li     a0, 3
                 dmtc1  a0, $f0
                 cvt.d.l $f0, $f0
                 li     a0, 7
                 dmtc1  a0, $f2
                 cvt.d.l $f2, $f2
                 div.d  $f4, $f0, $f2
         loop:   mul.d  $f6, $f4, $f0
                 add.d  $f8, $f6, $f2
                 sub.d  $f10, $f8, $f4
                 c.lt.d $f10, $f0
                 sdc1   $f10, 0(s0)
                 ldc1   $f12, 0(s0)
                 bne    s0, zero, loop
                 madd.d $f14, $f6, $f8, $f10",
    ),
    (
        "calls and returns",
        "loop:   jal    function
                 addiu  a0, a0, 1
                 bne    s0, zero, loop
                 nop
         function:
                 daddiu sp, sp, -16
                 sd     ra, 8(sp)
                 addu   v0, v0, a0
                 ld     ra, 8(sp)
                 jr     ra
                 daddiu sp, sp, 16",
    ),
    (
        "calls between pages",
        "loop:   jal    function
                 addiu  a0, a0, 1
                 bne    s0, zero, loop
                 nop
                 .align 12
         function:
                 daddiu sp, sp, -16
                 sd     ra, 8(sp)
                 addu   v0, v0, a0
                 ld     ra, 8(sp)
                 jr     ra
                 daddiu sp, sp, 16",
    ),
];

/// Puts the cycle of pointers where s0 will point.
pub fn write_pointers(memory: &MachineMemory) {
    const COUNT: u64 = 1 << 17;
    for index in 0..COUNT {
        let next = 0xffff_ffff_8000_0000 + DATA + (index * 40_961 % COUNT) * 8;
        memory.write(MachineAddr(DATA + index * 8), &next.to_le_bytes());
    }
}
