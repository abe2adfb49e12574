//! Where maps and links are pinned, so that they outlive the daemon: one directory for each network
//! namespace and layout below a directory on bpffs. The namespace goes by its cookie, which the kernel
//! never gives twice, so that a daemon can't adopt the counters of a namespace that is gone.
//!
//! One daemon at a time: the directory is guarded by an abstract socket, which the kernel frees however
//! the daemon ends.

use std::fs;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};

use aya::maps::MapInfo;
use flowproof_common::layout::LAYOUT_VERSION;
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::super::CaptureError;
use super::failed;
use super::object::PINNED_MAPS;
use super::tables::Sizes;

/// Where pins go unless the configuration says otherwise.
pub const DEFAULT_DIRECTORY: &str = "/sys/fs/bpf/flowproof";

/// A directory on bpffs that this daemon owns.
#[derive(Debug)]
pub struct Pins {
    directory: PathBuf,
    _guard: UnixDatagram,
}

impl Pins {
    /// Takes the directory for this network namespace below `base`. The inner error says why nothing can
    /// be pinned, which is no reason not to start.
    ///
    /// # Errors
    /// Another daemon owns it.
    pub(super) fn open(base: &Path) -> Result<Result<Self, String>, CaptureError> {
        if let Err(reason) = ensure_bpffs(base) {
            return Ok(Err(reason));
        }
        let directory = own_directory(base)?;
        let guard = guard(&directory)?;
        if let Err(error) = fs::create_dir_all(&directory) {
            return Ok(Err(format!("creating {}: {error}", directory.display())));
        }
        Ok(Ok(Self {
            directory,
            _guard: guard,
        }))
    }

    /// The directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Sizes of the pinned maps; nothing unless all are there.
    pub(super) fn sizes(&self) -> Result<Option<Sizes>, CaptureError> {
        let mut sizes = Vec::new();
        let mut absent = 0;
        for name in PINNED_MAPS {
            match MapInfo::from_pin(self.directory.join(name)) {
                Ok(info) => sizes.push((name, info.max_entries())),
                Err(_) => absent += 1,
            }
        }
        if absent == PINNED_MAPS.len() {
            return Ok(None);
        }
        if absent > 0 {
            // A daemon was killed while it set up or took down: what is left is no use.
            self.clear()?;
            return Ok(None);
        }
        Ok(Some(Sizes::from_maps(&sizes)))
    }

    /// Removes every pin, which detaches every link.
    pub(super) fn clear(&self) -> Result<(), CaptureError> {
        clear_directory(&self.directory).map_err(|error| {
            failed(
                &format!("removing pins in {}", self.directory.display()),
                &error,
            )
        })
    }

    /// Removes what daemons of other layouts left for this network namespace: after an upgrade nobody reads any more what
    /// their programs count. What a daemon still owns stays.
    pub(super) fn retire_other_layouts(&self) {
        let (Some(layout), Some(own)) = (self.directory.parent(), self.directory.file_name())
        else {
            return;
        };
        for other in layout.parent().map(subdirectories).unwrap_or_default() {
            let directory = other.join(own);
            if other == layout || !directory.is_dir() {
                continue;
            }
            let Ok(_guard) = guard(&directory) else {
                continue;
            };
            match clear_directory(&directory).and_then(|()| fs::remove_dir(&directory)) {
                Ok(()) => tracing::info!(
                    directory = %directory.display(),
                    "took off the programs of another version, whose counters can't be adopted"
                ),
                Err(error) => {
                    tracing::warn!(directory = %directory.display(), %error, "could not remove pins");
                }
            }
            let _ = fs::remove_dir(&other);
        }
    }

    /// Removes the pins and the directory.
    pub(super) fn remove(self) {
        let result = self
            .clear()
            .map_err(|error| io::Error::other(error.to_string()))
            .and_then(|()| fs::remove_dir(&self.directory));
        if let Err(error) = result {
            tracing::warn!(directory = %self.directory.display(), %error, "could not remove pins");
        }
        // Parents stay as long as another namespace or layout has pins in them.
        if let Some(layout) = self.directory.parent() {
            let _ = fs::remove_dir(layout);
            let _ = layout.parent().map(fs::remove_dir);
        }
    }
}

