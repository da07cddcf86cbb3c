//! How fast an answer is written: its steps themselves, apart from finding, looking and reading.

use std::time::Instant;

use colibri_models::generate::Step;

/// When the tokens of an answer came.
#[derive(Clone, Debug, Default)]
pub struct Pace(Vec<Instant>);

impl Pace {
    /// To be shown every step of a generator; those that write a token count, whether or not it completes a character.
    pub fn see(&mut self, step: &Step<'_>) {
        if matches!(step, Step::Text(_) | Step::Waiting) {
            self.0.push(Instant::now());
        }
    }

    /// Milliseconds from one token to the next, on average over an answer of `new_tokens`; 0 where fewer than two
    /// were seen.
    pub fn a_token(&self, new_tokens: usize) -> f64 {
        // What is left of a character comes after the last token.
        match &self.0[..self.0.len().min(new_tokens)] {
            [first, between @ .., last] => {
                1000.0 * (*last - *first).as_secs_f64() / (between.len() + 1) as f64
            }
            _ => 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_follows_the_last_token_is_not_counted() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let pace = Pace(vec![at(100), at(110), at(130), at(900)]);
        assert!((pace.a_token(3) - 15.0).abs() < 1e-6);
        assert!((pace.a_token(2) - 10.0).abs() < 1e-6);
        assert_eq!((pace.a_token(1), Pace::default().a_token(7)), (0.0, 0.0));
    }
}
