//! Capture files as other tools write them, byte by byte.

use etherparse::PacketBuilder;

/// When captures begin: 2025-10-09T08:53:20Z.
pub(crate) const START: u64 = 1_760_000_000_000_000_000;
pub(crate) const MS: u64 = 1_000_000;

/// Byte order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Order {
    Little,
    Big,
}

impl Order {
    fn u16(self, value: u16) -> [u8; 2] {
        match self {
            Self::Little => value.to_le_bytes(),
            Self::Big => value.to_be_bytes(),
        }
    }

    fn u32(self, value: u32) -> [u8; 4] {
        match self {
            Self::Little => value.to_le_bytes(),
            Self::Big => value.to_be_bytes(),
        }
    }
}

/// A pcap file.
pub(crate) struct Pcap {
    order: Order,
    nanos: bool,
    pub(crate) bytes: Vec<u8>,
}

impl Pcap {
    pub(crate) fn new(order: Order, nanos: bool, link: u32) -> Self {
        let magic = if nanos { 0xa1b2_3c4d } else { 0xa1b2_c3d4 };
        let mut bytes = order.u32(magic).to_vec();
        bytes.extend(order.u16(2));
        bytes.extend(order.u16(4));
        for field in [0, 0, 262_144, link] {
            bytes.extend(order.u32(field));
        }
        Self {
            order,
            nanos,
            bytes,
        }
    }

    pub(crate) fn ethernet() -> Self {
        Self::new(Order::Little, true, 1)
    }

    /// Adds a frame, cut to `snap` bytes.
    pub(crate) fn cut(&mut self, time: u64, frame: &[u8], snap: usize) {
        let kept = &frame[..frame.len().min(snap)];
        let unit = if self.nanos { 1 } else { 1000 };
        let fields = [
            time / 1_000_000_000,
            time % 1_000_000_000 / unit,
            kept.len() as u64,
            frame.len() as u64,
        ];
        for field in fields {
            self.bytes
                .extend(self.order.u32(u32::try_from(field).unwrap()));
        }
        self.bytes.extend(kept);
    }

    pub(crate) fn add(&mut self, time: u64, frame: &[u8]) {
        self.cut(time, frame, usize::MAX);
    }
}

/// A pcapng file.
pub(crate) struct PcapNg {
    order: Order,
    pub(crate) bytes: Vec<u8>,
}

impl PcapNg {
    /// With a first section.
    pub(crate) fn new(order: Order) -> Self {
        let mut file = Self {
            order,
            bytes: Vec::new(),
        };
        file.section(order);
        file
    }

    fn block(&mut self, kind: u32, body: &[u8]) {
        let mut body = body.to_vec();
        body.resize(body.len().next_multiple_of(4), 0);
        let length = self.order.u32(u32::try_from(body.len() + 12).unwrap());
        self.bytes.extend(self.order.u32(kind));
        self.bytes.extend(length);
        self.bytes.extend(body);
        self.bytes.extend(length);
    }

    pub(crate) fn section(&mut self, order: Order) {
        self.order = order;
        let mut body = order.u32(0x1a2b_3c4d).to_vec();
        body.extend(order.u16(1));
        body.extend(order.u16(0));
        body.extend([0xff; 8]);
        self.block(0x0a0d_0d0a, &body);
    }

    fn option(&self, body: &mut Vec<u8>, code: u16, value: &[u8]) {
        body.extend(self.order.u16(code));
        body.extend(self.order.u16(u16::try_from(value.len()).unwrap()));
        body.extend(value);
        body.resize(body.len().next_multiple_of(4), 0);
    }

    pub(crate) fn interface(
        &mut self,
        link: u16,
        resolution: Option<u8>,
        offset: Option<i64>,
        name: &str,
    ) {
        let mut body = self.order.u16(link).to_vec();
        body.extend([0, 0]);
        body.extend(self.order.u32(262_144));
        self.option(&mut body, 2, name.as_bytes());
        if let Some(resolution) = resolution {
            self.option(&mut body, 9, &[resolution]);
        }
        if let Some(offset) = offset {
            let bytes = match self.order {
                Order::Little => offset.to_le_bytes(),
                Order::Big => offset.to_be_bytes(),
            };
            self.option(&mut body, 14, &bytes);
        }
        self.option(&mut body, 0, &[]);
        self.block(1, &body);
    }

