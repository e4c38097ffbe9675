//! What an advisory, or a build, is as an update.

use super::catalogue::{Build, Shared, is_retracted};
use super::primary::is_source;
use super::updateinfo::{Advisory, Fix, Reference};
use crate::digests::Digests;
use crate::name::UpdateId;
use crate::rule::{Comparison, PackageRule, RpmRule, Rule, Rules};
use crate::taxonomy::{Classification, Severity};
use crate::update::{File, Handler, Item, PackageFile, Publication, Restart, Update};
use jiff::Timestamp;
use std::cmp::Ordering;

impl Shared<'_> {
    /// The update that an advisory is.
    pub(super) fn update_of(&self, id: UpdateId, advisory: Advisory) -> Update {
        let created = advisory.issued.or(advisory.updated).unwrap_or(self.made);
        let mut update = Update::new(id, &advisory.id, title(&advisory), created);
        update.severity = severity(&advisory.severity);
        update.classification = classification(&advisory, update.severity);
        if is_retracted(&advisory) {
            update.publication = Publication::Expired;
        }
        update.articles.insert(advisory.id.clone());
        for reference in &advisory.references {
            if let Some(cve) = cve(reference) {
                update.cves.insert(cve);
            } else if is_article(reference) {
                update.articles.insert(reference.id.clone());
            }
            if reference.href.starts_with("http://") || reference.href.starts_with("https://") {
                update.links.insert(reference.href.clone());
            }
        }
        let fixes = self.fixes(&advisory.packages);
        self.fill(&mut update, &fixes);
        if advisory.wants_reboot {
            update.behaviour.restart = Restart::Always;
        }
        for text in update.texts.values_mut() {
            text.description.clone_from(&advisory.description);
        }
        update.clip();
        update
    }

    /// The update that a build of a source package is, where nobody said what it mends.
    pub(super) fn update_of_build(
        &self,
        id: UpdateId,
        name: &str,
        version: &str,
        build: Build,
    ) -> Update {
        let built = Timestamp::from_second(build.built).ok().filter(|_| build.built > 0);
        let name = format!("{name} {version}");
        let title = match build.summary.is_empty() {
            true => name.clone(),
            false => format!("{name}: {}", build.summary),
        };
        let mut update = Update::new(id, &name, &title, built.unwrap_or(self.made));
        update.classification = Some(Classification::Update);
        self.fill(&mut update, &self.fixes(&build.packages));
        update.clip();
        update
    }

    /// Of the packages that are listed, those that a machine is compared with: of each name,
    /// architecture and module stream one. Some list a package in several versions, for several releases
    /// of a system; then one that is here counts before others, and else the highest.
    pub(super) fn fixes(&self, listed: &[Fix]) -> Vec<Fix> {
        let mut fixes: Vec<(bool, Fix)> = Vec::with_capacity(listed.len());
        for fix in listed.iter().filter(|fix| !is_source(&fix.arch)) {
            let evr = fix.evr.to_string();
            let is_here = self.packages.get(&fix.name, &evr, &fix.arch).is_some();
            let module = match &fix.module {
                Some(module) => Some(module.clone()),
                None => self.modules.of(&fix.name, &evr, &fix.arch).map(Into::into),
            };
            fixes.push((is_here, Fix { module, ..fix.clone() }));
        }
        let same = |(_, a): &(bool, Fix), (_, b): &(bool, Fix)| {
            a.name
                .cmp(&b.name)
                .then_with(|| a.arch.cmp(&b.arch))
                .then_with(|| a.module.cmp(&b.module))
        };
        fixes.sort_by(|a, b| {
            same(a, b).then_with(|| b.0.cmp(&a.0)).then_with(|| b.1.evr.compare(&a.1.evr))
        });
        fixes.dedup_by(|a, b| same(a, b) == Ordering::Equal);
        fixes.into_iter().map(|(_, fix)| fix).collect()
    }

    /// Fills in what follows from the packages.
    fn fill(&self, update: &mut Update, fixes: &[Fix]) {
        update.products.extend(self.product.iter().map(|product| product.id.clone()));
        update.rules = self.rules(fixes);
        let has_kernel = fixes.iter().any(|fix| self.packages.is_install_only(&fix.name));
        update.behaviour.restart = if has_kernel { Restart::MayAsk } else { Restart::Never };
        let files: Vec<File> = fixes.iter().filter_map(|fix| self.file(fix)).collect();
        if !files.is_empty() {
            let handler = Some(Handler::Rpm);
            update.items.push(Item { handler, files, ..Item::default() });
        }
    }

    fn file(&self, fix: &Fix) -> Option<File> {
        let version = fix.evr.to_string();
        let held = self.packages.get(&fix.name, &version, &fix.arch)?;
        let url = self.repository.address(&held.href).ok()?;
        let name = url.path_segments()?.next_back()?.to_owned();
        let digests: Digests = held.digest.parse().ok()?;
        Some(File {
            name,
            size: held.size,
            digests,
            urls: vec![url.into()],
            path: self.repository.path(&held.href).map(|path| path.to_string()),
            package: Some(PackageFile { name: fix.name.clone(), version, arch: fix.arch.clone() }),
            ..File::default()
        })
    }

    /// It can be installed where one of its packages is installed in a lower version; it is where none
    /// is, and one at least in that version or a higher one. Where none is installed, neither holds.
    fn rules(&self, fixes: &[Fix]) -> Rules {
        let any = |is: Comparison| {
            Rule::Or(fixes.iter().map(|fix| Rule::Rpm(self.rule(fix, is))).collect())
        };
        let lower = any(Comparison::LessThan);
        let reached = any(Comparison::GreaterThanOrEqualTo);
        let on_it =
            |rules: Vec<Rule>| Some(Rule::And(self.runs.iter().cloned().chain(rules).collect()));
        Rules {
            installable: on_it(vec![lower.clone()]),
            installed: on_it(vec![Rule::Not(Box::new(lower)), reached]),
            ..Rules::default()
        }
    }

    fn rule(&self, fix: &Fix, is: Comparison) -> RpmRule {
        RpmRule {
            package: PackageRule {
                name: fix.name.clone(),
                arch: Some(fix.arch.clone()),
                is,
                version: fix.evr.to_string(),
            },
            module: fix.module.clone(),
            highest_only: self.packages.is_install_only(&fix.name),
        }
    }
}

