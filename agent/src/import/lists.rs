//! Requirements outside tables: lists of ports under one heading and of host names under others, `Component: TCP 135 -
//! purpose`, and sentences that name ports. What is joined here from places apart is always a doubt.

use foldhash::{HashMap, HashMapExt};

use super::block::{Block, Document, Line};
use super::direction;
use super::endpoint::{self, Cell, Endpoint};
use super::fold::{squeeze, words};
use super::ports::{self, Ports};
use super::rows::{End, Found, Interpretation, registered_names};
use super::vocabulary;
use crate::matrix::{Direction, Necessity, Service};

/// Words of things that are fetched over the web.
const WEB: &[&str] = &[
    "cdn",
    "traffic manager",
    "web",
    "website",
    "download",
    "downloads",
    "update",
    "updates",
    "portal",
    "site",
    "licence",
    "license",
    "licensing",
    "api",
];
/// Ports of the web.
const WEB_PORTS: &[u16] = &[80, 443, 8080, 8443];
/// Longest heading or list entry in words that can name an end.
const TITLE_WORDS: usize = 6;

/// Most terms and listed ports that are joined to destinations.
const MOST_LISTED: usize = 200;

/// Ports that the document lists apart from their destinations.
struct Listed {
    services: Vec<Service>,
}

/// Services, and what is to be said of them.
struct Made {
    services: Vec<Service>,
    application: Option<String>,
    doubts: Vec<String>,
}

struct Reader<'a> {
    out: &'a mut Interpretation,
    listed: Vec<Listed>,
    /// Terms that the document explains: `Term: what it is`.
    terms: Vec<String>,
    source: Option<String>,
    rows: HashMap<String, u32>,
    /// Line to its index in what is printed; a line outside tables is printed once.
    lines: HashMap<u32, usize>,
    section: String,
    /// Whether the document has tables that requirements were made of: then its lists are only explanations.
    tables: bool,
}

/// Adds what stands outside tables.
pub(super) fn read(document: &Document, out: &mut Interpretation) {
    let mut reader = Reader {
        tables: !out.found.is_empty(),
        lines: out
            .printed
            .iter()
            .enumerate()
            .map(|(index, printed)| (printed.line, index))
            .collect(),
        out,
        listed: Vec::new(),
        terms: terms(document),
        source: usual_source(document),
        rows: HashMap::new(),
        section: document.title.clone().unwrap_or_default(),
    };
    let outside = document.blocks.iter().filter_map(|block| match block {
        Block::Item(line) | Block::Text(line) => Some(line),
        Block::Heading(_) | Block::Table(_) => None,
    });
    for line in outside {
        let (head, _) = split(&line.text);
        let ports = Ports::parse(head);
        if ports.is_clean()
            && ports.has_ranges()
            && !endpoint::is_names(&line.text)
            && reader.listed.len() < MOST_LISTED
        {
            let services = ports::services(&ports, &[], &ports.applications, &[]).services;
            reader.listed.push(Listed { services });
        }
    }
    let blocks = &document.blocks;
    for (index, block) in blocks.iter().enumerate() {
        match block {
            Block::Heading(line) => {
                reader.section = squeeze(&line.text);
                let lone = !matches!(
                    blocks.get(index + 1),
                    Some(Block::Item(_) | Block::Text(_) | Block::Table(_))
                );
                if lone {
                    reader.heading(line);
                }
            }
            Block::Item(line) => reader.item(line),
            Block::Text(line) => reader.sentence(line),
            Block::Table(_) => {}
        }
    }
    // In the order of printing, as the rows of tables are.
    reader.out.found.sort_by_key(|found| found.at);
}

/// `443: web access`, `Component - TCP 135`: the parts before and after the separator.
fn split(text: &str) -> (&str, Option<&str>) {
    for separator in [": ", " - ", " – ", " — "] {
        // A range is no separator.
        if let Some(at) = text.find(separator)
            && !(text[..at].ends_with(|c: char| c.is_ascii_digit())
                && text[at + separator.len()..].starts_with(|c: char| c.is_ascii_digit()))
        {
            return (text[..at].trim(), Some(text[at + separator.len()..].trim()));
        }
    }
    (text.trim(), None)
}

