//! Randomised tests that can be run again: the seed is printed, and taken from `MUSTER_SEED`.

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use std::time::Duration;

/// Variable that sets the seed.
const VARIABLE: &str = "MUSTER_SEED";

/// A source of chance with a known beginning.
#[derive(Debug)]
pub struct Seed(StdRng);

impl Seed {
    /// A new one for a test; says how to repeat it.
    pub fn of(test: &str) -> Self {
        let given = std::env::var(VARIABLE).ok().and_then(|text| text.parse().ok());
        let seed: u64 = given.unwrap_or_else(rand::random);
        eprintln!("{test}: repeat with {VARIABLE}={seed}");
        Self(StdRng::seed_from_u64(seed))
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.0.random_range(0..end)
    }

    /// A time up to `longest`.
    pub fn moment(&mut self, longest: Duration) -> Duration {
        longest.mul_f64(self.0.random_range(0.0..1.0))
    }
}

impl From<u64> for Seed {
    fn from(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }
}
