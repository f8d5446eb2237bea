#[cfg(feature = "cameras")]
pub async fn on_complex<'a>(complex_id: u64, mut event: CameraEvent<'a>, _: Channel) {}
#[cfg(feature = "cameras")]
const _: () = {
    #[derive(::core::default::Default)]
    struct __Handler;
    #[automatically_derived]
    impl my::messaging::__private::Handler for __Handler {
        fn call<'d>(
            &'d self,
            delivery: &'d my::messaging::__private::Delivery,
        ) -> impl ::core::future::Future<
            Output = ::core::result::Result<(), my::messaging::__private::Rejection>,
        > + ::core::marker::Send + 'd {
            async move {
                my::messaging::__private::outcome::<
                    (),
                >(
                    on_complex(
                            my::messaging::__private::segment::<
                                u64,
                            >(delivery, "complex_id")?,
                            <CameraEvent<
                                '_,
                            > as my::messaging::__private::FromDelivery<
                                '_,
                            >>::from_delivery(delivery)?,
                            <Channel as my::messaging::__private::FromDelivery<
                                '_,
                            >>::from_delivery(delivery)?,
                        )
                        .await,
                )
            }
        }
    }
    impl __Handler {
        const DESCRIPTOR: my::messaging::__private::HandlerDescriptor = my::messaging::__private::HandlerDescriptor {
            id: "on_complex",
            channels: &[
                "camera.events.complex:{complex_id}.{_kind}",
                "camera.old:{_kind}:{complex_id}",
            ],
            options: my::messaging::__private::HandlerOptions::DEFAULT
                .workers(::core::num::NonZeroUsize::new(8usize).unwrap())
                .ordered_by(
                    my::messaging::__private::OrderedBy::Placeholder("complex_id"),
                )
                .buffer(my::messaging::__private::Buffer {
                    messages: ::core::num::NonZeroUsize::new(500usize).unwrap(),
                    bytes: ::core::num::NonZeroUsize::new(8388608usize).unwrap(),
                })
                .overflow(my::messaging::__private::Overflow::DropOldest)
                .timeout(::core::time::Duration::from_secs(5u64))
                .retry(my::messaging::__private::Retry {
                    attempts: ::core::num::NonZeroU32::new(5u32).unwrap(),
                    initial: ::core::time::Duration::from_millis(100u64),
                    multiplier: 2f64,
                    max_delay: ::core::time::Duration::from_secs(30u64),
                }),
            group: ::core::option::Option::None,
            dead_letter: ::core::option::Option::None,
            resync: ::core::option::Option::Some(my::messaging::__private::ResyncDescriptor {
                every: ::core::option::Option::Some(
                    ::core::time::Duration::from_secs(30u64),
                ),
                needs: |needs| my::messaging::__private::resync_needs(
                    needs,
                    &cameras::reload,
                ),
                call: |context| my::messaging::__private::resync_call(
                    context,
                    cameras::reload,
                ),
            }),
            needs: |needs| {
                <CameraEvent<
                    '_,
                > as my::messaging::__private::FromDelivery<'_>>::needs(needs);
                <Channel as my::messaging::__private::FromDelivery<'_>>::needs(needs);
            },
            start: my::messaging::__private::start::<Self>,
            location: my::messaging::__private::Location {
                file: ::core::file!(),
                line: ::core::line!(),
            },
        };
    }
    const _: () = ::core::assert!(
        ! < Channel as my::messaging::__private::FromDelivery < '_ >> ::IS_PAYLOAD || !
        (< CameraEvent < '_ > as my::messaging::__private::FromDelivery < '_ >>
        ::IS_PAYLOAD),
        "a handler takes at most one payload, and an argument before this one is the payload already; make one struct of both, or take shared state as `State<…>`"
    );
    my::messaging::__private::inventory::submit! {
        my::messaging::__private::Descriptor::Handler(& __Handler::DESCRIPTOR)
    }
};
