# An integer loop in registers: STEPS steps of Marsaglia's xorshift, eight instructions each.
#
# Source: G. Marsaglia: Xorshift RNGs, Journal of Statistical Software 8 (2003), shifts 13, 7, 17.

        li      v0, 1
        syscall
        li      a0, 1
        li      t0, STEPS
step:   dsll    t1, a0, 13
        xor     a0, a0, t1
        dsrl    t1, a0, 7
        xor     a0, a0, t1
        dsll    t1, a0, 17
        addiu   t0, t0, -1
        bnez    t0, step
        xor     a0, a0, t1
        li      v0, 2
        syscall
