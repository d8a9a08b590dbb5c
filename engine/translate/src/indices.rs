//! Sets of instructions of a page, by their index.

use machine::cpu::PAGE_INSNS;

const WORD_BITS: usize = u64::BITS as usize;

/// A set of indices below 1024.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Indices([u64; PAGE_INSNS / WORD_BITS]);

impl Indices {
    /// Those whose bit is set, the lowest of the first word being 0's.
    pub fn of(bits: [u64; PAGE_INSNS / WORD_BITS]) -> Indices {
        Indices(bits)
    }

    /// Whether `index` is among them. 1024, the next page's first, never is.
    pub fn has(&self, index: usize) -> bool {
        self.0.get(index / WORD_BITS).is_some_and(|word| word >> (index % WORD_BITS) & 1 != 0)
    }

    /// Adds `index`. True if it was not there.
    pub fn add(&mut self, index: usize) -> bool {
        let word = &mut self.0[index / WORD_BITS];
        let before = *word;
        *word |= 1 << (index % WORD_BITS);
        *word != before
    }

    /// Takes `index` out.
    pub fn remove(&mut self, index: usize) {
        self.0[index / WORD_BITS] &= !(1 << (index % WORD_BITS));
    }

    /// All, the lowest first.
    pub fn iter(&self) -> impl Iterator<Item = usize> {
        self.0.into_iter().enumerate().flat_map(|(number, mut rest)| {
            std::iter::from_fn(move || {
                let lowest = (rest != 0).then(|| number * WORD_BITS + rest.trailing_zeros() as usize);
                rest &= rest.wrapping_sub(1);
                lowest
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_set_of_indices_is_a_set() {
        let (mut indices, mut model) = (Indices::default(), BTreeSet::new());
        let mut seed = 1u32;
        for _ in 0..5_000 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let index = (seed >> 22) as usize;
            if seed >> 8 & 3 == 0 {
                indices.remove(index);
                model.remove(&index);
            } else {
                assert_eq!(indices.add(index), model.insert(index));
            }
            assert!(indices.iter().eq(model.iter().copied()));
            assert_eq!(indices.has(index), model.contains(&index));
        }
        assert!(!indices.has(PAGE_INSNS));
    }
}
