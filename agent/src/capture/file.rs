//! Frames from capture files: pcap and pcapng in either byte order, of any time resolution, with interfaces of
//! unlike link types, from a file or standard input.
//!
//! Read by pcap-parser, since libpcap refuses a pcapng file whose interfaces differ in link type. What is taken from
//! its blocks is their raw fields, because times in powers of two and offsets in big-endian sections are beyond its
//! helpers. Its parsers are called on a [`Window`], not its readers, which know one block at a time: a number of frames
//! are at hand together, so that whoever judges them can look ahead.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use pcap_parser::nom::{self, IResult};
use pcap_parser::pcapng::OptionCode;
use pcap_parser::{
    Block, LegacyPcapBlock, PcapError, PcapHeader, parse_block_be, parse_block_le,
    parse_pcap_frame, parse_pcap_frame_be, parse_pcap_frame_modified, parse_pcap_header,
    parse_sectionheaderblock,
};

use super::CaptureError;
use super::decode::LinkType;
use super::window::Window;

/// Frames that are at hand together, at most.
const AT_HAND: usize = 64;
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

/// Where a frame lies in the window.
#[derive(Clone, Copy)]
struct Located {
    link: LinkType,
    time: u64,
    /// Bytes from the start of the window to the frame.
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

/// Reads a packet of a pcap file and tells what follows on it.
type ParsePacket =
    for<'a> fn(&'a [u8]) -> IResult<&'a [u8], LegacyPcapBlock<'a>, PcapError<&'a [u8]>>;

/// What a file's blocks are.
enum Format {
    /// pcap: how a packet is read, and how long its header is.
    Pcap { parse: ParsePacket, header: usize },
    /// pcapng, and whether the section at hand is in big-endian order.
    PcapNg { big_endian: bool },
}

/// An open capture file.
pub struct CaptureFile {
    name: String,
    window: Window,
    format: Format,
    /// Interfaces of the section.
    section: Vec<FileInterface>,
    names: Vec<String>,
    /// Frames at hand, in the window.
    frames: Vec<Located>,
    /// Which of them is the current one.
    current: usize,
    /// Bytes of the window up to the end of the last frame at hand.
    located: usize,
    /// Bytes of the file before the window.
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
    pub fn read(name: &str, source: impl Read + Send + 'static) -> Result<Self, CaptureError> {
        let mut window = Window::new(source);
        let (format, first) = loop {
            // A pipe gives what there is; the first block may come in pieces.
            window
                .refill()
                .map_err(|error| refused(name, error.to_string(), UNREADABLE))?;
            let enough = window.is_exhausted() || window.is_full();
            if window.data().len() < MAGIC && !enough {
                continue;
            }
            recognise(name, window.data())?;
            match begin(window.data()) {
                Ok(begun) => break begun,
                Err(Begin::Incomplete) if !enough => {}
                Err(Begin::Incomplete) => {
                    return Err(refused(name, "its header is cut short", NOT_A_CAPTURE));
                }
                Err(Begin::Invalid(kind)) => {
                    return Err(refused(
                        name,
                        format!("no valid capture ({kind})"),
                        NOT_A_CAPTURE,
                    ));
                }
            }
        };
        let mut file = Self {
            name: name.to_owned(),
            window,
            format,
            section: Vec::new(),
            names: Vec::new(),
            frames: Vec::with_capacity(AT_HAND),
            current: 0,
            located: 0,
            position: 0,
            skipped: 0,
            first_skipped: None,
            broken: false,
            latest: 0,
        };
        if let Some(header) = first {
            file.begin_pcap(&header)?;
        }
        Ok(file)
    }

    /// A pcap file has one link type; if that is not supported, nothing in it is.
    fn begin_pcap(&mut self, header: &PcapHeader) -> Result<(), CaptureError> {
        let number = link_number(header.network.0);
        let link = LinkType::from_number(number);
        if link.is_none() {
            return Err(unsupported(&self.name, number));
        }
        self.section.push(FileInterface {
            link,
            number,
            resolution: if header.is_nanosecond_precision() {
                Resolution::NANOSECONDS
            } else {
                Resolution::MICROSECONDS
            },
            name: 0,
        });
        self.names.push(self.name.clone());
        self.located = header.size();
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
        if self.current + 1 < self.frames.len() {
            self.current += 1;
            return Ok(true);
        }
        self.locate()
    }

