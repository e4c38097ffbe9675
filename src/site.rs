//! `depot site …`: what a site is known by, and its place in a tree of sites.

use crate::{
    dp::join_token::{self, NewToken},
    exit::Failure,
    output::{Out, confirm, facts, table},
    transport::{Client, Request, path},
    units,
};
use api::{
    config::SiteUrl,
    routes::{
        hierarchy::{FollowerView, SiteView},
        points::JoinTokenView,
        server::{AuthorityView, OpenpgpKeyView, ServerView, SigningKey},
    },
    sealed::ClusterKey,
};
use clap::{Args, Subcommand};
use http::Method;
use jiff::Timestamp;
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// Commands on the site itself.
#[derive(Debug, Subcommand)]
pub enum SiteCommand {
    /// Print the certificate of the site's authority, for clients that come by HTTPS
    #[command(after_help = "\
Examples:
  depot site authority > site.pem
  depot --ca site.pem fetch https://depot.example:8520/packages/docs/latest -o ./out

It vouches for the site and its distribution points. With --ca a client believes them by any address,
and nobody else.")]
    Authority,
    /// Show the place of this site in its tree: parent, kind, top, last sync
    #[command(after_help = "\
Examples:
  depot site show
  depot site show --json | jq -r .top")]
    Show,
    /// Tokens that child sites join with: create, list, revoke
    #[command(
        subcommand,
        after_help = "\
Examples:
  depot site join-token create --name berlin --kind primary
  depot site join-token list"
    )]
    JoinToken(TokenCommand),
    /// The child sites: list, show, remove
    #[command(
        subcommand,
        after_help = "\
Examples:
  depot site children list
  depot site children remove berlin"
    )]
    Children(FollowersCommand),
    /// Print the OpenPGP key that signs the repositories the site makes, for `apt` and `dnf`
    #[command(after_help = "\
Examples:
  depot site openpgp-key > /etc/apt/keyrings/depot.asc
  depot site openpgp-key --json | jq -r .fingerprint

Repositories that are mirrored whole are signed by their own upstream; this key signs those of which
only some packages were chosen. It is made when it is first needed.")]
    OpenpgpKey,
    /// List the servers of the site: which leads, and which stand by
    #[command(after_help = "\
Examples:
  depot site servers
  depot site servers --json | jq -r '.[] | select(.leads) | .address'

A site that is started without a cluster key has one server.")]
    Servers,
    /// Make the key that several servers of one site share, in a new file
    #[command(after_help = "\
Examples:
  depot site cluster-key /etc/depot/cluster.key
  scp -p /etc/depot/cluster.key other:/etc/depot/
  depot serve --cluster-key /etc/depot/cluster.key --database postgres://… --library s3://…

It opens the site's own keys, which are kept in the site database for whichever server leads. Keep it as you
would keep those: on each server, readable by the user that serves alone, and in a safe place. No server
is asked.")]
    ClusterKey {
        /// File to write; it must not be there
        file: PathBuf,
    },
    /// Make a new signing key, where the site's own is lost for good
    #[command(after_help = "\
Examples:
  depot --data ./depot-data site new-key

A site whose keys/site.ed25519 is gone opens nothing until it is put back from a backup, or
replaced by this. Clients that trust the lost key refuse new versions until they are told of the
new one: `depot fetch --key`. Needs --data: no server may have the folder open.")]
    NewKey {
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

/// Commands on the join tokens of child sites.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token; its text is shown this once, or written to a file
    #[command(after_help = "\
Examples:
  depot site join-token create --name berlin --kind primary
  depot site join-token create --name depot-7 --kind secondary --output depot-7.token

The token lets one machine become a child site, once, by `depot serve --parent URL --join TOKEN`. It tells that
machine where this site is and how to know it; hand it on as you would a password. A primary site may have
secondary ones below it, a secondary site has none.")]
    Create {
        /// What the child site will be called
        #[arg(long)]
        name: String,
        /// What it will be: primary or secondary
        #[arg(long, value_parser = ["primary", "secondary"])]
        kind: String,
        /// How long it is good, and where the text goes.
        #[command(flatten)]
        how: TokenArgs,
    },
    /// List tokens, without their text
    #[command(
        visible_alias = "ls",
        after_help = "\
Examples:
  depot site join-token list"
    )]
    List,
    /// End a token at once; whoever joined with it stays
    #[command(after_help = "\
Examples:
  depot site join-token revoke berlin")]
    Revoke {
        /// The name it is for, or its id
        token: String,
    },
}

