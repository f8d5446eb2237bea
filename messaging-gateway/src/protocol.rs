//! The protocols that clients speak: which codec reads what they say, and writes what they are told.

use crate::command::{Nonsense, Said};
use crate::event::Event;
use crate::frame::Frame;
use crate::native::Say;
use crate::{centrifugo, native};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Protocol {
    Native,
    /// That of Centrifugo's clients, version 2, in JSON.
    Centrifugo,
}

impl Protocol {
    /// How many there are.
    pub(crate) const COUNT: usize = 2;

    /// Reads one message.
    pub(crate) fn read(self, text: &str) -> Result<Said, Nonsense> {
        match self {
            Self::Native => native::read(text),
            Self::Centrifugo => centrifugo::read(text),
        }
    }

    /// `None` for what nobody is told in this protocol.
    pub(crate) fn frame(self, say: &Say<'_>) -> Option<Frame> {
        match self {
            Self::Native => Some(say.frame()),
            Self::Centrifugo => centrifugo::frame(say),
        }
    }

    /// An event that is told to everybody.
    pub(crate) fn event(self, event: &Event) -> Frame {
        match self {
            Self::Native => native::event(event.channel(), event.offset(), event.payload()),
            Self::Centrifugo => centrifugo::event(event),
        }
    }
}
