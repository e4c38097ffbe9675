//! From which other points a point brings content before it asks the site: so a tree or a chain of
//! points carries a version that the site sends once.
//!
//! Always true: nobody brings from itself, by whatever way.

use super::points::Point;
use super::{PointName, Registry, RegistryError, State};
use crate::field::{PointId, Source};
use std::collections::HashSet;

/// The most sources of one point.
const MOST: usize = 16;

/// What the sources of `point` are told to it as: those that have said where they are.
pub(super) fn told(point: &Point, state: &State) -> Vec<Source> {
    let ranked = point.sources.iter().zip(0..);
    let all = ranked.flat_map(|(equals, rank)| equals.iter().map(move |id| (id, rank)));
    let source = |(id, rank): (&PointId, u32)| {
        let point = state.points.get(id)?;
        let (name, last) = (point.name.to_string(), !point.is_offered());
        // Points speak TLS to each other, whatever else is taken at the port.
        let address = &state.standings.get(id)?.address;
        let address = address.strip_prefix("https://").unwrap_or(address).to_owned();
        Some(Source { id: id.clone(), name, address, rank, last })
    };
    all.filter_map(source).collect()
}

/// The names of a point's sources, as they are ranked.
pub(super) fn names(point: &Point, state: &State) -> Vec<Vec<PointName>> {
    let name = |id: &PointId| state.points.get(id).map(|point| point.name.clone());
    point.sources.iter().map(|equals| equals.iter().filter_map(name).collect()).collect()
}

impl Registry {
    /// Has the point called or numbered `which` bring what it lacks from these points before it asks
    /// the site: from those of the first list by turns, and if they do not help, from those of the
    /// next. Nothing: from the site alone.
    pub fn set_sources(&self, which: &str, from: &[Vec<String>]) -> Result<Point, RegistryError> {
        self.set(which, |point| {
            point.sources = self.state.read().ranked(point, from)?;
            Ok(())
        })
    }

    /// The names of a point's sources, as they are ranked.
    pub fn sources_of(&self, point: &Point) -> Vec<Vec<PointName>> {
        names(point, &self.state.read())
    }
}

impl State {
    /// The points of `from`, if `point` may bring from them.
    fn ranked(
        &self,
        point: &Point,
        from: &[Vec<String>],
    ) -> Result<Vec<Vec<PointId>>, RegistryError> {
        if from.iter().map(Vec::len).sum::<usize>() > MOST {
            return Err(RegistryError::TooManySources(MOST));
        }
        let mut seen = HashSet::new();
        let mut ranked = Vec::new();
        for equals in from {
            let mut ids = Vec::new();
            for which in equals {
                let source = self.find(which)?;
                if let Some(way) = self.way(&source.id, &point.id) {
                    let names = way.iter().filter_map(|id| self.points.get(id));
                    let way = names.map(|point| point.name.to_string()).collect();
                    return Err(RegistryError::Circle { point: point.name.clone(), way });
                }
                if seen.insert(source.id.clone()) {
                    ids.push(source.id.clone());
                }
            }
            if !ids.is_empty() {
                ranked.push(ids);
            }
        }
        Ok(ranked)
    }

    /// The points on the way by which `from` brings from `to`, both included, if it does.
    fn way(&self, from: &PointId, to: &PointId) -> Option<Vec<PointId>> {
        let mut seen = HashSet::from([from.clone()]);
        let mut ways = vec![vec![from.clone()]];
        while let Some(way) = ways.pop() {
            let last = way.last().expect("no way is empty");
            if last == to {
                return Some(way);
            }
            let sources =
                self.points.get(last).into_iter().flat_map(|p| p.sources.iter().flatten());
            for next in sources.filter(|id| seen.insert((*id).clone())) {
                ways.push(way.iter().chain([next]).cloned().collect());
            }
        }
        None
    }

    /// Whether some point brings from `id`.
    pub(super) fn is_source(&self, id: &PointId) -> bool {
        self.points.values().any(|point| point.sources.iter().flatten().any(|source| source == id))
    }

