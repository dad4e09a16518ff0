//! What a `health:` signal asks: a path of every instance, or a whole URL once.

use super::{
    fault::{Complaint, excerpt},
    tree::Scalar,
};
use crate::signal::spec::HealthTarget;

/// Longest health path or URL.
const MAX_TARGET_BYTES: usize = 1024;

/// Reads a path or a URL.
pub(super) fn read(scalar: &Scalar) -> Result<HealthTarget, Complaint> {
    let text = scalar.text.trim();
    let complain = |message: String| {
        Complaint::new(
            scalar.span.clone(),
            message,
            "a path such as `/health`, asked of every instance, or a whole URL such as \
             `http://auth:3001/health`, asked once",
        )
    };
    if text.len() > MAX_TARGET_BYTES || text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(complain("a health endpoint with blanks, or a very long one".to_owned()));
    }
    if text.starts_with('/') && !text.starts_with("//") {
        return Ok(HealthTarget::Path(text.to_owned()));
    }
    if text.contains('@') {
        return Err(complain("a health endpoint with a user or a password in it".to_owned())
            .hint("a rule file is shown in verdicts: keep secrets out of it")
            .secret());
    }
    let absolute = text.starts_with("http://") || text.starts_with("https://");
    let url = reqwest::Url::parse(text).ok().filter(|_| absolute);
    match url {
        Some(_) => Ok(HealthTarget::Url(text.to_owned())),
        None => {
            let meant = if text.contains("://") {
                None
            } else if text.contains(':') || text.contains('.') {
                Some(format!("http://{text}"))
            } else {
                Some(format!("/{text}"))
            };
            let hint = meant.map(|meant| format!("did you mean `{}`?", excerpt(&meant)));
            Err(complain(format!("the health endpoint `{}`", excerpt(text))).hint_if(hint))
        }
    }
}
