//! Whether a deployment that a code host knows of is the version that was judged.

/// What was deployed: a commit, and the branch or tag it came from.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
pub(super) struct Deployment {
    #[serde(default)]
    pub(super) sha: String,
    #[serde(rename = "ref", default)]
    pub(super) reference: String,
}

/// Fewest characters of a commit's hash that name it.
const SHA_CHARS_MIN: usize = 7;

impl Deployment {
    /// Whether a version names it: by its branch or tag, its commit, or seven characters of that.
    pub(super) fn is(&self, version: &str) -> bool {
        let reference = self.reference.as_str();
        let short = ["refs/tags/", "refs/heads/"]
            .iter()
            .find_map(|prefix| reference.strip_prefix(prefix))
            .unwrap_or(reference);
        let is_hash =
            version.len() >= SHA_CHARS_MIN && version.bytes().all(|byte| byte.is_ascii_hexdigit());
        let begins = |sha: &str| sha.starts_with(&version.to_ascii_lowercase());
        !version.is_empty()
            && (version == reference
                || version == short
                || is_hash && begins(&self.sha.to_ascii_lowercase()))
    }

    /// How it is named to people.
    fn named(&self) -> String {
        let sha: String = self.sha.chars().take(12).collect();
        match (self.reference.is_empty(), sha.is_empty()) {
            (false, false) if self.reference != self.sha => format!("{} ({sha})", self.reference),
            (_, false) => sha,
            (_, true) => self.reference.clone(),
        }
    }
}

/// Why nothing may be sent, where the world is not the one that was judged; none where it is.
pub(super) fn changed(found: Option<&Deployment>, place: &str, version: &str) -> Option<String> {
    if version.is_empty() {
        return Some(format!(
            "the order names no canary version, and {place} is only changed for the one it runs"
        ));
    }
    match found {
        Some(found) if found.is(version) => None,
        Some(found) => Some(format!("{place} runs {} now; {version} was judged", found.named())),
        None => Some(format!("{place} has no deployment; {version} was judged")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_a_ref_or_a_commit() {
        let sha = "a84d88e7554fc1fa21bcbc4efae3c782a70d2b9d";
        let check = |reference: &str, version: &str, expected: bool| {
            let deployment = Deployment { sha: sha.to_owned(), reference: reference.to_owned() };
            assert_eq!(deployment.is(version), expected, "{reference} {version}");
        };
        check("v2", "v2", true);
        check("refs/tags/v2", "v2", true);
        check("refs/heads/main", "main", true);
        check("v2", "v3", false);
        check("v20", "v2", false);
        check("main", sha, true);
        check("main", &sha.to_uppercase(), true);
        check("main", "a84d88e", true);
        check("main", "a84d88", false);
        check("main", "a84d88f", false);
        check("main", "", false);
        check("", "", false);
    }

    #[test]
    fn a_changed_world_is_told_in_words() {
        let deployment = |sha: &str, reference: &str| Deployment {
            sha: sha.into(),
            reference: reference.into(),
        };
        let check = |found: Option<&Deployment>, version: &str, expected: Option<&str>| {
            assert_eq!(changed(found, "production", version).as_deref(), expected);
        };
        let v3 = deployment("a84d88e7554fc1fa21bc", "v3");
        check(Some(&v3), "v3", None);
        check(Some(&v3), "v2", Some("production runs v3 (a84d88e7554f) now; v2 was judged"));
        check(
            Some(&deployment("a84d88e7554fc1fa21bc", "a84d88e7554fc1fa21bc")),
            "v2",
            Some("production runs a84d88e7554f now; v2 was judged"),
        );
        check(None, "v2", Some("production has no deployment; v2 was judged"));
        check(
            Some(&v3),
            "",
            Some(
                "the order names no canary version, and production is only changed for the one it runs",
            ),
        );
    }
}
