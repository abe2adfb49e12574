//! Attaching the programs to interfaces: TCX links, or filters on clsact where the kernel has no TCX. A
//! link that an earlier daemon left pinned is given the new program in one step, so that no packet passes
//! unjudged; the same holds for a filter, which keeps its priority and handle.

use std::path::PathBuf;

use aya::Ebpf;
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle};
use aya::programs::{LinkOrder, ProgramError, TcAttachType};

use super::super::{CaptureError, Interface};
use super::pins::Pins;
use super::program::loaded;
use super::{AttachMode, batch, failed, object};

/// Which way the traffic goes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Hook {
    /// Into the host.
    Ingress,
    /// Out of the host.
    Egress,
}

impl Hook {
    /// The hooks to attach to on an interface. Loopback hands every packet from its egress to its ingress,
    /// so one of them sees all there is.
    pub(super) fn of(interface: &Interface) -> Result<&'static [Self], CaptureError> {
        let loopback = link_type(interface)? == libc::ARPHRD_LOOPBACK;
        Ok(if loopback {
            &[Self::Ingress]
        } else {
            &[Self::Ingress, Self::Egress]
        })
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }

    const fn attach_type(self) -> TcAttachType {
        match self {
            Self::Ingress => TcAttachType::Ingress,
            Self::Egress => TcAttachType::Egress,
        }
    }

    const fn program(self, ethernet: bool) -> &'static str {
        match (self, ethernet) {
            (Self::Ingress, true) => "fp_ingress",
            (Self::Egress, true) => "fp_egress",
            (Self::Ingress, false) => "fp_ingress_l3",
            (Self::Egress, false) => "fp_egress_l3",
        }
    }
}

/// The place of our filter on clsact: late, and always the same, so that a successor finds it.
const PRIORITY: u16 = 49_000;
const HANDLE: TcHandle = TcHandle::new(0, 1);

/// A program on an interface.
pub(super) enum Attached {
    /// A TCX link with a file on bpffs.
    Pinned(PinnedLink),
    /// A TCX link that ends with the daemon.
    Held(FdLink),
    /// A clsact filter, which outlives the daemon by itself.
    Filter(SchedClassifierLink),
}

impl Attached {
    /// Takes the program off the interface; both may be gone already.
    pub(super) fn detach(self) {
        match self {
            Self::Pinned(link) => {
                if let Err(error) = link.unpin() {
                    tracing::debug!(%error, "unpinning a link");
                }
            }
            Self::Held(link) => drop(link),
            Self::Filter(link) => drop(link),
        }
    }

    /// Leaves the program where it is for the next daemon.
    pub(super) fn leave(self) {
        match self {
            // Its file keeps the link.
            Self::Pinned(link) => drop(link),
            Self::Held(link) => drop(link),
            // Dropping it would remove the filter.
            Self::Filter(link) => std::mem::forget(link),
        }
    }
}

/// Attaches one hook of one interface.
pub(super) fn attach(
    ebpf: &mut Ebpf,
    interface: &Interface,
    hook: Hook,
    mode: AttachMode,
    pins: Option<&Pins>,
) -> Result<Attached, CaptureError> {
    let ethernet = has_ethernet_header(interface)?;
    let program = hook.program(ethernet);
    match mode {
        AttachMode::Tcx => attach_tcx(ebpf, interface, hook, program, pins)
            .map_err(|error| explain(interface, hook, &error)),
        AttachMode::Clsact => attach_clsact(ebpf, interface, hook, program)
            .map_err(|error| explain(interface, hook, &error)),
        AttachMode::Auto => match attach_tcx(ebpf, interface, hook, program, pins) {
            Ok(attached) => Ok(attached),
            Err(error) if lacks_tcx(&error) => attach_clsact(ebpf, interface, hook, program)
                .map_err(|error| explain(interface, hook, &error)),
            Err(error) => Err(explain(interface, hook, &error)),
        },
    }
}

