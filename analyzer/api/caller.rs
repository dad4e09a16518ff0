//! Who asks: the name of the token that a request came with.

use std::convert::Infallible;

use axum::{extract::FromRequestParts, http::request::Parts};

/// Name of the token that a request was let in by; none where no tokens are configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller(pub Option<String>);

impl Caller {
    /// Who is put on record: the token's name, and beside it what the request itself says.
    pub fn on_record(&self, said: &str) -> String {
        let said = said.trim();
        match &self.0 {
            None => said.to_owned(),
            Some(token) if said.is_empty() || said == token => token.clone(),
            Some(token) => format!("{said} (by token {token})"),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_cannot_be_talked_away() {
        let check = |token: Option<&str>, said: &str, expected: &str| {
            assert_eq!(Caller(token.map(str::to_owned)).on_record(said), expected);
        };
        check(None, " ann ", "ann");
        check(None, "", "");
        check(Some("ci"), "", "ci");
        check(Some("ci"), "ci", "ci");
        check(Some("ci"), "ann", "ann (by token ci)");
    }
}
