//! PostgreSQL held to the contract of the seam, and to what it promises beyond, by a real server.

use super::*;
use crate::{Expect, MemoryKv};
use proptest::prelude::*;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

#[path = "../../../tests/support/postgres.rs"]
mod support;
use support::{Postgres, shared};

#[path = "../../../tests/support/relay.rs"]
#[allow(dead_code, reason = "the scenarios of the whole program use the rest")]
mod relay;
use relay::{Line, Pace};

fn holder(id: &str) -> Holder {
    Holder { id: id.into(), name: format!("the test {id}"), address: format!("{id}:1") }
}

fn open(url: &str) -> PostgresKv {
    PostgresKv::open(&url.parse().unwrap(), &holder("a")).unwrap()
}

fn put(kv: &dyn Kv, key: &[u8], value: &[u8]) -> Result<Seq, CommitError> {
    let mut batch = Batch::new();
    batch.put(key, value);
    kv.write(batch)
}

#[test]
fn postgresql_keeps_the_contract() {
    crate::kv::contract::holds(&open(&shared().url()));
}

#[test]
fn it_keeps_the_contract_of_copies() {
    let url = shared().url().parse().unwrap();
    let target = PostgresKv::open_for_import(&url, &holder("a")).unwrap();
    target.begin("another one").unwrap();
    drop(target);
    let refused = PostgresKv::open(&url, &holder("a")).err().unwrap();
    assert!(matches!(refused, DbError::NotUsable { .. }), "{refused}");
    let target = PostgresKv::open_for_import(&url, &holder("a")).unwrap();
    crate::transfer::contract::holds(&target);
    drop(target);
    assert_eq!(PostgresKv::open(&url, &holder("a")).unwrap().last_seq(), 1502);
}

#[test]
fn keys_sort_byte_by_byte_and_any_bytes_are_kept() {
    let kv = open(&shared().url());
    let mut keys: Vec<Vec<u8>> =
        vec![vec![0], vec![0, 0], vec![0, 0xff], vec![0x80], b"a".to_vec(), vec![0xff; 2000]];
    keys.push(Vec::new());
    for key in &keys {
        put(&kv, key, key).unwrap();
    }
    keys.sort();
    let all = Range::default();
    let found = kv.scan(&all, Order::Ascending, usize::MAX).unwrap();
    assert_eq!(found, keys.iter().map(|key| (key.clone(), key.clone())).collect::<Vec<_>>());
    let mut down = kv.scan(&all, Order::Descending, 99).unwrap();
    down.reverse();
    assert_eq!(down, found);
}

#[test]
fn what_is_too_large_is_refused_and_harms_nobody() {
    let kv = open(&shared().url());
    let refused = put(&kv, &[1; 2001], b"x").unwrap_err();
    assert!(matches!(refused, CommitError::Db(DbError::TooLarge { bytes: 2001, .. })), "{refused}");
    let mut batch = Batch::new();
    batch.require([1; 2001], Expect::Absent).put("a", "x");
    assert!(kv.write(batch).is_err());
    assert_eq!(kv.last_seq(), 0);
    let large = vec![7; 20 << 20];
    let mut batch = Batch::new();
    for n in 0..3_u8 {
        batch.put([n], large.clone());
    }
    for n in 0..50_000_u32 {
        batch.put(n.to_be_bytes(), "");
    }
    assert_eq!(kv.write(batch).unwrap(), 1);
    assert!(kv.get(&[2]).unwrap().as_deref() == Some(large.as_slice()));
    assert_eq!(kv.changes(0, 1).unwrap().len(), 50_003);
    assert_eq!(kv.scan(&Range::default(), Order::Ascending, usize::MAX).unwrap().len(), 50_003);
}

#[test]
fn it_may_be_asked_on_threads_of_a_runtime() {
    let url = shared().url();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let kv = open(&url);
        put(&kv, b"a", b"1").unwrap();
        assert!(kv.get(b"a").unwrap().is_some());
        drop(kv);
        open(&url);
    });
}

