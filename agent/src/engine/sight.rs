//! Whose traffic comes by this host, for sites that don't say so by `observe`. On a host that is neither router, bridge nor
//! the end of a mirror port, only its own flows can be seen: then rows between others are unobservable, and not silent.
//!
//! Facts are those of the kernel, of the network namespace of the calling thread. What can't be read is taken to be
//! absent: a host that seems to see less than it does says `unobservable` until it sees a flow, which is honest; the other
//! way round it would call others silent whom it can't hear.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::capture::CaptureError;
use crate::capture::interfaces;

/// Where the kernel tells what each network namespace does; it shows the one of the thread that looks.
const SETTINGS: &str = "/proc/sys/net";

/// What the kernel says of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Facts {
    /// Whether it forwards packets of others, IPv4 or IPv6, on any interface.
    pub forwards: bool,
    /// Whether an interface that is up is a port of a bridge.
    pub bridges: bool,
    /// Whether somebody switched an interface that is up to take frames for others, as the end of a mirror port needs. That
    /// a capture asks for them itself does not count: it does so by default, and proves nothing about what arrives.
    pub promiscuous: bool,
}

impl Facts {
    /// Asks the kernel.
    ///
    /// # Errors
    /// The interfaces can't be listed.
    pub fn read() -> Result<Self, CaptureError> {
        let links = interfaces::list()?;
        let up = || links.iter().filter(|link| link.up);
        Ok(Self {
            forwards: forwards(Path::new(SETTINGS)),
            bridges: up().any(|link| link.bridge_port),
            promiscuous: up().any(|link| link.promiscuous),
        })
    }

    /// Whether traffic between others comes by.
    #[must_use]
    pub const fn sees_others(self) -> bool {
        self.forwards || self.bridges || self.promiscuous
    }
}

/// Whether packets are forwarded. Each interface has a switch of its own; the one that is called `default` is of
/// interfaces to come (Documentation/networking/ip-sysctl.rst).
fn forwards(settings: &Path) -> bool {
    ["ipv4", "ipv6"].iter().any(|version| {
        let folder = settings.join(version).join("conf");
        let Ok(entries) = fs::read_dir(&folder) else {
            return false;
        };
        entries
            .filter_map(Result::ok)
            .filter(|entry| entry.file_name() != "default" && entry.file_name() != "lo")
            .any(|entry| is_on(&entry.path().join("forwarding")).unwrap_or(false))
    })
}

/// A switch is a number, and on unless it is 0.
fn is_on(path: &Path) -> io::Result<bool> {
    let text = fs::read_to_string(path)?;
    Ok(!matches!(text.trim(), "" | "0"))
}

