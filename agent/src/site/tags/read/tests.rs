use std::fs;

use tempfile::TempDir;

use super::*;
use crate::matrix::Matrix;
use crate::site::Site;

const MATRIX: &str = "system: app\ntitle: App\nroles: {web: {}, cloud: {}, own: {names: [a.example.org, 'tag:Beside']}}\n\
    requirements: [{id: a, from: web, to: cloud, services: [tcp/443]}]\n";

struct Lab {
    folder: TempDir,
    options: TagOptions,
    bound: &'static str,
}

impl Lab {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = TagOptions {
            paths: files
                .iter()
                .map(|(name, _)| folder.path().join(name))
                .collect(),
            state_directory: Some(folder.path().join("state")),
            accept_shrunk: false,
        };
        let lab = Self {
            folder,
            options,
            bound: "[]",
        };
        for (name, text) in files {
            lab.write(name, text);
        }
        lab
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join(name), text).unwrap();
    }

    fn read(&self) -> Result<TagReading, LoadError> {
        let matrix = Matrix::read_text("app.yaml", MATRIX);
        let text = format!(
            "site: s\nsystems: [app]\nroles: {{app/web: [10.0.0.1], app/cloud: {}}}\n",
            self.bound
        );
        let site = Site::read_text("site.yaml", &text, &matrix);
        assert!(site.site.is_some(), "{:?}", site.findings);
        TagReading::read(&self.options, &uses(&matrix, Some(&site)))
    }

    /// Expects the findings as `SEVERITY CODE PARTS|OF|THE|LINE`, without those about the pack.
    #[track_caller]
    fn check(&self, expect: &[&str]) -> TagReading {
        let reading = self.read().unwrap();
        let found: Vec<String> = reading
            .findings
            .as_slice()
            .iter()
            .filter(|finding| finding.file != "app.yaml")
            .map(ToString::to_string)
            .collect();
        let matches = found.len() == expect.len()
            && found.iter().zip(expect).all(|(got, expect)| {
                let mut words = expect.splitn(3, ' ');
                let head = [words.next(), words.next()].map(Option::unwrap);
                got.contains(&format!(": {}[{}]: ", head[0], head[1]))
                    && words
                        .next()
                        .unwrap_or_default()
                        .split('|')
                        .all(|part| got.contains(part))
            });
        assert!(matches, "expected {expect:#?}\nfound {found:#?}");
        reading
    }
}

fn list(count: u8) -> String {
    (0..count)
        .map(|number| format!("10.0.{number}.128/32\n"))
        .collect()
}

/// The size of the tag, and whether the file is taken as it is.
fn taken(reading: &TagReading, tag: &str) -> (usize, bool) {
    (
        reading.book.get(tag).map_or(0, ServiceTag::size),
        reading.status.files[0].fresh,
    )
}

#[test]
fn tags_are_found_whatever_their_case() {
    let mut lab = Lab::new(&[("Cloud.txt", "10.0.0.0/24\n10.0.1.0/24\n")]);
    lab.bound = "['tag:CLOUD']";
    let reading = lab.check(&[]);
    assert_eq!(reading.status.in_use, [("Cloud".to_owned(), 1)]);
    assert_eq!(reading.book.iter().count(), 1);
}

#[test]
fn a_tag_that_no_file_has_is_shown_where_it_is_bound() {
    let mut lab = Lab::new(&[("Cloud.txt", "10.0.0.0/24\n")]);
    lab.bound = "['tag:Colud']";
    lab.check(&["error unknown-tag site.yaml:3:42:|`tag:Colud`|did you mean `tag:Cloud`?"]);
    lab.bound = "['tag:Zebra']";
    lab.check(&["error unknown-tag `tag:Zebra`|no tag file has it"]);
    lab.options.paths.clear();
    lab.check(&["error unknown-tag there are no tag files|--tags"]);
    // A pack's names are only beside DNS names.
    let notes = lab.read().unwrap().findings;
    let note = &notes.as_slice()[0];
    assert_eq!(
        (note.severity, note.file.as_str(), note.line),
        (Severity::Note, "app.yaml", 3)
    );
    // The file is the error, not the tag.
    let mut lab = Lab::new(&[("Cloud.txt", "<html>")]);
    lab.bound = "['tag:Cloud']";
    lab.check(&["error unknown-tag-format Cloud.txt:1:1:"]);
}

