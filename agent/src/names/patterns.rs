//! Which patterns of the matrix a name matches. Every name in every DNS answer and ClientHello comes through here, so
//! the cost depends on the length of the name and not on how many patterns there are.
//!
//! Precedence does not exist: a name matches all patterns that fit. The rules, right to left by label:
//! - a `*` as the whole first label stands for one label or more: `*.example.org` fits `a.example.org` and
//!   `a.b.example.org`, but neither `example.org` nor `badexample.org`;
//! - a `*` as a whole label elsewhere stands for exactly one label;
//! - a `*` within a label stands for any part of that label, also an empty one, and never crosses a dot.

use foldhash::HashMap;

use super::answer::Name;
use crate::matrix::NamePattern;

/// Position of a pattern in the input of [`PatternIndex::new`].
pub type PatternId = u32;

/// All patterns, ready to be looked up.
///
/// Names without wildcards are hashed. A wildcard lies in a trie of its text behind the last `*`, read from the end,
/// and there in a trie of its text before the first `*`. Both tries are walked by the bytes of the name at hand. Only
/// wildcards with the same text at both ends, hence with two or more `*`, are compared one by one.
#[derive(Debug)]
pub struct PatternIndex {
    patterns: Vec<NamePattern>,
    exact: HashMap<Name, Vec<PatternId>>,
    steps: HashMap<(usize, u8), usize>,
    nodes: Vec<Node>,
    wildcards: usize,
}

/// A place in a trie. The first node is the root of the endings.
#[derive(Debug, Default)]
struct Node {
    /// Root of the beginnings of the patterns whose ending leads here.
    beginnings: Option<usize>,
    /// Patterns whose beginning leads here, and their positions.
    ends: Vec<(NamePattern, Vec<PatternId>)>,
}

impl Default for PatternIndex {
    /// No patterns.
    fn default() -> Self {
        Self::new([])
    }
}

impl PatternIndex {
    /// Indexes patterns; the same pattern may come several times.
    #[must_use]
    pub fn new(patterns: impl IntoIterator<Item = NamePattern>) -> Self {
        let mut index = Self {
            patterns: Vec::new(),
            exact: HashMap::default(),
            steps: HashMap::default(),
            nodes: vec![Node::default()],
            wildcards: 0,
        };
        for (id, pattern) in (0..).zip(patterns) {
            index.insert(id, &pattern);
            index.patterns.push(pattern);
        }
        index
    }

    fn insert(&mut self, id: PatternId, pattern: &NamePattern) {
        let (Some((beginning, _)), Some((_, ending))) = (
            pattern.as_str().split_once('*'),
            pattern.as_str().rsplit_once('*'),
        ) else {
            self.exact
                .entry(Name::from(pattern.as_str()))
                .or_default()
                .push(id);
            return;
        };
        let node = ending
            .bytes()
            .rev()
            .fold(0, |node, byte| self.step(node, byte));
        let root = match self.nodes[node].beginnings {
            Some(root) => root,
            None => {
                let root = self.grow();
                self.nodes[node].beginnings = Some(root);
                root
            }
        };
        let node = beginning
            .bytes()
            .fold(root, |node, byte| self.step(node, byte));
        let ends = &mut self.nodes[node].ends;
        match ends.iter_mut().find(|(known, _)| known == pattern) {
            Some((_, ids)) => ids.push(id),
            None => {
                ends.push((pattern.clone(), vec![id]));
                self.wildcards += 1;
            }
        }
    }

    fn step(&mut self, node: usize, byte: u8) -> usize {
        if let Some(next) = self.steps.get(&(node, byte)) {
            return *next;
        }
        let next = self.grow();
        self.steps.insert((node, byte), next);
        next
    }

    fn grow(&mut self) -> usize {
        self.nodes.push(Node::default());
        self.nodes.len() - 1
    }

    /// The nodes that a text leads to from a root, the root itself first.
    fn walk(&self, root: usize, bytes: impl Iterator<Item = u8>) -> impl Iterator<Item = &'_ Node> {
        std::iter::once(root)
            .chain(bytes.scan(root, |node, byte| {
                *node = *self.steps.get(&(*node, byte))?;
                Some(*node)
            }))
            .map(|node| &self.nodes[node])
    }

    /// The patterns that a name fits, each once, in no order. The name is in the form of
    /// [`fold`](super::answer::fold).
    pub fn matches(&self, name: &str) -> impl Iterator<Item = PatternId> {
        let mut ids = Vec::new();
        self.matches_into(name, &mut ids);
        ids.into_iter()
    }

    /// As [`PatternIndex::matches`], added to a list.
    pub fn matches_into(&self, name: &str, ids: &mut Vec<PatternId>) {
        if let Some(exact) = self.exact.get(name) {
            ids.extend_from_slice(exact);
        }
        for root in self
            .walk(0, name.bytes().rev())
            .filter_map(|node| node.beginnings)
        {
            for node in self.walk(root, name.bytes()) {
                for (pattern, found) in &node.ends {
                    if fits(pattern.as_str(), name) {
                        ids.extend_from_slice(found);
                    }
                }
            }
        }
    }

    /// The pattern at a position.
    #[must_use]
    pub fn get(&self, id: PatternId) -> Option<&NamePattern> {
        self.patterns.get(usize::try_from(id).ok()?)
    }

    /// All patterns, in the order of their positions.
    #[must_use]
    pub fn patterns(&self) -> &[NamePattern] {
        &self.patterns
    }

    /// How many different names without a wildcard there are.
    #[must_use]
    pub fn exact_names(&self) -> usize {
        self.exact.len()
    }

    /// How many different patterns with a wildcard there are.
    #[must_use]
    pub fn wildcards(&self) -> usize {
        self.wildcards
    }
}

