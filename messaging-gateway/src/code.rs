//! The codes of errors, of closing, and of unsubscribing: those of Centrifugo, so that its clients understand them.

/// Makes an enum of codes with their numbers and texts, and how the text is called.
macro_rules! codes {
    ($(#[$enum_docs:meta])* $name:ident, $said:ident { $($(#[$docs:meta])* $code:ident = $number:literal, $text:literal;)* }) => {
        $(#[$enum_docs])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$docs])* $code = $number,)*
        }

        impl $name {
            /// The number on the wire.
            #[must_use]
            pub const fn number(self) -> u16 {
                self as u16
            }

            /// What the client is told.
            #[must_use]
            pub const fn $said(self) -> &'static str {
                match self {
                    $(Self::$code => $text,)*
                }
            }
        }
    };
}

codes! {
    /// Why a command failed.
    ErrorCode, message {
        /// Something went wrong here.
        Internal = 100, "internal server error";
        /// The connection has not said who it is.
        Unauthorized = 101, "unauthorized";
        /// Not allowed, or not there: one does not learn which.
        PermissionDenied = 103, "permission denied";
        /// There is no such command.
        MethodNotFound = 104, "method not found";
        /// It is subscribed already.
        AlreadySubscribed = 105, "already subscribed";
        /// There are too many subscriptions.
        LimitExceeded = 106, "limit exceeded";
        /// The command makes no sense.
        BadRequest = 107, "bad request";
        /// This channel does not offer it.
        NotAvailable = 108, "not available";
        /// The token has expired.
        TokenExpired = 109, "token expired";
        /// What was to be renewed has expired, and so has what was to renew it.
        Expired = 110, "expired";
        /// There were too many commands in a short time.
        TooManyRequests = 111, "too many requests";
        /// What was missed is not known any more.
        Unrecoverable = 112, "unrecoverable position";
    }
}

impl ErrorCode {
    /// Whether the same command may succeed later.
    #[must_use]
    pub const fn is_temporary(self) -> bool {
        matches!(self, Self::Internal | Self::TooManyRequests)
    }
}

codes! {
    /// Why a connection is closed. Clients come back after 3000 to 3499, and stay away after 3500 to 3999.
    DisconnectCode, reason {
        /// The gateway ends.
        Shutdown = 3001, "shutdown";
        /// Something went wrong here.
        ServerError = 3004, "internal server error";
        /// The identity has expired.
        Expired = 3005, "connection expired";
        /// The client does not keep up.
        Slow = 3008, "slow";
        /// The server wants it to come back.
        ForceReconnect = 3011, "force reconnect";
        /// The client does not answer pings.
        NoPong = 3012, "no pong";
        /// There were too many commands in a short time.
        TooManyRequests = 3013, "too many requests";
        /// The credentials are not valid.
        InvalidToken = 3500, "invalid token";
        /// The client does not speak the protocol.
        BadRequest = 3501, "bad request";
        /// The client has not said who it is.
        Stale = 3502, "stale";
        /// The server wants it so.
        ForceNoReconnect = 3503, "force disconnect";
        /// There are too many connections of this user or address.
        ConnectionLimit = 3504, "connection limit";
        /// The program has no use for what the client sends.
        NotAvailable = 3508, "not available";
    }
}

impl DisconnectCode {
    /// Whether the client should come back.
    #[must_use]
    pub const fn reconnects(self) -> bool {
        self.number() < 3500
    }
}

codes! {
    /// Why a subscription ends though the connection goes on. Clients subscribe again after 2500 to 2999.
    UnsubscribeCode, reason {
        /// The server wants it so, for example because it is not allowed any more.
        Server = 2000, "server unsubscribed";
        /// What the client knows of the channel does not hold any more.
        InsufficientState = 2500, "insufficient state";
        /// The subscription's token has expired.
        Expired = 2501, "subscription expired";
    }
}
