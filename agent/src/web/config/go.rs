//! Names that Go has for versions, cipher suites and curves, as exporter-toolkit takes them, and what they are in rustls
//! with ring. What rustls does not have is known by name too, so that it can be refused with the reason.

use rustls::SupportedCipherSuite;
use rustls::crypto::SupportedKxGroup;
use rustls::crypto::ring::{cipher_suite, kx_group};

/// A name of Go's, and what it stands for or why that can't be had.
pub(super) type Name<T> = (&'static str, Result<T, &'static str>);

/// A version of TLS, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    Tls12,
    Tls13,
}

const OLD: &str = "RFC 8996 deprecates it, and it is not built in: use `TLS12` or `TLS13`";

pub(super) const VERSIONS: [Name<Version>; 4] = [
    ("TLS13", Ok(Version::Tls13)),
    ("TLS12", Ok(Version::Tls12)),
    ("TLS11", Err(OLD)),
    ("TLS10", Err(OLD)),
];

const CBC: &str = "its CBC mode is open to padding attacks, and it is not built in: use one with GCM or ChaCha20-Poly1305";
const NO_SECRECY: &str =
    "it has no forward secrecy, and it is not built in: use one that begins with TLS_ECDHE_";
const WEAK: &str =
    "its cipher is broken, and it is not built in: use one with GCM or ChaCha20-Poly1305";

pub(super) const SUITES: [Name<SupportedCipherSuite>; 28] = [
    (
        "TLS_AES_128_GCM_SHA256",
        Ok(cipher_suite::TLS13_AES_128_GCM_SHA256),
    ),
    (
        "TLS_AES_256_GCM_SHA384",
        Ok(cipher_suite::TLS13_AES_256_GCM_SHA384),
    ),
    (
        "TLS_CHACHA20_POLY1305_SHA256",
        Ok(cipher_suite::TLS13_CHACHA20_POLY1305_SHA256),
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        Ok(cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        Ok(cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        Ok(cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ),
    // Go has these two under their old names as well.
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305",
        Ok(cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ),
    (
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        Ok(cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
    ),
    (
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        Ok(cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    ),
    (
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        Ok(cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
    ),
    (
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305",
        Ok(cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
    ),
    ("TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA", Err(CBC)),
    ("TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256", Err(CBC)),
    ("TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA", Err(CBC)),
    ("TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA", Err(CBC)),
    ("TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256", Err(CBC)),
    ("TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA", Err(CBC)),
    ("TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA", Err(WEAK)),
    ("TLS_ECDHE_ECDSA_WITH_RC4_128_SHA", Err(WEAK)),
    ("TLS_ECDHE_RSA_WITH_RC4_128_SHA", Err(WEAK)),
    ("TLS_RSA_WITH_RC4_128_SHA", Err(WEAK)),
    ("TLS_RSA_WITH_3DES_EDE_CBC_SHA", Err(WEAK)),
    ("TLS_RSA_WITH_AES_128_CBC_SHA", Err(NO_SECRECY)),
    ("TLS_RSA_WITH_AES_128_CBC_SHA256", Err(NO_SECRECY)),
    ("TLS_RSA_WITH_AES_256_CBC_SHA", Err(NO_SECRECY)),
    ("TLS_RSA_WITH_AES_128_GCM_SHA256", Err(NO_SECRECY)),
    ("TLS_RSA_WITH_AES_256_GCM_SHA384", Err(NO_SECRECY)),
    (
        "TLS_FALLBACK_SCSV",
        Err("it is a signal of clients, no cipher suite: leave it out"),
    ),
];

/// Key exchange over curves. A static reference can't be used in a constant.
pub(super) fn curves() -> [Name<&'static dyn SupportedKxGroup>; 7] {
    const HYBRID: &str = "ring has no ML-KEM: use `X25519`, or put a proxy in front that speaks it";
    [
        ("X25519", Ok(kx_group::X25519)),
        ("CurveP256", Ok(kx_group::SECP256R1)),
        ("CurveP384", Ok(kx_group::SECP384R1)),
        (
            "CurveP521",
            Err("ring does not have it: use `CurveP384` or `X25519`"),
        ),
        ("X25519MLKEM768", Err(HYBRID)),
        ("SecP256r1MLKEM768", Err(HYBRID)),
        ("SecP384r1MLKEM1024", Err(HYBRID)),
    ]
}
