//! Rows to requirements. A row of a damaged table inherits from the rows above it, continues them, holds several of them,
//! or has its cells in the wrong columns; every such reading becomes a doubt of what was taken.

mod crossed;
mod ends;
mod fit;
mod fused;
mod known;
mod lead;
mod necessity;

use foldhash::{HashMap, HashMapExt, HashSet, HashSetExt};

use self::fit::agreement;
use self::fused::paired;
use self::known::Known;
use self::lead::{Lead, is_component, lead};
use self::necessity::necessity;
pub(super) use self::necessity::necessity_of;
use super::block::{Block, Document, Row, Table};
use super::direction;
use super::endpoint::{self, Cell, Endpoint};
use super::fold::{squeeze, without_markup, words};
use super::header::{self, Column, Kind};
use super::ports::{self, Ports};
use super::vocabulary::Application;
use super::{MAX_REQUIREMENTS, vocabulary};
use crate::matrix::{BuiltInRole, Direction, Necessity, Protocol, Service};

/// One end of a requirement: an index into [`Interpretation::ends`], so that a name that goes on in a later line is
/// completed for all rows that have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum End {
    /// The document does not name it.
    Unknown,
    /// A built-in role.
    BuiltIn(BuiltInRole),
    /// A named end.
    Named(usize),
}

/// A requirement that was made out.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) from: End,
    pub(super) to: End,
    pub(super) services: Vec<Service>,
    pub(super) direction: Direction,
    pub(super) necessity: Necessity,
    pub(super) application: Option<String>,
    pub(super) purpose: String,
    pub(super) section: String,
    pub(super) row: u32,
    /// Index of its row in [`Interpretation::printed`].
    pub(super) at: usize,
    pub(super) doubts: Vec<String>,
}

/// A row or line as printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Printed {
    /// Where.
    pub(super) line: u32,
    /// Cells joined by ` | `.
    pub(super) text: String,
    /// Whether a requirement was made of it.
    pub(super) taken: bool,
}

/// What a document says.
#[derive(Debug, Clone, Default)]
pub(super) struct Interpretation {
    pub(super) ends: Vec<Endpoint>,
    pub(super) found: Vec<Found>,
    /// All text, in the order of printing.
    pub(super) printed: Vec<Printed>,
    /// Tables without a recognisable header, by their first line.
    pub(super) headless: Vec<u32>,
    /// Headings, those inside tables too.
    headings: Vec<String>,
    /// Whether requirements were left out because there are too many.
    pub(super) truncated: bool,
}

/// Reads all tables of a document.
pub(super) fn interpret(document: &Document) -> Interpretation {
    // Names that are known from elsewhere in the document help to take apart what was run together, so that it is read
    // several times: for the headings, for the names, for good.
    let mut known = Known::default();
    let loose = |block: &Block| matches!(block, Block::Table(table) if !table.strict);
    if !document.blocks.iter().any(loose) {
        return Reader::new(document, &known).read();
    }
    for heading in &Reader::new(document, &known).read().headings {
        known.insert(heading, true);
    }
    let named = Reader::new(document, &known).read();
    let is_fused = |found: &&Found| found.doubts.iter().any(|doubt| doubt.starts_with(FUSED));
    let fused: HashSet<End> = named
        .found
        .iter()
        .filter(is_fused)
        .flat_map(|found| [found.from, found.to])
        .collect();
    for end in named.found.iter().flat_map(|found| [found.from, found.to]) {
        if let End::Named(index) = end
            && !fused.contains(&end)
        {
            known.insert(&named.ends[index].title, false);
        }
    }
    Reader::new(document, &known).read()
}

/// Longest sentence before a table in words.
const LONGEST_SENTENCE: usize = 200;
/// Longest name in bytes that lines are added to.
const LONGEST_NAME: usize = 300;
/// Requirements before a row that is printed again and again.
const LOOK_BACK: usize = 200;

const FUSED: &str = "several rows are run together";

/// Cells of one row, by meaning.
#[derive(Debug, Default)]
struct Parts {
    source: String,
    destination: String,
    aliases: Vec<String>,
    ends: String,
    protocol: String,
    ports: Vec<(String, Vec<Protocol>)>,
    /// Whom the title of each port cell's column lets initiate.
    port_hints: Vec<Option<Direction>>,
    application: String,
    direction: String,
    purpose: String,
    necessity: String,
    action: String,
    tag: String,
    /// Title of the column, and the cell.
    others: Vec<(String, String)>,
    hint: Option<Direction>,
    source_port: String,
}

