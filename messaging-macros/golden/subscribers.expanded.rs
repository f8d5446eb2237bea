impl NotificationSubscriber {
    async fn handle(
        &self,
        user: &str,
        message: NotificationMessage,
    ) -> Result<(), AppError> {
        self.store(user, message).await
    }
    #[cfg(unix)]
    async fn wake(&self) {}
    async fn reload(this: State<Self>) {}
}
const _: () = {
    #[allow(non_camel_case_types)]
    struct __Handler_handle<S>(::core::marker::PhantomData<fn() -> S>);
    #[automatically_derived]
    impl<S> ::core::default::Default for __Handler_handle<S> {
        fn default() -> Self {
            Self(::core::marker::PhantomData)
        }
    }
    #[automatically_derived]
    impl ::messaging_core::__private::Handler
    for __Handler_handle<NotificationSubscriber> {
        fn call<'d>(
            &'d self,
            delivery: &'d ::messaging_core::__private::Delivery,
        ) -> impl ::core::future::Future<
            Output = ::core::result::Result<(), ::messaging_core::__private::Rejection>,
        > + ::core::marker::Send + 'd {
            async move {
                let service = ::messaging_core::__private::service::<
                    NotificationSubscriber,
                >(delivery)?;
                ::messaging_core::__private::outcome::<
                    Result<(), AppError>,
                >(
                    <NotificationSubscriber>::handle(
                            &service,
                            ::messaging_core::__private::segment_str(delivery, "user")?,
                            <NotificationMessage as ::messaging_core::__private::FromDelivery<
                                '_,
                            >>::from_delivery(delivery)?,
                        )
                        .await,
                )
            }
        }
    }
    impl __Handler_handle<NotificationSubscriber> {
        const DESCRIPTOR: ::messaging_core::__private::HandlerDescriptor = ::messaging_core::__private::HandlerDescriptor {
            id: ::core::concat!(
                ::core::module_path!(), "::NotificationSubscriber::handle"
            ),
            channels: &["notifications:{user}"],
            options: ::messaging_core::__private::HandlerOptions::DEFAULT,
            group: ::core::option::Option::None,
            dead_letter: ::core::option::Option::None,
            resync: ::core::option::Option::Some(::messaging_core::__private::ResyncDescriptor {
                every: ::core::option::Option::None,
                needs: |needs| ::messaging_core::__private::resync_needs(
                    needs,
                    &<NotificationSubscriber>::reload,
                ),
                call: |context| ::messaging_core::__private::resync_call(
                    context,
                    <NotificationSubscriber>::reload,
                ),
            }),
            needs: |needs| {
                ::messaging_core::__private::needs_service::<
                    NotificationSubscriber,
                >(needs);
                <NotificationMessage as ::messaging_core::__private::FromDelivery<
                    '_,
                >>::needs(needs);
            },
            start: ::messaging_core::__private::start::<Self>,
            location: ::messaging_core::__private::Location {
                file: ::core::file!(),
                line: ::core::line!(),
            },
        };
    }
    #[cfg(unix)]
    #[allow(non_camel_case_types)]
    struct __Handler_wake<S>(::core::marker::PhantomData<fn() -> S>);
    #[cfg(unix)]
    #[automatically_derived]
    impl<S> ::core::default::Default for __Handler_wake<S> {
        fn default() -> Self {
            Self(::core::marker::PhantomData)
        }
    }
    #[cfg(unix)]
    #[automatically_derived]
    impl ::messaging_core::__private::Handler
    for __Handler_wake<NotificationSubscriber> {
        fn call<'d>(
            &'d self,
            delivery: &'d ::messaging_core::__private::Delivery,
        ) -> impl ::core::future::Future<
            Output = ::core::result::Result<(), ::messaging_core::__private::Rejection>,
        > + ::core::marker::Send + 'd {
            async move {
                let service = ::messaging_core::__private::service::<
                    NotificationSubscriber,
                >(delivery)?;
                ::messaging_core::__private::outcome::<
                    (),
                >(<NotificationSubscriber>::wake(&service).await)
            }
        }
    }
    #[cfg(unix)]
    impl __Handler_wake<NotificationSubscriber> {
        const DESCRIPTOR: ::messaging_core::__private::HandlerDescriptor = ::messaging_core::__private::HandlerDescriptor {
            id: ::core::concat!(
                ::core::module_path!(), "::NotificationSubscriber::wake"
            ),
            channels: &["wakeup"],
            options: ::messaging_core::__private::HandlerOptions::DEFAULT,
            group: ::core::option::Option::None,
            dead_letter: ::core::option::Option::None,
            resync: ::core::option::Option::None,
            needs: |needs| {
                ::messaging_core::__private::needs_service::<
                    NotificationSubscriber,
                >(needs);
            },
            start: ::messaging_core::__private::start::<Self>,
            location: ::messaging_core::__private::Location {
                file: ::core::file!(),
                line: ::core::line!(),
            },
        };
    }
    #[automatically_derived]
    impl ::messaging_core::__private::Subscribers for NotificationSubscriber {
        fn handlers() -> ::std::vec::Vec<
            ::messaging_core::__private::HandlerDescriptor,
        > {
            ::core::convert::Into::into([
                __Handler_handle::<NotificationSubscriber>::DESCRIPTOR,
                #[cfg(unix)]
                __Handler_wake::<NotificationSubscriber>::DESCRIPTOR,
            ])
        }
    }
    ::messaging_core::__private::inventory::submit! {
        ::messaging_core::__private::Descriptor::Handler(& __Handler_handle:: <
        NotificationSubscriber > ::DESCRIPTOR)
    }
    #[cfg(unix)]
    ::messaging_core::__private::inventory::submit! {
        ::messaging_core::__private::Descriptor::Handler(& __Handler_wake:: <
        NotificationSubscriber > ::DESCRIPTOR)
    }
};
