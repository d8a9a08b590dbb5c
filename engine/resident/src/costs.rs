//! What the monitor's actions cost, in cycles of the simulated machine.
//!
//! Disco's handlers are Rust here, so they execute no simulated instructions; they are charged by this
//! table, which the user can see and change. The defaults estimate a handler written for a MIPS64 CPU,
//! counted in instructions at one a cycle, with page zeroing and copying at one doubleword a cycle and a
//! half; they lie in the range of the paper's Table 2, where a fast refill (10 cycles natively at its
//! clock) takes 1.35 times as long and every privileged instruction of a handler adds to that.

macro_rules! costs {
    ($($(#[$doc:meta])* $name:ident = $default:literal,)*) => {
        /// Cycles charged for each action of the monitor.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Costs { $($(#[$doc])* pub $name: u64,)* }

        impl Default for Costs {
            fn default() -> Costs {
                Costs { $($name: $default,)* }
            }
        }

        impl Costs {
            /// Every action with its cost, in the table's order.
            pub fn rows(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }

            /// Changes one cost. False if no action has that name.
            pub fn set(&mut self, action: &str, cycles: u64) -> bool {
                match action {
                    $(stringify!($name) => self.$name = cycles,)*
                    _ => return false,
                }
                true
            }
        }
    };
}

costs! {
    /// Entering the monitor and leaving it: vector, save and restore of scratch registers, dispatch.
    trap = 24,
    /// A second-level TLB lookup that hits, with the hardware TLB write.
    l2tlb_hit = 14,
    /// A lookup that misses.
    l2tlb_miss = 8,
    /// A lookup in the virtual TLB.
    virtual_tlb_lookup = 20,
    /// From a physical page to a ready TLB entry: pmap read, merge, TLB write, second-level TLB fill, backmap.
    map = 40,
    /// Setting the virtual CP0 for an exception and going to the guest's vector.
    forward = 30,
    /// Decoding and emulating a privileged instruction that touches no TLB.
    emulate = 20,
    /// Emulating a TLB instruction, mapping apart.
    emulate_tlb = 40,
    /// Posting an interrupt to a vCPU.
    interrupt = 60,
    /// A page fault's way through the monitor, without zeroing.
    page_fault = 400,
    /// Zeroing a page.
    page_zero = 768,
    /// Copying a page.
    page_copy = 1536,
    /// Taking one page out of the TLBs of a VM.
    shootdown = 250,
    /// An access to a device register.
    device_access = 300,
    /// Putting another vCPU on a CPU: registers, virtual CP0, TLB flush.
    vcpu_switch = 600,
}
