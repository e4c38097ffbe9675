//! Joining: a token, once, for an identity that lasts.

use super::PointId;
use packager::sign::PublicKey;
use serde::{Deserialize, Serialize};

/// What a machine that wants to be a distribution point sends.
#[derive(Clone, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The token's secret, in hex.
    pub secret: String,
    /// A certificate signing request in PEM (PKCS #10, RFC 2986): the point's own key, which never
    /// leaves its machine.
    pub request: String,
}

/// What the site answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JoinAnswer {
    /// Who the point is from now on.
    pub id: PointId,
    /// What people call it.
    pub name: String,
    /// Its certificate, in PEM.
    pub certificate: String,
    /// The site's authority, in PEM.
    pub authority: String,
    /// What versions of packages are signed with.
    pub key: PublicKey,
    /// Where the site can be reached.
    pub sites: Vec<String>,
}
