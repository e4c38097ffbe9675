//! Where a PostgreSQL database is and who asks: a URL, checked whole when it is read.
//!
//! `postgres://USER[:PASSWORD]@HOST[:PORT][,HOST[:PORT]…]/DATABASE[?PARAMETER=VALUE…]`, as libpq
//! reads it (PostgreSQL documentation, "Connection URIs"). Several hosts are those of one database
//! that fails over: the one that takes writes is used.
//!
//! Always true: whatever shows a [`PostgresUrl`] shows `***` where its password is, and bytes leave
//! this machine encrypted and for a server whose certificate was checked, unless the URL itself
//! says `sslmode=disable`.

use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// The longest URL that is read, in bytes.
const MAX_LEN: usize = 4096;
/// The port where none is named.
const PORT: u16 = 5432;

/// A PostgreSQL database, by URL.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresUrl {
    user: String,
    password: Option<String>,
    hosts: Vec<(Host, u16)>,
    database: String,
    encryption: Encryption,
    application: Option<String>,
    options: Option<String>,
    connect_timeout: Option<Duration>,
    /// The URL without its password.
    shown: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Name(String),
    /// The folder of a Unix socket.
    Socket(PathBuf),
}

/// Whether the connection is encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Encryption {
    /// No: what passes can be read and changed on the way.
    None,
    /// Yes, and the server's certificate is for its host name and of an authority in this PEM file;
    /// without a file, of one that the system trusts.
    Verified { roots: Option<PathBuf> },
}

/// What is wrong with a URL. It is not repeated: it may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadPostgresUrl(String);

/// Why a password could not be read from where it is said to be.
#[derive(Debug, thiserror::Error)]
#[error("the password file {path:?} {detail}")]
pub struct BadPasswordFile {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub detail: String,
}

fn bad<T>(detail: impl Into<String>) -> Result<T, BadPostgresUrl> {
    Err(BadPostgresUrl(detail.into()))
}

impl PostgresUrl {
    /// Whether `text` means to be one: it names the scheme.
    pub fn is_meant(text: &str) -> bool {
        text.starts_with("postgres://") || text.starts_with("postgresql://")
    }

    /// Whether the URL itself holds the password.
    pub fn has_password(&self) -> bool {
        self.password.is_some()
    }

    /// The same with the password in `file`, on its first line, if the URL itself has none.
    pub fn with_password_file(mut self, file: &Path) -> Result<Self, BadPasswordFile> {
        if self.password.is_none() {
            let text = read(file)?;
            self.password = Some(text.lines().next().unwrap_or_default().to_owned());
        }
        Ok(self)
    }

    /// The same with the password that `file` has for it, if the URL itself has none. It is a file
    /// as `PGPASSFILE` names it: lines of `host:port:database:user:password`, `*` for any, the
    /// first that fits. One that others may read is refused.
    pub fn with_pgpass(mut self, file: &Path) -> Result<Self, BadPasswordFile> {
        if self.password.is_some() || !file.exists() {
            return Ok(self);
        }
        let mode = fs::metadata(file).map_err(|error| unreadable(file, &error))?;
        if mode.permissions().mode() & 0o077 != 0 {
            let detail = "can be read by others: chmod 600 it".to_owned();
            return Err(BadPasswordFile { path: file.to_owned(), detail });
        }
        let text = read(file)?;
        self.password = text.lines().find_map(|line| self.password_of(line));
        Ok(self)
    }

    /// The password of a line of such a file, if the line is for this database.
    fn password_of(&self, line: &str) -> Option<String> {
        if line.starts_with('#') {
            return None;
        }
        let fields = fields(line);
        let [host, port, database, user, password] = fields.as_slice() else { return None };
        let fits = |field: &str, value: &str| field == "*" || field == value;
        let here = self.hosts.iter().any(|(at, number)| {
            let name = match at {
                Host::Name(name) => name.as_str(),
                Host::Socket(_) => "localhost",
            };
            fits(host, name) && fits(port, &number.to_string())
        });
        (here && fits(database, &self.database) && fits(user, &self.user)).then(|| password.clone())
    }

