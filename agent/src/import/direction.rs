//! Who initiates: words and arrows. Arrows of the Symbol and Wingdings fonts turn into letters when a document is turned
//! into text; standing alone between two names they are still arrows.

use super::fold::{fold, words};
use crate::matrix::Direction;

/// Arrows, longest first.
const ARROWS: &[(&str, Direction)] = &[
    ("<-->", Direction::Both),
    ("<==>", Direction::Both),
    ("<->", Direction::Both),
    ("<=>", Direction::Both),
    ("<>", Direction::Both),
    ("-->", Direction::Outbound),
    ("==>", Direction::Outbound),
    ("->", Direction::Outbound),
    ("=>", Direction::Outbound),
    (">>", Direction::Outbound),
    ("<--", Direction::Inbound),
    ("<==", Direction::Inbound),
    ("<-", Direction::Inbound),
    ("<=", Direction::Inbound),
    ("<<", Direction::Inbound),
    ("↔", Direction::Both),
    ("⇔", Direction::Both),
    ("⇄", Direction::Both),
    ("⇆", Direction::Both),
    ("⟷", Direction::Both),
    ("⟺", Direction::Both),
    ("→", Direction::Outbound),
    ("⇒", Direction::Outbound),
    ("➔", Direction::Outbound),
    ("➜", Direction::Outbound),
    ("⟶", Direction::Outbound),
    ("►", Direction::Outbound),
    ("←", Direction::Inbound),
    ("⇐", Direction::Inbound),
    ("⟵", Direction::Inbound),
    ("◄", Direction::Inbound),
];

/// Letters at the code points of arrows in the Symbol font (0xAB, 0xAC, 0xAE, 0xDB, 0xDC, 0xDE) and in Wingdings (0xDF, 0xE0, 0xF3).
const LETTERS: &[(&str, Direction)] = &[
    ("Û", Direction::Both),
    ("«", Direction::Both),
    ("ó", Direction::Both),
    ("Þ", Direction::Outbound),
    ("®", Direction::Outbound),
    ("à", Direction::Outbound),
    ("Ü", Direction::Inbound),
    ("¬", Direction::Inbound),
    ("ß", Direction::Inbound),
];

/// Two ends with an arrow between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ends {
    /// Before the arrow.
    pub(super) left: String,
    /// After it.
    pub(super) right: String,
    /// Whom the arrow lets initiate, with `left` as `from`.
    pub(super) direction: Direction,
    /// Whether the arrow was a letter.
    pub(super) letter: bool,
}

/// Splits `A → B`. More than one arrow is no pair.
pub(super) fn ends(text: &str) -> Option<Ends> {
    let make = |at: usize, arrow: &str, direction, letter| {
        let left = text[..at].trim();
        let right = text[at + arrow.len()..].trim();
        (!left.is_empty() && !right.is_empty()).then(|| Ends {
            left: left.to_owned(),
            right: right.to_owned(),
            direction,
            letter,
        })
    };
    for (arrow, direction) in ARROWS {
        if let Some(at) = text.find(arrow) {
            let rest = &text[at + arrow.len()..];
            if ARROWS.iter().any(|(arrow, _)| rest.contains(arrow)) {
                return None;
            }
            return make(at, arrow, *direction, false);
        }
    }
    for (letter, direction) in LETTERS {
        let spaced = format!(" {letter} ");
        if let Some(at) = text.find(&spaced) {
            return make(at, &spaced, *direction, true);
        }
    }
    None
}

/// Splits a cell that holds two ends; there a lone `>` is an arrow too.
pub(super) fn between(text: &str) -> Option<Ends> {
    ends(text).or_else(|| {
        let (left, right) = text.split_once(" > ")?;
        (!right.contains(" > ")).then(|| Ends {
            left: left.trim().to_owned(),
            right: right.trim().to_owned(),
            direction: Direction::Outbound,
            letter: false,
        })
    })
}

/// Splits a text at its only arrow, which must be a sign: before it, whom it lets initiate, after it.
pub(super) fn arrow(text: &str) -> Option<(&str, Direction, &str)> {
    let found = ends(text).filter(|ends| !ends.letter)?;
    let left = &text.trim_start()[..found.left.len()];
    let right = &text.trim_end()[text.trim_end().len() - found.right.len()..];
    Some((left, found.direction, right))
}

/// The direction that a cell names.
pub(super) fn parse(text: &str) -> Option<Direction> {
    let trimmed = text.trim();
    if let Some((_, direction)) = ARROWS.iter().find(|(arrow, _)| trimmed == *arrow) {
        return Some(*direction);
    }
    if let Some((_, direction)) = LETTERS.iter().find(|(letter, _)| trimmed == *letter) {
        return Some(*direction);
    }
    let text = format!(" {} ", words(&fold(trimmed).text));
    let has = |list: &[&str]| list.iter().any(|word| text.contains(&format!(" {word} ")));
    let outbound = has(&[
        "outbound",
        "out",
        "egress",
        "outgoing",
        "send",
        "sends",
        "outwards",
        "forward",
        "ausgehend",
        "sortant",
    ]);
    let inbound = has(&[
        "inbound",
        "in",
        "ingress",
        "incoming",
        "receive",
        "receives",
        "inwards",
        "eingehend",
        "entrant",
    ]);
    let both = has(&[
        "both",
        "bidirectional",
        "bi directional",
        "two way",
        "2 way",
        "bidir",
        "mutual",
        "either",
        "beide",
        "bidirektional",
    ]);
    if both || (outbound && inbound) {
        Some(Direction::Both)
    } else if outbound || has(&["unidirectional", "one way", "uni directional"]) {
        Some(Direction::Outbound)
    } else if inbound {
        Some(Direction::Inbound)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_words_and_arrows() {
        let check = |text: &str, expect| assert_eq!(parse(text), expect, "{text}");
        check("Outbound", Some(Direction::Outbound));
        check("IN", Some(Direction::Inbound));
        check("Both", Some(Direction::Both));
        check("In/Out", Some(Direction::Both));
        check("Bi-directional", Some(Direction::Both));
        check(
            "Inbound and Outbound connection (Bi-Directional) with X",
            Some(Direction::Both),
        );
        check(
            "Outbound connection (Send-only) with X",
            Some(Direction::Outbound),
        );
        check("→", Some(Direction::Outbound));
        check("<->", Some(Direction::Both));
        check("Оutbound", Some(Direction::Outbound));
        check("internal", None);
        check("", None);
    }

    #[test]
    fn splits_pairs() {
        let check = |text: &str, expect: Option<(&str, &str, Direction)>| {
            let found = ends(text);
            let found = found
                .as_ref()
                .map(|ends| (ends.left.as_str(), ends.right.as_str(), ends.direction));
            assert_eq!(found, expect, "{text}");
        };
        check("A -> B", Some(("A", "B", Direction::Outbound)));
        check("A→B", Some(("A", "B", Direction::Outbound)));
        check(
            "WAF Ü Endpoints",
            Some(("WAF", "Endpoints", Direction::Inbound)),
        );
        check("A <--> B", Some(("A", "B", Direction::Both)));
        check("Ü-Wagen", None);
        check("-> B", None);
        check("A -> B -> C", None);
    }
}
