//! Debian's packages: what apt and dpkg are told, and what they say.
//!
//! apt gets the packages as files and knows no other source, so nothing can come over the network, and what it does
//! not find is said. It resolves what they depend on among these files and what is installed.

use super::Said;
use crate::enforce::code;
use crate::settings::ConfigFiles;
use deployment::enforcement::{Failure, MAX_DETAIL};
use std::collections::BTreeSet;

/// How long apt waits for the lock of another one, in seconds.
pub const LOCK_WAIT: u32 = 120;

/// What everything is run with: no questions, and messages that are read here in English.
pub const ENVIRONMENT: [(&str, &str); 7] = [
    ("DEBIAN_FRONTEND", "noninteractive"),
    ("DEBIAN_PRIORITY", "critical"),
    ("APT_LISTCHANGES_FRONTEND", "none"),
    ("NEEDRESTART_SUSPEND", "1"),
    ("LC_ALL", "C"),
    ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
    ("HOME", "/root"),
];

/// What becomes of configuration files, as dpkg calls it.
fn config_files(choice: ConfigFiles) -> [&'static str; 2] {
    // dpkg(1), --force-things: the default where the package has one, else the old or the new one.
    match choice {
        ConfigFiles::Keep => ["--force-confdef", "--force-confold"],
        ConfigFiles::Replace => ["--force-confnew", "--force-confmiss"],
    }
}

/// Finishes what an earlier run of dpkg left unfinished. Does nothing, where there is nothing.
pub fn repair(choice: ConfigFiles) -> Vec<String> {
    let words = ["dpkg"].into_iter().chain(config_files(choice)).chain(["--configure", "-a"]);
    words.map(str::to_owned).collect()
}

/// Installs packages: paths of files, as the machine sees them. `folder`: one that apt may write to, seen likewise.
pub fn install(
    files: &[String],
    beside: &[String],
    folder: &str,
    choice: ConfigFiles,
) -> Vec<String> {
    let mut words: Vec<String> =
        ["apt-get", "-y", "-q", "--no-remove", "--no-install-recommends"].map(str::to_owned).into();
    let mut option = |text: String| words.extend(["-o".to_owned(), text]);
    option("Dir::Etc::sourcelist=/dev/null".into());
    option("Dir::Etc::sourceparts=/dev/null".into());
    option(format!("Dir::State::lists={folder}/lists"));
    option(format!("Dir::Cache::archives={folder}/archives"));
    option("Dir::Cache::pkgcache=".into());
    option("Dir::Cache::srcpkgcache=".into());
    option("APT::Sandbox::User=root".into());
    option(format!("DPkg::Lock::Timeout={LOCK_WAIT}"));
    for force in config_files(choice) {
        option(format!("Dpkg::Options::={force}"));
    }
    for file in beside {
        words.extend(["--with-source".into(), file.clone()]);
    }
    words.push("install".into());
    words.extend(files.iter().cloned());
    words
}

/// What its end means. `code` is none where a signal ended it.
pub fn said(code: Option<i32>, said: &str) -> Said {
    if code == Some(0) {
        return Said::Installed { restarts: false };
    }
    let is_locked =
        ["Could not get lock", "Unable to acquire the dpkg", "lock was locked by another"];
    if is_locked.iter().any(|words| said.contains(words)) {
        return Said::Another;
    }
    let lacks = lacks(said);
    if !lacks.is_empty() {
        return Said::Lacks(lacks);
    }
    let lines = what_went_wrong(said);
    let words = match lines.is_empty() {
        true => super::last_words(said, MAX_DETAIL),
        false => lines.join("\n"),
    };
    Said::Failed(Failure::new(code.map_or(code::LOCAL, i64::from), words))
}

/// The lines that say what went wrong, the cause first: dpkg says of a package that it cannot be processed, and below
/// that, indented, why; what waited for that package follows from it, and apt's own lines say little more than that.
fn what_went_wrong(said: &str) -> Vec<&str> {
    let is_head = |line: &str| {
        ["dpkg: error processing", "dpkg: unrecoverable"].iter().any(|it| line.starts_with(it))
    };
    let (mut failures, mut rest) = (Vec::new(), Vec::new());
    let mut lines = said.lines().map(str::trim_end).peekable();
    while let Some(line) = lines.next() {
        if is_head(line) {
            let mut failure = Vec::new();
            while let Some(why) = lines.next_if(|it| it.starts_with(' ')) {
                failure.push(why.trim_start());
            }
            failure.push(line);
            failures.push(failure);
        } else if line.starts_with("dpkg: error") || line.starts_with("E: ") {
            rest.push(line);
        }
    }
    let follows = |why: &&str| why.starts_with("dependency problems");
    failures.sort_by_key(|failure| failure.first().is_some_and(follows));
    // That apt's log has no terminal to be written through fails nothing.
    rest.retain(|line| !line.starts_with("E: Can not write log"));
    failures.push(rest);
    failures.concat()
}

