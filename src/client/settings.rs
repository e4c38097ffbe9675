//! `depot client settings …`: what is set for clients, for all of a site or for one.

use crate::{
    exit::Failure,
    output::{Out, table},
    transport::{Client, Request, path},
    units,
};
use ::client::settings::{Changes, ConfigFiles, MachineKind, Settings};
use api::routes::fleet::ClientSettingsView;
use clap::{Args, Subcommand};
use http::Method;
use std::time::Duration;

/// Commands on the settings of clients.
#[derive(Debug, Subcommand)]
pub enum SettingsCommand {
    /// Show what holds, and where it is set
    #[command(after_help = "\
Examples:
  depot client settings show
  depot client settings show --client pc-17")]
    Show(WhoseArgs),
    /// Set some; what is not given stays as it is
    Set(Box<SetArgs>),
    /// Take back what was set, all of it or the settings that are named
    #[command(after_help = "\
Examples:
  depot client settings clear
  depot client settings clear --client pc-17 scan_every report_every

What is cleared for a client is for it as for all others; what is cleared for all has its default.")]
    Clear {
        /// Which ones, as `depot client settings show` calls them; without any, all
        #[arg(value_name = "SETTING")]
        settings: Vec<String>,
        #[command(flatten)]
        whose: WhoseArgs,
    },
}

/// Whose settings are meant.
#[derive(Debug, Args)]
pub struct WhoseArgs {
    /// Of this client alone, by its id or name; without it, of all
    #[arg(long, value_name = "CLIENT")]
    client: Option<String>,
}

/// What is to be set.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot client settings set --scan-every 1d --report-every 30m
  depot client settings set --client pc-17 --updates-enabled false
  depot client settings set --deadline-spread 2h --restart-countdown 30m

In a tree of sites, what is set for all clients is set at the top, and goes down to all sites.
Clients for which updates are not enabled are told of no update point, so they neither scan nor install.
Those that wait for their policy hear of a change within seconds, the others when they ask next.")]
pub struct SetArgs {
    #[command(flatten)]
    whose: WhoseArgs,
    /// Whether clients scan for updates and install them [default: true]
    #[arg(long, value_name = "true|false", action = clap::ArgAction::Set)]
    updates_enabled: Option<bool>,
    /// How often they ask for their policy: 1m to 1d [default: 1h]
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    poll_every: Option<Duration>,
    /// How often they report states that changed: 1m to 1d [default: 15m]
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    report_every: Option<Duration>,
    /// How long after an installation they report at the latest: 10s to 1h [default: 2m]
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    report_after_install: Option<Duration>,
    /// How often they scan: up to 90d; less than a day counts as a day [default: 7d]
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    scan_every: Option<Duration>,
    /// How often they look whether what was deployed is there: up to 90d; less than a day counts as a day
    /// [default: 7d]
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    reevaluate_every: Option<Duration>,
    /// For how long a catalogue that they fetched is good: 1h to 30d [default: 1d]
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    catalogue_ttl: Option<Duration>,
    /// Over which time after a deadline machines begin, each at a time of its own: up to 2h [default: 0s]
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    deadline_spread: Option<Duration>,
    /// How long after the deadline of a deployment that allows it updates are installed: up to 5d [default: 0s]
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    grace: Option<Duration>,
    /// With updates whose deadline is over install those whose deadline comes within this time: up to 365d; 0s is
    /// none [default: 0s]
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    coming_deadlines: Option<Duration>,
    /// How long an update may take where its deployment does not say: 5m to 9999m [default: 10m]
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    max_run_time: Option<Duration>,
    /// For how long people at a machine see that it is about to restart: 1m to 1d [default: 15m]
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    restart_countdown: Option<Duration>,
    /// For how long they may put that off, all in all: up to 7d [default: 4h]
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    restart_snooze: Option<Duration>,
    /// For how long a file stays in the cache since it was needed last: up to 7d [default: 1d]
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    cache_retention: Option<Duration>,
    /// Above so many MiB what is not needed leaves the cache; what is needed always has room [default: 5120]
    #[arg(long, value_name = "MIB")]
    cache_size: Option<u64>,
    /// What becomes of a configuration file that somebody changed, where an update has another one: it stays, and
    /// the update's lies beside it, or the other way round [default: keep]
    #[arg(long, value_name = "keep|replace", value_parser = config_files)]
    config_files: Option<ConfigFiles>,
    /// What machines count as where deployments leave servers or workstations alone; auto: one with a graphical
    /// login is a workstation [default: auto]
    #[arg(long, value_name = "auto|server|workstation", value_parser = machine_kind)]
    machine_kind: Option<MachineKind>,
    /// Whether an installer that takes longer than it may is ended; else it goes on, and nobody watches
    /// [default: false]
    #[arg(long, value_name = "true|false", action = clap::ArgAction::Set)]
    end_overdue: Option<bool>,
}

