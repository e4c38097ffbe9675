//! Documents of a real WSUS, and the offline scan cabinet: what they say, and that it is said again.

#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::{BTreeMap, HashMap};
use std::io::{Cursor, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use sync::adapter::{Adapter, Criteria, Fetched, Read, Run, Said, Watch};
use sync::digests::Algorithm;
use sync::error::{Cause, SyncError};
use sync::fetch::{Fetcher, Patience};
use sync::name::UpdateId;
use sync::rule::Rule;
use sync::rule::xml::{self as rules, Family};
use sync::sdp::brought::Settings;
use sync::sdp::package;
use sync::sdp::signature::Trust;
use sync::taxonomy::{Classification, Product, Severity};
use sync::update::{AnyOf, Handler, Impact, Kind, Publication, Update};
use sync::wsus::document::{self, Category, CategoryKind, Document};
use sync::wsus::scan_cab::ScanCab;
use sync::wsus::write;
use sync::xml;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn id(text: &str) -> UpdateId {
    text.parse().unwrap()
}

fn update(text: &str) -> Update {
    document::read(text, &HashMap::new()).unwrap().update().clone()
}

/// The same, as it is read from what is written of it.
fn again(update: &Update) -> Update {
    let plain = Update { original: None, ..update.clone() };
    let written = write::write(&plain, plain.revision.unwrap_or(1)).unwrap();
    let [only] = written.as_slice() else { panic!("it is one document") };
    Update { original: None, ..self::update(&only.text) }
}

#[test]
fn a_document_of_an_update_says_all_of_it() {
    let text = std::fs::read_to_string(data("wsus/update-266f6222.xml")).unwrap();
    let url = "http://wsus.example:8530/Content/CD/87F5BD0469586006AA5D3A77D1C658FD2895DDCD.exe";
    let urls = HashMap::from([("h/W9BGlYUAaqXTp30cZi/SiV3c0=".to_owned(), vec![url.to_owned()])]);
    let Document::Update(update) = document::read(&text, &urls).unwrap() else {
        panic!("it is an update")
    };
    assert_eq!(update.id, id("266f6222-c89d-43f2-9f8a-69340271e677"));
    assert_eq!((update.revision, update.kind), (Some(200), Kind::Software));
    assert_eq!(update.publication, Publication::Published);
    assert_eq!(update.created.to_string(), "2026-10-04T12:00:58.287Z");
    assert!(update.text(&[]).unwrap().title.starts_with("Full Deltas 1.459.547.0 for Defender"));
    assert_eq!(update.behaviour.impact, Impact::Minor);
    let groups: Vec<_> =
        update.prerequisites.iter().map(|it| (it.ids.len(), it.is_category)).collect();
    assert_eq!(groups, [(1, false); 4]);
    let file = &update.items[0].files[0];
    assert_eq!((&*file.name, file.size), ("AM_Delta.exe", 11_606_440));
    assert_eq!(file.digests.get(Algorithm::Sha1), Some("87f5bd0469585006aa5d3a77d1c662fd2895ddcd"));
    assert!(file.digests.get(Algorithm::Sha256).unwrap().starts_with("026b74ab29b2e4ab113a"));
    assert_eq!(file.urls, [url]);
    let Some(Handler::CommandLine { program, arguments, codes, .. }) = &update.items[0].handler
    else {
        panic!("it is a program")
    };
    assert_eq!((&**program, &**arguments, codes.len()), ("AM_Delta.exe", "WD /q", 1));
    assert_eq!(update.original.as_ref(), Some(&text));
    for rule in [&update.rules.installed, &update.rules.installable].into_iter().flatten() {
        for family in [Family::Wsus, Family::Publisher, Family::Fragment] {
            let text = rules::write(rule, family).unwrap().to_xml(rules::PREFIXES).unwrap();
            assert_eq!(rules::read(&xml::parse(&text).unwrap()).as_ref(), Ok(rule));
        }
    }
    // What is handed on is what came; what is made anew says the same.
    let written = write::write(&update, 200).unwrap();
    assert_eq!(written[0].text, text);
    let mut back = again(&update);
    back.items[0].files[0].urls = vec![url.to_owned()];
    assert_eq!(back, Update { original: None, ..*update });
}

#[test]
fn a_bundle_names_its_parts_with_their_revisions() {
    let answer =
        std::fs::read_to_string(data("wsus/GetUpdateData.uncompressed.response.xml")).unwrap();
    let answer = xml::parse(&answer).unwrap();
    fn blob(of: &xml::Element) -> Option<String> {
        of.elements()
            .find_map(|it| if &*it.name == "XmlUpdateBlob" { Some(it.text()) } else { blob(it) })
    }
    let mut bundle = update(&blob(&answer).unwrap());
    assert_eq!(bundle.bundles.len(), 1);
    assert_eq!(bundle.bundles[0].ids.len(), 4);
    assert_eq!(bundle.bundled_revisions[&id("b6f443c9-ad38-4347-bab3-f1dc0b03d533")], 200);
    assert_eq!(bundle.classification, Some(Classification::Definition));
    assert!(bundle.products.is_empty(), "a requirement may be anything");
    let product = id("8c3fcc84-7410-4a95-8b89-a166a0190486");
    let (kind, families) = (CategoryKind::Product, Default::default());
    let known = Category { id: product, title: "Defender".into(), kind, families };
    document::place(&mut bundle, &BTreeMap::from([(product, known)]));
    assert_eq!(bundle.products, [product.to_string()].into(), "unless it is known as a product");
    bundle.products.clear();
    assert_eq!(again(&bundle), Update { original: None, ..bundle });
}

#[test]
fn every_part_of_a_document_is_understood() {
    let text = r#"<u:Update xmlns:u="http://schemas.microsoft.com/msus/2002/12/Update"
        xmlns:c="http://schemas.microsoft.com/msus/2002/12/CbsApplicabilityRules">
      <u:UpdateIdentity UpdateID="11111111-2222-3333-4444-555555555555" RevisionNumber="7"/>
      <u:Properties UpdateType="Driver" DefaultPropertiesLanguage="de" PublicationState="Expired"
          CreationDate="2026-01-02T03:04:05Z" MsrcSeverity="Critical" EulaID="aaaa" Handler="urn:h">
        <u:InstallationBehavior RebootBehavior="AlwaysRequiresReboot" CanRequestUserInput="true"/>
        <u:UninstallationBehavior/><u:Language>de</u:Language>
        <u:SupportUrl>http://support.example/</u:SupportUrl>
        <u:SecurityBulletinID>MS26-001</u:SecurityBulletinID>
        <u:CveID>cve-2026-0001</u:CveID><u:KBArticleID>900001</u:KBArticleID></u:Properties>
      <u:LocalizedPropertiesCollection>
        <u:LocalizedProperties><u:Language>de</u:Language><u:Title>Probe</u:Title></u:LocalizedProperties>
        <u:LocalizedProperties><u:Language>en</u:Language><u:Title>Demo</u:Title>
          <u:Description>Text</u:Description></u:LocalizedProperties>
        <u:EulaFile Digest="h/W9BGlYUAaqXTp30cZi/SiV3c0=" DigestAlgorithm="SHA1" FileName="e.txt" Size="3" Language="de"/>
      </u:LocalizedPropertiesCollection>
      <u:Relationships><u:Prerequisites>
          <u:AtLeastOne IsCategory="true"><u:UpdateIdentity UpdateID="0FA1201D-4330-4FA8-8AE9-B877473B6441"/></u:AtLeastOne>
          <u:AtLeastOne IsCategory="true"><u:UpdateIdentity UpdateID="d31bd4c3-d872-41c9-a2e7-231f372588cb"/></u:AtLeastOne>
          <u:AtLeastOne><u:UpdateIdentity UpdateID="00000000-0000-0000-0000-000000000001"/>
            <u:UpdateIdentity UpdateID="00000000-0000-0000-0000-000000000002"/></u:AtLeastOne></u:Prerequisites>
        <u:SupersededUpdates><u:UpdateIdentity UpdateID="00000000-0000-0000-0000-000000000003"/>
          <u:UpdateIdentity UpdateID="11111111-2222-3333-4444-555555555555"/></u:SupersededUpdates></u:Relationships>
      <u:ApplicabilityRules><u:IsSuperseded><c:CbsPackageInstalled/></u:IsSuperseded>
        <u:Metadata><c:CbsPackageApplicabilityMetadata><c:package name="x"/></c:CbsPackageApplicabilityMetadata></u:Metadata></u:ApplicabilityRules>
      <u:Files><u:File Digest="Amt0qymy5KsROiwIXm4QIIV75Ju4r+Cl28Pg8gaLXUA=" DigestAlgorithm="SHA256" FileName="a.cab" Size="9"/></u:Files>
      <u:HandlerSpecificData xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xmlns:h="urn:h" xsi:type="h:Own"><h:Data a="1">x</h:Data></u:HandlerSpecificData>
    </u:Update>"#;
    let read = update(text);
    assert_eq!((read.kind, read.publication), (Kind::Driver, Publication::Expired));
    assert_eq!((&*read.name, read.severity), ("KB900001", Some(Severity::Critical)));
    assert_eq!(read.articles, ["KB900001".to_owned(), "MS26-001".to_owned()].into());
    assert_eq!(read.cves, ["CVE-2026-0001".to_owned()].into());
    assert_eq!(read.texts.len(), 2);
    assert_eq!(read.classification, Some(Classification::Security));
    assert_eq!(read.products, ["d31bd4c3-d872-41c9-a2e7-231f372588cb".to_owned()].into());
    assert_eq!(read.prerequisites[2].ids.len(), 2);
    assert_eq!(read.supersedes, [id("00000000-0000-0000-0000-000000000003")].into(), "not itself");
    let licence = read.licence.as_ref().unwrap();
    assert_eq!((&*licence.id, licence.files.len()), ("aaaa", 1));
    assert_eq!(licence.files[0].language.as_ref().unwrap().as_str(), "de");
    assert_eq!(read.rules.metadata.len(), 1);
    assert!(read.behaviour.can_uninstall && read.behaviour.may_ask);
    assert_eq!(read.items[0].files[0].digests.get(Algorithm::Sha1), None);
    let Some(Handler::Other { name, data }) = &read.items[0].handler else { panic!("it is kept") };
    assert_eq!(name, "urn:h");
    assert!(data.contains("h:Own") && data.contains(">x<"), "{data}");
    let back = again(&read);
    assert_eq!(again(&back), back, "what is written is stable");
    let Some(Handler::Other { data: other, .. }) = &back.items[0].handler else {
        panic!("it is kept")
    };
    let plain = |text: &str| xml::parse(text).unwrap();
    assert_eq!(plain(other), plain(data));
    let mut back = back;
    back.items = read.items.clone();
    assert_eq!(back, Update { original: None, ..read });
}

#[test]
fn what_is_no_document_is_refused_with_the_cause() {
    let refused = |text: &str| document::read(text, &HashMap::new()).unwrap_err();
    for wrong in [
        "",
        "<Update/>",
        "<Update><UpdateIdentity UpdateID='x' RevisionNumber='1'/></Update>",
        "<Update><UpdateIdentity UpdateID='11111111-2222-3333-4444-555555555555'/></Update>",
        "<!DOCTYPE x><Update/>",
        "<Update><UpdateIdentity UpdateID='11111111-2222-3333-4444-555555555555' RevisionNumber='1'/>\
         <Files><File FileName='..' Size='1'/></Files></Update>",
    ] {
        assert_eq!(refused(wrong).cause, Cause::Malformed, "{wrong}");
    }
    let deep = format!("<Update>{}{}</Update>", "<a>".repeat(500), "</a>".repeat(500));
    assert_eq!(refused(&deep).cause, Cause::TooLarge);
}

#[test]
fn categories_are_written_and_read() {
    let now = "2026-01-01T00:00:00Z".parse().unwrap();
    let product = Product { id: "acme.tool".into(), name: "Tool".into(), family: "Acme".into() };
    let mut known = BTreeMap::new();
    for written in [
        write::family("Acme", now).unwrap(),
        write::product(&product, now).unwrap(),
        write::classification(Classification::Security, now).unwrap(),
    ] {
        match document::read(&written.text, &HashMap::new()).unwrap() {
            Document::Category { category, update } => {
                assert_eq!(
                    (update.kind, update.id, category.id),
                    (Kind::Category, written.id, written.id)
                );
                known.insert(category.id, category);
            }
            Document::Update(_) => panic!("it is a category"),
        }
    }
    let kinds: Vec<_> = known.values().map(|it| (it.kind, it.title.clone())).collect();
    assert!(kinds.contains(&(CategoryKind::Family, "Acme".into())));
    assert!(kinds.contains(&(CategoryKind::Classification, "Security Updates".into())));
    let read = known[&write::product_id("acme.tool")].product_among(&known).unwrap();
    assert_eq!((read.name, read.family), (product.name, product.family));
    assert_eq!(
        document::classification_id(Classification::Security),
        id("0fa1201d-4330-4fa8-8ae9-b877473b6441")
    );
}

#[test]
fn third_party_packages_become_documents_that_say_the_same() {
    let mut n = 0;
    for entry in std::fs::read_dir(data("sdp/hp")).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let package = package::read(&xml::parse(&text).unwrap()).unwrap().update;
        let written = write::write(&package, 3).unwrap();
        assert_eq!(written.len(), 1);
        let read = update(&written[0].text);
        assert_eq!((read.id, read.revision), (package.id, Some(3)));
        assert_eq!((&read.texts, &read.supersedes), (&package.texts, &package.supersedes));
        assert_eq!(
            (read.classification, read.severity),
            (package.classification, package.severity)
        );
        assert_eq!((&read.name, &read.articles), (&package.name, &package.articles));
        assert_eq!(read.items[0].handler, package.items[0].handler);
        assert_eq!(read.items[0].files[0].digests, package.items[0].files[0].digests);
        assert_eq!(read.rules.installed, package.items[0].rules.installed);
        let of_item = package.items[0].rules.installable.clone().unwrap();
        let both = vec![package.rules.installable.clone().unwrap(), of_item];
        assert_eq!(read.rules.installable, Some(Rule::And(both)), "both must hold");
        let product = write::product_id(package.products.first().unwrap());
        assert_eq!(read.products, [product.to_string()].into());
        n += 1;
    }
    assert_eq!(n, 24);
}

