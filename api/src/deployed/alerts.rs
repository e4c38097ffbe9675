//! Alerts: that fewer machines comply with a deployment than it asks for, once its deadline is over.
//!
//! It is said once when it begins and once when it ends, so that a restart of the site says nothing again.

use crate::problem::Problem;
use crate::site::Site;
use ::sync::messages::{Message, MessageId};
use deployment::Deployment;
use deployment::policy::DeploymentId;
use deployment::results::Counts;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sitedb::{Batch, Order, Table, Value};

const ALERTS: Table<u128, Told> = Table::new("deployment-alert");

/// That it was said.
#[derive(Serialize, Deserialize)]
struct Told {
    at: Timestamp,
}
impl Value for Told {}

/// How many of a hundred machines comply with a deployment, if that is less than it asks for and its deadline is over.
/// One that is for nobody, or is disabled, asks for nothing.
pub fn alert(it: &Deployment, counts: &Counts, now: Timestamp) -> Option<u8> {
    let (below, over) = (it.alert_below?, it.over()?);
    let percent = counts.percent()?;
    (it.enabled && over <= now && percent < below).then_some(percent)
}

/// Says which deployments are below what they ask for, and which are not any more.
///
/// # Errors
/// If the database fails.
pub fn tell(site: &Site, now: Timestamp) -> Result<(), Problem> {
    let (fleet, ledger) = (site.fleet()?, site.ledger()?);
    let told = ALERTS.scan(&ledger.db, Order::Ascending, None, usize::MAX)?;
    let is_told = |id: DeploymentId| told.iter().any(|(told, _)| *told == id.0.as_u128());
    let all = fleet.deployments.all();
    let mut batch = Batch::new();
    for (id, it) in &all {
        let Ok(members) = fleet.collections.members(&it.collection, &fleet.states) else {
            continue;
        };
        let below = it.alert_below.filter(|_| it.enabled || is_told(*id));
        if below.is_none() && !is_told(*id) {
            continue;
        }
        let counts = fleet.results.counts(*id, &members);
        let say = |message: MessageId, text: String| {
            let message = Message::of_site(message, "deployments", text, now);
            site.updates()?.messages().write(&message.with("deployment", &it.name))?;
            Ok::<_, Problem>(())
        };
        match (alert(it, &counts, now), is_told(*id)) {
            (Some(percent), false) => {
                let below = it.alert_below.unwrap_or_default();
                let text = format!(
                    "{percent} % of {} machines comply with deployment {}, and at least {below} % should since its deadline",
                    counts.targets, it.name
                );
                say(MessageId::DEPLOYMENT_BELOW, text)?;
                ALERTS.put(&mut batch, &id.0.as_u128(), &Told { at: now });
            }
            (None, true) => {
                let text = format!(
                    "deployment {} is complied with as it should be, or asks for nothing any more",
                    it.name
                );
                say(MessageId::DEPLOYMENT_RECOVERED, text)?;
                ALERTS.delete(&mut batch, &id.0.as_u128());
            }
            _ => {}
        }
    }
    let gone = told.iter().filter(|(id, _)| !all.keys().any(|it| it.0.as_u128() == *id));
    gone.for_each(|(id, _)| ALERTS.delete(&mut batch, id));
    ledger.db.kv().write(batch)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use deployment::enforcement::Compliance;
    use deployment::policy::{Experience, When};

    #[test]
    fn too_few_are_told_of_after_the_deadline_alone() {
        let deadline: Timestamp = "2026-12-08T00:00:00Z".parse().unwrap();
        let it = Deployment {
            name: "a".parse().unwrap(),
            comment: String::new(),
            group: "g".parse().unwrap(),
            collection: "c".parse().unwrap(),
            available: When::Utc(Timestamp::UNIX_EPOCH),
            deadline: Some(When::Utc(deadline)),
            experience: Experience::default(),
            enabled: true,
            alert_below: Some(90),
            created: Timestamp::UNIX_EPOCH,
        };
        let counts = |compliant| Counts {
            targets: 1000,
            compliance: [(Compliance::Compliant, compliant)].into(),
            ..Counts::default()
        };
        assert_eq!(alert(&it, &counts(899), deadline), Some(89));
        assert_eq!(alert(&it, &counts(900), deadline), None);
        assert_eq!(alert(&it, &counts(0), Timestamp::UNIX_EPOCH), None);
        assert_eq!(alert(&it, &Counts::default(), deadline), None, "it is for nobody");
        let off = Deployment { enabled: false, ..it.clone() };
        assert_eq!(alert(&off, &counts(0), deadline), None);
        let silent = Deployment { alert_below: None, ..it };
        assert_eq!(alert(&silent, &counts(0), deadline), None);
    }
}
