//! Other libraries, each used as its documentation says, with the settings that make it fastest without losing anything.

pub(crate) mod cached;
pub(crate) mod fred;
pub(crate) mod ruststream;
pub(crate) mod sea_streamer;
