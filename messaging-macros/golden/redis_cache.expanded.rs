/// Finds a camera.
#[allow(clippy::too_many_lines)]
pub async fn get_camera(mac_address: &str, db: Db) -> Result<Camera, ApiError> {
    let function = get_camera::__function();
    let key = ::messaging_core::__private::key(
        function,
        &[
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
    ::messaging_core::__private::cached(
            function,
            key,
            shape,
            ::messaging_core::__private::Remote,
            ::messaging_core::__private::Once(get_camera::__load(mac_address, db)),
        )
        .await
}
/// The cache of [`get_camera`](fn@get_camera): what it holds can be refreshed and invalidated.
#[derive(::core::fmt::Debug)]
#[allow(non_camel_case_types, dead_code)]
pub enum get_camera {}
#[allow(dead_code)]
impl get_camera {
    fn __function() -> &'static ::messaging_core::__private::Function {
        static DESCRIPTOR: ::messaging_core::__private::FunctionDescriptor = ::messaging_core::__private::FunctionDescriptor {
            id: ::core::concat!(::core::module_path!(), "::get_camera"),
            key: "camera:mac:{mac_address}",
            ttl: ::core::time::Duration::from_secs(3600u64),
            jitter: 0.1f64,
            cache_none: ::core::option::Option::None,
            stale: ::core::option::Option::None,
            wait: ::core::option::Option::None,
            local: ::core::option::Option::None,
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
    #[allow(clippy::too_many_lines)]
    async fn __load(
        #[allow(unused_variables)]
        mac_address: &str,
        mut db: Db,
    ) -> Result<Camera, ApiError> {
        Ok(db.camera(mac_address).await?)
    }
    /// Calls the function and stores what it returns, whatever the cache holds.
    pub async fn refresh(mac_address: &str, db: Db) -> Result<Camera, ApiError> {
        let function = Self::__function();
        let key = ::messaging_core::__private::key(
            function,
            &[
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
        ::messaging_core::__private::refresh(
                function,
                key,
                shape,
                ::messaging_core::__private::Remote,
                ::messaging_core::__private::Once(Self::__load(mac_address, db)),
            )
            .await
    }
    /// Removes the value for these arguments, also one that is being loaded.
    pub async fn invalidate(
        mac_address: &str,
    ) -> ::messaging_core::__private::Result<()> {
        let function = Self::__function();
        let key = ::messaging_core::__private::key(
            function,
            &[
                &mac_address
                    as &(dyn ::messaging_core::__private::Scalar + ::core::marker::Sync),
            ],
        );
        ::messaging_core::__private::invalidate(function, key).await
    }
    /// Removes the values for all arguments, in all processes; returns how many there were.
    pub async fn invalidate_all() -> ::messaging_core::__private::Result<
        ::core::primitive::u64,
    > {
        ::messaging_core::__private::invalidate_all(Self::__function()).await
    }
    /// The key of the value for these arguments.
    pub fn key(
        mac_address: &str,
    ) -> ::messaging_core::__private::Result<::std::string::String> {
        let function = Self::__function();
        let key = ::messaging_core::__private::key(
            function,
            &[
                &mac_address
                    as &(dyn ::messaging_core::__private::Scalar + ::core::marker::Sync),
            ],
        );
        ::messaging_core::__private::key_text(function, key)
    }
}
