//! A tree of sites: how a catalogue comes down from a parent.
