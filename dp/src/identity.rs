//! Who is who between a site and its points.

use crate::field::PointId;

/// Whom the certificate of a connection names. The server puts it into the extensions of each
/// request that comes over such a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// The site itself.
    Site,
    /// A distribution point.
    Point(PointId),
}
