//! How far what each had is from what it should have had.

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

    #[test]
    fn an_even_division_is_1_and_one_taking_all_is_not() {
        assert!((jain(&[2.0, 2.0, 2.0], &[1.0; 3]) - 1.0).abs() < 1e-9);
        assert!((jain(&[3.0, 0.0, 0.0], &[1.0; 3]) - 1.0 / 3.0).abs() < 1e-9);
        assert!((worst(&[0.9, 2.2], &[1.0, 2.0]) - 0.1).abs() < 1e-9);
    }
}
