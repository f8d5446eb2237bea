pub struct Camera {
    pub id: i64,
    #[serde(rename = "macAddress")]
    pub mac_address: String,
    pub r#type: String,
    pub settings: Settings,
    defaults: Settings,
    revision: i64,
    #[cfg(feature = "preview")]
    preview: Option<Vec<u8>>,
}
const _: () = {
    #[derive(::messaging_core::__private::serde::Serialize)]
    #[serde(crate = "::messaging_core::__private::serde", remote = "Camera")]
    #[allow(dead_code)]
    struct __PayloadFields {
        id: i64,
    }
    #[derive(::messaging_core::__private::serde::Serialize)]
    #[serde(crate = "::messaging_core::__private::serde")]
    struct __Payload<'a>(
        #[serde(serialize_with = "__PayloadFields::serialize")]
        &'a Camera,
    );
    #[automatically_derived]
    impl ::messaging_core::__private::Model for Camera {
        const DESCRIPTOR: &'static ::messaging_core::__private::ModelDescriptor = &::messaging_core::__private::ModelDescriptor {
            id: ::core::concat!(::core::module_path!(), "::Camera"),
            name: "Camera",
            publish: &[(::messaging_core::__private::Op::Update, &["camera:{id}"])],
            payload: &[
                ::messaging_core::__private::PayloadField {
                    field: "id",
                    path: "id",
                },
            ],
            previous: &[],
            key: ::core::option::Option::Some("id"),
            envelope: ::core::option::Option::None,
            cache: ::core::option::Option::None,
            durable: ::core::option::Option::None,
            carrier: ::messaging_core::__private::Carrier::Broadcast,
            schema: || {
                use ::messaging_core::__private::schema::*;
                (&::messaging_core::__private::schema::SchemaProbe::<Self>::new())
                    .schema()
            },
            location: ::messaging_core::__private::Location {
                file: ::core::file!(),
                line: ::core::line!(),
            },
        };
        fn payload(
            &self,
            _: ::messaging_core::__private::Op,
            _: ::core::option::Option<&Self>,
        ) -> ::messaging_core::__private::Result<::messaging_core::__private::Bytes> {
            ::messaging_core::__private::encode(&__Payload(self))
        }
        fn field(
            &self,
            field: &str,
        ) -> ::messaging_core::__private::Result<
            ::core::option::Option<::std::string::String>,
        > {
            match field {
                "id" => ::messaging_core::__private::scalar(&self.id),
                _ => ::messaging_core::__private::unknown_field(field),
            }
        }
        fn cached(
            &self,
        ) -> ::messaging_core::__private::Result<::messaging_core::__private::Bytes> {
            ::messaging_core::__private::Model::payload(
                self,
                ::messaging_core::__private::Op::Create,
                ::core::option::Option::None,
            )
        }
    }
    #[automatically_derived]
    impl<__Db: ::messaging_sql::Database> ::messaging_sql::SqlModel<__Db> for Camera
    where
        i64: ::messaging_sql::ColumnValue<__Db>,
        String: ::messaging_sql::ColumnValue<__Db>,
        Settings: ::messaging_sql::__private::JsonValue,
    {
        type Key = i64;
        const TABLE: &'static ::messaging_sql::Table = &::messaging_sql::Table {
            name: "inventory.cameras",
            columns: &[
                ::messaging_sql::Column {
                    field: "id",
                    name: "id",
                    generated: true,
                    json: false,
                },
                ::messaging_sql::Column {
                    field: "mac_address",
                    name: "mac",
                    generated: false,
                    json: false,
                },
                ::messaging_sql::Column {
                    field: "type",
                    name: "type",
                    generated: false,
                    json: false,
                },
                ::messaging_sql::Column {
                    field: "settings",
                    name: "settings",
                    generated: false,
                    json: true,
                },
                ::messaging_sql::Column {
                    field: "defaults",
                    name: "defaults",
                    generated: true,
                    json: true,
                },
                ::messaging_sql::Column {
                    field: "revision",
                    name: "revision",
                    generated: false,
                    json: false,
                },
            ],
            key: "id",
            version: ::core::option::Option::Some("revision"),
        };
        fn key(&self) -> &Self::Key {
            &self.id
        }
        fn bind(
            &self,
            field: &str,
            binder: &mut ::messaging_sql::__private::Binder<'_, __Db>,
        ) -> ::messaging_sql::__private::Bound {
            match field {
                "id" => binder.value(&self.id),
                "mac_address" => binder.value(&self.mac_address),
                "type" => binder.value(&self.r#type),
                "settings" => binder.json(&self.settings),
                "defaults" => binder.json(&self.defaults),
                "revision" => binder.value(&self.revision),
                _ => binder.unknown(field),
            }
        }
        fn accepts(
            field: &str,
            given: &::messaging_sql::__private::TypeInfo<__Db>,
        ) -> bool {
            match field {
                "id" => ::messaging_sql::__private::accepts::<__Db, i64>(given),
                "mac_address" => {
                    ::messaging_sql::__private::accepts::<__Db, String>(given)
                }
                "type" => ::messaging_sql::__private::accepts::<__Db, String>(given),
                "revision" => ::messaging_sql::__private::accepts::<__Db, i64>(given),
                _ => false,
            }
        }
        fn read(
            row: &::messaging_sql::__private::Reader<'_, __Db>,
            given: ::core::option::Option<&Self>,
        ) -> ::messaging_sql::__private::Read<Self> {
            ::core::result::Result::Ok(Self {
                id: row.value("id")?,
                mac_address: row.value("mac_address")?,
                r#type: row.value("type")?,
                settings: row.json("settings")?,
                defaults: row.json("defaults")?,
                revision: row.value("revision")?,
                #[cfg(feature = "preview")]
                preview: ::messaging_sql::__private::skipped(
                    given.map(|given| &given.preview),
                ),
            })
        }
    }
    ::messaging_core::__private::inventory::submit! {
        ::messaging_core::__private::Descriptor::Model(< Camera as
        ::messaging_core::__private::Model > ::DESCRIPTOR)
    }
};
pub struct Session {
    token: String,
}
const _: () = {
    #[automatically_derived]
    impl ::messaging_core::__private::Model for Session {
        const DESCRIPTOR: &'static ::messaging_core::__private::ModelDescriptor = &::messaging_core::__private::ModelDescriptor {
            id: ::core::concat!(::core::module_path!(), "::Session"),
            name: "Session",
            publish: &[],
            payload: &[
                ::messaging_core::__private::PayloadField {
                    field: "token",
                    path: "token",
                },
            ],
            previous: &[],
            key: ::core::option::Option::Some("token"),
            envelope: ::core::option::Option::None,
            cache: ::core::option::Option::None,
            durable: ::core::option::Option::None,
            carrier: ::messaging_core::__private::Carrier::Broadcast,
            schema: || {
                use ::messaging_core::__private::schema::*;
                (&::messaging_core::__private::schema::SchemaProbe::<Self>::new())
                    .schema()
            },
            location: ::messaging_core::__private::Location {
                file: ::core::file!(),
                line: ::core::line!(),
            },
        };
        fn payload(
            &self,
            _: ::messaging_core::__private::Op,
            _: ::core::option::Option<&Self>,
        ) -> ::messaging_core::__private::Result<::messaging_core::__private::Bytes> {
            ::messaging_core::__private::encode(self)
        }
        fn field(
            &self,
            field: &str,
        ) -> ::messaging_core::__private::Result<
            ::core::option::Option<::std::string::String>,
        > {
            match field {
                "token" => ::messaging_core::__private::scalar(&self.token),
                _ => ::messaging_core::__private::unknown_field(field),
            }
        }
        fn cached(
            &self,
        ) -> ::messaging_core::__private::Result<::messaging_core::__private::Bytes> {
            ::messaging_core::__private::Model::payload(
                self,
                ::messaging_core::__private::Op::Create,
                ::core::option::Option::None,
            )
        }
    }
    #[automatically_derived]
    impl<__Db: ::messaging_sql::Database> ::messaging_sql::SqlModel<__Db> for Session
    where
        String: ::messaging_sql::ColumnValue<__Db>,
    {
        type Key = String;
        const TABLE: &'static ::messaging_sql::Table = &::messaging_sql::Table {
            name: "sessions",
            columns: &[
                ::messaging_sql::Column {
                    field: "token",
                    name: "token",
                    generated: false,
                    json: false,
                },
            ],
            key: "token",
            version: ::core::option::Option::None,
        };
        fn key(&self) -> &Self::Key {
            &self.token
        }
        fn bind(
            &self,
            field: &str,
            binder: &mut ::messaging_sql::__private::Binder<'_, __Db>,
        ) -> ::messaging_sql::__private::Bound {
            match field {
                "token" => binder.value(&self.token),
                _ => binder.unknown(field),
            }
        }
        fn accepts(
            field: &str,
            given: &::messaging_sql::__private::TypeInfo<__Db>,
        ) -> bool {
            match field {
                "token" => ::messaging_sql::__private::accepts::<__Db, String>(given),
                _ => false,
            }
        }
        fn read(
            row: &::messaging_sql::__private::Reader<'_, __Db>,
            _: ::core::option::Option<&Self>,
        ) -> ::messaging_sql::__private::Read<Self> {
            ::core::result::Result::Ok(Self { token: row.value("token")? })
        }
    }
    ::messaging_core::__private::inventory::submit! {
        ::messaging_core::__private::Descriptor::Model(< Session as
        ::messaging_core::__private::Model > ::DESCRIPTOR)
    }
};