    /// Goes on by as many of the frames at hand, see [`Self::ahead`].
    pub fn skip(&mut self, frames: usize) {
        self.current = (self.current + frames).min(self.frames.len());
    }

    /// Finds the frames that come next: as many as are in memory, or the first, read from the file.
    fn locate(&mut self) -> Result<bool, CaptureError> {
        self.frames.clear();
        self.current = 0;
        while !self.broken {
            self.let_go();
            let stop = self.locate_in_window();
            if !self.frames.is_empty() {
                // What stopped it comes again when these have been judged.
                return Ok(true);
            }
            match stop {
                Stop::Full => {}
                Stop::Incomplete if self.window.is_exhausted() => {
                    if self.window.data().len() == self.located {
                        return Ok(false);
                    }
                    return Err(self.breaks("it is cut short"));
                }
                Stop::Incomplete => self.refill()?,
                Stop::Nonsense(what) => return Err(self.breaks(what)),
            }
        }
        Ok(false)
    }

    /// Walks over the blocks in the window until enough frames are found.
    fn locate_in_window(&mut self) -> Stop {
        let data = self.window.data();
        while self.frames.len() < AT_HAND {
            let rest = &data[self.located..];
            let noted = match &mut self.format {
                Format::Pcap { parse, header } => match parse(rest) {
                    Ok((rest, packet)) => {
                        let noted = note_packet(&packet, *header, &self.section);
                        (data.len() - rest.len(), noted)
                    }
                    Err(error) => return Stop::of(&error),
                },
                Format::PcapNg { big_endian } => {
                    let parse = if *big_endian {
                        parse_block_be
                    } else {
                        parse_block_le
                    };
                    match parse(rest) {
                        Ok((rest, block)) => {
                            let noted = note(
                                &block,
                                &mut self.section,
                                big_endian,
                                &self.name,
                                &mut self.names,
                            );
                            (data.len() - rest.len(), noted)
                        }
                        Err(error) => return Stop::of(&error),
                    }
                }
            };
            let (end, noted) = noted;
            match noted {
                Noted::Nothing => {}
                Noted::Packet(interface, header) => {
                    let interface = self.section[interface];
                    if let Some(link) = interface.link {
                        // A block without a time comes no earlier than the one before it.
                        if let Some(time) = header.time {
                            self.latest = interface.resolution.nanos(time);
                        }
                        self.frames.push(Located {
                            link,
                            time: self.latest,
                            start: self.located + header.start,
                            length: header.length,
                            // Some writers leave the length on the wire empty.
                            wire_length: header
                                .wire_length
                                .max(u32::try_from(header.length).unwrap_or(u32::MAX)),
                            interface: interface.name,
                        });
                    } else {
                        self.skipped += 1;
                        self.first_skipped.get_or_insert(interface.number);
                    }
                }
                Noted::Nonsense(what) => return Stop::Nonsense(what),
            }
            self.located = end;
        }
        Stop::Full
    }

    /// Leaves behind what was located.
    fn let_go(&mut self) {
        self.window.consume(self.located);
        self.position += self.located as u64;
        self.located = 0;
    }

    fn refill(&mut self) -> Result<(), CaptureError> {
        self.let_go();
        if self.window.is_full() {
            // It holds a part of one block.
            let wanted = self.window.data().len() * 2;
            if wanted > LARGEST_BLOCK {
                return Err(self.breaks("the block there claims to be larger than any packet"));
            }
            self.window.grow(wanted);
        }
        self.window
            .refill()
            .map_err(|error| self.breaks(&error.to_string()))
    }

    fn breaks(&mut self, what: &str) -> CaptureError {
        self.broken = true;
        let position = self.position + self.located as u64;
        refused(&self.name, format!("after {position} bytes: {what}"), CUT)
    }

    /// The frame that [`Self::advance`] went to.
    #[must_use]
    pub fn frame(&self) -> Option<Frame<'_>> {
        self.ahead(0)
    }

    /// The frame so many after that, if it is at hand.
    #[inline]
    #[must_use]
    pub fn ahead(&self, frames: usize) -> Option<Frame<'_>> {
        let located = self.frames.get(self.current + frames)?;
        let data = self
            .window
            .data()
            .get(located.start..located.start + located.length)?;
        Some(Frame {
            link: located.link,
            time: located.time,
            data,
            wire_length: located.wire_length,
            interface: located.interface,
        })
    }
}

