//! The table of all metrics in `docs/metrics.md`, made from a scrape, so that it can't say anything else than the daemon.

use std::collections::BTreeMap;
use std::fmt::Write as _;

const HEAD: &str = "# Metrics

What `/metrics` serves, in its order. This page is made from the scrape that a test holds the daemon to; where the two differ the
test fails, and `FLOWPROOF_UPDATE_GOLDEN=1` makes both anew.

All series of a requirement exist from the start, at 0, and go with it on a reload. Labels are bounded by the matrix: no address,
DNS name, client's port or process is one. What they can be: `system`, `requirement` and `service` as the matrix
writes them; `from` and `to` are roles; `verdict` is `expected`, `unexpected` or `unscoped`; `direction` is `to_responder` or
`to_initiator`. Alerts and recording rules on these are in `deploy/prometheus`, and what each alert asks for in
[runbooks](runbooks/README.md). How several agents are joined, and what that costs, is in [fleet.md](fleet.md).

| metric | type | labels | meaning |
|---|---|---|---|
";

/// The page of a scrape in the text format. Every family of it needs a series.
pub(super) fn page(scrape: &str) -> String {
    let mut helps = BTreeMap::new();
    let mut kinds = Vec::new();
    let mut labels = BTreeMap::new();
    for line in scrape.lines() {
        if let Some((name, help)) = pair(line, "# HELP ") {
            helps.insert(name, help);
        } else if let Some(kind) = pair(line, "# TYPE ") {
            kinds.push(kind);
        } else if let Some((name, rest)) = line.split_once(['{', ' ']) {
            // A summary has two series, named after it.
            let known = |name: &&str| helps.contains_key(name);
            let name = Some(name).filter(known).unwrap_or_else(|| {
                let summed = name.strip_suffix("_sum");
                summed.or(name.strip_suffix("_count")).unwrap_or(name)
            });
            labels
                .entry(name)
                .or_insert_with(|| label_names(line, rest));
        }
    }
    let mut page = HEAD.to_owned();
    for (name, kind) in kinds {
        let names: Vec<_> = labels[name]
            .iter()
            .map(|label| format!("`{label}`"))
            .collect();
        let help = helps[name]
            .replace(r"\\", r"\")
            .replace('|', r"\|")
            .replace('<', "&lt;");
        writeln!(
            page,
            "| `{name}` | {kind} | {} | {help} |",
            names.join(", ")
        )
        .unwrap();
    }
    page
}

fn pair<'line>(line: &'line str, start: &str) -> Option<(&'line str, &'line str)> {
    line.strip_prefix(start)?.split_once(' ')
}

/// Names of the labels of a series, `rest` being what follows its name and the brace.
fn label_names<'line>(line: &str, rest: &'line str) -> Vec<&'line str> {
    if !line.contains('{') {
        return Vec::new();
    }
    // Values are in quotes, and quotes within them are escaped.
    let (mut names, mut quoted, mut escaped, mut begin) = (Vec::new(), false, false, 0);
    for (place, letter) in rest.char_indices() {
        match letter {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '=' if !quoted => names.push(&rest[begin..place]),
            ',' if !quoted => begin = place + 1,
            '}' if !quoted => break,
            _ => {}
        }
    }
    names
}

#[test]
fn a_page_has_what_the_scrape_says() {
    let scrape = "# HELP a_total What | is < a.\n# TYPE a_total counter\na_total{x=\"1,y=\\\"}\",z=\"\"} 2\na_total{x=\"2\",z=\"\"} 2\n\
        # HELP b With \\\\d.\n# TYPE b gauge\nb 1\n";
    let expect = "| `a_total` | counter | `x`, `z` | What \\| is &lt; a. |\n| `b` | gauge |  | With \\d. |\n";
    assert_eq!(page(scrape), format!("{HEAD}{expect}"));
}