/// What later rows inherit.
#[derive(Debug, Clone, Default)]
struct Above {
    source: Option<End>,
    destination: Option<End>,
    protocols: Vec<Protocol>,
    services: Vec<Service>,
    application: Option<String>,
    direction: Direction,
    /// Requirements of the last row.
    last: std::ops::Range<usize>,
    /// Whether the last row printed a source.
    printed_source: bool,
    /// How many cells the last row had, and where a gap was put into it.
    gap: Option<(usize, usize)>,
}

struct Reader<'a> {
    document: &'a Document,
    known: &'a Known,
    out: Interpretation,
    section: String,
    /// The heading of the open table: a line between its rows may look like a heading.
    table_section: String,
    /// The nearest heading that can be the name of a component.
    subject: Option<String>,
    /// What a sentence before the table says of it.
    lead: Lead,
    columns: Vec<Column>,
    column_doubts: Vec<String>,
    above: Above,
    row: u32,
}

impl<'a> Reader<'a> {
    fn new(document: &'a Document, known: &'a Known) -> Self {
        Self {
            document,
            known,
            out: Interpretation::default(),
            section: document.title.clone().unwrap_or_default(),
            table_section: document.title.clone().unwrap_or_default(),
            subject: None,
            lead: Lead::default(),
            columns: Vec::new(),
            column_doubts: Vec::new(),
            above: Above::default(),
            row: 0,
        }
    }

    fn read(mut self) -> Interpretation {
        let document = self.document;
        for block in &document.blocks {
            match block {
                Block::Heading(line) => {
                    self.heading(&line.text);
                    self.leave(line.number, &line.printed);
                }
                Block::Text(line) | Block::Item(line) => {
                    let lead = lead(&line.text);
                    if lead.subject.is_some() || lead.optional {
                        self.lead = lead;
                    }
                    self.leave(line.number, &line.printed);
                }
                Block::Table(table) => self.table(table),
            }
        }
        self.broadcasts();
        self.out
    }

    /// Adds the broadcasts of which the purpose of a row speaks, whose last words may have stood in later lines.
    fn broadcasts(&mut self) {
        let broadcast = End::BuiltIn(BuiltInRole::Broadcast);
        let found = std::mem::take(&mut self.out.found);
        for requirement in found {
            let udp: Vec<Service> = requirement
                .services
                .iter()
                .copied()
                .filter(|service| service.protocol() == Protocol::Udp)
                .collect();
            let speaks = words(&requirement.purpose)
                .split(' ')
                .any(|word| word == "broadcast");
            let mut further = None;
            if speaks && !udp.is_empty() && requirement.to != broadcast {
                let mut copy = requirement.clone();
                copy.to = broadcast;
                copy.services = udp;
                copy.direction = Direction::Outbound;
                copy.doubts.push(
                    "the purpose speaks of a broadcast, the row names a host: both are taken"
                        .to_owned(),
                );
                further = Some(copy);
            }
            self.out.found.push(requirement);
            self.out.found.extend(further);
        }
    }

    fn leave(&mut self, line: u32, text: &str) {
        if !text.trim().is_empty() {
            self.out.printed.push(Printed {
                line,
                text: squeeze(text),
                taken: false,
            });
        }
    }

    fn take_row(&mut self, row: &Row) {
        self.out.printed.push(Printed {
            line: row.line,
            text: printed(row),
            taken: true,
        });
    }

    fn leave_row(&mut self, row: &Row) {
        self.leave(row.line, &printed(row));
    }

    fn heading(&mut self, text: &str) {
        let text = squeeze(text);
        if text.is_empty() {
            return;
        }
        if is_component(&text) {
            self.subject = Some(text.clone());
        }
        self.out.headings.push(text.clone());
        self.section = text;
        self.lead = Lead::default();
    }

