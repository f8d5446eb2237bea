//! Models with a table: what is generated, whatever the user's names are.
#![deny(warnings, clippy::all)]

extern crate self as messaging_sql;

#[path = "../../ui/messaging_sql.rs"]
#[allow(dead_code)]
mod stub;

use std::any::TypeId;
use std::cell::RefCell;
use std::marker::PhantomData;

use messaging_core::{Model, event_config};
use serde::Serialize;

pub use stub::*;

#[event_config(
    publish = { update = "camera:{id}" },
    payload_fields = [id],
    table = "inventory.cameras",
    key = id,
    version = revision,
)]
#[derive(Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Camera {
    #[column(generated)]
    pub id: u64,
    #[serde(rename = "mac")]
    #[column(name = "mac address")]
    pub mac_address: String,
    pub r#type: String,
    #[column(json)]
    #[column(name = "config")]
    settings: Settings,
    #[column(skip)]
    connected: Connected,
    revision: u64,
    #[cfg(any())]
    #[column(skip)]
    absent: Absent,
}

// Private types are no concern of a public model's bounds.
#[derive(Clone, Default, Serialize)]
struct Settings;

impl __private::JsonValue for Settings {}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct Connected(u8);

// Below the derive, and of a type that only one of the databases knows.
#[derive(Serialize)]
#[event_config(table = "sessions", key = token)]
pub struct Session {
    token: String,
    #[column(name = "numbers_seen")]
    numbers: Vec<u64>,
    #[cfg(any())]
    #[column(skip)]
    absent: Absent,
}

#[event_config(table = "trees", key = id, payload_fields = [id], crate = ::messaging_core)]
#[derive(Default)]
pub struct Tree {
    id: u64,
    #[column(json)]
    children: Children<Self>,
    #[column(json)]
    others: Children<Self>,
}

pub struct Children<T>(PhantomData<T>);

impl<T> Default for Children<T> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl __private::JsonValue for Children<Tree> {}

macro_rules! model {
    ($model:ident { $key:ident: $type:ty, $other:ident }, $table:literal, $column:expr, $word:ident) => {
        #[event_config(table = $table, key = $key)]
        #[derive(Serialize)]
        pub struct $model {
            $key: $type,
            #[column(name = $column, $word)]
            $other: $type,
        }
    };
}

model!(FromMacro { id: u64, other }, "from.macros", "serial", generated);

mod clashes {
    #![no_implicit_prelude]
    #![allow(dead_code, clippy::all)]

    use ::messaging_core::event_config;

    mod core {}
    mod std {}
    mod messaging_core {}
    mod messaging_sql {}

    struct Result;
    #[derive(::core::default::Default, ::core::clone::Clone)]
    struct Option;
    struct Some;
    struct None;
    struct Ok;
    struct Err;
    struct String;
    struct Table;
    struct Database;
    struct ColumnValue;
    struct SqlModel;
    struct Binder;
    struct Bound;
    struct Reader;
    struct Read;
    struct TypeInfo;
    struct TABLE;

    #[derive(::core::default::Default, ::serde::Serialize)]
    pub struct Key(u64);

    impl ::messaging_sql::ColumnValue<::messaging_sql::Sqlite> for Key {}

    #[event_config(table = "clashes", key = key, version = given, envelope = { resource = "clash", id = row })]
    pub struct Column {
        key: Key,
        field: u64,
        binder: u64,
        row: u64,
        given: u64,
        #[column(skip)]
        accepts: Option,
        #[column(skip)]
        r#type: u64,
    }
}

fn row<Db>(notes: &RefCell<Vec<String>>) -> __private::Reader<'_, Db> {
    __private::Reader(notes, PhantomData)
}

fn main() {
    let table = <Camera as SqlModel<Sqlite>>::TABLE;
    assert_eq!((table.name, table.key, table.version), ("inventory.cameras", "id", Some("revision")));
    let columns: Vec<_> = table.columns.iter().map(|it| (it.field, it.name, it.generated, it.json)).collect();
    assert_eq!(
        columns,
        [
            ("id", "id", true, false),
            ("mac_address", "mac address", false, false),
            ("type", "type", false, false),
            ("settings", "config", false, true),
            ("revision", "revision", false, false),
        ]
    );

    let camera = Camera { id: 7, connected: Connected(1), ..Camera::default() };
    assert_eq!(SqlModel::<Postgres>::key(&camera), &7);
    let mut bound = Vec::new();
    let mut binder = __private::Binder::<Postgres>(&mut bound, PhantomData);
    for column in table.columns {
        camera.bind(column.field, &mut binder).unwrap();
    }
    for unknown in ["connected", "config", "r#type", "other"] {
        assert_eq!(camera.bind(unknown, &mut binder), Err(unknown.to_owned()));
    }
    assert_eq!(bound, ["value", "value", "value", "json", "value"]);

    let text = __private::TypeInfo::<Sqlite>(TypeId::of::<String>(), PhantomData);
    let accepted = ["id", "mac_address", "type", "settings", "connected", "other"]
        .map(|field| <Camera as SqlModel<Sqlite>>::accepts(field, &text));
    assert_eq!(accepted, [false, true, true, false, false, false]);

    let notes = RefCell::default();
    let read = Camera::read(&row::<Sqlite>(&notes), Some(&camera)).unwrap();
    assert_eq!((read.id, read.connected), (0, Connected(1)));
    assert_eq!(
        notes.take(),
        ["value id", "value mac_address", "value type", "json settings", "value revision"]
    );
    assert_eq!(Camera::read(&row::<Sqlite>(&notes), None).unwrap().connected, Connected(0));

    assert!(Session::DESCRIPTOR.publish.is_empty());
    let session = Session::read(&row::<Postgres>(&notes), None).unwrap();
    assert!(session.token.is_empty() && session.numbers.is_empty());
    let tree = Tree::read(&row::<Sqlite>(&notes), None).unwrap();
    let (Children(_), Children(_)) = (tree.children, tree.others);
    let table = <FromMacro as SqlModel<Postgres>>::TABLE;
    assert_eq!((table.name, table.columns[1].name), ("from.macros", "serial"));
    assert!(table.columns[1].generated);
    assert_eq!(<clashes::Column as SqlModel<Sqlite>>::TABLE.columns.len(), 5);
}
