pub struct AuditLog {
    pub level: Level,
    pub user_id: u64,
}
const _: () = {
    #[automatically_derived]
    impl ::messaging_core::__private::ToChannel for AuditLog {
        fn to_channel(
            &self,
        ) -> ::messaging_core::__private::Result<::messaging_core::__private::Channel> {
            ::messaging_core::__private::fill_channel(
                "auditlog:{user_id}.{level}",
                &[
                    ("user_id", ::std::string::ToString::to_string(&self.user_id)),
                    ("level", ::std::string::ToString::to_string(&self.level)),
                ],
            )
        }
        fn template(&self) -> ::core::option::Option<&'static str> {
            ::core::option::Option::Some("auditlog:{user_id}.{level}")
        }
    }
    #[automatically_derived]
    impl ::messaging_core::__private::TypedChannel for AuditLog {
        const TEMPLATE: &'static str = "auditlog:{user_id}.{level}";
        fn from_channel(channel: &str) -> ::messaging_core::__private::Result<Self> {
            let segments = ::messaging_core::__private::read_channel(
                "auditlog:{user_id}.{level}",
                channel,
            )?;
            ::core::result::Result::Ok(Self {
                user_id: ::messaging_core::__private::parse_segment::<
                    u64,
                >("auditlog:{user_id}.{level}", "user_id", segments[0usize])?,
                level: ::messaging_core::__private::parse_segment::<
                    Level,
                >("auditlog:{user_id}.{level}", "level", segments[1usize])?,
            })
        }
    }
    #[automatically_derived]
    impl ::messaging_core::__private::ToPattern for AuditLog {
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
        ::core::concat!(::core::module_path!(), "::AuditLog"), template :
        "auditlog:{user_id}.{level}", location : ::messaging_core::__private::Location {
        file : ::core::file!(), line : ::core::line!() }, })
    }
};