    fn table(&mut self, table: &Table) {
        if table.strict {
            self.columns.clear();
            self.above = Above::default();
        }
        let rows = &table.rows;
        let mut index = 0;
        let mut headless = true;
        while index < rows.len() {
            let row = &rows[index];
            if row.is_blank() {
                index += 1;
                continue;
            }
            if let Some(taken) = self.crossed(&rows[index..], table.strict) {
                headless = false;
                index += taken;
                continue;
            }
            if header::is_header(&row.cells) {
                self.leave_row(row);
                // A row above the header says what groups of columns have in common.
                if table.strict
                    && let Some(next) = rows.get(index + 1)
                    && header::is_header(&next.cells)
                    && header::tells_more(&next.cells, &row.cells)
                {
                    index += 1;
                    continue;
                }
                self.head(&row.cells, &rows[index + 1..]);
                headless = false;
                index += 1;
                if let Some(next) = rows.get(index)
                    && table.strict
                    && header::second(&mut self.columns, &next.cells)
                {
                    self.leave_row(next);
                    let below: Vec<&Row> = data_rows(&rows[index + 1..]);
                    self.column_doubts
                        .extend(header::refine(&mut self.columns, &below));
                    index += 1;
                }
                continue;
            }
            if let Some((head, data)) = header::fused(&row.cells) {
                self.head(&head, &rows[index + 1..]);
                headless = false;
                self.column_doubts
                    .push("the header is run together with the first row".to_owned());
                self.data(&Row::new(row.line, data), row, table);
                self.column_doubts.pop();
                index += 1;
                continue;
            }
            let heads_next = rows[index + 1..]
                .iter()
                .find(|row| !row.is_blank())
                .is_some_and(|next| header::is_header(&next.cells));
            if heads_next
                && !row
                    .filled()
                    .any(|(_, cell)| Ports::parse(cell).has_ranges())
            {
                let title = joined(row);
                self.heading(&title);
                self.leave_row(row);
            } else if self.columns.is_empty() {
                self.leave_row(row);
            } else if self.is_section(row, table.strict) {
                let title = row
                    .filled()
                    .last()
                    .map(|(_, cell)| without_markup(cell))
                    .unwrap_or_default();
                self.heading(&title);
                self.begin();
                self.leave_row(row);
            } else {
                headless = false;
                self.data(row, row, table);
            }
            index += 1;
        }
        if headless
            && let Some(first) = rows.first()
            && rows.iter().any(|row| row.filled().count() >= 2)
            && self.columns.is_empty()
        {
            self.out.headless.push(first.line);
        }
    }

    /// Takes a header for the rows below it, up to the next header.
    fn head(&mut self, cells: &[String], below: &[Row]) {
        let end = below
            .iter()
            .position(|row| header::is_header(&row.cells))
            .unwrap_or(below.len());
        let rows = data_rows(&below[..end]);
        self.columns = header::columns(cells);
        self.column_doubts = header::refine(&mut self.columns, &rows);
        self.begin();
    }

    /// Begins to count and to inherit anew.
    fn begin(&mut self) {
        self.above = Above::default();
        self.table_section.clone_from(&self.section);
        self.row = 0;
    }

    /// A row that names what the rows below it are about.
    fn is_section(&self, row: &Row, strict: bool) -> bool {
        let mut filled = row.filled();
        let Some((column, text)) = filled.next() else {
            return false;
        };
        let kind_at = |column: usize| self.columns.get(column).map(|column| column.kind);
        let others = filled.collect::<Vec<_>>();
        let single = others.is_empty();
        // A source that spans rows stands before a title that spans the other columns.
        if let [(_, title), rest @ ..] = others.as_slice()
            && strict
            && rest.len() >= 2
            && rest.iter().all(|(_, other)| other == title)
            && others.len() + 1 >= row.cells.len()
            && kind_at(column) == Some(Kind::Source)
            && endpoint::is_title(title)
        {
            return true;
        }
        let spanning = others.len() + 1 >= 3
            && others.iter().all(|(_, other)| *other == text)
            && others.len() + 1 >= row.cells.len();
        // Among rows whose cells are shifted, a name alone is a destination that shares the row above.
        let shifted = !strict
            && self
                .above
                .gap
                .is_some_and(|(cells, gap)| cells == row.cells.len() && gap < cells);
        if !(single || spanning) || shifted || !endpoint::is_title(text) {
            return false;
        }
        match kind_at(column) {
            Some(Kind::Ends) => direction::ends(text).is_none(),
            Some(Kind::Source) if strict || spanning => true,
            Some(Kind::Source) => !self.above.printed_source,
            Some(_) => spanning || (column == 0 && strict && row.cells.len() >= 3),
            None => spanning,
        }
    }

