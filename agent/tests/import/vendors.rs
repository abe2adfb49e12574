//! Tables in the manner of many vendors, none of which is that of a pack: what each says is taken, and nothing that it
//! doesn't say without a doubt.

use std::io::Write as _;

use crate::{draft, short};

fn check(name: &str, text: &str, expect: &[&str]) {
    assert_eq!(short(&draft(name, text)), expect, "{text}");
}

/// All doubts of a text's draft.
fn doubts(name: &str, text: &str) -> String {
    let draft = draft(name, text);
    let doubts = draft
        .system
        .requirements
        .iter()
        .flat_map(|requirement| &requirement.doubts);
    doubts.cloned().collect::<Vec<_>>().join("\n")
}

#[test]
fn a_footnote_mark_is_no_digit_of_a_port() {
    check(
        "a.md",
        "| Source | Destination | Port | Protocol |\n|---|---|---|---|\n| A | B | 443¹ | TCP |\n| A | C | 80<sup>2</sup> | TCP |\n| A | D | 22 [3] | TCP |\n| A | E | 81* | TCP |\n",
        &[
            "A > B tcp/443 outbound",
            "A > C tcp/80 outbound",
            "A > D tcp/22 outbound",
            "A > E tcp/81 outbound",
        ],
    );
    check(
        "a.html",
        "<table><tr><th>From<th>To<th>Port<tr><td>A<td>B<td>TCP 49152-65535<sup>1</sup></table>",
        &["A > B tcp/49152-65535 outbound"],
    );
    let text = "Source,Destination,Port\nA,B,TCP 443¹\n";
    assert!(doubts("a.csv", text).contains("footnote mark"));
}

#[test]
fn open_ranges_are_ranges() {
    let text =
        "Source,Destination,Protocol,Port\nA,B,TCP,>1024\nA,C,UDP,≥ 1024\nA,D,TCP,1024 and above\n";
    check(
        "a.csv",
        text,
        &[
            "A > B tcp/1025-65535 outbound",
            "A > C udp/1024-65535 outbound",
            "A > D tcp/1024-65535 outbound",
        ],
    );
    assert!(doubts("a.csv", text).contains("an open range"));
}

#[test]
fn any_transport_is_not_that_of_the_row_above() {
    check(
        "a.csv",
        "Source,Destination,Protocol,Port\nA,B,TCP,22\nA,C,any,53\nA,D,any,any\n",
        &[
            "A > B tcp/22 outbound",
            "A > C tcp/53 udp/53 outbound",
            "A > D tcp/1-65535 udp/1-65535 outbound",
        ],
    );
}

/// Names that differ by a capital are different ones.
#[test]
fn lettered_names_are_kept_apart() {
    check(
        "a.csv",
        "From,To,Port\nSite A,Site B,TCP 1\nSite B,Site A,TCP 2\nSite A,Site,TCP 3\n",
        &[
            "Site A > Site B tcp/1 outbound",
            "Site B > Site A tcp/2 outbound",
            "Site A > Site tcp/3 outbound",
        ],
    );
}

/// A column headed `Source` tells who begins; `inbound` is then said of the destination's firewall.
#[test]
fn the_source_column_outweighs_inbound() {
    let text = "Source,Destination,Port,Direction\nBrowser,Portal,TCP 443,Inbound\nPortal,Mail,TCP 25,Outbound\n";
    check(
        "a.csv",
        text,
        &[
            "Browser > Portal tcp/443 outbound",
            "Portal > Mail tcp/25 outbound",
        ],
    );
    assert!(doubts("a.csv", text).contains("the source is taken to initiate"));
    check(
        "a.md",
        "## Control node\n\n| Protocol | Direction | Port Range | Purpose | Used By |\n|---|---|---|---|---|\n| TCP | Inbound | 6443 | API | All |\n| TCP | Inbound | 2379-2380 | Store | Control node, API |\n",
        &[
            "=any > Control node tcp/6443 outbound",
            "Control node, API > Control node tcp/2379-2380 outbound",
        ],
    );
}

#[test]
fn crossed_tables_are_read_on_both_sides() {
    check(
        "a.csv",
        "From \\ To,Web,App,Server\nWeb,-,TCP 8080,\nApp,,\"TCP 7800, UDP 45588\",TCP 5432\nAdmin,TCP 22,n/a,\n",
        &[
            "Web > App tcp/8080 outbound",
            "App > App tcp/7800 udp/45588 outbound",
            "App > Server tcp/5432 outbound",
            "Admin > Web tcp/22 outbound",
        ],
    );
    check(
        "a.md",
        "| To / From | Web | Batch |\n|---|---|---|\n| Store | TCP 5432 | TCP 5432 |\n| Queue | TCP 5672 | |\n",
        &[
            "Web > Store tcp/5432 outbound",
            "Batch > Store tcp/5432 outbound",
            "Web > Queue tcp/5672 outbound",
        ],
    );
    // A source and its ports, not names on two sides.
    check(
        "a.md",
        "| Source/Destination | Protocol | Port |\n|---|---|---|\n| A → B | TCP | 443 |\n| A → C | UDP | 53 |\n",
        &["A > B tcp/443 outbound", "A > C udp/53 outbound"],
    );
}

