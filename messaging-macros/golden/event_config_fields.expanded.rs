#[serde(rename_all = "camelCase", tag = "kind")]
pub struct Camera {
    pub id: Uuid,
    #[serde(serialize_with = "mac::serialize", default)]
    pub mac_address: String,
    #[serde(rename = "model")]
    pub r#type: String,
    secret: String,
}
const _: () = {
    #[derive(::messaging_core::__private::serde::Serialize)]
    #[serde(
        crate = "::messaging_core::__private::serde",
        remote = "Camera",
        rename_all = "camelCase"
    )]
    #[allow(dead_code)]
    struct __PreviousFields {
        #[serde(serialize_with = "mac::serialize")]
        mac_address: String,
    }
    #[derive(::messaging_core::__private::serde::Serialize)]
    #[serde(crate = "::messaging_core::__private::serde")]
    struct __Previous<'a>(
        #[serde(serialize_with = "__PreviousFields::serialize")]
        &'a Camera,
    );
    #[derive(::messaging_core::__private::serde::Serialize)]
    #[serde(
        crate = "::messaging_core::__private::serde",
        remote = "Camera",
        rename_all = "camelCase",
        tag = "kind",
        rename = "Camera"
    )]
    #[allow(dead_code)]
    struct __PayloadFields {
        id: Uuid,
        #[serde(serialize_with = "mac::serialize")]
        mac_address: String,
        #[serde(rename = "model")]
        r#type: String,
    }
    #[derive(::messaging_core::__private::serde::Serialize)]
    #[serde(crate = "::messaging_core::__private::serde")]
    struct __Payload<'a>(
        #[serde(serialize_with = "__PayloadFields::serialize")]
        &'a Camera,
    );
    #[derive(::messaging_core::__private::serde::Serialize)]
    #[serde(
        crate = "::messaging_core::__private::serde",
        remote = "Camera",
        rename_all = "camelCase",
        tag = "kind",
        rename = "Camera"
    )]
    #[allow(dead_code)]
    struct __EntryFields {
        id: Uuid,
        secret: String,
    }
    #[derive(::messaging_core::__private::serde::Serialize)]
    #[serde(crate = "::messaging_core::__private::serde")]
    struct __Entry<'a>(#[serde(serialize_with = "__EntryFields::serialize")] &'a Camera);
    #[automatically_derived]
    impl ::messaging_core::__private::Model for Camera {
        const DESCRIPTOR: &'static ::messaging_core::__private::ModelDescriptor = &::messaging_core::__private::ModelDescriptor {
            id: ::core::concat!(::core::module_path!(), "::Camera"),
            name: "Camera",
            publish: &[
                (::messaging_core::__private::Op::Create, &["camera.created"]),
                (::messaging_core::__private::Op::Update, &["camera.updated"]),
                (::messaging_core::__private::Op::Delete, &["camera.deleted"]),
            ],
            payload: &[
                ::messaging_core::__private::PayloadField {
                    field: "id",
                    path: "id",
                },
                ::messaging_core::__private::PayloadField {
                    field: "mac_address",
                    path: "macAddress",
                },
                ::messaging_core::__private::PayloadField {
                    field: "type",
                    path: "model",
                },
            ],
            previous: &[
                ::messaging_core::__private::PayloadField {
                    field: "mac_address",
                    path: "previous.macAddress",
                },
            ],
            key: ::core::option::Option::None,
            envelope: ::core::option::Option::None,
            cache: ::core::option::Option::Some(::messaging_core::__private::ModelCache {
                key: "camera:mac:{mac_address}",
                ttl: ::core::time::Duration::from_secs(3600u64),
            }),
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
            previous: ::core::option::Option<&Self>,
        ) -> ::messaging_core::__private::Result<::messaging_core::__private::Bytes> {
            #[derive(::messaging_core::__private::serde::Serialize)]
            #[serde(crate = "::messaging_core::__private::serde")]
            struct __Update<'a> {
                #[serde(flatten)]
                model: __Payload<'a>,
                #[serde(skip_serializing_if = "::core::option::Option::is_none")]
                previous: ::core::option::Option<__Previous<'a>>,
            }
            ::messaging_core::__private::encode(
                &__Update {
                    model: __Payload(self),
                    previous: previous.map(__Previous),
                },
            )
        }
        fn field(
            &self,
            field: &str,
        ) -> ::messaging_core::__private::Result<
            ::core::option::Option<::std::string::String>,
        > {
            match field {
                "mac_address" => ::messaging_core::__private::scalar(&self.mac_address),
                _ => ::messaging_core::__private::unknown_field(field),
            }
        }
        fn cached(
            &self,
        ) -> ::messaging_core::__private::Result<::messaging_core::__private::Bytes> {
            ::messaging_core::__private::encode(&__Entry(self))
        }
    }
    ::messaging_core::__private::inventory::submit! {
        ::messaging_core::__private::Descriptor::Model(< Camera as
        ::messaging_core::__private::Model > ::DESCRIPTOR)
    }
};
