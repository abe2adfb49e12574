//! What the kernel says of each thread of this process (`/proc/self/task/*/status`). Capabilities, no_new_privs and seccomp
//! belong to threads, so whether a layer is in force can only be told by looking at all of them.

use std::fs;
use std::path::Path;

/// A thread, as far as privileges go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Thread {
    /// What it was named.
    pub(super) name: String,
    /// Its permitted capabilities, a bit each.
    pub(super) permitted: u64,
    /// Whether programs that it starts gain nothing.
    pub(super) no_new_privs: bool,
    /// Whether its system calls are filtered.
    pub(super) filtered: bool,
}

/// All threads there are; none if /proc can't be read.
pub(super) fn all() -> Vec<Thread> {
    fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        // One that ended meanwhile has nothing any more.
        .filter_map(|task| read(&task.path().join("status")))
        .collect()
}

fn read(path: &Path) -> Option<Thread> {
    parse(&fs::read_to_string(path).ok()?)
}

fn parse(status: &str) -> Option<Thread> {
    let value = |key: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))
            .map(str::trim)
    };
    Some(Thread {
        name: value("Name")?.to_owned(),
        permitted: u64::from_str_radix(value("CapPrm")?, 16).ok()?,
        // Linux 4.10 and later say so.
        no_new_privs: value("NoNewPrivs") == Some("1"),
        // `SECCOMP_MODE_FILTER`.
        filtered: value("Seccomp") == Some("2"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        let status = "Name:\tcapture\nUmask:\t0022\nCapInh:\t0000000000000000\nCapPrm:\t000000c000001000\n\
            CapEff:\t000000c000001000\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t2\n";
        let thread = parse(status).unwrap();
        assert_eq!(thread.name, "capture");
        assert_eq!(thread.permitted, 1 << 39 | 1 << 38 | 1 << 12);
        assert!(thread.no_new_privs && thread.filtered);
        assert_eq!(parse("Name:\tx\n"), None);
    }

    #[test]
    fn finds_its_own_threads() {
        let name = "found-by-a-test";
        let (ask, asked) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || asked.recv())
            .unwrap();
        // A thread names itself, after it was made.
        while !all().iter().any(|thread| thread.name == name) {
            std::thread::yield_now();
        }
        drop(ask);
        assert!(thread.join().unwrap().is_err());
    }
}
