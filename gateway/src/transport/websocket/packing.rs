//! Compressed messages: what `hello` agreed on, in both directions.
//!
//! **Invariant:** what a message inflates to is bounded by the limit of a plain one and is charged to the budget that all share
//! before it is read as a frame; one message is one whole compressed stream, so a cut costs no other message.

use std::borrow::Cow;
use std::io::Write as _;

use bytes::Bytes;
use flate2::write::GzEncoder;
use schemas::frame::Compression;
use schemas::verdict::Code;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::ending::{CLOSE_FRAME, CLOSE_TOO_LARGE, CLOSE_TRY_LATER, Ending, not_text};
use crate::decode::compression::{Cap, inflate};
use crate::transport::body::{Budget, Share};

/// Shorter answers go as text: compressing them saves no packet, bytes.
const PACKED_FROM_BYTES: usize = 1 << 10;
/// Answers are many and alike: the fastest level already takes most of it away.
const ZSTD_LEVEL: i32 = 1;

/// A message as it came, waiting for its turn.
#[derive(Debug)]
pub(super) enum Packed {
    /// Text.
    Plain(Utf8Bytes),
    /// Compressed.
    Binary(Bytes),
}

impl Packed {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Plain(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
        }
    }

    /// The frame's text. What inflating adds is charged to `share`.
    pub(super) fn open(
        &self,
        agreed: Option<Compression>,
        cap: Cap,
        budget: &Budget,
        share: &mut Share,
    ) -> Result<Cow<'_, [u8]>, Ending> {
        let bytes = match (self, agreed) {
            (Self::Plain(text), _) => return Ok(Cow::Borrowed(text.as_bytes())),
            (Self::Binary(_), None) => return Err(not_text()),
            (Self::Binary(bytes), Some(compression)) => inflate(compression.name(), bytes, cap),
        };
        let bytes = bytes.map_err(|error| {
            if error.code == Code::BodyTooLarge {
                let message = "The message inflates to more than `batch_bytes`; send fewer events.";
                Ending::with(CLOSE_TOO_LARGE, Code::BodyTooLarge, message)
            } else {
                let message = "A binary message is one whole stream of the compression that hello agreed on.";
                Ending::with(CLOSE_FRAME, Code::BodyCompression, message)
            }
        })?;
        let overloaded =
            |_| Ending::with(CLOSE_TRY_LATER, Code::Overloaded, "Too much at once; connect again later.");
        budget.grow(share, bytes.len()).map_err(overloaded)?;
        Ok(bytes)
    }
}

/// The compressed form of an answer, if it is worth it.
pub(super) fn pack(text: &str, agreed: Option<Compression>) -> Option<Vec<u8>> {
    let compression = agreed.filter(|_| text.len() >= PACKED_FROM_BYTES)?;
    match compression {
        Compression::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(text.as_bytes()).ok()?;
            encoder.finish().ok()
        }
        Compression::Zstd => zstd::bulk::compress(text.as_bytes(), ZSTD_LEVEL).ok(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CAP: Cap = Cap { max_bytes: 64 << 10, max_ratio: 250 };

    fn open(packed: &Packed, agreed: Option<Compression>, budget: usize) -> Result<Vec<u8>, u16> {
        let mut share = Share::default();
        let opened = packed.open(agreed, CAP, &Budget::new(budget), &mut share);
        opened.map(Cow::into_owned).map_err(|ending| ending.code)
    }

    #[test]
    fn short_answers_and_sockets_without_agreement_stay_text() {
        let long = "x".repeat(PACKED_FROM_BYTES);
        assert_eq!(pack(&long, None), None);
        assert_eq!(pack("short", Some(Compression::Gzip)), None);
        assert!(pack(&long, Some(Compression::Zstd)).is_some_and(|packed| packed.len() < 100));
    }

    #[test]
    fn a_message_that_was_not_agreed_on_is_a_bomb_or_is_damaged_says_so_by_its_close_code() {
        let text = format!("[{}]", "1,".repeat(600));
        let packed = pack(&text, Some(Compression::Gzip)).unwrap();
        let message = Packed::Binary(packed.clone().into());
        assert_eq!(open(&message, None, 1 << 20), Err(super::super::ending::CLOSE_UNSUPPORTED));
        assert_eq!(open(&message, Some(Compression::Zstd), 1 << 20), Err(CLOSE_FRAME));
        assert_eq!(open(&message, Some(Compression::Gzip), 1 << 20), Ok(text.clone().into_bytes()));
        assert_eq!(open(&message, Some(Compression::Gzip), 100), Err(CLOSE_TRY_LATER), "no memory for it");
        for cut in 0..packed.len() {
            let message = Packed::Binary(packed[..cut].to_vec().into());
            assert_eq!(
                open(&message, Some(Compression::Gzip), 1 << 20),
                Err(CLOSE_FRAME),
                "first {cut} bytes"
            );
        }
        for compression in [Compression::Gzip, Compression::Zstd] {
            let bomb = pack(&" ".repeat(CAP.max_bytes + 1), Some(compression)).unwrap();
            assert_eq!(open(&Packed::Binary(bomb.into()), Some(compression), 1 << 20), Err(CLOSE_TOO_LARGE));
        }
    }

    proptest! {
        #[test]
        fn what_one_side_packs_the_other_opens(word: String, gzip: bool) {
            let agreed = Some(if gzip { Compression::Gzip } else { Compression::Zstd });
            let text = format!("{word}{}", "é".repeat(PACKED_FROM_BYTES));
            let packed = pack(&text, agreed).unwrap();
            prop_assert_eq!(open(&Packed::Binary(packed.into()), agreed, 1 << 20), Ok(text.into_bytes()));
        }
    }
}
