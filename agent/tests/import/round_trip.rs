//! A matrix that went through a sheet is the same matrix.

use std::path::{Path, PathBuf};

use proptest::prelude::*;

use flowproof::import::{Imported, Input, Options, import, to_yaml};
use flowproof::matrix::Matrix;
use flowproof::report::{matrix_page, matrix_sheet};

use crate::flowproof;

fn through_sheets(matrix: &Matrix) {
    for (name, bytes) in [
        ("a.csv", matrix_sheet::csv(matrix).unwrap()),
        ("a.xlsx", matrix_sheet::xlsx(matrix).unwrap()),
    ] {
        let input = Input {
            name: name.to_owned(),
            bytes,
        };
        match import(&[input], &Options::default()).unwrap() {
            Imported::Matrix(read) => assert_eq!(&read, matrix, "{name}"),
            Imported::Draft(draft) => panic!("{name} was read as a document: {}", draft.to_yaml()),
        }
    }
}

/// All packs at hand.
fn packs() -> PathBuf {
    std::env::var_os("FLOWPROOF_PACKS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../rules"),
        PathBuf::from,
    )
}

#[test]
fn packs_survive() {
    let reading = Matrix::read(&[packs()]).unwrap();
    assert!(!reading.matrix.systems.is_empty());
    through_sheets(&reading.matrix);
    for system in &reading.matrix.systems {
        let again = Matrix::read_text("again.yaml", &to_yaml(system));
        assert_eq!(again.matrix.systems.first(), Some(system));
    }
    assert!(matrix_page::markdown(&reading.matrix).contains("```yaml\nsite: example"));
}

#[test]
fn the_command_line_survives() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let text = "system: x\ntitle: \"=1+1\"\nroles:\n  a: {title: \"-a\", names: [\"*.example.org\", \"tag:Cloud\"]}\n  unused: {}\nrequirements:\n  - {id: r, from: a, to: any, services: [tcp/1-2, vrrp], direction: both, necessity: conditional, condition: \"@night\", purpose: \"'a\\nb\\\\n\", provenance: {section: S, row: 3}, doubts: [\"+x\", \" y \", \"_x0041_\"]}\n  - {id: s, from: unknown, to: a, services: []}\n";
    std::fs::write(path("x.yaml"), text).unwrap();
    for format in ["csv", "xlsx"] {
        let sheet = path(&format!("x.{format}"));
        let written = flowproof(&[
            "report",
            "--matrix",
            &path("x.yaml"),
            "--format",
            format,
            "-o",
            &sheet,
        ]);
        assert!(written.status.success(), "{written:?}");
        if format == "csv" {
            let csv = std::fs::read_to_string(&sheet).unwrap();
            for cell in csv.split("\",\"") {
                assert!(
                    !cell.starts_with(['=', '+', '-', '@']),
                    "{cell} would be a formula"
                );
            }
        }
        let read = flowproof(&["import", &sheet, "-o", &path("again.yaml")]);
        assert!(read.status.success(), "{read:?}");
        let again = Matrix::read(&[path("again.yaml")]).unwrap().matrix;
        assert_eq!(again, Matrix::read_text("x.yaml", text).matrix);
    }
}

#[test]
fn a_sheet_of_several_systems_needs_a_choice() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    for id in ["x", "y"] {
        let text = format!(
            "system: {id}\ntitle: T\nrequirements:\n  - {{id: r, from: any, to: any, services: [tcp/1]}}\n"
        );
        std::fs::write(path(&format!("{id}.yaml")), text).unwrap();
    }
    let sheet = path("both.csv");
    assert!(
        flowproof(&[
            "report",
            "--matrix",
            &path("x.yaml"),
            &path("y.yaml"),
            "--format",
            "csv",
            "-o",
            &sheet
        ])
        .status
        .success()
    );
    let refused = flowproof(&["import", &sheet]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("x, y"),
        "{refused:?}"
    );
    let chosen = flowproof(&["import", &sheet, "--system", "y"]);
    assert!(
        String::from_utf8_lossy(&chosen.stdout).starts_with("system: y\n"),
        "{chosen:?}"
    );
}

#[test]
fn damaged_sheets_are_refused_with_the_row() {
    let csv = matrix_sheet::csv(&Matrix::read_text("x.yaml", "system: x\ntitle: X\nrequirements:\n  - {id: r, from: any, to: any, services: [tcp/1]}\n").matrix).unwrap();
    let csv = String::from_utf8(csv).unwrap();
    let check = |from: &str, to: &str, expect: &str| {
        let damaged = csv.replace(from, to);
        assert_ne!(damaged, csv, "{from}");
        let input = Input {
            name: "x.csv".to_owned(),
            bytes: damaged.into_bytes(),
        };
        let error = import(&[input], &Options::default())
            .unwrap_err()
            .to_string();
        assert!(error.contains(expect), "{error}");
    };
    check(
        "\"outbound\"",
        "\"sideways\"",
        "x.csv line 3: `sideways` is no direction",
    );
    check("\"tcp/1\"", "\"tpc/1\"", "is not a protocol");
    check(
        "\"direction\"",
        "\"way\"",
        "the column `direction` is missing",
    );
    check("\"requirement\"", "\"thing\"", "is no kind of row");
    check("\"any\"", "\"web\"", "names the role `web`");
}

mod properties {
    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_texts_survive(texts in prop::collection::vec("[ -~äЖ\u{a0}\u{200b}]{0,3}[!-~]|_x00[0-9]{2}_|['=+@-]{1,2}", 7)) {
            let quoted = |index: usize| serde_json::to_string(&texts[index]).unwrap();
            let yaml = format!(
                "system: s\ntitle: {}\nversion: {}\nroles:\n  r: {{title: {}}}\nrequirements:\n  - {{id: a, from: r, to: r, services: [tcp/1], necessity: conditional, condition: {}, purpose: {}, doubts: [{}, {}]}}\n",
                quoted(0), quoted(1), quoted(2), quoted(3), quoted(4), quoted(5), quoted(6)
            );
            let reading = Matrix::read_text("s.yaml", &yaml);
            prop_assume!(!reading.findings.has_errors());
            through_sheets(&reading.matrix);
        }
    }
}
