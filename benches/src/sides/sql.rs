//! Rows and their events: units of work and the relay of messaging-sql, and bare sqlx. Each has a pool of one connection.

use std::hint::black_box;
use std::time::Duration;

use messaging_core::{Handlers, event_config};
use messaging_sql::sqlx::postgres::{PgPoolOptions, Postgres};
use messaging_sql::sqlx::sqlite::{
    Sqlite, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous,
};
use messaging_sql::sqlx::{self, Pool, QueryBuilder};
use messaging_sql::{OutboxRelay, SqlModel, UnitOfWork, migrate};
use redis::pipe;
use serde::{Deserialize, Serialize};

use super::{ours, raw};
use crate::job::{Failure, Relay, Report, Writer};
use crate::meter;

/// How many rows are written at once beforehand, and how many the raw relay takes at once: as many as ours.
const FILLED: usize = 1_000;
const AT_ONCE: i64 = 500;
const RAW_CHANNEL: &str = "orders.stored";

#[event_config(publish = { create = "orders.stored" }, table = "orders", key = id)]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct StoredOrder {
    id: i64,
    customer: String,
    email: String,
    total: i64,
    paid: bool,
    note: String,
}

/// Its columns, as bare sqlx reads them.
type Columns = (i64, String, String, i64, bool, String);

impl StoredOrder {
    fn numbered(number: u64) -> Result<Self, Failure> {
        Ok(Self {
            id: i64::try_from(number)?,
            customer: "Ada Lovelace".into(),
            email: "ada@mail.org".into(),
            total: 13_890,
            paid: true,
            note: "quick".into(),
        })
    }

    /// `count` of them from a number on.
    fn several(first: u64, count: u64) -> Result<Vec<Self>, Failure> {
        (first..first + count).map(Self::numbered).collect()
    }

    fn of((id, customer, email, total, paid, note): Columns) -> Self {
        Self { id, customer, email, total, paid, note }
    }
}

/// Inserts rows, so many in each transaction.
pub(crate) async fn insert(
    writer: Writer,
    database: &str,
    rows: u64,
    together: u64,
) -> Result<Report, Failure> {
    match database.starts_with("sqlite:") {
        true => insert_into::<Sqlite>(writer, database, rows, together).await,
        false => insert_into::<Postgres>(writer, database, rows, together).await,
    }
}

/// Publishes rows that were written beforehand.
pub(crate) async fn relay(relay: Relay, database: &str, redis: &str, rows: u64) -> Result<Report, Failure> {
    match database.starts_with("sqlite:") {
        true => relay_from::<Sqlite>(relay, database, redis, rows).await,
        false => relay_from::<Postgres>(relay, database, redis, rows).await,
    }
}

async fn insert_into<DB: ByHand>(
    writer: Writer,
    database: &str,
    rows: u64,
    together: u64,
) -> Result<Report, Failure>
where
    StoredOrder: SqlModel<DB>,
{
    let pool = set_up::<DB>(database).await?;
    let messaging = ours::messaging("memory://", Handlers::none()).await?;
    let write = async |number: u64| -> Result<(), Failure> {
        let orders = StoredOrder::several(number * together, together)?;
        if writer == Writer::Raw {
            return match &orders[..] {
                [order] => DB::insert(&pool, order).await.map(|stored| drop(black_box(stored))),
                orders => DB::insert_many(&pool, orders).await,
            };
        }
        let mut work = UnitOfWork::begin(&pool, &messaging).await?;
        if writer == Writer::WithOutbox {
            work = work.with_outbox();
        }
        match &orders[..] {
            [order] => drop(black_box(work.create(order).await?)),
            orders => drop(black_box(work.create_many(orders).await?)),
        }
        Ok(work.commit().await?)
    };
    // What is prepared once is no cost of a row.
    write(0).await?;
    let transactions = rows / together;
    let report = meter::operations(transactions * together, async {
        for number in 1..=transactions {
            write(number).await?;
        }
        Ok(())
    })
    .await?;
    is("orders", DB::count(&pool, "orders").await?, (transactions + 1) * together)?;
    let events = if writer == Writer::WithOutbox { (transactions + 1) * together } else { 0 };
    is("messaging_outbox", DB::count(&pool, "messaging_outbox").await?, events)?;
    Ok(report)
}

async fn relay_from<DB: ByHand>(
    relay: Relay,
    database: &str,
    redis: &str,
    rows: u64,
) -> Result<Report, Failure>
where
    StoredOrder: SqlModel<DB>,
{
    let pool = set_up::<DB>(database).await?;
    match relay {
        Relay::Keeping => our_relay(&pool, OutboxRelay::new(&pool), redis, rows, rows).await,
        Relay::Removing => {
            let relay = OutboxRelay::new(&pool).keep_published(Duration::ZERO);
            our_relay(&pool, relay, redis, rows, 0).await
        }
        Relay::Raw => raw_relay(&pool, redis, rows).await,
    }
}

