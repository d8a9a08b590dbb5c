//! What is counted for each vCPU.

use std::ops::{AddAssign, Sub};

/// What the monitor spends cycles on. All cycles of a trap go to what the trap turned out to be: a TLB miss
/// that ends in the guest's own handler is wholly [`Cause::Forward`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Cause {
    /// A TLB miss of a guest user that Disco answered.
    TlbMiss,
    /// A TLB miss of a guest kernel that Disco answered.
    KernelTlbMiss,
    /// An emulated TLBWR or TLBWI, with what it maps.
    TlbWrite,
    /// Another privileged instruction.
    Privileged,
    /// An exception given to the guest: system calls, and TLB misses that only its own handler can answer.
    Forward,
    /// A page fault, with zeroing and copying.
    PageFault,
    /// A page taken out of TLBs.
    Shootdown,
    /// An interrupt posted to the guest.
    Interrupt,
    /// A device register.
    Device,
    /// Another vCPU put on the CPU.
    Switch,
    /// Looking for pages with the same content.
    Content,
}

impl Cause {
    /// How many there are.
    pub const COUNT: usize = 11;

    /// Every cause with the name of its counter.
    pub const NAMES: [(&'static str, Cause); Cause::COUNT] = [
        ("cycles_monitor_tlb_miss", Cause::TlbMiss),
        ("cycles_monitor_kernel_tlb_miss", Cause::KernelTlbMiss),
        ("cycles_monitor_tlb_write", Cause::TlbWrite),
        ("cycles_monitor_privileged", Cause::Privileged),
        ("cycles_monitor_forward", Cause::Forward),
        ("cycles_monitor_page_fault", Cause::PageFault),
        ("cycles_monitor_shootdown", Cause::Shootdown),
        ("cycles_monitor_interrupt", Cause::Interrupt),
        ("cycles_monitor_device", Cause::Device),
        ("cycles_monitor_switch", Cause::Switch),
        ("cycles_monitor_content", Cause::Content),
    ];
}

/// Cycles by [`Cause`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByCause([u64; Cause::COUNT]);

impl ByCause {
    /// Accounts for cycles.
    pub fn add(&mut self, cause: Cause, cycles: u64) {
        self.0[cause as usize] += cycles;
    }

    /// Cycles of one cause.
    pub fn of(&self, cause: Cause) -> u64 {
        self.0[cause as usize]
    }

    /// Cycles of all causes.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The names of the counters with their values.
    pub fn rows(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Cause::NAMES.iter().map(|(name, cause)| (*name, self.of(*cause)))
    }
}

/// Where the time of a CPU has gone; all parts together are its clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTime {
    /// Cycles in guest user mode.
    pub user: u64,
    /// Cycles in guest kernels.
    pub kernel: u64,
    /// Cycles in the monitor, by cause.
    pub monitor: ByCause,
    /// Cycles without a vCPU that could run.
    pub idle: u64,
}

impl CpuTime {
    /// Accounts for what a vCPU has used from `before` to `after`, which ran here. Its idle time is its own.
    pub fn add_run(&mut self, before: CpuTime, after: CpuTime) {
        self.user += after.user - before.user;
        self.kernel += after.kernel - before.kernel;
        self.monitor += after.monitor - before.monitor;
    }

    /// All of it.
    pub fn total(&self) -> u64 {
        self.user + self.kernel + self.monitor.total() + self.idle
    }

    /// Every part with its name, as a vCPU's counters are named.
    pub fn rows(&self) -> Vec<(&'static str, u64)> {
        let mut rows = vec![
            ("cycles_user", self.user),
            ("cycles_kernel", self.kernel),
            ("cycles_idle", self.idle),
            ("cycles_monitor", self.monitor.total()),
        ];
        rows.extend(self.monitor.rows());
        rows
    }
}

impl AddAssign for ByCause {
    fn add_assign(&mut self, other: ByCause) {
        self.0.iter_mut().zip(other.0).for_each(|(cycles, more)| *cycles += more);
    }
}

