//! Frames into an interface without a sender behind it: the kernel makes them from a test run of an XDP program and takes
//! them in as if the device had received them (`BPF_F_TEST_XDP_LIVE_FRAMES`, Linux 5.18). A packet socket behind a veth pair
//! pays for the way there, and so offers a fifth of what a capture could take.

use std::os::fd::OwnedFd;

use anyhow::{Context as _, Result};

use super::assembler::{Assembler, R0, R1, R3, R6, R9, Size::Half};
use super::programs::{Tuple, find, move_on, table, take_frame};
use super::{Attributes, Kind, Map, Program, address, command, raw};

/// `XDP_DROP`.
const DROP: i32 = 1;
/// `XDP_PASS`: up the stack.
const PASS: i32 = 2;
/// Offsets into `struct xdp_md`.
const DATA: i16 = 0;
const DATA_END: i16 = 4;
/// Where addresses and ports stand in an Ethernet frame of IPv4 without options.
const TUPLE_AT: i16 = 26;
/// Frames that the kernel makes before it takes them in, as a driver's poll does; its greatest is 256.
const BATCH: u32 = 64;

/// Gives an interface frames of known flows, one after the other and over again.
#[derive(Debug)]
pub(crate) struct LiveFeed {
    program: Program,
    interface: u32,
    /// XDP on the interface, without which a veth device has no queue that such frames could have come by.
    _attached: OwnedFd,
    /// Held because the program reads them.
    _maps: [Map; 2],
}

impl LiveFeed {
    /// Will give flows of `tuples` to the interface of this index, of the namespace that the caller is in.
    pub(crate) fn new(tuples: &[Tuple], interface: u32) -> Result<Self> {
        let cursor = Map::new(Kind::Array, 4, 4, 1)?;
        let flows = table(tuples)?;
        let mut asm = Assembler::default();
        asm.copy(R6, R1);
        take_frame(&mut asm, DATA, DATA_END);
        move_on(&mut asm, &cursor, Some(i32::try_from(tuples.len())?));
        find(&mut asm, &flows);
        // Half by half: XDP does not promise that frames are aligned for more.
        for at in (0..12).step_by(2) {
            asm.load(Half, R3, R0, at)
                .store(Half, R9, TUPLE_AT + at, R3);
        }
        let code = asm.end(PASS).label("out").end(DROP).finish();
        let attached = Program::load_xdp("bench_pass", &Assembler::default().end(PASS).finish())?
            .attach_xdp(interface)?;
        Ok(Self {
            program: Program::load_xdp("bench_live", &code)?,
            interface,
            _attached: attached,
            _maps: [cursor, flows],
        })
    }

    /// Has the interface receive so many frames, each a copy of `frame` with another flow, on this CPU.
    pub(crate) fn send(&self, frame: &[u8], count: u32) -> Result<()> {
        const LIVE_FRAMES: u32 = 1 << 1;
        let length = u32::try_from(frame.len())?;
        // `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let context = [0, length, 0, self.interface, 0, 0_u32];
        Attributes::new()
            .word(0, raw(&self.program.descriptor))
            .word(8, length)
            .double(16, address(frame))
            .word(32, count)
            .word(40, u32::try_from(size_of_val(&context))?)
            .double(48, address(&context))
            .word(64, LIVE_FRAMES)
            .word(72, BATCH)
            .call(command::TEST_RUN)
            .context("a test run with live frames (Linux 5.18)")?;
        Ok(())
    }
}
