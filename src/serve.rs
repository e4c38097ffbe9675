//! `depot serve`: a site on this machine, until Ctrl-C or SIGTERM.

use crate::{
    cli::Shared,
    dp::serve::{parse_token, read_token},
    exit::{Exit, Failure, with_causes},
    output::{Out, written},
    transport,
};
use ::dp::field::JoinToken;
use api::{
    Config, Options, Site,
    config::{LogFormat, SiteUrl},
    hierarchy::Joining,
};
use clap::Args;
use std::{
    io::{self, IsTerminal},
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Start a site: admin API and distribution point on one address
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot serve --data ./depot-data
  depot serve --data ./depot-data --listen 127.0.0.1:8520 --config ./depot.toml
  depot serve --data /var/lib/depot --set library.gc_grace=1h
  depot serve --data ./depot-data --library s3://bucket/depot --cache 100GiB
  depot serve --database postgres://depot@db.example/site   # the site database on a server
  depot serve --database postgres://depot@db.example/site --library s3://bucket/depot \
    --cluster-key /etc/depot/cluster.key --listen 10.0.0.7:8520        # one of several servers
  depot serve --listen 127.0.0.1:0               # any free port; it is printed
  depot serve --parent https://top:8520 --join-file berlin.token   # a child site, the first time
  depot serve --sup --parent https://site:8520 --join depotjoin1…  # another update point of a site

The data folder is made if it is not there. Ctrl-C or SIGTERM ends it: answers under way are
finished first. Settings come from the configuration file (`depot config example` prints one with
every key), then the environment, then these flags.

With --library the content is on an object store, and the data folder holds an index and a cache of
it, which are made anew where they are lost. Credentials come from the environment (AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY, AWS_REGION; AWS_ENDPOINT for another store than Amazon's, with AWS_ALLOW_HTTP=true
if that is http), from ~/.aws/credentials (AWS_PROFILE), or from the machine's role. The folder remembers the URL.

A site with its database on a PostgreSQL server and its content on an object store may have several
servers. Start each in the same way, with a data folder of its own and the same cluster key (`depot site
cluster-key FILE` makes it): one leads, the others hand on to it what they are asked for, and one of them
takes over when it is gone. `depot site servers` lists them.

With --parent this site becomes a child site: it takes its updates and criteria from its parent, whose
administrator made the token (`depot site join-token create`). With --sup it becomes another update point of
a site (`depot sup add`). Both need the token once; from then on the folder says it.")]
pub struct ServeArgs {
    /// Address and port to listen on [default: 127.0.0.1:8520]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Keep the site database on this PostgreSQL server: postgres://USER@HOST/DATABASE [default: in the data
    /// folder]. A password does not belong here: see `depot config example`
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// Configuration file [default: depot.toml here or in /etc/depot, if there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Object store that holds the content: s3://BUCKET/PREFIX (library.url) [default: the data folder]
    #[arg(long, value_name = "URL")]
    library: Option<String>,
    /// Bytes of the data folder for what was read from there (library.disk_cache) [default: 10GiB]
    #[arg(long, value_name = "SIZE")]
    cache: Option<String>,
    /// Be one of several servers of the site: file with the key that all of them have
    /// (server.cluster_key_file)
    #[arg(long, value_name = "FILE")]
    cluster_key: Option<PathBuf>,
    /// Where the other servers of the site reach this one (server.advertise) [default: where it listens]
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// Set any key of the configuration file
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_and_value)]
    set: Vec<(String, String)>,
    /// Where the parent site is reached: https://HOST:PORT [default: as the join token says]
    #[arg(long, value_name = "URL")]
    parent: Option<SiteUrl>,
    /// Token to join the parent with, the first time. Others on this machine can read it in the list of
    /// processes: --join-file hides it
    #[arg(long, value_name = "TOKEN", conflicts_with = "join_file", value_parser = |text: &str| parse_token(text, MADE_BY))]
    join: Option<JoinToken>,
    /// File that holds the token
    #[arg(long, value_name = "FILE")]
    join_file: Option<PathBuf>,
    /// Be another update point of a site, and no site of its own
    #[arg(long)]
    sup: bool,
}

/// How long what still runs may take once all is closed.
const ENDING: Duration = Duration::from_secs(5);

/// What makes the token of a site that follows another.
const MADE_BY: &str = "`depot site join-token create` or `depot sup add`";

/// A setting on the command line.
pub fn key_and_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.trim().into(), value.trim().into())),
        _ => Err("want KEY=VALUE, for example log.level=debug".into()),
    }
}

