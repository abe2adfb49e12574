//! Changes of files in every style that is written here, of the packs that come with flowproof, and of any file at all.

use std::fs;
use std::path::PathBuf;

use super::*;
use crate::suggest::{Evidence, Few};

fn proposal(from: &str, to: &str, service: &str) -> Proposal {
    let few = Few {
        count: 1,
        more: false,
        some: Vec::new(),
    };
    Proposal {
        id: "x/new-row".to_owned(),
        system: "x".to_owned(),
        requirement: "new-row".to_owned(),
        from: from.to_owned(),
        to: to.to_owned(),
        services: vec![service.to_owned()],
        direction: "outbound",
        necessity: "optional",
        purpose: "why: \"x\" # y".to_owned(),
        doubts: vec!["who?".to_owned(), "tab\tx".to_owned()],
        evidence: Evidence {
            flows: 1,
            answered: 1,
            outcomes: std::collections::BTreeMap::new(),
            clients: few.clone(),
            servers: few,
            first_hour: String::new(),
            last_hour: String::new(),
            hours: 1,
            days: 1,
        },
        near_misses: Vec::new(),
    }
}

fn removal(requirement: &str, services: &[&str], whole: bool) -> Removal {
    Removal {
        id: format!("x/{requirement}"),
        system: "x".to_owned(),
        requirement: requirement.to_owned(),
        services: services
            .iter()
            .map(|service| (*service).to_owned())
            .collect(),
        whole,
        necessity: "required",
        last_seen: None,
        unused_days: 30,
    }
}

fn role() -> NewRole {
    NewRole {
        system: "x".to_owned(),
        id: "null".to_owned(),
        title: "A \u{7} title".to_owned(),
        names: vec!["192.0.2.1".to_owned(), "2001:db8::/64".to_owned()],
    }
}

/// Lines that the diff adds and takes away.
fn changed(diff: &str) -> Vec<&str> {
    diff.lines()
        .filter(|line| {
            line.starts_with(['+', '-']) && !line.starts_with("+++") && !line.starts_with("---")
        })
        .collect()
}

#[track_caller]
fn add(text: &str, expect: &str) {
    let proposal = proposal("a", "b", "tcp/1");
    let wanted = Wanted {
        proposals: vec![&proposal],
        ..Wanted::default()
    };
    let (change, notes) = change("x.yaml", text, &wanted).unwrap();
    assert_eq!(notes, []);
    assert_eq!(change.text, expect);
}

const NEW: &str = "  - id: new-row\n    from: a\n    to: b\n    services: [tcp/1]\n    direction: outbound\n    \
    necessity: optional\n    purpose: \"why: \\\"x\\\" # y\"\n    doubts:\n      - \"who?\"\n      - \"tab\\tx\"\n";
const HEAD: &str = "system: x\ntitle: X\nroles: {a: , b: }\n";

#[test]
fn a_row_is_added_in_the_style_of_the_file() {
    let old = "requirements:\n  - id: old\n    from: a\n    to: b\n    services: [tcp/2]\n";
    add(&format!("{HEAD}{old}"), &format!("{HEAD}{old}{NEW}"));
    // Comments and keys behind the list stay behind it.
    let rest = "\n  # nothing more\nversion: '1'\n";
    add(
        &format!("{HEAD}{old}{rest}"),
        &format!("{HEAD}{old}{NEW}{rest}"),
    );
    add(
        &format!("{HEAD}{old}...\n"),
        &format!("{HEAD}{old}{NEW}...\n"),
    );
    // The file does not end its last line.
    let open = |text: &str| text.trim_end().to_owned();
    add(
        &open(&format!("{HEAD}{old}")),
        &open(&format!("{HEAD}{old}{NEW}")),
    );
    let crlf = |text: &str| text.replace('\n', "\r\n");
    add(
        &crlf(&format!("{HEAD}{old}")),
        &crlf(&format!("{HEAD}{old}{NEW}")),
    );
    let marked = |text: &str| format!("\u{feff}{text}");
    add(
        &marked(&format!("{HEAD}{old}")),
        &marked(&format!("{HEAD}{old}{NEW}")),
    );
    // Dashes below the key, and more blanks behind them.
    let old = "requirements:\n-   id: old\n    from: a\n    to: b\n    services: [tcp/2]\n";
    let new = NEW.replace("  - id", "-   id");
    add(&format!("{HEAD}{old}"), &format!("{HEAD}{old}{new}"));
    let old = "requirements:\n  - {id: old, from: a, to: b,\n     services: [tcp/2]}  # end\n";
    let new = "  - {id: new-row, from: a, to: b, services: [tcp/1], direction: outbound, necessity: optional, \
        purpose: \"why: \\\"x\\\" # y\", doubts: [\"who?\", \"tab\\tx\"]}\n";
    add(&format!("{HEAD}{old}"), &format!("{HEAD}{old}{new}"));
}

