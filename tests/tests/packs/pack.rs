//! A rule pack as `flowproof check --format json` tells it: the contract, not the daemon's own types.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use flowproof_tests::daemon::{binary, run_to_end};
use serde_json::Value;

/// Built-in roles that the lab treats by themselves.
pub(crate) mod role {
    pub(crate) const ANY: &str = "any";
    pub(crate) const BROADCAST: &str = "broadcast";
    pub(crate) const LOCALHOST: &str = "localhost";
    pub(crate) const UNKNOWN: &str = "unknown";
}

/// IP protocol numbers.
pub(crate) mod protocol {
    pub(crate) const ICMP: u8 = 1;
    pub(crate) const IGMP: u8 = 2;
    pub(crate) const TCP: u8 = 6;
    pub(crate) const UDP: u8 = 17;
    pub(crate) const ICMPV6: u8 = 58;
    pub(crate) const VRRP: u8 = 112;
}

/// Types of the echo request, RFC 792 and RFC 4443.
const ECHO: [(u8, u16); 2] = [(protocol::ICMP, 8), (protocol::ICMPV6, 128)];

/// One system.
#[derive(Debug)]
pub(crate) struct Pack {
    /// Text of the file.
    pub(crate) text: String,
    /// The system's id.
    pub(crate) system: String,
    pub(crate) roles: Vec<Role>,
    pub(crate) requirements: Vec<Requirement>,
}

/// A declared role.
#[derive(Debug)]
pub(crate) struct Role {
    /// `system/role`.
    pub(crate) id: String,
    /// What the pack itself says that it stands for.
    pub(crate) names: Vec<String>,
}

/// A row.
#[derive(Debug)]
pub(crate) struct Requirement {
    /// The system that it belongs to.
    pub(crate) system: String,
    pub(crate) id: String,
    // Built-in roles by their names, declared ones as `system/role`.
    from: String,
    to: String,
    direction: String,
    pub(crate) services: Vec<Service>,
}

/// A service of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Service {
    /// As labels and ids write it.
    pub(crate) name: String,
    /// Protocol numbers and ranges of ports or types that it is made of.
    pub(crate) ranges: Vec<(u8, u16, u16)>,
}

impl Requirement {
    /// Who may open a conversation with whom: (initiator's role, responder's role).
    pub(crate) fn initiations(&self) -> Vec<(&str, &str)> {
        let there = (self.from.as_str(), self.to.as_str());
        let back = (self.to.as_str(), self.from.as_str());
        match self.direction.as_str() {
            "inbound" => vec![back],
            "both" if there != back => vec![there, back],
            _ => vec![there],
        }
    }

    /// Whether the document leaves an end open.
    pub(crate) fn has_unknown_end(&self) -> bool {
        self.from == role::UNKNOWN || self.to == role::UNKNOWN
    }
}

impl Service {
    /// Whether it is upkeep of the link itself, which flowproof never judges: IGMP, listener and neighbour discovery.
    pub(crate) fn is_link_upkeep(&self) -> bool {
        self.ranges
            .iter()
            .all(|(protocol, first, last)| match *protocol {
                protocol::IGMP => true,
                protocol::ICMPV6 => (130..=137).contains(first) && *last <= 137 || *first == 143,
                _ => false,
            })
    }
}

/// Every pack of the folder `rules/`.
pub(crate) fn all() -> Result<Vec<Pack>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rules");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .with_context(|| format!("can't read {}", folder.display()))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    files.retain(|file| {
        file.extension()
            .is_some_and(|extension| extension == "yaml")
    });
    files.sort();
    let mut packs = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file)?;
        // Sites and configurations are no packs.
        if text.lines().any(|line| line.starts_with("system:")) {
            packs.push(read(&file, text)?);
        }
    }
    Ok(packs)
}

impl Pack {
    /// The same rows under another name of the system, so that a daemon counts them anew.
    pub(crate) fn renamed(&self, suffix: &str) -> Result<Self> {
        let mut text = String::new();
        for line in self.text.lines() {
            text.push_str(line);
            if line.starts_with("system:") {
                text.push_str(suffix);
            }
            text.push('\n');
        }
        let file = tempfile::Builder::new().suffix(".yaml").tempfile()?;
        std::fs::write(&file, &text)?;
        read(file.path(), text)
    }
}

fn read(file: &Path, text: String) -> Result<Pack> {
    let mut command = Command::new(binary());
    command.args(["check", "--format", "json"]).arg(file);
    let output = run_to_end(&mut command, Duration::from_secs(30))?;
    let checked: Value = serde_json::from_slice(&output.stdout).with_context(|| {
        format!(
            "{}: {}",
            file.display(),
            String::from_utf8_lossy(&output.stderr)
        )
    })?;
    let findings = list(&checked["findings"]);
    if let Some(error) = findings.iter().find(|found| found["severity"] == "error") {
        bail!("{} has an error: {error}", file.display());
    }
    let [system] = list(&checked["systems"]) else {
        bail!("{} is not one system", file.display());
    };
    let name = string(&system["id"]);
    let end = |value: &Value| {
        let role = string(value);
        let built_in = [role::ANY, role::BROADCAST, role::LOCALHOST, role::UNKNOWN];
        if built_in.contains(&role.as_str()) {
            role
        } else {
            format!("{name}/{role}")
        }
    };
    let roles = list(&system["roles"])
        .iter()
        .map(|role| Role {
            id: end(&role["id"]),
            names: list(&role["names"]).iter().map(string).collect(),
        })
        .collect();
    let requirements = list(&system["requirements"])
        .iter()
        .map(|row| {
            Ok(Requirement {
                system: name.clone(),
                id: string(&row["id"]),
                from: end(&row["from"]),
                to: end(&row["to"]),
                direction: string(&row["direction"]),
                services: list(&row["services"])
                    .iter()
                    .map(service)
                    .collect::<Result<_>>()?,
            })
        })
        .collect::<Result<_>>()?;
    Ok(Pack {
        system: name,
        text,
        roles,
        requirements,
    })
}

fn service(value: &Value) -> Result<Service> {
    let protocol = string(&value["protocol"]);
    let port = |value: &Value| value.as_u64().and_then(|port| u16::try_from(port).ok());
    let range = port(&value["first"]).zip(port(&value["last"]));
    let number = match protocol.as_str() {
        "tcp" => protocol::TCP,
        "udp" => protocol::UDP,
        "icmp" => protocol::ICMP,
        "icmpv6" => protocol::ICMPV6,
        "vrrp" => protocol::VRRP,
        number => number
            .parse()
            .with_context(|| format!("{number} is no protocol of the contract"))?,
    };
    let label = if number == protocol::IGMP {
        "igmp"
    } else {
        &protocol
    };
    let name = match range {
        None => label.to_owned(),
        Some((first, last)) if first == last => format!("{label}/{first}"),
        Some((first, last)) => format!("{label}/{first}-{last}"),
    };
    let ranges = match (number, range) {
        (_, Some((first, last))) => vec![(number, first, last)],
        // "ICMP" in a pack means ping in both IP versions.
        (protocol::ICMP, None) => ECHO.map(|(number, kind)| (number, kind, kind)).into(),
        (protocol::ICMPV6, None) => vec![(ECHO[1].0, ECHO[1].1, ECHO[1].1)],
        (_, None) => vec![(number, 0, u16::MAX)],
    };
    Ok(Service { name, ranges })
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn string(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
