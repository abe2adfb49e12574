//! The verbs that ask a daemon, where it wants to know who asks.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::Result;
use flowproof_tests::daemon::binary;

use crate::site::{ANN, At, Authority, Site, TLS, skipped};

/// Whether a verb succeeded on the router, and what it said.
fn verb(site: &Site, arguments: &[&str]) -> Result<(Option<i32>, String)> {
    let mut command = Command::new(binary());
    command
        .args(arguments)
        .current_dir(site.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let output = site
        .host(At::Loopback)
        .start(&mut command)?
        .wait_with_output()?;
    let said = [output.stdout, output.stderr].concat();
    Ok((
        output.status.code(),
        String::from_utf8_lossy(&said).into_owned(),
    ))
}

fn report<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let fixed = ["report", "--matrix", "matrix.yaml", "--site", "site.yaml"];
    [&fixed[..], more].concat()
}

#[test]
fn verbs_say_what_is_missing_and_ask_with_it() -> Result<()> {
    if skipped("verbs_say_what_is_missing_and_ask_with_it") {
        return Ok(());
    }
    let mut site = Site::new(&format!("{TLS}basic_auth_users:\n  {ANN}\n"))?;
    site.start_secured()?;
    fs::write(site.file("user"), "ann:correct horse\n")?;
    fs::write(site.file("wrong"), "ann:wrong horse\n")?;
    Authority::new("another")?.write(site.path(), "another.pem")?;
    let https = "--daemon=https://127.0.0.1:9871";
    let ca = ["--daemon-ca", "ca.pem"];
    for (more, part) in [
        (vec!["--daemon"], "This port speaks TLS: ask by https://"),
        (
            vec![https, "--daemon-ca", "another.pem"],
            "name its authority by --daemon-ca",
        ),
        (vec![https, ca[0], ca[1]], "--daemon-user-file"),
        (
            vec![https, ca[0], ca[1], "--daemon-user-file", "wrong"],
            "asks for a user and a password that it knows",
        ),
        (
            vec![
                "--daemon=http://10.20.0.1:9871",
                "--daemon-user-file",
                "user",
            ],
            "in the clear",
        ),
    ] {
        let (code, said) = verb(&site, &report(&more))?;
        assert!(
            code == Some(2) && said.contains(part),
            "{more:?}: {code:?} {said}"
        );
    }
    let all = [https, ca[0], ca[1], "--daemon-user-file", "user"];
    let (code, said) = verb(&site, &report(&all))?;
    assert!(
        code == Some(0) && said.contains("app/query"),
        "{code:?} {said}"
    );
    // A certificate that is known itself needs no authority.
    let known = [
        https,
        "--daemon-ca",
        "server.pem",
        "--daemon-user-file",
        "user",
    ];
    let (code, said) = verb(&site, &report(&known))?;
    assert_eq!(code, Some(0), "{said}");
    let explain = [
        "explain",
        "--matrix",
        "matrix.yaml",
        "--site",
        "site.yaml",
        "--requirement",
        "app/query",
    ];
    let (code, said) = verb(&site, &[&explain[..], &all].concat())?;
    assert!(
        matches!(code, Some(0 | 1)) && said.contains("https://127.0.0.1:9871"),
        "{code:?} {said}"
    );

    // And with a certificate.
    site.configure(&format!(
        "{TLS}  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.pem\n"
    ))?;
    site.authority
        .issue(site.path(), "me", &["me.example"], 2040)?;
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    let (code, said) = verb(&site, &report(&[https, ca[0], ca[1]]))?;
    assert!(
        code == Some(2) && said.contains("--daemon-cert"),
        "{code:?} {said}"
    );
    let mine = [
        https,
        ca[0],
        ca[1],
        "--daemon-cert",
        "me.pem",
        "--daemon-key",
        "me.key",
    ];
    let (code, said) = verb(&site, &report(&mine))?;
    assert_eq!(code, Some(0), "{said}");
    Ok(())
}
