//! A record's headers as one piece of memory, in the form in which the journal writes them: a record has several, and there
//! are many records.
//!
//! **Invariant:** the bytes are whole headers with UTF-8 names, whoever gave them; each is `u16` length of the name, name, `u32`
//! length of the value, value, little-endian.

use std::fmt;

use bytes::{BufMut, Bytes};

/// Names and values, in order; see [`schemas::header`]. A name may come more than once.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Headers {
    count: u16,
    block: Bytes,
}

/// The headers of a record, one by one.
#[derive(Clone, Debug)]
pub struct Iter<'a>(&'a [u8]);

impl Headers {
    /// None.
    pub const fn new() -> Self {
        Self { count: 0, block: Bytes::new() }
    }

    /// These. What does not fit (a name longer than 65,535 bytes, a value than 4 GiB, the 65,536th header) is left out.
    pub fn of<N: AsRef<str>, V: AsRef<[u8]>>(headers: impl IntoIterator<Item = (N, V)>) -> Self {
        let (mut block, mut count) = (Vec::new(), 0_u16);
        for (name, value) in headers {
            if count < u16::MAX && encode(&mut block, name.as_ref(), value.as_ref()) {
                count += 1;
            }
        }
        Self { count, block: block.into() }
    }

    /// Takes bytes that [`encode`] has written; `None` for others.
    pub fn read(block: Bytes) -> Option<Self> {
        let mut iter = Iter(&block);
        let count = u16::try_from(iter.by_ref().count()).ok()?;
        iter.0.is_empty().then_some(())?;
        Some(Self { count, block })
    }

    /// How many.
    pub fn len(&self) -> u16 {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// One by one.
    pub fn iter(&self) -> Iter<'_> {
        Iter(&self.block)
    }

    /// The value of the first of that name.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|(other, _)| *other == name).map(|(_, value)| value)
    }

    /// As [`encode`] writes them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.block
    }

    /// The value of the first header, if it has this name, and the others.
    #[cfg(feature = "kafka")]
    pub(crate) fn split_first(&self, name: &str) -> Option<(Bytes, Self)> {
        let mut iter = self.iter();
        let (_, value) = iter.next().filter(|(first, _)| *first == name)?;
        Some((
            self.block.slice_ref(value),
            Self { count: self.count - 1, block: self.block.slice_ref(iter.0) },
        ))
    }
}

/// Appends one header; false, and nothing appended, when a length does not fit its field.
pub fn encode(out: &mut impl BufMut, name: &str, value: &[u8]) -> bool {
    let (Ok(name_bytes), Ok(value_bytes)) = (u16::try_from(name.len()), u32::try_from(value.len())) else {
        return false;
    };
    out.put_u16_le(name_bytes);
    out.put_slice(name.as_bytes());
    out.put_u32_le(value_bytes);
    out.put_slice(value);
    true
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (length, rest) = self.0.split_first_chunk()?;
        let (name, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
        let (length, rest) = rest.split_first_chunk()?;
        let (value, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
        let name = std::str::from_utf8(name).ok()?;
        self.0 = rest;
        Some((name, value))
    }
}

impl<'a> IntoIterator for &'a Headers {
    type Item = (&'a str, &'a [u8]);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|(name, value)| (name, value.len()))).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn headers_read_back_as_they_were_given(given in prop::collection::vec((".{0,20}", prop::collection::vec(any::<u8>(), 0..40)), 0..6)) {
            let headers = Headers::of(given.iter().map(|(name, value)| (name, value)));
            let back: Vec<(String, Vec<u8>)> = headers.iter().map(|(name, value)| (name.to_owned(), value.to_vec())).collect();
            prop_assert_eq!(&back, &given);
            prop_assert_eq!(usize::from(headers.len()), given.len());
            prop_assert_eq!(Headers::read(Bytes::copy_from_slice(headers.as_bytes())).unwrap(), headers.clone());
            for (name, _) in &given {
                let first = given.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_slice());
                prop_assert_eq!(headers.get(name), first);
            }
        }

        #[test]
        fn bytes_that_are_no_headers_are_refused(bytes in prop::collection::vec(0_u8..9, 0..40)) {
            if let Some(headers) = Headers::read(Bytes::from(bytes.clone())) {
                prop_assert_eq!(Headers::of(&headers).as_bytes().to_vec(), bytes);
            }
        }
    }

    #[test]
    fn a_name_too_long_for_its_field_is_left_out() {
        let headers = Headers::of([("n".repeat(70_000).as_str(), "v"), ("a", "b")]);
        assert_eq!(headers.iter().collect::<Vec<_>>(), [("a", &b"b"[..])]);
        assert!(Headers::read(Bytes::from_static(&[1, 0, 0xff, 0, 0, 0, 0])).is_none());
    }
}
