//! The protocol between servers of updates, over a real connection: a catalogue is an upstream for another
//! catalogue, and what was recorded of a real server is understood.
#![allow(clippy::unwrap_used)]

use jiff::Timestamp;
use std::collections::{BTreeSet, HashMap};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use sync::adapter::{Adapter, Criteria, Extent, Fetched, Run, Said};
use sync::catalogue::Catalogue;
use sync::error::Cause;
use sync::fetch::{Fetcher, Patience};
use sync::name::UpdateId;
use sync::wsus::document::{self, Document};
use sync::wsus::server::{Role, Service};
use sync::wsus::shelf::CatalogueShelf;
use sync::wsus::source::{Settings, WsusSource};

/// A server of a catalogue, which breaks where a test wants it to.
struct Upstream {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    role: Role,
    shelf: CatalogueShelf,
    /// The calls that came, by name.
    calls: Mutex<Vec<String>>,
    /// After so many calls, connections end without an answer.
    left: AtomicUsize,
    is_over: AtomicBool,
}

impl Upstream {
    fn of(catalogue: &Catalogue) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let content = format!("http://{address}/Content/").parse().unwrap();
        let shared = Arc::new(Shared {
            role: Role::new(&[7; 32]),
            shelf: CatalogueShelf::new(catalogue.clone(), Some(content)),
            calls: Mutex::default(),
            left: AtomicUsize::new(usize::MAX),
            is_over: AtomicBool::new(false),
        });
        let held = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if held.is_over.load(Relaxed) {
                    return;
                }
                let shared = held.clone();
                std::thread::spawn(move || drop(serve(&shared, stream.unwrap())));
            }
        });
        Self { address, shared }
    }

    fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.calls.lock().unwrap())
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Relaxed);
        drop(TcpStream::connect(self.address));
    }
}

fn serve(shared: &Shared, stream: TcpStream) -> std::io::Result<()> {
    let mut from = BufReader::new(stream.try_clone()?);
    let mut to = stream;
    loop {
        let mut line = String::new();
        if from.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let (mut length, mut action) = (0, String::new());
        loop {
            let mut line = String::new();
            from.read_line(&mut line)?;
            let Some((name, value)) = line.trim().split_once(':') else { break };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.trim().parse().unwrap(),
                "soapaction" => action = value.trim().trim_matches('"').to_owned(),
                _ => {}
            }
        }
        let mut body = vec![0; length];
        from.read_exact(&mut body)?;
        let call = action.rsplit('/').next().unwrap_or_default().to_owned();
        shared.calls.lock().unwrap().push(call);
        if shared.left.load(Relaxed) == 0 {
            return Ok(());
        }
        shared.left.fetch_sub(1, Relaxed);
        let service = Service::at(&path).unwrap();
        let answer = shared.role.answer(service, &body, &shared.shelf, Timestamp::now());
        let status = if answer.is_fault { "500 Internal Server Error" } else { "200 OK" };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/xml\r\nContent-Length: {}\r\n\r\n",
            answer.body.len()
        );
        to.write_all(head.as_bytes())?;
        to.write_all(answer.body.as_bytes())?;
    }
}

fn catalogue() -> Catalogue {
    Catalogue::open(sitedb::Db::in_memory()).unwrap()
}

/// What real servers and catalogues said: a WSUS document, and third-party packages.
fn samples() -> Vec<Said> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let mut said = Vec::new();
    let text = std::fs::read_to_string(data.join("wsus/update-266f6222.xml")).unwrap();
    let urls = HashMap::from([(
        "h/W9BGlYUAaqXTp30cZi/SiV3c0=".to_owned(),
        vec!["http://vendor.invalid/a.exe".to_owned()],
    )]);
    match document::read(&text, &urls).unwrap() {
        Document::Update(mut update) => {
            document::place(&mut update, &Default::default());
            let product = "8c3fcc84-7410-4a95-8b89-a166a0190486".to_owned();
            update.products.insert(product.clone());
            // It is a part of a bundle, which would name its classification.
            update.classification = Some(sync::taxonomy::Classification::Definition);
            let (name, family) = ("Microsoft Defender Antivirus".into(), "Windows".into());
            said.push(Said::Product(sync::taxonomy::Product { id: product, name, family }));
            said.push(Said::Update(update));
        }
        Document::Category { .. } => panic!("it is an update"),
    }
    for name in std::fs::read_dir(data.join("sdp/hp")).unwrap() {
        let text = std::fs::read(name.unwrap().path()).unwrap();
        let text = String::from_utf8(text).unwrap();
        let root = sync::xml::parse(text.trim_start_matches('\u{feff}')).unwrap();
        let package = sync::sdp::package::read(&root).unwrap();
        said.extend(package.product.map(Said::Product));
        said.push(Said::Update(Box::new(package.update)));
    }
    said
}