#[test]
fn what_is_denied_is_not_required() {
    check(
        "a.csv",
        "#,Name,Source,Destination,Service,Action\n1,Web,any,Portal,\"HTTP, HTTPS\",Accept\n2,DB,Portal,Store,tcp_3306,Accept\n3,Cleanup,any,any,any,Drop\n",
        &[
            "=any > Portal tcp/80 tcp/443 outbound",
            "Portal > Store tcp/3306 outbound",
        ],
    );
}

#[test]
fn lines_with_arrows_are_flows() {
    check(
        "a.txt",
        "Monitoring, all flows.\n\nServer -> Agent : TCP 10050 (passive checks)\nProxy <-> Server: 10051/tcp\nServer → Devices: UDP:161\n- Web → Login: HTTPS\n- Web -> Store, TCP 5432, 6432\n",
        &[
            "Server > Agent tcp/10050 outbound",
            "Proxy > Server tcp/10051 both",
            "Server > Devices udp/161 outbound",
            "Web > Login tcp/443 outbound",
            "Web > Store tcp/5432 tcp/6432 outbound",
        ],
    );
    let draft = draft("a.txt", "Server -> Agent : TCP 10050 (passive checks)\n");
    assert_eq!(
        draft.system.requirements[0].purpose.as_deref(),
        Some("passive checks")
    );
    check(
        "a.md",
        "| Flow | Service |\n|---|---|\n| Web → App | 8080/TCP |\n| App ← Monitor | SNMP |\n| Store > Web | TCP 1 |\n| Everybody | TCP 2 |\n",
        &[
            "Web > App tcp/8080 outbound",
            "App > Monitor udp/161 inbound",
            "Store > Web tcp/1 outbound",
            "=unknown > =unknown tcp/2 outbound",
        ],
    );
}

#[test]
fn lists_in_words_are_read() {
    let text = "Network, in short.\n\n- updates.vendor.example (TCP 443): signature updates\n- UDP 123 to pool.ntp.example for time\n- TCP 22 from administrators\n";
    check(
        "a.txt",
        text,
        &[
            "=unknown > updates.vendor.example tcp/443 outbound",
            "=unknown > pool.ntp.example udp/123 outbound",
            "administrators > =unknown tcp/22 outbound",
        ],
    );
    let draft = draft("a.txt", text);
    let purposes: Vec<_> = draft
        .system
        .requirements
        .iter()
        .map(|requirement| requirement.purpose.as_deref())
        .collect();
    assert_eq!(purposes, [Some("signature updates"), Some("time"), None]);
}

/// Cells that are broken over lines, in a grid and in aligned columns, the first column too.
#[test]
fn broken_cells_are_put_together() {
    check(
        "a.txt",
        "+------------+-----------------+---------+\n| Source     | Destination     | Port    |\n+============+=================+=========+\n| Management | Node            | TCP 22, |\n| station    |                 | 443     |\n+------------+-----------------+---------+\n| Node       | ns1.example.com | UDP 53  |\n|            | ns2.example.com |         |\n+------------+-----------------+---------+\n",
        &[
            "Management station > Node tcp/22 tcp/443 outbound",
            "Node > ns1.example.com and 1 more udp/53 outbound",
        ],
    );
    // Here the rules tell groups of rows apart.
    check(
        "a.txt",
        "+------+-------+---------+\n| From | To    | Port    |\n+------+-------+---------+\n| A    | B     | TCP 1   |\n| A    | C     | TCP 2   |\n+------+-------+---------+\n| D    | E     | TCP 3   |\n| D    | F     | TCP 4   |\n+------+-------+---------+\n",
        &[
            "A > B tcp/1 outbound",
            "A > C tcp/2 outbound",
            "D > E tcp/3 outbound",
            "D > F tcp/4 outbound",
        ],
    );
    check(
        "a.txt",
        "Purpose                    Ports          Source      Destination\nWeb access of the          443/TCP        Internet    Portal\nfollowing clients: A,\nand browsers\nMail                       25/TCP         Portal      Relay\n",
        &[
            "Internet > Portal tcp/443 outbound",
            "Portal > Relay tcp/25 outbound",
        ],
    );
}