/// Serves until it is told to stop.
pub fn run(args: ServeArgs, shared: &Shared, out: Out) -> Result<(), Failure> {
    if shared.url.is_some() {
        return Err(Failure::usage("--url names a server to speak to; serve takes --listen"));
    }
    let ServeArgs {
        listen,
        database,
        config,
        library,
        cache,
        cluster_key,
        advertise,
        mut set,
        parent,
        join,
        join_file,
        sup,
    } = args;
    set.extend(library.map(|url| ("library.url".into(), url)));
    set.extend(cache.map(|size| ("library.disk_cache".into(), size)));
    if let Some(file) = cluster_key {
        let file = file.into_os_string().into_string();
        let file = file.map_err(|_| Failure::usage("--cluster-key must be UTF-8"))?;
        set.push(("server.cluster_key_file".into(), file));
    }
    set.extend(advertise.map(|address| ("server.advertise".into(), address)));
    let token = match join_file {
        None => join,
        Some(path) => Some(read_token(&path, MADE_BY)?),
    };
    let joining = Joining { parent: parent.map(|url| url.to_string()), token, sup };
    let by_flag = database.is_some();
    let options = Options { config, data: shared.data.clone(), listen, database, set };
    let config = Config::load(&options, std::env::vars_os())
        .map_err(|error| Failure::usage(with_causes(&error)))?;
    log(&config, shared.verbose)?;
    let database = config.database.url.0.as_ref().map(ToString::to_string);
    let is_one_of_several = config.server.cluster_key_file.0.is_some();
    if config.database.url.0.as_ref().is_some_and(|url| url.has_password()) && by_flag {
        tracing::warn!(
            "others on this machine can read the database's password in the list of processes"
        );
    }
    let site = Site::open(config, "depot serve").map_err(transport::open_failure)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let folder = std::path::absolute(site.folder())?;
    let token_file = folder.join("admin.token");
    let started = move |address: SocketAddr| {
        // Told on stdout, so that a script can read where it is; a closed stdout stops nobody.
        // The first start writes it; later it may have been moved to whoever needs it.
        let token_file = token_file.exists().then_some(token_file);
        let place = Place { folder, token_file, database, is_one_of_several };
        let _ = announce(address, &place, out);
    };
    let served = runtime.block_on(api::serve(site, joining, CancellationToken::new(), started));
    // A thread that hangs at what a lost leader had must not keep it from being started again.
    runtime.shutdown_timeout(ENDING);
    served.map_err(|error| {
        let exit = match &error {
            api::ServeError::Site(problem) => return transport::failure_of(problem),
            api::ServeError::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
                Exit::Conflict
            }
            api::ServeError::Followed { .. } => Exit::Conflict,
            _ => Exit::Failed,
        };
        Failure::new(exit, with_causes(&error))
    })
}

/// What a site is made of.
struct Place {
    folder: PathBuf,
    token_file: Option<PathBuf>,
    database: Option<String>,
    is_one_of_several: bool,
}

/// Says where the site is and what to do next.
fn announce(address: SocketAddr, place: &Place, out: Out) -> Result<(), Failure> {
    let Place { folder, token_file, database, is_one_of_several } = place;
    let url = url_of(address);
    if out.json {
        return out.json_line(&serde_json::json!({
            "url": url, "listen": address, "data": folder, "token_file": token_file,
            "database": database,
        }));
    }
    let depot = std::env::args_os().next().unwrap_or_else(|| "depot".into());
    let depot = depot.display();
    written(|w| {
        writeln!(w, "depot {} serves {url}", env!("CARGO_PKG_VERSION"))?;
        writeln!(w, "  data         {}", folder.display())?;
        if let Some(database) = database {
            writeln!(w, "  database     {database}")?;
        }
        match token_file {
            Some(file) => writeln!(w, "  admin token  {}", file.display())?,
            None if *is_one_of_several => {
                writeln!(
                    w,
                    "  admin token  in the data folder of the server that was started first"
                )?;
            }
            None => {
                let data = folder.display();
                writeln!(w, "  admin token  not here; who has none stops this, and makes one:")?;
                writeln!(w, "               {depot} --data {data} token create NAME --role admin")?;
            }
        }
        writeln!(w)?;
        if transport::is_default(&url) {
            writeln!(w, "Next, in another terminal and in this folder:")?;
        } else {
            writeln!(w, "Next, in another terminal:")?;
            let token_file = token_file.as_deref().unwrap_or(Path::new("FILE")).display();
            writeln!(w, "  export DEPOT_URL={url} DEPOT_TOKEN_FILE={token_file}")?;
        }
        writeln!(w, "  {depot} package create docs --source /usr/share/doc")?;
        writeln!(w, "  {depot} package update docs")?;
        writeln!(w, "  {depot} fetch {url}/packages/docs/latest -o ./out")?;
        writeln!(w)
    })
}

/// The URL that a server on this machine is reached at. Who listens on all addresses is reached on
/// each, and this machine is one.
pub fn url_of(address: SocketAddr) -> String {
    match address.ip() {
        ip if ip.is_unspecified() && ip.is_ipv4() => format!("http://127.0.0.1:{}", address.port()),
        ip if ip.is_unspecified() => format!("http://[::1]:{}", address.port()),
        _ => format!("http://{address}"),
    }
}

/// Logs to stderr as the configuration says; `--verbose` wins over its level.
pub fn log(config: &Config, verbose: u8) -> Result<(), Failure> {
    let level = match verbose {
        0 => config.log.level.as_str(),
        1 => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_new(level)
        .map_err(|error| Failure::usage(format!("log.level {level:?}: {error}")))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr);
    match config.log.format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}
