//! Reads packet bytes: in place where they are in the linear part of the socket buffer, which is where the headers of
//! nearly all packets are, or through `bpf_skb_load_bytes`, which also reaches what is not (headers of forwarded jumbo
//! frames, for example). Neither changes the packet.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::bpf_skb_load_bytes;
use aya_ebpf::programs::TcContext;
use flowproof_common::parse::Bytes;
use flowproof_common::plain::Words;

/// The frame that a TC program was called for.
pub(crate) struct Frame<'a>(pub(crate) &'a TcContext);

impl Bytes for Frame<'_> {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let mut bytes = MaybeUninit::<[u8; N]>::uninit();
        // SAFETY: the buffer has N bytes and the context is the program's own.
        let result = unsafe {
            bpf_skb_load_bytes(
                self.0.skb.skb.cast(),
                offset,
                bytes.as_mut_ptr().cast(),
                N as u32,
            )
        };
        // SAFETY: the helper has written all of it, or says that it has not.
        (result == 0).then(|| unsafe { bytes.assume_init() })
    }
}

/// The linear part of the frame, read in place.
pub(crate) struct Linear {
    start: usize,
    end: usize,
}

impl Linear {
    /// Of the frame that a TC program was called for.
    #[inline(always)]
    pub(crate) fn of(ctx: &TcContext) -> Self {
        Self {
            start: ctx.data(),
            end: ctx.data_end(),
        }
    }
}

impl Words for Linear {
    #[inline(always)]
    fn has(&self, bytes: u32) -> bool {
        self.start + bytes as usize <= self.end
    }

    #[inline(always)]
    fn byte(&self, at: u32) -> u8 {
        // SAFETY: the verifier only accepts the program if `has` was asked for these bytes on the way here.
        unsafe { *((self.start + at as usize) as *const u8) }
    }

    #[inline(always)]
    fn half(&self, at: u32) -> u16 {
        // SAFETY: as above. Nothing aligns headers; the kernel takes such a read as it is where the machine does, and
        // refuses the program elsewhere.
        unsafe { *((self.start + at as usize) as *const u16) }
    }

    #[inline(always)]
    fn word(&self, at: u32) -> u32 {
        // SAFETY: as above.
        unsafe { *((self.start + at as usize) as *const u32) }
    }

    #[inline(always)]
    fn double(&self, at: u32) -> u64 {
        // SAFETY: as above.
        unsafe { *((self.start + at as usize) as *const u64) }
    }
}
