async fn get_camera(
    user: &User,
    mac_address: &str,
    tags: &[String],
    db: Db,
) -> Result<Camera, ApiError> {
    let function = get_camera::__function();
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
    let layer = ::messaging_core::__private::kept::<
        Result<Camera, ApiError>,
        _,
        _,
    >(&shape, ::messaging_core::__private::Local);
    ::messaging_core::__private::cached_locally(
            function,
            key,
            shape,
            layer,
            ::messaging_core::__private::Again::new(move || {
                let user = ::messaging_core::__private::copied(user);
                let mac_address = ::messaging_core::__private::copied(mac_address);
                let tags = ::messaging_core::__private::copied(tags);
                let db = ::messaging_core::__private::moved(db);
                async move {
                    get_camera::__load(&*user, &*mac_address, &*tags, db).await
                }
            }),
        )
        .await
}
/// The cache of [`get_camera`](fn@get_camera): what it holds can be refreshed and invalidated.
#[derive(::core::fmt::Debug)]
#[allow(non_camel_case_types, dead_code)]
enum get_camera {}
#[allow(dead_code)]
impl get_camera {
    fn __function() -> &'static ::messaging_core::__private::Function {
        static DESCRIPTOR: ::messaging_core::__private::FunctionDescriptor = ::messaging_core::__private::FunctionDescriptor {
            id: ::core::concat!(::core::module_path!(), "::get_camera"),
            key: "camera:{user.id}:{mac_address}",
            ttl: ::core::time::Duration::from_secs(3600u64),
            jitter: 0.1f64,
            cache_none: ::core::option::Option::None,
            stale: ::core::option::Option::Some(
                ::core::time::Duration::from_secs(300u64),
            ),
            wait: ::core::option::Option::Some(
                ::core::time::Duration::from_millis(500u64),
            ),
            local: ::core::option::Option::Some(::messaging_core::__private::LocalOptions {
                ttl: ::core::time::Duration::from_secs(5u64),
                max: 500usize,
            }),
            invalidate_on: &[],
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
        &FUNCTION
    }
    async fn __load(
        #[allow(unused_variables)]
        user: &User,
        #[allow(unused_variables)]
        mac_address: &str,
        tags: &[String],
        db: Db,
    ) -> Result<Camera, ApiError> {
        db.camera(user, mac_address, tags).await
    }
    /// Calls the function and stores what it returns, whatever the cache holds.
    async fn refresh(
        user: &User,
        mac_address: &str,
        tags: &[String],
        db: Db,
    ) -> Result<Camera, ApiError> {
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
        let layer = ::messaging_core::__private::kept::<
            Result<Camera, ApiError>,
            _,
            _,
        >(&shape, ::messaging_core::__private::Local);
        ::messaging_core::__private::refresh(
                function,
                key,
                shape,
                layer,
                ::messaging_core::__private::Once(
                    Self::__load(user, mac_address, tags, db),
                ),
            )
            .await
    }
    /// Removes the value for these arguments, also one that is being loaded.
    async fn invalidate(
        user_id: impl ::messaging_core::__private::serde::Serialize + ::core::marker::Sync,
        mac_address: &str,
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
        mac_address: &str,
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
