//! Identifiers of systems, roles and requirements. They become Prometheus labels and parts of ids such as
//! `parallels-ras/client-to-halb-session#tcp/443`, so the character set is closed here, once, and every later
//! stage may join them with `/` and `#` without escaping.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

/// Longest identifier in bytes: long enough for a sentence of words, short enough for a label.
pub const MAX_ID_BYTES: usize = 128;

/// Why a text is no identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text is empty.
    #[error("an id must not be empty: use lower-case letters, digits and `-`")]
    Empty,
    /// The text has more than [`MAX_ID_BYTES`] bytes.
    #[error("`{0}` is too long for an id: at most {MAX_ID_BYTES} characters")]
    TooLong(String),
    /// The text has a character outside `[a-z0-9-]`.
    #[error("`{text}` is not an id: {character:?} is not allowed, use lower-case letters, digits and `-`{}", remedy(.text))]
    Character {
        /// The text as it was written.
        text: String,
        /// The first character that is not allowed.
        character: char,
    },
}

/// Proposes the nearest text that would be accepted.
fn remedy(text: &str) -> String {
    let mut proposal = String::with_capacity(text.len());
    for character in text.chars() {
        let character = character.to_ascii_lowercase();
        if character.is_ascii_lowercase() || character.is_ascii_digit() {
            proposal.push(character);
        } else if !proposal.ends_with('-') && !proposal.is_empty() {
            proposal.push('-');
        }
    }
    let proposal = proposal.trim_matches('-');
    if proposal.is_empty() {
        String::new()
    } else {
        format!(" (for instance `{proposal}`)")
    }
}

fn check(text: &str) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if let Some(character) = text
        .chars()
        .find(|c| !(c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-'))
    {
        return Err(IdError::Character {
            text: text.chars().take(MAX_ID_BYTES).collect(),
            character,
        });
    }
    if text.len() > MAX_ID_BYTES {
        return Err(IdError::TooLong(text[..MAX_ID_BYTES].to_owned()));
    }
    Ok(())
}

macro_rules! identifier {
    ($(#[$documentation:meta])* $name:ident) => {
        $(#[$documentation])*
        ///
        /// One to [`MAX_ID_BYTES`] characters of `[a-z0-9-]`. Cloning is cheap: the text is shared.
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes a text that is a valid id.
            ///
            /// # Errors
            /// [`IdError`] names the text and what is allowed instead.
            pub fn new(text: &str) -> Result<Self, IdError> {
                check(text)?;
                Ok(Self(Arc::from(text)))
            }

            /// The text of the id.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.pad(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
    };
}

identifier! {
    /// Names a system, hence a rule pack: unique among all files of a site.
    SystemId
}
identifier! {
    /// Names a role within its system.
    RoleId
}
identifier! {
    /// Names a requirement within its system.
    RequirementId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_only_the_closed_character_set() {
        for text in ["a", "parallels-ras", "3cx", "-", "tier-2"] {
            assert_eq!(
                SystemId::new(text).map(|id| id.to_string()).as_deref(),
                Ok(text)
            );
        }
        for text in ["", "A", "a b", "a_b", "a/b", "a#b", "é", "a\n"] {
            assert!(SystemId::new(text).is_err(), "{text:?} was accepted");
        }
        assert!(RoleId::new(&"a".repeat(MAX_ID_BYTES)).is_ok());
        assert!(RoleId::new(&"a".repeat(MAX_ID_BYTES + 1)).is_err());
        // Cutting the text for the message must not split a character.
        assert!(RoleId::new(&"é".repeat(MAX_ID_BYTES)).is_err());
    }

    #[test]
    fn proposes_an_id() {
        let message = RoleId::new("Secure  Gateway_2!").unwrap_err().to_string();
        assert!(message.contains("`secure-gateway-2`"), "{message}");
    }
}
