//! `depot rule …`: what is deployed by itself.

mod deployment;
mod show;

use self::deployment::{AddDeploymentArgs, DeploymentArgs};
use crate::{
    exit::{Exit, Failure},
    job::{self, Ended},
    output::{Out, confirm, table},
    transport::{Client, Request, path},
    units,
};
use api::routes::deployments::{NewRule, RuleBody, RulePreview, RuleRunView, RuleView};
use clap::{Args, Subcommand};
use http::Method;

/// Commands on automatic deployment rules.
#[derive(Debug, Subcommand)]
pub enum RuleCommand {
    /// Make a rule
    Create(CreateArgs),
    /// Say what a rule would come to if it were run now; changes nothing
    #[command(after_help = "\
Examples:
  depot rule preview patch-day
  depot rule preview patch-day --json | jq -r '.added[].name'

What a rule that is not made yet would come to says `depot rule create --dry-run`.")]
    Preview {
        /// The rule
        rule: String,
    },
    /// Run a rule now: find updates, bring their files, fill the group, deploy it
    #[command(after_help = "\
Examples:
  depot rule run patch-day
  depot rule run patch-day --dry-run
  depot rule run patch-day --detach

One that is at work already is joined. A rule that is disabled can be run so, too.")]
    Run {
        /// The rule
        rule: String,
        /// Only say what it would come to
        #[arg(long)]
        dry_run: bool,
        /// Do not wait for its end
        #[arg(long)]
        detach: bool,
    },
    /// Have a rule evaluated by itself, or what one of its deployments makes count
    #[command(after_help = "\
Examples:
  depot rule enable patch-day
  depot rule enable patch-day --deployment rest

A rule makes up for nothing that it would have done while it was disabled.")]
    Enable {
        /// The rule
        rule: String,
        /// One of its deployments
        #[arg(long, value_name = "NAME")]
        deployment: Option<String>,
    },
    /// Have a rule not evaluated by itself, or clients not told of one of its deployments
    #[command(after_help = "\
Examples:
  depot rule disable patch-day
  depot rule disable patch-day --deployment rest

What it deployed already goes on; that of one deployment stops with --deployment.")]
    Disable {
        /// The rule
        rule: String,
        /// One of its deployments
        #[arg(long, value_name = "NAME")]
        deployment: Option<String>,
    },
    /// List rules
    #[command(
        visible_alias = "ls",
        after_help = "\
Examples:
  depot rule list
  depot rule list --json | jq -r '.[] | select(.enabled | not) | .name'"
    )]
    List,
    /// Show a rule, its deployments, and how far their rings are
    #[command(after_help = "\
Examples:
  depot rule show patch-day")]
    Show {
        /// The rule
        rule: String,
    },
    /// Change a rule; what is not named stays as it is
    #[command(after_help = "\
Examples:
  depot rule change patch-day --criteria 'classification = security and released >= 2w ago'
  depot rule change patch-day --evaluate 'monthly 2nd tue +3 at 06:00 Europe/Berlin'
  depot rule change patch-day --package ''")]
    Change {
        /// The rule
        rule: String,
        #[command(flatten)]
        what: RuleArgs,
    },
    /// Delete a rule with its history; groups and deployments that it made stay
    #[command(after_help = "\