#[test]
fn roles_are_added_to_the_roles_or_get_a_key() {
    let mut row = proposal("null", "any", "udp/9");
    row.id = "x/new-row".to_owned();
    let role = role();
    let wanted = Wanted {
        roles: vec![&role],
        proposals: vec![&row],
        ..Wanted::default()
    };
    let line = "null\": {title: \"A \\u0007 title\", names: [\"192.0.2.1\", \"2001:db8::/64\"]}";
    for (roles, expect) in [
        ("", format!("\n+roles:\n+  \"{line}")),
        (
            "roles:\n    a:\n        title: A\n# that's all\n",
            format!("\n+    \"{line}"),
        ),
    ] {
        let text = format!(
            "system: x\ntitle: X\n{roles}requirements:\n- {{id: old, from: any, to: any, services: [tcp/2]}}\n"
        );
        let (change, _) = change("x.yaml", &text, &wanted).unwrap();
        assert!(change.diff.contains(&expect), "{}", change.diff);
    }
    let text = "system: x\ntitle: X\nroles: {a: }\nrequirements:\n- {id: old, from: a, to: any, services: [tcp/2]}\n";
    let error = change("x.yaml", text, &wanted).unwrap_err();
    assert!(
        error.to_string().contains("`roles` is not written"),
        "{error}"
    );
}

#[test]
fn a_style_that_has_no_lines_is_left_alone() {
    let row = proposal("any", "any", "tcp/1");
    let wanted = Wanted {
        proposals: vec![&row],
        ..Wanted::default()
    };
    for rows in [
        "requirements: [{id: old, from: any, to: any, services: [tcp/2]}]\n",
        "requirements:\n  [{id: old, from: any, to: any, services: [tcp/2]}]\n",
        "requirements: []\n",
        "requirements:\n  -\n    id: old\n    from: any\n    to: any\n    services: [tcp/2]\n",
    ] {
        let text = format!("system: x\ntitle: X\n{rows}");
        let error = change("x.yaml", &text, &wanted).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("x.yaml: `requirements` is not written"),
            "{error}"
        );
    }
    assert!(matches!(
        change("x.yaml", "{", &wanted),
        Err(PatchError::Layout {
            source: LayoutError::NoMatrix,
            ..
        })
    ));
    // A block of text that looks like comments at its end: the change would fall into it.
    let text = "system: x\ntitle: X\nrequirements:\n  - id: old\n    from: any\n    to: any\n    services: [tcp/2]\n    \
        purpose: |\n      a\n      # b\n";
    assert_eq!(
        change("x.yaml", text, &wanted).unwrap_err(),
        PatchError::Misread("x.yaml".to_owned())
    );
    assert!(rows(&wanted).contains("  - id: new-row\n"));
}

#[test]
fn rows_and_services_are_taken_away() {
    let text = "system: x\ntitle: X\nrequirements:\n  # first\n  - id: one # 1\n    from: any\n    to: any\n    services: \
        [tcp/1, \"udp/2\" ,tcp/3-4] # s\n\n  # second\n  - {id: two, from: any, to: any, services: [tcp/9]}\n  - id: three\n    \
        from: any\n    to: any\n    services:\n      - tcp/7\n      - tcp/8\n";
    let take = |removals: &[Removal]| {
        let wanted = Wanted {
            removals: removals.iter().collect(),
            ..Wanted::default()
        };
        change("x.yaml", text, &wanted).map(|(change, notes)| (change.diff, notes))
    };
    let lines = |removals: &[Removal]| -> Vec<String> {
        let (diff, notes) = take(removals).unwrap();
        assert_eq!(notes, []);
        changed(&diff).into_iter().map(str::to_owned).collect()
    };
    assert_eq!(
        lines(&[removal("one", &["tcp/1", "udp/2", "tcp/3-4"], true)]),
        [
            "-  - id: one # 1",
            "-    from: any",
            "-    to: any",
            "-    services: [tcp/1, \"udp/2\" ,tcp/3-4] # s"
        ]
    );
    assert_eq!(lines(&[removal("two", &["tcp/9"], true)]).len(), 1);
    assert_eq!(
        lines(&[removal("three", &["tcp/7", "tcp/8"], true)]).len(),
        6
    );
    let services = |left: &str| {
        vec![
            "-    services: [tcp/1, \"udp/2\" ,tcp/3-4] # s".to_owned(),
            format!("+    services: [{left}] # s"),
        ]
    };
    assert_eq!(
        lines(&[removal("one", &["tcp/1"], false)]),
        services("\"udp/2\", tcp/3-4")
    );
    assert_eq!(
        lines(&[removal("one", &["udp/2"], false)]),
        services("tcp/1, tcp/3-4")
    );
    assert_eq!(
        lines(&[removal("one", &["tcp/3-4", "tcp/1"], false)]),
        services("\"udp/2\"")
    );
    // What can't be taken away is noted, and the rest is done.
    let (diff, notes) = take(&[
        removal("three", &["tcp/8"], false),
        removal("two", &["tcp/9"], true),
    ])
    .unwrap();
    assert_eq!(changed(&diff).len(), 1);
    assert!(
        notes[0]
            .to_string()
            .contains("`three` is not taken away: its services do not stand in one line"),
        "{notes:?}"
    );
    let (_, notes) = take(&[removal("four", &[], true)]).unwrap();
    assert!(notes[0].to_string().contains("the file does not have it"));
    // A matrix without requirements is none.
    let all: Vec<Removal> = ["one", "two", "three"]
        .map(|id| removal(id, &[], true))
        .to_vec();
    assert_eq!(take(&all), Err(PatchError::Misread("x.yaml".to_owned())));
}

