//! `depot dp serve`: a distribution point on this machine, until Ctrl-C or SIGTERM.

use crate::{
    cli::Shared,
    exit::{Exit, Failure, with_causes},
    output::{Out, written},
    serve::{key_and_value, log, url_of},
};
use api::{Config, Options};
use clap::Args;
use dp::field::{BadJoinToken, JoinToken};
use dp::node::{NodeError, Who};
use std::{fs, io, net::SocketAddr, path::PathBuf};
use tokio_util::sync::CancellationToken;

/// The longest file of a join token, in bytes.
const MAX_TOKEN_FILE: u64 = 64 << 10;
/// What makes the token of a distribution point.
const MADE_BY: &str = "`depot dp join-token create`";

/// Serve content from this machine as a distribution point of a site
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot dp serve --join depotjoin1… --data /var/lib/depot --listen 0.0.0.0:8520
  depot dp serve --join-file join.token --data /var/lib/depot
  depot dp serve --data /var/lib/depot           # joined before: no token needed

The site's administrator makes the token (`depot dp join-token create`). It lets one machine in,
once; from then on the machine has a key and a certificate of its own in the data folder, which it
renews by itself. A point that its site removed, or whose certificate ended while it was off, joins anew
when it is started with a new token of the same site: under the token's name, with the content that it
has. One that its site still knows does not use a token. What it should hold comes from the site, and is brought at the cost of what is
not there yet. Clients fetch by HTTP or HTTPS from the same port.")]
pub struct DpServeArgs {
    /// Token to join a site with, the first time. Others on this machine can read it in the list of
    /// processes: --join-file hides it
    #[arg(long, value_name = "TOKEN", conflicts_with = "join_file", value_parser = |text: &str| parse_token(text, MADE_BY))]
    join: Option<JoinToken>,
    /// File that holds the token
    #[arg(long, value_name = "FILE")]
    join_file: Option<PathBuf>,
    /// Address and port to listen on [default: 127.0.0.1:8520]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Configuration file [default: depot.toml here or in /etc/depot, if there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set any key of the configuration file
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_and_value)]
    set: Vec<(String, String)>,
}

/// Serves until it is told to stop.
pub fn run(args: DpServeArgs, shared: &Shared, out: Out) -> Result<(), Failure> {
    if shared.url.is_some() {
        return Err(Failure::usage("--url names a server to speak to; dp serve takes --listen"));
    }
    let DpServeArgs { join, join_file, listen, config, set } = args;
    let token = match join_file {
        None => join,
        Some(path) => Some(read_token(&path, MADE_BY)?),
    };
    let data = shared.data.clone();
    let options = Options { config, data, listen, set, ..Options::default() };
    let config = Config::load(&options, std::env::vars_os())
        .map_err(|error| Failure::usage(with_causes(&error)))?;
    log(&config, shared.verbose)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let started = |who: Who| {
        // A closed stdout stops nobody.
        let _ = announce(&who, &config, out);
    };
    let served =
        runtime.block_on(api::serve_point(&config, token, CancellationToken::new(), started));
    served.map_err(|error| Failure::new(exit(&error), with_causes(&error)))
}

/// A join token. Where the text is none, `made_by` names the command that prints one.
pub fn parse_token(text: &str, made_by: &str) -> Result<JoinToken, String> {
    text.parse().map_err(|error: BadJoinToken| format!("{error}; {made_by} prints one"))
}

/// The token that is in a file, as [`parse_token`].
pub fn read_token(path: &PathBuf, made_by: &str) -> Result<JoinToken, Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::usage(format!("cannot take the token from {}: {error}", path.display()))
    };
    let size = fs::metadata(path).map_err(|error| failed(&error))?.len();
    if size > MAX_TOKEN_FILE {
        return Err(failed(&"it is too long for one"));
    }
    let text = fs::read_to_string(path).map_err(|error| failed(&error))?;
    parse_token(&text, made_by).map_err(|error| failed(&error))
}

fn exit(error: &NodeError) -> Exit {
    match error {
        NodeError::NotJoined(_) | NodeError::Taken(_) => Exit::Usage,
        NodeError::OtherSite(_) => Exit::Conflict,
        NodeError::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
            Exit::Conflict
        }
        NodeError::Open(contentlib::OpenError::Locked { .. }) => Exit::Conflict,
        _ => Exit::Failed,
    }
}

fn announce(who: &Who, config: &Config, out: Out) -> Result<(), Failure> {
    let url = url_of(who.listen);
    let data = std::path::absolute(&config.data)?;
    if out.json {
        return out.json_line(&serde_json::json!({
            "url": url, "listen": who.listen, "data": data,
            "id": who.id, "name": who.name, "sites": who.sites,
        }));
    }
    written(|w| {
        writeln!(w, "depot {} serves {url}", env!("CARGO_PKG_VERSION"))?;
        writeln!(w, "  distribution point  {}", who.name)?;
        writeln!(w, "  site                {}", who.sites.join(", "))?;
        writeln!(w, "  data                {}", data.display())?;
        writeln!(w)
    })
}
