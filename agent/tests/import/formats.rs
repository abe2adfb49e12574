//! The same table in every format, and what tables of vendors look like.

use std::io::{Cursor, Write as _};

use crate::{draft, short};

const EXPECT: [&str; 3] = [
    "Web tier > Database tcp/1433 outbound",
    "Web tier > Database udp/1434 outbound",
    "Web tier > Mail relay tcp/25 tcp/587 both",
];

#[test]
fn every_format_gives_the_same() {
    let html = "<h1>App</h1><table><tr><th>From<th>To<th>Protocol<th>Port(s)<th>Direction<th>Notes</tr><tr><td rowspan=3>Web tier<td rowspan=2>Database<td>TCP<td>1433<td>Outbound<td>Queries<tr><td>UDP<td>1434<td>Out<td>Browser<tr><td>Mail relay<td>TCP<td>25, 587<td>Both<td>Mail</table>";
    let rows = [
        ["From", "To", "Protocol", "Port(s)", "Direction", "Notes"],
        ["Web tier", "Database", "TCP", "1433", "Outbound", "Queries"],
        ["", "", "UDP", "1434", "Out", "Browser"],
        ["", "Mail relay", "TCP", "25, 587", "Both", "Mail"],
    ];
    let joined = |separator: &str| rows.map(|row| row.join(separator)).join("\n");
    let markdown = {
        let mut lines: Vec<String> = rows
            .iter()
            .map(|row| format!("| {} |", row.join(" | ")))
            .collect();
        lines.insert(1, "|---|---|---|---|---|---|".to_owned());
        format!("# App\n\n{}\n", lines.join("\n"))
    };
    let aligned = rows
        .map(|row| row.map(|cell| format!("{cell:<12}")).concat())
        .join("\n");
    let csv = rows
        .map(|row| row.map(|cell| format!("\"{cell}\"")).join(","))
        .join("\n");
    for (name, bytes) in [
        ("a.html", html.as_bytes().to_vec()),
        ("a.md", markdown.into_bytes()),
        ("a.txt", joined("\t").into_bytes()),
        ("b.txt", aligned.into_bytes()),
        ("a.csv", csv.clone().into_bytes()),
        ("b.csv", csv.replace("\",\"", "\";\"").into_bytes()),
        ("a.xlsx", workbook(&rows)),
        ("a.ods", open_document(&rows)),
    ] {
        assert_eq!(short(&draft(name, bytes)), EXPECT, "{name}");
    }
}

/// Wordings that other tables use: the ends in one cell, a component and whom it talks to, a remark in the ports.
#[test]
fn other_wordings_are_understood() {
    let component = "<h2>Widget</h2><table><tr><th>Component<th>Remote<th>Ports</tr><tr><td rowspan=2>Manager<td>Worker<td>TCP 8080<tr><td>Store<td>TCP 9000 to 9010</table>";
    assert_eq!(
        short(&draft("c.html", component.as_bytes().to_vec())),
        [
            "Manager > Worker tcp/8080 outbound",
            "Manager > Store tcp/9000-9010 outbound"
        ]
    );
    let arrows = "# Backup\n\n| From | To | Protocol | Port(s) |\n|---|---|---|---|\n| Proxy <-> Proxy | Proxy | TCP | 10006 |\n| Server | vCenter | TCP | 443 (optional) |\n";
    let draft = draft("a.md", arrows.as_bytes().to_vec());
    assert_eq!(
        short(&draft),
        [
            "Proxy > Proxy tcp/10006 both",
            "Server > vCenter tcp/443 outbound"
        ]
    );
}

fn workbook(rows: &[[&str; 6]; 4]) -> Vec<u8> {
    let mut book = rust_xlsxwriter::Workbook::new();
    let sheet = book.add_worksheet();
    for (row, cells) in (0..).zip(rows) {
        for (column, cell) in (0..).zip(cells) {
            match cell.parse::<f64>() {
                // Spreadsheets hold ports as numbers.
                Ok(number) => sheet.write_number(row + 2, column, number).unwrap(),
                Err(_) => sheet.write_string(row + 2, column, *cell).unwrap(),
            };
        }
    }
    sheet
        .merge_range(3, 0, 5, 0, "Web tier", &rust_xlsxwriter::Format::new())
        .unwrap();
    book.save_to_buffer().unwrap()
}

