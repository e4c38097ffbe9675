//! How an update is installed: what is run, and what came of it.
//!
//! Nothing is run here. A [`Plan`] says what is to be done with which files of the cache; [`apt`], [`dnf`] and [`command`]
//! have the words of each installer and read what it said. [`restart`] says whether the machine has to restart.

pub mod apt;
pub mod command;
pub mod dnf;
pub mod restart;

use crate::enforce::code;
use crate::enforce::found::Needed;
use crate::facts::Platform;
use deployment::enforcement::Failure;
use deployment::policy::{DeployedFile, DeployedItem};
use std::collections::BTreeSet;
use sync::update::Handler;

/// The longest text of an installer that is read, in bytes: its end says what went wrong.
pub const MAX_SAID: usize = 256 << 10;

/// One run of an installer.
#[derive(Clone, Debug, PartialEq)]
pub enum Plan {
    /// Packages, by the machine's own packager.
    Packages {
        /// Of Debian, or of RPM.
        platform: Platform,
        /// Those that are installed.
        files: Vec<DeployedFile>,
        /// Those that may be, if these need them.
        beside: Vec<DeployedFile>,
    },
    /// A program of the update's own.
    Command {
        /// How it is run, and what its end means.
        handler: Handler,
        /// Its files.
        files: Vec<DeployedFile>,
    },
}

/// What an installer's end means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// It is installed; whether it says that the machine has to restart.
    Installed {
        /// Whether it has to.
        restarts: bool,
    },
    /// It depends on packages of those names.
    Lacks(BTreeSet<String>),
    /// Another installer is at work.
    Another,
    /// It failed.
    Failed(Failure),
}

/// What is run for an update, in order; `beside`: files that its installer lacked before.
///
/// # Errors
/// There is no way to install it on this machine.
pub fn plans(
    needed: &Needed,
    beside: &[DeployedFile],
    platform: Platform,
) -> Result<Vec<Plan>, Failure> {
    let no_way = |what: String| Err(Failure::new(code::NO_WAY, what));
    let mut plans = Vec::new();
    for DeployedItem { handler, files, .. } in &needed.items {
        let are_packages = !files.is_empty() && files.iter().all(|file| file.package.is_some());
        let by = match (handler, platform) {
            (Some(Handler::Apt), _) => Some(Platform::Debian),
            (Some(Handler::Rpm), _) => Some(Platform::Rpm),
            (None, Platform::Debian | Platform::Rpm) if are_packages => Some(platform),
            _ => None,
        };
        match (by, handler) {
            (Some(by), _) if by != platform => {
                return no_way(format!("it is for {by}, and this is {platform}"));
            }
            (Some(platform), _) => plans.push(Plan::Packages {
                platform,
                files: files.clone(),
                beside: beside.to_vec(),
            }),
            (None, Some(handler @ Handler::CommandLine { .. })) => {
                plans.push(Plan::Command { handler: handler.clone(), files: files.clone() });
            }
            (None, Some(Handler::Other { name, .. })) => {
                return no_way(format!("no installer here is called {name}"));
            }
            (None, Some(Handler::Msi { .. } | Handler::Msp { .. })) => {
                return no_way("it is for Windows Installer".into());
            }
            (None, _) => return no_way("it does not say how it is installed".into()),
        }
    }
    if plans.is_empty() {
        return no_way("it has nothing to install on this machine".into());
    }
    Ok(plans)
}

impl Plan {
    /// Its files, all of them.
    pub fn files(&self) -> impl Iterator<Item = &DeployedFile> {
        let (files, beside): (_, &[DeployedFile]) = match self {
            Self::Packages { files, beside, .. } => (files, beside),
            Self::Command { files, .. } => (files, &[]),
        };
        files.iter().chain(beside)
    }
}

/// A name for a file in a folder of its own, whatever the file is called: one that cannot leave the folder, or be taken
/// for an option.
pub fn plain_name(file: &DeployedFile) -> Option<&str> {
    let name = file.name.as_str();
    let is_plain = !name.is_empty()
        && name.len() <= 255
        && !name.starts_with(['.', '-'])
        && !name.contains(['/', '\\'])
        && !name.chars().any(char::is_control);
    is_plain.then_some(name)
}

/// The last lines of what an installer said, for a person.
pub fn last_words(said: &str, most: usize) -> String {
    let lines: Vec<&str> = said.lines().map(str::trim_end).filter(|it| !it.is_empty()).collect();
    let mut from = lines.len();
    let mut length = 0;
    while from > 0 && length + lines[from - 1].len() < most {
        from -= 1;
        length += lines[from].len() + 1;
    }
    lines[from..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use sync::update::PackageFile;

    fn package(name: &str) -> DeployedFile {
        let package = PackageFile { name: name.into(), version: "1".into(), arch: "all".into() };
        let name = format!("{name}_1_all.deb");
        DeployedFile { name, package: Some(package), ..DeployedFile::default() }
    }

    fn needed(handler: Option<Handler>, files: Vec<DeployedFile>) -> Needed {
        let item = DeployedItem { handler, files, ..DeployedItem::default() };
        Needed { items: vec![item], ..Needed::default() }
    }

    #[test]
    fn packages_are_the_machines_own_and_what_is_foreign_is_refused_in_words() {
        let of = |handler: Option<Handler>, platform| {
            plans(&needed(handler, vec![package("a")]), &[package("b")], platform)
        };
        for handler in [Some(Handler::Apt), None] {
            let plans = of(handler, Platform::Debian).unwrap();
            assert_eq!(plans[0].files().count(), 2);
        }
        let failure = of(Some(Handler::Apt), Platform::Rpm).unwrap_err();
        assert_eq!(failure.detail, "it is for a machine with dpkg, and this is a machine with rpm");
        let other = Handler::Other { name: "cbs".into(), data: String::new() };
        assert_eq!(of(Some(other), Platform::Debian).unwrap_err().code, code::NO_WAY);
        let nothing = plans(&Needed::default(), &[], Platform::Debian);
        assert!(nothing.unwrap_err().detail.contains("nothing to install"));
    }

    #[test]
    fn names_stay_in_their_folder() {
        for bad in ["", "../x", "a/b", ".hidden", "-o", "a\nb"] {
            let file = DeployedFile { name: bad.into(), ..DeployedFile::default() };
            assert_eq!(plain_name(&file), None, "{bad:?}");
        }
        assert_eq!(plain_name(&package("a")), Some("a_1_all.deb"));
    }

    #[test]
    fn the_last_words_are_whole_lines() {
        assert_eq!(last_words("one\n\ntwo \nthree\n", 11), "two\nthree");
        assert_eq!(last_words("", 10), "");
    }
}
