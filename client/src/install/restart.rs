//! Whether a machine has to restart: what its distribution says, and what its kernel and its processes show.

use std::collections::BTreeSet;
use sync::apt::version;

/// What speaks for a restart, as it was at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signs {
    /// Packages that asked for it (`/run/reboot-required.pkgs`).
    pub packages: BTreeSet<String>,
    /// Whether somebody did (`/run/reboot-required`).
    pub is_asked: bool,
    /// The newest kernel that is installed, if it is not the one that runs.
    pub kernel: Option<String>,
}

impl Signs {
    /// Whether what was installed since `before` needs a restart; `packages` is what was installed. What others asked
    /// for earlier is not put down to it.
    pub fn are_new_since(&self, before: &Self, packages: &BTreeSet<String>) -> bool {
        let of_these = self.packages.intersection(packages).next().is_some();
        let is_asked = self.is_asked && !before.is_asked;
        let is_kernel = self.kernel.is_some() && self.kernel != before.kernel;
        of_these || is_asked || is_kernel
    }
}

/// The packages that a list names, one in a line.
pub fn packages(list: &str) -> BTreeSet<String> {
    list.lines().map(str::trim).filter(|it| !it.is_empty()).map(str::to_owned).collect()
}

/// The newest of the kernels of these files in `/boot`, if another one runs.
pub fn newer_kernel<'a>(files: impl IntoIterator<Item = &'a str>, running: &str) -> Option<String> {
    let kernels = files.into_iter().filter_map(|file| file.strip_prefix("vmlinuz-"));
    // Of the kind that runs: a machine may have kernels of several flavours.
    let own = flavour(running);
    let mut kernels: Vec<&str> = kernels.filter(|it| flavour(it) == own).collect();
    kernels.sort_by(|a, b| version::compare(a, b));
    let newest = kernels.last().filter(|it| version::compare(it, running).is_gt());
    newest.map(|it| (*it).to_owned())
}

/// Which kind of kernel a release is of: `amd64` of Debian's `6.1.0-41-amd64`, `x86_64+rt` of `5.14.0-503.el9.x86_64+rt`
/// as RPM systems call it.
fn flavour(release: &str) -> &str {
    let last = release.rsplit('-').next().unwrap_or_default();
    match last.starts_with(|it: char| it.is_ascii_digit()) {
        true => last.rsplit('.').next().unwrap_or_default(),
        false => last,
    }
}

/// Whether a process still uses a library that was replaced (`/proc/PID/maps`, proc(5)).
pub fn uses_deleted(maps: &str) -> bool {
    maps.lines().any(|line| {
        let of_system = line.contains(" /usr/lib") || line.contains(" /lib");
        line.ends_with(" (deleted)") && of_system
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_that_were_there_before_are_not_put_down_to_it() {
        let asked = |packages: &str| Signs {
            packages: self::packages(packages),
            is_asked: true,
            kernel: None,
        };
        let (none, own) = (Signs::default(), BTreeSet::from(["libc6".to_owned()]));
        assert!(asked("").are_new_since(&none, &own));
        assert!(!asked("dbus\n").are_new_since(&asked("dbus\n"), &own));
        assert!(asked("dbus\nlibc6\n").are_new_since(&asked("dbus\n"), &own));
        let kernel = Signs { kernel: Some("6.1.0-41-amd64".into()), ..Signs::default() };
        assert!(kernel.are_new_since(&none, &own) && !kernel.are_new_since(&kernel, &own));
    }

    #[test]
    fn the_newest_kernel_counts_if_another_one_runs() {
        let files =
            ["vmlinuz-6.1.0-9-amd64", "vmlinuz-6.1.0-41-amd64", "vmlinuz-7.0.0-1-rt", "config-9"];
        assert_eq!(newer_kernel(files, "6.1.0-9-amd64").as_deref(), Some("6.1.0-41-amd64"));
        assert_eq!(newer_kernel(files, "6.1.0-41-amd64"), None);
        assert_eq!(newer_kernel([], "x"), None);
        let files = [
            "vmlinuz-5.14.0-427.el9.x86_64",
            "vmlinuz-5.14.0-503.el9.x86_64",
            "vmlinuz-5.14.0-570.el9.x86_64+debug",
            "vmlinuz-0-rescue-8d1f2c3b4a5968778695a4b3c2d1e0f0",
        ];
        let running = "5.14.0-427.el9.x86_64";
        assert_eq!(newer_kernel(files, running).as_deref(), Some("5.14.0-503.el9.x86_64"));
    }

    #[test]
    fn processes_with_libraries_that_were_replaced_are_told() {
        let line =
            "7f00-7f01 r-xp 00000000 08:01 42   /usr/lib/x86_64-linux-gnu/libssl.so.3 (deleted)";
        assert!(uses_deleted(line));
        assert!(!uses_deleted("7f00-7f01 rw-s 00000000 00:01 7 /dev/shm/x (deleted)"));
        assert!(!uses_deleted(&line.replace(" (deleted)", "")));
    }
}
