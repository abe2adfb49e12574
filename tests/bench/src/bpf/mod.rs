//! BPF as far as the benches need it: maps, programs, test runs and links, by the system call itself. aya loads objects,
//! and what is measured here beside flowproof is none.

pub(crate) mod assembler;
pub(crate) mod live;
pub(crate) mod programs;

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::{Context as _, Result, bail};

use crate::system;

/// Commands of the system call (`enum bpf_cmd`, `linux/bpf.h`).
mod command {
    pub(super) const MAP_CREATE: i64 = 0;
    pub(super) const MAP_LOOKUP: i64 = 1;
    pub(super) const MAP_UPDATE: i64 = 2;
    pub(super) const PROGRAM_LOAD: i64 = 5;
    pub(super) const TEST_RUN: i64 = 10;
    pub(super) const PROGRAM_BY_ID: i64 = 13;
    pub(super) const MAP_BY_ID: i64 = 14;
    pub(super) const INFO: i64 = 15;
    pub(super) const LINK_CREATE: i64 = 28;
}

/// Which kind of map (`enum bpf_map_type`).
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// A hash table whose elements are allocated beforehand.
    Hash = 1,
    /// An array.
    Array = 2,
    /// Programs to tail-call.
    Programs = 3,
    /// A hash table that gives up what was used least recently.
    LruHash = 9,
    /// A ring buffer, of so many bytes.
    Ring = 27,
}

/// `union bpf_attr`, large enough for all commands here, as words.
struct Attributes([u32; 36]);

impl Attributes {
    const fn new() -> Self {
        Self([0; 36])
    }

    /// Sets 4 bytes at a byte offset.
    const fn word(mut self, at: usize, value: u32) -> Self {
        self.0[at / 4] = value;
        self
    }

    /// Sets 8 bytes at a byte offset; the lower half comes first, on all machines that BPF programs are assembled for here.
    const fn double(self, at: usize, value: u64) -> Self {
        let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
        self.word(at, u32::from_le_bytes([a, b, c, d]))
            .word(at + 4, u32::from_le_bytes([e, f, g, h]))
    }

    const fn get(&self, at: usize) -> u32 {
        self.0[at / 4]
    }

    fn call(&mut self, command: i64) -> io::Result<i32> {
        system::bpf(command, &mut self.0)
    }

    fn open(&mut self, command: i64) -> io::Result<OwnedFd> {
        system::bpf_descriptor(command, &mut self.0)
    }
}

fn address<T: ?Sized>(buffer: &T) -> u64 {
    std::ptr::from_ref(buffer).cast::<u8>() as usize as u64
}

fn raw(descriptor: &OwnedFd) -> u32 {
    u32::try_from(descriptor.as_raw_fd()).unwrap_or(u32::MAX)
}

/// A map.
#[derive(Debug)]
pub(crate) struct Map {
    descriptor: OwnedFd,
    key: usize,
    value: usize,
}

impl Map {
    /// Makes a map.
    pub(crate) fn new(kind: Kind, key: u32, value: u32, entries: u32) -> Result<Self> {
        let descriptor = Attributes::new()
            .word(0, kind as u32)
            .word(4, key)
            .word(8, value)
            .word(12, entries)
            .open(command::MAP_CREATE)
            .with_context(|| format!("making a map of kind {kind:?} (root is needed)"))?;
        Ok(Self {
            descriptor,
            key: key as usize,
            value: value as usize,
        })
    }

    /// For instructions that name the map.
    pub(crate) fn descriptor(&self) -> i32 {
        self.descriptor.as_raw_fd()
    }

    /// Writes an element.
    pub(crate) fn write(&self, key: &[u8], value: &[u8]) -> Result<()> {
        assert!(key.len() == self.key && value.len() == self.value);
        Attributes::new()
            .word(0, raw(&self.descriptor))
            .double(8, address(key))
            .double(16, address(value))
            .call(command::MAP_UPDATE)
            .context("writing into a map")?;
        Ok(())
    }

    /// Reads an element.
    pub(crate) fn read(&self, key: &[u8]) -> Result<Vec<u8>> {
        assert!(key.len() == self.key);
        let mut value = vec![0_u8; self.value];
        // The kernel writes through the address, so it must be one of something mutable.
        let place = value.as_mut_slice();
        Attributes::new()
            .word(0, raw(&self.descriptor))
            .double(8, address(key))
            .double(16, place.as_mut_ptr() as usize as u64)
            .call(command::MAP_LOOKUP)
            .context("reading from a map")?;
        Ok(value)
    }