    /// Cells by meaning, with cells that were lost put back as blanks.
    fn parts(&mut self, row: &Row, doubts: &mut Vec<String>) -> Parts {
        let cells = self.align(row, doubts);
        let mut parts = Parts::default();
        let is_port = |column: &&Column| column.kind == Kind::Port;
        let several = self.columns.iter().filter(is_port).count() > 1;
        let mut destinations = 0;
        for (column, cell) in self.columns.iter().zip(&cells) {
            let cell = cell.trim();
            match column.kind {
                Kind::Source => append(&mut parts.source, cell),
                Kind::Destination => {
                    destinations += 1;
                    if destinations == 1 || parts.destination.is_empty() {
                        parts.destination = cell.to_owned();
                    } else if !cell.is_empty() && cell != parts.destination {
                        parts.aliases.push(cell.to_owned());
                    }
                }
                Kind::Ends => append(&mut parts.ends, cell),
                Kind::Port => {
                    let blank = several && endpoint::parse(cell) == Cell::Placeholder;
                    if cell.chars().any(|c| c.is_alphanumeric() || c == '*')
                        && !cell.starts_with('=')
                        && !blank
                    {
                        parts
                            .ports
                            .push((cell.to_owned(), column.protocols.clone()));
                        parts.port_hints.push(header::direction_of(&column.title));
                    }
                    if endpoint::parse(cell) != Cell::Placeholder
                        && !cell.is_empty()
                        && let Some(direction) = header::direction_of(&column.title)
                    {
                        parts.hint = Some(direction);
                    }
                }
                Kind::SourcePort => append(&mut parts.source_port, cell),
                Kind::Protocol => append(&mut parts.protocol, cell),
                Kind::Application => append(&mut parts.application, cell),
                Kind::Direction => append(&mut parts.direction, cell),
                Kind::Purpose => append(&mut parts.purpose, cell),
                Kind::Necessity => append(&mut parts.necessity, cell),
                Kind::Action => append(&mut parts.action, cell),
                Kind::ServiceTag => append(&mut parts.tag, cell),
                Kind::Other => {
                    if !cell.is_empty() {
                        parts.others.push((column.title.clone(), cell.to_owned()));
                    }
                }
            }
        }
        for cell in cells
            .iter()
            .skip(self.columns.len())
            .map(|cell| cell.trim())
            .filter(|cell| !cell.is_empty())
        {
            parts.others.push((String::new(), cell.to_owned()));
        }
        parts
    }

    /// Puts blanks where cells are missing, so that ports and transports stand in their columns.
    fn align(&mut self, row: &Row, doubts: &mut Vec<String>) -> Vec<String> {
        let width = self
            .columns
            .iter()
            .rposition(|column| column.kind != Kind::Other || !column.title.is_empty())
            .map_or(0, |last| last + 1);
        let missing = width.saturating_sub(row.cells.len());
        if missing == 0 || row.cells.is_empty() {
            self.above.gap = None;
            return row.cells.clone();
        }
        let laid_out = |gap: usize| -> Vec<String> {
            let mut cells = row.cells.clone();
            cells.splice(gap..gap, std::iter::repeat_n(String::new(), missing));
            cells
        };
        let score = |gap: usize| -> i32 {
            laid_out(gap)
                .iter()
                .zip(&self.columns)
                .map(|(cell, column)| agreement(cell, column.kind))
                .sum()
        };
        let end = row.cells.len();
        let scores: Vec<i32> = (0..=end).map(score).collect();
        let best = scores.iter().copied().max().unwrap_or(0);
        let same_as_before = self
            .above
            .gap
            .filter(|(cells, gap)| *cells == end && scores.get(*gap) == Some(&best))
            .map(|(_, gap)| gap);
        let gap = if let Some(gap) = same_as_before {
            gap
        } else if scores[end] == best {
            end
        } else if self.above.source.is_some() && scores[0] == best {
            0
        } else {
            scores
                .iter()
                .rposition(|score| *score == best)
                .unwrap_or(end)
        };
        if gap < end {
            self.above.gap = Some((end, gap));
            doubts.push(
                "cells are missing: the others are read in the columns that they fit".to_owned(),
            );
        }
        laid_out(gap)
    }

