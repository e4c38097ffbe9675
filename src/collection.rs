//! `depot collection …`: sets of clients, by name and by what is true of them, and when these may be worked on.

mod rule;
mod window;

use crate::{
    exit::Failure,
    output::{Out, confirm, facts, table},
    transport::{Client, Request, path},
    units,
};
use api::routes::fleet::{
    ClientsChange, CollectionChange, CollectionView, DeviceView, NewCollection,
};
use clap::{Args, Subcommand};
use http::Method;
use rule::RuleCommand;
use window::WindowCommand;

/// Commands on collections.
#[derive(Debug, Subcommand)]
pub enum CollectionCommand {
    /// Make a collection
    Create(CreateArgs),
    /// List collections, with how many clients are in each
    #[command(
        visible_alias = "ls",
        after_help = "\
Examples:
  depot collection list
  depot collection list --json | jq -r '.[] | select(.members == 0) | .name'"
    )]
    List,
    /// Show a collection: its rules, what it includes and excludes, its windows
    #[command(after_help = "\
Examples:
  depot collection show web")]
    Show {
        /// The collection
        collection: String,
    },
    /// Change what a collection is for, its limit, and what it includes and excludes
    Change(ChangeArgs),
    /// Delete a collection; its clients stay
    #[command(after_help = "\
Examples:
  depot collection delete web --yes

One that others include, exclude or are limited to cannot be deleted before those are changed.")]
    Delete {
        /// The collection
        collection: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Name clients in a collection, whatever its rules say
    #[command(after_help = "\
Examples:
  depot collection add pilot pc-17 pc-18

All or none: one that is not known keeps all from being added.")]
    Add {
        /// The collection
        collection: String,
        /// Ids or names of clients
        #[arg(required = true)]
        clients: Vec<String>,
    },
    /// Name clients no more; who is meant by a rule stays in the collection
    #[command(after_help = "\
Examples:
  depot collection remove pilot pc-17")]
    Remove {
        /// The collection
        collection: String,
        /// Ids or names of clients
        #[arg(required = true)]
        clients: Vec<String>,
    },
    /// List the clients that are in a collection
    #[command(after_help = "\
Examples:
  depot collection members web
  depot collection members web --limit 100000 --json | jq -r '.[].name'")]
    Members {
        /// The collection
        collection: String,
        /// At most this many
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
    },
    /// Who is in a collection by what is true of them: add, remove, preview
    #[command(
        subcommand,
        after_help = "\
Examples:
  depot collection rule add web 'package in (nginx, apache2)'
  depot collection rule preview 'os = debian and package.openssl < 3.0.15'"
    )]
    Rule(RuleCommand),
    /// When a collection's clients may be worked on: add, list, remove, preview
    #[command(
        subcommand,
        after_help = "\
Examples:
  depot collection window add web nights --start 2026-11-28T01:00 --length 3h --every 'weekly sat'
  depot collection window preview web --zone Europe/Paris"
    )]
    Window(WindowCommand),
}

/// A collection to be made.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot collection create pilot --client pc-17,pc-18
  depot collection create web --limit servers --rule 'package in (nginx, apache2)'
  depot collection create rest --include all --exclude pilot,lab

Who is named, is meant by a rule, or is in a collection that is included, is in it; but nobody who is not in the
limiting collection, and nobody who is in one that is excluded. Rules: depot collection rule --help")]
pub struct CreateArgs {
    /// Its name: up to 64 of a-z, 0-9, `.`, `_`, `-`
    collection: String,
    /// What it is for
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    comment: String,
    /// Nobody is in it who is not in this collection
    #[arg(long, value_name = "COLLECTION")]
    limit: Option<String>,
    /// Who is meant by this rule is in it; several times for several rules
    #[arg(long, value_name = "RULE")]
    rule: Vec<String>,
    /// Who is in these collections is in it
    #[arg(long, value_name = "COLLECTION", value_delimiter = ',')]
    include: Vec<String>,
    /// Who is in these collections is not
    #[arg(long, value_name = "COLLECTION", value_delimiter = ',')]
    exclude: Vec<String>,
    /// Ids or names of clients that are in it
    #[arg(long, value_name = "CLIENT", value_delimiter = ',')]
    client: Vec<String>,
}

/// What is changed of a collection.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot collection change web --limit servers
  depot collection change web --limit all                  no limit any more
  depot collection change rest --exclude lab --no-exclude pilot")]
pub struct ChangeArgs {
    /// The collection
    collection: String,
    /// What it is for
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
    /// Nobody is in it who is not in this collection; `all` for no limit
    #[arg(long, value_name = "COLLECTION")]
    limit: Option<String>,
    /// Include these, too
    #[arg(long, value_name = "COLLECTION", value_delimiter = ',')]
    include: Vec<String>,
    /// Include these no more
    #[arg(long, value_name = "COLLECTION", value_delimiter = ',')]
    no_include: Vec<String>,
    /// Exclude these, too
    #[arg(long, value_name = "COLLECTION", value_delimiter = ',')]
    exclude: Vec<String>,
    /// Exclude these no more
    #[arg(long, value_name = "COLLECTION", value_delimiter = ',')]
    no_exclude: Vec<String>,
}

