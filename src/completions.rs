//! `depot completions SHELL`.

use crate::{cli::Cli, exit::Failure, output::written};
use clap::{Args, CommandFactory};
use clap_complete::Shell;

/// Print a completion script for a shell
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot completions bash > /etc/bash_completion.d/depot
  depot completions zsh > \"${fpath[1]}/_depot\"
  depot completions fish > ~/.config/fish/completions/depot.fish

Prints the script with --json too.")]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Prints the script.
pub fn run(args: &CompletionsArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "depot", &mut script);
    written(|w| w.write_all(&script))
}
