//! Status messages: what administrators are told, by number.

use crate::extract::Query;
use crate::page::{Page, PageQuery};
use crate::problem::Problem;
use crate::site::{Site, blocking};
use ::sync::messages::{Message, MessageId, Wanted};
use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

const LIST: &str = "status-messages";

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new().routes(routes!(list_messages))
}

/// A status message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "number": 815, "id": 6702, "severity": "informational", "component": "sync",
    "source": "debian-security", "at": "2026-11-27T03:00:04Z",
    "text": "the sync of debian-security is done: 3 new updates, 0 new revisions, 0 gone",
    "attributes": {"added": "3", "gone": "0", "revised": "0"}
}))]
pub struct MessageView {
    /// Its place in the order in which messages were written.
    pub number: u64,
    /// What it is about: 6702 is a sync that succeeded, 6703 one that failed.
    pub id: u32,
    /// How much it matters: `informational`, `warning` or `error`.
    pub severity: String,
    /// The part of the site that says it.
    pub component: String,
    /// The source of updates that it is about, if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// A sentence or two.
    pub text: String,
    /// What programs may want to know, by name.
    pub attributes: BTreeMap<String, String>,
    /// When it happened.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
}

impl From<(u64, Message)> for MessageView {
    fn from((number, message): (u64, Message)) -> Self {
        Self {
            number,
            id: message.id.0,
            severity: message.severity.as_str().to_owned(),
            component: message.component,
            source: message.source.map(|source| source.to_string()),
            text: message.text,
            attributes: message.attributes,
            at: message.at,
        }
    }
}

/// Which messages are wanted.
#[derive(Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
struct MessageQuery {
    /// Entries a page may have, from 1 to 1000.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
    /// The `next` of the page before; without it, the first page.
    cursor: Option<String>,
    /// Only those of this id.
    #[param(example = 6702)]
    id: Option<u32>,
    /// Only those that matter so much at least: `informational`, `warning` or `error`.
    severity: Option<String>,
    /// Only those about this source.
    source: Option<String>,
    /// Not before this time.
    #[param(value_type = Option<String>)]
    since: Option<Timestamp>,
    /// Before this time.
    #[param(value_type = Option<String>)]
    until: Option<Timestamp>,
}

/// List status messages
///
/// The newest first.
#[utoipa::path(get, path = "/api/v1/status-messages", tag = "updates",
    operation_id = "list_status_messages", security(("token" = ["reader"])), params(MessageQuery),
    responses((status = 200, description = "A page of messages", body = Page<MessageView>)))]
async fn list_messages(
    State(site): State<Site>,
    Query(query): Query<MessageQuery>,
) -> Result<Json<Page<MessageView>>, Problem> {
    let page = PageQuery { limit: query.limit, cursor: query.cursor };
    let limit = page.limit()?;
    let number = |text: String| {
        text.parse().map_err(|_| Problem::malformed("cursor", "is not a `next` of this list"))
    };
    let before = page.after(LIST)?.map(number).transpose()?;
    let wanted = Wanted {
        id: query.id.map(MessageId),
        severity: parsed("severity", query.severity.as_deref())?,
        source: parsed("source", query.source.as_deref())?,
        since: query.since,
        until: query.until,
    };
    let found =
        blocking(move || Ok(site.updates()?.messages().list(&wanted, before, limit + 1)?));
    let page = Page::of(LIST, found.await?, limit, |(number, _)| number.to_string());
    Ok(Json(page.map(MessageView::from)))
}

fn parsed<T: FromStr<Err: Display>>(name: &str, text: Option<&str>) -> Result<Option<T>, Problem> {
    let parse =
        |text: &str| text.parse().map_err(|e: T::Err| Problem::malformed(name, e.to_string()));
    text.map(parse).transpose()
}
