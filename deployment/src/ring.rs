//! Rings: a deployment that opens when the one before it went well, and is held when it did not.
//!
//! A rule's deployments of one group are a chain. The first is open at once; each that has a [`Ring`] opens when so
//! many days have passed since the one before opened, and so many of its machines have the updates. Too many failures in
//! any open one halt the chain until a person lets it go on.
//!
//! [`advance`] decides, from what is kept and counted, so a site that was away decides as if it had been there. Always
//! true:
//! * nothing opens with less success than asked, unless a person says so;
//! * what is open stays open: a chain only goes forward;
//! * a chain that was halted stays so, though its failures are mended, until a person says go.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The most days from one ring to the next.
const MAX_DAYS: u16 = 366;

/// What must come true of the deployment before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ring {
    /// So many days have passed since it opened.
    pub after_days: u16,
    /// So many of its machines have what is deployed, in percent.
    pub success: u8,
    /// More failures than this halt the chain; none, if nothing does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub halt: Option<Limit>,
    /// Whether a person has to say go as well.
    pub by_hand: bool,
}

impl Default for Ring {
    /// A day, 95 %, halted where 5 % fail.
    fn default() -> Self {
        let halt = Some(Limit::Percent(5));
        Self { after_days: 1, success: 95, halt, by_hand: false }
    }
}

/// So many machines. Written as `5%` or `20`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Limit {
    /// Of those that a deployment is for.
    Percent(u8),
    /// That many.
    Machines(u32),
}

/// What is no ring.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadRing {
    /// Too long.
    #[error("a ring waits {MAX_DAYS} days at most")]
    Days,
    /// No percentage.
    #[error("success is a percentage from 0 to 100")]
    Success,
    /// No limit.
    #[error("{0:?} is no number of failures; want one from 1 on, as 20, or a percentage as 5%")]
    Limit(String),
}

/// How a deployment stands: each of its machines is counted once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Machines that it is for.
    pub machines: u64,
    /// Those that have all of it that they require.
    pub succeeded: u64,
    /// Those on which something of it failed.
    pub failed: u64,
}

/// What a person said to a deployment that is not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Word {
    /// Open it, whatever else.
    Go,
    /// Do not open it.
    Hold,
}

/// One deployment of a chain.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// What must come true before it opens; nothing, if it opens with the first.
    pub ring: Option<Ring>,
    /// Since when it is open.
    pub opened: Option<Timestamp>,
    /// What a person said.
    pub word: Option<Word>,
    /// How it stands, if it is open.
    pub standing: Standing,
    /// Failures that a person has seen, and that do not count any more.
    pub forgiven: u64,
}

/// That too many machines failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Halt {
    /// In which deployment of the chain, from 0.
    pub at: usize,
    /// On so many machines.
    pub failed: u64,
    /// Of so many.
    pub machines: u64,
}

/// What a deployment of a chain is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is open.
    Open,
    /// It opens now.
    Opens,
    /// It waits.
    Waits(Waiting),
    /// The chain is halted.
    Halted(Halt),
}

/// What a deployment waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// The one before is not open.
    Before,
    /// Until then.
    Until(Timestamp),
    /// More machines of the one before must have the updates.
    Success {
        /// So many have them.
        succeeded: u64,
        /// So many must.
        needed: u64,
    },
    /// The one before is for no machine, so nothing is known.
    Nobody,
    /// A person has to say go.
    Go,
    /// A person said hold.
    Held,
}

/// What each deployment of a chain is to do, and that the chain is to be halted.
///
/// `halted` is the halt that was kept; a new one is given back, and is to be kept until a person says go.
pub fn advance(
    chain: &[Link],
    halted: Option<Halt>,
    now: Timestamp,
) -> (Vec<Decision>, Option<Halt>) {
    let halted = halted.or_else(|| halt(chain));
    let mut before: Option<(&Link, Decision)> = None;
    let mut decisions = Vec::with_capacity(chain.len());
    for link in chain {
        let decision = match (link.opened, link.word, halted, before) {
            (Some(_), ..) => Decision::Open,
            (None, Some(Word::Hold), ..) => Decision::Waits(Waiting::Held),
            (None, Some(Word::Go), ..) => Decision::Opens,
            (None, None, Some(halt), _) => Decision::Halted(halt),
            (None, None, None, before) => match (link.ring, before) {
                (None, _) | (_, None) => Decision::Opens,
                (Some(ring), Some((before, decision))) => ring.decide(before, decision, now),
            },
        };
        before = Some((link, decision));
        decisions.push(decision);
    }
    (decisions, halted)
}