/// Why no more frames were found in the window.
enum Stop {
    /// There are enough.
    Full,
    /// The next block goes on behind the window.
    Incomplete,
    /// It is none.
    Nonsense(&'static str),
}

impl Stop {
    fn of(error: &nom::Err<PcapError<&[u8]>>) -> Self {
        match error {
            nom::Err::Incomplete(_) => Self::Incomplete,
            nom::Err::Error(_) | nom::Err::Failure(_) => {
                Self::Nonsense("the block there is malformed")
            }
        }
    }
}

/// Bytes that tell a capture from anything else.
const MAGIC: usize = 6;

/// Why the first bytes are no beginning of a capture.
enum Begin {
    Incomplete,
    Invalid(&'static str),
}

/// The format that a file begins in, and the header if that is pcap's.
fn begin(data: &[u8]) -> Result<(Format, Option<PcapHeader>), Begin> {
    let failed = |error: nom::Err<PcapError<&[u8]>>| match error {
        nom::Err::Incomplete(_) => Begin::Incomplete,
        nom::Err::Error(error) | nom::Err::Failure(error) => Begin::Invalid(kind(&error)),
    };
    if data.starts_with(&[0x0a, 0x0d, 0x0d, 0x0a]) {
        parse_sectionheaderblock(data).map_err(failed)?;
        return Ok((Format::PcapNg { big_endian: false }, None));
    }
    let (_, header) = parse_pcap_header(data).map_err(failed)?;
    let format = if header.is_modified_format() {
        Format::Pcap {
            parse: parse_pcap_frame_modified,
            header: 24,
        }
    } else if header.is_bigendian() {
        Format::Pcap {
            parse: parse_pcap_frame_be,
            header: 16,
        }
    } else {
        Format::Pcap {
            parse: parse_pcap_frame,
            header: 16,
        }
    };
    Ok((format, Some(header)))
}

enum Noted {
    Nothing,
    /// A packet of an interface of the section.
    Packet(usize, Header),
    Nonsense(&'static str),
}

/// Takes from a packet of a pcap file what is needed.
#[inline]
fn note_packet(packet: &LegacyPcapBlock<'_>, start: usize, section: &[FileInterface]) -> Noted {
    let Some(interface) = section.first() else {
        return Noted::Nonsense("a packet comes before the header");
    };
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

/// Takes from a block of a pcapng file what is needed later.
fn note(
    block: &Block<'_>,
    section: &mut Vec<FileInterface>,
    big_endian: &mut bool,
    file: &str,
    names: &mut Vec<String>,
) -> Noted {
    match block {
        Block::SectionHeader(header) => {
            section.clear();
            *big_endian = header.big_endian();
            Noted::Nothing
        }
        Block::InterfaceDescription(description) => {
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
                Some(Ok(name)) => name.to_owned(),
                Some(Err(_)) | None => format!("{file}#{}", section.len()),
            };
            let known = names.iter().position(|known| *known == name);
            section.push(FileInterface {
                link: LinkType::from_number(description.linktype.0),
                number: description.linktype.0,
                resolution,
                name: known.unwrap_or(names.len()),
            });
            if known.is_none() {
                names.push(name);
            }
            Noted::Nothing
        }
        Block::EnhancedPacket(packet) => {
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
        Block::SimplePacket(_) if section.is_empty() => {
            Noted::Nonsense("a packet comes before the description of its interface")
        }
        Block::SimplePacket(packet) => Noted::Packet(
            0,
            Header {
                time: None,
                start: 12,
                length: (packet.origlen as usize).min(packet.data.len()),
                wire_length: packet.origlen,
            },
        ),
        // Statistics, names, comments and what is yet to be invented.
        Block::NameResolution(_)
        | Block::InterfaceStatistics(_)
        | Block::SystemdJournalExport(_)
        | Block::DecryptionSecrets(_)
        | Block::ProcessInformation(_)
        | Block::Custom(_)
        | Block::Unknown(_) => Noted::Nothing,
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

/// Opens all files before any is read, so that a wrong name is told before work begins.
///
/// # Errors
/// As [`CaptureFile::open`], for the first file that has one.
pub fn open_all(paths: &[PathBuf]) -> Result<Vec<CaptureFile>, CaptureError> {
    paths.iter().map(|path| CaptureFile::open(path)).collect()
}
