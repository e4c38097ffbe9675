//! The OpenAPI 3.1 document: what utoipa gathers from the handlers, and what all of them share.
//!
//! Answers that any operation may give (no token, no such thing, too large ...) are added here,
//! once, so that handlers list only what is their own.

use serde_json::{Value, json};
use utoipa::OpenApi;

/// The document without its paths.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "depot",
        description = "Content library, packages and distribution points.\n\n\
            Send `Authorization: Bearer TOKEN`. Errors are problem documents (RFC 9457) that name \
            the field and the fix. Lists come in pages: give `next` back as `cursor`. A request \
            that changes something may carry an `Idempotency-Key`; sent again within a day it gets \
            the same answer and has no second effect. Long work answers 202 with a job: read it, \
            follow its events, or cancel it. Content itself is served beside this interface: \
            `/content/{digest}` and `/packages/{package}/{version}/{path}` need no token.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")
    ),
    // Those that utoipa does not find by itself: parameters of generic types, results of jobs.
    components(schemas(
        crate::problem::Problem,
        crate::problem::FieldError,
        crate::views::EntryView,
        crate::views::ChangeView,
        crate::views::DiffCountsView,
        crate::views::UpdateView,
        crate::routes::sync::RunsView,
    )),
    tags(
        (name = "packages", description = "Named, versioned trees of files"),
        (name = "uploads", description = "Pushing a tree: only missing chunks travel"),
        (name = "content", description = "One file's bytes, by digest"),
        (name = "library", description = "The store below: statistics and maintenance"),
        (name = "jobs", description = "Long work"),
        (name = "points", description = "Distribution points: joining, groups, what they hold"),
        (name = "places", description = "Which clients belong to which distribution points"),
        (name = "updates", description = "The catalogue of updates: sources, sync, lists, status messages"),
        (name = "point", description = "What a distribution point itself says to its site"),
        (name = "hierarchy", description = "Child sites, update points, and where clients find these"),
        (name = "fleet", description = "Clients: who they are, who may come in, what is set for them"),
        (name = "collections", description = "Sets of clients: who is in them, when they may be worked on"),
        (name = "deployments", description = "Which updates go to whom and when, and what comes of it"),
        (name = "compliance", description = "Which updates clients need, and where that is not known"),
        (name = "client", description = "What a client itself says to its site"),
        (name = "follower", description = "What a child site or an update point itself says to its site"),
        (name = "access", description = "Tokens and the audit log"),
        (name = "server", description = "The server itself"),
    )
)]
pub struct Base;

/// An answer that many operations may give.
struct Shared {
    status: &'static str,
    when: &'static str,
    applies: fn(&Facts) -> bool,
}

/// What decides which shared answers an operation has.
struct Facts {
    secured: bool,
    /// Takes a token, not a certificate.
    token: bool,
    parameters: bool,
    names_something: bool,
    body: bool,
    changes: bool,
}

const SHARED: &[Shared] = &[
    Shared {
        status: "400",
        when: "A parameter or the body cannot be read",
        applies: |facts| facts.parameters || facts.body,
    },
    Shared { status: "401", when: "No valid token was sent", applies: |facts| facts.token },
    Shared {
        status: "403",
        when: "The token's role does not allow this",
        applies: |facts| facts.token,
    },
    Shared {
        status: "403",
        when: "The connection shows no certificate of one whom this is for",
        applies: |facts| facts.secured && !facts.token,
    },
    Shared {
        status: "404",
        when: "What the address names is not there",
        applies: |facts| facts.names_something,
    },
    Shared {
        status: "409",
        when: "The present state does not allow this, or somebody else changed it in this moment",
        applies: |facts| facts.changes,
    },
    Shared { status: "413", when: "The body is too large", applies: |facts| facts.body },
    Shared {
        status: "415",
        when: "The body has a media type that is not taken",
        applies: |facts| facts.body,
    },
    Shared {
        status: "422",
        when: "A value is not allowed, or the idempotency key was used for another request",
        applies: |facts| facts.changes,
    },
    Shared { status: "429", when: "Too many requests; see Retry-After", applies: |_| true },
    Shared { status: "500", when: "The server failed", applies: |_| true },
    Shared {
        status: "503",
        when: "Not now: it is busy, stopping, or the content is damaged; see Retry-After",
        applies: |facts| facts.secured,
    },
    Shared { status: "507", when: "The volume is full", applies: |facts| facts.changes },
];

