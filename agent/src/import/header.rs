//! What the columns of a table mean: by the words of the header, corrected by what stands in the cells where the two
//! disagree. Headers are shifted, fused with the first row, printed twice, or say `Type` for the transport.

use std::sync::OnceLock;

use foldhash::{HashMap, HashMapExt};

use super::block::Row;
use super::direction;
use super::endpoint;
use super::fold::words;
use super::ports::Ports;
use super::vocabulary;
use crate::matrix::{Direction, Protocol};

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// The end that the row is about, mostly the initiator.
    Source,
    /// The other end.
    Destination,
    /// Both ends with an arrow between them.
    Ends,
    /// Ports of the responder, perhaps with their transports.
    Port,
    /// Ports of the initiator, which a matrix does not hold.
    SourcePort,
    /// Transports.
    Protocol,
    /// Application protocols.
    Application,
    /// Who initiates.
    Direction,
    /// What it is for.
    Purpose,
    /// Whether it is needed.
    Necessity,
    /// Whether the row allows or denies.
    Action,
    /// A cloud provider's name for the destination's addresses.
    ServiceTag,
    /// Anything else.
    Other,
}

/// A column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    /// What it holds.
    pub(super) kind: Kind,
    /// Its header as printed.
    pub(super) title: String,
    /// Transports that the header names: `Outbound TCP port`.
    pub(super) protocols: Vec<Protocol>,
}

/// Share of a column's cells, in percent, that must agree before the cells overrule the header.
const AGREEMENT: usize = 60;
/// Headers of columns that hold one end, whichever it is.
const COMPONENT: &[&str] = &[
    "component",
    "components",
    "node",
    "nodes",
    "role",
    "roles",
    "machine",
    "machines",
    "device",
    "devices",
    "appliance",
    "product",
    "module",
    "system",
    "name",
];
/// Words beside which a name is not a component's.
const NO_COMPONENT: &[&str] = &[
    "rule", "rules", "policy", "file", "user", "owner", "contact",
];
/// Longest header cell in words.
const HEADER_WORDS: usize = 7;

/// Words of headers in order of precedence: `Destination port` is a port, `Source address` a source.
const VOCABULARY: &[(Kind, &[&str])] = &[
    (Kind::ServiceTag, &["service tag", "service tags"]),
    (
        Kind::SourcePort,
        &[
            "source port",
            "source ports",
            "src port",
            "local port",
            "client port",
            "ephemeral port",
        ],
    ),
    (
        Kind::Port,
        &[
            "port",
            "ports",
            "portnummer",
            "puerto",
            "listens on",
            "listening on",
            "communicates on",
            "connects on",
        ],
    ),
    (
        Kind::Action,
        &[
            "action",
            "allow deny",
            "permit deny",
            "allow block",
            "accept drop",
            "aktion",
        ],
    ),
    (
        Kind::Direction,
        &[
            "direction",
            "initiation",
            "inbound outbound",
            "in out",
            "richtung",
            "sens",
        ],
    ),
    (
        Kind::Protocol,
        &[
            "protocol",
            "protocols",
            "transport",
            "type",
            "tcp udp",
            "proto",
            "protokoll",
            "protocole",
            "layer 4",
        ],
    ),
    (
        Kind::Application,
        &["application protocol", "application", "app", "service name"],
    ),
    (
        Kind::Necessity,
        &[
            "required",
            "mandatory",
            "optional",
            "necessity",
            "requirement level",
        ],
    ),
    (
        Kind::Purpose,
        &[
            "purpose",
            "description",
            "usage",
            "use",
            "notes",
            "note",
            "comment",
            "comments",
            "remark",
            "remarks",
            "details",
            "reason",
            "function",
            "explanation",
            "used for",
            "needed for",
            "required for",
            "functionality",
            "justification",
            "zweck",
            "beschreibung",
            "verwendung",
            "bemerkung",
        ],
    ),
    (
        Kind::Source,
        &[
            "source",
            "sources",
            "from",
            "initiator",
            "origin",
            "originator",
            "src",
            "sender",
            "initiated by",
            "used by",
            "quelle",
            "von",
            "client",
        ],
    ),
    (
        Kind::Destination,
        &[
            "destination",
            "destinations",
            "to",
            "target",
            "targets",
            "host",
            "hosts",
            "hostname",
            "url",
            "urls",
            "fqdn",
            "fqdns",
            "address",
            "addresses",
            "domain",
            "domains",
            "dest",
            "dst",
            "receiver",
            "responder",
            "remote",
            "peer",
            "counterpart",
            "connects to",
            "talks to",
            "listener",
            "endpoint",
            "endpoints",
            "server",
            "ziel",
            "nach",
            "dns name",
            "ip",
        ],
    ),
    (
        Kind::Ends,
        &[
            "flow",
            "flows",
            "data flow",
            "traffic flow",
            "communication",
        ],
    ),
    (Kind::Application, &["service", "services"]),
];

