//! `depot collection rule …`: who is in a collection by what is true of them.

use super::{change_to, shown};
use crate::{
    exit::Failure,
    output::{Out, table},
    transport::{Client, path, with_query},
    units,
};
use api::routes::fleet::{CollectionChange, CollectionView, RulePreview};
use clap::Subcommand;

/// What rules are made of, for the help of those who write them.
const LANGUAGE: &str = "\
Fields:
  os, codename, architecture, attribute.NAME   = != in ~ !~   `*` stands for any letters, ~ is a part
  os-version                                   also < <= > >=
  name                                         what people call the client, likewise
  address                                      = != in        a network as 10.1.0.0/16, or an address
  package                                      = != in        a package that is installed
  package.NAME                                 = != < <= > >= its version, as its packager orders them
joined by and, or, not and parentheses.";

/// Commands on rules.
#[derive(Debug, Subcommand)]
pub enum RuleCommand {
    /// Add a rule to a collection: who is meant by it is in it
    #[command(after_help = format!("\
Examples:
  depot collection rule add web 'package in (nginx, apache2)'
  depot collection rule add old-ssl 'os = debian and package.openssl < 3.0.15-1~deb12u1' --name deb12
  depot collection rule add paris \"address in (10.1.0.0/16, 10.2.0.0/16) and not name = 'lab-*'\"

{LANGUAGE}"))]
    Add {
        /// The collection
        collection: String,
        /// The rule
        rule: String,
        /// What it is called [default: rule-N]
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
    },
    /// Take a rule away from a collection
    #[command(after_help = "\
Examples:
  depot collection rule remove web rule-1")]
    Remove {
        /// The collection
        collection: String,
        /// What the rule is called
        name: String,
    },
    /// Say whom a rule means, before it is added
    #[command(after_help = format!("\
Examples:
  depot collection rule preview 'os-version >= 12 and package = openssl'

{LANGUAGE}"))]
    Preview {
        /// The rule
        rule: String,
    },
}

/// Runs a command on rules.
pub async fn run(command: RuleCommand, client: &Client, out: Out) -> Result<(), Failure> {
    match command {
        RuleCommand::Add { collection, rule, name } => {
            let name = match name {
                Some(name) => name,
                None => free_name(&collection, client).await?,
            };
            change(&collection, name, Some(rule), client, out).await
        }
        RuleCommand::Remove { collection, name } => {
            change(&collection, name, None, client, out).await
        }
        RuleCommand::Preview { rule } => {
            let at = with_query("/collection-preview".into(), &[("rule", Some(rule.as_str()))]);
            let preview: RulePreview = client.get(&at).await?;
            out.show(&preview, |w| {
                let clients = units::counted(preview.clients, "client", "clients");
                writeln!(w, "it means {clients}")?;
                let rows = preview.examples.iter();
                let rows = rows.map(|it| [it.name.clone(), it.client.clone()]);
                w.write_all(table(["name", "client"], rows.collect()).as_bytes())?;
                match preview.clients - preview.examples.len() as u64 {
                    0 => Ok(()),
                    more => writeln!(w, "and {} more", units::count(more)),
                }
            })
        }
    }
}

async fn change(
    collection: &str,
    name: String,
    rule: Option<String>,
    client: &Client,
    out: Out,
) -> Result<(), Failure> {
    let change = CollectionChange { rules: [(name, rule)].into(), ..CollectionChange::default() };
    let now = change_to(collection, &change, client).await?;
    out.show(&now, |w| w.write_all(shown(&now).as_bytes()))
}

/// The first of `rule-1`, `rule-2` … that the collection has not.
async fn free_name(collection: &str, client: &Client) -> Result<String, Failure> {
    let now: CollectionView = client.get(&path(&["collections", collection])).await?;
    let mut names = (1..).map(|n| format!("rule-{n}"));
    Ok(names.find(|name| !now.rules.contains_key(name)).unwrap_or_default())
}
