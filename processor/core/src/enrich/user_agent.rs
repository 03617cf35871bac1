//! The browser by its `User-Agent`, coarse on purpose: a few hundred kilobytes of tables instead of uap-core's 150 MB.
//!
//! **Invariant:** any text gives an answer or `None`; it never fails.

use serde::{Deserialize, Serialize};
use woothee::parser::Parser;
use woothee::woothee::VALUE_UNKNOWN;

use crate::codec::wire;

/// Longest header that is looked at.
const MAX_BYTES: usize = 1024;

/// What the header says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct UserAgent {
    /// Such as `Chrome`.
    pub name: String,
    /// Such as `131.0.0.0`.
    pub version: String,
    /// `pc`, `smartphone`, `mobilephone`, `crawler`, `appliance`, `misc`.
    pub category: String,
    /// Such as `iPhone`, `Windows 10`.
    pub os: String,
}

wire!(UserAgent { name, version, category, os });

/// Parses the header. Costs about a microsecond; callers cache by the header's text.
pub fn parse(header: &str) -> Option<UserAgent> {
    let header = crate::fields::cut(header, MAX_BYTES);
    let found = Parser::new().parse(header).filter(|found| found.name != VALUE_UNKNOWN)?;
    Some(UserAgent {
        name: found.name.to_owned(),
        version: found.version.to_owned(),
        category: found.category.to_owned(),
        os: found.os.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_browsers_are_told_apart() {
        let chrome = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36";
        assert_eq!(
            parse(chrome).map(|ua| (ua.name, ua.category)),
            Some(("Chrome".to_owned(), "pc".to_owned()))
        );
        assert_eq!(parse(""), None);
        assert_eq!(parse("\u{0}\u{fffd}"), None);
    }
}