#[test]
fn doubled_tags_name_both_files() {
    let lab = Lab::new(&[("a.txt", "10.0.0.1\n"), ("A.json", "10.0.0.2\n")]);
    lab.check(&["error duplicate-tag `A` stand in|a.txt and in|A.json"]);
    let mut lab = Lab::new(&[("a.txt", "10.0.0.1\n")]);
    // The same file twice is one file, and other files of a folder are none of ours.
    lab.write("notes.md", "x\n");
    lab.write(".b.txt", "x\n");
    lab.options.paths.push(lab.folder.path().to_owned());
    lab.check(&[]);
}

#[test]
fn a_file_that_shrinks_by_more_than_half_is_refused() {
    let mut lab = Lab::new(&[("Cloud.txt", &list(20))]);
    let first = lab.check(&[]);
    first.keep().unwrap();
    // By half is allowed, and becomes the copy only when it is in force.
    lab.write("Cloud.txt", &list(10));
    assert_eq!(taken(&lab.check(&[]), "cloud"), (10, true));
    lab.write("Cloud.txt", &list(9));
    let refused = lab.check(&[
        "warning shrunken-tags from 20 to 9 entries|stays in force|--accept-shrunk-tags|/state/tags/Cloud.",
    ]);
    assert_eq!(taken(&refused, "cloud"), (20, false));
    refused.keep().unwrap();
    assert_eq!(taken(&lab.read().unwrap(), "cloud"), (20, false));
    lab.options.accept_shrunk = true;
    let accepted = lab.check(&["warning shrunken-tags from 20 to 9 entries, and is taken"]);
    assert_eq!(taken(&accepted, "cloud"), (9, true));
    accepted.keep().unwrap();
    lab.options.accept_shrunk = false;
    assert_eq!(taken(&lab.check(&[]), "cloud"), (9, true));
}

#[test]
fn a_tag_in_use_counts_by_itself() {
    let file = |small: u8, edition: u32| {
        let prefixes = |count| {
            let list: Vec<String> = list(count)
                .lines()
                .map(|line| format!("{line:?}"))
                .collect();
            list.join(",")
        };
        format!(
            r#"{{"changeNumber": {edition}, "values": [{{"name": "Large", "properties": {{"addressPrefixes": [{}]}}}},
            {{"name": "Small", "properties": {{"addressPrefixes": [{}]}}}}]}}"#,
            prefixes(100),
            prefixes(small)
        )
    };
    let mut lab = Lab::new(&[("T_20260101.json", &file(8, 5))]);
    lab.check(&[]).keep().unwrap();
    // The next edition has another date in its name.
    fs::remove_file(&lab.options.paths[0]).unwrap();
    lab.write("T_20260108.json", &file(3, 6));
    lab.options.paths = vec![lab.folder.path().to_owned()];
    assert_eq!(taken(&lab.check(&[]), "small"), (3, true));
    lab.bound = "['tag:small']";
    let refused = lab.check(&["warning shrunken-tags `Small` shrank from 8 to 3 entries"]);
    assert_eq!(taken(&refused, "small"), (8, false));
    lab.write("T_20260108.json", &file(8, 4));
    let older = lab.check(&["warning older-tags edition 4 is older than 5"]);
    assert_eq!(taken(&older, "small"), (8, true));
}

