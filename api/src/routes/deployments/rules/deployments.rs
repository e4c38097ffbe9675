//! The deployments of a rule, and their rings: put, take away, let go on, hold.

use super::{RingChainView, RuleView, changed};
use crate::extract::{Input, Params, field};
use crate::guard::AuditNote;
use crate::problem::{Kind, Problem};
use crate::site::{Site, blocking};
use axum::Json;
use axum::extract::{Extension, State};
use deployment::automatic::{After, Chain, ChainLink, RuleDeployment, RuleError};
use deployment::policy::Experience;
use deployment::ring::{Limit, Ring, Word};
use deployment::window::Clock;
use deployment::{DeploymentError, DeploymentName, RuleName};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new()
        .routes(routes!(put_rule_deployment, remove_rule_deployment))
        .routes(routes!(list_rings, say_to_ring))
}

/// One of the deployments of a rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "name": "rest", "collection": "all", "available": "0h", "deadline": "7d 20:00", "clock": "local",
    "alert_below": 90, "ring": {"after_days": 3, "success": 95, "halt": "5%"}
}))]
pub struct RuleDeploymentBody {
    /// What it is called within the rule.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The collection of machines.
    pub collection: String,
    /// Whether clients are told of what it makes.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// When updates are available, counted from the scheduled start of the run: `0h`, `4h`, `7d`, `7d 20:00`.
    #[serde(default = "at_once")]
    pub available: String,
    /// When they must be installed; without it they wait for the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<String>,
    /// By which clock that is: `utc`, everywhere at the same moment, or `local`.
    #[serde(default = "utc")]
    #[schema(value_type = String)]
    pub clock: Clock,
    /// How it is carried out; what is not told is as by default.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub experience: Experience,
    /// Below which percentage of compliance a warning is given, once the deadline is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 100)]
    pub alert_below: Option<u8>,
    /// What must come true of the deployment before it; without it, it is made with the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ring: Option<RingBody>,
}

/// What must come true of the deployment before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(example = json!({"after_days": 3, "success": 95, "halt": "5%", "by_hand": false}))]
pub struct RingBody {
    /// So many days have passed since it opened.
    pub after_days: u16,
    /// So many percent of its machines have the updates.
    #[schema(minimum = 0, maximum = 100)]
    pub success: u8,
    /// So many machines on which it fails halt what follows: `5%` or `20`; `never`.
    pub halt: String,
    /// Whether a person has to say go as well.
    pub by_hand: bool,
}

fn yes() -> bool {
    true
}

fn at_once() -> String {
    After::default().to_string()
}

fn utc() -> Clock {
    Clock::Utc
}

impl Default for RingBody {
    fn default() -> Self {
        Ring::default().into()
    }
}

impl From<Ring> for RingBody {
    fn from(ring: Ring) -> Self {
        Self {
            after_days: ring.after_days,
            success: ring.success,
            halt: ring.halt.map_or_else(|| "never".into(), |limit| limit.to_string()),
            by_hand: ring.by_hand,
        }
    }
}

impl RingBody {
    fn make(self) -> Result<Ring, Problem> {
        let halt = match self.halt.as_str() {
            "never" => None,
            limit => Some(field::<Limit>("halt", limit)?),
        };
        let Self { after_days, success, by_hand, .. } = self;
        Ok(Ring { after_days, success, halt, by_hand })
    }
}

impl From<&RuleDeployment> for RuleDeploymentBody {
    fn from(it: &RuleDeployment) -> Self {
        Self {
            name: it.name.to_string(),
            collection: it.collection.to_string(),
            enabled: it.enabled,
            available: it.available.to_string(),
            deadline: it.deadline.map(|at| at.to_string()),
            clock: it.clock,
            experience: it.experience.clone(),
            alert_below: it.alert_below,
            ring: it.ring.map(RingBody::from),
        }
    }
}

impl RuleDeploymentBody {
    pub(super) fn make(self) -> Result<RuleDeployment, Problem> {
        Ok(RuleDeployment {
            name: field("name", &self.name)?,
            collection: field("collection", &self.collection)?,
            enabled: self.enabled,
            available: field("available", &self.available)?,
            deadline: self.deadline.as_deref().map(|at| field("deadline", at)).transpose()?,
            clock: self.clock,
            experience: self.experience,
            alert_below: self.alert_below,
            ring: self.ring.map(RingBody::make).transpose()?,
        })
    }
}

