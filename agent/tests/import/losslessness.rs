//! Whatever a document holds: no panic, a draft that `check` accepts, and no text lost.

use std::collections::BTreeMap;

use proptest::prelude::*;

use flowproof::import::Draft;
use flowproof::matrix::Matrix;

use crate::draft;

/// Blanks don't count: cells are squeezed.
fn squeezed(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The comments of the draft's file, which hold the document as printed.
fn seen(draft: &Draft) -> String {
    let yaml = draft.to_yaml();
    let comments = yaml.lines().filter_map(|line| {
        let (_, text) = line.strip_prefix("  # line ")?.split_once(": ")?;
        Some(squeezed(text))
    });
    comments.collect::<Vec<_>>().join("\n")
}

/// The first word that the notes hold less often than the document does. A word that stands in several places is lost
/// if any of them is.
fn lost(document: &str, draft: &Draft) -> Option<String> {
    fn counts(text: &str) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for word in text.split([' ', '\t', '\n', '|']) {
            // Of these marks rules are made, which say nothing.
            if !word
                .chars()
                .all(|mark| matches!(mark, '-' | '=' | '+' | ':'))
            {
                *counts.entry(word.to_owned()).or_default() += 1;
            }
        }
        counts
    }
    let noted = counts(&seen(draft));
    counts(document)
        .into_iter()
        .find(|(word, count)| noted.get(word).is_none_or(|noted| noted < count))
        .map(|(word, count)| format!("`{word}`, printed {count} times"))
}

/// A document of dashes is refused as empty.
fn says_something(text: &str) -> bool {
    text.contains(|character: char| character.is_alphanumeric())
}

fn is_valid(yaml: &str) -> Result<(), TestCaseError> {
    let reading = Matrix::read_text("draft.yaml", yaml);
    prop_assert!(
        !reading.findings.has_errors(),
        "{:?}\n{yaml}",
        reading.findings
    );
    Ok(())
}

/// Pieces of which vendors' cells are made, and some of which they are not.
fn cell() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "",
        "",
        "443",
        "TCP",
        "UDP",
        "TCP, UDP",
        "TCP TCP",
        "80, 443",
        "49152-65535",
        "any",
        "*",
        "•",
        "-",
        "Gateway",
        "Secure Gateway in",
        "Forwarding mode",
        "Web host**",
        "a.example.org",
        "*.example.org",
        "10.0.0.0/8",
        "HTTPS",
        "ТСР",
        "Outbound",
        "Both",
        "A → B",
        "A Û B",
        "Source",
        "Destination",
        "Port",
        "Protocol",
        "Purpose",
        "Optional - if used",
        "broadcast",
        "localhost",
        "\"quoted\"",
        "back\\slash",
        "# hash",
        "key: value",
        "1",
        "112",
        "VRRP",
        "dynamic",
        "70000",
        "(",
        "mode)",
        "é",
        "\u{1F980}",
        "Service",
    ]);
    prop::collection::vec(piece, 1..3).prop_map(|pieces| pieces.join(" ").trim().to_owned())
}

fn table() -> impl Strategy<Value = Vec<Vec<String>>> {
    (1_usize..7).prop_flat_map(|columns| {
        prop::collection::vec(prop::collection::vec(cell(), 1..=columns), 1..12)
    })
}

/// What a row is taken for is not always all that it says.
#[test]
fn a_header_run_together_with_a_row_stays_in_the_note() {
    for (text, expect) in [
        (
            "Optional - if used\tSource 80, 443\tOptional - if used\n",
            "Optional - if used | Source 80, 443 | Optional - if used",
        ),
        (
            "Source Agent\tDestination Gateway\tProtocol TCP\tPort 443\n",
            "Source Agent | Destination Gateway | Protocol TCP | Port 443",
        ),
    ] {
        assert_eq!(draft("a.txt", text).notes[0].text, expect);
    }
}

/// Lines of a text as they come: rows by tabs, pipes or blanks, headings, lists, sentences, rules.
fn lines() -> impl Strategy<Value = Vec<String>> {
    let cells = || prop::collection::vec(cell(), 1..6);
    let line = prop_oneof![
        4 => cells().prop_map(|cells| cells.join("\t")),
        2 => cells().prop_map(|cells| format!("| {} |", cells.join(" | "))),
        1 => cells().prop_map(|cells| cells.join(" | ")),
        2 => cells().prop_map(|cells| cells.iter().map(|cell| format!("{cell:<12}  ")).collect()),
        1 => cell().prop_map(|text| format!("- {text}")),
        1 => cell().prop_map(|text| format!("12. {text}")),
        1 => cell().prop_map(|text| format!("o {text}")),
        1 => cell().prop_map(|text| format!("## {text} ##")),
        1 => cell().prop_map(|text| format!("**{text}**")),
        2 => cell(),
        2 => prop::sample::select(vec![
            "", "", "---|---|---", "|---|---|---|", "-----", "=====", "+---+---+", "|", "||", "443 |",
            "Source\tDestination\tProtocol\tPort\tPurpose", "Source      Destination   Port", "| Source | Destination | Port |",
            "The [gateway](https://gateway.example.org/doc) needs to reach `a.example.org` and <b>port</b> 443.",
            "## [Gateway](#gateway)", "Gateway: TCP 443 - access", "443 (TCP): access", "Destination", "Port |", "Source |",
        ]).prop_map(str::to_owned),
    ];
    prop::collection::vec(line, 1..16)
}

