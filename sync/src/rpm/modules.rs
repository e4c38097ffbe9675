//! `modules.yaml`: which packages belong to which module stream.
//!
//! It is YAML, but always written by one program (libmodulemd), so what is needed of it is read by its
//! indentation: of each module its name, its stream and its packages. All else is passed over.

use crate::error::{Cause, SyncError};
use crate::unpack::reading;
use std::collections::HashMap;
use std::io::{BufRead, Read};

/// The longest line.
const MAX_LINE: u64 = 64 << 10;
/// The names of all packages together, in bytes.
const MAX_NAMES: usize = 64 << 20;

/// The module stream, as `nodejs:18`, by package, as `npm-1:8.19.2-1.el9.x86_64`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Modules(HashMap<Box<str>, u32>, Vec<String>);

impl Modules {
    /// Reads them.
    pub fn read(mut document: impl BufRead) -> Result<Self, SyncError> {
        let (mut modules, mut line) = (Self::default(), String::new());
        let (mut at, mut names) = (Module::default(), 0);
        loop {
            line.clear();
            let read = (&mut document).take(MAX_LINE).read_line(&mut line);
            let read = read.map_err(|error| reading("modules.yaml", error))?;
            if read == 0 {
                return Ok(modules);
            }
            if read as u64 == MAX_LINE {
                return Err(too_large("it has a line that is too long"));
            }
            if let Some(artifact) = at.line(line.trim_end()) {
                let stream = format!("{}:{}", at.name, at.stream);
                names += artifact.len() + stream.len();
                if names > MAX_NAMES {
                    return Err(too_large("it has too many packages"));
                }
                if modules.1.last() != Some(&stream) {
                    modules.1.push(stream);
                }
                let index = u32::try_from(modules.1.len() - 1).unwrap_or(u32::MAX);
                modules.0.insert(artifact.into(), index);
            }
        }
    }

    /// The stream of a package; none if it is in no module. `version` is `[epoch:]version-release`.
    pub fn of(&self, name: &str, version: &str, arch: &str) -> Option<&str> {
        if self.0.is_empty() {
            return None;
        }
        // Artifacts state the epoch always.
        let epoch = if version.contains(':') { "" } else { "0:" };
        let index = *self.0.get(format!("{name}-{epoch}{version}.{arch}").as_str())?;
        self.1.get(index as usize).map(String::as_str)
    }
}

/// The document that is being read.
#[derive(Default)]
struct Module {
    is_module: bool,
    is_in_data: bool,
    name: String,
    stream: String,
    is_in_artifacts: bool,
    is_in_rpms: bool,
}

impl Module {
    /// Takes a line; a package, if it names one.
    fn line<'l>(&mut self, line: &'l str) -> Option<&'l str> {
        let text = line.trim_start();
        if text.is_empty() || text.starts_with('#') {
            return None;
        }
        let indent = line.len() - text.len();
        let (key, value) = text.split_once(':').unwrap_or((text, ""));
        let value = value.trim().trim_matches(['"', '\'']);
        match indent {
            0 if text.starts_with("---") => *self = Self::default(),
            0 => {
                self.is_in_data = key == "data";
                self.is_in_artifacts = false;
                if key == "document" {
                    // Not its defaults, its obsoletes, or what a packager wrote.
                    self.is_module = value == "modulemd";
                }
            }
            2 if self.is_in_data && !text.starts_with('-') => {
                self.is_in_artifacts = key == "artifacts";
                self.is_in_rpms = false;
                match key {
                    "name" => self.name = value.into(),
                    "stream" => self.stream = value.into(),
                    _ => {}
                }
            }
            4 if self.is_in_artifacts && !text.starts_with('-') => self.is_in_rpms = key == "rpms",
            _ if self.is_in_artifacts && self.is_in_rpms && self.is_module => {
                let artifact = text.strip_prefix("- ")?.trim().trim_matches(['"', '\'']);
                let has_module = !self.name.is_empty() && !self.stream.is_empty();
                return Some(artifact).filter(|_| has_module);
            }
            _ => {}
        }
        None
    }
}

fn too_large(why: &str) -> SyncError {
    SyncError::new(Cause::TooLarge, format!("modules.yaml cannot be read: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = "\
---
document: modulemd
version: 2
data:
  name: nodejs
  stream: \"18\"
  version: 9010020221009220316
  arch: x86_64
  summary: Javascript runtime
  description: >-
    Node.js is a platform
    name: not this
  profiles:
    common:
      rpms:
      - nodejs
  components:
    rpms:
      nodejs:
        rationale: a runtime
  artifacts:
    rpms:
    - nodejs-1:18.9.1-1.module_el9.x86_64
    - npm-1:8.19.1-1.18.9.1.1.module_el9.x86_64
...
---
document: modulemd-defaults
version: 1
data:
  module: nodejs
  stream: 18
...
---
document: modulemd
version: 2
data:
  name: ruby
  stream: 3.1
  artifacts:
    rpms:
      - ruby-0:3.1.2-1.el9.x86_64
...
";

    #[test]
    fn packages_are_found_by_their_stream() {
        let modules = Modules::read(SAMPLE.as_bytes()).unwrap();
        assert_eq!(modules.of("nodejs", "1:18.9.1-1.module_el9", "x86_64"), Some("nodejs:18"));
        assert_eq!(modules.of("ruby", "3.1.2-1.el9", "x86_64"), Some("ruby:3.1"));
        assert_eq!(modules.of("nodejs", "1:18.9.1-1.module_el9", "aarch64"), None);
        assert_eq!(modules.0.len(), 3);
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let endless = std::io::BufReader::new(std::io::repeat(b'x'));
        assert_eq!(Modules::read(endless).unwrap_err().cause, Cause::TooLarge);
    }
}
