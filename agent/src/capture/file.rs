//! Frames from capture files: pcap and pcapng in either byte order, of any time resolution, with interfaces of
//! unlike link types, from a file or standard input.
//!
//! Read by pcap-parser, since libpcap refuses a pcapng file whose interfaces differ in link type. What is taken from
//! its blocks is their raw fields, because times in powers of two and offsets in big-endian sections are beyond its
//! helpers.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use pcap_parser::pcapng::OptionCode;
use pcap_parser::traits::PcapReaderIterator;
use pcap_parser::{Block, PcapBlockOwned, PcapError, create_reader};

use super::CaptureError;
use super::decode::LinkType;

/// Bytes read at a time; also how much of a file is read before it is judged to be a capture.
const BUFFER: usize = 1 << 16;
/// The largest block taken for one: libpcap's largest packet is 256 KiB (128 MiB for USB, which is no network).
const LARGEST_BLOCK: usize = 1 << 24;

/// A frame of a capture file.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// How it begins.
    pub link: LinkType,
    /// Nanoseconds since the Unix epoch.
    pub time: u64,
    /// What was captured.
    pub data: &'a [u8],
    /// Length on the wire, bytes.
    pub wire_length: u32,
    /// Index into [`CaptureFile::interfaces`].
    pub interface: usize,
}

/// Where a frame lies in the reader's buffer.
#[derive(Clone, Copy)]
struct Current {
    link: LinkType,
    time: u64,
    /// Bytes from the start of the block to the frame.
    start: usize,
    length: usize,
    wire_length: u32,
    interface: usize,
}

/// A packet's header as the file has it.
struct Header {
    /// In the units of the interface; nothing if the block has none.
    time: Option<u64>,
    start: usize,
    length: usize,
    wire_length: u32,
}

#[derive(Clone, Copy)]
struct FileInterface {
    link: Option<LinkType>,
    number: i32,
    resolution: Resolution,
    /// Index into the names.
    name: usize,
}

/// How the time of a packet is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Resolution {
    /// Units a second.
    units: u128,
    /// Nanoseconds to add.
    offset: i128,
}

impl Resolution {
    const MICROSECONDS: Self = Self {
        units: 1_000_000,
        offset: 0,
    };
    const NANOSECONDS: Self = Self {
        units: 1_000_000_000,
        offset: 0,
    };

    /// From `if_tsresol`: a power of ten, or of two if the highest bit is set.
    fn new(code: u8, offset_seconds: i64) -> Option<Self> {
        let base: u128 = if code & 0x80 == 0 { 10 } else { 2 };
        let units = base.checked_pow(u32::from(code & 0x7f))?;
        Some(Self {
            units,
            offset: i128::from(offset_seconds) * 1_000_000_000,
        })
    }

    fn nanos(self, time: u64) -> u64 {
        if self == Self::MICROSECONDS {
            return time.saturating_mul(1_000);
        }
        let units = u128::from(time);
        // Whole seconds first: the product of both would not fit for the finest resolutions.
        let whole = (units / self.units).saturating_mul(1_000_000_000);
        let rest = units % self.units;
        let part = match rest.checked_mul(1_000_000_000) {
            Some(product) => product / self.units,
            None => rest / (self.units / 1_000_000_000),
        };
        let nanos = i128::try_from(whole + part)
            .unwrap_or(i128::MAX)
            .saturating_add(self.offset);
        u64::try_from(nanos.max(0)).unwrap_or(u64::MAX)
    }
}

/// An open capture file.
pub struct CaptureFile {
    name: String,
    reader: Box<dyn PcapReaderIterator + Send>,
    failure: Arc<Mutex<Option<io::Error>>>,
    /// Interfaces of the section.
    section: Vec<FileInterface>,
    section_is_big_endian: bool,
    names: Vec<String>,
    current: Option<Current>,
    /// Bytes of the block before the reader's next.
    unconsumed: usize,
    position: u64,
    skipped: u64,
    first_skipped: Option<i32>,
    broken: bool,
    /// Time of the last packet read.
    latest: u64,
}

const NOT_A_CAPTURE: &str = "give a pcap or pcapng file";
const COMPRESSED: &str = "decompress it into `flowproof replay -`";
const UNREADABLE: &str = "check the path and the permissions";
const TOO_MANY: &str =
    "files are merged by time, so that all are open at once: raise the limit with `ulimit -n`";
const CUT: &str =
    "what was read up to there has been judged; copy the file again, or repair it with pcapfix";
const UNSUPPORTED: &str = "capture again with a supported link type: Ethernet (1), raw IP (12, 14, 101, 228, 229), Linux cooked (113, 276), loopback (0, 108)";

