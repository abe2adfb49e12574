//! Builders of wire bytes for the tests, written from the RFCs and without the parsers that they test.

/// A name in wire form without compression (RFC 1035, section 3.1).
pub(super) fn wire_name(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in text.split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

/// Bytes with their length before them, in 16 bits.
pub(super) fn vector16(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap();
    [&length.to_be_bytes()[..], bytes].concat()
}

/// Bytes with their length before them, in 8 bits.
pub(super) fn vector8(bytes: &[u8]) -> Vec<u8> {
    [&[u8::try_from(bytes.len()).unwrap()][..], bytes].concat()
}

/// A DNS response in the making.
#[derive(Clone)]
pub(super) struct Response {
    flags: u16,
    question: Vec<u8>,
    sections: [Vec<Vec<u8>>; 3],
}

impl Response {
    pub(super) fn to(name: &str, kind: u16) -> Self {
        let mut question = wire_name(name);
        question.extend(kind.to_be_bytes());
        question.extend(1_u16.to_be_bytes());
        Self {
            flags: 0x8180,
            question,
            sections: Default::default(),
        }
    }

    pub(super) fn flags(mut self, flags: u16) -> Self {
        self.flags = flags;
        self
    }

    pub(super) fn record(self, owner: &str, kind: u16, ttl: u32, data: &[u8]) -> Self {
        self.raw(0, &wire_name(owner), kind, ttl, data)
    }

    pub(super) fn additional(self, owner: &str, kind: u16, ttl: u32, data: &[u8]) -> Self {
        self.raw(2, &wire_name(owner), kind, ttl, data)
    }

    pub(super) fn authority(self, owner: &str, kind: u16, ttl: u32, data: &[u8]) -> Self {
        self.raw(1, &wire_name(owner), kind, ttl, data)
    }

    pub(super) fn a(self, owner: &str, ttl: u32, address: [u8; 4]) -> Self {
        self.record(owner, 1, ttl, &address)
    }

    pub(super) fn cname(self, owner: &str, ttl: u32, target: &str) -> Self {
        self.record(owner, 5, ttl, &wire_name(target))
    }

    pub(super) fn raw(
        mut self,
        section: usize,
        owner: &[u8],
        kind: u16,
        ttl: u32,
        data: &[u8],
    ) -> Self {
        let mut record = owner.to_vec();
        record.extend(kind.to_be_bytes());
        record.extend(1_u16.to_be_bytes());
        record.extend(ttl.to_be_bytes());
        record.extend(vector16(data));
        self.sections[section].push(record);
        self
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0x12, 0x34];
        bytes.extend(self.flags.to_be_bytes());
        bytes.extend(1_u16.to_be_bytes());
        for section in &self.sections {
            bytes.extend(u16::try_from(section.len()).unwrap().to_be_bytes());
        }
        bytes.extend(&self.question);
        bytes.extend(self.sections.iter().flatten().flatten());
        bytes
    }
}

/// The data of an HTTPS record (RFC 9460, section 2.2); parameters in the order given.
pub(super) fn service(priority: u16, target: &str, parameters: &[(u16, &[u8])]) -> Vec<u8> {
    let mut data = priority.to_be_bytes().to_vec();
    data.extend(wire_name(target));
    for (key, value) in parameters {
        data.extend(key.to_be_bytes());
        data.extend(vector16(value));
    }
    data
}

/// An ECHConfigList with one configuration (draft-ietf-tls-esni, section 4).
pub(super) fn ech_list(version: u16, public_name: &str) -> Vec<u8> {
    let mut config = vec![7, 0, 0x20];
    config.extend(vector16(&[9; 32]));
    config.extend(vector16(&[0, 1, 0, 1]));
    config.push(0);
    config.extend(vector8(public_name.as_bytes()));
    config.extend(vector16(&[]));
    let config = [&version.to_be_bytes()[..], &vector16(&config)].concat();
    vector16(&config)
}

/// A TLS extension (RFC 8446, section 4.2).
pub(in crate::names) fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &vector16(data)].concat()
}

/// `server_name` with one host name (RFC 6066, section 3).
pub(in crate::names) fn sni(name: &[u8]) -> Vec<u8> {
    let entry = [&[0][..], &vector16(name)].concat();
    extension(0, &vector16(&entry))
}

/// `application_layer_protocol_negotiation` (RFC 7301, section 3.1).
pub(super) fn alpn(protocols: &[&[u8]]) -> Vec<u8> {
    let list: Vec<u8> = protocols.iter().flat_map(|name| vector8(name)).collect();
    extension(16, &vector16(&list))
}

/// A ClientHello message with the extensions given (RFC 8446, section 4.1.2).
pub(in crate::names) fn client_hello(extensions: &[Vec<u8>]) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([0x5a; 32]);
    body.extend(vector8(&[0xa5; 32]));
    // The first suite is a reserved value (RFC 8701), which servers must ignore.
    body.extend(vector16(&[0x1a, 0x1a, 0x13, 0x01, 0x13, 0x02, 0xc0, 0x2f]));
    body.extend(vector8(&[0]));
    body.extend(vector16(&extensions.concat()));
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[1][..], &length[1..], &body].concat()
}

/// Handshake bytes in TLS records of at most `most` bytes (RFC 8446, section 5.1).
pub(in crate::names) fn records(version: u16, most: usize, handshake: &[u8]) -> Vec<u8> {
    handshake
        .chunks(most)
        .flat_map(|part| [&[22][..], &version.to_be_bytes(), &vector16(part)].concat())
        .collect()
}

/// Extensions as a browser sends them, with keys for post-quantum exchange.
pub(super) fn browser_extensions(name: &str) -> Vec<Vec<u8>> {
    vec![
        extension(0x2a2a, &[]),
        extension(0xff01, &[0]),
        extension(10, &vector16(&[0x3a, 0x3a, 0x11, 0xec, 0, 29])),
        extension(51, &vector16(&[7; 1_263])),
        // Status request with a content that this type doesn't have: nobody has to understand it.
        extension(5, &[]),
        sni(name.as_bytes()),
        alpn(&[b"h2", b"http/1.1"]),
        extension(43, &vector8(&[0x4a, 0x4a, 3, 4, 3, 3])),
        extension(0x5a5a, &[0]),
    ]
}
