//! Why a socket ends: close codes, and the error frame before.
//!
//! **Invariant:** every code stands in `docs/protocol.md` with what a client does about it.

use schemas::verdict::Code;

use crate::transport::socket::Fault;

/// The server goes away; connect again.
pub(super) const CLOSE_GOING_AWAY: u16 = 1001;
/// The peer broke RFC 6455.
pub(super) const CLOSE_PROTOCOL: u16 = 1002;
/// Not text.
pub(super) const CLOSE_UNSUPPORTED: u16 = 1003;
/// Text that is not UTF-8.
pub(super) const CLOSE_NOT_UTF8: u16 = 1007;
/// A message above the limit.
pub(super) const CLOSE_TOO_LARGE: u16 = 1009;
/// Too much at once; connect later.
pub(super) const CLOSE_TRY_LATER: u16 = 1013;
/// Not a frame of the protocol.
pub(super) const CLOSE_FRAME: u16 = 4400;
/// No key, or an unknown one.
pub(super) const CLOSE_KEY: u16 = 4401;
/// The key does not allow the origin.
pub(super) const CLOSE_ORIGIN: u16 = 4403;
/// No `hello` in time, or silence.
pub(super) const CLOSE_TIMEOUT: u16 = 4408;
/// Another socket has resumed the session.
pub(super) const CLOSE_RESUMED: u16 = 4409;

/// Why a socket ends.
#[derive(Clone, Debug)]
pub(super) struct Ending {
    pub(super) code: u16,
    /// Sent as an error frame before.
    pub(super) error: Option<(Code, &'static str)>,
}

impl Ending {
    pub(super) const fn quiet(code: u16) -> Self {
        Self { code, error: None }
    }

    pub(super) const fn with(code: u16, error: Code, message: &'static str) -> Self {
        Self { code, error: Some((error, message)) }
    }

    pub(super) const fn not_a_frame() -> Self {
        let message = "Not a frame of rivulet.v1, or not at this place; see docs/protocol.md.";
        Self::with(CLOSE_FRAME, Code::FrameInvalid, message)
    }

    pub(super) const fn fault() -> Self {
        Self::with(
            CLOSE_TRY_LATER,
            Code::Internal,
            "A fault of the gateway; connect again, ids make that safe.",
        )
    }
}

/// `None`: the peer is gone, nothing to say.
pub(super) type Ended = Option<Ending>;

impl From<Fault> for Ending {
    fn from(fault: Fault) -> Self {
        match fault {
            // A close frame to a peer that is gone goes nowhere, and hurts nobody.
            Fault::Gone => Self::quiet(CLOSE_GOING_AWAY),
            Fault::TooLarge => {
                let message = "The message is larger than `batch_bytes`; send fewer events.";
                Self::with(CLOSE_TOO_LARGE, Code::BodyTooLarge, message)
            }
            Fault::NotUtf8 => Self::quiet(CLOSE_NOT_UTF8),
            Fault::Protocol => Self::quiet(CLOSE_PROTOCOL),
            Fault::Overloaded => {
                Self::with(CLOSE_TRY_LATER, Code::Overloaded, "Too much at once; connect again later.")
            }
        }
    }
}

pub(super) fn ended(fault: Fault) -> Ended {
    (fault != Fault::Gone).then(|| fault.into())
}

pub(super) fn not_text() -> Ending {
    Ending::with(CLOSE_UNSUPPORTED, Code::FrameInvalid, "Frames are JSON text, not binary.")
}
