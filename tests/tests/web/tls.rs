//! TLS, HTTP/2, users, client certificates, headers and limits, by curl.

use anyhow::Result;

use crate::site::{ANN, AS_ANN, At, Authority, Site, TLS, skipped};

#[test]
fn tls_and_passwords_open_everything_beyond_loopback() -> Result<()> {
    if skipped("tls_and_passwords_open_everything_beyond_loopback") {
        return Ok(());
    }
    let mut site = Site::new(&format!(
        "{TLS}http_server_config:\n  headers:\n    Strict-Transport-Security: max-age=600\n    X-Frame-Options: deny\n\
         basic_auth_users:\n  {ANN}\n"
    ))?;
    Authority::new("another")?.write(site.path(), "another.pem")?;
    site.start_secured()?;
    assert!(
        site.said().contains("https://10.20.0.1:9871/"),
        "{}",
        site.said()
    );
    assert!(
        !site.said().contains("no authentication"),
        "{}",
        site.said()
    );
    for at in [At::Loopback, At::Network] {
        for path in [
            "/",
            "/metrics",
            "/-/healthy",
            "/api/v1/requirements",
            "/style.css",
        ] {
            let got = site.ask(at, path, &AS_ANN)?;
            assert_eq!(
                (got.status, got.http.as_str()),
                (200, "2"),
                "{at:?} {path}: {got:?}"
            );
            let none = site.ask(at, path, &[])?;
            assert_eq!(none.status, 401, "{at:?} {path}: {none:?}");
            let wrong = site.ask(at, path, &["--user", "ann:wrong horse"])?;
            assert_eq!(wrong.status, 401, "{at:?} {path}: {wrong:?}");
            for answer in [got, none] {
                let head = answer.head.to_ascii_lowercase();
                for header in [
                    "strict-transport-security: max-age=600",
                    "x-frame-options: deny",
                    "x-content-type-options: nosniff",
                    "content-security-policy: default-src 'none'; style-src 'self'",
                    "cache-control: no-store",
                ] {
                    assert!(head.contains(header), "{header}: {head}");
                }
            }
        }
        for (option, http) in [("--http1.1", "1.1"), ("--http2", "2")] {
            for version in ["1.2", "1.3"] {
                let least = format!("--tlsv{version}");
                let got = site.ask(
                    at,
                    "/-/ready",
                    &[&AS_ANN[..], &[option, &least, "--tls-max", version]].concat(),
                )?;
                assert_eq!((got.status, got.http.as_str()), (200, http), "{got:?}");
            }
        }
        // By a name, with the password: another site's page does not have it.
        let named = ["--header", "Host: router.example"];
        assert_eq!(
            site.ask(at, "/", &[&AS_ANN[..], &named].concat())?.status,
            200
        );
        let plain = site.ask_plain(at, "/metrics", &AS_ANN)?;
        assert!(
            plain.status == 400 && plain.body.contains("https://"),
            "{plain:?}"
        );
        let body = "x".repeat(9_000);
        let long = site.ask(
            at,
            "/metrics",
            &[&AS_ANN[..], &["--http1.1", "--data", &body]].concat(),
        )?;
        assert_eq!(long.status, 413, "{long:?}");
        let endless = [
            "--http1.1",
            "--header",
            "Transfer-Encoding: chunked",
            "--data",
            "x",
        ];
        let endless = site.ask(at, "/metrics", &[&AS_ANN[..], &endless].concat())?;
        assert_eq!(endless.status, 411, "{endless:?}");
        // Somebody who trusts nobody here.
        let stranger = site.ask(at, "/metrics", &["--cacert", "another.pem"])?;
        assert_eq!(stranger.status, 0, "{stranger:?}");
    }
    // What the last of them did is counted a moment after he went.
    std::thread::sleep(std::time::Duration::from_millis(200));
    let metrics = site.scrape(&AS_ANN)?;
    let failures =
        |reason| metrics.count("flowproof_web_auth_failures_total", &[("reason", reason)]);
    assert_eq!((failures("missing"), failures("wrong")), (10, 10));
    assert_eq!(failures("throttled"), 0);
    let refused = |reason| {
        metrics.count(
            "flowproof_web_connections_refused_total",
            &[("reason", reason)],
        )
    };
    assert_eq!(refused("tls"), 4);
    let code = |code| metrics.count("flowproof_web_requests_total", &[("code", code)]);
    assert!(
        code("2xx") >= 20 && code("4xx") >= 24,
        "{} {}",
        code("2xx"),
        code("4xx")
    );
    let expiry = metrics.sum(
        "flowproof_web_certificate_expiry_timestamp_seconds",
        &[("certificate", "server")],
    );
    // The end of 2040.
    assert!(
        (2_240_000_000.0..2_241_000_000.0).contains(&expiry),
        "{expiry}"
    );
    Ok(())
}

