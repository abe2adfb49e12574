//! Text as it was meant: without markup and stray characters, and with look-alike letters folded where only Latin ones
//! make sense. Text recognition and careless copying put Cyrillic and Greek letters into Latin words.

use unicode_normalization::UnicodeNormalization as _;

/// Letters that look like a Latin one. A reading aid for protocol, port, direction and header cells only: names of
/// components keep their letters.
const LOOK_ALIKES: &[(char, char)] = &[
    ('А', 'A'),
    ('В', 'B'),
    ('Е', 'E'),
    ('К', 'K'),
    ('М', 'M'),
    ('Н', 'H'),
    ('О', 'O'),
    ('Р', 'P'),
    ('С', 'C'),
    ('Т', 'T'),
    ('Х', 'X'),
    ('У', 'Y'),
    ('І', 'I'),
    ('Ѕ', 'S'),
    ('Ј', 'J'),
    ('Ѵ', 'V'),
    ('а', 'a'),
    ('е', 'e'),
    ('о', 'o'),
    ('р', 'p'),
    ('с', 'c'),
    ('х', 'x'),
    ('у', 'y'),
    ('і', 'i'),
    ('ѕ', 's'),
    ('ј', 'j'),
    ('к', 'k'),
    ('м', 'm'),
    ('т', 't'),
    ('н', 'h'),
    ('в', 'b'),
    ('ԁ', 'd'),
    ('Α', 'A'),
    ('Β', 'B'),
    ('Ε', 'E'),
    ('Ζ', 'Z'),
    ('Η', 'H'),
    ('Ι', 'I'),
    ('Κ', 'K'),
    ('Μ', 'M'),
    ('Ν', 'N'),
    ('Ο', 'O'),
    ('Ρ', 'P'),
    ('Τ', 'T'),
    ('Υ', 'Y'),
    ('Χ', 'X'),
    ('ο', 'o'),
    ('ρ', 'p'),
    ('υ', 'u'),
    ('ν', 'v'),
    ('ι', 'i'),
    ('α', 'a'),
    ('ϲ', 'c'),
    ('Ϲ', 'C'),
];

/// Whether a character stands for nothing visible, or may not stand in a file that people edit.
fn is_invisible(character: char) -> bool {
    matches!(character,
        '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}' | '\u{fdd0}'..='\u{fdef}')
        || (character.is_control() && !matches!(character, '\n' | '\t'))
        || (character as u32 & 0xfffe) == 0xfffe
}

/// Replaces what is invisible by blanks, so that no later stage meets control characters.
pub(super) fn visible(text: &str) -> String {
    text.chars()
        .map(|character| match character {
            '\u{a0}' | '\u{202f}' | '\u{2007}' => ' ',
            character if is_invisible(character) => ' ',
            character => character,
        })
        .collect()
}

/// Runs of blanks and line ends to single blanks.
pub(super) fn squeeze(text: &str) -> String {
    let mut squeezed = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !squeezed.is_empty() {
            squeezed.push(' ');
        }
        squeezed.push_str(word);
    }
    squeezed
}

/// A folded text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Folded {
    /// Compatibility forms composed, dashes plain, look-alikes Latin.
    pub(super) text: String,
    /// Whether there were look-alikes.
    pub(super) look_alikes: bool,
}

/// Folds a text.
pub(super) fn fold(text: &str) -> Folded {
    if text.is_ascii() {
        return Folded {
            text: text.to_owned(),
            look_alikes: false,
        };
    }
    let mut look_alikes = false;
    let text = text
        .nfkc()
        .map(|character| {
            if let Some((_, latin)) = LOOK_ALIKES.iter().find(|(other, _)| *other == character) {
                look_alikes = true;
                return *latin;
            }
            match character {
                '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{2043}' | '\u{fe58}' | '\u{fe63}' => '-',
                character => character,
            }
        })
        .collect();
    Folded { text, look_alikes }
}

