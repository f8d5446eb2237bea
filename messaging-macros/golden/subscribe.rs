#[subscribe("camera.settings.updated")]
async fn notify_admins(event: CameraSettings, mailer: State<Mailer>) -> Result<(), AppError> {
    mailer.send(event).await
}
