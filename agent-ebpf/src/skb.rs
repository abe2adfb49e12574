//! Reads packet bytes through `bpf_skb_load_bytes`, which also reaches what is not in the linear part of
//! the socket buffer (headers of forwarded jumbo frames, for example) and never changes the packet.

use aya_ebpf::helpers::generated::bpf_skb_load_bytes;
use aya_ebpf::programs::TcContext;
use flowproof_common::parse::Bytes;

/// The frame that a TC program was called for.
pub(crate) struct Frame<'a>(pub(crate) &'a TcContext);

impl Bytes for Frame<'_> {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        // SAFETY: the buffer has N bytes and the context is the program's own.
        let result = unsafe {
            bpf_skb_load_bytes(
                self.0.skb.skb.cast(),
                offset,
                bytes.as_mut_ptr().cast(),
                N as u32,
            )
        };
        (result == 0).then_some(bytes)
    }
}
