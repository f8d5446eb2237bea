#[channel("auditlog:{user_id}.{level}")]
pub struct AuditLog {
    pub level: Level,
    pub user_id: u64,
}
