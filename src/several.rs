//! A command on several things: one that fails keeps no other from being done.
//!
//! What was done is shown all the same, so that nobody has to guess it from an error, and the same
//! command again does what is left.

use crate::exit::{Exit, Failure};

/// Does `work` with each of `things`, one after the other. What came of those that went well, and
/// one failure for all that did not.
///
/// A failure that is not about the thing itself, of a connection say, ends it: it would be the same
/// for all others.
pub async fn each<T, R>(
    things: impl IntoIterator<Item = T>,
    mut work: impl AsyncFnMut(T) -> Result<R, Failure>,
) -> (Vec<R>, Result<(), Failure>) {
    let mut done = Vec::new();
    let mut failed: Option<Failure> = None;
    for thing in things {
        match work(thing).await {
            Ok(result) => done.push(result),
            Err(failure) => {
                let is_about_it =
                    matches!(failure.exit, Exit::NotFound | Exit::Conflict | Exit::Usage);
                failed = Some(match failed {
                    None => failure,
                    Some(first) => {
                        let message = format!("{}; {}", first.message, failure.message);
                        Failure { message, ..first }
                    }
                });
                if !is_about_it {
                    break;
                }
            }
        }
    }
    (done, failed.map_or(Ok(()), Err))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_that_fails_keeps_no_other_from_being_done() {
        let work = async |n: i32| match n {
            2 => Err(Failure::new(Exit::NotFound, "there is no 2")),
            4 => Err(Failure::new(Exit::Conflict, "4 is taken")),
            9 => Err(Failure::failed("the line is cut")),
            n => Ok(n * 10),
        };
        let (done, failed) = each([1, 2, 3, 4, 5], work).await;
        let failed = failed.expect_err("two failed");
        assert_eq!(done, [10, 30, 50]);
        assert_eq!(failed.message, "there is no 2; 4 is taken");
        assert_eq!(failed.exit, Exit::NotFound);
        let (done, failed) = each([1, 9, 3], work).await;
        assert_eq!((done, failed.is_err()), (vec![10], true), "it would fail for all");
        assert!(each([1], work).await.1.is_ok());
    }
}