impl CaptureFile {
    /// Opens a file, or standard input for `-`.
    ///
    /// # Errors
    /// [`CaptureError::File`]: it can't be read, is no capture, or is a pcap file of an unsupported link type.
    pub fn open(path: &Path) -> Result<Self, CaptureError> {
        if path == Path::new("-") {
            return Self::read("standard input", io::stdin());
        }
        let name = path.display().to_string();
        let file = File::open(path).and_then(|file| {
            if file.metadata()?.is_dir() {
                return Err(io::ErrorKind::IsADirectory.into());
            }
            Ok(file)
        });
        match file {
            Ok(file) => Self::read(&name, file),
            Err(error) if error.raw_os_error() == Some(libc::EMFILE) => {
                Err(refused(&name, error.to_string(), TOO_MANY))
            }
            Err(error) => Err(refused(&name, error.to_string(), UNREADABLE)),
        }
    }

    /// Reads a capture from any source; `name` stands for it in errors.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn read(name: &str, mut source: impl Read + Send + 'static) -> Result<Self, CaptureError> {
        // pcap-parser wants the first block in one read, which a pipe does not give.
        let mut head = vec![0; BUFFER];
        let mut filled = 0;
        while filled < head.len() {
            match source.read(&mut head[filled..]) {
                Ok(0) => break,
                Ok(bytes) => filled += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(refused(name, error.to_string(), UNREADABLE)),
            }
        }
        head.truncate(filled);
        recognise(name, &head)?;
        let failure = Arc::new(Mutex::new(None));
        let watched = Watched {
            source: io::Cursor::new(head).chain(source),
            failure: Arc::clone(&failure),
        };
        let reader = create_reader(BUFFER, watched).map_err(|error| match error {
            PcapError::Incomplete(_) | PcapError::Eof => {
                refused(name, "its header is cut short", NOT_A_CAPTURE)
            }
            other @ (PcapError::BufferTooSmall
            | PcapError::UnexpectedEof
            | PcapError::ReadError
            | PcapError::HeaderNotRecognized
            | PcapError::NomError(..)
            | PcapError::OwnedNomError(..)) => refused(
                name,
                format!("no valid capture ({})", kind(&other)),
                NOT_A_CAPTURE,
            ),
        })?;
        let mut file = Self {
            name: name.to_owned(),
            reader,
            failure,
            section: Vec::new(),
            section_is_big_endian: false,
            names: Vec::new(),
            current: None,
            unconsumed: 0,
            position: 0,
            skipped: 0,
            first_skipped: None,
            broken: false,
            latest: 0,
        };
        file.refuse_foreign_link()?;
        Ok(file)
    }

    /// A pcap file has one link type; if that is not supported, nothing in it is.
    fn refuse_foreign_link(&mut self) -> Result<(), CaptureError> {
        if let Ok((_, PcapBlockOwned::LegacyHeader(header))) = self.reader.next() {
            let number = link_number(header.network.0);
            if LinkType::from_number(number).is_none() {
                return Err(unsupported(&self.name, number));
            }
        }
        Ok(())
    }

    /// The name as it stands in errors.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Names of the interfaces seen so far: those of the file, or the file's own where it has none.
    #[must_use]
    pub fn interfaces(&self) -> &[String] {
        &self.names
    }

    /// Packets passed over because of their link type.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Whether the file ended before its end, or in nonsense: more may have been in it.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// What could not be read though the rest was, if anything. To be asked at the end.
    #[must_use]
    pub fn complaint(&self) -> Option<CaptureError> {
        self.first_skipped.map(|number| CaptureError::File {
            file: self.name.clone(),
            reason: format!(
                "{} packets have link type {number}, which is not supported, and were not judged",
                self.skipped
            ),
            remedy: UNSUPPORTED,
        })
    }

    /// Goes to the next frame; `false` at the end of the file.
    ///
    /// # Errors
    /// [`CaptureError::File`]: the file is cut short or damaged here. There is nothing more to read, but what was
    /// read before stands.
    pub fn advance(&mut self) -> Result<bool, CaptureError> {
        self.current = None;
        while !self.broken {
            if self.unconsumed > 0 {
                self.reader.consume(self.unconsumed);
                self.position += self.unconsumed as u64;
                self.unconsumed = 0;
            }
            let before = self.reader.data().len();
            let stop = match self.reader.next() {
                Ok((length, block)) => {
                    self.unconsumed = length;
                    match note(
                        &block,
                        &mut self.section,
                        &mut self.section_is_big_endian,
                        &self.name,
                        &mut self.names,
                    ) {
                        Noted::Nothing => continue,
                        Noted::Packet(interface, header) => {
                            if self.take(interface, &header) {
                                return Ok(true);
                            }
                            continue;
                        }
                        Noted::Nonsense(what) => Some(what),
                    }
                }
                Err(PcapError::Eof) => return Ok(false),
                Err(PcapError::UnexpectedEof) => Some("it is cut short"),
                Err(PcapError::Incomplete(_) | PcapError::BufferTooSmall) => None,
                Err(_) => Some("the block there is malformed"),
            };
            match stop {
                Some(what) => return Err(self.breaks(what)),
                None => self.refill(before)?,
            }
        }
        Ok(false)
    }

    fn refill(&mut self, before: usize) -> Result<(), CaptureError> {
        if self.reader.refill().is_err() {
            return Err(self.breaks("it can't be read on"));
        }
        // A full buffer holds a part of one block.
        if self.reader.data().len() == before && !self.reader.reader_exhausted() {
            let wanted = before.max(BUFFER) * 2;
            if wanted > LARGEST_BLOCK || !self.reader.grow(wanted) {
                return Err(self.breaks("the block there claims to be larger than any packet"));
            }
        }
        Ok(())
    }

    fn breaks(&mut self, what: &str) -> CaptureError {
        self.broken = true;
        let failure = self
            .failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let reason = match failure {
            Some(error) => format!("after {} bytes: {error}", self.position),
            None => format!("after {} bytes: {what}", self.position),
        };
        refused(&self.name, reason, CUT)
    }

    /// Makes a packet the current frame, if its link type is supported.
    fn take(&mut self, interface: usize, header: &Header) -> bool {
        let interface = self.section[interface];
        let Some(link) = interface.link else {
            self.skipped += 1;
            self.first_skipped.get_or_insert(interface.number);
            return false;
        };
        // A block without a time comes no earlier than the one before it.
        if let Some(time) = header.time {
            self.latest = interface.resolution.nanos(time);
        }
        self.current = Some(Current {
            link,
            time: self.latest,
            start: header.start,
            length: header.length,
            // Some writers leave the length on the wire empty.
            wire_length: header
                .wire_length
                .max(u32::try_from(header.length).unwrap_or(u32::MAX)),
            interface: interface.name,
        });
        true
    }

    /// The frame that [`Self::advance`] went to.
    #[must_use]
    pub fn frame(&self) -> Option<Frame<'_>> {
        let current = self.current?;
        let data = self
            .reader
            .data()
            .get(current.start..current.start + current.length)?;
        Some(Frame {
            link: current.link,
            time: current.time,
            data,
            wire_length: current.wire_length,
            interface: current.interface,
        })
    }
}