fn kind(cell: &str) -> Option<Kind> {
    let words = words(cell);
    if words.is_empty() || words.split(' ').count() > HEADER_WORDS {
        return None;
    }
    let words: Vec<&str> = words.split(' ').collect();
    let phrases =
        (1..=LONGEST_PHRASE).flat_map(|count| words.windows(count).map(|window| window.join(" ")));
    phrases
        .filter_map(|phrase| vocabulary_index().get(phrase.as_str()))
        .min_by_key(|(precedence, _)| *precedence)
        .map(|(_, kind)| *kind)
}

/// Longest phrase of the vocabulary in words.
const LONGEST_PHRASE: usize = 3;

/// Phrase to its precedence and meaning: every row of a table is asked whether it is a header.
fn vocabulary_index() -> &'static HashMap<&'static str, (usize, Kind)> {
    static INDEX: OnceLock<HashMap<&'static str, (usize, Kind)>> = OnceLock::new();
    INDEX.get_or_init(|| {
        let mut index = HashMap::new();
        for (precedence, (kind, phrases)) in VOCABULARY.iter().enumerate() {
            for phrase in *phrases {
                index.entry(*phrase).or_insert((precedence, *kind));
            }
        }
        index
    })
}

/// Whether a row names columns.
pub(super) fn is_header(cells: &[String]) -> bool {
    let filled: Vec<&str> = cells
        .iter()
        .map(|cell| cell.trim())
        .filter(|cell| !cell.is_empty())
        .collect();
    let begins_with_digit = |cell: &&str| cell.as_bytes().first().is_some_and(u8::is_ascii_digit);
    if filled.len() < 2 || filled.iter().any(begins_with_digit) {
        return false;
    }
    let mut kinds: Vec<Kind> = filled.iter().filter_map(|cell| kind(cell)).collect();
    let recognised = kinds.len();
    kinds.sort();
    kinds.dedup();
    let bare_transport = filled
        .iter()
        .filter(|cell| vocabulary::protocol(cell).is_some())
        .count();
    // `Description | UDP | TCP`: ports below either.
    let transports = [Protocol::Tcp, Protocol::Udp].map(|wanted| {
        filled
            .iter()
            .any(|cell| vocabulary::protocol(cell) == Some(wanted))
    });
    if transports == [true, true] && recognised > 0 && recognised + bare_transport == filled.len() {
        return true;
    }
    let telling = kinds.iter().any(|kind| {
        matches!(
            kind,
            Kind::Source
                | Kind::Destination
                | Kind::Ends
                | Kind::Port
                | Kind::Protocol
                | Kind::Direction
        )
    });
    // `Component | Listens on`
    let components = filled
        .iter()
        .filter(|cell| COMPONENT.contains(&&*words(cell)))
        .count();
    let recognised = recognised + components;
    telling
        && kinds.len() + components.min(1) >= 2
        && recognised * 5 >= filled.len() * 2
        && bare_transport < recognised
        && !filled
            .iter()
            .any(|cell| Ports::parse(cell).has_ranges() || endpoint::is_names(cell))
}

