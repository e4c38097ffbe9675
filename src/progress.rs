//! How far a long operation is, for whoever watches.
//!
//! On a terminal: one line that redraws itself and is gone at the end. Elsewhere (a log file, a
//! CI job): a plain line now and then. With `--json` or `--quiet`: nothing. What ends within the
//! first moments shows nothing at all, so short commands stay quiet and cost nothing.

use crate::{exit::Failure, output::Out, units};
use contentlib::Progress as Counters;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::{
    future::Future,
    io::IsTerminal,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

/// Where an operation stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Standing {
    /// What is being done now: `reading`, `sending`.
    pub stage: String,
    /// What is counted, if not files: `entries`.
    pub unit: Option<&'static str>,
    /// Files, or what is counted, done.
    pub files: u64,
    /// Files there are, once known.
    pub total_files: Option<u64>,
    /// Bytes done.
    pub bytes: u64,
    /// Bytes there are, once known.
    pub total_bytes: Option<u64>,
    /// Of the bytes done, those not held before.
    pub new_bytes: Option<u64>,
}

impl Standing {
    /// `reading  1,204 of 9,332 files  212 MiB of 1.40 GiB  new 34.0 MiB`.
    fn line(&self) -> String {
        let of = |done: String, total: Option<String>| match total {
            Some(total) => format!("{done} of {total}"),
            None => done,
        };
        let mut parts = Vec::with_capacity(4);
        if !self.stage.is_empty() {
            parts.push(self.stage.clone());
        }
        if self.files > 0 || self.total_files.is_some() {
            let total = self.total_files.map(units::count);
            let done = of(units::count(self.files), total);
            parts.push(format!("{done} {}", self.unit.unwrap_or("files")));
        }
        if self.bytes > 0 || self.total_bytes.is_some() {
            parts.push(of(units::bytes(self.bytes), self.total_bytes.map(units::bytes)));
        }
        if let Some(new) = self.new_bytes {
            parts.push(format!("new {}", units::bytes(new)));
        }
        parts.join("  ")
    }
}

impl Standing {
    /// Where an operation of this process stands, by its counters.
    pub fn of(counters: &Counters) -> Self {
        let known = |n: u64| (n > 0).then_some(n);
        Self {
            stage: counters.stage(),
            unit: None,
            files: counters.files.load(Relaxed),
            total_files: known(counters.total_files.load(Relaxed)),
            bytes: counters.bytes.load(Relaxed),
            total_bytes: known(counters.total_bytes.load(Relaxed)),
            new_bytes: known(counters.new_bytes.load(Relaxed)),
        }
    }
}

/// Waits for `work`, showing how far its counters are. Ctrl-C asks it to end, and the answer is
/// then "interrupted"; a second Ctrl-C does not wait for that.
pub async fn shown<T, E: Into<Failure>>(
    out: Out,
    counters: &Counters,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, Failure> {
    let mut interrupted = false;
    let stopped = async {
        let _ = tokio::signal::ctrl_c().await;
        interrupted = true;
        counters.cancel();
        let _ = tokio::signal::ctrl_c().await;
    };
    let done = until(out, || Standing::of(counters), stopped, work).await;
    if interrupted { Err(Failure::interrupted()) } else { done }
}

/// Waits for `work`, showing `standing` now and then, and gives it up when `stopped` is ready.
pub async fn until<T, E: Into<Failure>>(
    out: Out,
    standing: impl Fn() -> Standing,
    stopped: impl Future<Output = ()>,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, Failure> {
    let mut progress = Progress::new(out);
    tokio::pin!(work, stopped);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done.map_err(E::into),
            () = &mut stopped => return Err(Failure::interrupted()),
            () = tokio::time::sleep(TICK) => progress.set(&standing()),
        }
    }
}

/// Between two looks at the counters.
const TICK: Duration = Duration::from_millis(100);
/// The moments before anything is shown.
const PATIENCE: Duration = Duration::from_millis(250);
/// Between two plain lines.
const PLAIN_EVERY: Duration = Duration::from_secs(10);

/// Shows where one operation stands. Dropping it leaves the terminal clean.
pub struct Progress {
    place: Place,
    begun: Instant,
}

enum Place {
    Nowhere,
    Terminal(Option<ProgressBar>),
    Lines { due: Instant },
}

impl Progress {
    /// Chooses where to show it; shows nothing yet.
    pub fn new(out: Out) -> Self {
        let begun = Instant::now();
        let place = if out.quiet || out.json {
            Place::Nowhere
        } else if std::io::stderr().is_terminal() {
            Place::Terminal(None)
        } else {
            Place::Lines { due: begun + PLAIN_EVERY }
        };
        Self { place, begun }
    }

    /// Shows `now`, unless it is too early or too soon after the last time.
    pub fn set(&mut self, now: &Standing) {
        match &mut self.place {
            Place::Nowhere => {}
            Place::Terminal(bar) => {
                let elapsed = self.begun.elapsed();
                if bar.is_none() && elapsed < PATIENCE {
                    return;
                }
                let bar = bar.get_or_insert_with(ProgressBar::hidden);
                let mut text = now.line();
                if now.bytes > 0 {
                    text.push_str(&format!("  {}", units::rate(now.bytes, elapsed)));
                }
                match now.total_bytes.filter(|total| *total > 0) {
                    Some(total) => {
                        bar.set_length(total);
                        bar.set_style(style("{spinner} {msg}  [{wide_bar}] {eta}"));
                    }
                    None => bar.set_style(style("{spinner} {msg}")),
                }
                bar.set_message(text);
                bar.set_position(now.bytes);
                // Shown from here on, so that its first picture is a whole one.
                if bar.is_hidden() {
                    bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(10));
                }
            }
            Place::Lines { due } => {
                let at = Instant::now();
                if at >= *due {
                    *due = at + PLAIN_EVERY;
                    let speed = units::speed(now.bytes, self.begun.elapsed());
                    eprintln!("{}{speed}", now.line());
                }
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Place::Terminal(Some(bar)) = &self.place {
            bar.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates above parse").progress_chars("=> ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_is_known_and_no_more() {
        let mut now = Standing { stage: "reading".into(), files: 3, ..Standing::default() };
        assert_eq!(now.line(), "reading  3 files");
        now.total_files = Some(1200);
        now.bytes = 2048;
        now.total_bytes = Some(4096);
        now.new_bytes = Some(0);
        assert_eq!(now.line(), "reading  3 of 1,200 files  2.00 KiB of 4.00 KiB  new 0 B");
        let sync = Standing {
            stage: "parse".into(),
            unit: Some("entries"),
            files: 17_103,
            bytes: 2048,
            ..Standing::default()
        };
        assert_eq!(sync.line(), "parse  17,103 entries  2.00 KiB");
    }
}
