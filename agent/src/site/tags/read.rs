//! The tag files of a configuration to one book, each file as it is or as it was when it was last good.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::book::{ServiceTag, TagBook, folded};
use super::file::{self, TagFile};
use super::last_good::{self, Copy, KeepError};
use crate::finding::{Findings, Severity};
use crate::matrix::{MatrixReading, TagUse, UsedBy};
use crate::site::SiteReading;
use crate::yaml::{self, LoadError, Reporter, Source, Span};

/// Endings of the files that a folder stands for.
const ENDINGS: [&str; 2] = ["json", "txt"];

/// Which files have the service tags, and how they are to be taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TagOptions {
    /// Files, or folders of `*.json` and `*.txt`.
    pub paths: Vec<PathBuf>,
    /// Where last good copies are; none are looked for without it.
    pub state_directory: Option<PathBuf>,
    /// Takes files that shrank by more than half.
    pub accept_shrunk: bool,
}

/// The tags that a site and its packs name, in the order of the files. Without a site every system counts as deployed.
#[must_use]
pub fn uses(matrix: &MatrixReading, site: Option<&SiteReading>) -> Vec<TagUse> {
    let deployed = site.and_then(|reading| reading.site.as_ref());
    let packs = matrix
        .tags
        .iter()
        .filter(|used| deployed.is_none_or(|site| site.deploys(used.system)));
    let site = site.iter().flat_map(|site| &site.tags);
    packs.chain(site).cloned().collect()
}

/// How one file was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileStatus {
    /// Its path as it was configured.
    pub path: String,
    /// Whether its content is in force; otherwise its last good copy is.
    pub fresh: bool,
}

/// How files and tags were read, for whoever watches that.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TagStatus {
    /// How each file was taken, in order.
    pub files: Vec<FileStatus>,
    /// How many prefixes each tag has that the site or a deployed pack names, by the provider's spelling, sorted.
    pub in_use: Vec<(String, usize)>,
}

/// A file whose content is to become the last good copy.
#[derive(Debug, Clone)]
struct Fresh {
    copy: PathBuf,
    source: Arc<Source>,
}

/// What reading the tag files gave.
#[derive(Debug, Clone, Default)]
pub struct TagReading {
    /// All tags.
    pub book: Arc<TagBook>,
    /// What was found in the files, and tags that no file has.
    pub findings: Findings,
    /// How files and tags were read.
    pub status: TagStatus,
    keep: Vec<Fresh>,
}

impl TagReading {
    /// Reads the files. `uses` are the tags that matter; one that no file has is a finding.
    ///
    /// # Errors
    /// [`LoadError`] if a path can't be read and there is no last good copy of it. What is wrong inside is a finding.
    pub fn read(options: &TagOptions, uses: &[TagUse]) -> Result<Self, LoadError> {
        let mut reading = Self::default();
        let mut book = TagBook::default();
        let used: BTreeSet<String> = uses.iter().map(|used| folded(&used.tag)).collect();
        let mut unread = false;
        for path in expand(options)? {
            let mut one = OneFile::new(&path, options, &used);
            let file = one.read()?;
            unread |= file.is_none();
            if let Some(file) = file {
                reading.status.files.push(FileStatus {
                    path: one.name.clone(),
                    fresh: one.fresh,
                });
                let name: Arc<str> = Arc::from(one.name.as_str());
                add(file, &name, &mut book, &mut one.findings);
            }
            reading.findings.append(one.findings);
            reading.keep.extend(one.keep);
        }
        for path in gone(options, &reading.status.files) {
            let mut one = OneFile::new(&path, options, &used);
            // Nobody misses a file that has none of the tags that are named.
            if let Ok(Some(file)) = one.read()
                && file
                    .tags
                    .keys()
                    .any(|tag| used.contains(tag) && book.get(tag).is_none())
            {
                reading.status.files.push(FileStatus {
                    path: one.name.clone(),
                    fresh: one.fresh,
                });
                let name: Arc<str> = Arc::from(one.name.as_str());
                add(file, &name, &mut book, &mut one.findings);
                reading.findings.append(one.findings);
            }
        }
        let none = options.paths.is_empty();
        reading.findings.append(unknown(uses, &book, none, unread));
        let in_use: BTreeMap<&str, usize> = used
            .iter()
            .filter_map(|tag| book.get(tag))
            .map(|tag| (tag.name.as_str(), tag.prefixes.len()))
            .collect();
        reading.status.in_use = in_use
            .into_iter()
            .map(|(name, count)| (name.to_owned(), count))
            .collect();
        reading.book = Arc::new(book);
        Ok(reading)
    }

    /// Keeps what was read as the last good copies. For when it is in force.
    ///
    /// # Errors
    /// [`KeepError`], the first of them: the others have the same reason.
    pub fn keep(&self) -> Result<(), KeepError> {
        let mut failed = None;
        for fresh in &self.keep {
            let kept = last_good::keep(&fresh.copy, fresh.source.name(), fresh.source.text());
            failed = failed.or(kept.err());
        }
        failed.map_or(Ok(()), Err)
    }
}

