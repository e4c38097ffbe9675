//! The single conditions of a rule, asked of a machine.
//!
//! Each gives its answer and, to whoever wants to know, what the machine has that makes it so.

use super::windows;
use crate::facts::{Condition, Facts, Installed, Platform};
use crate::truth::Truth;
use std::cmp::Ordering;
use std::fmt;
use sync::apt::version;
use sync::name::UpdateId;
use sync::rpm::evr::Evr;
use sync::rule::{Comparison, PackageRule, RpmRule, Rule, Rules, WindowsRule};
use sync::update::Update;

/// What a condition stands in.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Scope<'a> {
    /// The update, where it is of one.
    pub update: Option<UpdateId>,
    /// The data beside the rules.
    pub metadata: &'a [WindowsRule],
    /// The registry key that a loop is at.
    pub target: Option<&'a str>,
}

impl<'a> Scope<'a> {
    /// That of rules of an update.
    pub fn of(update: &Update, rules: &'a Rules) -> Self {
        Self { update: Some(update.id), metadata: &rules.metadata, target: None }
    }
}

/// Takes down what a machine has, if somebody wants to know.
pub(crate) struct Tell<'t>(Option<&'t mut String>);

impl<'t> Tell<'t> {
    /// Nobody does.
    pub fn none() -> Self {
        Self(None)
    }

    /// Into this text.
    pub fn into(text: &'t mut String) -> Self {
        Self(Some(text))
    }

    /// Says it.
    pub fn say(&mut self, what: fmt::Arguments<'_>) {
        if let Some(text) = &mut self.0 {
            if !text.is_empty() {
                text.push_str("; ");
            }
            // Writing to a text cannot fail.
            let _ = fmt::Write::write_fmt(*text, what);
        }
    }
}

/// Whether all conditions of an update are on other kinds of machines. One without conditions is for all.
pub(super) fn is_for_others(update: &Update, facts: &dyn Facts) -> bool {
    let own = [&update.rules.installed, &update.rules.installable];
    let items = update.items.iter().flat_map(|it| [&it.rules.installed, &it.rules.installable]);
    let mut is_for_others = false;
    for rule in own.into_iter().chain(items).flatten() {
        match speaks_of(rule, facts.system().platform) {
            Some(true) => return false,
            Some(false) => is_for_others = true,
            None => {}
        }
    }
    is_for_others
}

/// Whether a rule has a condition on machines of this kind; none, if it has no condition.
fn speaks_of(rule: &Rule, platform: Platform) -> Option<bool> {
    match rule {
        Rule::True | Rule::False => None,
        Rule::And(parts) | Rule::Or(parts) => {
            let mut found = None;
            for part in parts {
                match speaks_of(part, platform) {
                    Some(true) => return Some(true),
                    Some(false) => found = Some(false),
                    None => {}
                }
            }
            found
        }
        Rule::Not(part) => speaks_of(part, platform),
        // Which system runs is no reason to think that anything of it is asked.
        Rule::Codename(_) | Rule::Release { .. } => {
            (platform == Platform::Windows).then_some(false)
        }
        Rule::Dpkg(_) => Some(platform == Platform::Debian),
        Rule::Rpm(_) => Some(platform == Platform::Rpm),
        Rule::Windows(_) => Some(platform == Platform::Windows),
    }
}

/// Whether a condition holds. Of what is made of conditions it is not asked.
pub(crate) fn holds(
    leaf: &Rule,
    facts: &dyn Facts,
    scope: &Scope<'_>,
    tell: &mut Tell<'_>,
) -> Truth {
    match leaf {
        Rule::Codename(name) => codename(name, facts, tell),
        Rule::Release { id, major } => release(id, major, facts, tell),
        Rule::Dpkg(rule) if facts.system().platform == Platform::Debian => dpkg(rule, facts, tell),
        Rule::Rpm(rule) if facts.system().platform == Platform::Rpm => rpm(rule, facts, tell),
        Rule::Windows(rule) => match facts.windows() {
            Some(recorded) => windows::holds(rule, recorded, scope, tell),
            None => no_such_machine(facts, tell),
        },
        _ => no_such_machine(facts, tell),
    }
}

fn no_such_machine(facts: &dyn Facts, tell: &mut Tell<'_>) -> Truth {
    tell.say(format_args!("this is {}", facts.system().platform));
    Truth::False
}

fn codename(name: &str, facts: &dyn Facts, tell: &mut Tell<'_>) -> Truth {
    let release = &facts.system().release;
    match (facts.system().platform, release.codename.as_str()) {
        (Platform::Windows, _) => no_such_machine(facts, tell),
        (Platform::Debian, "") => {
            tell.say(format_args!("os-release does not say which release the machine runs"));
            Truth::Unknown
        }
        // Systems of this family have releases without a name of that kind.
        (_, codename) => {
            tell.say(format_args!("the machine runs {}", named(codename, &release.name)));
            (codename == name).into()
        }
    }
}