    /// Takes a row of data. `as_printed` is the whole row, of which a header that is run together with it is no data.
    fn data(&mut self, row: &Row, as_printed: &Row, table: &Table) {
        if self.out.found.len() >= MAX_REQUIREMENTS {
            self.out.truncated = true;
            self.leave_row(as_printed);
            return;
        }
        let mut doubts = Vec::new();
        let parts = self.parts(row, &mut doubts);
        let mut pair = None;
        if let Some(ends) = direction::between(&without_markup(&parts.ends)) {
            if ends.letter {
                doubts.push(format!(
                    "a letter between two names is read as an arrow: {}",
                    ends.direction.as_str()
                ));
            }
            pair = Some(ends);
        }
        if pair.is_none()
            && let Some(ends) = direction::ends(&without_markup(&parts.source))
            && (parts.destination.is_empty() || parts.destination == ends.right)
        {
            doubts.push("the source cell holds both ends, with an arrow between them".to_owned());
            pair = Some(ends);
        }
        if pair.is_none() && !parts.ends.is_empty() {
            // Not those of the row above.
            self.above.source = None;
            self.above.destination = None;
            doubts.push(format!(
                "no two ends could be made out of `{}`",
                squeeze(&parts.ends)
            ));
        }
        let says_services =
            !parts.protocol.is_empty() || !parts.ports.is_empty() || !parts.application.is_empty();
        // `example.org:443`
        let port_beside = || matches!(endpoint::parse(&parts.destination), Cell::Endpoint(end) if !end.ports.is_empty());
        let named_pair = row.whole && !parts.source.is_empty() && !parts.destination.is_empty();
        if !says_services
            && pair.is_none()
            && !port_beside()
            && !named_pair
            && !self.stands_alone(&parts, table.strict)
        {
            self.continuation(&parts, as_printed);
            return;
        }
        if is_denial(&parts.action) {
            self.leave_row(as_printed);
            return;
        }
        for remark in table
            .remarks
            .iter()
            .filter(|remark| remark.number == row.line)
        {
            doubts.push(remark.text.clone());
        }
        let before = self.out.found.len();
        let made = if !table.strict
            && let Some(pieces) = self.fused(&parts)
        {
            doubts.push(format!(
                "{FUSED}: the values of each cell are paired in their order"
            ));
            for piece in pieces {
                self.requirement(&piece, None, table.strict, doubts.clone());
            }
            // Such rows are printed over and over, growing: what is there already is not taken again.
            self.drop_repeated(before);
            true
        } else if let Some((opened, used)) = self.opened(&parts) {
            self.above.source = None;
            let opened = self.requirement(&opened, None, table.strict, doubts.clone());
            let used = used.is_some_and(|used| self.requirement(&used, None, table.strict, doubts));
            opened || used
        } else {
            self.requirement(&parts, pair, table.strict, doubts)
        };
        if made {
            self.row += 1;
            for found in &mut self.out.found[before..] {
                found.row = self.row;
            }
            self.above.last = before..self.out.found.len();
            self.take_row(as_printed);
        } else {
            self.leave_row(as_printed);
        }
        self.above.printed_source = !parts.source.is_empty();
    }

    /// The ports that a component opens, and those that it uses elsewhere, if the columns tell them apart: `Listens on`.
    fn opened(&self, parts: &Parts) -> Option<(Parts, Option<Parts>)> {
        let named = parts.ports.iter().zip(&parts.port_hints);
        let says = |cell: &str| endpoint::parse(cell) != Cell::Placeholder;
        let (opened, used): (Vec<_>, Vec<_>) = named
            .filter(|((cell, _), _)| says(cell))
            .partition(|(_, hint)| **hint == Some(Direction::Inbound));
        let component =
            !parts.source.is_empty() && parts.destination.is_empty() && parts.ends.is_empty();
        if opened.is_empty() || !component || self.names_initiator() {
            return None;
        }
        let only = |cells: Vec<(&(String, Vec<Protocol>), _)>, hint| Parts {
            ports: cells.into_iter().map(|(cell, _)| cell.clone()).collect(),
            hint: Some(hint),
            source: parts.source.clone(),
            protocol: parts.protocol.clone(),
            application: parts.application.clone(),
            purpose: parts.purpose.clone(),
            necessity: parts.necessity.clone(),
            ..Parts::default()
        };
        let used = (!used.is_empty()).then(|| only(used, Direction::Outbound));
        let mut opened = only(opened, Direction::Inbound);
        opened.destination = std::mem::take(&mut opened.source);
        Some((opened, used))
    }

    /// Whether a row without services is a row nevertheless: it shares those of the row above.
    fn stands_alone(&self, parts: &Parts, strict: bool) -> bool {
        let named = !parts.destination.is_empty() || (strict && !parts.source.is_empty());
        if strict {
            return named;
        }
        let placeholder =
            endpoint::parse(&parts.destination) == Cell::Placeholder && !parts.purpose.is_empty();
        placeholder
            || (parts.source.is_empty()
                && self.known.contains(&without_markup(&parts.destination))
                && !self.above.last.is_empty())
    }

    /// A line that only continues cells of the row above.
    fn continuation(&mut self, parts: &Parts, row: &Row) {
        let last = self.above.last.clone();
        if last.is_empty() || self.out.found.get(last.start).is_none() {
            self.leave_row(row);
            return;
        }
        let at = last.end - 1;
        let doubt = "the row goes on in the lines below".to_owned();
        // The component whose ports a row tells is the one end or the other.
        let component = !self.names_initiator();
        for index in last.clone() {
            let found = &self.out.found[index];
            if index != at || found.from == End::Unknown {
                let (from, to) = (found.from, found.to);
                if let (End::Unknown, End::Named(end), true) = (from, to, component) {
                    self.complete(end, &parts.source);
                }
            }
        }
        for (text, end) in [
            (&parts.source, self.out.found[at].from),
            (&parts.destination, self.out.found[at].to),
        ] {
            if let End::Named(index) = end {
                self.complete(index, text);
            }
        }
        let found = &mut self.out.found[at];
        append(&mut found.purpose, &without_markup(&parts.purpose));
        if found.necessity == Necessity::Required {
            found.necessity = necessity("", &parts.purpose);
        }
        if !found.doubts.contains(&doubt) {
            found.doubts.push(doubt);
        }
        self.above.printed_source = !parts.source.is_empty();
        self.take_row(row);
    }

