//! `depot distribute` and `depot undistribute`: which packages distribution points hold.

use crate::{
    exit::Failure,
    output::Out,
    package::Selected,
    several::each,
    transport::{Client, Request, path, with_query},
    units,
};
use api::routes::points::{
    AssignmentView, FreeingView, GroupView, NewAssignment, PriorityView, Unassigned,
};
use clap::{Args, ValueEnum};
use http::Method;
use std::time::Duration;

/// Bring a package to distribution points, and keep it there
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot distribute docs --dp branch-7               # its newest version, from now on
  depot distribute docs@stable --group paris --priority high
  depot distribute docs@3 --dp branch-7 --dp branch-8

Without a version, and with a channel, points follow: when it moves they bring what it means then.
How far they are: depot content-status docs")]
pub struct DistributeArgs {
    /// NAME, NAME@VERSION or NAME@CHANNEL
    #[arg(value_name = "NAME[@VERSION]")]
    package: Selected,
    #[command(flatten)]
    to: Targets,
    /// How soon: all of a higher priority before any of a lower
    #[arg(long, value_enum, default_value = "medium")]
    priority: Priority,
}

/// Let distribution points drop a package
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot undistribute docs --dp branch-7             # all of it that was distributed there
  depot undistribute docs@stable --group paris      # this alone, in the words that it was
  depot undistribute docs --group paris --dry-run   # what would become free

Points let go of versions that nothing else distributes to them; the bytes that no other version
has become free there after a grace time (library.gc_grace there, 24 hours by default), with the next
garbage collection. How many that are is said before they go; --dry-run says it and does nothing.")]
pub struct UndistributeArgs {
    /// NAME, NAME@VERSION or NAME@CHANNEL
    #[arg(value_name = "NAME[@VERSION]")]
    package: Selected,
    #[command(flatten)]
    to: Targets,
    /// Change nothing; say what would become free
    #[arg(long)]
    dry_run: bool,
}

/// Where to.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct Targets {
    /// A distribution point, by name or id; may be given several times
    #[arg(long, value_name = "NAME")]
    dp: Vec<String>,
    /// A group: each distribution point in it, also those that come later; may be given several
    /// times
    #[arg(long, value_name = "NAME")]
    group: Vec<String>,
}

impl Targets {
    /// Each as point or group.
    pub fn each(&self) -> impl Iterator<Item = (Option<&str>, Option<&str>)> {
        let points = self.dp.iter().map(|name| (Some(name.as_str()), None));
        points.chain(self.group.iter().map(|name| (None, Some(name.as_str()))))
    }
}

/// How soon a version is brought.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Priority {
    /// When nothing else waits
    Low,
    /// As usual
    Medium,
    /// Before all else
    High,
}

impl From<Priority> for PriorityView {
    fn from(priority: Priority) -> Self {
        match priority {
            Priority::Low => Self::Low,
            Priority::Medium => Self::Medium,
            Priority::High => Self::High,
        }
    }
}

/// A priority as it is written.
pub fn priority_name(priority: PriorityView) -> &'static str {
    match priority {
        PriorityView::Low => "low",
        PriorityView::Medium => "medium",
        PriorityView::High => "high",
    }
}

/// Distributes a package to each point and group that is named.
pub async fn distribute(args: DistributeArgs, client: &Client, out: Out) -> Result<(), Failure> {
    let distribute = async |(point, group): (Option<&str>, Option<&str>)| {
        let new = NewAssignment {
            package: args.package.name.clone(),
            version: args.package.version_or_latest().to_owned(),
            point: point.map(str::to_owned),
            group: group.map(str::to_owned),
            priority: args.priority.into(),
        };
        client.put::<AssignmentView>("/assignments", &new).await
    };
    let (done, failed) = each(args.to.each(), distribute).await;
    for group in done.iter().filter_map(|assignment| assignment.group.as_deref()) {
        let its: GroupView = client.get(&path(&["point-groups", group])).await?;
        if its.points.is_empty() {
            out.note(format!(
                "group {group} has no distribution points yet: those that come will get it"
            ));
        }
    }
    let shown = out.show(&done, |w| {
        done.iter().try_for_each(|assignment| {
            let priority = priority_name(assignment.priority);
            let (what, to) = in_words(assignment);
            writeln!(w, "{what} is distributed to {to}, priority {priority}")
        })
    });
    failed.and(shown)
}

/// Takes a package back from each point and group that is named.
pub async fn undistribute(
    args: UndistributeArgs,
    client: &Client,
    out: Out,
) -> Result<(), Failure> {
    let undistribute = async |(point, group): (Option<&str>, Option<&str>)| {
        let query = [
            ("package", Some(args.package.name.as_str())),
            ("version", args.package.version.as_deref()),
            ("point", point),
            ("group", group),
            ("dry_run", args.dry_run.then_some("true")),
        ];
        let address = with_query("/assignments".to_owned(), &query);
        client.ask::<Unassigned>(Request::new(Method::DELETE, &address)).await
    };
    let (gone, failed) = each(args.to.each(), undistribute).await;
    let mut all = Unassigned { removed: Vec::new(), frees: Vec::new() };
    for gone in gone {
        all.removed.extend(gone.removed);
        all.frees.extend(gone.frees);
    }
    let shown = out.show(&all, |w| {
        let verb = if args.dry_run { "would no longer be" } else { "is no longer" };
        for assignment in &all.removed {
            let (what, to) = in_words(assignment);
            writeln!(w, "{what} {verb} distributed to {to}")?;
        }
        all.frees.iter().try_for_each(|freeing| writeln!(w, "  {}", freed(freeing)))
    });
    failed.and(shown)
}

/// What becomes free on a point, as a sentence.
fn freed(freeing: &FreeingView) -> String {
    let FreeingView { point, versions, bytes, grace, cause, .. } = freeing;
    let n = units::counted(versions.len() as u64, "version", "versions");
    match (versions.is_empty(), bytes) {
        (true, _) => format!("{point} holds nothing of it that would go"),
        (_, None) => {
            let cause = cause.as_deref().unwrap_or("it is not known");
            format!("{point} lets go of {n}; how much that frees cannot be told: {cause}")
        }
        (_, Some(bytes)) => {
            let bytes = units::bytes(*bytes);
            let when = match grace {
                Some(grace) => format!("{} later", units::duration(Duration::from_secs(*grace))),
                None => "once it collects garbage".to_owned(),
            };
            format!("{point} lets go of {n}, which frees {bytes} of content {when}")
        }
    }
}

/// `docs@stable`, and `group paris`.
fn in_words(assignment: &AssignmentView) -> (String, String) {
    let what = format!("{}@{}", assignment.package, assignment.version);
    let to = match (&assignment.point, &assignment.group) {
        (Some(point), _) => format!("distribution point {point}"),
        (None, group) => format!("group {}", group.as_deref().unwrap_or_default()),
    };
    (what, to)
}
