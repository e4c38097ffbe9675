//! The settings of a site: one `depot.toml`, then environment, then flags; the last one wins.
//!
//! Every key is one line of `KEYS`: its name, its place in [`Config`], and what it may be. The
//! file, `DEPOT_<SECTION>_<KEY>` and `--set` all go through that line, so they accept the same
//! names and values, and a name that none of them knows is refused with the nearest one.
//! `depot.example.toml` documents every key; a test holds it to this table and these defaults.

mod library_url;
mod nearest;
mod setting;
mod site_url;
mod units;

pub use library_url::LibraryUrl;
pub use nearest::nearest;
pub use site_url::{BadSiteUrl, ReachedAt, SiteUrl, SiteUrls};
pub use units::{ByteSize, format_duration, format_rate, parse_duration, parse_rate};

use dp::PlainHttp;
use dp::identity::OwnFiles;
pub use setting::{DatabaseUrl, OptionalPath};
use setting::{Raw, Setting};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::de::{DeTable, DeValue};

/// All settings, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The data folder.
    pub data: PathBuf,
    /// Where a serving site listens.
    pub listen: SocketAddr,
    /// The site as others see it.
    pub site: SiteSettings,
    /// One of several servers of the site.
    pub server: ServerSettings,
    /// Where the site database is.
    pub database: Database,
    /// What is logged, and how.
    pub log: Log,
    /// The content library.
    pub library: Library,
    /// A distribution point of its own.
    pub point: Point,
    /// The content plane.
    pub dp: Dp,
    /// Packages.
    pub packages: Packages,
    /// Uploads.
    pub upload: Upload,
    /// Jobs.
    pub jobs: Jobs,
    /// The REST interface.
    pub api: Api,
    /// The sync of updates.
    pub sync: Sync,
    /// What is deployed.
    pub deployment: DeploymentSettings,
}

/// The site as others see it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SiteSettings {
    /// Where distribution points reach it; none: where it listens.
    pub url: SiteUrls,
}

/// One of several servers of the site.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServerSettings {
    /// The file with the key that opens the site's keys; none: it is the only server.
    pub cluster_key_file: OptionalPath,
    /// Where the others reach it; none: where it listens.
    pub advertise: ReachedAt,
}

/// Where the site database is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Database {
    /// On this server; none: in the data folder.
    pub url: DatabaseUrl,
    /// The file that holds the password for it.
    pub password_file: OptionalPath,
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// A level, or directives of `tracing_subscriber`'s `EnvFilter`.
    pub level: String,
    /// For people or for programs.
    pub format: LogFormat,
    /// Whether each request is logged.
    pub access: bool,
}

/// How a log line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The content library.
#[derive(Clone, Debug, PartialEq)]
pub struct Library {
    /// The size at which a pack is sealed.
    pub pack_size: ByteSize,
    /// Memory for the index and decoded chunks.
    pub cache: ByteSize,
    /// Threads that hash and compress; 0 takes all cores.
    pub threads: u64,
    /// Free disk space below which nothing is added.
    pub reserve: ByteSize,
    /// How long condemned bytes stay before they are deleted.
    pub gc_grace: Duration,
    /// The time between two sweeps of a serving site; zero: none but by command.
    pub gc_interval: Duration,
    /// Days in which the whole library is read and checked once; 0: never.
    pub scrub_days: u64,
    /// The object store that the library is on.
    pub url: LibraryUrl,
    /// Bytes of the data folder for what was read from there.
    pub disk_cache: ByteSize,
    /// Somebody promises that nothing else ever opens the library there.
    pub single_writer: bool,
}

/// A distribution point of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// In which time it reads and checks all that it holds; zero: never.
    pub scrub_period: Duration,
}