/// How a token is made.
#[derive(Debug, Args)]
pub struct TokenArgs {
    /// It ends after this time, for example 2h [default: 24h]
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    expires: Option<Duration>,
    /// Where the machine reaches this site: https://HOST:PORT; may be given several times, the best first
    /// [default: the setting site.url, else where the site listens]
    #[arg(long, value_name = "URL")]
    site_url: Vec<SiteUrl>,
    /// Write it to this new file, readable by its owner alone, instead of stdout
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl TokenArgs {
    /// Makes a token for a machine of that name, which becomes that.
    pub async fn create(
        self,
        name: String,
        kind: String,
        client: &Client,
        out: Out,
    ) -> Result<(), Failure> {
        let Self { expires, site_url, output } = self;
        let kind = Some(kind);
        join_token::create(NewToken { name, kind, expires, site_url, output }, client, out).await
    }
}

/// Commands on child sites.
#[derive(Debug, Subcommand)]
pub enum FollowersCommand {
    /// List them, with how far each is
    #[command(
        visible_alias = "ls",
        after_help = "\
Examples:
  depot site children list
  depot site children list --json | jq -r '.[] | select(.online | not) | .name'"
    )]
    List,
    /// Show one of them
    #[command(after_help = "\
Examples:
  depot site children show berlin")]
    Show {
        /// Its name or id
        name: String,
    },
    /// Remove one of them: from now on it is refused
    #[command(
        visible_alias = "rm",
        after_help = "\
Examples:
  depot site children remove berlin
  depot site children remove berlin --yes

