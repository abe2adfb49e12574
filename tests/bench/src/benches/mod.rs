//! The benches, each for itself.

mod detect;
mod judge;
mod kernel;
mod live;
mod load;
mod memory;
mod reload;
pub(crate) mod replay;
mod stack;
mod start;

use anyhow::Result;

use crate::context::Context;
use crate::report::Section;

/// A bench that can be asked for by its name.
pub(crate) struct Bench {
    /// On the command line.
    pub(crate) name: &'static str,
    /// Its heading.
    pub(crate) title: &'static str,
    /// Measures, and fills the section as far as it comes.
    pub(crate) run: fn(&Context, &mut Section) -> Result<()>,
}

/// All, in the order of the document.
pub(crate) const ALL: &[Bench] = &[
    Bench {
        name: "replay",
        title: "Replay of capture files",
        run: replay::bench,
    },
    Bench {
        name: "kernel",
        title: "The kernel programs, by test runs",
        run: kernel::bench,
    },
    Bench {
        name: "stack",
        title: "The kernel programs, on real traffic",
        run: stack::bench,
    },
    Bench {
        name: "load",
        title: "New flows without end",
        run: load::bench,
    },
    Bench {
        name: "judge",
        title: "Judging unseen flows in user space",
        run: judge::bench,
    },
    Bench {
        name: "reload",
        title: "Reload",
        run: reload::bench,
    },
    Bench {
        name: "memory",
        title: "Memory",
        run: memory::bench,
    },
    Bench {
        name: "live",
        title: "Live capture by libpcap",
        run: live::bench,
    },
    Bench {
        name: "detect",
        title: "Detection",
        run: detect::bench,
    },
    Bench {
        name: "start",
        title: "Start",
        run: start::bench,
    },
];
