//! Medians with confidence intervals, by resampling: nothing is assumed of how the noise is distributed.

use serde::Serialize;

/// How often the sample is drawn anew.
const RESAMPLES: usize = 4000;

/// A figure and the interval in which it lies with 95 % confidence.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// The figure.
    pub value: f64,
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

impl Estimate {
    /// What was counted, not measured.
    pub fn exact(value: f64) -> Self {
        Self { value, low: value, high: value }
    }
}

/// The median of a sample.
pub fn median(sample: &[f64]) -> f64 {
    quantile(sample, 0.5)
}

/// What this share of a sample does not exceed, interpolated.
pub fn quantile(sample: &[f64], share: f64) -> f64 {
    let mut sorted = sample.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let last = sorted.len() - 1;
    let place = share * last as f64;
    let (below, above) = (place.floor(), place.ceil());
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the sample")]
    let at = |place: f64| sorted[(place as usize).min(last)];
    at(below) + (at(above) - at(below)) * (place - below)
}

/// A figure of a sample of rounds, and how sure it is.
pub fn estimate<T: Copy>(rounds: &[T], figure: impl Fn(&[T]) -> f64) -> Estimate {
    let mut random = fastrand::Rng::with_seed(1);
    let mut drawn = rounds.to_vec();
    let mut figures: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            drawn.fill_with(|| rounds[random.usize(..rounds.len())]);
            figure(&drawn)
        })
        .collect();
    figures.sort_unstable_by(f64::total_cmp);
    let tail = RESAMPLES / 40;
    Estimate { value: figure(rounds), low: figures[tail], high: figures[RESAMPLES - 1 - tail] }
}

/// The median of a figure of each round.
pub fn median_of<T>(rounds: &[T], figure: impl Fn(&T) -> f64) -> f64 {
    median(&rounds.iter().map(figure).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    #[test]
    fn quantiles() {
        let sample: Vec<f64> = (0..=100).map(f64::from).collect();
        assert_eq!(quantile(&sample, 0.99), 99.0);
        assert_eq!(quantile(&sample, 1.0), 100.0);
        assert_eq!(quantile(&[1.0, 2.0], 0.25), 1.25);
    }

    #[test]
    fn a_sample_without_noise_is_sure() {
        assert_eq!(estimate(&[7.0; 9], median), Estimate::exact(7.0));
    }

    #[test]
    fn the_interval_holds_the_figure() {
        let rounds: Vec<f64> = (0..25).map(f64::from).collect();
        let Estimate { value, low, high } = estimate(&rounds, median);
        assert!(low < value && value < high && low > 4.0 && high < 20.0);
    }
}
