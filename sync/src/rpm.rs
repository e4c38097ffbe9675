//! RPM repositories as an upstream.
