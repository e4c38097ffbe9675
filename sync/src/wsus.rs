//! WSUS and Microsoft Update as an upstream, and being one for others.
