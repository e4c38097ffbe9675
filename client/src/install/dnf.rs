//! Packages of the RPM family: what dnf is told, and what it says.
//!
//! All repositories are off: dnf sees the files that it is given, and what is installed.

use super::Said;
use crate::enforce::code;
use deployment::enforcement::{Failure, MAX_DETAIL};
use std::collections::BTreeSet;

/// What it is run with.
pub const ENVIRONMENT: [(&str, &str); 3] =
    [("LC_ALL", "C"), ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), ("HOME", "/root")];

/// Installs packages: paths of files. `root`: the machine's files, if they are not those of this one.
pub fn install(files: &[String], root: Option<&str>) -> Vec<String> {
    // What files of a deployment are was checked by their digests, which the site signed.
    let words =
        ["dnf", "-y", "--disablerepo=*", "--setopt=install_weak_deps=False", "--nogpgcheck"];
    let mut words: Vec<String> = words.map(str::to_owned).into();
    words.extend(root.map(|root| format!("--installroot={root}")));
    words.push("install".into());
    words.extend(files.iter().cloned());
    words
}

/// Asks whether the machine has to restart.
pub fn needs_restart() -> Vec<String> {
    ["dnf", "-q", "--disablerepo=*", "needs-restarting", "-r"].map(str::to_owned).into()
}

/// Whether it says so: the plug-in may not be there.
pub fn says_restart(code: Option<i32>, said: &str) -> bool {
    code == Some(1) && said.contains("Reboot is required")
}

/// What its end means.
pub fn said(code: Option<i32>, said: &str) -> Said {
    if code == Some(0) {
        return Said::Installed { restarts: false };
    }
    if said.contains("Waiting for process") || said.contains("can't create transaction lock") {
        return Said::Another;
    }
    // "  - nothing provides libx >= 2 needed by y-1-1.x86_64 from @commandline"
    let lacks =
        said.lines().filter_map(|line| line.split_once("nothing provides ")?.1.split(' ').next());
    let lacks: BTreeSet<String> = lacks.filter(|it| it.len() < 200).map(str::to_owned).collect();
    if !lacks.is_empty() {
        return Said::Lacks(lacks);
    }
    let words = super::last_words(said, MAX_DETAIL);
    Said::Failed(Failure::new(code.map_or(code::LOCAL, i64::from), words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_says_becomes_what_came_of_it() {
        assert_eq!(said(Some(0), ""), Said::Installed { restarts: false });
        let text = "Error: \n Problem: conflicting requests\n  - nothing provides libx >= 2 needed by y-1-1.x86_64\n";
        assert_eq!(said(Some(1), text), Said::Lacks(BTreeSet::from(["libx".into()])));
        assert!(matches!(said(Some(1), "Error: x"), Said::Failed(it) if it.detail == "Error: x"));
        assert!(says_restart(Some(1), "Reboot is required to fully utilize these updates.\n"));
        assert!(!says_restart(Some(1), "No such command: needs-restarting"));
        let words = install(&["/c/a.rpm".into()], Some("/r")).join(" ");
        assert!(words.ends_with("--installroot=/r install /c/a.rpm"), "{words}");
    }
}
