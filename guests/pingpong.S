# A program for Linux (n64): a byte goes to and fro between two processes by two pipes, STEPS times.
#
# The child adds one to the byte. The exit status is the byte that comes back last, 0 to 255, or 99
# where the kernel refuses something (STEPS is chosen so that 99 is not the right answer).
#
# Source: Linux, arch/mips/kernel/syscalls/syscall_n64.tbl; pipe(2) returns in v0 and v1 on MIPS.

        .equ    READ, 5000
        .equ    WRITE, 5001
        .equ    PIPE, 5021
        .equ    FORK, 5056
        .equ    EXIT, 5058

        li      v0, PIPE
        syscall
        bnez    a3, refuse
        move    s0, v0                          # to the child: read from s0, write to s1
        move    s1, v1
        li      v0, PIPE
        syscall
        bnez    a3, refuse
        move    s2, v0                          # to the parent
        move    s3, v1
        daddiu  sp, sp, -16
        sd      zero, 0(sp)
        li      v0, FORK
        syscall
        bnez    a3, refuse
        li      s4, STEPS
        beqz    v0, child
        nop

parent: li      v0, WRITE
        move    a0, s1
        move    a1, sp
        li      a2, 1
        syscall
        bnez    a3, refuse
        li      v0, READ
        move    a0, s2
        move    a1, sp
        li      a2, 1
        syscall
        bnez    a3, refuse
        addiu   s4, s4, -1
        bnez    s4, parent
        nop
        lbu     a0, 0(sp)
exit:   li      v0, EXIT
        syscall

child:  li      v0, READ
        move    a0, s0
        move    a1, sp
        li      a2, 1
        syscall
        bnez    a3, refuse
        lbu     t0, 0(sp)
        addiu   t0, t0, 1
        sb      t0, 0(sp)
        li      v0, WRITE
        move    a0, s3
        move    a1, sp
        li      a2, 1
        syscall
        bnez    a3, refuse
        addiu   s4, s4, -1
        bnez    s4, child
        nop
        b       exit
        move    a0, zero

refuse: b       exit
        li      a0, 99