fn fill(catalogue: &Catalogue, run: u64, said: Vec<Said>, extent: Extent) {
    let name = "samples".parse().unwrap();
    let mut intake = catalogue.intake(&name, run, Arc::default(), Timestamp::now()).unwrap();
    for said in said {
        intake.take(said).unwrap();
    }
    intake.settle(extent).unwrap();
    intake.commit(serde_json::Value::Null).unwrap();
}

fn run(folder: &Path, criteria: Criteria) -> Run {
    let patience = Patience::default();
    Run {
        fetcher: Fetcher::new(patience).unwrap(),
        folder: folder.to_owned(),
        now: Timestamp::now(),
        criteria: Arc::new(criteria),
        watch: Arc::default(),
    }
}

type State = Option<serde_json::Value>;

/// One sync of `url` into `to`; what was new.
fn sync(
    url: &str,
    folder: &Path,
    state: &mut State,
    to: &Catalogue,
    n: u64,
) -> Result<Fetched, Cause> {
    sync_with(url, folder, state, to, n, Criteria::default())
}

fn sync_with(
    url: &str,
    folder: &Path,
    state: &mut State,
    to: &Catalogue,
    n: u64,
    criteria: Criteria,
) -> Result<Fetched, Cause> {
    let source = WsusSource::new(&Settings::new(url)).unwrap();
    let run = run(folder, criteria);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let fetched =
        runtime.block_on(source.fetch(&run, state.as_ref())).map_err(|error| error.cause)?;
    if fetched == Fetched::Changed {
        let name = "upstream".parse().unwrap();
        let mut intake = to.intake(&name, n, run.criteria.clone(), run.now).unwrap();
        let read = source.read(&run, state.as_ref(), &mut |said| intake.take(said)).unwrap();
        assert_eq!(read.skipped.count, 0, "{:?}", read.skipped);
        intake.settle(read.extent).unwrap();
        intake.commit(read.state.clone()).unwrap();
        *state = Some(read.state);
    }
    Ok(fetched)
}

fn ids(catalogue: &Catalogue) -> BTreeSet<UpdateId> {
    let mut place = Default::default();
    let mut found = BTreeSet::new();
    loop {
        let page = catalogue.changes(place, 1000).unwrap();
        found.extend(page.entries.iter().filter(|entry| entry.update.is_some()).map(|it| it.id));
        place = page.next;
        if page.is_last {
            return found;
        }
    }
}

#[test]
fn a_catalogue_comes_to_a_downstream_whole_and_then_only_what_changed() {
    let (top, below) = (catalogue(), catalogue());
    let said = samples();
    let n_updates = said.iter().filter(|it| matches!(it, Said::Update(_))).count();
    fill(&top, 1, said, Extent::Whole);
    let upstream = Upstream::of(&top);
    let (folder, mut state) = (tempfile::tempdir().unwrap(), None);
    sync(&upstream.url(), folder.path(), &mut state, &below, 1).unwrap();
    let (have, want) = (ids(&below), ids(&top));
    assert!(want.is_subset(&have), "missing {:?}", want.difference(&have).collect::<Vec<_>>());
    assert!(n_updates > 20);
    let defender: UpdateId = "266f6222-c89d-43f2-9f8a-69340271e677".parse().unwrap();
    let entry = below.entry(defender).unwrap().unwrap();
    assert_eq!(entry.revision, 200);
    let urls = &entry.update.files().next().unwrap().urls;
    assert!(urls.iter().any(|url| url.contains("/Content/") && url.contains("87F5BD")), "{urls:?}");
    assert!(urls.contains(&"http://vendor.invalid/a.exe".to_owned()), "{urls:?}");
    upstream.calls();

    let again = sync(&upstream.url(), folder.path(), &mut state, &below, 2);
    assert_eq!(again, Ok(Fetched::Unchanged));
    assert!(!upstream.calls().contains(&"GetUpdateData".to_owned()));

    let mut changed = samples().into_iter().find(|it| matches!(it, Said::Update(_))).unwrap();
    if let Said::Update(update) = &mut changed {
        update.original = None;
        update.name = "changed".into();
        update.revision = Some(201);
        update.texts.values_mut().for_each(|text| text.title = "Another title".into());
    }
    fill(&top, 2, vec![changed], Extent::Changes);
    assert_eq!(sync(&upstream.url(), folder.path(), &mut state, &below, 3), Ok(Fetched::Changed));
    let calls = upstream.calls();
    assert_eq!(calls.iter().filter(|it| *it == "GetUpdateData").count(), 1, "{calls:?}");
    let entry = below.entry(defender).unwrap().unwrap();
    assert_eq!(entry.update.text(&[]).unwrap().title, "Another title");
}

