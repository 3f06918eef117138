//! Who should have how much of the processors, by weights and by what each can use. Pure: for who shows shares, and who measures them.

/// One who competes for processors.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Competitor {
    /// Its weight; only the ratio to the others' counts.
    pub weight: f64,
    /// The most it can use, in processors: its limit, or one for each busy process.
    pub most: f64,
}

/// What each should have of `processors`, in processors: in proportion to the weights, but nobody more than it can use; what one leaves is the
/// others'. Who weighs nothing has nothing.
#[must_use]
pub fn entitled(competitors: &[Competitor], processors: f64) -> Vec<f64> {
    let mut shares: Vec<Option<f64>> = competitors.iter().map(|one| (one.weight <= 0.0).then_some(0.0)).collect();
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
        assert_eq!(of(&[(0.0, 9.0), (1.0, 9.0)], 2.0), [0.0, 2.0]);
        assert_eq!(of(&[], 2.0), [0.0; 0]);
    }

    proptest! {
        #[test]
        fn nothing_is_left_that_somebody_could_use_and_nobody_has_more_than_that(
            all in prop::collection::vec((1.0f64..500_000.0, 0.0f64..8.0), 1..40),
        ) {
            let shares = of(&all, 4.0);
            let could: f64 = all.iter().map(|(_, most)| most).sum();
            prop_assert!((shares.iter().sum::<f64>() - could.min(4.0)).abs() < 1e-6);
            prop_assert!(shares.iter().zip(&all).all(|(had, (_, most))| *had <= most + 1e-9));
        }
    }
}
