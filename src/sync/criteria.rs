//! `depot sync criteria …`: which updates are wanted at all.

use crate::{
    exit::Failure,
    output::{Out, facts},
    transport::Client,
};
use api::routes::{sync::CriteriaView, updates::ProductView};
use clap::{Args, Subcommand};

/// The word that wants all of a kind.
const ALL: &str = "all";

/// Commands on criteria.
#[derive(Debug, Subcommand)]
pub enum CriteriaCommand {
    /// Show which updates are wanted
    #[command(after_help = "\
Examples:
  depot sync criteria show")]
    Show,
    /// Set which updates are wanted; what is not given stays as it is
    Set(SetArgs),
}

/// Set which updates are wanted
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot sync criteria set --classification security,critical --product debian-12 --language en
  depot sync criteria set --product all

Products are those that sources name: `depot update products`. Only the top site of a tree sets criteria;
the others take them over. The next sync of each source asks for everything, and updates that are not
wanted any more are expired then.")]
pub struct SetArgs {
    /// Classifications, or all: critical, definition, feature-pack, security, service-pack, tool, rollup,
    /// update, upgrade, driver, application, hotfix
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    classification: Vec<String>,
    /// Products or families by id or name, or all
    #[arg(long, value_name = "NAME")]
    product: Vec<String>,
    /// Languages of texts and files, as en or pt-br, or all
    #[arg(long, value_name = "TAG", value_delimiter = ',')]
    language: Vec<String>,
}

/// Runs a command on criteria.
pub async fn run(command: CriteriaCommand, client: &Client, out: Out) -> Result<(), Failure> {
    if let CriteriaCommand::Set(SetArgs { classification, product, language }) = &command
        && [classification, product, language].iter().all(|words| words.is_empty())
    {
        return Err(Failure::usage(
            "nothing is to be set: say what, with --classification, --product or --language",
        ));
    }
    let mut criteria: CriteriaView = client.get("/sync/criteria").await?;
    if let CriteriaCommand::Set(args) = command {
        set(&mut criteria.classifications, args.classification);
        set(&mut criteria.products, args.product);
        set(&mut criteria.languages, args.language);
        criteria = client.put("/sync/criteria", &CriteriaView { top: None, ..criteria }).await?;
        tell_unknown(&criteria.products, client, out).await?;
    }
    let words = |words: &[String]| match words {
        [] => ALL.to_owned(),
        some => some.join(", "),
    };
    let mut rows = vec![
        ("classifications", words(&criteria.classifications)),
        ("products", words(&criteria.products)),
        ("languages", words(&criteria.languages)),
    ];
    rows.extend(criteria.top.clone().map(|top| ("set at", top)));
    out.show(&criteria, |w| w.write_all(facts(&rows).as_bytes()))
}

/// Says which products no source has named yet: a slip there expires updates at the next sync.
async fn tell_unknown(wanted: &[String], client: &Client, out: Out) -> Result<(), Failure> {
    let known: Vec<ProductView> = client.list("/products", &[], usize::MAX).await?;
    let is_known =
        |word: &String| known.iter().any(|it| [&it.id, &it.name, &it.family].contains(&word));
    let unknown: Vec<&str> =
        wanted.iter().filter(|word| !is_known(word)).map(String::as_str).collect();
    // Before the first sync nothing is known, and nothing can be lost.
    if !known.is_empty() && !unknown.is_empty() {
        out.note(format!(
            "no source has named {} yet: updates of other products expire at the next sync \
             (depot update products lists those that are known)",
            unknown.join(", ")
        ));
    }
    Ok(())
}

/// Takes over what was given, if anything was.
fn set(words: &mut Vec<String>, given: Vec<String>) {
    if given.iter().any(|word| word == ALL) {
        words.clear();
    } else if !given.is_empty() {
        *words = given;
    }
}
