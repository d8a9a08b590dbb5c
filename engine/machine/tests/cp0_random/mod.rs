//! Repeatable random numbers for tests of CP0, TLB and segments (SplitMix64).

#![allow(dead_code, reason = "each test file uses a part of it")]

/// A source of random numbers that one seed determines.
pub struct Random(u64);

impl Random {
    /// Starts at `seed` and prints it, so that a failing test says how to repeat it.
    pub fn new(seed: u64) -> Random {
        println!("seed {seed}");
        Random(seed)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.bits() % bound as u64) as usize
    }

    /// One of `choices`.
    pub fn choose<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// True once in `chance` times.
    pub fn once_in(&mut self, chance: usize) -> bool {
        self.below(chance) == 0
    }
}
