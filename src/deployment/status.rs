//! `depot deployment status`, `devices` and `device`: how far a deployment is.

use super::at;
use crate::{
    exit::Failure,
    output::{Out, facts, table, written},
    transport::{Client, path},
    units,
};
use api::deployed::Content;
use api::routes::deployments::{
    DeploymentDeviceDetail, DeploymentDeviceView, DeploymentStatusView,
};
use clap::Args;
use std::time::Duration;

/// How often a status that is watched is asked for.
const EVERY: Duration = Duration::from_secs(2);

/// How far a deployment is.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot deployment status november-pilot
  depot deployment status november-pilot --watch
  depot deployment status november-pilot --json | jq .percent")]
pub struct StatusArgs {
    /// Its name or id
    deployment: String,
    /// Print it again whenever it changes, until all comply; Ctrl-C ends the watching
    #[arg(long)]
    watch: bool,
}

/// Which machines are listed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot deployment devices november-pilot --state failed
  depot deployment devices november-pilot --error 100
  depot deployment devices november-pilot --csv > november.csv

States: compliant, non-compliant; unknown, installing, waiting-for-restart, waiting-for-another, succeeded,
pending-restart, failed, downloading, downloaded, download-failed, waiting-for-window, waiting-for-turn;
never-fits (no maintenance window is long enough), in-overlay (it is lost with the next restart).")]
pub struct DevicesArgs {
    /// Its name or id
    deployment: String,
    /// Only those that are so far
    #[arg(long, value_name = "STATE")]
    state: Option<String>,
    /// Only those that failed with this code
    #[arg(long, value_name = "CODE", allow_hyphen_values = true)]
    error: Option<i64>,
    /// Print comma-separated values (RFC 4180), with a head
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    /// At most this many [default: all]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

/// Says how far it is, again and again if it is watched.
pub async fn status(args: StatusArgs, client: &Client, out: Out) -> Result<(), Failure> {
    let mut last: Option<DeploymentStatusView> = None;
    loop {
        let at = path(&["deployments", &args.deployment, "status"]);
        let now: DeploymentStatusView = client.get(&at).await?;
        if last.as_ref() != Some(&now) {
            out.show(&now, |w| w.write_all(shown(&now).as_bytes()))?;
        }
        if !args.watch || now.percent == Some(100) {
            return Ok(());
        }
        last = Some(now);
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            _ = tokio::signal::ctrl_c() => return Err(Failure::interrupted()),
        }
    }
}

/// Lists machines.
pub async fn devices(args: DevicesArgs, client: &Client, out: Out) -> Result<(), Failure> {
    let at = path(&["deployments", &args.deployment, "devices"]);
    let error = args.error.map(|code| code.to_string());
    let query = [("state", args.state.as_deref()), ("error", error.as_deref())];
    let limit = args.limit.unwrap_or(usize::MAX);
    let found: Vec<DeploymentDeviceView> = client.list(&at, &query, limit).await?;
    let cells = |it: &DeploymentDeviceView| {
        let mut marks = Vec::new();
        marks.extend(it.never_fits.then_some("never fits"));
        marks.extend(it.in_overlay.then_some("in overlay"));
        [
            it.name.clone(),
            it.client.clone(),
            it.compliance.clone(),
            it.enforcement.clone(),
            it.code.map(|code| code.to_string()).unwrap_or_default(),
            it.detail.clone().unwrap_or_default(),
            marks.join(", "),
        ]
    };
    if args.csv {
        return written(|w| {
            writeln!(w, "name,client,compliance,enforcement,since,code,detail,heard\r")?;
            for it in &found {
                let time = |at: Option<jiff::Timestamp>| at.map(|at| at.to_string());
                let code = it.code.map(|code| code.to_string());
                let cells = [
                    it.name.clone(),
                    it.client.clone(),
                    it.compliance.clone(),
                    it.enforcement.clone(),
                    time(it.since).unwrap_or_default(),
                    code.unwrap_or_default(),
                    it.detail.clone().unwrap_or_default(),
                    time(it.heard).unwrap_or_default(),
                ];
                writeln!(w, "{}\r", cells.map(|cell| crate::compliance::quoted(&cell)).join(","))?;
            }
            Ok(())
        });
    }
    let columns = ["name", "client", "compliance", "state", ">code", "detail", "marks"];
    let rows = found.iter().map(cells).collect();
    out.show(&found, |w| w.write_all(table(columns, rows).as_bytes()))
}