    /// An Enhanced Packet Block; `time` in the interface's units.
    pub(crate) fn packet(&mut self, interface: u32, time: u64, frame: &[u8]) {
        let length = u32::try_from(frame.len()).unwrap();
        let mut body = Vec::new();
        let high = u32::try_from(time >> 32).unwrap();
        let low = u32::try_from(time & 0xffff_ffff).unwrap();
        for field in [interface, high, low, length, length] {
            body.extend(self.order.u32(field));
        }
        body.extend(frame);
        body.resize(body.len().next_multiple_of(4), 0);
        self.option(&mut body, 1, b"a comment");
        self.option(&mut body, 0, &[]);
        self.block(6, &body);
    }

    /// A Simple Packet Block, which has no time.
    pub(crate) fn simple_packet(&mut self, frame: &[u8]) {
        let mut body = self.order.u32(u32::try_from(frame.len()).unwrap()).to_vec();
        body.extend(frame);
        self.block(3, &body);
    }

    /// A block of a kind that nobody knows.
    pub(crate) fn foreign(&mut self) {
        self.block(0x0bad_0bad, b"whatever");
    }
}

/// TCP over IPv4 between `10.0.0.a` and `10.0.0.b`; flags as in `SA`.
pub(crate) fn tcp(from: (u8, u16), to: (u8, u16), flags: &str) -> Vec<u8> {
    let mut builder =
        PacketBuilder::ipv4([10, 0, 0, from.0], [10, 0, 0, to.0], 64).tcp(from.1, to.1, 1, 1024);
    for flag in flags.chars() {
        builder = match flag {
            'S' => builder.syn(),
            'A' => builder.ack(1),
            'F' => builder.fin(),
            'R' => builder.rst(),
            other => panic!("no flag {other}"),
        };
    }
    let mut packet = Vec::new();
    builder.write(&mut packet, b"").unwrap();
    packet
}

pub(crate) fn udp(from: (u8, u16), to: (u8, u16)) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv4([10, 0, 0, from.0], [10, 0, 0, to.0], 64)
        .udp(from.1, to.1)
        .write(&mut packet, b"hello")
        .unwrap();
    packet
}

/// An ICMP error from `10.0.0.hop` to the sender of `quoted`.
pub(crate) fn icmp_error(hop: u8, kind: u8, code: u8, quoted: &[u8]) -> Vec<u8> {
    let to = [quoted[12], quoted[13], quoted[14], quoted[15]];
    let mut packet = Vec::new();
    PacketBuilder::ipv4([10, 0, 0, hop], to, 64)
        .icmpv4_raw(kind, code, [0; 4])
        .write(&mut packet, &quoted[..28])
        .unwrap();
    packet
}

pub(crate) fn ping(from: u8, to: u8) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv4([10, 0, 0, from], [10, 0, 0, to], 64)
        .icmpv4_echo_request(7, 1)
        .write(&mut packet, b"")
        .unwrap();
    packet
}

pub(crate) fn ethernet(packet: &[u8]) -> Vec<u8> {
    let kind: u16 = if packet[0] >> 4 == 6 { 0x86dd } else { 0x0800 };
    let mut frame = vec![2; 12];
    frame.extend(kind.to_be_bytes());
    frame.extend(packet);
    frame
}

/// An IPv4 packet behind the header of a link type.
pub(crate) fn framed(link: u16, packet: &[u8]) -> Vec<u8> {
    let header: &[u8] = match link {
        0 => &[2, 0, 0, 0],
        108 => &[0, 0, 0, 2],
        1 => return ethernet(packet),
        12 | 14 | 101 | 228 => &[],
        113 => &[0, 0, 0, 1, 0, 6, 2, 2, 2, 2, 2, 2, 0, 0, 8, 0],
        276 => &[8, 0, 0, 0, 0, 0, 0, 3, 0, 1, 0, 6, 2, 2, 2, 2, 2, 2, 0, 0],
        other => panic!("no link type {other}"),
    };
    [header, packet].concat()
}
