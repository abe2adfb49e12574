//! On what is measured. Nothing here tells whose machine it is.

use std::fs;
use std::process::Command;

/// CPU, kernel and versions of the peers, one a line.
pub(crate) fn describe() -> Vec<String> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        cpuinfo
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(key, _)| key.trim() == name)
            .map_or_else(
                || "unknown".to_owned(),
                |(_, value)| value.trim().to_owned(),
            )
    };
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
        .map_or_else(|| "unknown".to_owned(), |kib| format!("{} GiB", kib >> 20));
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    // A vendor's own suffix says nothing of the kernel.
    let release = release.trim().split('-').next().unwrap_or_default();
    let virtual_machine = if cpuinfo.contains(" hypervisor") {
        "a virtual machine"
    } else {
        "no virtual machine"
    };
    let mut lines = vec![
        format!(
            "machine: {} CPUs of {} (family {}, model {}), {memory} of memory, {virtual_machine}",
            crate::measure::cpus(),
            field("model name"),
            field("cpu family"),
            field("model"),
        ),
        format!("kernel: Linux {release}"),
    ];
    let peers: Vec<String> = ["softflowd", "nfdump", "argus-server", "tcpdump", "iperf3"]
        .into_iter()
        .map(|package| match version(package) {
            Some(version) => format!("{package} {version}"),
            None => format!("{package} (not installed)"),
        })
        .collect();
    lines.push(format!("peers, as Debian packages: {}", peers.join(", ")));
    lines
}

fn version(package: &str) -> Option<String> {
    let output = Command::new("dpkg-query")
        .args(["-W", "-f=${Version}", package])
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.is_empty()).then_some(text)
}