#[test]
fn everything_is_there_after_reopening() {
    let url = shared().url();
    for round in 0..3_u8 {
        let kv = open(&url);
        assert_eq!(kv.last_seq(), u64::from(round));
        put(&kv, &[round], b"value").unwrap();
        assert_eq!(kv.changes(0, 99).unwrap().len(), usize::from(round) + 1);
    }
    let kv = open(&url);
    kv.forget_changes(2).unwrap();
    let name = kv.database().to_owned();
    drop(kv);
    let kv = open(&url);
    assert_eq!(kv.database(), name);
    assert!(matches!(kv.changes(1, 9), Err(DbError::ChangesGone { oldest: 3 })));
    assert_eq!(kv.changes(2, 9).unwrap().len(), 1);
}

/// One operation of a random life: on a few keys, so that they meet.
#[derive(Clone, Debug)]
struct Op {
    require: Option<(u8, Option<u8>)>,
    set: Vec<(u8, Option<u8>)>,
}

fn op() -> impl Strategy<Value = Op> {
    let key = 0..6_u8;
    let require = proptest::option::of((key.clone(), proptest::option::of(0..3_u8)));
    let set = proptest::collection::vec((key, proptest::option::of(0..3_u8)), 0..4);
    (require, set).prop_map(|(require, set)| Op { require, set })
}

fn batch_of(op: &Op) -> Batch {
    let mut batch = Batch::new();
    if let Some((key, value)) = op.require {
        let expect = value.map_or(Expect::Absent, |value| Expect::Is(vec![value]));
        batch.require([key], expect);
    }
    for (key, value) in &op.set {
        match value {
            Some(value) => batch.put([*key], [*value]),
            None => batch.delete([*key]),
        };
    }
    batch
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// Whatever is done at once, it is as if it had been done in the order of the numbers that were
    /// given: played back in that order, memory gives the same answers, entries and feed.
    #[test]
    fn what_is_written_at_once_is_serial(ops in proptest::collection::vec(op(), 1..60)) {
        let kv = open(&shared().url());
        let answers: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|n| {
                    let (kv, ops) = (&kv, &ops);
                    scope.spawn(move || {
                        let mine = ops.iter().skip(n).step_by(4);
                        mine.map(|op| (op.clone(), kv.write(batch_of(op)).ok())).collect::<Vec<_>>()
                    })
                })
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        let model = MemoryKv::default();
        let mut written: Vec<_> = answers
            .iter()
            .filter(|(op, _)| !op.set.is_empty())
            .filter_map(|(op, seq)| Some((seq.as_ref()?, op)))
            .collect();
        written.sort_by_key(|(seq, _)| **seq);
        for (seq, op) in written {
            prop_assert_eq!(model.write(batch_of(op)).unwrap(), *seq);
        }
        let all = Range::default();
        prop_assert_eq!(
            model.scan(&all, Order::Ascending, 99).unwrap(),
            kv.scan(&all, Order::Ascending, 99).unwrap()
        );
        prop_assert_eq!(model.changes(0, 999).unwrap(), kv.changes(0, 999).unwrap());
        prop_assert_eq!(model.last_seq(), kv.last_seq());
    }
}

#[test]
fn a_second_server_is_refused_while_the_first_lives() {
    let url: PostgresUrl = shared().url().parse().unwrap();
    let first = PostgresKv::open(&url, &holder("first")).unwrap();
    put(&first, b"a", b"1").unwrap();
    let refused = PostgresKv::open(&url, &holder("second")).err().unwrap();
    assert!(matches!(&refused, DbError::Held { .. }), "{refused}");
    let said = refused.to_string();
    assert!(said.contains("the test first") && said.contains(" UTC"), "{said}");
    // One that stops lets go at once.
    drop(first);
    let second = PostgresKv::open(&url, &holder("second")).unwrap();
    assert!(second.get(b"a").unwrap().is_some());
}

