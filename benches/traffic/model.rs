//! The tables of `docs/sizing.md`: what a site of so many clients, points and terabytes needs.
//!
//! Every number follows from [`MEASURED`], each of which says where it was measured, and [`ASSUMED`], which an
//! administrator replaces by his own. Nothing is measured here, so the tables are the same on every machine.

use super::meter::whole;

/// A number that the model goes by.
pub struct Known {
    pub name: &'static str,
    pub value: f64,
    pub unit: &'static str,
    pub from: &'static str,
}

macro_rules! known {
    ($list:ident { $($name:ident = $value:literal, $unit:literal, $text:literal, $from:literal;)* }) => {
        $(const $name: f64 = $value;)*
        /// The numbers by which the model goes.
        pub const $list: &[Known] = &[$(Known { name: $text, value: $name, unit: $unit, from: $from },)*];
    };
}

// Where each was measured is a heading of `benches/RESULTS.md`.
known!(MEASURED {
    WAITING = 63.0, "KiB", "memory: a client whose question waits", "Sizing";
    CLIENT = 358.0, "B", "memory: a client without its states", "State messages and summaries";
    STATE = 0.29, "B", "memory: a state of an update on a client", "State messages and summaries";
    CATALOGUE = 0.07, "GB", "memory: a catalogue of 200,000 updates", "ARCHITECTURE.md";
    SHARD = 15.0, "us", "CPU: a request of 16 KiB, HTTP, many connections", "2026-11-22 20:57, serving";
    INGEST = 3.7, "s", "CPU: a GB of unpacked software is added", "2026-11-22 20:57, real/unpacked";
    STORED = 0.28, "", "disk: packs of four versions over their plain bytes", "2026-11-22 20:57, real/unpacked";
    INDEX = 5.0, "MB", "disk: index of a GB of packs: 2.3 of programs, 9.0 of small files", "Sizing";
    SERVE = 0.143, "s", "CPU: a GB is served in objects of 1 MiB, HTTP", "2026-11-22 20:57, serving";
    POINT = 0.28, "GB", "memory: a server of content, its caches full", "2026-11-22 20:57, serving";
    DELTA = 0.56, "", "bytes: the next version moves as deltas, over the changed files in zstd", "Distribution points";
    REQUESTS = 6.0, "", "simulated: requests of a client right after a deployment to all", "Traffic of a million clients";
});

known!(ASSUMED {
    QUESTION = 150.0, "us", "CPU: a request of a client but for shards, over a connection that is there", "not measured: ten times a small file";
    SHARDS = 22.0, "", "shards of the catalogue that twenty new updates change", "as the simulation has it";
    DATABASE = 10.0, "KB", "disk: the site database, of a client", "a bound: its states take a tenth, its packages most";
    PATCH = 0.2, "GB", "files that a client brings in a month", "set your own";
    MONTH = 10.0, "GB", "changed files of a month, in zstd, that every point is to hold", "set your own";
    HOURS = 8.0, "h", "in which all clients have their files", "set your own";
    UPDATES = 2000.0, "", "updates with states", "set your own";
    PUT_PRICE = 5.0, "USD", "a million PUT, POST, LIST", "an example of a price";
    GET_PRICE = 0.4, "USD", "a million GET", "an example of a price";
    TB_PRICE = 23.0, "USD", "a TB for a month", "an example of a price";
    TURNOVER = 5.0, "%", "of the library that is new in a month", "set your own";
    READ = 10.0, "%", "of the library that is read from the store in a month, past the cache", "set your own";
    TLS = 0.7, "s", "CPU: TLS over a GB, to add where content is served by it", "AES-128-GCM at some 1.5 GB/s";
    HEADROOM = 2.0, "", "cores and memory are so many times what the model has", "set your own";
    DRAIN = 60.0, "s", "in which the last question after a deployment is answered; agents give up after 90", "set your own";
});

/// Seconds that a question waits at the site.
const WAIT: f64 = client::patience::WAIT.as_secs() as f64;
/// Requests of one pack of 64 MiB: it is begun, brought in parts of 8 MiB, and ended (contentlib/FORMAT.md).
const PACK: (f64, f64) = (64.0 * 1_048_576.0 / 1e9, 10.0);
/// GB of one read past the cache (the same).
const PART: f64 = 4.0 * 1_048_576.0 / 1e9;
/// How often the lease is read and written in a month of 30 days: every 15 seconds (the same).
const LEASE: f64 = 30.0 * 86_400.0 / 15.0;

const CLIENTS: [f64; 4] = [100.0, 10_000.0, 100_000.0, 1_000_000.0];
const POINTS: [f64; 3] = [10.0, 200.0, 2_000.0];
const TERABYTES: [f64; 3] = [1.0, 10.0, 100.0];

/// Sites as they are: clients, points, terabytes.
const TYPICAL: [(f64, f64, f64); 5] = [
    (100.0, 10.0, 1.0),
    (10_000.0, 10.0, 1.0),
    (10_000.0, 200.0, 10.0),
    (100_000.0, 200.0, 10.0),
    (1_000_000.0, 2_000.0, 100.0),
];

/// Prints all tables.
pub fn tables() {
    summary(&TYPICAL);
    constants();
    site();
    places();
    library();
    store();
    let all = CLIENTS.iter().flat_map(|clients| POINTS.map(|points| (*clients, points)));
    let all = all.flat_map(|(clients, points)| TERABYTES.map(|tb| (clients, points, tb)));
    summary(&all.collect::<Vec<_>>());
}