/// The columns that a header row names.
pub(super) fn columns(cells: &[String]) -> Vec<Column> {
    cells
        .iter()
        .map(|cell| {
            let words = words(cell);
            let bare = vocabulary::protocol(cell).is_some_and(Protocol::has_ports);
            let otherwise = if bare { Kind::Port } else { Kind::Other };
            Column {
                kind: kind(cell).unwrap_or(otherwise),
                title: super::fold::without_markup(cell),
                protocols: words
                    .split(' ')
                    .filter_map(vocabulary::protocol)
                    .filter(|protocol| protocol.has_ports())
                    .collect(),
            }
        })
        .collect()
}

/// A header that was run together with the first row: each cell begins with a word of a header. Gives the two rows.
pub(super) fn fused(cells: &[String]) -> Option<(Vec<String>, Vec<String>)> {
    let mut header = Vec::with_capacity(cells.len());
    let mut data = Vec::with_capacity(cells.len());
    let mut both = 0;
    for cell in cells {
        let cell = cell.trim();
        let (first, rest) = cell.split_once(char::is_whitespace).unwrap_or((cell, ""));
        if kind(first).is_some() {
            both += usize::from(!rest.trim().is_empty());
            header.push(first.to_owned());
            data.push(rest.trim().to_owned());
        } else if cell.is_empty() {
            header.push(String::new());
            data.push(String::new());
        } else {
            return None;
        }
    }
    (both >= 3 && is_header(&header)).then_some((header, data))
}

/// Adds a second header row below the first: `Ports` over `TCP` and `UDP`.
pub(super) fn second(columns: &mut [Column], cells: &[String]) -> bool {
    let filled: Vec<&str> = cells
        .iter()
        .map(|cell| cell.trim())
        .filter(|cell| !cell.is_empty())
        .collect();
    let names_columns = |cell: &&str| vocabulary::protocol(cell).is_some() || kind(cell).is_some();
    let repeated = |index: usize, cell: &str| {
        columns
            .get(index)
            .is_some_and(|column| column.title == super::fold::without_markup(cell))
    };
    let new: Vec<&str> = cells
        .iter()
        .enumerate()
        .filter(|(index, cell)| !cell.trim().is_empty() && !repeated(*index, cell))
        .map(|(_, cell)| cell.trim())
        .collect();
    if filled.is_empty()
        || new.is_empty()
        || !new.iter().all(names_columns)
        || cells.len() > columns.len()
    {
        return false;
    }
    // One transport alone is a value of a row whose other cells are blank.
    let ports = columns
        .iter()
        .filter(|column| column.kind == Kind::Port)
        .count();
    if ports < 2 && !new.iter().all(|cell| kind(cell).is_some()) {
        return false;
    }
    for (column, cell) in columns.iter_mut().zip(cells) {
        let cell = cell.trim();
        if let Some(protocol) = vocabulary::protocol(cell) {
            if column.kind == Kind::Port || column.kind == Kind::Other {
                column.kind = Kind::Port;
                column.protocols = vec![protocol];
            }
        } else if column.kind == Kind::Other
            && let Some(kind) = kind(cell)
        {
            column.kind = kind;
        }
    }
    true
}

/// Shares of a column's filled cells, in percent.
#[derive(Default)]
struct Profile {
    filled: usize,
    ports: usize,
    protocols: usize,
    applications: usize,
    directions: usize,
    arrows: usize,
    names: usize,
    /// Ports, transports or applications.
    services: usize,
    /// `any`: of ports or transports.
    every: usize,
}