#[test]
fn who_was_followed_writes_nothing_more() {
    let postgres = shared();
    let database = postgres.database();
    let url: PostgresUrl = postgres.url_of(&database).parse().unwrap();
    let first = PostgresKv::open(&url, &holder("first")).unwrap();
    put(&first, b"a", b"1").unwrap();
    // As if it had been silent for its whole time.
    postgres.psql(&database, "update depot_state set until = now() - interval '1 s'").unwrap();
    let second = PostgresKv::open(&url, &holder("second")).unwrap();
    put(&second, b"a", b"2").unwrap();
    for _ in 0..2 {
        let refused = put(&first, b"a", b"3").unwrap_err();
        assert!(matches!(refused, CommitError::Db(DbError::Lost { .. })), "{refused}");
        assert!(refused.to_string().contains("the test second"), "{refused}");
        assert!(first.forget_changes(1).is_err());
    }
    drop(first);
    put(&second, b"b", b"2").unwrap();
    assert_eq!(second.get(b"a").unwrap().as_deref(), Some(b"2".as_slice()));
}

#[test]
fn who_was_killed_is_followed_at_once_by_itself_and_by_others_when_its_time_is_over() {
    let postgres = shared();
    let database = postgres.database();
    let url: PostgresUrl = postgres.url_of(&database).parse().unwrap();
    let killed = PostgresKv::open(&url, &holder("a")).unwrap();
    put(&killed, b"a", b"1").unwrap();
    // It stays as it is: nothing is let go of.
    std::mem::forget(killed);
    let again = PostgresKv::open(&url, &holder("a")).unwrap();
    assert!(again.get(b"a").unwrap().is_some());
    // Another waits. The time is cut short for the test.
    let mut again = again;
    again.runtime.take().unwrap().shutdown_background();
    std::mem::forget(again);
    postgres.psql(&database, "update depot_state set until = now() + interval '2 s'").unwrap();
    PostgresKv::open(&url, &holder("b")).unwrap();
}

#[test]
fn a_database_that_went_back_is_written_to_no_more() {
    let postgres = shared();
    let database = postgres.database();
    let kv = open(&postgres.url_of(&database));
    for n in 0..3 {
        put(&kv, &[n], b"x").unwrap();
    }
    // As after a failover to a copy that had not followed.
    postgres.psql(&database, "update depot_state set last_seq = 2").unwrap();
    let refused = put(&kv, b"a", b"x").unwrap_err();
    let expected =
        matches!(refused, CommitError::Db(DbError::WentBack { acknowledged: 3, found: 2 }));
    assert!(expected, "{refused}");
}

#[test]
fn tables_of_a_newer_depot_are_left_alone_and_older_ones_are_brought_up_to_date() {
    let postgres = shared();
    let database = postgres.database();
    let url = postgres.url_of(&database);
    let kv = open(&url);
    put(&kv, b"a", b"1").unwrap();
    // A migration online: this server goes on while the tables of the next version are made.
    let mut later = schema::MIGRATIONS.to_vec();
    later.push(&["alter table depot_entries add column if not exists extra text"]);
    let link = Arc::clone(&kv.link);
    let migrated = wait(kv.runtime.as_ref().unwrap(), "opened", async move {
        let client = link.client(For::Reading, "opened").await.ok()?;
        // Twice: one that was cut off is made again.
        for _ in 0..2 {
            schema::migrate(&client, &later, "x").await.ok()?;
        }
        Some(())
    });
    assert!(migrated.unwrap().is_some());
    put(&kv, b"a", b"2").unwrap();
    assert_eq!(kv.get(b"a").unwrap().as_deref(), Some(b"2".as_slice()));
    drop(kv);
    let refused = PostgresKv::open(&url.parse().unwrap(), &holder("a")).err().unwrap();
    let own = schema::MIGRATIONS.len() as u32;
    let is_newer = matches!(refused, DbError::NewerFormat { found, known }
        if (found, known) == (own + 1, own));
    assert!(is_newer, "{refused}");
    let made = postgres.psql(&database, "select version from depot_schema order by 1").unwrap();
    let all: Vec<String> = (1..=own + 1).map(|version| version.to_string()).collect();
    assert_eq!(made, all.join("\n"));
}

#[test]
fn a_database_that_is_not_there_is_told_at_once() {
    let postgres = shared();
    let url = postgres.url_of("nobody_made_it").parse().unwrap();
    let refused = PostgresKv::open(&url, &holder("a")).err().unwrap();
    assert!(refused.to_string().contains("\"nobody_made_it\" does not exist"), "{refused}");
}

/// What a writer that never stops was told, while its server is killed, restarted and cut off.
struct Acknowledged {
    /// For each of the writers, the last number that it was told to be written.
    last: Vec<u64>,
    refused: u64,
}

