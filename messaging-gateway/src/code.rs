//! The codes of errors, of closing, and of unsubscribing: those of Centrifugo, so that its clients understand them.

/// Why a command failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorCode {
    /// Something went wrong here.
    Internal = 100,
    /// The connection has not said who it is.
    Unauthorized = 101,
    /// Not allowed, or not there: one does not learn which.
    PermissionDenied = 103,
    /// There is no such command.
    MethodNotFound = 104,
    /// It is subscribed already.
    AlreadySubscribed = 105,
    /// There are too many subscriptions.
    LimitExceeded = 106,
    /// The command makes no sense.
    BadRequest = 107,
    /// This channel does not offer it.
    NotAvailable = 108,
    /// The token has expired.
    TokenExpired = 109,
    /// There were too many commands in a short time.
    TooManyRequests = 111,
    /// What was missed is not known any more.
    Unrecoverable = 112,
}

impl ErrorCode {
    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// What the client is told.
    #[must_use]
    pub const fn message(self) -> &'static str {
        match self {
            Self::Internal => "internal server error",
            Self::Unauthorized => "unauthorized",
            Self::PermissionDenied => "permission denied",
            Self::MethodNotFound => "method not found",
            Self::AlreadySubscribed => "already subscribed",
            Self::LimitExceeded => "limit exceeded",
            Self::BadRequest => "bad request",
            Self::NotAvailable => "not available",
            Self::TokenExpired => "token expired",
            Self::TooManyRequests => "too many requests",
            Self::Unrecoverable => "unrecoverable position",
        }
    }

    /// Whether the same command may succeed later.
    #[must_use]
    pub const fn is_temporary(self) -> bool {
        matches!(self, Self::Internal | Self::TooManyRequests)
    }
}

/// Why a connection is closed. Clients come back after 3000 to 3499, and stay away after 3500 to 3999.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DisconnectCode {
    /// The gateway ends.
    Shutdown = 3001,
    /// Something went wrong here.
    ServerError = 3004,
    /// The identity has expired.
    Expired = 3005,
    /// The client does not keep up.
    Slow = 3008,
    /// The client does not answer pings.
    NoPong = 3012,
    /// There were too many commands in a short time.
    TooManyRequests = 3013,
    /// The credentials are not valid.
    InvalidToken = 3500,
    /// The client does not speak the protocol.
    BadRequest = 3501,
    /// The client has not said who it is.
    Stale = 3502,
    /// The server wants it so.
    ForceNoReconnect = 3503,
    /// There are too many connections of this user or address.
    ConnectionLimit = 3504,
}

impl DisconnectCode {
    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// What the client is told.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Shutdown => "shutdown",
            Self::ServerError => "internal server error",
            Self::Expired => "connection expired",
            Self::Slow => "slow",
            Self::NoPong => "no pong",
            Self::TooManyRequests => "too many requests",
            Self::InvalidToken => "invalid token",
            Self::BadRequest => "bad request",
            Self::Stale => "stale",
            Self::ForceNoReconnect => "force disconnect",
            Self::ConnectionLimit => "connection limit",
        }
    }

    /// Whether the client should come back.
    #[must_use]
    pub const fn reconnects(self) -> bool {
        self.number() < 3500
    }
}

/// Why a subscription ends though the connection goes on. Clients subscribe again after 2500 to 2999.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnsubscribeCode {
    /// The server wants it so, for example because it is not allowed any more.
    Server = 2000,
    /// What the client knows of the channel does not hold any more.
    InsufficientState = 2500,
    /// The subscription's token has expired.
    Expired = 2501,
}

impl UnsubscribeCode {
    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// What the client is told.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Server => "server unsubscribed",
            Self::InsufficientState => "insufficient state",
            Self::Expired => "subscription expired",
        }
    }
}