/// The content plane.
#[derive(Clone, Debug, PartialEq)]
pub struct Dp {
    /// Threads that serve; 0 takes one for each core.
    pub threads: u64,
    /// Memory for small contents that are asked for again and again.
    pub cache: ByteSize,
    /// Connections at a time.
    pub max_connections: u64,
    /// The largest request head.
    pub max_header: ByteSize,
    /// How long a request head may take.
    pub header_timeout: Duration,
    /// How long a connection may be silent between requests.
    pub idle_timeout: Duration,
    /// How long a client may take no byte of an answer, or send none of its request.
    pub stall_timeout: Duration,
    /// How long requests under way may take to end at shutdown.
    pub shutdown_grace: Duration,
    /// Room on disk for deltas between versions; 0: none are made.
    pub delta_cache: ByteSize,
    /// Who may come without TLS.
    pub plain_http: PlainHttp,
    /// Where clients and other points reach a distribution point; none: where it listens.
    pub address: ReachedAt,
    /// The certificate that clients are shown; none: one of the site's authority.
    pub certificate: OptionalPath,
    /// The key of that certificate.
    pub key: OptionalPath,
}

/// Packages.
#[derive(Clone, Debug, PartialEq)]
pub struct Packages {
    /// Versions kept of a package that does not say otherwise.
    pub keep_versions: u64,
}

/// Uploads.
#[derive(Clone, Debug, PartialEq)]
pub struct Upload {
    /// How long a push is kept after it was last used, and a single uploaded content that no
    /// package comes to name.
    pub expire: Duration,
    /// The largest body of an uploaded tar or content.
    pub max_size: ByteSize,
}

/// Jobs.
#[derive(Clone, Debug, PartialEq)]
pub struct Jobs {
    /// Jobs that run at a time.
    pub concurrent: u64,
    /// Jobs that may wait; more are refused.
    pub queue: u64,
    /// Ended jobs that are remembered.
    pub keep: u64,
}

/// The REST interface.
#[derive(Clone, Debug, PartialEq)]
pub struct Api {
    /// The largest JSON body.
    pub max_body: ByteSize,
    /// Requests a second of one token, or of one address without a token; 0: no limit.
    pub rate: u64,
    /// How long audit records are kept; zero: for ever.
    pub audit_keep: Duration,
}

/// The sync of updates.
#[derive(Clone, Debug, PartialEq)]
pub struct Sync {
    /// Sources that are synchronised at a time.
    pub concurrent: u64,
    /// A sync in which nothing moves for so long is ended.
    pub stall_timeout: Duration,
    /// How long to wait for a connection to an upstream.
    pub connect_timeout: Duration,
    /// How long to wait for the next bytes of an upstream.
    pub read_timeout: Duration,
    /// Syncs that are remembered of each source.
    pub history: u64,
    /// How long status messages are kept; zero: as long as there is room for them.
    pub message_keep: Duration,
    /// Whether this server is an update point, to which clients are led.
    pub update_point: bool,
    /// An update point that is silent for so long is waited for no longer.
    pub point_timeout: Duration,
    /// Whether other servers of updates may take the catalogue from here, in the protocol of WSUS.
    pub serve_wsus: bool,
}

/// What is deployed.
#[derive(Clone, Debug, PartialEq)]
pub struct DeploymentSettings {
    /// Whether what is deployed is brought to the distribution points near the machines that require it.
    pub staging: bool,
    /// How long before it is available.
    pub staging_lead: Duration,
}

const MIB: u64 = 1 << 20;
const HOUR: u64 = 3600;

impl Default for Config {
    fn default() -> Self {
        let secs = Duration::from_secs;
        Self {
            data: "depot-data".into(),
            listen: SocketAddr::from(([127, 0, 0, 1], 8520)),
            site: SiteSettings::default(),
            server: ServerSettings::default(),
            database: Database::default(),
            log: Log { level: "info".into(), format: LogFormat::Text, access: true },
            library: Library {
                pack_size: ByteSize(256 * MIB),
                cache: ByteSize(128 * MIB),
                threads: 0,
                reserve: ByteSize(64 * MIB),
                gc_grace: secs(24 * HOUR),
                gc_interval: secs(6 * HOUR),
                scrub_days: 30,
                url: LibraryUrl::default(),
                disk_cache: ByteSize(10 * 1024 * MIB),
                single_writer: false,
            },
            point: Point { scrub_period: secs(7 * 24 * HOUR) },
            dp: Dp {
                threads: 0,
                cache: ByteSize(192 * MIB),
                max_connections: 4096,
                max_header: ByteSize(16 << 10),
                header_timeout: secs(10),
                idle_timeout: secs(75),
                stall_timeout: secs(30),
                shutdown_grace: secs(30),
                delta_cache: ByteSize(1024 * MIB),
                plain_http: PlainHttp::Any,
                address: ReachedAt::default(),
                certificate: OptionalPath::default(),
                key: OptionalPath::default(),
            },
            packages: Packages { keep_versions: 5 },
            upload: Upload { expire: secs(24 * HOUR), max_size: ByteSize(1 << 40) },
            jobs: Jobs { concurrent: 2, queue: 64, keep: 1000 },
            api: Api { max_body: ByteSize(MIB), rate: 500, audit_keep: secs(400 * 24 * HOUR) },
            sync: Sync {
                concurrent: 2,
                stall_timeout: secs(600),
                connect_timeout: secs(30),
                read_timeout: secs(60),
                history: 100,
                message_keep: secs(90 * 24 * HOUR),
                update_point: true,
                point_timeout: secs(600),
                serve_wsus: false,
            },
            deployment: DeploymentSettings { staging: true, staging_lead: secs(8 * HOUR) },
        }
    }
}

