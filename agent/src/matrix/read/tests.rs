use std::fs;

use proptest::prelude::*;

use super::*;
use crate::matrix::Protocol;

/// The example of the documentation, and what the other cases start from.
const EXAMPLE: &str = r#"system: parallels-ras
title: Parallels Remote Application Server
version: "19"
document: {title: Firewall requirements, file: 004.txt}
roles:
  parallels-client: {title: Parallels Client}
  halb: {title: HALB}
  microsoft-site: {title: Microsoft site, names: ["*.microsoft.com"]}
requirements:
  - id: client-to-halb-session
    from: parallels-client
    to: halb
    services: [tcp/80, tcp/443, udp/80, udp/443]
    direction: outbound
    necessity: required
    application: https
    purpose: management and user sessions
    provenance: {section: Parallels Client, row: 1}
  - id: halb-to-microsoft
    from: halb
    to: microsoft-site
    services: [tcp/443]
    necessity: conditional
    condition: licences are checked online
"#;

/// Expects the findings as `CODE LINE:COLUMN PART-OF-THE-MESSAGE`, in order.
#[track_caller]
fn check(text: &str, expect: &[&str]) -> MatrixReading {
    let reading = Matrix::read_text("test.yaml", text);
    let found = reading.findings.as_slice();
    let matches = found.len() == expect.len()
        && found.iter().zip(expect).all(|(finding, expect)| {
            let mut parts = expect.splitn(3, ' ');
            let place = format!("{}:{}", finding.line, finding.column);
            parts.next() == Some(finding.code)
                && parts.next() == Some(place.as_str())
                && finding.message.contains(parts.next().unwrap_or_default())
        });
    let listed: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert!(matches, "expected {expect:#?}\nfound {listed:#?}");
    assert_eq!(
        reading.matrix.systems.is_empty(),
        reading.findings.has_errors()
    );
    reading
}

/// The example with the first occurrence of a text replaced.
#[track_caller]
fn example(from: &str, to: &str) -> String {
    assert!(EXAMPLE.contains(from));
    EXAMPLE.replacen(from, to, 1)
}

/// One requirement between two declared roles, with these further lines.
fn row(lines: &str) -> String {
    format!(
        "system: x\ntitle: X\nroles: {{a: {{}}, b: {{}}}}\nrequirements:\n  - {{id: r, from: a, to: b, {lines}}}\n"
    )
}

#[test]
fn reads_the_example() {
    let matrix = check(EXAMPLE, &[]).matrix;
    let system = matrix.system(matrix.find_system("parallels-ras").unwrap());
    assert_eq!(system.version.as_deref(), Some("19"));
    assert_eq!(
        system.document.as_ref().unwrap().file.as_deref(),
        Some("004.txt")
    );
    assert_eq!(system.roles.len(), 3);
    assert_eq!(system.roles[2].names[0].to_string(), "*.microsoft.com");
    let [first, second] = system.requirements.as_slice() else {
        panic!("{} requirements", system.requirements.len());
    };
    assert_eq!(system.role_id(first.from), "parallels-client");
    assert_eq!(system.role_id(first.to), "halb");
    assert_eq!(first.services[3].protocol(), Protocol::Udp);
    assert_eq!(first.provenance.as_ref().unwrap().row, 1);
    assert_eq!(second.direction, Direction::Outbound);
    assert_eq!(
        second.necessity.condition(),
        Some("licences are checked online")
    );
    let ids: Vec<String> = matrix
        .services()
        .map(|(key, _, _)| matrix.service_id(key))
        .collect();
    assert_eq!(ids[0], "parallels-ras/client-to-halb-session#tcp/80");
    assert_eq!(ids[4], "parallels-ras/halb-to-microsoft#tcp/443");
}

