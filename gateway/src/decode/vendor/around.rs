//! Flat members of a vendor's event in the groups that `context` has for every vendor.
//!
//! **Invariant:** values are the vendor's bytes; a group in which nothing is stays out.

use schemas::json::{Kind, Scanned};

use super::draft::Object;

/// A vendor's name, and the group and member of `context` that it means.
pub(super) type Places = &'static [(&'static str, &'static str, &'static str)];

/// Writes what `find` knows into its groups. A table names the members of one group one after another.
pub(super) fn grouped<'e>(
    context: &mut Object<'_>,
    places: Places,
    find: impl Fn(&str) -> Option<Scanned<'e>>,
) {
    for members in places.chunk_by(|one, next| one.1 == next.1) {
        let mut group = Object::default();
        let mut name = "";
        for (theirs, of, ours) in members {
            name = *of;
            if let Some(value) = find(theirs).filter(says_something) {
                group.raw(*ours, value.raw());
            }
        }
        if let Some(group) = group.end() {
            context.raw(name.to_owned(), &group);
        }
    }
}

/// Whether a place for this name is in the table.
pub(super) fn is_placed(places: Places, name: &str) -> bool {
    places.iter().any(|(theirs, ..)| *theirs == name)
}

fn says_something(value: &Scanned<'_>) -> bool {
    value.kind() != Kind::Null && value.raw() != "\"\""
}
