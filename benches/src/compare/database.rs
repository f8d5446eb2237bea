//! An empty database for one measurement; it goes when it is dropped. What is in it is the affair of who measures.

use std::path::PathBuf;

use messaging_tests::unique;

use super::stage::{Stage, Tool};
use crate::job::Failure;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Sqlite,
    Postgres,
}

impl Kind {
    pub(super) fn needs(self) -> Option<Tool> {
        match self {
            Self::Sqlite => None,
            Self::Postgres => Some(Tool::Postgres),
        }
    }
}

#[derive(Debug)]
pub(super) enum Database {
    /// The directory of its files.
    Sqlite(PathBuf),
    /// On the stage's server.
    Postgres(messaging_tests::Database),
}

impl Database {
    pub(super) fn make(kind: Kind, stage: &Stage) -> Result<Self, Failure> {
        Ok(match kind {
            Kind::Sqlite => {
                let directory = std::env::temp_dir().join(unique("messaging-bench"));
                std::fs::create_dir(&directory)?;
                Self::Sqlite(directory)
            }
            Kind::Postgres => Self::Postgres(stage.postgres().database()),
        })
    }

    pub(super) fn url(&self) -> String {
        match self {
            Self::Sqlite(directory) => format!("sqlite://{}", directory.join("bench.db").display()),
            Self::Postgres(database) => database.url(),
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Self::Sqlite(directory) = self {
            let _ = std::fs::remove_dir_all(directory);
        }
    }
}
