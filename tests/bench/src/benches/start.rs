//! How long the daemon takes from its start until it is ready, with all rule packs.

use std::fs::{self, File};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use flowproof_tests::daemon::LISTEN;
use flowproof_tests::http;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::context::Context;
use crate::measure::Samples;
use crate::report::{Section, Target};
use crate::wire::{INTERFACE, Wire};

/// Starts it over and over, by either back end in turns.
pub(crate) fn bench(context: &Context, section: &mut Section) -> Result<()> {
    section.how(
        "`flowproof run --matrix rules --interface bench0 --capture ebpf`, from its start until /-/ready says so; asked every \
         millisecond",
    );
    let wire = Wire::new()?;
    for (backend, target) in [("ebpf", Some(Target::AtMost(300.0))), ("pcap", None)] {
        let mut samples = Samples::default();
        for _ in 0..context.runs {
            samples.push(start(context, &wire, backend)?);
        }
        section.row(
            format!("start/{backend}"),
            format!("ready with all rule packs, capture by {backend}"),
            samples,
            "ms",
            target,
        );
    }
    Ok(())
}

fn start(context: &Context, wire: &Wire, backend: &str) -> Result<f64> {
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("stderr");
    let start = Instant::now();
    let mut child = wire.watched.start(
        Command::new(&context.flowproof)
            .args(["run", "--capture", backend, "--interface", INTERFACE])
            .args(["--listen", &LISTEN.to_string()])
            .arg("--matrix")
            .arg(context.root.join("rules"))
            .arg("--state-dir")
            .arg(folder.path().join("state"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?),
    )?;
    let ready = loop {
        if http::get(&wire.watched, LISTEN, "/-/ready").is_ok_and(|got| got.status == 200) {
            break Ok(start.elapsed().as_secs_f64() * 1e3);
        }
        if let Some(status) = child.try_wait()? {
            break Err(status.to_string());
        }
        if start.elapsed() > Duration::from_secs(60) {
            break Err("not ready after a minute".to_owned());
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGTERM).ok();
    child.wait()?;
    match ready {
        Ok(time) => Ok(time),
        Err(error) => bail!("{error}\n{}", fs::read_to_string(&log).unwrap_or_default()),
    }
}