    /// Adds the rest of a name, unless the name has it already.
    fn complete(&mut self, index: usize, rest: &str) {
        let rest = without_markup(rest);
        // What is left out here stands in the draft's comment all the same.
        if self.out.ends[index].title.len() + rest.len() > LONGEST_NAME {
            return;
        }
        let heading = &self.table_section;
        let title = &mut self.out.ends[index].title;
        let letters = |text: &str| words(text).replace(' ', "");
        let ended = format!(" {}", words(title)).ends_with(&format!(" {}", words(&rest)));
        let in_heading = title == heading && letters(title).contains(&letters(&rest));
        if rest.is_empty() || ended || in_heading {
            return;
        }
        if !rest.starts_with([')', ']', ',', '.']) {
            title.push(' ');
        }
        title.push_str(&rest);
    }

    /// Makes a requirement of a row. Gives whether it could.
    fn requirement(
        &mut self,
        parts: &Parts,
        pair: Option<direction::Ends>,
        strict: bool,
        mut doubts: Vec<String>,
    ) -> bool {
        doubts.extend(self.column_doubts.iter().cloned());
        let mut direction = self.direction(parts, pair.as_ref(), &mut doubts);
        let (source_text, destination_text) = match &pair {
            Some(pair) => (pair.left.clone(), pair.right.clone()),
            None => (parts.source.clone(), parts.destination.clone()),
        };
        let listens = parts.hint == Some(Direction::Inbound) && !parts.destination.is_empty();
        let (from, to, beside) = match self.headed(parts, &mut doubts) {
            Some((from, to)) => (from, to, Vec::new()),
            None => {
                let from = self.source(&source_text, listens, strict, &mut doubts);
                let (to, beside) =
                    self.destination(&destination_text, from, parts, strict, &mut doubts);
                (from, to, beside)
            }
        };
        let mut cells: Vec<(Ports, &[Protocol])> = parts
            .ports
            .iter()
            .map(|(text, hint)| (Ports::parse(text), hint.as_slice()))
            .collect();
        for port in beside {
            if cells.is_empty() {
                cells.push((Ports::parse(&port.to_string()), &[]));
            }
        }
        let mut protocol_text = parts.protocol.as_str();
        if let [(ports, hint)] = parts.ports.as_slice()
            && let Some(paired) = paired(&parts.protocol, ports)
        {
            doubts
                .push("protocol and port cells have as many lines: paired line by line".to_owned());
            cells = vec![(Ports::parse(&paired), hint.as_slice())];
            protocol_text = "";
        }
        // Every transport is meant, not every port.
        let every = matches!(
            words(protocol_text).as_str(),
            "any" | "all" | "ip" | "both" | "alle" | "tous"
        ) || protocol_text.trim() == "*";
        let protocol = if every {
            doubts.push(format!(
                "`{}`: TCP and UDP are taken",
                squeeze(protocol_text)
            ));
            Ports::parse("TCP, UDP")
        } else {
            Ports::parse(protocol_text)
        };
        let application = Ports::parse(&parts.application);
        let mut transports = protocol.protocols();
        let mut applications: Vec<Application> = protocol.applications.clone();
        applications.extend(application.applications.iter());
        for (ports, _) in &cells {
            applications.extend(ports.applications.iter());
        }
        let has_protocol_column = self
            .columns
            .iter()
            .any(|column| column.kind == Kind::Protocol);
        let printed_transport =
            !transports.is_empty() || cells.iter().any(|(ports, _)| !ports.protocols().is_empty());
        if !printed_transport
            && has_protocol_column
            && applications.is_empty()
            && !self.above.protocols.is_empty()
            && cells.iter().any(|(ports, _)| ports.has_ranges())
        {
            transports.clone_from(&self.above.protocols);
            doubts.push("the protocol cell is empty: inherited from the row above".to_owned());
        }
        doubts.extend(protocol.doubts.iter().cloned());
        let mut services: Vec<Service> = Vec::new();
        // Ports printed in the protocol column count too: `TCP 443` under `Protocol`.
        let in_protocol =
            (protocol.has_ranges() && cells.is_empty()).then(|| (protocol.clone(), [].as_slice()));
        for (ports, hint) in cells.iter().chain(in_protocol.as_ref()) {
            doubts.extend(ports.doubts.iter().cloned());
            if !ports.is_empty() || cells.len() == 1 {
                let made = ports::services(ports, &transports, &applications, hint);
                services.extend(made.services);
                doubts.extend(made.doubts);
            }
            for word in &ports.words {
                direction = direction::parse(word).unwrap_or(direction);
            }
            let says_none = parts
                .ports
                .iter()
                .all(|(cell, _)| endpoint::parse(cell) == Cell::Placeholder);
            if says_none {
                continue;
            }
            if ports.words.len() > 1
                || ports
                    .words
                    .iter()
                    .any(|word| direction::parse(word).is_none())
            {
                doubts.push(format!("words in the port cell: {}", ports.words.join(" ")));
            }
        }
        if services.is_empty() && cells.is_empty() {
            let mut names = applications.clone();
            if names.is_empty() && parts.purpose.split_whitespace().count() <= 3 {
                names.extend(Ports::parse(&parts.purpose).applications);
            }
            let made = ports::services(&Ports::default(), &transports, &names, &[]);
            services = made.services;
            doubts.extend(made.doubts);
            applications.extend(names);
        }
        let named = !destination_text.trim().is_empty();
        if services.is_empty()
            && parts.protocol.is_empty()
            && cells.is_empty()
            && named
            && endpoint::parse(&destination_text) != Cell::Placeholder
            && !self.above.services.is_empty()
        {
            services.clone_from(&self.above.services);
            doubts
                .push("protocol and port cells are empty: inherited from the row above".to_owned());
        }
        let mut unique: Vec<Service> = Vec::with_capacity(services.len());
        for service in services {
            if !unique.iter().any(|known| known.overlaps(service)) {
                unique.push(service);
            } else if !unique.contains(&service) {
                doubts.push(format!(
                    "{service} overlaps with another service of the row: left out"
                ));
            }
        }
        let services = unique;
        if services.is_empty() {
            let says_nothing = cells.iter().all(|(ports, _)| ports.is_empty())
                && protocol.is_empty()
                && applications.is_empty();
            let named_ends = from != End::Unknown && to != End::Unknown;
            let placeholder = endpoint::parse(&destination_text) == Cell::Placeholder;
            if says_nothing && !named_ends && !placeholder {
                return false;
            }
            doubts.push("no port could be made out".to_owned());
        }
        if !parts.source_port.is_empty() {
            doubts.push(format!(
                "the initiator's port is printed as {}: a matrix does not hold it",
                parts.source_port
            ));
        }
        let purpose = without_markup(&parts.purpose);
        let mut need = necessity(&parts.necessity, &purpose);
        let said = |text: &String| text.to_lowercase().contains("(optional");
        let in_a_cell = parts
            .ports
            .iter()
            .map(|(cell, _)| cell)
            .chain([&parts.source, &parts.destination])
            .any(said);
        if need == Necessity::Required && (self.lead.optional || in_a_cell) {
            need = Necessity::Optional;
        }
        let application = applications
            .first()
            .map(|application| application.name.to_owned())
            .or_else(|| {
                let text = without_markup(&parts.application);
                (!text.is_empty() && application.is_empty()).then_some(text)
            });
        if !transports.is_empty() {
            self.above.protocols = transports;
        } else if let Some((ports, _)) = cells.first()
            && !ports.protocols().is_empty()
        {
            self.above.protocols = ports.protocols();
        }
        if !services.is_empty() {
            self.above.services.clone_from(&services);
        }
        self.above.application.clone_from(&application);
        self.above.direction = direction;
        dedup(&mut doubts);
        let found = Found {
            from,
            to,
            services,
            direction,
            necessity: need,
            application,
            purpose,
            section: self.table_section.clone(),
            row: 0,
            at: self.out.printed.len(),
            doubts,
        };
        self.add_further(&found, parts);
        true
    }

