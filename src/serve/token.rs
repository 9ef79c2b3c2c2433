use std::fmt::{Debug, Formatter};
use std::ops::Deref;

/// The secret that a server and its clients share. Debug output does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl<S: Into<String>> From<S> for Token {
    fn from(token: S) -> Self {
        Self(token.into())
    }
}

impl Deref for Token {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Debug for Token {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use crate::serve::{RemoteOptions, ServeOptions};

    #[test]
    fn debug_output_does_not_show_it() {
        let secret = "a-token-that-is-long-enough";
        let served = ServeOptions { token: Some(secret.into()), ..ServeOptions::default() };
        let remote = RemoteOptions { token: Some(secret.into()), ..RemoteOptions::default() };
        for text in [format!("{served:?}"), format!("{remote:?}")] {
            assert!(text.contains("Token(…)") && !text.contains(secret), "{text}");
        }
    }
}
