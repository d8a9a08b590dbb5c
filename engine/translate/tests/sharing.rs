//! Translations are shared: by CPUs, and by pages with the same content; what one CPU writes, others execute.

#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use std::sync::Arc;
use std::time::{Duration, Instant};

use machine::cp0::status;
use machine::{Cpu, CpuConfig, Cycles, MachineAddr, MachineMemory, NodeId};
use translate::{Background, Counters, Options, Store, Translator};

const KSEG0: u64 = 0xffff_ffff_8000_0000;
/// Where the first copy of the program is; the others are so many bytes after each other.
const PROGRAM: u64 = 0x1_0000;
const COPY_BYTES: u64 = 0x3000;

/// Counts a1 loops in v0, adding what `step` says; then for ever at `end`.
fn program(step: i16) -> Vec<u8> {
    let source = format!(
        "loop: addiu a1, a1, -1
               bne a1, zero, loop
               addiu v0, v0, {step}
         end:  b end
               nop"
    );
    mips::assemble(&source, KSEG0 + PROGRAM).unwrap()
}

/// CPUs that share a memory and a store.
struct Machine {
    memory: Arc<MachineMemory>,
    store: Arc<Store>,
    cpus: Vec<Cpu>,
}

impl Machine {
    fn new(cpus: u16, buffer_bytes: usize) -> Machine {
        Machine::on_threads(cpus, buffer_bytes, None)
    }

    /// With a thread that translates, if so many host threads are said to run the CPUs.
    fn on_threads(cpus: u16, buffer_bytes: usize, host_threads: Option<usize>) -> Machine {
        let memory = Arc::new(MachineMemory::new(1, 8 << 20).unwrap());
        let store = Store::new(Options { heat_min: 2, buffer_bytes, ..Options::default() }).unwrap();
        let background = host_threads.map(|count| Background::start(&store, count).unwrap());
        let cpu = |id| {
            let mut cpu = Cpu::new(id, NodeId(0), CpuConfig::hardware(), Arc::clone(&memory));
            cpu.cp0.status = status::KX;
            cpu.context_changed();
            cpu.set_accelerator(Some(Box::new(Translator::sharing(
                &store,
                background.as_ref().map(Background::share),
            ))));
            cpu
        };
        let cpus = (0..cpus).map(cpu).collect();
        Machine { memory, store, cpus }
    }

    /// Puts a program into the place of a copy.
    fn write(&self, copy: u64, step: i16) {
        self.memory.write(MachineAddr(PROGRAM + copy * COPY_BYTES), &program(step));
    }

    /// What the CPU has in v0 after `count` loops of the copy.
    fn run(&mut self, cpu: usize, copy: u64, count: u64) -> u64 {
        let cpu = &mut self.cpus[cpu];
        cpu.regs.pc = KSEG0 + PROGRAM + copy * COPY_BYTES;
        cpu.regs.gpr[2] = 0;
        cpu.regs.gpr[5] = count;
        cpu.run(Cycles(cpu.now.0 + 3 * count + 200));
        assert_eq!(cpu.regs.gpr[5], 0, "the loop has ended");
        cpu.regs.gpr[2]
    }

    fn regions(&self) -> u64 {
        self.store.counters().regions
    }
}

const ROOM: usize = 4 << 20;

#[test]
fn cpus_that_execute_the_same_page_translate_it_once() {
    let mut machine = Machine::new(3, ROOM);
    machine.write(0, 1);
    assert_eq!(machine.run(0, 0, 1000), 1000);
    let once = machine.store.counters();
    assert!(once.regions > 0 && once.found == 0, "{once:?}");
    for cpu in [1, 2, 0] {
        assert_eq!(machine.run(cpu, 0, 500), 500);
    }
    let counters = machine.store.counters();
    assert!(counters.found >= 2, "{counters:?}");
    assert_eq!(counters, Counters { found: counters.found, ..once });
}

