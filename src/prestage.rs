//! `depot prestage …`: versions that travel on a medium instead of a network.
//!
//! `inventory` and `import` work on the folder of a distribution point on this machine: in this
//! process, or, if the point runs, by asking it at the socket in its folder. `export` asks the site,
//! as all other commands do.

mod export;
mod point;

use crate::{cli::Shared, exit::Failure, output::Out, transport::Client};
use clap::Subcommand;

/// Commands on prestaged content.
#[derive(Debug, Subcommand)]
pub enum PrestageCommand {
    /// Write down what a distribution point holds, compactly
    Inventory(point::InventoryArgs),
    /// Make a bundle of versions, at the site, with only what a distribution point lacks
    Export(export::ExportArgs),
    /// Take a bundle in, at the distribution point
    Import(point::ImportArgs),
}

/// Runs a command on prestaged content.
pub async fn run(command: PrestageCommand, shared: &Shared, out: Out) -> Result<(), Failure> {
    match command {
        PrestageCommand::Inventory(args) => point::inventory(args, shared, out).await,
        PrestageCommand::Import(args) => point::import(args, shared, out).await,
        PrestageCommand::Export(args) => {
            let client = Client::open(shared)?;
            let done = export::run(args, &client, out).await;
            let closed = client.close().await;
            done.and(closed)
        }
    }
}