Examples:
  depot rule delete patch-day --yes")]
    Delete {
        /// The rule
        rule: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// List what the runs of a rule did
    #[command(after_help = "\
Examples:
  depot rule history patch-day
  depot rule history patch-day --run 7
  depot rule history patch-day --json | jq -r '.[0].waiting[].name'")]
    History {
        /// The rule
        rule: String,
        /// One run, with all that waits and why
        #[arg(long, value_name = "N")]
        run: Option<u64>,
        /// At most this many runs
        #[arg(long, value_name = "N", default_value_t = 20)]
        limit: usize,
    },
    /// Give a rule a further deployment, or change the one of that name
    AddDeployment(AddDeploymentArgs),
    /// Take a deployment away from a rule; what it made stays
    #[command(after_help = "\
Examples:
  depot rule remove-deployment patch-day rest")]
    RemoveDeployment {
        /// The rule
        rule: String,
        /// What the rule calls the deployment
        deployment: String,
    },
    /// Open the next ring now, whatever it waits for
    #[command(after_help = "\
Examples:
  depot rule go patch-day rest
  depot rule go patch-day rest --group patch-day-2026-11-11")]
    Go {
        /// The rule
        rule: String,
        /// What the rule calls the deployment
        deployment: String,
        /// The group; without it, the one that the last run filled
        #[arg(long, value_name = "NAME")]
        group: Option<String>,
    },
    /// Keep a ring from opening; with --release, let it open as it would
    #[command(after_help = "\
Examples:
  depot rule hold patch-day rest
  depot rule hold patch-day rest --release
  depot rule hold patch-day rest --group patch-day-2026-11-11

Groups of older runs have rings that wait, too: all of that name are held, unless a group is named.")]
    Hold {
        /// The rule
        rule: String,
        /// What the rule calls the deployment
        deployment: String,
        /// The group; without it, each in which the deployment is not open yet
        #[arg(long, value_name = "NAME")]
        group: Option<String>,
        /// Hold it no more
        #[arg(long)]
        release: bool,
    },
    /// Have rings go on that were halted by failures; those that there are do not count any more
    #[command(after_help = "\
Examples:
  depot rule resume patch-day")]
    Resume {
        /// The rule
        rule: String,
        /// The group; without it, each that is halted
        #[arg(long, value_name = "NAME")]
        group: Option<String>,
    },
}

/// A rule to be made.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot rule create patch-day --template monthly --package patch-day --collection pilot --deadline 2d
  depot rule create patch-day --criteria 'classification in (security, critical) and released >= 1mo ago' \\
      --evaluate 'monthly 2nd tue +1 at 03:00 Europe/Berlin' --package patch-day --collection pilot
  depot rule create definitions --template definitions --package definitions --collection all --deadline 0h
  depot rule create needed --criteria 'required > 50 and not deployed' --dry-run
  depot rule add-deployment patch-day rest --collection all --deadline 7d --after-days 3 --success 95

Criteria are conditions in the language of `depot update list --help`. A rule is evaluated by hand, after each
sync, or at times: `daily at 06:00`, `weekly mon,thu at 20:00 Europe/Berlin`, `monthly 2nd tue +3 at 06:00`. Days
after a weekday of a month stay in that month. Not more often than its sources are synchronised.

Without a collection updates are only grouped. Times are counted from the scheduled start of the run: 0h, 4h,
7d, `7d 20:00`. What lacks a file waits and is named; the rest is deployed.")]
pub struct CreateArgs {
    /// Its name: up to 64 of a-z, 0-9, `.`, `_`, `-`
    rule: String,
    /// What it begins with: monthly, office or definitions
    #[arg(long, value_name = "NAME")]
    template: Option<String>,
    #[command(flatten)]
    what: RuleArgs,
    /// Deploy to this collection
    #[arg(long, value_name = "COLLECTION")]
    collection: Option<String>,
    /// What that deployment is called within the rule; the collection's name, if it is not said
    #[arg(long, value_name = "NAME", requires = "collection")]
    name: Option<String>,
    #[command(flatten)]
    deployment: DeploymentArgs,
    /// Only say what it would come to if it were run now
    #[arg(long)]
    dry_run: bool,
}