#[test]
fn accepts_the_short_forms() {
    let text = "system: x\ntitle: X\nversion: 1.10\nroles:\n  a:\n  b: {}\nrequirements:\n- {id: r, from: a, to: b, services: [47, gre/]}\n";
    check(text, &["bad-service 8:42 has no ports"]);
    let text = "system: x\ntitle: X\nversion: 1.10\nroles:\n  a:\n  b: {}\nrequirements:\n- {id: r, from: a, to: b, services: [47]}\n";
    let matrix = check(text, &[]).matrix;
    assert_eq!(matrix.systems[0].version.as_deref(), Some("1.10"));
    assert_eq!(matrix.systems[0].roles[0].title, None);
    assert_eq!(
        matrix.systems[0].requirements[0].services[0].protocol(),
        Protocol::Other(47)
    );
    check(
        &example("title: Parallels Remote Application Server", "title: ' x '"),
        &[],
    );
    check(&format!("\u{feff}{}", EXAMPLE.replace('\n', "\r\n")), &[]);
}

#[test]
fn keys_are_closed() {
    check(
        &example("version:", "versoin:"),
        &["unknown-key 3:1 did you mean `version`?"],
    );
    check(
        &example("purpose:", "goal:"),
        &["unknown-key 17:5 known are `id`, `from`"],
    );
    check(
        &example("version:", "title:"),
        &["duplicate-key 3:1 already given in line 2"],
    );
    check(
        &example("title: HALB", "titel: HALB"),
        &["unknown-key 7:10 did you mean `title`?"],
    );
    check(
        &example("section: Parallels Client, ", ""),
        &["missing-key 18:17 needs the key `section`"],
    );
    check(
        &example("system: parallels-ras\n", ""),
        &["missing-key 1:1 needs the key `system`"],
    );
    check(
        &example("system: parallels-ras", "system:"),
        &["missing-value 1:1 `system`"],
    );
    check(
        &example("    to: halb\n", ""),
        &["missing-key 10:5 needs the key `to`"],
    );
    check(
        &row("services: [tcp/1], <<: {direction: both}"),
        &["unknown-key 5:48 `<<`"],
    );
    check(
        &row("services: [tcp/1], [x]: y"),
        &["wrong-type 5:48 a list"],
    );
}

#[test]
fn types_are_checked() {
    check("- a\n", &["wrong-type 1:1 must be a mapping"]);
    check("just text\n", &["wrong-type 1:1 must be a mapping"]);
    check(
        &example("title: HALB", "title: [HALB]"),
        &["wrong-type 7:17 must be text, not a list"],
    );
    check(
        &example("{title: HALB}", "HALB"),
        &["wrong-type 7:9 must be a mapping"],
    );
    check(
        &example("row: 1", "row: one"),
        &["wrong-type 18:50 whole number"],
    );
    check(
        &example("row: 1", "row: -1"),
        &["wrong-type 18:50 whole number"],
    );
    check(
        &example("row: 1", "row: 4294967296"),
        &["wrong-type 18:50 whole number"],
    );
    check(
        &row("services: tcp/443"),
        &["wrong-type 5:39 write `services: [tcp/443]`"],
    );
    check(
        &row("services: {tcp: 443}"),
        &["wrong-type 5:39 must be a list"],
    );
    check(
        &row("services: [[tcp/443]]"),
        &["wrong-type 5:40 must be text"],
    );
    check(
        &row("services: [tcp/1], doubts: [{}]"),
        &["wrong-type 5:57 must be text"],
    );
    check(
        "system: x\ntitle: X\nrequirements: [5]\n",
        &["wrong-type 3:16 must be a mapping"],
    );
    check(
        "system: x\ntitle: X\nroles: [a]\nrequirements: []\n",
        &[
            "wrong-type 3:8 `roles` must be a mapping",
            "no-requirements 4:15 ",
        ],
    );
    check(&row("services: [~]"), &["missing-value 5:40 "]);
    check(
        &row("services: [tcp/1], purpose: ' '"),
        &["empty-text 5:57 "],
    );
    check(
        &example("title: Parallels Remote Application Server", "title: ''"),
        &["empty-text 2:8 "],
    );
}

