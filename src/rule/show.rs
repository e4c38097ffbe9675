//! Rules, their previews, runs and rings, as people read them.

use crate::{
    exit::Failure,
    output::{Out, facts, table},
    transport::{Client, path},
    units,
};
use api::routes::deployments::{
    ChangedMember, RingChainView, RulePreview, RuleRunView, RuleView, WaitingView,
};
use serde_json::json;
use std::io::{self, Write};

/// Shows a rule and its rings.
pub async fn rule(rule: &str, client: &Client, out: Out) -> Result<(), Failure> {
    let view: RuleView = client.get(&path(&["rules", rule])).await?;
    let chains: Vec<RingChainView> = client.get(&path(&["rules", rule, "rings"])).await?;
    if out.json {
        let mut json = serde_json::to_value(&view)?;
        json["rings"] = serde_json::to_value(&chains)?;
        return out.json_line(&json);
    }
    let word = |word: serde_json::Value| word.as_str().unwrap_or_default().to_owned();
    let mut rows = vec![
        ("rule", view.name.clone()),
        ("description", view.description.clone()),
        ("enabled", if view.enabled { "yes" } else { "no" }.into()),
        ("criteria", view.criteria.clone()),
        ("licence terms", word(json!(view.licences))),
        ("evaluated", view.evaluation.clone()),
        ("next", view.next.map(units::when).unwrap_or_default()),
        ("tried again", view.again.map(units::when).unwrap_or_default()),
        ("group", word(json!(view.group))),
        ("groups kept", view.keep_groups.map(|n| n.to_string()).unwrap_or_default()),
        ("package", view.package.clone().unwrap_or_default()),
        ("languages", view.languages.join(", ")),
        ("runs", units::count(view.runs)),
        ("is run", if view.running { "now" } else { "" }.into()),
    ];
    rows.retain(|(_, value)| !value.is_empty());
    let deployments = view.deployments.iter().map(|it| {
        let ring = it.ring.as_ref().map(|ring| {
            let hand = if ring.by_hand { ", by hand" } else { "" };
            format!("{} d, {} %, halt {}{hand}", ring.after_days, ring.success, ring.halt)
        });
        [
            it.name.clone(),
            it.collection.clone(),
            if it.enabled { "yes" } else { "no" }.into(),
            it.available.clone(),
            it.deadline.clone().unwrap_or_else(|| "optional".into()),
            ring.unwrap_or_default(),
        ]
    });
    let columns = ["deployment", "collection", "enabled", "available", "deadline", "ring"];
    let deployments = table(columns, deployments.collect());
    out.show(&view, |w| {
        w.write_all(facts(&rows).as_bytes())?;
        if !view.deployments.is_empty() {
            writeln!(w)?;
            w.write_all(deployments.as_bytes())?;
        }
        chains.iter().try_for_each(|it| {
            writeln!(w)?;
            chain(w, it)
        })
    })
}

/// Shows the rings of one group.
pub fn chain(w: &mut dyn Write, it: &RingChainView) -> io::Result<()> {
    writeln!(w, "group {}", it.group)?;
    if let Some(halted) = &it.halted {
        writeln!(w, "halted: {halted}")?;
    }
    let rows = it.rings.iter().map(|ring| {
        let opened = ring.opened.map(|at| format!("since {}", units::when(at)));
        [
            ring.deployment.clone(),
            ring.state.clone(),
            opened.unwrap_or_else(|| ring.why.clone()),
            units::count(ring.machines),
            units::count(ring.succeeded),
            units::count(ring.failed),
        ]
    });
    let columns = ["deployment", "state", "", ">machines", ">have it", ">failed"];
    w.write_all(table(columns, rows.collect()).as_bytes())
}

/// Shows what a run would come to.
pub fn preview(it: &RulePreview, out: Out) -> Result<(), Failure> {
    it.hints.iter().for_each(|hint| out.note(hint));
    out.show(it, |w| {
        let meant = units::counted(it.matched, "update", "updates");
        writeln!(w, "rule {} means {meant}, {}", it.rule, units::bytes(it.bytes))?;
        if let Some(group) = &it.compared_with {
            writeln!(w, "against group {group}: {} stay", units::count(it.kept))?;
        }
        for (sign, all, n) in [
            ("+", &it.added, it.n_added),
            ("-", &it.removed, it.n_removed),
            ("!", &it.left_out, it.n_left_out),
        ] {
            members(w, sign, all, n)?;
        }
        if it.to_bring > 0 {
            writeln!(
                w,
                "files of {} are brought first",
                units::counted(it.to_bring, "update", "updates")
            )?;
        }
        if it.would_wait > 0 {
            let waits = units::counted(it.would_wait, "update", "updates");
            writeln!(
                w,
                "files of {waits} are in no package, and the rule has none: they would wait"
            )?;
        }
        for to in &it.deployments {
            let machines = units::counted(to.machines, "machine", "machines");
            let when = match (&to.available, &to.deadline) {
                (Some(from), Some(until)) => format!("available {from}, deadline {until}"),
                (Some(from), None) => format!("available {from}, optional"),
                _ => format!("after {}", to.waits),
            };
            writeln!(w, "deployment {} to {} ({machines}): {when}", to.name, to.collection)?;
        }
        if it.deployments.is_empty() {
            writeln!(w, "it is deployed to nobody: updates are only grouped")?;
        }
        Ok(())
    })
}