async fn our_relay<DB: ByHand>(
    pool: &Pool<DB>,
    relay: OutboxRelay<DB>,
    redis: &str,
    rows: u64,
    left: u64,
) -> Result<Report, Failure>
where
    StoredOrder: SqlModel<DB>,
{
    let messaging = ours::messaging(redis, Handlers::none()).await?;
    for first in (0..rows).step_by(FILLED) {
        let mut work = UnitOfWork::begin(pool, &messaging).await?.with_outbox();
        work.create_many(&StoredOrder::several(first, (rows - first).min(FILLED as u64))?).await?;
        work.commit().await?;
    }
    let report =
        meter::operations(rows, async { is("published", relay.work_off(&messaging).await?, rows) }).await?;
    is("messaging_outbox", DB::count(pool, "messaging_outbox").await?, left)?;
    Ok(report)
}

async fn raw_relay<DB: ByHand>(pool: &Pool<DB>, redis: &str, rows: u64) -> Result<Report, Failure> {
    for first in (0..rows).step_by(FILLED) {
        DB::note_many(pool, &StoredOrder::several(first, (rows - first).min(FILLED as u64))?).await?;
    }
    let mut connection = raw::commands(redis, 1).await?;
    let report = meter::operations(rows, async {
        while let Some((last, waiting)) = DB::waiting(pool).await? {
            let mut messages = pipe();
            for (channel, payload) in &waiting {
                messages.cmd("PUBLISH").arg(channel).arg(payload).ignore();
            }
            messages.query_async::<()>(&mut connection).await?;
            DB::remove_up_to(pool, last).await?;
        }
        Ok(())
    })
    .await?;
    is("by_hand", DB::count(pool, "by_hand").await?, 0)?;
    Ok(report)
}

/// Whether there are as many as there should be.
fn is(what: &str, found: u64, expected: u64) -> Result<(), Failure> {
    match found == expected {
        true => Ok(()),
        false => Err(format!("{what}: {found} rows instead of {expected}").into()),
    }
}

/// A pool for an empty database, with the tables of both sides.
async fn set_up<DB: ByHand>(url: &str) -> Result<Pool<DB>, Failure> {
    let pool = DB::open(url).await?;
    for table in DB::TABLES {
        DB::execute(&pool, table).await?;
    }
    migrate(&pool).await?;
    Ok(pool)
}