#[test]
fn a_package_of_several_items_becomes_a_bundle() {
    let text =
        std::fs::read_to_string(data("sdp/dc718411-a5f1-4b15-966a-63a77cbb156e.sdp")).unwrap();
    let mut package = package::read(&xml::parse(&text).unwrap()).unwrap().update;
    let mut other = package.items[0].clone();
    other.id = None;
    other.files[0].name = "other.msi".into();
    package.items.push(other);
    let written = write::write(&package, 2).unwrap();
    let all: Vec<_> = written.iter().map(|it| update(&it.text)).collect();
    let [first, second, bundle] = all.as_slice() else { panic!("two parts and the whole") };
    assert_eq!((first.id, bundle.id), (package.items[0].id.unwrap(), package.id));
    assert_eq!(bundle.bundles, [AnyOf { ids: [first.id, second.id].into(), is_category: false }]);
    assert_eq!(bundle.bundled_revisions, [(first.id, 2), (second.id, 2)].into());
    assert!(bundle.items.is_empty() && bundle.rules.installable == package.rules.installable);
    assert_eq!(second.items[0].files[0].name, "other.msi");
    assert_eq!(second.rules, package.items[1].rules);
    assert_eq!(second.items[0].handler, package.items[1].handler);
    assert!(written[2].text.contains("ExplicitlyDeployable=\"true\""));
    assert!(!written[0].text.contains("ExplicitlyDeployable"), "parts are not deployed alone");
}