/// Folded, in lower case, words separated by single blanks, without other punctuation: what headers and titles are compared by.
pub(super) fn words(text: &str) -> String {
    let folded = fold(text).text.to_lowercase();
    let mut words = String::with_capacity(folded.len());
    for word in folded.split(|character: char| !character.is_alphanumeric()) {
        if !word.is_empty() {
            if !words.is_empty() {
                words.push(' ');
            }
            words.push_str(word);
        }
    }
    words
}

/// Takes off what Markdown and HTML write around words. Footnote marks stay: see [`without_marks`].
pub(super) fn without_markup(text: &str) -> String {
    let mut plain = strip_tags(text);
    for (entity, character) in [
        ("&nbsp;", " "),
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&#39;", "'"),
        ("&amp;", "&"),
    ] {
        if plain.contains('&') {
            plain = plain.replace(entity, character);
        }
    }
    for mark in ["***", "**", "__", "`"] {
        plain = unpaired(&plain, mark);
    }
    plain = links(&plain);
    for (escaped, character) in [("\\|", "|"), ("\\_", "_"), ("\\*", "*"), ("\\-", "-")] {
        if plain.contains('\\') {
            plain = plain.replace(escaped, character);
        }
    }
    squeeze(&plain)
}

/// Longest tag in bytes.
const LONGEST_TAG: usize = 300;
/// Longest link in bytes.
const LONGEST_LINK: usize = 500;

/// Removes inline tags; `<br>` is a blank. Only names of known inline tags: `<host>` is a placeholder, not a tag.
fn strip_tags(text: &str) -> String {
    const TAGS: &[&str] = &[
        "b", "i", "u", "s", "em", "strong", "sup", "sub", "span", "font", "code", "small", "p",
        "br", "br/", "a", "div", "li", "ul",
    ];
    if !text.contains('>') {
        return text.to_owned();
    }
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('<') {
        plain.push_str(&rest[..start]);
        let tail = &rest[start..];
        // Tags of vendors' documents are short; without a bound, a text of `<` alone would take forever.
        let tag = tail
            .bytes()
            .take(LONGEST_TAG)
            .position(|byte| byte == b'>')
            .and_then(|end| {
                let inner = tail[1..end].trim_start_matches('/');
                let name = inner
                    .split_whitespace()
                    .next()
                    .unwrap_or_default()
                    .to_ascii_lowercase();
                TAGS.contains(&name.as_str()).then_some((end, name))
            });
        match tag {
            Some((end, name)) => {
                if name == "sup" {
                    plain.push_str(if tail.starts_with("</") { "}" } else { "^{" });
                }
                if name.starts_with("br") || matches!(name.as_str(), "p" | "div" | "li") {
                    plain.push(' ');
                }
                rest = &tail[end + 1..];
            }
            None => {
                plain.push('<');
                rest = &tail[1..];
            }
        }
    }
    plain.push_str(rest);
    plain
}

/// Removes pairs of a mark that enclose a text.
fn unpaired(text: &str, mark: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(mark) {
        let after = &rest[start + mark.len()..];
        let opens = after.chars().next().is_some_and(|c| !c.is_whitespace());
        match after.find(mark) {
            Some(end) if opens && end > 0 => {
                plain.push_str(&rest[..start]);
                plain.push_str(&after[..end]);
                rest = &after[end + mark.len()..];
            }
            Some(_) | None => {
                plain.push_str(&rest[..start + mark.len()]);
                rest = after;
            }
        }
    }
    plain.push_str(rest);
    plain
}

