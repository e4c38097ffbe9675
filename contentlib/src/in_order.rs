//! Many things worked on at once, and what came of them taken one after the other.

use std::sync::mpsc::sync_channel;

/// Does `work` on `items`, on up to `at_once` of them at a time, and hands what came of each to
/// `take`, on this thread and in the order of `items`. An error of `take` ends it.
///
/// Of what is done and not yet taken, at most two for each of `at_once` are held.
pub(crate) fn in_order<T: Sync, R: Send, E>(
    items: &[T],
    at_once: usize,
    work: impl Fn(&T) -> R + Sync,
    mut take: impl FnMut(&T, R) -> Result<(), E>,
) -> Result<(), E> {
    let at_once = at_once.min(items.len());
    if at_once <= 1 {
        return items.iter().try_for_each(|item| take(item, work(item)));
    }
    std::thread::scope(|scope| {
        // Every lane has each `at_once`th item, so the lanes are taken from in turn.
        let lane = |first| {
            let (done, taken) = sync_channel(1);
            let work = &work;
            scope.spawn(move || {
                for item in items.iter().skip(first).step_by(at_once) {
                    if done.send(work(item)).is_err() {
                        return;
                    }
                }
            });
            taken
        };
        let lanes: Vec<_> = (0..at_once).map(lane).collect();
        for (item, lane) in items.iter().zip(lanes.iter().cycle()) {
            // A lane ends early only by a panic, which goes on when the scope ends.
            let Ok(done) = lane.recv() else { break };
            take(item, done)?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    #[test]
    fn all_is_taken_in_order_and_an_error_ends_it() {
        for at_once in [1, 2, 7, 100] {
            let items: Vec<usize> = (0..50).collect();
            let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let work = |item: &usize| {
                most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
                if item.is_multiple_of(3) {
                    std::thread::yield_now();
                }
                now.fetch_sub(1, SeqCst);
                item * 2
            };
            let mut taken = Vec::new();
            let all = in_order(&items, at_once, work, |item, done| {
                assert_eq!(done, item * 2);
                taken.push(*item);
                Ok::<(), ()>(())
            });
            assert_eq!((all, taken), (Ok(()), items.clone()));
            assert!(most.into_inner() <= at_once);
            let stopped = in_order(
                &items,
                at_once,
                |item| *item,
                |_, done| match done {
                    20 => Err(done),
                    _ => Ok(()),
                },
            );
            assert_eq!(stopped, Err(20));
        }
    }
}
