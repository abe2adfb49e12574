//! Port and protocol cells. Every order of numbers and names is met: `443 TCP`, `TCP/UDP 53`, `3478 (TCP/UDP)`,
//! `TCP: 80, 443; UDP: 53`, `49152 - 65535`, `HTTPS (443)`.

use std::borrow::Cow;

use super::fold::{fold, squeeze, without_markup};
use super::vocabulary::{self, Application};
use crate::matrix::{Protocol, Service};

/// Ports with the transports that are printed beside them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Entry {
    /// Empty if none is printed.
    pub(super) protocols: Vec<Protocol>,
    /// Inclusive ranges.
    pub(super) ranges: Vec<(u16, u16)>,
}

/// What a cell says of services.
#[derive(Debug, Clone, Default)]
pub(super) struct Ports {
    /// In the order of printing.
    pub(super) entries: Vec<Entry>,
    /// Names of application protocols.
    pub(super) applications: Vec<Application>,
    /// What is to be said of the cell.
    pub(super) doubts: Vec<String>,
    /// Words that say nothing of a service.
    pub(super) words: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Range(u16, u16),
    Protocol(Protocol),
    Application(String),
    Word(String),
    /// Ends what a protocol applies to: `;` and line ends.
    Break,
    /// `,`, `&`, `and`
    Comma,
    Slash,
    Open,
    Close,
    /// `>`
    Above,
    /// `<`
    Below,
}

impl Ports {
    /// Reads a cell.
    pub(super) fn parse(text: &str) -> Self {
        let mut ports = Self::default();
        let (bare, marks) = without_notes(text);
        if !marks.is_empty() {
            ports.doubts.push(format!(
                "`{}` has a footnote mark (`{marks}`): see the note in the document",
                squeeze(text)
            ));
        }
        let folded = fold(&bare);
        if folded.look_alikes {
            ports.doubts.push(format!(
                "`{}` has look-alike letters, read as `{}`",
                text.trim(),
                folded.text.trim()
            ));
        }
        let tokens = open_ranges(tokens(&folded.text, &mut ports.doubts), &mut ports.doubts);
        ports.assemble(&tokens);
        ports.every(&folded.text);
        ports
    }

    /// `any`, `all ports`, `TCP any`: every port, if nothing else is said.
    fn every(&mut self, text: &str) {
        let says_every = |word: &String| {
            matches!(
                word.to_ascii_lowercase().as_str(),
                "any" | "all" | "alle" | "tous"
            )
        };
        let star = text.trim() == "*";
        let any = !self.words.is_empty() && self.words.iter().all(says_every);
        if !self.has_ranges() && (star || any) {
            self.doubts
                .push(format!("`{}`: taken as every port", text.trim()));
            self.words.clear();
            if self.entries.is_empty() {
                self.entries.push(Entry::default());
            }
            for entry in &mut self.entries {
                entry.ranges.push((1, u16::MAX));
            }
        }
    }

    /// Whether ports are printed.
    pub(super) fn has_ranges(&self) -> bool {
        self.entries.iter().any(|entry| !entry.ranges.is_empty())
    }

    /// Transports printed without a port, and all others, without duplicates.
    pub(super) fn protocols(&self) -> Vec<Protocol> {
        let mut found = Vec::new();
        for protocol in self.entries.iter().flat_map(|entry| &entry.protocols) {
            if !found.contains(protocol) {
                found.push(*protocol);
            }
        }
        found
    }

