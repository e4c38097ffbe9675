//! A machine of the RPM family: what the program `rpm` lists, and the module streams that are enabled.
//!
//! The database of rpm has had four formats, and rpm alone reads all; so it is asked. It is given time while it
//! says something, and is ended when it does not, or says more than is taken.

use super::{Condition, Facts, FactsError, Installed, Inventory, OsRelease, Platform, System};
use crate::truth::Truth;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;
use sync::rpm::evr::Evr;

/// How long rpm may say nothing.
const SILENCE: Duration = Duration::from_secs(60);
/// The most that it may say, in bytes.
const MAX_OUTPUT: u64 = 128 << 20;
/// The longest line of it.
const MAX_LINE: u64 = 8 << 10;
/// How many modules are read, and how long their files may be.
const MAX_MODULES: usize = 10_000;
const MAX_MODULE_FILE: u64 = 64 << 10;

const FORMAT: &str = "%{NAME}\\t%{EPOCHNUM}\\t%{VERSION}\\t%{RELEASE}\\t%{ARCH}\\n";

/// A machine of the RPM family.
#[derive(Clone, Debug)]
pub struct Rpm {
    system: System,
    /// By module the stream that is enabled; none, where the files could not be read.
    streams: Option<BTreeMap<String, String>>,
}

impl Rpm {
    /// Reads the machine whose root is `root`. Another root than `/` needs the rights to change to it.
    ///
    /// # Errors
    /// rpm cannot be started, fails, or says nothing for a minute.
    pub fn of(root: &Path) -> Result<Self, FactsError> {
        let mut command = Command::new("rpm");
        if root != Path::new("/") {
            command.arg("--root").arg(root);
        }
        command.args(["-qa", "--qf", FORMAT]);
        let packages = list(command, SILENCE)?;
        let (platform, release) = (Platform::Rpm, OsRelease::of(root)?);
        let architecture = std::env::consts::ARCH.into();
        let system = System { platform, release, packages, architecture };
        Ok(Self { system, streams: enabled(&root.join("etc/dnf/modules.d")) })
    }
}

impl Facts for Rpm {
    fn system(&self) -> &System {
        &self.system
    }

    fn digest(&self) -> String {
        let packages = self.system.packages.digest();
        let streams = format!("{packages} {:?}", self.streams);
        blake3::hash(streams.as_bytes()).to_hex().to_string()
    }

    fn has_stream(&self, stream: &str) -> Truth {
        let Some(streams) = &self.streams else { return Truth::Unknown };
        let Some((module, stream)) = stream.split_once(':') else { return Truth::Unknown };
        streams.get(module).is_some_and(|enabled| enabled == stream).into()
    }
}

/// The packages that a program lists, of which each must say something within `silence`.
fn list(mut command: Command, silence: Duration) -> Result<Inventory, FactsError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let failed = |why: String| FactsError::Program { program: program.clone(), why };
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env("LC_ALL", "C");
    let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
    let Some(output) = child.stdout.take() else { return Err(failed("it has no output".into())) };
    let complaint = child.stderr.take();
    // Its complaints are read beside its output, so that a full pipe never stops it.
    let complaint = std::thread::spawn(move || {
        let mut text = String::new();
        if let Some(mut from) = complaint {
            let _ = from.by_ref().take(2_000).read_to_string(&mut text);
            let _ = std::io::copy(&mut from, &mut std::io::sink());
        }
        text
    });
    let (give, take) = sync_channel::<std::io::Result<Vec<u8>>>(1_024);
    std::thread::spawn(move || {
        let mut output = BufReader::new(output.take(MAX_OUTPUT));
        loop {
            let mut line = Vec::new();
            let read = (&mut output).take(MAX_LINE).read_until(b'\n', &mut line);
            let is_end = matches!(read, Ok(0));
            if is_end || give.send(read.map(|_| line)).is_err() {
                return;
            }
        }
    });
    let (mut packages, mut bytes) = (Inventory::default(), 0);
    let ended = loop {
        match take.recv_timeout(silence) {
            Ok(Ok(line)) => {
                bytes += line.len() as u64;
                let fits = match entry(&line) {
                    Some((name, package)) => packages.add(name, package),
                    None => {
                        packages.add_unreadable();
                        true
                    }
                };
                if !fits || bytes >= MAX_OUTPUT {
                    break Err(FactsError::TooLarge {
                        what: format!("what {program} lists"),
                        limit: format!("{} packages, {MAX_OUTPUT} bytes", super::MAX_PACKAGES),
                    });
                }
            }
            Ok(Err(error)) => break Err(failed(error.to_string())),
            Err(RecvTimeoutError::Disconnected) => break Ok(()),
            Err(RecvTimeoutError::Timeout) => {
                break Err(failed(format!("it said nothing for {} s", silence.as_secs())));
            }
        }
    };
    let status = finish(&mut child, ended.is_ok());
    ended?;
    let status = status.map_err(|error| failed(error.to_string()))?;
    if !status.success() {
        let said = complaint.join().unwrap_or_default();
        return Err(failed(format!("{status}: {}", said.trim())));
    }
    Ok(packages)
}

