//! Names of components that the document prints in full somewhere, so that a cut or run-together one can be told.

use super::*;

/// Names of components that the document has in full.
#[derive(Debug, Default)]
pub(super) struct Known {
    keys: HashSet<String>,
    headings: HashSet<String>,
    longest: usize,
}

impl Known {
    /// Single words are too easily pieces of a name, unless they stand as a heading.
    pub(super) fn insert(&mut self, title: &str, heading: bool) {
        let key = words(title);
        let count = key.split(' ').count();
        if !key.is_empty() && count <= 8 && (heading || count >= 2) {
            self.longest = self.longest.max(count);
            if heading {
                self.headings.insert(key.clone());
            }
            self.keys.insert(key);
        }
    }

    pub(super) fn contains(&self, title: &str) -> bool {
        self.keys.contains(&words(title))
    }

    pub(super) fn is_heading(&self, title: &str) -> bool {
        self.headings.contains(&words(title))
    }

    /// Takes a cell apart into as many known names as there are; at most one piece may be unknown.
    pub(super) fn segments(&self, text: &str) -> Vec<String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        if words.len() > LONGEST_SENTENCE {
            return vec![squeeze(text)];
        }
        // For every number of words: most known pieces, without and with an unknown piece, and where the last began.
        type Best = Option<(usize, usize, bool)>;
        let mut best: Vec<[Best; 2]> = vec![[None, None]; words.len() + 1];
        best[0][0] = Some((0, 0, false));
        for end in 1..=words.len() {
            for start in end.saturating_sub(self.longest.max(8))..end {
                let piece = words[start..end].join(" ");
                let is_known = self.contains(&piece);
                for state in 0..2 {
                    let Some((count, _, _)) = best[start][state] else {
                        continue;
                    };
                    let (next, value) = if is_known {
                        (state, count + 1)
                    } else if state == 0 {
                        (1, count)
                    } else {
                        continue;
                    };
                    if best[end][next].is_none_or(|(other, _, _)| value > other) {
                        best[end][next] = Some((value, start, state == 1));
                    }
                }
            }
        }
        let last = &best[words.len()];
        let known_pieces = |entry: Best| entry.map_or(0, |(count, _, _)| count);
        let mut state = usize::from(known_pieces(last[1]) > known_pieces(last[0]));
        if known_pieces(last[state]) == 0 {
            return vec![squeeze(text)];
        }
        let mut pieces = Vec::new();
        let mut end = words.len();
        while end > 0 {
            let Some((_, start, before)) = best[end][state] else {
                return vec![squeeze(text)];
            };
            pieces.push(words[start..end].join(" "));
            state = usize::from(before);
            end = start;
        }
        pieces.reverse();
        pieces
    }
}
