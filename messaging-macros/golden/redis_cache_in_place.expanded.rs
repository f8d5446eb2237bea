impl Cameras for Client {
    async fn get(&self, id: u64) -> Result<Camera, ApiError> {
        let function = {
            static DESCRIPTOR: ::messaging_core::__private::FunctionDescriptor = ::messaging_core::__private::FunctionDescriptor {
                id: ::core::concat!(::core::module_path!(), "::get"),
                key: "camera:{id}",
                ttl: ::core::time::Duration::from_secs(60u64),
                jitter: 0.1f64,
                cache_none: ::core::option::Option::None,
                stale: ::core::option::Option::None,
                wait: ::core::option::Option::None,
                local: ::core::option::Option::None,
                invalidate_on: &[
                    ::messaging_core::__private::Trigger {
                        on: ::messaging_core::__private::TriggerOn::Model(
                            <Camera as ::messaging_core::__private::Model>::DESCRIPTOR,
                            &[::messaging_core::__private::Op::Delete],
                        ),
                        select: &[],
                    },
                ],
                location: ::messaging_core::__private::Location {
                    file: ::core::file!(),
                    line: ::core::line!(),
                },
            };
            static FUNCTION: ::messaging_core::__private::Function = ::messaging_core::__private::Function::new(
                &DESCRIPTOR,
            );
            ::messaging_core::__private::inventory::submit! {
                ::messaging_core::__private::Descriptor::Function(& DESCRIPTOR)
            }
            const _: () = ::core::assert!(
                < Camera as ::messaging_core::__private::Model > ::DESCRIPTOR
                .publishes(::messaging_core::__private::Op::Delete),
                "`Camera` does not publish `delete`; add `delete = \"…\"` to `publish` in its `#[event_config]`, or remove it here"
            );
            const _: () = ::core::assert!(
                < Camera as ::messaging_core::__private::Model > ::DESCRIPTOR.carries(&
                ["id"]),
                "the events of `Camera` do not carry the field `id`, which the key needs for `{{id}}`; add it to its `payload_fields`, or select another field: `{{ on = Camera(delete), id = … }}`"
            );
            &FUNCTION
        };
        let key = ::messaging_core::__private::key(
            function,
            &[&id as &(dyn ::messaging_core::__private::Scalar + ::core::marker::Sync)],
        );
        let probe = ::messaging_core::__private::shape::ShapeProbe::<
            Result<Camera, ApiError>,
        >::new();
        let shape = {
            use ::messaging_core::__private::shape::*;
            (&&&&probe).shape()
        };
        let shape = ::messaging_core::__private::shape::checked::<
            Result<Camera, ApiError>,
            _,
        >(shape);
        ::messaging_core::__private::cached(
                function,
                key,
                shape,
                ::messaging_core::__private::Remote,
                ::messaging_core::__private::Once(async move {
                    if let ::core::option::Option::Some(returned) = ::core::option::Option::None::<
                        Result<Camera, ApiError>,
                    > {
                        return returned;
                    }
                    { self.get(id).await }
                }),
            )
            .await
    }
}
