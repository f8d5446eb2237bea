pub struct Heartbeat;
const _: () = {
    #[automatically_derived]
    impl ::messaging_core::__private::ToChannel for Heartbeat {
        fn to_channel(
            &self,
        ) -> ::messaging_core::__private::Result<::messaging_core::__private::Channel> {
            ::messaging_core::__private::fill_channel("heartbeat", &[])
        }
        fn template(&self) -> ::core::option::Option<&'static str> {
            ::core::option::Option::Some("heartbeat")
        }
    }
    #[automatically_derived]
    impl ::messaging_core::__private::TypedChannel for Heartbeat {
        const TEMPLATE: &'static str = "heartbeat";
        fn from_channel(channel: &str) -> ::messaging_core::__private::Result<Self> {
            ::messaging_core::__private::read_channel("heartbeat", channel)?;
            ::core::result::Result::Ok(Self {})
        }
    }
    #[automatically_derived]
    impl ::messaging_core::__private::ToPattern for Heartbeat {
        fn to_pattern(
            &self,
        ) -> ::messaging_core::__private::Result<::messaging_core::__private::Pattern> {
            ::messaging_core::__private::ToChannel::to_channel(self)
                .map(::messaging_core::__private::Pattern::Exact)
        }
    }
    ::messaging_core::__private::inventory::submit! {
        ::messaging_core::__private::Descriptor::Channel(&
        ::messaging_core::__private::ChannelDescriptor { id :
        ::core::concat!(::core::module_path!(), "::Heartbeat"), template : "heartbeat",
        location : ::messaging_core::__private::Location { file : ::core::file!(), line :
        ::core::line!() }, })
    }
};
