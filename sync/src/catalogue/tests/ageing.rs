//! What is old goes, by the policy and not before, and does not come back.

use super::*;
use crate::lifecycle::{Wait, Why};

fn over(n: u32, supersedes: &[u32], created: i64) -> Update {
    Update { supersedes: supersedes.iter().map(|n| id(*n)).collect(), ..update(n, "x", created) }
}

fn state(catalogue: &Catalogue, n: u32) -> Option<State> {
    catalogue.entry(id(n)).unwrap().map(|entry| entry.state)
}

struct Deployed(BTreeSet<UpdateId>);

impl Deployments for Deployed {
    fn of(&self, update: UpdateId) -> Use {
        if self.0.contains(&update) { Use::Deployed } else { Use::Never }
    }
}

#[test]
fn a_preview_tells_what_ageing_then_does() {
    let catalogue = Catalogue::open(Db::in_memory()).unwrap();
    let policy = Policy::default();
    whole(&catalogue, "s", [over(1, &[], 0), over(2, &[1], 10), over(3, &[2], 40)], day(50))
        .unwrap();
    let preview = |at| catalogue.preview(&policy, &NothingDeployed, day(at), 10).unwrap();
    assert_eq!(preview(99), Ageing { complete: true, ..Ageing::default() });
    // Update 2 was made on 11 January.
    let coming = preview(100);
    assert_eq!((coming.expire, coming.purge, coming.steps.len()), (1, 0, 1));
    let step = &coming.steps[0];
    assert_eq!(
        (step.name.as_str(), step.from, step.to),
        ("U-1", State::Superseded, State::Expired)
    );
    assert_eq!(step.expired.unwrap().why, Why::Superseded { by: id(2) });
    assert_eq!(catalogue.age(&policy, &NothingDeployed, day(100), 10).unwrap(), coming);
    assert_eq!(preview(100), Ageing { complete: true, ..Ageing::default() });
    assert_eq!(state(&catalogue, 1), Some(State::Expired));
    assert_eq!(state(&catalogue, 2), Some(State::Superseded));
    // A policy that waits longer would offer it again.
    let longer = Policy { supersedence: Wait::Months(12), ..policy.clone() };
    assert_eq!(catalogue.preview(&longer, &NothingDeployed, day(100), 10).unwrap().reinstate, 1);
    let deployed = Deployed([id(1)].into());
    assert_eq!(catalogue.preview(&policy, &deployed, day(130), 10).unwrap().purge, 0);
    assert_eq!(preview(130).purge, 1);
    catalogue.age(&policy, &NothingDeployed, day(130), 10).unwrap();
    assert_eq!(state(&catalogue, 1), None);
    assert_tidy(&catalogue);
}

#[test]
fn what_was_purged_stays_away_until_its_reason_is_gone() {
    let catalogue = Catalogue::open(Db::in_memory()).unwrap();
    let policy =
        Policy { supersedence: Wait::Months(0), purge_after_days: Some(0), ..Policy::default() };
    let age = |at| drop(catalogue.age(&policy, &NothingDeployed, day(at), 10).unwrap());
    let chain = [over(1, &[], 0), over(2, &[1], 1), over(3, &[2], 2)];
    whole(&catalogue, "s", chain.clone(), day(3)).unwrap();
    age(3);
    assert_eq!([1, 2, 3].map(|n| state(&catalogue, n)), [None, None, Some(State::Current)]);
    assert_tidy(&catalogue);
    // The upstream still has them.
    let changes = whole(&catalogue, "s", chain.clone(), day(4)).unwrap();
    assert_eq!((changes.unchanged, state(&catalogue, 1)), (3, None));
    // Revised, it comes back, and goes again: 2, of which only a mark is left, still replaces it.
    let revised = [Update { severity: Some(crate::taxonomy::Severity::Low), ..chain[0].clone() }];
    let revised = revised.into_iter().chain(chain[1..].iter().cloned());
    whole(&catalogue, "s", revised, day(5)).unwrap();
    assert_eq!(state(&catalogue, 1), Some(State::Superseded));
    age(6);
    assert_eq!(state(&catalogue, 1), None);
    // 3 replaces 2 no more, which so comes back; and 2 still replaces 1.
    let undone = [chain[0].clone(), chain[1].clone(), over(3, &[], 2)];
    whole(&catalogue, "s", undone.clone(), day(7)).unwrap();
    whole(&catalogue, "s", undone, day(8)).unwrap();
    assert_eq!(state(&catalogue, 2), Some(State::Current));
    assert_eq!(catalogue.get("U-1").unwrap().state, State::Superseded, "it was said otherwise");
    assert_tidy(&catalogue);
}

