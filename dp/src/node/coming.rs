//! What is on its way here, for points that bring from this one: they wait for it, so that the site
//! sends it once.

use super::plan::Key;
use crate::coming::Coming;
use crate::field::Wish;
use contentlib::Progress;
use packager::PackageName;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Versions that are wished, and how far those are that are on their way.
#[derive(Default)]
pub(super) struct OnTheWay {
    wish: Mutex<Option<Arc<Wish>>>,
    now: Mutex<HashMap<Key, Arc<Progress>>>,
}

/// A version is on its way until this is dropped.
pub(super) struct Begun {
    on_the_way: Arc<OnTheWay>,
    key: Key,
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.on_the_way.now.lock().remove(&self.key);
    }
}

impl OnTheWay {
    /// This is wished from now on.
    pub fn wishes(&self, wish: &Arc<Wish>) {
        *self.wish.lock() = Some(wish.clone());
    }

    /// A version is on its way from now on.
    pub fn begins(self: &Arc<Self>, key: &Key, progress: &Arc<Progress>) -> Begun {
        self.now.lock().insert(key.clone(), progress.clone());
        Begun { on_the_way: self.clone(), key: key.clone() }
    }

    /// How far a version is; nothing if it is not to come here.
    pub fn of(&self, package: &PackageName, version: u64) -> Option<Coming> {
        if let Some(progress) = self.now.lock().get(&(package.clone(), version)) {
            return Some(Coming { held: progress.bytes.load(Relaxed) });
        }
        let wish = self.wish.lock();
        let wished = wish.as_ref()?.versions.iter().map(|wanted| &wanted.version);
        let mut its = wished.filter(|it| it.package == *package && it.version == version);
        its.next().map(|_| Coming { held: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::Priority;
    use crate::node::plan::tests::wish;

    #[test]
    fn what_is_wished_is_coming_and_what_was_begun_says_how_far_it_is() {
        let on_the_way = Arc::new(OnTheWay::default());
        let (a, b) = ("a".parse().unwrap(), "b".parse().unwrap());
        assert_eq!(on_the_way.of(&a, 2), None);
        on_the_way.wishes(&Arc::new(wish(&[("a", 2, Priority::Low)])));
        assert_eq!(on_the_way.of(&a, 2), Some(Coming { held: 0 }));
        assert_eq!((on_the_way.of(&a, 3), on_the_way.of(&b, 2)), (None, None));
        let progress = Arc::<Progress>::default();
        progress.bytes.store(70, Relaxed);
        let begun = on_the_way.begins(&(a.clone(), 2), &progress);
        assert_eq!(on_the_way.of(&a, 2), Some(Coming { held: 70 }));
        drop(begun);
        assert_eq!(on_the_way.of(&a, 2), Some(Coming { held: 0 }));
    }
}
