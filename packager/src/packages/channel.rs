//! Channels: names that an administrator points to versions, such as `stable`.

use super::Packages;
use crate::error::PackageError;
use crate::name::{ChannelName, PackageName, Selector};
use crate::refs;
use std::collections::BTreeMap;

/// A channel that was pointed to a version.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ChannelMoved {
    /// The package.
    pub package: PackageName,
    /// The channel.
    pub channel: ChannelName,
    /// The version it pointed to before.
    pub from: Option<u64>,
    /// The version it points to now.
    pub to: u64,
}

impl Packages {
    /// Points a channel to a version; makes the channel if there is none of that name. Versions
    /// that channels point to are kept.
    pub fn set_channel(
        &self,
        name: &PackageName,
        channel: &ChannelName,
        to: &Selector,
    ) -> Result<ChannelMoved, PackageError> {
        self.change(name, |record, _| {
            // Looked up again at each try: deleting a version changes the record too.
            let to = self.resolve(name, to)?.version;
            let from = record.channels.insert(channel.clone(), to);
            Ok(ChannelMoved { package: name.clone(), channel: channel.clone(), from, to })
        })
    }

    /// Removes a channel. The version it pointed to stays as long as the package's retention
    /// keeps it.
    pub fn remove_channel(
        &self,
        name: &PackageName,
        channel: &ChannelName,
    ) -> Result<(), PackageError> {
        self.change(name, |record, _| match record.channels.remove(channel) {
            Some(_) => Ok(()),
            None => Err(PackageError::UnknownChannel {
                package: name.clone(),
                channel: channel.clone(),
            }),
        })
    }

    /// The package's channels with the versions they point to; `latest` is not among them.
    pub fn channels(&self, name: &PackageName) -> Result<BTreeMap<ChannelName, u64>, PackageError> {
        Ok(self.record(name)?.record.channels)
    }

    /// What points to a version, for messages.
    pub(super) fn pointers(record: &refs::PackageRecord, version: u64) -> Vec<String> {
        let mut by = Vec::new();
        if record.latest == Some(version) {
            by.push("latest".to_owned());
        }
        let named = record.channels.iter().filter(|(_, to)| **to == version);
        by.extend(named.map(|(channel, _)| channel.to_string()));
        by
    }
}