/// A line that tells ports and one end.
struct Spoken<'a> {
    ports: Ports,
    end: &'a str,
    /// Whether the end is the one that begins: `from`.
    initiates: bool,
    purpose: &'a str,
}

/// What stands after a name and its ports: `(TCP 443): updates`, `- updates`.
fn purpose_after(text: &str) -> &str {
    let text = text.trim();
    let after = [": ", "- ", "– ", "— "]
        .iter()
        .filter_map(|mark| text.find(mark).map(|at| (at, at + mark.len())))
        .min();
    match after {
        Some((at, start)) if at == 0 || Ports::parse(&text[..at]).has_ranges() => {
            text[start..].trim()
        }
        Some(_) | None => "",
    }
}

/// Ports, `to` or `from`, a name, and perhaps what it is for.
fn spoken(text: &str) -> Option<Spoken<'_>> {
    let (at, word) = [" to ", " from "]
        .into_iter()
        .filter_map(|word| text.find(word).map(|at| (at, word)))
        .min()?;
    let ports = Ports::parse(&text[..at]);
    let rest = &text[at + word.len()..];
    if !ports.is_clean() || !ports.words.is_empty() || !ports.has_ranges() {
        return None;
    }
    let (end, purpose) = [" for ", " - ", " – ", " — ", ": ", ", ", " ("]
        .into_iter()
        .filter_map(|mark| rest.find(mark).map(|at| (at, mark.len())))
        .min()
        .map_or((rest, ""), |(at, length)| {
            (
                &rest[..at],
                rest[at + length..].trim_end_matches([')', '.']),
            )
        });
    let end = end.trim().trim_end_matches(['.', ';']);
    let end = end
        .strip_prefix("the ")
        .or(end.strip_prefix("your "))
        .unwrap_or(end);
    // `80 to 90` is a range.
    let named = end.split_whitespace().count() <= TITLE_WORDS
        && !Ports::parse(end).has_ranges()
        && (endpoint::is_title(end) || endpoint::is_names(end));
    named.then_some(Spoken {
        ports,
        end,
        initiates: word == " from ",
        purpose: purpose.trim(),
    })
}

/// A line that tells a whole flow.
struct Flow<'a> {
    left: &'a str,
    right: &'a str,
    direction: Direction,
    ports: Ports,
    purpose: &'a str,
}

/// Two names with an arrow between them, and ports after the second.
fn flow(text: &str) -> Option<Flow<'_>> {
    let (left, direction, rest) = direction::arrow(text)?;
    let is_end = |text: &str| {
        text.split_whitespace().count() <= TITLE_WORDS
            && (endpoint::is_title(text) || endpoint::is_names(text))
    };
    if !is_end(left) {
        return None;
    }
    // The ports begin at the first sign or word after which everything is about them.
    let separators = [
        ":", " - ", " – ", " — ", ",", " (", " on ", " via ", " over ", " port", " TCP", " UDP",
        " tcp", " udp",
    ];
    let mut begins: Vec<(usize, usize)> = separators
        .iter()
        .flat_map(|separator| {
            let keep = matches!(separator.trim(), "TCP" | "UDP" | "tcp" | "udp" | "port");
            rest.match_indices(separator)
                .take(4)
                .map(move |(at, found)| (at, at + if keep { 0 } else { found.len() }))
        })
        .collect();
    begins.sort_unstable();
    begins.into_iter().find_map(|(end, start)| {
        let right = rest[..end].trim();
        let after = rest[start..].trim();
        // What stands in brackets or after a dash tells what it is for, unless it tells ports.
        let cut = [" (", " - ", " – ", " — ", ": "]
            .iter()
            .filter_map(|mark| after.find(mark).map(|at| (at, mark.len())))
            .filter(|(at, _)| Ports::parse(&after[..*at]).has_ranges())
            .min();
        let (ports, purpose) = match cut {
            Some((at, length)) if !Ports::parse(&after[at..]).has_ranges() => (
                &after[..at],
                after[at + length..].trim_end_matches(')').trim(),
            ),
            Some(_) | None => (after, ""),
        };
        let ports = Ports::parse(ports);
        let named = ports
            .applications
            .iter()
            .any(|application| !application.services.is_empty());
        let telling = ports.is_clean() && ports.words.is_empty() && (ports.has_ranges() || named);
        (telling && is_end(right)).then_some(Flow {
            left,
            right,
            direction,
            ports,
            purpose,
        })
    })
}