/// Waits for a program that has said all; ends one that has not.
fn finish(child: &mut Child, has_said_all: bool) -> std::io::Result<ExitStatus> {
    if !has_said_all {
        child.kill()?;
    }
    child.wait()
}

/// The package that a line of the list is.
fn entry(line: &[u8]) -> Option<(&str, Installed)> {
    let line = std::str::from_utf8(line).ok()?.strip_suffix('\n')?;
    let mut words = line.split('\t');
    let (name, epoch, version, release, arch) =
        (words.next()?, words.next()?, words.next()?, words.next()?, words.next()?);
    let evr = Evr::new(epoch, version, release).ok()?;
    let is_all = words.next().is_none() && !name.is_empty();
    let version = evr.to_string().into();
    let condition = Condition::Whole;
    is_all.then(|| (name, Installed { version, arch: arch.into(), condition, is_held: false }))
}

/// The streams that dnf has enabled: of each module the file `NAME.module`. None, if one cannot be read.
fn enabled(folder: &Path) -> Option<BTreeMap<String, String>> {
    let mut streams = BTreeMap::new();
    let entries = match folder.read_dir() {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Some(streams),
        Err(_) => return None,
    };
    for entry in entries.take(MAX_MODULES) {
        let path = entry.ok()?.path();
        if path.extension().is_some_and(|end| end == "module") {
            let mut bytes = Vec::new();
            let file = std::fs::File::open(path).ok()?;
            file.take(MAX_MODULE_FILE).read_to_end(&mut bytes).ok()?;
            streams.extend(module(&String::from_utf8_lossy(&bytes)));
        }
    }
    Some(streams)
}

/// The modules that a file of dnf says are enabled, with their streams.
fn module(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let (mut name, mut stream, mut is_enabled) = (String::new(), String::new(), false);
    let mut end = |name: &mut String, stream: &mut String, is_enabled: &mut bool| {
        let (name, stream) = (std::mem::take(name), std::mem::take(stream));
        if std::mem::take(is_enabled) && !name.is_empty() && !stream.is_empty() {
            found.push((name, stream));
        }
    };
    for line in text.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            end(&mut name, &mut stream, &mut is_enabled);
            section.clone_into(&mut name);
        } else if let Some((key, value)) = line.split_once('=') {
            match (key.trim(), value.trim()) {
                ("name", value) => value.clone_into(&mut name),
                ("stream", value) => value.clone_into(&mut stream),
                ("state", value) => is_enabled = matches!(value, "enabled" | "1"),
                _ => {}
            }
        }
    }
    end(&mut name, &mut stream, &mut is_enabled);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, silence: Duration) -> Result<Inventory, FactsError> {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        list(command, silence)
    }

    fn with(streams: Option<BTreeMap<String, String>>) -> Rpm {
        let (release, packages) = (OsRelease::default(), Inventory::default());
        let (platform, architecture) = (Platform::Rpm, "x86_64".into());
        Rpm { system: System { platform, release, packages, architecture }, streams }
    }

    #[test]
    fn a_list_is_read_line_by_line() {
        let listed = shell(
            "printf 'bash\\t0\\t5.1\\t2.el9\\tx86_64\\nkernel\\t0\\t5.14\\t1\\tx86_64\\n\
             kernel\\t0\\t5.14\\t2\\tx86_64\\nbroken\\n'; echo noise >&2",
            SILENCE,
        )
        .unwrap();
        let versions: Vec<_> =
            listed.get("kernel").unwrap().iter().map(|it| &*it.version).collect();
        assert_eq!(versions, ["5.14-1", "5.14-2"]);
        assert_eq!((listed.len(), listed.unreadable()), (3, 1));
    }

    #[test]
    fn a_program_that_fails_or_stands_still_is_told() {
        let told = |script: &str, silence| shell(script, silence).unwrap_err().to_string();
        let failed = told("echo no database >&2; exit 3", SILENCE);
        assert!(failed.contains("no database") && failed.contains("exit status: 3"), "{failed}");
        let silent = told("exec sleep 600", Duration::from_millis(50));
        assert!(silent.contains("said nothing"), "{silent}");
        let mut missing = Command::new("/nowhere/rpm");
        missing.arg("-qa");
        assert!(list(missing, SILENCE).is_err());
    }

    #[test]
    fn streams_that_are_enabled_are_known() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("modules.d");
        assert_eq!(enabled(&folder), Some(BTreeMap::new()));
        std::fs::create_dir(&folder).unwrap();
        let text = "[nodejs]\nname=nodejs\nstream=18\nprofiles=\nstate=enabled\n";
        std::fs::write(folder.join("nodejs.module"), text).unwrap();
        let text = "[ruby]\nname=ruby\nstream=\nprofiles=\nstate=disabled\n";
        std::fs::write(folder.join("ruby.module"), text).unwrap();
        let machine = with(enabled(&folder));
        assert_eq!(machine.has_stream("nodejs:18"), Truth::True);
        assert_eq!(machine.has_stream("nodejs:20"), Truth::False);
        assert_eq!(machine.has_stream("ruby:3.1"), Truth::False);
        let unreadable = with(None);
        assert_eq!(unreadable.has_stream("ruby:3.1"), Truth::Unknown);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = entry(&bytes);
            module(&String::from_utf8_lossy(&bytes));
        }
    }
}
