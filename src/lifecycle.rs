//! `depot lifecycle …`: when updates expire and go.

use crate::{
    exit::Failure,
    output::{Out, facts, table},
    transport::{Client, with_query},
    units,
};
use api::routes::updates::{AgeingView, PolicyView};
use clap::{Args, Subcommand};

/// Commands on the life of updates.
#[derive(Debug, Subcommand)]
pub enum LifecycleCommand {
    /// Show when updates expire and go
    #[command(after_help = "\
Examples:
  depot lifecycle show")]
    Show,
    /// Set when updates expire and go; what is not given stays as it is
    Set(SetArgs),
    /// Show what would happen now, by the policy or by another one
    Preview(PreviewArgs),
}

/// Set when updates expire and go
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot lifecycle preview --supersedence 1          # look first
  depot lifecycle set --supersedence 3
  depot lifecycle set --supersedence-of upgrade=6 --purge-after-days 60
  depot lifecycle set --supersedence never

What is superseded is still offered; what is expired gets no new deployments. It takes effect with the
next sync, at the latest within the hour.")]
pub struct SetArgs {
    /// Months from the creation of what replaced an update until it expires; 0 at once, or never
    #[arg(long, value_name = "MONTHS")]
    supersedence: Option<String>,
    /// The same for one classification, as upgrade=6; upgrade=default as the others again
    #[arg(long, value_name = "CLASS=MONTHS")]
    supersedence_of: Vec<String>,
    /// Days after which what is expired and not deployed is purged, or never
    #[arg(long, value_name = "DAYS")]
    purge_after_days: Option<String>,
}

/// Show what would happen now
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot lifecycle preview
  depot lifecycle preview --supersedence 1 --limit 1000 --json")]
pub struct PreviewArgs {
    /// As if this were set: months, or never
    #[arg(long, value_name = "MONTHS")]
    supersedence: Option<String>,
    /// As if this were set: days, or never
    #[arg(long, value_name = "DAYS")]
    purge_after_days: Option<String>,
    /// Steps that are shown one by one
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
}

/// Runs a command on the life of updates.
pub async fn run(command: LifecycleCommand, client: &Client, out: Out) -> Result<(), Failure> {
    match command {
        LifecycleCommand::Show => show(&client.get("/lifecycle").await?, out),
        LifecycleCommand::Set(args) => {
            let SetArgs { supersedence, supersedence_of, purge_after_days } = &args;
            if supersedence.is_none() && supersedence_of.is_empty() && purge_after_days.is_none() {
                return Err(Failure::usage(
                    "nothing is to be set: say what, with --supersedence, --supersedence-of or \
                     --purge-after-days",
                ));
            }
            let policy = changed(client.get("/lifecycle").await?, args)?;
            show(&client.put("/lifecycle", &policy).await?, out)
        }
        LifecycleCommand::Preview(args) => preview(&args, client, out).await,
    }
}

fn changed(mut policy: PolicyView, args: SetArgs) -> Result<PolicyView, Failure> {
    policy.supersedence = args.supersedence.unwrap_or(policy.supersedence);
    for rule in args.supersedence_of {
        let Some((class, months)) = rule.split_once('=') else {
            return Err(Failure::usage(format!(
                "--supersedence-of {rule:?}: want CLASS=MONTHS, as upgrade=6"
            )));
        };
        match months {
            "default" => drop(policy.by_classification.remove(class)),
            _ => drop(policy.by_classification.insert(class.to_owned(), months.to_owned())),
        }
    }
    match args.purge_after_days.as_deref() {
        None => {}
        Some("never") => policy.purge_after_days = None,
        Some(days) => {
            let wrong = |_| Failure::usage("--purge-after-days must be a number of days, or never");
            policy.purge_after_days = Some(days.parse().map_err(wrong)?);
        }
    }
    Ok(policy)
}

fn show(policy: &PolicyView, out: Out) -> Result<(), Failure> {
    let months = |wait: &str| match wait {
        "never" => "never".to_owned(),
        "0" => "at once".to_owned(),
        "1" => "after 1 month".to_owned(),
        months => format!("after {months} months"),
    };
    let mut rows = vec![("superseded ones expire".to_owned(), months(&policy.supersedence))];
    for (class, wait) in &policy.by_classification {
        rows.push((format!("  {class}"), months(wait)));
    }
    let purge = policy.purge_after_days;
    let purge = purge.map(|days| format!("after {}", units::counted(days.into(), "day", "days")));
    rows.push(("expired ones are purged".to_owned(), purge.unwrap_or_else(|| "never".to_owned())));
    let rows: Vec<(&str, String)> =
        rows.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    out.show(policy, |w| w.write_all(facts(&rows).as_bytes()))
}

async fn preview(args: &PreviewArgs, client: &Client, out: Out) -> Result<(), Failure> {
    let limit = args.limit.to_string();
    let query = [
        ("limit", Some(limit.as_str())),
        ("supersedence", args.supersedence.as_deref()),
        ("purge_after_days", args.purge_after_days.as_deref()),
    ];
    let ageing: AgeingView =
        client.get(&with_query("/lifecycle/preview".to_owned(), &query)).await?;
    let rows: Vec<_> = ageing
        .steps
        .iter()
        .map(|step| {
            let because = step.because.clone().unwrap_or_default();
            [step.name.clone(), step.from.clone(), step.to.clone(), because]
        })
        .collect();
    out.show(&ageing, |w| {
        let (expire, purge) = (units::count(ageing.expire), units::count(ageing.purge));
        let again = units::count(ageing.reinstate);
        writeln!(w, "{expire} would expire, {purge} would be purged, {again} offered again")?;
        match rows.is_empty() {
            true => Ok(()),
            false => write!(w, "\n{}", table(["update", "from", "to", "because"], rows)),
        }
    })
}
