use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::finding::Findings;

fn read(stem: &str, text: &str) -> (Option<TagFile>, Findings) {
    let source = Arc::new(Source::new("tags", text));
    let mut reporter = Reporter::new(Arc::clone(&source));
    let file = parse(&source, stem, &mut reporter);
    (file, reporter.finish())
}

fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/tags")
        .join(name);
    std::fs::read_to_string(path).unwrap()
}

/// Expects the tags as `NAME: PREFIXES NAMES`, and the findings as `SEVERITY CODE LINE:COLUMN PART-OF-THE-MESSAGE`.
#[track_caller]
fn check(stem: &str, text: &str, tags: &[&str], expect: &[&str]) -> Option<u64> {
    let (file, findings) = read(stem, text);
    let found: Vec<String> = file
        .iter()
        .flat_map(|file| file.tags.values())
        .map(|tag| {
            let bindings: Vec<String> = tag.bindings().map(|one| one.to_string()).collect();
            format!("{}: {}", tag.name, bindings.join(" "))
        })
        .collect();
    let listed: Vec<String> = findings
        .as_slice()
        .iter()
        .map(|finding| {
            format!(
                "{} {} {}:{} {}",
                finding.severity, finding.code, finding.line, finding.column, finding.message
            )
        })
        .collect();
    assert_eq!(found, tags, "{listed:#?}");
    assert_eq!(file.is_none(), findings.has_errors());
    let matches = listed.len() == expect.len()
        && listed.iter().zip(expect).all(|(got, expect)| {
            let mut parts = expect.splitn(4, ' ');
            let head: Vec<&str> = parts.by_ref().take(3).collect();
            got.starts_with(&head.join(" ")) && got.contains(parts.next().unwrap_or_default())
        });
    assert!(matches, "expected {expect:#?}\nfound {listed:#?}");
    file.and_then(|file| file.edition)
}

#[test]
fn reads_the_formats() {
    let edition = check(
        "x",
        &fixture("ServiceTags_Public_20261116.json"),
        &[
            "ExampleDesktop: 192.0.2.0/25 203.0.113.8 2001:db8:a::/48",
            "ExampleDesktop.WestEurope: 192.0.2.0/26",
        ],
        &[],
    );
    assert_eq!(edition, Some(412));
    let edition = check(
        "x",
        &fixture("ip-ranges.json"),
        &[
            "AWS.AMAZON: 198.51.100.0/24",
            "AWS.AMAZON.eu-west-1: 198.51.100.0/25",
            "AWS.AMAZON.GLOBAL: 198.51.100.128/25",
            "AWS.EC2: 198.51.100.0/25 2001:db8:b::/48",
            "AWS.EC2.eu-west-1: 198.51.100.0/25 2001:db8:b::/48",
        ],
        &[],
    );
    assert_eq!(edition, Some(1_795_000_000));
    let exchange = "203.0.113.64/27 2001:db8:c::/48 *.mail.example.net outlook.example.com";
    let edition = check(
        "x",
        &fixture("endpoints.json"),
        &[
            "M365: 203.0.113.64/27 2001:db8:c::/48 *.mail.example.net login.example.com outlook.example.com",
            &format!("M365.1: {exchange}"),
            "M365.56: login.example.com",
            "M365.Common: login.example.com",
            "M365.Common.Default: login.example.com",
            &format!("M365.Exchange: {exchange}"),
            &format!("M365.Exchange.Optimize: {exchange}"),
        ],
        &[],
    );
    assert_eq!(edition, None);
    check(
        "partner",
        &fixture("partner.txt"),
        &["partner: 198.51.100.7 203.0.113.0/29 2001:db8:d::/64"],
        &[],
    );
    // A byte order mark, blanks before the beginning, and the ends of lines of another system.
    check(
        "l",
        "\u{feff}\r\n 10.0.0.0/9 \r\n10.128.0.0/9\r\n",
        &["l: 10.0.0.0/8"],
        &[],
    );
}

