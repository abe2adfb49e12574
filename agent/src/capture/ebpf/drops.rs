//! Loads the drop probe: finds the offsets that it needs in the running kernel's BTF, hands them over, and
//! attaches it. Without BTF or the capability for it everything else works, only a drop on this host can't
//! be told from silence; that is said once.

use std::collections::HashMap;

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::{BtfTracePoint, ProgramError};
use aya::{Btf, Ebpf};
use flowproof_common::drops::{DropLayout, IgnoredReasons};

use super::btf;
use super::pins::{self, Pins};

const PROGRAM: &str = "fp_drop";
const TRACEPOINT: &str = "kfree_skb";

/// Reasons that say nothing about the network: frames for other hosts that a promiscuous interface shows;
/// copies that a full packet socket (tcpdump, for example) had no room for; what a socket still had in its
/// queues when it was closed, received or acknowledged long before; and packets that nobody here listens
/// for, which the kernel answers itself by RST or ICMP: that answer decides.
const IGNORED: [&str; 5] = [
    "OTHERHOST",
    "PACKET_SOCK_ERROR",
    "QUEUE_PURGE",
    "NO_SOCKET",
    "IP_NOPROTO",
];
const PREFIX: &str = "SKB_DROP_REASON_";

/// What the drop probe needs to know of the running kernel.
pub(super) struct DropFacts {
    pub(super) layout: DropLayout,
    pub(super) ignored: IgnoredReasons,
    /// Names of the reasons without their common prefix, in lower case.
    pub(super) names: HashMap<u32, String>,
}

/// The attached probe.
pub(super) enum DropProbe {
    /// With a file on bpffs: it goes on without the daemon.
    Pinned(PinnedLink),
    /// Ends with the daemon.
    Held(#[expect(dead_code, reason = "held for its drop")] FdLink),
}

/// Reads the offsets and names from the kernel's BTF.
pub(super) fn facts() -> Result<DropFacts, String> {
    let types =
        btf::Btf::of_kernel().map_err(|error| format!("reading the kernel's BTF: {error}"))?;
    let offset = |structure: &str, member: &str| {
        types
            .offset(structure, member)
            .ok_or_else(|| format!("this kernel's {structure} has no {member}"))
    };
    let namespace = pins::namespace_inode()
        .map_err(|error| format!("finding out this network namespace: {error}"))?;
    let layout = DropLayout {
        skb_head: offset("sk_buff", "head")?,
        skb_end: offset("sk_buff", "end")?,
        skb_network_header: offset("sk_buff", "network_header")?,
        skb_protocol: offset("sk_buff", "protocol")?,
        skb_len: offset("sk_buff", "len")?,
        skb_dev: offset("sk_buff", "dev")?,
        skb_sk: offset("sk_buff", "sk")?,
        skb_packet_type: offset("sk_buff", "__pkt_type_offset")?,
        skb_arrived_by: offset("sk_buff", "skb_iif")?,
        dev_net: offset("net_device", "nd_net")?,
        sock_net: offset("sock", "__sk_common")? + offset("sock_common", "skc_net")?,
        net_inode: offset("net", "ns")? + offset("ns_common", "inum")?,
        watched_inode: u32::try_from(namespace).unwrap_or(0),
    };
    let mut ignored = IgnoredReasons::default();
    let mut names = HashMap::new();
    for (reason, name) in types.enumerators("skb_drop_reason") {
        let name = name.strip_prefix(PREFIX).unwrap_or(&name);
        if IGNORED.contains(&name) {
            ignored.insert(reason);
        }
        names.insert(reason, name.to_lowercase());
    }
    if names.is_empty() {
        return Err("this kernel gives no reasons for drops; Linux 5.17 does".to_owned());
    }
    Ok(DropFacts {
        layout,
        ignored,
        names,
    })
}

/// Loads and attaches the probe, in place of one that an earlier daemon left.
pub(super) fn attach(ebpf: &mut Ebpf, pins: Option<&Pins>) -> Result<DropProbe, String> {
    let path = pins.map(|pins| pins.directory().join("link-drops"));
    let types = Btf::from_sys_fs().map_err(|error| format!("reading the kernel's BTF: {error}"))?;
    let program: &mut BtfTracePoint = ebpf
        .program_mut(PROGRAM)
        .and_then(|program| program.try_into().ok())
        .ok_or_else(|| format!("the kernel object has no program {PROGRAM}"))?;
    program
        .load(TRACEPOINT, &types)
        .map_err(|error| explain("loading", &error))?;
    if let Some(path) = &path
        && path.exists()
    {
        // Links of this kind can't be given another program. A drop in this moment is taken for silence.
        std::fs::remove_file(path)
            .map_err(|error| format!("removing {}: {error}", path.display()))?;
    }
    let id = program
        .attach()
        .map_err(|error| explain("attaching", &error))?;
    let link: FdLink = program
        .take_link(id)
        .map_err(|error| explain("attaching", &error))?
        .into();
    match path {
        Some(path) => link
            .pin(&path)
            .map(DropProbe::Pinned)
            .map_err(|error| format!("pinning the drop probe: {error}")),
        None => Ok(DropProbe::Held(link)),
    }
}

fn explain(action: &str, error: &ProgramError) -> String {
    super::failed(&format!("{action} the drop probe"), error).to_string()
}

impl DropProbe {
    /// Takes the probe off.
    pub(super) fn detach(self) {
        match self {
            Self::Pinned(link) => {
                if let Err(error) = link.unpin() {
                    tracing::debug!(%error, "unpinning the drop probe");
                }
            }
            Self::Held(_) => {}
        }
    }
}
