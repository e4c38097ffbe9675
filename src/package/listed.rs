//! Lists of packages as the tools of the systems write them, read as names.
//!
//! One a line: `dpkg-query -W` (`libc6:amd64  2.36-9`), `dpkg-query -l` (`ii  libc6:amd64  2.36-9  amd64  …`),
//! `rpm -qa` (`bash-5.1.8-6.el9.x86_64`), `dnf list` (`bash.x86_64  5.1.8-6.el9  baseos`), or plain names, with
//! whatever stands behind them; `#` begins a remark. A line that is none of these is an error, so that no machine
//! is short of a package because its list was not understood.

use std::collections::BTreeSet;

/// The architectures of RPMs: what stands behind the last full stop of one's name, where it is one of these.
const RPM_ARCHES: [&str; 21] = [
    "noarch",
    "x86_64",
    "x86_64_v2",
    "i386",
    "i486",
    "i586",
    "i686",
    "athlon",
    "aarch64",
    "armv7hl",
    "armv7hnl",
    "armv8hl",
    "ppc",
    "ppc64",
    "ppc64le",
    "s390",
    "s390x",
    "riscv64",
    "loongarch64",
    "src",
    "nosrc",
];

/// A line that names no package.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "line {number} names no package: {line:?}; want a name, or a line of `dpkg-query -W`, `dpkg-query -l`, \
     `rpm -qa` or `dnf list`"
)]
pub struct NoName {
    number: usize,
    line: String,
}

/// The names in a list.
pub fn names(text: &str) -> Result<BTreeSet<String>, NoName> {
    let mut names = BTreeSet::new();
    for (at, line) in text.lines().enumerate() {
        let words = line.split('#').next().unwrap_or_default().split_whitespace();
        let words: Vec<&str> = words.collect();
        let word = match words.as_slice() {
            [] => continue,
            [first, ..] if is_head(first) => continue,
            // What was removed is not there, though its settings are.
            [state, word, _, _, ..] if is_state(state) => match state.get(1..2) {
                Some("n" | "c") => continue,
                _ => word,
            },
            // The keys that `rpm -qa` lists are no packages.
            [word] if word.starts_with("gpg-pubkey-") => continue,
            [word, ..] => word,
        };
        let name = name(word, words.len() == 1);
        let is_letter = |c: char| c.is_ascii_alphanumeric() || "+-._~%^{}*".contains(c);
        if !name.starts_with(|c: char| c.is_ascii_alphanumeric() || "_*".contains(c))
            || !name.chars().all(is_letter)
        {
            return Err(NoName { number: at + 1, line: line.chars().take(200).collect() });
        }
        names.insert(name.to_owned());
    }
    Ok(names)
}

/// Whether a line that begins so is of the head of `dpkg-query -l`, in whichever language.
fn is_head(first: &str) -> bool {
    let is_legend = first.contains('=') && first.matches('/').count() >= 3;
    is_legend || first.starts_with('|') || first.starts_with("+++-")
}

/// Whether it is a state as `dpkg-query -l` has it: what is wanted, what is, and whether that is broken.
fn is_state(word: &str) -> bool {
    match word.as_bytes() {
        [wanted, is, broken @ ..] => {
            b"uihrp".contains(wanted) && b"ncHUFWti".contains(is) && matches!(broken, [] | [b'R'])
        }
        _ => false,
    }
}

/// The name that a word begins with. Alone on its line, it may have version and release as `rpm -qa` writes them.
fn name(word: &str, is_alone: bool) -> &str {
    match word.rsplit_once('.').filter(|(_, arch)| RPM_ARCHES.contains(arch)) {
        Some((rest, _)) if is_alone => without_version(rest).unwrap_or(rest),
        Some((rest, _)) => rest,
        // `dpkg-query` names the architecture of what can be there twice: `libc6:amd64`.
        None => word.split(':').next().unwrap_or(word),
    }
}

/// The name in `name-[epoch:]version-release`. A name may have such parts, too, as `java-17-openjdk` and
/// `compat-libstdc++-33`; but a release begins with a digit, and a version has one.
fn without_version(text: &str) -> Option<&str> {
    let (rest, release) = text.rsplit_once('-')?;
    let (name, version) = rest.rsplit_once('-')?;
    let is_one = release.starts_with(|c: char| c.is_ascii_digit())
        && version.contains(|c: char| c.is_ascii_digit());
    is_one.then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn read(text: &str) -> Vec<String> {
        names(text).expect("a list").into_iter().collect()
    }

    #[test]
    fn plain_names_and_the_lines_of_dpkg_query_are_read() {
        let text =
            "openssl\n# ours\nlibc6:amd64\t2.36-9\n\ncurl # by hand\npython3.11\nii\t1.8-4\nrc\n";
        assert_eq!(read(text), ["curl", "ii", "libc6", "openssl", "python3.11", "rc"]);
    }

    #[test]
    fn of_the_table_of_dpkg_query_what_is_installed_is_read() {
        let text = "\
Desired=Unknown/Install/Remove/Purge/Hold
| Status=Not/Inst/Conf-files/Unpacked/halF-conf/Half-inst/trig-aWait/Trig-pend
|/ Err?=(none)/Reinst-required (Status,Err: uppercase=bad)
||/ Name           Version          Architecture Description
+++-==============-================-============-=================================
ii  libc6:amd64    2.36-9+deb12u10  amd64        GNU C Library: Shared libraries
hi  linux-base     4.9              all          Linux image base package
iUR half           1                amd64        
rc  gone           1.0              amd64        was removed
un  never          <none>           <none>       (no description available)
";
        assert_eq!(read(text), ["half", "libc6", "linux-base"]);
    }

    #[test]
    fn the_lines_of_rpm_and_dnf_are_read() {
        let text = "\
bash-5.1.8-6.el9.x86_64
gpg-pubkey-8d8b756f-628e7fec
java-17-openjdk-headless-17.0.11.0.9-2.el9.x86_64
libstdc++-11.4.1-3.el9.i686
texlive-ae-svn15878.1.4-26.el9.noarch
dbus-1:1.12.20-8.el9.x86_64
";
        let found = ["bash", "dbus", "java-17-openjdk-headless", "libstdc++", "texlive-ae"];
        assert_eq!(read(text), found);
        let text = "\
openssl-libs.x86_64
java-1.8.0-openjdk.x86_64
compat-libstdc++-33.i686
compat-db-4-3.x86_64    4.3-1.el9    @base
NetworkManager.aarch64  1:1.46-1.el9 @anaconda
";
        let found = [
            "NetworkManager",
            "compat-db-4-3",
            "compat-libstdc++-33",
            "java-1.8.0-openjdk",
            "openssl-libs",
        ];
        assert_eq!(read(text), found);
    }

    #[test]
    fn a_line_that_names_no_package_is_named() {
        for wrong in ["openssl/stable,now 3.0 amd64", "-x", "/usr/bin/env", "näme", ":amd64", "a=b"]
        {
            let found = names(&format!("curl\n\n{wrong}\n"));
            assert_eq!(found, Err(NoName { number: 3, line: wrong.into() }));
        }
    }
}
