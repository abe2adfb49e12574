//! Whatever a document holds: no panic, a draft that `check` accepts, and no text lost.

use proptest::prelude::*;

use flowproof::import::Draft;
use flowproof::matrix::Matrix;

use crate::draft;

/// Blanks don't count: cells are squeezed.
fn squeezed(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The draft's text as a reader sees it: comments and scalars.
fn seen(draft: &Draft) -> String {
    squeezed(
        &draft
            .notes
            .iter()
            .map(|note| note.text.as_str())
            .collect::<Vec<_>>()
            .join("\n"),
    )
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn tables_of_texts_lose_nothing(rows in table(), header in any::<bool>()) {
        prop_assume!(rows.iter().flatten().any(|cell| !cell.is_empty()));
        let mut text = String::from(if header { "Source\tDestination\tProtocol\tPort\tPurpose\n" } else { "" });
        for row in &rows {
            text.push_str(&row.join("\t"));
            text.push('\n');
        }
        let draft = draft("a.txt", text);
        is_valid(&draft.to_yaml())?;
        let seen = seen(&draft);
        for cell in rows.iter().flatten() {
            let plain = squeezed(cell);
            // A line of its own may be a list entry, whose bullet is a mark.
            let bare = plain.trim_start_matches(['•', '-', '*', '#', ' ']);
            prop_assert!(seen.contains(bare), "{cell:?} is lost in\n{}", draft.to_yaml());
        }
    }

    #[test]
    fn sheets_lose_nothing(rows in table()) {
        prop_assume!(rows.iter().flatten().any(|cell| !cell.is_empty()));
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