    /// How it is connected to.
    pub(super) fn config(&self) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config.user(&self.user).dbname(&self.database);
        if let Some(password) = &self.password {
            config.password(password);
        }
        for (host, port) in &self.hosts {
            match host {
                Host::Name(name) => config.host(name),
                Host::Socket(folder) => config.host_path(folder),
            };
            config.port(*port);
        }
        config.application_name(self.application.as_deref().unwrap_or("depot"));
        if let Some(options) = &self.options {
            config.options(options);
        }
        config.ssl_mode(match self.encryption {
            Encryption::None => tokio_postgres::config::SslMode::Disable,
            Encryption::Verified { .. } => tokio_postgres::config::SslMode::Require,
        });
        if self.hosts.len() > 1 {
            config.target_session_attrs(tokio_postgres::config::TargetSessionAttrs::ReadWrite);
        }
        config.connect_timeout(self.connect_timeout.unwrap_or(Duration::from_secs(5)));
        config.keepalives_idle(Duration::from_secs(10));
        config.tcp_user_timeout(Duration::from_secs(20));
        config
    }

    pub(super) fn encryption(&self) -> &Encryption {
        &self.encryption
    }

    fn set(&mut self, name: &str, value: String) -> Result<(), BadPostgresUrl> {
        match name {
            "sslmode" => match (value.as_str(), &self.encryption) {
                ("disable", _) => self.encryption = Encryption::None,
                ("verify-full", Encryption::None) => {
                    self.encryption = Encryption::Verified { roots: None };
                }
                ("verify-full", Encryption::Verified { .. }) => {}
                _ => {
                    return bad(
                        "sslmode must be verify-full, or disable for a connection that anybody on \
                         the way can read and change; the modes between these check no host name",
                    );
                }
            },
            "sslrootcert" => {
                let roots = (value != "system").then(|| PathBuf::from(value));
                self.encryption = Encryption::Verified { roots };
            }
            "application_name" => self.application = Some(value),
            "options" => self.options = Some(value),
            "connect_timeout" => match value.parse() {
                Ok(seconds @ 1..=600) => self.connect_timeout = Some(Duration::from_secs(seconds)),
                _ => return bad("connect_timeout must be a number of seconds from 1 to 600"),
            },
            "host" if self.hosts.is_empty() => self.hosts = vec![host_of(&value)?],
            "target_session_attrs" if value == "read-write" => {}
            "target_session_attrs" => return bad("target_session_attrs can only be read-write"),
            "password" => return bad("the password belongs before the host, or better in a file"),
            other => {
                return bad(format!(
                    "it has the parameter {other:?}; known are sslmode, sslrootcert, host, options, \
                     application_name, connect_timeout and target_session_attrs"
                ));
            }
        }
        Ok(())
    }
}

impl FromStr for PostgresUrl {
    type Err = BadPostgresUrl;

