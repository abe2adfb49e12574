//! Every kind of capture file gives the frames that were put into it, and every kind of damage its own words.

use std::io::{self, Read};
use std::path::Path;

use flowproof::capture::Progress;
use flowproof::capture::file::CaptureFile;
use flowproof::capture::replay::Replay;
use flowproof::flow::Limits;
use flowproof::names::Settings;

use crate::captures::{MS, Order, Pcap, PcapNg, START, ethernet, framed, tcp};

fn open(bytes: &[u8]) -> Result<CaptureFile, String> {
    CaptureFile::read("test", io::Cursor::new(bytes.to_vec())).map_err(|error| error.to_string())
}

/// Time, captured bytes and length on the wire.
type Frame = (u64, Vec<u8>, u32);

/// Every frame, and the error that ended the file.
fn frames(mut file: CaptureFile) -> (Vec<Frame>, Option<String>) {
    let mut frames = Vec::new();
    loop {
        match file.advance() {
            Ok(true) => {
                let frame = file.frame().unwrap();
                frames.push((frame.time, frame.data.to_vec(), frame.wire_length));
            }
            Ok(false) => return (frames, file.complaint().map(|error| error.to_string())),
            Err(error) => return (frames, Some(error.to_string())),
        }
    }
}

fn syn() -> Vec<u8> {
    ethernet(&tcp((1, 40000), (2, 443), "S"))
}

#[test]
fn pcap_in_both_orders_and_resolutions() {
    let frame = syn();
    for order in [Order::Little, Order::Big] {
        for (nanos, shown) in [(true, START + 123_456_789), (false, START + 123_456_000)] {
            let mut file = Pcap::new(order, nanos, 1);
            file.add(START + 123_456_789, &frame);
            file.cut(START + 200 * MS, &frame, 20);
            let wire = u32::try_from(frame.len()).unwrap();
            let (found, error) = frames(open(&file.bytes).unwrap());
            assert_eq!(error, None);
            assert_eq!(found[0], (shown, frame.clone(), wire), "{order:?}");
            assert_eq!(found[1], (START + 200 * MS, frame[..20].to_vec(), wire));
        }
    }
}

#[test]
fn pcapng_with_sections_interfaces_and_resolutions() {
    let frame = syn();
    let mut file = PcapNg::new(Order::Little);
    file.interface(1, None, None, "eth0");
    file.foreign();
    file.interface(113, Some(9), None, "any");
    file.packet(0, START / 1000, &frame);
    file.packet(1, START + 1, &frame);
    file.simple_packet(&frame);
    file.section(Order::Big);
    // 2^-20 of a second, and an offset of an hour.
    file.interface(101, Some(0x80 | 20), Some(3600), "tun0");
    file.packet(0, (START / 1_000_000_000 - 3600) << 20 | 1 << 19, &frame);
    file.interface(1, Some(0), None, "slow");
    file.packet(1, START / 1_000_000_000, &frame);
    let (found, error) = frames(open(&file.bytes).unwrap());
    assert_eq!(error, None);
    let times: Vec<_> = found.iter().map(|(time, _, _)| time - START).collect();
    assert_eq!(times, [0, 1, 1, 500 * MS, 0]);
    assert!(found.iter().all(|(_, data, _)| *data == frame));
}

#[test]
fn interfaces_keep_their_names_and_link_types() {
    let packet = tcp((1, 1), (2, 2), "S");
    let mut file = PcapNg::new(Order::Big);
    let links = [0_u16, 1, 12, 101, 108, 113, 228, 276];
    for link in links {
        file.interface(link, None, None, &format!("if{link}"));
    }
    for (interface, link) in (0..).zip(links) {
        file.packet(interface, START / 1000, &framed(link, &packet));
    }
    let mut file = open(&file.bytes).unwrap();
    for link in links {
        assert!(file.advance().unwrap());
        let frame = file.frame().unwrap();
        assert_eq!(file.interfaces()[frame.interface], format!("if{link}"));
        let mut parsed = flowproof_common::packet::Packet::default();
        let outcome = flowproof::capture::decode::frame(frame.link, frame.data, &mut parsed);
        assert_eq!(outcome, flowproof_common::parse::Outcome::Ip, "{link}");
    }
}

/// Gives one byte at a time, as a slow pipe may.
struct Dribble(io::Cursor<Vec<u8>>);

impl Read for Dribble {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let end = into.len().min(1);
        self.0.read(&mut into[..end])
    }
}

#[test]
fn a_pipe_that_dribbles_is_read() {
    let mut file = PcapNg::new(Order::Little);
    file.interface(1, None, None, "eth0");
    for at in 0..20_000 {
        file.packet(0, START / 1000 + at, &syn());
    }
    let dribble = Dribble(io::Cursor::new(file.bytes));
    let (found, error) = frames(CaptureFile::read("pipe", dribble).unwrap());
    assert_eq!((found.len(), error), (20_000, None));
}

#[test]
fn large_packets_grow_the_buffer() {
    let large = vec![0x45; 1_000_000];
    let mut file = Pcap::ethernet();
    file.add(START, &syn());
    file.add(START, &large);
    file.add(START, &syn());
    let (found, error) = frames(open(&file.bytes).unwrap());
    assert_eq!(error, None);
    assert_eq!(found[1].1, large);
    assert_eq!(found.len(), 3);
}

