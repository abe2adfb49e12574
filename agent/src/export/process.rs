//! What the daemon's process takes from its host, under the names that every client library of Prometheus gives it, so
//! that dashboards and alerts on processes work. Read here and not by the library's collector, which counts processor time
//! in whole seconds.

use std::fs;
use std::sync::OnceLock;

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use nix::sys::time::TimeVal;
use nix::unistd::{SysconfVar, sysconf};

/// What is known of the process. What the system does not tell is missing.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Process {
    /// Seconds of processor time, of users and the system.
    pub cpu_seconds: Option<f64>,
    /// Bytes in memory.
    pub resident_bytes: Option<f64>,
    /// Bytes of addresses.
    pub virtual_bytes: Option<f64>,
    /// File descriptors.
    pub open_fds: Option<f64>,
    /// File descriptors that it may have.
    pub max_fds: Option<f64>,
    /// Threads.
    pub threads: Option<f64>,
    /// When it began, seconds since the Unix epoch.
    pub start_seconds: Option<f64>,
}

#[expect(
    clippy::cast_precision_loss,
    reason = "Prometheus samples are 64-bit floats"
)]
const fn float(number: u64) -> f64 {
    number as f64
}

fn system(variable: SysconfVar) -> Option<u64> {
    u64::try_from(sysconf(variable).ok()??).ok()
}

/// The fields of `/proc/self/stat` after the name, which may hold anything; the first is number 3 of proc(5).
fn stat_fields(stat: &str) -> Vec<&str> {
    stat.rsplit_once(')')
        .map(|(_, rest)| rest.split_ascii_whitespace().collect())
        .unwrap_or_default()
}

fn stat_field(fields: &[&str], number: usize) -> Option<u64> {
    fields.get(number - 3)?.parse().ok()
}

/// When the system began, seconds since the Unix epoch.
fn boot_seconds(stat: &str) -> Option<u64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "));
    line?.trim().parse().ok()
}

/// It does not change, and `/proc/stat` is long on large machines.
fn start_seconds(fields: &[&str]) -> Option<f64> {
    static START: OnceLock<Option<f64>> = OnceLock::new();
    *START.get_or_init(|| {
        let ticks = stat_field(fields, 22)?;
        let a_second = system(SysconfVar::CLK_TCK)?;
        let boot = boot_seconds(&fs::read_to_string("/proc/stat").ok()?)?;
        Some(float(boot) + float(ticks) / float(a_second))
    })
}

fn cpu_seconds() -> Option<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let seconds = |time: TimeVal| -> Option<f64> {
        let (seconds, micros) = (u64::try_from(time.tv_sec()), u64::try_from(time.tv_usec()));
        Some(float(seconds.ok()?) + float(micros.ok()?) / 1e6)
    };
    Some(seconds(usage.user_time())? + seconds(usage.system_time())?)
}

impl Process {
    /// This process, now.
    #[must_use]
    pub fn now() -> Self {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let fields = stat_fields(&stat);
        let pages = stat_field(&fields, 24).and_then(|pages| {
            let page = system(SysconfVar::PAGE_SIZE)?;
            Some(float(pages) * float(page))
        });
        // The one that lists them is among them.
        let listed = fs::read_dir("/proc/self/fd").map(Iterator::count).ok();
        let open = listed.and_then(|count| u64::try_from(count.saturating_sub(1)).ok());
        let limit = getrlimit(Resource::RLIMIT_NOFILE).ok();
        Self {
            cpu_seconds: cpu_seconds(),
            resident_bytes: pages,
            virtual_bytes: stat_field(&fields, 23).map(float),
            open_fds: open.map(float),
            max_fds: limit.map(|(soft, _)| float(soft)),
            threads: stat_field(&fields, 20).map(float),
            start_seconds: start_seconds(&fields),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let fields = stat_fields("7 (a) b (c) S 1 7 7\n");
        assert_eq!(fields, ["S", "1", "7", "7"]);
        assert_eq!(stat_field(&fields, 4), Some(1));
        assert_eq!(
            (stat_field(&fields, 3), stat_field(&fields, 22)),
            (None, None)
        );
        assert_eq!(
            boot_seconds("cpu 1 2\nbtime 1700000000\nx 1\n"),
            Some(1_700_000_000)
        );
    }

    #[test]
    fn this_process_is_as_it_is() {
        let files: Vec<_> = (0..5)
            .map(|_| fs::File::open("/proc/self/stat").unwrap())
            .collect();
        let first = Process::now();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let age = now.as_secs_f64() - first.start_seconds.unwrap();
        // The time since boot is exact to a second.
        assert!((-1.5..86_400.0).contains(&age), "{age}");
        assert!(
            first.open_fds.unwrap() >= 8.0 && first.max_fds.unwrap() >= first.open_fds.unwrap()
        );
        assert!(first.threads.unwrap() >= 1.0);
        let resident = first.resident_bytes.unwrap();
        assert!(
            resident > 1e6 && resident < first.virtual_bytes.unwrap(),
            "{first:?}"
        );
        drop(files);
        // Work that nobody may leave out.
        let sum =
            (0..30_000_000_u64).fold(0, |sum: u64, number| std::hint::black_box(sum ^ number));
        std::hint::black_box(sum);
        let cpu = Process::now().cpu_seconds.unwrap() - first.cpu_seconds.unwrap();
        assert!(cpu > 0.0 && cpu < 100.0, "{cpu}");
    }
}