/// What a rule is.
#[derive(Debug, Default, Args)]
pub struct RuleArgs {
    /// Which updates, in the language of `depot update list --help`
    #[arg(long, value_name = "EXPR")]
    criteria: Option<String>,
    /// When: 'by hand', 'after sync', or 'monthly 2nd tue +1 at 03:00 Europe/Berlin'
    #[arg(long, value_name = "WHEN")]
    evaluate: Option<String>,
    /// Use one group for all runs: what it has that is not meant any more goes
    #[arg(long, conflicts_with = "new_group")]
    reuse_group: bool,
    /// Make a new group in each run
    #[arg(long)]
    new_group: bool,
    /// Of groups that runs made keep so many, the newest; 0 keeps all
    #[arg(long, value_name = "N")]
    keep_groups: Option<u16>,
    /// The deployment package that files are brought to; '' for none
    #[arg(long, value_name = "NAME")]
    package: Option<String>,
    /// Of files that are for one language alone, bring those for these
    #[arg(long, value_name = "TAG", value_delimiter = ',')]
    language: Option<Vec<String>>,
    /// Accept the terms of all updates that it means; otherwise those whose terms nobody accepted are left out
    #[arg(long, conflicts_with = "leave_out_licences")]
    accept_licences: bool,
    /// Leave out updates whose terms nobody accepted
    #[arg(long)]
    leave_out_licences: bool,
    /// What it is for
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
}

impl RuleArgs {
    fn body(self) -> RuleBody {
        let word = |one: bool, a: &str, other: bool, b: &str| {
            one.then(|| a.to_owned()).or_else(|| other.then(|| b.to_owned()))
        };
        let group = word(self.reuse_group, "reuse", self.new_group, "new");
        let licences = word(self.accept_licences, "accept", self.leave_out_licences, "leave-out");
        RuleBody {
            description: self.description,
            criteria: self.criteria,
            evaluation: self.evaluate,
            group: group.and_then(|word| serde_json::from_value(word.into()).ok()),
            licences: licences.and_then(|word| serde_json::from_value(word.into()).ok()),
            keep_groups: self.keep_groups,
            package: self.package,
            languages: self.language,
            ..RuleBody::default()
        }
    }
}

/// Runs a command on rules.
pub async fn run(command: RuleCommand, client: &Client, out: Out) -> Result<(), Failure> {
    match command {
        RuleCommand::Create(args) => create(args, client, out).await,
        RuleCommand::Preview { rule } | RuleCommand::Run { rule, dry_run: true, .. } => {
            let preview: RulePreview = client.get(&path(&["rules", &rule, "preview"])).await?;
            show::preview(&preview, out)
        }
        RuleCommand::Run { rule, detach, .. } => {
            let request = Request::new(Method::POST, &path(&["rules", &rule, "run"]));
            let ended = job::start::<RuleRunView>(client, request, out, detach).await?;
            let Ended::Done { result, .. } = ended else { return Ok(()) };
            show::ran(&rule, &result, out)
        }
        RuleCommand::Enable { rule, deployment } => {
            enable(&rule, deployment.as_deref(), true, client, out).await
        }
        RuleCommand::Disable { rule, deployment } => {
            enable(&rule, deployment.as_deref(), false, client, out).await
        }
        RuleCommand::List => {
            let all: Vec<RuleView> = client.list("/rules", &[], usize::MAX).await?;
            let rows = all.iter().map(|it| {
                let to: Vec<_> = it.deployments.iter().map(|it| it.collection.as_str()).collect();
                [
                    it.name.clone(),
                    if it.enabled { "yes" } else { "no" }.into(),
                    it.evaluation.clone(),
                    it.next.map(units::when).unwrap_or_default(),
                    to.join(", "),
                    units::count(it.runs),
                    it.description.clone(),
                ]
            });
            let columns =
                ["name", "enabled", "evaluated", "next", "deployed to", ">runs", "description"];
            out.show(&all, |w| w.write_all(table(columns, rows.collect()).as_bytes()))
        }
        RuleCommand::Show { rule } => show::rule(&rule, client, out).await,
        RuleCommand::Change { rule, what } => {
            let change = what.body();
            if change == RuleBody::default() {
                return Err(Failure::usage(
                    "nothing is to be changed: say what, as --evaluate 'after sync'; of its deployments, use `depot rule \
                     add-deployment`",
                ));
            }
            let request = Request::new(Method::PATCH, &path(&["rules", &rule])).json(&change)?;
            let view: RuleView = client.ask(request).await?;
            out.show(&view, |w| writeln!(w, "rule {} is changed", view.name))
        }
        RuleCommand::Delete { rule, yes } => {
            confirm(&format!("this deletes rule {rule} with its history"), yes)?;
            let request = Request::new(Method::DELETE, &path(&["rules", &rule]));
            let view: RuleView = client.ask(request).await?;
            out.show(&view, |w| {
                writeln!(
                    w,
                    "rule {} is deleted; groups and deployments that it made stay",
                    view.name
                )
            })
        }
        RuleCommand::History { rule, run: Some(run), .. } => {
            let at = path(&["rules", &rule, "runs", &run.to_string()]);
            show::run(&client.get(&at).await?, out)
        }
        RuleCommand::History { rule, limit, .. } => {
            let at = path(&["rules", &rule, "runs"]);
            show::history(&client.list(&at, &[], limit).await?, out)
        }
        RuleCommand::AddDeployment(args) => deployment::add(args, client, out).await,
        RuleCommand::RemoveDeployment { rule, deployment } => {
            let at = path(&["rules", &rule, "deployments", &deployment]);
            let view: RuleView = client.ask(Request::new(Method::DELETE, &at)).await?;
            out.show(&view, |w| writeln!(w, "rule {rule} has no deployment {deployment} any more"))
        }
        RuleCommand::Go { rule, deployment, group } => {
            deployment::say(&rule, "go", Some(deployment), group, client, out).await
        }
        RuleCommand::Hold { rule, deployment, group, release } => {
            let word = if release { "follow" } else { "hold" };
            deployment::say(&rule, word, Some(deployment), group, client, out).await
        }
        RuleCommand::Resume { rule, group } => {
            deployment::say(&rule, "resume", None, group, client, out).await
        }
    }
}