    /// Puts a program into the first place of a map of programs.
    pub(crate) fn put(&self, program: &Program) -> Result<()> {
        self.write(
            &0_u32.to_ne_bytes(),
            &raw(&program.descriptor).to_ne_bytes(),
        )
    }
}

/// A program for the traffic path (`BPF_PROG_TYPE_SCHED_CLS`), or for a device's receive path (`BPF_PROG_TYPE_XDP`).
#[derive(Debug)]
pub(crate) struct Program {
    descriptor: OwnedFd,
}

/// Where a program is put among those at an interface: `BPF_F_BEFORE` or `BPF_F_AFTER`, of none in particular.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place {
    /// Before all others.
    First = 1 << 3,
    /// Behind all others.
    Last = 1 << 4,
}

/// What a test run took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    /// Nanoseconds of one repetition, the mean.
    pub(crate) nanoseconds: u32,
    /// What the program returned.
    pub(crate) returned: i32,
}

impl Program {
    /// Loads instructions of a program for the traffic path.
    pub(crate) fn load(name: &str, code: &[u64]) -> Result<Self> {
        const SCHED_CLS: u32 = 3;
        Self::load_as(SCHED_CLS, name, code)
    }

    /// Loads instructions of a program for a device's receive path.
    fn load_xdp(name: &str, code: &[u64]) -> Result<Self> {
        const XDP: u32 = 6;
        Self::load_as(XDP, name, code)
    }

    fn load_as(kind: u32, name: &str, code: &[u64]) -> Result<Self> {
        let mut log = vec![0_u8; 1 << 16];
        let license = c"Dual MIT/GPL";
        let count = u32::try_from(code.len())?;
        let mut attributes = Attributes::new()
            .word(0, kind)
            .word(4, count)
            .double(8, address(code))
            .double(16, license.as_ptr() as usize as u64)
            .word(24, 1)
            .word(28, u32::try_from(log.len())?)
            .double(32, log.as_mut_ptr() as usize as u64);
        for (position, chunk) in name.as_bytes().chunks(4).take(3).enumerate() {
            let mut bytes = [0; 4];
            bytes[..chunk.len()].copy_from_slice(chunk);
            attributes = attributes.word(48 + 4 * position, u32::from_ne_bytes(bytes));
        }
        match attributes.open(command::PROGRAM_LOAD) {
            Ok(descriptor) => Ok(Self { descriptor }),
            Err(error) => {
                let end = log.iter().position(|byte| *byte == 0).unwrap_or(0);
                bail!(
                    "loading the program {name}: {error}\n{}",
                    String::from_utf8_lossy(&log[..end])
                )
            }
        }
    }

    /// Runs it on a frame so many times.
    pub(crate) fn test(&self, frame: &[u8], repeat: u32) -> Result<Run> {
        let mut attributes = Attributes::new()
            .word(0, raw(&self.descriptor))
            .word(8, u32::try_from(frame.len())?)
            .double(16, address(frame))
            .word(32, repeat);
        attributes
            .call(command::TEST_RUN)
            .context("a test run of a program")?;
        Ok(Run {
            nanoseconds: attributes.get(36),
            returned: attributes.get(4).cast_signed(),
        })
    }

    /// Attaches it to the ingress of an interface by TCX; it is off again when the link is dropped.
    pub(crate) fn attach(&self, interface: u32, place: Place) -> Result<OwnedFd> {
        const INGRESS: u32 = 46;
        self.attach_at(interface, INGRESS, place)
    }

    /// The same to the egress.
    pub(crate) fn attach_to_egress(&self, interface: u32, place: Place) -> Result<OwnedFd> {
        const EGRESS: u32 = 47;
        self.attach_at(interface, EGRESS, place)
    }

    fn attach_at(&self, interface: u32, hook: u32, place: Place) -> Result<OwnedFd> {
        Attributes::new()
            .word(0, raw(&self.descriptor))
            .word(4, interface)
            .word(8, hook)
            .word(12, place as u32)
            .open(command::LINK_CREATE)
            .context("attaching a program by TCX (Linux 6.6)")
    }