/// Give a rule a deployment, or change the one of that name
///
/// A new one comes last, and the group that the last run filled is deployed by it, too. Of one that is there already
/// `enabled`, `alert_below` and the collection count at once, for what it made of the newest group; the rest with the
/// next run.
#[utoipa::path(put, path = "/api/v1/rules/{rule}/deployments/{deployment}", tag = "deployments",
    security(("token" = ["operator"])), request_body = RuleDeploymentBody,
    params(("rule" = String, Path, description = "The rule", example = "patch-day"),
        ("deployment" = String, Path, description = "What the rule calls it", example = "rest")),
    responses((status = 200, description = "The rule", body = RuleView)))]
async fn put_rule_deployment(
    State(site): State<Site>,
    params: Params,
    Input(mut body): Input<RuleDeploymentBody>,
) -> Result<Json<RuleView>, Problem> {
    let (name, its): (RuleName, DeploymentName) = (params.get("rule")?, params.get("deployment")?);
    if !body.name.is_empty() && body.name != its.as_str() {
        return Err(Problem::field("name", "is another than the address says"));
    }
    body.name = its.to_string();
    let shown = blocking(move || {
        let wanted = body.make()?;
        let view = changed(&site, &name, |rule| {
            match rule.deployments.iter_mut().find(|it| it.name == its) {
                Some(it) => *it = wanted.clone(),
                None => rule.deployments.push(wanted.clone()),
            }
            Ok(())
        })?;
        let (fleet, newest) = (site.fleet()?, newest(&site, &name)?);
        let made = newest.iter().flat_map(|chain| &chain.links).find(|link| link.name == its);
        if let Some(id) = made.and_then(|link| link.id) {
            let changed = fleet.deployments.change(id, |it| {
                it.enabled = wanted.enabled;
                it.alert_below = wanted.alert_below;
                it.collection = wanted.collection.clone();
                Ok::<_, DeploymentError>(())
            });
            match changed {
                Ok(_) | Err(DeploymentError::Unknown(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(view)
    });
    Ok(Json(shown.await?))
}

/// The chain of the group that the last run filled.
fn newest(site: &Site, name: &RuleName) -> Result<Option<Chain>, Problem> {
    Ok(site.fleet()?.rules.chains(name)?.pop())
}

/// Take a deployment away from a rule
///
/// What it made stays, and is everybody's: delete it as any deployment.
#[utoipa::path(delete, path = "/api/v1/rules/{rule}/deployments/{deployment}", tag = "deployments",
    security(("token" = ["operator"])),
    params(("rule" = String, Path, description = "The rule", example = "patch-day"),
        ("deployment" = String, Path, description = "What the rule calls it", example = "rest")),
    responses((status = 200, description = "The rule", body = RuleView)))]
async fn remove_rule_deployment(
    State(site): State<Site>,
    params: Params,
) -> Result<Json<RuleView>, Problem> {
    let (name, its): (RuleName, DeploymentName) = (params.get("rule")?, params.get("deployment")?);
    let shown = blocking(move || {
        changed(&site, &name, |rule| {
            let before = rule.deployments.len();
            rule.deployments.retain(|it| it.name != its);
            match rule.deployments.len() < before {
                true => Ok(()),
                false => Err(unknown(&name, its.as_str())),
            }
        })
    });
    Ok(Json(shown.await?))
}

fn unknown(rule: &RuleName, name: &str) -> Problem {
    RuleError::UnknownDeployment { rule: rule.clone(), name: name.chars().take(100).collect() }
        .into()
}

/// List the rings of a rule
///
/// Of each group that its runs filled the deployments, in order, the newest group first: which are open, what the others wait
/// for.
#[utoipa::path(get, path = "/api/v1/rules/{rule}/rings", tag = "deployments",
    security(("token" = ["reader"])),
    params(("rule" = String, Path, description = "The rule", example = "patch-day")),
    responses((status = 200, description = "The rings", body = Vec<RingChainView>)))]