/// Removes what daemons left: pins below `base` for this network namespace, or for all of them, and clsact
/// filters in this one. Returns what was removed, in words.
///
/// # Errors
/// A daemon is at work there, or a pin can't be removed.
pub fn detach(base: &Path, all: bool) -> Result<Vec<String>, CaptureError> {
    let mut removed = Vec::new();
    let own = format!("netns-{}", namespace_cookie()?);
    for layout in subdirectories(base) {
        for directory in subdirectories(&layout) {
            if !all
                && directory
                    .file_name()
                    .is_none_or(|name| name != own.as_str())
            {
                continue;
            }
            // Guards live in their own namespace, so only this one's daemon can be noticed.
            let _guard = guard(&directory)?;
            clear_directory(&directory)
                .and_then(|()| fs::remove_dir(&directory))
                .map_err(|error| failed(&format!("removing {}", directory.display()), &error))?;
            removed.push(format!(
                "programs and counters pinned in {}",
                directory.display()
            ));
        }
        let _ = fs::remove_dir(&layout);
    }
    let _ = fs::remove_dir(base);
    for interface in nix::net::if_::if_nameindex()
        .map_err(|error| failed("listing the interfaces", &error))?
        .iter()
    {
        let name = interface.name().to_string_lossy();
        if super::attach::remove_filters(&name) {
            removed.push(format!("filters on {name}"));
        }
    }
    Ok(removed)
}

fn subdirectories(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.is_dir())
        .collect()
}

fn clear_directory(directory: &Path) -> io::Result<()> {
    // Links first: a program must not run on maps that a successor no longer finds.
    let mut files: Vec<_> = fs::read_dir(directory)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .collect();
    files.sort_by_key(|path| {
        !path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("link-"))
    });
    files.into_iter().try_for_each(fs::remove_file)
}

fn guard(directory: &Path) -> Result<UnixDatagram, CaptureError> {
    let name = format!("flowproof {}", directory.display());
    SocketAddr::from_abstract_name(name.as_bytes())
        .and_then(|address| UnixDatagram::bind_addr(&address))
        .map_err(|error| {
            if error.kind() == io::ErrorKind::AddrInUse {
                CaptureError::Failed {
                    action: format!("taking {}", directory.display()),
                    reason:
                        "another flowproof is at work in this network namespace; stop it, or give \
                             this one another pin directory"
                            .to_owned(),
                }
            } else {
                failed(&format!("guarding {}", directory.display()), &error)
            }
        })
}

/// The cookie of this thread's network namespace (`SO_NETNS_COOKIE`, Linux 5.14), else its inode.
fn namespace_cookie() -> Result<u64, CaptureError> {
    if let Some(cookie) = super::batch::namespace_cookie() {
        return Ok(cookie);
    }
    namespace_inode().map_err(|error| failed("finding out this network namespace", &error))
}

/// The inode of this thread's network namespace, as the kernel's `net.ns.inum`.
pub(super) fn namespace_inode() -> io::Result<u64> {
    fs::metadata("/proc/thread-self/ns/net").map(|data| data.ino())
}

/// Makes the directory for this network namespace below `base`, for whom neither mounts nor makes directories later on. A
/// failure shows when it is used.
///
/// # Errors
/// There is no bpffs, or the directory can't be made there.
pub fn prepare(base: &Path) -> Result<(), String> {
    ensure_bpffs(base)?;
    let directory = own_directory(base).map_err(|error| error.to_string())?;
    fs::create_dir_all(&directory)
        .map_err(|error| format!("creating {}: {error}", directory.display()))
}

/// Removes the directories that [`prepare`] made, unless there are pins in them.
pub fn tidy(base: &Path) {
    let Ok(directory) = own_directory(base) else {
        return;
    };
    // From the innermost outwards, up to the first that is in use.
    for directory in directory.ancestors().take(3) {
        if fs::remove_dir(directory).is_err() {
            return;
        }
    }
}

fn own_directory(base: &Path) -> Result<PathBuf, CaptureError> {
    Ok(base
        .join(format!("layout-{LAYOUT_VERSION}"))
        .join(format!("netns-{}", namespace_cookie()?)))
}

/// Makes sure that `base` can be made on a bpffs, mounting one at /sys/fs/bpf as bpftool does.
fn ensure_bpffs(base: &Path) -> Result<(), String> {
    let existing = base
        .ancestors()
        .find(|path| path.exists())
        .ok_or_else(|| "no such directory".to_owned())?;
    let is_bpffs =
        |path: &Path| statfs(path).is_ok_and(|info| info.filesystem_type() == BPF_FS_MAGIC);
    if is_bpffs(existing) {
        return Ok(());
    }
    let standard = Path::new("/sys/fs/bpf");
    if !base.starts_with(standard) || existing != standard {
        return Err(format!(
            "{} is not on a BPF file system",
            existing.display()
        ));
    }
    nix::mount::mount(
        Some("bpf"),
        standard,
        Some("bpf"),
        nix::mount::MsFlags::MS_NOSUID
            | nix::mount::MsFlags::MS_NODEV
            | nix::mount::MsFlags::MS_NOEXEC,
        Some("mode=0700"),
    )
    .map_err(|error| format!("mounting bpffs at {}: {error}", standard.display()))
}