/// Whether a name fits a pattern with wildcards, label by label from the end.
fn fits(pattern: &str, name: &str) -> bool {
    let (open, pattern) = pattern
        .strip_prefix("*.")
        .map_or((false, pattern), |rest| (true, rest));
    let mut labels = name.rsplit('.');
    for glob in pattern.rsplit('.') {
        if !labels.next().is_some_and(|label| label_fits(glob, label)) {
            return false;
        }
    }
    match labels.next() {
        Some(label) => open && !label.is_empty(),
        None => !open,
    }
}

/// Whether a label fits, where each `*` stands for any text. The part before the first `*` and the part behind the
/// last are fixed at the ends; between them every part is taken at its first place, which never needs a second try.
fn label_fits(glob: &str, label: &str) -> bool {
    if label.is_empty() {
        return false;
    }
    let Some((beginning, rest)) = glob.split_once('*') else {
        return glob == label;
    };
    let (middle, ending) = rest.rsplit_once('*').unwrap_or(("", rest));
    let Some(mut label) = label
        .strip_prefix(beginning)
        .and_then(|label| label.strip_suffix(ending))
    else {
        return false;
    };
    for part in middle.split('*') {
        let Some(at) = label.find(part) else {
            return false;
        };
        label = &label[at + part.len()..];
    }
    true
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    fn index(patterns: &[&str]) -> PatternIndex {
        PatternIndex::new(patterns.iter().map(|text| NamePattern::new(text).unwrap()))
    }

    fn check(pattern: &str, yes: &[&str], no: &[&str]) {
        let index = index(&[pattern]);
        for name in yes {
            assert_eq!(
                index.matches(name).collect::<Vec<_>>(),
                [0],
                "{pattern} {name}"
            );
        }
        for name in no {
            assert_eq!(index.matches(name).count(), 0, "{pattern} {name}");
        }
    }

    #[test]
    fn names_without_wildcard() {
        check(
            "www.example.org",
            &["www.example.org"],
            &[
                "example.org",
                "a.www.example.org",
                "wwww.example.org",
                "www.example.org.uk",
            ],
        );
    }

    #[test]
    fn whole_first_label() {
        check(
            "*.example.org",
            &[
                "a.example.org",
                "a.b.c.example.org",
                "example.org.example.org",
                "a.example.example.org",
            ],
            &[
                "example.org",
                "badexample.org",
                "a.badexample.org",
                "a.example.org.uk",
                "a.example.or",
                "org",
                ".example.org",
            ],
        );
        check(
            "*.*.example.org",
            &["a.b.example.org", "a.b.c.example.org"],
            &["a.example.org"],
        );
        check(
            "*.b*.org",
            &["a.b.org", "a.c.bd.org"],
            &["b.org", "a.c.org"],
        );
    }

    #[test]
    fn whole_label_elsewhere() {
        check(
            "gcs.*.monitoring.example.org",
            &["gcs.prod.monitoring.example.org"],
            &[
                "gcs.monitoring.example.org",
                "gcs..monitoring.example.org",
                "gcs.a.b.monitoring.example.org",
                "a.gcs.b.monitoring.example.org",
            ],
        );
        check("www.*", &["www.org"], &["www", "www.example.org", "a.org"]);
    }

    #[test]
    fn parts_of_labels() {
        check(
            "*xt.blob.example.org",
            &["xt.blob.example.org", "axt.blob.example.org"],
            &[
                "a.xt.blob.example.org",
                "b.axt.blob.example.org",
                "axtb.blob.example.org",
                "blob.example.org",
            ],
        );
        check(
            "a*b.example.org",
            &["ab.example.org", "aab.example.org", "a-b.example.org"],
            &["a.example.org", "b.example.org", "a.b.example.org"],
        );
        check(
            "aba*aba.org",
            &["abaaba.org", "abacaba.org"],
            &["ababa.org", "aba.org"],
        );
        check(
            "a*bc*bc*d.org",
            &["abcbcd.org", "axbcbcbcyd.org"],
            &["abcd.org", "abcbc.org", "abcbdcd.org"],
        );
    }

    #[test]
    fn without_patterns_nothing_matches() {
        assert_eq!(
            PatternIndex::default().matches("www.example.org").count(),
            0
        );
    }

    #[test]
    fn hostile_globs_take_no_time() {
        let glob = "*a".repeat(30) + "*b.example.org";
        let name = "a".repeat(63) + ".example.org";
        check(&glob, &[&name.replacen("aaa.", "aab.", 1)], &[&name]);
    }

    #[test]
    fn a_pattern_may_come_twice_and_names_fit_many() {
        let index = index(&[
            "*.example.org",
            "a.example.org",
            "*.example.org",
            "a*.example.org",
            "*.org",
            "a.example.org",
            "*.net",
            "*a.example.org",
        ]);
        let mut ids = vec![99];
        index.matches_into("a.example.org", &mut ids);
        ids.sort_unstable();
        assert_eq!(ids, [0, 1, 2, 3, 4, 5, 7, 99]);
        assert_eq!((index.exact_names(), index.wildcards()), (1, 5));
        assert_eq!(index.get(6).unwrap().as_str(), "*.net");
        assert_eq!(index.get(8), None);
    }

    /// Every wildcard in the `names` of the rule packs.
    fn printed_wildcards() -> BTreeSet<String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rules");
        let mut wildcards = BTreeSet::new();
        for file in std::fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "yaml") {
                continue;
            }
            for line in std::fs::read_to_string(path).unwrap().lines() {
                let Some((_, names)) = line.split_once("names: [") else {
                    continue;
                };
                let (names, _) = names.split_once(']').unwrap();
                wildcards.extend(
                    names
                        .split(',')
                        .map(|name| name.trim().trim_matches('"').to_owned())
                        .filter(|name| name.contains('*')),
                );
            }
        }
        wildcards
    }

    #[test]
    fn every_wildcard_of_the_packs() {
        let wildcards = printed_wildcards();
        assert!(wildcards.len() >= 20, "{wildcards:?}");
        for wildcard in wildcards {
            let (stem, rest) = wildcard.strip_prefix('*').unwrap().split_once('.').unwrap();
            if stem.is_empty() {
                check(
                    &wildcard,
                    &[
                        &format!("a.{rest}"),
                        &format!("a-1.b.{rest}"),
                        &format!("{rest}.{rest}"),
                    ],
                    &[
                        rest,
                        &format!("a{rest}"),
                        &format!("b.a{rest}"),
                        &format!("a.{rest}.org"),
                        &format!("a.{}", &rest[1..]),
                    ],
                );
            } else {
                check(
                    &wildcard,
                    &[
                        &format!("{stem}.{rest}"),
                        &format!("a-1{stem}.{rest}"),
                        &format!("{stem}{stem}.{rest}"),
                    ],
                    &[
                        rest,
                        &format!("a.{stem}.{rest}"),
                        &format!("a{stem}b.{rest}"),
                        &format!("b.a{stem}.{rest}"),
                        &format!("a{stem}.a.{rest}"),
                        &format!("a{stem}{rest}"),
                        &format!("a{stem}.{rest}.org"),
                        &format!("a{}.{rest}", &stem[1..]),
                    ],
                );
            }
        }
    }

    /// The rules as they are written down, tried in every way.
    fn naive(pattern: &[&str], name: &[&str], first: bool) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, None) => true,
            (Some((&"*", pattern)), Some((_, name))) if first => {
                (0..=name.len()).any(|skip| naive(pattern, &name[skip..], false))
            }
            (Some((glob, pattern)), Some((label, name))) => {
                naive_label(glob.as_bytes(), label.as_bytes()) && naive(pattern, name, false)
            }
            (None, Some(_)) | (Some(_), None) => false,
        }
    }

    fn naive_label(glob: &[u8], label: &[u8]) -> bool {
        match glob.split_first() {
            None => label.is_empty(),
            Some((b'*', glob)) => (0..=label.len()).any(|skip| naive_label(glob, &label[skip..])),
            Some((byte, glob)) => label.first() == Some(byte) && naive_label(glob, &label[1..]),
        }
    }

    fn labels(text: &str) -> Vec<&str> {
        text.split('.').collect()
    }

    mod properties {
        use super::*;

        proptest! {
            #![proptest_config(ProptestConfig::with_cases(2000))]

            #[test]
            fn index_agrees_with_the_rules(
                texts in prop::collection::vec("([ab*]{1,4}\\.){0,3}[ab]{1,2}|[ab]{1,2}\\.\\*", 1..20),
                names in prop::collection::vec("([ab]{1,4}\\.){0,4}[ab]{1,2}", 1..10),
            ) {
                let patterns: Vec<_> = texts.iter().filter_map(|text| NamePattern::new(text).ok()).collect();
                let index = PatternIndex::new(patterns.iter().cloned());
                for name in &names {
                    let expected: Vec<u32> = (0..).zip(&patterns)
                        .filter(|(_, pattern)| naive(&labels(pattern.as_str()), &labels(name), true))
                        .map(|(id, _)| id)
                        .collect();
                    let mut found: Vec<u32> = index.matches(name).collect();
                    found.sort_unstable();
                    prop_assert_eq!(found, expected, "{:?} {}", &patterns, name);
                }
            }
        }
    }
}
