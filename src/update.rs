//! `depot update …`: the catalogue of updates.

mod download;
mod own;

use crate::{
    exit::Failure,
    output::{Out, facts, table},
    transport::{Client, path, with_query},
    units,
};
use api::deployed::Content;
use api::page::MAX_LIMIT;
use api::routes::updates::{ListedUpdate, ProductView, UpdateDetail, UpdatesPage};
use clap::{Args, Subcommand};
use std::num::NonZeroUsize;

/// Commands on updates.
#[derive(Debug, Subcommand)]
pub enum UpdateCommand {
    /// List updates, the newest first
    #[command(visible_alias = "ls")]
    List(Box<ListArgs>),
    /// Show one update: what it mends and replaces, its files
    Show(ShowArgs),
    /// Bring the files of updates into a package
    Download(download::DownloadArgs),
    /// Make an update of a description, and publish it
    Author(own::AuthorArgs),
    /// Withdraw an update of one's own
    Withdraw(own::WithdrawArgs),
    /// Write an update as a package of Updates Publisher
    Export(own::ExportArgs),
    /// List the products that updates are for
    #[command(after_help = "\
Examples:
  depot update products
  depot update products --json | jq -r '.[].id'")]
    Products,
}

/// List updates, the newest first
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot update list --classification security --released-within 30d
  depot update list --product debian-12 --severity critical,important --search openssl
  depot update list --required-on '>50' --order -required
  depot update list --required-on '>50' --collection web
  depot update list --superseded --limit 500 --json | jq -r '.[].name'
  depot update list --filter 'classification in (security, critical) and not superseded'

Of each option one value must fit; all options must.

The language of filters: conditions, joined by `not`, `and`, `or` (they bind in this order) and
parentheses:
  classification, kind, state             = != in            classification in (security, critical)
  severity                                = != in < <= > >=  severity >= important
  product, family, source, language, id   = != in            product = debian-12
  name, article, cve                      = != in ~ !~       cve = CVE-2026-0001
  title, text                             ~ !~               title ~ openssl
  released, created, first-seen, changed  = != < <= > >=     released >= 30d ago
  required, revision, files               = != < <= > >=     required > 50
  size                                    = != < <= > >=     size < 500MB
`in` takes a list, one of which must fit; `~` finds a part, in either case; `text` is title, name,
articles and CVEs together. Kinds are software, driver, category, detectoid; no classification or
severity is `none`. A time is 2026-01-31, 2026-01-31T12:00:00Z, now, today or `30d ago` with h, d,
w, mo, y. The words superseded, expired, current, withdrawn and deployed are conditions by
themselves. What has a space or a sign in it is put in quotes: title ~ \"remote code\".")]
pub struct ListArgs {
    /// Classifications: critical, definition, feature-pack, security, service-pack, tool, rollup, update,
    /// upgrade, driver, application, hotfix
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    classification: Vec<String>,
    /// Severities: low, moderate, important, critical
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    severity: Vec<String>,
    /// Released so long ago at most
    #[arg(long, value_name = "TIME")]
    released_within: Option<String>,
    /// Products or families, by id or name
    #[arg(long, value_name = "NAME")]
    product: Vec<String>,
    /// What these sources say
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    source: Vec<String>,
    /// Words in title, name, articles or CVEs
    #[arg(long, value_name = "TEXT")]
    search: Option<String>,
    /// Mending these CVEs
    #[arg(long, value_name = "CVE", value_delimiter = ',')]
    cve: Vec<String>,
    /// With these articles, as KB5031354 or DSA-5545-1
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    article: Vec<String>,
    /// Required on so many machines: 50 for at least so many, or '>50'
    #[arg(long, value_name = "N")]
    required_on: Option<String>,
    /// Of those, count only the clients of this collection
    #[arg(long, value_name = "COLLECTION")]
    collection: Option<String>,
    /// A condition in the language of filters, which is described below
    #[arg(long, value_name = "EXPR")]
    filter: Option<String>,
    /// Only those that another one replaces
    #[arg(long)]
    superseded: bool,
    /// Only those that are expired
    #[arg(long)]
    expired: bool,
    /// By released, created, first-seen, changed, title, severity or required; with '-' in front the last
    /// comes first
    #[arg(long, value_name = "FIELD", default_value = "-released", allow_hyphen_values = true)]
    order: String,
    /// At most this many
    #[arg(long, value_name = "N", default_value = "50")]
    limit: NonZeroUsize,
}

/// Show one update
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot update show DSA-5545-1
  depot update show 8c8a5b0e-7a41-5a7e-9c8e-2a5b1c3d4e5f --json")]
pub struct ShowArgs {
    /// Its id, its name, or that of an article of it
    id: String,
}

/// Runs a command on updates.
pub async fn run(command: UpdateCommand, client: &Client, out: Out) -> Result<(), Failure> {
    match command {
        UpdateCommand::List(args) => list(&args, client, out).await,
        UpdateCommand::Show(args) => {
            let update: UpdateDetail = client.get(&path(&["updates", &args.id])).await?;
            out.show(&update, |w| w.write_all(shown(&update).as_bytes()))
        }
        UpdateCommand::Download(args) => download::run(args, client, out).await,
        UpdateCommand::Author(args) => own::author(args, client, out).await,
        UpdateCommand::Withdraw(args) => own::withdraw(args, client, out).await,
        UpdateCommand::Export(args) => own::export(args, client, out).await,
        UpdateCommand::Products => {
            let products: Vec<ProductView> = client.list("/products", &[], usize::MAX).await?;
            let rows = products.iter().map(|product| {
                let ProductView { id, name, family, updates } = product.clone();
                [id, name, family, units::count(updates)]
            });
            let columns = ["id", "name", "family", ">updates"];
            out.show(&products, |w| w.write_all(table(columns, rows.collect()).as_bytes()))
        }
    }
}