/// The files that the paths stand for, each once. A file that is gone may have a last good copy.
fn expand(options: &TagOptions) -> Result<Vec<PathBuf>, LoadError> {
    let mut files = Vec::new();
    for path in &options.paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let error = |source| LoadError::from_io(path, source);
        let mut inside = Vec::new();
        for entry in std::fs::read_dir(path).map_err(error)? {
            let file = entry.map_err(error)?.path();
            let named = file
                .extension()
                .is_some_and(|ending| ENDINGS.iter().any(|known| ending == *known));
            let hidden = file
                .file_name()
                .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            if named && !hidden && file.is_file() {
                inside.push(file);
            }
        }
        inside.sort();
        files.append(&mut inside);
    }
    let mut seen = BTreeSet::new();
    files.retain(|file| seen.insert(file.canonicalize().unwrap_or_else(|_| file.clone())));
    Ok(files)
}

/// Files that were in a configured folder and are there no more, by their last good copies.
fn gone(options: &TagOptions, there: &[FileStatus]) -> Vec<PathBuf> {
    let Some(state) = options.state_directory.as_deref() else {
        return Vec::new();
    };
    let there: BTreeSet<PathBuf> = there
        .iter()
        .map(|file| last_good::path(state, Path::new(&file.path)))
        .collect();
    let mut gone = BTreeSet::new();
    for folder in options.paths.iter().filter(|path| path.is_dir()) {
        for (file, copy) in last_good::of_folder(state, folder) {
            if !there.contains(&copy) && !file.exists() {
                gone.insert(file);
            }
        }
    }
    gone.into_iter().collect()
}

fn add(file: TagFile, name: &Arc<str>, book: &mut TagBook, findings: &mut Findings) {
    let mut doubled = Vec::new();
    let mut owner = None;
    for tag in file.tags.into_values() {
        let tag_name = tag.name.clone();
        if let Err(other) = book.add(tag, name) {
            owner.get_or_insert(other);
            doubled.push(tag_name);
        }
    }
    let (Some(owner), Some(first)) = (owner, doubled.first()) else {
        return;
    };
    let more = match doubled.len() - 1 {
        0 => String::new(),
        more => format!(" and {more} more tags"),
    };
    findings.append(whole(
        &Arc::new(Source::new(&**name, "")),
        Severity::Error,
        "duplicate-tag",
        format!(
            "`{first}`{more} stand in {owner} and in {name}: keep one of the two files (of two editions, the newer), or rename a list"
        ),
    ));
}

/// A finding about a file as a whole.
fn whole(
    source: &Arc<Source>,
    severity: Severity,
    code: &'static str,
    message: String,
) -> Findings {
    let mut reporter = Reporter::new(Arc::clone(source));
    match severity {
        Severity::Error => reporter.error(code, Span::default(), message),
        Severity::Warning => reporter.warning(code, Span::default(), message),
        Severity::Note => reporter.note(code, Span::default(), message),
    }
    reporter.finish()
}

/// One file while it is read.
struct OneFile<'a> {
    path: &'a Path,
    options: &'a TagOptions,
    used: &'a BTreeSet<String>,
    name: String,
    findings: Findings,
    /// Whether the file itself is taken.
    fresh: bool,
    /// What is to be kept of it.
    keep: Option<Fresh>,
}

impl<'a> OneFile<'a> {
    fn new(path: &'a Path, options: &'a TagOptions, used: &'a BTreeSet<String>) -> Self {
        Self {
            path,
            options,
            used,
            name: path.display().to_string(),
            findings: Findings::default(),
            fresh: false,
            keep: None,
        }
    }

    /// The file, or its last good copy; nothing, and an error, if neither is of use.
    fn read(&mut self) -> Result<Option<TagFile>, LoadError> {
        let copy_path = self
            .options
            .state_directory
            .as_deref()
            .map(|state| last_good::path(state, self.path));
        let last = copy_path
            .as_deref()
            .and_then(last_good::load)
            .and_then(|copy| self.parse_copy(copy));
        let (source, problem) = match yaml::load(self.path) {
            Ok(loaded) => loaded,
            Err(error) => {
                let Some((copy, file)) = last else {
                    return Err(error);
                };
                let why = std::error::Error::source(&error);
                let why = why.map_or(String::new(), |why| format!(": {why}"));
                let source = Arc::new(Source::new(self.name.as_str(), ""));
                let message = format!(
                    "the file is gone or can't be read{why}; {}. Bring it back, or remove {}",
                    in_force(&copy),
                    copy_path.unwrap_or_default().display()
                );
                self.warn(&source, "last-good-tags", message);
                return Ok(Some(file));
            }
        };
        let source = Arc::new(source);
        let mut reporter = Reporter::new(Arc::clone(&source));
        let file = if let Some((offset, problem)) = problem {
            let message = if problem.code == "file-too-large" {
                format!(
                    "the file has more than {} MiB: no provider's has",
                    yaml::MAX_FILE_BYTES / (1024 * 1024)
                )
            } else {
                problem.message
            };
            reporter.error(problem.code, Span { offset, length: 0 }, message);
            None
        } else {
            file::parse(&source, &stem(self.path), &mut reporter)
        };
        let mut findings = reporter.finish();
        let Some(file) = file else {
            if last.is_some() {
                findings.soften();
            }
            self.findings.append(findings);
            return Ok(last.map(|(copy, file)| {
                let message = format!("the file is of no use; {}", in_force(&copy));
                self.warn(&source, "last-good-tags", message);
                file
            }));
        };
        self.findings.append(findings);
        let unchanged = last
            .as_ref()
            .is_some_and(|(copy, _)| copy.text == source.text());
        if let Some((copy, before)) = last {
            if let Some(what) = self.shrunk(&before, &file) {
                if !self.options.accept_shrunk {
                    let copy_path = copy_path.unwrap_or_default();
                    let message = format!(
                        "{what}, less than half, which is no usual change; {}. If it is right, accept it by `tags: {{accept_shrunk: true}}` or --accept-shrunk-tags, or remove {}",
                        in_force(&copy),
                        copy_path.display()
                    );
                    self.warn(&source, "shrunken-tags", message);
                    return Ok(Some(before));
                }
                let message = format!("{what}, and is taken as was asked");
                self.warn(&source, "shrunken-tags", message);
            } else if let (Some(new), Some(old)) = (file.edition, before.edition)
                && new < old
            {
                let message = format!(
                    "edition {new} is older than {old}, which was in force: download the file again"
                );
                self.warn(&source, "older-tags", message);
            }
        }
        self.fresh = true;
        self.keep = copy_path
            .filter(|_| !unchanged)
            .map(|copy| Fresh { copy, source });
        Ok(Some(file))
    }

