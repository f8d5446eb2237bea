#[subscribe(
    ["camera.events.complex:{complex_id}.{_kind}", "camera.old:{_kind}:{complex_id}"],
    workers = 8,
    ordered_by = complex_id,
    buffer = { messages = 500, bytes = "8MiB" },
    overflow = "drop_oldest",
    timeout = "5s",
    retry = { attempts = 5, initial = "100ms", multiplier = 2.0, max_delay = "30s" },
    resync = cameras::reload,
    resync_every = "30s",
    id = "on_complex",
    crate = my::messaging,
)]
#[cfg(feature = "cameras")]
pub async fn on_complex<'a>(complex_id: u64, mut event: CameraEvent<'a>, _: Channel) {}
