//! What is known of a flow's name, and how sure that is: the evidence behind a verdict by name.

use super::answer::Name;
use crate::verdict::requirement::Confidence;

/// Where a flow's name was read.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum NameSource {
    /// Server name indication of a TLS ClientHello (RFC 6066, section 3).
    Tls,
    /// The same in a QUIC Initial packet (RFC 9001, section 4).
    Quic,
    /// `Host` of an HTTP/1 request (RFC 9112, section 3.2).
    Http,
    /// What a resolver told the initiator, or others, about the address.
    Dns,
    /// Nowhere.
    None,
}

impl NameSource {
    /// All, in the order in which metrics list them.
    pub const ALL: [Self; 5] = [Self::Tls, Self::Quic, Self::Http, Self::Dns, Self::None];

    /// The value of the label `source`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Quic => "quic",
            Self::Http => "http",
            Self::Dns => "dns",
            Self::None => "none",
        }
    }

    /// How sentences call it.
    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::Tls => "the TLS server name",
            Self::Quic => "the QUIC server name",
            Self::Http => "the HTTP host",
            Self::Dns => "DNS",
            Self::None => "no name",
        }
    }
}

/// That the address is allowed and the name is not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mismatch {
    /// The counter slot of the requirements that would cover the flow under the other name.
    pub slot: u32,
    /// Whether DNS contradicts the name, which by itself would be allowed.
    pub contradicted: bool,
    /// Which sources disagree, in words.
    pub detail: String,
}

/// What a flow was judged by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FlowName {
    /// The name, if one is known.
    pub name: Option<Name>,
    /// Where it was read.
    pub source: NameSource,
    /// How sure it is.
    pub confidence: Confidence,
    /// Application protocols that the initiator offers (RFC 7301).
    pub alpn: Vec<Box<str>>,
    /// What else there is to say, in words.
    pub notes: Vec<String>,
    /// Set if the name forbids what the address allows.
    pub mismatch: Option<Mismatch>,
    /// The counter slot that this came to.
    pub slot: u32,
}

impl FlowName {
    /// Sentences for the `evidence` of a flow.
    #[must_use]
    pub fn evidence(&self) -> Vec<String> {
        let confidence = self.confidence.name();
        let mut lines = Vec::with_capacity(self.notes.len() + 2);
        match &self.name {
            Some(name) => lines.push(format!(
                "name {name} from {} (confidence {confidence})",
                self.source.words()
            )),
            None if self.source == NameSource::Dns => {}
            None => lines.push("no name was seen".to_owned()),
        }
        lines.extend(self.notes.iter().cloned());
        if !self.alpn.is_empty() {
            lines.push(format!("offers {}", self.alpn.join(", ")));
        }
        if let Some(mismatch) = &self.mismatch {
            lines.push(mismatch.detail.clone());
        }
        lines
    }
}
