//! The programs that flowproof is measured beside: where they are, how they are called, and what they say they did.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// Where a program is, in the folders of the administrator too.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder: PathBuf| folder.join(program))
        .find(|file: &PathBuf| Path::is_file(file))
}

/// The number behind `before` in what a program said, at its first place that has one.
fn number_behind(text: &str, before: &str) -> Option<u64> {
    text.match_indices(before).find_map(|(at, _)| {
        let rest = text[at + before.len()..].trim_start();
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        rest[..digits].parse().ok()
    })
}

/// The number at the start of the line that ends with `after`.
fn number_before(text: &str, after: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.trim().strip_suffix(after))
        .and_then(|rest| rest.trim().parse().ok())
}

/// Packets that a peer says it handled; nothing if it does not say.
pub(crate) fn packets(peer: &str, said: &str) -> Option<u64> {
    match peer {
        "softflowd" => number_behind(said, "Packets processed:"),
        // It says so once more at the end, for all of it.
        "nfpcapd" => number_behind(said, "Total: Processed:"),
        "tcpdump" => number_before(said, "packets captured"),
        // The summary of a replay.
        "flowproof" => number_behind(said, "\"packets\":"),
        _ => None,
    }
}

/// Bits a second that the receiver of `iperf3 -J` got.
pub(crate) fn iperf3_bits(json: &str) -> Result<f64> {
    let value: serde_json::Value = serde_json::from_str(json).context("iperf3 gave no JSON")?;
    if let Some(error) = value["error"].as_str() {
        bail!("iperf3: {error}");
    }
    value["end"]["sum_received"]["bits_per_second"]
        .as_f64()
        .context("iperf3 gave no rate")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOFTFLOWD: &str = "Number of active flows: 0\nPackets processed: 100\nFragments: 0\n\
        Ignored packets: 0 (0 non-IP, 0 too short)\nFlows expired: 10 (0 forced)\n";
    const NFPCAPD: &str = "Startup nfpcapd.\nProcessed: 60, skipped: 0, short caplen: 0, unknown: 0\n\
        Ident: 'none' Flows: 100, Packets: 100, Bytes: 4600\nTerminating flow processng\n\
        Total: Processed: 100, skipped: 0, short caplen: 0, unknown: 0\n";
    const TCPDUMP: &str = "tcpdump: listening on bench0, link-type EN10MB (Ethernet), snapshot length 96 bytes\n\
        1234 packets captured\n1300 packets received by filter\n66 packets dropped by kernel\n";

    #[test]
    fn peers_say_how_many_packets_they_handled() {
        for (peer, said, expect) in [
            ("softflowd", SOFTFLOWD, Some(100)),
            ("nfpcapd", NFPCAPD, Some(100)),
            ("tcpdump", TCPDUMP, Some(1234)),
            ("tcpdump", "tcpdump: no such device\n", None),
            ("argus", "anything 7", None),
        ] {
            assert_eq!(packets(peer, said), expect, "{peer}");
        }
    }

    #[test]
    fn iperf3_says_what_arrived() {
        let good = r#"{"end":{"sum_sent":{"bits_per_second":9.0},"sum_received":{"bits_per_second":8.5e9}}}"#;
        assert_eq!(iperf3_bits(good).unwrap(), 8.5e9);
        let bad = r#"{"end":{},"error":"unable to connect"}"#;
        let error = iperf3_bits(bad).unwrap_err().to_string();
        assert!(error.contains("unable to connect"), "{error}");
        assert!(iperf3_bits("no").is_err());
    }
}
