//! Scenes of one machine ([`world`]), and walks over its life ([`walk`]).

mod walk;
mod world;

use super::*;
use deployment::enforcement::{Compliance, Enforcement, Update};
use deployment::policy::Detail;
pub(super) use world::deployment;
use world::*;

#[test]
fn a_required_deployment_is_evaluated_downloaded_and_at_its_deadline_installed() {
    let mut world = World::new(&[1]);
    world.deployments[0].available = after(HOUR);
    world.deployments[0].deadline = Some(after(DAY));
    world.pass(10);
    assert_eq!(world.said(), ["BeforeDownload"]);
    assert_eq!(world.standing(), (Compliance::NonCompliant, Enforcement::Unknown));
    world.pass(HOUR);
    assert_eq!(world.said(), ["file-1"], "at the available time");
    assert_eq!(world.standing(), (Compliance::NonCompliant, Enforcement::Downloaded));
    world.pass(DAY - HOUR - 60);
    assert!(world.said().is_empty());
    // Evicted for another one.
    world.cached.clear();
    world.trouble = u64::MAX;
    world.seconds = DAY;
    world.pass(HOUR);
    assert_eq!(world.said(), ["BeforeInstall", "file-1", "install 1", "AfterInstall"]);
    assert_eq!(world.standing(), (Compliance::Compliant, Enforcement::Succeeded));
    let updates = world.listed().updates;
    assert_eq!(updates.len(), 1);
    assert_eq!(updates[0].state, Update::Installed);
    // Somebody removed it: the next evaluation finds that, and it comes from the cache.
    world.software.get_mut(&1).unwrap().is_installed = false;
    world.scanned(Trigger::Reevaluation);
    world.pass(HOUR);
    assert_eq!(world.said(), ["BeforeInstall", "install 1", "AfterInstall"]);
}

#[test]
fn what_is_newer_than_the_catalogue_is_asked_for_and_what_never_comes_is_for_others() {
    let mut world = World::new(&[1]);
    world.lacking.0 = BTreeSet::from([1]);
    world.pass(HOUR);
    let all =
        ["BeforeDownload", "UserAction", "BeforeInstall", "file-1", "install 1", "AfterInstall"];
    assert_eq!(world.said(), all);
    assert_eq!(world.standing(), (Compliance::Compliant, Enforcement::Succeeded));

    let mut world = World::new(&[1]);
    world.lacking = (BTreeSet::from([1]), false);
    world.pass(10);
    assert_eq!(world.said(), ["BeforeDownload", "UserAction"]);
    assert_eq!(world.standing().0, Compliance::Unknown, "it may come yet");
    world.pass(DAY);
    assert_eq!(world.said(), ["UserAction", "UserAction"], "a bounded number of times");
    assert_eq!(world.standing().0, Compliance::Compliant);
}

#[test]
fn an_optional_deployment_waits_for_the_user_and_one_that_is_predownloaded_for_nobody() {
    let mut world = World::new(&[1]);
    world.deployments[0].deadline = None;
    world.pass(30 * DAY);
    assert_eq!(world.said(), ["BeforeDownload"]);
    let id = world.deployments[0].id;
    world.software.get_mut(&1).unwrap().needs_restart = true;
    world.with(|it, view, dice| it.user_wants(Some(id), view, dice)).unwrap();
    world.pass(DAY);
    assert_eq!(world.said(), ["BeforeInstall", "file-1", "install 1", "AfterInstall"]);
    // The user restarts when it suits.
    assert_eq!(world.standing().1, Enforcement::PendingRestart);
    world.restart();
    world.pass(DAY);
    assert_eq!(world.said(), ["AfterRestart"]);
    assert_eq!(world.standing(), (Compliance::Compliant, Enforcement::Succeeded));

    let mut world = World::new(&[1]);
    world.deployments[0].available = after(DAY);
    world.deployments[0].deadline = Some(after(2 * DAY));
    world.deployments[0].experience.predownload = true;
    world.pass(HOUR);
    assert_eq!(world.said(), ["BeforeDownload", "file-1"]);
    let error = world.with(|it, view, dice| it.user_wants(Some(id), view, dice)).unwrap_err();
    assert!(matches!(error, NotNow::NotYet(..)));
    assert_eq!(world.with(|it, view, dice| it.user_wants(None, view, dice)), Ok(vec![]));
}