impl Profile {
    fn of(rows: &[&Row], column: usize) -> Self {
        let mut profile = Self::default();
        for row in rows.iter().take(200) {
            let Some(cell) = row
                .cells
                .get(column)
                .map(|cell| cell.trim())
                .filter(|cell| !cell.is_empty())
            else {
                continue;
            };
            profile.filled += 1;
            if direction::ends(cell).is_some() {
                profile.arrows += 1;
                continue;
            }
            if matches!(&*words(cell), "any" | "all") || cell == "*" {
                profile.every += 1;
                continue;
            }
            let short = cell.split_whitespace().count() <= 12;
            let ports = Ports::parse(cell);
            profile.ports += usize::from(ports.is_clean() && ports.has_ranges());
            profile.services += usize::from(ports.is_clean());
            profile.protocols += usize::from(ports.is_clean() && !ports.protocols().is_empty());
            profile.applications += usize::from(ports.is_clean() && !ports.applications.is_empty());
            profile.directions +=
                usize::from(short && !ports.is_clean() && direction::parse(cell).is_some());
            profile.names += usize::from(endpoint::is_names(cell));
        }
        profile
    }

    fn is(&self, count: usize) -> bool {
        self.filled > 0 && count * 100 >= self.filled * AGREEMENT
    }
}

/// Whether a column only numbers the rows.
fn is_numbering(title: &str, rows: &[&Row], column: usize) -> bool {
    let words = words(title);
    let named = title.trim() == "#"
        || matches!(
            words.as_str(),
            "" | "no"
                | "nr"
                | "id"
                | "item"
                | "number"
                | "row"
                | "rule"
                | "rule no"
                | "seq"
                | "pos"
        );
    let numbers: Option<Vec<u32>> = rows
        .iter()
        .filter_map(|row| row.cells.get(column))
        .map(|cell| cell.trim())
        .filter(|cell| !cell.is_empty())
        .map(|cell| cell.parse().ok())
        .collect();
    named
        && numbers.is_some_and(|numbers| {
            !numbers.is_empty() && numbers.windows(2).all(|pair| pair[0] < pair[1])
        })
}

