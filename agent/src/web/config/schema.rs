//! The published shape of a web configuration, for the JSON Schema that editors use.
#![expect(dead_code, reason = "the types are never built, only described")]

use std::collections::BTreeMap;

use schemars::JsonSchema;

/// Who may ask the web server of flowproof, and by what TLS: the keys of Prometheus' exporter-toolkit. Paths are relative to the
/// file's folder. The file is read again when it or a file that it names changes.
#[derive(JsonSchema)]
#[schemars(title = "flowproof web configuration", deny_unknown_fields)]
pub(super) struct WebFile {
    /// TLS, on every address that is listened on.
    tls_server_config: Option<TlsSection>,
    /// HTTP.
    http_server_config: Option<HttpSection>,
    /// Users with the bcrypt hashes of their passwords, as `htpasswd -nBC 10 USER` makes them. Without any, no password is asked for.
    #[schemars(inner(regex(pattern = r"^\$2[aby]\$(0[4-9]|1[0-5])\$[./A-Za-z0-9]{53}$")))]
    basic_auth_users: Option<BTreeMap<String, String>>,
    /// How many requests are answered.
    rate_limit: Option<RateSection>,
}

/// TLS.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct TlsSection {
    /// The certificate in PEM, with those of its issuers after it.
    cert_file: Option<String>,
    /// The private key in PEM, without a passphrase.
    key_file: Option<String>,
    /// The content of a certificate file, in place of `cert_file`.
    cert: Option<String>,
    /// The content of a key file, in place of `key_file`.
    key: Option<String>,
    /// What certificate a client has to show. Only `RequireAndVerifyClientCert` proves who asks.
    client_auth_type: Option<ClientAuthText>,
    /// Authorities in PEM that clients are verified by.
    client_ca_file: Option<String>,
    /// The content of such a file, in place of `client_ca_file`.
    client_ca: Option<String>,
    /// DNS names, addresses, e-mail addresses or URIs, one of which a client's certificate has to name.
    #[schemars(length(min = 1))]
    client_allowed_sans: Option<Vec<String>>,
    /// The least version.
    min_version: Option<VersionText>,
    /// The greatest version.
    max_version: Option<VersionText>,
    /// Cipher suites by the names of Go. Those of TLS 1.3 are all offered unless some are named.
    cipher_suites: Option<Vec<SuiteText>>,
    /// Whether the server's order of cipher suites counts, or the client's.
    prefer_server_cipher_suites: Option<bool>,
    /// Curves by the names of Go, the preferred ones first.
    curve_preferences: Option<Vec<CurveText>>,
}

#[derive(JsonSchema)]
#[schemars(inline)]
enum ClientAuthText {
    NoClientCert,
    RequestClientCert,
    RequireAnyClientCert,
    VerifyClientCertIfGiven,
    RequireAndVerifyClientCert,
    RequireClientCert,
}

#[derive(JsonSchema)]
#[schemars(inline)]
enum VersionText {
    #[schemars(rename = "TLS13")]
    Tls13,
    #[schemars(rename = "TLS12")]
    Tls12,
}

#[derive(JsonSchema)]
#[schemars(inline)]
#[expect(non_camel_case_types, reason = "the names are Go's")]
enum SuiteText {
    TLS_AES_128_GCM_SHA256,
    TLS_AES_256_GCM_SHA384,
    TLS_CHACHA20_POLY1305_SHA256,
    TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305,
    TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305,
}

#[derive(JsonSchema)]
#[schemars(inline)]
enum CurveText {
    X25519,
    CurveP256,
    CurveP384,
}

/// HTTP.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct HttpSection {
    /// Whether HTTP/2 is offered, which needs TLS.
    http2: Option<bool>,
    /// Headers that every answer has, in place of those that it has anyway; blank: those.
    headers: Option<HeadersSection>,
}

/// Headers that can be set.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct HeadersSection {
    /// What pages may load.
    #[schemars(rename = "Content-Security-Policy")]
    content_security_policy: Option<String>,
    /// Who may show pages in a frame.
    #[schemars(rename = "X-Frame-Options", regex(pattern = r"^(deny|sameorigin|)$"))]
    x_frame_options: Option<String>,
    /// Whether browsers may guess types.
    #[schemars(rename = "X-Content-Type-Options", regex(pattern = r"^(nosniff|)$"))]
    x_content_type_options: Option<String>,
    /// For old browsers.
    #[schemars(rename = "X-XSS-Protection")]
    x_xss_protection: Option<String>,
    /// That browsers shall come by TLS only.
    #[schemars(rename = "Strict-Transport-Security")]
    strict_transport_security: Option<String>,
}

/// A bucket of requests, for all clients together.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct RateSection {
    /// How long it takes until another one is allowed, such as `100ms`, at most 24h; 0 switches the limit off.
    interval: Option<String>,
    /// How many may come at once.
    #[schemars(range(min = 0, max = 1_000_000))]
    burst: Option<u32>,
}

/// The JSON Schema of web configuration files.
#[must_use]
pub fn schema() -> schemars::Schema {
    schemars::schema_for!(WebFile)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::go;
    use super::super::read::{HEADERS, HTTP, RATE, WEB_FILE};
    use super::super::tls::{CLIENT_AUTH, TLS};
    use super::*;
    use crate::yaml::Keys;

    #[test]
    fn schema_and_reader_know_the_same_keys() {
        fn check<T: JsonSchema>(keys: Keys) {
            let schema = schemars::schema_for!(T);
            let schema = schema.as_value();
            let properties = schema["properties"].as_object().unwrap().keys();
            let properties: BTreeSet<&str> = properties.map(String::as_str).collect();
            assert_eq!(properties, keys.all().collect());
            assert_eq!(schema["additionalProperties"], false);
        }
        check::<WebFile>(WEB_FILE);
        check::<TlsSection>(TLS);
        check::<HttpSection>(HTTP);
        check::<HeadersSection>(HEADERS);
        check::<RateSection>(RATE);
    }

    #[test]
    fn schema_and_reader_know_the_same_texts() {
        fn check<'a, T: JsonSchema>(names: impl IntoIterator<Item = &'a str>) {
            let schema = schemars::schema_for!(T);
            let texts = schema.as_value()["enum"].as_array().unwrap().clone();
            let texts: Vec<&str> = texts.iter().map(|text| text.as_str().unwrap()).collect();
            assert_eq!(texts, names.into_iter().collect::<Vec<_>>());
        }
        fn had<T>((name, value): &go::Name<T>) -> Option<&'static str> {
            value.is_ok().then_some(*name)
        }
        let auth = CLIENT_AUTH.iter().map(|(name, _)| *name);
        check::<ClientAuthText>(auth.chain(["RequireClientCert"]));
        check::<VersionText>(go::VERSIONS.iter().filter_map(had));
        check::<SuiteText>(go::SUITES.iter().filter_map(had));
        check::<CurveText>(go::curves().iter().filter_map(had));
    }
}