#[test]
fn what_fits_into_the_rest_of_a_window_is_installed_the_shortest_first() {
    let mut world = World::new(&[1, 2]);
    // Two deployments, as a deployment has one time for all its updates.
    world.documents = BTreeMap::from([("d".into(), vec![1]), ("e".into(), vec![2])]);
    world.deployments.push(deployment(2, "e"));
    world.deployments[0].experience.max_run_time = Some(90);
    world.deployments[1].experience.max_run_time = Some(40);
    world.windows = vec![daily(2, 120)];
    world.software.get_mut(&2).unwrap().takes = 35 * MINUTE;
    world.pass(HOUR);
    assert_eq!(world.said(), ["BeforeDownload", "file-1", "file-2"]);
    assert_eq!(world.standing().1, Enforcement::WaitingForWindow);
    world.pass(4 * HOUR);
    assert_eq!(
        world.said(),
        ["BeforeInstall", "install 2", "AfterInstall"],
        "then 85 minutes are left"
    );
    world.pass(DAY);
    assert_eq!(world.said(), ["BeforeInstall", "install 1", "AfterInstall"]);
    // One that will never fit is found out before its deadline.
    let mut world = World::new(&[1]);
    world.deployments[0].deadline = Some(after(DAY));
    world.deployments[0].experience.max_run_time = Some(200);
    world.windows = vec![daily(2, 120)];
    world.pass(HOUR);
    assert!(world.with(|it, view, _| it.reports(view))[0].never_fits);
    world.pass(3 * DAY);
    assert!(!world.said().contains(&"install 1".to_owned()));
    world.deployments[0].experience.outside_windows.install = true;
    world.pass(HOUR);
    assert!(world.said().contains(&"install 1".to_owned()));
}

#[test]
fn a_restart_follows_in_the_window_and_early_installations_wait_for_the_deadline() {
    let mut world = World::new(&[1]);
    world.deployments[0].deadline = Some(after(2 * DAY));
    world.software.get_mut(&1).unwrap().needs_restart = true;
    world.windows = vec![daily(2, 120)];
    world.pass(HOUR);
    world.with(|it, view, dice| it.user_wants(None, view, dice)).unwrap();
    world.pass(DAY);
    assert!(world.said().ends_with(&["install 1".into(), "AfterInstall".into()]));
    assert_eq!(world.standing(), (Compliance::NonCompliant, Enforcement::WaitingForRestart));
    world.pass(DAY);
    assert_eq!(world.said(), [""; 0], "the deadline is over, and no window is open");
    world.pass(HOUR);
    assert_eq!(world.said(), ["restart", "AfterRestart"]);
    assert_eq!(world.standing(), (Compliance::Compliant, Enforcement::Succeeded));
    // Where servers are left alone, somebody has to do it.
    let mut world = World::new(&[1]);
    world.software.get_mut(&1).unwrap().needs_restart = true;
    world.machine.is_server = true;
    world.deployments[0].experience.suppress_restart.servers = true;
    world.pass(DAY);
    assert!(!world.said().contains(&"restart".to_owned()));
    assert_eq!(world.standing().1, Enforcement::PendingRestart);
    // Another deployment of the same update does not leave them alone.
    world.deployments.push(deployment(2, "d"));
    world.pass(HOUR);
    assert_eq!(world.said(), ["restart", "AfterRestart"]);
}

#[test]
fn an_update_that_is_installed_though_its_installer_failed_awaits_its_restart() {
    let mut world = World::new(&[1]);
    let software = world.software.get_mut(&1).unwrap();
    (software.needs_restart, software.fails_beside) = (true, true);
    world.deployments[0].experience.suppress_restart.workstations = true;
    world.pass(HOUR);
    assert_eq!(
        world.said(),
        ["BeforeDownload", "BeforeInstall", "file-1", "install 1", "AfterInstall"]
    );
    assert_eq!(world.standing(), (Compliance::NonCompliant, Enforcement::PendingRestart));
    assert_eq!(world.listed().updates[0].failure, None);
    world.deployments[0].experience.suppress_restart.workstations = false;
    world.pass(HOUR);
    assert_eq!(world.said(), ["restart", "AfterRestart"]);
    assert_eq!(world.standing(), (Compliance::Compliant, Enforcement::Succeeded));
}

