//! Whether what runs is what was judged.
//!
//! A verdict is about one version. Before anything is changed the version that was judged must be
//! found in what runs now: as the hash of its pod template, as the tag or digest of an image, as a
//! version label, or as the number of its revision. By itself any of them may match; the number
//! only where no tag and no label is a number itself, since build 142 and revision 142 are two
//! things. A configuration may pick one of them.

use serde_json::Value;

/// Labels that say a version.
const VERSION_LABELS: [&str; 2] = ["version", "app.kubernetes.io/version"];

/// By what a version is found in what runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Picked {
    /// By any of them.
    #[default]
    Auto,
    /// By the hash of the pod template.
    Hash,
    /// By the number of the revision.
    Number,
    /// By the tag or digest of an image: of any container, or of this one.
    Image(Option<String>),
    /// By this label of the pod template.
    Label(String),
}

/// How it can be written.
pub const PICKED_FORMS: &str = "auto, hash, number, image, image:CONTAINER or label:NAME";

/// What runs.
#[derive(Clone, Copy, Debug)]
pub struct Running<'a> {
    /// The pod template.
    pub template: &'a Value,
    /// Its hash; none while no controller has made one.
    pub hash: Option<&'a str>,
    /// The number of its revision; none while it has none.
    pub number: Option<u64>,
}

impl Picked {
    /// Reads one as it is written.
    ///
    /// # Errors
    /// When it is none of [`PICKED_FORMS`].
    pub fn parse(text: &str) -> Result<Self, String> {
        let named = |name: &str| (!name.is_empty()).then(|| name.to_owned());
        match text.split_once(':') {
            None => match text {
                "auto" => Some(Self::Auto),
                "hash" => Some(Self::Hash),
                "number" => Some(Self::Number),
                "image" => Some(Self::Image(None)),
                _ => None,
            },
            Some(("image", name)) => named(name).map(|name| Self::Image(Some(name))),
            Some(("label", name)) => named(name).map(Self::Label),
            Some(_) => None,
        }
        .ok_or_else(|| format!("is {text:?}, expected {PICKED_FORMS}"))
    }

    /// Whether this version runs.
    pub fn is(&self, version: &str, running: Running<'_>) -> bool {
        if version.is_empty() {
            return false;
        }
        match self {
            Self::Hash => running.hash == Some(version),
            Self::Number => running.is_numbered(version),
            Self::Image(container) => running.is_image(version, container.as_deref()),
            Self::Label(name) => running.label(name) == Some(version),
            Self::Auto => {
                running.hash == Some(version)
                    || running.is_image(version, None)
                    || running.labels().any(|label| label == version)
                    || (running.is_numbered(version) && !running.has_number_for_a_name())
            }
        }
    }
}

impl<'a> Running<'a> {
    /// In words: `shop:v3 (revision 3, 5d4f8c)`.
    pub fn words(&self) -> String {
        let images: Vec<&str> = self.images(None).collect();
        let images = if images.is_empty() { "no image".to_owned() } else { images.join(" and ") };
        let mut more: Vec<String> = Vec::new();
        more.extend(self.labels().map(|version| format!("version {version}")));
        more.extend(self.number.map(|number| format!("revision {number}")));
        more.extend(self.hash.map(str::to_owned));
        if more.is_empty() { images } else { format!("{images} ({})", more.join(", ")) }
    }

    fn is_numbered(&self, version: &str) -> bool {
        self.number.is_some_and(|number| number.to_string() == version)
    }

