//! What the monitor's actions cost, in cycles of the simulated machine.
//!
//! Disco's handlers are Rust here, so they execute no simulated instructions; they are charged by this table,
//! which the user can see (`disco costs`) and change. Each default is the length of a handler for this machine's
//! CPU at an instruction a cycle. The handlers are in docs/costs.md, and a test counts them.

macro_rules! costs {
    ($($(#[doc = $doc:literal])* $name:ident = $default:literal,)*) => {
        /// Cycles charged for each action of the monitor.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Costs { $($(#[doc = $doc])* pub $name: u64,)* }

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

            /// What each action is, in the table's order.
            pub fn meanings() -> Vec<(&'static str, String)> {
                vec![$((stringify!($name), [$($doc),*].concat().trim().to_owned()),)*]
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
    l2tlb_hit = 22,
    /// A lookup that misses.
    l2tlb_miss = 15,
    /// A lookup in the virtual TLB.
    virtual_tlb_lookup = 20,
    /// From a physical page to a ready TLB entry: pmap read, merge, TLB write, second-level TLB fill, backmap.
    map = 67,
    /// The same for an entry of large pages, with a lookup in the second-level TLB for each 8 KiB the first time.
    map_large = 59,
    /// Setting the virtual CP0 for an exception and going to the guest's vector.
    forward = 31,
    /// Decoding and emulating a privileged instruction that touches no TLB.
    emulate = 23,
    /// Emulating a TLB instruction, mapping apart.
    emulate_tlb = 44,
    /// Posting an interrupt to a vCPU.
    interrupt = 68,
    /// A page fault's way through the monitor, without zeroing.
    page_fault = 51,
    /// Zeroing a page.
    page_zero = 644,
    /// Copying a page.
    page_copy = 1222,
    /// Hashing a page, to find others with its content.
    page_hash = 2702,
    /// Comparing two pages that are equal.
    page_compare = 1734,
    /// Taking one page out of the TLBs of a CPU that runs the VM.
    shootdown = 117,
    /// An access to a device register.
    device_access = 48,
    /// Putting another vCPU on a CPU: registers, virtual CP0, TLB flush.
    vcpu_switch = 153,
}

impl Costs {
    /// A privileged instruction that needs no more than registers.
    pub fn at_once(&self) -> u64 {
        self.trap + self.emulate
    }
}