/// Shows one machine.
pub async fn device(
    deployment: &str,
    machine: &str,
    client: &Client,
    out: Out,
) -> Result<(), Failure> {
    let at = path(&["deployments", deployment, "devices", machine]);
    let found: DeploymentDeviceDetail = client.get(&at).await?;
    let it = &found.device;
    let mut rows = vec![
        ("client", it.name.clone()),
        ("compliance", it.compliance.clone()),
        ("state", it.enforcement.clone()),
        ("since", it.since.map(units::when).unwrap_or_default()),
        ("evaluation", it.evaluation.clone()),
        ("code", it.code.map(|code| code.to_string()).unwrap_or_default()),
        ("detail", it.detail.clone().unwrap_or_default()),
        ("windows", if it.never_fits { "none is long enough".into() } else { String::new() }),
        (
            "overlay",
            if it.in_overlay { "lost with the next restart".into() } else { String::new() },
        ),
        ("heard", it.heard.map(units::when).unwrap_or_default()),
    ];
    rows.retain(|(_, value)| !value.is_empty());
    let updates = found.updates.iter().map(|update| {
        [
            update.name.clone().unwrap_or_else(|| update.update.clone()),
            update.state.clone(),
            units::when(update.since),
            update.code.map(|code| code.to_string()).unwrap_or_default(),
            update.detail.clone().unwrap_or_default(),
        ]
    });
    let updates = table(["update", "state", "since", ">code", "detail"], updates.collect());
    out.show(&found, |w| {
        w.write_all(facts(&rows).as_bytes())?;
        writeln!(w)?;
        w.write_all(updates.as_bytes())
    })
}

fn shown(it: &DeploymentStatusView) -> String {
    let counts = |all: &std::collections::BTreeMap<String, u64>| {
        let each = all.iter().map(|(word, n)| format!("{} {word}", units::count(*n)));
        each.collect::<Vec<_>>().join(", ")
    };
    let some = |n: u64, what: &str| match n {
        0 => String::new(),
        n => format!("{} {what}", units::counted(n, "client", "clients")),
    };
    let content = match it.content {
        Content::Missing => format!(
            "⇊ {} missing: machines cannot get {}",
            units::counted(it.missing, "update", "updates"),
            if it.missing == 1 { "it" } else { "them" }
        ),
        Content::Held | Content::None => "held".to_owned(),
    };
    let percent = it.percent.map(|percent| format!("{percent} %")).unwrap_or_default();
    let mut rows = vec![
        ("deployment", it.name.clone()),
        ("state", if it.enabled { "enabled".into() } else { "disabled".into() }),
        ("content", content),
        ("available", at(&it.available)),
        ("deadline", it.deadline.as_deref().map_or_else(|| "optional".into(), at)),
        ("clients", format!("{}, {} told of it", units::count(it.targets), units::count(it.told))),
        ("comply", percent),
        ("compliance", counts(&it.compliance)),
        ("enforcement", counts(&it.enforcement)),
        ("evaluation", counts(&it.evaluation)),
        ("never fits", some(it.never_fits, "without a window that is long enough")),
        ("in overlay", some(it.in_overlay, "lose it with the next restart")),
    ];
    if let Some(below) = it.alert_below {
        rows.push(("ALERT", format!("below {below} % after the deadline")));
    }
    rows.retain(|(_, value)| !value.is_empty());
    let mut all = facts(&rows);
    if !it.errors.is_empty() {
        let errors = it.errors.iter().map(|error| {
            let example = error.example.clone().unwrap_or_default();
            [error.code.to_string(), units::count(error.clients), example]
        });
        all.push('\n');
        all.push_str(&table([">code", ">clients", "for example"], errors.collect()));
    }
    all
}
