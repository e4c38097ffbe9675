//! `depot agent install`: a unit of systemd that runs the agent.
//!
//! The token goes into the agent's folder, readable by its owner alone, and never into the unit. What the unit allows
//! is what installing packages needs: all of the system but people's own files.

use super::home::Home;
use super::{JoinArgs, home_failure, steps};
use crate::{
    exit::{Doing, Failure},
    output::Out,
};
use clap::Args;
use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

/// Where the unit goes, below the root.
const UNIT: &str = "etc/systemd/system/depot-agent.service";

/// Have systemd run the agent on this machine
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot agent install --site https://site.example:8520 --join-file office.token
  depot agent install --join-file office.token --dry-run      # says what it would do
  depot agent install --join-file office.token --root ./image # into the files of a machine that does not run

It writes the unit depot-agent.service, puts the token into the agent's folder, and starts the unit. Where there is
no systemd it says how the agent is run without. An image of machines must not have an agent's folder in it that has
joined: with --root none joins before the machine itself starts.")]
pub struct InstallArgs {
    #[command(flatten)]
    join: JoinArgs,
    /// Install into the files below this folder, and start nothing
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
}

/// Installs the unit.
pub fn install(args: &InstallArgs, folder: &Path, out: Out) -> Result<(), Failure> {
    let (site, token) = (args.join.site()?, args.join.token()?);
    let program = std::env::current_exe().doing(|| "this program cannot be found")?;
    let below = |path: &Path| args.root.join(path.strip_prefix("/").unwrap_or(path));
    let (unit, data) = (args.root.join(UNIT), below(folder));
    let text = unit_of(&program, folder, site.as_deref())?;
    let is_own = args.root == Path::new("/");
    let has_systemd = is_own && Path::new("/run/systemd/system").is_dir();
    let mut done = vec![("write".to_owned(), unit.display().to_string())];
    if token.is_some() {
        done.push(("keep the token".into(), data.join("keys/join.token").display().to_string()));
    }
    let start = [&["daemon-reload"][..], &["enable", "--now", "depot-agent.service"]];
    if has_systemd {
        done.extend(start.map(|words| ("run".into(), format!("systemctl {}", words.join(" ")))));
    }
    if args.dry_run {
        return out.show(&serde_json::json!({ "unit": text, "would": done }), |w| {
            steps(&done)(w)?;
            write!(w, "\n{text}")
        });
    }
    if let Some(token) = &token {
        let home = Home::open(&data).map_err(home_failure)?;
        home.keep_token(token).map_err(home_failure)?;
    }
    let write = || -> io::Result<()> {
        fs::create_dir_all(unit.parent().unwrap_or(Path::new("/")))?;
        let part = unit.with_extension("part");
        fs::write(&part, &text)?;
        fs::rename(&part, &unit)
    };
    write().doing(|| format!("the unit {} cannot be written", unit.display()))?;
    if has_systemd {
        for words in start {
            let ran = Command::new("systemctl").args(words).output();
            let ran = ran.doing(|| "systemctl cannot be run")?;
            if !ran.status.success() {
                let said = String::from_utf8_lossy(&ran.stderr).trim().to_owned();
                return Err(Failure::failed(format!("systemctl {}: {said}", words.join(" "))));
            }
        }
    }
    out.show(&serde_json::json!({ "unit": text, "done": done, "started": has_systemd }), |w| {
        steps(&done)(w)?;
        if is_own && !has_systemd {
            let (program, folder) = (program.display(), folder.display());
            writeln!(w, "\nNo systemd runs here, so nothing was started: have {program} agent run --data {folder}")?;
            writeln!(w, "run by what starts services on this machine.")?;
        }
        Ok(())
    })
}

/// The unit's text.
fn unit_of(program: &Path, folder: &Path, site: Option<&str>) -> Result<String, Failure> {
    let word = |text: &str| {
        // systemd.service(5), "Command lines": a word in double quotes, in which these have a meaning.
        let is_plain = !text.chars().any(|c| matches!(c, '"' | '\\' | '%' | '$') || c.is_control());
        let refused = || format!("{text:?} cannot stand in a unit: choose another path or address");
        is_plain.then(|| format!("\"{text}\"")).ok_or_else(|| Failure::usage(refused()))
    };
    let path = |path: &Path| {
        word(path.to_str().ok_or_else(|| Failure::usage("paths in a unit must be UTF-8"))?)
    };
    let mut start = format!("{} agent run --data {}", path(program)?, path(folder)?);
    if let Some(site) = site {
        start.push_str(&format!(" --site {}", word(site)?));
    }
    Ok(format!(
        "[Unit]\n\
         Description=depot agent: scans this machine for updates, and tells its site\n\
         Wants=network-online.target\n\
         After=network-online.target\n\
         \n\
         [Service]\n\
         ExecStart={start}\n\
         Restart=always\n\
         RestartSec=10\n\
         RestartPreventExitStatus=2 5\n\
         # Installing packages needs all of the system, and nothing of people's own files.\n\
         NoNewPrivileges=yes\n\
         ProtectHome=yes\n\
         ProtectClock=yes\n\
         ProtectControlGroups=yes\n\
         ProtectKernelLogs=yes\n\
         PrivateTmp=yes\n\
         LockPersonality=yes\n\
         RestrictRealtime=yes\n\
         RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK\n\
         SystemCallArchitectures=native\n\
         # An installer that is at work goes on when the agent is stopped.\n\
         KillMode=process\n\
         TasksMax=512\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n"
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_unit_runs_the_agent_and_holds_no_secret() {
        let of = |folder: &str| {
            unit_of(Path::new("/usr/bin/depot"), Path::new(folder), Some("https://s:1"))
        };
        let text = of("/var/lib/depot-agent").unwrap();
        let start = "ExecStart=\"/usr/bin/depot\" agent run --data \"/var/lib/depot-agent\" --site \"https://s:1\"\n";
        assert!(text.contains(start), "{text}");
        assert!(text.contains("NoNewPrivileges=yes\n") && !text.contains("join"));
        for odd in ["/a\"b", "/a%b", "/a\nExecStop=x"] {
            assert!(of(odd).is_err(), "{odd}");
        }
    }
}