/// What is seen from here, for [`Sightline`](crate::verdict::vantage::Sightline): what the site says if it does; else
/// nothing, which means all, if traffic between others comes by, or the addresses of this host and its loopback.
/// `own` are those of [`own_addresses`](interfaces::own_addresses).
#[must_use]
pub fn effective(site_observe: &[IpNet], facts: &Facts, own: &[IpAddr]) -> Vec<IpNet> {
    if !site_observe.is_empty() {
        return site_observe.to_vec();
    }
    if facts.sees_others() {
        return Vec::new();
    }
    // Loopback first, so that a host without an address sees itself, and not everybody.
    let loopback = [
        Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8).into(),
        Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128).into(),
    ];
    loopback
        .into_iter()
        .chain(own.iter().map(|address| IpNet::from(*address)))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::thread;

    use nix::sched::{CloneFlags, unshare};

    use super::*;

    fn own() -> Vec<IpAddr> {
        ["192.0.2.7", "2001:db8::7"]
            .map(|text| text.parse().unwrap())
            .to_vec()
    }

    #[track_caller]
    fn check(site: &[&str], facts: Facts, own: &[IpAddr], expect: &[&str]) {
        let parsed = |texts: &[&str]| -> Vec<IpNet> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        assert_eq!(effective(&parsed(site), &facts, own), parsed(expect));
    }

    #[test]
    fn a_plain_host_sees_its_own_traffic() {
        let plain = Facts::default();
        check(
            &[],
            plain,
            &own(),
            &["127.0.0.0/8", "::1/128", "192.0.2.7/32", "2001:db8::7/128"],
        );
        // Before it has an address it does not see everybody.
        check(&[], plain, &[], &["127.0.0.0/8", "::1/128"]);
    }

    #[test]
    fn what_others_send_is_seen_where_it_passes() {
        for facts in [
            Facts {
                forwards: true,
                ..Facts::default()
            },
            Facts {
                bridges: true,
                ..Facts::default()
            },
            Facts {
                promiscuous: true,
                ..Facts::default()
            },
        ] {
            check(&[], facts, &own(), &[]);
        }
    }

    #[test]
    fn the_site_knows_best() {
        for forwards in [true, false] {
            let facts = Facts {
                forwards,
                ..Facts::default()
            };
            check(&["10.0.0.0/8"], facts, &own(), &["10.0.0.0/8"]);
        }
    }

    #[test]
    fn forwarding_of_any_interface_counts() {
        let folder = tempfile::tempdir().unwrap();
        let switch = |path: &str, value: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join("forwarding"), value).unwrap();
        };
        assert!(!forwards(folder.path()));
        switch("ipv4/conf/all", "0\n");
        switch("ipv4/conf/eth0", "0\n");
        // Of interfaces to come, and of one that leads nowhere.
        switch("ipv4/conf/default", "1\n");
        switch("ipv4/conf/lo", "1\n");
        fs::create_dir_all(folder.path().join("ipv4/conf/no-file")).unwrap();
        assert!(!forwards(folder.path()));
        switch("ipv4/conf/eth0", "1\n");
        assert!(forwards(folder.path()));
        switch("ipv4/conf/eth0", "0\n");
        switch("ipv6/conf/all", "2\n");
        assert!(forwards(folder.path()));
    }

    /// Runs `ip` in the network namespace of this thread.
    fn ip(arguments: &str) {
        let status = Command::new("ip")
            .args(arguments.split(' '))
            .status()
            .unwrap();
        assert!(status.success(), "ip {arguments}");
    }

    #[test]
    fn facts_are_those_of_the_own_network_namespace() {
        let name = "facts_are_those_of_the_own_network_namespace";
        if !nix::unistd::geteuid().is_root() {
            flowproof_tests::skip::skip(name, "making a network namespace needs root");
            return;
        }
        // The namespace ends with the thread.
        thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let switch = |path: &str, value: &str| {
                fs::write(Path::new(SETTINGS).join(path), value).unwrap();
            };
            // IPv4 is inherited (`net.core.devconf_inherit_init_net`).
            switch("ipv4/ip_forward", "0");
            assert_eq!(Facts::read().unwrap(), Facts::default());
            switch("ipv6/conf/all/forwarding", "1");
            assert!(Facts::read().unwrap().forwards);
            switch("ipv6/conf/all/forwarding", "0");
            switch("ipv4/ip_forward", "1");
            assert!(Facts::read().unwrap().forwards);
            switch("ipv4/ip_forward", "0");
            ip("link add fp-a type veth peer name fp-b");
            ip("link add fp-br type bridge");
            ip("link set fp-a master fp-br");
            assert!(!Facts::read().unwrap().bridges, "it is down");
            ip("link set fp-a up");
            let facts = Facts::read().unwrap();
            assert!(facts.bridges && !facts.promiscuous, "{facts:?}");
            ip("link set fp-a nomaster");
            ip("link set fp-b up promisc on");
            let facts = Facts::read().unwrap();
            assert!(facts.promiscuous && !facts.bridges, "{facts:?}");
        })
        .join()
        .unwrap();
    }
}