#[test]
fn a_restart_that_a_try_made_necessary_follows_the_one_that_installs_the_update() {
    let mut world = World::new(&[1]);
    world.software.get_mut(&1).unwrap().fails = 1;
    let fails = Ending { outcome: Outcome::Failed(Failure::new(1, "x")), needs_restart: true };
    // The second try shows no new sign: what asks for the restart was there before it.
    world.with(|it, view, dice| it.installed(update(1), false, fails, view, dice));
    world.pass(DAY);
    let done = world.said();
    assert_eq!(done.iter().filter(|it| *it == "install 1").count(), 2, "{done:?}");
    assert!(done.ends_with(&["restart".into(), "AfterRestart".into()]), "{done:?}");
    assert_eq!(world.standing(), (Compliance::Compliant, Enforcement::Succeeded));
}

#[test]
fn people_see_a_restart_come_and_may_put_it_off_for_a_while() {
    let mut world = World::new(&[1]);
    world.software.get_mut(&1).unwrap().needs_restart = true;
    world.machine.has_people = true;
    world.pass(2 * MINUTE);
    let left = |world: &mut World| world.with(|it, view, _| it.restarts_in(view.now)).unwrap();
    assert!(left(&mut world) > Duration::from_secs(13 * MINUTE));
    let snooze =
        |world: &mut World, by| world.with(|it, view, _| it.snooze(Duration::from_secs(by), view));
    snooze(&mut world, HOUR).unwrap();
    world.pass(HOUR);
    assert!(!world.said().contains(&"restart".to_owned()));
    snooze(&mut world, 100 * HOUR).unwrap();
    assert_eq!(snooze(&mut world, HOUR), Err(NotNow::NoMore));
    world.pass(2 * HOUR);
    assert!(!world.said().contains(&"restart".to_owned()));
    world.pass(HOUR);
    assert_eq!(world.said(), ["restart", "AfterRestart"]);
    assert_eq!(snooze(&mut world, HOUR), Err(NotNow::NoRestart));
}

#[test]
fn what_fails_is_tried_ever_later_then_not_until_deployments_are_evaluated_again() {
    let mut world = World::new(&[1]);
    world.software.get_mut(&1).unwrap().fails = 6;
    world.pass(3 * DAY);
    let installs = world.said().iter().filter(|it| *it == "install 1").count();
    assert_eq!(installs, 4);
    assert_eq!(world.standing(), (Compliance::NonCompliant, Enforcement::Failed));
    let report = world.with(|it, view, _| it.reports(view)).remove(0);
    assert_eq!(report.failure.unwrap().detail, "it does not like it");
    world.scanned(Trigger::Reevaluation);
    world.pass(DAY);
    assert_eq!(world.standing(), (Compliance::Compliant, Enforcement::Succeeded));
}

#[test]
fn what_did_not_come_is_asked_for_at_once_where_another_point_may_have_it() {
    let mut world = World::new(&[1]);
    let lacks = || Err(Failure::new(code::NO_CONTENT, "no point has it"));
    for _ in 0..6 {
        world.with(|it, view, dice| it.file("file-1", lacks(), view, dice));
    }
    world.pass(MINUTE);
    assert_eq!(world.said(), ["BeforeDownload"]);
    assert_eq!(world.standing().1, Enforcement::DownloadFailed);
    assert!(world.listed().updates[0].again_in.is_some_and(|it| it > 10 * MINUTE));
    world.enforcer.has_other_points();
    world.pass(2 * MINUTE);
    assert_eq!(world.said(), ["BeforeInstall", "file-1", "install 1", "AfterInstall"]);
}

#[test]
fn who_looks_at_the_machine_is_told_all_and_the_site_only_what_it_wants() {
    let mut world = World::new(&[1]);
    world.software.get_mut(&1).unwrap().fails = 1;
    world.deployments[0].deadline = Some(after(HOUR));
    world.deployments[0].experience.detail = Detail::Errors;
    world.pass(MINUTE);
    let report = world.with(|it, view, _| it.reports(view)).remove(0);
    assert_eq!((report.enforcement, report.updates.len()), (Enforcement::Unknown, 0));
    assert_eq!(world.standing().1, Enforcement::Downloaded);
    world.pass(HOUR + 2 * MINUTE);
    let listed = world.listed().updates.remove(0);
    assert_eq!(listed.state, Update::Failed);
    assert!((1..=450).contains(&listed.again_in.unwrap()), "{listed:?}");
    world.pass(DAY);
    let listed = world.listed().updates.remove(0);
    let state = (listed.name.as_str(), listed.state, listed.again_in);
    assert_eq!(state, ("1", Update::Installed, None), "by its name");
    world.software.get_mut(&1).unwrap().is_superseded = true;
    world.scanned(Trigger::Schedule);
    assert_eq!(world.standing(), (Compliance::Compliant, Enforcement::Succeeded));
    assert_eq!(world.listed().updates, [], "what is superseded is not called installed");
}

