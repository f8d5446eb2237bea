#[derive(Serialize)]
pub struct Camera {
    pub name: String,
}
const _: () = {
    #[derive(::messaging_core::__private::serde::Serialize)]
    #[serde(crate = "::messaging_core::__private::serde", remote = "Camera")]
    #[allow(dead_code)]
    struct __PreviousFields {
        name: String,
    }
    #[derive(::messaging_core::__private::serde::Serialize)]
    #[serde(crate = "::messaging_core::__private::serde")]
    struct __Previous<'a>(
        #[serde(serialize_with = "__PreviousFields::serialize")]
        &'a Camera,
    );
    #[automatically_derived]
    impl ::messaging_core::__private::Model for Camera {
        const DESCRIPTOR: &'static ::messaging_core::__private::ModelDescriptor = &::messaging_core::__private::ModelDescriptor {
            id: ::core::concat!(::core::module_path!(), "::Camera"),
            name: "Camera",
            publish: &[(::messaging_core::__private::Op::Update, &["camera.updated"])],
            payload: &[
                ::messaging_core::__private::PayloadField {
                    field: "name",
                    path: "name",
                },
            ],
            previous: &[
                ::messaging_core::__private::PayloadField {
                    field: "name",
                    path: "previous.name",
                },
            ],
            key: ::core::option::Option::None,
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
            previous: ::core::option::Option<&Self>,
        ) -> ::messaging_core::__private::Result<::messaging_core::__private::Bytes> {
            #[derive(::messaging_core::__private::serde::Serialize)]
            #[serde(crate = "::messaging_core::__private::serde")]
            struct __Update<'a> {
                #[serde(flatten)]
                model: &'a Camera,
                #[serde(skip_serializing_if = "::core::option::Option::is_none")]
                previous: ::core::option::Option<__Previous<'a>>,
            }
            ::messaging_core::__private::encode(
                &__Update {
                    model: self,
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
        ::messaging_core::__private::Descriptor::Model(< Camera as
        ::messaging_core::__private::Model > ::DESCRIPTOR)
    }
};