/// The title, but for those that only list packages.
fn title(advisory: &Advisory) -> &str {
    let is_package = |word: &str| word.contains('-') && word.bytes().any(|b| b.is_ascii_digit());
    let says_nothing = advisory.title.split_whitespace().all(is_package);
    match (says_nothing, advisory.summary.is_empty(), advisory.title.is_empty()) {
        (true, false, _) => &advisory.summary,
        (_, true, true) => &advisory.id,
        _ => &advisory.title,
    }
}

fn severity(text: &str) -> Option<Severity> {
    Some(match text.trim().to_ascii_lowercase().as_str() {
        "critical" => Severity::Critical,
        "important" | "high" => Severity::Important,
        "moderate" | "medium" => Severity::Moderate,
        "low" => Severity::Low,
        _ => return None,
    })
}

fn classification(advisory: &Advisory, severity: Option<Severity>) -> Option<Classification> {
    if is_definition(&advisory.packages) {
        return Some(Classification::Definition);
    }
    Some(match advisory.kind.trim().to_ascii_lowercase().as_str() {
        "security" => Classification::Security,
        "bugfix" | "recommended" if severity == Some(Severity::Critical) => {
            Classification::Critical
        }
        "bugfix" | "recommended" | "unspecified" | "" => Classification::Update,
        "enhancement" | "newpackage" | "optional" | "feature" => Classification::FeaturePack,
        _ => return None,
    })
}