    fn from_str(text: &str) -> Result<Self, BadPostgresUrl> {
        if text.len() > MAX_LEN || text.chars().any(char::is_control) {
            return bad("it is too long, or holds control characters");
        }
        let rest = text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://"));
        let Some(rest) = rest else {
            return bad("it must begin with postgres://");
        };
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = place.split_once('/').unwrap_or((place, ""));
        let Some((who, hosts)) = authority.rsplit_once('@') else {
            return bad("it names no user: want postgres://USER@HOST/DATABASE");
        };
        let (user, password) = match who.split_once(':') {
            Some((user, password)) => (user, Some(decoded(password)?)),
            None => (who, None),
        };
        let mut url = Self {
            user: decoded(user)?,
            password,
            hosts: Vec::new(),
            database: decoded(database)?,
            encryption: Encryption::None,
            application: None,
            options: None,
            connect_timeout: None,
            shown: String::new(),
        };
        if url.user.is_empty() || url.database.is_empty() {
            return bad("it needs a user and a database: postgres://USER@HOST/DATABASE");
        }
        for host in hosts.split(',').filter(|host| !host.is_empty()) {
            url.hosts.push(host_of(host)?);
        }
        let parameters: Vec<(&str, &str)> = query
            .split('&')
            .filter(|part| !part.is_empty())
            .map(|part| part.split_once('=').unwrap_or((part, "")))
            .collect();
        let value_of = |name: &str| parameters.iter().find(|(key, _)| *key == name);
        if let Some((name, value)) = value_of("host") {
            url.set(name, decoded(value)?)?;
        }
        if url.hosts.is_empty() {
            return bad("it names no host: want postgres://USER@HOST/DATABASE");
        }
        if !url.hosts.iter().all(|(host, _)| is_here(host)) {
            url.encryption = Encryption::Verified { roots: None };
        }
        // The mode last, so that it means the same wherever it stands.
        for (name, value) in
            parameters.iter().filter(|(name, _)| !["host", "sslmode"].contains(name))
        {
            url.set(name, decoded(value)?)?;
        }
        if let Some((name, value)) = value_of("sslmode") {
            url.set(name, decoded(value)?)?;
        }
        let hidden = if url.password.is_some() { ":***" } else { "" };
        let asked = if query.is_empty() { String::new() } else { format!("?{query}") };
        url.shown = format!("postgres://{user}{hidden}@{hosts}/{database}{asked}");
        Ok(url)
    }
}

impl fmt::Display for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresUrl({self})")
    }
}

/// `name`, `name:port`, `[::1]:port`, or the folder of a socket with its slashes as `%2F`.
fn host_of(text: &str) -> Result<(Host, u16), BadPostgresUrl> {
    let (name, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => (address, rest.strip_prefix(':')),
        None => match text.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (text, None),
        },
    };
    let port = match port.map(str::parse) {
        None => PORT,
        Some(Ok(port)) => port,
        Some(Err(_)) => return bad("a port is no number from 0 to 65535"),
    };
    let name = decoded(name)?;
    Ok(match name.starts_with('/') {
        true => (Host::Socket(name.into()), port),
        false => (Host::Name(name), port),
    })
}

/// Whether nothing leaves this machine on the way there.
fn is_here(host: &Host) -> bool {
    match host {
        Host::Socket(_) => true,
        Host::Name(name) => {
            name == "localhost" || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
        }
    }
}

/// Text with its `%XX` as the bytes that they stand for (RFC 3986, section 2.1).
fn decoded(text: &str) -> Result<String, BadPostgresUrl> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
        match (digit(), digit()) {
            (Some(high), Some(low)) => bytes.push((high << 4 | low) as u8),
            _ => return bad("a % is not followed by two hex digits; a percent sign is %25"),
        }
    }
    String::from_utf8(bytes).or_else(|_| bad("it is not UTF-8 once decoded"))
}

/// The fields of a line of a password file: apart by `:`, where `\` takes the next as it is.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        match c {
            ':' if fields.len() < 5 => fields.push(String::new()),
            c => {
                let c = if c == '\\' { rest.next().unwrap_or(c) } else { c };
                if let Some(last) = fields.last_mut() {
                    last.push(c);
                }
            }
        }
    }
    fields
}

