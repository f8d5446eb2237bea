//! Tests: what `#[subscription]` says is in the registry of the program, with the function that decides.

use std::sync::Arc;

use messaging_core::{Handlers, TestMessaging};

use crate::access::{Asked, States};
use crate::{
    AccessRequest, Decision, DeclaredAccess, FilterField, Identity, Operator, SlowPolicy, Subscription,
    SubscriptionDescriptor, Verb, subscription,
};

const ABOVE: u32 = line!();

#[subscription(
    entity = "camera.events",
    channels = ["camera.events", "camera.events.complex:{complex_id}", "camera.log:{rest*}"],
    filters = { camera_id = [eq, in], "metadata.zone" = [in] },
    authorize = Self::can_see,
    tenant = "metadata.tenant_id",
    send,
    presence,
    slow = "drop_oldest",
    crate = crate,
)]
struct Cameras;

impl Cameras {
    async fn can_see(request: AccessRequest) -> Result<Decision, std::num::ParseIntError> {
        let complex: u64 = request.param("complex_id").unwrap_or("none").parse()?;
        Ok(Decision::from(complex == 7).only("camera_id", [complex]))
    }
}

#[subscription(channels = "news", public, id = "tests::news", crate = crate)]
struct News;

/// The descriptor of this id that was submitted: exactly one.
fn submitted(id: &str) -> &'static SubscriptionDescriptor {
    let mut all = inventory::iter::<SubscriptionDescriptor>.into_iter().filter(|it| it.id == id);
    let found = all.next().expect("it was submitted");
    assert!(all.next().is_none(), "{id} was submitted twice");
    found
}

#[test]
fn the_registry_holds_what_was_declared() {
    let cameras = submitted("messaging_gateway::declared::Cameras");
    assert_eq!(cameras.entity, "camera.events");
    assert_eq!(
        cameras.channels,
        ["camera.events", "camera.events.complex:{complex_id}", "camera.log:{rest*}"]
    );
    assert_eq!(
        cameras.filters,
        [
            FilterField { field: "camera_id", operators: &[Operator::Eq, Operator::In] },
            FilterField { field: "metadata.zone", operators: &[Operator::In] },
        ]
    );
    assert_eq!(cameras.tenant, Some("metadata.tenant_id"));
    assert!(matches!(cameras.access, DeclaredAccess::Authorize(_)));
    assert!(cameras.send && cameras.presence);
    assert_eq!(cameras.slow, SlowPolicy::DropOldest);
    assert_eq!((cameras.location.file, cameras.location.line), (file!(), ABOVE + 2));

    let news = submitted("tests::news");
    assert_eq!(
        (news.entity, news.channels, news.filters, news.tenant),
        ("News", &["news"][..], &[][..], None)
    );
    assert!(matches!(news.access, DeclaredAccess::Public));
    assert!(!news.send && !news.presence);
    assert_eq!(news.slow, SlowPolicy::default());
}

#[test]
fn the_trait_says_the_same_as_the_registry() {
    let (declared, submitted) = (Cameras::DESCRIPTOR, submitted("messaging_gateway::declared::Cameras"));
    assert_eq!(format!("{declared:?}"), format!("{submitted:?}"));
    assert_eq!(News::DESCRIPTOR.id, "tests::news");
}

#[tokio::test]
async fn who_may_subscribe_is_asked() {
    let messaging = TestMessaging::with(|builder| builder.handlers(Handlers::none())).await.unwrap();
    let DeclaredAccess::Authorize(authorize) = Cameras::DESCRIPTOR.access else {
        panic!("it is not public");
    };
    let ask = |complex: &str| {
        authorize(AccessRequest(Arc::new(Asked {
            identity: Arc::new(Identity::user("ada")),
            verb: Verb::Subscribe,
            entity: "camera.events".into(),
            channel: format!("camera.events.complex:{complex}").into(),
            params: vec![("complex_id".to_owned(), complex.to_owned())],
            states: Arc::new(States::default()),
            messaging: (*messaging).clone(),
        })))
    };
    assert_eq!(ask("7").await.unwrap(), Decision::allow().only("camera_id", [7]));
    assert!(!ask("8").await.unwrap().is_allowed());
    assert!(ask("seven").await.is_err());
}
