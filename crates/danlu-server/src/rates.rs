//! How much a key may ask for in a minute.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const MINUTE: f64 = 60.0;

/// What a key may ask for in a minute; what is absent has no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    pub requests: Option<u32>,
    /// Read and written together.
    pub tokens: Option<u32>,
}

/// What is left of a key's rates: two buckets that are full at first and fill up again within a minute.
///
/// How many tokens an answer takes is not known before it ends, so a request is let in while any are left, and what it takes beyond is waited
/// for by the next one.
#[derive(Debug)]
pub struct Allowance {
    rates: Rates,
    left: Mutex<Left>,
}

#[derive(Debug)]
struct Left {
    requests: f64,
    /// Below zero when answers took more than there was.
    tokens: f64,
    at: Instant,
}

/// Which rate was passed, and when there will be something left again.
#[derive(Clone, Debug, PartialEq)]
pub struct Passed {
    /// Such as "60 requests".
    pub rate: String,
    pub wait: Duration,
}

impl Allowance {
    pub fn new(rates: Rates, now: Instant) -> Self {
        let full = |rate: Option<u32>| f64::from(rate.unwrap_or(0));
        let left = Left { requests: full(rates.requests), tokens: full(rates.tokens), at: now };
        Self { rates, left: Mutex::new(left) }
    }

    /// Takes a request.
    ///
    /// # Errors
    /// When none, or no token, is left.
    pub fn take(&self, now: Instant) -> Result<(), Passed> {
        let mut left = self.left(now);
        let passed = |rate: Option<u32>, left: f64, what: &str| {
            let rate = rate.filter(|_| left < 1.0)?;
            let wait = Duration::from_secs_f64((1.0 - left) * MINUTE / f64::from(rate));
            Some(Passed { rate: format!("{rate} {what}"), wait })
        };
        let requests = passed(self.rates.requests, left.requests, "requests");
        let longest = requests.into_iter().chain(passed(self.rates.tokens, left.tokens, "tokens"));
        if let Some(passed) = longest.max_by_key(|passed| passed.wait) {
            return Err(passed);
        }
        left.requests -= 1.0;
        Ok(())
    }

    /// Takes tokens that were read or written, whether they are left or not.
    pub fn charge(&self, tokens: usize, now: Instant) {
        self.left(now).tokens -= tokens as f64;
    }

    fn left(&self, now: Instant) -> std::sync::MutexGuard<'_, Left> {
        // Nothing that could panic happens while it is held.
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = now.saturating_duration_since(left.at).as_secs_f64() / MINUTE;
        let filled = |left: f64, rate: Option<u32>| {
            let full = f64::from(rate.unwrap_or(0));
            (left + passed * full).min(full)
        };
        left.requests = filled(left.requests, self.rates.requests);
        left.tokens = filled(left.tokens, self.rates.tokens);
        left.at = left.at.max(now);
        left
    }
}

/// Who asks; nobody in particular when there are no keys.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    /// Its key's name, or nothing.
    pub name: String,
    pub allowance: Option<Arc<Allowance>>,
}

impl Caller {
    /// Takes tokens from what the key may still ask for.
    pub fn charge(&self, tokens: usize) {
        if let Some(allowance) = &self.allowance {
            allowance.charge(tokens, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_come_back_one_by_one() {
        let start = Instant::now();
        let after = |seconds: u64| start + Duration::from_secs(seconds);
        let allowance = Allowance::new(Rates { requests: Some(2), tokens: None }, start);
        assert_eq!((allowance.take(start), allowance.take(start)), (Ok(()), Ok(())));
        let passed = allowance.take(start).unwrap_err();
        assert_eq!((passed.rate.as_str(), passed.wait.as_secs()), ("2 requests", 30));
        assert!(allowance.take(after(29)).is_err());
        assert!(allowance.take(after(31)).is_ok() && allowance.take(after(31)).is_err());
        // However long it was quiet, a minute's worth is the most.
        assert!(
            allowance.take(after(3600)).is_ok() && allowance.take(after(3600)).is_ok() && allowance.take(after(3600)).is_err()
        );
        // Tokens without a rate are not counted.
        allowance.charge(1_000_000, after(3600));
        assert!(allowance.take(after(3700)).is_ok());
    }

    #[test]
    fn tokens_beyond_the_rate_are_waited_for() {
        let start = Instant::now();
        let allowance = Allowance::new(Rates { requests: Some(1000), tokens: Some(60) }, start);
        allowance.take(start).unwrap();
        allowance.charge(90, start);
        let passed = allowance.take(start).unwrap_err();
        assert_eq!((passed.rate.as_str(), passed.wait.as_secs()), ("60 tokens", 31));
        assert!(allowance.take(start + Duration::from_secs(32)).is_ok());
    }
}
