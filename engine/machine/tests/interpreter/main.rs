//! The interpreter, one family of instructions a file, and the rules of `run`.
//!
//! Programs are assembled from text and run on a bare CPU in KSEG0, unless a test says otherwise.

mod arithmetic;
mod boundaries;
mod branches;
mod bus;
mod code;
mod float;
mod memory;
mod system;

use std::sync::Arc;

use machine::cp0::status;
use machine::tlb::{TlbEntry, entry_lo};
use machine::{Asid, Cpu, CpuConfig, Cycles, Exception, MachineAddr, MachineMemory, NodeId, Stop, Trap};

/// Where programs are, virtually and in the machine.
pub const PROGRAM: u64 = 0xffff_ffff_8001_0000;
pub const PROGRAM_MACHINE: MachineAddr = MachineAddr(0x1_0000);
/// Where data is.
pub const DATA: u64 = 0xffff_ffff_8004_0000;
pub const DATA_MACHINE: MachineAddr = MachineAddr(0x4_0000);
pub const MEMORY_BYTES: u64 = 1 << 20;

/// Numbers of general registers, for tables.
pub const V0: usize = 2;
pub const V1: usize = 3;
pub const A0: usize = 4;
pub const A1: usize = 5;
pub const A2: usize = 6;
pub const S0: usize = 16;
pub const RA: usize = 31;

/// A monitored CPU in kernel mode with 64-bit addresses and an FPU, about to execute `source`.
pub fn cpu_with(source: &str) -> Cpu {
    let memory = Arc::new(MachineMemory::new(1, MEMORY_BYTES).unwrap());
    let program = mips::assemble(source, PROGRAM).unwrap_or_else(|error| panic!("{error}"));
    memory.write(PROGRAM_MACHINE, &program);
    let mut cpu = Cpu::new(0, NodeId(0), CpuConfig::hardware(), memory);
    cpu.monitored = true;
    cpu.regs.pc = PROGRAM;
    cpu.regs.gpr[S0] = DATA;
    set_status(&mut cpu, status::KX | status::SX | status::UX | status::FR | status::CU1);
    cpu
}

pub fn set_status(cpu: &mut Cpu, status: u32) {
    cpu.cp0.status = status;
    cpu.context_changed();
}

/// Maps the page of `vaddr` to the machine page at `address` for every ASID.
pub fn map(cpu: &mut Cpu, index: usize, vaddr: u64, address: u64, bits: u64) {
    let mut entry = TlbEntry::hidden(index);
    entry.vpn2 = vaddr & !0x1fff;
    entry.asid = Asid(0);
    entry.global = true;
    entry.page_mask = 0;
    entry.hidden = false;
    entry.lo = [entry_lo::G; 2];
    entry.lo[(vaddr >> 12 & 1) as usize] = entry_lo::frame(address) | entry_lo::G | bits;
    cpu.tlb_write(index, entry).unwrap();
}

/// Runs until a trap.
pub fn run_to_trap(cpu: &mut Cpu) -> Trap {
    match cpu.run(Cycles(cpu.now.0 + 1_000_000)) {
        Stop::Trap(trap) => trap,
        other => panic!("a trap was expected, not {other:?}"),
    }
}

/// Runs up to the BREAK that ends the program.
pub fn run_to_break(cpu: &mut Cpu) {
    let trap = run_to_trap(cpu);
    assert_eq!(trap.exception, Exception::Breakpoint, "at {:#x}", trap.pc);
}

/// Runs `source` and a BREAK with the registers set; returns the CPU.
pub fn run(source: &str, registers: &[(usize, u64)]) -> Cpu {
    let mut cpu = cpu_with(&format!("{source}\n break\n nop"));
    for &(register, value) in registers {
        cpu.regs.gpr[register] = value;
    }
    run_to_break(&mut cpu);
    cpu
}