struct Site {
    run: Run,
    _folder: tempfile::TempDir,
}

fn site(languages: &[&str]) -> Site {
    let folder = tempfile::tempdir().unwrap();
    let languages = languages.iter().map(|it| it.parse().unwrap()).collect();
    let run = Run {
        fetcher: Fetcher::new(Patience::default()).unwrap(),
        folder: folder.path().to_owned(),
        now: "2026-11-27T00:00:00Z".parse().unwrap(),
        criteria: Arc::new(Criteria { languages, ..Criteria::default() }),
        watch: Arc::new(Watch::default()),
    };
    Site { run, _folder: folder }
}

async fn scan(
    site: &Site,
    path: &Path,
) -> Result<(BTreeMap<UpdateId, Update>, Vec<Product>, Read), SyncError> {
    let url = url::Url::from_file_path(path).unwrap().to_string();
    let source =
        ScanCab::new(Settings { url, trust: Trust { unsigned: true, ..Trust::default() } })?;
    assert_eq!(source.fetch(&site.run, None).await?, Fetched::Changed);
    let (mut updates, mut products) = (BTreeMap::new(), Vec::new());
    let read = source.read(&site.run, None, &mut |said| {
        match said {
            Said::Update(update) => {
                assert!(updates.insert(update.id, *update).is_none(), "said once")
            }
            Said::Product(product) => products.push(product),
            Said::Gone(_) => panic!("it says what there is"),
        }
        Ok(())
    })?;
    assert_eq!(source.fetch(&site.run, Some(&read.state)).await?, Fetched::Unchanged);
    let left = std::fs::read_dir(&site.run.folder)
        .unwrap()
        .filter(|it| it.as_ref().unwrap().path().is_dir());
    assert_eq!(left.count(), 0, "nothing that was unpacked is left");
    Ok((updates, products, read))
}

