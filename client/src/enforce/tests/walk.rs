//! Walks over a machine's life with whatever may happen in it: things are installed when they may be, and it comes to
//! comply.

use super::super::*;
use super::world::*;
use deployment::enforcement::{Compliance, Enforcement};
use proptest::prelude::*;

/// What may be drawn for a walk.
#[derive(Clone, Debug)]
struct Life {
    available: u64,
    deadline: Option<u64>,
    windows: Vec<(i8, u16)>,
    outside: bool,
    run_time: Option<u16>,
    software: Vec<(bool, bool, u32, u64)>,
    trouble: u64,
    cuts: Vec<u64>,
    /// Hours by which the clock is set at a power cut.
    jumps: Vec<i64>,
    overlay: Option<bool>,
    seed: u64,
}

fn lives() -> impl Strategy<Value = Life> {
    let software = prop::collection::vec((any::<bool>(), any::<bool>(), 0..3u32, 10..600u64), 1..4);
    let times = (0..3 * DAY, prop::option::weighted(0.9, 0..5 * DAY));
    let windows = prop::collection::vec((0..23i8, 15..300u16), 0..3);
    let odd = (any::<bool>(), prop::option::of(5..60u16), 3..50u64);
    let cuts = (prop::collection::vec(1..2_000u64, 0..6), prop::collection::vec(-99..99i64, 0..4));
    let overlay = prop::option::weighted(0.2, any::<bool>());
    (times, windows, odd, software, cuts, overlay, any::<u64>()).prop_map(
        |((available, deadline), windows, odd, software, cuts, overlay, seed)| Life {
            available,
            deadline: deadline.map(|it| available + it),
            windows,
            outside: odd.0,
            run_time: odd.1,
            software,
            trouble: odd.2,
            cuts: cuts.0,
            jumps: cuts.1,
            overlay,
            seed,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn whatever_happens_it_is_installed_when_it_may_be_and_the_machine_comes_to_comply(life in lives()) {
        let ids: Vec<u8> = (1..).take(life.software.len()).collect();
        let mut world = World::new(&ids);
        for (n, (needs_restart, fails_beside, fails, takes)) in ids.iter().zip(&life.software) {
            let software = world.software.get_mut(n).unwrap();
            // What a failed installer left below an overlay nobody sees before a restart, which it is no reason for.
            software.fails_beside = *fails_beside && life.overlay != Some(true);
            (software.needs_restart, software.fails, software.takes) = (*needs_restart, *fails, *takes);
        }
        let it = &mut world.deployments[0];
        it.available = after(life.available);
        it.deadline = life.deadline.map(after);
        it.experience.outside_windows.install = life.outside;
        it.experience.max_run_time = life.run_time;
        world.windows = life.windows.iter().map(|(hour, minutes)| daily(*hour, *minutes)).collect();
        world.trouble = life.trouble;
        world.dice = life.seed | 1;
        if let Some(commits) = life.overlay {
            world.machine.has_overlay = true;
            world.deployments[0].experience.commit = commits;
        }
        let (mut cuts, mut jumps) = (life.cuts.clone(), life.jumps.clone());
        let need = u64::from(life.run_time.unwrap_or(10));
        // Five days with trouble, and then without, in steps of ten minutes and an evaluation each week.
        let mut steps = 0;
        while world.seconds < 22 * DAY {
            steps += 1;
            world.act();
            if cuts.contains(&steps) {
                cuts.retain(|it| *it != steps);
                world.power_cut();
                world.ahead = jumps.pop().unwrap_or(0) * HOUR as i64;
            }
            let is_idle = world.with(|it, _, _| !it.is_busy()) || world.doing.as_ref().is_some_and(|it| it.1 > world.seconds);
            if is_idle && !world.act() {
                let was = world.seconds;
                world.seconds += 600;
                if was / (7 * DAY) != world.seconds / (7 * DAY) && world.doing.is_none() {
                    world.scanned(Trigger::Reevaluation);
                }
            }
            if world.seconds > 5 * DAY {
                world.trouble = u64::MAX;
                cuts.clear();
                world.ahead = 0;
            }
        }
        let done = world.done.clone();
        for (at, what) in &done {
            let wall = start() + jiff::SignedDuration::from_secs(*at);
            let windows = Windows { windows: &world.windows, local: &TimeZone::UTC };
            let rest = windows.open(wall).map_or(0, |it| it.until.duration_since(wall).as_secs()) as u64;
            if what.starts_with("file") {
                prop_assert!(*at >= life.available as i64 && life.deadline.is_some());
            }
            if what.starts_with("install") {
                prop_assert!(life.deadline.is_some_and(|deadline| deadline as i64 <= *at), "{at}: {done:?}");
                let is_free = life.outside || world.windows.is_empty();
                prop_assert!(is_free || rest >= need * MINUTE, "{at}: {rest} s are left; {done:?}");
            }
            if what == "restart" {
                prop_assert!(life.deadline.is_some_and(|deadline| deadline as i64 <= *at));
                prop_assert!(world.windows.is_empty() || rest > 0);
            }
        }
        let restarts = done.iter().filter(|(_, what)| what == "restart").count();
        prop_assert!(restarts <= 12, "{restarts} restarts: {done:?}");
        let longest = world.windows.iter().map(|it| u64::from(it.minutes())).max();
        let fits = life.outside || longest.is_none_or(|it| it >= need);
        // What needs a restart and lies in an overlay comes to nothing.
        let is_vain = life.overlay == Some(false) && life.software.iter().any(|it| it.0);
        prop_assert!(!is_vain || restarts == 0);
        if life.deadline.is_some() && fits && !is_vain {
            let (compliance, enforcement) = world.standing();
            prop_assert_eq!(compliance, Compliance::Compliant, "{:?}: {:?}", world.listed(), done);
            prop_assert_eq!(enforcement, Enforcement::Succeeded);
        }
    }
}