#[test]
fn versions_and_protocols_follow_the_file() -> Result<()> {
    if skipped("versions_and_protocols_follow_the_file") {
        return Ok(());
    }
    let mut site = Site::new(&format!(
        "{TLS}  max_version: TLS12\n  cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384]\n\
         http_server_config: {{http2: false}}\n"
    ))?;
    site.start_secured()?;
    let ask = |more: &[&str]| site.ask(At::Loopback, "/metrics", more);
    let got = ask(&["--http2"])?;
    assert_eq!((got.status, got.http.as_str()), (200, "1.1"), "{got:?}");
    assert_eq!(ask(&["--tlsv1.3"])?.status, 0);
    let suite = |name| ask(&["--tls-max", "1.2", "--ciphers", name]);
    assert_eq!(suite("ECDHE-ECDSA-AES256-GCM-SHA384")?.status, 200);
    assert_eq!(suite("ECDHE-ECDSA-AES128-GCM-SHA256")?.status, 0);
    // TLS without authentication opens nothing: metrics and health, and the rest on loopback by an address.
    assert_eq!(site.ask(At::Network, "/metrics", &[])?.status, 200);
    assert_eq!(site.ask(At::Network, "/", &[])?.status, 403);
    assert_eq!(ask(&["--header", "Host: evil.example"])?.status, 200);
    let evil = site.ask(At::Loopback, "/", &["--header", "Host: evil.example"])?;
    assert_eq!(evil.status, 421, "{evil:?}");
    site.configure(TLS)?;
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    let evil = site.ask(At::Loopback, "/", &["--header", "Host: evil.example"])?;
    assert_eq!((evil.status, evil.http.as_str()), (421, "2"), "{evil:?}");
    assert_eq!(site.ask(At::Loopback, "/", &[])?.status, 200);
    Ok(())
}

#[test]
fn client_certificates_are_verified_by_authority_and_name() -> Result<()> {
    if skipped("client_certificates_are_verified_by_authority_and_name") {
        return Ok(());
    }
    let mut site = Site::new(&format!(
        "{TLS}  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: clients.pem\n  \
         client_allowed_sans: [scraper.example]\n"
    ))?;
    let clients = Authority::new("for clients")?;
    clients.write(site.path(), "clients.pem")?;
    clients.issue(site.path(), "scraper", &["scraper.example"], 2040)?;
    clients.issue(site.path(), "other", &["other.example"], 2040)?;
    clients.issue(site.path(), "expired", &["scraper.example"], 2021)?;
    Authority::new("for clients")?.issue(site.path(), "forged", &["scraper.example"], 2040)?;
    site.start_secured()?;
    for at in [At::Loopback, At::Network] {
        for version in ["1.2", "1.3"] {
            let ask = |name: &str| {
                let (cert, key) = (format!("{name}.pem"), format!("{name}.key"));
                site.ask(
                    at,
                    "/api/v1/flows",
                    &["--tls-max", version, "--cert", &cert, "--key", &key],
                )
            };
            let got = ask("scraper")?;
            assert_eq!(got.status, 200, "{at:?} {version}: {got:?}");
            for name in ["other", "expired", "forged"] {
                let got = ask(name)?;
                assert_eq!(got.status, 0, "{at:?} {version} {name}: {got:?}");
            }
            let none = site.ask(at, "/metrics", &["--tls-max", version])?;
            assert_eq!(none.status, 0, "{at:?} {version}: {none:?}");
        }
    }
    let metrics = site.scrape(&["--cert", "scraper.pem", "--key", "scraper.key"])?;
    let refused = metrics.count(
        "flowproof_web_connections_refused_total",
        &[("reason", "tls")],
    );
    assert_eq!(refused, 16);
    assert!(metrics.has(
        "flowproof_web_certificate_expiry_timestamp_seconds",
        &[("certificate", "client_ca")]
    ));

    // Asked for and not required: who shows one that is verified is nobody in particular.
    site.configure(&format!(
        "{TLS}  client_auth_type: VerifyClientCertIfGiven\n  client_ca_file: clients.pem\n"
    ))?;
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    assert_eq!(site.ask(At::Network, "/metrics", &[])?.status, 200);
    let forged = ["--cert", "forged.pem", "--key", "forged.key"];
    assert_eq!(site.ask(At::Network, "/metrics", &forged)?.status, 0);
    assert_eq!(site.ask(At::Network, "/api/v1/flows", &[])?.status, 403);
    Ok(())
}

