//! What an evaluation of a rule comes to, before anything is changed.
//!
//! [`evaluate`] says which updates the rule means now, and how that differs from the group before: what comes, what goes and
//! why. [`split`] says which of them can be deployed, once it was tried to bring their files: those that are whole. The
//! others wait, each by name, and nothing waits for them.

use super::{AutomaticRule, LicenceTerms};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};
use sync::catalogue::{Catalogue, Deployments, Query, RequiredCounts, Unmet};
use sync::lifecycle::State;
use sync::name::UpdateId;

/// What a rule is evaluated over.
pub struct Question<'a> {
    /// Which updates there are.
    pub catalogue: &'a Catalogue,
    /// On how many machines they are required.
    pub required: &'a dyn RequiredCounts,
    /// Which are deployed, but for those that this rule deployed itself.
    pub deployments: Arc<dyn Deployments>,
    /// The time.
    pub now: Timestamp,
}

/// What an update's text tells, and the board of the catalogue does not.
pub trait Facts {
    /// Those of these updates that have terms which nobody accepted yet.
    fn with_terms(&self, updates: &[UpdateId]) -> BTreeSet<UpdateId>;
}

/// What an evaluation comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// How many updates the criteria let through.
    pub matched: u64,
    /// What the group is to have, in the order of ids.
    pub members: Vec<UpdateId>,
    /// Those of them that it has not.
    pub added: Vec<UpdateId>,
    /// How many of them it has already.
    pub kept: u64,
    /// What it has, and is not to have any more, and why.
    pub removed: Vec<(UpdateId, Removed)>,
    /// What the criteria let through, and is left out all the same.
    pub left_out: Vec<(UpdateId, LeftOut)>,
    /// The bytes of the files of all members.
    pub bytes: u64,
    /// What of the criteria may be a slip of the pen.
    pub hints: Vec<String>,
}

/// Why an update leaves a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum Removed {
    /// The catalogue has it no more.
    #[error("is in the catalogue no more")]
    Gone,
    /// It got left out.
    #[error(transparent)]
    LeftOut(LeftOut),
    /// Conditions that hold no more.
    #[error("does not fit any more: {}", .0.join("; "))]
    Unfit(Vec<String>),
}

/// Why an update is left out though the criteria let it through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum LeftOut {
    /// It gets no new deployments.
    #[error("is expired")]
    Expired,
    /// Nobody accepted its terms.
    #[error("has licence terms that nobody accepted")]
    Terms,
}

/// Members of a group by whether they can be deployed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Split {
    /// All of their files are held.
    pub complete: Vec<UpdateId>,
    /// Not all are, and why.
    pub waiting: BTreeMap<UpdateId, String>,
}

/// What `rule` comes to now, if its group has `before`. Changes nothing.
///
/// Over a catalogue of 200,000 updates it takes some milliseconds, and some more for each member.
pub fn evaluate(
    rule: &AutomaticRule,
    question: &Question<'_>,
    before: &BTreeSet<UpdateId>,
    facts: &dyn Facts,
) -> Outcome {
    let deployments = Some(question.deployments.clone());
    let query = Query { deployments, ..Query::new(rule.criteria.clone(), question.now) };
    // Counting costs most, and is asked for by each condition on it.
    let required = Counted { inner: question.required, counts: OnceLock::new() };
    let matched = question.catalogue.matching(&query, &required);
    let mut outcome = Outcome {
        matched: matched.updates.len() as u64,
        hints: matched.hints,
        ..Outcome::default()
    };
    let offered = matched.updates.iter().filter(|update| is_offered(update.state));
    let offered: Vec<UpdateId> = offered.map(|update| update.id).collect();
    let with_terms = match rule.licences {
        LicenceTerms::LeaveOut => facts.with_terms(&offered),
        LicenceTerms::Accept => BTreeSet::new(),
    };
    for update in &matched.updates {
        let left_out = match update.state {
            state if !is_offered(state) => Some(LeftOut::Expired),
            _ => with_terms.contains(&update.id).then_some(LeftOut::Terms),
        };
        match left_out {
            Some(why) => outcome.left_out.push((update.id, why)),
            None => {
                outcome.members.push(update.id);
                outcome.bytes = outcome.bytes.saturating_add(update.bytes);
                match before.contains(&update.id) {
                    true => outcome.kept += 1,
                    false => outcome.added.push(update.id),
                }
            }
        }
    }
    let is_member = |id: &UpdateId| outcome.members.binary_search(id).is_ok();
    let gone: Vec<UpdateId> = before.iter().copied().filter(|id| !is_member(id)).collect();
    let left_out: HashMap<UpdateId, LeftOut> = outcome.left_out.iter().copied().collect();
    let unmet = question.catalogue.unmet(&query, &required, &gone);
    let why = gone.iter().zip(unmet).map(|(id, unmet)| match (left_out.get(id), unmet) {
        (Some(why), _) => Removed::LeftOut(*why),
        (None, Unmet::Gone) => Removed::Gone,
        (None, Unmet::Conditions(all)) => Removed::Unfit(all),
    });
    let why: Vec<Removed> = why.collect();
    outcome.removed = gone.into_iter().zip(why).collect();
    outcome
}