impl Sub for ByCause {
    type Output = ByCause;
    fn sub(self, earlier: ByCause) -> ByCause {
        ByCause(std::array::from_fn(|cause| self.0[cause] - earlier.0[cause]))
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters of one vCPU; events unless the name says cycles.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            /// Cycles in the monitor on behalf of this vCPU, by cause.
            pub monitor: ByCause,
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// The time that the vCPU has used.
            pub fn used(&self) -> CpuTime {
                CpuTime { user: self.cycles_user, kernel: self.cycles_kernel, monitor: self.monitor, idle: 0 }
            }

            /// Every counter with its value: the table's in its order, the monitor's cycles and their parts.
            pub fn rows(&self) -> Vec<(&'static str, u64)> {
                let mut rows = vec![$((stringify!($name), self.$name),)*];
                rows.push(("cycles_monitor", self.monitor.total()));
                rows.extend(self.monitor.rows());
                rows
            }
        }
    };
}

counters! {
    /// Guest instructions executed, emulated ones included.
    instructions,
    /// Cycles in guest user mode.
    cycles_user,
    /// Cycles in the guest kernel.
    cycles_kernel,
    /// Cycles between WAIT and the interrupt that ended it.
    cycles_idle,
    /// Cycles in which it could have run and had no CPU.
    cycles_waiting,

    /// Traps into the monitor, all kinds.
    traps,
    /// A reference that missed in the hardware TLB.
    traps_tlb_refill,
    /// A reference to a half of a hardware entry that is not valid.
    traps_tlb_invalid,
    /// A store through a hardware entry that may not be written.
    traps_tlb_modified,
    /// A load or fetch that the guest's RI or XI forbids.
    traps_tlb_inhibit,
    /// A privileged instruction.
    traps_privileged,
    /// A system call.
    traps_syscall,
    /// First use of the FPU by a process, and other coprocessors.
    traps_coprocessor,
    /// Address errors.
    traps_address_error,
    /// Breakpoints, traps, overflows, reserved instructions, floating-point exceptions.
    traps_other,

    /// TLB misses answered by the second-level TLB.
    tlb_l2tlb_hits,
    /// TLB misses answered from the virtual TLB through the pmap.
    tlb_virtual_hits,
    /// TLB misses in a segment that the guest does not map, answered through the pmap.
    tlb_kernel_segment,
    /// Those of both kinds that were answered with an entry of large pages.
    tlb_large,
    /// TLB refill exceptions forwarded to the guest.
    tlb_forwarded,
    /// TLB invalid exceptions forwarded to the guest.
    tlb_forwarded_invalid,
    /// TLB modified exceptions forwarded to the guest.
    tlb_forwarded_modified,
    /// Second-level entries dropped because the guest would have noticed them.
    tlb_l2tlb_dropped,

    /// Emulated reads of CP0.
    emulated_mfc0,
    /// Emulated writes of CP0.
    emulated_mtc0,
    /// Emulated TLBWR.
    emulated_tlbwr,
    /// Emulated TLBWI.
    emulated_tlbwi,
    /// Emulated TLBP, TLBR, TLBINV and TLBINVF.
    emulated_tlb_other,
    /// Emulated ERET.
    emulated_eret,
    /// Emulated DI and EI.
    emulated_di_ei,
    /// Emulated CACHE.
    emulated_cache,
    /// Emulated WAIT.
    emulated_wait,
    /// Emulated RDHWR.
    emulated_rdhwr,

    /// Interrupts delivered to the guest.
    interrupts,
    /// Page faults handed to Python because the page was absent.
    page_faults_absent,
    /// Page faults handed to Python because the page may not be written.
    page_faults_protected,
    /// Device loads answered from a latched register.
    device_latched,
    /// Device stores logged by a posted register.
    device_posted,
    /// Device accesses handed to Python.
    device_accesses,
    /// Times that the vCPU was put on a CPU after another.
    vcpu_switches,
    /// Times that it came to a CPU from another one.
    vcpu_moves,
    /// Of these, from another node.
    vcpu_moves_between_nodes,
}