#[tokio::test]
async fn the_offline_scan_cabinet_says_what_others_read_in_it() {
    let (updates, _, read) = scan(&site(&[]), &data("wsusscn2/wsusscn2.cab")).await.unwrap();
    assert_eq!(updates.len(), 3, "{:?}", read.skipped);
    // The list names a revision that its authors cut away.
    assert_eq!(read.skipped.count, 1);
    assert!(read.skipped.examples[0].contains("456789"), "{:?}", read.skipped);
    let expected = |kind: &str, revision: u32| {
        let text =
            std::fs::read(data(&format!("wsusscn2/expected/{kind}/{revision}.json"))).unwrap();
        serde_json::from_slice::<serde_json::Value>(&text).unwrap()
    };
    for revision in [123_456, 234_567] {
        let list = expected("u", revision);
        let update = &updates[&id(list["updateid"].as_str().unwrap())];
        assert_eq!(update.revision.unwrap().to_string(), list["revisionnumber"].as_str().unwrap());
        assert_eq!(update.created.to_string(), list["creationdate"].as_str().unwrap());
        let core = expected("c", revision);
        assert_eq!(core["properties"]["updatetype"], "Software");
        let ids = |of: &serde_json::Value| {
            let all = of.as_array().unwrap().iter();
            all.map(|it| id(it["updateid"].as_str().unwrap()))
                .collect::<std::collections::BTreeSet<_>>()
        };
        let superseded = ids(&core["relationships"]["supersededupdates"]["updateidentity"]);
        assert_eq!(update.supersedes, superseded);
        for group in core["relationships"]["prerequisites"]["atleastone"].as_array().unwrap() {
            let is_category = group["iscategory"] == "true";
            let group = AnyOf { ids: ids(&group["updateidentity"]), is_category };
            assert!(update.prerequisites.contains(&group), "{group:?}");
        }
        let local = expected("l", revision);
        let text = update.text(&[]).unwrap();
        assert_eq!(text.title, local["title"]["text"].as_str().unwrap());
        assert_eq!(text.description, local["description"]["text"].as_str().unwrap());
        let more = expected("x", revision);
        assert_eq!(update.severity.unwrap().title(), more["msrcseverity"].as_str().unwrap());
        assert_eq!(update.name, format!("KB{}", more["kbarticleid"]["text"].as_str().unwrap()));
        assert!(update.articles.contains(more["securitybulletinid"]["text"].as_str().unwrap()));
        assert_eq!(update.classification, Some(Classification::Security));
        assert_eq!(update.products.len(), 1);
        assert_eq!(update.bundled_revisions.len(), 1);
    }
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

fn list(revisions: &[u32], more: &str) -> String {
    let entry = |revision: &u32| {
        format!(
            "<Update CreationDate='2026-01-01T00:00:00Z' UpdateId='x' RevisionNumber='1' RevisionId='{revision}'>\
             <Categories><Category Type='Product' Id='00000000-0000-0000-0000-000000000001'/></Categories></Update>"
        )
    };
    let entries: String = revisions.iter().map(entry).collect();
    format!("<OfflineSyncPackage><Updates>{entries}</Updates>{more}</OfflineSyncPackage>")
}

fn localized(language: &str, title: &str) -> String {
    format!(
        "<LocalizedProperties><Language>{language}</Language><Title>{title}</Title></LocalizedProperties>"
    )
}

#[tokio::test]
async fn the_parts_of_a_scan_cabinet_are_put_together() {
    let places = "<FileLocations><FileLocation Id='h/W9BGlYUAaqXTp30cZi/SiV3c0=' \
                  Url='http://files.example/a.exe'/></FileLocations>";
    let list = list(&[1, 2, 3, 4], places);
    let package = packed(&[("package.xml", list.as_bytes())]);
    let product = r#"<UpdateIdentity UpdateID="00000000-0000-0000-0000-000000000001" RevisionNumber="1"/><Properties UpdateType="Category"/><Relationships><Prerequisites><AtLeastOne IsCategory="true"><UpdateIdentity UpdateID="00000000-0000-0000-0000-000000000009"/></AtLeastOne></Prerequisites></Relationships><ApplicabilityRules><IsInstalled><True/></IsInstalled></ApplicabilityRules>"#;
    let core = r#"<UpdateIdentity UpdateID="00000000-0000-0000-0000-000000000002" RevisionNumber="5"/><Properties UpdateType="Software"/><Relationships><Prerequisites><AtLeastOne><UpdateIdentity UpdateID="00000000-0000-0000-0000-000000000001"/></AtLeastOne></Prerequisites></Relationships><ApplicabilityRules><IsInstalled><b.RegKeyExists Key="HKEY_LOCAL_MACHINE" Subkey="x"/></IsInstalled></ApplicabilityRules>"#;
    let extended = std::fs::read(data("wsus/extended-fragment-266f6222.txt")).unwrap();
    let (de, en, fr) =
        (localized("de", "Probe"), localized("en", "Demo"), localized("fr", "Essai"));
    let name = localized("en", "Tool");
    let shard = packed(&[
        ("c\\1", product.as_bytes()),
        ("c\\2", core.as_bytes()),
        ("c\\3", b"<UpdateIdentity"),
        ("l\\de\\2", de.as_bytes()),
        ("l\\en\\1", name.as_bytes()),
        ("l\\en\\2", en.as_bytes()),
        ("l\\fr\\2", fr.as_bytes()),
        ("x\\2", &extended),
        ("x\\77", b"<broken"),
    ]);
    let family = r#"<UpdateIdentity UpdateID="00000000-0000-0000-0000-000000000009" RevisionNumber="1"/><Properties UpdateType="Category"/>"#;
    let of_family = localized("en", "Acme");
    let later = packed(&[("c\\4", family.as_bytes()), ("l\\en\\4", of_family.as_bytes())]);
    let whole = packed(&[
        ("index.xml", b"<INDEX/>"),
        ("package.cab", &package),
        ("package2.cab", &shard),
        ("package3.cab", &later),
    ]);
    let site = site(&["de"]);
    let path = site.run.folder.join("scan.cab");
    std::fs::write(&path, &whole).unwrap();
    let (updates, products, read) = scan(&site, &path).await.unwrap();
    assert_eq!(read.skipped.count, 1, "{:?}", read.skipped);
    assert!(read.skipped.examples[0].contains("revision 3"));
    let update = &updates[&id("00000000-0000-0000-0000-000000000002")];
    let languages: Vec<_> = update.texts.keys().map(|it| it.as_str()).collect();
    assert_eq!(languages, ["de", "en"], "those that are wanted, and English");
    assert_eq!(update.items[0].files[0].urls, ["http://files.example/a.exe"]);
    assert!(matches!(update.items[0].handler, Some(Handler::CommandLine { .. })));
    assert_eq!(update.products, ["00000000-0000-0000-0000-000000000001".to_owned()].into());
    assert_eq!(update.created.to_string(), "2026-01-01T00:00:00Z");
    let last = products.last().unwrap();
    assert_eq!((&*last.name, &*last.family), ("Tool", "Acme"), "the family came later");
}

#[tokio::test]
async fn a_scan_cabinet_that_is_not_sound_is_refused() {
    let site = site(&[]);
    let path = site.run.folder.join("scan.cab");
    let refused = async |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        scan(&site, &path).await.unwrap_err()
    };
    let real = std::fs::read(data("wsusscn2/wsusscn2.cab")).unwrap();
    assert_eq!(refused(&real[..real.len() / 2]).await.cause, Cause::Malformed);
    assert_eq!(refused(&packed(&[("a", b"b")])).await.cause, Cause::Malformed);
    let no_list = packed(&[("package.cab", &packed(&[("other.xml", b"")]))]);
    assert_eq!(refused(&no_list).await.cause, Cause::Malformed);
    let other = packed(&[("package.cab", &packed(&[("package.xml", b"<html/>")]))]);
    assert_eq!(refused(&other).await.cause, Cause::Malformed);
    // A cabinet within itself goes no deeper than one is looked for.
    let inner = packed(&[("package.xml", list(&[1], "").as_bytes())]);
    let twice =
        packed(&[("package.cab", &inner), ("package2.cab", &packed(&[("package3.cab", &inner)]))]);
    std::fs::write(&path, twice).unwrap();
    let (updates, _, read) = scan(&site, &path).await.unwrap();
    assert_eq!((updates.len(), read.skipped.count), (0, 1));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    /// Whatever is changed in a document, it is read or refused, and what is read can be written.
    #[test]
    fn a_changed_document_is_read_or_refused(
        changes in proptest::collection::vec((0usize..14_578, 32u8..127), 1..6),
    ) {
        let mut bytes = std::fs::read(data("wsus/update-266f6222.xml")).unwrap();
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        if let Ok(read) = document::read(&String::from_utf8_lossy(&bytes), &HashMap::new()) {
            let _ = write::write(&Update { original: None, ..read.update().clone() }, 1);
        }
    }
}