#[test]
fn a_scan_begins_nothing_anew_and_an_evaluation_that_somebody_asks_for_does() {
    let mut world = World::new(&[1]);
    world.software.get_mut(&1).unwrap().fails = 9;
    let installs = |world: &mut World| {
        world.pass(DAY);
        world.said().iter().filter(|it| *it == "install 1").count()
    };
    assert_eq!(installs(&mut world), 4);
    for trigger in [Trigger::UserAction, Trigger::Schedule, Trigger::BeforeDownload] {
        world.scanned(trigger);
        assert_eq!(installs(&mut world), 0, "{trigger:?}");
    }
    world.with(|it, _, _| it.evaluate_again());
    // By the catalogue that the update point has now.
    world.scanned(Trigger::AfterInstall);
    assert_eq!(installs(&mut world), 0);
    world.scanned(Trigger::UserAction);
    assert_eq!(installs(&mut world), 4);
    world.scanned(Trigger::UserAction);
    assert_eq!(installs(&mut world), 0, "once");
}

#[test]
fn two_that_undo_each_other_come_to_rest() {
    let mut world = World::new(&[1]);
    for _ in 0..20 {
        world.pass(HOUR);
        world.software.get_mut(&1).unwrap().is_installed = false;
        world.scanned(Trigger::BeforeDownload);
    }
    world.pass(DAY);
    let installs = world.said().iter().filter(|it| *it == "install 1").count();
    assert!(installs <= 5, "{installs}");
}

#[test]
fn an_update_of_two_deployments_is_installed_once_for_the_one_that_is_due_first() {
    let mut world = World::new(&[1]);
    world.deployments[0].deadline = Some(after(5 * DAY));
    let mut other = deployment(2, "e");
    other.deadline = Some(after(DAY));
    world.documents.insert("e".into(), vec![1]);
    world.deployments.push(other);
    world.pass(DAY + HOUR);
    world.pass(9 * DAY);
    let done = world.said();
    assert_eq!(done.iter().filter(|it| *it == "install 1").count(), 1, "{done:?}");
    let listed = world.with(|it, view, _| it.listed(view));
    assert!(listed.iter().all(|it| it.standing.enforcement == Enforcement::Succeeded));
}

#[test]
fn what_leaves_the_policy_is_forgotten() {
    let mut world = World::new(&[1]);
    world.pass(DAY);
    world.said();
    world.withdraw();
    world.pass(DAY);
    let forgotten = &world.enforcer;
    assert!(forgotten.plans.is_empty() && forgotten.jobs.is_empty());
    assert_eq!(world.said(), [""; 0]);
}

#[test]
fn what_awaits_a_restart_does_so_though_its_deployment_leaves_the_policy_for_a_while() {
    for goes_on in [false, true] {
        let mut world = World::new(&[1, 2]);
        world.documents = BTreeMap::from([("d".into(), vec![1]), ("e".into(), vec![2])]);
        world.software.get_mut(&1).unwrap().needs_restart = true;
        world.windows = vec![daily(2, 120)];
        world.deployments[0].experience.outside_windows.install = true;
        world.pass(HOUR);
        assert_eq!(world.standing(), (Compliance::NonCompliant, Enforcement::WaitingForRestart));
        // Nothing is deployed any more, or something else: then nobody restarts the machine for it.
        let deployed = world.withdraw();
        world.deployments.extend(goes_on.then(|| deployment(2, "e")));
        world.pass(DAY);
        assert!(!world.said().contains(&"restart".to_owned()));
        world.withdraw();
        world.deployments = deployed;
        world.seconds = DAY + 20 * HOUR;
        world.pass(HOUR);
        assert_eq!(world.said(), ["BeforeDownload"]);
        assert_eq!(world.standing(), (Compliance::NonCompliant, Enforcement::WaitingForRestart));
        assert_eq!(world.listed().updates[0].state, Update::PendingRestart);
        world.pass(6 * HOUR);
        assert_eq!(world.said(), ["restart", "AfterRestart"]);
        assert_eq!(world.standing(), (Compliance::Compliant, Enforcement::Succeeded));
    }
}

