//! Third-party catalogues in the form of Updates Publisher, and making one's own updates.
