//! When something happens again: calendars in named time zones.
