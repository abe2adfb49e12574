//! The kernel side of flowproof: parses, looks up, judges and counts every packet where it passes, so that
//! verdicts and counters are exact while the daemon is stopped, slow or restarting.
//!
//! It observes only: every path of every program ends in [`PASS`]. It holds no policy text and no
//! addresses; all it knows of the matrix is numbers in maps. What it does with a packet is the code of
//! `flowproof-common`; here are only the maps, the access to the packet and the atomic operations.
//!
//! Minimum kernel: 5.12 (atomic compare-and-swap and `bpf_ktime_get_coarse_ns`); TCX links need 6.6.

#![no_std]
#![no_main]
#![expect(
    unstable_features,
    reason = "the atomic operations of the BPF target are only reachable through intrinsics"
)]
#![feature(core_intrinsics)]
#![expect(internal_features, reason = "as above")]

mod atomic;
mod decide;
mod drops;
mod event;
mod flow;
mod hand_over;
mod hot;
mod maps;
mod skb;
mod tables;
mod traffic;

/// `TCX_NEXT` and `TC_ACT_UNSPEC` (`linux/bpf.h`, `linux/pkt_cls.h`): go on as if we were not here.
pub(crate) const PASS: i32 = -1;

/// The kernel's GPL-only helpers are given to this licence (`linux/license.h`).
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses a program in which this can be reached.
    loop {}
}
