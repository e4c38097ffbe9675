use super::*;
use crate::applicability::{Assessor, rule_holds};
use crate::facts::recorded::Recorded;
use std::collections::{BTreeSet, HashMap};
use sync::rule::windows::{Holds, KNOWN, WindowsPart};
use sync::rule::{Rule, xml as rules};
use sync::xml;

/// A workstation, of which much is recorded.
const MACHINE: &str = r#"{
 "os": {"version": {"major": 10, "minor": 0, "build": 22631, "service-pack-major": 0, "suite-mask": 256,
   "product-type": 1}, "platform-id": 2, "language": "de-at", "platform-language": "en-us",
   "mui-languages": ["de-at", "en-us"], "clustered": false},
 "platform": {"major": 6, "minor": 2},
 "processor": {"architecture": 9, "level": 6, "revision": 1, "count": 8},
 "metrics": {"0": 1920},
 "environment": {"ProgramFiles": "C:\\Program Files"},
 "folders": {"37": "C:\\Windows\\System32"},
 "registry": {"keys": {
   "HKEY_LOCAL_MACHINE\\SOFTWARE\\Acme": {
     "Version": {"type": "REG_SZ", "data": "2.10.0"}, "Count": {"type": "REG_DWORD", "data": 7},
     "Folder": {"type": "REG_EXPAND_SZ", "data": "%ProgramFiles%\\Acme"}, "": {"type": "REG_SZ", "data": "x"}},
   "HKEY_LOCAL_MACHINE\\SOFTWARE\\Acme\\Parts\\one": {"Mark": {"type": "REG_SZ", "data": "a"}},
   "HKEY_LOCAL_MACHINE\\SOFTWARE\\Acme\\Parts\\two": {"Mark": {"type": "REG_SZ", "data": "b"}},
   "HKEY_LOCAL_MACHINE\\SOFTWARE\\Wow6432Node\\Acme": {"Version": {"type": "REG_SZ", "data": "1.0"}},
   "HKEY_LOCAL_MACHINE\\Cluster": {"Name": {"type": "REG_SZ", "data": "SQL"}}},
   "whole": ["HKEY_LOCAL_MACHINE\\SOFTWARE\\Acme", "HKEY_LOCAL_MACHINE\\SOFTWARE\\Wow6432Node\\Acme"]},
 "files": {"files": {
   "C:\\Windows\\System32\\a.dll": {"version": "4.5.5086.14005", "size": 1000, "created": "2024-05-31T00:00:00",
     "modified": "2024-06-30T00:00:00Z", "language": 1033},
   "C:\\Program Files\\Acme\\tool.exe": {"version": "2.0.0.0", "size": 5, "created": "2024-05-31T00:00:00",
     "modified": "2024-05-31T00:00:00"}},
   "whole": ["C:\\Windows\\System32"]},
 "wmi": [{"namespace": "root\\cimv2", "query": "select * from Win32_BIOS", "rows": 1},
   {"namespace": "root\\cimv2", "query": "select * from Win32_Fax", "rows": 0}],
 "queries": [{"namespace": "n", "type": "t", "parameter": "p", "value": "5"}],
 "msi": [{"code": "{AAAAAAAA-0000-0000-0000-000000000001}", "version": "2.5.0", "language": 1033,
   "patches": ["{BBBBBBBB-0000-0000-0000-000000000001}"], "features": ["Core"],
   "components": ["{CCCCCCCC-0000-0000-0000-000000000001}"]}],
 "cbs": ["Package_for_KB1~31bf3856ad364e35~amd64~~10.0.1.0"],
 "licences": {"Kernel-Edition": 4},
 "cluster": {"owns": ["the SQL disk"]},
 "devices": [{"ids": ["PCI\\VEN_1002&DEV_9900"], "driver-date": "2024-05-31", "driver-version": "1.2.0.0"}]
}"#;

fn machine() -> Recorded {
    Recorded::parse(MACHINE.as_bytes()).unwrap()
}

fn rule(fragment: &str) -> Rule {
    rules::read(&xml::parse(fragment).unwrap()).unwrap()
}

