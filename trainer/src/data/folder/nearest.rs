//! The name that was probably meant by one that is not known.

/// The one of `names` that the fewest insertions, deletions and replacements make of `name`.
pub fn nearest<'a>(name: &str, names: &'a [String]) -> Option<&'a str> {
    names.iter().map(String::as_str).min_by_key(|other| distance(name, other))
}

/// Levenshtein's distance, a row at a time.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, c) in from.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, &other) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(c != other);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_keys_finds_the_name() {
        let names = ["daisy", "rose", "tulip", "große Klette"].map(String::from);
        for (name, meant) in [("rsoe", "rose"), ("tulips", "tulip"), ("grosse Klette", "große Klette")] {
            assert_eq!(nearest(name, &names), Some(meant));
        }
        assert_eq!((nearest("rose", &[]), distance("", "abc"), distance("kitten", "sitting")), (None, 3, 3));
    }
}
