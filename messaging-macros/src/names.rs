//! Names as messages show them: lists in words, and the one that was probably meant.

/// `` `a`, `b` and `c` ``.
pub(crate) fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    joined(names.into_iter().map(|name| format!("`{name}`")), "and")
}

/// `a, b or c`.
pub(crate) fn alternatives(items: impl IntoIterator<Item = String>) -> String {
    joined(items, "or")
}

fn joined(items: impl IntoIterator<Item = String>, conjunction: &str) -> String {
    let mut items: Vec<String> = items.into_iter().collect();
    match items.pop() {
        None => String::new(),
        Some(last) if items.is_empty() => last,
        Some(last) => format!("{} {conjunction} {last}", items.join(", ")),
    }
}

/// What to write instead of a wrong name: "; did you mean …?", and what there is of that kind. `noun` is what one of them
/// is called.
pub(crate) fn advice<'a>(wrong: &str, noun: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    match (closest(wrong, names.iter().copied()), &*names) {
        (Some(meant), [_]) => format!("; did you mean `{meant}`?"),
        (Some(meant), _) => format!("; did you mean `{meant}`? the {noun}s are {}", listed(names)),
        (None, []) => format!("; there are no {noun}s"),
        (None, [only]) => format!("; the only {noun} is `{only}`"),
        (None, _) => format!("; the {noun}s are {}", listed(names)),
    }
}

/// The one that was probably meant.
pub(crate) fn closest<'a>(wrong: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (wrong.chars().count() / 3).max(1);
    names
        .into_iter()
        .map(|name| (distance(wrong, name), name))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// How many insertions, deletions, replacements and swaps of neighbours lead from one word to the other (optimal
/// string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_name_is_offered_only_if_it_is_close() {
        let names = ["ttl", "key", "invalidate_on", "timeout"];
        for (wrong, expected) in [
            ("tttl", Some("ttl")),
            ("tlt", Some("ttl")),
            ("invalidateon", Some("invalidate_on")),
            ("invalidates_on", Some("invalidate_on")),
            ("time_out", Some("timeout")),
            ("prefix", None),
            ("", None),
        ] {
            assert_eq!(closest(wrong, names), expected, "{wrong}");
        }
    }

    #[test]
    fn advice_names_what_there_is() {
        assert_eq!(
            advice("idd", "field", ["id", "name"]),
            "; did you mean `id`? the fields are `id` and `name`"
        );
        assert_eq!(advice("idd", "field", ["id"]), "; did you mean `id`?");
        assert_eq!(advice("x", "field", ["name"]), "; the only field is `name`");
        assert_eq!(advice("x", "field", ["name", "id"]), "; the fields are `name` and `id`");
        assert_eq!(advice("x", "field", []), "; there are no fields");
    }

    #[test]
    fn lists_read_as_words() {
        assert_eq!(listed([]), "");
        assert_eq!(listed(["a"]), "`a`");
        assert_eq!(listed(["a", "b", "c"]), "`a`, `b` and `c`");
        assert_eq!(alternatives(["a", "b", "c"].map(str::to_owned)), "a, b or c");
    }
}