/// The packages of which apt says that others depend on them, or do not go with what is installed.
fn lacks(said: &str) -> BTreeSet<String> {
    let block = said.lines().skip_while(|it| !it.contains("have unmet dependencies"));
    let mut names = BTreeSet::new();
    // " NAME : Depends: OTHER (>= 1) but it is not installable", and lines below it without a name.
    for line in block.skip(1).take_while(|line| line.starts_with(' ')) {
        for words in ["PreDepends: ", "Depends: ", "Breaks: ", "Conflicts: "] {
            let Some((_, after)) = line.split_once(words) else { continue };
            let name = after.split([' ', ':', '(']).next().unwrap_or_default();
            if is_name(name) {
                names.insert(name.to_owned());
            }
            break;
        }
    }
    names
}

/// Debian Policy, 5.6.1: the name of a package.
fn is_name(name: &str) -> bool {
    let of_name = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'+' | b'-' | b'.');
    (2..200).contains(&name.len()) && name.bytes().all(of_name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const UNMET: &str = "\
Reading package lists...
Some packages could not be installed. This may mean that you have
requested an impossible situation.

The following packages have unmet dependencies:
 libssl-dev : Depends: libssl3 (= 3.0.17-1~deb12u3) but 3.0.16-1~deb12u1 is to be installed
 linux-image-amd64 : Depends: linux-image-6.1.0-41-amd64 (= 6.1.158-1) but it is not installable
                     PreDepends: dpkg:any but it is not going to be installed
 libc6 : Breaks: locales (< 2.36) but 2.31 is to be installed
E: Unable to correct problems, you have held broken packages.
";

    #[test]
    fn what_it_says_becomes_what_came_of_it() {
        assert_eq!(said(Some(0), "x"), Said::Installed { restarts: false });
        let names = ["dpkg", "libssl3", "linux-image-6.1.0-41-amd64", "locales"];
        assert_eq!(said(Some(100), UNMET), Said::Lacks(names.map(str::to_owned).into()));
        let locked = "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 7";
        assert_eq!(said(Some(100), locked), Said::Another);
        let failed =
            "Setting up a\ndpkg: error processing package a (--configure):\nE: Sub-process";
        let Said::Failed(failure) = said(Some(100), failed) else { panic!() };
        assert_eq!(failure.code, 100);
        assert_eq!(
            failure.detail,
            "dpkg: error processing package a (--configure):\nE: Sub-process"
        );
        assert!(matches!(said(None, ""), Said::Failed(_)));
    }

    #[test]
    fn what_failed_is_told_by_its_cause_first() {
        let words = "\
Setting up tool (2.0-1) ...
dpkg: dependency problems prevent configuration of early:
 early depends on tool (>= 2); however:
  Package tool is not configured yet.

dpkg: error processing package early (--configure):
 dependency problems - leaving unconfigured
dpkg: error processing package tool (--configure):
 installed tool package post-installation script subprocess returned error exit status 7
Errors were encountered while processing:
 early
 tool
E: Can not write log (Is /dev/pts mounted?) - posix_openpt (2: No such file or directory)
E: Sub-process /usr/bin/dpkg returned an error code (1)
";
        let Said::Failed(failure) = said(Some(100), words) else { panic!() };
        let lines: Vec<&str> = failure.detail.lines().collect();
        let all = [
            "installed tool package post-installation script subprocess returned error exit status 7",
            "dpkg: error processing package tool (--configure):",
            "dependency problems - leaving unconfigured",
            "dpkg: error processing package early (--configure):",
            "E: Sub-process /usr/bin/dpkg returned an error code (1)",
        ];
        assert_eq!(lines, all);
        // Where the log alone could not be written, and nothing else is said, its words are better than none.
        let Said::Failed(failure) = said(Some(100), "E: Can not write log (x)\n") else { panic!() };
        assert_eq!(failure.detail, "E: Can not write log (x)");
    }

    #[test]
    fn it_is_told_of_no_source_and_asks_nobody() {
        let files = ["/c/a.deb".to_owned()];
        let words = install(&files, &["/c/b.deb".into()], "/c", ConfigFiles::Keep).join(" ");
        for part in [
            "Dir::Etc::sourcelist=/dev/null",
            "Dir::State::lists=/c/lists",
            "Dpkg::Options::=--force-confold",
            "--with-source /c/b.deb install /c/a.deb",
        ] {
            assert!(words.contains(part), "{part}: {words}");
        }
        assert!(repair(ConfigFiles::Replace).contains(&"--force-confnew".to_owned()));
    }

    proptest! {
        #[test]
        fn whatever_it_says_is_read(text in any::<String>(), code in prop::option::of(any::<i32>())) {
            let _ = said(code, &text);
            let _ = said(code, &format!("have unmet dependencies\n {text}\n Depends: {text}"));
        }
    }
}
