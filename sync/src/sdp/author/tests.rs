use super::*;
use crate::sdp::{package, write};
use crate::xml;
use std::collections::BTreeSet;

const FULL: &str = r#"
        title = "Tool 2.1"
        description = "Mends a hole."
        vendor = "Acme Inc."
        product = "Tool"
        classification = "security"
        severity = "important"
        article = "900001"
        bulletin = "ACME-26-1"
        cves = ["CVE-2026-0001"]
        links = ["https://acme.example/tool"]
        supersedes = ["00000000-0000-0000-0000-000000000001"]
        prerequisites = [["00000000-0000-0000-0000-000000000002", "00000000-0000-0000-0000-000000000003"]]
        restart = "never"
        installed = """
            <b.FileVersion Path="Acme\\tool.exe" Csidl="38" Comparison="GreaterThanOrEqualTo" Version="2.1.0.0"/>"""
        [translations.de]
        title = "Werkzeug 2.1"
        description = "Schliesst eine L\u00fccke."
        [installable]
        and = [{ windows = { vocabulary = "base", name = "Processor", attributes = { Architecture = "9" } } }]
        [[files]]
        path = "/srv/tool-2.1.exe"
        url = "https://acme.example/tool-2.1.exe"
        [installer]
        kind = "command"
        program = "tool-2.1.exe"
        arguments = "/quiet"
    "#;

fn now() -> Timestamp {
    "2026-11-27T10:00:00Z".parse().unwrap()
}

fn fresh() -> UpdateId {
    UpdateId::named(&["fresh"])
}

fn measured() -> BTreeMap<String, Measured> {
    let digests = Digests::of(Algorithm::Sha1, &"1".repeat(40)).unwrap();
    let digests = digests.with(Algorithm::Sha256, &"2".repeat(64)).unwrap();
    [("/srv/tool-2.1.exe".to_owned(), Measured { size: 7, digests })].into()
}

fn full() -> Description {
    toml::from_str(FULL).unwrap()
}

fn flaws(description: &Description) -> Vec<String> {
    let flaws = build(description, &measured(), fresh(), now()).unwrap_err();
    flaws.0.into_iter().map(|it| format!("{}: {}", it.field, it.why)).collect()
}

#[test]
fn a_description_becomes_an_update_and_a_package_and_comes_back() {
    let (update, product) = build(&full(), &measured(), fresh(), now()).unwrap();
    assert_eq!((update.id, update.created), (fresh(), now()));
    assert_eq!((&*update.name, &*product.id), ("KB900001", "acme-inc.tool"));
    assert_eq!(update.texts.len(), 2);
    let item = &update.items[0];
    assert_eq!((item.files[0].size, item.files[0].urls.len()), (7, 1));
    let Some(Handler::CommandLine { codes, .. }) = &item.handler else { panic!("a program") };
    assert_eq!(
        codes.iter().map(|it| (it.code, it.restart)).collect::<Vec<_>>(),
        [(0, false), (3010, true)]
    );
    let text = write::write(&update, std::slice::from_ref(&product)).unwrap();
    let back = package::read(&xml::parse(&text).unwrap()).unwrap();
    assert_eq!(back.update, update);
    assert_eq!(back.product, Some(product));
    // The same in JSON, and from what was read.
    let json = serde_json::to_string(&full()).unwrap();
    assert_eq!(serde_json::from_str::<Description>(&json).unwrap(), full());
}

#[test]
fn issued_again_it_keeps_its_id_and_is_newer() {
    let again = Description { id: Some(fresh()), expired: true, ..full() };
    let later = "2026-12-01T00:00:00Z".parse().unwrap();
    let (update, _) = build(&again, &measured(), UpdateId::named(&["other"]), later).unwrap();
    assert_eq!((update.id, update.publication), (fresh(), Publication::Expired));
    assert!(update.created > now());
}

