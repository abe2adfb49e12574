//! A real Prometheus on a host of the lab, with the rules that are shipped.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use flowproof_tests::host::{Host, wait_for};
use flowproof_tests::http;
use serde_json::Value;
use tempfile::TempDir;

/// Where it listens; it has the host for itself.
pub(crate) const LISTEN: &str = "127.0.0.1:9090";

/// A series and its value.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

impl Sample {
    pub(crate) fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

/// A running Prometheus; killed when dropped.
pub(crate) struct Prometheus {
    host: Arc<Host>,
    folder: TempDir,
    child: Child,
}

/// Where the rules are.
pub(crate) fn rules() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/prometheus")
}

/// Whether there is one to start.
pub(crate) fn is_installed() -> bool {
    let status = Command::new("prometheus")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok()
}

impl Prometheus {
    /// Starts one on `host` that scrapes `targets` (instance, address) every second, and waits until it is ready.
    pub(crate) fn start(host: &Arc<Host>, targets: &[(&str, String)]) -> Result<Self> {
        let folder = TempDir::with_prefix("flowproof-prometheus-")?;
        let path = |name: &str| folder.path().join(name);
        for name in ["flowproof.rules.yml", "flowproof.alerts.yml"] {
            let text = fs::read_to_string(rules().join(name))?;
            // What is looked up every four minutes is not waited for.
            fs::write(path(name), text.replace("interval: 4m", "interval: 1s"))?;
        }
        let mut config =
            "global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}\n\
             rule_files: [flowproof.rules.yml, flowproof.alerts.yml]\n\
             scrape_configs:\n- job_name: flowproof\n  static_configs:\n"
                .to_owned();
        for (instance, target) in targets {
            config.push_str(&format!(
                "  - {{targets: ['{target}'], labels: {{instance: '{instance}'}}}}\n"
            ));
        }
        // Itself, for what its work costs.
        config.push_str(&format!(
            "- job_name: prometheus\n  static_configs: [{{targets: ['{LISTEN}']}}]\n"
        ));
        fs::write(path("prometheus.yml"), config)?;
        let log = File::create(path("log"))?;
        let child = host.start(
            Command::new("prometheus")
                .arg("--config.file=prometheus.yml")
                .arg("--storage.tsdb.path=data")
                .arg(format!("--web.listen-address={LISTEN}"))
                .current_dir(folder.path())
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log),
        )?;
        let prometheus = Self {
            host: Arc::clone(host),
            folder,
            child,
        };
        let ready = || {
            let got = prometheus.get("/-/ready").ok()?;
            (got.status == 200).then_some(())
        };
        ensure!(
            wait_for(Duration::from_secs(30), ready).is_some(),
            "Prometheus is not ready:\n{}",
            prometheus.log()
        );
        Ok(prometheus)
    }

    /// What it has written.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Asks its HTTP port.
    pub(crate) fn get(&self, path: &str) -> Result<http::Response> {
        http::get(&self.host, LISTEN.parse()?, path)
    }

    /// The data of a good answer of its API.
    pub(crate) fn api(&self, path: &str) -> Result<Value> {
        let got = self.get(path)?;
        let answer: Value = serde_json::from_str(&got.body)
            .with_context(|| format!("{path}: {} {}", got.status, got.body))?;
        ensure!(answer["status"] == "success", "{path}: {answer}");
        Ok(answer["data"].clone())
    }

    /// An instant query.
    pub(crate) fn query(&self, expression: &str) -> Result<Vec<Sample>> {
        let data = self.api(&format!("/api/v1/query?query={}", encoded(expression)))?;
        samples(&data).with_context(|| format!("{expression}: {data}"))
    }

    /// Waits until `done` says so of a query, for at most `limit`; the samples then.
    pub(crate) fn wait(
        &self,
        expression: &str,
        limit: Duration,
        done: impl Fn(&[Sample]) -> bool,
    ) -> Result<Vec<Sample>> {
        let start = Instant::now();
        loop {
            let samples = self.query(expression)?;
            if done(&samples) {
                return Ok(samples);
            }
            if start.elapsed() > limit {
                bail!("after {limit:?} {expression} gives {samples:#?}");
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn samples(data: &Value) -> Option<Vec<Sample>> {
    let result = data["result"].as_array()?;
    if data["resultType"] == "scalar" {
        return Some(vec![Sample {
            labels: BTreeMap::new(),
            value: result.get(1)?.as_str()?.parse().ok()?,
        }]);
    }
    result
        .iter()
        .map(|series| {
            let labels = series["metric"].as_object()?.iter();
            let labels =
                labels.map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
            Some(Sample {
                labels: labels.collect::<Option<_>>()?,
                value: series["value"][1].as_str()?.parse().ok()?,
            })
        })
        .collect()
}

/// A text in a URL.
pub(crate) fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}
