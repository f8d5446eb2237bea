async fn bill(shop: u32, order: Order) -> Result<(), BillingError> {}
const _: () = {
    #[derive(::core::default::Default)]
    struct __Handler;
    #[automatically_derived]
    impl ::messaging_core::__private::Handler for __Handler {
        fn call<'d>(
            &'d self,
            delivery: &'d ::messaging_core::__private::Delivery,
        ) -> impl ::core::future::Future<
            Output = ::core::result::Result<(), ::messaging_core::__private::Rejection>,
        > + ::core::marker::Send + 'd {
            async move {
                ::messaging_core::__private::outcome::<
                    Result<(), BillingError>,
                >(
                    bill(
                            ::messaging_core::__private::segment::<
                                u32,
                            >(delivery, "shop")?,
                            <Order as ::messaging_core::__private::FromDelivery<
                                '_,
                            >>::from_delivery(delivery)?,
                        )
                        .await,
                )
            }
        }
    }
    impl __Handler {
        const DESCRIPTOR: ::messaging_core::__private::HandlerDescriptor = ::messaging_core::__private::HandlerDescriptor {
            id: ::core::concat!(::core::module_path!(), "::bill"),
            channels: &["orders.created:{shop}"],
            options: ::messaging_core::__private::HandlerOptions::DEFAULT
                .workers(::core::num::NonZeroUsize::new(4usize).unwrap())
                .ordered_by(::messaging_core::__private::OrderedBy::Key)
                .delivery(::messaging_core::__private::DeliveryMode::Queue)
                .start(::messaging_core::__private::StartAt::Beginning)
                .dedupe(::core::time::Duration::from_secs(86400u64)),
            group: ::core::option::Option::Some("billing"),
            dead_letter: ::core::option::Option::Some("orders.dead"),
            resync: ::core::option::Option::None,
            needs: |needs| {
                <Order as ::messaging_core::__private::FromDelivery<'_>>::needs(needs);
            },
            start: ::messaging_core::__private::start::<Self>,
            location: ::messaging_core::__private::Location {
                file: ::core::file!(),
                line: ::core::line!(),
            },
        };
    }
    ::messaging_core::__private::inventory::submit! {
        ::messaging_core::__private::Descriptor::Handler(& __Handler::DESCRIPTOR)
    }
};
