//! Where the site database is: in the data folder, or on a PostgreSQL server.
//!
//! `DIR/database.json` says of a data folder whose database is on a server which one that is, by the
//! name that the database itself bears. So a site is never opened with an empty database, or with
//! that of another site, where its own is elsewhere: each looks like a site that lost everything.
//! The file also has the id by which this folder holds the database ([`sitedb::Holder`]).
//!
//! [`migrate`] moves it, in either direction.

use crate::config::Config;
use crate::lock::{DataLock, NotLocked};
use crate::problem::{Kind, Problem};
use crate::site::{SiteError, make_folder, write_secret};
use serde::{Deserialize, Serialize};
use sitedb::transfer::{Contents, Import, Step, TransferError, transfer};
use sitedb::{BadPasswordFile, Db, DbError, Holder, PostgresKv, PostgresUrl, RocksKv, Tenure};
use std::fmt;
use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

/// What the file of a data folder says.
#[derive(Serialize, Deserialize)]
struct Marker {
    /// By what this folder is known to a database.
    holder: String,
    /// What the database calls itself; none where it is in the folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    database: Option<String>,
    /// Where it was when it was last opened, without a password; for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    url: Option<String>,
}

impl Marker {
    fn file(data: &Path) -> PathBuf {
        data.join("database.json")
    }

    /// What the file says; without one, the beginnings of one, written so that the id stays.
    fn open(data: &Path) -> io::Result<Self> {
        if let Some(marker) = Self::read(data)? {
            return Ok(marker);
        }
        let holder = uuid::Uuid::new_v4().to_string();
        let marker = Self { holder, database: None, url: None };
        marker.write(data)?;
        Ok(marker)
    }

    fn read(data: &Path) -> io::Result<Option<Self>> {
        match fs::read(Self::file(data)) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).map_err(io::Error::other)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn write(&self, data: &Path) -> io::Result<()> {
        write_secret(&Self::file(data), &serde_json::to_vec(self)?)
    }

    fn holder(&self, data: &Path, address: &str) -> Holder {
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let (process, data) = (std::process::id(), data.display());
        let name = format!("depot on {}, process {process}, data folder {data}", host.trim());
        Holder { id: self.holder.clone(), name, address: address.to_owned() }
    }
}

/// As whom this process holds the database of the site in the folder that `config` names, if others reach
/// it at `address`.
pub(crate) fn holder(config: &Config, address: &str) -> Result<Holder, Problem> {
    let data = &config.data;
    let marker = Marker::open(data)
        .map_err(|error| Problem::internal(&unusable(&Marker::file(data), error)))?;
    Ok(marker.holder(data, address))
}

/// Whether two holders' names are of one data folder on one machine: all but the process is the same. A
/// folder that was copied has the id of the other, too.
pub(crate) fn is_same_folder(one: &str, other: &str) -> bool {
    let parts = |name: &str| {
        let (machine, rest) = name.split_once(", process ")?;
        let (_, folder) = rest.split_once(", data folder ")?;
        Some((machine.to_owned(), folder.to_owned()))
    };
    parts(one).is_some_and(|one| parts(other) == Some(one))
}

/// The URL of the settings, with its password from where that is.
pub(crate) fn url_of(config: &Config) -> Result<Option<PostgresUrl>, Problem> {
    url(config).map_err(bad_password)
}

/// A database, and for how long it is surely this process's, if that is not for as long as it lives.
pub(crate) type Taken = (Db, Option<Tenure>);

/// Opens the database of the site whose folder, which this process has locked, `config` names. Where
/// another server has it, waits until that one's time is over.
pub(crate) fn open(config: &Config) -> Result<Taken, Problem> {
    open_at(config, "", PostgresKv::open)
}

/// The same for one of several servers, which the others reach at `address`; none where another leads.
pub(crate) fn open_if_free(config: &Config, address: &str) -> Result<Option<Taken>, Problem> {
    let mut is_held = false;
    let opened = open_at(config, address, |url, holder| {
        let opened = PostgresKv::open_if_free(url, holder);
        is_held = matches!(opened, Err(DbError::Held { .. }));
        opened
    });
    if is_held { Ok(None) } else { opened.map(Some) }
}