/// Writers that count up, each in a key of its own, each step on condition of the one before: so a
/// step that was applied twice, or lost after it was acknowledged, breaks its chain.
fn count_up(kv: &PostgresKv, meanwhile: impl FnOnce()) -> Acknowledged {
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4_u8)
            .map(|writer| {
                let ended = &ended;
                scope.spawn(move || {
                    let (mut last, mut refused) = (0_u64, 0);
                    while !ended.load(Ordering::Relaxed) {
                        let mut batch = Batch::new();
                        let before = match last {
                            0 => Expect::Absent,
                            last => Expect::Is(last.to_be_bytes().to_vec()),
                        };
                        batch.require([writer], before).put([writer], (last + 1).to_be_bytes());
                        // Beside it, in the same batch: never one without the other.
                        batch.put([writer, 1], (last + 1).to_be_bytes());
                        match kv.write(batch) {
                            Ok(_) => last += 1,
                            Err(CommitError::Conflict { .. }) => {
                                panic!(
                                    "writer {writer}: step {} was applied twice or lost",
                                    last + 1
                                )
                            }
                            Err(_) => refused += 1,
                        }
                    }
                    (last, refused)
                })
            })
            .collect();
        meanwhile();
        ended.store(true, Ordering::Relaxed);
        let told: Vec<_> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
        Acknowledged {
            last: told.iter().map(|(last, _)| *last).collect(),
            refused: told.iter().map(|(_, refused)| *refused).sum(),
        }
    })
}

/// All that was acknowledged is there, whole, once, and the feed tells it.
fn is_all_there(kv: &PostgresKv, told: &Acknowledged) {
    for (writer, last) in told.last.iter().enumerate() {
        assert!(*last > 0, "writer {writer} never came to write");
        let read = |key: &[u8]| kv.get(key).unwrap().map(|value| be(&value));
        assert_eq!(read(&[writer as u8]), Some(*last));
        assert_eq!(read(&[writer as u8, 1]), Some(*last));
    }
    let total: u64 = told.last.iter().sum();
    assert_eq!(kv.last_seq(), total, "each step is one batch of the feed");
    let changes = kv.changes(0, usize::MAX).unwrap();
    assert_eq!(changes.len() as u64, 2 * total);
    for (n, pair) in changes.chunks(2).enumerate() {
        assert_eq!((pair[0].seq, pair[1].seq), (n as u64 + 1, n as u64 + 1));
    }
}

fn be(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes.try_into().unwrap())
}

