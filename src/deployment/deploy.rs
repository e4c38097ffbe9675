//! `depot deploy`: a group of updates goes to a collection of machines.

use super::{at, shown};
use crate::{
    exit::{Exit, Failure},
    job::{self, Ended},
    output::{Out, facts},
    transport::{Client, Request},
    units,
};
use ::deployment::moment::{ClockOf, typed};
use ::deployment::policy::{Detail, Experience, OutsideWindows, SuppressRestart, Visibility};
use api::routes::deployments::{
    DeploymentPreview, DeploymentView, DownloadedDeployment, NewDeployment,
};
use clap::{Args, ValueEnum};
use http::Method;
use jiff::{Timestamp, tz::TimeZone};

/// Deploy a group of updates to a collection of machines
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot deploy november --collection pilot --deadline '+2d 03:00' --package november
  depot deploy november --collection all --available '2026-12-08 20:00' --deadline '2026-12-10 03:00' \\
      --suppress-restart servers --alert-below 90%
  depot deploy tools --collection all --optional
  depot deploy november --collection pilot --deadline +2d --dry-run

Times: now, +36h, +2d, `+2d 03:00` (the day after tomorrow at three), `2026-12-01 22:00`, 2026-12-01T22:00:00Z.
Those without a zone are in UTC; with --local-time, by the clock of each client. What comes into the group
or the collection later is deployed too. Files that are in no package have to be brought first: --package.")]
pub struct DeployArgs {
    /// The group of updates
    group: String,
    /// The collection of machines
    #[arg(long, value_name = "COLLECTION")]
    collection: String,
    /// What it is called [default: after group and collection]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// What it is for
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    comment: String,
    /// From when updates may be installed
    #[arg(long, value_name = "TIME", default_value = "now")]
    available: String,
    /// When they must be
    #[arg(long, value_name = "TIME", required_unless_present = "optional")]
    deadline: Option<String>,
    /// They wait for the user of each machine
    #[arg(long, conflicts_with = "deadline")]
    optional: bool,
    /// Times are by the clock of each client
    #[arg(long)]
    local_time: bool,
    /// Bring files that are in no package into this one first
    #[arg(long, value_name = "PACKAGE")]
    package: Option<String>,
    /// Of files that are for one language alone, bring those for these [default: all]
    #[arg(long, value_name = "LANGUAGE", value_delimiter = ',', requires = "package")]
    language: Vec<String>,
    /// Deploy though files are in no package: machines cannot get those updates
    #[arg(long)]
    allow_missing: bool,
    /// Accept the terms of all updates that have any
    #[arg(long)]
    accept_licences: bool,
    /// Make it, and tell clients nothing of it yet
    #[arg(long)]
    disabled: bool,
    /// Warn if fewer machines comply once the deadline is over: 90%
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    alert_below: Option<u8>,
    /// Say what it would come to, and make nothing
    #[arg(long)]
    dry_run: bool,
    /// Print the job's id and leave it running, if files are brought first
    #[arg(long)]
    detach: bool,
    /// How it is carried out.
    #[command(flatten)]
    experience: ExperienceArgs,
}

/// How a deployment is carried out on a machine.
#[derive(Debug, Default, PartialEq, Args)]
pub struct ExperienceArgs {
    /// What the user of a machine sees of it [default: all]
    #[arg(long, value_name = "WHAT")]
    pub visibility: Option<VisibilityWord>,
    /// Machines that it does not restart: servers, workstations, none
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    pub suppress_restart: Vec<Machines>,
    /// At the deadline, install though no maintenance window is open
    #[arg(long)]
    pub install_outside_windows: bool,
    /// At the deadline, restart though no maintenance window is open
    #[arg(long)]
    pub restart_outside_windows: bool,
    /// On machines with a write filter, take it off at the deadline or in a window, so that updates stay (the default)
    #[arg(long)]
    pub commit_at_window: bool,
    /// On machines with a write filter, install to the overlay, which a restart empties
    #[arg(long, conflicts_with = "commit_at_window")]
    pub no_commit: bool,
    /// Scan again right after the restart, and install what became applicable in the same window
    #[arg(long)]
    pub rescan_after_restart: bool,
    /// Bring files before the available time, so that nothing is offered that is not on the machine
    #[arg(long)]
    pub predownload: bool,
    /// The grace period that is set for clients counts
    #[arg(long)]
    pub grace: bool,
    /// All at the deadline itself, not spread over the time that is set for clients
    #[arg(long)]
    pub no_spread: bool,
    /// How long one update may take, from 5m to 9999m
    #[arg(long, value_name = "LENGTH", value_parser = minutes)]
    pub max_run_time: Option<u16>,
    /// Clients tell of failures and of the end alone
    #[arg(long)]
    pub errors_only: bool,
}

/// What a user sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum VisibilityWord {
    /// All of it
    All,
    /// Only that the machine will restart
    Restarts,
    /// Nothing
    Hidden,
}

/// Kinds of machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Machines {
    /// Servers
    Servers,
    /// Workstations
    Workstations,
    /// Neither
    None,
}

/// A percentage, with its sign or without.
pub fn percent(text: &str) -> Result<u8, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim().parse();
    let percent = number.ok().filter(|percent| (1..=100).contains(percent));
    percent.ok_or_else(|| "want a percentage from 1% to 100%".to_owned())
}

