//! JSON Lines, one event a line: to a stream, or to a file that is rotated by size. A line is whole or not there: what a
//! full disk cut off is taken back. Nothing is forced to the disk; a loss of power may cost the last lines.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Delivery, Sink};
use crate::events::model::Event;

/// Events name addresses: nobody's business but the owner's and the group's.
const MODE: u32 = 0o640;

fn line(event: &Event) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    Ok(line)
}

fn deliver(
    events: &[Arc<Event>],
    mut write: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), (usize, io::Error)> {
    for (done, event) in events.iter().enumerate() {
        line(event)
            .and_then(|line| write(&line))
            .map_err(|error| (done, error))?;
    }
    Ok(())
}

/// A pipe or a terminal.
pub(super) struct Stream(File);

impl Stream {
    pub(super) const fn new(file: File) -> Self {
        Self(file)
    }
}

impl Sink for Stream {
    fn kind(&self) -> &'static str {
        "json"
    }

    fn name(&self) -> String {
        "standard output".to_owned()
    }

    fn deliver(&mut self, events: &[Arc<Event>]) -> Delivery {
        match deliver(events, |line| self.0.write_all(line)) {
            Ok(()) => Delivery::all(events),
            Err((done, error)) => Delivery::up_to(done, error.to_string()),
        }
    }
}

/// The file that is written now.
struct Open {
    file: File,
    size: u64,
    /// Device and inode.
    identity: (u64, u64),
    /// Pipes and devices can't be rotated.
    regular: bool,
}

/// A file that is renamed to `FILE.1` when the next line would make it larger than it may be; `FILE.1` to `FILE.2`, and
/// so on.
pub(super) struct Rotated {
    path: PathBuf,
    max_size: u64,
    keep: u32,
    open: Option<Open>,
}

impl Rotated {
    pub(super) const fn new(path: PathBuf, max_size: u64, keep: u32) -> Self {
        Self {
            path,
            max_size,
            keep,
            open: None,
        }
    }

    fn old(&self, number: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }

    /// Lets go of a file that somebody else renamed or removed.
    fn follow(&mut self) {
        let now = std::fs::metadata(&self.path).ok();
        let now = now.map(|data| (data.dev(), data.ino()));
        self.open.take_if(|open| now != Some(open.identity));
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let length = u64::try_from(line.len()).unwrap_or(u64::MAX);
        let mut open = match self.open.take() {
            Some(open) => open,
            None => open_file(&self.path)?,
        };
        if open.regular && open.size > 0 && open.size.saturating_add(length) > self.max_size {
            drop(open);
            self.rotate()?;
            open = open_file(&self.path)?;
        }
        let written = open.file.write_all(line);
        match written {
            Ok(()) => open.size += length,
            // If even this fails, the next start ends the broken line.
            Err(_) if open.regular => drop(open.file.set_len(open.size)),
            Err(_) => {}
        }
        self.open = Some(open);
        written
    }

