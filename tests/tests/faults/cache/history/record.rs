//! What processes did, as lines in a file.

use std::fmt;
use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::path::Path;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

/// One operation of a process: from when to when, in nanoseconds of the clock that all share.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    pub process: u32,
    pub start: u64,
    pub end: u64,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum What {
    /// A caller was answered with this version.
    Read { row: String, version: u64 },
    /// The cached function itself ran, and found this version.
    Load { row: String, version: u64 },
    /// Somebody wrote this version to the database, and then told the cache.
    Write { row: String, version: u64, how: How, succeeded: bool },
    /// The process could not go on.
    Stall,
    /// Its network was disturbed.
    Trouble(String),
}

/// How the cache was told of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum How {
    /// An event that we published.
    Publish,
    /// An event that somebody else published.
    Foreign,
    /// An invalidation.
    Invalidate,
    /// A new value.
    Set,
    /// An event that does not say which values it means.
    Unclear,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |nanos: u64| nanos as f64 / 1e6;
        let Self { process, start, end, what } = self;
        write!(f, "{:>12.3} +{:>9.3} ms  process {process}  ", ms(*start), ms(end - start))?;
        match what {
            What::Read { row, version } => write!(f, "read  {row} = {version}"),
            What::Load { row, version } => write!(f, "load  {row} = {version}"),
            What::Write { row, version, how, succeeded } => {
                write!(f, "write {row} = {version}, {how:?}{}", if *succeeded { "" } else { ", failed" })
            }
            What::Stall => f.write_str("stalled"),
            What::Trouble(what) => write!(f, "trouble: {what}"),
        }
    }
}

/// Where a process notes what it does.
#[derive(Debug)]
pub struct Record {
    process: u32,
    file: Mutex<BufWriter<File>>,
}

impl Record {
    pub fn create(path: &Path, process: u32) -> Self {
        Self { process, file: Mutex::new(BufWriter::new(File::create(path).unwrap())) }
    }

    pub fn note(&self, start: u64, end: u64, what: What) {
        let entry = Entry { process: self.process, start, end, what };
        let mut line = serde_json::to_string(&entry).unwrap();
        line.push('\n');
        self.file.lock().unwrap().write_all(line.as_bytes()).unwrap();
    }

    pub fn finish(&self) {
        self.file.lock().unwrap().flush().unwrap();
    }
}

pub fn read(path: &Path) -> Vec<Entry> {
    let lines = BufReader::new(File::open(path).unwrap()).lines();
    lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect()
}