fn terms(document: &Document) -> Vec<String> {
    let mut terms = Vec::new();
    for block in &document.blocks {
        let (Block::Text(line) | Block::Item(line) | Block::Heading(line)) = block else {
            continue;
        };
        let (head, rest) = split(&line.text);
        let heading = matches!(block, Block::Heading(_));
        if terms.len() < MOST_LISTED
            && (rest.is_some() || heading)
            && head.split_whitespace().count() <= 4
            && endpoint::is_title(head)
        {
            terms.push(head.to_owned());
        }
    }
    terms
}

/// The component that a document without sources is about: the client that it speaks of most.
fn usual_source(document: &Document) -> Option<String> {
    let mut counts: HashMap<String, usize> = HashMap::new();
    for block in &document.blocks {
        let (Block::Text(line) | Block::Item(line)) = block else {
            continue;
        };
        let mut name: Vec<&str> = Vec::new();
        for word in line.text.split_whitespace() {
            let bare = word.trim_matches(|c: char| !c.is_alphanumeric());
            if bare.chars().next().is_some_and(char::is_uppercase) {
                name.push(bare);
                if matches!(bare, "Client" | "Clients" | "Agent") && name.len() >= 2 {
                    let last: Vec<&str> = name
                        .iter()
                        .rev()
                        .take(3)
                        .rev()
                        .copied()
                        .filter(|word| !matches!(*word, "The" | "A" | "Your" | "In" | "All"))
                        .collect();
                    if last.len() >= 2 {
                        *counts.entry(last.join(" ")).or_default() += 1;
                    }
                }
            } else {
                name.clear();
            }
        }
    }
    counts
        .into_iter()
        .max_by(|(a, left), (b, right)| left.cmp(right).then_with(|| b.cmp(a)))
        .map(|(name, _)| name)
}

