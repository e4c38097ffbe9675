//! RPM repositories as an upstream.
//!
//! In the order to read: how versions compare ([`evr`]); the files of a repository ([`repomd`],
//! [`primary`], [`updateinfo`], [`modules`]) and the XML they are written in ([`xml`]); what a person
//! says of a repository ([`settings`]), how its files are kept ([`folder`]) and brought ([`source`]);
//! what they say as updates
//! ([`catalogue`], with [`product`] and [`supersedence`]); and mirrors of them ([`mirror`], [`selection`]),
//! with what packages require of each other ([`closure`], over `capability`).

mod capability;
pub mod catalogue;
pub mod closure;
pub mod evr;
pub mod folder;
pub mod mirror;
pub mod modules;
#[cfg(test)]
mod mutated;
pub mod primary;
pub mod product;
pub mod repomd;
pub mod selection;
pub mod settings;
pub mod source;
pub mod supersedence;
mod update;
pub mod updateinfo;
pub mod xml;

pub use selection::Selection;
pub use settings::RpmSettings;
pub use source::RpmSource;
