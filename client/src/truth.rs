//! The three answers to a question: no, unknown, yes (Kleene's strong logic of indeterminacy).
//!
//! They are ordered so that `and` is the least of its parts and `or` the greatest. An unknown part counts
//! only where the others leave the answer open.

use serde::{Deserialize, Serialize};
use std::ops::Not;

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Truth {
    /// No.
    False,
    /// Nobody can tell.
    Unknown,
    /// Yes.
    True,
}

impl Truth {
    /// All three.
    pub const ALL: [Truth; 3] = [Self::False, Self::Unknown, Self::True];

    /// Whether all hold; of none, all do. Asks no further once one does not.
    pub fn all(parts: impl IntoIterator<Item = Truth>) -> Self {
        let mut least = Self::True;
        for part in parts {
            least = least.min(part);
            if least == Self::False {
                break;
            }
        }
        least
    }

    /// Whether one holds; of none, none does. Asks no further once one does.
    pub fn any(parts: impl IntoIterator<Item = Truth>) -> Self {
        let mut greatest = Self::False;
        for part in parts {
            greatest = greatest.max(part);
            if greatest == Self::True {
                break;
            }
        }
        greatest
    }

    /// Both hold.
    pub fn and(self, other: Self) -> Self {
        self.min(other)
    }

    /// One of them holds.
    pub fn or(self, other: Self) -> Self {
        self.max(other)
    }

    /// What it may turn out to be.
    pub fn outcomes(self) -> &'static [bool] {
        match self {
            Self::False => &[false],
            Self::Unknown => &[false, true],
            Self::True => &[true],
        }
    }
}

impl Not for Truth {
    type Output = Self;
    fn not(self) -> Self {
        match self {
            Self::False => Self::True,
            Self::Unknown => Self::Unknown,
            Self::True => Self::False,
        }
    }
}

impl From<bool> for Truth {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

impl From<Option<bool>> for Truth {
    /// None is unknown.
    fn from(holds: Option<bool>) -> Self {
        holds.map_or(Self::Unknown, Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Truth::{False, True, Unknown};

    #[test]
    fn the_tables_are_kleenes() {
        assert_eq!(Unknown.and(False), False);
        assert_eq!(Unknown.and(True), Unknown);
        assert_eq!(Unknown.or(True), True);
        assert_eq!(Unknown.or(False), Unknown);
        assert_eq!(!Unknown, Unknown);
        assert_eq!((Truth::all([]), Truth::any([])), (True, False));
    }

    #[test]
    fn an_answer_that_is_known_is_the_same_however_the_unknown_turns_out() {
        for a in Truth::ALL {
            for b in Truth::ALL {
                let pairs = a.outcomes().iter().flat_map(|a| b.outcomes().iter().map(|b| (*a, *b)));
                for (x, y) in pairs {
                    for (told, was) in [(a.and(b), x && y), (a.or(b), x || y), (!a, !x)] {
                        assert!(told == Unknown || told == Truth::from(was), "{a:?} {b:?}");
                    }
                }
            }
        }
    }
}