fn open_at(
    config: &Config,
    address: &str,
    take: impl FnOnce(&PostgresUrl, &Holder) -> Result<PostgresKv, DbError>,
) -> Result<Taken, Problem> {
    let data = &config.data;
    let failed = |error: io::Error| Problem::internal(&unusable(&Marker::file(data), error));
    let Some(url) = url(config).map_err(bad_password)? else {
        let marker = Marker::read(data).map_err(failed)?;
        if let Some(Marker { database: Some(_), url, .. }) = marker {
            let place = url.unwrap_or_default();
            return Err(Problem::new(
                Kind::Conflict,
                format!(
                    "the database of this site is {place}: say so with --database, \
                     DEPOT_DATABASE_URL or url in [database] of the configuration file"
                ),
            ));
        }
        return Ok((Db::open_folder(&data.join("site"))?, None));
    };
    let mut marker = Marker::open(data).map_err(failed)?;
    if marker.database.is_none() && data.join("site/CURRENT").exists() {
        let data = data.display();
        return Err(Problem::new(
            Kind::Conflict,
            format!(
                "the database of this site is in its folder: `depot --data {data} database migrate \
                 --to {url}` moves it there first"
            ),
        ));
    }
    let kv = take(&url, &marker.holder(data, address))?;
    if marker.database.as_deref().is_some_and(|own| own != kv.database()) {
        return Err(Problem::new(
            Kind::Conflict,
            format!(
                "{url} is the database of another site, or an empty one: this site's own was {}",
                marker.url.unwrap_or_default()
            ),
        ));
    }
    let (database, place) = (Some(kv.database().to_owned()), Some(url.to_string()));
    if (&marker.database, &marker.url) != (&database, &place) {
        (marker.database, marker.url) = (database, place);
        marker.write(data).map_err(failed)?;
    }
    tracing::info!(%url, "the site database is on a server");
    let tenure = kv.tenure().clone();
    Ok((Db::open(Arc::new(kv))?, Some(tenure)))
}

fn url(config: &Config) -> Result<Option<PostgresUrl>, BadPasswordFile> {
    let Some(url) = config.database.url.0.clone() else { return Ok(None) };
    with_password(url, config).map(Some)
}

fn with_password(url: PostgresUrl, config: &Config) -> Result<PostgresUrl, BadPasswordFile> {
    let url = match &config.database.password_file.0 {
        Some(file) => url.with_password_file(file)?,
        None => url,
    };
    // As psql and every other program of PostgreSQL looks for it.
    let usual = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".pgpass"));
    match std::env::var_os("PGPASSFILE").map(PathBuf::from).or_else(usual) {
        Some(file) => url.with_pgpass(&file),
        None => Ok(url),
    }
}

fn bad_password(error: BadPasswordFile) -> Problem {
    Problem::new(Kind::Unavailable, error.to_string())
}

fn unusable(path: &Path, source: io::Error) -> SiteError {
    SiteError::Io { path: path.to_owned(), source }
}

/// Where a database is: in a folder, or at a URL.
#[derive(Clone, Debug, PartialEq)]
pub enum Place {
    /// A folder of RocksDB.
    Folder(PathBuf),
    /// On a PostgreSQL server.
    Postgres(Box<PostgresUrl>),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if PostgresUrl::is_meant(text) {
            let url = text.parse().map_err(|error| format!("the URL is not taken: {error}"))?;
            return Ok(Self::Postgres(Box::new(url)));
        }
        match text.contains("://") || text.is_empty() {
            true => Err("want a folder, or postgres://USER@HOST/DATABASE".to_owned()),
            false => Ok(Self::Folder(text.into())),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => write!(f, "{}", path.display()),
            Self::Postgres(url) => write!(f, "{url}"),
        }
    }
}

/// What was moved.
#[derive(Clone, Debug, Serialize)]
pub struct Migrated {
    /// Where it was.
    pub from: String,
    /// Where it is.
    pub to: String,
    /// Records.
    pub entries: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// BLAKE3 over all of them, in hex; read on both sides.
    pub digest: String,
    /// The data folder that uses the new one from now on, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
    /// What is left of the old one, if it was in that folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<PathBuf>,
}