/// What went wrong while attaching.
#[derive(Debug, thiserror::Error)]
enum AttachError {
    #[error(transparent)]
    Capture(#[from] CaptureError),
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error(transparent)]
    Tc(#[from] tc::TcError),
    #[error(transparent)]
    Link(#[from] aya::programs::links::LinkError),
    #[error(transparent)]
    Pin(#[from] aya::pin::PinError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

fn explain(interface: &Interface, hook: Hook, error: &AttachError) -> CaptureError {
    object::permission(error).unwrap_or_else(|| {
        failed(
            &format!("attaching to {} ({})", interface.name, hook.name()),
            error,
        )
    })
}

/// A kernel before 6.6 knows no link of that type.
fn lacks_tcx(error: &AttachError) -> bool {
    let AttachError::Program(ProgramError::SyscallError(error)) = error else {
        return false;
    };
    matches!(
        error.io_error.raw_os_error(),
        Some(libc::EINVAL | libc::EOPNOTSUPP)
    )
}

fn attach_tcx(
    ebpf: &mut Ebpf,
    interface: &Interface,
    hook: Hook,
    program: &'static str,
    pins: Option<&Pins>,
) -> Result<Attached, AttachError> {
    let path = pins.map(|pins| {
        pins.directory()
            .join(format!("link-{}-{}", interface.index, hook.name()))
    });
    if let Some(path) = &path
        && let Some(adopted) = adopt(ebpf, program, path)?
    {
        return Ok(adopted);
    }
    let program = loaded(ebpf, program)?;
    let id = program.attach_with_options(
        &interface.name,
        hook.attach_type(),
        TcAttachOptions::TcxOrder(LinkOrder::default()),
    )?;
    let link: FdLink = program.take_link(id)?.try_into()?;
    Ok(match path {
        Some(path) => Attached::Pinned(link.pin(path)?),
        None => Attached::Held(link),
    })
}

/// Gives a pinned link the new program. Nothing if there is no pin or its interface is gone, in which case
/// the pin goes too: the kernel may have given the index to another interface.
fn adopt(ebpf: &mut Ebpf, program: &str, path: &PathBuf) -> Result<Option<Attached>, AttachError> {
    let Ok(pinned) = PinnedLink::from_pin(path) else {
        return Ok(None);
    };
    let link: SchedClassifierLink = FdLink::from(pinned).try_into()?;
    let program = loaded(ebpf, program)?;
    match program.attach_to_link(link) {
        Ok(id) => {
            // The link's descriptor may close: its file keeps it.
            drop(program.take_link(id)?);
            Ok(Some(Attached::Pinned(PinnedLink::from_pin(path)?)))
        }
        Err(error) => {
            tracing::debug!(path = %path.display(), %error, "a pinned link is stale");
            std::fs::remove_file(path)?;
            Ok(None)
        }
    }
}

fn attach_clsact(
    ebpf: &mut Ebpf,
    interface: &Interface,
    hook: Hook,
    program: &'static str,
) -> Result<Attached, AttachError> {
    if let Err(error) = tc::qdisc_add_clsact(&interface.name)
        && !is_there_already(&error)
    {
        return Err(error.into());
    }
    let program = loaded(ebpf, program)?;
    let left =
        SchedClassifierLink::attached(&interface.name, hook.attach_type(), PRIORITY, HANDLE, None)?;
    let id = match program.attach_to_link(left) {
        Ok(id) => id,
        Err(_) => program.attach_with_options(
            &interface.name,
            hook.attach_type(),
            TcAttachOptions::Netlink(NlOptions {
                priority: PRIORITY,
                handle: HANDLE,
                classid: None,
            }),
        )?,
    };
    Ok(Attached::Filter(program.take_link(id)?))
}

/// The queueing discipline is there: another program's, or an earlier daemon's.
fn is_there_already(error: &tc::TcError) -> bool {
    match error {
        tc::TcError::AlreadyAttached => true,
        tc::TcError::NetlinkError(error) => error.raw_os_error() == Some(libc::EEXIST),
        tc::TcError::NulError(_)
        | tc::TcError::IoError(_)
        | tc::TcError::InvalidTcxAttach(_)
        | tc::TcError::InvalidLinkOperation => false,
    }
}

/// Removes our filters from the clsact of `interface`; whether there were any. The discipline stays, for
/// others may use it.
pub(super) fn remove_filters(interface: &str) -> bool {
    let mut any = false;
    for hook in [Hook::Ingress, Hook::Egress] {
        for ethernet in [true, false] {
            any |= tc::qdisc_detach_program(interface, hook.attach_type(), hook.program(ethernet))
                .is_ok();
        }
    }
    any
}

fn link_type(interface: &Interface) -> Result<u16, CaptureError> {
    batch::hardware_type(&interface.name).map_err(|error| {
        failed(
            &format!("asking for the link type of {}", interface.name),
            &error,
        )
    })
}

/// Whether frames of this interface begin with an Ethernet header (`linux/if_arp.h`): Ethernet and
/// loopback do; tunnels, PPP, raw IP and devices without a link type don't.
fn has_ethernet_header(interface: &Interface) -> Result<bool, CaptureError> {
    match link_type(interface)? {
        libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK => Ok(true),
        libc::ARPHRD_NONE
        | libc::ARPHRD_PPP
        | libc::ARPHRD_TUNNEL
        | libc::ARPHRD_TUNNEL6
        | libc::ARPHRD_SIT
        | libc::ARPHRD_IPGRE
        | ARPHRD_IP6GRE
        | ARPHRD_RAWIP => Ok(false),
        other => Err(CaptureError::Failed {
            action: format!("attaching to {}", interface.name),
            reason: format!(
                "its link type {other} is not supported; leave it out of the interfaces"
            ),
        }),
    }
}

/// IPv6 GRE, `linux/if_arp.h`.
const ARPHRD_IP6GRE: u16 = 823;
/// Raw IP, `linux/if_arp.h`.
const ARPHRD_RAWIP: u16 = 519;
