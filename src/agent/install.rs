//! `depot agent install`: a unit of systemd that runs the agent.
//!
//! The token goes into the agent's folder, readable by its owner alone, and never into the unit. What the unit allows
//! is what installing packages needs: all of the system but people's own files.

use super::home::Home;
use super::{JoinArgs, home_failure, steps};
use crate::{
    exit::{Doing, Exit, Failure},
    output::Out,
};
use clap::Args;
use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::Command,
};

/// Where the unit goes, below the root.
const UNIT: &str = "etc/systemd/system/depot-agent.service";
/// What has systemd start it with the machine.
const WANTED_BY: &str = "etc/systemd/system/multi-user.target.wants/depot-agent.service";

/// Have systemd run the agent on this machine
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot agent install --site https://site.example:8520 --join-file office.token
  depot agent install --join-file office.token --dry-run      # says what it would do
  depot agent install --join-file office.token --root ./image # into the files of a machine that does not run

It writes the unit depot-agent.service, puts the token into the agent's folder, and starts the unit. Where there is
no systemd it says how the agent is run without. A folder that has joined stays what it is, unless the site does not
know it any more: then it joins with the token.

With --root the unit is enabled in the image, and nothing is started: each machine joins when it starts itself. An
image must not have an agent's folder in it that has joined, as all its machines would be one client: that is
refused, and --force forgets who the folder was. The program is not copied: --program says where it lies in the
image, and it is told if it does not, and if there is no token to join with.")]
pub struct InstallArgs {
    #[command(flatten)]
    join: JoinArgs,
    /// Install into the files below this folder, and start nothing
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Where this program lies on the machine, or below --root [default: where it lies here]
    #[arg(long, value_name = "PATH")]
    program: Option<PathBuf>,
    /// Forget whose folder it was that has joined already, with --root
    #[arg(long, requires = "root")]
    force: bool,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
}

/// Installs the unit.
pub fn install(args: &InstallArgs, folder: &Path, out: Out) -> Result<(), Failure> {
    let (site, token) = (args.join.site()?, args.join.token()?);
    let program = match &args.program {
        Some(program) => program.clone(),
        None => std::env::current_exe().doing(|| "this program cannot be found")?,
    };
    if !(program.is_absolute() && folder.is_absolute()) {
        return Err(Failure::usage(
            "--program and --data must be absolute paths: they stand in the unit",
        ));
    }
    if !args.root.is_dir() {
        let root = args.root.display();
        return Err(Failure::usage(format!(
            "{root} is no folder: --root names the files of a machine"
        )));
    }
    let below = |path: &Path| args.root.join(path.strip_prefix("/").unwrap_or(path));
    let (unit, data) = (args.root.join(UNIT), below(folder));
    let text = unit_of(&program, folder, site.as_deref())?;
    let is_own = args.root == Path::new("/");
    let has_systemd = is_own && Path::new("/run/systemd/system").is_dir();
    let has_joined = !is_own && Home::has_joined(&data);
    let is_client = is_own && Home::has_joined(&data);
    let lacks_token = token.is_none() && !is_client && !Home::has_token(&data);
    if has_joined && !args.force {
        let what =
            "has joined a site: every machine that is made of this image would be the same client";
        let what = format!(
            "{} {what}. Delete that folder, or have --force forget who it was",
            data.display()
        );
        return Err(Failure::new(Exit::Conflict, what));
    }
    let mut done = vec![("write".to_owned(), unit.display().to_string())];
    if has_joined {
        done.push(("forget who it was".into(), data.display().to_string()));
    }
    if token.is_some() {
        done.push(("keep the token".into(), data.join("keys/join.token").display().to_string()));
    }
    let wanted_by = args.root.join(WANTED_BY);
    if !is_own {
        done.push(("enable".into(), wanted_by.display().to_string()));
    }
    let start = [&["daemon-reload"][..], &["enable", "--now", "depot-agent.service"]];
    if has_systemd {
        done.extend(start.map(|words| ("run".into(), format!("systemctl {}", words.join(" ")))));
    }
    let missing = Some(below(&program)).filter(|program| !program.is_file());
    let shown = |said: &str, started: bool, w: &mut dyn Write| -> io::Result<()> {
        steps(said, &done)(w)?;
        if let Some(missing) = &missing {
            let missing = missing.display();
            writeln!(
                w,
                "\n{missing} is not there, and the unit runs it: put the program there, or name another with --program"
            )?;
        }
        if lacks_token {
            let data = data.display();
            writeln!(
                w,
                "\n{data} has no token, so the agent does not join a site and ends: run this again with --join-file"
            )?;
        }
        if is_own && !has_systemd && !started {
            let (program, folder) = (program.display(), folder.display());
            writeln!(
                w,
                "\nNo systemd runs here, so nothing is started: have {program} agent run --data {folder}"
            )?;
            writeln!(w, "run by what starts services on this machine.")?;
        }
        Ok(())
    };
    if args.dry_run {
        let would = serde_json::json!({
            "unit": text, "would": done, "missing": missing, "lacks_token": lacks_token,
        });
        return out.show(&would, |w| {
            shown("would", false, w)?;
            write!(w, "\n{text}")
        });
    }
    if token.is_some() || has_joined {
        let home = Home::open(&data).map_err(home_failure)?;
        if has_joined {
            home.forget().map_err(home_failure)?;
        }
        if let Some(token) = &token {
            home.keep_token(token).map_err(home_failure)?;
        }
    }
    let write = || -> io::Result<()> {
        fs::create_dir_all(unit.parent().unwrap_or(Path::new("/")))?;
        let part = unit.with_extension("part");
        fs::write(&part, &text)?;
        fs::rename(&part, &unit)
    };
    write().doing(|| format!("the unit {} cannot be written", unit.display()))?;
    if !is_own {
        enable(&wanted_by)
            .doing(|| format!("the unit cannot be enabled by {}", wanted_by.display()))?;
    }
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
    let told = serde_json::json!({
        "unit": text, "done": done, "started": has_systemd, "missing": missing,
        "lacks_token": lacks_token,
    });
    out.show(&told, |w| shown("done", has_systemd, w))
}

/// Does in the files of a machine what `systemctl enable` does on one that runs.
fn enable(wanted_by: &Path) -> io::Result<()> {
    fs::create_dir_all(wanted_by.parent().unwrap_or(Path::new("/")))?;
    match std::os::unix::fs::symlink("../depot-agent.service", wanted_by) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
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
