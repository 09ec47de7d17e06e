//! The first host of a Slurm node list, such as `gpu[07-09,12],login1`.

/// The first host that `list` names; `None` where it names none or is not closed.
pub(crate) fn first_host(list: &str) -> Option<String> {
    let mut host = String::new();
    let mut rest = list.trim();
    loop {
        let end = rest.find(['[', ',']).unwrap_or(rest.len());
        host += &rest[..end];
        match rest[end..].chars().next() {
            Some('[') => {
                let (range, after) = rest[end + 1..].split_once(']')?;
                // A range keeps its leading zeros: [007-012] begins with 007.
                let first = range.split([',', '-']).next().unwrap_or_default();
                host += first;
                rest = after;
            }
            _ => return (!host.is_empty() && !host.contains(']')).then_some(host),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_lists_and_suffixes_are_expanded() {
        for (list, expected) in [
            ("node1", Some("node1")),
            ("node1,node2", Some("node1")),
            ("gpu[07-09,12],login1", Some("gpu07")),
            ("rack[1-2]n[003,005]", Some("rack1n003")),
            ("a[5]-ib,b", Some("a5-ib")),
            ("", None),
            ("gpu[1-2", None),
            ("gpu1]", None),
        ] {
            assert_eq!(first_host(list).as_deref(), expected, "{list}");
        }
    }
}
