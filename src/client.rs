//! `depot client …`: the machines of the fleet, how they come in, and what is set for them.

mod fallback;
mod join_token;
mod settings;

use crate::{
    exit::Failure,
    output::{Out, confirm, facts, table},
    transport::{Client, Request, path},
    units,
};
use ::client::scan::retry::Class;
use api::routes::fleet::{ClientPackageView, ClientView, StandingView};
use clap::{Args, Subcommand, builder::NonEmptyStringValueParser};
use fallback::FallbackCommand;
use http::Method;
use join_token::JoinTokenCommand;
use settings::SettingsCommand;

/// Commands on clients.
#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    /// Let machines in: create, list, revoke join tokens
    #[command(
        subcommand,
        after_help = "\
Examples:
  depot client join-token create --name office-image --uses 500 --output office.token
  depot client join-token list"
    )]
    JoinToken(JoinTokenCommand),
    /// List clients, in the order in which they came
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Show a client
    #[command(after_help = "\
Examples:
  depot client show pc-17
  depot client packages pc-17                       # what is installed on it
  depot compliance client pc-17 --state required    # which updates it needs")]
    Show {
        /// Its id, or its name if no other has it
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        client: String,
    },
    /// List the packages that are installed on a client
    #[command(after_help = "\
Examples:
  depot client packages pc-17
  depot client packages pc-17 --search openssl --json")]
    Packages {
        /// Its id, or its name if no other has it
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        client: String,
        /// Only those whose name contains this
        #[arg(long, value_name = "TEXT")]
        search: Option<String>,
        /// At most this many [default: all]
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
    },
    /// Approve a client: it may report from now on
    #[command(after_help = "\
Examples:
  depot client approve pc-17
  depot client list --standing pending --json | jq -r '.[].id' | xargs -n1 depot client approve")]
    Approve {
        /// Its id, or its name if no other has it
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        client: String,
    },
    /// Block a client: it is refused at once
    #[command(after_help = "\
Examples:
  depot client block pc-17

What it reported stays until it is removed. To let it in again: depot client approve pc-17")]
    Block {
        /// Its id, or its name if no other has it
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        client: String,
    },
    /// Remove a client, and all that it reported
    #[command(
        visible_alias = "rm",
        after_help = "\
Examples:
  depot client remove pc-17
  depot client remove pc-17 --yes

To come back, it joins with a token. A machine that was set up anew is removed first, as its new key is
not that of the client that it was."
    )]
    Remove {
        /// Its id, or its name if no other has it
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        client: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// What machines say that cannot say it as clients: list
    #[command(
        subcommand,
        after_help = "\
Examples:
  depot client fallback list"
    )]
    Fallback(FallbackCommand),
    /// What is set for clients, all or one: show, set, clear
    #[command(
        subcommand,
        after_help = "\
Examples:
  depot client settings show
  depot client settings set --updates-enabled false"
    )]
    Settings(SettingsCommand),
}

/// Which clients are listed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot client list --standing pending
  depot client list --search pc- --limit 1000 --json | jq -r '.[] | select(.returns > 0) | .name'

A client that has RETURNS shares its identity with another machine: one is a copy of the other. Where it stays at 1,
it may be one machine whose disk was put back. `depot client show` says what to do.")]
pub struct ListArgs {
    /// Only those of this standing: pending, approved, blocked
    #[arg(long, value_name = "STANDING")]
    standing: Option<String>,
    /// Only those whose name or id contains this
    #[arg(long, value_name = "TEXT")]
    search: Option<String>,
    /// At most this many
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
}

/// Runs a command on clients.
pub async fn run(command: ClientCommand, client: &Client, out: Out) -> Result<(), Failure> {
    match command {
        ClientCommand::JoinToken(command) => join_token::run(command, client, out).await,
        ClientCommand::List(args) => list(args, client, out).await,
        ClientCommand::Show { client: which } => {
            let found: ClientView = client.get(&path(&["clients", &which])).await?;
            out.show(&found, |w| w.write_all(shown(&found).as_bytes()))
        }
        ClientCommand::Packages { client: which, search, limit } => {
            let at = path(&["clients", &which, "packages"]);
            let query = [("search", search.as_deref())];
            let found: Vec<ClientPackageView> =
                client.list(&at, &query, limit.unwrap_or(usize::MAX)).await?;
            let rows =
                found.iter().map(|it| [it.name.clone(), it.version.clone(), it.arch.clone()]);
            let columns = ["package", "version", "architecture"];
            out.show(&found, |w| w.write_all(table(columns, rows.collect()).as_bytes()))
        }
        ClientCommand::Approve { client: which } => {
            let at = path(&["clients", &which, "approve"]);
            let now: ClientView = client.ask(Request::new(Method::POST, &at)).await?;
            out.show(&now, |w| writeln!(w, "{} may report from now on", now.name))
        }
        ClientCommand::Block { client: which } => {
            let at = path(&["clients", &which, "block"]);
            let now: ClientView = client.ask(Request::new(Method::POST, &at)).await?;
            out.show(&now, |w| writeln!(w, "{} is refused from now on", now.name))
        }
        ClientCommand::Remove { client: which, yes } => {
            confirm(&format!("this forgets client {which} and all that it reported"), yes)?;
            let at = path(&["clients", &which]);
            let was: ClientView = client.ask(Request::new(Method::DELETE, &at)).await?;
            out.show(&was, |w| writeln!(w, "{} is forgotten", was.name))
        }
        ClientCommand::Fallback(command) => fallback::run(command, client, out).await,
        ClientCommand::Settings(command) => settings::run(command, client, out).await,
    }
}