#[test]
fn each_flaw_names_its_field() {
    let all = flaws(&Description::default());
    let fields: Vec<_> = all.iter().map(|it| it.split(':').next().unwrap()).collect();
    let missing = [
        "title",
        "description",
        "vendor",
        "product",
        "classification",
        "files",
        "installer",
        "installed",
    ];
    assert_eq!(fields, missing, "{all:?}");

    let one = |change: &dyn Fn(&mut Description)| {
        let mut description = full();
        change(&mut description);
        flaws(&description).join("; ")
    };
    let says = |told: String, what: &str| assert!(told.starts_with(what), "{told}");
    says(one(&|it| it.title = "x".repeat(201)), "title: has 201 characters; 200 are the most");
    says(one(&|it| it.description = "x".repeat(1501)), "description: has 1501");
    says(one(&|it| it.title = "a\u{1}".into()), "title: has the character 0x1");
    says(one(&|it| it.article = Some("x".repeat(16))), "article: has 16");
    says(one(&|it| it.cves.push("2026-1".into())), "cves[1]: \"2026-1\" is none");
    says(one(&|it| it.links.push("file:///x".into())), "links[1]");
    says(
        one(&|it| it.id = it.supersedes.first().copied()),
        "supersedes: the update would replace itself",
    );
    says(one(&|it| it.prerequisites.push(BTreeSet::new())), "prerequisites[1]");
    says(
        one(&|it| it.classification = Some(Classification::Definition)),
        "classification: definition",
    );
    says(
        one(&|it| it.files[0].path = Some("/other.exe".into())),
        "files[0].path: there is no file",
    );
    says(
        one(&|it| it.files[0].name = Some("../x".into())),
        "files[0].name: \"../x\" is no plain name",
    );
    says(one(&|it| it.files[0].sha256 = Some("3".repeat(64))), "files[0].sha256: is 333");
    says(one(&|it| it.files[0].path = None), "files[0].size: is missing");
    says(one(&|it| it.files.push(it.files[0].clone())), "files[1].name: there is another");
    let wrong = |text: &str| {
        let text = text.to_owned();
        one(&move |it| it.installed = Some(RuleText::Xml(text.clone())))
    };
    says(wrong("<b.FileVersio/>"), "installed: there is no rule FileVersio");
    says(wrong("<b.FileExists/>"), "installed: the rule FileExists wants the attribute Path");
    says(wrong("<And/>"), "installed: has an And or Or with nothing");
    says(wrong("<And"), "installed: it is no well-formed XML");
    let other = Installer::Msi {
        file: "x.msi".into(),
        product_code: "1234".into(),
        arguments: String::new(),
        uninstall: None,
    };
    let told = one(&move |it| it.installer = Some(other.clone()));
    says(told.clone(), "installer.file: \"x.msi\" is none of the files");
    assert!(told.contains("installer.product-code: \"1234\" is none"), "{told}");
    assert!(
        toml::from_str::<Description>("titel = 'x'").unwrap_err().to_string().contains("titel")
    );
}

#[test]
fn windows_installer_knows_whether_its_product_is_installed() {
    let mut description = full();
    description.installed = None;
    description.installer = Some(Installer::Msi {
        file: "tool-2.1.exe".into(),
        product_code: "{FB2B7CC0-8307-47e6-A065-11015CC96B99}".into(),
        arguments: String::new(),
        uninstall: Some("/x".into()),
    });
    let (update, _) = build(&description, &measured(), fresh(), now()).unwrap();
    let Some(Rule::Windows(rule)) = &update.items[0].rules.installed else { panic!("a rule") };
    assert_eq!(rule.name, "MsiProductInstalled");
    assert!(update.behaviour.can_uninstall);
}

#[test]
fn a_file_is_measured() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    std::fs::write(&path, b"abc").unwrap();
    let found = measure(&path).unwrap();
    assert_eq!(found.size, 3);
    assert_eq!(
        found.digests.get(Algorithm::Sha1),
        Some("a9993e364706816aba3e25717850c26c9cd0d89d")
    );
    assert!(found.digests.get(Algorithm::Sha256).is_some());
}
