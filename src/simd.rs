//! Dot products and prefetches of single vectors.

/// Prefetches numbers that will be needed soon into the second-level cache.
///
/// That cache can wait for many more lines at a time than the first-level one.
#[inline]
pub(crate) fn prefetch<T>(numbers: &[T]) {
    #[cfg(target_arch = "x86_64")]
    if let Some(last) = numbers.last() {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: this is a hint, which affects nothing but time; the address is valid, too.
        let fetch = |number: &T| unsafe { _mm_prefetch::<_MM_HINT_T1>(std::ptr::from_ref(number).cast()) };
        numbers.chunks(64 / size_of::<T>()).for_each(|line| fetch(&line[0]));
        // The last number may be on one more line.
        fetch(last);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = numbers;
}

/// The dot product, summed in the same order on every processor, except for fused multiplication.
#[inline]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the features were detected.
        return unsafe { dot_avx2(a, b) };
    }
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<PARALLEL_SUMS>(), b.as_chunks::<PARALLEL_SUMS>());
    let mut sums = [0f32; PARALLEL_SUMS];
    for (x, y) in a.iter().zip(b) {
        for (i, sum) in sums.iter_mut().enumerate() {
            *sum += x[i] * y[i];
        }
    }
    total(sums) + a_rest.iter().zip(b_rest).fold(0f32, |sum, (x, y)| sum + x * y)
}

/// The [`dot`] products of a vector with `others`, as many as `products` has space for.
pub(crate) fn dots<'a>(vector: &[f32], others: impl Iterator<Item = &'a [f32]>, products: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the features were detected.
        return unsafe { dots_avx512(vector, others, products) };
    } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the features were detected.
        return unsafe { dots_avx2(vector, others, products) };
    }
    products.iter_mut().zip(others).for_each(|(product, other)| *product = dot(vector, other));
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn dots_avx2<'a>(vector: &[f32], others: impl Iterator<Item = &'a [f32]>, products: &mut [f32]) {
    for (product, other) in products.iter_mut().zip(others) {
        assert_eq!(vector.len(), other.len());
        *product = dot_avx2(vector, other);
    }
}

/// Computes four products at a time, so that each number of `vector` is loaded once for four.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma")]
fn dots_avx512<'a>(vector: &[f32], mut others: impl Iterator<Item = &'a [f32]>, products: &mut [f32]) {
    for products in products.chunks_mut(4) {
        // The last group may have fewer than four.
        let mut four = [vector; 4];
        four.iter_mut().zip(others.by_ref().take(products.len())).for_each(|(four, other)| *four = other);
        products.copy_from_slice(&four_dots(vector, four)[..products.len()]);
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f,avx2,fma")]
fn four_dots(vector: &[f32], others: [&[f32]; 4]) -> [f32; 4] {
    use std::arch::x86_64::{
        __m128, __m512, _mm_add_ps, _mm_movehl_ps, _mm_movelh_ps, _mm_shuffle_ps, _mm_storeu_ps, _mm256_add_ps,
        _mm256_castpd_ps, _mm256_castps256_ps128, _mm256_extractf128_ps, _mm512_add_ps, _mm512_castps_pd,
        _mm512_castps512_ps256, _mm512_extractf64x4_pd, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_setzero_ps,
    };
    assert!(others.iter().all(|other| other.len() == vector.len()));
    let (chunks, rest) = vector.as_chunks::<PARALLEL_SUMS>();
    let mut low = [_mm512_setzero_ps(); 4];
    let mut high = low;
    for (c, x) in chunks.iter().enumerate() {
        // SAFETY: all vectors have this whole chunk of 32.
        unsafe {
            let (x_low, x_high) = (_mm512_loadu_ps(x.as_ptr()), _mm512_loadu_ps(x.as_ptr().add(16)));
            for i in 0..4 {
                let y = others[i].as_ptr().add(c * PARALLEL_SUMS);
                low[i] = _mm512_fmadd_ps(x_low, _mm512_loadu_ps(y), low[i]);
                high[i] = _mm512_fmadd_ps(x_high, _mm512_loadu_ps(y.add(16)), high[i]);
            }
        }
    }
    let quarter = |i: usize| -> __m128 {
        let sums: __m512 = _mm512_add_ps(low[i], high[i]);
        let upper = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(sums)));
        let sums = _mm256_add_ps(_mm512_castps512_ps256(sums), upper);
        _mm_add_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps::<1>(sums))
    };
    let half = |a: __m128, b: __m128| _mm_add_ps(_mm_movelh_ps(a, b), _mm_movehl_ps(b, a));
    let (a, b) = (half(quarter(0), quarter(1)), half(quarter(2), quarter(3)));
    let sums = _mm_add_ps(_mm_shuffle_ps::<0x88>(a, b), _mm_shuffle_ps::<0xdd>(a, b));
    let mut products = [0f32; 4];
    // SAFETY: 4 numbers fit 4 places.
    unsafe { _mm_storeu_ps(products.as_mut_ptr(), sums) };
    let first = vector.len() - rest.len();
    for (product, other) in products.iter_mut().zip(others) {
        *product += rest.iter().zip(&other[first..]).fold(0f32, |sum, (&x, &y)| x.mul_add(y, sum));
    }
    products
}