/// Corrects columns by what stands in them. Gives what is to be said of it.
pub(super) fn refine(columns: &mut Vec<Column>, rows: &[&Row]) -> Vec<String> {
    let width = rows.iter().map(|row| row.cells.len()).max().unwrap_or(0);
    let named = columns.len();
    while columns.len() < width.min(named + 8) {
        columns.push(Column {
            kind: Kind::Other,
            title: String::new(),
            protocols: Vec::new(),
        });
    }
    let mut doubts = Vec::new();
    let profiles: Vec<Profile> = (0..columns.len())
        .map(|column| Profile::of(rows, column))
        .collect();
    let has_ports = columns.iter().zip(&profiles).any(|(column, profile)| {
        column.kind == Kind::Port
            && (profile.is(profile.ports + profile.every) || profile.filled == 0)
    });
    for (place, (column, profile)) in columns.iter_mut().zip(&profiles).enumerate() {
        // `Flow` may as well tell what flows.
        if column.kind == Kind::Ends && profile.filled > 0 && profile.arrows == 0 {
            column.kind = Kind::Other;
        }
        if column.kind == Kind::Other && is_numbering(&column.title, rows, place) {
            continue;
        }
        let movable = matches!(
            column.kind,
            Kind::Other | Kind::Port | Kind::Protocol | Kind::Application
        );
        let found = if profile.filled == 0 {
            continue;
        } else if profile.is(profile.arrows) {
            Kind::Ends
        } else if column.kind == Kind::Other && profile.is(profile.directions) {
            Kind::Direction
        } else if !movable {
            continue;
        } else if profile.ports > 0
            && profile.is(profile.ports + profile.every)
            && (column.kind != Kind::Other || !has_ports)
        {
            Kind::Port
        } else if profile.is(profile.protocols) && profile.ports * 2 < profile.filled {
            Kind::Protocol
        } else if profile.is(profile.applications) && profile.ports * 2 < profile.filled {
            Kind::Application
        } else if column.kind == Kind::Application
            && !has_ports
            && profile.ports + profile.protocols > 0
            && profile.is(profile.services)
        {
            Kind::Port
        } else if column.kind == Kind::Application && !profile.is(profile.applications) {
            // `Service` is as often what it is for.
            Kind::Purpose
        } else {
            continue;
        };
        if found != column.kind {
            if found != Kind::Application
                && !matches!(
                    (column.kind, found),
                    (Kind::Application, _) | (Kind::Protocol, Kind::Port)
                )
            {
                doubts.push(format!(
                    "the column `{}` is read by its cells, as {}",
                    column.title,
                    found.name()
                ));
            }
            column.kind = found;
        }
    }
    // A table that tells which ports a component opens or needs, or with whom it talks.
    let has = |columns: &[Column], kind| columns.iter().any(|column| column.kind == kind);
    let (source, destination) = (has(columns, Kind::Source), has(columns, Kind::Destination));
    let both = has(columns, Kind::Ends) || (source && destination);
    // Two columns of components: who needs, and whom.
    let components: Vec<usize> = (0..columns.len())
        .filter(|index| {
            let words = words(&columns[*index].title);
            columns[*index].kind == Kind::Other
                && words
                    .split(' ')
                    .any(|word| COMPONENT.contains(&word) && word != "name")
        })
        .collect();
    if let [first, second] = components.as_slice()
        && !source
        && !destination
        && !both
        && has(columns, Kind::Port)
    {
        columns[*first].kind = Kind::Source;
        columns[*second].kind = Kind::Destination;
        doubts.push(format!(
            "the columns `{}` and `{}` are read as source and destination",
            columns[*first].title, columns[*second].title
        ));
        return doubts;
    }
    if !both
        && has(columns, Kind::Port)
        && let Some(index) = columns.iter().position(|column| {
            column.kind == Kind::Other
                && words(&column.title)
                    .split(' ')
                    .any(|word| COMPONENT.contains(&word))
                && !words(&column.title)
                    .split(' ')
                    .any(|word| NO_COMPONENT.contains(&word))
        })
    {
        let needs = columns.iter().any(|column| {
            column.kind == Kind::Port && direction_of(&column.title) == Some(Direction::Outbound)
        });
        columns[index].kind = if destination || (needs && !source) {
            Kind::Source
        } else {
            Kind::Destination
        };
        doubts.push(format!(
            "the column `{}` is read as {}",
            columns[index].title,
            columns[index].kind.name()
        ));
    }
    if let Some(column) = columns
        .iter()
        .find(|column| column.kind == Kind::Source && words(&column.title) == "used by")
    {
        doubts.push(format!(
            "the column `{}` is read as the source",
            column.title
        ));
    }
    // Without a destination column, a column of names is one.
    let lacks = |columns: &[Column], kind| {
        !columns
            .iter()
            .any(|column| column.kind == kind || column.kind == Kind::Ends)
    };
    if lacks(columns, Kind::Destination)
        && let Some(column) = (0..columns.len()).find(|index| {
            columns[*index].kind == Kind::Other && profiles[*index].is(profiles[*index].names)
        })
    {
        doubts.push(format!(
            "the column `{}` is read by its cells, as the destination",
            columns[column].title
        ));
        columns[column].kind = Kind::Destination;
    }
    doubts
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Source => "the source",
            Self::Destination => "the destination",
            Self::Ends => "both ends",
            Self::Port => "ports",
            Self::SourcePort => "the initiator's ports",
            Self::Protocol => "the transport",
            Self::Application => "the application",
            Self::Direction => "the direction",
            Self::Purpose => "the purpose",
            Self::Necessity => "the necessity",
            Self::Action => "the action",
            Self::ServiceTag => "the service tag",
            Self::Other => "something else",
        }
    }
}

/// Whether a header row tells columns apart better than another one: by more meanings.
pub(super) fn tells_more(cells: &[String], than: &[String]) -> bool {
    let meanings = |cells: &[String]| {
        let mut kinds: Vec<Kind> = cells.iter().filter_map(|cell| kind(cell)).collect();
        kinds.sort();
        kinds.dedup();
        kinds.len()
    };
    meanings(cells) > meanings(than)
}