#[test]
fn ids_and_roles_are_checked() {
    check(
        &example("system: parallels-ras", "system: Parallels RAS"),
        &["bad-id 1:9 `parallels-ras`"],
    );
    check(
        &example("id: client-to-halb-session", "id: a/b"),
        &["bad-id 10:9 '/'"],
    );
    check(
        &example("    to: halb", "    to: hlab"),
        &["unknown-role 12:9 did you mean `halb`?"],
    );
    check(
        &example("    to: halb", "    to: brodcast"),
        &["unknown-role 12:9 did you mean `broadcast`?"],
    );
    check(
        &example("    to: halb", "    to: zebra"),
        &["unknown-role 12:9 declare it"],
    );
    check(
        &example("    from: parallels-client", "    from: ''"),
        &["empty-text 11:11 "],
    );
    check(
        &example("    from: parallels-client", "    from:"),
        &["missing-value 11:5 `from`"],
    );
    check(
        &example("  halb:", "  any:"),
        &[
            "built-in-role 7:3 without declaring it",
            "unknown-role 12:9 ",
            "unknown-role 20:11 ",
        ],
    );
    // A role with a bad id is one error, not one for every row that names it.
    check(
        &EXAMPLE
            .replace("halb", "HALB")
            .replace("-HALB-", "-halb-")
            .replace("id: HALB", "id: halb"),
        &["bad-id 7:3 `halb`"],
    );
    check(
        &example("  microsoft-site:", "  halb:"),
        &["duplicate-role 8:3 in line 7", "unknown-role 21:9 "],
    );
    check(
        &example("id: halb-to-microsoft", "id: client-to-halb-session"),
        &["duplicate-requirement 19:9 in line 10"],
    );
    check(
        &example(
            "\"*.microsoft.com\"",
            "\"https://x\", 10.0.0.1/8, 10.0.0.0/8",
        ),
        &[
            "bad-binding 8:51 without scheme",
            "host-bits-set 8:64 10.0.0.0/8",
            "duplicate-binding 8:76 ",
        ],
    );
    check(
        &example(
            "\"*.microsoft.com\"",
            "\"*.com\", \"*.Co.UK.\", \"*azure.com\", \"*.blob.core.windows.net\", \"*.corp\"",
        ),
        &[
            "wildcard-on-public-suffix 8:51 below `com`",
            "wildcard-on-public-suffix 8:60 below `co.uk`",
            "wildcard-on-public-suffix 8:72 `*azure.com`",
        ],
    );
}

#[test]
fn services_are_checked() {
    check(
        &row("services: [tcp/0, tcp/70000, tcp/9-1, tcp, tpc/1]"),
        &[
            "bad-service 5:40 port 0 is out of range",
            "bad-service 5:47 port 70000 is out of range",
            "bad-service 5:58 write `tcp/1-9`",
            "bad-service 5:67 needs a port",
            "bad-service 5:72 `tpc`",
        ],
    );
    check(
        &row("services: [tcp/80, udp/80, TCP/80]"),
        &["duplicate-service 5:56 `tcp/80`"],
    );
    check(
        &row("services: [tcp/80, tcp/1-100, tcp/200, tcp/90-95]"),
        &[
            "overlapping-services 5:40 `tcp/1-100`",
            "overlapping-services 5:68 `tcp/90-95` overlaps with `tcp/1-100`",
        ],
    );
    check(
        &row("services: [icmp, icmp/8, icmp/9]"),
        &[
            "overlapping-services 5:46 `icmp`",
            "overlapping-services 5:54 `icmp`",
        ],
    );
    check(
        &row("services: [icmp, icmp/8, icmpv6]"),
        &["overlapping-services 5:46 `icmp`"],
    );
    check(
        &row("services: [tcp/80-80]"),
        &["single-port-range 5:40 write `tcp/80`"],
    );
    check(&row("services: []"), &["no-services 5:5 unobservable"]);
    check(&row("services: "), &["missing-value 5:29 `services`"]);
}

#[test]
fn direction_and_necessity_are_checked() {
    check(
        &row("services: [tcp/1], direction: inbuond"),
        &["bad-direction 5:59 did you mean `inbound`?"],
    );
    check(
        &row("services: [tcp/1], necessity: mandatory"),
        &["bad-necessity 5:59 use `required`"],
    );
    check(
        &row("services: [tcp/1], necessity: conditional"),
        &["condition-missing 5:59 "],
    );
    check(
        &row("services: [tcp/1], necessity: conditional, condition: ''"),
        &["empty-text 5:83 "],
    );
    check(
        &row("services: [tcp/1], necessity: optional, condition: x"),
        &["unexpected-condition 5:80 "],
    );
    check(
        &row("services: [tcp/1], condition: x"),
        &["unexpected-condition 5:59 "],
    );
    check(
        &row("services: [tcp/1], direction: both, necessity: optional"),
        &[],
    );
}

