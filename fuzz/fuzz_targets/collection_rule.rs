//! A rule of a collection, and when a maintenance window opens again, from somebody: each is read or refused, and
//! what was read reads back from what it is written as.
#![no_main]

use deployment::calendar::Recurrence;
use deployment::rule::Rule;
use jiff::civil::date;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(rule) = text.parse::<Rule>() {
        assert_eq!(rule.to_string().parse(), Ok(rule));
    }
    if let Ok(recurrence) = text.parse::<Recurrence>() {
        assert_eq!(recurrence.to_string().parse(), Ok(recurrence));
        let start = date(2026, 1, 31);
        let days: Vec<_> = recurrence.days(start, start).take(20).collect();
        assert!(days.is_sorted() && days.iter().all(|day| *day >= start));
    }
});
