/// Holds the mean in-batch similarity at `walk.target_similarity` by moving the random share between mini-batches.
///
/// If a share r of a mini-batch is uniform, a share h = (1 − r)² of its pairs is of walks, so its mean similarity is
/// about u + d · h, where u is that of uniform pairs and d what walks add. After each mini-batch:
///
/// 1. Improve the estimates of u and d by recursive least squares, which slowly forgets, since models learn.
/// 2. Move the share towards the one whose estimate is the target, by `MAX_CHANGE` at most.
///
/// The share depends on nothing but the similarities that were observed. Costs O(1).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Feedback {
    target: f64,
    random_share: f64,
    /// The estimates of u and d.
    estimates: [f64; 2],
    /// The covariance of the estimates, as multiples of the variance of one similarity: of u, of both, of d.
    covariance: [f64; 3],
}

impl Feedback {
    /// Begins with a random share of 0.
    #[must_use]
    pub fn new(target: f64) -> Self {
        Self { target, random_share: 0.0, estimates: [0.0; 2], covariance: UNKNOWN }
    }

    /// Goes on from what [`save`](Self::save) gave; `None` if it gave something else.
    #[must_use]
    pub fn restore(target: f64, saved: [u64; 6]) -> Option<Self> {
        let [random_share, u, d, of_u, of_both, of_d] = saved.map(f64::from_bits);
        let is_usable = [u, d, of_u, of_both, of_d].iter().all(|number| number.is_finite());
        let estimates = [u, d];
        let covariance = [of_u, of_both, of_d];
        let feedback = Self { target, random_share, estimates, covariance };
        (is_usable && (0.0..=1.0).contains(&random_share)).then_some(feedback)
    }

    /// All that the next shares depend on beside the target: numbers whose bits must come back as they are.
    #[must_use]
    pub fn save(&self) -> [u64; 6] {
        let Self { random_share, estimates: [u, d], covariance: [of_u, of_both, of_d], .. } = *self;
        [random_share, u, d, of_u, of_both, of_d].map(f64::to_bits)
    }

    /// The random share of the next mini-batch, 0 to 1.
    #[must_use]
    pub fn random_share(&self) -> f64 {
        self.random_share
    }

    /// Whether the share stands at 0 or 1 and the target lies beyond, so that it is not reached.
    #[must_use]
    pub fn is_at_bound(&self) -> bool {
        let wanted = self.wanted();
        let is_beyond = (self.random_share <= 0.0 && wanted < 0.0) || (self.random_share >= 1.0 && wanted > 1.0);
        self.covariance != UNKNOWN && is_beyond
    }

    /// Moves the share after a mini-batch of at least two samples, whose mean in-batch similarity this is.
    ///
    /// A similarity that is not finite changes nothing.
    pub fn observe(&mut self, similarity: f64) {
        if !similarity.is_finite() {
            return;
        }
        self.learn(similarity);
        let (least, most) = (self.random_share - MAX_CHANGE, self.random_share + MAX_CHANGE);
        self.random_share = self.wanted().clamp(least, most).clamp(0.0, 1.0);
    }

    /// One update of a Kalman filter whose two numbers drift at random.
    fn learn(&mut self, similarity: f64) {
        let [u, d] = self.estimates;
        let [of_u, of_both, of_d] = self.covariance;
        let h = self.pairs_of_walks();
        let (with_u, with_d) = (of_u + h * of_both, of_both + h * of_d);
        let variance = 1.0 + with_u + h * with_d;
        let error = similarity - (u + h * d);
        self.estimates = [u + with_u / variance * error, d + with_d / variance * error];
        let covariance = [
            of_u - with_u * with_u / variance + DRIFT,
            of_both - with_u * with_d / variance,
            of_d - with_d * with_d / variance + DRIFT,
        ];
        self.covariance = covariance;
    }

    /// The share of pairs that are of walks.
    fn pairs_of_walks(&self) -> f64 {
        (1.0 - self.random_share).powi(2)
    }

    /// The share that gives the target by the estimates; below 0 or above 1 if none does.
    fn wanted(&self) -> f64 {
        let [u, d] = self.estimates;
        if d > 0.0 {
            let h = (self.target - u) / d;
            return if h < 0.0 { 1.0 - h } else { 1.0 - h.sqrt() };
        }
        // The estimates are no good yet, since walks never lower similarity: search in the right direction.
        let estimate = u + self.pairs_of_walks() * d;
        self.random_share + MAX_CHANGE.copysign(estimate - self.target)
    }
}

