//! Damage: which of the versions that are held are not whole any more.
//!
//! Whoever reads a byte that went bad, a client's request, the scrub, an order, has it noted in the
//! library, and nobody is given it from then on. Here it is looked which versions that hits. The plan
//! takes them for missing, so that they are brought as any other: what is sound is held and costs
//! nothing, and what is not comes again from whoever has it. They stay visible meanwhile: what of
//! them is sound is served.

use super::plan::{Key, key};
use super::{Node, blocking, tasks};
use packager::PackageError;
use packager::packages::Hurt;
use packager::sign::VersionInfo;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often it is looked whether somebody noted damage.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A look at all versions takes at most this share of the time.
const SHARE: u32 = 5;

/// Looks for versions that are hit, whenever damage was noted or somebody asks for a look.
pub(super) async fn watch(node: Arc<Node>) {
    let mut seen = None;
    loop {
        let generation = node.packages.library().generation();
        let asked = node.asked_to_look.swap(false, std::sync::atomic::Ordering::SeqCst);
        let mut pause = LOOK_EVERY;
        if asked || seen != Some(generation) {
            let began = Instant::now();
            let looked = {
                let node = node.clone();
                blocking(move || look(&node, asked)).await
            };
            match looked {
                Ok(()) => seen = Some(generation),
                Err(error) => {
                    node.take_note(&error);
                    tracing::warn!(
                        error = tasks::chain(&error),
                        "cannot tell which versions are damaged; trying again"
                    );
                }
            }
            pause = pause.max(began.elapsed() * SHARE);
        }
        let _ = tokio::time::timeout(pause, node.look.notified()).await;
    }
}

/// Finds out which versions are hit, if damage is known, or else if `anyway`.
fn look(node: &Node, anyway: bool) -> Result<(), PackageError> {
    let is_known = !node.facts.lock().hurt.is_empty();
    if !anyway && !is_known && node.packages.library().suspects()?.is_empty() {
        return Ok(());
    }
    let found = node.packages.hurt_versions()?;
    let found: HashMap<Key, Hurt> =
        found.into_iter().map(|hurt| ((hurt.package.clone(), hurt.version), hurt)).collect();
    let is_news = {
        let mut facts = node.facts.lock();
        for (key, hurt) in &found {
            if facts.hurt.get(key) != Some(hurt) {
                let (contents, bytes) = (hurt.n_contents, hurt.bytes);
                tracing::warn!(package = %key.0, version = key.1, contents, bytes, "damaged here");
            }
        }
        let is_news = facts.hurt != found;
        facts.hurt = found;
        is_news
    };
    if is_news {
        node.news.notify_one();
        node.plan_anew();
    }
    Ok(())
}

/// Which of the versions that are `held` are not whole still. Those that became whole since they were
/// looked at are not any more.
pub(super) fn still_hurt(node: &Node, held: &[VersionInfo]) -> Result<HashSet<Key>, PackageError> {
    let before: HashSet<Key> = node.facts.lock().hurt.keys().cloned().collect();
    if before.is_empty() {
        return Ok(before);
    }
    let mut now = HashSet::new();
    for version in held.iter().filter(|version| before.contains(&key(version))) {
        if let Some(hurt) = node.packages.hurt(version)? {
            now.insert(key(version));
            node.facts.lock().hurt.insert(key(version), hurt);
        }
    }
    for (package, version) in before.difference(&now) {
        node.facts.lock().hurt.remove(&(package.clone(), *version));
        tracing::info!(%package, version, "whole again, or gone");
        node.news.notify_one();
    }
    Ok(now)
}

/// What is wrong with a version, for people.
pub(super) fn cause(hurt: &Hurt) -> String {
    if hurt.manifest {
        return "its manifest is damaged or lost here: it is fetched again".into();
    }
    let files = if hurt.n_contents == 1 { "1 file" } else { "files" };
    let n = if hurt.n_contents == 1 { String::new() } else { format!("{} ", hurt.n_contents) };
    format!("{n}{files} of it, {} bytes, found damaged or lost here: fetched again", hurt.bytes)
}
