//! Adds up what the test binaries say: libtest has no machine-readable output on stable Rust, so its lines are read.

use std::collections::BTreeMap;

/// The sum over all test binaries and checks.
#[derive(Default, PartialEq, Eq, Debug)]
pub(super) struct Tally {
    passed: u64,
    failed: u64,
    ignored: u64,
    /// Names of failed tests and checks, in order.
    failures: Vec<String>,
    /// Why each test or check was skipped.
    skipped: BTreeMap<String, String>,
}

impl Tally {
    /// Reads one line of a test binary's output.
    pub(super) fn read(&mut self, line: &str) {
        if let Some(result) = line.strip_prefix("test result: ") {
            // "ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s"
            let counts = result.split_once(". ").map_or("", |(_, counts)| counts);
            for count in counts.split("; ") {
                match count
                    .split_once(' ')
                    .map(|(number, what)| (number.parse::<u64>(), what))
                {
                    Some((Ok(number), "passed")) => self.passed += number,
                    Some((Ok(number), "failed")) => self.failed += number,
                    Some((Ok(number), "ignored")) => self.ignored += number,
                    // Measured, filtered out, and the time.
                    Some(_) | None => {}
                }
            }
        } else if let Some((test, outcome)) = line
            .strip_prefix("test ")
            .and_then(|rest| rest.rsplit_once(" ... "))
        {
            if outcome == "FAILED" {
                self.failures.push(test.to_owned());
            } else if let Some(reason) = outcome.strip_prefix("ignored") {
                let reason = reason.trim_start_matches(", ");
                let reason = if reason.is_empty() {
                    "ignored in the source, without a reason"
                } else {
                    reason
                };
                self.skipped.insert(test.to_owned(), reason.to_owned());
            }
        }
    }

    /// Takes over a line of the skip log: a test that returned early, and which libtest counted as passed.
    pub(super) fn read_skip(&mut self, line: &str) {
        let (test, reason) = line.split_once('\t').unwrap_or((line, "no reason given"));
        if self
            .skipped
            .insert(test.to_owned(), reason.to_owned())
            .is_none()
        {
            self.passed = self.passed.saturating_sub(1);
            self.ignored += 1;
        }
    }

    /// A check or a test binary that failed as a whole.
    pub(super) fn fail(&mut self, what: String) {
        self.failed += 1;
        self.failures.push(what);
    }

    /// A check that couldn't be made here.
    pub(super) fn skip(&mut self, what: &str, reason: &str) {
        self.ignored += 1;
        self.skipped.insert(what.to_owned(), reason.to_owned());
    }

    /// How many tests and checks have failed so far.
    pub(super) fn failed(&self) -> u64 {
        self.failed
    }

    /// What failed, what was skipped and why, and last a line of its own with the sums.
    pub(super) fn report(&self) -> String {
        let mut text = String::new();
        for failure in &self.failures {
            text.push_str(&format!("FAILED {failure}\n"));
        }
        for (test, reason) in &self.skipped {
            text.push_str(&format!("SKIPPED {test}: {reason}\n"));
        }
        text.push_str(&format!(
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.ignored
        ));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;

    fn tally(lines: &str) -> Tally {
        let mut tally = Tally::default();
        lines.lines().for_each(|line| tally.read(line));
        tally
    }

    #[test]
    fn binaries_are_summed() {
        let tally = tally(
            "running 3 tests\n\
             test a::b ... ok\n\
             test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s\n\
             \n\
             test c ... FAILED\n\
             test result: FAILED. 4 passed; 1 failed; 0 ignored; 0 measured; 2 filtered out; finished in 1.20s\n",
        );
        assert_eq!(tally.report(), "FAILED c\n7 passed, 1 failed, 0 skipped");
        assert_eq!(tally.failed(), 1);
    }

    #[test]
    fn ignored_tests_are_skipped_with_their_reason() {
        let tally = tally(
            "test slow ... ignored, takes an hour\n\
             test bare ... ignored\n\
             test result: ok. 0 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.00s\n",
        );
        assert_eq!(
            tally.report(),
            "SKIPPED bare: ignored in the source, without a reason\n\
             SKIPPED slow: takes an hour\n\
             0 passed, 0 failed, 2 skipped"
        );
    }

    #[test]
    fn a_test_that_skipped_itself_has_not_passed() {
        let mut tally = tally(
            "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n",
        );
        tally.read_skip("lab\tneeds root");
        tally.read_skip("lab\tneeds root");
        assert_eq!(
            tally.report(),
            "SKIPPED lab: needs root\n1 passed, 0 failed, 1 skipped"
        );
    }

    #[test]
    fn checks_count_when_they_fail_or_are_skipped() {
        let mut tally = Tally::default();
        tally.fail("clippy".to_owned());
        tally.skip("rustfmt", "the component is missing");
        assert_eq!(
            tally.report(),
            "FAILED clippy\nSKIPPED rustfmt: the component is missing\n0 passed, 1 failed, 1 skipped"
        );
    }
}
