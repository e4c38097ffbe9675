//! For which system the packages of a repository are.
//!
//! A repository may say so (its `distro` tags), a person may (the source's settings), and else the
//! packages tell it: who made them, and the end of their releases, as `el9` or `fc43`. A product is
//! called as the system calls itself in `os-release`, `almalinux-9`, so that rules about it can be made.

use super::primary::Package;
use super::repomd::Distro;
use crate::rule::Rule;
use crate::taxonomy::Product;

/// Systems: the `ID` of `os-release`, what it is called, a part of the vendor's name, a part of the CPE
/// name.
const SYSTEMS: [(&str, &str, &str, &str); 10] = [
    ("almalinux", "AlmaLinux", "almalinux", ":almalinux:"),
    ("rocky", "Rocky Linux", "rocky", ":rocky:"),
    ("rhel", "Red Hat Enterprise Linux", "red hat", ":redhat:enterprise_linux:"),
    ("centos", "CentOS", "centos", ":centos:"),
    ("ol", "Oracle Linux", "oracle", ":oracle:linux:"),
    ("fedora", "Fedora", "fedora", ":fedoraproject:fedora:"),
    ("amzn", "Amazon Linux", "amazon", ":amazon:amazon_linux:"),
    ("opensuse-leap", "openSUSE Leap", "opensuse", ":opensuse:leap:"),
    ("sles", "SUSE Linux Enterprise Server", "suse llc", ":suse:sles:"),
    ("bottlerocket", "Bottlerocket", "bottlerocket", ":bottlerocket:"),
];

/// The product that a person named, as `almalinux-9`.
pub fn named(id: &str) -> Product {
    let system = id.rsplit_once('-').and_then(|(system, major)| Some((find(system)?, major)));
    match system {
        Some((name, major)) => product(id, &format!("{name} {major}"), name),
        None => product(id, id, id),
    }
}

/// The product that the repository says it is for.
pub fn stated(distros: &[Distro]) -> Option<Product> {
    distros.iter().find_map(|distro| {
        let system = SYSTEMS.iter().find(|system| distro.cpe.contains(system.3))?;
        let version = distro.cpe.rsplit(system.3).next()?;
        let major: String = version.chars().take_while(char::is_ascii_digit).collect();
        (!major.is_empty()).then(|| named(&format!("{}-{major}", system.0)))
    })
}

/// The product that a package was made for, by its vendor and the end of its release.
pub fn of_package(package: &Package) -> Option<Product> {
    let vendor = package.vendor.to_ascii_lowercase();
    let by_vendor =
        |id: &str| SYSTEMS.iter().any(|system| system.0 == id && vendor.contains(system.2));
    let (mark, major) = package.evr.release.split(['.', '_', '+']).rev().find_map(|part| {
        let digits = part.find(|c: char| c.is_ascii_digit())?;
        let (mark, major) = part.split_at(digits);
        let is_major = major.len() <= 4 && major.bytes().all(|b| b.is_ascii_digit());
        (is_major && matches!(mark, "el" | "fc" | "amzn")).then_some((mark, major))
    })?;
    let id = match mark {
        "fc" => "fedora",
        "amzn" => "amzn",
        // Many are made for all systems of this family.
        _ => ["almalinux", "rocky", "rhel", "centos", "ol"]
            .into_iter()
            .find(|id| by_vendor(id))
            .unwrap_or("el"),
    };
    Some(match id {
        "el" => {
            let (id, name) = (format!("el-{major}"), format!("Enterprise Linux {major}"));
            product(&id, &name, "Enterprise Linux")
        }
        id => named(&format!("{id}-{major}")),
    })
}

/// That a machine runs the system that the product is; none if the product is no single system.
pub fn runs(product: &Product) -> Option<Rule> {
    let (id, major) = product.id.rsplit_once('-')?;
    find(id)?;
    Some(Rule::Release { id: id.into(), major: major.into() })
}

fn find(id: &str) -> Option<&'static str> {
    SYSTEMS.iter().find(|system| system.0 == id).map(|system| system.1)
}

fn product(id: &str, name: &str, family: &str) -> Product {
    Product { id: id.into(), name: name.into(), family: family.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpm::evr::Evr;

    fn made(vendor: &str, release: &str) -> Option<String> {
        let package = Package {
            name: "x".into(),
            evr: Evr::new("", "1", release).unwrap(),
            arch: "noarch".into(),
            digests: Default::default(),
            pkgid: String::new(),
            size: 0,
            href: String::new(),
            summary: String::new(),
            built: 0,
            vendor: vendor.into(),
            source: String::new(),
            is_install_only: false,
        };
        of_package(&package).map(|product| product.id)
    }

    #[test]
    fn packages_tell_what_they_are_for() {
        for (vendor, release, want) in [
            ("AlmaLinux", "8.el9_0", Some("almalinux-9")),
            ("Rocky Enterprise Software Foundation", "1.el8", Some("rocky-8")),
            ("Red Hat, Inc.", "23.module_el9.1.0+13+d9a595ea", Some("rhel-9")),
            ("Red Hat, Inc.", "23.module+el8.1.0+13+d9a595ea", Some("rhel-8")),
            ("Fedora Project", "1.fc43", Some("fedora-43")),
            ("Fedora Project", "1.el9", Some("el-9")),
            ("Amazon Linux", "3.amzn2023.0.2", Some("amzn-2023")),
            ("somebody", "1", None),
        ] {
            assert_eq!(made(vendor, release).as_deref(), want, "{vendor} {release}");
        }
    }

    #[test]
    fn a_repository_or_a_person_may_say_it() {
        let cpe = |cpe: &str| Distro { cpe: cpe.into(), name: String::new() };
        let stated = |text: &str| super::stated(&[cpe(text)]).map(|product| product.id);
        assert_eq!(stated("cpe:/o:almalinux:almalinux:9").as_deref(), Some("almalinux-9"));
        assert_eq!(stated("cpe:/o:fedoraproject:fedora:43").as_deref(), Some("fedora-43"));
        assert_eq!(stated("cpe:/o:nobody:nothing:1"), None);
        let alma = named("almalinux-9");
        assert_eq!((alma.name.as_str(), alma.family.as_str()), ("AlmaLinux 9", "AlmaLinux"));
        assert!(
            matches!(runs(&alma), Some(Rule::Release { id, major }) if id == "almalinux" && major == "9")
        );
        assert_eq!(runs(&named("our-tools")), None);
    }
}