/// Whatever a peer or a link says: in a page it is text, and what is no page is never taken for one.
#[test]
fn what_comes_from_the_network_is_no_markup() -> Result<()> {
    const SCRIPT: &str = "<script>alert(1)</script>";
    if skipped("what_comes_from_the_network_is_no_markup") {
        return Ok(());
    }
    let mut site = Site::new("")?;
    site.start_secured()?;
    site.say(format!("GET / HTTP/1.1\r\nHost: {SCRIPT}.example\r\n\r\n").as_bytes())?;
    let got = site.ask_plain(At::Loopback, "/", &[])?;
    let head = got.head.to_ascii_lowercase();
    assert!(
        got.status == 200 && head.contains("content-type: text/html; charset=utf-8"),
        "{head}"
    );
    assert!(
        head.contains("content-security-policy: default-src 'none'"),
        "{head}"
    );
    assert!(!got.body.contains("<script"), "{}", got.body);
    let link = "/api/v1/flows?verdict=%3Cscript%3Ealert(1)%3C/script%3E&%3Cimg%20src=x%3E";
    for (path, kind) in [("/api/v1/flows", "application/json"), (link, "text/plain")] {
        let got = site.ask_plain(At::Loopback, path, &[])?;
        let head = got.head.to_ascii_lowercase();
        assert!(head.contains(&format!("content-type: {kind}")), "{head}");
        assert!(head.contains("x-content-type-options: nosniff"), "{head}");
        assert!(
            head.contains("content-security-policy: default-src 'none'"),
            "{head}"
        );
    }
    Ok(())
}

#[test]
fn the_rate_limit_is_for_all_together() -> Result<()> {
    if skipped("the_rate_limit_is_for_all_together") {
        return Ok(());
    }
    let mut site = Site::new("rate_limit: {interval: 1h, burst: 3}\n")?;
    site.start_secured()?;
    let statuses: Vec<u16> = [
        At::Loopback,
        At::Network,
        At::Loopback,
        At::Network,
        At::Loopback,
    ]
    .into_iter()
    .map(|at| Ok(site.ask_plain(at, "/-/healthy", &[])?.status))
    .collect::<Result<_>>()?;
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
    Ok(())
}

#[test]
fn without_authentication_flows_are_served_on_loopback_unless_a_flag_says_so() -> Result<()> {
    let name = "without_authentication_flows_are_served_on_loopback_unless_a_flag_says_so";
    if skipped(name) {
        return Ok(());
    }
    let mut site = Site::new("")?;
    site.start_secured()?;
    for (at, path, expect) in [
        (At::Loopback, "/", 200),
        (At::Loopback, "/api/v1/flows", 200),
        (At::Network, "/metrics", 200),
        (At::Network, "/-/healthy", 200),
        (At::Network, "/-/ready", 200),
        (At::Network, "/", 403),
        (At::Network, "/api/v1/flows", 403),
        (At::Network, "/draft", 404),
    ] {
        let got = site.ask_plain(at, path, &[])?;
        assert_eq!(got.status, expect, "{at:?} {path}: {got:?}");
    }
    let said = site.said();
    assert!(
        said.contains("no authentication: only metrics and health")
            && said.contains("--web-config"),
        "{said}"
    );

    let mut site = Site::new("")?;
    site.start(&["--web-expose-flows"])?;
    for path in ["/", "/api/v1/flows"] {
        let got = site.ask_plain(At::Network, path, &[])?;
        assert_eq!(got.status, 200, "{path}: {got:?}");
    }
    assert!(
        site.said().contains("anybody sees flows"),
        "{}",
        site.said()
    );
    let evil = ["--header", "Host: evil.example"];
    assert_eq!(site.ask_plain(At::Loopback, "/", &evil)?.status, 421);
    Ok(())
}
