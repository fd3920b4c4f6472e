//! Medians with confidence intervals, by resampling: nothing is assumed of how the noise is distributed.

/// How often the sample is drawn anew.
const RESAMPLES: usize = 4000;

/// A figure and the interval in which it lies with 95 % confidence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The figure.
    pub value: f64,
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// The median of a sample.
pub fn median(sample: &[f64]) -> f64 {
    let mut sorted = sample.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

/// A figure of a sample of rounds, and how sure it is.
pub fn estimate<T: Copy>(rounds: &[T], figure: impl Fn(&[T]) -> f64) -> Estimate {
    let mut random = fastrand::Rng::with_seed(1);
    let mut figures: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let drawn: Vec<T> = rounds.iter().map(|_| rounds[random.usize(..rounds.len())]).collect();
            figure(&drawn)
        })
        .collect();
    figures.sort_by(f64::total_cmp);
    let tail = RESAMPLES / 40;
    Estimate { value: figure(rounds), low: figures[tail], high: figures[RESAMPLES - 1 - tail] }
}

/// The median of a figure of each round.
pub fn median_of<T>(rounds: &[T], figure: impl Fn(&T) -> f64) -> f64 {
    median(&rounds.iter().map(figure).collect::<Vec<_>>())
}

/// Prints a figure with its interval.
pub fn print(what: &str, Estimate { value, low, high }: Estimate, unit: &str) {
    let digits = if unit.is_empty() { 2 } else { 0 };
    println!("{what:<17} {value:>6.digits$} {unit:<2} ({low:.digits$} to {high:.digits$})");
}

/// What to say of a claim that holds, or fails, in all of an interval; or in a part of it.
pub fn verdict(holds: bool, fails: bool) -> &'static str {
    match (holds, fails) {
        (true, _) => "yes",
        (_, true) => "NO",
        _ => "undecided, the noise is too large",
    }
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
    fn a_sample_without_noise_is_sure() {
        let sure = estimate(&[7.0; 9], median);
        assert_eq!(sure, Estimate { value: 7.0, low: 7.0, high: 7.0 });
    }

    #[test]
    fn the_interval_holds_the_figure() {
        let rounds: Vec<f64> = (0..25).map(f64::from).collect();
        let Estimate { value, low, high } = estimate(&rounds, median);
        assert!(low < value && value < high && low > 4.0 && high < 20.0);
    }
}
