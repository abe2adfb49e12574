//! Rows that were run together: their cells hold the values of several rows, one a line.

use super::*;

impl Reader<'_> {
    /// Takes apart a row that holds several.
    pub(super) fn fused(&self, parts: &Parts) -> Option<Vec<Parts>> {
        let [(ports, hint)] = parts.ports.as_slice() else {
            return None;
        };
        // Lines of a cell belong to one row.
        if parts.protocol.contains('\n') || ports.contains('\n') {
            return None;
        }
        let transports = ports::groups(&parts.protocol);
        let ports = ports::groups(ports);
        if transports.len() < 2 || ports.len() < 2 {
            return None;
        }
        let mut destinations = self.known.segments(&without_markup(&parts.destination));
        if destinations.len() < ports.len() && transports.len() == ports.len() {
            // The first values belong to the destination above.
            let above = ports.len() - destinations.len();
            if above > 1 {
                return None;
            }
            destinations.insert(0, String::new());
        }
        let count = destinations.len();
        if count < 2 {
            return None;
        }
        let same = transports
            .iter()
            .all(|transport| transport == &transports[0]);
        let pieces = destinations
            .into_iter()
            .enumerate()
            .map(|(index, destination)| {
                let transport = if same {
                    &transports[0]
                } else {
                    transports
                        .get(index)
                        .unwrap_or(&transports[transports.len() - 1])
                };
                Parts {
                    source: if index == 0 {
                        parts.source.clone()
                    } else {
                        String::new()
                    },
                    destination,
                    protocol: transport.clone(),
                    ports: vec![(ports[index.min(ports.len() - 1)].clone(), hint.clone())],
                    application: parts.application.clone(),
                    direction: parts.direction.clone(),
                    purpose: parts.purpose.clone(),
                    necessity: parts.necessity.clone(),
                    hint: parts.hint,
                    ..Parts::default()
                }
            })
            .collect();
        Some(pieces)
    }

    pub(super) fn drop_repeated(&mut self, from: usize) {
        let key = |found: &Found, ends: &[Endpoint]| {
            let title = |end: End| match end {
                End::Named(index) => endpoint::key(&ends[index].title),
                End::Unknown => "?".to_owned(),
                End::BuiltIn(role) => format!("={}", role.id()),
            };
            (
                title(found.from),
                title(found.to),
                found.services.clone(),
                found.section.clone(),
            )
        };
        let added = self.out.found.split_off(from);
        let mut seen: HashSet<_> = HashSet::new();
        for found in self
            .out
            .found
            .iter()
            .rev()
            .take(LOOK_BACK)
            .take_while(|found| found.section == self.table_section)
        {
            seen.insert(key(found, &self.out.ends));
        }
        for found in added {
            if seen.insert(key(&found, &self.out.ends)) {
                self.out.found.push(found);
            }
        }
    }
}

/// `TCP`, `UDP` on two lines and `443`, `8443` on two lines: `TCP: 443`, `UDP: 8443`.
pub(super) fn paired(protocols: &str, ports: &str) -> Option<String> {
    let lines = |text: &str| -> Vec<String> {
        text.lines()
            .map(squeeze)
            .filter(|line| !line.is_empty())
            .collect()
    };
    let (protocols, ports) = (lines(protocols), lines(ports));
    let different = protocols.iter().any(|protocol| protocol != &protocols[0]);
    if protocols.len() < 2 || protocols.len() != ports.len() || !different {
        return None;
    }
    let pairs = protocols.iter().zip(&ports);
    Some(
        pairs
            .map(|(protocol, port)| format!("{protocol}: {port}"))
            .collect::<Vec<_>>()
            .join("\n"),
    )
}