/// One key: its dotted name, and how a value gets to its place and back.
struct KeyDef {
    name: &'static str,
    set: fn(&mut Config, Raw<'_>) -> Result<(), String>,
    get: fn(&Config) -> String,
}

/// `key!("name", path.in.config)`, or with `, check` that says what is wrong with a value.
macro_rules! key {
    ($name:literal, $($place:ident).+) => { key!($name, $($place).+, |_| None) };
    ($name:literal, $($place:ident).+, $check:expr) => {
        KeyDef {
            name: $name,
            set: |config, raw| {
                let value = Setting::read(raw)?;
                let check: fn(&_) -> Option<&'static str> = $check;
                match check(&value) {
                    Some(wrong) => Err(wrong.into()),
                    None => {
                        config.$($place).+ = value;
                        Ok(())
                    }
                }
            },
            get: |config| Setting::write(&config.$($place).+),
        }
    };
}

/// `Some(message)` if `holds` is false.
fn unless(holds: bool, message: &'static str) -> Option<&'static str> {
    (!holds).then_some(message)
}

const KEYS: &[KeyDef] = &[
    key!("data", data),
    key!("listen", listen),
    key!("site.url", site.url),
    key!("server.cluster_key_file", server.cluster_key_file),
    key!("server.advertise", server.advertise),
    key!("database.url", database.url),
    key!("database.password_file", database.password_file),
    key!("log.level", log.level),
    key!("log.format", log.format),
    key!("log.access", log.access),
    key!("library.pack_size", library.pack_size, |size: &ByteSize| unless(
        (MIB..=512 * MIB).contains(&size.0),
        "must be from 1MiB to 512MiB"
    )),
    key!("library.cache", library.cache, |size: &ByteSize| unless(
        size.0 >= 8 * MIB,
        "must be at least 8MiB"
    )),
    key!("library.threads", library.threads, |n| unless(*n <= 1024, "must be at most 1024")),
    key!("library.reserve", library.reserve),
    // A reader or a slow upload may hold on to what a sweep condemned: time is its only warning.
    key!("library.gc_grace", library.gc_grace, |time: &Duration| unless(
        time.as_secs() >= 600,
        "must be at least 10min, so that readers and uploads under way lose nothing"
    )),
    key!("library.gc_interval", library.gc_interval, |time: &Duration| unless(
        time.is_zero() || time.as_secs() >= 60,
        "must be at least 1min, or 0 for none"
    )),
    key!("library.scrub_days", library.scrub_days, |n| unless(*n <= 3650, "must be at most 3650")),
    key!("library.url", library.url),
    key!("library.disk_cache", library.disk_cache),
    key!("library.single_writer", library.single_writer),
    key!("point.scrub_period", point.scrub_period, |time: &Duration| unless(
        time.is_zero() || time.as_secs() >= 1,
        "must be at least 1s, or 0 for never"
    )),
    key!("dp.threads", dp.threads, |n| unless(*n <= 1024, "must be at most 1024")),
    key!("dp.cache", dp.cache),
    key!("dp.max_connections", dp.max_connections, |n| unless(*n >= 1, "must be at least 1")),
    key!("dp.max_header", dp.max_header, |size: &ByteSize| unless(
        (8192..=MIB).contains(&size.0),
        "must be from 8KiB to 1MiB"
    )),
    key!("dp.header_timeout", dp.header_timeout, positive),
    key!("dp.idle_timeout", dp.idle_timeout, positive),
    key!("dp.stall_timeout", dp.stall_timeout, positive),
    key!("dp.shutdown_grace", dp.shutdown_grace),
    key!("dp.delta_cache", dp.delta_cache),
    key!("dp.plain_http", dp.plain_http),
    key!("dp.address", dp.address),
    key!("dp.certificate", dp.certificate),
    key!("dp.key", dp.key),
    key!("packages.keep_versions", packages.keep_versions, |n| unless(
        (1..=100_000).contains(n),
        "must be from 1 to 100000"
    )),
    key!("upload.expire", upload.expire, |time: &Duration| unless(
        time.as_secs() >= 60,
        "must be at least 1min"
    )),
    key!("upload.max_size", upload.max_size, |size: &ByteSize| unless(
        size.0 >= MIB,
        "must be at least 1MiB"
    )),
    key!("jobs.concurrent", jobs.concurrent, |n| unless(
        (1..=64).contains(n),
        "must be from 1 to 64"
    )),
    key!("jobs.queue", jobs.queue, |n| unless(*n <= 10_000, "must be at most 10000")),
    key!("jobs.keep", jobs.keep, |n| unless(*n >= 10, "must be at least 10")),
    key!("api.max_body", api.max_body, |size: &ByteSize| unless(
        (65_536..=64 * MIB).contains(&size.0),
        "must be from 64KiB to 64MiB"
    )),
    key!("api.rate", api.rate),
    key!("api.audit_keep", api.audit_keep),
    key!("sync.concurrent", sync.concurrent, |n| unless(
        (1..=64).contains(n),
        "must be from 1 to 64"
    )),
    key!("sync.stall_timeout", sync.stall_timeout, |time: &Duration| unless(
        time.as_secs() >= 1,
        "must be at least 1s"
    )),
    key!("sync.connect_timeout", sync.connect_timeout, positive),
    key!("sync.read_timeout", sync.read_timeout, positive),
    key!("sync.history", sync.history, |n| unless(
        (1..=10_000).contains(n),
        "must be from 1 to 10000"
    )),
    key!("sync.message_keep", sync.message_keep),
    key!("sync.update_point", sync.update_point),
    key!("sync.point_timeout", sync.point_timeout, |time: &Duration| unless(
        time.as_secs() >= 1,
        "must be at least 1s"
    )),
    key!("sync.serve_wsus", sync.serve_wsus),
    key!("deployment.staging", deployment.staging),
    key!("deployment.staging_lead", deployment.staging_lead),
];

fn positive(time: &Duration) -> Option<&'static str> {
    unless(time.as_millis() >= 1, "must be longer than 0")
}

/// What flags say. They win over environment and file.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `--config`: the file to read instead of the usual one.
    pub config: Option<PathBuf>,
    /// `--data`.
    pub data: Option<PathBuf>,
    /// `--listen`.
    pub listen: Option<SocketAddr>,
    /// `--database`: a URL, or empty for a database in the data folder. It may hold a password.
    pub database: Option<String>,
    /// `--set KEY=VALUE`, by dotted name.
    pub set: Vec<(String, String)>,
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error, PartialEq)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {detail}", path = .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        detail: String,
    },
    /// The file is not TOML.
    #[error("{place}: {detail}")]
    NotToml {
        /// File and line.
        place: String,
        /// What is wrong.
        detail: String,
    },
    /// No setting has this name.
    #[error("{place}: there is no setting {key}; the nearest is {nearest}")]
    UnknownKey {
        /// File and line, variable, or flag.
        place: String,
        /// The name that was given.
        key: String,
        /// The name that was probably meant.
        nearest: String,
    },
    /// Of two settings that belong together one is missing.
    #[error("{given} is set, and {missing} is not: both are needed")]
    HalfSet {
        /// The setting that is there.
        given: &'static str,
        /// The other.
        missing: &'static str,
    },
    /// A setting cannot have this value.
    #[error("{place}: {key} {detail}")]
    WrongValue {
        /// File and line, variable, or flag.
        place: String,
        /// The setting.
        key: String,
        /// What it must be.
        detail: String,
    },
}

