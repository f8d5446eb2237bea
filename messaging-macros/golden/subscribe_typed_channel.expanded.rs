async fn audit(log: ChannelOf<AuditLog>, entry: Entry) {}
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
                    (),
                >(
                    audit(
                            <ChannelOf<
                                AuditLog,
                            > as ::messaging_core::__private::FromDelivery<
                                '_,
                            >>::from_delivery(delivery)?,
                            <Entry as ::messaging_core::__private::FromDelivery<
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
            id: ::core::concat!(::core::module_path!(), "::audit"),
            channels: &[
                <channels::AuditLog as ::messaging_core::__private::TypedChannel>::TEMPLATE,
            ],
            options: ::messaging_core::__private::HandlerOptions::DEFAULT
                .workers(::core::num::NonZeroUsize::new(4usize).unwrap())
                .ordered_by(::messaging_core::__private::OrderedBy::Channel),
            group: ::core::option::Option::None,
            dead_letter: ::core::option::Option::None,
            resync: ::core::option::Option::None,
            needs: |needs| {
                <ChannelOf<
                    AuditLog,
                > as ::messaging_core::__private::FromDelivery<'_>>::needs(needs);
                <Entry as ::messaging_core::__private::FromDelivery<'_>>::needs(needs);
            },
            start: ::messaging_core::__private::start::<Self>,
            location: ::messaging_core::__private::Location {
                file: ::core::file!(),
                line: ::core::line!(),
            },
        };
    }
    const _: () = ::core::assert!(
        ! < Entry as ::messaging_core::__private::FromDelivery < '_ >> ::IS_PAYLOAD || !
        (< ChannelOf < AuditLog > as ::messaging_core::__private::FromDelivery < '_ >>
        ::IS_PAYLOAD),
        "a handler takes at most one payload, and an argument before this one is the payload already; make one struct of both, or take shared state as `State<…>`"
    );
    ::messaging_core::__private::inventory::submit! {
        ::messaging_core::__private::Descriptor::Handler(& __Handler::DESCRIPTOR)
    }
};