#[test]
fn open_questions_are_warnings_and_notes() {
    let reading = check(
        &example(
            "    purpose:",
            "    doubts: [cell is garbled]\n    purpose:",
        ),
        &["doubt 10:5 garbled"],
    );
    assert!(!reading.findings.has_errors());
    check(
        &example("  halb:", "  spare: {}\n  halb:"),
        &["unused-role 7:3 `spare`"],
    );
    check(
        &example("    to: halb", "    to: unknown"),
        &["unknown-endpoint 10:5 `to`"],
    );
    check(
        &example("    from: parallels-client", "    from: broadcast"),
        &["unused-role 6:3 ", "broadcast-initiates 10:5 "],
    );
    check(
        "system: x\ntitle: X\nrequirements: []\n",
        &["no-requirements 3:15 "],
    );
    let twice = |second: &str| {
        format!(
            "system: x\ntitle: X\nroles: {{a: , b: }}\nrequirements:\n- {{id: one, from: a, to: b, services: [tcp/1, tcp/2, tcp/3]}}\n- {second}\n"
        )
    };
    check(
        &twice("{id: two, from: a, to: b, services: [tcp/3, tcp/2]}"),
        &["same-flow 6:3 `one` in line 5: tcp/2, tcp/3"],
    );
    check(
        &twice("{id: two, from: b, to: a, services: [tcp/1], direction: inbound}"),
        &["same-flow 6:3 tcp/1"],
    );
    check(
        &twice("{id: two, from: b, to: a, services: [tcp/1], direction: both}"),
        &["same-flow 6:3 tcp/1"],
    );
    check(&twice("{id: two, from: b, to: a, services: [tcp/1]}"), &[]);
    check(&twice("{id: two, from: a, to: b, services: [udp/1]}"), &[]);
}

#[test]
fn all_errors_come_at_once() {
    let text = "system: X\nversoin: 1\nroles: {a: {titel: A}, any: {}}\nrequirements:\n\
                - {id: r, from: a, to: c, services: [tcp/0], direction: up}\n- {id: r, from: [], services: x}\n";
    check(
        text,
        &[
            "missing-key 1:1 `title`",
            "bad-id 1:9 `x`",
            "unknown-key 2:1 `version`",
            "unknown-key 3:13 `title`",
            "built-in-role 3:24 ",
            "unknown-role 5:24 `c`",
            "bad-service 5:38 ",
            "bad-direction 5:57 `up`",
            "missing-key 6:3 `to`",
            "duplicate-requirement 6:8 line 5",
            "wrong-type 6:17 must be text",
            "wrong-type 6:31 must be a list",
        ],
    );
}

#[test]
fn files_that_are_no_matrix() {
    check("", &["empty-file 1:1 "]);
    check("system: [x\n", &["syntax 1:9 not valid YAML"]);
    check("site: hq\nsystems: [x]\n", &["site-file 1:1 --site"]);
    check(
        &format!("{EXAMPLE}---\na: 1\n"),
        &["several-documents 25:1 file of its own"],
    );
}

#[test]
fn an_alias_repeats_no_error() {
    let text = "system: x\ntitle: X\nroles: {a: , b: }\nrequirements:\n\
                - {id: r, from: a, to: b, services: &s [tcp/0]}\n- {id: t, from: b, to: a, services: *s}\n";
    check(text, &["bad-service 5:41 "]);
}

