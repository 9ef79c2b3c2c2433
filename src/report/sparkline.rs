//! A series as a row of bars.

/// A series as a row of at most `width` bars, from `low` to `high`. Each bar is the mean of its part of the series.
pub(super) fn sparkline(series: &[f32], width: usize, low: f32, high: f32) -> String {
    let width = width.min(series.len());
    let bar = |i: usize| {
        let part = &series[i * series.len() / width..(i + 1) * series.len() / width];
        let mean = part.iter().sum::<f32>() / part.len() as f32;
        let level = (mean - low) / (high - low).max(f32::MIN_POSITIVE) * (BARS.len() - 1) as f32;
        BARS[(level.round().max(0.0) as usize).min(BARS.len() - 1)]
    };
    (0..width).map(bar).collect()
}

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ramp_climbs() {
        let ramp: Vec<_> = (0..16).map(|i| i as f32).collect();
        assert_eq!(sparkline(&ramp, 8, 0.5, 14.5), "▁▂▃▄▅▆▇█");
        assert_eq!(sparkline(&[], 8, 0.0, 1.0), "");
        assert_eq!(sparkline(&[2.0, 2.0], 8, 2.0, 2.0), "▁▁");
    }
}
