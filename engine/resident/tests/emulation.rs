//! Privileged instructions and exceptions under the monitor, with the bare CPU as second opinion.
//!
//! Each test is guest text that runs on a bare CPU and under the monitor; registers and the guest's log must be
//! equal. The exception handlers log what the guest can know about an exception and go on behind the instruction
//! (at s6 if it was in a delay slot or a BREAK; a BREAK of a user leads to s7 in the kernel). Nobody here uses TLBWR: without it the second-level TLB
//! has no ghosts, so even refills must be equal.

mod guest;

use std::sync::Arc;

use guest::{HALT, KSEG0, PROGRAM, PROGRAM_PHYS, Random};
use machine::cp0::{page_grain, status};
use machine::{Cpu, CpuConfig, Cycles, MachineAddr, MachineMemory, NodeId, Registers, Stop};
use resident::{Costs, Event, MonitorConfig, StopCause};

const LOG_PHYS: u64 = 0x10_0000;
const LOG_COUNT: usize = 0x1_0000;
const RAM_BYTES: u64 = 4 << 20;
const DATA: u64 = 0x8000;

/// Vectors, a log of exceptions, and the start of a program. s0: the log. s6: where a faulting slot goes on.
/// Cause is logged without the timer, whose time is the monitor's.
fn prologue() -> String {
    let vector = |number: u64, offset: u64| {
        format!(
            ".org {PROGRAM:#x} + {offset:#x}
             b handle
             li k0, {number}\n"
        )
    };
    format!(
        "{}{}{}{}
        .org {PROGRAM:#x} + 0x300
handle: sd k0, 0(s0)
        mfc0 k1, c0_cause
        li k0, {cause_mask}
        and k0, k0, k1
        sd k0, 8(s0)
        dmfc0 k0, c0_epc
        sd k0, 16(s0)
        dmfc0 k0, c0_badvaddr
        sd k0, 24(s0)
        dmfc0 k0, c0_entryhi
        sd k0, 32(s0)
        dmfc0 k0, c0_context
        sd k0, 40(s0)
        dmfc0 k0, c0_xcontext
        sd k0, 48(s0)
        mfc0 k0, c0_status
        sd k0, 56(s0)
        daddiu s0, s0, 64
        andi k0, k1, 0x7c
        daddiu k0, k0, -36
        beq k0, zero, handle_break
        nop
        bltz k1, handle_slot
        dmfc0 k0, c0_epc
        daddiu k0, k0, 4
        dmtc0 k0, c0_epc
        eret
handle_slot: dmtc0 s6, c0_epc
        eret
handle_break: beq s7, zero, handle_slot
        nop
        dmtc0 s7, c0_epc
        li k0, {status_in_handler}
        mtc0 k0, c0_status
        eret
        .org {PROGRAM:#x} + 0x400
        li s0, {log:#x}
        li t0, {PROGRAM:#x}
        mtc0 t0, c0_ebase
        li t0, {running}
        mtc0 t0, c0_status
        ",
        vector(1, 0),
        vector(2, 0x80),
        vector(3, 0x180),
        vector(4, 0x200),
        cause_mask = 0xb080_037cu32 as i32,
        status_in_handler = status::KX | status::UX | status::EXL,
        log = KSEG0 + LOG_PHYS,
        running = status::KX | status::UX,
    )
}

#[derive(Debug, PartialEq)]
struct Outcome {
    gpr: Vec<u64>,
    hi: u64,
    lo: u64,
    fpr: Vec<u64>,
    log: Vec<u64>,
}

impl Outcome {
    fn new(regs: &Registers, log: Vec<u64>) -> Outcome {
        Outcome { gpr: regs.gpr[..32].to_vec(), hi: regs.hi, lo: regs.lo, fpr: regs.fpr.to_vec(), log }
    }
}

fn image(text: &str) -> Vec<u8> {
    guest::assemble(&format!("{}{text}\n{HALT}", prologue()))
}

fn run_bare(program: &[u8]) -> Outcome {
    let memory = Arc::new(MachineMemory::new(1, RAM_BYTES).unwrap());
    memory.write(MachineAddr(PROGRAM_PHYS), program);
    let mut cpu = Cpu::new(0, NodeId(0), CpuConfig::guest(), Arc::clone(&memory));
    cpu.regs.pc = PROGRAM + 0x400;
    let stop = cpu.run(Cycles(50_000_000));
    assert_eq!(stop, Stop::Wait, "bare, pc {:#x}", cpu.regs.pc);
    let mut bytes = vec![0; 8 * LOG_COUNT];
    memory.read(MachineAddr(LOG_PHYS), &mut bytes);
    Outcome::new(&cpu.regs, guest::dwords(&bytes))
}

fn run_monitored(program: &[u8], config: MonitorConfig) -> Outcome {
    let mut monitor = guest::machine(config);
    let vm = guest::create(&mut monitor, RAM_BYTES, 1);
    guest::store(&mut monitor, vm, PROGRAM_PHYS, program);
    guest::start(&mut monitor, vm, 0, 0, PROGRAM + 0x400);
    guest::run_to_halt(&mut monitor, 500_000_000);
    let log = guest::load_dwords(&mut monitor, vm, LOG_PHYS, LOG_COUNT);
    monitor.inspect(vm, 0, |_, regs| Outcome::new(regs, log)).unwrap()
}

/// Runs the text both ways; the log must not be empty.
fn compare(text: &str) -> Outcome {
    let program = image(text);
    let bare = run_bare(&program);
    for (tlb_entries, l2tlb_entries) in [(64, 1024), (8, 0)] {
        let monitored = run_monitored(&program, MonitorConfig { tlb_entries, l2tlb_entries, ..guest::config() });
        if monitored != bare {
            let at = bare.log.iter().zip(&monitored.log).position(|(a, b)| a != b);
            let around = |log: &[u64]| at.map(|at| log[at / 8 * 8..at / 8 * 8 + 16].to_vec());
            panic!(
                "log differs at {at:?}:\n bare      {:x?}\n monitored {:x?}\n registers {:x?}\n           {:x?}",
                around(&bare.log),
                around(&monitored.log),
                bare.gpr,
                monitored.gpr
            );
        }
    }
    bare
}

/// A CP0 move by the numbers of its register; the operation is the rs field.
fn move_word(operation: u32, rt: u32, number: u8, select: u8) -> String {
    let word = 0x10 << 26 | operation << 21 | rt << 16 | u32::from(number) << 11 | u32::from(select);
    format!(".word {word:#x}\n")
}

const MFC0: u32 = 0;
const DMFC0: u32 = 1;
const MTC0: u32 = 4;
const DMTC0: u32 = 5;
const T0: u32 = 12;
const T1: u32 = 13;
const LOG_T1: &str = "sd t1, 0(s0)\n daddiu s0, s0, 8\n";

/// All 256 names, registers that do not exist included; Count and Status have tests of their own.
#[test]
fn a_cp0_register_reads_back_as_on_the_bare_cpu() {
    let values = [0u64, u64::MAX, 0xffff_ffff_8000_0000, 0x5555_5555_aaaa_aaaa, 0xaaaa_aaaa_5555_5555];
    for select in 0..8u8 {
        let mut text = String::new();
        for number in (0..32u8).filter(|number| ![(9, 0), (12, 0)].contains(&(*number, select))) {
            for (index, value) in values.iter().enumerate() {
                text += &format!("dli t0, {:#x}\n", *value as i64);
                text += &move_word(if index % 2 == 0 { MTC0 } else { DMTC0 }, T0, number, select);
                for read in [MFC0, DMFC0] {
                    text += &move_word(read, T1, number, select);
                    if (number, select) == (13, 0) {
                        text += "li at, 0xffff7fff\n li at, 0x3fff7fff\n and t1, t1, at\n"; // the timer's TI and IP7
                    }
                    text += LOG_T1;
                }
            }
            // As at reset, so that one register does not shape the next.
            text += &move_word(DMTC0, 0, number, select);
        }
        compare(&text);
    }
}

#[test]
fn status_reads_back_as_on_the_bare_cpu() {
    let kernel = !(status::KSU_MASK | status::IE);
    let rows = [
        kernel,
        0xaaaa_aaaa & kernel,
        0x5555_5555 & kernel,
        status::TS | status::SR | status::NMI,
        status::ERL,
        status::EXL,
        status::ERL | status::EXL | 3 << status::KSU_SHIFT,
        status::EXL | 1 << status::KSU_SHIFT, // no supervisor mode
        status::CU0 | status::CU1 | status::FR | status::PX | status::BEV,
        0,
    ];
    let mut text = String::new();
    for row in rows {
        text += &format!("li t0, {}\n mtc0 t0, c0_status\n mfc0 t1, c0_status\n{LOG_T1}", row as i32);
    }
    compare(&text);
}

#[test]
fn di_and_ei_give_the_status_before() {
    let text = format!(
        "di t1\n {LOG_T1} ei t1\n {LOG_T1} ei\n mfc0 t1, c0_status\n {LOG_T1} di\n mfc0 t1, c0_status\n {LOG_T1}
         di zero\n or t1, zero, zero\n {LOG_T1}"
    );
    compare(&text);
}

#[test]
fn eret_returns_by_epc_or_error_epc_and_clears_the_link() {
    let mut text = String::new();
    for (index, level) in [0, status::EXL, status::ERL, status::EXL | status::ERL].into_iter().enumerate() {
        text += &format!(
            "la t0, epc_{index}
             dmtc0 t0, c0_epc
             la t0, error_epc_{index}
             dmtc0 t0, c0_errorepc
             li t0, {}
             mtc0 t0, c0_status
             li t2, {DATA_KSEG:#x}
             ll t3, 0(t2)
             eret
             li t1, 99
             b done_{index}
             nop
epc_{index}: li t1, 1
             b done_{index}
             nop
error_epc_{index}: li t1, 2
done_{index}: sc t3, 0(t2)
             {LOG_T1}
             mfc0 t1, c0_status
             {LOG_T1}
             or t1, t3, zero
             {LOG_T1}",
            level | status::KX,
        );
    }
    let log = compare(&text).log;
    let returns: Vec<u64> = log.chunks(3).map(|row| row[0]).take(4).collect();
    assert_eq!(returns, [1, 1, 2, 2]);
    assert!(log.chunks(3).take(4).all(|row| row[2] == 0), "SC after ERET");
}

const DATA_KSEG: u64 = KSEG0 + DATA;

#[test]
fn a_link_survives_emulated_instructions_and_tlb_misses() {
    let between = [
        "nop",
        "mfc0 t1, c0_epc",
        "mtc0 zero, c0_entryhi",
        "di",
        "tlbp",
        "cache 0x15, 0(t2)",
        "ld t1, 0(t0)", // a page that is in no TLB
        "ld t1, 0(t0)\n ld t1, 0x2000(t0)\n ld t1, 0x4000(t0)",
        "rdhwr t1, $1",
    ];
    let mut text = format!("li t2, {DATA_KSEG:#x}\n");
    for (index, instructions) in between.into_iter().enumerate() {
        let elsewhere = KSEG0 + 0x20_0000 + 0x8000 * index as u64;
        text += &format!("li t0, {elsewhere:#x}\n");
        for (ll, sc) in [("ll", "sc"), ("lld", "scd")] {
            text += &format!(
                "{ll} t3, 0(t2)\n daddiu t3, t3, 1\n {instructions}\n {sc} t3, 0(t2)\n or t1, t3, zero\n {LOG_T1}"
            );
        }
    }
    let count = 2 * between.len();
    assert_eq!(compare(&text).log[..count], vec![1; count], "every SC succeeds");
}

#[test]
fn a_privileged_instruction_in_a_delay_slot_is_executed_once_and_the_branch_is_taken() {
    let slots = [
        "mtc0 t0, c0_epc",
        "mfc0 t1, c0_ebase",
        "tlbp",
        "di t1",
        "rdhwr t1, $0",
        "cache 0, 0(s0)",
        "tlbwi",
        "tlbr",
    ];
    let branches = [
        "b {}",
        "beq zero, zero, {}",
        "bne zero, zero, {}",
        "beql zero, t0, {}", // not taken: its slot is not executed
        "beql zero, zero, {}",
        "jal {}",
        "bgezal zero, {}",
        "bltzal zero, {}", // links without being taken
        "j {}",
        "jalr t2, t3",
    ];
    let mut text = String::new();
    for (row, branch) in branches.into_iter().enumerate() {
        for (column, slot) in slots.into_iter().enumerate() {
            let label = format!("target_{row}_{column}");
            let branch = branch.replace("{}", &label);
            text += &format!(
                "la t3, {label}
                 li t0, {row}
                 li t1, -1
                 or ra, zero, zero
                 {branch}
                 {slot}
                 daddiu t1, t1, 7
{label}:         {LOG_T1}
                 or t1, ra, zero
                 {LOG_T1}
                 dmfc0 t1, c0_epc
                 {LOG_T1}"
            );
        }
    }
    compare(&text);
}

#[test]
fn an_exception_in_a_delay_slot_restarts_at_the_branch() {
    let slots = [
        "syscall",
        "break",
        "teq zero, zero",
        "lw t1, 1(s0)",       // address error
        "ld t1, 0x100(zero)", // refill
        "sd t1, 0x100(zero)",
        "add t1, t0, t0",      // overflow
        ".word 0x00000005",    // reserved
        "add.s $f0, $f0, $f0", // no CU1
    ];
    let mut text = "li t0, 0x7fffffff\n".to_string();
    for (row, branch) in
        ["b {}", "bne zero, zero, {}", "jal {}", "beql zero, t0, {}", "bltzal zero, {}"].iter().enumerate()
    {
        for (column, slot) in slots.into_iter().enumerate() {
            let label = format!("target_{row}_{column}");
            let branch = branch.replace("{}", &label);
            text += &format!(
                "la s6, {label}\n or ra, zero, zero\n {branch}\n {slot}\n nop\n{label}: or t1, ra, zero\n {LOG_T1}"
            );
        }
    }
    compare(&text);
}

/// Addresses at the edges of all segments. None is unmapped without memory behind it.
fn addresses() -> Vec<u64> {
    let mut addresses = vec![
        0,
        0x7fff_fff8,
        0x8000_0000,
        0xffff_fff8,
        0xff_ffff_fff8,
        0x100_0000_0000,
        0x3fff_ffff_ffff_fff8,
        0x4000_0000_0000_0000,
        0x4000_00ff_ffff_fff8,
        0x4000_0100_0000_0000,
        0xc000_0000_0000_0000,
        0xc000_00ff_7fff_fff8,
        0xc000_00ff_8000_0000,
        0xffff_ffff_7fff_fff8,
        0xffff_ffff_c000_0000,
        0xffff_ffff_dfff_fff8,
        0xffff_ffff_e000_0000,
        0xffff_ffff_ffff_fff8,
        KSEG0 + DATA,
        KSEG0 + 0x2000_0000 + DATA,
        KSEG0 + DATA + 3, // misaligned
        0xa000_0000,      // a segment's name without its sign
    ];
    for cache_attribute in 0..8u64 {
        let region = 0x8000_0000_0000_0000 | cache_attribute << 59;
        addresses.extend([
            region + DATA,
            region + (1 << 36),
            region + (1 << 39),
            region + (1 << 40),
            region + (1 << 58),
        ]);
    }
    addresses
}

fn access_all(label: &str) -> String {
    let mut text = String::new();
    for (index, address) in addresses().into_iter().enumerate() {
        text += &format!(
            "dli t0, {:#x}
             li t1, -2
             lw t1, 0(t0)
             {LOG_T1}
             li t1, {index}
             sd t1, 0(t0)
             la s6, {label}_{index}
             ld t1, 0(t0)
             {LOG_T1}
{label}_{index}: nop\n",
            address as i64
        );
    }
    text
}

#[test]
fn every_segment_answers_a_kernel_as_on_the_bare_cpu() {
    let statuses = [status::KX | status::UX, status::KX, status::UX, 0, status::KX | status::UX | status::ERL];
    for (index, bits) in statuses.into_iter().enumerate() {
        // Under ERL useg is unmapped; the addresses there have no memory except the lowest.
        let is_error = bits & status::ERL != 0;
        let accesses = if is_error {
            format!("lw t1, 0x40(zero)\n {LOG_T1} sd s0, 0x48(zero)\n ld t1, 0x48(zero)\n {LOG_T1}")
        } else {
            access_all(&format!("status_{index}"))
        };
        compare(&format!("li t0, {bits}\n mtc0 t0, c0_status\n {accesses}"));
    }
}

/// One pair of 1 MiB pages that maps useg from 0 to memory from 0, for user code beside the kernel's.
const MAP_USER: &str = "
        mtc0 zero, c0_index
        mtc0 zero, c0_entryhi
        li t0, 0x1fe000
        mtc0 t0, c0_pagemask
        li t0, 0x1f
        dmtc0 t0, c0_entrylo0
        li t0, 0x401f
        dmtc0 t0, c0_entrylo1
        tlbwi
        mtc0 zero, c0_pagemask
";

/// Text that runs in user mode with these Status bits.
fn in_user_mode(label: &str, bits: u32, text: &str) -> String {
    format!(
        "la t0, {label}
         lui t1, 0x2000
         addiu t1, t1, -1
         and t0, t0, t1
         dmtc0 t0, c0_epc
         la s7, {label}_behind
         li t0, {status}
         mtc0 t0, c0_status
         eret
{label}: {text}
         break
{label}_behind: or s7, zero, zero\n",
        status = bits | 2 << status::KSU_SHIFT | status::EXL
    )
}

#[test]
fn user_mode_may_what_it_may_on_the_bare_cpu() {
    let forbidden = [
        "mfc0 t1, c0_status",
        "mtc0 t1, c0_epc",
        "dmfc0 t1, c0_epc",
        "tlbp",
        "di t1",
        "cache 0, 0(zero)",
        "wait",
        "tlbinvf",
        "rdpgpr t1, t0",
        "daddu t1, t1, t1",
        "dsll t1, t1, 1",
        "rdhwr t1, $0",
        "rdhwr t1, $1",
        "rdhwr t1, $3",
        "rdhwr t1, $29",
        "rdhwr t1, $5",
        "lw t1, -0x8000(zero)",
        "lw t1, 0x100(zero)",
        "syscall",
        "add.s $f0, $f0, $f0",
        "mfc1 t1, $f1",
        "cop2 1",
        "sdbbp",
    ];
    let mut text = MAP_USER.to_string();
    let statuses = [
        0,
        status::UX,
        status::PX,
        status::KX | status::UX,
        status::CU0,
        status::CU0 | status::CU1 | status::UX,
        status::CU1 | status::FR | status::PX,
    ];
    for (row, bits) in statuses.into_iter().enumerate() {
        for hwrena in [0u32, 0x2000_000f] {
            text += &format!("li t0, {hwrena}\n mtc0 t0, c0_hwrena\n li t0, {row}\n dmtc0 t0, c0_userlocal\n");
            let mut accesses = String::new();
            for instruction in forbidden {
                // WAIT and DI with CU0 are legal and do what they say: not what is asked here.
                if bits & status::CU0 != 0 && matches!(instruction, "wait" | "mtc0 t1, c0_epc" | "tlbinvf") {
                    continue;
                }
                accesses += &format!("li t1, 5\n {instruction}\n sw t1, 0x7000(zero)\n");
            }
            text += &in_user_mode(&format!("user_{row}_{hwrena}"), bits, &accesses);
        }
    }
    compare(&text);
}

#[test]
fn random_privileged_programs_leave_the_same_state() {
    for seed in 0..40 {
        let mut random = Random(seed);
        let mut text = String::new();
        let pages = [
            0x20_0000u64,
            0x20_2000,
            0xff_0000_0000,
            0xffff_ffff_c020_0000,
            0xc000_0000_0020_0000,
            KSEG0 + 0x20_0000,
        ];
        for step in 0..150 {
            let page = random.pick(&pages);
            let frame = 0x20_0000 + 0x1000 * random.below(16) as u64;
            let lo = frame >> 6 | 3 << 3 | random.below(8) as u64;
            let inhibits = (random.below(8) as u64).saturating_sub(4) << 62;
            let asid = random.below(3) as u64;
            text += &match random.below(14) {
                0..=2 => format!(
                    "li t0, {index}\n mtc0 t0, c0_index\n dli t0, {hi:#x}\n dmtc0 t0, c0_entryhi\n dli t0, {lo0:#x}
                     dmtc0 t0, c0_entrylo0\n dli t0, {lo1:#x}\n dmtc0 t0, c0_entrylo1\n li t0, {mask}
                     mtc0 t0, c0_pagemask\n tlbwi\n",
                    index = random.below(64),
                    hi = (page | asid) as i64,
                    lo0 = (lo | inhibits) as i64,
                    lo1 = (lo ^ random.below(8) as u64) as i64,
                    mask = random.pick(&[0, 0, 0, 0x6000, 0x1e000]),
                ),
                3 => format!(
                    "dli t0, {:#x}\n dmtc0 t0, c0_entryhi\n tlbp\n mfc0 t1, c0_index\n {LOG_T1}",
                    (page | asid) as i64
                ),
                4 => format!(
                    "li t0, {}\n mtc0 t0, c0_index\n tlbr\n dmfc0 t1, c0_entryhi\n {LOG_T1} dmfc0 t1, c0_entrylo1\n {LOG_T1}",
                    random.below(64)
                ),
                5..=7 => format!(
                    "dli t0, {:#x}\n li t1, 0\n ld t1, {}(t0)\n {LOG_T1}",
                    page as i64,
                    0x1000 * random.below(4)
                ),
                8 | 9 => format!(
                    "dli t0, {:#x}\n li t1, {step}\n sd t1, {}(t0)\n",
                    page as i64,
                    0x1000 * random.below(4)
                ),
                10 => format!("dli t0, {:#x}\n dmtc0 t0, c0_entryhi\n", asid),
                11 => random
                    .pick(&["tlbinv\n", "tlbinvf\n", "di\n", "syscall\n", "mtc0 zero, c0_wired\n", "nop\n"])
                    .to_string(),
                12 => {
                    let grain =
                        random.pick(&[0, page_grain::RIE, page_grain::RIE | page_grain::XIE | page_grain::IEC]);
                    format!("li t0, {}\n mtc0 t0, c0_pagegrain\n", grain as i32)
                }
                _ => {
                    let level = random.pick(&[0, status::ERL]);
                    format!("li t0, {}\n mtc0 t0, c0_status\n", level | status::KX | status::UX)
                }
            };
        }
        text += &format!("li t0, {}\n mtc0 t0, c0_status\n", status::KX);
        compare(&text);
    }
}

/// Interrupts come when the virtual Count reaches Compare, however dear the monitor is.
#[test]
fn a_timer_interrupt_comes_when_count_reaches_compare() {
    for wait in ["nop", "wait"] {
        for costs in [Costs::default(), free()] {
            let text = format!(
                "li t3, 8
                 li t0, {enabled}
                 mtc0 t0, c0_status
again:           mfc0 t0, c0_count
                 addiu t0, t0, 2000
                 mtc0 t0, c0_compare
                 or t2, s0, zero
                 ei
sleep:           {wait}
                 beq s0, t2, sleep
                 nop
                 di
                 mfc0 t1, c0_count
                 subu t1, t1, t0
                 sd t1, -64(s0)
                 daddiu t3, t3, -1
                 bne t3, zero, again
                 nop\n",
                enabled = status::KX | 1 << 15
            );
            // The handler goes on behind the interrupted instruction, which it must not: EPC as it is.
            let source =
                format!("{}{text}\n{HALT}", prologue()).replace("daddiu k0, k0, 4", "mtc0 zero, c0_compare");
            let program = guest::assemble(&source);
            let mut monitor = guest::machine(MonitorConfig { costs, ..guest::config() });
            let vm = guest::create(&mut monitor, RAM_BYTES, 1);
            guest::store(&mut monitor, vm, PROGRAM_PHYS, &program);
            guest::start(&mut monitor, vm, 0, 0, PROGRAM + 0x400);
            guest::run_to_halt(&mut monitor, 10_000_000);
            let log = guest::load_dwords(&mut monitor, vm, LOG_PHYS, 72);
            for row in log.chunks(8).take(8) {
                let late = row[0];
                assert!(late < 1500, "{wait}: {late} ticks late");
                assert_eq!(row[1] & 0x7c, 0, "an interrupt");
            }
            assert_eq!(log[64], 0, "{wait}: one interrupt for each Compare");
            assert_eq!(monitor.counters(vm, 0).unwrap().interrupts, 8);
        }
    }
}

fn free() -> Costs {
    let mut costs = Costs::default();
    for (action, _) in Costs::default().rows() {
        assert!(costs.set(action, 0));
    }
    costs
}

/// A guest must not stop time, also where the monitor's actions cost nothing.
#[test]
fn every_emulated_instruction_takes_time() {
    for text in ["here: eret", "here: b here\n mfc0 t0, c0_epc", "here: b here\n di", "here: b here\n wait"] {
        let source = format!("la t0, here\n dmtc0 t0, c0_epc\n li t0, 2\n mtc0 t0, c0_status\n {text}\n nop");
        let mut monitor = guest::machine(MonitorConfig { costs: free(), ..guest::config() });
        guest::boot(&mut monitor, RAM_BYTES, 0, &source);
        let events = guest::run(&mut monitor, 100_000);
        assert!(monitor.now() >= Cycles(100_000) || !events.is_empty(), "{text}: {}", monitor.now());
    }
}

#[test]
fn wait_with_interrupts_off_ends_the_vcpu() {
    let mut monitor = guest::machine(guest::config());
    let vm = guest::boot(&mut monitor, RAM_BYTES, 0, HALT);
    let events = guest::run(&mut monitor, 1_000_000);
    let [Event::VcpuStopped { vm: stopped, vcpu: 0, cause: StopCause::Halted, pc, .. }] = events.as_slice() else {
        panic!("{events:?}");
    };
    assert_eq!((*stopped, *pc), (vm, PROGRAM + 8), "behind the WAIT");
}

#[test]
fn a_vcpu_reads_its_own_number_and_not_that_of_the_cpu() {
    let text = format!(
        "li t0, 15\n mtc0 t0, c0_hwrena\n rdhwr t1, $0\n {LOG_T1} mfc0 t1, c0_ebase\n andi t1, t1, 0x3ff\n {LOG_T1}"
    );
    let mut monitor = guest::machine(MonitorConfig { node_of_cpu: vec![0, 0], ..guest::config() });
    let vm = guest::create(&mut monitor, RAM_BYTES, 1);
    guest::store(&mut monitor, vm, PROGRAM_PHYS, &image(&text));
    guest::start(&mut monitor, vm, 0, 1, PROGRAM + 0x400);
    guest::run_to_halt(&mut monitor, 10_000_000);
    assert_eq!(guest::load_dwords(&mut monitor, vm, LOG_PHYS, 2), [0, 0]);
}
