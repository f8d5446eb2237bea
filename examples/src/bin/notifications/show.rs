//! What happens, from top to bottom: what is published, and, where everything is in one process, what becomes of it.

use messaging_core::{BoxError, HandlerHandle, Messaging, Result, State, Timestamp, ToChannel as _};
use serde_json::{Map, json};
use uuid::Uuid;

use crate::channels::{NOTIFICATIONS, PRESENCE, UserChannel};
use crate::chat::{ChatMessage, join_room, send_message};
use crate::notifications::{Event, Notification, NotificationPublisher};
use crate::operating::{Measured, check};
use crate::presence::{PresenceStatus, PresenceSystem, update_presence};
use crate::screen::Screen;
use crate::updates::{LiveUpdate, broadcast_update};

const ADA: &str = "ada";
const GRACE: &str = "grace";
const LOBBY: &str = "lobby";

/// Ada, with a device of hers and in a room: handlers that are added at run time.
pub(crate) struct Audience {
    device: HandlerHandle,
    room: HandlerHandle,
}

impl Audience {
    pub(crate) async fn join(messaging: &Messaging) -> Result<Self> {
        let channel = UserChannel { user_id: ADA.to_owned() }.to_channel()?;
        let device = messaging.subscriber().id("device").on(&channel, on_device).await?;
        let room = join_room(messaging, LOBBY, ADA).await?;
        Ok(Self { device, room })
    }

    pub(crate) async fn leave(self) {
        self.device.stop().await;
        self.room.stop().await;
    }
}

async fn on_device(notification: Notification, screen: State<Screen>) {
    screen.heard("device", &format!("{}'s device shows: {}", notification.user_id, notification.kind));
}

/// Publishes something of each kind.
pub(crate) struct Publisher {
    messaging: Messaging,
    screen: Screen,
    /// How many lines handlers will have written; only one process can know.
    awaited: Option<usize>,
}

impl Publisher {
    pub(crate) fn new(messaging: &Messaging, screen: &Screen) -> Self {
        Self { messaging: messaging.clone(), screen: screen.clone(), awaited: None }
    }

    /// Waits after each step until it has been handled.
    pub(crate) fn awaiting(mut self) -> Self {
        self.awaited = Some(0);
        self
    }

    pub(crate) async fn run(&mut self) -> Result<(), BoxError> {
        let messaging = self.messaging.clone();
        let publisher = NotificationPublisher(messaging.clone());
        println!(
            "\nA notification, to whoever looks at all of them; and one for Ada, also on a channel of hers."
        );
        self.published(publisher.publish_notification(GRACE, notification(GRACE, "welcome")).await?, 1)
            .await?;
        self.published(publisher.notify_user(ADA, &notification(ADA, "message")).await?, 2).await?;

        println!("\nEvents. Their types are in their channels.");
        for kind in ["login", "purchase"] {
            let event = Event { id: format!("{kind}-1"), kind: kind.to_owned() };
            self.published(publisher.broadcast_event(&event).await?, 1).await?;
        }

        println!("\nWho is online.");
        use PresenceStatus::{Away, Offline, Online};
        for (user, status) in [(ADA, Online), (GRACE, Away), (ADA, Offline)] {
            self.published(update_presence(&messaging, user, status).await?, 1).await?;
        }

        println!("\nSomebody says something in the lobby, and in a room where nobody is.");
        for (room, readers) in [(LOBBY, 1), ("attic", 0)] {
            let message = ChatMessage { user_id: GRACE.to_owned(), text: format!("hello, {room}") };
            self.published(send_message(&messaging, room, &message).await?, readers).await?;
        }

        println!("\nLive updates, of three kinds on one channel.");
        for update in [
            LiveUpdate::DataUpdate { table: "orders".to_owned(), id: 7 },
            LiveUpdate::ConfigUpdate { name: "theme".to_owned(), value: json!("dark") },
            LiveUpdate::StatusUpdate { service: "billing".to_owned(), status: "up".to_owned() },
        ] {
            self.published(broadcast_update(&messaging, &update).await?, 1).await?;
        }

        println!(
            "\nA message that is no notification is skipped. One whose handler loses a connection is tried again."
        );
        self.published(messaging.publish(NOTIFICATIONS, &json!({ "hello": "there" })).await?, 1).await?;
        self.published(publisher.publish_notification(ADA, notification(ADA, "sms")).await?, 2).await
    }

    /// Says who got it, and waits until handlers have written so many lines more.
    async fn published(&mut self, receivers: u64, lines: usize) -> Result<(), BoxError> {
        match &mut self.awaited {
            Some(awaited) => {
                *awaited += lines;
                self.screen.wait_for(*awaited).await
            }
            None => {
                self.screen.line("published", &format!("to {receivers}"));
                Ok(())
            }
        }
    }
}

fn notification(user_id: &str, kind: &str) -> Notification {
    Notification {
        id: Uuid::new_v4().to_string(),
        timestamp: Timestamp::now(),
        user_id: user_id.to_owned(),
        kind: kind.to_owned(),
        data: Map::new(),
    }
}

/// Everything in one process.
pub(crate) async fn all(
    messaging: &Messaging,
    presence: &PresenceSystem,
    measured: &Measured,
    screen: &Screen,
) -> Result<(), BoxError> {
    let audience = Audience::join(messaging).await?;
    Publisher::new(messaging, screen).awaiting().run().await?;

    println!(
        "\nThe table that was kept of who is online; and presence that also knows who came before, and who died."
    );
    for (user, presence) in presence.online_users() {
        screen.line("online", &format!("{user} is {:?}", presence.status));
    }
    let status = |status: PresenceStatus| json!({ "status": status });
    let place = messaging.presence(PRESENCE);
    let ada = place.join(ADA, &status(PresenceStatus::Online)).await?;
    ada.update(&status(PresenceStatus::Away)).await?;
    for (user, member) in place.members().await? {
        screen.line("member", &format!("{user} is {}", member.meta["status"]));
    }
    ada.leave().await?;
    screen.line("members", &format!("{} are left", place.members().await?.len()));

    println!("\nHow it is.");
    screen.line("health", &serde_json::to_string(&check(messaging).await)?);
    for line in measured.lines("pubsub_") {
        screen.line("metric", &line);
    }

    println!("\nAda leaves.");
    audience.leave().await;
    let message = ChatMessage { user_id: GRACE.to_owned(), text: "are you there?".to_owned() };
    let readers = send_message(messaging, LOBBY, &message).await?;
    screen.line("chat", &format!("{readers} read it"));
    Ok(())
}
