//! The programs of the interpreter's `speed` example, with the interpreter and the translator.
//!
//! `cargo run --release -p disco-translate --example speed [PROGRAM]`

use std::sync::Arc;

use machine::cp0::status;
use machine::{Cpu, CpuConfig, Cycles, MachineAddr, MachineMemory, NodeId, Stop};
use translate::{Options, Translator};

#[path = "../../machine/examples/programs/mod.rs"]
mod programs;

const BASE: u64 = 0xffff_ffff_8000_1000;
const CYCLES: u64 = 1_000_000_000;

fn main() {
    let wanted = std::env::args().nth(1);
    for (name, source) in programs::PROGRAMS {
        if wanted.as_deref().is_none_or(|wanted| name.contains(wanted)) {
            let (slow, fast) = (run(source, false), run(source, true));
            println!("{name:20} {:7.1} {:7.1} M instructions/s  {:5.1}x", slow / 1e6, fast / 1e6, fast / slow);
        }
    }
}

fn run(source: &str, is_translated: bool) -> f64 {
    let mut cpu = cpu_with(source);
    if is_translated {
        let translator = Translator::new(Options::default()).expect("the host gives a code buffer");
        cpu.set_accelerator(Some(Box::new(translator)));
    }
    let cycles = if is_translated { CYCLES } else { CYCLES / 10 };
    let start = cpu_seconds();
    let stop = cpu.run(Cycles(cycles));
    assert_eq!((stop, cpu.counters.exceptions), (Stop::Until, 0));
    cpu.instructions as f64 / (cpu_seconds() - start)
}

/// Processor time of this thread: other work on the host lengthens it less than time on the wall.
fn cpu_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes to `time`, which is ours.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(result, 0, "Linux has a clock for each thread");
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
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