/// Runs a command on collections.
pub async fn run(command: CollectionCommand, client: &Client, out: Out) -> Result<(), Failure> {
    match command {
        CollectionCommand::Create(args) => create(args, client, out).await,
        CollectionCommand::List => list(client, out).await,
        CollectionCommand::Show { collection } => {
            let found: CollectionView = client.get(&path(&["collections", &collection])).await?;
            out.show(&found, |w| w.write_all(shown(&found).as_bytes()))
        }
        CollectionCommand::Change(args) => {
            let named = |yes: Vec<String>, no: Vec<String>| {
                let yes = yes.into_iter().map(|name| (name, true));
                yes.chain(no.into_iter().map(|name| (name, false))).collect()
            };
            let change = CollectionChange {
                comment: args.comment,
                limit: args.limit,
                include: named(args.include, args.no_include),
                exclude: named(args.exclude, args.no_exclude),
                ..CollectionChange::default()
            };
            let now = change_to(&args.collection, &change, client).await?;
            out.show(&now, |w| w.write_all(shown(&now).as_bytes()))
        }
        CollectionCommand::Delete { collection, yes } => {
            confirm(&format!("this deletes collection {collection}"), yes)?;
            let at = path(&["collections", &collection]);
            let gone: CollectionView = client.ask(Request::new(Method::DELETE, &at)).await?;
            out.show(&gone, |w| writeln!(w, "collection {} is deleted", gone.name))
        }
        CollectionCommand::Add { collection, clients } => {
            let change = ClientsChange { add: clients, ..ClientsChange::default() };
            name_clients(&collection, &change, client, out).await
        }
        CollectionCommand::Remove { collection, clients } => {
            let change = ClientsChange { remove: clients, ..ClientsChange::default() };
            name_clients(&collection, &change, client, out).await
        }
        CollectionCommand::Members { collection, limit } => {
            let at = path(&["collections", &collection, "members"]);
            let found: Vec<DeviceView> = client.list(&at, &[], limit).await?;
            let rows = found.iter().map(|it| [it.name.clone(), it.client.clone()]);
            out.show(&found, |w| w.write_all(table(["name", "client"], rows.collect()).as_bytes()))
        }
        CollectionCommand::Rule(command) => rule::run(command, client, out).await,
        CollectionCommand::Window(command) => window::run(command, client, out).await,
    }
}

async fn create(args: CreateArgs, client: &Client, out: Out) -> Result<(), Failure> {
    let rules = args.rule.into_iter().enumerate();
    let new = NewCollection {
        name: args.collection,
        comment: args.comment,
        limit: args.limit,
        rules: rules.map(|(at, rule)| (format!("rule-{}", at + 1), rule)).collect(),
        include: args.include,
        exclude: args.exclude,
        clients: args.client,
        ..NewCollection::default()
    };
    let made: CollectionView = client.post("/collections", &new).await?;
    out.show(&made, |w| {
        let members = units::counted(made.members, "client", "clients");
        writeln!(w, "collection {} is made: {members}", made.name)
    })
}

async fn list(client: &Client, out: Out) -> Result<(), Failure> {
    let all: Vec<CollectionView> = client.list("/collections", &[], usize::MAX).await?;
    let rows = all.iter().map(|it| {
        [
            it.name.clone(),
            units::count(it.members),
            it.limit.clone().unwrap_or_default(),
            units::count(it.rules.len() as u64),
            units::count(it.windows.len() as u64),
            it.comment.clone(),
        ]
    });
    let columns = ["name", ">members", "limit", ">rules", ">windows", "comment"];
    out.show(&all, |w| w.write_all(table(columns, rows.collect()).as_bytes()))
}

/// Changes a collection; what it is after that.
async fn change_to(
    collection: &str,
    change: &CollectionChange,
    client: &Client,
) -> Result<CollectionView, Failure> {
    let at = path(&["collections", collection]);
    client.ask(Request::new(Method::PATCH, &at).json(change)?).await
}

async fn name_clients(
    collection: &str,
    change: &ClientsChange,
    client: &Client,
    out: Out,
) -> Result<(), Failure> {
    let at = path(&["collections", collection, "clients"]);
    let now: CollectionView = client.post(&at, change).await?;
    out.show(&now, |w| {
        let (named, members) = (units::count(now.clients), units::count(now.members));
        writeln!(w, "collection {} names {named} clients, and has {members} members", now.name)
    })
}

fn shown(it: &CollectionView) -> String {
    let mut rows = vec![
        ("collection", it.name.clone()),
        ("members", units::count(it.members)),
        ("named clients", units::count(it.clients)),
    ];
    if !it.comment.is_empty() {
        rows.push(("comment", it.comment.clone()));
    }
    rows.extend(it.limit.iter().map(|limit| ("limit", limit.clone())));
    rows.extend(it.rules.iter().map(|(name, rule)| ("rule", format!("{name}: {rule}"))));
    rows.extend(it.include.iter().map(|name| ("include", name.clone())));
    rows.extend(it.exclude.iter().map(|name| ("exclude", name.clone())));
    rows.extend(it.windows.iter().map(|(name, it)| ("window", window::text(name, it))));
    facts(&rows)
}
