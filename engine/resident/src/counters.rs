//! What is counted for each vCPU.

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters of one vCPU; events unless the name says cycles.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Counters { $($(#[$doc])* pub $name: u64,)* }

        impl Counters {
            /// Every counter with its value, in the table's order.
            pub fn rows(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
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
    /// Cycles in the monitor on behalf of this vCPU.
    cycles_monitor,
    /// Cycles between WAIT and the interrupt that ended it.
    cycles_idle,

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
}