#[test]
fn a_few_bad_entries_are_left_out() {
    check(
        "l",
        "10.0.0.0/33\n10.0.0.0/8\n192.0.2.1\n  www.example.org # no\n0.0.0.0/0\n192.0.2.9\n",
        &["l: 10.0.0.0/8 192.0.2.1 192.0.2.9"],
        &[
            "warning bad-tag-entry 1:1 at most 32",
            "warning bad-tag-entry 4:3 `www.example.org` is no address or prefix",
            "warning bad-tag-entry 5:1 covers every address",
        ],
    );
    let azure = r#"{"values": [
        {"name": "A", "properties": {"addressPrefixes": ["10.0.0.0/8", "10.0.0"]}},
        {"name": "b c", "properties": {"addressPrefixes": ["192.0.2.0/24"]}}, {"name": "B", "properties": {"addressPrefixes": ["192.0.2.0/24"]}},
        {"name": "Empty", "properties": {"addressPrefixes": []}}]}"#;
    check(
        "x",
        azure,
        &["A: 10.0.0.0/8", "B: 192.0.2.0/24", "Empty: "],
        &[
            "warning bad-tag-entry 2:73 in the tag `A`",
            "warning bad-tag-entry 3:19 `b c`",
        ],
    );
    check(
        "x",
        r#"[{"id": 3, "serviceArea": "Skype", "urls": ["a.example.org", "https://b.example.org/x"]}]"#,
        &[
            "M365: a.example.org",
            "M365.3: a.example.org",
            "M365.Skype: a.example.org",
        ],
        &["warning bad-tag-entry 1:63 in the endpoint set 3"],
    );
    let many = "x\n".repeat(12) + &"10.0.0.1\n".repeat(13);
    let (file, findings) = read("l", &many);
    assert!(file.is_some());
    assert_eq!(findings.as_slice().len(), 11);
    assert!(findings.as_slice().iter().any(|finding| {
        finding
            .message
            .contains("2 more entries can't be read and are left out")
    }));
}

#[test]
fn what_is_no_tag_file_is_refused() {
    check("x", "", &[], &["error empty-file 1:1 "]);
    check("x", "\n \n", &[], &["error empty-file 1:1 "]);
    check(
        "x",
        "# nothing\n",
        &[],
        &["error bad-tag-file 1:1 0 entries"],
    );
    check(
        "x",
        "<!doctype html>",
        &[],
        &["error unknown-tag-format 1:1 this is a page"],
    );
    check(
        "x",
        r#"{"changeNumber": 1}"#,
        &[],
        &["error unknown-tag-format 1:1 neither `values`"],
    );
    check("x", r#"{"values": []}"#, &[], &["error bad-tag-file 1:1 "]);
    check("x", "[]", &[], &["error bad-tag-file 1:1 "]);
    check(
        "x",
        "[{\"id\": \"1\", \"serviceArea\": \"A\"}]",
        &[],
        &["error bad-tag-file 1:11 invalid type"],
    );
    // Cut short by a full disk.
    let whole = fixture("ServiceTags_Public_20261116.json");
    check(
        "x",
        &whole[..whole.len() / 2],
        &[],
        &["error bad-tag-file 15:20 EOF"],
    );
    check(
        "my list",
        "10.0.0.1\n",
        &[],
        &["error bad-tag-name 1:1 `my list`"],
    );
    check(
        "x",
        "the service is\nnot available\n",
        &[],
        &[
            "error bad-tag-file 1:1 0 entries can be read and 2 can't",
            "warning bad-tag-entry 1:1 ",
            "warning bad-tag-entry 2:1 ",
        ],
    );
}

#[test]
fn entries_are_capped() {
    let text = "10.0.0.1\n".repeat(MAX_ENTRIES);
    let (file, _) = read("l", &text);
    assert_eq!(file.unwrap().size(), 1);
    let (file, findings) = read("l", &(text + "10.0.0.1\n"));
    assert_eq!(file, None);
    assert_eq!(findings.as_slice()[0].code, "too-many-entries");
}

mod properties {
    use super::*;

    proptest! {
        #[test]
        fn reading_never_panics(text in "\\PC{0,80}") {
            let _ = read("x", &text);
        }

        #[test]
        fn damage_never_panics(which in 0..4_usize, at in 0..2_000_usize, byte: u8, cut: bool) {
            let names = ["ServiceTags_Public_20261116.json", "ip-ranges.json", "endpoints.json", "partner.txt"];
            let mut bytes = fixture(names[which]).into_bytes();
            let at = at % bytes.len();
            bytes[at] = byte;
            if cut {
                bytes.truncate(at + 1);
            }
            let (file, findings) = read("x", &String::from_utf8_lossy(&bytes));
            prop_assert_eq!(file.is_none(), findings.has_errors());
        }

        /// What is joined covers what was listed, and nothing else.
        #[test]
        fn joining_keeps_every_address(list in prop::collection::vec((any::<u32>(), 20..=32_u8), 1..40), probe: u32) {
            use std::net::Ipv4Addr;
            let prefixes: Vec<Ipv4Net> = list
                .iter()
                .map(|(address, bits)| Ipv4Net::new(Ipv4Addr::from(*address & 0x0000_ffff), *bits).unwrap().trunc())
                .collect();
            let text: String = prefixes.iter().map(|prefix| format!("{prefix}\n")).collect();
            let (file, _) = read("l", &text);
            let tag = file.unwrap().tags.remove("l").unwrap();
            let probe = Ipv4Addr::from(probe & 0x0000_ffff);
            prop_assert_eq!(
                tag.prefixes.iter().any(|prefix| prefix.contains(&std::net::IpAddr::V4(probe))),
                prefixes.iter().any(|prefix| prefix.contains(&probe))
            );
            prop_assert!(tag.prefixes.len() <= prefixes.len());
        }
    }
}
