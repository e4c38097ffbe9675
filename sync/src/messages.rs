//! Status messages: what administrators are told, by number, and for how long it is kept.
