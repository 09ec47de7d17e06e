//! The name that was probably meant by one that is not known.

use tallow_models::edit_distance;

/// The one of `names` that the fewest insertions, deletions and replacements make of `name`.
pub fn nearest<'a>(name: &str, names: &'a [String]) -> Option<&'a str> {
    names.iter().map(String::as_str).min_by_key(|other| edit_distance(name, other))
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
        let distances = (edit_distance("", "abc"), edit_distance("kitten", "sitting"));
        assert_eq!((nearest("rose", &[]), distances), (None, (3, 3)));
    }
}