async fn create(args: CreateArgs, client: &Client, out: Out) -> Result<(), Failure> {
    let mut rule = RuleBody { template: args.template, ..args.what.body() };
    match args.collection {
        Some(collection) => {
            let name = args.name.unwrap_or_else(|| collection.clone());
            rule.deployments = Some(vec![args.deployment.body(name, collection)]);
        }
        None if args.deployment.is_given() => {
            return Err(Failure::usage("times of a deployment need --collection: to whom?"));
        }
        None => {}
    }
    let new = NewRule { name: args.rule, rule };
    if args.dry_run {
        let preview: RulePreview = client.post("/rule-preview", &new).await?;
        return show::preview(&preview, out);
    }
    let made: RuleView = client.post("/rules", &new).await?;
    out.show(&made, |w| {
        let next = made.next.map(|at| format!("; evaluated next {}", units::when(at)));
        writeln!(w, "rule {} is made{}", made.name, next.unwrap_or_default())
    })
}

/// Enables or disables a rule, or one of its deployments.
async fn enable(
    rule: &str,
    deployment: Option<&str>,
    enabled: bool,
    client: &Client,
    out: Out,
) -> Result<(), Failure> {
    let word = if enabled { "enabled" } else { "disabled" };
    let Some(its) = deployment else {
        let change = RuleBody { enabled: Some(enabled), ..RuleBody::default() };
        let request = Request::new(Method::PATCH, &path(&["rules", rule])).json(&change)?;
        let view: RuleView = client.ask(request).await?;
        return out.show(&view, |w| writeln!(w, "rule {rule} is {word}"));
    };
    let view: RuleView = client.get(&path(&["rules", rule])).await?;
    let found = view.deployments.into_iter().find(|it| it.name == its);
    let mut found = found.ok_or_else(|| {
        Failure::new(Exit::NotFound, format!("rule {rule} has no deployment {its:?}"))
    })?;
    found.enabled = enabled;
    let at = path(&["rules", rule, "deployments", its]);
    let view: RuleView = client.put(&at, &found).await?;
    out.show(&view, |w| writeln!(w, "deployment {its} of rule {rule} is {word}"))
}
