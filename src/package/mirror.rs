//! What a package mirrors, as options of `depot package create`, and in words.

use super::listed::names;
use crate::exit::{Doing, Failure};
use api::mirror::Mirror;
use clap::Args;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The largest list of names that is read, in bytes.
const MAX_LIST: u64 = 16 << 20;
/// How many names are told.
const TOLD: usize = 3;

/// What a package mirrors.
#[derive(Debug, Args)]
pub struct MirrorArgs {
    /// Mirror this source of updates: a Debian archive or an RPM repository
    #[arg(long, value_name = "SOURCE")]
    mirror: Option<String>,
    /// With --mirror: only these packages; `*` stands for any letters
    #[arg(long, value_name = "NAME", value_delimiter = ',', requires = "mirror")]
    only: Vec<String>,
    /// With --mirror: only the packages that this file names, one a line, as `dpkg-query -W`, `dpkg-query -l`,
    /// `rpm -qa` or `dnf list` list them
    #[arg(long, value_name = "FILE", requires = "mirror")]
    include: Option<PathBuf>,
    /// With --mirror of an archive: only what is built of these source packages
    #[arg(long, value_name = "NAME", value_delimiter = ',', requires = "mirror")]
    sources: Vec<String>,
    /// With --mirror of an RPM repository: only what these advisories list
    #[arg(long, value_name = "ID", value_delimiter = ',', requires = "mirror")]
    advisory: Vec<String>,
    /// With --mirror of an archive: only these sections, as net
    #[arg(long, value_name = "NAME", value_delimiter = ',', requires = "mirror")]
    section: Vec<String>,
    /// With --mirror: only these architectures, and packages for all of them
    #[arg(long, value_name = "ARCH", value_delimiter = ',', requires = "mirror")]
    arch: Vec<String>,
    /// With --mirror: of each package only the newest version
    #[arg(long, requires = "mirror")]
    newest_only: bool,
    /// With --mirror and a choice: what the chosen packages depend on, too
    #[arg(long, requires = "mirror")]
    with_dependencies: bool,
    /// With --mirror: bring metadata alone; each package comes when somebody asks for it first
    #[arg(long, requires = "mirror")]
    on_demand: bool,
    /// With --mirror: only packages that are installed on a client of this collection, each time that the
    /// package is updated
    #[arg(long, value_name = "COLLECTION", requires = "mirror")]
    only_installed_on: Option<String>,
}

impl MirrorArgs {
    /// The same as the site takes it; nothing without `--mirror`.
    pub fn mirror(&self) -> Result<Option<Mirror>, Failure> {
        let Some(source) = &self.mirror else { return Ok(None) };
        let set = |names: &[String]| names.iter().cloned().collect::<BTreeSet<_>>();
        let include = self.include.as_deref().map(listed).transpose()?;
        if include.as_ref().is_some_and(BTreeSet::is_empty) {
            // A choice of nothing would be all there is.
            return Err(Failure::usage("--include names a file without any name in it"));
        }
        let is_all = include.is_none()
            && self.only_installed_on.is_none()
            && [&self.only, &self.sources, &self.advisory, &self.section, &self.arch]
                .iter()
                .all(|names| names.is_empty());
        if self.with_dependencies && is_all {
            return Err(Failure::usage(
                "--with-dependencies needs a choice, as --only or --include: without one all \
                 packages are taken anyway",
            ));
        }
        Ok(Some(Mirror {
            source: source.clone(),
            only: set(&self.only),
            include: include.unwrap_or_default(),
            sources: set(&self.sources),
            advisories: set(&self.advisory),
            sections: set(&self.section),
            arches: set(&self.arch),
            newest_only: self.newest_only,
            with_dependencies: self.with_dependencies,
            on_demand: self.on_demand,
            installed_on: self.only_installed_on.clone(),
        }))
    }
}

/// A failure with the option in place of the setting that the site names: `mirror.source` is `--mirror`.
pub fn in_options(mut failure: Failure) -> Failure {
    const OPTIONS: [(&str, &str); 9] = [
        ("source", "mirror"),
        ("only", "only"),
        ("include", "include"),
        ("sources", "sources"),
        ("advisories", "advisory"),
        ("sections", "section"),
        ("arches", "arch"),
        ("with_dependencies", "with-dependencies"),
        ("installed_on", "only-installed-on"),
    ];
    let setting = failure.message.strip_prefix("mirror.").and_then(|rest| rest.split_once(' '));
    if let Some((setting, rest)) = setting
        && let Some((_, option)) = OPTIONS.iter().find(|(name, _)| *name == setting)
    {
        failure.message = format!("--{option} {rest}");
    }
    failure
}

/// The names in a file.
fn listed(file: &Path) -> Result<BTreeSet<String>, Failure> {
    let mut text = String::new();
    File::open(file)
        .and_then(|opened| opened.take(MAX_LIST + 1).read_to_string(&mut text))
        .doing(|| format!("cannot read {}", file.display()))?;
    if text.len() as u64 > MAX_LIST {
        return Err(Failure::usage(format!("{} is too long to be a list", file.display())));
    }
    names(&text).map_err(|why| Failure::usage(format!("{}: {why}", file.display())))
}

/// What a package mirrors, in a few words.
pub fn text(mirror: &Mirror) -> String {
    let lists = [
        &mirror.only,
        &mirror.include,
        &mirror.sources,
        &mirror.advisories,
        &mirror.sections,
        &mirror.arches,
    ];
    let all: Vec<&str> = lists.iter().flat_map(|names| names.iter().map(String::as_str)).collect();
    let mut text = format!("mirror of {}", mirror.source);
    if let Some(first) = all.get(..all.len().min(TOLD)).filter(|first| !first.is_empty()) {
        text.push_str(&format!(": {}", first.join(", ")));
        if all.len() > TOLD {
            text.push_str(&format!(" and {} more", all.len() - TOLD));
        }
    }
    if let Some(collection) = &mirror.installed_on {
        text.push_str(&format!(", what {collection} has installed"));
    }
    if mirror.newest_only {
        text.push_str(", the newest");
    }
    if mirror.with_dependencies {
        text.push_str(", with dependencies");
    }
    if mirror.on_demand {
        text.push_str(", on demand");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_is_told_in_a_few_words() {
        let mut mirror = Mirror { source: "debian".into(), ..Mirror::default() };
        assert_eq!(text(&mirror), "mirror of debian");
        mirror.only = ["a", "b", "c", "d"].map(String::from).into();
        mirror.newest_only = true;
        mirror.on_demand = true;
        let said = "mirror of debian: a, b, c and 1 more, the newest, on demand";
        assert_eq!(text(&mirror), said);
    }
}
