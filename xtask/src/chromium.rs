//! A Chromium for the tests of pages: found. It starts none.

use crate::command::tool;
use std::ffi::OsStr;
use std::path::PathBuf;

pub(crate) const VARIABLE: &str = "MESSAGING_TEST_CHROMIUM";

/// What it is called by systems and by Google.
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// One that runs, and what it says of its version.
#[derive(Debug)]
pub(crate) struct Chromium {
    pub(crate) path: PathBuf,
    pub(crate) version: String,
}

/// `$MESSAGING_TEST_CHROMIUM`, or the one on the path; or why there is none.
pub(crate) fn find() -> Result<Chromium, String> {
    if let Some(path) = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
        let wrong = format!("{VARIABLE} is {}, which is no Chromium that runs", path.display());
        return Chromium::at(path.into()).ok_or(wrong);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    found_in(&path).find_map(Chromium::at).ok_or_else(|| "no chromium".to_owned())
}

/// Files of those names on a search path, those of one name together.
fn found_in(path: &OsStr) -> impl Iterator<Item = PathBuf> {
    let directories: Vec<_> = std::env::split_paths(path).collect();
    NAMES.into_iter().flat_map(move |name| {
        let files: Vec<_> = directories.iter().map(|directory| directory.join(name)).collect();
        files.into_iter().filter(|file| file.is_file())
    })
}

impl Chromium {
    /// The one at `path`, if it runs: some systems have a file there that only says where to get one.
    fn at(path: PathBuf) -> Option<Self> {
        let version = tool(&path).arg("--version").output().ok()?.trim().to_owned();
        (!version.is_empty()).then_some(Self { path, version })
    }
}