/// Whether machines may get it anew.
fn is_offered(state: State) -> bool {
    matches!(state, State::Current | State::Superseded)
}

/// Which of `members` can be deployed, if `missing` says what files of each are held nowhere.
pub fn split(members: &[UpdateId], mut missing: impl FnMut(UpdateId) -> Option<String>) -> Split {
    let mut found = Split::default();
    for id in members {
        match missing(*id) {
            None => found.complete.push(*id),
            Some(why) => drop(found.waiting.insert(*id, why)),
        }
    }
    found
}

/// Counts that are asked for once.
struct Counted<'a> {
    inner: &'a dyn RequiredCounts,
    counts: OnceLock<HashMap<UpdateId, u64>>,
}

impl Counted<'_> {
    fn counts(&self) -> &HashMap<UpdateId, u64> {
        self.counts.get_or_init(|| {
            let mut counts = HashMap::new();
            self.inner.each(&mut |id, count| {
                counts.insert(id, count);
            });
            counts
        })
    }
}

impl RequiredCounts for Counted<'_> {
    fn of(&self, update: UpdateId) -> u64 {
        self.counts().get(&update).copied().unwrap_or(0)
    }
    fn each(&self, each: &mut dyn FnMut(UpdateId, u64)) {
        self.counts().iter().for_each(|(id, count)| each(*id, *count));
    }
}

#[cfg(test)]
mod tests {
    use super::super::rule::tests::rule;
    use super::*;
    use proptest::prelude::*;
    use sitedb::Db;
    use sync::adapter::{Extent, Said};
    use sync::catalogue::{NoReports, NothingDeployed};
    use sync::update::{Publication, Update};

    fn id(n: u32) -> UpdateId {
        UpdateId::named(&[&n.to_string()])
    }

    fn at(days: i64) -> Timestamp {
        Timestamp::from_second(1_767_225_600 + days * 86_400).unwrap()
    }

    fn catalogue(updates: impl Iterator<Item = (u32, &'static str, bool)>) -> Catalogue {
        let catalogue = Catalogue::open(Db::in_memory()).unwrap();
        let by = "s".parse().unwrap();
        let mut intake = catalogue.intake(&by, 1, Arc::default(), at(30)).unwrap();
        for (n, title, is_expired) in updates {
            let mut update = Update::new(id(n), &format!("u-{n}"), title, at(i64::from(n % 30)));
            if is_expired {
                update.publication = Publication::Expired;
            }
            intake.take(Said::Update(Box::new(update))).unwrap();
        }
        intake.settle(Extent::Whole).unwrap();
        intake.commit(serde_json::Value::Null).unwrap();
        catalogue
    }

    /// These updates have terms.
    struct TermsOf(Vec<UpdateId>);
    impl Facts for TermsOf {
        fn with_terms(&self, updates: &[UpdateId]) -> BTreeSet<UpdateId> {
            updates.iter().filter(|id| self.0.contains(id)).copied().collect()
        }
    }

    fn ask(catalogue: &Catalogue) -> Question<'_> {
        let deployments = Arc::new(NothingDeployed);
        Question { catalogue, required: &NoReports, deployments, now: at(30) }
    }

