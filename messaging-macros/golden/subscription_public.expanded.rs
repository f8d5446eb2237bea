struct News {
    latest: u64,
}
const _: () = {
    #[automatically_derived]
    impl my::gateway::Subscription for News {
        const DESCRIPTOR: &'static my::gateway::SubscriptionDescriptor = &my::gateway::SubscriptionDescriptor {
            id: "news",
            entity: "News",
            channels: &["news"],
            filters: &[],
            tenant: ::core::option::Option::None,
            access: my::gateway::DeclaredAccess::Public,
            send: false,
            presence: false,
            slow: my::gateway::SlowPolicy::Disconnect,
            location: my::gateway::__private::Location {
                file: ::core::file!(),
                line: ::core::line!(),
            },
        };
    }
    my::gateway::__private::inventory::submit! {
        my::gateway::SubscriptionDescriptor { .. * < News as my::gateway::Subscription >
        ::DESCRIPTOR }
    }
};
