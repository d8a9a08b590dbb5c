//! Words to test with, the same in every run.

use mips::Row;

/// `count` words in which every bit is random.
pub fn random_words(seed: u64, count: usize) -> impl Iterator<Item = u32> {
    let mut state = seed;
    std::iter::repeat_with(move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 32) as u32
    })
    .take(count)
}

/// `count` words of `row` with random fields: the two extremes of every field first.
pub fn words_of(row: &Row, count: usize) -> impl Iterator<Item = u32> {
    let (value, fields) = (row.value, row.fields);
    [0, u32::MAX].into_iter().chain(random_words(u64::from(value), count)).map(move |bits| value | bits & fields)
}