fn open_document(rows: &[[&str; 6]; 4]) -> Vec<u8> {
    let cell = |cell: &str| match cell {
        "" => "<table:table-cell/>".to_owned(),
        cell => format!(
            "<table:table-cell office:value-type=\"string\"><text:p>{cell}</text:p></table:table-cell>"
        ),
    };
    let rows: String = rows
        .iter()
        .map(|row| {
            format!(
                "<table:table-row>{}</table:table-row>",
                row.iter().map(|text| cell(text)).collect::<String>()
            )
        })
        .collect();
    let content = format!(
        "<?xml version=\"1.0\"?><office:document-content xmlns:office=\"o\" xmlns:table=\"t\" xmlns:text=\"x\"><office:body><office:spreadsheet><table:table table:name=\"App\">{rows}</table:table></office:spreadsheet></office:body></office:document-content>"
    );
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, text) in [
        ("mimetype", "application/vnd.oasis.opendocument.spreadsheet"),
        (
            "META-INF/manifest.xml",
            "<manifest:manifest xmlns:manifest=\"m\"></manifest:manifest>",
        ),
        ("content.xml", content.as_str()),
    ] {
        zip.start_file(name, zip::write::SimpleFileOptions::default())
            .unwrap();
        zip.write_all(text.as_bytes()).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn check(name: &str, text: &str, expect: &[&str]) {
    assert_eq!(short(&draft(name, text)), expect, "{text}");
}

#[test]
fn reads_tables_of_many_wordings() {
    check(
        "a.md",
        "## Collector\n\n| URL | Port | Description |\n|---|---|---|\n| *.example.com | 443 | Upload |\n| a.example.org, b.example.org | TCP 80/443 | Updates |\n",
        &[
            "Collector > *.example.com tcp/443 outbound",
            "Collector > a.example.org and 1 more tcp/80 tcp/443 outbound",
        ],
    );
    check(
        "a.md",
        "| Initiator | Target | Service | Comment |\n|---|---|---|---|\n| Agent¹ | Server | HTTPS (8443) | x |\n| Agent | Server | ICMP | ping |\n",
        &[
            "Agent > Server tcp/8443 outbound",
            "Agent > Server icmp outbound",
        ],
    );
    check(
        "a.md",
        "| Source | Destination | TCP ports | UDP ports |\n|---|---|---|---|\n| A | B | 80, 443 | 53 |\n| A | C | | 5000-5010 |\n",
        &[
            "A > B tcp/80 tcp/443 udp/53 outbound",
            "A > C udp/5000-5010 outbound",
        ],
    );
    check(
        "a.txt",
        "Flow | Port | Purpose\n---|---|---\nConsole → Server | 443/tcp | manages\nServer <-> Agent | 9000 (TCP) | talks\nServer <- Probe | 161/udp | asks\n",
        &[
            "Console > Server tcp/443 outbound",
            "Server > Agent tcp/9000 both",
            "Server > Probe udp/161 inbound",
        ],
    );
    check(
        "a.csv",
        "Name;Source port;Source;Destination;Destination port;Protocol\nx;any;A;10.1.0.0/16;1024+;UDP\ny;any;Any;localhost;22;TCP\n",
        &[
            "A > 10.1.0.0/16 udp/1024-65535 outbound",
            "=any > =localhost tcp/22 outbound",
        ],
    );
    check(
        "a.csv",
        "Source,Destination,Protocol,Port\nA,B,ТСР,443\n,C,UDP,\"161, 162\"\nA,D,\"DNS\",\n",
        &[
            "A > B tcp/443 outbound",
            "A > C udp/161 udp/162 outbound",
            "A > D udp/53 tcp/53 outbound",
        ],
    );
    check(
        "a.html",
        "<h2>Gateway</h2><table><tr><th>Destination<th>Protocol<th>Ports<th>Direction<tr><td colspan=4>Cloud<tr><td>hub.example.net<td>TCP/UDP<td>443<td>→</table>",
        &["Cloud > hub.example.net tcp/443 udp/443 outbound"],
    );
}

#[test]
fn reads_what_vendors_print_in_odd_forms() {
    check(
        "a.md",
        "| Source | Destination | Port | Protocol |\n|---|---|---|---|\n| Client | Gateway | 443<br>8443 | TCP<br>UDP |\n| | Syslog | 514 | UDP/TCP |\n",
        &[
            "Client > Gateway tcp/443 udp/8443 outbound",
            "Client > Syslog udp/514 tcp/514 outbound",
        ],
    );
    check(
        "a.md",
        "### Cluster\n\n| Component | Inbound ports | Protocol |\n|---|---|---|\n| Master | 6443, 2379–2380 | TCP |\n",
        &["=unknown > Master tcp/6443 tcp/2379-2380 outbound"],
    );
    check(
        "a.md",
        "## Allowed names\n\n- `*.update.example.com` (TCP 443)\n- https://licence.example.com:8443\n\nDatabase server: TCP 1433 - queries\n",
        &[
            "=unknown > *.update.example.com tcp/443 outbound",
            "=unknown > licence.example.com tcp/8443 outbound",
            "=unknown > Database server tcp/1433 outbound",
        ],
    );
    check(
        "a.html",
        "<table><tr><td>From<td>To<td>Protocol<td>Port<td>Notes<tr><td rowspan=3>Backup server<td colspan=4>Hosts<tr><td>Hypervisor<td>TCP<td>443<br>902<td>x<tr><td>Store<td>TCP<br>UDP<td>2049, 111<td>y</table>",
        &[
            "Backup server > Hypervisor tcp/443 tcp/902 outbound",
            "Backup server > Store tcp/2049 udp/2049 tcp/111 udp/111 outbound",
        ],
    );
    check(
        "a.txt",
        "Source IP        Destination IP      Port            Protocol   Purpose\n10.0.0.5         10.0.1.0/24         22              TCP        SSH to nodes\n                                     161,162         UDP        Monitoring of the\n                                                                nodes\n",
        &[
            "10.0.0.5 > 10.0.1.0/24 tcp/22 outbound",
            "10.0.0.5 > 10.0.1.0/24 udp/161 udp/162 outbound",
        ],
    );
}

#[test]
fn says_what_it_folded_and_inherited() {
    let draft = draft(
        "a.csv",
        "Source,Destination,Protocol,Port\nA,B,ТСР,443\n,,UDP,53\n",
    );
    let doubts = draft.system.requirements[0].doubts.join("\n");
    assert!(doubts.contains("look-alike"), "{doubts}");
    let provenance = draft.system.requirements[1].provenance.as_ref().unwrap();
    assert_eq!((provenance.row, draft.notes[2].line), (2, 3));
}

#[test]
fn formula_cells_are_told() {
    let mut book = rust_xlsxwriter::Workbook::new();
    let sheet = book.add_worksheet();
    for (column, title) in (0..).zip(["Source", "Destination", "Protocol", "Port"]) {
        sheet.write_string(0, column, title).unwrap();
    }
    for (column, cell) in (0..).zip(["A", "B", "TCP"]) {
        sheet.write_string(1, column, cell).unwrap();
    }
    let formula = rust_xlsxwriter::Formula::new("=400+43").set_result("443");
    sheet.write_formula(1, 3, formula).unwrap();
    let draft = draft("a.xlsx", book.save_to_buffer().unwrap());
    assert_eq!(short(&draft)[0], "A > B tcp/443 outbound");
    let doubts: Vec<String> = draft
        .system
        .requirements
        .iter()
        .map(|requirement| requirement.doubts.join("; "))
        .collect();
    assert!(
        doubts[0].contains("stored result of the formula `=400+43`"),
        "{doubts:?}"
    );
}

#[test]
fn several_documents_make_one_draft() {
    let input = |name: &str, port: u16| flowproof::import::Input {
        name: name.to_owned(),
        bytes: format!("Source,Destination,Port\nA,B,{port}\n").into_bytes(),
    };
    let imported = flowproof::import::import(
        &[input("x.csv", 1), input("y.csv", 2)],
        &flowproof::import::Options::default(),
    )
    .unwrap();
    let flowproof::import::Imported::Draft(draft) = imported else {
        panic!("no draft");
    };
    assert_eq!(
        short(&draft),
        ["A > B tcp/1 outbound", "A > B tcp/2 outbound"]
    );
    assert_eq!(
        draft.system.requirements[1]
            .provenance
            .as_ref()
            .unwrap()
            .section,
        "y.csv: x"
    );
}