#[test]
fn machine_pages_with_the_same_content_are_translated_once() {
    let mut machine = Machine::new(2, ROOM);
    (0..4).for_each(|copy| machine.write(copy, 7));
    assert_eq!(machine.run(0, 0, 1000), 7000);
    let regions = machine.regions();
    for copy in 0..4 {
        assert_eq!(machine.run(1, copy, 300), 2100);
        assert_eq!(machine.run(0, copy, 300), 2100);
    }
    assert_eq!(machine.regions(), regions);
}

#[test]
fn what_one_cpu_writes_the_others_execute() {
    let mut machine = Machine::new(3, ROOM);
    machine.write(0, 1);
    for cpu in 0..3 {
        assert_eq!(machine.run(cpu, 0, 100), 100);
    }
    // CPU 0 writes the instruction in the delay slot: addiu v0, v0, 5.
    let code = program(5);
    let address = KSEG0 + PROGRAM + 8;
    let word = u32::from_le_bytes(code[8..12].try_into().unwrap());
    let store = "sw s0, 0(s1)\n wait: b wait\n nop";
    machine.memory.write(MachineAddr(0x8000), &mips::assemble(store, KSEG0 + 0x8000).unwrap());
    let cpu = &mut machine.cpus[0];
    (cpu.regs.pc, cpu.regs.gpr[16], cpu.regs.gpr[17]) = (KSEG0 + 0x8000, u64::from(word), address);
    cpu.run(Cycles(cpu.now.0 + 50));
    for cpu in [1, 2, 0] {
        assert_eq!(machine.run(cpu, 0, 100), 500);
    }
}

#[test]
fn code_that_is_written_back_is_found_again() {
    let mut machine = Machine::new(2, ROOM);
    machine.write(0, 1);
    assert_eq!(machine.run(0, 0, 100), 100);
    machine.write(0, 2);
    assert_eq!(machine.run(1, 0, 100), 200);
    let regions = machine.regions();
    for step in [1, 2, 1] {
        machine.write(0, step);
        assert_eq!(machine.run(0, 0, 100), 100 * step as u64);
        assert_eq!(machine.run(1, 0, 100), 100 * step as u64);
    }
    assert_eq!(machine.regions(), regions);
}

#[test]
fn a_full_store_drops_what_is_not_in_use_and_stays_in_its_bounds() {
    const BYTES: usize = 512 << 10;
    let mut machine = Machine::new(2, BYTES);
    machine.write(0, 1);
    assert_eq!(machine.run(0, 0, 50), 50);
    let regions = machine.regions();
    for step in 2..400 {
        machine.write(1, step);
        assert_eq!(machine.run(0, 1, 50), 50 * step as u64);
        // In use all the time, by both.
        assert_eq!(machine.run((step % 2) as usize, 0, 50), 50);
        assert!(machine.store.bytes() <= BYTES, "{}", machine.store.bytes());
    }
    let counters = machine.store.counters();
    assert!(counters.dropped > 100 && counters.flushes == 0, "{counters:?}");
    // Each program has been translated once, and so has the one in use.
    assert_eq!(counters.regions, 399 * regions, "{counters:?}");
}

#[test]
fn a_thread_translates_while_cpus_run() {
    let mut machine = Machine::on_threads(2, ROOM, Some(2));
    machine.write(0, 3);
    let end = Instant::now() + Duration::from_secs(60);
    while machine.regions() == 0 {
        assert_eq!(machine.run(0, 0, 100), 300);
        assert!(Instant::now() < end, "nothing has been translated");
    }
    // Whoever comes later finds it.
    (0..3).for_each(|_| assert_eq!(machine.run(1, 0, 100), 300));

    // The thread and the store end with the last CPU.
    let store = Arc::downgrade(&machine.store);
    drop(machine);
    while store.strong_count() > 0 {
        assert!(Instant::now() < end, "somebody keeps the store");
        std::thread::yield_now();
    }
}

#[test]
fn a_cpu_translates_itself_while_no_host_thread_is_idle() {
    let mut machine = Machine::on_threads(1, ROOM, Some(1));
    machine.write(0, 3);
    assert_eq!(machine.run(0, 0, 100), 300);
    assert!(machine.regions() > 0, "at once");
}
