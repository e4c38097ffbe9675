//! When, how fast and in which order a point brings what it lacks.
//!
//! * [`Week`]: what may be brought at which hour, by the clock on the point's wall.
//! * [`Bucket`]: how many bytes may pass now, of a rate and a burst.
//! * `Turns`: whose bytes those are: strict priorities, and shares among equals.
//! * [`Line`]: what connections must be like for that.
//! * [`Gate`]: bucket and turns as something to wait at. Each version on its way has a [`Lane`] through it, and
//!   each piece of an answer takes a [`Turn`] before it is read.
//!
//! All but the gate are pure: the time is passed in. Time that passes is measured by a clock that is
//! never set; the hour of the week follows the one that people see.

mod bucket;
mod gate;
mod line;
mod turns;
mod week;

pub use bucket::Bucket;
pub use gate::{Answer, Gate, Lane, Turn};
pub use line::Line;
pub use week::{
    BadWeek, Change, Hours, Level, UnknownZone, Week, WeekTime, day_called, hour_and_minute,
};
