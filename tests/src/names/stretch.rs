//! Makes a recording last longer: what took 20 s in a lab becomes ten minutes, so that lifetimes of names can be judged
//! as they are and not as a hurried test would have them.

use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};

/// Lengths of the header of a classic capture file, and of a packet in it (draft-ietf-opsawg-pcap).
const FILE_HEADER: usize = 24;
const PACKET_HEADER: usize = 16;

/// Writes the capture file `from` (classic pcap of this machine's byte order, with microseconds) to `to`, with `factor`
/// times the time between all packets. Returns the seconds that the new one lasts.
///
/// # Errors
/// A file can't be read or written, or is no such capture file.
pub fn stretch(from: &Path, to: &Path, factor: u64) -> Result<u64> {
    let mut bytes =
        std::fs::read(from).with_context(|| format!("can't read {}", from.display()))?;
    if bytes.get(..4) != Some(&0xa1b2_c3d4_u32.to_ne_bytes()) {
        bail!("{} is no capture file with microseconds", from.display());
    }
    let word = |bytes: &[u8], at: usize| -> Result<u64> {
        let word = bytes.get(at..at + 4).context("the capture file is cut")?;
        Ok(u32::from_ne_bytes(word.try_into()?).into())
    };
    let (mut at, mut first, mut last) = (FILE_HEADER, None, 0);
    while at < bytes.len() {
        let micros = word(&bytes, at)? * 1_000_000 + word(&bytes, at + 4)?;
        let begin = *first.get_or_insert(micros);
        // Two CPUs may note packets out of order by a little.
        let passed = micros.saturating_sub(begin) * factor;
        last = last.max(passed);
        let time = begin + passed;
        for (offset, value) in [(0, time / 1_000_000), (4, time % 1_000_000)] {
            bytes[at + offset..at + offset + 4]
                .copy_from_slice(&u32::try_from(value)?.to_ne_bytes());
        }
        at += PACKET_HEADER + usize::try_from(word(&bytes, at + 8)?)?;
    }
    ensure!(first.is_some(), "{} has no packets", from.display());
    std::fs::write(to, bytes).with_context(|| format!("can't write {}", to.display()))?;
    Ok(last / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_grow_and_packets_stay() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let (from, to) = (folder.path().join("a"), folder.path().join("b"));
        let packet = |micros: u32, bytes: &[u8]| {
            let length = u32::try_from(bytes.len()).expect("short");
            let mut all = Vec::new();
            for word in [7, micros, length, length] {
                all.extend(u32::to_ne_bytes(word));
            }
            all.extend(bytes);
            all
        };
        let mut file = 0xa1b2_c3d4_u32.to_ne_bytes().to_vec();
        file.resize(FILE_HEADER, 0);
        file.extend(packet(900_000, b"abc"));
        file.extend(packet(950_000, b"de"));
        std::fs::write(&from, &file).expect("written");
        assert_eq!(stretch(&from, &to, 30).expect("stretched"), 1);
        let got = std::fs::read(&to).expect("read");
        let second = FILE_HEADER + PACKET_HEADER + 3;
        assert_eq!(got[..second], file[..second]);
        assert_eq!(got[second..second + 4], 9_u32.to_ne_bytes());
        assert_eq!(got[second + 4..second + 8], 400_000_u32.to_ne_bytes());
        assert_eq!(got[second + 8..], file[second + 8..]);
        // A file that is none, and one without its end.
        std::fs::write(&from, b"text").expect("written");
        assert!(stretch(&from, &to, 30).is_err());
        std::fs::write(&from, &file[..file.len() - 10]).expect("written");
        assert!(stretch(&from, &to, 30).is_err());
    }
}