fn members(w: &mut dyn Write, sign: &str, all: &[ChangedMember], n: u64) -> io::Result<()> {
    for it in all {
        let name = if it.name.is_empty() { &it.id } else { &it.name };
        let why = if it.why.is_empty() { it.title.clone() } else { it.why.clone() };
        writeln!(w, "{sign} {name}  {why}")?;
    }
    let more = n.saturating_sub(all.len() as u64);
    if more > 0 { writeln!(w, "{sign} and {} more", units::count(more)) } else { Ok(()) }
}

/// Shows what a run that was waited for came to; a failure, if it failed.
pub fn ran(rule: &str, run: &RuleRunView, out: Out) -> Result<(), Failure> {
    self::run(run, out)?;
    match result(run).as_str() {
        "failed" => Err(Failure::failed(format!("rule {rule} failed: {}", run.detail))),
        "partial" => Err(Failure::failed(format!(
            "{} of rule {rule} wait for files, and are tried again",
            units::counted(run.waiting.len() as u64, "update", "updates")
        ))),
        _ => Ok(()),
    }
}

fn result(run: &RuleRunView) -> String {
    match run.result {
        Some(result) => json!(result).as_str().unwrap_or_default().to_owned(),
        None => format!("at {}", json!(run.step).as_str().unwrap_or_default()),
    }
}

fn cause(run: &RuleRunView) -> String {
    match (run.cause.as_str(), &run.of) {
        ("asked", Some(by)) => format!("asked by {by}"),
        ("again", Some(of)) => format!("run {of} again"),
        (cause, _) => cause.to_owned(),
    }
}

/// Shows one run.
pub fn run(it: &RuleRunView, out: Out) -> Result<(), Failure> {
    let mut rows = vec![
        ("run", it.number.to_string()),
        ("because", cause(it)),
        ("scheduled", units::when(it.scheduled)),
        ("began", units::when(it.started)),
        ("ended", it.ended.map(units::when).unwrap_or_default()),
        ("result", result(it)),
        ("detail", it.detail.clone()),
        ("group", it.group.clone().unwrap_or_default()),
        ("meant", units::count(it.matched)),
        ("added", units::count(it.added)),
        ("removed", units::count(it.removed)),
        ("stayed", units::count(it.kept)),
        ("gone on with", if it.resumed > 0 { it.resumed.to_string() } else { String::new() }),
    ];
    rows.retain(|(_, value)| !value.is_empty());
    out.show(it, |w| {
        w.write_all(facts(&rows).as_bytes())?;
        for (title, all) in
            [("waiting", &it.waiting), ("removed", &it.went), ("left out", &it.left_out)]
        {
            named(w, title, all)?;
        }
        Ok(())
    })
}

fn named(w: &mut dyn Write, title: &str, all: &[WaitingView]) -> io::Result<()> {
    if all.is_empty() {
        return Ok(());
    }
    writeln!(w)?;
    let rows = all.iter().map(|it| {
        [if it.name.is_empty() { it.id.clone() } else { it.name.clone() }, it.why.clone()]
    });
    w.write_all(table([title, "why"], rows.collect()).as_bytes())
}

/// Shows the runs of a rule.
pub fn history(all: &Vec<RuleRunView>, out: Out) -> Result<(), Failure> {
    let rows = all.iter().map(|it| {
        [
            it.number.to_string(),
            units::when(it.started),
            cause(it),
            result(it),
            it.group.clone().unwrap_or_default(),
            units::count(it.added),
            units::count(it.removed),
            units::count(it.waiting.len() as u64),
            it.detail.clone(),
        ]
    });
    let columns =
        [">run", "began", "because", "result", "group", ">added", ">removed", ">waiting", "detail"];
    out.show(all, |w| w.write_all(table(columns, rows.collect()).as_bytes()))
}
