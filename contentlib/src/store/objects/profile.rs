//! The files in which Amazon's tools keep keys and regions: `~/.aws/credentials` and `~/.aws/config`.
//!
//! The form: AWS SDKs and Tools Reference Guide, "Using shared config and credentials files". Of it,
//! what says who asks and where: keys, session token, region, endpoint. What leads on from there
//! (roles to take, programs to run, single sign-on) is not followed.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

/// The most of a file that is read, in bytes.
const MOST: u64 = 1 << 20;
/// The settings that are taken, which the store's client has by the same names after `aws_`.
const TAKEN: [&str; 5] =
    ["aws_access_key_id", "aws_secret_access_key", "aws_session_token", "region", "endpoint_url"];

/// Where a profile is looked for.
pub(super) struct Files {
    /// Its name.
    pub profile: String,
    /// `credentials`, whose sections are named as the profiles are.
    pub credentials: Option<PathBuf>,
    /// `config`, whose sections but `default` have `profile` before the name.
    pub config: Option<PathBuf>,
}

impl Files {
    /// Where the variables of an environment say, or usually.
    pub(super) fn of(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let usual = |file: &str| Some(PathBuf::from(variable("HOME")?).join(".aws").join(file));
        let place =
            |name: &str, file: &str| variable(name).map(PathBuf::from).or_else(|| usual(file));
        let profile = variable("AWS_PROFILE").and_then(|name| name.into_string().ok());
        Self {
            profile: profile.unwrap_or_else(|| "default".into()),
            credentials: place("AWS_SHARED_CREDENTIALS_FILE", "credentials"),
            config: place("AWS_CONFIG_FILE", "config"),
        }
    }

    /// What they say of the profile; what cannot be read says nothing.
    pub(super) fn read(&self) -> BTreeMap<String, String> {
        let mut said = BTreeMap::new();
        let in_config = match self.profile.as_str() {
            "default" => "default".to_owned(),
            name => format!("profile {name}"),
        };
        let files = [(&self.config, in_config.as_str()), (&self.credentials, &self.profile)];
        for (path, section) in files {
            let Some(path) = path else { continue };
            let mut text = String::new();
            match File::open(path).and_then(|file| file.take(MOST).read_to_string(&mut text)) {
                Ok(_) => said.extend(settings(&text, section)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => tracing::warn!(path = %path.display(), %error, "cannot be read"),
            }
        }
        said
    }
}

/// The settings of one section of a file that are taken; of those said twice, the last.
pub(super) fn settings(text: &str, section: &str) -> BTreeMap<String, String> {
    let mut inside = false;
    let mut said = BTreeMap::new();
    for line in text.lines() {
        // Indented lines belong to a setting that has settings of its own.
        if line.starts_with([' ', '\t', '#', ';']) {
            continue;
        }
        if let Some(name) = line.trim_end().strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            inside = name.split_whitespace().eq(section.split_whitespace());
        } else if inside && let Some((key, value)) = line.split_once('=') {
            let key = key.trim().to_ascii_lowercase();
            if TAKEN.contains(&key.as_str()) && !value.trim().is_empty() {
                said.insert(key, value.trim().to_owned());
            }
        }
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREDENTIALS: &str = "\
# keys
[default]
aws_access_key_id = one
aws_secret_access_key=a=b

[branch]
AWS_ACCESS_KEY_ID = two
aws_secret_access_key = secret
";
    const CONFIG: &str = "\
[default]
region = eu-central-1
[profile branch]
region = eu-west-1
s3 =
  region = nowhere
endpoint_url = https://store.example
[branch]
region = wrong
";

    #[test]
    fn a_profile_is_read_from_both_files() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join(".aws");
        std::fs::create_dir(&home).unwrap();
        std::fs::write(home.join("credentials"), CREDENTIALS).unwrap();
        std::fs::write(home.join("config"), CONFIG).unwrap();
        let variable = |profile: Option<&'static str>| {
            let folder = folder.path().to_owned();
            move |name: &str| match name {
                "HOME" => Some(folder.clone().into()),
                "AWS_PROFILE" => profile.map(OsString::from),
                _ => None,
            }
        };
        let said = Files::of(variable(None)).read();
        assert_eq!(said["aws_access_key_id"], "one");
        assert_eq!(said["aws_secret_access_key"], "a=b");
        assert_eq!(said["region"], "eu-central-1");
        let said = Files::of(variable(Some("branch"))).read();
        assert_eq!(said["aws_access_key_id"], "two");
        assert_eq!(said["region"], "eu-west-1");
        assert_eq!(said["endpoint_url"], "https://store.example");
        assert!(Files::of(variable(Some("none"))).read().is_empty());
        // Elsewhere, and not there: nothing is said.
        let elsewhere = |name: &str| name.starts_with("AWS_").then(|| "/nowhere/file".into());
        assert!(Files::of(elsewhere).read().is_empty());
    }
}
