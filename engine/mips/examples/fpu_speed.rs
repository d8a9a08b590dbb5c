//! Nanoseconds a floating-point operation, as the interpreter sees them: operands from an array,
//! flags committed to FCSR. Prints a table; `cargo run --release --example fpu_speed`.

use std::hint::black_box;
use std::time::Instant;

use mips::fpu::{self, Condition, Env, Fcsr, Flags, Rounding};

const OPERANDS: usize = 1024;
const PASSES: usize = 4096;

/// Ordinary numbers between one and two, most with full fractions.
fn operands() -> Vec<u64> {
    let golden = 0x9e37_79b9_7f4a_7c15u64;
    (1..=OPERANDS as u64).map(|n| 1f64.to_bits() | n.wrapping_mul(golden) >> 12).collect()
}

/// Times `operation` on neighbouring operands; the best of five rounds.
fn measure(name: &str, env: Env, operation: impl Fn(Env, u64, u64) -> (u64, Flags)) {
    let operands = operands();
    let round = || {
        let mut fcsr = Fcsr::default();
        let start = Instant::now();
        for _ in 0..PASSES {
            for pair in operands.windows(2) {
                let (result, flags) = operation(black_box(env), pair[0], pair[1]);
                fcsr.commit(flags).expect("no exception is enabled");
                black_box(result);
            }
        }
        black_box(fcsr);
        start.elapsed().as_secs_f64() * 1e9 / (PASSES * (OPERANDS - 1)) as f64
    };
    let best_ns = (0..5).map(|_| round()).fold(f64::INFINITY, f64::min);
    println!("{name:<12} {best_ns:6.2} ns");
}

fn single(a: u64) -> u32 {
    (a >> 41) as u32 | 0x3f80_0000
}

fn wide((bits, flags): (u32, Flags)) -> (u64, Flags) {
    (u64::from(bits), flags)
}

fn main() {
    let nearest = Env::default();
    let zero = Env { rounding: Rounding::TowardZero, ..nearest };
    measure("nothing", nearest, |_, a, _| (a, Flags::NONE));
    measure("add.d", nearest, fpu::add_d);
    measure("mul.d", nearest, fpu::mul_d);
    measure("div.d", nearest, fpu::div_d);
    measure("sqrt.d", nearest, |env, a, _| fpu::sqrt_d(env, a));
    measure("madd.d", nearest, |env, a, b| fpu::madd_d(env, a, a, b));
    measure("add.s", nearest, |env, a, b| wide(fpu::add_s(env, single(a), single(b))));
    measure("mul.s", nearest, |env, a, b| wide(fpu::mul_s(env, single(a), single(b))));
    measure("div.s", nearest, |env, a, b| wide(fpu::div_s(env, single(a), single(b))));
    measure("cvt.s.d", nearest, |env, a, _| wide(fpu::cvt_s_d(env, a)));
    measure("cvt.d.w", nearest, |_, a, _| fpu::cvt_d_w(a as u32));
    measure("cvt.d.l", nearest, |env, a, _| fpu::cvt_d_l(env, a));
    measure("cvt.s.w", nearest, |env, a, _| wide(fpu::cvt_s_w(env, a as u32)));
    measure("trunc.w.d", nearest, |_, a, _| wide(fpu::cvt_w_d(Rounding::TowardZero, a)));
    measure("c.lt.d", nearest, |_, a, b| {
        let (holds, flags) = fpu::compare_d(Condition::from_bits(12), a, b);
        (u64::from(holds), flags)
    });
    measure("add.d RZ", zero, fpu::add_d);
    measure("mul.d RZ", zero, fpu::mul_d);
    measure("div.d RZ", zero, fpu::div_d);
    measure("sqrt.d RZ", zero, |env, a, _| fpu::sqrt_d(env, a));
}
