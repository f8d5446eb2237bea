#[channel("heartbeat")]
pub struct Heartbeat;
