//! The kernel programs. They observe and count; they never drop, delay or change a packet.
#![no_std]
#![no_main]

use aya_ebpf::{
    macros::{classifier, map},
    maps::PerCpuArray,
    programs::TcContext,
};

/// Hand the packet to the next program (`TCX_NEXT`, and `TC_ACT_UNSPEC` for clsact: `include/uapi/linux/bpf.h`).
const NEXT: i32 = -1;

/// Packets seen on each CPU.
#[map]
static PACKETS: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Counts the packet and hands it on.
#[classifier]
pub fn flowproof_ingress(_ctx: TcContext) -> i32 {
    if let Some(count) = PACKETS.get_ptr_mut(0) {
        // SAFETY: the pointer is to this CPU's own slot, and a classifier is not re-entered on its CPU.
        unsafe { *count += 1 };
    }
    NEXT
}

/// Never reached: a panic would not pass the verifier.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The licence that the kernel checks before it grants its GPL-only helpers.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