impl Config {
    /// Where the certificate is that clients are shown, if not one of the site's authority.
    pub(crate) fn own_files(&self) -> Option<OwnFiles> {
        let Dp { certificate, key, .. } = &self.dp;
        let (certificate, key) = (certificate.0.clone()?, key.0.clone()?);
        Some(OwnFiles { certificate, key })
    }

    /// How updates are synchronised.
    pub(crate) fn sync_settings(&self) -> sync::machine::Settings {
        let config = &self.sync;
        sync::machine::Settings {
            concurrent: config.concurrent as usize,
            patience: config.stall_timeout,
            upstream: sync::fetch::Patience {
                connect: config.connect_timeout,
                stall: config.read_timeout,
            },
            history: config.history as usize,
        }
    }

    /// How the library is opened.
    pub fn library_options(&self) -> contentlib::Options {
        let config = &self.library;
        let mut options = contentlib::Options {
            pack_target: config.pack_size.0,
            cache_bytes: config.cache.0,
            gc_grace: config.gc_grace,
            reserve: config.reserve.0,
            objects: contentlib::ObjectOptions {
                url: config.url.get().map(str::to_owned),
                cache_bytes: config.disk_cache.0,
                single_writer: config.single_writer,
                term: None,
            },
            ..contentlib::Options::default()
        };
        if config.threads > 0 {
            options.threads = config.threads as usize;
        }
        options
    }

