//! How connections are set up for a limit.
//!
//! Bytes are paced as they are read, and what a sender may send unread is on the line all the same: the
//! window of a connection of HTTP/2. A fast line needs a large one, as large as what is under way on it.
//! For a limit it is what that lets through in a quarter of a second, or less than the burst; so nothing
//! comes in much faster than it may, however fast the line is. And where little comes, few answers are
//! open at a time: each must have some of it often enough for its server not to give it up.

use crate::field::Limit;

/// The least window there can be (RFC 9113, section 6.9.2), for all streams together.
const LEAST_WINDOW: u64 = 64 << 10;
const LARGEST_WINDOW: u64 = 2 << 20;
/// Below this rate a version has one answer open at a time.
const SLOW: u64 = 1 << 20;
/// Answers of a version that are open at a time, if nothing makes them fewer: all there ever are.
const MANY: u16 = 1024;

/// What connections and requests are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Line {
    /// The window of a connection, in bytes; nothing means as large as is usual.
    pub window: Option<u32>,
    /// Answers of one version that are open at a time.
    pub answers: u16,
}

impl Line {
    /// For so many versions at a time, which share a limit. Limits that differ by little have the same.
    pub fn of(limit: Option<Limit>, n_versions: usize) -> Self {
        let Some(limit) = limit else { return Self { window: None, answers: MANY } };
        let of_burst = limit.burst / (2 * n_versions.max(1) as u64);
        let window = (limit.rate / 4).min(of_burst).clamp(LEAST_WINDOW, LARGEST_WINDOW);
        // The power of two below it.
        let window = 1 << window.ilog2();
        Self { window: Some(window), answers: if limit.rate < SLOW { 1 } else { MANY } }
    }

    /// The limit to read at, so that with what is on the line in so many windows `limit` is kept.
    pub fn to_read_at(&self, limit: Limit, n_versions: usize) -> Limit {
        let on_the_line = u64::from(self.window.unwrap_or(0)) * n_versions as u64;
        Limit { burst: limit.burst.saturating_sub(on_the_line).max(1), ..limit }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(rate: u64, burst: u64) -> Line {
        Line::of(Some(Limit { rate, burst }), 3)
    }

    #[test]
    fn a_window_is_no_larger_than_the_limit_needs() {
        let free = Line::of(None, 3);
        assert_eq!(free, Line { window: None, answers: MANY });
        assert_eq!(of(32_000, 1 << 30), Line { window: Some(64 << 10), answers: 1 });
        assert_eq!(of(2_500_000, 1 << 30), Line { window: Some(512 << 10), answers: MANY });
        assert_eq!(of(2_500_000, 1 << 20).window, Some(128 << 10));
        assert_eq!(of(u64::MAX, u64::MAX).window, Some(2 << 20));
        assert_eq!(of(0, 0).window, Some(64 << 10));
        assert_eq!(of(2_500_000, 1 << 30), of(2_600_000, 1 << 30));
    }

    #[test]
    fn what_is_on_the_line_is_of_the_burst() {
        let limit = Limit { rate: 2_500_000, burst: 4_000_000 };
        let read = of(limit.rate, limit.burst).to_read_at(limit, 3);
        assert_eq!(read, Limit { rate: limit.rate, burst: 4_000_000 - 3 * (512 << 10) });
        let small = Limit { rate: 32_000, burst: 1000 };
        assert_eq!(of(32_000, 1000).to_read_at(small, 3), Limit { burst: 1, ..small });
    }
}
