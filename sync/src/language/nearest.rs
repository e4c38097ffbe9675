//! The word that was probably meant.

/// The one of `words` that differs least from `text`, in either case; none, if none is near.
pub fn nearest<'a>(text: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// Longer words are no slips of the pen.
    const LONGEST: usize = 64;
    let text: Vec<char> = text.to_lowercase().chars().take(LONGEST).collect();
    let most = (text.len() / 3).max(1);
    let distances = words.into_iter().map(|word| {
        let other: Vec<char> = word.to_lowercase().chars().take(LONGEST).collect();
        (distance(&text, &other), word)
    });
    let (least, word) = distances.min_by_key(|(distance, _)| *distance)?;
    (least <= most).then_some(word)
}

/// How many letters must be put in, taken out, changed or swapped with their neighbour (optimal string
/// alignment distance).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let is_same = a[i - 1] == b[j - 1];
            row[j] = (last[j] + 1).min(row[j - 1] + 1).min(last[j - 1] + usize::from(!is_same));
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_pen_is_near_and_another_word_is_not() {
        let words = ["classification", "severity", "debian-12", "debian-13"];
        assert_eq!(nearest("clasification", words), Some("classification"));
        assert_eq!(nearest("debain-13", words), Some("debian-13"));
        assert_eq!(nearest("Severty", words), Some("severity"));
        assert_eq!(nearest("windows", words), None);
        assert_eq!(nearest("", words), None);
    }
}