/// Rules as fragments, and whether they hold: `y`, `n`, or `?` for unknown.
const TABLE: &[(char, &str)] = &[
    (
        'y',
        r#"<b.WindowsVersion Comparison="GreaterThanOrEqualTo" MajorVersion="6" MinorVersion="1"/>"#,
    ),
    ('y', r#"<b.WindowsVersion MajorVersion="10" MinorVersion="0"/>"#),
    (
        'n',
        r#"<b.WindowsVersion Comparison="LessThan" MajorVersion="10" MinorVersion="0" BuildNumber="22631"/>"#,
    ),
    ('y', r#"<b.WindowsVersion MajorVersion="10" ProductType="1"/>"#),
    ('n', r#"<b.WindowsVersion MajorVersion="10" ProductType="3"/>"#),
    ('y', r#"<b.WindowsVersion SuiteMask="768"/>"#),
    ('n', r#"<b.WindowsVersion SuiteMask="768" AllSuitesMustBePresent="true"/>"#),
    (
        '?',
        r#"<b.WindowsVersion MajorVersion="10" MinorVersion="0" BuildNumber="22631" ServicePackMajor="0" ServicePackMinor="1"/>"#,
    ),
    ('n', r#"<b.WindowsVersion MajorVersion="6" ServicePackMinor="1"/>"#),
    ('?', r#"<b.WindowsVersion Comparison="Odd" MajorVersion="6"/>"#),
    ('y', r#"<b.PlatformVersion MajorVersion="6" MinorVersion="2"/>"#),
    ('y', r#"<b.Platform PlatformID="2"/>"#),
    ('y', r#"<b.WindowsLanguage Language="de"/>"#),
    ('n', r#"<b.WindowsLanguage Language="d"/>"#),
    ('n', r#"<b.WindowsLanguage Language="de-de"/>"#),
    ('y', r#"<b.PlatformLanguage Language="en-US"/>"#),
    ('y', r#"<b.MuiLanguageInstalled Language="en"/>"#),
    ('n', r#"<b.MuiLanguageInstalled Language="fr"/>"#),
    ('y', "<b.MuiInstalled/>"),
    ('n', "<b.ClusteredOS/>"),
    ('y', r#"<b.SystemMetric Comparison="GreaterThan" Index="0" Value="800"/>"#),
    ('?', r#"<b.SystemMetric Comparison="GreaterThan" Index="1" Value="800"/>"#),
    ('y', r#"<b.Processor Architecture="9"/>"#),
    ('n', r#"<b.Processor Architecture="9" Level="15"/>"#),
    ('y', r#"<b.NumberOfProcessors Comparison="LessThanOrEqualTo" Number="8"/>"#),
    ('y', r#"<b.FileExists Csidl="37" Path="A.dll"/>"#),
    (
        'y',
        r#"<b.FileExists Csidl="37" Path="a.dll" Version="4.5.5086.14005" Size="1000" Language="1033"/>"#,
    ),
    ('n', r#"<b.FileExists Csidl="37" Path="a.dll" Size="1001"/>"#),
    ('n', r#"<b.FileExists Csidl="37" Path="b.dll"/>"#),
    ('?', r#"<b.FileExists Csidl="36" Path="b.dll"/>"#),
    ('?', r#"<b.FileExists Path="D:\b.dll"/>"#),
    ('y', r#"<b.FileVersion Csidl="37" Path="a.dll" Comparison="LessThan" Version="4.5.5087.0"/>"#),
    ('n', r#"<b.FileVersion Csidl="37" Path="b.dll" Comparison="LessThan" Version="9.0.0.0"/>"#),
    ('?', r#"<b.FileVersion Csidl="37" Path="a.dll" Comparison="LessThan" Version="nine"/>"#),
    (
        'y',
        r#"<b.FileCreated Csidl="37" Path="a.dll" Comparison="EqualTo" Created="2024-05-31T00:00:00"/>"#,
    ),
    (
        'y',
        r#"<b.FileModified Csidl="37" Path="a.dll" Comparison="GreaterThan" Modified="2024-05-31T00:00:00"/>"#,
    ),
    ('y', r#"<b.FileSize Csidl="37" Path="a.dll" Comparison="EqualTo" Size="1000"/>"#),
    (
        'y',
        r#"<b.FileVersionPrependRegSz Path="tool.exe" Comparison="EqualTo" Version="2.0.0.0" Key="HKEY_LOCAL_MACHINE" Subkey="SOFTWARE\Acme" Value="Folder"/>"#,
    ),
    (
        'n',
        r#"<b.FileExistsPrependRegSz Path="tool.exe" Key="HKEY_LOCAL_MACHINE" Subkey="SOFTWARE\Acme" Value="None"/>"#,
    ),
    (
        '?',
        r#"<b.FileExistsPrependRegSz Path="tool.exe" Key="HKEY_LOCAL_MACHINE" Subkey="SOFTWARE\Other" Value="None"/>"#,
    ),
    (
        'y',
        r#"<b.FileSizePrependRegSz Path="tool.exe" Comparison="LessThan" Size="6" Key="HKEY_LOCAL_MACHINE" Subkey="SOFTWARE\Acme" Value="Folder"/>"#,
    ),
    (
        'y',
        r#"<b.FileCreatedPrependRegSz Path="tool.exe" Comparison="LessThan" Created="2025-01-01T00:00:00" Key="HKEY_LOCAL_MACHINE" Subkey="SOFTWARE\Acme" Value="Folder"/>"#,
    ),
    (
        'y',
        r#"<b.FileModifiedPrependRegSz Path="tool.exe" Comparison="LessThan" Modified="2025-01-01T00:00:00" Key="HKEY_LOCAL_MACHINE" Subkey="SOFTWARE\Acme" Value="Folder"/>"#,
    ),
    ('y', r#"<b.RegKeyExists Key="HKEY_LOCAL_MACHINE" Subkey="Software\Acme\Parts"/>"#),
    ('n', r#"<b.RegKeyExists Key="HKEY_LOCAL_MACHINE" Subkey="Software\Acme\Other"/>"#),
    ('?', r#"<b.RegKeyExists Key="HKEY_LOCAL_MACHINE" Subkey="Software\Other"/>"#),
    (
        'n',
        r#"<b.RegKeyExists Key="HKEY_LOCAL_MACHINE" Subkey="Software\Acme\Parts" RegType32="true"/>"#,
    ),
    (
        'y',
        r#"<b.RegValueExists Key="HKEY_LOCAL_MACHINE" Subkey="SOFTWARE\Acme" Value="Count" Type="REG_DWORD"/>"#,
    ),
    (
        'n',
        r#"<b.RegValueExists Key="HKEY_LOCAL_MACHINE" Subkey="SOFTWARE\Acme" Value="Count" Type="REG_SZ"/>"#,
    ),
    ('y', r#"<b.RegValueExists Key="HKEY_LOCAL_MACHINE" Subkey="SOFTWARE\Acme"/>"#),
    (
        'y',
        r#"<b.RegDword Key="HKEY_LOCAL_MACHINE" Subkey="SOFTWARE\Acme" Value="Count" Comparison="GreaterThan" Data="6"/>"#,
    ),
    (
        'n',
        r#"<b.RegDword Key="HKEY_LOCAL_MACHINE" Subkey="SOFTWARE\Acme" Value="Version" Comparison="GreaterThan" Data="0"/>"#,
    ),
    (
        'y',
        r#"<b.RegSz Key="HKEY_LOCAL_MACHINE" Subkey="SOFTWARE\Acme" Value="Version" Comparison="BeginsWith" Data="2."/>"#,
    ),
    (
        'n',
        r#"<b.RegSz Key="HKEY_LOCAL_MACHINE" Subkey="SOFTWARE\Acme" Value="Version" Comparison="EndsWith" Data="1"/>"#,
    ),
    (
        'y',
        r#"<b.RegSz Key="HKEY_LOCAL_MACHINE" Subkey="SOFTWARE\Acme" Value="Version" Comparison="Contains" Data="10"/>"#,
    ),
    (
        'n',
        r#"<b.RegSz Key="HKEY_LOCAL_MACHINE" Subkey="SOFTWARE\Acme" Value="Version" Comparison="EqualTo" Data="2.10.0" RegType32="true"/>"#,
    ),
    (
        'y',
        r#"<b.RegExpandSz Key="HKEY_LOCAL_MACHINE" Subkey="SOFTWARE\Acme" Value="Folder" Comparison="EqualTo" Data="c:\program files\acme"/>"#,
    ),
    (
        'y',
        r#"<b.RegSzToVersion Key="HKEY_LOCAL_MACHINE" Subkey="SOFTWARE\Acme" Value="Version" Comparison="GreaterThan" Data="2.9"/>"#,
    ),
    (
        'y',
        r#"<b.RegKeyLoop Key="HKEY_LOCAL_MACHINE" Subkey="SOFTWARE\Acme\Parts" TrueIf="Any"><b.RegSz Key="HKEY_LOOP_TARGET" Subkey="" Value="Mark" Comparison="EqualTo" Data="b"/></b.RegKeyLoop>"#,
    ),
    (
        'n',
        r#"<b.RegKeyLoop Key="HKEY_LOCAL_MACHINE" Subkey="SOFTWARE\Acme\Parts" TrueIf="All"><b.RegSz Key="HKEY_LOOP_TARGET" Subkey="" Value="Mark" Comparison="EqualTo" Data="b"/></b.RegKeyLoop>"#,
    ),
    (
        'n',
        r#"<b.RegKeyLoop Key="HKEY_LOCAL_MACHINE" Subkey="SOFTWARE\Acme\Parts" TrueIf="None"><b.RegSz Key="HKEY_LOOP_TARGET" Subkey="" Value="Mark" Comparison="EqualTo" Data="b"/></b.RegKeyLoop>"#,
    ),
    (
        'y',
        r#"<b.RegKeyLoop Key="HKEY_LOCAL_MACHINE" Subkey="SOFTWARE\Acme" TrueIf="Any"><b.RegKeyLoop Key="HKEY_LOOP_TARGET" Subkey="" TrueIf="All"><b.RegValueExists Key="HKEY_LOOP_TARGET" Subkey="" Value="Mark"/></b.RegKeyLoop></b.RegKeyLoop>"#,
    ),
    (
        '?',
        r#"<b.RegKeyLoop Key="HKEY_LOCAL_MACHINE" Subkey="SOFTWARE" TrueIf="None"><b.RegValueExists Key="HKEY_LOOP_TARGET" Subkey="" Value="Mark"/></b.RegKeyLoop>"#,
    ),
    ('y', r#"<b.WUv4RegKeyValue Key="HKEY_LOCAL_MACHINE" Subkey="SOFTWARE\Acme" Data="X"/>"#),
    (
        'y',
        r#"<b.WUv4RegKeySubstring Key="HKEY_LOCAL_MACHINE" Subkey="SOFTWARE\Acme" Value="Version" Data="10"/>"#,
    ),
    ('y', r#"<b.LicenseValueExists Value="kernel-edition"/>"#),
    ('n', r#"<b.LicenseDword Value="Other" Comparison="EqualTo" Data="4"/>"#),
    ('y', r#"<b.LicenseDword Value="Kernel-Edition" Comparison="EqualTo" Data="4"/>"#),
    ('y', r#"<b.WmiQuery Namespace="Root\cimv2" WqlQuery="SELECT * FROM Win32_BIOS"/>"#),
    ('n', r#"<b.WmiQuery WqlQuery="select * from Win32_Fax"/>"#),
    ('?', r#"<b.WmiQuery WqlQuery="select * from Win32_Disk"/>"#),
    (
        'y',
        r#"<b.ClusterResourceOwner Key="HKEY_LOCAL_MACHINE" Subkey="Cluster" Value="Name" Prefix="the " Suffix=" disk"/>"#,
    ),
    ('n', r#"<b.ClusterResourceOwner Key="HKEY_LOCAL_MACHINE" Subkey="Cluster" Value="Name"/>"#),
    (
        'y',
        r#"<b.GenericQuery Namespace="N" Type="t" Parameter="p" Comparison="LessThan" Value="10"/>"#,
    ),
    ('y', r#"<b.GenericQuery Namespace="n" Type="t" Parameter="p"/>"#),
    ('?', r#"<b.GenericQuery Namespace="n" Type="t" Parameter="q"/>"#),
    ('?', r#"<b.Memory Comparison="GreaterThan" Value="1"/>"#),
    ('?', r#"<b.FileVersion Path="x"/>"#),
    (
        'y',
        r#"<m.MsiProductInstalled ProductCode="aaaaaaaa-0000-0000-0000-000000000001" VersionMin="2.0" VersionMax="3.0"/>"#,
    ),
    (
        'n',
        r#"<m.MsiProductInstalled ProductCode="{AAAAAAAA-0000-0000-0000-000000000001}" VersionMin="2.5" ExcludeVersionMin="true"/>"#,
    ),
    (
        'n',
        r#"<m.MsiProductInstalled ProductCode="{AAAAAAAA-0000-0000-0000-000000000001}" Language="1031"/>"#,
    ),
    (
        'y',
        r#"<m.MsiPatchInstalledForProduct PatchCode="{BBBBBBBB-0000-0000-0000-000000000001}" ProductCode="{AAAAAAAA-0000-0000-0000-000000000001}"/>"#,
    ),
    (
        'n',
        r#"<m.MsiPatchInstalledForProduct PatchCode="{BBBBBBBB-0000-0000-0000-000000000002}" ProductCode="{AAAAAAAA-0000-0000-0000-000000000001}"/>"#,
    ),
    (
        'y',
        r#"<m.MsiFeatureInstalledForProduct><m.Feature>Core</m.Feature><m.Feature>More</m.Feature><m.Product>{AAAAAAAA-0000-0000-0000-000000000001}</m.Product></m.MsiFeatureInstalledForProduct>"#,
    ),
    (
        'n',
        r#"<m.MsiFeatureInstalledForProduct AllFeaturesRequired="true"><m.Feature>Core</m.Feature><m.Feature>More</m.Feature><m.Product>{AAAAAAAA-0000-0000-0000-000000000001}</m.Product></m.MsiFeatureInstalledForProduct>"#,
    ),
    (
        'y',
        r#"<m.MsiComponentInstalledForProduct><m.Component>{CCCCCCCC-0000-0000-0000-000000000001}</m.Component><m.Product>{AAAAAAAA-0000-0000-0000-000000000001}</m.Product></m.MsiComponentInstalledForProduct>"#,
    ),
    ('?', "<m.MsiPatchInstallable/>"),
    (
        'y',
        r#"<CbsPackageInstalledByIdentity PackageIdentity="package_for_kb1~31bf3856ad364e35~amd64~~10.0.1.0"/>"#,
    ),
    ('?', "<CbsPackageInstallable/>"),
    ('?', "<d.WindowsDriverInstalled/>"),
];

#[test]
fn each_rule_is_answered_by_what_is_recorded() {
    let machine = machine();
    for (want, fragment) in TABLE {
        let want = match want {
            'y' => Truth::True,
            'n' => Truth::False,
            _ => Truth::Unknown,
        };
        assert_eq!(rule_holds(&rule(fragment), &machine), want, "{fragment}");
    }
}

#[test]
fn of_a_machine_of_which_nothing_is_recorded_nothing_is_known() {
    let nothing = Recorded::default();
    for (_, fragment) in TABLE {
        assert_eq!(rule_holds(&rule(fragment), &nothing), Truth::Unknown, "{fragment}");
    }
}

#[test]
fn every_rule_of_the_published_schemas_is_asked_for() {
    let asked: BTreeSet<String> = TABLE
        .iter()
        .map(|(_, fragment)| match rule(fragment) {
            Rule::Windows(rule) => rule.name,
            other => panic!("{other:?}"),
        })
        .collect();
    let by_update = [
        "InstalledOnce",
        "MsiPatchInstalled",
        "MsiPatchSuperseded",
        "MsiApplicationInstalled",
        "MsiApplicationSuperseded",
        "MsiApplicationInstallable",
        "CbsPackageInstalled",
        "WindowsDriverSuperseded",
        "WindowsDriverInstallable",
    ];
    for known in KNOWN {
        let is_asked = asked.contains(known.name) || by_update.contains(&known.name);
        assert!(is_asked, "{} has no test", known.name);
    }
}

/// The answer to a rule of an update with that data beside it.
fn of_update(name: &str, metadata: &str, machine: &Recorded) -> Truth {
    let known = KNOWN.iter().find(|known| known.name == name).unwrap();
    let mut metadata: Vec<sync::rule::WindowsRule> = match metadata {
        "" => vec![],
        text => match rule(text) {
            Rule::Windows(rule) => vec![rule],
            other => panic!("{other:?}"),
        },
    };
    for data in &mut metadata {
        data.vocabulary = known.vocabulary.clone();
    }
    let mut update = sync::update::Update::new(
        sync::name::UpdateId::named(&["x"]),
        "x",
        "",
        jiff::Timestamp::UNIX_EPOCH,
    );
    let asked = sync::rule::WindowsRule {
        vocabulary: known.vocabulary.clone(),
        name: name.into(),
        attributes: Default::default(),
        children: vec![],
    };
    update.rules.installed = Some(Rule::Windows(asked));
    update.rules.metadata = metadata;
    Assessor::new(machine, &HashMap::new()).truths(&update).installed
}

#[test]
fn rules_that_speak_of_the_data_beside_them_are_answered_by_it() {
    let machine = machine();
    let patch = |n: u8| {
        format!(
            "<m.MsiPatchMetadata><m.MsiPatch PatchGUID=\"{{BBBBBBBB-0000-0000-0000-00000000000{n}}}\"/></m.MsiPatchMetadata>"
        )
    };
    assert_eq!(of_update("MsiPatchInstalled", &patch(1), &machine), Truth::True);
    assert_eq!(of_update("MsiPatchInstalled", &patch(2), &machine), Truth::False);
    assert_eq!(of_update("MsiPatchInstalled", "", &machine), Truth::Unknown);
    let product = "<m.MsiApplicationMetadata><m.ProductCode>AAAAAAAA-0000-0000-0000-000000000001</m.ProductCode></m.MsiApplicationMetadata>";
    assert_eq!(of_update("MsiApplicationInstalled", product, &machine), Truth::True);
    let driver = |date: &str, version: &str| {
        format!(
            r#"<d.WindowsDriverMetaData HardwareID="pci\ven_1002&amp;dev_9900" DriverVerDate="{date}T00:00:00" DriverVerVersion="{version}"/>"#
        )
    };
    for (date, version, installed, superseded, installable) in [
        ("2024-05-31", "1.2.0.0", Truth::True, Truth::False, Truth::False),
        ("2024-05-31", "1.3.0.0", Truth::False, Truth::False, Truth::True),
        ("2023-05-31", "9.0.0.0", Truth::False, Truth::True, Truth::False),
    ] {
        let offer = driver(date, version);
        assert_eq!(of_update("WindowsDriverInstalled", &offer, &machine), installed, "{offer}");
        assert_eq!(of_update("WindowsDriverSuperseded", &offer, &machine), superseded, "{offer}");
        assert_eq!(of_update("WindowsDriverInstallable", &offer, &machine), installable, "{offer}");
    }
}

#[test]
fn what_windows_itself_answers_of_an_update_is_taken_from_the_record() {
    let id = sync::name::UpdateId::named(&["x"]);
    let document = format!(
        r#"{{"answers":[{{"update":"{id}","rule":"CbsPackageInstalled","holds":true}},
            {{"update":"{id}","rule":"MsiPatchSuperseded","holds":false}}],"installed-once":["{id}"]}}"#
    );
    let machine = Recorded::parse(document.as_bytes()).unwrap();
    assert_eq!(of_update("CbsPackageInstalled", "", &machine), Truth::True);
    assert_eq!(of_update("MsiPatchSuperseded", "", &machine), Truth::False);
    assert_eq!(of_update("InstalledOnce", "", &machine), Truth::True);
    for name in ["MsiApplicationSuperseded", "MsiApplicationInstallable"] {
        assert_eq!(of_update(name, "", &machine), Truth::Unknown);
    }
}

proptest::proptest! {
    #[test]
    fn no_values_panic(
        at in 0..KNOWN.len(), values in proptest::collection::vec("[ -~äß]{0,12}", 14),
    ) {
        let known = &KNOWN[at];
        let names = known.must.iter().chain(known.may);
        let attributes = names.map(|name| (*name).to_owned()).zip(values).collect();
        let children = match known.holds {
            Holds::Rule => vec![WindowsPart::Rule(Rule::True)],
            _ => vec![],
        };
        let (vocabulary, name) = (known.vocabulary.clone(), known.name.into());
        let rule = Rule::Windows(sync::rule::WindowsRule { vocabulary, name, attributes, children });
        rule_holds(&rule, &machine());
    }
}
