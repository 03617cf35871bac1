//! `Content-Encoding`: gzip (several members), deflate (zlib and raw), br, zstd.
//!
//! Documented choices: zero bytes behind a gzip stream are padding and skipped, as gzip(1) does; anything else behind it is an
//! error. A compressed body without `Content-Encoding` is known by its first bytes. At most two encodings on top of each other.
//!
//! **Invariant:** a body is inflated to its last byte or refused: never in part. Memory is bounded by `max_bytes`, whatever the
//! body claims.

use std::borrow::Cow;
use std::io::{BufRead, Read};

use flate2::{Decompress, FlushDecompress, Status};
use schemas::verdict::Code;

use crate::error::RequestError;

/// Bounds of an inflated body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cap {
    /// Most bytes.
    pub(crate) max_bytes: usize,
    /// Most bytes per compressed byte, above [`RATIO_FREE_BYTES`].
    pub(crate) max_ratio: usize,
}

/// Below this size no ratio is suspicious.
pub(super) const RATIO_FREE_BYTES: usize = 1 << 20;
/// Encodings on top of each other.
const MAX_LAYERS: usize = 2;
/// Inflated between two looks at the cap, bytes.
const STEP_BYTES: usize = 16 << 10;
/// Largest zstd window, as power of two: 8 MiB, what RFC 8878 asks every decoder to take.
pub(super) const ZSTD_WINDOW_LOG: u32 = 23;

pub(super) const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Encoding {
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

impl Encoding {
    /// `None` for `identity`.
    fn parse(name: &str) -> Result<Option<Self>, RequestError> {
        Ok(Some(match name.to_ascii_lowercase().as_str() {
            "" | "identity" => return Ok(None),
            "gzip" | "x-gzip" => Self::Gzip,
            "deflate" => Self::Deflate,
            "br" => Self::Brotli,
            "zstd" => Self::Zstd,
            _ => {
                let message = "This Content-Encoding is not supported; use gzip, br, zstd, deflate or none.";
                return Err(RequestError::new(Code::BodyUnsupported, message));
            }
        }))
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }
}

/// Undoes the encodings named by `Content-Encoding`, or told by the body's first bytes.
pub(crate) fn inflate<'a>(names: &str, body: &'a [u8], cap: Cap) -> Result<Cow<'a, [u8]>, RequestError> {
    let mut bytes = Cow::Borrowed(body);
    for encoding in layers(names, body)?.into_iter().rev() {
        bytes = Cow::Owned(undo(encoding, &bytes, cap)?);
    }
    Ok(bytes)
}

/// The encodings named by `Content-Encoding`, or told by the body's first bytes, in the order they were applied.
pub(super) fn layers(names: &str, body: &[u8]) -> Result<Vec<Encoding>, RequestError> {
    let mut layers = Vec::new();
    for name in names.split(',') {
        layers.extend(Encoding::parse(name.trim())?);
    }
    if layers.is_empty() && body.starts_with(GZIP_MAGIC) {
        layers.push(Encoding::Gzip);
    } else if layers.is_empty() && body.starts_with(ZSTD_MAGIC) {
        layers.push(Encoding::Zstd);
    }
    if layers.len() > MAX_LAYERS {
        return Err(RequestError::new(
            Code::BodyUnsupported,
            "More than two encodings on top of each other.",
        ));
    }
    Ok(layers)
}

fn undo(encoding: Encoding, body: &[u8], cap: Cap) -> Result<Vec<u8>, RequestError> {
    let mut sink = Sink { bytes: Vec::new(), compressed: body.len(), cap };
    let done = match encoding {
        Encoding::Gzip => gzip(body, &mut sink),
        Encoding::Deflate => deflate(body, &mut sink),
        Encoding::Brotli => brotli(body, &mut sink),
        Encoding::Zstd => zstd(body, &mut sink),
    };
    match done {
        Ok(()) => Ok(sink.bytes),
        Err(Fault::TooLarge) => Err(too_large(sink.most(), sink.bytes.len())),
        Err(Fault::Damaged) => Err(damaged(encoding)),
    }
}

pub(super) fn too_large(limit: usize, size: usize) -> RequestError {
    let message = "The body inflates to more than is taken; send fewer events (see GET /v1/limits).";
    RequestError::new(Code::BodyTooLarge, message).exceeding(limit, size)
}

pub(super) fn damaged(encoding: Encoding) -> RequestError {
    let name = encoding.name();
    let message = format!(
        "The body is not {name}, or is damaged or cut short. Send it again, or without Content-Encoding."
    );
    RequestError::new(Code::BodyCompression, message)
}