fn minutes(text: &str) -> Result<u16, String> {
    let minutes = units::parse_duration(text)?.as_secs() / 60;
    let minutes = u16::try_from(minutes).ok();
    let fits = minutes.filter(|it| ::deployment::deployment::RUN_TIMES.contains(it));
    fits.ok_or_else(|| "want a length from 5m to 9999m".to_owned())
}

impl ExperienceArgs {
    /// Lays what was said on what is.
    pub fn lay_on(&self, to: &mut Experience) {
        if let Some(visibility) = self.visibility {
            to.visibility = match visibility {
                VisibilityWord::All => Visibility::All,
                VisibilityWord::Restarts => Visibility::Restarts,
                VisibilityWord::Hidden => Visibility::Hidden,
            };
        }
        if !self.suppress_restart.is_empty() {
            let has = |kind| self.suppress_restart.contains(&kind);
            to.suppress_restart = SuppressRestart {
                servers: has(Machines::Servers),
                workstations: has(Machines::Workstations),
            };
        }
        to.outside_windows = OutsideWindows {
            install: to.outside_windows.install || self.install_outside_windows,
            restart: to.outside_windows.restart || self.restart_outside_windows,
        };
        to.commit = (to.commit || self.commit_at_window) && !self.no_commit;
        to.rescan_after_restart |= self.rescan_after_restart;
        to.predownload |= self.predownload;
        to.grace |= self.grace;
        to.spread &= !self.no_spread;
        to.max_run_time = self.max_run_time.or(to.max_run_time);
        if self.errors_only {
            to.detail = Detail::Errors;
        }
    }
}

/// A time that a person typed, as it travels.
pub fn time(option: &str, text: &str, is_local: bool) -> Result<String, Failure> {
    let clock = if is_local { ClockOf::Client } else { ClockOf::Utc };
    let read = typed(text, Timestamp::now(), &TimeZone::system(), clock);
    read.map(|when| when.to_string())
        .map_err(|error| Failure::new(Exit::Usage, format!("--{option}: {error}")))
}

/// Makes a deployment.
pub async fn run(args: DeployArgs, client: &Client, out: Out) -> Result<(), Failure> {
    let mut experience = Experience::default();
    args.experience.lay_on(&mut experience);
    let new = NewDeployment {
        group: args.group,
        collection: args.collection,
        name: args.name,
        comment: args.comment,
        available: Some(time("available", &args.available, args.local_time)?),
        deadline: args.deadline.map(|text| time("deadline", &text, args.local_time)).transpose()?,
        experience,
        enabled: !args.disabled,
        alert_below: args.alert_below,
        accept_licences: args.accept_licences,
        allow_missing: args.allow_missing,
        package: args.package,
        languages: args.language,
    };
    if args.dry_run {
        let preview: DeploymentPreview = client.post("/deployment-preview", &new).await?;
        return out.show(&preview, |w| w.write_all(previewed(&new, &preview).as_bytes()));
    }
    let request = Request::new(Method::POST, "/deployments").json(&new)?;
    if new.package.is_none() {
        let made: DeploymentView = client.ask(request).await?;
        return out.show(&made, |w| w.write_all(shown(&made).as_bytes()));
    }
    // What is held already is deployed at once; else a job brings files first.
    match job::start_or_done::<DownloadedDeployment, DeploymentView>(
        client,
        request,
        out,
        args.detach,
    )
    .await?
    {
        job::Started::Job(Ended::Detached) => Ok(()),
        job::Started::Job(Ended::Done { result, .. }) => out.show(&result.deployment, |w| {
            let brought = result.download.outcomes.len() as u64;
            writeln!(w, "{} brought", units::counted(brought, "file", "files"))?;
            w.write_all(shown(&result.deployment).as_bytes())
        }),
        job::Started::Done(made) => out.show(&made, |w| w.write_all(shown(&made).as_bytes())),
    }
}

fn previewed(new: &NewDeployment, it: &DeploymentPreview) -> String {
    let names = |all: &[api::routes::updates::NamedUpdate]| {
        all.iter().map(|update| update.name.as_str()).collect::<Vec<_>>().join(", ")
    };
    let some = |n: u64, what: &str| match n {
        0 => String::new(),
        n => format!("{} {what}", units::count(n)),
    };
    let mut rows = vec![
        ("would be made", it.name.clone()),
        ("available", new.available.as_deref().map(at).unwrap_or_default()),
        ("deadline", new.deadline.as_deref().map_or_else(|| "none".to_owned(), at)),
        ("updates", units::count(it.updates)),
        ("clients", units::count(it.targets)),
        ("no windows", some(it.without_windows, "may be changed at any time")),
        ("expired", some(it.expired, "would not be deployed")),
        ("superseded", some(it.superseded, "are replaced by others")),
        ("metadata-only", some(it.metadata_only, "have nothing to install")),
        (
            "not in a package",
            match it.missing {
                0 => String::new(),
                n => format!("⇊ {}: {}", units::count(n), names(&it.missing_updates)),
            },
        ),
        ("terms to accept", names(&it.licences)),
    ];
    rows.retain(|(_, value)| !value.is_empty());
    facts(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_and_lengths_have_limits() {
        assert_eq!((percent("90%"), percent("5")), (Ok(90), Ok(5)));
        assert!(percent("0").is_err() && percent("101%").is_err() && percent("x").is_err());
        assert_eq!(minutes("2h"), Ok(120));
        assert!(minutes("4m").is_err() && minutes("10000m").is_err());
    }
}
