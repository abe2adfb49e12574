use std::fs;

use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

use super::*;
use crate::web::config::WebReading;

const HASH: &str = "$2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi";

/// A folder with a certificate, its key, and another key.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    for (name, text) in [
        ("cert.pem", certificate.pem()),
        ("key.pem", key.serialize_pem()),
        ("other.pem", KeyPair::generate().unwrap().serialize_pem()),
        ("empty.pem", String::new()),
    ] {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn read_in(folder: &TempDir, text: &str) -> WebReading {
    let path = folder.path().join("web.yaml");
    fs::write(&path, text).unwrap();
    read(&path).unwrap()
}

fn settings(folder: &TempDir, text: &str) -> Settings {
    let reading = read_in(folder, text);
    assert_eq!(reading.findings.as_slice(), [], "{text}");
    reading.settings.unwrap()
}

/// Code, place and message of what is wrong with a file.
fn faults(folder: &TempDir, text: &str) -> Vec<(String, String)> {
    let reading = read_in(folder, text);
    assert!(reading.settings.is_none(), "{text}");
    let findings = reading.findings.as_slice().iter();
    findings
        .map(|it| {
            let place = format!("{} {}:{}", it.code, it.line, it.column);
            (place, it.message.clone())
        })
        .collect()
}

#[test]
fn reads_every_key() {
    let folder = folder();
    let text = format!(
        "tls_server_config:\n  cert_file: cert.pem\n  key_file: key.pem\n  client_auth_type: RequireAndVerifyClientCert\n  \
         client_ca_file: cert.pem\n  client_allowed_sans: [scraper.example]\n  min_version: TLS12\n  max_version: TLS13\n  \
         cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384]\n  prefer_server_cipher_suites: false\n  \
         curve_preferences: [CurveP384, X25519]\n\
         http_server_config:\n  http2: false\n  headers:\n    Strict-Transport-Security: max-age=31536000\n    \
         X-Frame-Options: deny\n    X-XSS-Protection: ''\n\
         basic_auth_users: {{ann: {HASH}}}\n\
         rate_limit: {{interval: 1s, burst: 20}}\n"
    );
    let settings = settings(&folder, &text);
    let tls = settings.tls.as_ref().unwrap();
    assert!(tls.proves_clients && settings.authenticates());
    let certificates: Vec<_> = tls.expiries.iter().map(|it| it.certificate).collect();
    assert_eq!(certificates, ["server", "client_ca"]);
    // rcgen's default is the year 4096.
    assert!(tls.expiries.iter().all(|it| it.not_after > 60_000_000_000));
    assert_eq!(tls.server.alpn_protocols, [b"http/1.1"]);
    assert!(!tls.server.ignore_client_order);
    let provider = tls.server.crypto_provider();
    // One of TLS 1.2, and the three of TLS 1.3, which the list does not touch.
    assert_eq!(provider.cipher_suites.len(), 4);
    let curves: Vec<_> = provider.kx_groups.iter().map(|it| it.name()).collect();
    assert_eq!(
        curves,
        [rustls::NamedGroup::secp384r1, rustls::NamedGroup::X25519]
    );
    let headers: Vec<_> = settings
        .headers
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(headers, ["x-frame-options", "strict-transport-security"]);
    let limit = RateLimit {
        interval: Duration::from_secs(1),
        burst: 20,
    };
    assert_eq!(settings.rate_limit, Some(limit));
    assert!(!format!("{settings:?}").contains("QOau"));
}

#[test]
fn what_is_left_out_has_its_default() {
    let folder = folder();
    for text in [
        "",
        "# nothing\n",
        "basic_auth_users: {}\nrate_limit: {interval: 0}\n",
    ] {
        let settings = settings(&folder, text);
        assert!(
            !settings.authenticates() && settings.tls.is_none(),
            "{text}"
        );
        assert!(settings.rate_limit.is_none() && settings.headers.is_empty());
    }
    let text = "tls_server_config: {cert_file: cert.pem, key_file: key.pem}\n";
    let settings = settings(&folder, text);
    let tls = settings.tls.as_ref().unwrap();
    assert!(!settings.authenticates() && tls.server.ignore_client_order);
    assert_eq!(tls.server.alpn_protocols, [&b"h2"[..], &b"http/1.1"[..]]);
    assert_eq!(tls.server.crypto_provider().cipher_suites.len(), 9);
}

#[test]
fn the_example_is_good_with_all_that_it_proposes() {
    let folder = folder();
    for (from, to) in [
        ("cert.pem", "flowproof.pem"),
        ("key.pem", "flowproof.key"),
        ("cert.pem", "clients.pem"),
    ] {
        fs::copy(folder.path().join(from), folder.path().join(to)).unwrap();
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/web.yaml");
    let example = fs::read_to_string(path).unwrap();
    assert!(settings(&folder, &example).rate_limit.is_none());
    let all = example
        .replace("  # client_", "  client_")
        .replace("# rate_limit", "rate_limit");
    let settings = settings(&folder, &all);
    assert!(settings.tls.unwrap().proves_clients);
    assert!(settings.users.is_some() && settings.rate_limit.is_some());
}

#[test]
fn certificates_may_stand_in_the_file() {
    let folder = folder();
    let inline = |name: &str| {
        let text = fs::read_to_string(folder.path().join(name)).unwrap();
        text.replace('\n', "\n    ")
    };
    let text = format!(
        "tls_server_config:\n  cert: |\n    {}\n  key: |\n    {}\n",
        inline("cert.pem"),
        inline("key.pem")
    );
    assert!(settings(&folder, &text).tls.is_some());
}

#[test]
fn only_a_verified_certificate_proves_who_asks() {
    let folder = folder();
    for (auth, proves) in [
        ("NoClientCert", false),
        ("RequestClientCert", false),
        ("RequireAnyClientCert", false),
        ("RequireClientCert", false),
        ("VerifyClientCertIfGiven, client_ca_file: cert.pem", false),
        ("RequireAndVerifyClientCert, client_ca_file: cert.pem", true),
    ] {
        let text = format!(
            "tls_server_config: {{cert_file: cert.pem, key_file: key.pem, client_auth_type: {auth}}}\n"
        );
        assert_eq!(settings(&folder, &text).authenticates(), proves, "{auth}");
    }
}

#[test]
fn all_errors_come_at_once_with_their_places() {
    let folder = folder();
    let text = "tls_server_config:\n  cert_file: none.pem\n  key_file: empty.pem\n  client_auth_type: Require\n  min_version: TLS10\n  \
                cipher_suites: [TLS_RSA_WITH_AES_128_CBC_SHA, TLS_AES_128_GCM_SHA265]\n  curve_preferences: [CurveP521]\n  certfile: x\n\
                http_server_config:\n  http2: maybe\n  headers: {X-Frame-Options: allow, Server: x}\n\
                basic_auth_users:\n  ann: hunter2\n  'b:c': x\n  ann: x\n\
                rate_limit: {interval: soon, burst: 0}\n\
                oauth: {}\n";
    let faults = faults(&folder, text);
    let places: Vec<_> = faults.iter().map(|(place, _)| place.as_str()).collect();
    assert_eq!(
        places,
        [
            "bad-certificate 2:14",
            "bad-certificate 3:13",
            "unknown-value 4:21",
            "unsupported-value 5:16",
            "unsupported-value 6:19",
            "unknown-value 6:49",
            "unsupported-value 7:23",
            "unknown-key 8:3",
            "unknown-value 10:10",
            "unknown-value 11:30",
            "unknown-key 11:37",
            "bad-hash 13:8",
            "bad-user 14:3",
            "bad-hash 15:8",
            "bad-duration 16:24",
            "unknown-key 17:1",
        ]
    );
    let said = faults.iter().map(|(_, message)| message.as_str());
    let said = said.collect::<Vec<_>>().join("\n");
    // A password that stands in the place of its hash must not get into the log.
    assert!(!said.contains("hunter2"), "{said}");
    for part in [
        "none.pem",
        "No such file",
        "no private key",
        "RFC 8996",
        "forward secrecy",
        "did you mean `TLS_AES_128_GCM_SHA256`",
        "did you mean `cert_file`",
        "`deny` or `sameorigin`",
        "htpasswd",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn what_contradicts_itself_is_refused() {
    let folder = folder();
    let check = |tls: &str, place: &str, part: &str| {
        let text = format!("tls_server_config: {{{tls}}}\n");
        let faults = faults(&folder, &text);
        let found =
            |(at, message): &(String, String)| at.starts_with(place) && message.contains(part);
        assert!(faults.iter().any(found), "{tls}: {faults:?}");
    };
    let pair = "cert_file: cert.pem, key_file: key.pem";
    let with = |more: &str| format!("{pair}, {more}");
    check("min_version: TLS13", "missing-key", "`cert_file`");
    check("cert_file: cert.pem", "missing-key", "`key_file`");
    check(
        "cert_file: cert.pem, key_file: other.pem",
        "bad-certificate",
        "not that of the certificate",
    );
    check(
        "cert_file: key.pem, key_file: key.pem",
        "bad-certificate",
        "no certificate",
    );
    check(&with("cert: x"), "conflict", "both given");
    check(
        &with("client_ca_file: cert.pem"),
        "conflict",
        "RequireAndVerifyClientCert",
    );
    check(
        &with("client_auth_type: RequireAndVerifyClientCert"),
        "missing-key",
        "client_ca_file",
    );
    check(
        &with("client_auth_type: RequireAnyClientCert, client_allowed_sans: [a]"),
        "conflict",
        "nobody verified",
    );
    let verified = with("client_auth_type: RequireAndVerifyClientCert, client_ca_file: cert.pem");
    check(
        &format!("{verified}, client_allowed_sans: []"),
        "empty-list",
        "no certificate would do",
    );
    check(
        &with("min_version: TLS13, max_version: TLS12"),
        "conflict",
        "below",
    );
    check(
        &with("cipher_suites: [TLS_AES_128_GCM_SHA256]"),
        "conflict",
        "none of TLS 1.2",
    );
    let rate = faults(&folder, "rate_limit: {interval: 1s}\n");
    assert!(rate[0].1.contains("burst"), "{rate:?}");
    let suites = with("min_version: TLS13, cipher_suites: [TLS_AES_128_GCM_SHA256]");
    let text = format!("tls_server_config: {{{suites}}}\n");
    let tls = settings(&folder, &text).tls.unwrap();
    assert_eq!(tls.server.crypto_provider().cipher_suites.len(), 1);
}

#[test]
fn files_that_are_named_are_watched_even_if_they_are_bad() {
    let folder = folder();
    let text = "tls_server_config: {cert_file: none.pem, key_file: key.pem}\n";
    let reading = read_in(&folder, text);
    assert_eq!(reading.files, reading.files.again());
    fs::copy(
        folder.path().join("cert.pem"),
        folder.path().join("none.pem"),
    )
    .unwrap();
    assert_ne!(reading.files, reading.files.again());
    assert!(settings(&folder, text).tls.is_some());
}
