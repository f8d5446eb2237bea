impl<T> Projection<T>
where
    T: Store + Send + Sync + 'static,
{
    async fn apply(&self, order: Order<Self>) -> Result<(), T::Error> {
        self.store.apply(order).await
    }
}
const _: () = {
    #[allow(non_camel_case_types)]
    struct __Handler_apply<S>(::core::marker::PhantomData<fn() -> S>);
    #[automatically_derived]
    impl<S> ::core::default::Default for __Handler_apply<S> {
        fn default() -> Self {
            Self(::core::marker::PhantomData)
        }
    }
    #[automatically_derived]
    impl<T> ::messaging_core::__private::Handler for __Handler_apply<Projection<T>>
    where
        T: Store + Send + Sync + 'static,
    {
        fn call<'d>(
            &'d self,
            delivery: &'d ::messaging_core::__private::Delivery,
        ) -> impl ::core::future::Future<
            Output = ::core::result::Result<(), ::messaging_core::__private::Rejection>,
        > + ::core::marker::Send + 'd {
            async move {
                let service = ::messaging_core::__private::service::<
                    Projection<T>,
                >(delivery)?;
                ::messaging_core::__private::outcome::<
                    Result<(), T::Error>,
                >(
                    <Projection<
                        T,
                    >>::apply(
                            &service,
                            <Order<
                                Projection<T>,
                            > as ::messaging_core::__private::FromDelivery<
                                '_,
                            >>::from_delivery(delivery)?,
                        )
                        .await,
                )
            }
        }
    }
    impl<T> __Handler_apply<Projection<T>>
    where
        T: Store + Send + Sync + 'static,
    {
        const DESCRIPTOR: ::messaging_core::__private::HandlerDescriptor = ::messaging_core::__private::HandlerDescriptor {
            id: ::core::concat!(::core::module_path!(), "::Projection::apply"),
            channels: &["orders.created"],
            options: ::messaging_core::__private::HandlerOptions::DEFAULT,
            group: ::core::option::Option::None,
            dead_letter: ::core::option::Option::None,
            resync: ::core::option::Option::None,
            needs: |needs| {
                ::messaging_core::__private::needs_service::<Projection<T>>(needs);
                <Order<
                    Projection<T>,
                > as ::messaging_core::__private::FromDelivery<'_>>::needs(needs);
            },
            start: ::messaging_core::__private::start::<Self>,
            location: ::messaging_core::__private::Location {
                file: ::core::file!(),
                line: ::core::line!(),
            },
        };
    }
    #[automatically_derived]
    impl<T> ::messaging_core::__private::Subscribers for Projection<T>
    where
        T: Store + Send + Sync + 'static,
    {
        fn handlers() -> ::std::vec::Vec<
            ::messaging_core::__private::HandlerDescriptor,
        > {
            ::core::convert::Into::into([__Handler_apply::<Projection<T>>::DESCRIPTOR])
        }
    }
};