    /// Whether the cell says anything of services.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.applications.is_empty()
    }

    /// Whether the cell is mainly about services, not a text with a number in it.
    pub(super) fn is_clean(&self) -> bool {
        !self.is_empty() && self.words.len() <= 2
    }

    fn assemble(&mut self, tokens: &[Token]) {
        // Does the first protocol stand before its ports or after them?
        let first = tokens
            .iter()
            .find(|token| matches!(token, Token::Range(..) | Token::Protocol(_)));
        let before = matches!(first, Some(Token::Protocol(_)));
        let mut open = Entry::default();
        let mut last_was_protocol = false;
        for (index, token) in tokens.iter().enumerate() {
            match token {
                Token::Protocol(protocol) => {
                    let starts = if before {
                        !open.ranges.is_empty()
                    } else {
                        false
                    };
                    if starts {
                        self.close(&mut open);
                    }
                    if !open.protocols.contains(protocol) {
                        open.protocols.push(*protocol);
                    }
                    last_was_protocol = true;
                }
                Token::Range(first, last) => {
                    // After its ports, a protocol ends the entry.
                    if !before && last_was_protocol && !open.ranges.is_empty() {
                        self.close(&mut open);
                    }
                    if !open.ranges.contains(&(*first, *last)) {
                        open.ranges.push((*first, *last));
                    }
                    last_was_protocol = false;
                }
                Token::Application(name) => {
                    if let Some(application) = vocabulary::application(name)
                        && !self
                            .applications
                            .iter()
                            .any(|known| known.name == application.name)
                    {
                        self.applications.push(application);
                    }
                }
                Token::Word(word) => self.words.push(word.clone()),
                Token::Break => {
                    // A list goes on in the next line after a comma.
                    let goes_on = index > 0 && tokens[index - 1] == Token::Comma;
                    if !goes_on && !open.protocols.is_empty() && !open.ranges.is_empty() {
                        self.close(&mut open);
                        last_was_protocol = false;
                    }
                }
                Token::Comma
                | Token::Slash
                | Token::Open
                | Token::Close
                | Token::Above
                | Token::Below => {}
            }
        }
        self.close(&mut open);
    }

    fn close(&mut self, open: &mut Entry) {
        if *open != Entry::default() {
            self.entries.push(std::mem::take(open));
        }
    }
}

/// Most numbers, names and signs that are read of one cell.
const LONGEST_CELL: usize = 2000;

/// Words that may stand in a port cell without saying anything.
const NOISE: &[&str] = &[
    "port", "ports", "no", "nr", "number", "numbers", "on", "the", "range", "and", "or", "via",
    "over", "default", "by", "protocol", "only", "e", "g", "eg",
];

fn tokens(text: &str, doubts: &mut Vec<String>) -> Vec<Token> {
    let mut tokens: Vec<Token> = Vec::new();
    // A token has some characters; what is beyond can't be reached.
    let characters: Vec<char> = text.chars().take(LONGEST_CELL * 16).collect();
    let mut index = 0;
    while index < characters.len() {
        if tokens.len() >= LONGEST_CELL {
            doubts.push("the cell is too long to be read to its end".to_owned());
            break;
        }
        let character = characters[index];
        if character.is_ascii_digit() {
            let (number, mut next) = number(&characters, index);
            let followed_by_letter = characters
                .get(next)
                .is_some_and(|c| c.is_alphabetic() || *c == '_');
            if followed_by_letter || dotted(&characters, index, next) {
                // `2FA`, `10.1.0.1`, `v2.0`: no port.
                let end = word_end(&characters, index);
                tokens.push(Token::Word(characters[index..end].iter().collect()));
                index = end;
                continue;
            }
            let mut last = number.clone();
            if let Some((other, end)) = range_end(&characters, next) {
                last = other;
                next = end;
            } else if characters.get(next) == Some(&'+') {
                last = "65535".to_owned();
                next += 1;
            }
            match (port(&number), port(&last)) {
                (Some(first), Some(last)) if first <= last => {
                    tokens.push(Token::Range(first, last))
                }
                _ => {
                    let printed: String = characters[index..next].iter().collect();
                    doubts.push(format!(
                        "`{printed}` is no port or range of ports: left out"
                    ));
                    tokens.push(Token::Word(printed));
                }
            }
            index = next;
        } else if character.is_alphabetic() || character == '_' {
            let end = word_end(&characters, index);
            let word: String = characters[index..end].iter().collect();
            index = end;
            push_word(&mut tokens, &word, doubts);
        } else {
            match character {
                ',' | '&' | '+' => tokens.push(Token::Comma),
                ';' | '\n' => tokens.push(Token::Break),
                '/' | '|' | ':' => tokens.push(Token::Slash),
                '(' | '[' => tokens.push(Token::Open),
                ')' | ']' => tokens.push(Token::Close),
                // Arrows are no comparisons.
                '≥' => tokens.extend([Token::Above, Token::Word("equal".to_owned())]),
                '≤' => tokens.extend([Token::Below, Token::Word("equal".to_owned())]),
                '=' if matches!(tokens.last(), Some(Token::Above | Token::Below)) => {
                    tokens.push(Token::Word("equal".to_owned()));
                }
                '>' if index == 0 || !matches!(characters[index - 1], '-' | '=' | '<') => {
                    tokens.push(Token::Above);
                }
                '<' if !matches!(characters.get(index + 1), Some('-' | '>')) => {
                    tokens.push(Token::Below);
                }
                _ => {}
            }
            index += 1;
        }
    }
    tokens
}

