//! Globs as Redis matches them. Bytes; no I/O.

use super::is_glob;

/// Redis's glob matching (`stringmatchlen` in its `util.c`, case-sensitive): `*`, `?`, `[abc]`, `[^a]`, `[a-z]`, and
/// `\` to take the next character literally. Bytes, as Redis does it; a star backtracks only to the latest star, which
/// is enough and keeps it quadratic at worst.
pub(crate) fn glob_matches(glob: &[u8], text: &[u8]) -> bool {
    let (mut g, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        let step = if g == glob.len() {
            (t == text.len()).then_some(Step::Done)
        } else if glob[g] == b'*' {
            star = Some((g + 1, t));
            g += 1;
            continue;
        } else if t == text.len() {
            None
        } else {
            let (matched, next) = match_one(glob, g, text[t]);
            matched.then_some(Step::Next(next))
        };
        match (step, star) {
            (Some(Step::Done), _) => return true,
            (Some(Step::Next(next)), _) => (g, t) = (next, t + 1),
            (None, Some((after_star, from))) if from < text.len() => {
                star = Some((after_star, from + 1));
                (g, t) = (after_star, from + 1);
            }
            (None, _) => return false,
        }
    }
}

enum Step {
    Done,
    Next(usize),
}

/// Matches one byte against the pattern element at `at`; returns the element's end as well.
fn match_one(glob: &[u8], at: usize, byte: u8) -> (bool, usize) {
    match glob[at] {
        b'?' => (true, at + 1),
        b'\\' if at + 1 < glob.len() => (glob[at + 1] == byte, at + 2),
        b'[' => {
            let mut i = at + 1;
            let negated = glob.get(i) == Some(&b'^');
            i += usize::from(negated);
            let mut matched = false;
            while i < glob.len() && glob[i] != b']' {
                if glob[i] == b'\\' && i + 1 < glob.len() {
                    i += 1;
                    matched |= glob[i] == byte;
                } else if i + 2 < glob.len() && glob[i + 1] == b'-' {
                    let (low, high) = (glob[i].min(glob[i + 2]), glob[i].max(glob[i + 2]));
                    matched |= (low..=high).contains(&byte);
                    i += 2;
                } else {
                    matched |= glob[i] == byte;
                }
                i += 1;
            }
            (matched != negated, (i + 1).min(glob.len()))
        }
        literal => (literal == byte, at + 1),
    }
}

/// Whether two globs can match a common text, taking every element other than a literal byte as "anything".
pub(crate) fn globs_may_meet(a: &[u8], b: &[u8]) -> bool {
    let literal_head = |glob: &[u8]| glob.iter().position(|c| b"*?[\\".contains(c)).unwrap_or(glob.len());
    let literal_tail = |glob: &[u8]| {
        if glob.contains(&b'[') || glob.contains(&b'\\') {
            return 0;
        }
        glob.iter().rev().position(|c| b"*?".contains(c)).unwrap_or(glob.len())
    };
    let head = literal_head(a).min(literal_head(b));
    let tail = literal_tail(a).min(literal_tail(b));
    a[..head] == b[..head] && a[a.len() - tail..] == b[b.len() - tail..]
}

/// Escapes glob characters, so that the text matches only itself.
pub(crate) fn escape_glob(text: &str, into: &mut String) {
    for character in text.chars() {
        if is_glob(character) {
            into.push('\\');
        }
        into.push(character);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_mean_what_redis_means() {
        for (glob, text, expected) in [
            ("*", "", true),
            ("events.*", "events.a.b", true),
            ("events.*", "event", false),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h[ae]llo", "hallo", true),
            ("h[ae]llo", "hillo", false),
            ("h[^e]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-c]llo", "hbllo", true),
            ("h[c-a]llo", "hbllo", true),
            ("h\\*llo", "h*llo", true),
            ("h\\*llo", "hello", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b-d", false),
            ("[", "[", false),
            ("a\\", "a\\", true),
        ] {
            assert_eq!(glob_matches(glob.as_bytes(), text.as_bytes()), expected, "{glob} on {text}");
        }
    }
}