#[test]
fn equal_cells_are_noted_one_by_one_unless_they_are_one_cell() {
    let html = |row: &str| format!("<table><tr>{row}</tr></table>");
    for (name, text, expect) in [
        ("a.txt", "443\t443\n".to_owned(), "443 | 443"),
        ("a.csv", "443,443\n".to_owned(), "443 | 443"),
        ("a.html", html("<td>443<td>443"), "443 | 443"),
        ("a.html", html("<td colspan=2>Ports"), "Ports"),
    ] {
        assert_eq!(draft(name, text).notes[0].text, expect);
    }
}

#[test]
fn lines_are_noted_with_their_marks() {
    let lines = [
        "## The [gateway](#gateway) ##",
        "12. 443",
        "• `a.example.org`",
        "**Bold**",
    ];
    let draft = draft("a.md", lines.join("\n"));
    let noted: Vec<_> = draft.notes.iter().map(|note| note.text.as_str()).collect();
    assert_eq!(noted, lines);
}

/// A workbook of these rows, with one range of cells merged if it holds one text at most.
fn workbook(rows: &[Vec<String>], merged: (u16, u16, u16, u16)) -> Vec<u8> {
    let mut book = rust_xlsxwriter::Workbook::new();
    let sheet = book.add_worksheet();
    let (top, left, height, width) = merged;
    let inside = |row: u16, column: u16| {
        (top..=top + height).contains(&row) && (left..=left + width).contains(&column)
    };
    let mut covered = Vec::new();
    for (row, cells) in (0..).zip(rows) {
        for (column, cell) in (0..).zip(cells) {
            if inside(row, column) && !cell.is_empty() {
                covered.push(cell.as_str());
            }
            match cell.parse::<f64>() {
                Ok(number) => sheet.write_number(row.into(), column, number).unwrap(),
                Err(_) => sheet.write_string(row.into(), column, cell).unwrap(),
            };
        }
    }
    if covered.len() <= 1 && height + width > 0 {
        let text = covered.first().copied().unwrap_or_default();
        let (bottom, right) = (top + height, left + width);
        let format = rust_xlsxwriter::Format::new();
        sheet
            .merge_range(top.into(), left, bottom.into(), right, text, &format)
            .unwrap();
    }
    book.save_to_buffer().unwrap()
}

mod properties {
    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn tables_of_texts_lose_nothing(rows in table(), header in any::<bool>()) {
            prop_assume!(says_something(&rows.concat().join(" ")));
            let mut text = String::from(if header { "Source\tDestination\tProtocol\tPort\tPurpose\n" } else { "" });
            for row in &rows {
                text.push_str(&row.join("\t"));
                text.push('\n');
            }
            let draft = draft("a.txt", text.clone());
            is_valid(&draft.to_yaml())?;
            let seen = seen(&draft);
            for cell in rows.iter().flatten() {
                let plain = squeezed(cell);
                // A line of its own may be a list entry, whose bullet is a mark.
                let bare = plain.trim_start_matches(['•', '-', '*', '#', ' ']);
                prop_assert!(seen.contains(bare), "{cell:?} is lost in\n{}", draft.to_yaml());
            }
            prop_assert_eq!(lost(&text, &draft), None, "{}", draft.to_yaml());
        }

        #[test]
        fn texts_lose_no_word(lines in lines(), name in prop::sample::select(vec!["a.txt", "a.md"])) {
            let text = lines.join("\n");
            prop_assume!(says_something(&text));
            let draft = draft(name, text.clone());
            is_valid(&draft.to_yaml())?;
            prop_assert_eq!(lost(&text, &draft), None, "{}", draft.to_yaml());
        }

