//! Whom a client should ask: for people, who name its address, and for the client itself, which is
//! known by the address that it asks from.
//!
//! What stands in a header of a proxy (`Forwarded`, RFC 7239) does not count, here as everywhere:
//! anybody could write it. Behind a proxy clients are where the proxy is.

use crate::audit::AuditRecord;
use crate::auth::{Identity, Role};
use crate::extract::{Params, Query, parse_field};
use crate::fleet::policy::content_address;
use crate::problem::Problem;
use crate::site::{Ledger, Site, blocking};
use axum::Json;
use axum::extract::{Extension, Request, State};
use axum::http::header;
use dp::identity::OverTls;
use dp::locate::{Client, Located, PassedOver, Source, Why};
use dp::registry::{Ask, Demanded};
use jiff::Timestamp;
use packager::PackageName;
use packager::name::Selector;
use packager::sign::VersionInfo;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// How long a client's answer may be kept: who holds what changes by the minute.
const KEPT: &str = "private, max-age=30";

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new().routes(routes!(locate)).routes(routes!(sources))
}

/// Somebody whom a client may ask for a version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "url": "http://192.0.2.7:8520", "point": "branch-7", "why": "neighbour", "group": "lyon",
    "of": "paris", "after": 1200, "usable": false
}))]
pub struct LocatedSourceView {
    /// Where it is reached: what is below is as on any content plane. Absent if the site does not
    /// know where it itself is.
    #[serde(default)]
    pub url: Option<String>,
    /// The point's name; absent for the site.
    #[serde(default)]
    pub point: Option<String>,
    /// Why here: it is of the client's `group`, of a `neighbour` of it, of the `default` group, or the
    /// `site`.
    pub why: String,
    /// The boundary group that it is of; absent for the site.
    #[serde(default)]
    pub group: Option<String>,
    /// The client's group that this is a neighbour of.
    #[serde(default)]
    pub of: Option<String>,
    /// When it may be asked, in seconds since the client began to look.
    pub after: u64,
    /// Whether that time has come.
    pub usable: bool,
}

/// A point, or the site, that a client is not sent to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "point": "branch-8", "why": "group", "group": "paris", "of": null,
    "because": "has not reported for 7 min"
}))]
pub struct PassedOverView {
    /// The point's name; absent for the site.
    #[serde(default)]
    pub point: Option<String>,
    /// Why it might have been on the list; absent if nothing speaks for it.
    #[serde(default)]
    pub why: Option<String>,
    /// The boundary group that it is of.
    #[serde(default)]
    pub group: Option<String>,
    /// The client's group that this is a neighbour of.
    #[serde(default)]
    pub of: Option<String>,
    /// Why it is not.
    pub because: String,
}

/// What is done so that a version comes near to a client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"state": "asked", "point": "branch-7", "group": null}))]
pub struct DemandedView {
    /// `held`: a point of the client's groups has it. `off`: none has, and these bring nothing on
    /// demand. `coming`: the point is to bring it already. `asked`: it is told to, or would be.
    /// `nobody`: no point of the group is there that could serve the client and has the room.
    pub state: String,
    /// The point.
    #[serde(default)]
    pub point: Option<String>,
    /// The group.
    #[serde(default)]
    pub group: Option<String>,
}

/// Where a client is, and whom it should ask.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "client": "10.7.3.4", "boundaries": ["10.7.0.0/16"], "groups": ["paris"], "package": "docs",
    "version": 3, "sources": [
        {"url": "http://192.0.2.7:8520", "point": "branch-7", "why": "group", "group": "paris",
         "of": null, "after": 0, "usable": true},
        {"url": "http://site.example:8520", "point": null, "why": "site", "group": null, "of": null,
         "after": 0, "usable": true}],
    "on_demand": {"state": "held", "point": null, "group": null}, "passed_over": []
}))]
pub struct LocatedView {
    /// The client's address.
    pub client: String,
    /// The boundaries that count for it: the smallest that have it.
    pub boundaries: Vec<String>,
    /// The boundary groups that it belongs to.
    pub groups: Vec<String>,
    /// The package, if it was asked about one.
    #[serde(default)]
    pub package: Option<String>,
    /// The version that is meant.
    #[serde(default)]
    pub version: Option<u64>,
    /// Whom it should ask, in this order.
    pub sources: Vec<LocatedSourceView>,
    /// What is done if none of its groups holds it.
    #[serde(default)]
    pub on_demand: Option<DemandedView>,
    /// Whom it is not sent to, if an explanation was asked for.
    #[serde(default)]
    pub passed_over: Vec<PassedOverView>,
}