fn config_files(text: &str) -> Result<ConfigFiles, String> {
    match text {
        "keep" => Ok(ConfigFiles::Keep),
        "replace" => Ok(ConfigFiles::Replace),
        _ => Err("want keep or replace".into()),
    }
}

fn machine_kind(text: &str) -> Result<MachineKind, String> {
    match text {
        "auto" => Ok(MachineKind::Auto),
        "server" => Ok(MachineKind::Server),
        "workstation" => Ok(MachineKind::Workstation),
        _ => Err("want auto, server or workstation".into()),
    }
}

/// Runs a command on the settings of clients.
pub async fn run(command: SettingsCommand, client: &Client, out: Out) -> Result<(), Failure> {
    let at = |whose: &WhoseArgs| match &whose.client {
        Some(client) => path(&["clients", client, "settings"]),
        None => path(&["client-settings"]),
    };
    let (shown, is_of_one): (ClientSettingsView, bool) = match command {
        SettingsCommand::Show(whose) => (client.get(&at(&whose)).await?, whose.client.is_some()),
        SettingsCommand::Set(args) => {
            let (at, is_of_one) = (at(&args.whose), args.whose.client.is_some());
            let changes = args.changes();
            if changes.is_empty() {
                return Err(Failure::usage(
                    "nothing is set: name a setting, as --report-every 10m; to take one back, use `depot \
                     client settings clear`",
                ));
            }
            let before: ClientSettingsView = client.get(&at).await?;
            (client.put(&at, &before.set.with(&changes)).await?, is_of_one)
        }
        SettingsCommand::Clear { settings, whose } if settings.is_empty() => {
            let clear = Request::new(Method::DELETE, &at(&whose));
            (client.ask(clear).await?, whose.client.is_some())
        }
        SettingsCommand::Clear { settings, whose } => {
            let at = at(&whose);
            let before: ClientSettingsView = client.get(&at).await?;
            (client.put(&at, &without(&before.set, &settings)?).await?, whose.client.is_some())
        }
    };
    out.show(&shown, |w| w.write_all(rows(&shown, is_of_one).as_bytes()))
}

impl SetArgs {
    fn changes(self) -> Changes {
        let seconds = |time: Option<Duration>| time.map(|time| time.as_secs());
        Changes {
            updates_enabled: self.updates_enabled,
            poll_every: seconds(self.poll_every),
            report_every: seconds(self.report_every),
            report_after_install: seconds(self.report_after_install),
            scan_every: seconds(self.scan_every),
            reevaluate_every: seconds(self.reevaluate_every),
            catalogue_ttl: seconds(self.catalogue_ttl),
            deadline_spread: seconds(self.deadline_spread),
            grace: seconds(self.grace),
            coming_deadlines: seconds(self.coming_deadlines),
            max_run_time: seconds(self.max_run_time),
            restart_countdown: seconds(self.restart_countdown),
            restart_snooze: seconds(self.restart_snooze),
            cache_retention: seconds(self.cache_retention),
            cache_size: self.cache_size,
            config_files: self.config_files,
            machine_kind: self.machine_kind,
            end_overdue: self.end_overdue,
        }
    }
}

/// These settings by name, as JSON has them.
fn fields(of: &impl serde::Serialize) -> serde_json::Map<String, serde_json::Value> {
    match serde_json::to_value(of) {
        Ok(serde_json::Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    }
}

fn without(set: &Changes, settings: &[String]) -> Result<Changes, Failure> {
    let (mut fields, known) = (fields(set), fields(&Settings::default()));
    for name in settings {
        let name = name.replace('-', "_");
        if !known.contains_key(&name) {
            let known: Vec<_> = known.keys().map(String::as_str).collect();
            let text = format!("there is no setting {name:?}; want one of {}", known.join(", "));
            return Err(Failure::usage(text));
        }
        fields.remove(&name);
    }
    Ok(serde_json::from_value(fields.into()).unwrap_or_default())
}

fn rows(shown: &ClientSettingsView, is_of_one: bool) -> String {
    let (set, site) = (fields(&shown.set), fields(&shown.site));
    let rows = fields(&shown.effective).into_iter().map(|(name, value)| {
        let from = match (set.contains_key(&name), site.contains_key(&name)) {
            (true, _) if is_of_one => "this client",
            (_, true) => "all clients",
            _ => "default",
        };
        let value = match (value.as_u64(), value.as_str()) {
            (Some(mebibytes), _) if name == "cache_size" => {
                units::bytes(mebibytes.saturating_mul(1 << 20))
            }
            (Some(seconds), _) => units::duration(Duration::from_secs(seconds)),
            (None, Some(word)) => word.to_owned(),
            (None, None) => value.to_string(),
        };
        [name, value, from.to_owned()]
    });
    let mut text = table(["setting", "value", "set for"], rows.collect());
    if let Some(top) = &shown.top {
        text.push_str(&format!("what is set for all clients is set at {top}\n"));
    }
    text
}
