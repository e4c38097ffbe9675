//! `depot staging …`: which deployment packages are brought to which distribution points, and why.

use crate::{
    exit::Failure,
    output::{Out, table},
    transport::{Client, with_query},
    units,
};
use api::routes::deployments::StagingPlanView;
use clap::{Args, Subcommand};
use std::io::{self, Write};

/// Commands on staging.
#[derive(Debug, Subcommand)]
pub enum StagingCommand {
    /// Say what is to lie on which distribution point, as it is worked out now
    Plan(PlanArgs),
}

/// Which lines of the plan, and how they are told.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot staging plan
  depot staging plan --explain --point paris-1
  depot staging plan --deployment patch-day-2026-12-09-pilot --json | jq '.lines[].point'

Of what is deployed, the deployment packages that machines of a boundary group require are brought to the
points of that group, hours before it is available (deployment.staging_lead), and let go of when no deployment
needs them any more. It is done by itself, unless deployment.staging is off. A package is brought as a
whole: so keep those of different months apart.")]
pub struct PlanArgs {
    /// With the reasons of each line, and of what is not brought
    #[arg(long)]
    explain: bool,
    /// Only what is for this distribution point
    #[arg(long, value_name = "NAME")]
    point: Option<String>,
    /// Only what is because of this deployment
    #[arg(long, value_name = "NAME")]
    deployment: Option<String>,
    /// At most this many lines
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    limit: usize,
}

/// Runs a command on staging.
pub async fn run(command: StagingCommand, client: &Client, out: Out) -> Result<(), Failure> {
    let StagingCommand::Plan(args) = command;
    let limit = args.limit.to_string();
    let query = [
        ("point", args.point.as_deref()),
        ("deployment", args.deployment.as_deref()),
        ("limit", Some(limit.as_str())),
    ];
    let plan: StagingPlanView = client.get(&with_query("/staging/plan".to_owned(), &query)).await?;
    out.show(&plan, |w| shown(w, &plan, args.explain))?;
    if (plan.lines.len() as u64) < plan.n_lines {
        let (shown, all) = (units::count(plan.lines.len() as u64), units::count(plan.n_lines));
        out.note(format!("{shown} of {all} lines; more with --limit"));
    }
    if !plan.staging {
        out.note("deployment.staging is off: nothing of it is done by itself");
    }
    Ok(())
}

fn shown(w: &mut dyn Write, plan: &StagingPlanView, explain: bool) -> io::Result<()> {
    let rows = plan.lines.iter().map(|line| {
        [
            line.point.clone(),
            line.package.clone(),
            line.state.clone(),
            units::bytes(line.bytes),
            units::when(line.by),
            units::count(line.machines.into()),
        ]
    });
    match explain {
        false => {
            let columns = ["point", "package", "state", ">size", "needed by", ">required on"];
            w.write_all(table(columns, rows.collect()).as_bytes())?;
        }
        true => {
            for (line, row) in plan.lines.iter().zip(rows) {
                let [point, package, state, size, by, _] = row;
                writeln!(w, "{package} on {point}: {state}, {size}, needed by {by}")?;
                for it in &line.because {
                    let machines = units::counted(it.machines.into(), "machine", "machines");
                    writeln!(
                        w,
                        "  {}: {machines} of {} require it",
                        it.deployment, it.boundary_group
                    )?;
                }
            }
            for it in &plan.left {
                writeln!(w, "{}: {}", it.deployment, it.why)?;
            }
        }
    }
    let (assign, release) = (units::count(plan.assign), units::count(plan.release));
    writeln!(
        w,
        "{} to bring; {assign} to assign, {release} to release",
        units::bytes(plan.bring_bytes)
    )
}