/// Whom a client should ask for a version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "client": "10.7.3.4", "package": "docs", "version": 3, "sources": [
        {"url": "http://192.0.2.7:8520", "point": "branch-7", "why": "group", "group": "paris",
         "of": null, "after": 0, "usable": true}]
}))]
pub struct SourcesView {
    /// The client's address, as it is seen here.
    pub client: String,
    /// The package.
    pub package: String,
    /// The version that is meant: each source has it under this number.
    pub version: u64,
    /// Whom it should ask, in this order.
    pub sources: Vec<LocatedSourceView>,
}

/// `why`, `group` and `of`.
fn words(why: &Why) -> (String, Option<String>, Option<String>) {
    match why {
        Why::Group(group) => ("group".into(), Some(group.to_string()), None),
        Why::Neighbour { of, group } => {
            ("neighbour".into(), Some(group.to_string()), Some(of.to_string()))
        }
        Why::Default(group) => ("default".into(), Some(group.to_string()), None),
        Why::Site => ("site".into(), None, None),
    }
}

fn source(source: Source, site: &Option<String>) -> LocatedSourceView {
    let (why, group, of) = words(&source.why);
    let (url, point) = match source.point {
        Some(place) => (Some(place.base), Some(place.name.to_string())),
        None => (site.clone(), None),
    };
    let (after, usable) = (source.after.as_secs(), source.is_usable);
    LocatedSourceView { url, point, why, group, of, after, usable }
}

impl From<PassedOver> for PassedOverView {
    fn from(passed: PassedOver) -> Self {
        let because = passed.because.to_string();
        let point = passed.point.map(|(_, name)| name.to_string());
        match passed.why.as_ref().map(words) {
            Some((why, group, of)) => Self { point, why: Some(why), group, of, because },
            None => Self { point, why: None, group: None, of: None, because },
        }
    }
}

impl From<Demanded> for DemandedView {
    fn from(demanded: Demanded) -> Self {
        let (state, point, group) = match demanded {
            Demanded::Held => ("held", None, None),
            Demanded::Off => ("off", None, None),
            Demanded::OnTheWay(point) => ("coming", Some(point.to_string()), None),
            Demanded::Asked(point) => ("asked", Some(point.to_string()), None),
            Demanded::Nobody(group) => ("nobody", None, Some(group.to_string())),
        };
        Self { state: state.into(), point, group }
    }
}

/// The client's address from its text.
fn address_of(text: &str) -> Result<IpAddr, Problem> {
    let detail = format!("{text:?} is none of IPv4 or IPv6; want for example 10.7.3.4");
    text.parse().map_err(|_| Problem::malformed("address", detail))
}

/// Which client looks for what.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct LocateQuery {
    /// The client's address.
    #[param(example = "10.7.3.4")]
    address: String,
    /// The package; without it, the answer is for one that all points hold.
    package: Option<String>,
    /// Which of its versions: a number, `latest`, or a channel.
    #[param(default = "latest")]
    version: Option<String>,
    /// For how many seconds the client has been looking.
    #[param(default = 0)]
    elapsed: Option<u64>,
    /// Whether those it is not sent to are told of, too.
    #[param(default = false)]
    explain: Option<bool>,
}

/// Say whom a client should ask
///
/// As the client itself would be told, but for what is brought on demand: that is told, and not done.
#[utoipa::path(get, path = "/api/v1/locate", tag = "places", operation_id = "locate",
    security(("token" = ["reader"])), params(LocateQuery),
    responses((status = 200, description = "Where it is, and whom it should ask",
            body = LocatedView),
        (status = 404, description = "The package or version is not there", body = Problem)))]
