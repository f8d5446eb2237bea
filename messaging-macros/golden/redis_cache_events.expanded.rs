async fn camera_of<'a>(user: &'a User, mac_address: &'a str) -> Option<Camera> {
    let function = camera_of::__function();
    let key = ::messaging_core::__private::key(
        function,
        &[
            &user.id
                as &(dyn ::messaging_core::__private::Scalar + ::core::marker::Sync),
            &mac_address
                as &(dyn ::messaging_core::__private::Scalar + ::core::marker::Sync),
        ],
    );
    let probe = ::messaging_core::__private::shape::ShapeProbe::<Option<Camera>>::new();
    let shape = {
        use ::messaging_core::__private::shape::*;
        (&&&&probe).shape()
    };
    ::messaging_core::__private::assert_option_shape(&shape);
    let shape = ::messaging_core::__private::shape::checked::<Option<Camera>, _>(shape);
    ::messaging_core::__private::cached(
            function,
            key,
            shape,
            ::messaging_core::__private::Remote,
            ::messaging_core::__private::Once(camera_of::__load(user, mac_address)),
        )
        .await
}
/// The cache of [`camera_of`](fn@camera_of): what it holds can be refreshed and invalidated.
#[derive(::core::fmt::Debug)]
#[allow(non_camel_case_types, dead_code)]
enum camera_of {}
#[allow(dead_code)]
impl camera_of {
    fn __function() -> &'static ::messaging_core::__private::Function {
        static DESCRIPTOR: ::messaging_core::__private::FunctionDescriptor = ::messaging_core::__private::FunctionDescriptor {
            id: "camera_of",
            key: "v2:camera:{user.id}:{mac_address}",
            ttl: ::core::time::Duration::from_secs(3600u64),
            jitter: 0.05f64,
            cache_none: ::core::option::Option::Some(
                ::core::time::Duration::from_secs(30u64),
            ),
            stale: ::core::option::Option::None,
            wait: ::core::option::Option::None,
            local: ::core::option::Option::None,
            invalidate_on: &[
                ::messaging_core::__private::Trigger {
                    on: ::messaging_core::__private::TriggerOn::Channel(
                        "camera.updated",
                    ),
                    select: &[],
                },
                ::messaging_core::__private::Trigger {
                    on: ::messaging_core::__private::TriggerOn::Channel(
                        "blip0:monitor:update",
                    ),
                    select: &[
                        ("user.id", "metadata.owner"),
                        ("mac_address", "resource_id"),
                    ],
                },
                ::messaging_core::__private::Trigger {
                    on: ::messaging_core::__private::TriggerOn::Model(
                        <models::Camera as ::messaging_core::__private::Model>::DESCRIPTOR,
                        &[
                            ::messaging_core::__private::Op::Update,
                            ::messaging_core::__private::Op::Delete,
                        ],
                    ),
                    select: &[("user.id", "owner_id")],
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
            < models::Camera as ::messaging_core::__private::Model > ::DESCRIPTOR
            .publishes(::messaging_core::__private::Op::Update),
            "`models::Camera` does not publish `update`; add `update = \"…\"` to `publish` in its `#[event_config]`, or remove it here"
        );
        const _: () = ::core::assert!(
            < models::Camera as ::messaging_core::__private::Model > ::DESCRIPTOR
            .publishes(::messaging_core::__private::Op::Delete),
            "`models::Camera` does not publish `delete`; add `delete = \"…\"` to `publish` in its `#[event_config]`, or remove it here"
        );
        const _: () = ::core::assert!(
            < models::Camera as ::messaging_core::__private::Model > ::DESCRIPTOR
            .carries(& ["owner_id"]),
            "the events of `models::Camera` do not carry the field `owner_id`, which the key needs for `{{user.id}}`; add it to its `payload_fields`, or select another field"
        );
        const _: () = ::core::assert!(
            < models::Camera as ::messaging_core::__private::Model > ::DESCRIPTOR
            .carries(& ["mac_address"]),
            "the events of `models::Camera` do not carry the field `mac_address`, which the key needs for `{{mac_address}}`; add it to its `payload_fields`, or select another field: `{{ on = models::Camera(update, delete), mac_address = … }}`"
        );
        &FUNCTION
    }
    async fn __load<'a>(
        #[allow(unused_variables)]
        user: &'a User,
        #[allow(unused_variables)]
        mac_address: &'a str,
    ) -> Option<Camera> {
        load(user, mac_address).await
    }
    /// Calls the function and stores what it returns, whatever the cache holds.
    async fn refresh<'a>(user: &'a User, mac_address: &'a str) -> Option<Camera> {
        let function = Self::__function();
        let key = ::messaging_core::__private::key(
            function,
            &[
                &user.id
                    as &(dyn ::messaging_core::__private::Scalar + ::core::marker::Sync),
                &mac_address
                    as &(dyn ::messaging_core::__private::Scalar + ::core::marker::Sync),
            ],
        );
        let probe = ::messaging_core::__private::shape::ShapeProbe::<
            Option<Camera>,
        >::new();
        let shape = {
            use ::messaging_core::__private::shape::*;
            (&&&&probe).shape()
        };
        ::messaging_core::__private::assert_option_shape(&shape);
        let shape = ::messaging_core::__private::shape::checked::<
            Option<Camera>,
            _,
        >(shape);
        ::messaging_core::__private::refresh(
                function,
                key,
                shape,
                ::messaging_core::__private::Remote,
                ::messaging_core::__private::Once(Self::__load(user, mac_address)),
            )
            .await
    }
    /// Removes the value for these arguments, also one that is being loaded.
    async fn invalidate(
        user_id: impl ::messaging_core::__private::serde::Serialize + ::core::marker::Sync,
        mac_address: &'_ str,
    ) -> ::messaging_core::__private::Result<()> {
        let function = Self::__function();
        let key = ::messaging_core::__private::key(
            function,
            &[
                &user_id
                    as &(dyn ::messaging_core::__private::Scalar + ::core::marker::Sync),
                &mac_address
                    as &(dyn ::messaging_core::__private::Scalar + ::core::marker::Sync),
            ],
        );
        ::messaging_core::__private::invalidate(function, key).await
    }
    /// Removes the values for all arguments, in all processes; returns how many there were.
    async fn invalidate_all() -> ::messaging_core::__private::Result<
        ::core::primitive::u64,
    > {
        ::messaging_core::__private::invalidate_all(Self::__function()).await
    }
    /// The key of the value for these arguments.
    fn key(
        user_id: impl ::messaging_core::__private::serde::Serialize + ::core::marker::Sync,
        mac_address: &'_ str,
    ) -> ::messaging_core::__private::Result<::std::string::String> {
        let function = Self::__function();
        let key = ::messaging_core::__private::key(
            function,
            &[
                &user_id
                    as &(dyn ::messaging_core::__private::Scalar + ::core::marker::Sync),
                &mac_address
                    as &(dyn ::messaging_core::__private::Scalar + ::core::marker::Sync),
            ],
        );
        ::messaging_core::__private::key_text(function, key)
    }
}
