#[subscribe(
    "orders.created:{shop}",
    delivery = "queue",
    group = "billing",
    start = "beginning",
    dedupe = "24h",
    dead_letter = "orders.dead",
    workers = 4,
    ordered_by = key,
)]
async fn bill(shop: u32, order: Order) -> Result<(), BillingError> {}
