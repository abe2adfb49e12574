//! Samples and what is said of them: the median, and the spread from the least to the greatest. Ratios are taken
//! between runs that followed each other, so that a machine that slows down slows both.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// What was measured, once a run.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    /// Adds a run.
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// Whether there was no run.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many runs there were.
    pub(crate) fn runs(&self) -> usize {
        self.0.len()
    }

    /// The middle one, or the mean of the two in the middle; NaN without any.
    pub(crate) fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        match sorted.len() {
            0 => f64::NAN,
            count if count % 2 == 1 => sorted[count / 2],
            count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
        }
    }

    /// The least and the greatest; NaN without any.
    pub(crate) fn spread(&self) -> (f64, f64) {
        let least = self.0.iter().copied().reduce(f64::min);
        let greatest = self.0.iter().copied().reduce(f64::max);
        (least.unwrap_or(f64::NAN), greatest.unwrap_or(f64::NAN))
    }

    /// The value below which `part` (0 to 1) of the runs lie: nearest rank.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank is between 0 and the number of runs"
    )]
    pub(crate) fn percentile(&self, part: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (part * sorted.len() as f64).ceil() as usize;
        sorted
            .get(rank.clamp(1, sorted.len().max(1)) - 1)
            .copied()
            .unwrap_or(f64::NAN)
    }

    /// This run by run divided by `other`, whose runs took turns with these.
    pub(crate) fn over(&self, other: &Self) -> Self {
        self.zip(other, |a, b| a / b)
    }

    /// This run by run less `other`.
    pub(crate) fn less(&self, other: &Self) -> Self {
        self.zip(other, |a, b| a - b)
    }

    /// Each run by itself.
    pub(crate) fn map(&self, change: impl Fn(f64) -> f64) -> Self {
        Self(self.0.iter().map(|value| change(*value)).collect())
    }

    fn zip(&self, other: &Self, join: impl Fn(f64, f64) -> f64) -> Self {
        Self(
            self.0
                .iter()
                .zip(&other.0)
                .map(|(a, b)| join(*a, *b))
                .collect(),
        )
    }
}

impl FromIterator<f64> for Samples {
    fn from_iter<T: IntoIterator<Item = f64>>(values: T) -> Self {
        Self(values.into_iter().collect())
    }
}

/// What a program took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    /// From its start to its end, seconds.
    pub(crate) wall: f64,
    /// User and system time, seconds.
    pub(crate) cpu: f64,
    /// The most memory it had at a time, MiB.
    pub(crate) peak: f64,
}

/// The verb by which this program runs another and says what that took.
pub(crate) const TIMED: &str = "timed";

/// Runs a program to its end and says what it took. Its output is dropped; what it says on standard error is shown if
/// it fails.
///
/// It is started by a process of its own: the kernel takes the memory of whoever starts a program for the program's
/// first, and this one's holds whole traffics.
pub(crate) fn run(own: &Path, command: &Command) -> Result<Usage> {
    let result = tempfile::NamedTempFile::new()?;
    let output = Command::new(own)
        .arg(TIMED)
        .arg(result.path())
        .arg(command.get_program())
        .args(command.get_args())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .output()
        .with_context(|| format!("can't start {}", own.display()))?;
    if !output.status.success() {
        bail!(
            "{command:?}: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let text = std::fs::read_to_string(result.path())?;
    Usage::parse(&text).with_context(|| format!("no usage: {text:?}"))
}

/// The other half of [`run`]: runs `program`, writes what it took to `result`.
pub(crate) fn timed(result: &Path, program: &str, arguments: &[String]) -> Result<()> {
    let start = Instant::now();
    let child = Command::new(program)
        .args(arguments)
        .spawn()
        .with_context(|| format!("can't start {program}"))?;
    let (status, usage) = crate::system::wait_with_usage(child.id())?;
    let usage = Usage {
        wall: start.elapsed().as_secs_f64(),
        ..usage
    };
    let status = ExitStatus::from_raw(status);
    if !status.success() {
        bail!("{program}: {status}");
    }
    std::fs::write(result, usage.to_text())?;
    Ok(())
}

impl Usage {
    fn to_text(self) -> String {
        format!("{} {} {}", self.wall, self.cpu, self.peak)
    }

    fn parse(text: &str) -> Option<Self> {
        let numbers: Option<Vec<f64>> = text
            .split_whitespace()
            .map(|word| word.parse().ok())
            .collect();
        match numbers?[..] {
            [wall, cpu, peak] => Some(Self { wall, cpu, peak }),
            _ => None,
        }
    }
}

/// Runs a program to its end and returns all that it said.
pub(crate) fn said(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("can't start {command:?}"))?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    if !output.status.success() {
        bail!("{command:?}: {}\n{text}", output.status);
    }
    Ok(text)
}

/// Does `work` on one CPU: the last, since interrupts like the first.
pub(crate) fn pinned<T>(cpu: usize, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let own = Pid::from_raw(0);
    let before = nix::sched::sched_getaffinity(own).context("can't tell this thread's CPUs")?;
    let mut only = CpuSet::new();
    only.set(cpu).context("no such CPU")?;
    sched_setaffinity(own, &only).with_context(|| format!("can't move to CPU {cpu}"))?;
    let done = work();
    sched_setaffinity(own, &before).context("can't move back to all CPUs")?;
    done
}

/// How many CPUs this thread may run on.
pub(crate) fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Nanoseconds that a piece of work takes each time: it is repeated for about `least`, and the mean of one is taken.
pub(crate) fn nanoseconds(least: Duration, each: usize, mut work: impl FnMut()) -> f64 {
    let start = Instant::now();
    let mut rounds = 0_u32;
    loop {
        work();
        rounds += 1;
        let spent = start.elapsed();
        if spent >= least {
            return spent.as_secs_f64() * 1e9 / f64::from(rounds) / each as f64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(values: &[f64]) -> Samples {
        values.iter().copied().collect()
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(samples(&[3.0, 1.0, 2.0]).median(), 2.0);
        assert_eq!(samples(&[4.0, 1.0, 2.0, 3.0]).median(), 2.5);
        assert!(Samples::default().median().is_nan());
        assert_eq!(samples(&[3.0, 1.0, 2.0]).spread(), (1.0, 3.0));
    }

    #[test]
    fn the_percentile_is_a_value_that_was_measured() {
        let hundred: Samples = (1..=100).map(f64::from).collect();
        assert_eq!(hundred.percentile(0.99), 99.0);
        assert_eq!(samples(&[5.0]).percentile(0.99), 5.0);
        assert!(Samples::default().percentile(0.5).is_nan());
    }

    #[test]
    fn ratios_are_between_runs_of_one_round() {
        let ratio = samples(&[2.0, 9.0]).over(&samples(&[1.0, 3.0]));
        assert_eq!(ratio, samples(&[2.0, 3.0]));
    }

    #[test]
    fn what_a_program_took_comes_through_a_file() {
        let result = tempfile::NamedTempFile::new().unwrap();
        let shell = |text: &str| timed(result.path(), "sh", &["-c".to_owned(), text.to_owned()]);
        assert!(shell("exit 3").is_err());
        shell("exit 0").unwrap();
        let usage = Usage::parse(&std::fs::read_to_string(result.path()).unwrap()).unwrap();
        assert!(usage.wall > 0.0 && usage.peak > 0.0);
        assert!(Usage::parse("1 2").is_none());
    }

    #[test]
    fn a_program_that_fails_says_why() {
        let error = said(Command::new("sh").args(["-c", "echo broken >&2; exit 3"])).unwrap_err();
        assert!(error.to_string().contains("broken"), "{error}");
    }
}