    /// The settings from the file, `environment` and `options`.
    ///
    /// The file is the one that `options` names, else the one that `DEPOT_CONFIG` names, else
    /// `depot.toml` here, else `/etc/depot/depot.toml`; the last two need not exist.
    pub fn load(
        options: &Options,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        // Names and values are any bytes; those of other programs must not stop this one.
        let ours = |(name, value): (OsString, OsString)| {
            let name = name.into_string().ok()?;
            name.starts_with("DEPOT_").then_some((name, value))
        };
        let mut variables: Vec<(String, OsString)> =
            environment.into_iter().filter_map(ours).collect();
        // The system gives them in any order; the first mistake named should not depend on it.
        variables.sort();
        let named = options.config.clone().or_else(|| {
            let found = variables.iter().find(|(name, _)| name == "DEPOT_CONFIG");
            found.map(|(_, path)| path.into())
        });
        let mut config = Self::default();
        match named {
            Some(path) => config.read_file(&path)?,
            None => {
                let usual = ["depot.toml", "/etc/depot/depot.toml"].map(Path::new);
                if let Some(path) = usual.into_iter().find(|path| path.exists()) {
                    config.read_file(path)?;
                }
            }
        }
        for (name, value) in &variables {
            config.set_variable(name, value)?;
        }
        for (key, value) in &options.set {
            config.set(key, Raw::Text(value), &|| format!("--set {key}"))?;
        }
        if let Some(url) = &options.database {
            config.set("database.url", Raw::Text(url), &|| "--database".to_owned())?;
        }
        if let Some(data) = &options.data {
            config.data.clone_from(data);
        }
        if let Some(listen) = options.listen {
            config.listen = listen;
        }
        match (&config.dp.certificate.0, &config.dp.key.0) {
            (Some(_), None) => Err(half_set("dp.certificate", "dp.key"))?,
            (None, Some(_)) => Err(half_set("dp.key", "dp.certificate"))?,
            _ => {}
        }
        Ok(config)
    }