fn release(id: &str, major: &str, facts: &dyn Facts, tell: &mut Tell<'_>) -> Truth {
    let release = &facts.system().release;
    match facts.system().platform {
        Platform::Windows => no_such_machine(facts, tell),
        _ if release.id.is_empty() => {
            tell.say(format_args!("os-release does not say which system the machine runs"));
            Truth::Unknown
        }
        _ => {
            tell.say(format_args!("the machine runs {} {}", release.id, release.version));
            (release.id == id && release.major() == major).into()
        }
    }
}

fn named<'a>(name: &'a str, other: &'a str) -> &'a str {
    if name.is_empty() { other } else { name }
}

fn dpkg(rule: &PackageRule, facts: &dyn Facts, tell: &mut Tell<'_>) -> Truth {
    let native = &facts.system().architecture;
    // A package for all architectures stands in for, and is replaced by, one for the machine's own.
    let fits = |package: &Installed| match rule.arch.as_deref() {
        None => true,
        Some(arch) => *package.arch == *arch || (&*package.arch == "all" && arch == native),
    };
    let Some(found) = found(&rule.name, facts, tell) else { return Truth::Unknown };
    let all = found.iter().filter(|package| fits(package));
    let order = |package: &Installed| Some(version::compare(&package.version, &rule.version));
    compared(rule, all, &order, tell)
}

fn rpm(rule: &RpmRule, facts: &dyn Facts, tell: &mut Tell<'_>) -> Truth {
    let (wanted, rule) = (rule, &rule.package);
    let Some(found) = found(&rule.name, facts, tell) else { return Truth::Unknown };
    let fits =
        |package: &&Installed| rule.arch.as_deref().is_none_or(|arch| *package.arch == *arch);
    let mut all = found.iter().filter(fits).peekable();
    if all.peek().is_none() {
        return not_installed(rule, tell);
    }
    let stream = wanted.module.as_deref().map_or(Truth::True, |stream| facts.has_stream(stream));
    if stream != Truth::True {
        let what = if stream == Truth::False { "is not enabled" } else { "may be enabled or not" };
        let stream = wanted.module.as_deref().unwrap_or_default();
        tell.say(format_args!("the module stream {stream} {what}"));
    }
    if stream == Truth::False {
        return Truth::False;
    }
    let Ok(stated) = rule.version.parse::<Evr>() else {
        tell.say(format_args!("{} is no version of an RPM package", rule.version));
        return Truth::Unknown;
    };
    let evr = |package: &Installed| package.version.parse::<Evr>().ok();
    let order = |package: &Installed| Some(evr(package)?.compare(&stated));
    let holds = if wanted.highest_only {
        let highest = all.max_by(|a, b| match (evr(a), evr(b)) {
            (Some(a), Some(b)) => a.compare(&b),
            (a, b) => a.is_some().cmp(&b.is_some()),
        });
        compared(rule, highest.into_iter(), &order, tell)
    } else {
        compared(rule, all, &order, tell)
    };
    stream.and(holds)
}

fn found<'f>(name: &str, facts: &'f dyn Facts, tell: &mut Tell<'_>) -> Option<&'f [Installed]> {
    let found = facts.system().packages.get(name);
    if found.is_none() {
        let count = facts.system().packages.unreadable();
        tell.say(format_args!(
            "{name} is not found, but {count} entries of the list of packages cannot be read"
        ));
    }
    found
}

fn not_installed(rule: &PackageRule, tell: &mut Tell<'_>) -> Truth {
    match rule.arch.as_deref() {
        Some(arch) => tell.say(format_args!("{} is not installed for {arch}", rule.name)),
        None => tell.say(format_args!("{} is not installed", rule.name)),
    }
    Truth::False
}

/// Whether one of the packages compares as stated.
fn compared<'f>(
    rule: &PackageRule,
    packages: impl Iterator<Item = &'f Installed>,
    order: &dyn Fn(&Installed) -> Option<Ordering>,
    tell: &mut Tell<'_>,
) -> Truth {
    let (mut answer, mut is_any) = (Truth::False, false);
    for package in packages {
        is_any = true;
        let order = order(package);
        tell.say(format_args!(
            "{} {} is installed{}{}, {} {}",
            rule.name,
            package.version,
            if package.condition == Condition::Unfinished { " in part" } else { "" },
            if package.is_held { " and held" } else { "" },
            order.map_or("which cannot be compared with", in_words),
            rule.version
        ));
        answer = answer.or(match (order, package.condition) {
            (None, _) => Truth::Unknown,
            (Some(order), Condition::Whole) => rule.is.holds(order).into(),
            // Some of its files may still be of the version before: only that it is too old is sure.
            (Some(order), Condition::Unfinished) => {
                let is_upper =
                    matches!(rule.is, Comparison::LessThan | Comparison::LessThanOrEqualTo);
                if is_upper && rule.is.holds(order) { Truth::True } else { Truth::Unknown }
            }
        });
    }
    if is_any { answer } else { not_installed(rule, tell) }
}

/// How an installed value stands to a stated one.
pub(super) fn in_words(order: Ordering) -> &'static str {
    match order {
        Ordering::Less => "less than",
        Ordering::Equal => "the same as",
        Ordering::Greater => "greater than",
    }
}
