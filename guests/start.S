# What our small kernels share: vectors, an identity page table, a console and the way out.
#
# A kernel is this text with one of the works (loop.S, float.S, chase.S, syscall.S) behind it. The
# work runs in user mode, in mapped memory, so that its own TLB misses come to `refill` below as
# they would on hardware, and under Disco first to Disco. It asks the kernel by `syscall`, with v0:
#
#   0   nothing: the system call that the benchmark counts; s0 goes up by one
#   1   print "bench: begin NAME"; only s0 to s6 survive
#   2   print "bench: end NAME" with a0 as 16 hexadecimal digits, and reset the board
#
# Before this text come, from whoever puts it together, the addresses of the board in KSEG1
#   UART_DATA, UART_STATUS      THR and LSR of a 16550, 32 bits wide
#   RESET, RESET_VALUE          a store of this value resets the board
# and what the work takes, among it STEPS; behind it, the string `name`.
#
# Source: MIPS64 architecture manual, volume III: exception vectors, Context, TLBWR, hazards.

        .equ    base, .
        .equ    KSEG0, -0x80000000
        .equ    PAGES, 0x8000                   # 128 MiB of 4 KiB pages
        .equ    TABLE, KSEG0 + 0x00800000       # Context.PTEBase: a multiple of 8 MiB
        .equ    STATUS, 0x240000e0              # CU1, FR, KX, SX, UX
        .equ    STATUS_BEV, 0x00400000
        .equ    STATUS_USER, 0x12               # KSU = user, EXL
        .equ    LSR_EMPTY, 0x20
        .equ    PTE, 0x1f                       # cacheable, dirty, valid, global

# A TLB refill, from an address with 64-bit addressing on: a row of the table has two pages.
        .org    base + 0x080
refill: dmfc0   k1, c0_context
        ld      k0, 0(k1)
        ld      k1, 8(k1)
        dmtc0   k0, c0_entrylo0
        dmtc0   k1, c0_entrylo1
        ehb
        tlbwr
        eret

        .org    base + 0x180
general:
        mfc0    k0, c0_cause
        andi    k0, k0, 0x7c
        addiu   k0, k0, -0x20                   # ExcCode 8: system call
        bnez    k0, fault
        nop
        bnez    v0, service
        dmfc0   k0, c0_epc
        daddiu  s0, s0, 1
resume: daddiu  k0, k0, 4
        dmtc0   k0, c0_epc
        ehb
        eret

        .org    base + 0x400
entry:  li      t0, STATUS | STATUS_BEV         # EBase may be written with BEV set
        mtc0    t0, c0_status
        ehb
        la      t1, base
        mtc0    t1, c0_ebase
        ehb
        li      t0, STATUS
        mtc0    t0, c0_status
        mtc0    zero, c0_wired
        mtc0    zero, c0_pagemask
        la      t1, TABLE
        dmtc0   t1, c0_context
        ehb
        ctc1    zero, c1_fcsr

# No two TLB entries may match an address, so each gets one of its own in KSEG0, where none matches.
        mfc0    t2, c0_config1
        ext     t2, t2, 25, 6
        la      t3, KSEG0
        dmtc0   zero, c0_entrylo0
        dmtc0   zero, c0_entrylo1
clear:  dmtc0   t3, c0_entryhi
        mtc0    t2, c0_index
        ehb
        tlbwi
        daddiu  t3, t3, 0x2000
        bnez    t2, clear
        addiu   t2, t2, -1
        dmtc0   zero, c0_entryhi

        la      t1, TABLE
        li      t2, PAGES
        li      t3, PTE
fill:   sd      t3, 0(t1)
        daddiu  t3, t3, 0x40                    # the next page frame number
        addiu   t2, t2, -1
        bnez    t2, fill
        daddiu  t1, t1, 8

        la      t0, work - KSEG0                # the same memory, as user mode sees it
        dmtc0   t0, c0_epc
        li      t0, STATUS | STATUS_USER
        mtc0    t0, c0_status
        ehb
        eret

service:
        la      a1, begin
        addiu   t0, v0, -1
        beqz    t0, announce
        nop
        la      a1, end
announce:
        jal     print
        move    s7, v0
        la      a1, name
        jal     print
        nop
        addiu   t0, s7, -1
        bnez    t0, finish
        nop
        la      a1, line
        jal     print
        nop
        b       resume
        dmfc0   k0, c0_epc

finish: jal     put
        li      t0, 0x20                        # a space
        li      s1, 16
digit:  dsrl32  t0, a0, 28
        sltiu   t2, t0, 10
        bnez    t2, decimal
        addiu   t0, t0, 0x30                    # "0"
        addiu   t0, t0, 0x27                    # from behind "9" to "a"
decimal:
        jal     put
        dsll    a0, a0, 4
        addiu   s1, s1, -1
        bnez    s1, digit
        nop
        la      a1, line
leave:  jal     print
        nop
        dli     t0, RESET
        li      t1, RESET_VALUE
        sw      t1, 0(t0)
stuck:  b       stuck
        nop

fault:  la      a1, unexpected
        b       leave
        nop

# Prints the string at a1.
print:  move    t9, ra
next:   lbu     t0, 0(a1)
        beqz    t0, printed
        nop
        jal     put
        daddiu  a1, a1, 1
        b       next
        nop
printed:
        jr      t9
        nop

# Prints the character in t0.
put:    dli     t1, UART_STATUS
full:   lw      t2, 0(t1)
        andi    t2, t2, LSR_EMPTY
        beqz    t2, full
        nop
        dli     t1, UART_DATA
        jr      ra
        sw      t0, 0(t1)

begin:  .asciiz "bench: begin "
end:    .asciiz "bench: end "
line:   .asciiz "\r\n"
unexpected:
        .asciiz "bench: fault\r\n"

        .org    base + 0x1000
work:
