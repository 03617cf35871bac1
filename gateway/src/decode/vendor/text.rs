//! Text that vendors' clients wrap their JSON in.
//!
//! **Invariant:** every alphabet and padding of base64 in use gives the same bytes, also where a plus became a space on its way.

use std::borrow::Cow;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Padding may be there or not; bits behind the last byte are not looked at.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Decodes base64: standard or url-safe, padded or not, with line breaks, with spaces where a form's plus signs were.
pub(crate) fn base64(text: &str) -> Option<Vec<u8>> {
    let trimmed = text.trim_matches(['\r', '\n', '\t']);
    let plain: Vec<u8> = trimmed
        .bytes()
        .filter(|byte| !matches!(byte, b'\r' | b'\n' | b'\t'))
        .map(|byte| match byte {
            b'-' | b' ' => b'+',
            b'_' => b'/',
            other => other,
        })
        .collect();
    LENIENT.decode(plain).ok()
}

/// JSON as it is or in base64, as forms and queries have it under `data`.
pub(crate) fn json_or_base64(text: &str) -> Option<Vec<u8>> {
    let trimmed = text.trim();
    if trimmed.starts_with(['{', '[']) { Some(trimmed.as_bytes().to_vec()) } else { base64(text) }
}

/// The first field of that name in a form, decoded.
pub(crate) fn field<'f>(form: &'f [u8], name: &str) -> Option<Cow<'f, str>> {
    form_urlencoded::parse(form).find_map(|(key, value)| (key == name).then_some(value))
}

/// Writes standard base64.
pub(crate) fn encoded(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_spelling_of_base64_gives_the_same_bytes() {
        let right = "~~>??".as_bytes();
        for text in ["fn4+Pz8=", "fn4+Pz8", "fn4-Pz8", "fn4-Pz8=", "fn4 Pz8=", "fn4\r\n+Pz8=\n"] {
            assert_eq!(base64(text).as_deref(), Some(right), "{text}");
        }
        assert_eq!(base64("f"), None);
        assert_eq!(base64("{\"a\":1}"), None);
    }

    proptest! {
        #[test]
        fn no_text_panics(text: String) {
            let _ = base64(&text);
        }
    }
}