/// That too many failed in one that is open.
fn halt(chain: &[Link]) -> Option<Halt> {
    // What halts a chain is said by the rings that wait for it; the last one has none after it, and says it for itself.
    let limit = |at: usize| {
        let next = chain.get(at + 1).and_then(|link| link.ring);
        next.or(chain[at].ring).and_then(|ring| ring.halt)
    };
    let is_waiting = chain.iter().any(|link| link.opened.is_none());
    let open = chain.iter().enumerate().filter(|(_, link)| link.opened.is_some());
    open.filter(|_| is_waiting).find_map(|(at, link)| {
        let failed = link.standing.failed.saturating_sub(link.forgiven);
        let is_over =
            limit(at).is_some_and(|limit| limit.is_reached(failed, link.standing.machines));
        is_over.then_some(Halt {
            at,
            failed: link.standing.failed,
            machines: link.standing.machines,
        })
    })
}

impl Ring {
    /// That it can be.
    ///
    /// # Errors
    /// What of it cannot.
    pub fn check(self) -> Result<(), BadRing> {
        if self.after_days > MAX_DAYS {
            return Err(BadRing::Days);
        }
        if self.success > 100 {
            return Err(BadRing::Success);
        }
        match self.halt {
            Some(limit) => limit.to_string().parse::<Limit>().map(drop),
            None => Ok(()),
        }
    }

    /// What the deployment after `before` is to do.
    fn decide(self, before: &Link, decision: Decision, now: Timestamp) -> Decision {
        let opened = match (before.opened, decision) {
            (Some(opened), _) => opened,
            (None, Decision::Opens) => now,
            (None, _) => return Decision::Waits(Waiting::Before),
        };
        let wait = SignedDuration::from_hours(24 * i64::from(self.after_days));
        let until = opened.saturating_add(wait).unwrap_or(Timestamp::MAX);
        if now < until {
            return Decision::Waits(Waiting::Until(until));
        }
        let Standing { machines, succeeded, .. } = before.standing;
        let needed = share(self.success, machines);
        if self.success > 0 && (machines == 0 || before.opened.is_none()) {
            return Decision::Waits(Waiting::Nobody);
        }
        if succeeded < needed {
            return Decision::Waits(Waiting::Success { succeeded, needed });
        }
        if self.by_hand { Decision::Waits(Waiting::Go) } else { Decision::Opens }
    }
}

/// So many percent of them, rounded up.
fn share(percent: u8, machines: u64) -> u64 {
    let share = (u128::from(machines) * u128::from(percent)).div_ceil(100);
    u64::try_from(share).unwrap_or(u64::MAX)
}

impl Limit {
    /// Whether so many failures of so many machines reach it.
    fn is_reached(self, failed: u64, machines: u64) -> bool {
        match self {
            Self::Percent(percent) => failed > 0 && failed >= share(percent, machines),
            Self::Machines(most) => failed >= u64::from(most.max(1)),
        }
    }
}

impl FromStr for Limit {
    type Err = BadRing;
    fn from_str(text: &str) -> Result<Self, BadRing> {
        let wrong = || BadRing::Limit(text.chars().take(40).collect());
        match text.trim().strip_suffix('%') {
            Some(percent) => {
                let percent = percent.parse().ok().filter(|percent| (1..=100).contains(percent));
                percent.map(Self::Percent).ok_or_else(wrong)
            }
            None => {
                let machines = text.trim().parse().ok().filter(|machines| *machines > 0);
                machines.map(Self::Machines).ok_or_else(wrong)
            }
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percent(percent) => write!(f, "{percent}%"),
            Self::Machines(machines) => machines.fmt(f),
        }
    }
}

