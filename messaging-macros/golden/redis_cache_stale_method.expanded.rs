impl Cameras {
    pub async fn get(
        &self,
        mac_address: &str,
        argument_1: (u32, u32),
    ) -> Result<Camera, ApiError> {
        let function = Self::__get_function();
        let key = ::messaging_core::__private::key(
            function,
            &[
                &self.tenant
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
                    let service = ::messaging_core::__private::copied(self);
                    let mac_address = ::messaging_core::__private::copied(mac_address);
                    let argument_1 = ::messaging_core::__private::moved(argument_1);
                    async move {
                        Self::__get_load(&*service, &*mac_address, argument_1).await
                    }
                }),
            )
            .await
    }
    #[doc(hidden)]
    fn __get_function() -> &'static ::messaging_core::__private::Function {
        static DESCRIPTOR: ::messaging_core::__private::FunctionDescriptor = ::messaging_core::__private::FunctionDescriptor {
            id: ::core::concat!(::core::module_path!(), "::get"),
            key: "camera:{self.tenant}:{mac_address}",
            ttl: ::core::time::Duration::from_secs(60u64),
            jitter: 0.1f64,
            cache_none: ::core::option::Option::None,
            stale: ::core::option::Option::Some(
                ::core::time::Duration::from_secs(60u64),
            ),
            wait: ::core::option::Option::None,
            local: ::core::option::Option::Some(::messaging_core::__private::LocalOptions {
                ttl: ::core::time::Duration::from_secs(5u64),
                max: 10000usize,
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
    #[doc(hidden)]
    async fn __get_load(
        &self,
        #[allow(unused_variables)]
        mac_address: &str,
        (retries, _): (u32, u32),
    ) -> Result<Camera, ApiError> {
        self.client.get(mac_address, retries).await
    }
    /// Calls `get` and stores what it returns, whatever the cache holds.
    #[allow(dead_code)]
    pub async fn get_refresh(
        &self,
        mac_address: &str,
        argument_1: (u32, u32),
    ) -> Result<Camera, ApiError> {
        let function = Self::__get_function();
        let key = ::messaging_core::__private::key(
            function,
            &[
                &self.tenant
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
                    Self::__get_load(self, mac_address, argument_1),
                ),
            )
            .await
    }
    /// The cache of `get`: what it holds can be invalidated.
    #[allow(dead_code)]
    pub fn get_cache<'k>() -> ::messaging_core::__private::CachedFunction<
        (::std::string::String, &'k str),
    > {
        ::messaging_core::__private::CachedFunction::new(Self::__get_function())
    }
    async fn all(self: &Arc<Self>) -> Result<Vec<Camera>, ApiError> {
        let function = Self::__all_function();
        let key = ::messaging_core::__private::key(function, &[]);
        let probe = ::messaging_core::__private::shape::ShapeProbe::<
            Result<Vec<Camera>, ApiError>,
        >::new();
        let shape = {
            use ::messaging_core::__private::shape::*;
            (&&&&probe).shape()
        };
        let shape = ::messaging_core::__private::shape::checked::<
            Result<Vec<Camera>, ApiError>,
            _,
        >(shape);
        ::messaging_core::__private::cached(
                function,
                key,
                shape,
                ::messaging_core::__private::Remote,
                ::messaging_core::__private::Again::new(move || {
                    let service = ::messaging_core::__private::copied(self);
                    async move { Self::__all_load(&*service).await }
                }),
            )
            .await
    }
    #[doc(hidden)]
    fn __all_function() -> &'static ::messaging_core::__private::Function {
        static DESCRIPTOR: ::messaging_core::__private::FunctionDescriptor = ::messaging_core::__private::FunctionDescriptor {
            id: ::core::concat!(::core::module_path!(), "::all"),
            key: "cameras",
            ttl: ::core::time::Duration::from_secs(60u64),
            jitter: 0.1f64,
            cache_none: ::core::option::Option::None,
            stale: ::core::option::Option::Some(
                ::core::time::Duration::from_secs(60u64),
            ),
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
    #[doc(hidden)]
    async fn __all_load(self: &Arc<Self>) -> Result<Vec<Camera>, ApiError> {
        self.client.all().await
    }
    /// Calls `all` and stores what it returns, whatever the cache holds.
    #[allow(dead_code)]
    async fn all_refresh(self: &Arc<Self>) -> Result<Vec<Camera>, ApiError> {
        let function = Self::__all_function();
        let key = ::messaging_core::__private::key(function, &[]);
        let probe = ::messaging_core::__private::shape::ShapeProbe::<
            Result<Vec<Camera>, ApiError>,
        >::new();
        let shape = {
            use ::messaging_core::__private::shape::*;
            (&&&&probe).shape()
        };
        let shape = ::messaging_core::__private::shape::checked::<
            Result<Vec<Camera>, ApiError>,
            _,
        >(shape);
        ::messaging_core::__private::refresh(
                function,
                key,
                shape,
                ::messaging_core::__private::Remote,
                ::messaging_core::__private::Once(Self::__all_load(self)),
            )
            .await
    }
    /// The cache of `all`: what it holds can be invalidated.
    #[allow(dead_code)]
    fn all_cache<'k>() -> ::messaging_core::__private::CachedFunction<()> {
        ::messaging_core::__private::CachedFunction::new(Self::__all_function())
    }
}
