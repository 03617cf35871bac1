//! Values as compact bytes: what the store and absorbed histories hold.
//!
//! Integers are LEB128 (signed ones zigzag first), texts and lists have their length before them, ids are their 16 bytes, doubles
//! their bits. There are no names and no types in the bytes: the order of fields is the format, and the first byte of a profile says
//! which ([`crate::profile::encode`]).
//!
//! **Invariant:** equal values have equal bytes on every host; any bytes read as a value or as `None`, without more memory than a
//! small multiple of their own length.

use std::collections::BTreeMap;

use schemas::id::{DecisionId, EventId, ProfileKey, ProfileKind};
use schemas::time::Timestamp;
use uuid::Uuid;

/// Where bytes go: a buffer, or a count of them.
pub(crate) trait Sink {
    /// Takes bytes.
    fn write(&mut self, bytes: &[u8]);
}

impl Sink for Vec<u8> {
    fn write(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Counts bytes.
#[derive(Debug, Default)]
pub(crate) struct Length(pub(crate) usize);

impl Sink for Length {
    fn write(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
}

/// Bytes being read.
#[derive(Debug)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    /// A length that the rest of the bytes can hold: every element has one byte at least.
    fn length(&mut self) -> Option<usize> {
        usize::try_from(u64::take(self)?).ok().filter(|length| *length <= self.0.len())
    }
}

/// A value that has bytes.
pub(crate) trait Wire: Sized {
    /// Writes it.
    fn put(&self, out: &mut impl Sink);
    /// Reads one.
    fn take(from: &mut Reader<'_>) -> Option<Self>;
}

/// The bytes of a struct are those of its fields, in the order given here; every field must be named.
macro_rules! wire {
    ($type:ty { $($field:ident),* $(,)? }) => {
        impl $crate::codec::Wire for $type {
            fn put(&self, out: &mut impl $crate::codec::Sink) {
                let Self { $($field),* } = self;
                $($crate::codec::Wire::put($field, out);)*
            }
            fn take(from: &mut $crate::codec::Reader<'_>) -> Option<Self> {
                Some(Self { $($field: $crate::codec::Wire::take(from)?),* })
            }
        }
    };
    ($type:ty [0]) => {
        impl $crate::codec::Wire for $type {
            fn put(&self, out: &mut impl $crate::codec::Sink) {
                $crate::codec::Wire::put(&self.0, out);
            }
            fn take(from: &mut $crate::codec::Reader<'_>) -> Option<Self> {
                $crate::codec::Wire::take(from).map(Self)
            }
        }
    };
}
pub(crate) use wire;

macro_rules! integers {
    ($($unsigned:ident, $signed:ident, $longest:literal);*) => {$(
        impl Wire for $unsigned {
            fn put(&self, out: &mut impl Sink) {
                let mut bytes = [0; $longest];
                let (mut left, mut length) = (*self, 0);
                for byte in &mut bytes {
                    length += 1;
                    *byte = left.to_le_bytes()[0] & 0x7f;
                    left >>= 7;
                    if left == 0 {
                        break;
                    }
                    *byte |= 0x80;
                }
                out.write(bytes.get(..length).unwrap_or_default());
            }

            fn take(from: &mut Reader<'_>) -> Option<Self> {
                let (mut value, mut shift) = (0, 0);
                loop {
                    let (byte, rest) = from.0.split_first()?;
                    from.0 = rest;
                    let part = Self::from(byte & 0x7f);
                    let placed = part.checked_shl(shift)?;
                    if placed >> shift != part {
                        return None;
                    }
                    value |= placed;
                    if byte & 0x80 == 0 {
                        return Some(value);
                    }
                    shift += 7;
                }
            }
        }

        impl Wire for $signed {
            fn put(&self, out: &mut impl Sink) {
                ((self << 1) ^ (self >> (Self::BITS - 1))).cast_unsigned().put(out);
            }

            fn take(from: &mut Reader<'_>) -> Option<Self> {
                let zigzag = $unsigned::take(from)?;
                Some((zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed())
            }
        }
    )*};
}
integers!(u64, i64, 10; u128, i128, 19);

impl Wire for usize {
    fn put(&self, out: &mut impl Sink) {
        u64::try_from(*self).unwrap_or(u64::MAX).put(out);
    }

    fn take(from: &mut Reader<'_>) -> Option<Self> {
        usize::try_from(u64::take(from)?).ok()
    }
}

impl Wire for bool {
    fn put(&self, out: &mut impl Sink) {
        out.write(&[u8::from(*self)]);
    }

    fn take(from: &mut Reader<'_>) -> Option<Self> {
        match from.bytes(1)? {
            [0] => Some(false),
            [1] => Some(true),
            _ => None,
        }
    }
}

impl Wire for f64 {
    fn put(&self, out: &mut impl Sink) {
        out.write(&self.to_bits().to_le_bytes());
    }

    fn take(from: &mut Reader<'_>) -> Option<Self> {
        Some(f64::from_bits(u64::from_le_bytes(from.bytes(8)?.try_into().ok()?)))
    }
}

impl Wire for String {
    fn put(&self, out: &mut impl Sink) {
        self.len().put(out);
        out.write(self.as_bytes());
    }

    fn take(from: &mut Reader<'_>) -> Option<Self> {
        let length = from.length()?;
        std::str::from_utf8(from.bytes(length)?).ok().map(str::to_owned)
    }
}

macro_rules! ids {
    ($($id:ident),*) => {$(
        impl Wire for $id {
            fn put(&self, out: &mut impl Sink) {
                out.write(self.as_bytes());
            }

            fn take(from: &mut Reader<'_>) -> Option<Self> {
                Some(Self::from_bytes(from.bytes(16)?.try_into().ok()?))
            }
        }
    )*};
}
ids!(Uuid, EventId, DecisionId);

wire!(Timestamp[0]);

impl Wire for ProfileKey {
    fn put(&self, out: &mut impl Sink) {
        (self.kind == ProfileKind::Anonymous).put(out);
        self.id.put(out);
    }

    fn take(from: &mut Reader<'_>) -> Option<Self> {
        let kind = if bool::take(from)? { ProfileKind::Anonymous } else { ProfileKind::User };
        Some(Self { kind, id: String::take(from)? })
    }
}

impl<T: Wire> Wire for Option<T> {
    fn put(&self, out: &mut impl Sink) {
        self.is_some().put(out);
        if let Some(value) = self {
            value.put(out);
        }
    }

    fn take(from: &mut Reader<'_>) -> Option<Self> {
        if bool::take(from)? { T::take(from).map(Some) } else { Some(None) }
    }
}

impl<A: Wire, B: Wire> Wire for (A, B) {
    fn put(&self, out: &mut impl Sink) {
        self.0.put(out);
        self.1.put(out);
    }

    fn take(from: &mut Reader<'_>) -> Option<Self> {
        Some((A::take(from)?, B::take(from)?))
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn put(&self, out: &mut impl Sink) {
        self.len().put(out);
        for value in self {
            value.put(out);
        }
    }

    fn take(from: &mut Reader<'_>) -> Option<Self> {
        let length = from.length()?;
        (0..length).map(|_| T::take(from)).collect()
    }
}

impl<K: Wire + Ord, V: Wire> Wire for BTreeMap<K, V> {
    fn put(&self, out: &mut impl Sink) {
        self.len().put(out);
        for (key, value) in self {
            key.put(out);
            value.put(out);
        }
    }

    fn take(from: &mut Reader<'_>) -> Option<Self> {
        let length = from.length()?;
        (0..length).map(|_| Some((K::take(from)?, V::take(from)?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn back<T: Wire + PartialEq + std::fmt::Debug>(value: &T) -> Result<(), TestCaseError> {
        let (mut bytes, mut length) = (Vec::new(), Length::default());
        value.put(&mut bytes);
        value.put(&mut length);
        prop_assert_eq!(length.0, bytes.len());
        let mut reader = Reader(&bytes);
        let read = T::take(&mut reader);
        prop_assert_eq!(read.as_ref(), Some(value));
        prop_assert!(reader.0.is_empty());
        for end in 0..bytes.len() {
            prop_assert!(T::take(&mut Reader(&bytes[..end])).is_none(), "cut at {}", end);
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn values_read_back_whole_and_not_at_all_when_cut(
            a in any::<u64>(), b in any::<i64>(), c in any::<i128>(), d in any::<bool>(), e in ".*",
            map in prop::collection::btree_map(".{0,4}", any::<Option<i64>>(), 0..5),
        ) {
            back(&a)?;
            back(&b)?;
            back(&c)?;
            back(&(d, e))?;
            back(&map)?;
            back(&i64::from(d))?;
        }
    }

    #[test]
    fn numbers_too_long_and_lengths_beyond_the_end_are_refused() {
        assert_eq!(u64::take(&mut Reader(&[0xff; 11])), None);
        assert_eq!(
            u64::take(&mut Reader(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f])),
            None
        );
        assert_eq!(Vec::<u64>::take(&mut Reader(&[0xff, 0xff, 0xff, 0x7f, 1])), None);
        assert_eq!((i64::MIN, i64::MAX), {
            let mut bytes = Vec::new();
            (i64::MIN, i64::MAX).put(&mut bytes);
            <(i64, i64)>::take(&mut Reader(&bytes)).unwrap()
        });
    }
}
