//! Names as AsyncAPI wants them: letters, digits, `.`, `_` and `-`, and each for one thing only.

use std::collections::{BTreeMap, BTreeSet};

/// Gives every text a name of its own, and the same text the same name.
#[derive(Debug, Default)]
pub(super) struct Names {
    given: BTreeMap<String, String>,
    taken: BTreeSet<String>,
}

impl Names {
    pub(super) fn of(&mut self, text: &str) -> String {
        if let Some(name) = self.given.get(text) {
            return name.clone();
        }
        let plain = plain(text);
        let mut name = plain.clone();
        let mut number = 1;
        while !self.taken.insert(name.clone()) {
            number += 1;
            name = format!("{plain}_{number}");
        }
        self.given.insert(text.to_owned(), name.clone());
        name
    }
}

pub(super) fn plain(text: &str) -> String {
    let replace = |character: char| match character {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '_' | '-' => character,
        ':' => '.',
        _ => '_',
    };
    let plain: String = text.replace("::", ".").replace(['{', '}'], "").chars().map(replace).collect();
    if plain.is_empty() { "_".to_owned() } else { plain }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_and_different() {
        let mut names = Names::default();
        assert_eq!(names.of("a::b"), "a.b");
        assert_eq!(names.of("a.b"), "a.b_2");
        assert_eq!(names.of("a::b"), "a.b");
        assert_eq!(names.of("a.b_2"), "a.b_2_2");
        assert_eq!(names.of("chat:{room}/ü"), "chat.room__");
        assert_eq!(names.of("{}"), "_");
    }
}