#[test]
fn a_broken_file_leaves_the_last_good_copy_in_force() {
    let mut lab = Lab::new(&[("Cloud.txt", &list(20))]);
    lab.bound = "['tag:Cloud']";
    lab.check(&[]).keep().unwrap();
    let path = lab.options.paths[0].clone();
    let check = |expect: &[&str]| assert_eq!(taken(&lab.check(expect), "cloud"), (20, false));
    lab.write("Cloud.txt", "<html>");
    check(&[
        "warning unknown-tag-format this is a page",
        "warning last-good-tags stays in force",
    ]);
    fs::write(&path, b"10.0.0.1\n\xff\n").unwrap();
    check(&["warning not-utf8 ", "warning last-good-tags stays in force"]);
    // Sparse: it takes no room.
    let file = fs::File::create(&path).unwrap();
    file.set_len(yaml::MAX_FILE_BYTES + 1).unwrap();
    check(&[
        "warning file-too-large 64 MiB",
        "warning last-good-tags stays in force",
    ]);
    fs::remove_file(&path).unwrap();
    check(&["warning last-good-tags gone|stays in force"]);
}

#[test]
fn a_file_that_went_from_its_folder_is_missed_only_for_tags_in_use() {
    let mut lab = Lab::new(&[("Cloud.txt", &list(20)), ("Other.txt", "192.0.2.1\n")]);
    let files = std::mem::replace(&mut lab.options.paths, vec![lab.folder.path().to_owned()]);
    lab.check(&[]).keep().unwrap();
    for file in files {
        fs::remove_file(file).unwrap();
    }
    assert_eq!(lab.check(&[]).book.iter().count(), 0);
    lab.bound = "['tag:cloud']";
    let reading =
        lab.check(&["warning last-good-tags gone|stays in force|remove |/state/tags/Cloud."]);
    assert_eq!(taken(&reading, "cloud"), (20, false));
    assert_eq!(reading.book.iter().count(), 1);
}

#[test]
fn a_tag_that_stands_for_nothing_is_told() {
    let text = r#"{"values": [{"name": "Cloud", "properties": {"addressPrefixes": []}},
        {"name": "Other", "properties": {"addressPrefixes": ["10.0.0.1"]}}]}"#;
    let mut lab = Lab::new(&[("T.json", text)]);
    lab.check(&[]);
    lab.bound = "['tag:cloud']";
    lab.check(&["warning empty-tag site.yaml:3:42|neither addresses nor names"]);
}

#[test]
fn without_a_last_good_copy_a_broken_file_is_an_error() {
    let lab = Lab::new(&[("Cloud.txt", "<html>")]);
    let reading = lab.check(&["error unknown-tag-format this is a page"]);
    assert!(reading.status.files.is_empty());
    fs::remove_file(&lab.options.paths[0]).unwrap();
    assert!(matches!(lab.read(), Err(LoadError::NotFound(path)) if path == lab.options.paths[0]));
}

#[test]
fn a_copy_that_is_damaged_itself_is_none() {
    let lab = Lab::new(&[("Cloud.txt", &list(20))]);
    lab.check(&[]).keep().unwrap();
    let copy = last_good::path(&lab.folder.path().join("state"), &lab.options.paths[0]);
    fs::write(&copy, "{").unwrap();
    lab.write("Cloud.txt", &list(1));
    let reading = lab.check(&[]);
    assert_eq!(taken(&reading, "cloud"), (1, true));
    reading.keep().unwrap();
    assert_eq!(last_good::load(&copy).unwrap().text, list(1));
}

#[test]
fn a_state_directory_that_cannot_be_written_changes_nothing_else() {
    let mut lab = Lab::new(&[("Cloud.txt", &list(2)), ("Other.txt", "192.0.2.1\n")]);
    lab.write("file", "");
    lab.options.state_directory = Some(lab.folder.path().join("file"));
    let reading = lab.check(&[]);
    assert_eq!(taken(&reading, "cloud"), (2, true));
    let error = reading.keep().unwrap_err().to_string();
    assert!(error.contains("Cloud.txt"), "{error}");
    // Who only looks keeps nothing.
    lab.options.state_directory = None;
    lab.check(&[]).keep().unwrap();
}
