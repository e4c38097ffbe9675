//! `depot config …`: the configuration file, looked at without starting anything.

use crate::{
    exit::{Failure, with_causes},
    output::{Out, facts, written},
};
use api::{Config, Options};
use clap::Subcommand;
use std::path::PathBuf;

/// Every key with its default and what it means; a test of `api` holds it to the truth.
const EXAMPLE: &str = include_str!("../depot.example.toml");

/// Commands on the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check a file; what is wrong is named with its line
    #[command(after_help = "\
Examples:
  depot config check
  depot config check /etc/depot/depot.toml")]
    Check {
        /// The file [default: the one that `depot serve` would read]
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Show every setting as `depot serve` would use it
    #[command(after_help = "\
Examples:
  depot config show
  depot config show /etc/depot/depot.toml --json | jq -r '.[\"library.gc_grace\"]'")]
    Show {
        /// The file [default: the one that `depot serve` would read]
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Print an example with every key, its default and what it means
    #[command(after_help = "\
Examples:
  depot config example > depot.toml

Prints the file with --json too; `depot config show --json` gives the settings to scripts.")]
    Example,
}

/// Runs a command on the configuration.
pub fn run(command: ConfigCommand, out: Out) -> Result<(), Failure> {
    let load = |file: Option<PathBuf>| {
        let options = Options { config: file, ..Options::default() };
        Config::load(&options, std::env::vars_os())
            .map_err(|error| Failure::usage(with_causes(&error)))
    };
    match command {
        ConfigCommand::Check { file } => {
            let name =
                file.as_deref().map_or("the configuration".into(), |f| f.display().to_string());
            load(file)?;
            out.show(&serde_json::json!({ "ok": true }), |w| writeln!(w, "{name} is good"))
        }
        ConfigCommand::Show { file } => {
            let settings = load(file)?.settings();
            let rows: Vec<_> = settings.iter().map(|(key, value)| (*key, value.clone())).collect();
            out.show(&settings, |w| w.write_all(facts(&rows).as_bytes()))
        }
        ConfigCommand::Example => written(|w| w.write_all(EXAMPLE.as_bytes())),
    }
}
