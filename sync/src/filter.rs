//! Filters: which updates of the catalogue are meant.
