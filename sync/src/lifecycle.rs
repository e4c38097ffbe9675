//! From current to superseded, expired and purged: a pure decision over dates and relations.