/// Completes the document that utoipa gathered.
pub fn complete(document: utoipa::openapi::OpenApi) -> Value {
    let mut document = serde_json::to_value(document).unwrap_or_default();
    document["info"]["version"] = json!(env!("CARGO_PKG_VERSION"));
    document["components"]["securitySchemes"] = json!({
        "token": {
            "type": "http",
            "scheme": "bearer",
            "description": "A token of this site. Its role is reader, operator or admin; each \
                may do all that the one before may. An operation's scope is the least role."
        },
        "certificate": {
            "type": "mutualTLS",
            "description": "The certificate that a distribution point got when it joined. Tokens \
                do not count here."
        },
        "follower": {
            "type": "mutualTLS",
            "description": "The certificate that a child site or another update point got when it joined. \
                Tokens do not count here."
        },
        "client": {
            "type": "mutualTLS",
            "description": "The certificate that a client got when it enrolled. Tokens do not count here."
        }
    });
    let example = document["components"]["schemas"]["Problem"]["example"].clone();
    document["components"]["responses"] = json!({
        "Problem": {
            "description": "What went wrong, where, and what to do",
            "content": {
                "application/problem+json": {
                    "schema": {"$ref": "#/components/schemas/Problem"},
                    "example": example
                }
            }
        }
    });
    for (path, methods) in document["paths"].as_object_mut().into_iter().flatten() {
        for (method, operation) in methods.as_object_mut().into_iter().flatten() {
            complete_operation(path, method, operation);
        }
    }
    document
}

fn complete_operation(path: &str, method: &str, operation: &mut Value) {
    let changes = method != "get";
    let kept = changes && !operation["x-unkept"].as_bool().unwrap_or(false);
    let facts = Facts {
        secured: operation["security"].as_array().is_none_or(|needs| {
            needs.iter().any(|need| need.as_object().is_some_and(|need| !need.is_empty()))
        }),
        token: operation["security"]
            .as_array()
            .is_none_or(|needs| needs.iter().any(|need| need.get("token").is_some())),
        parameters: operation["parameters"].as_array().is_some_and(|list| !list.is_empty()),
        names_something: path.contains('{'),
        body: !operation["requestBody"].is_null(),
        changes,
    };
    if let Some(responses) = operation["responses"].as_object_mut() {
        responses.values_mut().for_each(as_problem);
        for shared in SHARED.iter().filter(|shared| (shared.applies)(&facts)) {
            responses.entry(shared.status).or_insert_with(|| {
                json!({
                    "description": shared.when,
                    "content": {
                        "application/problem+json": {
                            "schema": {"$ref": "#/components/schemas/Problem"},
                            "example": example(shared)
                        }
                    }
                })
            });
        }
    }
    if kept {
        let header = json!({
            "name": "Idempotency-Key",
            "in": "header",
            "required": false,
            "description": "Up to 255 characters that name this request. Sent again within a day \
                it gets the same answer, with `Idempotency-Replayed: true`, and no second effect.",
            "schema": {"type": "string", "minLength": 1, "maxLength": 255}
        });
        match operation["parameters"].as_array_mut() {
            Some(parameters) => parameters.push(header),
            None => operation["parameters"] = json!([header]),
        }
    }
}

/// A handler that documents a problem of its own says only which type; the media type is that of
/// all problems.
fn as_problem(response: &mut Value) {
    let json = &response["content"]["application/json"];
    if json["schema"]["$ref"] == "#/components/schemas/Problem" {
        response["content"] = json!({"application/problem+json": json.clone()});
    }
}

fn example(shared: &Shared) -> Value {
    use crate::problem::{Kind, Problem};
    let problem = match shared.status {
        "400" => Problem::malformed("limit", "must be from 1 to 1000, not 0"),
        "401" => Problem::new(
            Kind::Unauthorized,
            "no token was sent: send `Authorization: Bearer TOKEN`",
        )
        .caused_by("authorization", "must be `Bearer TOKEN`"),
        "403" => Problem::new(
            Kind::Forbidden,
            "delete_package takes the role operator, and token \"ci\" has the role reader",
        ),
        "404" => Problem::not_found("package", "docs"),
        "409" => {
            Problem::new(Kind::Conflict, "somebody else changed it at the same time: try again")
        }
        "413" => Problem::new(
            Kind::TooLarge,
            "the body has more than the 1048576 bytes that are taken here",
        )
        .caused_by("body", "must have at most 1048576 bytes"),
        "415" => Problem::new(Kind::UnsupportedMediaType, "")
            .caused_by("content-type", "must be application/json, not text/plain"),
        "422" => Problem::field("keep", "must be at least 1, not 0"),
        "429" => Problem::new(
            Kind::TooManyRequests,
            "more than 500 requests a second: slow down, or raise api.rate",
        )
        .retry_after(1),
        "503" => Problem::new(Kind::Busy, "64 jobs are waiting: try again later").retry_after(10),
        "507" => Problem::new(Kind::StorageFull, "the volume is full: free some space and retry"),
        _ => Problem::new(Kind::Internal, "cannot read the index; the server's log has more"),
    };
    serde_json::to_value(problem).unwrap_or_default()
}