/// `443¹`, `443^{1}`, `443 [1]`, `443*`: takes off what refers to a note, which read as digits would be another port.
/// Gives the text and the marks.
fn without_notes(text: &str) -> (Cow<'_, str>, String) {
    const SUPERSCRIPT: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    if !text.contains(['<', '&', '^', '[', '(', '*', '†', '‡', '§', '`', '\\'])
        && !text.contains(SUPERSCRIPT)
    {
        return (Cow::Borrowed(text), String::new());
    }
    let plain = text
        .lines()
        .map(without_markup)
        .collect::<Vec<_>>()
        .join("\n");
    let characters: Vec<char> = plain.chars().collect();
    let mut bare = String::with_capacity(plain.len());
    let mut marks = String::new();
    let mut index = 0;
    while let Some(character) = characters.get(index).copied() {
        let before = bare.trim_end().chars().last();
        let (open, most) = match character {
            '^' if characters.get(index + 1) == Some(&'{') => (2, 3),
            '[' if before.is_some() => (1, 2),
            // `(22)` after a number may be one more port.
            '(' if before.is_some_and(|c| c.is_ascii_digit()) => (1, 1),
            _ => (0, 0),
        };
        let inner = characters[index + open..]
            .iter()
            .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '*' | '†' | '‡' | '§'))
            .count();
        let closes = matches!(characters.get(index + open + inner), Some('}' | ']' | ')'));
        // In brackets only a number is surely a mark.
        let numeric = characters[index + open..index + open + inner]
            .iter()
            .all(|c| c.is_ascii_digit() || *c == '*');
        if open > 0 && (1..=most).contains(&inner) && closes && (numeric || character == '^') {
            marks.extend(&characters[index..=index + open + inner]);
            index += open + inner + 1;
            continue;
        }
        let star = character == '*' && before.is_some_and(|c| c.is_alphanumeric() || c == ')');
        if star
            || SUPERSCRIPT.contains(&character)
            || (matches!(character, '†' | '‡' | '§') && before.is_some())
        {
            marks.push(character);
        } else {
            bare.push(character);
        }
        index += 1;
    }
    (Cow::Owned(bare), marks)
}

/// `> 1024`, `1024 and above`, `higher than 1023`, `between 1024 and 65535`: ranges that are told in words or signs.
fn open_ranges(tokens: Vec<Token>, doubts: &mut Vec<String>) -> Vec<Token> {
    let is = |token: Option<&Token>, words: &[&str]| matches!(token, Some(Token::Word(word)) if words.contains(&word.to_ascii_lowercase().as_str()));
    let number = |token: Option<&Token>| match token {
        Some(Token::Range(first, last)) if first == last => Some(*first),
        _ => None,
    };
    if !tokens
        .iter()
        .any(|token| matches!(token, Token::Word(_) | Token::Above | Token::Below))
    {
        return tokens;
    }
    let mut ranged = Vec::with_capacity(tokens.len());
    let mut index = 0;
    while let Some(token) = tokens.get(index) {
        let next = |ahead: usize| tokens.get(index + ahead);
        let above =
            *token == Token::Above || is(Some(token), &["above", "greater", "higher", "beyond"]);
        let below = *token == Token::Below || is(Some(token), &["below", "under", "less", "lower"]);
        if above || below {
            let filling = tokens[index + 1..]
                .iter()
                .take_while(|token| {
                    **token == Token::Comma || is(Some(*token), &["than", "equal", "to"])
                })
                .count();
            let inclusive = tokens[index + 1..=index + filling]
                .iter()
                .any(|token| is(Some(token), &["equal"]));
            if let Some(bound) = number(next(filling + 1)) {
                let (first, last) = match (above, inclusive) {
                    (true, true) => (bound, u16::MAX),
                    (true, false) => (bound.saturating_add(1), u16::MAX),
                    (false, true) => (1, bound),
                    (false, false) => (1, bound.saturating_sub(1).max(1)),
                };
                doubts.push(format!("an open range of ports: taken as {first}-{last}"));
                ranged.push(Token::Range(first, last));
                index += filling + 2;
                continue;
            }
        }
        // `see note 2`: no port.
        if is(
            Some(token),
            &[
                "note", "notes", "footnote", "table", "section", "version", "page", "step",
            ],
        ) && number(next(1)).is_some()
        {
            ranged.push(token.clone());
            index += 2;
            continue;
        }
        if is(Some(token), &["between"])
            && let (Some(first), Some(Token::Comma), Some(last)) =
                (number(next(1)), next(2), number(next(3)))
            && first <= last
        {
            ranged.push(Token::Range(first, last));
            index += 4;
            continue;
        }
        if let Some(first) = number(Some(token))
            && next(1) == Some(&Token::Comma)
            && is(
                next(2),
                &["above", "higher", "up", "upwards", "greater", "later"],
            )
        {
            doubts.push(format!("an open range of ports: taken as {first}-65535"));
            ranged.push(Token::Range(first, u16::MAX));
            index += 3;
            continue;
        }
        ranged.push(token.clone());
        index += 1;
    }
    ranged
}

