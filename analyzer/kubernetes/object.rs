//! Where objects are: kinds, names that are safe in a path, and how a patch is read.

use std::fmt;

/// A kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// The path of its group and version.
    pub api: &'static str,
    /// The word in the path.
    pub plural: &'static str,
    /// The word for people.
    pub word: &'static str,
}

/// Pods.
pub const PODS: Kind = Kind { api: "api/v1", plural: "pods", word: "pod" };
/// Services.
pub const SERVICES: Kind = Kind { api: "api/v1", plural: "services", word: "service" };
/// Deployments.
pub const DEPLOYMENTS: Kind =
    Kind { api: "apis/apps/v1", plural: "deployments", word: "deployment" };
/// The revisions of deployments and rollouts.
pub const REPLICA_SETS: Kind =
    Kind { api: "apis/apps/v1", plural: "replicasets", word: "replica set" };
/// Argo Rollouts.
pub const ROLLOUTS: Kind =
    Kind { api: "apis/argoproj.io/v1alpha1", plural: "rollouts", word: "rollout" };
/// Flagger's canaries.
pub const CANARIES: Kind =
    Kind { api: "apis/flagger.app/v1beta1", plural: "canaries", word: "canary" };

/// Longest name of an object.
const NAME_BYTES_MAX: usize = 253;

/// Longest name of a namespace, and longest part of a name between two dots.
const LABEL_BYTES_MAX: usize = 63;

/// A name that an API server would take, and that cannot lead anywhere else in a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(String);

/// One object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// What it is.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: Name,
    /// Its name.
    pub name: Name,
}

/// How the body of a patch is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patch {
    /// A list of operations (RFC 6902).
    Json,
    /// A tree in which null deletes (RFC 7396).
    Merge,
    /// A tree whose lists are merged by key: only for built-in kinds.
    Strategic,
}

impl Patch {
    /// Its content type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json-patch+json",
            Self::Merge => "application/merge-patch+json",
            Self::Strategic => "application/strategic-merge-patch+json",
        }
    }
}

impl Name {
    /// A name after RFC 1123: lower case letters, digits and `-`, in parts joined by dots.
    ///
    /// # Errors
    /// In words, when it is none.
    pub fn new(text: &str) -> Result<Self, String> {
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let is_part = |part: &str| {
            let (bytes, ends) = (part.as_bytes(), [part.bytes().next(), part.bytes().next_back()]);
            part.len() <= LABEL_BYTES_MAX
                && ends.into_iter().all(|end| end.is_some_and(is_plain))
                && bytes.iter().all(|byte| is_plain(*byte) || *byte == b'-')
        };
        match text.len() <= NAME_BYTES_MAX && text.split('.').all(is_part) {
            true => Ok(Self(text.to_owned())),
            false => Err(format!(
                "{:?} is no name of an object: lower case letters, digits, `-` and `.`, at most \
                 {LABEL_BYTES_MAX} between dots and {NAME_BYTES_MAX} in all",
                text.chars().take(LABEL_BYTES_MAX).collect::<String>()
            )),
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind.word, self.namespace, self.name)
    }
}

impl Kind {
    /// Path of all objects of a namespace.
    pub(super) fn path(self, namespace: &Name) -> String {
        format!("{}/namespaces/{namespace}/{}", self.api, self.plural)
    }
}

impl Object {
    /// Path of the object, or of a part of it such as `status`.
    pub(super) fn path(&self, part: Option<&str>) -> String {
        let path = format!("{}/{}", self.kind.path(&self.namespace), self.name);
        part.map_or(path.clone(), |part| format!("{path}/{part}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_objects() {
        for text in ["a", "shop-v2", "shop.example.org", "0a", &"a".repeat(63)] {
            assert_eq!(Name::new(text).map(|name| name.to_string()), Ok(text.to_owned()));
        }
        let long = vec!["a".repeat(60); 5].join(".");
        for text in [
            "",
            "A",
            "a_b",
            "-a",
            "a-",
            "a..b",
            ".",
            "..",
            "a/b",
            "a%2f",
            "a b",
            "ä",
            "a\n",
            &"a".repeat(64),
            &long,
        ] {
            let fault = Name::new(text).expect_err(text);
            assert!(fault.contains("is no name of an object"), "{fault}");
        }
    }

    #[test]
    fn paths_are_those_of_the_api() {
        let name = |text| Name::new(text).expect("a name");
        let object = |kind| Object { kind, namespace: name("prod"), name: name("shop") };
        let check = |kind, part, expected: &str| assert_eq!(object(kind).path(part), expected);
        check(DEPLOYMENTS, None, "apis/apps/v1/namespaces/prod/deployments/shop");
        check(DEPLOYMENTS, Some("scale"), "apis/apps/v1/namespaces/prod/deployments/shop/scale");
        check(SERVICES, None, "api/v1/namespaces/prod/services/shop");
        let status = "apis/argoproj.io/v1alpha1/namespaces/prod/rollouts/shop/status";
        check(ROLLOUTS, Some("status"), status);
        check(CANARIES, None, "apis/flagger.app/v1beta1/namespaces/prod/canaries/shop");
        assert_eq!(PODS.path(&name("prod")), "api/v1/namespaces/prod/pods");
        assert_eq!(object(ROLLOUTS).to_string(), "rollout prod/shop");
    }
}