    fn parse_copy(&self, copy: Copy) -> Option<(Copy, TagFile)> {
        let source = Arc::new(Source::new(copy.source.as_str(), copy.text.as_str()));
        // What is wrong with it was said when it was taken.
        let mut reporter = Reporter::new(Arc::clone(&source));
        let file = file::parse(&source, &stem(self.path), &mut reporter)?;
        Some((copy, file))
    }

    fn warn(&mut self, source: &Arc<Source>, code: &'static str, message: String) {
        let findings = whole(source, Severity::Warning, code, message);
        self.findings.append(findings);
    }

    /// What of the file shrank by more than half, if anything that matters did.
    fn shrunk(&self, before: &TagFile, now: &TagFile) -> Option<String> {
        let halved = |before: usize, now: usize| now < before.div_ceil(2);
        for tag in self.used {
            let Some(old) = before.tags.get(tag).filter(|tag| tag.size() > 0) else {
                continue;
            };
            let new = now.tags.get(tag).map_or(0, ServiceTag::size);
            if halved(old.size(), new) {
                return Some(format!(
                    "`{}` shrank from {} to {new} entries",
                    old.name,
                    old.size()
                ));
            }
        }
        let (old, new) = (before.size(), now.size());
        halved(old, new).then(|| format!("the file shrank from {old} to {new} entries"))
    }
}

fn stem(path: &Path) -> String {
    path.file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn in_force(copy: &Copy) -> String {
    match copy.kept {
        Some(kept) => format!(
            "its last good copy, of {}, stays in force",
            humantime::format_rfc3339_seconds(kept)
        ),
        None => "its last good copy stays in force".to_owned(),
    }
}

/// Tags that are named and that no file has. `none` says that there are no files, `unread` that some are of no use, so
/// that they may have had it.
fn unknown(uses: &[TagUse], book: &TagBook, none: bool, unread: bool) -> Findings {
    let mut findings = Findings::default();
    let mut told = BTreeSet::new();
    for uses in uses.chunk_by(|a, b| Arc::ptr_eq(&a.source, &b.source)) {
        let Some(first) = uses.first() else { continue };
        let mut reporter = Reporter::new(Arc::clone(&first.source));
        for used in uses {
            let tag = &used.tag;
            if let Some(known) = book.get(tag) {
                if known.size() == 0 && used.by == UsedBy::Site {
                    reporter.warning(
                        "empty-tag",
                        used.span,
                        format!("`tag:{tag}` has neither addresses nor names in its file: nothing is recognized by it"),
                    );
                }
                continue;
            }
            let remedy = if none {
                "there are no tag files: name the provider's file by `tags: {paths: [...]}` or --tags".to_owned()
            } else if let Some(near) = book.nearest(tag) {
                format!("no tag file has it, did you mean `tag:{near}`?")
            } else {
                "no tag file has it: write it as the provider does, or add the file that has it"
                    .to_owned()
            };
            match used.by {
                // A file that can't be read is the error then.
                UsedBy::Site if unread => {}
                UsedBy::Site => reporter.error(
                    "unknown-tag",
                    used.span,
                    format!("`tag:{tag}` stands for nothing: {remedy}"),
                ),
                // The same tag of a pack may stand for many roles.
                UsedBy::Pack if told.insert((used.system, folded(tag))) => reporter.note(
                    "unknown-tag",
                    used.span,
                    format!("`tag:{tag}` adds no addresses to the names beside it: {remedy}"),
                ),
                UsedBy::Pack => {}
            }
        }
        findings.append(reporter.finish());
    }
    findings
}

#[cfg(test)]
mod tests;