fn push_word(tokens: &mut Vec<Token>, word: &str, doubts: &mut Vec<String>) {
    let lower = word.to_ascii_lowercase();
    if let Some(protocol) = vocabulary::protocol(word) {
        tokens.push(Token::Protocol(protocol));
    } else if let Some((protocol, port)) = run_together(&lower) {
        tokens.extend([Token::Protocol(protocol), Token::Range(port, port)]);
    } else if vocabulary::application(word).is_some() {
        tokens.push(Token::Application(lower));
    } else if matches!(lower.as_str(), "dynamic" | "ephemeral" | "random") {
        doubts.push(format!(
            "`{word}` ports: taken as 49152-65535, IANA's dynamic range"
        ));
        tokens.push(Token::Range(49152, 65535));
    } else if matches!(lower.as_str(), "and" | "or") {
        tokens.push(Token::Comma);
    } else if !NOISE.contains(&lower.as_str()) {
        tokens.push(Token::Word(word.to_owned()));
    }
}

/// `tcp_3306`, `udp53`: what firewalls call a service.
fn run_together(word: &str) -> Option<(Protocol, u16)> {
    let digits = word.trim_start_matches(|c: char| !c.is_ascii_digit());
    let name = word[..word.len() - digits.len()].trim_end_matches('_');
    let protocol = match name {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return None,
    };
    Some((protocol, port(digits)?))
}

fn number(characters: &[char], start: usize) -> (String, usize) {
    let mut end = start;
    while characters.get(end).is_some_and(char::is_ascii_digit) {
        end += 1;
    }
    (characters[start..end].iter().collect(), end)
}

/// Whether a number is part of an address or a version.
fn dotted(characters: &[char], start: usize, end: usize) -> bool {
    let dot_then_digit = characters.get(end) == Some(&'.')
        && characters.get(end + 1).is_some_and(char::is_ascii_digit)
        && characters.get(end + 1..end + 3) != Some(&['.', '.']);
    let digit_before =
        start >= 2 && characters[start - 1] == '.' && characters[start - 2].is_alphanumeric();
    dot_then_digit || digit_before
}

fn word_end(characters: &[char], start: usize) -> usize {
    let mut end = start;
    while characters.get(end).is_some_and(|c| {
        c.is_alphanumeric()
            || *c == '_'
            || (*c == '.' && characters.get(end + 1).is_some_and(|c| c.is_alphanumeric()))
    }) {
        end += 1;
    }
    end.max(start + 1)
}

