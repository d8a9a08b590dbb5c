# A floating-point loop in registers: the sum of 1 / (k * k + k) for k from 1 to STEPS, in doubles.

        li      v0, 1
        syscall
        li      t1, 1
        dmtc1   t1, $f1
        cvt.d.l $f1, $f1                        # 1.0
        mov.d   $f2, $f1                        # k
        dmtc1   zero, $f0                       # the sum
        li      t0, STEPS
step:   mul.d   $f3, $f2, $f2
        addiu   t0, t0, -1
        add.d   $f3, $f3, $f2
        div.d   $f3, $f1, $f3
        add.d   $f2, $f2, $f1
        bnez    t0, step
        add.d   $f0, $f0, $f3
        dmfc1   a0, $f0
        li      v0, 2
        syscall
