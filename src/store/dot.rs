//! What touches single vectors often.

/// Asks for numbers to be brought into the caches, since they will be needed soon.
#[inline]
pub(crate) fn prefetch<T>(numbers: &[T]) {
    #[cfg(target_arch = "x86_64")]
    for line in numbers.chunks(64 / size_of::<T>()) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint, with no effect but on time; the address is valid besides.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = numbers;
}

/// The dot product, summed in one order whatever the processor has, but for fused multiplication.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the features are there.
        return unsafe { dot_avx2(a, b) };
    }
    dot_by(a, b, |x, y, sum| x * y + sum)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn dot_avx2(a: &[f32], b: &[f32]) -> f32 {
    dot_by(a, b, f32::mul_add)
}

/// 32 sums side by side, so that the compiler may use vector instructions.
#[inline(always)]
fn dot_by(a: &[f32], b: &[f32], add: impl Fn(f32, f32, f32) -> f32) -> f32 {
    let mut sums = [0f32; 32];
    let (a, a_rest) = a.as_chunks::<32>();
    let (b, b_rest) = b.as_chunks::<32>();
    for (x, y) in a.iter().zip(b) {
        for (i, sum) in sums.iter_mut().enumerate() {
            *sum = add(x[i], y[i], *sum);
        }
    }
    let rest = a_rest.iter().zip(b_rest).fold(0f32, |sum, (&x, &y)| add(x, y, sum));
    let mut width = sums.len() / 2;
    while width > 0 {
        for i in 0..width {
            sums[i] += sums[i + width];
        }
        width /= 2;
    }
    sums[0] + rest
}
