/// Cosines by plain loops in f64.
pub struct Cosines(Vec<Vec<f64>>);

impl Cosines {
    /// Those of vectors `[n × dimension]`.
    pub fn of(flat: &[f32], dimension: usize) -> Self {
        let unit = |vector: &[f32]| {
            let length = vector.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
            vector.iter().map(|&x| f64::from(x) / length).collect()
        };
        Self(flat.chunks_exact(dimension).map(unit).collect())
    }

    pub fn get(&self, a: usize, b: usize) -> f64 {
        self.0[a].iter().zip(&self.0[b]).map(|(a, b)| a * b).sum()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}
