//! What a person says of an RPM repository.

use crate::error::{Cause, SyncError};
use crate::mirror::RepoPath;
use crate::openpgp::Keyring;
use crate::rpm::product;
use crate::taxonomy::Product;
use serde::{Deserialize, Serialize};
use url::Url;

/// The settings of a source, as they are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RpmSettings {
    /// The repository: the address below which `repodata/` lies, as `baseurl` of dnf.
    pub url: String,
    /// The keys that may sign `repomd.xml`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keyring: Option<Keyring>,
    /// With a keyring, whether a repository that is not signed at all is taken.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_unsigned: bool,
    /// What its packages are for, as `almalinux-9`; where it is not told, the repository is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product: Option<String>,
}

/// The same, checked.
#[derive(Clone, Debug)]
pub struct Repository {
    /// The base, with a slash at its end.
    pub base: Url,
    /// Who may sign.
    pub keyring: Option<Keyring>,
    /// Whether it must be signed.
    pub must_be_signed: bool,
    /// What a person said that it is for.
    pub product: Option<Product>,
}

impl TryFrom<&RpmSettings> for Repository {
    type Error = SyncError;
    fn try_from(settings: &RpmSettings) -> Result<Self, SyncError> {
        let wrong = |why: String| SyncError::new(Cause::Misconfigured, why);
        let mut base = Url::parse(&settings.url).map_err(|error| {
            let detail = format!("{:?} is no address of a repository", settings.url);
            SyncError::because(Cause::Misconfigured, detail, error)
        })?;
        if !matches!(base.scheme(), "http" | "https" | "file") {
            return Err(wrong(format!("{base} cannot be asked; want http, https or file")));
        }
        if !base.username().is_empty() || base.password().is_some() {
            return Err(wrong(
                "a name or password cannot be part of a repository's address".into(),
            ));
        }
        if base.query().is_some() || base.fragment().is_some() {
            return Err(wrong(format!(
                "{base} has a query or fragment, and so nothing lies below it"
            )));
        }
        if base.path().ends_with("/repodata/repomd.xml") || base.path().ends_with("/repodata") {
            return Err(wrong(format!("{base} is not the repository's base: leave out repodata")));
        }
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        let keyring = settings.keyring.clone();
        if keyring.is_none() && settings.allow_unsigned {
            return Err(wrong("allow_unsigned says nothing without a keyring".into()));
        }
        let product = match settings.product.as_deref() {
            Some(id) if !is_product(id) => {
                let want = "want letters, digits, '.' and '-', as almalinux-9";
                return Err(wrong(format!("{id:?} is no product; {want}")));
            }
            id => id.map(product::named),
        };
        let must_be_signed = keyring.is_some() && !settings.allow_unsigned;
        Ok(Self { base, keyring, must_be_signed, product })
    }
}

impl Repository {
    /// The address of what lies at `href`.
    ///
    /// A repository may name other servers (`xml:base`), but a file of this machine only where it is a
    /// folder of this machine itself, and then only one below it.
    pub fn address(&self, href: &str) -> Result<Url, SyncError> {
        let refused = || {
            let href: String = href.chars().take(200).collect();
            SyncError::new(Cause::Malformed, format!("{}: {href:?} is no place in it", self.base))
        };
        let url = self.base.join(href).map_err(|_| refused())?;
        let is_fine = match url.scheme() {
            "http" | "https" => true,
            "file" => self.base.scheme() == "file" && url.path().starts_with(self.base.path()),
            _ => false,
        };
        if is_fine { Ok(url) } else { Err(refused()) }
    }

    /// The address of what lies at `path` below the base.
    pub fn address_of(&self, path: &str) -> Result<Url, SyncError> {
        let mut url = self.base.clone();
        match url.path_segments_mut() {
            Ok(mut parts) => parts.pop_if_empty().extend(path.split('/')),
            Err(()) => {
                let detail = format!("{} can have no paths below it", self.base);
                return Err(SyncError::new(Cause::Misconfigured, detail));
            }
        };
        Ok(url)
    }

    /// The path below the base of what lies at `href`; none if it lies elsewhere.
    pub fn path(&self, href: &str) -> Option<RepoPath> {
        let url = self.base.join(href).ok()?;
        let place =
            |url: &Url| (url.scheme().to_owned(), url.host_str().map(String::from), url.port());
        let is_below =
            place(&url) == place(&self.base) && url.query().is_none() && url.fragment().is_none();
        let below = url.path().strip_prefix(self.base.path()).filter(|_| is_below)?;
        decoded(below)?.parse().ok()
    }
}

fn is_product(id: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-');
    (1..=64).contains(&id.len()) && id.bytes().all(plain)
}

/// A part of a URL without its percent-encoding (RFC 3986, section 2.1).
fn decoded(text: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let [first, after @ ..] = rest {
        rest = after;
        if *first == b'%' {
            let hex = std::str::from_utf8(rest.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(hex, 16).ok()?);
            rest = &rest[2..];
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(url: &str) -> Result<Repository, SyncError> {
        Repository::try_from(&RpmSettings { url: url.into(), ..RpmSettings::default() })
    }

    #[test]
    fn settings_that_cannot_work_are_refused() {
        for wrong in [
            "",
            "mirror/alma",
            "ftp://host/x",
            "https://user:secret@host/x",
            "http://host/x?y",
            "http://host/x/repodata/repomd.xml",
        ] {
            let error = repository(wrong).unwrap_err();
            assert_eq!(error.cause, Cause::Misconfigured, "{wrong}");
            assert!(!error.detail.contains("secret"), "{}", error.detail);
        }
        let with = |change: fn(&mut RpmSettings)| {
            let mut settings = RpmSettings { url: "http://host/x".into(), ..Default::default() };
            change(&mut settings);
            Repository::try_from(&settings)
        };
        let wrong = r#"{"url": "http://host/x", "keyring": "no key"}"#;
        assert!(serde_json::from_str::<RpmSettings>(wrong).is_err());
        assert!(with(|settings| settings.allow_unsigned = true).is_err());
        assert!(with(|settings| settings.product = Some("a b".into())).is_err());
        assert_eq!(repository("http://host/x").unwrap().base.as_str(), "http://host/x/");
    }

    #[test]
    fn what_is_listed_lies_on_servers_never_on_this_machine() {
        let alma = repository("http://host/alma/9").unwrap();
        let address = |href| alma.address(href).map(|url| url.to_string());
        assert_eq!(address("repodata/a.xml").unwrap(), "http://host/alma/9/repodata/a.xml");
        assert_eq!(address("http://cdn/a.rpm").unwrap(), "http://cdn/a.rpm");
        for wrong in ["file:///etc/passwd", "data:,x", "http://"] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
        let folder = repository("file:///srv/repo/").unwrap();
        assert!(folder.address("Packages/a.rpm").is_ok());
        assert!(folder.address("../secret").is_err());
    }

    #[test]
    fn a_path_is_one_below_the_base() {
        let alma = repository("http://host/alma/9").unwrap();
        let path = |href| alma.path(href).map(|path| path.to_string());
        assert_eq!(path("Packages/g%2B%2b-1~rc^2.rpm").unwrap(), "Packages/g++-1~rc^2.rpm");
        for wrong in
            ["../8/a.rpm", "/etc/x", "http://cdn/a.rpm", "a%2f..%2f..%2fb", "a%", "", "a?b", "a//b"]
        {
            assert_eq!(path(wrong), None, "{wrong}");
        }
    }
}
