//! Where the drop probe finds what it needs in the running kernel's structures. Rust kernel programs have
//! no CO-RE relocations, so the daemon reads the offsets from BTF and hands them over before loading.

/// Offsets in bytes; filled in from the running kernel's BTF. 52 bytes.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DropLayout {
    /// `sk_buff.head`
    pub skb_head: u32,
    /// `sk_buff.end`, an offset from `head` on 64-bit kernels
    pub skb_end: u32,
    /// `sk_buff.network_header`, an offset from `head`
    pub skb_network_header: u32,
    /// `sk_buff.protocol`, an EtherType in network order
    pub skb_protocol: u32,
    /// `sk_buff.len`
    pub skb_len: u32,
    /// `sk_buff.dev`
    pub skb_dev: u32,
    /// `sk_buff.sk`
    pub skb_sk: u32,
    /// `sk_buff.__pkt_type_offset`, the byte whose low three bits say to whom the frame was sent
    pub skb_packet_type: u32,
    /// `sk_buff.skb_iif`, the interface that it came in by; 0 for what this host sends
    pub skb_arrived_by: u32,
    /// `net_device.nd_net`
    pub dev_net: u32,
    /// `sock.__sk_common` and in it `skc_net`
    pub sock_net: u32,
    /// `net.ns` and in it `inum`
    pub net_inode: u32,
    /// Inode of the network namespace that is watched (`/proc/self/ns/net`); drops elsewhere are another
    /// host's as far as this daemon is concerned.
    pub watched_inode: u32,
}
const _: () = assert!(size_of::<DropLayout>() == 52);

/// Drop reasons that say nothing about the network, one bit each; filled in from
/// the names in the kernel's BTF, whose numbers change from version to version.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct IgnoredReasons(pub [u64; 4]);

impl IgnoredReasons {
    /// Adds a reason. Those beyond 255 belong to subsystems and are never ignored.
    pub const fn insert(&mut self, reason: u32) {
        if reason < 256 {
            self.0[(reason / 64) as usize] |= 1 << (reason % 64);
        }
    }

    /// Whether the reason is to be passed over.
    #[inline(always)]
    #[must_use]
    pub const fn contains(&self, reason: u32) -> bool {
        let word = match reason / 64 {
            0 => self.0[0],
            1 => self.0[1],
            2 => self.0[2],
            3 => self.0[3],
            _ => 0,
        };
        word >> (reason % 64) & 1 == 1
    }
}

/// The reason of a packet that was used up, not dropped (`SKB_CONSUMED`, `net/dropreason-core.h`).
pub const CONSUMED: u32 = 1;

/// Low bits of [`DropLayout::skb_packet_type`] (`linux/if_packet.h`): `PACKET_HOST` is 0, and what is not
/// sent to this host alone (broadcast 1, multicast 2, another host 3) is no loss to anyone when this host
/// drops it.
pub const PACKET_TYPE_MASK: u8 = 7;