/// Whether a cell is a word of a header. `or_end`: words that can as well be a component's name, `Server` or `App`, are not.
pub(super) fn names_column(cell: &str, or_end: bool) -> bool {
    match kind(cell) {
        None => false,
        Some(Kind::Source | Kind::Destination | Kind::Application) => !or_end,
        Some(_) => true,
    }
}

/// Whether a title says who begins: `Source`, `From`.
pub(super) fn is_initiator(title: &str) -> bool {
    kind(title) == Some(Kind::Source)
}

/// Whether a header word names the direction of what stands in its column.
pub(super) fn direction_of(title: &str) -> Option<Direction> {
    let words = words(title);
    let has = |wanted: &[&str]| words.split(' ').any(|word| wanted.contains(&word));
    if has(&["listens", "listening", "listen"]) {
        return Some(Direction::Inbound);
    }
    if has(&["communicates", "connects"]) {
        return Some(Direction::Outbound);
    }
    direction::parse(title).filter(|direction| *direction != Direction::Both)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(text: &str) -> Vec<String> {
        text.split('|').map(|cell| cell.trim().to_owned()).collect()
    }

    #[test]
    fn no_phrase_is_too_long_to_be_found() {
        for (_, phrases) in VOCABULARY {
            assert!(
                phrases
                    .iter()
                    .all(|phrase| phrase.split(' ').count() <= LONGEST_PHRASE),
                "{phrases:?}"
            );
        }
    }

    #[test]
    fn recognises_headers() {
        let check = |text: &str, expect| assert_eq!(is_header(&cells(text)), expect, "{text}");
        check("Source | Destination | Port | Usage", true);
        check("From | To | Protocol/Port | Notes", true);
        check("Initiator | Target host | Port(s)", true);
        check("URL | Port", true);
        check("Protocol | Туре | Port", true);
        check("Address | | Purpose | Service tag", true);
        check(
            "Course | Destination | Duetecolo | Douto | Description",
            true,
        );
        check("Quelle | Ziel | Port | Beschreibung", true);
        check("Client | Server | TCP | 443", false);
        check("Client | Server", true);
        check("a | b | c", false);
        check("Gateway | Web host | TCP", false);
        check("Name | Owner", false);
    }

    #[test]
    fn names_columns() {
        let kinds = |text: &str| {
            columns(&cells(text))
                .into_iter()
                .map(|column| column.kind)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            kinds("Source IP | Source port | Destination | Destination port | Protocol"),
            [
                Kind::Source,
                Kind::SourcePort,
                Kind::Destination,
                Kind::Port,
                Kind::Protocol
            ]
        );
        assert_eq!(
            kinds("Owner / Usage | Direction | Foo"),
            [Kind::Purpose, Kind::Direction, Kind::Other]
        );
        assert_eq!(
            columns(&cells("Outbound TCP port"))[0].protocols,
            [Protocol::Tcp]
        );
    }

    #[test]
    fn splits_fused_headers() {
        let (header, data) = fused(&cells(
            "Source A b | Destination C | Protocols TCP, UDP | Ports 1",
        ))
        .unwrap();
        assert_eq!(header, cells("Source | Destination | Protocols | Ports"));
        assert_eq!(data, cells("A b | C | TCP, UDP | 1"));
        assert!(fused(&cells("Source | Destination | Port")).is_none());
        assert!(fused(&cells("From A | To B | x")).is_none());
    }

    #[test]
    fn cells_overrule_the_header() {
        let rows: Vec<Row> = [
            "A → B | TCP (HTTPS) | 443 | Outbound connection",
            "B ← C | TCP | 80 | Inbound",
        ]
        .into_iter()
        .map(|text| Row::new(1, cells(text)))
        .collect();
        let rows: Vec<&Row> = rows.iter().collect();
        let mut found = columns(&cells("Protocol | Allow Port | Port Number | Network"));
        refine(&mut found, &rows);
        let kinds: Vec<Kind> = found.into_iter().map(|column| column.kind).collect();
        assert_eq!(
            kinds,
            [Kind::Ends, Kind::Protocol, Kind::Port, Kind::Direction]
        );
    }
}
