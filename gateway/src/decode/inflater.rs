//! Inflates a body of any length, a bounded step at a time.
//!
//! One encoding; what is under two is read whole (see `compression`). A zlib stream is told from a raw deflate stream by its first two
//! bytes alone.
//!
//! **Invariant:** a step makes at most [`STEP_BYTES`] and the yield of [`SLICE_BYTES`] of gzip, whatever the body claims; all that came
//! out is at most `max_ratio` times what came in, above the same free size as for other bodies; a stream that is cut, changed or
//! followed by garbage is an error, at the latest at its end.

use std::io::Write as _;

use ::brotli::{BrotliDecompressStream, BrotliResult, BrotliState, HeapAlloc, HuffmanCode};
use ::zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer};
use bytes::{Bytes, BytesMut};
use flate2::write::GzDecoder;
use flate2::{Decompress, FlushDecompress, Status};

use super::compression::{self, Encoding, Fault, GZIP_MAGIC, RATIO_FREE_BYTES, ZSTD_WINDOW_LOG};
use crate::error::RequestError;

/// Inflated in a step, bytes.
const STEP_BYTES: usize = 64 << 10;
/// Gzip that is inflated at once, bytes: half a megabyte at most comes out of it.
const SLICE_BYTES: usize = 512;
/// Brotli's ring is small until so much came out, bytes; then it may be the whole window.
const SMALL_RING_BYTES: usize = 8 << 10;
/// What a decoder holds beside its window, bytes.
const STATE_BYTES: usize = 96 << 10;

/// A body being inflated.
pub(crate) struct Inflater {
    encoding: Encoding,
    decoder: Decoder,
    /// Came in and was not looked at yet.
    waiting: Bytes,
    /// The last step ended because its room was used up.
    more: bool,
    received: usize,
    made: usize,
    max_ratio: usize,
    /// What brotli says that it needs.
    window: usize,
}

enum Decoder {
    Gzip(Gzip),
    /// `None` until two bytes are there.
    Deflate(Option<Decompress>, Place),
    Brotli(Box<Brotli>, Place),
    Zstd(DCtx<'static>, Place),
}

type Brotli = BrotliState<HeapAlloc<u8>, HeapAlloc<u32>, HeapAlloc<HuffmanCode>>;

/// Where in its format a stream is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Inside,
    /// It may end here.
    End,
}

#[derive(Default)]
struct Gzip {
    member: Option<Box<GzDecoder<Vec<u8>>>>,
    begun: bool,
    padding: bool,
}