/// A database as one uses it by hand, with sqlx.
trait ByHand: messaging_sql::Database {
    const TABLES: [&'static str; 2];
    /// What messaging-sql says too.
    const BEGIN: &'static str;
    const INSERT: &'static str;
    async fn open(url: &str) -> Result<Pool<Self>, Failure>;
    async fn execute(pool: &Pool<Self>, statement: &'static str) -> Result<(), Failure>;
    async fn insert(pool: &Pool<Self>, order: &StoredOrder) -> Result<StoredOrder, Failure>;
    async fn insert_many(pool: &Pool<Self>, orders: &[StoredOrder]) -> Result<(), Failure>;
    /// Writes events of orders to a table.
    async fn note_many(pool: &Pool<Self>, orders: &[StoredOrder]) -> Result<(), Failure>;
    /// Channels and payloads of the events that come next, and the number of the last of them.
    async fn waiting(pool: &Pool<Self>) -> Result<Option<(i64, Vec<(String, String)>)>, Failure>;
    async fn remove_up_to(pool: &Pool<Self>, last: i64) -> Result<(), Failure>;
    async fn count(pool: &Pool<Self>, table: &str) -> Result<u64, Failure>;
}

/// What is written alike for both: sqlx has no simple words for any database.
macro_rules! by_hand {
    () => {
        async fn execute(pool: &Pool<Self>, statement: &'static str) -> Result<(), Failure> {
            sqlx::query(statement).execute(pool).await?;
            Ok(())
        }

        async fn insert(pool: &Pool<Self>, order: &StoredOrder) -> Result<StoredOrder, Failure> {
            let mut transaction = pool.begin_with(Self::BEGIN).await?;
            let insert = sqlx::query_as::<_, Columns>(Self::INSERT);
            let insert = insert.bind(order.id).bind(&order.customer).bind(&order.email);
            let insert = insert.bind(order.total).bind(order.paid).bind(&order.note);
            let stored = insert.fetch_one(&mut *transaction).await?;
            transaction.commit().await?;
            Ok(StoredOrder::of(stored))
        }

        async fn insert_many(pool: &Pool<Self>, orders: &[StoredOrder]) -> Result<(), Failure> {
            let mut insert =
                QueryBuilder::<Self>::new("INSERT INTO orders (id, customer, email, total, paid, note) ");
            insert.push_values(orders, |mut row, order| {
                row.push_bind(order.id).push_bind(&order.customer).push_bind(&order.email);
                row.push_bind(order.total).push_bind(order.paid).push_bind(&order.note);
            });
            let mut transaction = pool.begin_with(Self::BEGIN).await?;
            insert.build().execute(&mut *transaction).await?;
            Ok(transaction.commit().await?)
        }

        async fn note_many(pool: &Pool<Self>, orders: &[StoredOrder]) -> Result<(), Failure> {
            let mut insert = QueryBuilder::<Self>::new("INSERT INTO by_hand (channel, payload) ");
            let payloads: Vec<String> = orders.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
            insert.push_values(&payloads, |mut row, payload| {
                row.push_bind(RAW_CHANNEL).push_bind(payload);
            });
            insert.build().execute(pool).await?;
            Ok(())
        }

        async fn waiting(pool: &Pool<Self>) -> Result<Option<(i64, Vec<(String, String)>)>, Failure> {
            let select = "SELECT seq, channel, payload FROM by_hand ORDER BY seq LIMIT $1";
            let select = sqlx::query_as::<_, (i64, String, String)>(select).bind(AT_ONCE);
            let rows = select.fetch_all(pool).await?;
            let last = rows.last().map(|(seq, ..)| *seq);
            let messages = rows.into_iter().map(|(_, channel, payload)| (channel, payload)).collect();
            Ok(last.map(|last| (last, messages)))
        }

        async fn remove_up_to(pool: &Pool<Self>, last: i64) -> Result<(), Failure> {
            sqlx::query("DELETE FROM by_hand WHERE seq <= $1").bind(last).execute(pool).await?;
            Ok(())
        }

        async fn count(pool: &Pool<Self>, table: &str) -> Result<u64, Failure> {
            let mut count = QueryBuilder::<Self>::new("SELECT count(*) FROM ");
            let count: i64 = count.push(table).build_query_scalar().fetch_one(pool).await?;
            Ok(u64::try_from(count)?)
        }
    };
}

impl ByHand for Sqlite {
    const TABLES: [&'static str; 2] = [
        "CREATE TABLE orders (id INTEGER PRIMARY KEY, customer TEXT NOT NULL, email TEXT NOT NULL, \
         total INTEGER NOT NULL, paid BOOLEAN NOT NULL, note TEXT NOT NULL)",
        "CREATE TABLE by_hand (seq INTEGER PRIMARY KEY AUTOINCREMENT, channel TEXT NOT NULL, payload TEXT NOT NULL)",
    ];
    const BEGIN: &'static str = "BEGIN IMMEDIATE";
    const INSERT: &'static str = "INSERT INTO `orders` (`id`, `customer`, `email`, `total`, `paid`, `note`) \
        VALUES ($1, $2, $3, $4, $5, $6) RETURNING `id`, `customer`, `email`, `total`, `paid`, `note`";

    async fn open(url: &str) -> Result<Pool<Self>, Failure> {
        let options: SqliteConnectOptions = url.parse()?;
        let options = options.create_if_missing(true).journal_mode(SqliteJournalMode::Wal);
        let options = options.synchronous(SqliteSynchronous::Normal);
        Ok(SqlitePoolOptions::new().max_connections(1).connect_with(options).await?)
    }

    by_hand!();
}

impl ByHand for Postgres {
    const TABLES: [&'static str; 2] = [
        "CREATE TABLE orders (id BIGINT PRIMARY KEY, customer TEXT NOT NULL, email TEXT NOT NULL, \
         total BIGINT NOT NULL, paid BOOLEAN NOT NULL, note TEXT NOT NULL)",
        "CREATE TABLE by_hand (seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, channel TEXT NOT NULL, \
         payload TEXT NOT NULL)",
    ];
    const BEGIN: &'static str = "BEGIN";
    const INSERT: &'static str = r#"INSERT INTO "orders" ("id", "customer", "email", "total", "paid", "note") VALUES ($1, $2, $3, $4, $5, $6) RETURNING "id", "customer", "email", "total", "paid", "note""#;

    async fn open(url: &str) -> Result<Pool<Self>, Failure> {
        Ok(PgPoolOptions::new().max_connections(1).connect(url).await?)
    }

    by_hand!();
}
