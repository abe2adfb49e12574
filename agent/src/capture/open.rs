//! Which back end is taken, and why, in one line.

use super::ebpf::{self, AttachMode};
use super::live_pcap;
use super::{Capture, CaptureError};
use crate::config::{Attach, BackendChoice, CaptureConfig, OnExit, PcapOptions};
use crate::flow::Limits;
use crate::matrix::installed::{Installed, SlotDirectory};
use crate::names;

/// A back end, attached nowhere.
pub struct Opened {
    /// The back end.
    pub capture: Box<dyn Capture>,
    /// Counter slots that outlived an earlier daemon; the matrix is to be installed on top of them.
    pub directory: SlotDirectory,
    /// Why it is this one.
    pub why: String,
}

/// Opens the back end that the configuration asks for. `matrix` sizes its tables, `names` says what names are learned
/// from.
///
/// # Errors
/// The back end can't be opened; with `auto`, neither can.
pub fn open(
    config: &CaptureConfig,
    names: &names::Settings,
    matrix: &Installed,
) -> Result<Opened, CaptureError> {
    choose(
        config,
        || open_ebpf(config, *names, matrix),
        || open_pcap(&config.pcap, *names),
    )
}

fn choose(
    config: &CaptureConfig,
    ebpf: impl FnOnce() -> Result<Opened, CaptureError>,
    pcap: impl FnOnce() -> Result<Opened, CaptureError>,
) -> Result<Opened, CaptureError> {
    match config.backend {
        BackendChoice::Ebpf => ebpf(),
        BackendChoice::Pcap => pcap(),
        BackendChoice::Auto if config.pcap.filter.is_some() => pcap().map(|opened| Opened {
            why: "a packet filter is given, and only libpcap has filters".to_owned(),
            ..opened
        }),
        BackendChoice::Auto => match ebpf() {
            Ok(opened) => Ok(opened),
            Err(reason) => match pcap() {
                Ok(opened) => Ok(Opened {
                    why: format!("the kernel programs can't be used: {reason}"),
                    ..opened
                }),
                Err(other) => Err(CaptureError::Neither {
                    ebpf: reason.to_string(),
                    pcap: other.to_string(),
                }),
            },
        },
    }
}

fn open_ebpf(
    config: &CaptureConfig,
    names: names::Settings,
    matrix: &Installed,
) -> Result<Opened, CaptureError> {
    let options = ebpf::EbpfOptions {
        attach: match config.ebpf.attach {
            Attach::Auto => AttachMode::Auto,
            Attach::Tcx => AttachMode::Tcx,
            Attach::Clsact => AttachMode::Clsact,
        },
        pin_directory: config.ebpf.pin_directory.clone(),
        verified_flows: config.ebpf.flows.verified,
        unverified_flows: config.ebpf.flows.unverified,
        on_exit: match config.ebpf.on_exit {
            OnExit::Detach => ebpf::OnExit::Detach,
            OnExit::Keep => ebpf::OnExit::Keep,
        },
    };
    let capture = ebpf::open(options, names, matrix)?;
    let directory = capture.directory().clone();
    let why = match (directory.is_empty(), capture.is_pinned()) {
        (false, _) => "programs and counts of an earlier daemon were adopted",
        (true, true) => "the kernel takes the programs",
        (true, false) => "the kernel takes the programs, which are not pinned",
    };
    Ok(Opened {
        capture: Box::new(capture),
        directory,
        why: why.to_owned(),
    })
}

fn open_pcap(options: &PcapOptions, names: names::Settings) -> Result<Opened, CaptureError> {
    let limits = Limits {
        verified: options.flows.verified,
        unverified: options.flows.unverified,
        ..Limits::default()
    };
    let options = live_pcap::Options {
        filter: options.filter.clone(),
        snap_length: options.snap_length,
        buffer_size: options.buffer_size,
        promiscuous: options.promiscuous,
    };
    Ok(Opened {
        capture: Box::new(live_pcap::open(options, limits, names)?),
        directory: SlotDirectory::default(),
        why: "as asked for".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::engine::fake::Fake;

    fn opened() -> Result<Opened, CaptureError> {
        let (capture, _) = Fake::new();
        Ok(Opened {
            capture,
            directory: SlotDirectory::default(),
            why: "as asked for".to_owned(),
        })
    }

    fn refused() -> Result<Opened, CaptureError> {
        Err(CaptureError::Permission {
            action: "loading the kernel programs".to_owned(),
            needs: "needs CAP_BPF".to_owned(),
        })
    }

    #[test]
    fn auto_falls_back_and_says_why() {
        let mut config = Config::default().capture;
        let why = |config: &CaptureConfig, ebpf: fn() -> Result<Opened, CaptureError>| {
            choose(config, ebpf, opened).map(|opened| opened.why)
        };
        assert_eq!(why(&config, opened).unwrap(), "as asked for");
        let reason = why(&config, refused).unwrap();
        assert!(
            reason.contains("can't be used") && reason.contains("CAP_BPF"),
            "{reason}"
        );
        config.pcap.filter = Some("tcp".to_owned());
        assert!(why(&config, opened).unwrap().contains("packet filter"));
        config.pcap.filter = None;
        config.backend = BackendChoice::Ebpf;
        assert!(why(&config, refused).is_err());
        config.backend = BackendChoice::Auto;
        let error = choose(&config, refused, refused).err().unwrap().to_string();
        assert_eq!(error.matches("CAP_BPF").count(), 2, "{error}");
    }
}