enum Noted {
    Nothing,
    /// A packet of an interface of the section.
    Packet(usize, Header),
    Nonsense(&'static str),
}

/// Takes from a block what is needed later.
fn note(
    block: &PcapBlockOwned<'_>,
    section: &mut Vec<FileInterface>,
    big_endian: &mut bool,
    file: &str,
    names: &mut Vec<String>,
) -> Noted {
    let mut name_index = |name: &str| match names.iter().position(|known| known == name) {
        Some(index) => index,
        None => {
            names.push(name.to_owned());
            names.len() - 1
        }
    };
    match block {
        PcapBlockOwned::LegacyHeader(header) => {
            let number = link_number(header.network.0);
            section.push(FileInterface {
                link: LinkType::from_number(number),
                number,
                resolution: if header.is_nanosecond_precision() {
                    Resolution::NANOSECONDS
                } else {
                    Resolution::MICROSECONDS
                },
                name: name_index(file),
            });
            // The variant with 24-byte packet headers is told by its magic number alone.
            *big_endian = header.is_modified_format();
            Noted::Nothing
        }
        PcapBlockOwned::Legacy(packet) => {
            let Some(interface) = section.first() else {
                return Noted::Nonsense("a packet comes before the header");
            };
            let start = if *big_endian { 24 } else { 16 };
            let units = if interface.resolution == Resolution::NANOSECONDS {
                1_000_000_000
            } else {
                1_000_000
            };
            Noted::Packet(
                0,
                Header {
                    time: Some(u64::from(packet.ts_sec) * units + u64::from(packet.ts_usec)),
                    start,
                    length: packet.data.len(),
                    wire_length: packet.origlen,
                },
            )
        }
        PcapBlockOwned::NG(Block::SectionHeader(header)) => {
            section.clear();
            *big_endian = header.big_endian();
            Noted::Nothing
        }
        PcapBlockOwned::NG(Block::InterfaceDescription(description)) => {
            let offset = description
                .options
                .iter()
                .find(|option| option.code == OptionCode::IfTsoffset)
                .and_then(|option| option.value.first_chunk::<8>())
                .map_or(0, |bytes| {
                    if *big_endian {
                        i64::from_be_bytes(*bytes)
                    } else {
                        i64::from_le_bytes(*bytes)
                    }
                });
            let Some(resolution) = Resolution::new(description.if_tsresol, offset) else {
                return Noted::Nonsense("an interface has an impossible time resolution");
            };
            let name = match description.if_name() {
                Some(Ok(name)) => name_index(name),
                Some(Err(_)) | None => name_index(&format!("{file}#{}", section.len())),
            };
            section.push(FileInterface {
                link: LinkType::from_number(description.linktype.0),
                number: description.linktype.0,
                resolution,
                name,
            });
            Noted::Nothing
        }
        PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
            let interface = packet.if_id as usize;
            if interface >= section.len() {
                return Noted::Nonsense("a packet names an interface that is not described");
            }
            Noted::Packet(
                interface,
                Header {
                    time: Some(u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low)),
                    start: 28,
                    length: (packet.caplen as usize).min(packet.data.len()),
                    wire_length: packet.origlen,
                },
            )
        }
        PcapBlockOwned::NG(Block::SimplePacket(_)) if section.is_empty() => {
            Noted::Nonsense("a packet comes before the description of its interface")
        }
        PcapBlockOwned::NG(Block::SimplePacket(packet)) => Noted::Packet(
            0,
            Header {
                time: None,
                start: 12,
                length: (packet.origlen as usize).min(packet.data.len()),
                wire_length: packet.origlen,
            },
        ),
        // Statistics, names, comments and what is yet to be invented.
        PcapBlockOwned::NG(_) => Noted::Nothing,
    }
}