/// Whether all that it brings are signatures of viruses.
fn is_definition(packages: &[Fix]) -> bool {
    let is_one = |fix: &Fix| {
        matches!(
            fix.name.as_str(),
            "clamav-data" | "clamav-data-empty" | "clamav-db" | "clamav-database"
        )
    };
    let mut binaries = packages.iter().filter(|fix| !is_source(&fix.arch)).peekable();
    binaries.peek().is_some() && binaries.all(is_one)
}

/// The CVE that a reference is to: `CVE-`, a year, and four digits or more.
fn cve(reference: &Reference) -> Option<String> {
    [&reference.id, &reference.title].into_iter().find_map(|text| {
        let id = text.trim().to_ascii_uppercase();
        let (year, number) = id.strip_prefix("CVE-")?.split_once('-')?;
        let are_digits = |text: &str, few, many| {
            (few..=many).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
        };
        (are_digits(year, 4, 4) && are_digits(number, 4, 12)).then_some(id)
    })
}

/// Whether a reference is to another advisory; numbers of bugs are none.
fn is_article(reference: &Reference) -> bool {
    let id = reference.id.as_str();
    (1..=100).contains(&id.len())
        && !matches!(reference.kind.as_str(), "bugzilla" | "cve")
        && id.bytes().any(|b| b.is_ascii_alphabetic())
        && !id.bytes().any(|b| b <= b' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_distributions_become_ours() {
        let advisory = |kind: &str| Advisory { kind: kind.into(), ..Advisory::default() };
        let of = |kind: &str, severity| classification(&advisory(kind), severity);
        assert_eq!(of("security", None), Some(Classification::Security));
        assert_eq!(of("bugfix", Some(Severity::Critical)), Some(Classification::Critical));
        assert_eq!(of("recommended", None), Some(Classification::Update));
        assert_eq!(of("newpackage", None), Some(Classification::FeaturePack));
        assert_eq!(of("odd", None), None);
        assert_eq!(severity("medium"), Some(Severity::Moderate));
        assert_eq!(severity("important"), Some(Severity::Important));
        assert_eq!(severity("None"), None);
        let package = |name: &str, arch: &str| Fix {
            name: name.into(),
            evr: "1-1".parse().unwrap(),
            arch: arch.into(),
            module: None,
        };
        let mut viruses = advisory("bugfix");
        viruses.packages = vec![package("clamav-data", "noarch"), package("clamav", "src")];
        assert_eq!(classification(&viruses, None), Some(Classification::Definition));
        viruses.packages.push(package("clamav", "x86_64"));
        assert_eq!(classification(&viruses, None), Some(Classification::Update));
    }

    #[test]
    fn a_title_that_is_a_list_of_packages_gives_way_to_the_summary() {
        let of = |title: &str, summary: &str| {
            let (title, summary) = (title.into(), summary.into());
            super::title(&Advisory { title, summary, id: "X-1".into(), ..Advisory::default() })
                .to_owned()
        };
        assert_eq!(
            of("boto3-1.42-1.fc43 core-1.41-1.fc43", "boto3 bugfix update"),
            "boto3 bugfix update"
        );
        assert_eq!(
            of("Important: xz security update", "xz security update"),
            "Important: xz security update"
        );
        assert_eq!(of("boto3-1.42-1.fc43", ""), "boto3-1.42-1.fc43");
        assert_eq!(of("", ""), "X-1");
    }

    #[test]
    fn cves_are_told_from_other_references() {
        let reference = |id: &str, kind: &str| Reference {
            id: id.into(),
            kind: kind.into(),
            ..Reference::default()
        };
        assert_eq!(cve(&reference("cve-2022-1271", "cve")).as_deref(), Some("CVE-2022-1271"));
        assert_eq!(cve(&reference("1519780", "bugzilla")), None);
        assert!(is_article(&reference("RHSA-2022:4940", "rhsa")));
        assert!(!is_article(&reference("1519780", "bugzilla")));
        assert!(!is_article(&reference("1", "self")));
    }
}
