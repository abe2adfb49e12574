//! Input that is no requirements table, or is meant to do harm: a clear message, bounded time and memory.

use std::io::{Cursor, Write as _};
use std::time::{Duration, Instant};

use flowproof::import::{ImportError, Imported, Input, Options, import};
use nix::time::{ClockId, clock_gettime};
use zip::write::SimpleFileOptions;

use crate::flowproof;

/// Long enough for a debug build, far too short for what the input asks for. Of this thread's own time on a CPU, so that a
/// busy machine changes nothing.
const BOUND: Duration = Duration::from_secs(30);

/// What this thread has spent on a CPU.
fn spent() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
        .unwrap()
        .into()
}

fn refused(name: &str, bytes: Vec<u8>) -> ImportError {
    let started = spent();
    let input = Input {
        name: name.to_owned(),
        bytes,
    };
    let result = import(&[input], &Options::default());
    let took = spent() - started;
    assert!(took < BOUND, "{name} took {took:?}");
    match result {
        Err(error) => error,
        Ok(Imported::Draft(draft)) => panic!(
            "{name} was imported: {} requirements",
            draft.system.requirements.len()
        ),
        Ok(Imported::Matrix(_)) => panic!("{name} was taken for a matrix"),
    }
}

fn packed(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in parts {
        zip.start_file(*name, SimpleFileOptions::default()).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn ods(table: &str) -> Vec<u8> {
    let content = format!(
        "<?xml version=\"1.0\"?><office:document-content xmlns:office=\"o\" xmlns:table=\"t\" xmlns:text=\"x\"><office:body><office:spreadsheet><table:table table:name=\"s\">{table}</table:table></office:spreadsheet></office:body></office:document-content>"
    );
    packed(&[
        (
            "mimetype",
            b"application/vnd.oasis.opendocument.spreadsheet",
        ),
        (
            "META-INF/manifest.xml",
            b"<manifest:manifest xmlns:manifest=\"m\"></manifest:manifest>",
        ),
        ("content.xml", content.as_bytes()),
    ])
}

#[test]
fn what_is_no_document_is_refused() {
    assert!(matches!(
        refused("a.txt", Vec::new()),
        ImportError::Empty { .. }
    ));
    assert!(matches!(
        refused("a.txt", b" \n \n".to_vec()),
        ImportError::Empty { .. }
    ));
    assert!(matches!(
        refused("a.txt", (0..=255).cycle().take(4096).collect()),
        ImportError::Binary { .. }
    ));
    assert!(matches!(
        refused("a.pdf", b"%PDF-1.7 x".to_vec()),
        ImportError::Binary { .. }
    ));
    assert!(matches!(
        refused("a.xlsx", b"no workbook".to_vec()),
        ImportError::Sheet { .. }
    ));
    assert!(matches!(
        refused("a.zip", packed(&[("a.txt", b"x")])),
        ImportError::Binary { .. }
    ));
    assert!(matches!(
        refused("a.xlsx", packed(&[("xl/workbook.xml", b"<x/>")])),
        ImportError::Sheet { .. }
    ));
}

#[test]
fn zip_bombs_are_not_unpacked() {
    let zeros = vec![0_u8; 200 << 20];
    let bomb = packed(&[
        ("xl/workbook.xml", b"<x/>"),
        ("xl/sharedStrings.xml", &zeros),
    ]);
    assert!(bomb.len() < 1 << 20);
    assert!(matches!(
        refused("a.xlsx", bomb),
        ImportError::Unpacked { .. }
    ));
}

#[test]
fn repeated_cells_are_counted_before_they_are_laid_out() {
    let cell = "<table:table-cell office:value-type=\"string\" table:number-columns-repeated=\"16384\"><text:p>x</text:p></table:table-cell>";
    let row =
        format!("<table:table-row table:number-rows-repeated=\"1048576\">{cell}</table:table-row>");
    assert!(matches!(
        refused("a.ods", ods(&row)),
        ImportError::Cells { .. }
    ));
    let far = format!(
        "<table:table-row table:number-rows-repeated=\"1000000\"><table:table-cell/></table:table-row><table:table-row>{cell}</table:table-row>"
    );
    assert!(matches!(
        refused("a.ods", ods(&far)),
        ImportError::Cells { .. }
    ));
}

#[test]
fn wide_sheets_are_refused() {
    let mut book = rust_xlsxwriter::Workbook::new();
    let sheet = book.add_worksheet();
    for row in 0..100 {
        sheet.write_string(row, 16_383, "x").unwrap();
    }
    assert!(matches!(
        refused("a.xlsx", book.save_to_buffer().unwrap()),
        ImportError::Cells { .. }
    ));
    let wide = format!("{}\n", "a,".repeat(600_000));
    assert!(matches!(
        refused("a.csv", wide.into_bytes()),
        ImportError::Cells { .. }
    ));
}

#[test]
fn the_command_line_ends_with_1_or_2() {
    let folder = tempfile::tempdir().unwrap();
    let check = |name: &str, bytes: &[u8], code: i32, expect: &str| {
        let file = folder.path().join(name);
        std::fs::write(&file, bytes).unwrap();
        let started = Instant::now();
        let output = folder.path().join("draft.yaml");
        let ended = flowproof(&[
            "import",
            file.to_str().unwrap(),
            "-o",
            output.to_str().unwrap(),
        ]);
        let message = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(code), "{name}: {message}");
        assert!(message.contains(expect), "{name}: {message}");
        assert!(started.elapsed() < BOUND, "{name}");
    };
    check("empty.csv", b"", 2, "is empty");
    check(
        "binary.txt",
        &[0, 1, 2, 3, 0, 255],
        2,
        "is neither text nor a sheet",
    );
    check(
        "large.csv",
        &b"Source,Destination,Port\na,b,443\n".repeat(1_700_000),
        2,
        "is larger than 16 MiB",
    );
    check(
        "headless.csv",
        b"one,two,three\na,b,c\nd,e,f\n",
        1,
        "headless.csv line 1: no header",
    );
    check(
        "prose.txt",
        b"Nothing of interest here.\n",
        1,
        "no requirement was found",
    );
    check("fine.csv", b"Source,Destination,Port\na,b,443\n", 0, "");
    let missing = flowproof(&["import", "/nonexistent/x.txt"]);
    assert_eq!(missing.status.code(), Some(2));
}

#[test]
fn a_long_document_takes_seconds() {
    let started = spent();
    let mut text = String::from("Source\tDestination\tProtocol\tPort\tPurpose\n");
    for index in 0..20_000 {
        text.push_str(&format!(
            "Host {}\tServer {}\tTCP\t{}\tTalks\n",
            index % 500,
            index % 700,
            index % 60_000 + 1
        ));
    }
    let draft = crate::draft("a.txt", text);
    assert_eq!(draft.system.requirements.len(), 20_000);
    let took = spent() - started;
    assert!(took < BOUND, "{took:?}");
}

#[test]
fn effort_grows_no_faster_than_the_text() {
    let many = |text: &str, bytes: usize| text.repeat(bytes / text.len());
    let head = "Source\tDestination\tProtocol\tPort\tPurpose\nA in\tB C\tTCP\t1\tx\n";
    for (name, text) in [
        ("brackets.txt", many("[", 300_000)),
        ("tags.txt", many("<", 300_000)),
        ("links.txt", many("[a](", 300_000)),
        ("pipes.txt", many("|", 300_000)),
        ("stars.txt", many("** a ", 300_000)),
        ("words.txt", many("must access ", 300_000)),
        ("title.txt", format!("{head}A\t{}", many("C D ", 300_000))),
        (
            "fused.txt",
            format!(
                "{head}A\t{}\t{}\t{}\n",
                many("C D ", 100_000),
                many("TCP ", 100_000),
                many("1 ", 100_000)
            ),
        ),
        (
            "rest.txt",
            format!("{head}{}", many("zz in\tqq -\t\t\t\n", 100_000)),
        ),
        (
            "ports.csv",
            format!(
                "Source,Destination,Port\na,b,\"{}\"\n",
                many("1,22,333,", 300_000)
            ),
        ),
        ("tables.html", many("<table>", 300_000)),
        ("quotes.csv", many("\"", 300_000)),
    ] {
        let started = spent();
        let input = Input {
            name: name.to_owned(),
            bytes: text.into_bytes(),
        };
        let _ = import(&[input], &Options::default());
        let took = spent() - started;
        assert!(took < BOUND, "{name} took {took:?}");
    }
}
