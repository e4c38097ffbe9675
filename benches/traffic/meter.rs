//! What reaches the site and the distribution points: how often a second, and how many bytes.

use std::time::Duration;

/// Bytes of a request and its answer beside their bodies: heads in HTTP/2 and the records of TLS. Assumed.
pub const HEADS: u64 = 300;

/// Kinds of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Join,
    Waits,
    Policy,
    Facts,
    Catalogue,
    Shard,
    Document,
    States,
    Enforcement,
    File,
    Refused,
}

impl Kind {
    pub const ALL: [(Self, &'static str); 11] = [
        (Self::Join, "join"),
        (Self::Waits, "question that waits for the next policy"),
        (Self::Policy, "policy, answered at once"),
        (Self::Facts, "facts"),
        (Self::Catalogue, "catalogue: is it another"),
        (Self::Shard, "catalogue: shards"),
        (Self::Document, "list of deployed updates"),
        (Self::States, "report of states"),
        (Self::Enforcement, "report of deployments"),
        (Self::File, "file, at a distribution point"),
        (Self::Refused, "refused: come later"),
    ];
}

/// Counts of a scenario.
pub struct Meter {
    from: u64,
    seconds: Vec<[u32; Kind::ALL.len()]>,
    bytes: [u64; Kind::ALL.len()],
}

impl Meter {
    /// Of a scenario that begins at that second, and has so many.
    pub fn new(from: u64, seconds: usize) -> Self {
        let kinds = [0; Kind::ALL.len()];
        Self { from, seconds: vec![kinds; seconds], bytes: [0; Kind::ALL.len()] }
    }

    /// Counts so many requests of that kind, with so many bytes of bodies each.
    pub fn add(&mut self, second: u64, kind: Kind, count: u32, bodies: u64) {
        let at = second.checked_sub(self.from).and_then(|at| usize::try_from(at).ok());
        if let Some(counts) = at.and_then(|at| self.seconds.get_mut(at)) {
            counts[kind as usize] += count;
            self.bytes[kind as usize] += u64::from(count) * (HEADS + bodies);
        }
    }

    /// Prints a table in Markdown. Each machine that was simulated stands for so many; `from` and `to` are hours of the
    /// scenario.
    pub fn table(&self, weight: f64, (from, to): (f64, f64)) {
        let place = |hours: f64| ((hours * 3_600.0) as usize).min(self.seconds.len());
        let seconds = &self.seconds[place(from)..place(to)];
        println!(
            "| request | all | a second, mean | busiest minute, a second | busiest second | bytes each | GB |"
        );
        println!("|---|---:|---:|---:|---:|---:|---:|");
        let is_site = |kind: Kind| kind != Kind::File;
        for (kind, name) in Kind::ALL {
            let counts: Vec<u64> = seconds.iter().map(|it| u64::from(it[kind as usize])).collect();
            let bytes = self.bytes[kind as usize];
            let whole: u64 = self.seconds.iter().map(|it| u64::from(it[kind as usize])).sum();
            row(name, &counts, weight, bytes as f64 / whole.max(1) as f64);
        }
        let all = |it: &[u32; Kind::ALL.len()]| -> u64 {
            Kind::ALL
                .iter()
                .filter(|(kind, _)| is_site(*kind))
                .map(|(kind, _)| u64::from(it[*kind as usize]))
                .sum()
        };
        let counts: Vec<u64> = seconds.iter().map(all).collect();
        let (bytes, whole) = Kind::ALL.iter().filter(|(kind, _)| is_site(*kind)).fold(
            (0, 0),
            |(bytes, n), (kind, _)| {
                let count: u64 = self.seconds.iter().map(|it| u64::from(it[*kind as usize])).sum();
                (bytes + self.bytes[*kind as usize], n + count)
            },
        );
        row("**all at the site**", &counts, weight, bytes as f64 / whole.max(1) as f64);
    }

    /// Requests at the site in the busiest second from that hour on, over the mean of the hours between.
    pub fn peak_to_mean(&self, (from, to): (f64, f64)) -> f64 {
        let place = |hours: f64| ((hours * 3_600.0) as usize).min(self.seconds.len());
        let sum = |it: &[u32; Kind::ALL.len()]| -> u64 {
            it.iter().map(|it| u64::from(*it)).sum::<u64>() - u64::from(it[Kind::File as usize])
        };
        let counts: Vec<u64> = self.seconds[place(from)..place(to)].iter().map(sum).collect();
        let mean = counts.iter().sum::<u64>() as f64 / counts.len().max(1) as f64;
        counts.iter().max().copied().unwrap_or_default() as f64 / mean.max(1e-9)
    }
}

fn row(name: &str, counts: &[u64], weight: f64, bytes: f64) {
    let all: u64 = counts.iter().sum();
    if all == 0 {
        return;
    }
    let minute = counts.chunks(60).map(|it| it.iter().sum::<u64>()).max().unwrap_or_default();
    let second = counts.iter().max().copied().unwrap_or_default();
    let all = all as f64 * weight;
    println!(
        "| {name} | {} | {} | {} | {} | {} | {:.1} |",
        whole(all),
        rate(all / counts.len().max(1) as f64),
        rate(minute as f64 * weight / 60.0),
        whole(second as f64 * weight),
        whole(bytes),
        all * bytes / 1e9,
    );
}

fn rate(value: f64) -> String {
    if value < 100.0 { format!("{value:.1}") } else { whole(value) }
}

/// With a comma after each three digits.
pub fn whole(value: f64) -> String {
    let digits = format!("{:.0}", value.round());
    let grouped = digits.as_bytes().rchunks(3).rev();
    let grouped: Vec<&str> = grouped.filter_map(|it| std::str::from_utf8(it).ok()).collect();
    grouped.join(",")
}

/// The time that this thread spent on a processor, as Linux says.
pub fn thread_cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = text.split(' ').next().and_then(|it| it.parse().ok()).unwrap_or_default();
    Duration::from_nanos(nanos)
}

/// The same of all threads of this process, those that ended included, to a hundredth of a second.
pub fn process_cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|it| it.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

/// Memory that the process holds, in MiB.
pub fn resident() -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    let kib = line.split_whitespace().next().and_then(|it| it.parse::<f64>().ok());
    kib.unwrap_or_default() / 1024.0
}