/// The end of a range after its first number: `-`, `..`, `to`, `:`.
fn range_end(characters: &[char], start: usize) -> Option<(String, usize)> {
    let mut index = start;
    let blanks = |mut index: usize| {
        while characters.get(index) == Some(&' ') {
            index += 1;
        }
        index
    };
    index = blanks(index);
    index = match characters.get(index)? {
        '-' | '~' | '→' => index + 1,
        ':' if index == start => index + 1,
        '.' if characters.get(index + 1) == Some(&'.') => index + 2,
        't' | 'T'
            if characters
                .get(index + 1)
                .is_some_and(|c| matches!(c, 'o' | 'O'))
                && characters.get(index + 2) == Some(&' ') =>
        {
            index + 2
        }
        _ => return None,
    };
    index = blanks(index);
    if !characters.get(index)?.is_ascii_digit() {
        return None;
    }
    let (last, end) = number(characters, index);
    if characters.get(end).is_some_and(|c| c.is_alphabetic()) {
        return None;
    }
    Some((last, end))
}

fn port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port > 0)
}

/// What became of a row's protocols and ports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Services {
    /// In the order of printing, without duplicates or overlaps.
    pub(super) services: Vec<Service>,
    /// Why they are not simply what is printed.
    pub(super) doubts: Vec<String>,
}

/// Puts together what the port cell and the protocol cells say. `fallback` are application names from elsewhere in the
/// row, for the case that no port is printed.
pub(super) fn services(
    ports: &Ports,
    transports: &[Protocol],
    applications: &[Application],
    hint: &[Protocol],
) -> Services {
    let mut made = Services::default();
    let portless: Vec<Protocol> = transports
        .iter()
        .copied()
        .filter(|protocol| !protocol.has_ports())
        .collect();
    let ported: Vec<Protocol> = transports
        .iter()
        .copied()
        .filter(|protocol| protocol.has_ports())
        .collect();
    for protocol in &portless {
        made.add(*protocol, None);
    }
    for entry in &ports.entries {
        let own: Vec<Protocol> = entry
            .protocols
            .iter()
            .copied()
            .filter(|protocol| protocol.has_ports())
            .collect();
        for protocol in entry
            .protocols
            .iter()
            .filter(|protocol| !protocol.has_ports())
        {
            made.add(*protocol, None);
        }
        for (first, last) in &entry.ranges {
            let protocols: Vec<Protocol> = if !own.is_empty() {
                own.clone()
            } else if !ported.is_empty() {
                ported.clone()
            } else if !portless.is_empty()
                || entry.protocols.iter().any(|protocol| !protocol.has_ports())
            {
                if (*first, *last) != (1, u16::MAX) {
                    made.doubts.push(format!(
                        "`{first}` stands where a port would, but {} has no ports: left out",
                        names(transports)
                    ));
                }
                continue;
            } else if !hint.is_empty() {
                hint.to_vec()
            } else {
                let known = if first == last {
                    vocabulary::transports(*first)
                } else {
                    Vec::new()
                };
                let taken =
                    if known.is_empty() || known.contains(&Protocol::Tcp) && !ambiguous(*first) {
                        vec![Protocol::Tcp]
                    } else {
                        known
                    };
                let doubt = format!("no transport is printed: {} is taken", names(&taken));
                if !made.doubts.contains(&doubt) {
                    made.doubts.push(doubt);
                }
                taken
            };
            for protocol in protocols {
                made.add(protocol, Some((*first, *last)));
            }
        }
    }
    if made.services.is_empty() {
        made.add_registered(applications, &ported);
    }
    made
}

/// Ports that are used over both transports alike, so that neither may be dropped.
fn ambiguous(port: u16) -> bool {
    matches!(port, 53 | 88 | 464 | 3478 | 5349)
}

fn names(protocols: &[Protocol]) -> String {
    let names: Vec<String> = protocols
        .iter()
        .map(|protocol| protocol.to_string().to_uppercase())
        .collect();
    names.join(" and ")
}

impl Services {
    /// Ports that the names stand for.
    fn add_registered(&mut self, applications: &[Application], transports: &[Protocol]) {
        for application in applications {
            for (protocol, port) in application.services {
                if transports.is_empty() || transports.contains(protocol) {
                    self.add(*protocol, Some((*port, *port)));
                    self.doubts.push(format!(
                        "no port is printed: {protocol}/{port} is what {} is registered for",
                        application.name.to_uppercase()
                    ));
                }
            }
        }
    }