#[test]
fn what_is_expired_above_comes_as_expired() {
    let (top, below) = (catalogue(), catalogue());
    let defender: UpdateId = "266f6222-c89d-43f2-9f8a-69340271e677".parse().unwrap();
    fill(&top, 1, samples(), Extent::Whole);
    let upstream = Upstream::of(&top);
    let (folder, mut state) = (tempfile::tempdir().unwrap(), None);
    sync(&upstream.url(), folder.path(), &mut state, &below, 1).unwrap();
    let entry = below.entry(defender).unwrap().unwrap();
    assert!(entry.expired.is_none());
    let before = entry.update;

    // Its document stays what it is, but for that.
    fill(&top, 2, vec![Said::Gone(defender)], Extent::Changes);
    assert_eq!(sync(&upstream.url(), folder.path(), &mut state, &below, 2), Ok(Fetched::Changed));
    let entry = below.entry(defender).unwrap().unwrap();
    assert_eq!(entry.expired.map(|it| it.why), Some(sync::lifecycle::Why::Upstream));
    assert_eq!(entry.revision, 200);
    let mut after = entry.update;
    assert!(after.original.take().unwrap().contains("PublicationState=\"Expired\""));
    after.publication = before.publication;
    assert_eq!(after, sync::update::Update { original: None, ..before });
}

#[test]
fn a_product_that_nobody_described_can_be_chosen() {
    let (top, below) = (catalogue(), catalogue());
    let mut said = samples();
    said.retain(|it| !matches!(it, Said::Product(_)));
    fill(&top, 1, said, Extent::Whole);
    let upstream = Upstream::of(&top);
    let (folder, mut state) = (tempfile::tempdir().unwrap(), None);
    let product = "hp-business-clients.firmware";
    let criteria = Criteria { products: [product.to_owned()].into(), ..Criteria::default() };
    sync_with(&upstream.url(), folder.path(), &mut state, &below, 1, criteria).unwrap();
    let software = |catalogue: &Catalogue| -> BTreeSet<UpdateId> {
        let all = ids(catalogue).into_iter().map(|id| catalogue.entry(id).unwrap().unwrap().update);
        all.filter(|it| it.kind == sync::update::Kind::Software).map(|it| it.id).collect()
    };
    let is_for_it =
        |id: &UpdateId| top.entry(*id).unwrap().unwrap().update.products.contains(product);
    let wanted: BTreeSet<UpdateId> = software(&top).into_iter().filter(is_for_it).collect();
    assert!(wanted.len() > 1 && wanted.len() < software(&top).len());
    assert_eq!(software(&below), wanted);
}

#[test]
fn a_sync_that_is_cut_off_anywhere_goes_on_where_it_was() {
    let top = catalogue();
    fill(&top, 1, samples(), Extent::Whole);
    let whole = {
        let upstream = Upstream::of(&top);
        let (below, folder, mut state) = (catalogue(), tempfile::tempdir().unwrap(), None);
        sync(&upstream.url(), folder.path(), &mut state, &below, 1).unwrap();
        (ids(&below), upstream.calls().len())
    };
    for left in 0..whole.1 {
        let upstream = Upstream::of(&top);
        upstream.shared.left.store(left, Relaxed);
        let (below, folder, mut state) = (catalogue(), tempfile::tempdir().unwrap(), None);
        let cut = sync(&upstream.url(), folder.path(), &mut state, &below, 1);
        assert_eq!(cut, Err(Cause::Unreachable), "after {left} calls");
        assert!(ids(&below).is_empty() && state.is_none());
        upstream.shared.left.store(usize::MAX, Relaxed);
        sync(&upstream.url(), folder.path(), &mut state, &below, 2).unwrap();
        assert_eq!(ids(&below), whole.0, "after {left} calls");
    }
}

#[test]
fn only_what_the_criteria_name_is_asked_for() {
    let (top, below) = (catalogue(), catalogue());
    fill(&top, 1, samples(), Extent::Whole);
    let upstream = Upstream::of(&top);
    let (folder, mut state) = (tempfile::tempdir().unwrap(), None);
    let criteria = Criteria {
        classifications: [sync::taxonomy::Classification::Definition].into(),
        ..Criteria::default()
    };
    sync_with(&upstream.url(), folder.path(), &mut state, &below, 1, criteria).unwrap();
    let found = ids(&below);
    let defender: UpdateId = "266f6222-c89d-43f2-9f8a-69340271e677".parse().unwrap();
    let updates = found.iter().filter(|id| {
        let kind = below.entry(**id).unwrap().unwrap().update.kind;
        kind == sync::update::Kind::Software
    });
    let updates: Vec<_> = updates.collect();
    assert!(updates.is_empty() || updates == [&defender], "{updates:?}");
}

#[test]
fn what_is_no_server_of_updates_is_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().take(1) {
            let mut stream = stream.unwrap();
            let mut byte = [0; 1];
            let _ = stream.read(&mut byte);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
        }
    });
    let (below, folder, mut state) = (catalogue(), tempfile::tempdir().unwrap(), None);
    let refused = sync(&format!("http://{address}/"), folder.path(), &mut state, &below, 1);
    assert_eq!(refused, Err(Cause::Malformed));
    assert!(WsusSource::new(&Settings::new("ftp://x/")).is_err());
}