    /// All keys with their values, as they would be written in a file.
    pub fn settings(&self) -> BTreeMap<&'static str, String> {
        KEYS.iter().map(|def| (def.name, (def.get)(self))).collect()
    }

    fn read_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let unreadable = |detail: String| ConfigError::Unreadable { path: path.into(), detail };
        let text = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
        // No file can set an empty path: one that is still empty was not set.
        let before = std::mem::take(&mut self.data);
        self.read_toml(&text, &path.display().to_string())?;
        // A relative path in a file means the same wherever the command is run.
        let folder = path.parent().unwrap_or(Path::new(""));
        self.data = match self.data.as_os_str().is_empty() {
            true => before,
            false => folder.join(&self.data),
        };
        let password = &mut self.database.password_file;
        let cluster_key = &mut self.server.cluster_key_file;
        for file in [&mut self.dp.certificate, &mut self.dp.key, password, cluster_key] {
            file.0 = file.0.take().map(|file| folder.join(file));
        }
        Ok(())
    }

    /// Applies the settings of `text`; `name` is the file's, for messages.
    fn read_toml(&mut self, text: &str, name: &str) -> Result<(), ConfigError> {
        let line = |offset: usize| 1 + text.bytes().take(offset).filter(|b| *b == b'\n').count();
        let place = |offset: usize| format!("{name} line {}", line(offset));
        let table = DeTable::parse(text).map_err(|error| {
            let offset = error.span().map_or(0, |span| span.start);
            ConfigError::NotToml { place: place(offset), detail: error.message().into() }
        })?;
        // In the order of the file, so that the first mistake is named first.
        let mut settings = Vec::new();
        for (key, value) in table.get_ref() {
            match value.get_ref() {
                DeValue::Table(section) => {
                    let sections = KEYS.iter().filter_map(|def| Some(def.name.split_once('.')?.0));
                    if section.is_empty() && !sections.clone().any(|known| known == key.get_ref()) {
                        return Err(unknown(key.get_ref(), sections, place(key.span().start)));
                    }
                    for (inner, value) in section {
                        let full = format!("{}.{}", key.get_ref(), inner.get_ref());
                        settings.push((inner.span().start, full, value.get_ref()));
                    }
                }
                other => settings.push((key.span().start, key.get_ref().to_string(), other)),
            }
        }
        settings.sort_by_key(|(offset, ..)| *offset);
        for (offset, key, value) in settings {
            self.set(&key, Raw::from_toml(value), &|| place(offset))?;
        }
        Ok(())
    }

    fn set_variable(&mut self, name: &str, value: &OsStr) -> Result<(), ConfigError> {
        let matching = KEYS.iter().find(|def| variable_name(def.name) == name);
        match matching {
            Some(def) => {
                let value = value.to_str().ok_or_else(|| ConfigError::WrongValue {
                    place: name.into(),
                    key: def.name.into(),
                    detail: "must be UTF-8".into(),
                })?;
                self.set(def.name, Raw::Text(value), &|| name.to_owned())
            }
            // Only in a section of ours: DEPOT_URL and the like are no settings of a site, and other
            // programs may have variables that begin with DEPOT_.
            None => {
                let section = |def: &&KeyDef| {
                    let prefix = def.name.split_once('.').map(|(at, _)| variable_name(at) + "_");
                    prefix.is_some_and(|prefix| name.starts_with(&prefix))
                };
                if !KEYS.iter().any(|def| section(&def)) {
                    return Ok(());
                }
                let names: Vec<String> = KEYS.iter().map(|def| variable_name(def.name)).collect();
                let nearest = nearest(name, names.iter().map(String::as_str)).unwrap_or_default();
                Err(ConfigError::UnknownKey {
                    place: "environment".into(),
                    key: name.into(),
                    nearest: nearest.into(),
                })
            }
        }
    }

    fn set(
        &mut self,
        key: &str,
        raw: Raw<'_>,
        place: &dyn Fn() -> String,
    ) -> Result<(), ConfigError> {
        let Some(def) = KEYS.iter().find(|def| def.name == key) else {
            return Err(unknown(key, KEYS.iter().map(|def| def.name), place()));
        };
        (def.set)(self, raw).map_err(|detail| ConfigError::WrongValue {
            place: place(),
            key: key.into(),
            detail,
        })
    }
}

fn half_set(given: &'static str, missing: &'static str) -> ConfigError {
    ConfigError::HalfSet { given, missing }
}

fn unknown<'a>(key: &str, known: impl Iterator<Item = &'a str>, place: String) -> ConfigError {
    let nearest = nearest(key, known).unwrap_or_default().into();
    ConfigError::UnknownKey { place, key: key.into(), nearest }
}

/// `library.gc_grace` as `DEPOT_LIBRARY_GC_GRACE`.
fn variable_name(key: &str) -> String {
    format!("DEPOT_{}", key.replace('.', "_").to_uppercase())
}

#[cfg(test)]
mod tests;
