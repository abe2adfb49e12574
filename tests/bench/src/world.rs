//! An invented site of any size: every client role may reach every server role on one service, so that a matrix of so
//! many requirements is had from few numbers, and it is known of each address what it may do.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use flowproof_common::protocol;

/// Roles of a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct World {
    clients: u32,
    servers: u32,
}

/// The number of different ports that services are on.
const PORTS: u32 = 200;
/// Hosts of a server role, and of a client role, that traffic is made of.
const SERVER_HOSTS: u32 = 4;
const CLIENT_HOSTS: u32 = 250;

/// A service as a requirement allows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Service {
    /// IP protocol number: TCP or UDP.
    pub(crate) protocol: u8,
    /// The responder's port.
    pub(crate) port: u16,
    /// Whether echo is allowed too.
    pub(crate) echo: bool,
}

impl World {
    /// A site with so many requirements: 10 to 100,000, a power of ten.
    pub(crate) const fn of(requirements: u32) -> Self {
        let clients = match requirements {
            0..=10 => 2,
            11..=100 => 5,
            101..=1_000 => 10,
            1_001..=10_000 => 20,
            _ => 100,
        };
        Self {
            clients,
            servers: requirements.div_ceil(clients),
        }
    }

    /// Client roles.
    pub(crate) const fn clients(self) -> u32 {
        self.clients
    }

    /// Server roles.
    pub(crate) const fn servers(self) -> u32 {
        self.servers
    }

    /// Requirements.
    pub(crate) const fn requirements(self) -> u32 {
        self.clients * self.servers
    }

    /// What a client role may ask of a server role.
    pub(crate) fn service(self, client: u32, server: u32) -> Service {
        let number = client * self.servers + server;
        let port = 2_000 + number.wrapping_mul(7) % PORTS;
        Service {
            protocol: if number % 5 == 4 {
                protocol::UDP
            } else {
                protocol::TCP
            },
            port: u16::try_from(port).unwrap_or(u16::MAX),
            echo: number.is_multiple_of(10),
        }
    }

    /// The address of a host of a client role.
    pub(crate) fn client4(self, role: u32, host: u32) -> [u8; 4] {
        v4(10, 128 + role, 0, 1 + host % CLIENT_HOSTS)
    }

    /// The address of a host of a server role.
    pub(crate) fn server4(self, role: u32, host: u32) -> [u8; 4] {
        v4(10, 64 + role / 256, role % 256, 1 + host % SERVER_HOSTS)
    }

    /// The IPv6 address of a host of a client role.
    pub(crate) fn client6(self, role: u32, host: u32) -> [u8; 16] {
        v6(0x128, role, 1 + host % CLIENT_HOSTS)
    }

    /// The IPv6 address of a host of a server role.
    pub(crate) fn server6(self, role: u32, host: u32) -> [u8; 16] {
        v6(0x64, role, 1 + host % SERVER_HOSTS)
    }

    /// The matrix file.
    pub(crate) fn matrix(self) -> String {
        let mut text = "system: bench\ntitle: Bench\nroles:\n".to_owned();
        for (kind, count) in [("client", self.clients), ("server", self.servers)] {
            for role in 0..count {
                // Writing to a string can't fail.
                let _ = writeln!(text, "  {kind}-{role}: {{}}");
            }
        }
        text.push_str("requirements:\n");
        for client in 0..self.clients {
            for server in 0..self.servers {
                let service = self.service(client, server);
                let name = if service.protocol == protocol::UDP {
                    "udp"
                } else {
                    "tcp"
                };
                let echo = if service.echo { ", icmp, icmpv6" } else { "" };
                let _ = writeln!(
                    text,
                    "  - {{id: r{}, from: client-{client}, to: server-{server}, services: [{name}/{}{echo}]}}",
                    client * self.servers + server,
                    service.port,
                );
            }
        }
        text
    }

    /// The site file.
    pub(crate) fn site(self) -> String {
        let mut text = "site: bench\nsystems: [bench]\nroles:\n".to_owned();
        for role in 0..self.clients {
            let _ = writeln!(
                text,
                "  bench/client-{role}: [{}/16, \"{}/64\"]",
                Ipv4Addr::from(v4(10, 128 + role, 0, 0)),
                Ipv6Addr::from(v6(0x128, role, 0)),
            );
        }
        for role in 0..self.servers {
            let _ = writeln!(
                text,
                "  bench/server-{role}: [{}/24, \"{}/64\"]",
                Ipv4Addr::from(v4(10, 64 + role / 256, role % 256, 0)),
                Ipv6Addr::from(v6(0x64, role, 0)),
            );
        }
        text
    }
}

fn v4(a: u32, b: u32, c: u32, d: u32) -> [u8; 4] {
    ((a << 24) | (b << 16) | (c << 8) | d).to_be_bytes()
}

fn v6(kind: u16, role: u32, host: u32) -> [u8; 16] {
    let role = u16::try_from(role).unwrap_or(u16::MAX);
    let host = u16::try_from(host).unwrap_or(u16::MAX);
    Ipv6Addr::new(0xfd00, kind, 0, role, 0, 0, 0, host).octets()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use flowproof::engine::policy;
    use flowproof::site::tags::TagOptions;

    use super::*;

    #[test]
    fn sizes_are_what_was_asked_for() {
        for requirements in [10, 100, 1_000, 10_000, 100_000] {
            assert_eq!(World::of(requirements).requirements(), requirements);
        }
    }

    #[test]
    fn flowproof_reads_it() {
        let world = World::of(100);
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: String| -> PathBuf {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let policy = policy::load(
            &[file("matrix.yaml", world.matrix())],
            Some(&file("site.yaml", world.site())),
            &TagOptions::default(),
            &[],
        )
        .unwrap();
        assert!(!policy.unbound);
        let system = &policy.compiled.matrix.systems[0];
        assert_eq!(system.requirements.len(), 100);
    }
}
