//! Sources: the upstreams that a site is set to read, and their settings.
