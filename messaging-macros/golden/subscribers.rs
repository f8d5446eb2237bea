#[subscribers]
impl NotificationSubscriber {
    #[subscribe("notifications:{user}", resync = Self::reload)]
    async fn handle(&self, user: &str, message: NotificationMessage) -> Result<(), AppError> {
        self.store(user, message).await
    }

    #[subscribe("wakeup")]
    #[cfg(unix)]
    async fn wake(&self) {}

    async fn reload(this: State<Self>) {}
}