async fn list_rings(
    State(site): State<Site>,
    params: Params,
) -> Result<Json<Vec<RingChainView>>, Problem> {
    let name: RuleName = params.get("rule")?;
    let shown = blocking(move || {
        let fleet = site.fleet()?;
        let (rule, _) = fleet.rules.get(&name)?;
        let chains = fleet.rules.chains(&name)?.into_iter().rev();
        chains.map(|chain| RingChainView::of(&site, &rule, chain)).collect()
    });
    Ok(Json(shown.await?))
}

/// What a person says of rings.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(example = json!({"say": "go", "deployment": "rest"}))]
pub struct RingWord {
    /// `go`: the deployment opens now, whatever else; `hold`: it does not; `follow`: as its ring says; `resume`: what was
    /// halted goes on, and the failures that there are do not count any more.
    pub say: String,
    /// What the rule calls the deployment; not for `resume`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deployment: Option<String>,
    /// The group. Without it: of `hold` and `follow` each group in which the deployment is not open yet, of `resume` each that is
    /// halted, and of `go`, which nothing takes back, the one that the last run filled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

/// Open a ring, hold it, or have a halted one go on
///
/// Rings of older groups wait beside those of the newest: what holds one of a name holds them all.
#[utoipa::path(post, path = "/api/v1/rules/{rule}/rings", tag = "deployments",
    security(("token" = ["operator"])), request_body = RingWord,
    params(("rule" = String, Path, description = "The rule", example = "patch-day")),
    responses((status = 200, description = "The rings of each group that was meant, the newest first",
        body = Vec<RingChainView>)))]
async fn say_to_ring(
    State(site): State<Site>,
    Extension(note): Extension<AuditNote>,
    params: Params,
    Input(word): Input<RingWord>,
) -> Result<Json<Vec<RingChainView>>, Problem> {
    let name: RuleName = params.get("rule")?;
    note.detail(format!("{} {}", word.say, word.deployment.as_deref().unwrap_or_default()));
    let shown = blocking(move || {
        let fleet = site.fleet()?;
        let (rule, _) = fleet.rules.get(&name)?;
        let chains: Vec<Chain> = fleet.rules.chains(&name)?.into_iter().rev().collect();
        let said = |chain: &Chain| {
            let of = (&chain.group, chain.scheduled);
            let chain = crate::automatic::rings::change(&site, &name, &rule, of, |chain| {
                apply(&site, &name, chain, &word)
            })?;
            RingChainView::of(&site, &rule, chain)
        };
        meant(&chains, &word)?.into_iter().map(said).collect()
    });
    Ok(Json(shown.await?))
}

/// The groups that a word is about, of all the rule has, the newest first.
fn meant<'a>(chains: &'a [Chain], word: &RingWord) -> Result<Vec<&'a Chain>, Problem> {
    let its = word.deployment.as_deref().unwrap_or_default();
    let waits = |chain: &&Chain| link(chain, its).is_some_and(|link| link.opened.is_none());
    let is_it = |chain: &&Chain| word.group.as_deref().is_none_or(|it| it == chain.group.as_str());
    let newest = chains.iter().find(is_it).ok_or_else(|| {
        let detail = "no run of the rule has filled such a group yet";
        Problem::new(Kind::NotFound, detail).caused_by("group", detail)
    })?;
    if word.group.is_some() {
        return Ok(vec![newest]);
    }
    let found: Vec<&Chain> = match word.say.as_str() {
        "hold" => chains.iter().filter(waits).collect(),
        "follow" => {
            let has_word = |it: &&Chain| link(it, its).is_some_and(|link| link.word.is_some());
            chains.iter().filter(waits).filter(has_word).collect()
        }
        "resume" => chains.iter().filter(|chain| chain.halted.is_some()).collect(),
        "go" if link(newest, its).is_some() && !waits(&newest) => {
            let older: Vec<&str> =
                chains.iter().filter(waits).map(|it| it.group.as_str()).collect();
            if !older.is_empty() {
                let detail = format!(
                    "{its} is open in {}; it waits in {}: say in which (--group)",
                    newest.group,
                    older.join(", ")
                );
                return Err(Problem::new(Kind::Conflict, &detail).caused_by("group", &detail));
            }
            Vec::new()
        }
        _ => Vec::new(),
    };
    // Where none is meant, the newest says why.
    Ok(if found.is_empty() { vec![newest] } else { found })
}

