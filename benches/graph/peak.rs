//! How many multiplications and additions this processor does when nothing holds it up.

use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use super::{Bench, THREADS};

/// Fused multiply-adds of a pass, each a step of one of twelve chains; more chains than a core's units have steps.
const CHAINS: usize = 12;
const PASSES: usize = 20_000_000;

pub fn run(bench: &mut Bench) {
    println!("f32 fused multiply-add, GFLOP/s: 1 thread {:.0}, {THREADS} threads {:.0}", gflops(1), gflops(THREADS));
    bench.figure("peak_f32", gflops(THREADS), "GFLOP/s");
}

/// All threads together.
pub fn gflops(threads: usize) -> f64 {
    let barrier = Barrier::new(threads);
    let pass = || {
        barrier.wait();
        let begun = Instant::now();
        let lanes = chains(black_box(0.999));
        (2 * lanes * CHAINS * PASSES) as f64 / begun.elapsed().as_secs_f64() / 1e9
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(pass)).collect();
        threads.into_iter().map(|thread| thread.join().expect("thread")).sum()
    })
}

/// Runs all passes and says how many numbers a register holds.
fn chains(factor: f32) -> usize {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has the feature.
            unsafe { avx512(factor) };
            return 16;
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the processor has the features.
            unsafe { avx2(factor) };
            return 8;
        }
    }
    // Eight numbers side by side, in whatever vectors the target has.
    let mut sums = [[0f32; 8]; CHAINS];
    for _ in 0..PASSES {
        sums.iter_mut().flatten().for_each(|sum| *sum = factor * *sum + factor);
    }
    black_box(sums);
    8
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn avx512(factor: f32) {
    use std::arch::x86_64::{_mm512_fmadd_ps, _mm512_set1_ps};
    let factor = _mm512_set1_ps(factor);
    let mut sums = [factor; CHAINS];
    for _ in 0..PASSES {
        sums.iter_mut().for_each(|sum| *sum = _mm512_fmadd_ps(factor, *sum, factor));
    }
    black_box(sums);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2(factor: f32) {
    use std::arch::x86_64::{_mm256_fmadd_ps, _mm256_set1_ps};
    let factor = _mm256_set1_ps(factor);
    let mut sums = [factor; CHAINS];
    for _ in 0..PASSES {
        sums.iter_mut().for_each(|sum| *sum = _mm256_fmadd_ps(factor, *sum, factor));
    }
    black_box(sums);
}
