//! Third-party catalogues as their vendors publish them: read whole, written again, brought over HTTP,
//! and refused where they are not what they should be.

#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Cursor, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use sync::adapter::{Adapter, Criteria, Extent, Fetched, Read, Run, Said, Watch};
use sync::digests::Algorithm;
use sync::error::{Cause, SyncError};
use sync::fetch::{Fetcher, Patience};
use sync::rule::xml::{self as rules, Family};
use sync::rule::{Rule, Rules};
use sync::sdp::brought::Settings;
use sync::sdp::signature::Trust;
use sync::sdp::source::SdpSource;
use sync::sdp::{package, write};
use sync::taxonomy::{Classification, Product, Severity};
use sync::update::{Handler, Publication, Update};
use sync::xml;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SIGNER: &str = "182b2161acf6b320990c10fbcd455966f7178d51b647c7e59ef2643f2470de6a";

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/sdp").join(name)
}

/// The classic catalogue of a vendor: 175 packages of its 1829.
fn catalogue() -> Vec<u8> {
    let packed = std::fs::File::open(data("HpCatalogForSms.reduced.xml.xz")).unwrap();
    let mut plain = Vec::new();
    liblzma::read::XzDecoder::new(packed).read_to_end(&mut plain).unwrap();
    plain
}

fn packed(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = cab::CabinetBuilder::new();
    let folder = builder.add_folder(cab::CompressionType::MsZip);
    for (name, _) in members {
        folder.add_file(*name);
    }
    let mut writer = builder.build(Cursor::new(Vec::new())).unwrap();
    let mut left = members.iter();
    while let Some(mut file) = writer.next_file().unwrap() {
        file.write_all(left.next().unwrap().1).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

struct Site {
    run: Run,
    _folder: tempfile::TempDir,
}

fn site() -> Site {
    let folder = tempfile::tempdir().unwrap();
    let run = Run {
        fetcher: Fetcher::new(Patience::default()).unwrap(),
        folder: folder.path().to_owned(),
        now: "2026-11-27T00:00:00Z".parse().unwrap(),
        criteria: Arc::new(Criteria::default()),
        watch: Arc::new(Watch::default()),
    };
    Site { run, _folder: folder }
}

fn unsigned(url: impl ToString) -> Settings {
    Settings { url: url.to_string(), trust: Trust { unsigned: true, ..Trust::default() } }
}

fn at(path: &Path) -> url::Url {
    url::Url::from_file_path(path).unwrap()
}

/// One whole sync.
async fn sync(
    site: &Site,
    settings: Settings,
    state: Option<&serde_json::Value>,
) -> Result<Option<(Vec<Update>, Vec<Product>, Read)>, SyncError> {
    let source = SdpSource::new(settings)?;
    if source.fetch(&site.run, state).await? == Fetched::Unchanged {
        return Ok(None);
    }
    let (mut updates, mut products) = (Vec::new(), Vec::new());
    let read = source.read(&site.run, state, &mut |said| {
        match said {
            Said::Update(update) => updates.push(*update),
            Said::Product(product) => products.push(product),
            Said::Gone(_) => panic!("a whole catalogue says what there is"),
        }
        Ok(())
    })?;
    Ok(Some((updates, products, read)))
}

async fn read_file(
    name: &str,
    bytes: &[u8],
) -> Result<(Vec<Update>, Vec<Product>, Read), SyncError> {
    let site = site();
    let path = site.run.folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    Ok(sync(&site, unsigned(at(&path)), None).await?.unwrap())
}

#[tokio::test]
async fn the_catalogue_of_a_vendor_is_read_whole() {
    let text = catalogue();
    let (updates, products, read) =
        read_file("catalogue.cab", &packed(&[("HpCatalogForSms.xml", &text)])).await.unwrap();
    assert_eq!((read.extent, read.skipped.count), (Extent::Whole, 0), "{:?}", read.skipped);
    assert_eq!(updates.len(), 175);
    let n = |of: Classification| updates.iter().filter(|it| it.classification == Some(of)).count();
    assert_eq!(n(Classification::Update), 136);
    assert_eq!(n(Classification::Critical), 26);
    assert_eq!(n(Classification::Tool), 6);
    assert_eq!(n(Classification::FeaturePack), 6);
    assert_eq!(n(Classification::Security), 1);
    let n = |of: Severity| updates.iter().filter(|it| it.severity == Some(of)).count();
    assert_eq!((n(Severity::Low), n(Severity::Important), n(Severity::Critical)), (90, 58, 27));
    assert_eq!(updates.iter().filter(|it| !it.supersedes.is_empty()).count(), 134);
    let replaced: BTreeSet<_> = updates.iter().flat_map(|it| &it.supersedes).collect();
    let ids: BTreeSet<_> = updates.iter().map(|it| &it.id).collect();
    assert_eq!(
        replaced.difference(&ids).count(),
        1780,
        "what is not there any more is named still"
    );
    let files: Vec<_> = updates.iter().flat_map(Update::files).collect();
    assert_eq!(files.len(), 175);
    assert_eq!(files.iter().map(|it| it.size).sum::<u64>(), 13_511_208_848);
    assert!(files.iter().all(|it| it.digests.get(Algorithm::Sha1).is_some() && it.urls.len() == 1));
    let codes = updates.iter().flat_map(|it| &it.items).map(|item| match &item.handler {
        Some(Handler::CommandLine { codes, .. }) => codes.len(),
        other => panic!("{other:?}"),
    });
    assert_eq!(codes.sum::<usize>(), 2030);
    let mut rules = BTreeMap::new();
    for update in &updates {
        assert!(update.rules.installable.is_some() && update.items[0].rules.installed.is_some());
        for of in [&update.rules, &update.items[0].rules] {
            count(of, &mut rules);
        }
    }
    let stated = [
        ("FileVersion", 478),
        ("Processor", 1090),
        ("RegSz", 459),
        ("WindowsVersion", 1265),
        ("WmiQuery", 767),
    ];
    assert_eq!(rules, stated.map(|(name, n)| (name.to_owned(), n)).into());
    assert!(products.iter().all(|it| it.family == "HP Business Clients"));
    assert!(products.iter().any(|it| it.id == "hp-business-clients.driver" && it.name == "Driver"));
    let first = updates.iter().find(|it| it.name == "sp65001").unwrap();
    assert_eq!(
        first.created.to_string(),
        "2015-12-21T11:48:00Z",
        "a time without a zone is in UTC"
    );
}

/// Counts Windows rules by name.
fn count(rules: &Rules, into: &mut BTreeMap<String, usize>) {
    fn one(rule: &Rule, into: &mut BTreeMap<String, usize>) {
        match rule {
            Rule::And(parts) | Rule::Or(parts) => parts.iter().for_each(|part| one(part, into)),
            Rule::Not(part) => one(part, into),
            Rule::Windows(rule) => *into.entry(rule.name.clone()).or_default() += 1,
            _ => {}
        }
    }
    let all = [&rules.installable, &rules.installed, &rules.superseded];
    all.into_iter().flatten().for_each(|rule| one(rule, into));
}

#[tokio::test]
async fn each_layout_says_the_same() {
    let text = catalogue();
    let bare = read_file("catalogue.xml", &text).await.unwrap();
    let plain = String::from_utf8(text.clone()).unwrap();
    let wide: Vec<u8> =
        plain.trim_start_matches('\u{feff}').encode_utf16().flat_map(u16::to_be_bytes).collect();
    let wide = read_file("catalogue.xml", &[b"\xfe\xff".as_slice(), &wide].concat()).await.unwrap();
    assert!(bare.0 == wide.0 && bare.1 == wide.1);

    // The newer layout: a file for each package, and lists beside them.
    let files: Vec<(String, Vec<u8>)> = std::fs::read_dir(data("hp"))
        .unwrap()
        .map(|it| it.unwrap().path())
        .map(|it| {
            (it.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(it).unwrap())
        })
        .collect();
    let mut members: Vec<(&str, &[u8])> =
        files.iter().map(|(name, bytes)| (&**name, &**bytes)).collect();
    members.push(("update_manifest.json", b"{}"));
    members.push(("CategoryIndex.xml", b"<CategoryIndex><Category Name='x'/></CategoryIndex>"));
    let cabinet = read_file("v3.cab", &packed(&members)).await.unwrap();
    assert_eq!((cabinet.0.len(), cabinet.2.skipped.count), (24, 0));
    let site = site();
    let folder = sync(&site, unsigned(at(&data("hp"))), None).await.unwrap().unwrap();
    let by_id = |updates: &[Update]| {
        updates.iter().map(|it| (it.id, it.clone())).collect::<BTreeMap<_, _>>()
    };
    assert!(by_id(&folder.0) == by_id(&cabinet.0));
    let again = sync(&site, unsigned(at(&data("hp"))), Some(&folder.2.state)).await.unwrap();
    assert!(again.is_none(), "nothing changed in the folder");
    let single = std::fs::read(data("dc718411-a5f1-4b15-966a-63a77cbb156e.sdp")).unwrap();
    let (updates, products, _) = read_file("one.sdp", &single).await.unwrap();
    let Some(Handler::Msi { file, product_code, uninstall, .. }) = &updates[0].items[0].handler
    else {
        panic!("it is installed by Windows Installer")
    };
    assert_eq!((&**file, uninstall), ("DSIAPC_1.6.6.5.msi", &None));
    assert_eq!(product_code, "{FB2B7CC0-8307-47e6-A065-11015CC96B99}");
    assert_eq!(updates[0].articles, ["45YPT".to_owned()].into());
    assert_eq!(
        (&*products[0].id, updates[0].created.to_string()),
        ("dell.drivers-and-applications", "2019-01-24T07:52:15Z".into())
    );
}

#[tokio::test]
async fn what_was_read_is_written_so_that_it_reads_as_the_same() {
    let (mut updates, products, _) = read_file("catalogue.xml", &catalogue()).await.unwrap();
    let one = std::fs::read(data("dc718411-a5f1-4b15-966a-63a77cbb156e.sdp")).unwrap();
    let (dell, of_dell, _) = read_file("one.sdp", &one).await.unwrap();
    updates.extend(dell);
    let products: Vec<_> = products.into_iter().chain(of_dell).collect();
    for update in &updates {
        let text = write::write(update, &products).unwrap();
        let back = package::read(&xml::parse(&text).unwrap()).unwrap();
        assert_eq!(back.update, *update);
        assert!(products.contains(&back.product.unwrap()));
        for rules in std::iter::once(&update.rules).chain(update.items.iter().map(|it| &it.rules)) {
            for rule in [&rules.installable, &rules.installed].into_iter().flatten() {
                for family in [Family::Wsus, Family::Publisher, Family::Fragment] {
                    let text = rules::write(rule, family).unwrap().to_xml(rules::PREFIXES).unwrap();
                    assert_eq!(rules::read(&xml::parse(&text).unwrap()).as_ref(), Ok(rule));
                }
            }
        }
    }
}

fn a_package(id: u32, created: &str, more: &str) -> String {
    format!(
        "<s:SoftwareDistributionPackage xmlns:s='http://schemas.microsoft.com/wsus/2005/04/CorporatePublishing/SoftwareDistributionPackage.xsd'>\
         <s:Properties PackageID='0a0a0a0a-0000-0000-0000-{id:012}' CreationDate='{created}' {more}/>\
         <s:LocalizedProperties><s:Language>en</s:Language><s:Title>Tool of {created}</s:Title></s:LocalizedProperties>\
         </s:SoftwareDistributionPackage>"
    )
}

fn a_catalogue(packages: &[String]) -> Vec<u8> {
    format!("<SystemsManagementCatalog>{}</SystemsManagementCatalog>", packages.concat())
        .into_bytes()
}

#[tokio::test]
async fn of_a_package_issued_again_the_newest_is_said_once() {
    let all = [
        a_package(1, "2026-03-01T00:00:00Z", ""),
        a_package(2, "2026-01-01T00:00:00Z", "PublicationState='Expired'"),
        a_package(1, "2026-05-01T00:00:00Z", ""),
        a_package(1, "2026-04-01T00:00:00Z", ""),
    ];
    let (updates, _, _) = read_file("a.xml", &a_catalogue(&all)).await.unwrap();
    let said: Vec<_> = updates.iter().map(|it| (it.created.to_string(), it.publication)).collect();
    let expected = [
        ("2026-01-01T00:00:00Z".to_owned(), Publication::Expired),
        ("2026-05-01T00:00:00Z".to_owned(), Publication::Published),
    ];
    assert_eq!(said, expected);
}

#[tokio::test]
async fn a_broken_package_is_passed_over_and_told_and_a_broken_catalogue_is_refused() {
    let deep = format!("{}<x/>{}", "<l:Not>".repeat(70), "</l:Not>".repeat(70));
    let deep = format!(
        "<IsInstallable xmlns:l='http://schemas.microsoft.com/wsus/2005/04/CorporatePublishing/LogicalApplicabilityRules.xsd'>{deep}</IsInstallable>"
    );
    let all = [
        a_package(1, "2026-03-01T00:00:00Z", ""),
        a_package(2, "some day", ""),
        a_package(3, "2026-03-01T00:00:00Z", "")
            .replace("Tool of", "")
            .replace("2026-03-01T00:00:00Z</", "</"),
        a_package(4, "2026-03-01T00:00:00Z", "").replace(
            "</s:Soft",
            "<InstallableItem><OriginFile FileName='../x' Size='1'/></InstallableItem></s:Soft",
        ),
        a_package(5, "2026-03-01T00:00:00Z", "").replace("</s:Soft", &format!("{deep}</s:Soft")),
    ];
    let (updates, _, read) = read_file("a.xml", &a_catalogue(&all)).await.unwrap();
    assert_eq!(updates.len(), 1);
    let told = read.skipped.examples.join("\n");
    assert_eq!(read.skipped.count, 4, "{told}");
    for what in ["CreationDate", "no title", "no plain name", "nested deeper", "-000000000005"] {
        assert!(told.contains(what), "{what}: {told}");
    }

    let good = a_catalogue(&all[..1]);
    let refused = async |name: &str, bytes: &[u8]| read_file(name, bytes).await.unwrap_err();
    assert_eq!(refused("a.xml", &good[..good.len() - 30]).await.cause, Cause::Malformed);
    let dtd = [b"<!DOCTYPE a [<!ENTITY x 'y'>]>".as_slice(), &good].concat();
    assert_eq!(refused("a.xml", &dtd).await.cause, Cause::Malformed);
    assert_eq!(refused("a.xml", b"<html/>").await.cause, Cause::Malformed);
    let cabinet = packed(&[("a.xml", &good)]);
    assert_eq!(refused("a.cab", &cabinet[..cabinet.len() - 9]).await.cause, Cause::Malformed);
    assert_eq!(refused("a.cab", &packed(&[("..\\a.xml", &good)])).await.cause, Cause::Malformed);
    assert_eq!(refused("a.zip", b"PK\x03\x04....").await.cause, Cause::Unsupported);
}

#[tokio::test]
async fn a_catalogue_is_believed_by_its_signer_or_its_digest() {
    let signed = std::fs::read(data("signed.cab")).unwrap();
    let site = site();
    let path = site.run.folder.join("signed.cab");
    std::fs::write(&path, &signed).unwrap();
    let with = |trust| Settings { url: at(&path).to_string(), trust };
    let pinned = with(Trust { signers: vec![SIGNER.into()], ..Trust::default() });
    let (updates, _, read) = sync(&site, pinned.clone(), None).await.unwrap().unwrap();
    assert_eq!(updates.len(), 3);
    assert_eq!(read.state["signer"]["subject"], "CN=Example Signer,O=Example Catalogues,C=ZZ");
    let error = sync(&site, with(Trust::default()), None).await.unwrap_err();
    assert_eq!(error.cause, Cause::BadSignature);
    assert!(error.detail.contains(SIGNER), "{error}");
    let other = with(Trust { sha256: Some("ab".repeat(32)), ..Trust::default() });
    assert_eq!(sync(&site, other, None).await.unwrap_err().cause, Cause::BadSignature);
    let wrong = with(Trust { signers: vec!["abc".into()], ..Trust::default() });
    assert_eq!(sync(&site, wrong, None).await.unwrap_err().cause, Cause::Misconfigured);

    let mut changed = signed.clone();
    changed[600] ^= 1;
    std::fs::write(&path, &changed).unwrap();
    let error = sync(&site, pinned, Some(&read.state)).await.unwrap_err();
    assert_eq!(error.cause, Cause::BadSignature, "{error}");
}

/// A web server of one file, that counts: whole answers, answers that nothing changed, and bytes cut off.
struct Server {
    address: std::net::SocketAddr,
    whole: AtomicUsize,
    unchanged: AtomicUsize,
}

async fn serve(body: Vec<u8>, cut_first: bool) -> Arc<Server> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server =
        Arc::new(Server { address, whole: AtomicUsize::new(0), unchanged: AtomicUsize::new(0) });
    let counts = server.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut piece = [0; 1024];
                let n = stream.read(&mut piece).await.unwrap();
                if n == 0 {
                    break;
                }
                request.extend_from_slice(&piece[..n]);
            }
            let request = String::from_utf8_lossy(&request).to_lowercase();
            if request.contains("if-none-match: \"1\"") {
                counts.unchanged.fetch_add(1, SeqCst);
                let answer = "HTTP/1.1 304 Not Modified\r\nconnection: close\r\n\r\n";
                stream.write_all(answer.as_bytes()).await.unwrap();
                continue;
            }
            let is_cut = cut_first && counts.whole.fetch_add(1, SeqCst) == 0;
            let head = format!(
                "HTTP/1.1 200 OK\r\netag: \"1\"\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            let end = if is_cut { body.len() / 2 } else { body.len() };
            let _ = stream.write_all(&body[..end]).await;
        }
    });
    server
}

