pub struct Monitor {
    pub id: Uuid,
    pub tenant_id: Uuid,
    pub active: bool,
    pub slug: String,
}
const _: () = {
    #[derive(::messaging_core::__private::serde::Serialize)]
    #[serde(crate = "::messaging_core::__private::serde", remote = "Monitor")]
    #[allow(dead_code)]
    struct __PreviousFields {
        slug: String,
    }
    #[derive(::messaging_core::__private::serde::Serialize)]
    #[serde(crate = "::messaging_core::__private::serde")]
    struct __Previous<'a>(
        #[serde(serialize_with = "__PreviousFields::serialize")]
        &'a Monitor,
    );
    #[derive(::messaging_core::__private::serde::Serialize)]
    #[serde(crate = "::messaging_core::__private::serde", remote = "Monitor")]
    #[allow(dead_code)]
    struct __MetadataFields {
        active: bool,
        slug: String,
    }
    #[derive(::messaging_core::__private::serde::Serialize)]
    #[serde(crate = "::messaging_core::__private::serde")]
    struct __Metadata<'a>(
        #[serde(serialize_with = "__MetadataFields::serialize")]
        &'a Monitor,
    );
    #[automatically_derived]
    impl ::messaging_core::__private::Model for Monitor {
        const DESCRIPTOR: &'static ::messaging_core::__private::ModelDescriptor = &::messaging_core::__private::ModelDescriptor {
            id: ::core::concat!(::core::module_path!(), "::Monitor"),
            name: "Monitor",
            publish: &[
                (::messaging_core::__private::Op::Create, &["monitor.created"]),
                (
                    ::messaging_core::__private::Op::Update,
                    &["blip0:monitor:update", "blip0:tenant:{tenant_id}:update"],
                ),
            ],
            payload: &[
                ::messaging_core::__private::PayloadField {
                    field: "active",
                    path: "metadata.active",
                },
                ::messaging_core::__private::PayloadField {
                    field: "slug",
                    path: "metadata.slug",
                },
                ::messaging_core::__private::PayloadField {
                    field: "id",
                    path: "resource_id",
                },
                ::messaging_core::__private::PayloadField {
                    field: "tenant_id",
                    path: "tenant_id",
                },
            ],
            previous: &[
                ::messaging_core::__private::PayloadField {
                    field: "slug",
                    path: "previous.slug",
                },
            ],
            key: ::core::option::Option::None,
            envelope: ::core::option::Option::Some("monitor"),
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
            op: ::messaging_core::__private::Op,
            previous: ::core::option::Option<&Self>,
        ) -> ::messaging_core::__private::Result<::messaging_core::__private::Bytes> {
            ::messaging_core::__private::envelope(
                op,
                "monitor",
                &self.id,
                ::core::option::Option::Some(&self.tenant_id),
                &__Metadata(self),
                previous.map(__Previous).as_ref(),
            )
        }
        fn field(
            &self,
            field: &str,
        ) -> ::messaging_core::__private::Result<
            ::core::option::Option<::std::string::String>,
        > {
            match field {
                "tenant_id" => ::messaging_core::__private::scalar(&self.tenant_id),
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
        ::messaging_core::__private::Descriptor::Model(< Monitor as
        ::messaging_core::__private::Model > ::DESCRIPTOR)
    }
};
