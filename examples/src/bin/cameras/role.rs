//! One service of the four in a process of its own, until it is told to end; and serving the routes of one.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use messaging_core::{BoxError, Config, Handlers, Messaging};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::events::CameraProcessor;
use crate::screen::Screen;
use crate::{access_control, events, gateway};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    AccessControl,
    Events,
    Notifications,
    Gateway,
}

impl Role {
    pub(crate) fn called(name: &str) -> Option<Self> {
        [Self::AccessControl, Self::Events, Self::Notifications, Self::Gateway]
            .into_iter()
            .find(|role| role.name() == name)
    }

    fn name(self) -> &'static str {
        match self {
            Self::AccessControl => "access-control",
            Self::Events => "events",
            Self::Notifications => "notifications",
            Self::Gateway => "gateway",
        }
    }

    /// Which of the handlers in this program are its own.
    fn handlers(self) -> Handlers {
        match self {
            Self::Events => Handlers::matching("cameras::events::*"),
            Self::Notifications => Handlers::matching("cameras::notifications::*"),
            Self::AccessControl | Self::Gateway => Handlers::none(),
        }
    }

    /// Where it is, as the others expect it; nobody asks Notifications anything.
    fn port(self) -> Option<u16> {
        match self {
            Self::AccessControl => Some(8001),
            Self::Events => Some(8002),
            Self::Gateway => Some(8000),
            Self::Notifications => None,
        }
    }

    /// Runs until SIGINT or SIGTERM.
    pub(crate) async fn play(self, config: Config, port: Option<u16>) -> Result<(), BoxError> {
        if config.endpoint.to_string().starts_with("memory:") {
            let text =
                "two processes cannot share memory; set REDIS_URL to a Redis, such as redis://127.0.0.1:6379";
            return Err(text.into());
        }
        let screen = Screen::new();
        let builder = Messaging::builder().config(config).handlers(self.handlers()).state(screen.clone());
        let messaging = builder.build().await?;
        let access_control = url("ACCESS_CONTROL_URL", "http://127.0.0.1:8001");
        let router = match self {
            Self::AccessControl => access_control::router(&messaging),
            Self::Events => {
                events::router(CameraProcessor::new(access_control, &messaging, &screen), &messaging)
            }
            Self::Notifications => Router::new(),
            Self::Gateway => {
                let gateway =
                    gateway::build(&messaging, &access_control, &url("EVENTS_URL", "http://127.0.0.1:8002"))?;
                let (router, screen) = (gateway.router(), screen.clone());
                messaging.spawn(async move {
                    gateway::found(&gateway, "CameraEvents").await;
                    screen.line("gateway", "found", "CameraEvents");
                });
                router
            }
        };
        let port = self.port().map(|usual| port.unwrap_or(usual));
        let served = match port {
            Some(port) => Some(Served::at(port, router).await?),
            None => None,
        };
        let place = served.as_ref().map(|served| format!("http://{}, ", served.address)).unwrap_or_default();
        // It answers before it is ready, which `/readyz` says.
        println!("{} on {place}{}; Ctrl-C ends it\n", self.name(), messaging.config().endpoint);
        messaging.run().await?;
        if let Some(served) = served {
            served.end().await?;
        }
        screen.line(self.name(), "shut down", "what had arrived has been handled");
        Ok(())
    }
}

fn url(variable: &str, usual: &str) -> String {
    std::env::var(variable).ok().filter(|url| !url.is_empty()).unwrap_or_else(|| usual.to_owned())
}

/// Routes that are served.
pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<std::io::Result<()>>,
}

impl Served {
    /// On this port of 127.0.0.1; 0 is one that is free.
    pub(crate) async fn at(port: u16, router: Router) -> Result<Self, BoxError> {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| format!("cannot listen on {address}, try another --port: {error}"))?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let app = router.into_make_service_with_connect_info::<SocketAddr>();
        let serving = axum::serve(listener, app).with_graceful_shutdown(async {
            let _ = stopped.await;
        });
        Ok(Self { address, stop, serving: tokio::spawn(serving.into_future()) })
    }

    /// Requests have a moment to end.
    pub(crate) async fn end(self) -> Result<(), BoxError> {
        let Self { stop, serving, .. } = self;
        let abort = serving.abort_handle();
        let _ = stop.send(());
        match tokio::time::timeout(Duration::from_secs(1), serving).await {
            Ok(served) => Ok(served??),
            Err(_) => {
                abort.abort();
                Ok(())
            }
        }
    }
}
