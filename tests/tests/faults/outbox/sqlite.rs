//! The suite on SQLite.

use messaging_sql::UnitOfWork;
use messaging_sql::sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
use messaging_sql::sqlx::{Pool, Sqlite};

use super::{Entry, TABLES, messaging};
use crate::place::Place;
use crate::{child, outcome};

pub type Db = Sqlite;

pub const NAME: &str = "outbox::sqlite::suite";

/// A new database in a file.
pub struct Home(String);

impl Home {
    /// There is always one.
    pub fn new() -> Option<Self> {
        let name = format!("messaging-{}-{}.db", std::process::id(), messaging_tests::unique("faults"));
        Some(Self(std::env::temp_dir().join(name).display().to_string()))
    }

    /// How others find it.
    pub fn address(&self) -> String {
        self.0.clone()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        for end in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{end}", self.0));
        }
    }
}

pub async fn pool(address: &str) -> Pool<Db> {
    let options = SqliteConnectOptions::new().filename(address).create_if_missing(true);
    let options = options.journal_mode(SqliteJournalMode::Wal);
    SqlitePoolOptions::new().max_connections(4).connect_with(options).await.unwrap()
}

/// Changes one row again and again.
async fn write() {
    let pool = pool(&std::env::var(DATABASE).unwrap()).await;
    let messaging = messaging(&Place::memory()).await;
    for _ in 0..CHANGES {
        let changed = UnitOfWork::run(&pool, &messaging, |work| {
            Box::pin(async move {
                let mut entry = work.get_for_update::<Entry>(&1).await?.expect("it is there");
                entry.round += 1;
                work.update(&entry).await
            })
        });
        changed.await.unwrap();
    }
    println!("\nwritten");
}

const DATABASE: &str = "FAULTS_DATABASE";
const WRITERS: i64 = 4;
const CHANGES: i64 = 250;

#[test]
fn processes_that_write_to_one_file_wait_for_each_other() {
    const TEST: &str = "outbox::sqlite::processes_that_write_to_one_file_wait_for_each_other";
    if child::is(TEST) {
        return child::run(write());
    }
    child::run(async {
        let home = Home::new().expect("there is always one");
        let pool = pool(&home.address()).await;
        messaging_sql::sqlx::raw_sql(TABLES).execute(&pool).await.unwrap();
        let messaging = messaging(&Place::memory()).await;
        let mut work = UnitOfWork::begin(&pool, &messaging).await.unwrap();
        work.create(&Entry { id: 1, round: 0 }).await.unwrap();
        work.commit().await.unwrap();
        let start = || child::start_with(TEST, "none", &[(DATABASE, &home.address())]);
        let mut writers: Vec<_> = (0..WRITERS).map(|_| start()).collect();
        for writer in &mut writers {
            writer.wait_for_line(|line| line == "written");
        }
        let mut work = UnitOfWork::begin(&pool, &messaging).await.unwrap();
        let entry: Entry = work.get(&1).await.unwrap().unwrap();
        assert_eq!(entry.round, WRITERS * CHANGES, "none was refused, none overwrote another");
        outcome(
            "four processes on one SQLite file",
            format_args!("{} changes of one row, none refused", WRITERS * CHANGES),
        );
    });
}

#[path = "suite.rs"]
#[allow(clippy::duplicate_mod, reason = "the same suite, on each database")]
mod suite;