/// How much the share changes at most from one mini-batch to the next.
const MAX_CHANGE: f64 = 0.05;

/// The variance that the estimates gain in each step, as a multiple of the variance of one similarity. They remember
/// about as many mini-batches as the inverse of its root says.
const DRIFT: f64 = 1e-3;

/// The covariance of estimates that nothing is known of.
const UNKNOWN: [f64; 3] = [1e6, 0.0, 1e6];

#[cfg(test)]
mod tests {
    use rand::rngs::ChaCha8Rng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    /// The mean similarity of mini-batches by `law`, with uniform noise, and the mean share, over the last `count`.
    fn late_means(feedback: &mut Feedback, law: impl Fn(f64) -> f64, noise: f64, count: usize) -> [f64; 2] {
        let mut generator = ChaCha8Rng::seed_from_u64(9);
        let mut sums = [0.0; 2];
        for step in 0..2 * count {
            let before = feedback.random_share();
            let similarity = law(before) + noise * (generator.random::<f64>() - 0.5);
            feedback.observe(similarity);
            let after = feedback.random_share();
            assert!((after - before).abs() <= MAX_CHANGE + 1e-12 && (0.0..=1.0).contains(&after), "{before} {after}");
            if step >= count {
                sums[0] += similarity / count as f64;
                sums[1] += before / count as f64;
            }
        }
        sums
    }

    /// Whatever the scale of similarities, and whether or not pairs follow the law that is assumed.
    #[test]
    fn the_mean_similarity_comes_to_the_target() {
        for scale in [1e-3, 1.0, 1e4] {
            for offset in [-0.5, 0.0, 0.4] {
                for noise in [0.0, 0.2] {
                    let laws: [&dyn Fn(f64) -> f64; 3] =
                        [&|r| (1.0 - r).powi(2), &|r| 1.0 - r, &|r| 1.0 - 0.2 * r - 0.8 * r.powi(4)];
                    for (number, law) in laws.iter().enumerate() {
                        for place in [0.15, 0.5, 0.9] {
                            let target = scale * (offset + 0.5 * place);
                            let mut feedback = Feedback::new(target);
                            let law = |r| scale * (offset + 0.5 * law(r));
                            let [mean, share] = late_means(&mut feedback, law, scale * noise, 1000);
                            let bound = scale * (0.005 + 0.05 * noise);
                            let case = format!("law {number}, scale {scale}, offset {offset}, noise {noise}");
                            assert!((mean - target).abs() < bound, "{case}: {mean} for {target} at {share}");
                            assert!(!feedback.is_at_bound(), "{case}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_target_out_of_reach_is_told() {
        for (target, share) in [(0.9, 0.0), (-0.2, 1.0)] {
            let mut feedback = Feedback::new(target);
            assert!(!feedback.is_at_bound());
            let [_, mean] = late_means(&mut feedback, |r| 0.1 + 0.5 * (1.0 - r).powi(2), 0.1, 100);
            assert!((mean - share).abs() < 0.05 && feedback.random_share() == share, "{mean}, not {share}");
            assert!(feedback.is_at_bound());
        }
    }

    /// A model that learns makes the similarities of walks and of uniform pairs fall.
    #[test]
    fn the_share_follows_a_model_that_learns() {
        let mut feedback = Feedback::new(0.3);
        let mut errors = 0.0;
        for step in 0..4000 {
            let left = 1.0 - f64::from(step) / 8000.0;
            let similarity = 0.1 * left + 0.6 * left * (1.0 - feedback.random_share()).powi(2);
            feedback.observe(similarity);
            errors += if step >= 100 { (similarity - 0.3).abs() / 3900.0 } else { 0.0 };
        }
        assert!(errors < 0.005, "{errors}");
    }

    #[test]
    fn a_saved_feedback_goes_on_bit_by_bit() {
        let mut feedback = Feedback::new(0.3);
        for step in 0..200 {
            let mut restored = Feedback::restore(0.3, feedback.save()).unwrap();
            let similarity = f64::from(step * 37 % 101) / 101.0;
            feedback.observe(similarity);
            restored.observe(similarity);
            assert_eq!(restored, feedback);
        }
        let before = feedback;
        feedback.observe(f64::NAN);
        assert_eq!(feedback, before);
        assert_eq!(Feedback::restore(0.3, [2f64.to_bits(), 0, 0, 0, 0, 0]), None);
        assert_eq!(Feedback::restore(0.3, [0, f64::NAN.to_bits(), 0, 0, 0, 0]), None);
    }
}
