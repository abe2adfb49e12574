//! Differences of small matrices, and what holds for any two.

use proptest::prelude::*;

use super::*;

const BASE: &str = "
system: s
title: S
roles:
  a: {title: A}
  b: {title: B, names: [b.example.org]}
  c: {title: C}
requirements:
  - {id: one, from: a, to: b, services: [tcp/1, tcp/2], provenance: {section: T, row: 1}}
  - {id: two, from: b, to: c, services: [udp/5], necessity: optional, purpose: copying}
  - {id: three, from: a, to: c, services: [tcp/3], necessity: conditional, condition: if old}
";

fn matrix(text: &str) -> Matrix {
    let reading = Matrix::read_text("m.yaml", text);
    assert!(!reading.findings.has_errors(), "{:?}", reading.findings);
    reading.matrix
}

/// A line a change: kind, id, old id, then the fields; `!` marks what changes judgement.
fn lines(diff: &MatrixDiff) -> Vec<String> {
    fn line(
        what: &str,
        kind: Kind,
        id: &str,
        old: Option<&str>,
        judgement: bool,
        fields: &[FieldChange],
    ) -> String {
        let mut text = format!(
            "{}{what} {id} {}",
            if judgement { "!" } else { "" },
            kind.name()
        );
        if let Some(old) = old {
            text += &format!(" was {old}");
        }
        for field in fields {
            let of = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
            text += &format!(" [{} {} > {}]", field.field, of(&field.old), of(&field.new));
        }
        text
    }
    let mut lines = Vec::new();
    for system in &diff.systems {
        if system.change != Kind::Changed || !system.fields.is_empty() {
            lines.push(line(
                "system",
                system.change,
                &system.id,
                None,
                system.judgement(),
                &system.fields,
            ));
        }
        for role in &system.roles {
            lines.push(line(
                "role",
                role.change,
                &role.id,
                role.old_id.as_deref(),
                role.judgement,
                &role.fields,
            ));
        }
        for row in &system.requirements {
            lines.push(line(
                "row",
                row.change,
                &row.id,
                row.old_id.as_deref(),
                row.judgement,
                &row.fields,
            ));
        }
    }
    lines
}

/// Replaces texts of the base and compares what is told; and that judgement is told as a whole as in its parts.
#[track_caller]
fn check(replacements: &[(&str, &str)], expect: &[&str]) {
    let mut text = BASE.to_owned();
    for (old, new) in replacements {
        assert!(text.contains(old), "{old} is not in the matrix");
        text = text.replace(old, new);
    }
    let diff = MatrixDiff::new(&matrix(BASE), &matrix(&text));
    assert_eq!(lines(&diff), expect);
    assert_eq!(
        diff.judgement,
        expect.iter().any(|line| line.starts_with('!'))
    );
}

#[test]
fn every_kind_of_change_is_told() {
    check(&[], &[]);
    check(&[("[tcp/1, tcp/2]", "[tcp/2, tcp/1]")], &[]);
    check(
        &[("[tcp/1, tcp/2]", "[tcp/2, tcp/9]")],
        &["!row one changed [services tcp/1 > tcp/9]"],
    );
    check(
        &[("[tcp/1, tcp/2]", "[tcp/1]")],
        &["!row one changed [services tcp/2 > -]"],
    );
    check(
        &[("from: b, to: c", "from: c, to: a")],
        &["!row two changed [from b > c] [to c > a]"],
    );
    check(
        &[("services: [udp/5]", "services: [udp/5], direction: both")],
        &["!row two changed [direction outbound > both]"],
    );
    check(
        &[(", necessity: optional", "")],
        &["!row two changed [necessity optional > required]"],
    );
    check(
        &[("if old", "if new")],
        &["!row three changed [condition if old > if new]"],
    );
    check(
        &[("row: 1", "row: 7")],
        &["row one changed [provenance T, row 1 > T, row 7]"],
    );
    check(
        &[("copying", "moving")],
        &["row two changed [words copying > moving]"],
    );
    check(
        &[("title: S\n", "title: T\n")],
        &["system s changed [words S > T]"],
    );
    check(
        &[("b.example.org", "x.example.org")],
        &["!role b changed [names b.example.org > x.example.org]"],
    );
    check(
        &[("{title: A}", "{title: Z}")],
        &["role a changed [words A > Z]"],
    );
    check(&[("title: A}", "title: A}\n  d:")], &["!role d added"]);
    check(
        &[("id: two", "id: second")],
        &["row second renamed was two"],
    );
    check(
        &[("id: two", "id: second"), ("copying", "moving")],
        &["row second renamed was two [words copying > moving]"],
    );
    check(
        &[("id: two", "id: second"), ("udp/5", "udp/6")],
        &["!row second added", "!row two removed"],
    );
    check(
        &[(
            "  - {id: two",
            "  - {id: new, from: a, to: b, services: [icmp]}\n  - {id: two",
        )],
        &["!row new added"],
    );
    // The site file binds the old id; the rows are the same.
    check(
        &[("  c:", "  x:"), ("to: c", "to: x")],
        &["!role x renamed was c"],
    );
    check(
        &[("  c: {title: C}", "  x:"), ("to: c", "to: x")],
        &[
            "!role x added",
            "!role c removed",
            "!row two changed [to c > x]",
            "!row three changed [to c > x]",
        ],
    );
}