/// `[text](address)` to the text; the address is added if it says more.
fn links(text: &str) -> String {
    if !text.contains("](") {
        return text.to_owned();
    }
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('[') {
        let tail = &rest[start..];
        let close = |from: usize, wanted: u8| {
            tail.bytes()
                .take(LONGEST_LINK)
                .skip(from)
                .position(|byte| byte == wanted)
                .map(|at| at + from)
        };
        let link = close(1, b']').and_then(|middle| {
            let opens = tail[middle..].starts_with("](");
            let end = close(middle, b')')?;
            let label = &tail[1..middle];
            (opens && !label.contains('[')).then_some((label, &tail[middle + 2..end], end))
        });
        match link {
            Some((label, address, end)) => {
                plain.push_str(&rest[..start]);
                plain.push_str(label);
                let bare = address.trim_end_matches('/');
                if !bare.ends_with(label)
                    && !address.starts_with('#')
                    && !address.starts_with("mailto:")
                {
                    plain.push_str(" (");
                    plain.push_str(address);
                    plain.push(')');
                }
                rest = &tail[end + 1..];
            }
            None => {
                plain.push_str(&rest[..start + 1]);
                rest = &tail[1..];
            }
        }
    }
    plain.push_str(rest);
    plain
}

/// Takes footnote marks off the end of a cell: `**`, `†`, `¹`, `[1]`, `^{2}`. Gives the text and the marks.
pub(super) fn without_marks(text: &str) -> (&str, &str) {
    let mut end = text.trim_end();
    loop {
        let before = end;
        end = end
            .trim_end_matches(['†', '‡', '§', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'])
            .trim_end();
        let starless = end.trim_end_matches('*');
        // A lone star is "any", and `*.` begins a name.
        if !starless.trim().is_empty() {
            end = starless.trim_end();
        }
        for (open, close) in [("[", "]"), ("^{", "}"), ("(", ")")] {
            if let Some(inner) = end.strip_suffix(close)
                && let Some(start) = inner.rfind(open)
            {
                let mark = &inner[start + open.len()..];
                let is_mark = !mark.is_empty()
                    && mark.len() <= 2
                    && mark
                        .bytes()
                        .all(|byte| byte.is_ascii_digit() || byte == b'*');
                if is_mark && start > 0 {
                    end = end[..start].trim_end();
                }
            }
        }
        if end == before {
            return (end, text[end.len()..].trim());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folds_look_alikes() {
        let check = |text: &str, expect: &str, look_alikes: bool| {
            let folded = fold(text);
            assert_eq!(
                (folded.text.as_str(), folded.look_alikes),
                (expect, look_alikes)
            );
        };
        check("TCP", "TCP", false);
        check("ТСР", "TCP", true);
        check("НТТР", "HTTP", true);
        check("Туре", "Type", true);
        check("49152–65535", "49152-65535", false);
        check("ＴＣＰ", "TCP", false);
    }

    #[test]
    fn takes_off_markup_but_not_meaning() {
        let check = |text: &str, expect: &str| assert_eq!(without_markup(text), expect);
        check("**RAS**", "RAS");
        check("shared location**", "shared location**");
        check("*.<u>example.org</u>", "*.example.org");
        check("*xt.blob.example.org", "*xt.blob.example.org");
        check("a<br>b", "a b");
        check("Gateway<sup>1</sup>", "Gateway^{1}");
        check("<host> of the site", "<host> of the site");
        check(
            "[the list](https://example.org/x)",
            "the list (https://example.org/x)",
        );
        check("[example.org](https://example.org/)", "example.org");
        check("R&amp;D &lt;x&gt;", "R&D <x>");
        check("a_b and c_d", "a_b and c_d");
    }

    #[test]
    fn takes_off_footnote_marks() {
        let check = |text: &str, expect: (&str, &str)| assert_eq!(without_marks(text), expect);
        check("Gateway**", ("Gateway", "**"));
        check("Gateway ¹", ("Gateway", "¹"));
        check("Gateway [1]", ("Gateway", "[1]"));
        check("Server (CA)", ("Server (CA)", ""));
        check("*", ("*", ""));
        check("443*", ("443", "*"));
        check("Gateway^{1}", ("Gateway", "^{1}"));
    }
}