        #[test]
        fn marks_swallow_no_word(
            text in "([ab1 \\t\\n|,;\"'*#_<>()\\[\\]\\\\:=+.-]|  |-- |\\n[|]|80|tcp|Port|Source){1,60}",
            name in prop::sample::select(vec!["a.txt", "a.md", "a.csv"]),
        ) {
            prop_assume!(says_something(&text));
            let draft = draft(name, text.clone());
            is_valid(&draft.to_yaml())?;
            // Quotes in a cell join what stands around them, so that there letters are counted, not words.
            let gap = if name == "a.csv" { " " } else { "" };
            let bare = |text: &str| -> String {
                text.chars()
                    .map(|character| if character.is_alphanumeric() { format!("{character}{gap}") } else { " ".to_owned() })
                    .collect()
            };
            let mut noted = draft.clone();
            for note in &mut noted.notes {
                note.text = bare(&note.text);
            }
            prop_assert_eq!(lost(&bare(&text), &noted), None, "{}", draft.to_yaml());
        }

        #[test]
        fn sheets_lose_nothing(rows in table()) {
            prop_assume!(says_something(&rows.concat().join(" ")));
            let mut csv = csv::WriterBuilder::new().flexible(true).from_writer(b"Source,Destination,Protocol,Port,Purpose,Other\n".to_vec());
            for row in &rows {
                csv.write_record(row).unwrap();
            }
            let draft = draft("a.csv", csv.into_inner().unwrap());
            is_valid(&draft.to_yaml())?;
            let seen = seen(&draft);
            for cell in rows.iter().flatten() {
                prop_assert!(seen.contains(&squeezed(cell)), "{cell:?} is lost in\n{}", draft.to_yaml());
            }
            prop_assert_eq!(lost(&rows.concat().join(" "), &draft), None, "{}", draft.to_yaml());
        }

        #[test]
        fn workbooks_lose_no_word(mut rows in table(), header in any::<bool>(), merged in (0_u16..6, 0_u16..6, 0_u16..4, 0_u16..6)) {
            if header {
                rows.insert(0, ["Source", "Destination", "Protocol", "Port", "Purpose"].map(str::to_owned).to_vec());
            }
            let words = rows.concat().join(" ");
            prop_assume!(says_something(&words));
            let draft = draft("a.xlsx", workbook(&rows, merged));
            is_valid(&draft.to_yaml())?;
            prop_assert_eq!(lost(&words, &draft), None, "{}", draft.to_yaml());
        }

        #[test]
        fn markup_loses_no_word(pieces in prop::collection::vec(prop_oneof![
            prop::sample::select(vec![
                "<table>", "</table>", "<tr>", "</tr>", "<td>", "<td>", "<td rowspan=3>", "<td colspan=4 rowspan=0>", "<th>", "</td>", "<p>", "</p>",
                "<h2>", "</h2>", "<ul>", "<li>", "</li>", "</ul>", "<br>", "<sup>", "</sup>", "<b>", "</b>", "<div>", "</div>", "<thead>", "</thead>",
                "<caption>", "</caption>", "<title>", "</title>", "<pre>", "</pre>",
            ]).prop_map(str::to_owned),
            cell(),
        ], 0..60)) {
            let words = pieces.iter().filter(|piece| !piece.starts_with('<')).map(String::as_str).collect::<Vec<_>>().join(" ");
            prop_assume!(says_something(&words));
            let draft = draft("a.html", pieces.join(" "));
            is_valid(&draft.to_yaml())?;
            prop_assert_eq!(lost(&words, &draft), None, "{}", draft.to_yaml());
        }

        #[test]
        fn any_text_is_read(text in "(.|\n|\t|\\|){0,200}", name in prop::sample::select(vec!["a.txt", "a.md", "a.html", "a.csv"])) {
            let input = flowproof::import::Input { name: name.to_owned(), bytes: text.into_bytes() };
            if let Ok(flowproof::import::Imported::Draft(draft)) = flowproof::import::import(&[input], &flowproof::import::Options::default()) {
                is_valid(&draft.to_yaml())?;
            }
        }

        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..300), name in prop::sample::select(vec!["a.txt", "a.html", "a.csv", "a.xlsx", "a.ods"])) {
            let input = flowproof::import::Input { name: name.to_owned(), bytes };
            let _ = flowproof::import::import(&[input], &flowproof::import::Options::default());
        }

        #[test]
        fn any_markup_is_read(pieces in prop::collection::vec(prop::sample::select(vec![
            "<table>", "</table>", "<tr>", "</tr>", "<td>", "<td rowspan=3>", "<td colspan=4 rowspan=0>", "<th>", "</td>", "<p>", "<h2>", "</h2>", "<li>", "<br>", "<sup>", "</sup>",
            "Source", "Port", "443", "TCP", "Gateway", "<script>", "</script>", "<!--", "-->", "&amp;", "<title>",
        ]), 0..60)) {
            let input = flowproof::import::Input { name: "a.html".to_owned(), bytes: pieces.concat().into_bytes() };
            if let Ok(flowproof::import::Imported::Draft(draft)) = flowproof::import::import(&[input], &flowproof::import::Options::default()) {
                is_valid(&draft.to_yaml())?;
            }
        }
    }
}
