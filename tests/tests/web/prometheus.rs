//! The daemon's web configuration is Prometheus' own: promtool takes it, and Prometheus scrapes by it.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Result;
use flowproof_tests::daemon::run_to_end;
use flowproof_tests::http;
use flowproof_tests::skip::skip;

use crate::site::{ANN, At, Authority, Site, TLS, skipped};

const PROMETHEUS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);

fn missing(test: &str, program: &str) -> bool {
    let found = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if found.is_err() {
        skip(
            test,
            &format!("{program} is missing: `apt-get install prometheus`"),
        );
    }
    found.is_err()
}

/// The example that is shipped, and the configurations of these tests.
#[test]
fn promtool_takes_what_the_daemon_takes() -> Result<()> {
    let test = "promtool_takes_what_the_daemon_takes";
    if missing(test, "promtool") {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let authority = Authority::new("the authority")?;
    authority.write(folder.path(), "ca.pem")?;
    for name in ["server", "flowproof"] {
        authority.issue(folder.path(), name, &["localhost"], 2040)?;
    }
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/web.yaml");
    let example = fs::read_to_string(example)?;
    let full = format!(
        "{TLS}  client_auth_type: VerifyClientCertIfGiven\n  client_ca_file: ca.pem\nbasic_auth_users:\n  {ANN}\n"
    );
    for (name, text) in [("example", &example), ("full", &full)] {
        let path = folder.path().join(format!("{name}.yaml"));
        fs::write(&path, text)?;
        let mut command = Command::new("promtool");
        command.args(["check", "web-config"]).arg(&path);
        let output = run_to_end(&mut command, Duration::from_secs(30))?;
        let said = [output.stdout, output.stderr].concat();
        assert!(
            output.status.success(),
            "{name}: {}\n{text}",
            String::from_utf8_lossy(&said)
        );
    }
    Ok(())
}

#[test]
fn prometheus_scrapes_by_tls_with_a_password_and_a_certificate() -> Result<()> {
    let test = "prometheus_scrapes_by_tls_with_a_password_and_a_certificate";
    if skipped(test) || missing(test, "prometheus") {
        return Ok(());
    }
    let mut site = Site::new(&format!(
        "{TLS}  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.pem\nbasic_auth_users:\n  {ANN}\n"
    ))?;
    site.authority
        .issue(site.path(), "scraper", &["scraper.example"], 2040)?;
    site.start_secured()?;
    fs::write(
        site.file("prometheus.yml"),
        format!(
            "global: {{scrape_interval: 1s}}\nscrape_configs:\n- job_name: flowproof\n  scheme: https\n  \
             basic_auth: {{username: ann, password: correct horse}}\n  \
             tls_config: {{ca_file: ca.pem, cert_file: scraper.pem, key_file: scraper.key}}\n  \
             static_configs: [{{targets: ['{}']}}]\n",
            At::Network.address()
        ),
    )?;
    let log = fs::File::create(site.file("prometheus.log"))?;
    let mut command = Command::new("prometheus");
    command
        .args(["--config.file=prometheus.yml", "--storage.tsdb.path=tsdb"])
        .arg(format!("--web.listen-address={PROMETHEUS}"))
        .current_dir(site.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    let host = site.host(At::Network);
    let mut prometheus = host.start(&mut command)?;
    let begin = Instant::now();
    let path = "/api/v1/query?query=flowproof_web_config_last_reload_successful";
    let seen = loop {
        let got = http::get(host, PROMETHEUS, path);
        let seen = got.as_ref().is_ok_and(|got| {
            got.body.contains("\"instance\":\"10.20.0.1:9871\"") && got.body.contains(",\"1\"]")
        });
        if seen || begin.elapsed() > Duration::from_secs(30) {
            break seen;
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    prometheus.kill()?;
    prometheus.wait()?;
    let log = fs::read_to_string(site.file("prometheus.log"))?;
    assert!(seen, "{log}\n{}", site.said());
    Ok(())
}
