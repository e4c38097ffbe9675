//! The catalogue: which updates there are, kept in the site database.
