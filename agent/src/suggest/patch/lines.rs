//! Changes of a text by whole lines, and the same as a unified diff that `patch -p1` and `git apply` take. Nothing but the
//! lines that change is touched, whatever ends the lines or the file.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Lines of context around a change.
const CONTEXT: usize = 3;

/// Changes of a text, by the numbers of its lines from 0.
#[derive(Debug, Default)]
pub(super) struct Edits {
    replaced: BTreeMap<usize, Option<String>>,
    /// What comes before a line; before the line after the last, at the end.
    inserted: BTreeMap<usize, Vec<String>>,
}

impl Edits {
    pub(super) fn delete(&mut self, lines: std::ops::RangeInclusive<usize>) {
        for line in lines {
            self.replaced.insert(line, None);
        }
    }

    /// `text` is without the end of the line.
    pub(super) fn replace(&mut self, line: usize, text: String) {
        self.replaced.insert(line, Some(text));
    }

    pub(super) fn insert(&mut self, before: usize, lines: impl IntoIterator<Item = String>) {
        self.inserted.entry(before).or_default().extend(lines);
    }

    /// The text after the changes, and the diff between both.
    pub(super) fn apply(&self, path: &str, text: &str) -> (String, String) {
        let ops = self.operations(text);
        let after: String = ops
            .iter()
            .filter(|op| op.kind != Kind::Old)
            .map(|op| op.line.as_str())
            .collect();
        let mut diff = header(Some(path), path);
        hunks(&ops, &mut diff);
        (after, diff)
    }

    fn operations(&self, text: &str) -> Vec<Operation> {
        let end = line_end(text);
        let mut ops = Vec::new();
        let mut add = |kind, line: String| ops.push(Operation { kind, line });
        let mut count = 0;
        for (number, line) in text.split_inclusive('\n').enumerate() {
            for inserted in self.inserted.get(&number).into_iter().flatten() {
                add(Kind::New, format!("{inserted}{end}"));
            }
            let whole = if line.ends_with('\n') {
                line.to_owned()
            } else {
                format!("{line}{end}")
            };
            match self.replaced.get(&number) {
                None => add(Kind::Both, whole),
                Some(new) => {
                    add(Kind::Old, whole);
                    if let Some(new) = new {
                        add(Kind::New, format!("{new}{end}"));
                    }
                }
            }
            count = number + 1;
        }
        for inserted in self.inserted.range(count..).flat_map(|(_, lines)| lines) {
            add(Kind::New, format!("{inserted}{end}"));
        }
        if !text.is_empty() && !text.ends_with('\n') {
            open_end(&mut ops, end);
        }
        ops
    }
}

/// A file that did not end its last line does not do so afterwards.
fn open_end(ops: &mut Vec<Operation>, end: &str) {
    let open = |line: &str| line.strip_suffix(end).unwrap_or(line).to_owned();
    let last_old = ops.iter().rposition(|op| op.kind != Kind::New);
    let last_new = ops.iter().rposition(|op| op.kind != Kind::Old);
    let mut opened: Vec<Operation> = Vec::with_capacity(ops.len() + 2);
    for (at, op) in ops.drain(..).enumerate() {
        let (old, new) = (Some(at) == last_old, Some(at) == last_new);
        match op.kind {
            Kind::Both if old != new => {
                let [before, after] = if old {
                    [open(&op.line), op.line]
                } else {
                    [op.line.clone(), open(&op.line)]
                };
                opened.push(Operation {
                    kind: Kind::Old,
                    line: before,
                });
                opened.push(Operation {
                    kind: Kind::New,
                    line: after,
                });
            }
            Kind::Both | Kind::Old | Kind::New if old || new => opened.push(Operation {
                line: open(&op.line),
                ..op
            }),
            Kind::Both | Kind::Old | Kind::New => opened.push(op),
        }
    }
    *ops = opened;
}

/// The diff that makes a file.
pub(super) fn new_file(path: &str, text: &str) -> String {
    let mut diff = header(None, path);
    let ops: Vec<Operation> = text
        .split_inclusive('\n')
        .map(|line| Operation {
            kind: Kind::New,
            line: line.to_owned(),
        })
        .collect();
    hunks(&ops, &mut diff);
    diff
}

/// What ends the lines of a text.
fn line_end(text: &str) -> &'static str {
    match text.split_inclusive('\n').next() {
        Some(line) if line.ends_with("\r\n") => "\r\n",
        Some(_) | None => "\n",
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Both,
    Old,
    New,
}

#[derive(Debug)]
struct Operation {
    kind: Kind,
    /// With its end.
    line: String,
}

fn header(old: Option<&str>, new: &str) -> String {
    let old = old.map_or_else(|| "/dev/null".to_owned(), |path| file("a/", path));
    format!("--- {old}\n+++ {}\n", file("b/", new))
}

