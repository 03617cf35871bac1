//! Features of dependencies that must stay off, in the whole workspace.

/// Lists every package with its features, one a line.
pub(super) const LISTING: &[&str] = &[
    "tree",
    "--workspace",
    "--locked",
    "--target",
    "all",
    "--edges",
    "all",
    "--prefix",
    "none",
    "--format",
    "{p} [{f}]",
];

/// The first two add magic object keys that a sender can forge, the third changes what equal means.
const FORBIDDEN: &[(&str, &[&str])] =
    &[("serde_json", &["raw_value", "arbitrary_precision", "preserve_order"])];

/// What is on and must not be.
pub(super) fn forbidden(listing: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in listing.lines() {
        let Some((package, features)) = line.rsplit_once(" [") else { continue };
        let name = package.split(' ').next().unwrap_or_default();
        let on: Vec<&str> = features.split(']').next().unwrap_or_default().split(',').collect();
        for (_, banned) in FORBIDDEN.iter().filter(|(banned, _)| *banned == name) {
            for feature in banned.iter().filter(|feature| on.contains(*feature)) {
                found.push(format!("{name} has its feature `{feature}` on; `cargo tree -e features -i {name}` says who wants it"));
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forbidden_feature_is_found_once() {
        let listing = "a v1.0.0 []\nserde_json v1.0.1 [default,raw_value,std]\nserde_json v1.0.1 [default,raw_value,std] (*)\n";
        let found = forbidden(listing);
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("`raw_value`"));
    }

    #[test]
    fn other_features_are_fine() {
        assert!(forbidden("serde_json v1.0.1 [std]\nother v1.0.0 [raw_value]\n").is_empty());
    }
}