#[test]
fn a_component_and_the_ports_that_it_opens() {
    check(
        "a.txt",
        "Component      Communicates on   Listens on\nAgent          TCP 9997          N/A\nIndexer        N/A               TCP 9997\nHead           TCP 8089          TCP 8000\n",
        &[
            "Agent > =unknown tcp/9997 outbound",
            "=unknown > Indexer tcp/9997 outbound",
            "=unknown > Head tcp/8000 outbound",
            "Head > =unknown tcp/8089 outbound",
        ],
    );
    let two = "| Component | Component access | Ports |\n|---|---|---|\n| Users | Balancer | HTTPS (443) |\n| Balancer | Store | 5432/tcp |\n";
    check(
        "a.md",
        two,
        &[
            "Users > Balancer tcp/443 outbound",
            "Balancer > Store tcp/5432 outbound",
        ],
    );
    assert!(doubts("a.md", two).contains("are read as source and destination"));
}

#[test]
fn headers_of_two_rows_and_headings_of_two_ends() {
    check(
        "a.html",
        "<table><tr><th colspan=2>Endpoints<th colspan=2>Network<th>Notes<tr><th>From<th>To<th>Protocol<th>Port<th>Notes<tr><td>A<td>B&nbsp;C<td>TCP<td>445<br>135<td>x</table>",
        &["A > B C tcp/445 tcp/135 outbound"],
    );
    check(
        "a.md",
        "## Client to management point\n\n| Description | UDP | TCP |\n|---|---|---|\n| Web | -- | 80 |\n| Kerberos | 88 | 88 |\n\n## Site server --> Directory\n\n| Description | UDP | TCP |\n|---|---|---|\n| LDAP | -- | 389 |\n",
        &[
            "Client > management point tcp/80 outbound",
            "Client > management point udp/88 tcp/88 outbound",
            "Site server > Directory tcp/389 outbound",
        ],
    );
}

/// A row of Markdown is a row, whatever it lacks.
#[test]
fn a_row_of_markdown_continues_no_other() {
    check(
        "a.md",
        "| Source | Destination | Port |\n|---|---|---|\n| Devices | Manager | UDP 162 |\n| Manager | `*.cloud.example:443` | — |\n| Manager | Proxy | see notes |\n",
        &[
            "Devices > Manager udp/162 outbound",
            "Manager > *.cloud.example tcp/443 outbound",
            "Manager > Proxy  outbound",
        ],
    );
}

#[test]
fn escaped_pipes_are_pipes() {
    let draft = draft(
        "a.md",
        "| Source | Destination | Port | Notes |\n|---|---|---|---|\n| A | B | TCP 1 | read\\|write |\n",
    );
    assert_eq!(
        draft.system.requirements[0].purpose.as_deref(),
        Some("read|write")
    );
}

/// A merged title above the header is one title.
#[test]
fn a_merged_title_is_said_once() {
    let mut book = rust_xlsxwriter::Workbook::new();
    let sheet = book.add_worksheet();
    let format = rust_xlsxwriter::Format::new();
    sheet
        .merge_range(0, 0, 0, 3, "Backup ports", &format)
        .unwrap();
    for (column, title) in (0..).zip(["Source", "Destination", "Protocol", "Port"]) {
        sheet.write_string(2, column, title).unwrap();
    }
    for (column, cell) in (0..).zip(["A", "B", "TCP", "81*"]) {
        sheet.write_string(3, column, cell).unwrap();
    }
    let draft = draft("a.xlsx", book.save_to_buffer().unwrap());
    assert_eq!(short(&draft), ["A > B tcp/81 outbound"]);
    let provenance = draft.system.requirements[0].provenance.as_ref().unwrap();
    assert_eq!(provenance.section, "Backup ports");
}

/// The encodings and separators that spreadsheets export.
#[test]
fn exported_texts_are_decoded() {
    let text = "Source\tTarget\tPort\tProtocol\nScanner\tConsole\t8834\tTCP\nConsole\tDirectory\tLDAPS\t\n";
    let mut bytes = vec![0xff, 0xfe];
    for unit in text.encode_utf16() {
        bytes.write_all(&unit.to_le_bytes()).unwrap();
    }
    assert_eq!(
        short(&draft("a.txt", bytes)),
        [
            "Scanner > Console tcp/8834 outbound",
            "Console > Directory tcp/636 outbound"
        ]
    );
    let csv = "\u{feff}\"Quelle\";\"Ziel\";\"Port\";\"Protokoll\";\"Richtung\";\"Bemerkung\"\r\n\"A\";\"B\";\"30013, 30015\";\"TCP\";\"beide\";\"eins; \"\"zwei\"\"\ndrei\"\r\n";
    check("a.csv", csv, &["A > B tcp/30013 tcp/30015 both"]);
}