It is refused at once. What it has stays there; to follow again, it joins with a new token."
    )]
    Remove {
        /// Its name or id
        name: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

/// Runs a command on those who follow the site: child sites, or update points.
pub async fn followers(
    command: FollowersCommand,
    kind: &str,
    client: &Client,
    out: Out,
) -> Result<(), Failure> {
    match command {
        FollowersCommand::List => {
            let of = [("kind", Some(kind))];
            let all: Vec<FollowerView> = client.list("/followers", &of, usize::MAX).await?;
            let now = Timestamp::now();
            let rows = all.iter().map(|it| {
                [
                    it.name.clone(),
                    it.kind.clone(),
                    presence(it, now),
                    it.state.clone().unwrap_or_default(),
                    it.synced.map(units::when).unwrap_or_default(),
                    it.updates.map(units::count).unwrap_or_default(),
                    it.address.clone().unwrap_or_default(),
                ]
            });
            let columns = ["name", "kind", "state", "last sync", "synced", ">updates", "address"];
            out.show(&all, |w| w.write_all(table(columns, rows.collect()).as_bytes()))
        }
        FollowersCommand::Show { name } => {
            let it: FollowerView = client.get(&path(&["followers", &name])).await?;
            let rows = [
                ("name", it.name.clone()),
                ("kind", it.kind.clone()),
                ("id", it.id.clone()),
                ("state", presence(&it, Timestamp::now())),
                ("joined", format!("{}, invited by {}", units::when(it.joined), it.invited_by)),
                ("asked", it.asked_at.map(units::when).unwrap_or_else(|| "never".into())),
                ("last sync", it.state.clone().unwrap_or_default()),
                ("cause", it.detail.clone().unwrap_or_default()),
                ("synced", it.synced.map(units::when).unwrap_or_default()),
                ("updates", it.updates.map(units::count).unwrap_or_default()),
                ("address", it.address.clone().unwrap_or_default()),
                ("program", it.program.clone().unwrap_or_default()),
            ];
            let rows: Vec<_> = rows.into_iter().filter(|(_, text)| !text.is_empty()).collect();
            out.show(&it, |w| w.write_all(facts(&rows).as_bytes()))
        }
        FollowersCommand::Remove { name, yes } => {
            let it: FollowerView = client.get(&path(&["followers", &name])).await?;
            confirm(&format!("this removes {} {}; it must join again", it.kind, it.name), yes)?;
            // By its id: the name may be another's by now.
            let address = path(&["followers", &it.id]);
            let gone: FollowerView = client.ask(Request::new(Method::DELETE, &address)).await?;
            out.show(&gone, |w| writeln!(w, "{} {} is removed", gone.kind, gone.name))
        }
    }
}

/// `online`, or since when it is not.
fn presence(it: &FollowerView, now: Timestamp) -> String {
    match it.seen {
        _ if it.online => "online".to_owned(),
        Some(seen) => format!("silent for {}", units::since(seen, now)),
        None => "never seen".to_owned(),
    }
}

async fn show(client: &Client, out: Out) -> Result<(), Failure> {
    let site: SiteView = client.get("/site").await?;
    let mut rows = vec![("kind", site.kind.clone())];
    rows.extend(site.name.clone().map(|name| ("name", name)));
    rows.extend(site.parent.clone().map(|parent| ("parent", parent.join(", "))));
    rows.extend(site.via.clone().map(|via| ("reads from", via)));
    rows.extend(site.top.clone().map(|top| ("top", top)));
    if site.parent.is_some() {
        rows.push(("last sync", site.last.clone().unwrap_or_else(|| "none yet".into())));
        rows.push(("synced", site.synced.map(units::when).unwrap_or_else(|| "never".into())));
    }
    let update_point = if site.update_point { "yes" } else { "no" };
    rows.extend([
        ("reached at", site.addresses.join(", ")),
        ("updates", units::count(site.updates)),
        ("child sites", site.children.to_string()),
        ("update point", update_point.to_owned()),
        ("others", site.update_points.to_string()),
        ("read from", site.update_point_source.clone()),
    ]);
    out.show(&site, |w| w.write_all(facts(&rows).as_bytes()))
}

async fn servers(client: &Client, out: Out) -> Result<(), Failure> {
    let all: Vec<ServerView> = client.get("/servers").await?;
    let now = Timestamp::now();
    let rows = all.iter().map(|it| {
        let state = match (it.leads, it.silent_seconds) {
            (true, _) => "leads".to_owned(),
            (false, None) => "stands by".to_owned(),
            (false, Some(seconds)) => {
                format!("silent for {}", units::duration(Duration::from_secs(seconds)))
            }
        };
        [it.address.clone(), state, units::since(it.since, now), it.name.clone()]
    });
    out.show(&all, |w| {
        w.write_all(table(["address", "state", ">for", "server"], rows.collect()).as_bytes())
    })
}

/// Makes the key that several servers share.
pub fn make_cluster_key(file: &Path, out: Out) -> Result<(), Failure> {
    ClusterKey::create(file)?;
    let made = serde_json::json!({ "file": file });
    out.show(&made, |w| {
        writeln!(w, "{} is made: copy it to each server, and start each with", file.display())?;
        writeln!(w, "  depot serve --cluster-key {} …", file.display())
    })
}

/// Ends the token for a child site of that name or id.
async fn revoke(which: &str, client: &Client, out: Out) -> Result<(), Failure> {
    let tokens: Vec<JoinTokenView> = client.list("/point-tokens", &[], usize::MAX).await?;
    let of_sites = || tokens.iter().filter(|token| token.kind.is_some());
    let named = || of_sites().filter(|token| token.name == which);
    let found = of_sites().find(|token| token.id == which);
    let found = found.or_else(|| named().find(|t| t.used_by.is_none())).or_else(|| named().next());
    join_token::revoke(found.map_or(which, |token| &token.id), client, out).await
}

/// Runs a command on the site.
pub async fn run(command: SiteCommand, client: &Client, out: Out) -> Result<(), Failure> {
    match command {
        SiteCommand::Show => show(client, out).await,
        SiteCommand::JoinToken(command) => match command {
            TokenCommand::Create { name, kind, how } => how.create(name, kind, client, out).await,
            TokenCommand::List => join_token::list(|it| it.kind.is_some(), client, out).await,
            TokenCommand::Revoke { token } => revoke(&token, client, out).await,
        },
        SiteCommand::Children(command) => followers(command, "site", client, out).await,
        SiteCommand::Servers => servers(client, out).await,
        SiteCommand::ClusterKey { file } => make_cluster_key(&file, out),
        SiteCommand::Authority => {
            let authority: AuthorityView = client.get("/authority").await?;
            out.show(&authority, |w| w.write_all(authority.certificate.as_bytes()))
        }
        SiteCommand::OpenpgpKey => {
            let key: OpenpgpKeyView = client.get("/openpgp-key").await?;
            out.show(&key, |w| w.write_all(key.public.as_bytes()))
        }
        SiteCommand::NewKey { yes } => {
            confirm("this makes a signing key that no client trusts yet", yes)?;
            let made: SigningKey = client.post("/key", &serde_json::json!({})).await?;
            out.show(&made, |w| {
                writeln!(w, "the site signs with key {} from now on", made.key)?;
                writeln!(w, "tell clients: depot fetch URL -o FOLDER --key {}", made.key)
            })
        }
    }
}