async fn list(args: &ListArgs, client: &Client, out: Out) -> Result<(), Failure> {
    let joined = |words: &[String]| (!words.is_empty()).then(|| words.join(","));
    let states = [(args.superseded, "superseded"), (args.expired, "expired")];
    let states: Vec<&str> = states.iter().filter(|(on, _)| *on).map(|(_, word)| *word).collect();
    let lists = [
        ("classification", joined(&args.classification)),
        ("severity", joined(&args.severity)),
        ("product", joined(&args.product)),
        ("source", joined(&args.source)),
        ("cve", joined(&args.cve)),
        ("article", joined(&args.article)),
        ("state", (!states.is_empty()).then(|| states.join(","))),
    ];
    let mut query: Vec<(&str, Option<&str>)> =
        lists.iter().map(|(name, words)| (*name, words.as_deref())).collect();
    query.extend([
        ("released_within", args.released_within.as_deref()),
        ("search", args.search.as_deref()),
        ("required_on", args.required_on.as_deref()),
        ("collection", args.collection.as_deref()),
        ("filter", args.filter.as_deref()),
        ("order", Some(args.order.as_str())),
    ]);
    let (mut updates, mut total, mut cursor) = (Vec::new(), 0, None::<String>);
    let most = args.limit.get();
    while updates.len() < most {
        let limit = (most - updates.len()).min(MAX_LIMIT).to_string();
        let mut query = query.clone();
        query.extend([("limit", Some(limit.as_str())), ("cursor", cursor.as_deref())]);
        let page: UpdatesPage = client.get(&with_query("/updates".to_owned(), &query)).await?;
        if cursor.is_none() {
            total = page.total;
            page.hints.iter().for_each(|hint| out.note(hint));
        }
        updates.extend(page.items);
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    let shown = updates.len() as u64;
    out.show(&updates, |w| w.write_all(updates_table(&updates).as_bytes()))?;
    if shown < total {
        out.note(format!("{} of {}; more with --limit", units::count(shown), units::count(total)));
    }
    Ok(())
}

fn updates_table(updates: &[ListedUpdate]) -> String {
    let rows = updates.iter().map(|update| {
        [
            update.name.clone(),
            update.title.clone(),
            update.classification.clone().unwrap_or_default(),
            update.severity.clone().unwrap_or_default(),
            update.state.clone(),
            content(update.content).to_owned(),
            update.products.join(" "),
            units::when(update.released),
            units::count(update.required),
            units::bytes(update.bytes),
            update.source.clone(),
        ]
    });
    let columns = [
        "name",
        "title",
        "class",
        "severity",
        "state",
        "content",
        "products",
        "released",
        ">required",
        ">size",
        "source",
    ];
    table(columns, rows.collect())
}

/// Whether an update's files are in a package; an arrow marks those that are not.
fn content(content: Content) -> &'static str {
    match content {
        Content::Held => "held",
        Content::Missing => "↓ missing",
        Content::None => "none",
    }
}

fn shown(detail: &UpdateDetail) -> String {
    let update = &detail.update;
    let joined = |words: &std::collections::BTreeSet<String>| {
        words.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
    };
    let named = |named: &[api::routes::updates::NamedUpdate]| {
        named.iter().map(|update| update.name.as_str()).collect::<Vec<_>>().join(", ")
    };
    let text = update.text(&[]);
    let mut rows = vec![
        ("update", detail.name.clone()),
        ("id", detail.id.clone()),
        ("revision", detail.revision.to_string()),
        ("title", text.map(|text| text.title.clone()).unwrap_or_default()),
        ("classification", update.classification.map(|c| c.title().to_owned()).unwrap_or_default()),
        ("severity", update.severity.map(|s| s.title().to_owned()).unwrap_or_default()),
        ("state", detail.state.clone()),
        ("content", content(detail.content).to_owned()),
        ("in packages", detail.packages.join(", ")),
    ];
    if let (Some(at), Some(why)) = (detail.expired, &detail.expired_because) {
        rows.push(("expired", format!("{}: {why}", units::when(at))));
    }
    rows.extend([
        ("products", joined(&update.products)),
        ("articles", joined(&update.articles)),
        ("mends", joined(&update.cves)),
        ("created", units::when(update.created)),
        ("released", units::when(update.released.unwrap_or(update.created))),
        ("replaces", named(&detail.supersedes)),
        ("replaced by", named(&detail.superseded_by)),
        ("sources", detail.sources.join(", ")),
        ("here since", units::when(detail.first_seen)),
        ("links", joined(&update.links)),
    ]);
    rows.retain(|(_, value)| !value.is_empty());
    let mut all = facts(&rows);
    let description = text.map(|text| text.description.trim()).unwrap_or_default();
    if !description.is_empty() {
        all.push('\n');
        for line in description.lines() {
            all.push_str("  ");
            all.push_str(&crate::exit::one_line(line));
            all.push('\n');
        }
    }
    let files: Vec<_> = update
        .files()
        .map(|file| [file.name.clone(), units::bytes(file.size), file.digests.to_string()])
        .collect();
    if !files.is_empty() {
        all.push('\n');
        all.push_str(&table(["file", ">size", "digest"], files));
    }
    all
}