/// Why it was not moved. The site goes on with the old one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MigrateError {
    /// The data folder cannot be used.
    #[error(transparent)]
    Site(#[from] SiteError),
    /// One of the databases cannot be opened.
    #[error("{place}")]
    Open {
        /// Which.
        place: String,
        /// Why.
        source: DbError,
    },
    /// No database is there.
    #[error("there is no site database in {0:?}")]
    NotThere(PathBuf),
    /// From one to the same.
    #[error("it is there already")]
    Same,
    /// The password is not to be had.
    #[error(transparent)]
    Password(#[from] BadPasswordFile),
    /// It could not be copied.
    #[error(transparent)]
    Transfer(#[from] TransferError),
}

impl MigrateError {
    /// Whether somebody else has one of the databases, or something else is in it.
    pub fn is_conflict(&self) -> bool {
        match self {
            Self::Site(error) => matches!(error, SiteError::InUse { .. }),
            Self::Open { source, .. }
            | Self::Transfer(TransferError::Source(source) | TransferError::Target(source)) => {
                matches!(source, DbError::Held { .. } | DbError::NotUsable { .. })
            }
            Self::Same | Self::Transfer(TransferError::Differs { .. }) => true,
            _ => false,
        }
    }

    /// Whether who watched asked for an end.
    pub fn is_interrupted(&self) -> bool {
        matches!(self, Self::Transfer(TransferError::Interrupted))
    }
}

/// Moves a site database; `from` is the one of the site in the data folder that `config` names,
/// unless it says otherwise. No server may use either side.
///
/// If it is that site's own, the site uses the new one from the end on; the old one stays, under
/// another name where it was in the folder. Stopped anywhere, it is begun again and goes on.
/// `watch` hears what is being done and how many records and bytes of it are done, and may ask for
/// an end.
pub fn migrate(
    config: &Config,
    from: Option<Place>,
    to: Place,
    mut watch: impl FnMut(&'static str, u64, u64) -> ControlFlow<()>,
) -> Result<Migrated, MigrateError> {
    let own = Own::of(config, from.as_ref(), &to)?;
    let from = match (from, &own) {
        (Some(place), _) => place,
        (None, Some(own)) => own.place(config)?,
        (None, None) => return Err(MigrateError::NotThere(config.data.clone())),
    };
    let from = with_secret(from, config)?;
    let to = with_secret(to, config)?;
    if from.to_string() == to.to_string() {
        return Err(MigrateError::Same);
    }
    let holder = match &own {
        Some(own) => own.marker()?.holder(&own.data, ""),
        None => {
            let id = uuid::Uuid::new_v4().to_string();
            Marker { holder: id, database: None, url: None }.holder(&config.data, "")
        }
    };
    let source = open_side(&from, &holder, Side::Source)?;
    let target = open_side(&to, &holder, Side::Target)?;
    let done = transfer(source.import(), target.import(), |step, entries, bytes| {
        let stage = match step {
            Step::Copying => "copying",
            Step::ReadingSource => "checking the source",
            Step::ReadingCopy => "checking the copy",
        };
        watch(stage, entries, bytes)
    })?;
    let database = target.database();
    drop((source, target));
    let Contents { entries, bytes, digest } = done;
    let mut digest_text = String::with_capacity(64);
    for byte in digest {
        digest_text.push_str(&format!("{byte:02x}"));
    }
    let (mut data, mut kept) = (None, None);
    if let Some(own) = own {
        kept = own.use_new(&from, &to, database)?;
        data = Some(own.data);
    }
    let (from, to) = (from.to_string(), to.to_string());
    Ok(Migrated { from, to, entries, bytes, digest: digest_text, data, kept })
}

fn with_secret(place: Place, config: &Config) -> Result<Place, BadPasswordFile> {
    Ok(match place {
        Place::Postgres(url) => Place::Postgres(Box::new(with_password(*url, config)?)),
        folder => folder,
    })
}

/// An empty database into which a backup is put back, of the site in a data folder.
pub(crate) struct Restoring {
    opened: Opened,
    place: Place,
    data: PathBuf,
}

impl Restoring {
    /// Opens it where `config` says: on a server, or in the data folder.
    pub fn open(config: &Config) -> Result<Self, MigrateError> {
        let data = config.data.clone();
        let place = match &config.database.url.0 {
            Some(url) => Place::Postgres(Box::new(url.clone())),
            None => Place::Folder(data.join("site")),
        };
        let marker = Marker::open(&data).map_err(|error| unusable(&Marker::file(&data), error))?;
        let opened = open_side(
            &with_secret(place.clone(), config)?,
            &marker.holder(&data, ""),
            Side::Target,
        )?;
        Ok(Self { opened, place, data })
    }

    /// The database.
    pub fn import(&self) -> &dyn Import {
        self.opened.import()
    }

    /// Closes it, and has the data folder say that it is its own; where it is.
    pub fn own(self) -> Result<String, MigrateError> {
        let database = self.opened.database();
        drop(self.opened);
        let failed = |error| unusable(&Marker::file(&self.data), error);
        let mut marker = Marker::open(&self.data).map_err(failed)?;
        marker.url = database.is_some().then(|| self.place.to_string());
        marker.database = database;
        marker.write(&self.data).map_err(failed)?;
        Ok(self.place.to_string())
    }
}

/// The data folder of the site whose database is moved, locked.
struct Own {
    data: PathBuf,
    _lock: DataLock,
}

impl Own {
    /// The one that `config` names if its own database is `from` or becomes `to`; or the one in
    /// which the folder of `from` or `to` is the site's.
    fn of(config: &Config, from: Option<&Place>, to: &Place) -> Result<Option<Self>, SiteError> {
        let beside = |place: &Place| match place {
            Place::Folder(path) if path.file_name().is_some_and(|name| name == "site") => {
                let data = path.parent().filter(|data| data.join("lock").exists());
                data.map(Path::to_owned)
            }
            _ => None,
        };
        let found = from.and_then(beside).or_else(|| beside(to));
        let data = match (found, from) {
            (Some(data), _) => data,
            (None, None) => config.data.clone(),
            (None, Some(_)) => return Ok(None),
        };
        if !data.is_dir() {
            return Ok(None);
        }
        let path = data.join("lock");
        let lock =
            DataLock::take(&path, "depot database migrate").map_err(|error| match error {
                NotLocked::Held(holder) => SiteError::InUse { folder: data.clone(), holder },
                NotLocked::Io(source) => unusable(&path, source),
            })?;
        Ok(Some(Self { data, _lock: lock }))
    }

    fn marker(&self) -> Result<Marker, SiteError> {
        Marker::open(&self.data).map_err(|error| unusable(&Marker::file(&self.data), error))
    }

    /// Where its database is now.
    fn place(&self, config: &Config) -> Result<Place, MigrateError> {
        let marker = self.marker()?;
        match (&marker.database, &config.database.url.0, &marker.url) {
            (None, ..) => Ok(Place::Folder(self.data.join("site"))),
            (Some(_), Some(url), _) => Ok(Place::Postgres(Box::new(url.clone()))),
            (Some(_), None, url) => {
                let url = url.as_deref().and_then(|url| url.parse().ok());
                let none = || MigrateError::NotThere(self.data.join("site"));
                Ok(Place::Postgres(Box::new(url.ok_or_else(none)?)))
            }
        }
    }

    /// Has the site use the new one; where the old one is if it was in the folder.
    fn use_new(
        &self,
        from: &Place,
        to: &Place,
        database: Option<String>,
    ) -> Result<Option<PathBuf>, SiteError> {
        let mut marker = self.marker()?;
        marker.url = database.is_some().then(|| to.to_string());
        marker.database = database;
        // From here on the site uses the new one.
        marker.write(&self.data).map_err(|e| unusable(&Marker::file(&self.data), e))?;
        let site = self.data.join("site");
        if *from != Place::Folder(site.clone()) {
            return Ok(None);
        }
        let names = (0..).map(|n| match n {
            0 => "site.moved".to_owned(),
            n => format!("site.moved-{n}"),
        });
        let free = names.map(|name| self.data.join(name)).find(|path| !path.exists());
        let kept = free.unwrap_or_else(|| site.clone());
        fs::rename(&site, &kept).map_err(|error| unusable(&site, error))?;
        Ok(Some(kept))
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Side {
    Source,
    Target,
}

/// A database that is open for a copy.
enum Opened {
    Folder(Box<RocksKv>),
    Postgres(Box<PostgresKv>),
}

impl Opened {
    fn import(&self) -> &dyn Import {
        match self {
            Self::Folder(kv) => &**kv,
            Self::Postgres(kv) => &**kv,
        }
    }

    /// What it calls itself, if it does.
    fn database(&self) -> Option<String> {
        match self {
            Self::Folder(_) => None,
            Self::Postgres(kv) => Some(kv.database().to_owned()),
        }
    }
}

fn open_side(place: &Place, holder: &Holder, side: Side) -> Result<Opened, MigrateError> {
    let failed = |source: DbError| MigrateError::Open { place: place.to_string(), source };
    let opened = match place {
        Place::Folder(path) => {
            if side == Side::Source && !path.join("CURRENT").exists() {
                return Err(MigrateError::NotThere(path.clone()));
            }
            make_folder(path).map_err(|error| unusable(path, error))?;
            let open = if side == Side::Source { RocksKv::open } else { RocksKv::open_for_import };
            Opened::Folder(Box::new(open(path).map_err(failed)?))
        }
        Place::Postgres(url) => {
            let open = match side {
                Side::Source => PostgresKv::open,
                Side::Target => PostgresKv::open_for_import,
            };
            Opened::Postgres(Box::new(open(url, holder).map_err(failed)?))
        }
    };
    if side == Side::Source && opened.import().last_seq() == 0 {
        return Err(MigrateError::NotThere(PathBuf::from(place.to_string())));
    }
    Ok(opened)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_known_again_after_a_restart_and_its_copy_is_not_taken_for_it() {
        let marker = Marker { holder: "a".into(), database: None, url: None };
        let name = marker.holder(Path::new("/var/lib/depot"), "h:1").name;
        let restarted = name.replace(&std::process::id().to_string(), "1");
        assert!(is_same_folder(&name, &restarted) && name != restarted);
        let copied = marker.holder(Path::new("/srv/depot"), "h:1").name;
        assert!(!is_same_folder(&name, &copied));
        assert!(!is_same_folder("", ""));
    }
}
