//! Which revisions a downstream's filter means.

use super::messages::{Identity, RevisionFilter};
use super::server::Shelved;
use crate::name::UpdateId;
use std::collections::{BTreeMap, BTreeSet};

/// How deep bundles are followed.
const BUNDLE_DEPTH: usize = 8;

/// Which revisions `filter` means, of those that changed after a place.
///
/// An update qualifies that is for one of the categories and of one of the classifications; if one list is
/// given and the other one is not, or is empty, none does; if neither is given, all do. What a qualifying
/// update is a bundle of comes with it. (\[MS-WSUSSS\], section 3.1.4.6.)
pub(super) fn qualifying(all: &[Shelved], filter: &RevisionFilter, after: u64) -> Vec<Identity> {
    if filter.config {
        let new = all.iter().filter(|it| it.is_config && it.seq > after);
        return new.map(|it| it.identity).collect();
    }
    let wanted = |list: &Option<Vec<(UpdateId, bool)>>| -> BTreeMap<UpdateId, bool> {
        list.iter().flatten().copied().collect()
    };
    let (categories, classifications) =
        (wanted(&filter.categories), wanted(&filter.classifications));
    let is_everything = filter.categories.is_none() && filter.classifications.is_none();
    let by_id: BTreeMap<UpdateId, &Shelved> = all.iter().map(|it| (it.identity.id, it)).collect();
    let mut found: BTreeSet<Identity> = BTreeSet::new();
    for update in all.iter().filter(|it| !it.is_config) {
        // Whether all revisions are wanted, whenever they came: that of a list that is asked for anew.
        let is_whole = if is_everything {
            false
        } else {
            let of = |list: &BTreeMap<UpdateId, bool>, ids: &mut dyn Iterator<Item = UpdateId>| {
                let hits: Vec<bool> = ids.filter_map(|id| list.get(&id).copied()).collect();
                (!hits.is_empty()).then(|| hits.contains(&false))
            };
            let category = of(&categories, &mut update.categories.iter().copied());
            let classification = of(&classifications, &mut update.classification.into_iter());
            match (category, classification) {
                (Some(category), Some(classification)) => category || classification,
                _ => continue,
            }
        };
        let mut waiting = vec![(update, 0)];
        while let Some((one, depth)) = waiting.pop() {
            let is_new = is_whole || one.seq > after || update.seq > after;
            if !is_new || (depth > 0 && found.contains(&one.identity)) {
                continue;
            }
            found.insert(one.identity);
            if depth < BUNDLE_DEPTH {
                let parts = one.bundles.iter().filter_map(|id| by_id.get(id));
                waiting.extend(parts.map(|part| (*part, depth + 1)));
            }
        }
    }
    found.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> UpdateId {
        UpdateId::named(&[name])
    }

    fn shelved(name: &str, seq: u64, category: &str, bundles: &[&str]) -> Shelved {
        Shelved {
            identity: Identity { id: id(name), revision: 1 },
            seq,
            is_config: false,
            categories: if category.is_empty() { [].into() } else { [id(category)].into() },
            classification: (!category.is_empty()).then(|| id("security")),
            bundles: bundles.iter().map(|name| id(name)).collect(),
        }
    }

    fn names(all: &[Shelved], filter: &RevisionFilter, after: u64) -> BTreeSet<UpdateId> {
        qualifying(all, filter, after).into_iter().map(|it| it.id).collect()
    }

    fn ids(names: &[&str]) -> BTreeSet<UpdateId> {
        names.iter().map(|name| id(name)).collect()
    }

    #[test]
    fn both_lists_must_name_an_update_and_its_parts_come_with_it() {
        let all = [
            shelved("a", 1, "win10", &["a1"]),
            shelved("a1", 2, "", &["a"]),
            shelved("b", 3, "win11", &[]),
        ];
        let only =
            |names: &[&str], delta| Some(names.iter().map(|name| (id(name), delta)).collect());
        let mut filter = RevisionFilter {
            categories: only(&["win10"], false),
            classifications: only(&["security"], false),
            ..RevisionFilter::default()
        };
        assert_eq!(names(&all, &filter, 0), ids(&["a", "a1"]));
        assert_eq!(names(&all, &filter, 9), ids(&["a", "a1"]), "whole, whatever the anchor");
        filter.categories = only(&["win10", "win11"], true);
        filter.classifications = only(&["security"], true);
        assert_eq!(names(&all, &filter, 2), ids(&["b"]));
        filter.classifications = None;
        assert!(names(&all, &filter, 0).is_empty(), "one list alone means nothing");
        filter.categories = None;
        assert_eq!(names(&all, &filter, 0).len(), 3);
    }
}
