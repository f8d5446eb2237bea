#[subscribe(channels::AuditLog, workers = 4, ordered_by = channel)]
async fn audit(log: ChannelOf<AuditLog>, entry: Entry) {}