    /// The points that brought from `id`, as they are without it.
    pub(super) fn without_source(&self, id: &PointId) -> Vec<Point> {
        let its = self.points.values().filter(|p| p.sources.iter().flatten().any(|s| s == id));
        let without = |point: &Point| {
            let mut point = point.clone();
            point.sources.iter_mut().for_each(|equals| equals.retain(|source| source != id));
            point.sources.retain(|equals| !equals.is_empty());
            point
        };
        its.map(without).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{joined, now, registry, report};
    use super::*;

    fn set(registry: &Registry, which: &str, from: &[&[&str]]) -> Result<Point, RegistryError> {
        let from: Vec<Vec<String>> =
            from.iter().map(|equals| equals.iter().map(|s| s.to_string()).collect()).collect();
        registry.set_sources(which, &from)
    }

    #[test]
    fn nobody_brings_from_itself_by_whatever_way() {
        let registry = registry();
        for name in ["a", "b", "c", "d"] {
            joined(&registry, name);
        }
        set(&registry, "b", &[&["a"]]).unwrap();
        set(&registry, "c", &[&["b", "a"], &["b"]]).unwrap();
        let refused = set(&registry, "a", &[&["d"], &["c"]]).unwrap_err().to_string();
        assert!(refused.starts_with("a cannot bring from c: c brings from "), "{refused}");
        let refused = set(&registry, "a", &[&["a"]]).unwrap_err().to_string();
        assert_eq!(refused, "a cannot bring from a: it is a itself");
        assert!(matches!(set(&registry, "a", &[&["x"]]), Err(RegistryError::UnknownPoint(_))));
        let too_many = vec!["d"; MOST + 1];
        assert!(matches!(set(&registry, "a", &[&too_many]), Err(RegistryError::TooManySources(_))));
        let c = registry.point("c").unwrap();
        let names: Vec<_> = registry.sources_of(&c).concat();
        assert_eq!(names.iter().map(PointName::as_str).collect::<Vec<_>>(), ["b", "a"]);
        set(&registry, "c", &[]).unwrap();
        set(&registry, "a", &[&["c"]]).unwrap();
    }

    #[test]
    fn a_source_is_told_once_it_says_where_it_is_and_until_it_is_removed() {
        let registry = registry();
        let (a, b) = (joined(&registry, "a"), joined(&registry, "b"));
        let told = || told(&registry.point("b").unwrap(), &registry.state.read());
        let changes = registry.changes();
        let seen = || *changes.borrow();
        set(&registry, "b", &[&["a"]]).unwrap();
        assert!(told().is_empty());
        let mut last = seen();
        for (address, shown) in [
            ("0.0.0.0:1", "192.0.2.7:1"),
            ("192.0.2.8:2", "192.0.2.8:2"),
            ("https://0.0.0.0:3", "192.0.2.7:3"),
        ] {
            let from = Some("192.0.2.7".parse().unwrap());
            let report =
                || crate::field::Report { address: address.into(), ..report(&a.id, vec![]) };
            registry.report(&a.id, report(), from, now()).unwrap();
            assert!(seen() > last, "who waits is told");
            last = seen();
            registry.report(&a.id, report(), from, now()).unwrap();
            assert_eq!(seen(), last, "nothing is new");
            let (id, name, address) = (a.id.clone(), "a".into(), shown.into());
            let want = Source { id, name, address, rank: 0, last: false };
            assert_eq!(told(), [want]);
        }
        registry.drain("a", "admin", now()).unwrap();
        assert!(seen() > last && told()[0].last, "after the site");
        registry.resume("a").unwrap();
        last = seen();
        registry.report(&b.id, report(&b.id, vec![]), None, now()).unwrap();
        assert_eq!(seen(), last, "nobody brings from it");
        registry.remove_point("a").unwrap();
        assert!(told().is_empty() && registry.point("b").unwrap().sources.is_empty());
    }
}