    /// Adds the requirement, and those that its row states besides.
    fn add_further(&mut self, found: &Found, parts: &Parts) {
        self.out.found.push(found.clone());
        for (title, cell) in &parts.others {
            if endpoint::is_names(cell)
                && let Cell::Endpoint(end) = endpoint::parse(cell)
            {
                let mut further = found.clone();
                further.to = self.end(end);
                let condition = if title.is_empty() {
                    "the other address applies".to_owned()
                } else {
                    format!("where `{title}` applies")
                };
                further.necessity = Necessity::Conditional { condition };
                further.doubts.push(format!("another address is printed in the column `{title}`: taken as a requirement of its own"));
                self.out.found.push(further);
            }
        }
    }
}

/// Whether a row says what must not pass: it requires nothing.
fn is_denial(action: &str) -> bool {
    matches!(
        words(action).as_str(),
        "deny" | "denied" | "block" | "blocked" | "drop" | "reject" | "disallow" | "forbidden"
    )
}

fn data_rows(rows: &[Row]) -> Vec<&Row> {
    rows.iter()
        .filter(|row| !row.is_blank() && row.filled().count() > 1)
        .collect()
}

/// A row as printed.
pub(super) fn printed(row: &Row) -> String {
    let cells: Vec<String> = row.cells.iter().map(|cell| squeeze(cell)).collect();
    if row.merged
        && let [first, rest @ ..] = cells.as_slice()
        && rest.iter().all(|cell| cell == first)
    {
        return first.clone();
    }
    let used = cells
        .iter()
        .rposition(|cell| !cell.is_empty())
        .map_or(0, |last| last + 1);
    cells[..used].join(" | ")
}