fn link<'a>(chain: &'a Chain, its: &str) -> Option<&'a ChainLink> {
    chain.links.iter().find(|link| link.name.as_str() == its)
}

fn apply(site: &Site, name: &RuleName, chain: &mut Chain, word: &RingWord) -> Result<(), Problem> {
    let said = match word.say.as_str() {
        "go" => Some(Word::Go),
        "hold" => Some(Word::Hold),
        "follow" => None,
        "resume" => {
            let fleet = site.fleet()?;
            chain.resume(|id| crate::automatic::rings::standing(&fleet, id));
            return Ok(());
        }
        other => {
            let shown: String = other.chars().take(40).collect();
            return Err(Problem::field(
                "say",
                format!("{shown:?} is nothing that can be said; want go, hold, follow or resume"),
            ));
        }
    };
    let its = word.deployment.as_deref().unwrap_or_default();
    let link = chain.links.iter_mut().find(|link| link.name.as_str() == its);
    let link = link.ok_or_else(|| unknown(name, its))?;
    if link.opened.is_some() {
        let detail =
            format!("{its} is open: disable the deployment {} to stop it", link.deployment);
        return Err(Problem::new(Kind::Conflict, &detail).caused_by("deployment", &detail));
    }
    link.word = said;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use deployment::ring::Halt;
    use jiff::Timestamp;

    /// A group whose second ring is open, or waits with a word.
    fn chain(group: &str, opened: bool, word: Option<Word>, halted: bool) -> Chain {
        let mut chain = Chain::new(group.parse().unwrap(), Timestamp::UNIX_EPOCH);
        chain.halted = halted.then_some(Halt { at: 0, failed: 3, machines: 9 });
        chain.links.push(ChainLink {
            name: "ring2".parse().unwrap(),
            deployment: format!("{group}-ring2").parse().unwrap(),
            id: None,
            opened: opened.then_some(Timestamp::UNIX_EPOCH),
            word,
            forgiven: 0,
        });
        chain
    }

    fn groups(chains: &[Chain], say: &str, group: Option<&str>) -> Result<Vec<String>, String> {
        let word = RingWord {
            say: say.into(),
            deployment: Some("ring2".into()),
            group: group.map(Into::into),
        };
        let found = meant(chains, &word).map_err(|problem| problem.detail)?;
        Ok(found.iter().map(|chain| chain.group.to_string()).collect())
    }

    #[test]
    fn a_word_reaches_all_groups_in_which_the_ring_waits_and_go_only_the_one_that_is_named() {
        let chains = [
            chain("nov", true, None, true),
            chain("oct", false, Some(Word::Hold), false),
            chain("sep", false, None, true),
        ];
        let all = |names: &[&str]| Ok(names.iter().map(|it| (*it).to_owned()).collect());
        assert_eq!(groups(&chains, "hold", None), all(&["oct", "sep"]));
        assert_eq!(groups(&chains, "follow", None), all(&["oct"]));
        assert_eq!(groups(&chains, "resume", None), all(&["nov", "sep"]));
        let why = groups(&chains, "go", None).unwrap_err();
        assert!(why.contains("open in nov") && why.contains("oct, sep: say in which"), "{why}");
        for say in ["go", "hold", "follow", "resume"] {
            assert_eq!(groups(&chains, say, Some("sep")), all(&["sep"]));
            assert!(groups(&chains, say, Some("aug")).is_err());
            assert!(groups(&[], say, None).is_err());
        }
        // Where it is as it was before there were older groups, the newest is meant.
        let waits = [chain("nov", false, None, false), chain("oct", true, None, false)];
        for say in ["go", "hold", "follow", "resume"] {
            assert_eq!(groups(&waits, say, None), all(&["nov"]));
            assert_eq!(groups(&waits[1..], say, None), all(&["oct"]));
        }
    }
}