fn constants() {
    for (title, list) in [("Measured", MEASURED), ("Assumed", ASSUMED)] {
        println!("\n| {} | | from |\n|---|---:|---|", title.to_lowercase());
        for it in list {
            println!("| {} | {} {} | {} |", it.name, it.value, it.unit, it.from);
        }
    }
}

/// What people have, and what they need for it. Content, clients and points add up.
fn summary(haves: &[(f64, f64, f64)]) {
    println!(
        "\n| you have: clients | points | content, TB | site: cores | memory, GB | fast disk, GB | disk for content, TB | each point: link, Mbit/s | cores | memory, GB |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    for &(clients, points, tb) in haves {
        let link = link(clients / points);
        println!(
            "| {} | {} | {tb:.0} | {} | {} | {} | {} | {} | {} | {} |",
            whole(clients),
            whole(points),
            whole(to_have(cores(clients).1)),
            whole(to_have(memory(clients))),
            whole((database(clients) + tb * INDEX).ceil().max(10.0)),
            short(room(tb)),
            short(link.max(1.0)),
            whole((link / 8e3 * (SERVE + TLS) * HEADROOM).ceil().max(1.0)),
            whole(to_have(POINT)),
        );
    }
}

/// So many cores or GB as one buys them.
fn to_have(modelled: f64) -> f64 {
    (modelled * HEADROOM).max(2.0).ceil()
}

/// GB of the site database.
fn database(clients: f64) -> f64 {
    clients * DATABASE / 1e6
}

/// TB of disk for so many of packs: a month's new content, what waits for the sweep, and some air.
fn room(tb: f64) -> f64 {
    tb * (1.0 + 2.0 * TURNOVER / 100.0) * 1.1
}

/// Mbit a second that bring so many clients their files in time.
fn link(clients: f64) -> f64 {
    clients * PATCH / (HOURS * 3_600.0) * 8e3
}

/// Cores while nothing happens, and after a deployment to everybody.
fn cores(clients: f64) -> (f64, f64) {
    let idle = clients / WAIT * QUESTION * 1e-6;
    let over = clients / client::patience::ANSWERS_A_SECOND + DRAIN;
    (idle, idle + clients * (REQUESTS * QUESTION + SHARDS * SHARD) * 1e-6 / over)
}

/// GB of memory of a site.
fn memory(clients: f64) -> f64 {
    let a_client = WAITING * 1_024.0 + CLIENT + STATE * UPDATES;
    0.5 + CATALOGUE + clients * a_client / 1e9
}

fn site() {
    println!(
        "\n| clients | cores, idle | cores after a deployment | **cores to have** | memory, GB | **memory to have, GB** | connections | questions a second | site database, GB |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    for clients in CLIENTS {
        let (idle, busy) = cores(clients);
        println!(
            "| {} | {} | {} | **{:.0}** | {} | **{:.0}** | {} | {} | {} |",
            whole(clients),
            short(idle),
            short(busy),
            to_have(busy),
            short(memory(clients)),
            to_have(memory(clients)),
            whole(clients),
            short(clients / WAIT),
            short(database(clients)),
        );
    }
}

fn places() {
    println!(
        "\n| clients | points | clients of a point | its link, Mbit/s | cores, HTTPS | memory, GB | the site sends a month, GB | its link to the points, Mbit/s |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|---:|");
    for clients in CLIENTS {
        for points in POINTS {
            let each = clients / points;
            let gb_a_second = link(each) / 8e3;
            let sends = points * MONTH * DELTA;
            println!(
                "| {} | {} | {} | {} | {} | {} | {} | {} |",
                whole(clients),
                whole(points),
                short(each),
                short(gb_a_second * 8e3),
                short(gb_a_second * (SERVE + TLS) * HEADROOM),
                short(POINT * HEADROOM),
                whole(sends),
                // Within a night.
                short(sends * 8e3 / (8.0 * 3_600.0)),
            );
        }
    }
}

fn library() {
    println!(
        "\n| packs, TB | plain content, about, TB | index, GB | **disk to have, TB** | adding all of it, CPU h | a month's new, CPU h |"
    );
    println!("|---:|---:|---:|---:|---:|---:|");
    for tb in TERABYTES {
        let hours = tb * 1e3 / STORED * INGEST / 3_600.0;
        println!(
            "| {tb:.0} | {} | {} | **{}** | {} | {} |",
            short(tb / STORED),
            short(tb * INDEX),
            short(room(tb)),
            short(hours),
            short(hours * TURNOVER / 100.0),
        );
    }
}

fn store() {
    println!(
        "\n| packs, TB | new a month, GB | PUT a month | read a month, GB | GET a month | kept, USD | PUT, USD | GET, USD | **a month, USD** |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    for tb in TERABYTES {
        let (new, read) = (tb * 10.0 * TURNOVER, tb * 10.0 * READ);
        let puts = new / PACK.0 * PACK.1 + LEASE;
        // The scrub reads all of it once a month.
        let gets = (read + tb * 1e3) / PART + LEASE;
        let (kept, put, get) = (tb * TB_PRICE, puts / 1e6 * PUT_PRICE, gets / 1e6 * GET_PRICE);
        println!(
            "| {tb:.0} | {} | {} | {} | {} | {} | {} | {} | **{}** |",
            whole(new),
            whole(puts),
            whole(read),
            whole(gets),
            short(kept),
            short(put),
            short(get),
            short(kept + put + get),
        );
    }
}

fn short(value: f64) -> String {
    match value {
        value if value >= 100.0 => whole(value),
        value if value >= 10.0 => format!("{value:.0}"),
        value if value >= 1.0 => format!("{value:.1}"),
        value if value == 0.0 || value >= 0.01 => format!("{value:.2}"),
        _ => "< 0.01".into(),
    }
}