/// A heading whose text was cut into cells: a piece that begins with a small letter continues a word.
fn joined(row: &Row) -> String {
    let mut text = String::new();
    // A merged cell stands in every column that it covers.
    let mut pieces: Vec<&str> = row.filled().map(|(_, cell)| cell).collect();
    pieces.dedup();
    for cell in pieces {
        let continues = cell.chars().next().is_some_and(char::is_lowercase)
            && text.chars().last().is_some_and(char::is_alphabetic);
        if !text.is_empty() && !continues {
            text.push(' ');
        }
        text.push_str(cell);
    }
    without_markup(&text)
}

fn append(text: &mut String, more: &str) {
    if !more.is_empty() {
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(more);
    }
}

/// Removes repeated texts, keeping the order.
pub(super) fn dedup(texts: &mut Vec<String>) {
    let mut seen: HashMap<String, ()> = HashMap::with_capacity(texts.len());
    texts.retain(|text| seen.insert(text.clone(), ()).is_none());
}

/// Ports that a name is registered for, for `lists`.
pub(super) fn registered_names(service: Service) -> Vec<&'static str> {
    service
        .first()
        .map(|port| {
            vocabulary::registered(port)
                .map(|application| application.name)
                .collect()
        })
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_subject_of_a_sentence() {
        let check = |text: &str, expect: Option<&str>, optional| {
            let lead = lead(text);
            assert_eq!(
                (lead.subject.as_deref(), lead.optional),
                (expect, optional),
                "{text}"
            );
        };
        check(
            "The build agents you rent for nightly work need to reach these names:",
            Some("build agents"),
            false,
        );
        check(
            "Names, optional, that your proxies should be able to contact:",
            Some("proxies"),
            true,
        );
        check("Nothing of interest.", None, false);
    }

    #[test]
    fn takes_cells_apart() {
        let mut known = Known::default();
        for title in ["Red Gateway", "Blue Session Host", "Green Agent"] {
            known.insert(title, false);
        }
        assert_eq!(
            known.segments("Red Gateway Blue Session Host"),
            ["Red Gateway", "Blue Session Host"]
        );
        assert_eq!(
            known.segments("Red Gateway 2FA Server(s)"),
            ["Red Gateway", "2FA Server(s)"]
        );
        assert_eq!(known.segments("Something else"), ["Something else"]);
        assert_eq!(known.segments(""), [""]);
    }

    #[test]
    fn finds_necessity() {
        let check = |column: &str, purpose: &str, expect: &str, condition: Option<&str>| {
            let found = necessity(column, purpose);
            assert_eq!(
                (found.as_str(), found.condition()),
                (expect, condition),
                "{column} {purpose}"
            );
        };
        check("", "Video", "required", None);
        check("", "Optional - video", "optional", None);
        check("", "Video (optional)", "optional", None);
        check("", "Video. UDP is optional", "required", None);
        check(
            "",
            "Video. Not required if audio is used.",
            "conditional",
            Some("not required if audio is used"),
        );
        check(
            "",
            "Database (if using dynamic ports)",
            "conditional",
            Some("if using dynamic ports"),
        );
        check("No", "", "optional", None);
        check("Yes", "optional things", "required", None);
        check("Only at night", "", "conditional", Some("Only at night"));
    }

    #[test]
    fn knows_components() {
        assert!(is_component("Secure Gateway"));
        assert!(!is_component("Firewall requirements"));
        assert!(!is_component("Inbound traffic (internal)"));
        assert!(!is_component("2.1"));
    }
}