async fn locate(
    State(site): State<Site>,
    Query(query): Query<LocateQuery>,
    request: Request,
) -> Result<Json<LocatedView>, Problem> {
    let address: IpAddr = address_of(&query.address)?;
    let package: Option<PackageName> =
        query.package.as_deref().map(|text| parse_field("package", text)).transpose()?;
    let version: Selector = parse_field("version", query.version.as_deref().unwrap_or("latest"))?;
    let client = Client { address, elapsed: Duration::from_secs(query.elapsed.unwrap_or(0)) };
    let explain = query.explain.unwrap_or(false);
    let here = content_address(&site).or_else(|| asked_url(&request));
    let located = blocking(move || {
        let (ledger, now) = (site.ledger()?, Timestamp::now());
        let registry = &ledger.registry;
        let content = package.is_some().then(|| site.content()).transpose()?;
        let info = match (&content, &package) {
            (Some(content), Some(package)) => Some(content.packages.resolve(package, &version)?),
            _ => None,
        };
        let mut located = registry.locate(client, info.as_ref(), now)?;
        let mut on_demand = None;
        if let (Some(content), Some(info)) = (&content, &info) {
            let demanded = registry.demand(&located, info, &content.packages, now, Ask::WhatIf)?;
            on_demand = Some(demanded.into());
            if explain {
                let elsewhere = registry.elsewhere(&located, info)?;
                located.passed_over.extend(elsewhere);
            }
        }
        let passed_over = if explain { std::mem::take(&mut located.passed_over) } else { vec![] };
        Ok(LocatedView {
            client: located.client.to_string(),
            boundaries: located.boundaries.iter().map(ToString::to_string).collect(),
            groups: located.groups.iter().map(ToString::to_string).collect(),
            package: info.as_ref().map(|info| info.package.to_string()),
            version: info.as_ref().map(|info| info.version),
            sources: located.sources.into_iter().map(|one| source(one, &here)).collect(),
            on_demand,
            passed_over: passed_over.into_iter().map(PassedOverView::from).collect(),
        })
    });
    Ok(Json(located.await?))
}

/// How long a client has been looking.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ElapsedQuery {
    /// For how many seconds.
    #[param(default = 0)]
    elapsed: Option<u64>,
}

/// Say whom the client that asks should ask
///
/// By the address that it asks from. No token is needed. What none of its points holds may be brought
/// to one of them on demand, where its boundary group says so.
#[utoipa::path(get, path = "/locate/{package}/{version}", tag = "places",
    operation_id = "locate_sources", security(()), params(
        ("package" = String, Path, description = "The package", example = "docs"),
        ("version" = String, Path, description = "A number, `latest`, or a channel",
            example = "latest"), ElapsedQuery),
    responses((status = 200, description = "Whom it should ask", body = SourcesView)))]
async fn sources(
    State(site): State<Site>,
    peer: Option<Extension<SocketAddr>>,
    Query(query): Query<ElapsedQuery>,
    params: Params,
    request: Request,
) -> Result<([(&'static str, &'static str); 1], Json<SourcesView>), Problem> {
    let package: PackageName = params.get("package")?;
    let version: Selector = params.get("version")?;
    // Without a connection it is this process that asks.
    let this = IpAddr::from([127, 0, 0, 1]);
    let address = peer.map_or(this, |Extension(peer)| peer.ip());
    let client = Client { address, elapsed: Duration::from_secs(query.elapsed.unwrap_or(0)) };
    let here = asked_url(&request).or_else(|| content_address(&site));
    let answer = blocking(move || {
        let (ledger, now) = (site.ledger()?, Timestamp::now());
        let packages = site.content()?.packages;
        let info = packages.resolve(&package, &version)?;
        let located = ledger.registry.locate(client, Some(&info), now)?;
        // What cannot be brought keeps nobody from the list.
        match ledger.registry.demand(&located, &info, &packages, now, Ask::Really) {
            Ok(Demanded::Asked(point)) => {
                record(&ledger, &located, &info, &format!("point/{point}"))?;
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "nothing was brought on demand"),
        }
        Ok(SourcesView {
            client: located.client.to_string(),
            package: info.package.to_string(),
            version: info.version,
            sources: located.sources.into_iter().map(|one| source(one, &here)).collect(),
        })
    });
    Ok(([("cache-control", KEPT)], Json(answer.await?)))
}

/// Records that something was distributed because a client asked for it.
fn record(
    ledger: &Ledger,
    located: &Located,
    version: &VersionInfo,
    to: &str,
) -> Result<(), Problem> {
    let who = Identity { name: "on demand".into(), token: None, role: Role::Reader };
    let target = format!("{}@{} to {to}", version.package, version.version);
    let mut record = AuditRecord::new(&who, "assign", target, 200);
    record.from = Some(located.client);
    let groups: Vec<&str> = located.groups.iter().map(|name| name.as_str()).collect();
    record.detail = Some(format!("for clients of {}", groups.join(", ")));
    Ok(ledger.audit.write(&record)?)
}

/// Where whoever asks reaches the site.
fn asked_url(request: &Request) -> Option<String> {
    let host = asked_host(request)?;
    let is_plain = request.extensions().get::<OverTls>().is_none();
    let scheme = if is_plain { "http" } else { "https" };
    Some(format!("{scheme}://{host}"))
}

/// The host and port by which whoever asks reaches the site.
pub(crate) fn asked_host(request: &Request) -> Option<String> {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let authority = request.uri().authority().map(|authority| authority.as_str());
    let host: axum::http::uri::Authority = host.or(authority)?.parse().ok()?;
    (!host.as_str().contains('@')).then(|| host.to_string())
}
