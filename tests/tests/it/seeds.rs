//! The table of what the five documents say: nothing is left empty, and what it names is there.

use std::fs;
use std::path::PathBuf;

use crate::programs::repository;

/// The tests that a cell names: a file, and what it has.
fn named(cell: &str) -> Vec<(PathBuf, String)> {
    let mut file = None;
    let quoted = cell.split('`').skip(1).step_by(2);
    let test = |quoted: &str| {
        let (path, test) = quoted.split_once("::")?;
        if path.ends_with(".rs") {
            let within = if path.contains("tests/") || path.contains("src/") { "" } else { "tests/tests/it" };
            file = Some(repository().join(within).join(path));
        }
        let is_name =
            test.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        let is_here = path.ends_with(".rs") || path == "…";
        (is_here && is_name).then(|| Some((file.clone()?, test.to_owned())))?
    };
    quoted.filter_map(test).collect()
}

#[test]
fn every_sentence_has_its_place_and_its_test() {
    let text = fs::read_to_string(repository().join("docs/seeds.md")).expect("the table is there");
    let rows: Vec<_> = text.lines().filter(|line| line.starts_with("| ")).collect();
    assert!(rows.len() > 300, "{} rows", rows.len());
    let (mut tests, mut wrong) = (0, Vec::new());
    for row in rows {
        // A bar within a cell is escaped.
        let row_text = row.replace("\\|", "/");
        let cells: Vec<_> = row_text.trim_matches('|').split('|').map(str::trim).collect();
        if cells.iter().any(|cell| cell.is_empty()) || !matches!(cells.len(), 2 | 3) {
            wrong.push(format!("an empty or a missing cell: {row}"));
        }
        let Some(cell) = cells.get(2) else { continue };
        for (file, test) in named(cell) {
            tests += 1;
            match fs::read_to_string(&file) {
                Ok(source) if source.contains(&test) => {}
                Ok(_) => wrong.push(format!("{} has no {test}", file.display())),
                Err(error) => wrong.push(format!("{}: {error}", file.display())),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(tests > 200, "{tests} tests are named");
}