#[test]
fn what_can_not_be_told_apart_is_no_rename() {
    let old = "system: s\ntitle: S\nroles: {a: , b: }\nrequirements:\n  - {id: one, from: a, to: b, services: [tcp/1]}\n";
    let new = "system: s\ntitle: S\nroles: {a: , b: }\nrequirements:\n  - {id: x, from: a, to: b, services: [tcp/1]}\n  - {id: y, from: a, to: b, services: [tcp/1]}\n";
    assert_eq!(
        lines(&MatrixDiff::new(&matrix(old), &matrix(new))),
        ["!row x added", "!row y added", "!row one removed"]
    );
}

#[test]
fn whole_systems_come_and_go() {
    let other = BASE.replace("system: s", "system: t");
    assert_eq!(
        lines(&MatrixDiff::new(&Matrix::default(), &matrix(BASE)))[0],
        "!system s added"
    );
    let diff = MatrixDiff::new(&matrix(BASE), &matrix(&other));
    let kinds: Vec<_> = diff
        .systems
        .iter()
        .map(|system| (system.id.as_str(), system.change))
        .collect();
    assert_eq!(kinds, [("t", Kind::Added), ("s", Kind::Removed)]);
    assert_eq!(diff.systems[1].requirements.len(), 3);
}

/// A matrix of few roles and rows, so that two of them have much in common.
fn any_matrix() -> impl Strategy<Value = Matrix> {
    let role = (0..5_usize, 0..4_usize, 0..3_usize);
    let row = (
        0..6_usize,
        0..3_usize,
        0..3_usize,
        1..4_u16,
        0..3_usize,
        0..3_usize,
        0..2_usize,
    );
    (
        proptest::collection::vec(role, 3..5),
        proptest::collection::vec(row, 1..6),
    )
        .prop_map(|(roles, rows)| {
            let mut text = "system: s\ntitle: S\nroles:\n".to_owned();
            let mut ids = Vec::new();
            for (id, title, name) in roles {
                if !ids.contains(&id) {
                    ids.push(id);
                    let names = ["", ", names: [a.example.org]", ", names: [b.example.org]"][name];
                    text += &format!("  r{id}: {{title: T{title}{names}}}\n");
                }
            }
            text += "requirements:\n";
            let mut seen = Vec::new();
            for (id, from, to, port, direction, necessity, purpose) in rows {
                if seen.contains(&id) {
                    continue;
                }
                seen.push(id);
                let direction = ["outbound", "inbound", "both"][direction];
                let necessity = ["required", "optional", "conditional, condition: x"][necessity];
                text += &format!(
                    "  - {{id: q{id}, from: r{}, to: r{}, services: [tcp/{port}], direction: {direction}, necessity: {necessity}, purpose: p{purpose}}}\n",
                    ids[from % ids.len()], ids[to % ids.len()],
                );
            }
            matrix(&text)
        })
}

/// The difference the other way round.
fn mirrored(mut diff: MatrixDiff) -> MatrixDiff {
    fn kind(kind: &mut Kind) {
        *kind = match *kind {
            Kind::Added => Kind::Removed,
            Kind::Removed => Kind::Added,
            Kind::Changed => Kind::Changed,
            Kind::Renamed => Kind::Renamed,
        };
    }
    fn fields(fields: &mut [FieldChange]) {
        for field in fields {
            std::mem::swap(&mut field.old, &mut field.new);
        }
    }
    fn ids(id: &mut String, old: &mut Option<String>) {
        if let Some(old) = old {
            std::mem::swap(id, old);
        }
    }
    for system in &mut diff.systems {
        kind(&mut system.change);
        fields(&mut system.fields);
        for role in &mut system.roles {
            kind(&mut role.change);
            ids(&mut role.id, &mut role.old_id);
            fields(&mut role.fields);
        }
        for row in &mut system.requirements {
            kind(&mut row.change);
            ids(&mut row.id, &mut row.old_id);
            fields(&mut row.fields);
        }
    }
    diff
}

/// Without what is told of one side only, and in an order that does not depend on the side.
fn comparable(mut diff: MatrixDiff) -> MatrixDiff {
    for system in &mut diff.systems {
        for role in &mut system.roles {
            role.title = None;
        }
        for row in system
            .requirements
            .iter_mut()
            .filter(|row| matches!(row.change, Kind::Changed | Kind::Renamed))
        {
            (row.from, row.to) = (String::new(), String::new());
            row.services.clear();
            (row.direction, row.necessity) = ("", "");
        }
        system.roles.sort();
        system.requirements.sort();
    }
    diff.systems.sort();
    diff
}

mod properties {
    use super::*;

    proptest! {
        #[test]
        fn nothing_differs_from_itself(matrix in any_matrix()) {
            prop_assert_eq!(MatrixDiff::new(&matrix, &matrix), MatrixDiff::default());
        }

        #[test]
        fn the_other_way_round_is_the_mirror_image(old in any_matrix(), new in any_matrix()) {
            let there = MatrixDiff::new(&old, &new);
            let back = MatrixDiff::new(&new, &old);
            prop_assert_eq!(comparable(mirrored(there)), comparable(back));
        }

        /// Nothing is passed over: matrices without a difference are equal, but for the order of what is in them.
        #[test]
        fn what_does_not_differ_is_the_same(old in any_matrix(), new in any_matrix()) {
            if MatrixDiff::new(&old, &new).systems.is_empty() {
                let rows = |matrix: &Matrix| {
                    let system = &matrix.systems[0];
                    let mut rows: Vec<_> = system.requirements.iter().map(|row| {
                        format!("{} {} {} {:?} {:?} {:?} {:?}", row.id, system.role_id(row.from), system.role_id(row.to),
                            row.services, row.direction, row.necessity, row.purpose)
                    }).collect();
                    rows.sort();
                    rows
                };
                prop_assert_eq!(rows(&old), rows(&new));
            }
        }
    }
}
