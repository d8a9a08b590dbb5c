//! How many guest instructions a bare CPU executes in a second, for a few kinds of program, and how
//! many TLB misses a monitored one hands out and gets answered.
//!
//! `cargo run --release --example speed [PROGRAM]`

use std::sync::Arc;
use std::time::Instant;

use machine::cp0::status;
use machine::tlb::{TlbEntry, entry_lo};
use machine::{Cpu, CpuConfig, Cycles, MachineAddr, MachineMemory, NodeId, Stop};

mod programs;

const BASE: u64 = 0xffff_ffff_8000_1000;
const CYCLES: u64 = 300_000_000;

fn main() {
    let wanted = std::env::args().nth(1);
    for (name, source) in programs::PROGRAMS {
        if wanted.as_deref().is_none_or(|wanted| name.contains(wanted)) {
            println!("{name:20} {:6.1} M instructions/s", run(source) / 1e6);
        }
    }
    if wanted.is_none_or(|wanted| "TLB misses".contains(&wanted)) {
        println!("{:20} {:6.1} M misses/s", "TLB misses", misses() / 1e6);
    }
}

/// Misses a second of a loop over more pages than the TLB holds, answered in the simplest way.
fn misses() -> f64 {
    const MISSES: usize = 5_000_000;
    let source = "loop: lw v0, 0(a0)
                  daddiu a1, a1, 1
                  daddiu a0, a0, 0x2000
                  andi   a2, a1, 0xff
                  bne    a2, zero, loop
                  nop
                  b      loop
                  move   a0, zero";
    let mut cpu = cpu_with(source);
    cpu.monitored = true;
    cpu.regs.gpr[4] = 0;
    let start = Instant::now();
    for miss in 0..MISSES {
        let Stop::Trap(trap) = cpu.run(Cycles::NEVER) else { panic!("only traps stop it") };
        let vaddr = trap.exception.bad_vaddr().expect("a TLB miss has an address");
        let lo = entry_lo::frame(vaddr) | entry_lo::V | entry_lo::G;
        let entry = TlbEntry {
            vpn2: vaddr & !0x1fff,
            global: true,
            lo: [lo; 2],
            hidden: false,
            page_mask: 0,
            ..TlbEntry::hidden(0)
        };
        cpu.tlb_write(miss % 64, entry).expect("the page was not mapped");
    }
    MISSES as f64 / start.elapsed().as_secs_f64()
}

fn run(source: &str) -> f64 {
    let mut cpu = cpu_with(source);
    let start = Instant::now();
    let stop = cpu.run(Cycles(CYCLES));
    assert_eq!((stop, cpu.counters.exceptions), (Stop::Until, 0));
    cpu.instructions as f64 / start.elapsed().as_secs_f64()
}

/// A CPU in kernel mode, about to execute `source`.
fn cpu_with(source: &str) -> Cpu {
    let memory = Arc::new(MachineMemory::new(1, 16 << 20).expect("16 MiB of memory"));
    memory.write(MachineAddr(BASE & 0x1fff_ffff), &mips::assemble(source, BASE).expect("the program assembles"));
    programs::write_pointers(&memory);
    let mut cpu = Cpu::new(0, NodeId(0), CpuConfig::hardware(), memory);
    cpu.cp0.status = status::KX | status::UX | status::FR | status::CU1;
    cpu.context_changed();
    cpu.regs.pc = BASE;
    cpu.regs.gpr[16] = 0xffff_ffff_8000_0000 + programs::DATA;
    cpu.regs.gpr[4] = cpu.regs.gpr[16];
    cpu.regs.gpr[29] = cpu.regs.gpr[16] - 4096;
    cpu
}