    fn add(&mut self, protocol: Protocol, range: Option<(u16, u16)>) {
        let text = match range {
            None => protocol.to_string(),
            Some((first, last)) if first == last => format!("{protocol}/{first}"),
            Some((first, last)) => format!("{protocol}/{first}-{last}"),
        };
        let Ok(service) = text.parse::<Service>() else {
            return;
        };
        let wider = self.services.iter().any(|known| {
            known.protocol() == service.protocol()
                && known.first() <= service.first()
                && service.last() <= known.last()
        });
        if wider {
            return;
        }
        let contains = |known: &Service| {
            known.protocol() == service.protocol()
                && service.first() <= known.first()
                && known.last() <= service.last()
        };
        self.services.retain(|known| !contains(known));
        self.services.push(service);
    }
}

/// Splits a cell in which several rows' values were run together: at blanks that no comma or connecting sign explains.
pub(super) fn groups(text: &str) -> Vec<String> {
    let folded = fold(text).text;
    let mut groups: Vec<String> = Vec::new();
    let mut depth = 0_usize;
    let mut joined = false;
    for word in folded.split_whitespace() {
        let starts_joined = word.starts_with([',', ';', '/', '&', '+', '-', '(', ')'])
            || matches!(word, "and" | "or" | "to");
        match groups.last_mut() {
            Some(group) if joined || starts_joined || depth > 0 => {
                group.push(' ');
                group.push_str(word);
            }
            Some(_) | None => groups.push(word.to_owned()),
        }
        depth = (depth + word.matches('(').count()).saturating_sub(word.matches(')').count());
        joined = word.ends_with([',', ';', '/', '&', '+', '-', ':'])
            || matches!(word, "and" | "or" | "to");
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(ports: &str, protocols: &str, expect: &str) {
        let parsed = Ports::parse(ports);
        let cell = Ports::parse(protocols);
        let mut applications = parsed.applications.clone();
        applications.extend(&cell.applications);
        let made = services(&parsed, &cell.protocols(), &applications, &[]);
        let text: Vec<String> = made.services.iter().map(ToString::to_string).collect();
        assert_eq!(text.join(" "), expect, "{ports:?} {protocols:?}");
    }

    #[test]
    fn reads_ports_in_every_order() {
        check("443", "TCP", "tcp/443");
        check("80, 443,", "TCP, UDP", "tcp/80 udp/80 tcp/443 udp/443");
        check("443 TCP", "", "tcp/443");
        check("TCP 443", "", "tcp/443");
        check("443/tcp", "", "tcp/443");
        check("TCP/443", "", "tcp/443");
        check("tcp:443", "", "tcp/443");
        check("3478 (TCP/UDP)", "", "tcp/3478 udp/3478");
        check("TCP/UDP 53", "", "tcp/53 udp/53");
        check("TCP: 80, 443; UDP: 53", "", "tcp/80 tcp/443 udp/53");
        check("TCP: 80, 443\nUDP: 53", "", "tcp/80 tcp/443 udp/53");
        check("443 TCP, 3478 UDP", "", "tcp/443 udp/3478");
        check("443 (TCP), 3478 (UDP)", "", "tcp/443 udp/3478");
        check("80 and 443", "tcp", "tcp/80 tcp/443");
        check("80\n443", "tcp", "tcp/80 tcp/443");
        check("TCP (HTTPS)", "", "tcp/443");
        check("443", "TCP (HTTPS)", "tcp/443");
        check("HTTPS (443)", "", "tcp/443");
        check("Port 5349 (TCP/UDP)", "", "tcp/5349 udp/5349");
        check("tcp_3306, udp53", "", "tcp/3306 udp/53");
    }

    #[test]
    fn reads_ranges() {
        check("49152 - 65535", "TCP", "tcp/49152-65535");
        check("49152–65535", "TCP", "tcp/49152-65535");
        check("5000 to 5010", "UDP", "udp/5000-5010");
        check("5000..5010", "UDP", "udp/5000-5010");
        check("6000:6010", "UDP", "udp/6000-6010");
        check("1024+", "TCP", "tcp/1024-65535");
        check("135, 49152-65535", "TCP", "tcp/135 tcp/49152-65535");
        check("any", "TCP", "tcp/1-65535");
        check("All ports", "TCP", "tcp/1-65535");
        check("*", "UDP", "udp/1-65535");
        check("TCP any", "", "tcp/1-65535");
        check("all components", "TCP", "");
        check("dynamic range", "TCP", "tcp/49152-65535");
        check(">1024", "TCP", "tcp/1025-65535");
        check("> 1023", "UDP", "udp/1024-65535");
        check(">= 1024", "TCP", "tcp/1024-65535");
        check("≥1024", "TCP", "tcp/1024-65535");
        check("&gt;1023", "TCP", "tcp/1024-65535");
        check("<1024", "TCP", "tcp/1-1023");
        check("TCP 1024 and above", "", "tcp/1024-65535");
        check("80, 1024 or higher", "TCP", "tcp/80 tcp/1024-65535");
        check("greater than 1023", "TCP", "tcp/1024-65535");
        check("greater than or equal to 1024", "TCP", "tcp/1024-65535");
        check("between 5000 and 5010", "UDP", "udp/5000-5010");
        check("80, 80-90", "TCP", "tcp/80-90");
        check("90-80", "TCP", "");
        check("70000", "TCP", "");
        check("0", "TCP", "");
    }

    #[test]
    fn knows_protocols_without_ports() {
        check("112", "VRRP", "vrrp");
        check("", "ICMP", "icmp");
        check("ICMP", "", "icmp");
        check("N/A", "ESP", "esp");
        check("500", "UDP, ESP", "esp udp/500");
    }

    #[test]
    fn takes_names_for_ports() {
        check("", "HTTPS", "tcp/443");
        check("DNS", "UDP", "udp/53");
        check("DNS", "", "udp/53 tcp/53");
        check("", "RTMPS TCP", "tcp/443");
        check("LDAPS", "TCP", "tcp/636");
        check("", "", "");
    }

    #[test]
    fn takes_the_usual_transport_where_none_is_printed() {
        check("443", "", "tcp/443");
        check("123", "", "udp/123");
        check("53", "", "tcp/53 udp/53");
        check("20001", "", "tcp/20001");
    }

    #[test]
    fn takes_no_port_from_footnote_marks() {
        check("443¹", "TCP", "tcp/443");
        check("443^{1}", "TCP", "tcp/443");
        check("443<sup>2</sup>", "TCP", "tcp/443");
        check("443 [1]", "TCP", "tcp/443");
        check("443 (1)", "TCP", "tcp/443");
        check("443*, 8443**", "TCP", "tcp/443 tcp/8443");
        check("49152-65535†", "TCP", "tcp/49152-65535");
        check("TCP¹ 80", "", "tcp/80");
        check("80 (See note 2)", "TCP", "tcp/80");
        check("HTTPS (443)", "", "tcp/443");
        check("FTP (21)", "", "tcp/21");
        check("*", "TCP", "tcp/1-65535");
        let doubts = Ports::parse("443¹").doubts.join(" ");
        assert!(doubts.contains("footnote mark (`¹`)"), "{doubts}");
    }

    #[test]
    fn a_list_goes_on_in_the_next_line() {
        check("UDP 5000,\n5001", "", "udp/5000 udp/5001");
    }

    #[test]
    fn folds_look_alikes() {
        check("443", "ТСР", "tcp/443");
        assert!(!Ports::parse("ТСР").doubts.is_empty());
    }

    #[test]
    fn reads_no_port_from_addresses_and_names() {
        assert!(!Ports::parse("10.1.0.10").has_ranges());
        assert!(!Ports::parse("2FA").has_ranges());
        assert!(!Ports::parse("v2.0").has_ranges());
        assert!(!Ports::parse("server01").has_ranges());
    }

    #[test]
    fn splits_what_was_run_together() {
        let check = |text: &str, expect: &[&str]| assert_eq!(groups(text), expect, "{text}");
        check("TCP TCP, UDP TCP, UDP", &["TCP", "TCP, UDP", "TCP, UDP"]);
        check("8086 30004 30006", &["8086", "30004", "30006"]);
        check(
            "30010 30006 20002, 20001",
            &["30010", "30006", "20002, 20001"],
        );
        check("49152 - 65535", &["49152 - 65535"]);
        check("1234 (outbound only)", &["1234 (outbound only)"]);
        check("TCP and UDP", &["TCP and UDP"]);
    }
}
