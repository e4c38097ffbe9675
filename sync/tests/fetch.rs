//! Bringing files: what comes is whole or nothing, goes on where it stopped, and waits for no one for ever.

#![allow(clippy::unwrap_used)]

mod web;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use sync::adapter::Watch;
use sync::digests::{Algorithm, Digests, Hasher};
use sync::error::{Cause, SyncError};
use sync::fetch::{Came, Fetcher, Patience, Validators, Wanted};
use url::Url;
use web::{Answer, Web};

struct Place {
    served: tempfile::TempDir,
    folder: tempfile::TempDir,
    web: Web,
    fetcher: Fetcher,
    watch: Arc<Watch>,
}

const MANY: u64 = 1 << 30;

impl Place {
    fn new() -> Self {
        let served = tempfile::tempdir().unwrap();
        let web = Web::of(served.path());
        let patience =
            Patience { connect: Duration::from_secs(5), stall: Duration::from_millis(400) };
        Self {
            web,
            served,
            folder: tempfile::tempdir().unwrap(),
            fetcher: Fetcher::new(patience).unwrap(),
            watch: Arc::default(),
        }
    }

    fn serve(&self, bytes: &[u8]) -> Digests {
        std::fs::write(self.served.path().join("file"), bytes).unwrap();
        let mut hasher = Hasher::new([Algorithm::Sha256]);
        hasher.update(bytes);
        hasher.finish().1
    }

    fn to(&self) -> PathBuf {
        self.folder.path().join("it")
    }

    fn part(&self) -> PathBuf {
        self.folder.path().join("it.part")
    }

    async fn bring(&self, size: Option<u64>, digests: &Digests) -> Result<Came, SyncError> {
        self.bring_since(&self.web.url("file"), MANY, size, digests, None).await
    }

    async fn bring_since(
        &self,
        url: &str,
        most: u64,
        size: Option<u64>,
        digests: &Digests,
        since: Option<&Validators>,
    ) -> Result<Came, SyncError> {
        let url = Url::parse(url).unwrap();
        let to = self.to();
        let wanted = Wanted { url: &url, to: &to, most, size, digests, since };
        self.fetcher.file(wanted, &self.watch).await
    }
}

fn bytes(n: usize) -> Vec<u8> {
    (0..n).map(|at| (at / 7 + at) as u8).collect()
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

#[tokio::test]
async fn a_cut_file_is_gone_on_with_and_then_held() {
    let place = Place::new();
    let whole = bytes(1_000_000);
    let digests = place.serve(&whole);
    place.web.on(|asked| asked.range.is_none().then_some(Answer::Cut(600_000)));
    let error = place.bring(Some(1_000_000), &digests).await.unwrap_err();
    assert_eq!(error.cause, Cause::Unreachable);
    assert!(!place.to().exists());
    let there = read(&place.part()).len();
    assert!(there > 0);

    let came = place.bring(Some(1_000_000), &digests).await.unwrap();
    assert!(matches!(came, Came::File { size: 1_000_000, .. }), "{came:?}");
    assert_eq!(place.web.asked()[1].range, Some(format!("bytes={there}-")));
    assert_eq!(read(&place.to()), whole);
    assert!(!place.part().exists());

    assert_eq!(place.bring(Some(1_000_000), &digests).await.unwrap(), Came::Held);
    assert_eq!(place.web.asked(), []);
}

#[tokio::test]
async fn without_a_digest_nothing_is_gone_on_with() {
    let place = Place::new();
    place.serve(b"new bytes");
    std::fs::write(place.part(), "old").unwrap();
    place.bring(None, &Digests::default()).await.unwrap();
    assert_eq!(place.web.asked()[0].range, None);
    assert_eq!(read(&place.to()), b"new bytes");
}

#[tokio::test]
async fn a_part_of_another_file_is_dropped() {
    let place = Place::new();
    let digests = place.serve(&bytes(1_000));
    std::fs::write(place.part(), vec![7; 500]).unwrap();
    let error = place.bring(Some(1_000), &digests).await.unwrap_err();
    assert_eq!(error.cause, Cause::Mismatch);
    place.bring(Some(1_000), &digests).await.unwrap();
    assert_eq!(read(&place.to()), bytes(1_000));
}

#[tokio::test]
async fn what_is_as_before_is_not_brought() {
    let place = Place::new();
    place.serve(b"one");
    let url = place.web.url("file");
    let nothing = Digests::default();
    let Came::File { validators, .. } = place.bring(None, &nothing).await.unwrap() else {
        panic!("nothing came");
    };
    let again = place.bring_since(&url, MANY, None, &nothing, Some(&validators)).await.unwrap();
    assert_eq!(again, Came::NotModified);
    place.serve(b"two");
    let again = place.bring_since(&url, MANY, None, &nothing, Some(&validators)).await.unwrap();
    assert!(matches!(again, Came::File { .. }));
    assert_eq!(read(&place.to()), b"two");
    // A server that says so unasked says nothing.
    place.web.on(|_| Some(Answer::Status(304, "")));
    assert_eq!(place.bring(None, &nothing).await.unwrap_err().cause, Cause::Refused);
}

#[tokio::test]
async fn a_wait_ends_when_nothing_moves() {
    let place = Place::new();
    let digests = place.serve(&bytes(100_000));
    place.web.on(|_| Some(Answer::Stall(50_000)));
    let error = place.bring(Some(100_000), &digests).await.unwrap_err();
    assert_eq!(error.cause, Cause::Stalled, "{error}");
    place.web.off();
    place.bring(Some(100_000), &digests).await.unwrap();
    assert!(place.web.asked()[1].range.is_some());
}

#[tokio::test]
async fn who_cancels_is_obeyed() {
    let place = Place::new();
    place.serve(&bytes(100_000));
    place.web.on(|_| Some(Answer::Stall(5)));
    let watch = place.watch.clone();
    let cancel = async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        watch.stop.cancel();
    };
    let nothing = Digests::default();
    let (outcome, ()) = tokio::join!(place.bring(None, &nothing), cancel);
    assert_eq!(outcome.unwrap_err().cause, Cause::Cancelled);
}