#[test]
fn reads_files_and_folders() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let second = EXAMPLE.replace("system: parallels-ras", "system: other");
    fs::write(at("b.yaml"), EXAMPLE).unwrap();
    fs::write(at("a.yml"), &second).unwrap();
    fs::write(at("matrix.schema.json"), "{}").unwrap();
    fs::write(at(".hidden.yaml"), "[").unwrap();
    fs::create_dir(at("sub.yaml")).unwrap();
    let reading = Matrix::read(&[folder.path()]).unwrap();
    let ids: Vec<&str> = reading
        .matrix
        .systems
        .iter()
        .map(|system| system.id.as_str())
        .collect();
    assert_eq!(ids, ["other", "parallels-ras"]);
    assert!(reading.findings.is_empty());

    // The same file by two names is one system; another file with the same id is an error.
    let reading = Matrix::read(&[at("b.yaml"), folder.path().to_owned()]).unwrap();
    assert_eq!(reading.matrix.systems.len(), 2);
    fs::write(at("c.yaml"), EXAMPLE).unwrap();
    let reading = Matrix::read(&[folder.path()]).unwrap();
    let [finding] = reading.findings.as_slice() else {
        panic!("{:?}", reading.findings);
    };
    assert_eq!(
        (finding.code, finding.line, finding.column),
        ("duplicate-system", 1, 9)
    );
    assert!(
        finding.file.ends_with("c.yaml") && finding.message.contains("b.yaml"),
        "{finding}"
    );
    assert_eq!(reading.matrix.systems.len(), 2);
}

#[test]
fn paths_that_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing.yaml");
    assert!(matches!(Matrix::read(&[&missing]), Err(LoadError::NotFound(path)) if path == missing));
    assert!(matches!(
        Matrix::read(&[folder.path()]),
        Err(LoadError::EmptyFolder(_))
    ));
}

#[test]
fn bytes_that_are_no_text() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.yaml");
    let check = |bytes: &[u8], code: &str, line: u32, column: u32| {
        fs::write(&file, bytes).unwrap();
        let reading = Matrix::read(&[&file]).unwrap();
        let [finding] = reading.findings.as_slice() else {
            panic!("{:?}", reading.findings);
        };
        assert_eq!(
            (finding.code, finding.line, finding.column),
            (code, line, column),
            "{finding}"
        );
    };
    check(b"system: x\ntitle: \xe9t\xe9\n", "not-utf8", 2, 8);
    check(b"\xff\xfes\0y\0", "not-utf8", 1, 1);
    let sparse = fs::File::create(&file).unwrap();
    sparse.set_len(yaml::MAX_FILE_BYTES + 1).unwrap();
    let reading = Matrix::read(&[&file]).unwrap();
    assert_eq!(reading.findings.as_slice()[0].code, "file-too-large");
}

#[test]
fn findings_of_a_hostile_file_are_bounded() {
    let mut text = String::from("system: x\ntitle: X\nrequirements:\n");
    for _ in 0..12_000 {
        text.push_str("- 1\n");
    }
    let reading = Matrix::read_text("many.yaml", &text);
    let findings = reading.findings.as_slice();
    assert_eq!(findings.len(), 10_001);
    assert!(
        findings[10_000]
            .message
            .starts_with("2000 further findings")
    );
}

#[test]
fn published_packs_are_valid() {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rules");
    let reading = Matrix::read(&[&rules]).unwrap();
    let errors: Vec<String> = reading.findings.errors().map(ToString::to_string).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    assert!(reading.matrix.find_system("baseline-linux-host").is_some());
    let baseline = Matrix::read(&[rules.join("baseline-linux-host.yaml")]).unwrap();
    assert!(
        baseline.findings.is_empty(),
        "{:#?}",
        baseline.findings.as_slice()
    );
}

mod properties {
    use super::*;

    proptest! {
        /// Whatever is wrong with a file, reading it ends with a system or with an error.
        #[test]
        fn damaged_files_never_panic(at in 0..EXAMPLE.len(), length in 0..40_usize, with in "[a-z0-9:{}\\[\\]/*&~ \n-]{0,8}") {
            let end = (at + length).min(EXAMPLE.len());
            let text = format!("{}{with}{}", &EXAMPLE[..at], &EXAMPLE[end..]);
            let reading = Matrix::read_text("damaged.yaml", &text);
            prop_assert_eq!(reading.matrix.systems.is_empty(), reading.findings.has_errors());
            for finding in reading.findings.as_slice() {
                prop_assert!(finding.line >= 1 && finding.column >= 1, "{}", finding);
            }
        }
    }
}
