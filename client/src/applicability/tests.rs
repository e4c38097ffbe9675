use super::*;
use crate::explain::explain;
use crate::facts::recorded::Recorded;
use crate::facts::{Condition, Installed, Inventory, OsRelease, Platform, System};
use jiff::Timestamp;
use proptest::prelude::*;
use sync::rule::{Comparison, PackageRule};

/// A Debian machine with these packages: name, version, architecture.
struct Machine(System);

impl Machine {
    fn with(packages: &[(&str, &str, &str)]) -> Self {
        let mut inventory = Inventory::default();
        for (name, version, arch) in packages {
            let (version, arch) = ((*version).into(), (*arch).into());
            let package = Installed { version, arch, condition: Condition::Whole, is_held: false };
            inventory.add(name, package);
        }
        let release = OsRelease { codename: "bookworm".into(), ..OsRelease::default() };
        let (platform, architecture) = (Platform::Debian, "amd64".into());
        Self(System { platform, release, packages: inventory, architecture })
    }
}

impl Facts for Machine {
    fn system(&self) -> &System {
        &self.0
    }
}

fn id(n: u32) -> UpdateId {
    UpdateId::named(&[&n.to_string()])
}

fn update(n: u32) -> Update {
    Update::new(id(n), &format!("update {n}"), "", Timestamp::UNIX_EPOCH)
}

fn dpkg(name: &str, is: Comparison, version: &str) -> Rule {
    let arch = Some("amd64".into());
    Rule::Dpkg(PackageRule { name: name.into(), arch, is, version: version.into() })
}

/// One of a package, as archives make them.
fn debian(n: u32, name: &str, version: &str) -> Update {
    let mut update = update(n);
    let lower = || dpkg(name, Comparison::LessThan, version);
    let reached = dpkg(name, Comparison::GreaterThanOrEqualTo, version);
    let on = || Rule::Codename("bookworm".into());
    update.rules.installable = Some(Rule::And(vec![on(), Rule::Or(vec![lower()])]));
    let not_lower = Rule::Not(Box::new(Rule::Or(vec![lower()])));
    update.rules.installed = Some(Rule::And(vec![on(), Rule::Or(vec![reached]), not_lower]));
    update
}

fn catalogue(updates: Vec<Update>) -> HashMap<UpdateId, Arc<Update>> {
    updates.into_iter().map(|update| (update.id, Arc::new(update))).collect()
}

fn state(machine: &Machine, update: &Update) -> State {
    Assessor::new(machine, &HashMap::new()).assess(update).state
}

fn any_of(ids: &[u32]) -> AnyOf {
    AnyOf { ids: ids.iter().map(|n| id(*n)).collect(), is_category: false }
}

/// An update whose rules say the two things.
fn told(n: u32, installed: Rule, installable: Rule) -> Update {
    let mut update = update(n);
    update.rules.installed = Some(installed);
    update.rules.installable = Some(installable);
    update
}

/// A rule that nobody can answer here.
fn unknown() -> Rule {
    let rule = r#"{"vocabulary":{"other":"urn:x"},"name":"Odd"}"#;
    Rule::Windows(serde_json::from_str(rule).unwrap())
}

#[test]
fn an_update_of_debian_is_required_where_a_package_is_older_and_installed_where_none_is() {
    let update = debian(1, "openssl", "3.0.17-1~deb12u2");
    let on =
        |version: &str, arch: &str| state(&Machine::with(&[("openssl", version, arch)]), &update);
    assert_eq!(on("3.0.11-1", "amd64"), State::Required);
    assert_eq!(on("3.0.17-1~deb12u2", "amd64"), State::Installed);
    assert_eq!(on("3.0.18-1", "amd64"), State::Installed);
    assert_eq!(on("3.0.11-1", "i386"), State::NotRequired);
    assert_eq!(on("3.0.11-1", "all"), State::Required, "it stands for the machine's own");
    assert_eq!(state(&Machine::with(&[]), &update), State::NotRequired);
    let mut other = Machine::with(&[("openssl", "3.0.11-1", "amd64")]);
    other.0.release.codename = "trixie".into();
    assert_eq!(state(&other, &update), State::NotRequired);
    other.0.release.codename.clear();
    assert_eq!(state(&other, &update), State::Unknown);
}