impl Inflater {
    /// For what `Content-Encoding` names, or the first bytes tell. `None`: nothing is to be undone, or more than one encoding.
    pub(crate) fn new(names: &str, first: &[u8], max_ratio: usize) -> Result<Option<Self>, RequestError> {
        let [encoding] = compression::layers(names, first)?[..] else { return Ok(None) };
        let decoder = match encoding {
            Encoding::Gzip => Decoder::Gzip(Gzip::default()),
            Encoding::Deflate => Decoder::Deflate(None, Place::Inside),
            Encoding::Brotli => {
                let bytes = HeapAlloc::new(0);
                let state =
                    Brotli::new_strict(bytes, HeapAlloc::new(0), HeapAlloc::new(HuffmanCode::default()));
                Decoder::Brotli(Box::new(state), Place::Inside)
            }
            Encoding::Zstd => {
                let mut context = DCtx::create();
                let window = context.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG));
                window.map_err(|_| compression::damaged(encoding))?;
                Decoder::Zstd(context, Place::Inside)
            }
        };
        let (waiting, window) = (Bytes::new(), brotli_window(first));
        Ok(Some(Self { encoding, decoder, waiting, more: false, received: 0, made: 0, max_ratio, window }))
    }

    /// Takes in the next piece.
    pub(crate) fn give(&mut self, piece: Bytes) {
        self.received = self.received.saturating_add(piece.len());
        if self.waiting.is_empty() {
            self.waiting = piece;
        } else {
            let mut both = BytesMut::from(&self.waiting[..]);
            both.extend_from_slice(&piece);
            self.waiting = both.freeze();
        }
    }

    /// Whether there is work without another piece.
    pub(crate) fn is_busy(&self) -> bool {
        let begun = !matches!(self.decoder, Decoder::Deflate(None, _));
        self.more || self.waiting.len() > usize::from(!begun)
    }

    /// Inflates some of what came in.
    pub(crate) fn step(&mut self) -> Result<Bytes, RequestError> {
        let (before, mut out) = (self.waiting.len(), Vec::new());
        let done = match &mut self.decoder {
            Decoder::Gzip(gzip) => gzip.step(&mut self.waiting, &mut out),
            Decoder::Deflate(stream, place) => deflate(stream, place, &mut self.waiting, &mut out),
            Decoder::Brotli(state, place) => brotli(state, place, &mut self.waiting, &mut out),
            Decoder::Zstd(context, place) => zstd(context, place, &mut self.waiting, &mut out),
        };
        self.more = done.map_err(|_| compression::damaged(self.encoding))?;
        let idle = before == self.waiting.len() && out.is_empty();
        if idle && self.is_busy() {
            return Err(compression::damaged(self.encoding));
        }
        self.count(out)
    }

    /// What is left when no more comes; an error if the stream is not at an end.
    pub(crate) fn finish(&mut self) -> Result<Bytes, RequestError> {
        let left = match &mut self.decoder {
            Decoder::Gzip(gzip) => gzip.finish(),
            Decoder::Deflate(_, place) | Decoder::Brotli(_, place) | Decoder::Zstd(_, place) => {
                if *place == Place::End { Ok(Vec::new()) } else { Err(Fault::Damaged) }
            }
        };
        let left = left.map_err(|_| compression::damaged(self.encoding))?;
        self.count(left)
    }

    fn count(&mut self, out: Vec<u8>) -> Result<Bytes, RequestError> {
        self.made = self.made.saturating_add(out.len());
        let most = RATIO_FREE_BYTES.max(self.received.saturating_mul(self.max_ratio));
        if self.made > most { Err(compression::too_large(most, self.made)) } else { Ok(out.into()) }
    }

    /// Bytes of memory that the decoder holds from step to step.
    pub(crate) fn held_bytes(&self) -> usize {
        STATE_BYTES
            + match &self.decoder {
                Decoder::Gzip(_) | Decoder::Deflate(..) => 0,
                Decoder::Brotli(..) if self.made < SMALL_RING_BYTES => SMALL_RING_BYTES,
                Decoder::Brotli(..) => self.window,
                Decoder::Zstd(context, _) => context.sizeof(),
            }
    }
}

/// The window that a brotli stream announces (RFC 7932, 9.1), bytes.
fn brotli_window(first: &[u8]) -> usize {
    let byte = first.first().copied().unwrap_or(u8::MAX);
    let log = match (byte & 1, byte >> 1 & 7, byte >> 4 & 7) {
        (0, ..) => 16,
        (_, 0, 0) => 17,
        (_, 0, more) => 8 + more,
        (_, more, _) => 17 + more,
    };
    1 << log
}

impl Gzip {
    fn step(&mut self, waiting: &mut Bytes, out: &mut Vec<u8>) -> Result<bool, Fault> {
        while !waiting.is_empty() && out.len() < STEP_BYTES {
            if self.begun && self.member.is_none() && (self.padding || waiting.starts_with(&[0])) {
                self.padding = true;
                if waiting.iter().any(|byte| *byte != 0) {
                    return Err(Fault::Damaged);
                }
                waiting.clear();
                break;
            }
            if self.member.is_none() && waiting.first() != GZIP_MAGIC.first() {
                return Err(Fault::Damaged);
            }
            self.begun = true;
            let member = self.member.get_or_insert_with(|| Box::new(GzDecoder::new(Vec::new())));
            let slice = waiting.get(..SLICE_BYTES).unwrap_or(waiting);
            let read = member.write(slice)?;
            out.append(member.get_mut());
            if read == 0 {
                out.append(&mut self.finish()?);
            } else {
                drop(waiting.split_to(read));
            }
        }
        Ok(false)
    }

    /// Ends the member, whose checksum and length are compared.
    fn finish(&mut self) -> Result<Vec<u8>, Fault> {
        let Some(mut member) = self.member.take() else {
            return if self.begun { Ok(Vec::new()) } else { Err(Fault::Damaged) };
        };
        member.try_finish()?;
        Ok(std::mem::take(member.get_mut()))
    }
}

fn deflate(
    stream: &mut Option<Decompress>,
    place: &mut Place,
    waiting: &mut Bytes,
    out: &mut Vec<u8>,
) -> Result<bool, Fault> {
    if *place == Place::End {
        return Err(Fault::Damaged);
    }
    let stream = stream.get_or_insert_with(|| Decompress::new(compression::is_zlib(waiting)));
    out.reserve_exact(STEP_BYTES);
    let before = stream.total_in();
    let status = stream.decompress_vec(waiting, out, FlushDecompress::None).map_err(|_| Fault::Damaged)?;
    let read = usize::try_from(stream.total_in() - before).map_err(|_| Fault::Damaged)?;
    drop(waiting.split_to(read.min(waiting.len())));
    if status == Status::StreamEnd {
        *place = Place::End;
        return Ok(false);
    }
    Ok(out.len() == out.capacity())
}