#[test]
fn a_restart_that_somebody_makes_while_nothing_is_deployed_ends_the_wait_with_a_scan() {
    let mut world = World::new(&[1]);
    world.software.get_mut(&1).unwrap().needs_restart = true;
    world.deployments[0].experience.suppress_restart.workstations = true;
    world.pass(HOUR);
    let deployed = world.withdraw();
    world.pass(HOUR);
    world.said();
    world.restart();
    // Updates are disabled: no scan can be made, which holds back nothing later.
    let none = BTreeSet::from([Trigger::AfterRestart]);
    for _ in 0..9 {
        world.seconds += HOUR;
        let step = world.with(|it, view, dice| it.next(view, dice));
        assert_eq!(step, Step::Scan(Trigger::AfterRestart));
        world.with(|it, view, dice| it.scan_failed(&none, "x", view, dice));
    }
    let mut enabled = world.enforcer.clone();
    world.seconds += HOUR;
    world.pass(DAY);
    assert_eq!(world.said(), ["AfterRestart"]);
    assert!(world.enforcer.jobs.is_empty());
    std::mem::swap(&mut world.enforcer, &mut enabled);
    world.deployments = deployed;
    world.pass(0);
    assert_eq!(world.said(), ["AfterRestart", "BeforeDownload"]);
    assert_eq!(world.standing(), (Compliance::Compliant, Enforcement::Succeeded));
}

#[test]
fn on_an_overlay_it_is_committed_or_told_to_be_lost_with_the_restart() {
    let mut world = World::new(&[1]);
    world.machine.has_overlay = true;
    world.deployments[0].experience.commit = false;
    world.pass(HOUR);
    assert!(world.with(|it, view, _| it.reports(view))[0].in_overlay);
    assert_eq!(world.standing().0, Compliance::Compliant);
    world.said();
    world.restart();
    world.pass(MINUTE);
    assert_eq!(world.said(), ["AfterRestart", "BeforeInstall", "install 1", "AfterInstall"]);
    // Another deployment of it commits.
    let mut other = deployment(2, "d");
    other.experience.commit = true;
    world.deployments.push(other);
    world.restart();
    world.said();
    world.pass(HOUR);
    let done = world.said();
    assert_eq!(done[..3], ["AfterRestart", "BeforeInstall", "install 1 below"]);
    assert_eq!(done[done.len() - 2..], ["restart", "AfterRestart"], "{done:?}");
    assert!(!world.with(|it, view, _| it.reports(view))[0].in_overlay);
    assert_eq!(world.standing().0, Compliance::Compliant);
}

#[test]
fn coming_deadlines_are_taken_along_where_that_is_set() {
    let mut world = World::new(&[1, 2]);
    world.documents = BTreeMap::from([("d".into(), vec![1]), ("e".into(), vec![2])]);
    world.deployments.push(deployment(2, "e"));
    world.deployments[1].deadline = Some(after(5 * DAY));
    world.pass(HOUR);
    assert!(!world.said().contains(&"install 2".to_owned()));
    world.software.get_mut(&1).unwrap().is_installed = false;
    world.settings.coming_deadlines = Duration::from_secs(7 * DAY);
    world.scanned(Trigger::Reevaluation);
    world.pass(HOUR);
    assert!(world.said().contains(&"install 2".to_owned()));
}

#[test]
fn a_download_makes_room_for_what_is_due() {
    let mut world = World::new(&[1, 2]);
    world.documents = BTreeMap::from([("d".into(), vec![1]), ("e".into(), vec![2])]);
    world.deployments.push(deployment(2, "e"));
    world.deployments[0].deadline = Some(after(HOUR));
    world.deployments[1].deadline = Some(after(5 * DAY));
    world.pass(MINUTE);
    world.cached.remove("file-2");
    let step = world.with(|it, view, dice| it.next(view, dice));
    assert!(matches!(step, Step::File { ref digest, .. } if digest == "file-2"));
    assert!(!world.with(|it, view, _| it.makes_room(view)));
    world.seconds = HOUR;
    assert!(world.with(|it, view, _| it.makes_room(view)));
}
