//! What the host sees of a translator: its memory, and how much of it there is.

#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use std::sync::Arc;

use machine::cp0::status;
use machine::{Cpu, CpuConfig, Cycles, MachineAddr, MachineMemory, NodeId, Stop};
use translate::{Options, Translator};

/// Access rights of the mappings of code buffers, as /proc shows them.
fn rights_of_code() -> Vec<String> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let buffers = maps.lines().filter(|line| line.contains("disco-code"));
    buffers.map(|line| line.split(' ').nth(1).unwrap().to_owned()).collect()
}

#[test]
fn code_is_writable_through_no_mapping() {
    let translator = Translator::new(Options::default()).unwrap();
    let rights = rights_of_code();
    assert!(!rights.is_empty() && rights.iter().all(|rights| rights == "r-xs"), "{rights:?}");
    drop(translator);
}

#[test]
fn a_buffer_that_the_host_cannot_give_is_an_error_that_says_so() {
    let error = Translator::new(Options { buffer_bytes: 1 << 62, ..Options::default() }).unwrap_err();
    assert!(error.to_string().contains("4611686018427387904 bytes"), "{error}");
}

#[test]
fn a_loop_that_rewrites_itself_runs_what_it_wrote() {
    const BASE: u64 = 0xffff_ffff_8000_1000;
    // Each time round, the instruction at `patched` adds one more; it is rewritten before it runs.
    let source = "
        loop:    lw     t0, 0(s0)
                 addiu  t0, t0, 1
                 sw     t0, 0(s0)
        patched: addiu  v0, v0, 0
                 addiu  a0, a0, -1
                 bne    a0, zero, loop
                 nop
        end:     b      end
                 nop";
    let memory = Arc::new(MachineMemory::new(1, 1 << 20).unwrap());
    memory.write(MachineAddr(BASE & 0x1fff_ffff), &mips::assemble(source, BASE).unwrap());
    let mut cpu = Cpu::new(0, NodeId(0), CpuConfig::hardware(), memory);
    cpu.cp0.status = status::KX;
    cpu.context_changed();
    cpu.set_accelerator(Some(Box::new(Translator::new(Options { heat_min: 2, ..Options::default() }).unwrap())));
    cpu.regs.pc = BASE;
    cpu.regs.gpr[16] = BASE + 12;
    cpu.regs.gpr[4] = 1000;
    assert_eq!(cpu.run(Cycles(20_000)), Stop::Until);
    assert_eq!(cpu.regs.gpr[2], 1000 * 1001 / 2);
}
