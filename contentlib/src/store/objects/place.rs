//! Where a library on an object store is: its URL, and who may speak for us there.
//!
//! ```text
//! s3://BUCKET/PREFIX     Amazon S3, and what speaks like it
//! gs://BUCKET/PREFIX     Google Cloud Storage
//! az://CONTAINER/PREFIX  Azure Blob Storage
//! ```
//! Credentials and endpoints are never part of it: they come from the environment (`AWS_…`,
//! `GOOGLE_…`, `AZURE_…`), from the files of Amazon's tools ([`profile`]), or from the machine's own identity.

use super::{ObjectsError, profile};
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStore, RetryConfig};
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// Time to reach the store at all.
const CONNECT: Duration = Duration::from_secs(10);

/// A store, the prefix there below which a library is, and what that is called.
pub struct Place {
    /// The store.
    pub store: Arc<dyn ObjectStore>,
    /// Where the library is in it.
    pub prefix: Path,
    /// Both, for people.
    pub url: String,
}

/// A client of the store that `url` names.
pub(super) fn connect(url: &str) -> Result<Place, ObjectsError> {
    let malformed = |detail: &str| ObjectsError::Url { url: shown(url), detail: detail.into() };
    let parsed = Url::parse(url).map_err(|error| malformed(&error.to_string()))?;
    let has_more = parsed.query().is_some() || parsed.fragment().is_some();
    if !parsed.username().is_empty() || parsed.password().is_some() || has_more {
        return Err(malformed(
            "only a bucket and a prefix belong there; credentials come from the environment",
        ));
    }
    if parsed.host_str().is_none_or(str::is_empty) {
        return Err(malformed("it names no bucket"));
    }
    let prefix =
        Path::from_url_path(parsed.path()).map_err(|error| malformed(&error.to_string()))?;
    let failed = |error: object_store::Error| malformed(&error.to_string());
    // Only the first to say counts, and all say the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let store: Arc<dyn ObjectStore> = match parsed.scheme() {
        "s3" => {
            let builder = AmazonS3Builder::new().with_client_options(client());
            let builder = amazon().fold(builder, |builder, (key, value)| {
                key.parse().map_or(builder.clone(), |key| builder.with_config(key, value))
            });
            Arc::new(builder.with_url(url).with_retry(retry()).build().map_err(failed)?)
        }
        "gs" => {
            let builder = GoogleCloudStorageBuilder::new().with_client_options(client());
            let builder = environment("GOOGLE_").fold(builder, |builder, (key, value)| {
                key.parse().map_or(builder.clone(), |key| builder.with_config(key, value))
            });
            Arc::new(builder.with_url(url).with_retry(retry()).build().map_err(failed)?)
        }
        "az" => {
            let builder = MicrosoftAzureBuilder::new().with_client_options(client());
            let builder = environment("AZURE_").fold(builder, |builder, (key, value)| {
                key.parse().map_or(builder.clone(), |key| builder.with_config(key, value))
            });
            Arc::new(builder.with_url(url).with_retry(retry()).build().map_err(failed)?)
        }
        _ => return Err(malformed("it begins with none of s3://, gs:// and az://")),
    };
    Ok(Place { store, prefix, url: url.into() })
}

/// The URL without what may be secret in a malformed one.
fn shown(url: &str) -> String {
    match url.split_once('@') {
        Some((before, after)) => {
            let scheme = before.split_once("://").map_or("", |(scheme, _)| scheme);
            format!("{scheme}://…@{after}")
        }
        None => url.split(['?', '#']).next().unwrap_or_default().into(),
    }
}

/// How long a request takes is for [`super::requests`] to judge, by progress.
fn client() -> ClientOptions {
    ClientOptions::new().with_timeout_disabled().with_connect_timeout(CONNECT)
}

/// Refused connections and the like; what is worth more patience is tried again above.
fn retry() -> RetryConfig {
    RetryConfig { max_retries: 2, retry_timeout: Duration::from_secs(30), ..Default::default() }
}

/// Variables that say who in the machine asks; where one does, no file is asked.
const IDENTITIES: [&str; 4] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
];

/// What is set for Amazon's store: in the files of its tools, and over that in the environment.
fn amazon() -> impl Iterator<Item = (String, String)> {
    let mut filed = profile::Files::of(|name| std::env::var_os(name)).read();
    // Keys go together: never one from a file with another from elsewhere.
    if IDENTITIES.iter().any(|name| std::env::var_os(name).is_some()) {
        filed.retain(|key, _| !key.starts_with("aws_"));
    }
    filed.into_iter().chain(environment("AWS_"))
}

/// Variables of that prefix, as the crate's configuration keys are written.
fn environment(prefix: &'static str) -> impl Iterator<Item = (String, String)> {
    let all = std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)));
    all.filter(move |(key, _)| key.starts_with(prefix))
        .map(|(key, value)| (key.to_ascii_lowercase(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_bucket_and_a_prefix_and_nothing_else() {
        let Place { prefix, .. } = connect("s3://bucket/some/prefix/").unwrap();
        assert_eq!(prefix.as_ref(), "some/prefix");
        let Place { prefix, .. } = connect("s3://bucket").unwrap();
        assert_eq!(prefix.as_ref(), "");
        for bad in ["bucket", "s3:///prefix", "file:///a", "ftp://a/b", "s3://a/b//c/../../..//"] {
            assert!(connect(bad).is_err(), "{bad}");
        }
        for secret in ["s3://key:secret@bucket/a", "s3://bucket/a?secret=secret"] {
            let text = connect(secret).err().unwrap().to_string();
            assert!(!text.contains(":secret") && !text.contains("=secret"), "{text}");
        }
    }
}