#[test]
fn a_withdrawn_update_that_was_purged_comes_back_with_its_source() {
    let catalogue = Catalogue::open(Db::in_memory()).unwrap();
    let policy = Policy { purge_after_days: Some(1), ..Policy::default() };
    whole(&catalogue, "s", [update(1, "x", 0)], day(0)).unwrap();
    whole(&catalogue, "s", [], day(1)).unwrap();
    catalogue.age(&policy, &NothingDeployed, day(3), 10).unwrap();
    assert_eq!(state(&catalogue, 1), None);
    whole(&catalogue, "s", [update(1, "x", 0)], day(4)).unwrap();
    assert_eq!(state(&catalogue, 1), Some(State::Current));
    assert_tidy(&catalogue);
}

#[test]
fn ageing_goes_on_where_it_stopped() {
    let catalogue = Catalogue::open(Db::in_memory()).unwrap();
    whole(&catalogue, "s", (0..20).map(|n| update(n, "x", 0)), day(0)).unwrap();
    whole(&catalogue, "s", [], day(1)).unwrap();
    let policy = Policy { purge_after_days: Some(1), ..Policy::default() };
    let purged: Vec<_> = (0..4)
        .map(|_| catalogue.age(&policy, &NothingDeployed, day(9), 7).unwrap())
        .map(|aged| (aged.purge, aged.complete))
        .collect();
    assert_eq!(purged, [(7, false), (7, false), (6, true), (0, true)]);
    assert_tidy(&catalogue);
}

#[test]
fn ten_years_of_monthly_releases_take_no_more_room_than_four() {
    let catalogue = Catalogue::open(Db::in_memory()).unwrap();
    let policy = Policy::default();
    let mut sizes = Vec::new();
    for month in 0..120_u32 {
        let now = i64::from(month) * 30 + 1;
        // A list of all that is offered, of ten products; each month's update replaces the one before.
        let from = month.saturating_sub(11);
        let offered = (from..=month).flat_map(|month| {
            (0..10).map(move |product| {
                let before = month.checked_sub(1).map(|before| before * 10 + product);
                let before: Vec<u32> = before.into_iter().collect();
                over(month * 10 + product, &before, i64::from(month) * 30)
            })
        });
        whole(&catalogue, "s", offered, day(now)).unwrap();
        let aged = catalogue.age(&policy, &NothingDeployed, day(now), 1_000).unwrap();
        assert!(aged.complete);
        let all = sitedb::Order::Ascending;
        let bodies = BODIES.scan(&catalogue.0.db, all, None, usize::MAX).unwrap().len();
        let heads = HEADS.scan(&catalogue.0.db, all, None, usize::MAX).unwrap().len();
        sizes.push((bodies, heads));
    }
    let most = |months: std::ops::Range<usize>| {
        let bodies = sizes[months.clone()].iter().map(|(bodies, _)| *bodies).max();
        (bodies, sizes[months].iter().map(|(_, heads)| *heads).max())
    };
    assert_eq!(most(36..48), most(108..120), "{sizes:?}");
    // The current one, those of three months that were replaced, and those that are expired for a month.
    assert!(most(108..120).0 <= Some(10 * 6), "{sizes:?}");
    assert_tidy(&catalogue);
}
