//! What the cache's own keys and channels are called. All keys share a hash tag, so that one script can use several.

/// The names of one namespace.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    /// Hash: a definition's name to the definition.
    pub(crate) families: String,
    /// Sorted set: a definition's name by when it is forgotten, in milliseconds since 1970.
    pub(crate) expiries: String,
    /// A number that is raised with every change of the two.
    pub(crate) generation: String,
    /// Hash: the counters of coverage.
    pub(crate) cover: String,
    /// What the names of the channels begin with, with the deployment's prefix.
    pub(crate) channels: String,
    /// The channel where publishers announce their own events.
    pub(crate) own: String,
    /// The channel where what is invalidated by hand is announced.
    pub(crate) gone: String,
}

impl Names {
    pub(crate) fn new(namespace: &str, channel_prefix: &str) -> Self {
        let key = |name: &str| format!("{namespace}:{{cache}}:{name}");
        let channel = |name: &str| format!("{channel_prefix}{namespace}:cache:{name}");
        Self {
            families: key("families"),
            expiries: key("expiries"),
            generation: key("gen"),
            cover: key("cover"),
            own: channel("own"),
            gone: channel("gone"),
            channels: channel(""),
        }
    }

    /// The channel where one process hears itself.
    pub(crate) fn here(&self, session: &str) -> String {
        format!("{}here:{session}", self.channels)
    }

    /// Who flushes a family.
    pub(crate) fn flush(&self, family: &str) -> String {
        format!("{}:flush:{family}", self.cover)
    }
}
