//! Groups of updates and deployments, over a database that is opened again.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use deployment::group::Regroup;
use deployment::policy::{Experience, When};
use deployment::{Deployment, DeploymentError, Deployments, GroupName};
use jiff::Timestamp;
use sitedb::Db;
use sync::catalogue::Deployments as _;
use sync::lifecycle::Use;
use sync::name::UpdateId;

fn id(name: &str) -> UpdateId {
    UpdateId::named(&[name])
}

fn group(name: &str) -> GroupName {
    name.parse().unwrap()
}

fn to(name: &str, of: &str) -> Deployment {
    Deployment {
        name: name.parse().unwrap(),
        comment: String::new(),
        group: group(of),
        collection: "all".parse().unwrap(),
        available: When::Utc(Timestamp::UNIX_EPOCH),
        deadline: None,
        experience: Experience::default(),
        enabled: true,
        alert_below: None,
        created: Timestamp::UNIX_EPOCH,
    }
}

fn add(names: &[&str]) -> Regroup {
    Regroup::Change { add: names.iter().map(|name| id(name)).collect(), remove: [].into() }
}

fn remove(name: &str) -> Regroup {
    Regroup::Change { add: [].into(), remove: [id(name)].into() }
}

#[test]
fn what_was_set_is_there_when_the_site_comes_back() {
    let db = Db::in_memory();
    let all = Deployments::open(db.clone()).unwrap();
    let now = Timestamp::UNIX_EPOCH;
    all.create_group(&group("nov"), "November".into(), now).unwrap();
    let done = all.regroup(&group("nov"), add(&["a", "b"]), now).unwrap();
    assert_eq!(done.added, [id("a"), id("b")].into());
    assert!(all.regroup(&group("nov"), add(&["a"]), now).unwrap().added.is_empty());
    let made = all.create(to("pilot", "nov")).unwrap();
    let off = |it: &mut Deployment| -> Result<(), DeploymentError> {
        it.enabled = false;
        Ok(())
    };
    all.change(made, off).unwrap();
    drop(all);
    let all = Deployments::open(db).unwrap();
    let (found, pilot) = all.find("pilot").unwrap();
    assert_eq!((found, pilot.enabled), (made, false));
    assert_eq!(all.find(&made.to_string()).unwrap().0, made);
    let nov = all.group(&group("nov")).unwrap();
    assert_eq!(nov.record.comment, "November");
    assert_eq!(nov.ids().collect::<Vec<_>>().len(), 2);
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let all = Deployments::open(Db::in_memory()).unwrap();
    let now = Timestamp::UNIX_EPOCH;
    let error = all.create(to("pilot", "nov")).unwrap_err();
    assert!(matches!(error, DeploymentError::UnknownGroup(_)));
    all.create_group(&group("nov"), String::new(), now).unwrap();
    let error = all.create_group(&group("nov"), String::new(), now).unwrap_err();
    assert!(matches!(error, DeploymentError::GroupExists(_)));
    let made = all.create(to("pilot", "nov")).unwrap();
    assert!(matches!(all.create(to("pilot", "nov")), Err(DeploymentError::Exists(_))));
    let error = all.delete_group(&group("nov")).unwrap_err();
    assert!(error.to_string().contains("pilot: delete it first"), "{error}");
    let name = all.free_name(&group("nov"), &"all".parse().unwrap());
    assert_eq!(name.as_str(), "nov-all");
    let again = all.change(made, |it| -> Result<(), DeploymentError> {
        it.name = name;
        Ok(())
    });
    assert_eq!(again.unwrap().name.as_str(), "nov-all");
    assert_eq!(all.free_name(&group("nov"), &"all".parse().unwrap()).as_str(), "nov-all-2");
    all.delete(made).unwrap();
    assert!(matches!(all.find("nov-all"), Err(DeploymentError::Unknown(_))));
    all.delete_group(&group("nov")).unwrap();
}

#[test]
fn an_update_is_deployed_as_long_as_one_deployment_has_it() {
    let db = Db::in_memory();
    let all = Deployments::open(db.clone()).unwrap();
    let now = Timestamp::UNIX_EPOCH;
    for name in ["nov", "dec"] {
        all.create_group(&group(name), String::new(), now).unwrap();
        all.regroup(&group(name), add(&["a", name]), now).unwrap();
    }
    assert_eq!(all.of(id("a")), Use::Never, "a group alone deploys nothing");
    let nov = all.create(to("nov", "nov")).unwrap();
    let second = all.create(to("nov-2", "nov")).unwrap();
    let dec = all.create(to("dec", "dec")).unwrap();
    assert_eq!((all.of(id("a")), all.of(id("nov"))), (Use::Deployed, Use::Deployed));
    all.delete(nov).unwrap();
    assert_eq!(all.of(id("nov")), Use::Deployed, "by the other deployment of its group");
    all.delete(second).unwrap();
    assert!(matches!(all.of(id("nov")), Use::Until(_)));
    assert_eq!(all.of(id("a")), Use::Deployed, "by the other group");
    all.regroup(&group("dec"), remove("a"), now).unwrap();
    assert!(matches!(all.of(id("a")), Use::Until(_)));
    // A deployment that gets another group deploys what is in that, and no more what was in the other.
    all.change(dec, |it| -> Result<(), DeploymentError> {
        it.group = group("nov");
        Ok(())
    })
    .unwrap();
    assert_eq!((all.of(id("a")), all.of(id("nov"))), (Use::Deployed, Use::Deployed));
    assert!(matches!(all.of(id("dec")), Use::Until(_)));
    drop(all);
    let all = Deployments::open(db).unwrap();
    assert!(matches!(all.of(id("dec")), Use::Until(_)));
}