/// A file's name as both programs read it: a tab ends one with blanks, and odd bytes are written as C has them.
fn file(side: &str, path: &str) -> String {
    if path
        .bytes()
        .any(|byte| byte.is_ascii_control() || matches!(byte, b'"' | b'\\'))
    {
        let mut quoted = format!("\"{side}");
        for character in path.chars() {
            match character {
                '"' | '\\' => {
                    quoted.push('\\');
                    quoted.push(character);
                }
                character if character.is_ascii_control() => {
                    let _ = write!(quoted, "\\{:03o}", u32::from(character));
                }
                character => quoted.push(character),
            }
        }
        quoted.push('"');
        quoted
    } else if path.contains(' ') {
        format!("{side}{path}\t")
    } else {
        format!("{side}{path}")
    }
}

fn hunks(ops: &[Operation], diff: &mut String) {
    let changed: Vec<usize> = ops
        .iter()
        .enumerate()
        .filter(|(_, op)| op.kind != Kind::Both)
        .map(|(at, _)| at)
        .collect();
    // Changes whose context touches are one hunk.
    for group in changed.chunk_by(|before, after| after - before <= 2 * CONTEXT + 1) {
        let (Some(first), Some(last)) = (group.first(), group.last()) else {
            continue;
        };
        let start = first.saturating_sub(CONTEXT);
        let end = (last + CONTEXT + 1).min(ops.len());
        let count = |ops: &[Operation], but: Kind| ops.iter().filter(|op| op.kind != but).count();
        let [before, inside] = [&ops[..start], &ops[start..end]];
        let side = |but: Kind, sign: char| {
            let (before, inside) = (count(before, but), count(inside, but));
            // An empty stretch is named by the line before it.
            let first = if inside == 0 { before } else { before + 1 };
            format!("{sign}{first},{inside}")
        };
        let _ = writeln!(
            diff,
            "@@ {} {} @@",
            side(Kind::New, '-'),
            side(Kind::Old, '+')
        );
        for op in inside {
            let sign = match op.kind {
                Kind::Both => ' ',
                Kind::Old => '-',
                Kind::New => '+',
            };
            diff.push(sign);
            diff.push_str(&op.line);
            if !op.line.ends_with('\n') {
                diff.push_str("\n\\ No newline at end of file\n");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(edits: &Edits, text: &str, after: &str, diff: &str) {
        let head = "--- a/x\n+++ b/x\n";
        assert_eq!(
            edits.apply("x", text),
            (after.to_owned(), format!("{head}{diff}"))
        );
    }

    #[test]
    fn only_lines_that_change_are_touched() {
        let text: String = (1..=12).map(|line| format!("{line}\n")).collect();
        let mut edits = Edits::default();
        edits.replace(1, "two".to_owned());
        edits.delete(10..=10);
        edits.insert(12, ["end".to_owned()]);
        check(
            &edits,
            &text,
            "1\ntwo\n3\n4\n5\n6\n7\n8\n9\n10\n12\nend\n",
            "@@ -1,5 +1,5 @@\n 1\n-2\n+two\n 3\n 4\n 5\n@@ -8,5 +8,5 @@\n 8\n 9\n 10\n-11\n 12\n+end\n",
        );
    }

    #[test]
    fn ends_of_lines_and_files_stay() {
        let mut edits = Edits::default();
        edits.insert(2, ["c".to_owned()]);
        check(
            &edits,
            "a\r\nb\r\n",
            "a\r\nb\r\nc\r\n",
            "@@ -1,2 +1,3 @@\n a\r\n b\r\n+c\r\n",
        );
        let open = "\\ No newline at end of file\n";
        check(
            &edits,
            "a\nb",
            "a\nb\nc",
            &format!("@@ -1,2 +1,3 @@\n a\n-b\n{open}+b\n+c\n{open}"),
        );
        let mut edits = Edits::default();
        edits.delete(1..=1);
        check(
            &edits,
            "a\nb",
            "a",
            &format!("@@ -1,2 +1,1 @@\n-a\n+a\n{open}-b\n{open}"),
        );
        let mut edits = Edits::default();
        edits.replace(0, "c".to_owned());
        check(
            &edits,
            "a\nb",
            "c\nb",
            &format!("@@ -1,2 +1,2 @@\n-a\n+c\n b\n{open}"),
        );
    }

    #[test]
    fn odd_names_are_quoted() {
        assert!(
            new_file("my file", "a\n")
                .starts_with("--- /dev/null\n+++ b/my file\t\n@@ -0,0 +1,1 @@\n+a\n")
        );
        assert!(new_file("a\"b\nc", "a\n").contains("+++ \"b/a\\\"b\\012c\"\n"));
    }
}
