# A program for Linux (n64): STEPS steps along a random cycle through 2^20 lines of 64 bytes, 64 MiB.
#
# The same cycle as chase.S, in memory from mmap, under a kernel with page tables of its own. The exit
# status is the last byte of the number of the line that it ends at; 99 if there is no memory
# (STEPS is chosen so that 99 is not the right answer).
#
# Source: Linux, arch/mips/kernel/syscalls/syscall_n64.tbl and arch/mips/include/uapi/asm/mman.h.

        .equ    EXIT, 5058
        .equ    MMAP, 5009
        .equ    MADVISE, 5027
        .equ    READ_WRITE, 3
        .equ    PRIVATE_ANONYMOUS, 0x802
        .equ    LINES, 0x100000
        .equ    SIZE, LINES * 64

        li      v0, MMAP
        move    a0, zero
        li      a1, SIZE
        li      a2, READ_WRITE
        li      a3, PRIVATE_ANONYMOUS
        li      a4, -1
        move    a5, zero
        syscall
        bnez    a3, exit
        li      a0, 99

        move    s1, v0
        li      v0, MADVISE
        move    a0, s1
        li      a1, SIZE
        li      a2, ADVICE
        syscall
        bnez    a3, exit
        li      a0, 99
        move    v0, s1

        move    s0, zero                        # line
        li      t0, INCREMENT                   # where line 0 points to
        li      t1, LINES
        li      t2, MULTIPLIER
        move    t3, v0
build:  ins     t0, zero, 20, 12                # modulo 2^20
        dsll    s1, t0, 6
        daddu   s1, s1, v0
        sd      s1, 0(t3)
        addu    t0, t0, t2
        addiu   s0, s0, 1
        bne     s0, t1, build
        daddiu  t3, t3, 64

        move    a0, v0
        li      t0, STEPS
step:   ld      a0, 0(a0)
        addiu   t0, t0, -1
        bnez    t0, step
        nop
        dsubu   a0, a0, v0
        dext    a0, a0, 6, 8
exit:   li      v0, EXIT
        syscall
