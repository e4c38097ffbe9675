//! `depot fetch --site`: the servers that the site names for this machine.

use super::refused;
use crate::{
    exit::Failure,
    output::Out,
    package::Selected,
    transport::{path, with_tls},
    units,
};
use dp::identity::Distrust;
use dp::remote::Located;
use packager::{PackageName, Selector};
use rustls::ClientConfig;
use std::{sync::Arc, time::Duration};

/// How long a server has to show who it is.
const LOOK: Duration = Duration::from_secs(10);

/// Where the package is on each server that this machine may ask now, the nearest first.
pub async fn addresses(
    site: &str,
    package: &str,
    elapsed: Duration,
    tls: Option<&Arc<ClientConfig>>,
    out: Out,
) -> Result<Vec<String>, Failure> {
    with_tls();
    let wanted: Selected = package.parse().map_err(Failure::usage)?;
    let wrong = |error: &dyn std::fmt::Display| Failure::usage(error.to_string());
    let name: PackageName = wanted.name.parse().map_err(|error| wrong(&error))?;
    let version: Selector = wanted.version_or_latest().parse().map_err(|error| wrong(&error))?;
    let located = dp::remote::locate(site, &name, &version, elapsed, tls).await.map_err(refused)?;
    let (mut servers, told) = usable(&name, site, &located, elapsed)?;
    if tls.is_none() {
        let (believed, passed_over) = believed(servers).await;
        if !passed_over.is_empty() {
            out.note(format!(
                "passed over, since it takes HTTPS and is not believed: {}; --ca FILE names whom to \
                 believe",
                passed_over.join(", ")
            ));
        }
        if believed.is_empty() {
            let what = "no server that holds it and that this machine may ask is believed; --ca FILE \
                names whom to believe";
            return Err(Failure::failed(what));
        }
        servers = believed;
    }
    out.note(format!("{name} version {}: {told}", located.version));
    let number = located.version.to_string();
    let of = |server: &String| {
        let server = server.trim_end_matches('/');
        format!("{server}{}", path(&["packages", name.as_str(), &number]))
    };
    Ok(servers.iter().map(of).collect())
}

/// Of these servers those that are believed, as far as the system's authorities say, and those that are
/// not. One that cannot be reached now may be later.
async fn believed(servers: Vec<String>) -> (Vec<String>, Vec<String>) {
    let (mut believed, mut passed_over) = (Vec::new(), Vec::new());
    let http = reqwest::Client::builder().timeout(LOOK).build();
    for server in servers {
        let is_distrusted = match &http {
            Ok(http) if server.starts_with("https://") => {
                let health = format!("{}/healthz", server.trim_end_matches('/'));
                let asked = http.get(health).send().await;
                asked.is_err_and(|error| Distrust::of(&error).is_some())
            }
            _ => false,
        };
        if is_distrusted { passed_over.push(server) } else { believed.push(server) }
    }
    (believed, passed_over)
}

/// The servers that may be asked now, and their names in words.
fn usable(
    package: &PackageName,
    site: &str,
    located: &Located,
    elapsed: Duration,
) -> Result<(Vec<String>, String), Failure> {
    let (mut servers, mut names) = (Vec::new(), Vec::new());
    for source in located.sources.iter().filter(|source| source.usable) {
        let url = match (&source.url, &source.point) {
            (Some(url), _) => url.clone(),
            // The site is where it was asked.
            (None, None) => site.to_owned(),
            (None, Some(_)) => continue,
        };
        names.push(source.point.as_deref().unwrap_or("the site").to_owned());
        servers.push(url);
    }
    if !servers.is_empty() {
        return Ok((servers, format!("from {}", names.join(", then "))));
    }
    let client = &located.client;
    let next = located.sources.iter().map(|source| source.after).min();
    Err(Failure::failed(match next {
        Some(after) => format!(
            "no server that this machine ({client}) may ask holds it; the next may be asked in {}: \
             say with --elapsed for how long it has been looking",
            units::duration(Duration::from_secs(after).saturating_sub(elapsed))
        ),
        None => format!(
            "no server that this machine ({client}) may ask holds it; `depot locate {package} \
             --address {client} --explain` on the site tells why"
        ),
    })
    .passing())
}

#[cfg(test)]
mod tests {
    use super::*;
    use dp::remote::LocatedSource;

    fn source(url: Option<&str>, point: Option<&str>, after: u64, usable: bool) -> LocatedSource {
        let (url, point) = (url.map(str::to_owned), point.map(str::to_owned));
        LocatedSource { url, point, after, usable }
    }

    #[test]
    fn those_that_may_be_asked_now_are_asked_in_order() {
        let near = source(Some("http://192.0.2.7:80"), Some("a"), 0, true);
        let far = source(Some("http://192.0.2.8:80"), Some("b"), 1200, false);
        let here = source(None, None, 0, true);
        let mut located = Located {
            client: "10.7.3.4".into(),
            version: 3,
            sources: vec![near, far.clone(), here],
        };
        let site = "http://site.example:8520";
        let docs = &"docs".parse().expect("a name");
        let (servers, told) = usable(docs, site, &located, Duration::ZERO).expect("two");
        assert_eq!(servers, ["http://192.0.2.7:80", site]);
        assert_eq!(told, "from a, then the site");
        located.sources = vec![far];
        let failure = usable(docs, site, &located, Duration::from_secs(600)).expect_err("none yet");
        assert!(failure.message.contains("in 10 min"), "{}", failure.message);
        located.sources.clear();
        let failure = usable(docs, site, &located, Duration::ZERO).expect_err("none");
        assert!(
            failure.message.contains("depot locate docs --address 10.7.3.4 --explain"),
            "{}",
            failure.message
        );
    }
}
