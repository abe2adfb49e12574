//! Who talks to whom: source, destination and direction of a row, with what it inherits from the rows above and what
//! later lines complete.

use super::*;

impl Reader<'_> {
    pub(super) fn direction(
        &self,
        parts: &Parts,
        pair: Option<&direction::Ends>,
        doubts: &mut Vec<String>,
    ) -> Direction {
        let printed = direction::parse(&parts.direction);
        if !parts.direction.is_empty() && printed.is_none() {
            doubts.push(format!(
                "the direction is printed as `{}`: outbound is taken",
                squeeze(&parts.direction)
            ));
        }
        if let Some(pair) = pair {
            if printed.is_some_and(|printed| printed != pair.direction) {
                doubts.push(format!(
                    "the arrow says {}, the text {}",
                    pair.direction.as_str(),
                    printed.unwrap_or_default().as_str()
                ));
            }
            return pair.direction;
        }
        if crate::import::fold::fold(&parts.direction).look_alikes {
            doubts.push("the direction has look-alike letters".to_owned());
        }
        if printed == Some(Direction::Inbound)
            && !parts.source.is_empty()
            && (!parts.destination.is_empty() || !self.has_destinations())
        {
            // A column headed `Source` tells who begins; the direction is then the firewall's point of view.
            if self.names_initiator() {
                doubts.push("source and `inbound` are printed: the source is taken to initiate, inbound at the destination".to_owned());
                return Direction::Outbound;
            }
            if !parts.destination.is_empty() {
                doubts.push("source, destination and `inbound` are printed: taken as the destination initiating".to_owned());
            }
        }
        printed.unwrap_or_else(|| {
            if parts.hint == Some(Direction::Inbound) && !parts.source.is_empty() {
                doubts.push(
                    "the header says inbound: the printed source is taken to initiate".to_owned(),
                );
            }
            Direction::Outbound
        })
    }

    /// Whether there is a column for the other end.
    fn has_destinations(&self) -> bool {
        self.columns
            .iter()
            .any(|column| matches!(column.kind, Kind::Destination | Kind::Ends))
    }

    /// Whether the source column's title says that it holds initiators, rather than components.
    pub(super) fn names_initiator(&self) -> bool {
        self.columns
            .iter()
            .any(|column| column.kind == Kind::Source && header::is_initiator(&column.title))
    }

    pub(super) fn end(&mut self, endpoint: Endpoint) -> End {
        if let Some(role) = endpoint.built_in {
            return End::BuiltIn(role);
        }
        self.out.ends.push(endpoint);
        End::Named(self.out.ends.len() - 1)
    }

    /// The ends that a heading names, `Client to Server` or `A → B`, above a table that names none.
    pub(super) fn headed(&mut self, parts: &Parts, doubts: &mut Vec<String>) -> Option<(End, End)> {
        let has_source = self
            .columns
            .iter()
            .any(|column| column.kind == Kind::Source);
        if has_source || self.has_destinations() || self.lead.subject.is_some() {
            return None;
        }
        if direction::ends(&parts.ends).is_some() {
            return None;
        }
        let (from, to) = lead::pair(&self.table_section)?;
        doubts.push(format!(
            "no ends are printed: those of the heading `{}` are taken",
            self.table_section
        ));
        let mut end = |title: Option<String>| match title {
            None => End::Unknown,
            Some(title) => self.end(Endpoint {
                title,
                ..Endpoint::default()
            }),
        };
        Some((end(from), end(to)))
    }

    /// The end that a heading or a sentence names.
    pub(super) fn subject(&mut self, listens: bool, doubts: &mut Vec<String>) -> End {
        if listens && self.lead.subject.is_none() {
            doubts.push("the row tells where a port is open, not who uses it".to_owned());
            return End::Unknown;
        }
        let subject = match (&self.lead.subject, &self.subject) {
            (Some(subject), _) => {
                doubts.push(format!(
                    "no source is printed: `{subject}` is taken from the sentence before the table"
                ));
                subject.clone()
            }
            (None, Some(subject)) => {
                doubts.push(format!(
                    "no source is printed: the heading `{subject}` is taken"
                ));
                subject.clone()
            }
            (None, None) => {
                doubts.push("no source is printed".to_owned());
                return End::Unknown;
            }
        };
        let end = self.end(Endpoint {
            title: subject,
            ..Endpoint::default()
        });
        self.above.source = Some(end);
        end
    }

    pub(super) fn source(
        &mut self,
        text: &str,
        listens: bool,
        strict: bool,
        doubts: &mut Vec<String>,
    ) -> End {
        match endpoint::parse(text) {
            Cell::Blank => match self.above.source {
                // So common that it is no doubt.
                Some(end) => end,
                None => self.subject(listens, doubts),
            },
            Cell::Placeholder => {
                doubts.push(format!("the source cell holds only `{}`", squeeze(text)));
                End::Unknown
            }
            Cell::Endpoint(mut endpoint) => {
                doubts.append(&mut endpoint.doubts);
                if !strict
                    && let Some(end) =
                        self.continued(self.above.source, &endpoint.title, "source", doubts)
                {
                    return end;
                }
                let heading = words(&self.table_section);
                let key = words(&endpoint.title);
                if !strict
                    && heading.len() > key.len()
                    && heading.starts_with(&format!("{key} "))
                    && !self.known.is_heading(&endpoint.title)
                {
                    doubts.push(format!(
                        "the source cell `{}` is the beginning of the heading, which is taken",
                        endpoint.title
                    ));
                    endpoint.title.clone_from(&self.table_section);
                }
                // Merged cells repeat the source in every row.
                if let Some(End::Named(above)) = self.above.source
                    && self.out.ends[above].title == endpoint.title
                {
                    return End::Named(above);
                }
                let end = self.end(endpoint);
                self.above.source = Some(end);
                self.above.destination = None;
                end
            }
        }
    }

    /// The end above, if a cell is only a piece of its name.
    pub(super) fn continued(
        &mut self,
        above: Option<End>,
        title: &str,
        what: &str,
        doubts: &mut Vec<String>,
    ) -> Option<End> {
        let end = above?;
        let End::Named(index) = end else {
            return None;
        };
        let before = self.out.ends[index].title.clone();
        let stray = title.chars().count() == 1
            && title
                .chars()
                .all(|c| c.is_alphabetic() && (c.is_lowercase() || !c.is_ascii()));
        if stray || (is_part(&before, title) && words(&before) != words(title)) {
            doubts.push(format!(
                "the {what} cell holds only `{title}`: `{before}` is taken from the row above"
            ));
            return Some(end);
        }
        let together = self.known.contains(&format!("{before} {title}"));
        if together || (is_open(&before) && !self.known.contains(title)) {
            self.complete(index, title);
            doubts.push(format!("the {what} cell `{title}` continues the row above"));
            return Some(end);
        }
        None
    }

    pub(super) fn destination(
        &mut self,
        text: &str,
        from: End,
        parts: &Parts,
        strict: bool,
        doubts: &mut Vec<String>,
    ) -> (End, Vec<u16>) {
        match endpoint::parse(text) {
            Cell::Blank => {
                match self.above.destination {
                    Some(end) => (end, Vec::new()),
                    None => {
                        // Under a component's heading, what is inbound goes to the component.
                        let inbound = self.names_initiator()
                            && direction::parse(&parts.direction) == Some(Direction::Inbound);
                        let has_column = self.has_destinations() || inbound;
                        let subject = self.subject.clone().filter(|subject| {
                        has_column && from != End::Unknown && !matches!(from, End::Named(index) if endpoint::key(&self.out.ends[index].title) == endpoint::key(subject))
                    });
                        match subject {
                            Some(subject) => {
                                doubts.push(format!(
                                    "no destination is printed: the heading `{subject}` is taken"
                                ));
                                let end = self.end(Endpoint {
                                    title: subject,
                                    ..Endpoint::default()
                                });
                                (end, Vec::new())
                            }
                            None => {
                                doubts.push("no destination is printed".to_owned());
                                (End::Unknown, Vec::new())
                            }
                        }
                    }
                }
            }
            Cell::Placeholder => {
                doubts.push(format!(
                    "the destination cell holds only `{}`",
                    squeeze(text)
                ));
                (End::Unknown, Vec::new())
            }
            Cell::Endpoint(mut endpoint) => {
                doubts.append(&mut endpoint.doubts);
                if !strict
                    && let Some(end) = self.continued(
                        self.above.destination,
                        &endpoint.title,
                        "destination",
                        doubts,
                    )
                {
                    return (end, Vec::new());
                }
                if !strict
                    && let End::Named(index) = from
                    && let Some(rest) = endpoint
                        .title
                        .strip_prefix(self.out.ends[index].title.as_str())
                    && rest.starts_with(' ')
                    && self.known.contains(rest)
                {
                    doubts.push(format!("the destination cell `{}` begins with the source's name, which is taken off", endpoint.title));
                    endpoint.title = rest.trim().to_owned();
                }
                for alias in &parts.aliases {
                    match endpoint::parse(alias) {
                        Cell::Endpoint(other) if !other.names.is_empty() => {
                            for name in other.names {
                                if !endpoint.names.contains(&name) {
                                    endpoint.names.push(name);
                                }
                            }
                        }
                        Cell::Endpoint(_) | Cell::Blank | Cell::Placeholder => doubts.push(
                            format!("the row has another destination cell: {}", squeeze(alias)),
                        ),
                    }
                }
                let tag = parts.tag.trim();
                if !tag.is_empty() && crate::matrix::Binding::parse(&format!("tag:{tag}")).is_ok() {
                    endpoint.names.push(format!("tag:{tag}"));
                }
                let ports = std::mem::take(&mut endpoint.ports);
                let end = self.end(endpoint);
                self.above.destination = Some(end);
                (end, ports)
            }
        }
    }
}

/// Whether a name lacks its end: `Gateway in`, `Agent (used`, `Tenant -`.
pub(super) fn is_open(title: &str) -> bool {
    let opened = title.matches(['(', '[']).count() > title.matches([')', ']']).count();
    let last = title
        .split_whitespace()
        .last()
        .unwrap_or_default()
        .to_lowercase();
    opened
        || last.ends_with(['-', '/', '&', ',', '+'])
        || matches!(
            last.as_str(),
            "in" | "of" | "and" | "or" | "for" | "the" | "to" | "with" | "by" | "from"
        )
}

/// Whether a text is a piece of a name, in whole words, and not its beginning.
pub(super) fn is_part(title: &str, text: &str) -> bool {
    let title = format!(" {} ", words(title));
    let text = words(text);
    let count = text.split(' ').count();
    !text.is_empty() && count <= 3 && title.find(&format!(" {text} ")).is_some_and(|at| at > 0)
}
