//! `depot package update`: reads a package's source folder.

use crate::{
    exit::{Failure, one_line},
    job::{self, Ended},
    output::Out,
    transport::{Client, Request, path},
    units,
};
use api::{jobs::JobProgress, mirror::MirroredView, views::UpdateView};
use clap::Args;
use http::Method;
use packager::refs::SourceFolder;
use std::{io::Write, path::PathBuf, time::Duration};

/// Take a package's source, a folder or an upstream, and make a new version if anything changed
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot package update docs
  depot package update docs --source /srv/docs-new     # and from there from now on
  depot package update docs --read-all                 # trusts no size and time
  depot package update debian-security                 # a mirror: as the last sync found its upstream

Files whose size, times and inode are as they were are not read again. If nothing changed, no
version is made. The source is a folder of the machine that holds the library: with --url that is
the server. To send files from another machine, use `depot package push`.

A mirror brings what is not held and makes a version when all of it is there; else it names what is
missing, keeps what came, and goes on with the next update.")]
pub struct UpdateArgs {
    /// Name of the package
    name: String,
    /// Read this folder instead, now and from now on
    #[arg(long, value_name = "DIR")]
    source: Option<PathBuf>,
    /// Read every file, whatever its size and times say; also heals damaged content
    #[arg(long)]
    read_all: bool,
    /// Print the job's id and leave it running
    #[arg(long)]
    detach: bool,
}

/// Updates, and says what came of it.
pub async fn run(args: UpdateArgs, client: &Client, out: Out) -> Result<(), Failure> {
    let source = args.source.map(|folder| source_text("--source", folder, client)).transpose()?;
    let rescan = if args.read_all { "everything" } else { "changed" };
    let mut body = serde_json::json!({ "rescan": rescan });
    if let Some(source) = source {
        body["source"] = source.into();
    }
    let address = path(&["packages", &args.name, "update"]);
    let request = Request::new(Method::POST, &address).json(&body)?;
    match job::start::<UpdateView>(client, request, out, args.detach).await? {
        Ended::Detached => Ok(()),
        Ended::Done { result, progress } => {
            if let Some(mirror) = &result.mirror {
                notes(mirror, out);
            }
            out.show(&result, |w| people(w, &result, &progress))
        }
    }
}

/// What is to be known of a snapshot beside its version.
fn notes(mirror: &MirroredView, out: Out) {
    if let Some(at) = mirror.valid_until {
        out.note(format!("machines take it until {}, as its upstream says", units::when(at)));
    }
    if let Some(waiting) = &mirror.on_demand {
        out.note(format!(
            "{}, {}, come when somebody asks for them first",
            units::counted(waiting.files, "file", "files"),
            units::bytes(waiting.bytes)
        ));
    }
    if !mirror.missing.is_empty() {
        out.note(one_line(&format!(
            "{} does not have: {}",
            mirror.source,
            mirror.missing.join(", ")
        )));
    }
    if mirror.left_out > 0 {
        let first = mirror.left_out_examples.first().map(String::as_str).unwrap_or_default();
        let count = units::counted(mirror.left_out, "entry", "entries");
        let text = format!("{count} of {} cannot be mirrored, the first: {first}", mirror.source);
        out.note(one_line(&text));
    }
}

/// What an update or an upload came to, for people.
pub fn people(
    w: &mut dyn Write,
    report: &UpdateView,
    progress: &JobProgress,
) -> std::io::Result<()> {
    let took = Duration::from_secs_f64(report.seconds.clamp(0.0, 1e9));
    let tree = format!(
        "{}, {}",
        units::counted(report.files, "file", "files"),
        units::bytes(report.bytes)
    );
    if report.unchanged {
        return writeln!(
            w,
            "{} is unchanged: still version {}, {tree}; {}",
            report.package,
            report.version,
            units::duration(took),
        );
    }
    let ratio = |r: Option<f64>| r.map_or_else(|| "-".to_owned(), |r| format!("{r:.2}"));
    writeln!(w, "{} version {}: {tree}", report.package, report.version)?;
    writeln!(
        w,
        "  read    {}, {}",
        units::counted(report.files_read, "file", "files"),
        units::bytes(progress.bytes)
    )?;
    writeln!(
        w,
        "  new     {} ({})",
        units::bytes(report.new_bytes),
        dedup(report.new_bytes, report.dedup_ratio)
    )?;
    writeln!(
        w,
        "  stored  {} (compression {})",
        units::bytes(report.stored_bytes),
        ratio(report.compression_ratio)
    )?;
    writeln!(w, "  took    {}{}", units::duration(took), units::speed(progress.bytes, took))?;
    if !report.removed_versions.is_empty() {
        let gone: Vec<String> = report.removed_versions.iter().map(u64::to_string).collect();
        writeln!(w, "  removed version {} by the package's retention", gone.join(", "))?;
    }
    Ok(())
}

/// How much of a tree was held already. Of a large one that is new by a few bytes the ratio would
/// be a number that says no more than that.
fn dedup(new_bytes: u64, ratio: Option<f64>) -> String {
    match ratio {
        _ if new_bytes == 0 => "all of it was held".to_owned(),
        None => "dedup -".to_owned(),
        Some(ratio) if ratio >= 1000.0 => "dedup over 1,000".to_owned(),
        Some(ratio) => format!("dedup {ratio:.2}"),
    }
}

/// A source folder as the API wants it: an absolute path.
///
/// A relative one is taken from here, which is only right where library and command share a
/// machine.
pub fn source_text(option: &str, folder: PathBuf, client: &Client) -> Result<String, Failure> {
    if folder.is_relative() && !client.is_on_this_machine() {
        return Err(Failure::usage(format!(
            "{option} {} is relative: give the absolute path of a folder on the server, or send \
             files from here with `depot package push`",
            folder.display()
        )));
    }
    Ok(SourceFolder(std::path::absolute(folder)?).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_that_says_nothing_is_not_told() {
        let said = [(0, None), (1, Some(52_428_806.0)), (9, Some(1.319)), (9, None)]
            .map(|(new, ratio)| dedup(new, ratio));
        assert_eq!(said, ["all of it was held", "dedup over 1,000", "dedup 1.32", "dedup -"]);
    }
}
