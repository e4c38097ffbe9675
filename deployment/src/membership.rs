//! Who is in a collection: a pure function of bitmaps.
//!
//! It is asked for some clients, the scope: all of them when a definition changed, those that changed when
//! facts did. The answer for a scope is the part of the whole answer that lies in it, so both ways lead to the
//! same members.

use crate::collection::Collection;
use crate::name::CollectionName;
use compliance::fleet::Index;
use roaring::RoaringBitmap;
use std::collections::{BTreeMap, BTreeSet};

/// The members of `collection` in `scope`. `named` are the clients that it names, `of` says who is in the
/// collections that it needs.
pub fn members<'a>(
    collection: &Collection,
    named: &RoaringBitmap,
    scope: &RoaringBitmap,
    index: &Index,
    of: impl Fn(&CollectionName) -> Option<&'a RoaringBitmap>,
) -> RoaringBitmap {
    let mut limit = scope & index.fleet();
    if let Some(limited_to) = collection.limit.as_ref().filter(|name| !name.is_all()) {
        match of(limited_to) {
            Some(clients) => limit &= clients,
            None => limit.clear(),
        }
    }
    if collection.exclude.iter().any(CollectionName::is_all) {
        limit.clear();
    }
    for clients in collection.exclude.iter().filter_map(&of) {
        limit -= clients;
    }
    if collection.include.iter().any(CollectionName::is_all) {
        return limit;
    }
    let mut found = named & &limit;
    for clients in collection.include.iter().filter_map(&of) {
        found |= clients & &limit;
    }
    for rule in collection.rules.values() {
        // Who is in it already need not be looked at again.
        found |= rule.clients(index, &(&limit - &found));
    }
    found
}

/// An order in which each collection comes after those that it needs.
///
/// # Errors
/// The way from a collection back to itself.
pub fn order(
    collections: &BTreeMap<CollectionName, Collection>,
) -> Result<Vec<CollectionName>, Vec<CollectionName>> {
    let mut done: BTreeSet<&CollectionName> = BTreeSet::new();
    let mut order = Vec::with_capacity(collections.len());
    for start in collections.keys() {
        // A way through what is needed: each one with what of its needs was not looked at yet.
        let mut way: Vec<(&CollectionName, Vec<&CollectionName>)> = Vec::new();
        let mut next = Some(start);
        loop {
            if let Some(name) = next.take().filter(|name| !done.contains(name)) {
                if let Some(at) = way.iter().position(|(on, _)| *on == name) {
                    let back = way.iter().skip(at).map(|(on, _)| (*on).clone());
                    return Err(back.chain([name.clone()]).collect());
                }
                let needs = collections.get(name).into_iter().flat_map(Collection::needs);
                way.push((name, needs.collect()));
            }
            let Some((name, needs)) = way.last_mut() else { break };
            next = needs.pop();
            if next.is_none() {
                done.insert(name);
                if collections.contains_key(*name) {
                    order.push((*name).clone());
                }
                way.pop();
            }
        }
    }
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needing(all: &[(&str, &[&str])]) -> BTreeMap<CollectionName, Collection> {
        let name = |text: &str| text.parse::<CollectionName>().unwrap();
        let of = |needs: &[&str]| Collection {
            include: needs.iter().map(|it| name(it)).collect(),
            ..Collection::default()
        };
        all.iter().map(|(it, needs)| (name(it), of(needs))).collect()
    }

    #[test]
    fn each_comes_after_what_it_needs() {
        let all = needing(&[("a", &["c", "b"]), ("b", &["d"]), ("c", &["b", "all"]), ("d", &[])]);
        let order: Vec<_> = order(&all).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(order, ["d", "b", "c", "a"]);
    }

    #[test]
    fn a_way_back_is_told() {
        let all = needing(&[("a", &["b"]), ("b", &["c"]), ("c", &["d", "b"]), ("d", &[])]);
        let way: Vec<_> = order(&all).unwrap_err().iter().map(ToString::to_string).collect();
        assert_eq!(way, ["b", "c", "b"]);
        let own: Vec<_> = order(&needing(&[("x", &["x"])])).unwrap_err();
        assert_eq!(own.len(), 2);
    }
}
