//! Who should have how much.

/// One who competes for processors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Competitor {
    pub(crate) weight: f64,
    /// The most it could use, in processors: one for each busy process.
    pub(crate) most: f64,
}

/// What each should have of `processors`: in proportion to the weights, but nobody more than it can use; what one leaves is the others'.
pub(crate) fn entitled(competitors: &[Competitor], processors: f64) -> Vec<f64> {
    let mut shares = vec![None; competitors.len()];
    let mut left = processors;
    loop {
        let open = || competitors.iter().enumerate().filter(|(at, _)| shares[*at].is_none());
        let weights: f64 = open().map(|(_, one)| one.weight).sum();
        let full: Vec<usize> =
            open().filter(|(_, one)| left * one.weight / weights >= one.most).map(|(at, _)| at).collect();
        if full.is_empty() {
            let share = |at: usize| shares[at].unwrap_or(left * competitors[at].weight / weights);
            return (0..competitors.len()).map(share).collect();
        }
        for at in full {
            shares[at] = Some(competitors[at].most);
            left -= competitors[at].most;
        }
    }
}

/// The largest relative difference between what each had and should have had.
pub(crate) fn worst(had: &[f64], should: &[f64]) -> f64 {
    had.iter().zip(should).map(|(had, should)| (had / should - 1.0).abs()).fold(0.0, f64::max)
}

/// 1 where all had the same part of what they should have had; 1/n where one had it all (Jain, Chiu, Hawe 1984).
pub(crate) fn jain(had: &[f64], should: &[f64]) -> f64 {
    let parts: Vec<f64> = had.iter().zip(should).map(|(had, should)| had / should).collect();
    let (sum, squares): (f64, f64) = (parts.iter().sum(), parts.iter().map(|part| part * part).sum());
    sum * sum / (parts.len() as f64 * squares)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(competitors: &[(f64, f64)], processors: f64) -> Vec<f64> {
        let all: Vec<_> = competitors.iter().map(|&(weight, most)| Competitor { weight, most }).collect();
        entitled(&all, processors)
    }

    #[test]
    fn shares_follow_weights_and_what_one_cannot_use_is_the_others() {
        assert_eq!(of(&[(1.0, 9.0), (3.0, 9.0)], 2.0), [0.5, 1.5]);
        assert_eq!(of(&[(1.0, 9.0), (3.0, 1.0)], 2.0), [1.0, 1.0]);
        assert_eq!(of(&[(1.0, 9.0), (1.0, 9.0), (6.0, 1.0)], 2.0), [0.5, 0.5, 1.0]);
        assert_eq!(of(&[(5.0, 1.0)], 2.0), [1.0], "one process can't use two");
    }

    #[test]
    fn an_even_division_is_1_and_one_taking_all_is_not() {
        assert!((jain(&[2.0, 2.0, 2.0], &[1.0; 3]) - 1.0).abs() < 1e-9);
        assert!((jain(&[3.0, 0.0, 0.0], &[1.0; 3]) - 1.0 / 3.0).abs() < 1e-9);
        assert!((worst(&[0.9, 2.2], &[1.0, 2.0]) - 0.1).abs() < 1e-9);
    }
}
