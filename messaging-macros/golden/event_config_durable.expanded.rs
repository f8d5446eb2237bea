pub struct Camera {
    pub id: Uuid,
    complex_id: Option<u64>,
}
const _: () = {
    #[derive(::messaging_core::__private::serde::Serialize)]
    #[serde(crate = "::messaging_core::__private::serde", remote = "Camera")]
    #[allow(dead_code)]
    struct __PayloadFields {
        id: Uuid,
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
            key: ::core::option::Option::None,
            envelope: ::core::option::Option::None,
            cache: ::core::option::Option::None,
            durable: ::core::option::Option::Some(::messaging_core::__private::ModelDurability {
                durability: ::messaging_core::__private::Durability::DEFAULT
                    .retention(::messaging_core::__private::Retention {
                        max_len: ::core::num::NonZeroU64::new(50000u64).unwrap(),
                        max_age: ::core::time::Duration::from_secs(43200u64),
                    })
                    .partitions(::core::num::NonZeroU16::new(16u16).unwrap())
                    .wait_replicas(::core::num::NonZeroU32::new(1u32).unwrap()),
                key: ::core::option::Option::Some("complex_id"),
            }),
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
                "complex_id" => ::messaging_core::__private::scalar(&self.complex_id),
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
            publish: &[(::messaging_core::__private::Op::Delete, &["session.deleted"])],
            payload: &[
                ::messaging_core::__private::PayloadField {
                    field: "token",
                    path: "token",
                },
            ],
            previous: &[],
            key: ::core::option::Option::None,
            envelope: ::core::option::Option::None,
            cache: ::core::option::Option::None,
            durable: ::core::option::Option::Some(::messaging_core::__private::ModelDurability {
                durability: ::messaging_core::__private::Durability::DEFAULT,
                key: ::core::option::Option::None,
            }),
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
            ::messaging_core::__private::unknown_field(field)
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
    ::messaging_core::__private::inventory::submit! {
        ::messaging_core::__private::Descriptor::Model(< Session as
        ::messaging_core::__private::Model > ::DESCRIPTOR)
    }
};