#[test]
fn an_installation_that_was_not_finished_never_looks_compliant() {
    let machine = |version: &str| {
        let mut machine = Machine::with(&[]);
        let (version, arch) = (version.into(), "amd64".into());
        let condition = Condition::Unfinished;
        machine.0.packages.add("a", Installed { version, arch, condition, is_held: false });
        machine
    };
    let update = debian(1, "a", "2");
    assert_eq!(state(&machine("1"), &update), State::Required);
    let verdict = Assessor::new(&machine("2"), &HashMap::new()).assess(&update);
    assert_eq!(verdict.state, State::Unknown);
    assert!(verdict.why.unwrap().contains("installed in part"));
}

#[test]
fn entries_that_cannot_be_read_make_what_is_not_found_unknown() {
    let mut machine = Machine::with(&[("a", "2", "amd64")]);
    machine.0.packages.add_unreadable();
    assert_eq!(state(&machine, &debian(1, "a", "2")), State::Installed);
    assert_eq!(state(&machine, &debian(2, "b", "2")), State::Unknown);
}

#[test]
fn an_update_that_awaits_a_restart_is_required_until_then() {
    let machine = Machine::with(&[("a", "2", "amd64")]);
    let (update, none) = (debian(1, "a", "2"), HashMap::new());
    let waiting = BTreeSet::from([update.id]);
    let verdict = Assessor::new(&machine, &none).awaiting_restart(&waiting).assess(&update);
    assert_eq!((verdict.state, verdict.awaits_restart), (State::Required, true));
    // One that is not installed at all does not wait for that.
    let update = debian(1, "a", "3");
    let verdict = Assessor::new(&machine, &none).awaiting_restart(&waiting).assess(&update);
    assert_eq!((verdict.state, verdict.awaits_restart), (State::Required, false));
}

#[test]
fn an_update_for_other_machines_is_not_required_whatever_its_rules_deny() {
    let machine = Machine::with(&[]);
    let windows =
        r#"{"vocabulary":"base","name":"RegKeyExists","attributes":{"Key":"K","Subkey":"S"}}"#;
    let windows = || Rule::Windows(serde_json::from_str(windows).unwrap());
    let foreign = told(1, windows(), Rule::Not(Box::new(windows())));
    assert_eq!(state(&machine, &foreign), State::NotRequired);
    // Where one condition is for this machine, all of it counts.
    let both = told(
        2,
        Rule::False,
        Rule::Or(vec![windows(), Rule::Not(Box::new(dpkg("a", Comparison::EqualTo, "1")))]),
    );
    assert_eq!(state(&machine, &both), State::Required);
    let recorded = Recorded::default();
    let update = debian(3, "a", "1");
    assert_eq!(Assessor::new(&recorded, &HashMap::new()).assess(&update).state, State::NotRequired);
}

#[test]
fn what_is_required_first_must_be_there() {
    let machine = Machine::with(&[("a", "1", "amd64")]);
    let mut needy = debian(1, "a", "2");
    needy.prerequisites = vec![any_of(&[2, 3]), AnyOf { ids: [id(9)].into(), is_category: true }];
    let with = |first: Rule, second: Rule| {
        let held = catalogue(vec![told(2, first, Rule::True), told(3, second, Rule::True)]);
        Assessor::new(&machine, &held).assess(&needy)
    };
    assert_eq!(with(Rule::False, Rule::True).state, State::Required);
    assert_eq!(with(Rule::False, Rule::False).state, State::NotRequired);
    let verdict = Assessor::new(&machine, &HashMap::new()).assess(&needy);
    assert_eq!(verdict.state, State::Unknown);
    assert!(verdict.why.unwrap().ends_with("is not in the catalogue"));
}