fn brotli(
    state: &mut Brotli,
    place: &mut Place,
    waiting: &mut Bytes,
    out: &mut Vec<u8>,
) -> Result<bool, Fault> {
    if *place == Place::End {
        return Err(Fault::Damaged);
    }
    out.resize(STEP_BYTES, 0);
    let (mut left, mut read, mut room, mut written, mut total) = (waiting.len(), 0, out.len(), 0, 0);
    let result = BrotliDecompressStream(
        &mut left,
        &mut read,
        waiting,
        &mut room,
        &mut written,
        out,
        &mut total,
        state,
    );
    out.truncate(written);
    drop(waiting.split_to(read.min(waiting.len())));
    match result {
        BrotliResult::ResultFailure => Err(Fault::Damaged),
        BrotliResult::NeedsMoreOutput => Ok(true),
        BrotliResult::NeedsMoreInput => Ok(false),
        BrotliResult::ResultSuccess => {
            *place = Place::End;
            Ok(false)
        }
    }
}

/// Frames one after another, skippable ones too.
fn zstd(
    context: &mut DCtx<'_>,
    place: &mut Place,
    waiting: &mut Bytes,
    out: &mut Vec<u8>,
) -> Result<bool, Fault> {
    out.reserve_exact(STEP_BYTES);
    let room = out.capacity();
    let mut input = InBuffer::around(waiting);
    let mut output = OutBuffer::around(out);
    let hint = context.decompress_stream(&mut output, &mut input).map_err(|_| Fault::Damaged)?;
    let (read, full) = (input.pos(), output.pos() == room);
    drop(waiting.split_to(read.min(waiting.len())));
    *place = if hint == 0 { Place::End } else { Place::Inside };
    Ok(full && hint != 0)
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use proptest::prelude::*;
    use schemas::verdict::Code;

    use super::super::compression::tests::{CAP, br, gz, raw, zlib, zst};
    use super::super::compression::{Cap, inflate};
    use super::*;

    type Coded = Vec<(&'static str, Vec<u8>)>;

    fn every_encoding(plain: &[u8]) -> Coded {
        vec![
            ("gzip", gz(plain)),
            ("deflate", zlib(plain)),
            ("deflate", raw(plain)),
            ("br", br(plain)),
            ("zstd", zst(plain)),
        ]
    }

    /// The stream in pieces, and the most that one step made and that was held.
    fn streamed(names: &str, body: &[u8], piece: usize) -> (Result<Vec<u8>, Code>, usize, usize) {
        let mut inflater = Inflater::new(names, body, CAP.max_ratio).unwrap().unwrap();
        let (mut plain, mut largest, mut held) = (Vec::new(), 0, 0);
        let mut all = || {
            for piece in body.chunks(piece) {
                inflater.give(Bytes::copy_from_slice(piece));
                while inflater.is_busy() {
                    let step = inflater.step()?;
                    largest = largest.max(step.len());
                    held = held.max(inflater.held_bytes());
                    plain.extend_from_slice(&step);
                }
            }
            plain.extend_from_slice(&inflater.finish()?);
            Ok::<_, RequestError>(())
        };
        let outcome = all().map_err(|error| error.code);
        (outcome.map(|()| plain), largest, held)
    }

    #[test]
    fn a_stream_in_any_pieces_is_what_the_whole_body_is() {
        let plain: Vec<u8> = (0..200_000_u32).flat_map(|n| (n.wrapping_mul(n) % 997).to_le_bytes()).collect();
        for (name, coded) in every_encoding(&plain) {
            for piece in [1_000, 65_536, usize::MAX] {
                let (stream, largest, _) = streamed(name, &coded, piece);
                assert!(stream.unwrap() == plain, "{name} in pieces of {piece}");
                assert!(largest <= STEP_BYTES + SLICE_BYTES * 1_100, "{name}: a step of {largest}");
            }
        }
        for (name, coded) in every_encoding(b"{\"a\":1}\n{\"a\":2}\n") {
            assert_eq!(streamed(name, &coded, 1).0.unwrap(), b"{\"a\":1}\n{\"a\":2}\n", "{name}");
        }
    }

    #[test]
    fn members_and_frames_and_padding_are_read_to_the_end() {
        for piece in [1, 7, 1_000] {
            let members = [gz(b"one\n"), gz(b""), gz(b"two\n"), vec![0; 5]].concat();
            assert_eq!(streamed("X-GZIP", &members, piece).0.unwrap(), b"one\ntwo\n");
            assert_eq!(streamed("", &members, piece).0.unwrap(), b"one\ntwo\n", "known by its first bytes");
            assert_eq!(streamed("zstd", &[zst(b"one"), zst(b"two")].concat(), piece).0.unwrap(), b"onetwo");
        }
    }

    #[test]
    fn what_is_cut_changed_or_followed_by_garbage_is_an_error() {
        let plain = b"{\"event_type\":\"page_view\",\"user_id\":\"u\"}\n".repeat(3);
        for (name, coded) in every_encoding(&plain) {
            for cut in 0..coded.len() {
                assert_eq!(streamed(name, &coded[..cut], 5).0, Err(Code::BodyCompression), "{name} to {cut}");
            }
            for piece in [1, 1_000] {
                let behind = [coded.as_slice(), b"{}"].concat();
                assert_eq!(streamed(name, &behind, piece).0, Err(Code::BodyCompression), "{name} and more");
                assert_eq!(streamed(name, &plain, piece).0, Err(Code::BodyCompression), "{name}: plain");
            }
        }
        let mut crc = gz(&plain);
        let place = crc.len() - 6;
        crc[place] ^= 1;
        assert_eq!(streamed("gzip", &crc, 9).0, Err(Code::BodyCompression));
        assert_eq!(
            streamed("gzip", &[gz(b"a"), vec![0, 0x1f, 0x8b]].concat(), 1).0,
            Err(Code::BodyCompression)
        );
    }

    #[test]
    fn a_bomb_is_stopped_by_its_ratio_and_never_held() {
        let spaces = vec![b' '; 8 << 20];
        for (name, coded) in every_encoding(&spaces) {
            let (stream, largest, held) = streamed(name, &coded, 4_096);
            assert_eq!(stream, Err(Code::BodyTooLarge), "{name}");
            assert!(largest <= STEP_BYTES + SLICE_BYTES * 1_100, "{name}: a step of {largest}");
            assert!(held <= 17 << 20, "{name} holds {held}");
        }
    }

    #[test]
    fn the_window_of_a_brotli_stream_is_read_from_its_first_byte() {
        for log in 10..=24_u32 {
            let mut coded = Vec::new();
            let mut encoder = ::brotli::CompressorWriter::new(&mut coded, 4096, 2, log);
            encoder.write_all(&[b' '; 100]).unwrap();
            drop(encoder);
            assert!(brotli_window(&coded) <= 1 << log.max(16), "{log}: {}", brotli_window(&coded));
        }
        assert_eq!(brotli_window(&[]), 16 << 20);
        assert_eq!(
            [0x0b, 0x0f, 0x21, 0x0c].map(|byte| brotli_window(&[byte])),
            [1 << 22, 1 << 24, 1 << 10, 1 << 16]
        );
    }

    #[test]
    fn encodings_that_are_none_or_several_are_left_to_others() {
        assert!(Inflater::new("", b"{}", 250).unwrap().is_none());
        assert!(Inflater::new("gzip, br", b"{}", 250).unwrap().is_none());
        assert_eq!(Inflater::new("lzma", b"{}", 250).err().unwrap().code, Code::BodyUnsupported);
    }

    proptest! {
        #[test]
        fn no_stream_panics_and_each_is_judged_as_the_body_is(bytes: Vec<u8>, piece in 1_usize..40, begin in 0_usize..4) {
            let lead = [&b""[..], &[0x1f, 0x8b, 8], &[0x28, 0xb5, 0x2f, 0xfd], &[0x78, 0x9c]][begin];
            let body = [lead, &bytes].concat();
            for name in ["gzip", "deflate", "br", "zstd"] {
                let stream = streamed(name, &body, piece).0;
                if !body.is_empty() && let Ok(stream) = stream {
                    let cap = Cap { max_bytes: usize::MAX, ..CAP };
                    prop_assert_eq!(inflate(name, &body, cap).map(Cow::into_owned).map_err(|e| e.code), Ok(stream));
                }
            }
            for (name, coded) in every_encoding(&bytes) {
                prop_assert_eq!(streamed(name, &coded, piece).0, Ok(bytes.clone()));
            }
        }
    }
}
