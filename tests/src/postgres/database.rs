//! A database of a test's own: its URL, and questions to it.

use super::command;
use std::path::{Path, PathBuf};

/// An empty database; it goes when this is dropped, whoever is connected to it.
#[derive(Debug)]
pub struct Database {
    programs: PathBuf,
    port: u16,
    name: String,
}

impl Database {
    pub(super) fn make(programs: &Path, port: u16) -> Self {
        let database = Self { programs: programs.to_owned(), port, name: crate::unique("test") };
        let made = database.ask(MAINTENANCE, &format!(r#"create database "{}""#, database.name));
        made.unwrap_or_else(|error| panic!("cannot make a database: {error}"));
        database
    }

    /// The URL that clients are given: `postgres://…`, without a password.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of(&self.name)
    }

    /// Runs SQL and returns the rows as `psql` prints them: a line for each, with `|` between the columns.
    ///
    /// # Panics
    ///
    /// If it is refused.
    #[track_caller]
    pub fn psql(&self, sql: &str) -> String {
        self.try_psql(sql).unwrap_or_else(|error| panic!("`{sql}`: {error}"))
    }

    /// The same for SQL that may be refused: what `psql` says then is `Err`.
    ///
    /// # Errors
    ///
    /// The server's complaint, or that there is no server.
    ///
    /// # Panics
    ///
    /// If `psql` cannot be run.
    #[track_caller]
    pub fn try_psql(&self, sql: &str) -> Result<String, String> {
        self.ask(&self.name, sql)
    }

    fn url_of(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    fn ask(&self, database: &str, sql: &str) -> Result<String, String> {
        let mut psql = command(&self.programs, "psql");
        psql.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set", "ON_ERROR_STOP=1"]);
        psql.args(["--command", sql, &self.url_of(database)]).env("PGCONNECT_TIMEOUT", "10");
        let output = psql.output().unwrap_or_else(|error| panic!("cannot run psql: {error}"));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }
}

/// The database that every server has: who makes or removes others is connected to it.
const MAINTENANCE: &str = "postgres";

impl Drop for Database {
    fn drop(&mut self) {
        // A server that was killed has lost it, or will when its directory goes.
        let _ = self.ask(MAINTENANCE, &format!(r#"drop database if exists "{}" with (force)"#, self.name));
    }
}