#[test]
fn a_requirement_counts_only_with_its_own() {
    let machine = Machine::with(&[("a", "1", "amd64")]);
    let mut needy = debian(1, "a", "2");
    needy.prerequisites = vec![any_of(&[2])];
    let mut middle = told(2, Rule::True, Rule::True);
    middle.prerequisites = vec![any_of(&[3])];
    for (last, want) in [(Rule::True, State::Required), (Rule::False, State::NotRequired)] {
        let held = catalogue(vec![middle.clone(), told(3, last, Rule::True)]);
        assert_eq!(Assessor::new(&machine, &held).assess(&needy).state, want);
    }
}

#[test]
fn a_chain_of_any_length_is_followed() {
    let machine = Machine::with(&[]);
    let chain = (0..50_000).map(|n| {
        let mut update = told(n, Rule::True, Rule::True);
        update.prerequisites = (n > 0).then(|| any_of(&[n - 1])).into_iter().collect();
        update
    });
    let held = catalogue(chain.collect());
    let last = held[&id(49_999)].clone();
    assert_eq!(Assessor::new(&machine, &held).assess(&last).state, State::Installed);
}

#[test]
fn each_of_a_circle_is_unknown_wherever_it_is_entered() {
    let machine = Machine::with(&[]);
    // 0 requires 1, and 1, 2, 3 each other in a ring; 4 itself.
    let links = [&[1][..], &[2], &[3], &[1, 5], &[4], &[]];
    let updates = links.iter().zip(0..).map(|(links, n)| {
        let mut update = told(n, Rule::True, Rule::True);
        update.prerequisites = links.iter().map(|n| any_of(&[*n])).collect();
        update
    });
    let held = catalogue(updates.collect());
    for first in 0..6 {
        let mut assessor = Assessor::new(&machine, &held);
        assessor.assess(&held[&id(first)]);
        let states: Vec<State> = (0..6).map(|n| assessor.assess(&held[&id(n)]).state).collect();
        use State::{Installed, Unknown};
        assert_eq!(
            states,
            [Unknown, Unknown, Unknown, Unknown, Unknown, Installed],
            "from {first}"
        );
    }
    let verdict = Assessor::new(&machine, &held).assess(&held[&id(2)]);
    assert_eq!(verdict.why.unwrap(), "it requires an update that requires it");
}

#[test]
fn a_bundle_is_what_its_parts_are() {
    let machine = Machine::with(&[]);
    let (yes, no) = (|| Rule::True, || Rule::False);
    // Of each part whether it is installed, whether it can be.
    type Parts = [(fn() -> Rule, fn() -> Rule); 3];
    let table: [(Parts, State); 6] = [
        ([(yes, yes), (no, no), (yes, no)], State::Installed),
        ([(no, no), (yes, no), (yes, yes)], State::Installed),
        ([(no, yes), (no, no), (yes, yes)], State::Required),
        ([(no, no), (no, no), (yes, yes)], State::NotRequired),
        ([(no, no), (no, no), (no, no)], State::NotRequired),
        ([(no, no), (no, no), (no, unknown)], State::Unknown),
    ];
    for (parts, want) in table {
        let mut bundle = update(0);
        // The first two are one group, of which one is enough.
        bundle.bundles = vec![any_of(&[1, 2]), any_of(&[3])];
        let parts = parts.iter().zip(1..).map(|((is, can), n)| told(n, is(), can()));
        let held = catalogue(parts.collect());
        // Rules that nobody can answer count only on a Windows machine.
        let (recorded, none) = (Recorded::default(), want == State::Unknown);
        let facts: &dyn Facts = if none { &recorded } else { &machine };
        assert_eq!(Assessor::new(facts, &held).assess(&bundle).state, want);
    }
}