impl Reader<'_> {
    fn end(&mut self, endpoint: Endpoint) -> End {
        if let Some(role) = endpoint.built_in {
            return End::BuiltIn(role);
        }
        self.out.ends.push(endpoint);
        End::Named(self.out.ends.len() - 1)
    }

    fn titled(&mut self, title: &str) -> End {
        self.end(Endpoint {
            title: title.to_owned(),
            ..Endpoint::default()
        })
    }

    fn usual(&mut self, doubts: &mut Vec<String>) -> End {
        match self.source.clone() {
            Some(source) => {
                doubts.push(format!(
                    "no source is printed: `{source}` is taken from the text"
                ));
                self.titled(&source)
            }
            None => {
                doubts.push("no source is printed".to_owned());
                End::Unknown
            }
        }
    }

    fn add(&mut self, line: &Line, from: End, to: End, made: Made, purpose: &str) {
        let Made {
            services,
            application,
            mut doubts,
        } = made;
        let Some(at) = self.lines.get(&line.number).copied() else {
            return;
        };
        self.out.printed[at].taken = true;
        let row = self.rows.entry(self.section.clone()).or_insert(0);
        *row += 1;
        if services.is_empty() {
            doubts.push("no port could be made out".to_owned());
        }
        super::rows::dedup(&mut doubts);
        self.out.found.push(Found {
            from,
            to,
            services,
            direction: Direction::Outbound,
            necessity: Necessity::Required,
            application,
            purpose: purpose.to_owned(),
            section: self.section.clone(),
            row: *row,
            at,
            doubts,
        });
    }

    /// The explained term that goes with a port by its registered name.
    fn term_for(&self, services: &[Service]) -> Option<String> {
        let names = registered_names(*services.first()?);
        self.terms
            .iter()
            .find(|term| {
                words(term)
                    .split(' ')
                    .any(|word| names.contains(&word) && !matches!(word, "http" | "https" | "dns"))
            })
            .cloned()
    }

    /// Ports of the document's list that fit a name.
    fn ports_for(&self, name: &str, doubts: &mut Vec<String>) -> Vec<Service> {
        if self.listed.is_empty() {
            return Vec::new();
        }
        let all: Vec<Service> = self
            .listed
            .iter()
            .flat_map(|listed| listed.services.iter().copied())
            .collect();
        let text = format!(" {} ", words(name));
        let has = |word: &str| text.contains(&format!(" {word} "));
        let named: Vec<Service> = all
            .iter()
            .copied()
            .filter(|service| registered_names(*service).iter().any(|name| has(name)))
            .collect();
        let web: Vec<Service> = all
            .iter()
            .copied()
            .filter(|service| {
                service
                    .first()
                    .is_some_and(|port| WEB_PORTS.contains(&port))
            })
            .collect();
        doubts.push("ports and destinations are printed apart: joined here".to_owned());
        let mut taken = if !named.is_empty() {
            named
        } else if WEB.iter().any(|word| has(word)) && !web.is_empty() {
            web
        } else {
            all
        };
        let mut unique = Vec::with_capacity(taken.len());
        for service in taken.drain(..) {
            if !unique.iter().any(|known: &Service| known.overlaps(service)) {
                unique.push(service);
            }
        }
        unique
    }

    /// `Client -> Server: TCP 443 (web)`. Gives whether it is that.
    fn flow(&mut self, line: &Line) -> bool {
        let Some(flow) = flow(&line.text) else {
            return false;
        };
        let (Cell::Endpoint(mut left), Cell::Endpoint(mut right)) =
            (endpoint::parse(flow.left), endpoint::parse(flow.right))
        else {
            return false;
        };
        let made = ports::services(&flow.ports, &[], &flow.ports.applications, &[]);
        let mut doubts = flow.ports.doubts.clone();
        doubts.extend(made.doubts);
        doubts.append(&mut left.doubts);
        doubts.append(&mut right.doubts);
        let application = flow
            .ports
            .applications
            .first()
            .map(|application| application.name.to_owned());
        let (from, to) = (self.end(left), self.end(right));
        let before = self.out.found.len();
        let made = Made {
            services: made.services,
            application,
            doubts,
        };
        self.add(line, from, to, made, flow.purpose);
        if let Some(found) = self.out.found.get_mut(before) {
            found.direction = flow.direction;
            found.necessity = super::rows::necessity_of(flow.purpose);
        }
        true
    }

    /// `TCP 443 to the gateway for uploads`. Gives whether it is that.
    fn spoken(&mut self, line: &Line) -> bool {
        if self.tables {
            return false;
        }
        let Some(spoken) = spoken(&line.text) else {
            return false;
        };
        let Cell::Endpoint(mut named) = endpoint::parse(spoken.end) else {
            return false;
        };
        let ports = &spoken.ports;
        let made = ports::services(ports, &[], &ports.applications, &[]);
        let mut doubts = ports.doubts.clone();
        doubts.extend(made.doubts);
        doubts.append(&mut named.doubts);
        let application = ports
            .applications
            .first()
            .map(|application| application.name.to_owned());
        let (from, to) = if spoken.initiates {
            doubts.push("no destination is printed".to_owned());
            (self.end(named), End::Unknown)
        } else {
            (self.usual(&mut doubts), self.end(named))
        };
        let before = self.out.found.len();
        let made = Made {
            services: made.services,
            application,
            doubts,
        };
        self.add(line, from, to, made, spoken.purpose);
        if let Some(found) = self.out.found.get_mut(before) {
            found.necessity = super::rows::necessity_of(spoken.purpose);
        }
        true
    }

    fn item(&mut self, line: &Line) {
        if self.flow(line) || self.spoken(line) {
            return;
        }
        let (head, rest) = split(&line.text);
        let ports = Ports::parse(head);
        if endpoint::is_names(&line.text) {
            self.names(line);
        } else if ports.is_clean() && ports.has_ranges() {
            self.listed_ports(line, &ports, rest.unwrap_or_default());
        } else if !self.component(line) && !self.tables && !self.listed.is_empty() {
            self.named_service(line);
        }
    }

    /// `443 (TCP)`, with or without its purpose.
    fn listed_ports(&mut self, line: &Line, ports: &Ports, purpose: &str) {
        if self.tables {
            return;
        }
        let made = ports::services(ports, &[], &ports.applications, &[]);
        let mut doubts = ports.doubts.clone();
        doubts.extend(made.doubts);
        let from = self.usual(&mut doubts);
        let to = self.service_end(&made.services, &mut doubts);
        let application = ports
            .applications
            .first()
            .map(|application| application.name.to_owned());
        self.add(
            line,
            from,
            to,
            Made {
                services: made.services,
                application,
                doubts,
            },
            purpose,
        );
    }

    fn service_end(&mut self, services: &[Service], doubts: &mut Vec<String>) -> End {
        match self.term_for(services) {
            Some(term) => {
                doubts.push(format!(
                    "no destination is printed: `{term}` is taken, whose registered port it is"
                ));
                self.titled(&term)
            }
            None => {
                doubts.push("no destination is printed beside the port".to_owned());
                End::Unknown
            }
        }
    }

    /// Host names, perhaps with ports beside them.
    fn names(&mut self, line: &Line) {
        let Cell::Endpoint(mut endpoint) = endpoint::parse(&line.text) else {
            return;
        };
        let rest = line
            .text
            .split_once(char::is_whitespace)
            .map_or("", |(_, rest)| rest);
        let beside = Ports::parse(rest);
        let mut doubts = Vec::new();
        let services = if beside.is_clean() && beside.has_ranges() {
            ports::services(&beside, &[], &beside.applications, &[]).services
        } else if let [port, ..] = endpoint.ports.as_slice() {
            ports::services(&Ports::parse(&port.to_string()), &[], &[], &[]).services
        } else {
            let name = format!("{} {}", endpoint.title, self.section);
            self.ports_for(&name, &mut doubts)
        };
        doubts.append(&mut endpoint.doubts);
        let from = self.usual(&mut doubts);
        let to = self.end(endpoint);
        let purpose = match purpose_after(rest) {
            "" => self.section.clone(),
            purpose => purpose.to_owned(),
        };
        let before = self.out.found.len();
        self.add(
            line,
            from,
            to,
            Made {
                services,
                application: None,
                doubts,
            },
            &purpose,
        );
        if let Some(found) = self.out.found.get_mut(before) {
            found.necessity =
                super::rows::necessity_of(rest.trim_start_matches(['-', '–', '—', ',', ' ']));
        }
    }

    /// `Component: TCP 135, 445 - purpose`. Gives whether it is that.
    fn component(&mut self, line: &Line) -> bool {
        let (head, Some(rest)) = split(&line.text) else {
            return false;
        };
        let (middle, purpose) = split(rest);
        let ports = Ports::parse(middle);
        let telling = ports.is_clean()
            && ports.words.is_empty()
            && ports.has_ranges()
            && !ports.protocols().is_empty();
        if !telling || head.split_whitespace().count() > TITLE_WORDS || !endpoint::is_title(head) {
            return false;
        }
        let Cell::Endpoint(endpoint) = endpoint::parse(head) else {
            return false;
        };
        let made = ports::services(&ports, &[], &ports.applications, &[]);
        let mut doubts = made.doubts;
        doubts.push("the line names no source".to_owned());
        let to = self.end(endpoint);
        let section = std::mem::replace(&mut self.section, head.to_owned());
        self.add(
            line,
            End::Unknown,
            to,
            Made {
                services: made.services,
                application: None,
                doubts,
            },
            purpose.unwrap_or_default(),
        );
        self.section = section;
        true
    }

    /// `Public DNS resolution`: a service by its name.
    fn named_service(&mut self, line: &Line) {
        let text = squeeze(&line.text);
        if text.split_whitespace().count() > TITLE_WORDS {
            return;
        }
        let Some(application) = text
            .split(|c: char| !c.is_alphanumeric())
            .find_map(vocabulary::application)
            .filter(|application| !application.services.is_empty())
        else {
            return;
        };
        let made = ports::services(&Ports::default(), &[], &[application], &[]);
        let mut doubts = made.doubts;
        let from = self.usual(&mut doubts);
        let to = self.titled(&text);
        self.add(
            line,
            from,
            to,
            Made {
                services: made.services,
                application: Some(application.name.to_owned()),
                doubts,
            },
            "",
        );
    }

    /// A heading of destinations whose list is missing.
    fn heading(&mut self, line: &Line) {
        let text = squeeze(&line.text);
        let names_ends = words(&text).split(' ').any(|word| {
            matches!(
                word,
                "endpoint"
                    | "endpoints"
                    | "server"
                    | "servers"
                    | "host"
                    | "hosts"
                    | "urls"
                    | "domains"
            )
        });
        if self.tables
            || self.listed.is_empty()
            || !names_ends
            || text.split_whitespace().count() > TITLE_WORDS
            || text.split_whitespace().count() < 2
        {
            return;
        }
        let mut doubts =
            vec!["the list under this heading is missing from the document".to_owned()];
        let services = self.ports_for(&text, &mut doubts);
        let from = self.usual(&mut doubts);
        let to = self.titled(&text);
        self.add(
            line,
            from,
            to,
            Made {
                services,
                application: None,
                doubts,
            },
            "",
        );
    }

    /// A sentence that asks for ports.
    fn sentence(&mut self, line: &Line) {
        if self.flow(line) {
            return;
        }
        let (head, _) = split(&line.text);
        let ports = Ports::parse(head);
        if ports.is_clean() && ports.has_ranges() && ports.words.is_empty() {
            self.listed_ports(line, &ports, split(&line.text).1.unwrap_or_default());
            return;
        }
        if self.component(line) || self.tables {
            return;
        }
        let lower = line.text.to_lowercase();
        let asks = ["allow", "open", "permit", "whitelist", "require", "need"]
            .iter()
            .any(|word| lower.contains(word));
        let Some(at) = lower.find("port ").or_else(|| lower.find("ports ")) else {
            return;
        };
        if !asks || !line.text.is_char_boundary(at) {
            return;
        }
        // Only what follows the word: other numbers in a sentence are no ports.
        let words: Vec<&str> = line.text[at..].split_whitespace().skip(1).collect();
        let count = words
            .iter()
            .take_while(|word| {
                let parsed = Ports::parse(word);
                parsed.is_clean()
                    || matches!(word.trim_matches(','), "and" | "or" | "&" | "to" | "-")
            })
            .count();
        let ports = Ports::parse(&words[..count].join(" "));
        if !ports.has_ranges() {
            return;
        }
        let made = ports::services(&ports, &[], &ports.applications, &[]);
        let mut doubts = made.doubts;
        doubts.push("taken from a sentence".to_owned());
        let from = self.usual(&mut doubts);
        let to = self.service_end(&made.services, &mut doubts);
        let purpose = squeeze(&line.text);
        self.add(
            line,
            from,
            to,
            Made {
                services: made.services,
                application: None,
                doubts,
            },
            &purpose,
        );
    }
}