/// The upper bits of the field say whether frames end with a check sequence.
const fn link_number(field: i32) -> i32 {
    field & 0xffff
}

/// Says what a file is that is no capture, as far as its first bytes tell.
fn recognise(name: &str, head: &[u8]) -> Result<(), CaptureError> {
    let compression = match head {
        [] => return Err(refused(name, "it is empty", NOT_A_CAPTURE)),
        [0x1f, 0x8b, ..] => "gzip",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "zstd",
        [0xfd, b'7', b'z', b'X', b'Z', ..] => "xz",
        [0x04, 0x22, 0x4d, 0x18, ..] => "lz4",
        [0x0a, 0x0d, 0x0d, 0x0a, ..]
        | [0xd4, 0xc3, 0xb2, 0xa1, ..]
        | [0xa1, 0xb2, 0xc3, 0xd4, ..]
        | [0x4d, 0x3c, 0xb2, 0xa1, ..]
        | [0xa1, 0xb2, 0x3c, 0x4d, ..]
        | [0x34, 0xcd, 0xb2, 0xa1, ..] => return Ok(()),
        _ => return Err(refused(name, "it is no capture file", NOT_A_CAPTURE)),
    };
    Err(refused(
        name,
        format!("it is compressed with {compression}"),
        COMPRESSED,
    ))
}

fn refused(file: &str, reason: impl Into<String>, remedy: &'static str) -> CaptureError {
    CaptureError::File {
        file: file.to_owned(),
        reason: reason.into(),
        remedy,
    }
}

fn unsupported(file: &str, number: i32) -> CaptureError {
    refused(
        file,
        format!("link type {number} is not supported"),
        UNSUPPORTED,
    )
}

/// The error without the bytes that it carries.
fn kind(error: &PcapError<&[u8]>) -> &'static str {
    match error {
        PcapError::Eof | PcapError::UnexpectedEof | PcapError::Incomplete(_) => "cut short",
        PcapError::BufferTooSmall => "a block is too large",
        PcapError::ReadError => "read error",
        PcapError::HeaderNotRecognized => "header not recognised",
        PcapError::NomError(..) | PcapError::OwnedNomError(..) => "malformed",
    }
}

/// Keeps the error of a read, which pcap-parser drops.
struct Watched<R> {
    source: R,
    failure: Arc<Mutex<Option<io::Error>>>,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.source.read(into) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    return Err(io::ErrorKind::Other.into());
                }
                Ok(bytes) => return Ok(bytes),
            }
        }
    }
}

/// Opens all files before any is read, so that a wrong name is told before work begins.
///
/// # Errors
/// As [`CaptureFile::open`], for the first file that has one.
pub fn open_all(paths: &[PathBuf]) -> Result<Vec<CaptureFile>, CaptureError> {
    paths.iter().map(|path| CaptureFile::open(path)).collect()
}
