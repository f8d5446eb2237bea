#[subscription(channels = "news", public, id = "news", crate = my::gateway)]
struct News {
    latest: u64,
}