    fn rotate(&self) -> io::Result<()> {
        for number in (1..self.keep).rev() {
            let (from, to) = (self.old(number), self.old(number + 1));
            match std::fs::rename(from, to) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        std::fs::rename(&self.path, self.old(1))
    }
}

fn open_file(path: &Path) -> io::Result<Open> {
    let mut options = OpenOptions::new();
    options.create(true).append(true).mode(MODE);
    let exists_readable = std::fs::metadata(path).is_ok_and(|data| data.is_file());
    // A pipe is not to be read by whom it is written.
    let mut file = options.read(exists_readable).open(path)?;
    let data = file.metadata()?;
    let mut open_size = data.len();
    if exists_readable && open_size > 0 && !ends_a_line(&mut file)? {
        file.write_all(b"\n")?;
        open_size += 1;
    }
    Ok(Open {
        file,
        size: open_size,
        identity: (data.dev(), data.ino()),
        regular: data.is_file(),
    })
}

fn ends_a_line(file: &mut File) -> io::Result<bool> {
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

impl Sink for Rotated {
    fn kind(&self) -> &'static str {
        "json"
    }

    fn name(&self) -> String {
        format!("the event file {}", self.path.display())
    }

    fn deliver(&mut self, events: &[Arc<Event>]) -> Delivery {
        self.follow();
        match deliver(events, |line| self.write(line)) {
            Ok(()) => Delivery::all(events),
            Err((done, error)) => Delivery::up_to(
                done,
                format!(
                    "{error}; events wait in memory, and what finds no room there is dropped: free the disk, make the \
                     folder writable, or name another file by `events: {{json: {{path: ...}}}}` or --events"
                ),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::model::Body;
    use crate::events::model::tests::event;

    fn numbered(number: usize) -> Arc<Event> {
        let mut event = event(Body::DaemonStopping);
        event.id = format!("{number:04}");
        Arc::new(event)
    }

    /// The ids in a file; every line must be an event.
    fn ids(path: &Path) -> Vec<String> {
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.ends_with('\n'));
        text.lines()
            .map(|line| serde_json::from_str::<Event>(line).unwrap().id)
            .collect()
    }

    #[test]
    fn rotates_at_the_exact_size_and_keeps_so_many() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.json");
        let length = line(&numbered(0)).unwrap().len() as u64;
        let mut sink = Rotated::new(path.clone(), 3 * length, 2);
        let write = |sink: &mut Rotated, number| {
            assert_eq!(sink.deliver(&[numbered(number)]).trouble, None);
        };
        // Three fit exactly.
        for number in 0..3 {
            write(&mut sink, number);
        }
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 3 * length);
        assert!(!sink.old(1).exists());
        write(&mut sink, 3);
        assert_eq!(ids(&sink.old(1)), ["0000", "0001", "0002"]);
        assert_eq!(ids(&path), ["0003"]);
        for number in 4..10 {
            write(&mut sink, number);
        }
        assert_eq!(ids(&path), ["0009"]);
        assert_eq!(ids(&sink.old(1)), ["0006", "0007", "0008"]);
        assert_eq!(ids(&sink.old(2)), ["0003", "0004", "0005"]);
        assert!(!sink.old(3).exists());
        // One byte less, and only two fit; what is there already counts.
        let mut sink = Rotated::new(path.clone(), 3 * length - 1, 1);
        for number in 10..12 {
            write(&mut sink, number);
        }
        assert_eq!(ids(&path), ["0011"]);
        // A line that is larger than the file may be is written all the same.
        let mut sink = Rotated::new(path.clone(), 1, 1);
        write(&mut sink, 12);
        assert_eq!(ids(&path), ["0012"]);
        assert_eq!(ids(&sink.old(1)), ["0011"]);
    }

    #[test]
    fn goes_on_where_others_renamed_it_or_a_crash_broke_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.json");
        let mut sink = Rotated::new(path.clone(), 1 << 20, 1);
        sink.deliver(&[numbered(1)]);
        std::fs::rename(&path, folder.path().join("away")).unwrap();
        sink.deliver(&[numbered(2)]);
        assert_eq!(ids(&path), ["0002"]);
        assert_eq!(ids(&folder.path().join("away")), ["0001"]);
        std::fs::write(&path, "{\"time\":").unwrap();
        let mut sink = Rotated::new(path.clone(), 1 << 20, 1);
        sink.deliver(&[numbered(3)]);
        let text = std::fs::read_to_string(&path).unwrap();
        let (broken, rest) = text.split_once('\n').unwrap();
        assert_eq!(broken, "{\"time\":");
        assert_eq!(serde_json::from_str::<Event>(rest).unwrap().id, "0003");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7, 0);
    }

    #[test]
    fn an_unwritable_file_is_trouble_until_it_can_be_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("not-yet/events.json");
        let mut sink = Rotated::new(path.clone(), 1 << 20, 1);
        let batch = [numbered(1), numbered(2)];
        let delivery = sink.deliver(&batch);
        assert_eq!((delivery.delivered, delivery.refused), (0, 0));
        assert!(delivery.trouble.unwrap().contains("--events"));
        std::fs::create_dir(folder.path().join("not-yet")).unwrap();
        assert_eq!(sink.deliver(&batch), Delivery::all(&batch));
        assert_eq!(ids(&path), ["0001", "0002"]);
    }

    #[test]
    fn a_full_device_is_trouble_and_no_rotation() {
        let mut sink = Rotated::new(PathBuf::from("/dev/full"), 1, 1);
        let delivery = sink.deliver(&[numbered(1)]);
        assert_eq!(delivery.delivered, 0);
        assert!(delivery.trouble.is_some());
        assert!(!Path::new("/dev/full.1").exists());
    }
}
