//! Debian archives as an upstream.