#[tokio::test]
async fn no_more_is_taken_than_was_said() {
    let place = Place::new();
    let digests = place.serve(&bytes(10_000));
    let nothing = Digests::default();
    let url = place.web.url("file");
    let error = place.bring_since(&url, 9_999, None, &nothing, None).await.unwrap_err();
    assert_eq!(error.cause, Cause::TooLarge);
    let error = place.bring_since(&url, 9_999, Some(10_000), &digests, None).await.unwrap_err();
    assert_eq!((error.cause, place.web.asked().len()), (Cause::TooLarge, 1));
    assert!(!place.part().exists() && !place.to().exists());
    let url = Url::parse(&url).unwrap();
    let error = place.fetcher.bytes(&url, 9_999, &place.watch).await.unwrap_err();
    assert_eq!(error.cause, Cause::TooLarge);
    assert_eq!(place.fetcher.bytes(&url, 10_000, &place.watch).await.unwrap().len(), 10_000);
}

#[tokio::test]
async fn other_bytes_than_were_stated_are_a_mismatch_and_leave_nothing() {
    let place = Place::new();
    let digests = place.serve(&bytes(1_000));
    for wrong in [bytes(999), bytes(1_001), vec![0; 1_000]] {
        place.web.on(move |_| Some(Answer::Bytes(wrong.clone())));
        let error = place.bring(Some(1_000), &digests).await.unwrap_err();
        assert_eq!(error.cause, Cause::Mismatch, "{error}");
        assert!(!place.to().exists() && !place.part().exists());
    }
    // What lies at its place and is another is brought anew.
    std::fs::write(place.to(), vec![1; 1_000]).unwrap();
    place.web.off();
    place.bring(Some(1_000), &digests).await.unwrap();
    assert_eq!(read(&place.to()), bytes(1_000));
}

#[tokio::test]
async fn each_refusal_has_its_cause() {
    let place = Place::new();
    let nothing = Digests::default();
    for (status, cause) in [
        (404, Cause::NotFound),
        (410, Cause::NotFound),
        (401, Cause::Refused),
        (403, Cause::Refused),
        (429, Cause::Busy),
        (503, Cause::Busy),
    ] {
        place.web.on(move |_| Some(Answer::Status(status, "the disk is full")));
        let error = place.bring(None, &nothing).await.unwrap_err();
        assert_eq!(error.cause, cause, "{status}");
        assert!(error.detail.contains("the disk is full"), "{error}");
    }
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let nobody = format!("http://127.0.0.1:{port}/x");
    let error = place.bring_since(&nobody, MANY, None, &nothing, None).await.unwrap_err();
    assert_eq!(error.cause, Cause::Unreachable);
    let error = place.bring_since("ftp://x/y", MANY, None, &nothing, None).await.unwrap_err();
    assert_eq!(error.cause, Cause::Misconfigured);
}

#[tokio::test]
async fn redirects_are_followed_a_few_times() {
    let place = Place::new();
    place.serve(b"bytes");
    let nothing = Digests::default();
    let (target, loops) = (place.web.url("file"), place.web.url("loop"));
    place.web.on(move |asked| match asked.path.as_str() {
        "moved" => Some(Answer::To(target.clone())),
        "loop" => Some(Answer::To(loops.clone())),
        _ => None,
    });
    let moved = place.web.url("moved");
    place.bring_since(&moved, MANY, None, &nothing, None).await.unwrap();
    let round = place.web.url("loop");
    let error = place.bring_since(&round, MANY, None, &nothing, None).await.unwrap_err();
    assert_eq!(error.cause, Cause::Refused);
}

#[tokio::test]
async fn a_folder_is_read_as_a_server_is() {
    let place = Place::new();
    let digests = place.serve(b"bytes");
    let url = Url::from_file_path(place.served.path().join("file")).unwrap();
    let Came::File { validators, size: 5 } =
        place.bring_since(url.as_str(), MANY, None, &Digests::default(), None).await.unwrap()
    else {
        panic!("nothing came");
    };
    let nothing = Digests::default();
    let again = place.bring_since(url.as_str(), MANY, None, &nothing, Some(&validators)).await;
    assert_eq!(again.unwrap(), Came::NotModified);
    std::fs::write(place.served.path().join("file"), "other").unwrap();
    std::fs::remove_file(place.to()).unwrap();
    let error = place.bring_since(url.as_str(), MANY, Some(5), &digests, None).await.unwrap_err();
    assert_eq!(error.cause, Cause::Mismatch);
    let none = Url::from_file_path(place.served.path().join("none")).unwrap();
    let error = place.bring_since(none.as_str(), MANY, None, &nothing, None).await.unwrap_err();
    assert_eq!(error.cause, Cause::NotFound);
}
