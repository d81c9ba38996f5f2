//! `authentication_methods`: what somebody has to show to get in (sshd_config(5), AuthenticationMethods).

use serde::{Deserialize, Serialize};

use super::values::{TextOrList, split_commas};

/// A way to show who one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    PublicKey,
    Password,
    KeyboardInteractive,
}

impl Method {
    pub const ALL: [Self; 3] = [Self::PublicKey, Self::KeyboardInteractive, Self::Password];

    /// The name in the protocol (RFC 4252).
    pub fn name(self) -> &'static str {
        match self {
            Self::PublicKey => "publickey",
            Self::Password => "password",
            Self::KeyboardInteractive => "keyboard-interactive",
        }
    }
}

/// Alternatives, each a list of methods that must all succeed in this order. None: any one method is enough.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "TextOrList", into = "String")]
pub struct AuthenticationMethods(pub Vec<Vec<Method>>);

impl TryFrom<TextOrList> for AuthenticationMethods {
    type Error = String;

    fn try_from(text: TextOrList) -> Result<Self, String> {
        let text = match text {
            TextOrList::Text(text) => text,
            TextOrList::List(alternatives) => alternatives.join(" "),
        };
        if text.trim() == "any" {
            return Ok(Self::default());
        }
        let alternatives: Option<Vec<_>> = text.split_whitespace().map(alternative).collect();
        match alternatives {
            Some(alternatives) if !alternatives.is_empty() => Ok(Self(alternatives)),
            _ => Err("must be \"any\", or lists such as \"publickey,password\" with blanks between them; the methods \
                      are publickey, password and keyboard-interactive, each once in a list"
                .into()),
        }
    }
}

fn alternative(text: &str) -> Option<Vec<Method>> {
    let mut methods = Vec::new();
    for name in split_commas(text) {
        let method = Method::ALL.into_iter().find(|method| method.name() == name)?;
        if methods.contains(&method) {
            return None;
        }
        methods.push(method);
    }
    (!methods.is_empty()).then_some(methods)
}

impl From<AuthenticationMethods> for String {
    fn from(methods: AuthenticationMethods) -> Self {
        let lists: Vec<_> = methods
            .0
            .iter()
            .map(|list| list.iter().map(|method| method.name()).collect::<Vec<_>>().join(","))
            .collect();
        if lists.is_empty() { "any".into() } else { lists.join(" ") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<AuthenticationMethods, String> {
        TextOrList::Text(text.into()).try_into()
    }

    #[test]
    fn alternatives_are_read_and_written_as_sshd_does() {
        for text in ["any", "publickey", "publickey,password publickey,keyboard-interactive"] {
            assert_eq!(String::from(parse(text).unwrap()), text);
        }
        let list = TextOrList::List(vec!["publickey,password".into(), "password".into()]);
        assert_eq!(AuthenticationMethods::try_from(list).unwrap().0.len(), 2);
        for wrong in ["", "none", ",", "any publickey", "publickey,publickey", "hostbased"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
