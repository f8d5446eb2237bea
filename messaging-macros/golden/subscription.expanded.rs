#[cfg(feature = "cameras")]
pub struct Cameras;
#[cfg(feature = "cameras")]
const _: () = {
    #[automatically_derived]
    impl ::messaging_gateway::Subscription for Cameras {
        const DESCRIPTOR: &'static ::messaging_gateway::SubscriptionDescriptor = &::messaging_gateway::SubscriptionDescriptor {
            id: ::core::concat!(::core::module_path!(), "::Cameras"),
            entity: "CameraEvents",
            channels: &["camera.events", "camera.events.complex:{complex_id}"],
            filters: &[
                ::messaging_gateway::FilterField {
                    field: "camera_id",
                    operators: &[
                        ::messaging_gateway::Operator::Eq,
                        ::messaging_gateway::Operator::In,
                    ],
                },
                ::messaging_gateway::FilterField {
                    field: "metadata.zone",
                    operators: &[::messaging_gateway::Operator::Eq],
                },
            ],
            tenant: ::core::option::Option::Some("tenant_id"),
            access: ::messaging_gateway::DeclaredAccess::Authorize(|request| ::messaging_gateway::__private::decide(
                access::can_see_cameras(request),
            )),
            send: true,
            presence: true,
            slow: ::messaging_gateway::SlowPolicy::Latest,
            location: ::messaging_gateway::__private::Location {
                file: ::core::file!(),
                line: ::core::line!(),
            },
        };
    }
    ::messaging_gateway::__private::inventory::submit! {
        ::messaging_gateway::SubscriptionDescriptor { .. * < Cameras as
        ::messaging_gateway::Subscription > ::DESCRIPTOR }
    }
};