#[test]
fn cut_files_give_what_is_there_and_say_so() {
    let mut pcap = Pcap::ethernet();
    let mut ng = PcapNg::new(Order::Little);
    ng.interface(1, None, None, "eth0");
    let header = ng.bytes.len();
    let mut ends = Vec::new();
    for _ in 0..3 {
        pcap.add(START, &syn());
        ng.packet(0, START / 1000, &syn());
        ends.push((pcap.bytes.len(), ng.bytes.len()));
    }
    for length in 24..pcap.bytes.len() {
        let (found, error) = frames(open(&pcap.bytes[..length]).unwrap());
        let whole = ends.iter().filter(|(end, _)| *end <= length).count();
        assert_eq!(found.len(), whole, "{length}");
        let at_an_end = length == 24 || ends.iter().any(|(end, _)| *end == length);
        assert_eq!(error.is_none(), at_an_end, "{length}: {error:?}");
    }
    for length in header..ng.bytes.len() {
        let (found, error) = frames(open(&ng.bytes[..length]).unwrap());
        let whole = ends.iter().filter(|(_, end)| *end <= length).count();
        assert_eq!(found.len(), whole, "{length}");
        let at_an_end = length == header || ends.iter().any(|(_, end)| *end == length);
        assert_eq!(error.is_none(), at_an_end, "{length}: {error:?}");
    }
    let (_, error) = frames(open(&pcap.bytes[..pcap.bytes.len() - 1]).unwrap());
    let error = error.unwrap();
    assert!(
        error.contains("test: after 164 bytes: it is cut short"),
        "{error}"
    );
}

#[test]
fn damage_ends_the_file_and_never_the_program() {
    let mut ng = PcapNg::new(Order::Little);
    ng.interface(1, Some(6), None, "eth0");
    ng.packet(0, START / 1000, &syn());
    let mut pcap = Pcap::ethernet();
    pcap.add(START, &syn());
    for file in [ng.bytes, pcap.bytes] {
        for at in 0..file.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut damaged = file.clone();
                damaged[at] = value;
                if let Ok(file) = open(&damaged) {
                    assert!(frames(file).0.len() <= 1);
                }
                // Times and lengths beyond all measure go through the judgement too.
                if let Ok(file) = open(&damaged) {
                    let mut replay =
                        Replay::new(vec![file], Limits::default(), Settings::default());
                    while replay.step(&mut |_, _| {}) == Progress::Live {}
                    assert!(replay.table().flows().count() <= 1);
                }
            }
        }
    }
    let mut huge = Pcap::ethernet();
    huge.add(START, &syn());
    let claims = huge.bytes.len() + 8;
    huge.add(START, &syn());
    huge.bytes[claims..claims + 4].copy_from_slice(&[0xff; 4]);
    let (found, error) = frames(open(&huge.bytes).unwrap());
    assert_eq!(found.len(), 1);
    assert!(error.is_some());
}

#[test]
fn what_is_no_capture_is_refused_with_a_remedy() {
    let mut foreign_link = Pcap::new(Order::Little, false, 147);
    foreign_link.add(START, &syn());
    let cases: [(&[u8], &str); 7] = [
        (b"", "it is empty"),
        (b"system: x\n", "no capture file"),
        (b"\x1f\x8b\x08whatever", "compressed with gzip"),
        (b"\x28\xb5\x2f\xfdwhatever", "compressed with zstd"),
        (&[0xd4, 0xc3, 0xb2, 0xa1, 2, 0], "cut short"),
        (&[0x0a, 0x0d, 0x0d, 0x0a, 2, 0], "cut short"),
        (&foreign_link.bytes, "link type 147 is not supported"),
    ];
    for (bytes, words) in cases {
        let error = open(bytes).err().expect("an error");
        assert!(error.starts_with("test: "), "{error}");
        assert!(error.contains(words), "{error}");
        assert!(error.contains("; "), "no remedy: {error}");
    }
    let missing = CaptureFile::open(Path::new("/nowhere/at all.pcap"))
        .err()
        .unwrap();
    assert!(
        missing.to_string().contains("/nowhere/at all.pcap"),
        "{missing}"
    );
    let folder = CaptureFile::open(Path::new("/")).err().unwrap();
    assert!(folder.to_string().contains("directory"), "{folder}");
}

#[test]
fn interfaces_of_foreign_link_types_are_passed_over_and_told() {
    let mut file = PcapNg::new(Order::Little);
    file.interface(220, None, None, "usbmon1");
    file.interface(1, None, None, "eth0");
    file.packet(0, START / 1000, b"usb");
    file.packet(1, START / 1000, &syn());
    let (found, complaint) = frames(open(&file.bytes).unwrap());
    assert_eq!(found.len(), 1);
    assert!(complaint.unwrap().contains("link type 220"));
}

#[test]
fn times_at_the_end_of_the_clock_are_survived() {
    let mut file = PcapNg::new(Order::Little);
    file.interface(1, Some(0), None, "eth0");
    for time in [0, u64::MAX, 1, u64::MAX, 2] {
        file.packet(0, time, &syn());
    }
    let mut replay = Replay::new(
        vec![open(&file.bytes).unwrap()],
        Limits::default(),
        Settings::default(),
    );
    while replay.step(&mut |_, _| {}) == Progress::Live {}
    assert_eq!(replay.totals().interfaces[0].1.packets, 5);
    assert!(replay.complaints().is_empty());
}
