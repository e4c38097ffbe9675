//! The sync machine: runs sources through their stages, one after the other or side by side.