/// A small text file.
fn read(path: &Path) -> Result<String, BadPasswordFile> {
    let text = fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
    match text.trim().is_empty() {
        false => Ok(text),
        true => Err(BadPasswordFile { path: path.to_owned(), detail: "is empty".to_owned() }),
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> BadPasswordFile {
    BadPasswordFile { path: path.to_owned(), detail: format!("cannot be read: {error}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn url(text: &str) -> PostgresUrl {
        text.parse().unwrap()
    }

    #[test]
    fn a_url_says_where_and_who() {
        let it = url("postgres://depot@db.example:6432,[::1]/site?connect_timeout=3");
        assert_eq!(it.hosts[0], (Host::Name("db.example".into()), 6432));
        assert_eq!(it.hosts[1], (Host::Name("::1".into()), 5432));
        assert_eq!((it.user.as_str(), it.database.as_str()), ("depot", "site"));
        let socket = url("postgresql://depot@%2Frun%2Fpg:5433/site");
        assert_eq!(socket.hosts, [(Host::Socket("/run/pg".into()), 5433)]);
        assert_eq!(url("postgres://u@/d?host=/run/pg").hosts.len(), 1);
    }

    #[test]
    fn nothing_leaves_the_machine_in_the_clear_unless_asked_for() {
        let of = |text: &str| url(text).encryption;
        let checked = || Encryption::Verified { roots: None };
        assert_eq!(of("postgres://u@db.example/d"), checked());
        assert_eq!(of("postgres://u@localhost,db.example/d"), checked());
        assert_eq!(of("postgres://u@db.example/d?sslmode=disable"), Encryption::None);
        assert_eq!(of("postgres://u@127.0.0.1/d"), Encryption::None);
        assert_eq!(of("postgres://u@127.0.0.1/d?sslmode=verify-full"), checked());
        let roots = Some(PathBuf::from("/ca.pem"));
        let with_roots = "postgres://u@h/d?sslmode=verify-full&sslrootcert=/ca.pem";
        assert_eq!(of(with_roots), Encryption::Verified { roots });
        for mode in ["prefer", "require", "verify-ca", ""] {
            assert!(format!("postgres://u@h/d?sslmode={mode}").parse::<PostgresUrl>().is_err());
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        let it = url("postgres://u:s%40crEt@h/d?sslmode=disable");
        assert_eq!(it.password.as_deref(), Some("s@crEt"));
        assert_eq!(it.to_string(), "postgres://u:***@h/d?sslmode=disable");
        assert!(!format!("{it:?} {:?}", it.config()).contains("crEt"));
        for wrong in [
            "postgres://u:s@crEt@h:port/d",
            "postgres://u:s%4-crEt@h/d",
            "postgres://u:crEt@h/",
            "postgres://u@h/d?password=crEt",
            "mysql://u:crEt@h/d",
        ] {
            let said = wrong.parse::<PostgresUrl>().unwrap_err().to_string();
            assert!(!said.contains("crEt"), "{said}");
        }
    }

    #[test]
    fn a_password_comes_from_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        fs::write(&file, "open sesame\n").unwrap();
        let it = url("postgres://u@h/d").with_password_file(&file).unwrap();
        assert_eq!(it.password.as_deref(), Some("open sesame"));
        let kept = url("postgres://u:own@h/d").with_password_file(&file).unwrap();
        assert_eq!(kept.password.as_deref(), Some("own"));
        assert!(url("postgres://u@h/d").with_password_file(folder.path()).is_err());

        fs::write(&file, "# all\nh:1:d:u:no\nother:*:*:*:no\nh:5432:*:u:a\\:b:c\n*:*:*:*:no\n")
            .unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        let refused = url("postgres://u@h/d").with_pgpass(&file).unwrap_err();
        assert!(refused.to_string().contains("chmod 600"), "{refused}");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let it = url("postgres://u@h/d").with_pgpass(&file).unwrap();
        assert_eq!(it.password.as_deref(), Some("a:b:c"));
        let none = url("postgres://u@h/d").with_pgpass(&folder.path().join("none")).unwrap();
        assert_eq!(none.password, None);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(postgres://)?[a-z:@/%?&=,\\[\\]0-9]{0,40}") {
            if let Ok(url) = text.parse::<PostgresUrl>() {
                let _ = url.config();
            }
        }
    }
}