pub(super) enum Fault {
    TooLarge,
    Damaged,
}

impl From<std::io::Error> for Fault {
    fn from(_: std::io::Error) -> Self {
        Self::Damaged
    }
}

/// Where inflated bytes go, watched.
struct Sink {
    bytes: Vec<u8>,
    compressed: usize,
    cap: Cap,
}

impl Sink {
    fn most(&self) -> usize {
        let by_ratio = self.compressed.saturating_mul(self.cap.max_ratio);
        by_ratio.max(RATIO_FREE_BYTES).min(self.cap.max_bytes)
    }

    fn check(&self) -> Result<(), Fault> {
        if self.bytes.len() > self.most() { Err(Fault::TooLarge) } else { Ok(()) }
    }

    fn fill(&mut self, source: &mut impl Read) -> Result<(), Fault> {
        loop {
            let step = source.by_ref().take(STEP_BYTES as u64).read_to_end(&mut self.bytes)?;
            self.check()?;
            if step == 0 {
                return Ok(());
            }
        }
    }
}

/// Every member; each checks its own CRC and length.
fn gzip(body: &[u8], sink: &mut Sink) -> Result<(), Fault> {
    let mut rest = body;
    loop {
        let mut member = flate2::bufread::GzDecoder::new(rest);
        sink.fill(&mut member)?;
        rest = member.into_inner();
        if rest.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        if !rest.starts_with(GZIP_MAGIC) {
            return Err(Fault::Damaged);
        }
    }
}

/// HTTP's `deflate` is zlib, but some clients send raw deflate.
fn deflate(body: &[u8], sink: &mut Sink) -> Result<(), Fault> {
    if is_zlib(body) {
        match raw_deflate(body, sink, true) {
            Err(Fault::Damaged) => sink.bytes.clear(),
            done => return done,
        }
    }
    raw_deflate(body, sink, false)
}

pub(super) fn is_zlib(body: &[u8]) -> bool {
    matches!(body, [method, flags, ..]
        if method & 0x0f == 8 && (u16::from(*method) << 8 | u16::from(*flags)) % 31 == 0)
}

/// By hand, because flate2's reader takes a stream without end for a whole one.
fn raw_deflate(body: &[u8], sink: &mut Sink, zlib: bool) -> Result<(), Fault> {
    let mut stream = Decompress::new(zlib);
    loop {
        let read = usize::try_from(stream.total_in()).map_err(|_| Fault::Damaged)?;
        let rest = body.get(read..).ok_or(Fault::Damaged)?;
        sink.bytes.reserve(STEP_BYTES);
        let (before_in, before_out) = (stream.total_in(), stream.total_out());
        let status = stream
            .decompress_vec(rest, &mut sink.bytes, FlushDecompress::None)
            .map_err(|_| Fault::Damaged)?;
        sink.check()?;
        if status == Status::StreamEnd {
            let whole = stream.total_in() == body.len() as u64;
            return if whole { Ok(()) } else { Err(Fault::Damaged) };
        }
        if (stream.total_in(), stream.total_out()) == (before_in, before_out) {
            return Err(Fault::Damaged);
        }
    }
}

fn brotli(body: &[u8], sink: &mut Sink) -> Result<(), Fault> {
    let mut rest = body;
    let mut stream = ::brotli::Decompressor::new(&mut rest, STEP_BYTES);
    sink.fill(&mut stream)?;
    Ok(())
}