#[test]
fn a_server_that_is_killed_and_restarted_loses_nothing_and_does_nothing_twice() {
    // Its disk is asked to keep what it says: fsync stays on.
    let mut postgres = Postgres::start(&[]);
    let url = postgres.url();
    let kv = open(&url);
    let told = count_up(&kv, || {
        for round in 0..3 {
            std::thread::sleep(Duration::from_millis(300));
            match round {
                // An administrator's restart: sessions are told.
                1 => postgres.stop(),
                _ => postgres.kill(),
            }
            postgres.begin();
            let before = kv.last_seq();
            let deadline = std::time::Instant::now() + Duration::from_secs(30);
            while kv.last_seq() == before {
                assert!(std::time::Instant::now() < deadline, "nothing is written any more");
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    });
    assert_eq!(told.refused, 0, "a restart is not seen by callers");
    is_all_there(&kv, &told);
    drop(kv);
    is_all_there(&open(&url), &told);
}

#[test]
fn a_commit_whose_answer_was_lost_counts_once() {
    let postgres = shared();
    let database = postgres.database();
    let line = Line::to(&format!("http://127.0.0.1:{}", postgres.port()));
    let kv = open(&format!("postgres://postgres@{}/{database}", line.address));
    let resolved = || kv.numbers.resolved.load(Ordering::Relaxed);
    let becomes = |what: &str, is: &dyn Fn() -> bool| {
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while !is() {
            assert!(std::time::Instant::now() < deadline, "{what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    let told = count_up(&kv, || {
        for round in 0..60 {
            let before = kv.last_seq();
            // Cut at another place of the conversation each time: within greetings, within answers,
            // between an answer and that to the commit.
            line.set(Pace::CutAt(line.passed() + 37 * round));
            std::thread::sleep(Duration::from_millis(5));
            line.set(Pace::Free);
            becomes("nothing is written any more", &|| kv.last_seq() > before);
        }
        for _ in 0..10 {
            let before = resolved();
            // What the server says once a commit is made.
            line.set(Pace::CutBefore(b"COMMIT\0"));
            becomes("no commit lost its answer", &|| resolved() > before);
            line.set(Pace::Free);
        }
    });
    assert_eq!(told.refused, 0);
    is_all_there(&kv, &told);
}

#[test]
fn a_server_that_stays_away_is_told_of_and_comes_back() {
    let mut postgres = Postgres::start(&["fsync=off"]);
    let kv = open(&postgres.url());
    put(&kv, b"a", b"1").unwrap();
    postgres.stop();
    // As if it had been away for long: nobody waits again.
    kv.link.is_away_since(std::time::Instant::now() - 2 * link::PATIENCE);
    let begun = std::time::Instant::now();
    assert!(matches!(kv.get(b"a"), Err(DbError::Store { .. })));
    assert!(matches!(put(&kv, b"b", b"1"), Err(CommitError::Db(DbError::Store { .. }))));
    assert!(begun.elapsed() < link::PATIENCE);
    postgres.begin();
    put(&kv, b"b", b"2").unwrap();
    assert_eq!(kv.get(b"b").unwrap().as_deref(), Some(b"2".as_slice()));
}

/// An authority and a certificate of it for `name`, as PEM: authority, certificate, key.
fn certificate(name: &str) -> [String; 3] {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().unwrap();
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = Issuer::from_params(&ca, &ca_key);
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap().pem();
    [ca_pem, certificate, key.serialize_pem()]
}

#[test]
fn a_server_is_believed_by_its_certificate_alone() {
    let postgres = Postgres::start(&["fsync=off"]);
    let database = postgres.database();
    let files = tempfile::tempdir().unwrap();
    let ca = files.path().join("ca.pem");
    let asked = format!(
        "{}?sslmode=verify-full&sslrootcert={}",
        postgres.tcp_url_of(&database).replace("postgres@", "depot@"),
        ca.display()
    );
    let password = files.path().join("password");
    std::fs::write(&password, "open sesame\n").unwrap();
    let opened = || {
        let url: PostgresUrl = asked.parse().unwrap();
        PostgresKv::open(&url.with_password_file(&password).unwrap(), &holder("a"))
    };
    let serve = |name: &str| {
        let [authority, certificate, key] = certificate(name);
        std::fs::write(&ca, authority).unwrap();
        for (file, text) in [("server.crt", certificate), ("server.key", key)] {
            let path = postgres.folder().join("data").join(file);
            std::fs::write(&path, text).unwrap();
            postgres.give(&path);
        }
        postgres.psql("postgres", "alter system set ssl = on").unwrap();
        postgres.psql("postgres", "select pg_reload_conf()").unwrap();
        std::thread::sleep(Duration::from_millis(300));
    };
    let setup = "set password_encryption = 'scram-sha-256'; \
                 create user depot superuser password 'open sesame'";
    postgres.psql("postgres", setup).unwrap();
    std::fs::write(&ca, certificate("127.0.0.1")[0].clone()).unwrap();
    let refused = opened().err().unwrap().to_string();
    assert!(refused.contains("TLS"), "a server without TLS: {refused}");

    let hba = postgres.folder().join("data/pg_hba.conf");
    let rules = "local all all trust\nhostssl all depot 127.0.0.1/32 scram-sha-256\n";
    std::fs::write(&hba, rules).unwrap();
    serve("127.0.0.1");
    let kv = opened().unwrap();
    put(&kv, b"a", b"1").unwrap();
    let encrypted = "select bool_and(ssl) from pg_stat_ssl join pg_stat_activity using (pid) \
                     where usename = 'depot'";
    assert_eq!(postgres.psql("postgres", encrypted).unwrap(), "t");
    drop(kv);

    std::fs::write(&password, "a guess\n").unwrap();
    let refused = opened().err().unwrap().to_string();
    assert!(refused.contains("authentication failed") && !refused.contains("guess"), "{refused}");
    std::fs::write(&password, "open sesame\n").unwrap();

    serve("another.example");
    let refused = opened().err().unwrap().to_string();
    assert!(refused.contains("not valid for name"), "{refused}");
    serve("127.0.0.1");
    std::fs::write(&ca, certificate("127.0.0.1")[0].clone()).unwrap();
    let refused = opened().err().unwrap().to_string();
    assert!(refused.contains("certificate"), "of another authority: {refused}");
    std::fs::write(&ca, "no certificate").unwrap();
    assert!(opened().err().unwrap().to_string().contains("holds none"));
}

#[test]
fn who_looks_on_sees_who_holds_it_and_who_stands_by() {
    let url: PostgresUrl = shared().url().parse().unwrap();
    let onlooker = Onlooker::open(&url).unwrap();
    assert!(!onlooker.leader().unwrap().lives);
    let kv = PostgresKv::open(&url, &holder("a")).unwrap();
    let leader = onlooker.leader().unwrap();
    assert_eq!((&*leader.id, &*leader.address, leader.lives), ("a", "a:1", true));
    assert_eq!(leader.number, kv.tenure().number());
    put(&kv, b"key", b"value").unwrap();
    assert_eq!(onlooker.get(b"key").unwrap().unwrap(), b"value");
    assert_eq!(onlooker.scan(&Range::default(), Order::Ascending, 9).unwrap().len(), 1);
    assert!(put(&onlooker, b"key", b"other").is_err());
    let refused = PostgresKv::open_if_free(&url, &holder("b")).err().unwrap();
    assert!(matches!(refused, DbError::Held { .. }), "{refused}");
    for _ in 0..2 {
        onlooker.stand_by(&holder("b")).unwrap();
        let standbys = onlooker.standbys().unwrap();
        assert_eq!((standbys.len(), &*standbys[0].address), (1, "b:1"));
    }
    onlooker.leave("b").unwrap();
    assert!(onlooker.standbys().unwrap().is_empty());
    drop(kv);
    let leader = onlooker.leader().unwrap();
    assert!(leader.id.is_empty() && !leader.lives);
    let next = PostgresKv::open_if_free(&url, &holder("b")).unwrap();
    assert!(next.tenure().number() > leader.number);
}

#[test]
fn who_was_followed_hears_of_it_and_has_no_time_left() {
    let database = shared().database();
    let url: PostgresUrl = shared().url_of(&database).parse().unwrap();
    let first = PostgresKv::open(&url, &holder("a")).unwrap();
    let before = first.tenure().until();
    assert!(before > std::time::Instant::now());
    put(&first, b"key", b"value").unwrap();
    assert!(first.tenure().until() > before, "a write puts its end off");
    let end = "update depot_state set until = clock_timestamp() - interval '1 s'";
    shared().psql(&database, end).unwrap();
    let second = PostgresKv::open_if_free(&url, &holder("b")).unwrap();
    assert!(put(&first, b"key", b"other").is_err());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let why = runtime.block_on(first.tenure().lost());
    assert!(matches!(why, DbError::Lost { ref holder, .. } if holder == "the test b"), "{why}");
    assert!(first.tenure().until() <= std::time::Instant::now());
    assert_eq!(second.get(b"key").unwrap().unwrap(), b"value");
}

#[test]
fn tables_of_the_first_version_become_those_of_this_one_while_they_are_used() {
    let database = shared().database();
    let url: PostgresUrl = shared().url_of(&database).parse().unwrap();
    drop(PostgresKv::open(&url, &holder("a")).unwrap());
    let back = "drop table depot_servers; delete from depot_schema where version = 2; \
                alter table depot_state drop column address, drop column since";
    let kv = PostgresKv::open(&url, &holder("a")).unwrap();
    put(&kv, b"key", b"1").unwrap();
    shared().psql(&database, back).unwrap();
    // The server of the older version does not ask for what is new.
    put(&kv, b"key", b"2").unwrap();
    let onlooker = Onlooker::open(&url).unwrap();
    put(&kv, b"key", b"3").unwrap();
    assert_eq!(onlooker.get(b"key").unwrap().unwrap(), b"3");
    assert!(onlooker.leader().unwrap().lives);
}