    /// Attaches it to an interface by XDP; it is off again when the link is dropped.
    fn attach_xdp(&self, interface: u32) -> Result<OwnedFd> {
        const XDP: u32 = 37;
        Attributes::new()
            .word(0, raw(&self.descriptor))
            .word(4, interface)
            .word(8, XDP)
            .open(command::LINK_CREATE)
            .context("attaching a program by XDP (Linux 5.9)")
    }

    /// Bytes of machine code.
    pub(crate) fn machine_code(&self) -> Result<u32> {
        let info = info(&self.descriptor)?;
        Ok(u32::from_ne_bytes([info[16], info[17], info[18], info[19]]))
    }

    /// The newest program of this name that this process holds.
    pub(crate) fn own(name: &str) -> Result<Self> {
        Self::of("self", name)
    }

    /// The newest program of this name that a process holds.
    pub(crate) fn of(process: &str, name: &str) -> Result<Self> {
        let id = held(process, "bpf-prog", "prog_id:", 64, name)?;
        let descriptor = Attributes::new()
            .word(0, id)
            .open(command::PROGRAM_BY_ID)
            .with_context(|| format!("opening the program {name}"))?;
        Ok(Self { descriptor })
    }
}

/// Bytes of kernel memory of the newest map of this name that this process holds.
pub(crate) fn memory_of_map(name: &str) -> Result<u64> {
    let id = held("self", "bpf-map", "map_id:", 24, name)?;
    let descriptor = Attributes::new()
        .word(0, id)
        .open(command::MAP_BY_ID)
        .with_context(|| format!("opening the map {name}"))?;
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", descriptor.as_raw_fd()))?;
    field(&text, "memlock:").with_context(|| format!("the kernel doesn't tell the size of {name}"))
}

/// `struct bpf_prog_info` or `struct bpf_map_info`, the first 80 bytes.
fn info(descriptor: &OwnedFd) -> Result<[u8; 80]> {
    let mut info = [0_u8; 80];
    Attributes::new()
        .word(0, raw(descriptor))
        .word(4, 80)
        .double(8, info.as_mut_ptr() as usize as u64)
        .call(command::INFO)
        .context("asking for what a program or map is")?;
    Ok(info)
}

/// The greatest id of what a process has open and is named so. `flowproof`'s loader keeps its programs and maps to
/// itself; the kernel tells them all the same.
fn held(process: &str, kind: &str, id_field: &str, name_at: usize, name: &str) -> Result<u32> {
    let mut newest = None;
    for entry in fs::read_dir(format!("/proc/{process}/fd"))? {
        let entry = entry?;
        let target = fs::read_link(entry.path()).unwrap_or_default();
        if target.to_str() != Some(&format!("anon_inode:{kind}")) {
            continue;
        }
        let number = entry.file_name();
        let text = fs::read_to_string(format!("/proc/{process}/fdinfo/{}", number.display()))?;
        let Some(id) = field(&text, id_field).and_then(|id| u32::try_from(id).ok()) else {
            continue;
        };
        let by_id = if kind == "bpf-prog" {
            command::PROGRAM_BY_ID
        } else {
            command::MAP_BY_ID
        };
        let descriptor = Attributes::new().word(0, id).open(by_id)?;
        // Names are cut to 15 bytes.
        let found = &info(&descriptor)?[name_at..name_at + 16];
        let found = found.split(|byte| *byte == 0).next().unwrap_or_default();
        if !found.is_empty() && name.as_bytes().get(..15).unwrap_or(name.as_bytes()) == found {
            newest = newest.max(Some(id));
        }
    }
    newest.with_context(|| format!("process {process} has no {kind} named {name}"))
}

fn field(text: &str, name: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_laid_out_as_the_kernel_reads_them() {
        let attributes = Attributes::new().word(4, 7).double(8, 0x1_0000_0002);
        assert_eq!(attributes.0[..4], [0, 7, 2, 1]);
        assert_eq!(attributes.get(12), 1);
    }

    #[test]
    fn fields_of_fdinfo_are_numbers_behind_tabs() {
        let text = "pos:\t0\nmap_id:\t42\nmemlock:\t4096\n";
        assert_eq!(field(text, "map_id:"), Some(42));
        assert_eq!(field(text, "prog_id:"), None);
    }
}