impl TryFrom<String> for Limit {
    type Error = BadRing;
    fn try_from(text: String) -> Result<Self, BadRing> {
        text.parse()
    }
}

impl From<Limit> for String {
    fn from(limit: Limit) -> String {
        limit.to_string()
    }
}

impl fmt::Display for Halt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failed on {} of {} machines", self.failed, self.machines)
    }
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Before => f.write_str("the deployment before it is not open"),
            Self::Until(until) => write!(f, "waits until {until}"),
            Self::Success { succeeded, needed } => {
                write!(f, "{succeeded} machines before it have the updates, {needed} must")
            }
            Self::Nobody => f.write_str("the deployment before it is for no machine yet"),
            Self::Go => f.write_str("a person has to say go"),
            Self::Held => f.write_str("a person holds it"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + hours * 3_600).unwrap()
    }

    fn link(
        ring: Option<Ring>,
        opened: Option<i64>,
        (machines, succeeded, failed): (u64, u64, u64),
    ) -> Link {
        let standing = Standing { machines, succeeded, failed };
        Link { ring, opened: opened.map(at), word: None, standing, forgiven: 0 }
    }

    fn chain() -> impl Strategy<Value = Vec<Link>> {
        let limit = prop_oneof![
            Just(None),
            (1..=100_u8).prop_map(|it| Some(Limit::Percent(it))),
            (1..20_u32).prop_map(|it| Some(Limit::Machines(it))),
        ];
        let ring = (0..5_u16, 0..=100_u8, limit, any::<bool>()).prop_map(
            |(after_days, success, halt, by_hand)| Ring { after_days, success, halt, by_hand },
        );
        let word =
            prop_oneof![4 => Just(None), 1 => Just(Some(Word::Go)), 1 => Just(Some(Word::Hold))];
        let one = (prop::option::weighted(0.8, ring), 0..50_u64, 0..=100_u64, 0..=100_u64, word);
        prop::collection::vec(one, 1..6).prop_map(|all| {
            let link = |(ring, machines, succeeded, failed, word)| {
                let succeeded = machines * succeeded / 100;
                let failed = (machines - succeeded) * failed / 100;
                Link { word, ..link(ring, None, (machines, succeeded, failed)) }
            };
            all.into_iter().map(link).collect()
        })
    }

    /// A chain as it comes to be, looked at every so many hours: what is open, and the halt.
    fn run(
        chain: &mut [Link],
        hours: impl Iterator<Item = i64>,
    ) -> (Vec<Option<Timestamp>>, Option<Halt>) {
        let mut halted = None;
        for hour in hours {
            let (decisions, halt) = advance(chain, halted, at(hour));
            halted = halt;
            for (link, decision) in chain.iter_mut().zip(decisions) {
                match decision {
                    Decision::Opens => link.opened = Some(at(hour)),
                    Decision::Open => assert!(link.opened.is_some()),
                    _ => assert!(link.opened.is_none()),
                }
            }
        }
        (chain.iter().map(|link| link.opened).collect(), halted)
    }

    proptest! {
        #[test]
        fn nothing_opens_with_less_than_asked(mut chain in chain(), hours in 0..200_i64) {
            run(&mut chain, 0..hours);
            for pair in chain.windows(2) {
                let [before, link] = pair else { unreachable!() };
                let (Some(opened), None, Some(ring)) = (link.opened, link.word, link.ring) else { continue };
                let since = before.opened.expect("the one before is open");
                prop_assert!(opened.duration_since(since) >= SignedDuration::from_hours(24 * i64::from(ring.after_days)));
                let Standing { machines, succeeded, .. } = before.standing;
                prop_assert!(succeeded * 100 >= machines * u64::from(ring.success));
                prop_assert!(ring.success == 0 || machines > 0);
                prop_assert!(!ring.by_hand);
                prop_assert!(chain.iter().all(|link| link.word != Some(Word::Hold) || link.opened.is_none()));
            }
        }

        /// What was open at any time is so ever after; more success and fewer failures open no less.
        #[test]
        fn a_chain_only_goes_forward(chain in chain(), hours in 1..200_i64, more in 0..50_u64) {
            let mut now = chain.clone();
            let (early, _) = run(&mut now, 0..hours);
            let (late, _) = run(&mut now, hours..hours + 50);
            for (early, late) in early.iter().zip(&late) {
                prop_assert!(early.is_none() || early == late);
            }
            let mut better = chain.clone();
            for link in &mut better {
                let Standing { machines, succeeded, failed } = &mut link.standing;
                *succeeded = (*succeeded + more).min(*machines);
                *failed = (*machines - *succeeded).min(*failed);
            }
            let (best, _) = run(&mut better, 0..hours);
            for (early, best) in early.iter().zip(&best) {
                prop_assert!(early.is_none() || best.is_some_and(|best| best <= early.unwrap()));
            }
        }

        /// Whoever looks seldom, or was away, sees the same opened, later at most.
        #[test]
        fn a_chain_that_was_not_looked_at_goes_on(chain in chain(), step in 1..40_usize) {
            let (mut often, mut seldom) = (chain.clone(), chain);
            let (often, _) = run(&mut often, 0..2_000);
            let (seldom, _) = run(&mut seldom, (0..2_000).step_by(step));
            for (often, seldom) in often.iter().zip(&seldom) {
                prop_assert_eq!(often.is_some(), seldom.is_some());
                prop_assert!(seldom >= often);
            }
        }

        #[test]
        fn a_halt_holds_until_a_person_says_go(mut chain in chain()) {
            let (opened, halted) = run(&mut chain, 0..300);
            if halted.is_none() {
                return Ok(());
            }
            // The failures are mended; it stays halted.
            let mut mended = chain.clone();
            mended.iter_mut().for_each(|link| link.standing.failed = 0);
            let (decisions, still) = advance(&mended, halted, at(400));
            prop_assert_eq!(still, halted);
            for (decision, link) in decisions.iter().zip(&chain) {
                prop_assert!(*decision != Decision::Opens || link.word == Some(Word::Go));
            }
            // A person has seen them: only new ones halt it again.
            chain.iter_mut().for_each(|link| link.forgiven = link.standing.failed);
            let (_, again) = advance(&chain, None, at(400));
            prop_assert_eq!(again, None);
            prop_assert_eq!(opened.len(), chain.len());
        }
    }

    #[test]
    fn the_reasons_are_those_that_people_see() {
        let ring = Some(Ring::default());
        let said = |chain: &[Link], hour| {
            let (decisions, _) = advance(chain, None, at(hour));
            match decisions[1] {
                Decision::Waits(why) => why.to_string(),
                Decision::Halted(halt) => halt.to_string(),
                other => format!("{other:?}"),
            }
        };
        let two = |first, counts| [link(None, first, counts), link(ring, None, (0, 0, 0))];
        assert_eq!(said(&two(Some(0), (100, 99, 0)), 23), format!("waits until {}", at(24)));
        assert_eq!(
            said(&two(Some(0), (100, 94, 0)), 24),
            "94 machines before it have the updates, 95 must"
        );
        assert_eq!(said(&two(Some(0), (100, 95, 0)), 24), "Opens");
        assert_eq!(said(&two(Some(0), (100, 95, 5)), 24), "failed on 5 of 100 machines");
        assert_eq!(
            said(&two(Some(0), (0, 0, 0)), 24),
            "the deployment before it is for no machine yet"
        );
        assert_eq!(said(&two(None, (0, 0, 0)), 0), format!("waits until {}", at(24)));
    }

    #[test]
    fn limits_read_back() {
        for text in ["5%", "100%", "20"] {
            assert_eq!(text.parse::<Limit>().unwrap().to_string(), text);
        }
        for wrong in ["", "0", "0%", "101%", "-3", "many"] {
            assert!(wrong.parse::<Limit>().is_err(), "{wrong}");
        }
    }
}
