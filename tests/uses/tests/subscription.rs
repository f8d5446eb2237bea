//! Subscriptions: what is declared is found at run time, whatever the user's names are and wherever the gateway is.
#![deny(warnings, clippy::all)]

use messaging_gateway::__private::inventory;
use messaging_gateway::{
    AccessRequest, Decision, DeclaredAccess, SlowPolicy, Subscription, SubscriptionDescriptor, subscription,
};

/// A struct with fields, and an attribute above its derive.
#[subscription(channels = ["camera.events", "camera.events.complex:{complex_id}", "camera.log:{rest*}"],
    filters = { camera_id = [eq, in], "metadata.zone" = [in], r#type = [eq], in = [eq], "camera-id" = [in, eq] },
    authorize = access::by_result, tenant = "metadata.tenant_id", send, presence, slow = "drop_oldest")]
#[derive(Clone, Debug, Default)]
pub struct CameraEvents {
    pub number: u64,
}

/// A private struct that is named nowhere else.
#[subscription(entity = "audit-log_2.0", channels = "auditlog:{user_id}", authorize = access::generic::<u8>)]
struct AuditLog(#[allow(dead_code)] u64);

#[subscription(channels = ["tenant:{tenant_id}"], authorize = Self::may, slow = "disconnect", id = "tenants")]
pub struct Tenants;

impl Tenants {
    async fn may(request: AccessRequest) -> Result<Decision, String> {
        Ok(Decision::from(request.identity().tenant.is_some()).only("zone", ["north"]))
    }
}

/// The same name in another module is another identity.
mod other {
    #[super::subscription(channels = "other", public)]
    pub struct Tenants;
}

#[cfg(any())]
#[subscription(channels = "absent", authorize = absent::function)]
pub struct Absent;

#[subscription(channels = "absent", authorize = absent::function)]
#[cfg(any())]
pub struct AbsentBelow;

mod access {
    use super::AccessRequest;

    pub async fn by_result(_: AccessRequest) -> Result<bool, std::io::Error> {
        Ok(true)
    }

    pub async fn generic<T: Default + Send>(_: AccessRequest) -> bool {
        let _ = T::default();
        false
    }

    /// It is no `async fn`, but returns a future all the same.
    pub fn boxed(_: AccessRequest) -> messaging_gateway::BoxFuture<'static, bool> {
        Box::pin(async { true })
    }
}

/// `crate = …` reaches everything.
mod elsewhere {
    mod facade {
        pub use messaging_gateway as gateway;
    }

    #[allow(dead_code)]
    mod messaging_gateway {}

    use facade::gateway::subscription;

    #[subscription(channels = "elsewhere", authorize = super::access::boxed, filters = { id = [eq] }, crate = facade::gateway)]
    pub struct Elsewhere;
}

mod clashes {
    #![no_implicit_prelude]
    #![allow(dead_code, unused_macros, non_camel_case_types, clippy::all)]

    use ::messaging_gateway::subscription;

    // What generated code could mean by these names.
    mod core {}
    mod std {}
    mod messaging_core {}
    mod messaging_gateway {}
    mod inventory {}
    mod concat {}
    mod file {}
    mod line {}

    macro_rules! concat {
        () => {};
    }
    macro_rules! file {
        () => {};
    }
    macro_rules! line {
        () => {};
    }

    struct Some;
    struct None;
    struct Subscription;
    struct SubscriptionDescriptor;
    struct FilterField;
    struct Operator;
    struct DeclaredAccess;
    struct Authorize;
    struct SlowPolicy;
    struct Location;

    #[subscription(channels = "option", filters = { request = [eq] }, tenant = request, authorize = request)]
    pub struct Option;

    #[subscription(channels = "descriptor", authorize = DESCRIPTOR)]
    pub struct __DESCRIPTOR;

    #[subscription(channels = "type", authorize = decide, slow = "latest")]
    pub struct r#type;

    async fn request(_: ::messaging_gateway::AccessRequest) -> bool {
        true
    }

    async fn decide(_: ::messaging_gateway::AccessRequest) -> bool {
        true
    }

    #[allow(non_snake_case)]
    async fn DESCRIPTOR(_: ::messaging_gateway::AccessRequest) -> bool {
        true
    }
}

macro_rules! declare {
    (
        $name:ident, $entity:literal, $channel:literal, $field:ident, $text:expr, $operator:ident, $path:path, $slow:literal,
        $word:ident
    ) => {
        #[subscription(
                                                    entity = $entity,
                                                    channels = [$channel],
                                                    filters = { $field = [$operator], $text = [$operator] },
                                                    authorize = $path,
                                                    tenant = $text,
                                                    slow = $slow,
                                                    $word,
                                                )]
        pub struct $name;
    };
}

declare!(FromMacro, "from.macro", "from:{macro}", first, "second.third", in, access::boxed, "latest", send);

/// The descriptor of this entity that was submitted: exactly one.
fn submitted(entity: &str) -> &'static SubscriptionDescriptor {
    let mut all = inventory::iter::<SubscriptionDescriptor>.into_iter().filter(|it| it.entity == entity);
    let found = all.next().expect(entity);
    assert!(all.next().is_none(), "{entity} was submitted twice");
    found
}

fn fields(descriptor: &SubscriptionDescriptor) -> Vec<String> {
    descriptor.filters.iter().map(|filter| format!("{} {:?}", filter.field, filter.operators)).collect()
}

fn main() {
    let cameras = submitted("CameraEvents");
    assert!(cameras.id.ends_with("::CameraEvents"), "{}", cameras.id);
    assert_eq!(cameras.channels.len(), 3);
    assert_eq!(
        fields(cameras),
        ["camera_id [Eq, In]", "metadata.zone [In]", "type [Eq]", "in [Eq]", "camera-id [In, Eq]"]
    );
    assert_eq!(cameras.tenant, Some("metadata.tenant_id"));
    assert!(cameras.send && cameras.presence && cameras.slow == SlowPolicy::DropOldest);
    assert_eq!(CameraEvents::DESCRIPTOR.channels, cameras.channels);
    assert_eq!(CameraEvents::default().clone().number, 0);

    let audit = submitted("audit-log_2.0");
    assert_eq!(audit.channels, ["auditlog:{user_id}"]);
    assert!(audit.filters.is_empty() && audit.tenant.is_none() && !audit.send && !audit.presence);
    assert!(matches!(audit.access, DeclaredAccess::Authorize(_)) && audit.slow == SlowPolicy::Disconnect);

    assert_eq!(Tenants::DESCRIPTOR.id, "tenants");
    assert!(other::Tenants::DESCRIPTOR.id.ends_with("::other::Tenants"));
    assert!(matches!(other::Tenants::DESCRIPTOR.access, DeclaredAccess::Public));
    assert_eq!(submitted("Elsewhere").id, elsewhere::Elsewhere::DESCRIPTOR.id);
    assert_eq!(submitted("Option").tenant, Some("request"));
    assert_eq!(submitted("type").slow, SlowPolicy::Latest);
    assert_eq!(submitted("__DESCRIPTOR").slow, SlowPolicy::Disconnect);

    let from_macro = submitted("from.macro");
    assert_eq!(from_macro.channels, ["from:{macro}"]);
    assert_eq!(fields(from_macro), ["first [In]", "second.third [In]"]);
    assert_eq!((from_macro.tenant, from_macro.slow), (Some("second.third"), SlowPolicy::Latest));
    assert!(from_macro.send);
    let _ = FromMacro;
    assert_eq!(inventory::iter::<SubscriptionDescriptor>.into_iter().count(), 9);
}
