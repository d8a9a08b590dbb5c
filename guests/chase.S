# A pointer chase: STEPS steps along a random cycle through 2^20 lines of 64 bytes, 64 MiB in all.
#
# Line i points to line (MULTIPLIER * i + INCREMENT) mod 2^20, which is one cycle through all of them
# (Hull and Dobell: increment odd, multiplier 1 modulo 4). Nearly every step is on another page than
# the TLB, and a second-level TLB of ordinary size, can know of.

        .equ    AREA, 0x04000000
        .equ    LINES, 0x100000

        li      a0, AREA
        move    s0, zero                        # line
        li      t0, INCREMENT                   # where line 0 points to
        li      t1, LINES
        li      t2, MULTIPLIER
build:  ins     t0, zero, 20, 12                # modulo 2^20
        sll     t3, t0, 6
        addu    t3, t3, a0
        sll     s1, s0, 6
        addu    s1, s1, a0
        sd      t3, 0(s1)
        addu    t0, t0, t2
        addiu   s0, s0, 1
        bne     s0, t1, build
        nop

        li      v0, 1
        syscall
        li      a0, AREA
        li      t0, STEPS
step:   ld      a0, 0(a0)
        addiu   t0, t0, -1
        bnez    t0, step
        nop
        li      v0, 2
        syscall