    #[test]
    fn an_outcome_says_what_comes_what_goes_and_why() {
        let title = |n: u32| if n == 3 { "curl" } else { "openssl" };
        let catalogue = catalogue((0..8).map(|n| (n, title(n), n == 4)));
        let rule = rule("title ~ openssl and released >= 28d ago");
        let before = BTreeSet::from([id(1), id(2), id(3), id(4), id(5), id(99)]);
        let terms = TermsOf(vec![id(5)]);
        let outcome = evaluate(&rule, &ask(&catalogue), &before, &terms);
        assert_eq!(outcome.matched, 5);
        let sorted = |all: &[u32]| {
            let mut all: Vec<_> = all.iter().map(|n| id(*n)).collect();
            all.sort();
            all
        };
        assert_eq!(outcome.members, sorted(&[2, 6, 7]));
        assert_eq!((outcome.added, outcome.kept), (sorted(&[6, 7]), 1));
        let removed: BTreeMap<UpdateId, Removed> = outcome.removed.into_iter().collect();
        let unfit = |text: &str| Removed::Unfit(vec![text.into()]);
        assert_eq!(removed[&id(1)], unfit("released >= 28d ago"));
        assert_eq!(removed[&id(3)], unfit("title ~ openssl"));
        assert_eq!(removed[&id(4)], Removed::LeftOut(LeftOut::Expired));
        assert_eq!(removed[&id(5)], Removed::LeftOut(LeftOut::Terms));
        assert_eq!((&removed[&id(99)], removed.len()), (&Removed::Gone, 5));
        let accepting = AutomaticRule { licences: LicenceTerms::Accept, ..rule };
        let outcome = evaluate(&accepting, &ask(&catalogue), &before, &terms);
        assert_eq!(outcome.members, sorted(&[2, 5, 6, 7]));
    }

    #[test]
    fn one_of_five_hundred_that_lacks_a_file_waits_alone() {
        let members: Vec<_> = (0..500).map(id).collect();
        let lacks = |update| (update == id(77)).then(|| "x.deb: 404".to_owned());
        let split = split(&members, lacks);
        assert_eq!(split.complete.len(), 499);
        assert_eq!(split.waiting, BTreeMap::from([(id(77), "x.deb: 404".into())]));
    }

    proptest! {
        /// Whatever the group was before, what comes and goes makes it what the rule means; and a second
        /// evaluation changes nothing.
        #[test]
        fn an_outcome_leads_from_any_group_to_the_same_one(
            before in prop::collection::btree_set(0..30_u32, 0..20), days in 0..40_i64, terms: Vec<u8>,
        ) {
            let catalogue = catalogue((0..24).map(|n| (n, ["openssl", "curl"][n as usize % 2], n % 7 == 0)));
            let rule = rule(&format!("released >= {days}d ago and title ~ openssl"));
            let facts = TermsOf(terms.iter().map(|n| id(u32::from(*n) % 30)).collect());
            let before: BTreeSet<_> = before.into_iter().map(id).collect();
            let outcome = evaluate(&rule, &ask(&catalogue), &before, &facts);
            let mut group = before;
            for (id, _) in &outcome.removed {
                prop_assert!(group.remove(id));
            }
            for id in &outcome.added {
                prop_assert!(group.insert(*id));
            }
            prop_assert_eq!(&group.iter().copied().collect::<Vec<_>>(), &outcome.members);
            prop_assert_eq!(outcome.members.len() + outcome.left_out.len(), outcome.matched as usize);
            let again = evaluate(&rule, &ask(&catalogue), &group, &facts);
            prop_assert!(again.added.is_empty() && again.removed.is_empty());
            prop_assert_eq!(again.kept as usize, outcome.members.len());
        }
    }
}