fn packs() -> Vec<(PathBuf, String)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../rules");
    let packs: Vec<(PathBuf, String)> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "yaml")
        })
        .map(|path| (path.clone(), fs::read_to_string(&path).unwrap()))
        .collect();
    assert!(packs.len() >= 8);
    packs
}

#[test]
fn rows_of_every_pack_can_be_taken_away_and_one_added() {
    for (path, text) in packs() {
        let system = Matrix::read_text("pack", &text).matrix.systems.remove(0);
        let row = proposal("any", system.roles[0].id.as_str(), "tcp/54321");
        let added = block(&row, 2, 1).len();
        // Some of them, the first and the last among them: each costs three readings of the pack.
        let some = system.requirements.len() / 6 + 1;
        let last = system.requirements.last();
        for requirement in system.requirements.iter().step_by(some).chain(last) {
            let services: Vec<String> = requirement
                .services
                .iter()
                .map(ToString::to_string)
                .collect();
            let services: Vec<&str> = services.iter().map(String::as_str).collect();
            let mut removals = vec![removal(requirement.id.as_str(), &services, true)];
            if services.len() > 1 {
                removals.push(removal(requirement.id.as_str(), &services[1..2], false));
            }
            for removal in &removals {
                let wanted = Wanted {
                    proposals: vec![&row],
                    removals: vec![removal],
                    ..Wanted::default()
                };
                let (change, notes) = change("pack", &text, &wanted).unwrap();
                assert_eq!(notes, [], "{}", path.display());
                let diff = changed(&change.diff);
                let gone = diff.iter().filter(|line| line.starts_with('-')).count();
                let new = diff.iter().filter(|line| line.starts_with('+')).count();
                assert_eq!(
                    new - usize::from(!removal.whole),
                    added,
                    "{}",
                    path.display()
                );
                assert!(if removal.whole {
                    (1..40).contains(&gone)
                } else {
                    gone == 1
                });
            }
        }
    }
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    /// Lines that matrix files are made of, in any order and depth.
    fn text() -> impl Strategy<Value = String> {
        let line = prop_oneof![
            Just("requirements:"),
            Just("roles:"),
            Just("  a: {title: A}"),
            Just("  - id: one"),
            Just("- id: two"),
            Just("    from: any"),
            Just("    to: a"),
            Just("  to: any"),
            Just("    services: [tcp/1, udp/2]"),
            Just("    services: [tcp/1,"),
            Just("      udp/2]"),
            Just("  - {id: three, from: any, to: any, services: []}"),
            Just("    # comment"),
            Just(""),
            Just("    purpose: |"),
            Just("      # no comment"),
            Just("..."),
            Just("    doubts: ["),
            Just("    ]"),
            Just("  -"),
            Just("    id: four"),
        ];
        (
            proptest::collection::vec(line, 0..16),
            any::<bool>(),
            select_end(),
        )
            .prop_map(|(lines, end, eol)| {
                let mut text = format!("system: x{eol}title: X{eol}{}", lines.join(eol));
                if end {
                    text.push_str(eol);
                }
                text
            })
    }

    fn select_end() -> impl Strategy<Value = &'static str> {
        prop_oneof![Just("\n"), Just("\r\n")]
    }

    proptest! {
        #[test]
        fn a_change_says_what_is_meant_or_is_not_made(text in text(), whole: bool) {
            let row = proposal("any", "any", "tcp/1");
            let gone = removal("one", &["tcp/1"], whole);
            let wanted = Wanted { proposals: vec![&row], removals: vec![&gone], ..Wanted::default() };
            if let Ok((change, _)) = change("x.yaml", &text, &wanted) {
                let read = Matrix::read_text("x.yaml", &change.text);
                prop_assert!(!read.findings.has_errors());
                let last = read.matrix.systems[0].requirements.last().map(|row| row.id.to_string());
                prop_assert_eq!(last.as_deref(), Some("new-row"));
                // Nothing goes but the row, and of it whole lines.
                for line in changed(&change.diff).into_iter().filter(|line| line.starts_with('-')) {
                    prop_assert!(text.contains(&line[1..]), "{}", line);
                }
            }
        }
    }
}