    fn has_number_for_a_name(&self) -> bool {
        let is_number = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit());
        let mut tags = self.images(None).filter_map(|image| parts(image).tag);
        tags.any(is_number) || self.labels().any(is_number)
    }

    fn is_image(&self, version: &str, container: Option<&str>) -> bool {
        self.images(container).any(|image| {
            let Parts { tag, digest } = parts(image);
            image == version
                || tag == Some(version)
                || digest.is_some_and(|digest| {
                    digest == version || digest.split_once(':').is_some_and(|it| it.1 == version)
                })
        })
    }

    fn images(&self, container: Option<&'a str>) -> impl Iterator<Item = &'a str> {
        let containers = self.template["spec"]["containers"].as_array();
        containers.into_iter().flatten().filter_map(move |found| {
            let is_meant = container.is_none_or(|name| found["name"].as_str() == Some(name));
            is_meant.then(|| found["image"].as_str()).flatten()
        })
    }

    fn labels(&self) -> impl Iterator<Item = &'a str> {
        let template = *self;
        VERSION_LABELS.into_iter().filter_map(move |name| template.label(name))
    }

    fn label(&self, name: &str) -> Option<&'a str> {
        self.template["metadata"]["labels"].get(name)?.as_str()
    }
}

struct Parts<'a> {
    tag: Option<&'a str>,
    digest: Option<&'a str>,
}

/// `host:5000/shop:v2@sha256:ab` has the tag `v2` and the digest `sha256:ab`.
fn parts(image: &str) -> Parts<'_> {
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    let last = name.rsplit('/').next().unwrap_or(name);
    Parts { tag: last.split_once(':').map(|(_, tag)| tag), digest }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn template() -> Value {
        json!({
            "metadata": { "labels": { "app": "shop", "version": "green",
                                      "app.kubernetes.io/version": "2.0.1" } },
            "spec": { "containers": [
                { "name": "app", "image": "registry:5000/team/shop:v2@sha256:abcd" },
                { "name": "proxy", "image": "proxy:1.9" },
                { "name": "bare", "image": "registry:5000/bare" } ] }
        })
    }

    #[test]
    fn a_version_is_found_where_it_stands() {
        let template = template();
        let running = Running { template: &template, hash: Some("5d4f8c"), number: Some(142) };
        let check = |picked: &str, found: &[&str]| {
            let picked = Picked::parse(picked).expect("a form");
            for version in [
                "5d4f8c",
                "142",
                "v2",
                "sha256:abcd",
                "abcd",
                "proxy:1.9",
                "1.9",
                "green",
                "2.0.1",
                "",
                "v1",
                "5000",
                "5000/bare",
                "shop",
                "V2",
            ] {
                assert_eq!(
                    picked.is(version, running),
                    found.contains(&version),
                    "{picked:?} {version:?}"
                );
            }
        };
        let all =
            ["5d4f8c", "142", "v2", "sha256:abcd", "abcd", "proxy:1.9", "1.9", "green", "2.0.1"];
        check("auto", &all);
        check("hash", &["5d4f8c"]);
        check("number", &["142"]);
        check("image", &["v2", "sha256:abcd", "abcd", "proxy:1.9", "1.9"]);
        check("image:app", &["v2", "sha256:abcd", "abcd"]);
        check("image:none", &[]);
        check("label:version", &["green"]);
        check("label:app", &["shop"]);
    }

    #[test]
    fn build_142_is_not_revision_142() {
        let of =
            |tag: &str| json!({ "spec": { "containers": [{ "image": format!("shop:{tag}") }] } });
        let is = |tag: &str, picked: Picked| {
            let template = of(tag);
            picked.is("142", Running { template: &template, hash: None, number: Some(142) })
        };
        assert!(!is("144", Picked::Auto) && is("142", Picked::Auto) && is("v3", Picked::Auto));
        assert!(is("144", Picked::Number));
    }

    #[test]
    fn what_runs_is_said_in_words() {
        let template = template();
        let mut running = Running { template: &template, hash: Some("5d4f8c"), number: Some(3) };
        assert!(running.words().ends_with("(version green, version 2.0.1, revision 3, 5d4f8c)"));
        running = Running { template: &Value::Null, hash: None, number: None };
        assert_eq!(running.words(), "no image");
    }

    #[test]
    fn forms_that_are_none_are_refused() {
        for text in ["", "tag", "image:", "label:", "hash:x", "Auto"] {
            let fault = Picked::parse(text).expect_err(text);
            assert_eq!(fault, format!("is {text:?}, expected {PICKED_FORMS}"));
        }
    }
}