/// The same as [`dot`] in AVX2 instructions, since compilers do not vectorise the plain loop well.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2,fma")]
fn dot_avx2(a: &[f32], b: &[f32]) -> f32 {
    use std::arch::x86_64::{_mm256_fmadd_ps, _mm256_loadu_ps, _mm256_setzero_ps, _mm256_storeu_ps};
    let (a, a_rest) = a.as_chunks::<PARALLEL_SUMS>();
    let (b, b_rest) = b.as_chunks::<PARALLEL_SUMS>();
    let mut registers = [_mm256_setzero_ps(); PARALLEL_SUMS / 8];
    for (x, y) in a.iter().zip(b) {
        for (i, sum) in registers.iter_mut().enumerate() {
            // SAFETY: 32 numbers are four registers of 8.
            let (x, y) = unsafe { (_mm256_loadu_ps(x.as_ptr().add(8 * i)), _mm256_loadu_ps(y.as_ptr().add(8 * i))) };
            *sum = _mm256_fmadd_ps(x, y, *sum);
        }
    }
    let mut sums = [0f32; PARALLEL_SUMS];
    for (eight, sum) in sums.as_chunks_mut::<8>().0.iter_mut().zip(registers) {
        // SAFETY: 8 numbers fit 8 places.
        unsafe { _mm256_storeu_ps(eight.as_mut_ptr(), sum) };
    }
    total(sums) + a_rest.iter().zip(b_rest).fold(0f32, |sum, (&x, &y)| x.mul_add(y, sum))
}

/// Adds the upper half of the sums to the lower one until one sum is left.
#[inline(always)]
fn total(mut sums: [f32; PARALLEL_SUMS]) -> f32 {
    let mut width = PARALLEL_SUMS / 2;
    while width > 0 {
        for i in 0..width {
            sums[i] += sums[i + width];
        }
        width /= 2;
    }
    sums[0]
}

/// How many sums are kept side by side.
const PARALLEL_SUMS: usize = 32;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn products_are_those_of_f64(pairs in proptest::collection::vec((-1f32..1.0, -1f32..1.0), 0..300)) {
            let (a, b): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
            let exact: f64 = a.iter().zip(&b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum();
            prop_assert!((f64::from(dot(&a, &b)) - exact).abs() < 1e-5);
            let others: Vec<Vec<f32>> = (0..7).map(|factor| b.iter().map(|y| y * factor as f32).collect()).collect();
            let mut products = [f32::NAN; 7];
            dots(&a, others.iter().map(|other| &**other), &mut products);
            for (product, other) in products.into_iter().zip(&others) {
                prop_assert_eq!(product.to_bits(), dot(&a, other).to_bits());
            }
        }
    }
}