async fn list(args: ListArgs, client: &Client, out: Out) -> Result<(), Failure> {
    let query = [("standing", args.standing.as_deref()), ("search", args.search.as_deref())];
    let clients: Vec<ClientView> = client.list("/clients", &query, args.limit).await?;
    let rows = clients.iter().map(|client| {
        [
            client.name.clone(),
            client.id.clone(),
            standing(client.standing).to_owned(),
            system(client),
            client.heard.map(units::when).unwrap_or_default(),
            client.scanned.map(units::when).unwrap_or_default(),
            units::count(client.states.into()),
            client.returns.to_string(),
            client.site.clone().unwrap_or_default(),
        ]
    });
    let columns =
        ["name", "id", "standing", "system", "heard", "scanned", ">states", ">returns", "site"];
    out.show(&clients, |w| w.write_all(table(columns, rows.collect()).as_bytes()))
}

fn shown(client: &ClientView) -> String {
    let when = |at: Option<jiff::Timestamp>| at.map_or("never".to_owned(), units::when);
    let scanned = match client.scan_failed {
        Some(code) => {
            let meaning = Class::of_code(code).map(|class| format!(": {}", class.in_words()));
            format!(
                "{}, failed with code {code}{}",
                when(client.scanned),
                meaning.unwrap_or_default()
            )
        }
        None => when(client.scanned),
    };
    let addresses: Vec<String> = client.addresses.iter().map(ToString::to_string).collect();
    let attributes: Vec<String> =
        client.attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut rows = vec![
        ("name", client.name.clone()),
        ("id", client.id.clone()),
        ("standing", standing(client.standing).to_owned()),
        ("system", system(client)),
        ("addresses", addresses.join(" ")),
        ("enrolled", units::when(client.enrolled)),
        ("heard", when(client.heard)),
        ("scanned", scanned),
        ("states known", units::count(client.states.into())),
    ];
    if let Some(packages) = client.packages {
        rows.push(("packages", units::count(packages.into())));
    }
    if !attributes.is_empty() {
        rows.push(("attributes", attributes.join(" ")));
    }
    if let Some(site) = &client.site {
        rows.push(("site", site.clone()));
    }
    if let Some(why) = &client.resync {
        rows.push(("full state awaited", why.clone()));
    }
    if client.returns > 0 {
        rows.push(("used by two machines", copied(client.returns)));
    }
    if client.clock_ahead.unsigned_abs() > 60 {
        rows.push(("clock", format!("{} s ahead of the site's", client.clock_ahead)));
    }
    let mut shown = facts(&rows);
    if client.returns > 0 {
        shown.push_str(COPIED);
    }
    shown
}

/// What to do about a client that two machines are.
const COPIED: &str = "
Two machines report as this client, so what is known of it is now the one's, now the other's; which of them
reported last nobody can tell from here. Remove it (depot client remove), and have each machine join with a token
(depot agent run --join-file FILE). Images of machines must not have an agent's folder in them that has joined.
";

fn copied(returns: u16) -> String {
    match returns {
        1 => "it seems: 1 turn; or its disk was put back to an earlier state".into(),
        turns => format!("yes: they took {turns} turns"),
    }
}

fn system(client: &ClientView) -> String {
    let parts = [&client.os, &client.os_version, &client.architecture];
    parts.into_iter().flatten().cloned().collect::<Vec<_>>().join(" ")
}

fn standing(standing: StandingView) -> &'static str {
    match standing {
        StandingView::Pending => "pending",
        StandingView::Approved => "approved",
        StandingView::Blocked => "blocked",
    }
}