#[tokio::test]
async fn over_http_a_catalogue_is_brought_once_and_asked_after_later() {
    let server = serve(packed(&[("a.xml", &catalogue())]), true).await;
    let url = format!("http://{}/catalogue.cab", server.address);
    let site = site();
    let cut = sync(&site, unsigned(&url), None).await.unwrap_err();
    assert_eq!(cut.cause, Cause::Unreachable, "{cut}");
    let (updates, _, read) = sync(&site, unsigned(&url), None).await.unwrap().unwrap();
    assert_eq!(updates.len(), 175);
    for _ in 0..3 {
        assert!(sync(&site, unsigned(&url), Some(&read.state)).await.unwrap().is_none());
    }
    assert_eq!((server.whole.load(SeqCst), server.unchanged.load(SeqCst)), (2, 3));
}

#[tokio::test]
async fn a_sync_that_is_cancelled_ends() {
    let site = site();
    let path = site.run.folder.join("a.xml");
    std::fs::write(&path, catalogue()).unwrap();
    let source = SdpSource::new(unsigned(at(&path))).unwrap();
    assert_eq!(source.fetch(&site.run, None).await.unwrap(), Fetched::Changed);
    let mut n = 0;
    let error = source.read(&site.run, None, &mut |said| {
        if matches!(said, Said::Update(_)) {
            n += 1;
            site.run.watch.stop.cancel();
        }
        Ok(())
    });
    assert_eq!((error.unwrap_err().cause, n), (Cause::Cancelled, 1));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    /// Whatever is changed in a package, it is read or refused, and what is read can be written.
    #[test]
    fn a_changed_package_is_read_or_refused(
        changes in proptest::collection::vec((0usize..14_000, 32u8..127), 1..6),
    ) {
        let mut bytes = std::fs::read(data("hp/00004850-0000-0000-5350-000000092361.sdp")).unwrap();
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        if let Ok(element) = xml::parse(&String::from_utf8_lossy(&bytes))
            && let Ok(read) = package::read(&element)
        {
            let _ = write::write(&read.update, read.product.as_slice());
        }
    }

    /// Whatever is changed in a signed cabinet, it is not unpacked to other bytes in the signer's name.
    #[test]
    fn a_changed_cabinet_is_unpacked_or_refused(
        changes in proptest::collection::vec((0usize..4_400, 0u8..=255), 1..6),
        cut in 0usize..4_400,
    ) {
        let mut bytes = std::fs::read(data("signed.cab")).unwrap();
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        bytes.truncate(cut.max(100));
        let _ = sync::sdp::signature::read(&mut Cursor::new(&bytes)).unwrap();
        let limits = sync::sdp::cab::Limits { member: 1 << 20, ..Default::default() };
        if let Ok(mut cabinet) = sync::sdp::cab::Cabinet::open(Cursor::new(&bytes), limits) {
            let _ = cabinet.each(&|_| true, &mut |_, from| {
                let _ = std::io::copy(from, &mut std::io::sink());
                Ok(())
            });
        }
    }
}
