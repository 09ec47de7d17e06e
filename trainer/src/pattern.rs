//! Names by pattern, as shells have them: of files, where a shell leaves `'dir/train-*'` as it is, and of layers.

/// Whether `text` has anything that stands for other characters.
pub fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// Whether `name` fits `pattern`: `*` stands for any characters, `?` for one, `[0-3x]` for one of those.
pub fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    // Where the last `*` was, and how much of the name it has swallowed so far.
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        match one(&pattern[p..], name[n]) {
            Some(Step::Star) => {
                star = Some((p + 1, n));
                p += 1;
            }
            Some(Step::Past(length)) => {
                p += length;
                n += 1;
            }
            None => {
                let Some((after, swallowed)) = star else { return false };
                star = Some((after, swallowed + 1));
                (p, n) = (after, swallowed + 1);
            }
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

enum Step {
    Star,
    /// The character fits, and so many of the pattern stood for it.
    Past(usize),
}

fn one(pattern: &[char], c: char) -> Option<Step> {
    match pattern.first()? {
        '*' => Some(Step::Star),
        '?' => Some(Step::Past(1)),
        '[' if pattern.contains(&']') => {
            let end = pattern.iter().position(|&p| p == ']')?;
            let mut set = &pattern[1..end];
            while let Some((&first, rest)) = set.split_first() {
                let (last, rest) = match rest {
                    ['-', last, rest @ ..] => (*last, rest),
                    _ => (first, rest),
                };
                if (first..=last).contains(&c) {
                    return Some(Step::Past(end + 1));
                }
                set = rest;
            }
            None
        }
        &literal => (literal == c).then_some(Step::Past(1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, name, fits) in [
            ("train-*", "train-00000-of-00004", true),
            ("train-*", "validation-00000-of-00004", false),
            ("*-of-*", "train-00000-of-00004", true),
            ("train-0000[0-2]-of-*", "train-00001-of-00004", true),
            ("train-0000[0-2]-of-*", "train-00003-of-00004", false),
            ("train-0000[13]*", "train-00003-of-00004", true),
            ("train-0000?-of-00004", "train-00003-of-00004", true),
            ("*", "", true),
            ("**a*", "bca", true),
            ("?", "ü", true),
            ("a[b", "a[b", true),
            ("", "a", false),
            ("a", "", false),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }
}
