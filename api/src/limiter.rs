//! How often one caller may ask: a token bucket for each.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Callers that are remembered; beyond it, those whose bucket is full are forgotten.
const MAX_CALLERS: usize = 10_000;

/// A token bucket per caller: so many requests a second, and as many at once after a pause.
pub struct Limiter {
    rate: u64,
    buckets: Mutex<HashMap<String, Bucket>>,
}

struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Limiter {
    /// `rate` requests a second; 0 for no limit.
    pub fn new(rate: u64) -> Self {
        Self { rate, buckets: Mutex::default() }
    }

    /// Takes one request of `caller` at `now`.
    ///
    /// # Errors
    /// The time after which it may ask again.
    pub fn take(&self, caller: &str, now: Instant) -> Result<(), Duration> {
        if self.rate == 0 {
            return Ok(());
        }
        let rate = self.rate as f64;
        let mut buckets = self.buckets.lock();
        if buckets.len() >= MAX_CALLERS && !buckets.contains_key(caller) {
            buckets.retain(|_, bucket| bucket.level(rate, now) < rate);
        }
        let bucket = buckets.entry(caller.to_owned()).or_insert(Bucket { tokens: rate, at: now });
        bucket.tokens = bucket.level(rate, now);
        bucket.at = now;
        if bucket.tokens < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - bucket.tokens) / rate));
        }
        bucket.tokens -= 1.0;
        Ok(())
    }
}

impl Bucket {
    fn level(&self, rate: f64, now: Instant) -> f64 {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        (self.tokens + since * rate).min(rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_gets_its_rate_and_no_more() {
        let limiter = Limiter::new(10);
        let start = Instant::now();
        for _ in 0..10 {
            limiter.take("a", start).unwrap();
        }
        let wait = limiter.take("a", start).unwrap_err();
        assert!(wait <= Duration::from_millis(101), "{wait:?}");
        limiter.take("b", start).unwrap();
        limiter.take("a", start + wait).unwrap();
        assert!(limiter.take("a", start + wait).is_err());
        assert!((0..9999).all(|_| Limiter::new(0).take("a", start).is_ok()));
    }

    #[test]
    fn quiet_callers_are_forgotten() {
        let limiter = Limiter::new(10);
        let start = Instant::now();
        for n in 0..MAX_CALLERS {
            limiter.take(&n.to_string(), start).unwrap();
        }
        limiter.take("one more", start + Duration::from_secs(9)).unwrap();
        assert_eq!(limiter.buckets.lock().len(), 1);
    }
}