#[test]
fn of_items_those_count_that_can_be_installed() {
    let item = |installed: Rule, installable: Rule, superseded: Rule| Item {
        rules: Rules {
            installed: Some(installed),
            installable: Some(installable),
            superseded: Some(superseded),
            ..Rules::default()
        },
        ..Item::default()
    };
    use Rule::{False as N, True as Y};
    let machine = Machine::with(&[]);
    let of = |items: Vec<Item>| state(&machine, &Update { items, ..update(1) });
    assert_eq!(of(vec![item(N, Y, N)]), State::Required);
    assert_eq!(of(vec![item(Y, Y, N)]), State::Installed);
    assert_eq!(of(vec![item(Y, N, N)]), State::Installed);
    assert_eq!(of(vec![item(N, Y, Y)]), State::NotRequired);
    assert_eq!(of(vec![item(Y, Y, N), item(N, N, N)]), State::Installed);
    assert_eq!(of(vec![item(Y, Y, N), item(N, Y, N)]), State::Required);
    assert_eq!(of(vec![item(N, N, N), item(N, N, N)]), State::NotRequired);
}

#[test]
fn categories_are_there_and_detectoids_are_what_their_rules_say() {
    let machine = Machine::with(&[("a", "1", "amd64")]);
    let mut needy = debian(1, "a", "2");
    needy.prerequisites = vec![any_of(&[2])];
    for (kind, want) in [(Kind::Category, State::Required), (Kind::Detectoid, State::Unknown)] {
        let held = catalogue(vec![Update { kind, ..update(2) }]);
        assert_eq!(Assessor::new(&machine, &held).assess(&needy).state, want);
    }
}

#[test]
fn an_explanation_names_what_decides() {
    let machine = Machine::with(&[("openssl", "3.0.11-1", "amd64")]);
    let none = HashMap::new();
    let mut assessor = Assessor::new(&machine, &none);
    let required = explain(&mut assessor, &debian(1, "openssl", "3.0.17-1~deb12u2"));
    let text = "openssl 3.0.11-1 is installed, less than 3.0.17-1~deb12u2";
    assert!(required.reason().contains(text), "{required}");
    let installed = explain(&mut assessor, &debian(1, "openssl", "3.0.11-1"));
    assert!(installed.reason().contains("3.0.11-1 is installed, the same as 3.0.11-1"));
    let none = explain(&mut assessor, &debian(1, "vlc", "3"));
    assert_eq!(none.reason(), "vlc is not installed for amd64");
    let drawn = required.to_string();
    assert!(drawn.starts_with("update 1 is required: "), "{drawn}");
    assert!(drawn.lines().any(|line| line.starts_with("* ") && line.contains(text)), "{drawn}");
    let json = serde_json::to_value(&required).unwrap();
    assert_eq!(json["state"], "required");
}

#[test]
fn an_explanation_of_rules_without_end_is_cut() {
    let machine = Machine::with(&[]);
    let wide = Rule::Or(vec![dpkg("a", Comparison::EqualTo, "1"); 20_000]);
    let none = HashMap::new();
    let told = explain(&mut Assessor::new(&machine, &none), &told(1, Rule::False, wide));
    assert!(told.is_cut && told.to_string().contains("more is left out"));
    assert_eq!(told.verdict.state, State::NotRequired);
}

fn truth() -> impl Strategy<Value = Truth> {
    (0..3usize).prop_map(|at| Truth::ALL[at])
}

proptest! {
    #[test]
    fn a_state_is_told_only_where_it_follows_however_the_unknown_turns_out(
        prerequisites in truth(), superseded in truth(), installed in truth(), installable in truth(),
        picks in prop::collection::vec(any::<bool>(), 4),
    ) {
        let truths = Truths { prerequisites, superseded, installed, installable };
        let pick = |truth: Truth, pick: bool| match truth {
            Truth::Unknown => Truth::from(pick),
            known => known,
        };
        let settled = Truths {
            prerequisites: pick(prerequisites, picks[0]),
            superseded: pick(superseded, picks[1]),
            installed: pick(installed, picks[2]),
            installable: pick(installable, picks[3]),
        };
        prop_assert_ne!(settled.state(), State::Unknown);
        prop_assert!(matches!(truths.state(), state if state == State::Unknown || state == settled.state()));
    }
}