/// Every frame, skippable ones too.
fn zstd(body: &[u8], sink: &mut Sink) -> Result<(), Fault> {
    let mut rest = body;
    while !rest.is_empty() {
        let mut frame = ::zstd::stream::read::Decoder::with_buffer(rest)?.single_frame();
        frame.window_log_max(ZSTD_WINDOW_LOG)?;
        sink.fill(&mut frame)?;
        let after = frame.finish();
        if after.len() == rest.len() {
            return Err(Fault::Damaged);
        }
        rest = after;
    }
    debug_assert!(rest.fill_buf().is_ok_and(<[u8]>::is_empty));
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use proptest::prelude::*;

    use super::*;

    pub(in crate::decode) const CAP: Cap = Cap { max_bytes: 4 << 20, max_ratio: 250 };

    pub(in crate::decode) fn gz(plain: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    pub(in crate::decode) fn zlib(plain: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    pub(in crate::decode) fn raw(plain: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    pub(in crate::decode) fn br(plain: &[u8]) -> Vec<u8> {
        let mut coded = Vec::new();
        let mut encoder = ::brotli::CompressorWriter::new(&mut coded, 4096, 5, 20);
        encoder.write_all(plain).unwrap();
        drop(encoder);
        coded
    }

    pub(in crate::decode) fn zst(plain: &[u8]) -> Vec<u8> {
        ::zstd::bulk::compress(plain, 3).unwrap()
    }

    fn code(names: &str, body: &[u8]) -> Result<Vec<u8>, Code> {
        inflate(names, body, CAP).map(Cow::into_owned).map_err(|error| error.code)
    }

    #[test]
    fn several_gzip_members_are_one_body() {
        let two = [gz(b"one\n"), gz(b"two\n")].concat();
        assert_eq!(code("gzip", &two).unwrap(), b"one\ntwo\n");
        assert_eq!(code("X-GZIP", &two).unwrap(), b"one\ntwo\n");
        assert_eq!(code("", &two).unwrap(), b"one\ntwo\n", "known by its first bytes");
    }

    #[test]
    fn a_gzip_body_that_is_cut_changed_or_followed_by_garbage_is_refused() {
        let whole = gz(b"{\"a\":1}\n{\"a\":2}\n");
        for cut in 1..whole.len() {
            assert_eq!(code("gzip", &whole[..cut]), Err(Code::BodyCompression), "first {cut} bytes");
        }
        let mut crc = whole.clone();
        let place = crc.len() - 6;
        crc[place] ^= 1;
        assert_eq!(code("gzip", &crc), Err(Code::BodyCompression));
        assert_eq!(code("gzip", &[whole.as_slice(), b"garbage"].concat()), Err(Code::BodyCompression));
        assert_eq!(
            code("gzip", &[whole.as_slice(), b"\0\0\0\0\0"].concat()).unwrap(),
            b"{\"a\":1}\n{\"a\":2}\n"
        );
        assert_eq!(code("gzip", &[whole.as_slice(), &whole[..5]].concat()), Err(Code::BodyCompression));
        assert_eq!(code("gzip", b"{\"a\":1}"), Err(Code::BodyCompression));
    }

    #[test]
    fn every_encoding_is_undone_and_refused_when_cut_or_continued() {
        let plain = b"{\"event_type\":\"page_view\",\"user_id\":\"u\",\"x\":[1,2,3,4,5,6,7,8,9]}".repeat(3);
        for (name, coded) in
            [("deflate", zlib(&plain)), ("deflate", raw(&plain)), ("br", br(&plain)), ("zstd", zst(&plain))]
        {
            assert_eq!(code(name, &coded).unwrap(), plain, "{name}");
            for cut in 1..coded.len() {
                assert_eq!(
                    code(name, &coded[..cut]),
                    Err(Code::BodyCompression),
                    "{name}: first {cut} bytes"
                );
            }
            assert_eq!(code(name, &[coded.as_slice(), b"{}"].concat()), Err(Code::BodyCompression), "{name}");
            assert_eq!(code(name, &plain), Err(Code::BodyCompression), "{name}: plain");
        }
        assert_eq!(code("zstd", &[zst(b"one"), zst(b"two")].concat()).unwrap(), b"onetwo");
        assert_eq!(code("gzip, br", &br(&gz(&plain))).unwrap(), plain);
        assert_eq!(code("identity", &plain).unwrap(), plain);
        assert_eq!(code("compress", &plain), Err(Code::BodyUnsupported));
        assert_eq!(code("gzip,gzip,gzip", &plain), Err(Code::BodyUnsupported));
    }

    #[test]
    fn a_bomb_is_stopped_at_the_cap() {
        let zeros = vec![b' '; 20 << 20];
        for (name, coded) in
            [("gzip", gz(&zeros)), ("br", br(&zeros)), ("zstd", zst(&zeros)), ("deflate", zlib(&zeros))]
        {
            assert_eq!(code(name, &coded), Err(Code::BodyTooLarge), "{name}");
        }
        let within_the_cap = vec![b' '; 3 << 20];
        assert_eq!(code("zstd", &zst(&within_the_cap)), Err(Code::BodyTooLarge), "by its ratio");
    }

    proptest! {
        #[test]
        fn no_body_panics_and_what_was_coded_comes_back(bytes: Vec<u8>) {
            for name in ["gzip", "deflate", "br", "zstd"] {
                let _ = code(name, &bytes);
            }
            prop_assert_eq!(code("gzip", &gz(&bytes)), Ok(bytes.clone()));
            prop_assert_eq!(code("br", &br(&bytes)), Ok(bytes.clone()));
            prop_assert_eq!(code("zstd", &zst(&bytes)), Ok(bytes));
        }
    }
}
