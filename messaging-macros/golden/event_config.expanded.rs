#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Camera {
    pub id: Uuid,
    pub tenant_id: Option<Uuid>,
    #[serde(skip)]
    secret: String,
}
const _: () = {
    #[automatically_derived]
    impl ::messaging_core::__private::Model for Camera {
        const DESCRIPTOR: &'static ::messaging_core::__private::ModelDescriptor = &::messaging_core::__private::ModelDescriptor {
            id: ::core::concat!(::core::module_path!(), "::Camera"),
            name: "Camera",
            publish: &[
                (::messaging_core::__private::Op::Create, &["camera.created"]),
                (
                    ::messaging_core::__private::Op::Update,
                    &["camera.updated", "tenant:{tenant_id}"],
                ),
            ],
            payload: &[
                ::messaging_core::__private::PayloadField {
                    field: "id",
                    path: "id",
                },
                ::messaging_core::__private::PayloadField {
                    field: "tenant_id",
                    path: "tenantId",
                },
            ],
            previous: &[],
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
        ::messaging_core::__private::Descriptor::Model(< Camera as
        ::messaging_core::__private::Model > ::DESCRIPTOR)
    }
};
