//! Least privilege: a daemon that reads what strangers send must not be able to do what an intruder would want of it.
//!
//! Four layers, each of which goes without the others: capabilities, no_new_privs, Landlock (files) and seccomp (system
//! calls). They are put on in two steps. [`enter`], before there is a second thread, confines files, takes away what is not
//! needed even to start, and lets nothing be inherited. Threads that only handle files or the network are then made without
//! any capability ([`bare`], [`shed`]); once the back end is known the rest is lowered to what it needs ([`keep_for`]), which
//! the capture thread inherits; and when it watches, [`seal`] takes all from the main thread, filters system calls, and
//! looks at every thread to tell what is in force.
//!
//! Confinement belongs to the process and cannot be undone, which is why it is global here. What a kernel lacks is said and
//! gone without: watching is worth more than any one layer. Where [`enter`] was not called, everything here does nothing.

mod capabilities;
mod landlock;
mod needs;
mod seccomp;
mod threads;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use caps::CapsHashSet;
use nix::sys::prctl;

use self::needs::Needs;
use self::threads::Thread;
use crate::capture::Backend;
use crate::capture::ebpf::pins;
use crate::config::Config;

pub use self::needs::missing;

/// The only thread that keeps capabilities of a back end.
pub const CAPTURE_THREAD: &str = "capture";
/// How long threads that have just begun may take to give up theirs.
const SHED_LIMIT: Duration = Duration::from_secs(1);

/// Which layers are in force, in all threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Layers {
    /// No thread has a capability that is not needed.
    pub capabilities: bool,
    /// Nothing that is started gains anything.
    pub no_new_privs: bool,
    /// Only configured files can be reached.
    pub landlock: bool,
    /// System calls are filtered.
    pub seccomp: bool,
}

impl Layers {
    /// Each by its name in metrics.
    #[must_use]
    pub const fn each(self) -> [(&'static str, bool); 4] {
        [
            ("capabilities", self.capabilities),
            ("no_new_privs", self.no_new_privs),
            ("landlock", self.landlock),
            ("seccomp", self.seccomp),
        ]
    }
}

struct Confined {
    /// What every thread keeps, since some configured file can't be used without.
    for_files: CapsHashSet,
    /// In words.
    because: Vec<String>,
    /// The kernel's version of Landlock, if it has it.
    landlock: Option<i32>,
    state_directory: PathBuf,
    pins: Option<PathBuf>,
}

static CONFINED: OnceLock<Confined> = OnceLock::new();
/// What the capture thread may keep, and whose it is.
static CAPTURE: OnceLock<(Backend, CapsHashSet)> = OnceLock::new();
static LAYERS: Mutex<Layers> = Mutex::new(Layers {
    capabilities: false,
    no_new_privs: false,
    landlock: false,
    seccomp: false,
});

/// What is in force now; nothing before [`seal`], and without [`enter`].
#[must_use]
pub fn layers() -> Layers {
    *LAYERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Confines this process to what `config`, read from `file`, needs; `named` are files that other files of it name. Must be
/// called before there is a second thread. What can't be done is logged.
pub fn enter(config: &Config, file: Option<&Path>, named: &[PathBuf]) {
    let needs = Needs::of(config, file, named);
    prepare(&needs, &config.state_directory);
    if let Err(error) = prctl::set_no_new_privs() {
        tracing::warn!("programs that are started may gain privileges: no_new_privs: {error}");
    }
    let for_files = capabilities::for_files(&needs);
    let landlock = landlock::confine(&needs).unwrap_or_else(|error| {
        tracing::warn!("files are not confined: {error}");
        None
    });
    let confined = Confined {
        because: for_files
            .iter()
            .map(|(capability, path)| {
                format!("{capability} (to use {} as this user)", path.display())
            })
            .collect(),
        for_files: for_files
            .into_iter()
            .map(|(capability, _)| capability)
            .collect(),
        landlock,
        state_directory: config.state_directory.clone(),
        pins: needs.pins,
    };
    let mut keep = needs::to_start(&capabilities::permitted());
    keep.extend(&confined.for_files);
    let lowered =
        capabilities::let_nothing_be_inherited().and_then(|()| capabilities::limit(&keep));
    if let Err(error) = lowered {
        tracing::warn!("capabilities are not lowered: {error}");
    }
    // A second call would find nothing left to take away.
    let _ = CONFINED.set(confined);
}

/// Makes the folders that rules are to be made for: there is no rule for what does not exist, nor a mount once there are rules.
fn prepare(needs: &Needs, state_directory: &Path) {
    // Whoever writes there says what is wrong with it.
    let _ = fs::create_dir_all(state_directory);
    if let Some(base) = &needs.pins {
        let _ = pins::prepare(base);
    }
}

/// Runs `work` in a thread without capabilities, so that all threads it starts have none.
///
/// # Panics
/// When `work` panics.
pub fn bare<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    if CONFINED.get().is_none() {
        return work();
    }
    let run = || {
        shed();
        work()
    };
    std::thread::scope(|scope| match scope.spawn(run).join() {
        Ok(done) => done,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// Takes this thread's capabilities, for ever.
pub fn shed() {
    if let Some(confined) = CONFINED.get()
        && let Err(error) = capabilities::limit(&confined.for_files)
    {
        tracing::warn!("a thread keeps capabilities that it does not need: {error}");
    }
}

/// Takes from this thread, and from those that it will start, what `backend` does not need once it is open.
pub fn keep_for(backend: Backend) {
    let Some(confined) = CONFINED.get() else {
        return;
    };
    let mut keep = needs::of_backend(backend, &capabilities::permitted());
    keep.extend(&confined.for_files);
    if let Err(error) = capabilities::limit(&keep) {
        tracing::warn!("capabilities are not lowered: {error}");
    }
    let _ = CAPTURE.set((backend, keep));
    if backend != Backend::Ebpf {
        tidy();
    }
}

/// Removes folders that [`enter`] made for pins and nobody used.
pub fn tidy() {
    if let Some(base) = CONFINED.get().and_then(|confined| confined.pins.as_ref()) {
        pins::tidy(base);
    }
}

/// Ends the start: the main thread has no capabilities from now on, and system calls are filtered. Says in one line what is
/// in force.
pub fn seal() {
    let Some(confined) = CONFINED.get() else {
        tracing::info!("not confined: the sandbox is switched off");
        return;
    };
    let (backend, kept) = CAPTURE
        .get()
        .map_or((None, CapsHashSet::new()), |(backend, kept)| {
            (Some(*backend), kept.clone())
        });
    shed();
    let extra = seccomp::Extra {
        bpf: backend == Some(Backend::Ebpf),
        packet: backend == Some(Backend::Pcap),
    };
    if let Err(error) = seccomp::confine(extra) {
        tracing::warn!("system calls are not filtered: {error}");
    }
    let threads = settled(&confined.for_files, &kept);
    let layers = Layers {
        capabilities: !threads.is_empty() && greedy(&threads, &confined.for_files, &kept).is_none(),
        no_new_privs: !threads.is_empty() && threads.iter().all(|thread| thread.no_new_privs),
        landlock: confined.landlock.is_some(),
        seccomp: !threads.is_empty() && threads.iter().all(|thread| thread.filtered),
    };
    *LAYERS.lock().unwrap_or_else(PoisonError::into_inner) = layers;
    if let Some(thread) = greedy(&threads, &confined.for_files, &kept) {
        tracing::warn!(
            "the thread {} keeps capabilities that it does not need: {:#x}",
            thread.name,
            thread.permitted
        );
    }
    tracing::info!("confined: {}", in_words(layers, confined, &kept));
}

fn in_words(layers: Layers, confined: &Confined, kept: &CapsHashSet) -> String {
    let mut names = capabilities::names(&kept.difference(&confined.for_files).copied().collect());
    names.extend(confined.because.iter().cloned());
    let capabilities = match (layers.capabilities, names.is_empty()) {
        (false, _) => "more capabilities than needed".to_owned(),
        (true, true) => "no capabilities".to_owned(),
        (true, false) => format!("capabilities {}", names.join(", ")),
    };
    format!(
        "{capabilities}; {}; {}; {}",
        if layers.no_new_privs {
            "no new privileges"
        } else {
            "new privileges possible"
        },
        confined.landlock.map_or_else(
            || "files not confined (this kernel has no Landlock)".to_owned(),
            |version| format!("files by Landlock (version {version})")
        ),
        if layers.seccomp {
            "system calls filtered"
        } else {
            "system calls not filtered"
        },
    )
}

/// All threads, when those that have just begun have given up what they inherited.
fn settled(for_files: &CapsHashSet, kept: &CapsHashSet) -> Vec<Thread> {
    let begin = Instant::now();
    loop {
        let threads = threads::all();
        if greedy(&threads, for_files, kept).is_none() || begin.elapsed() > SHED_LIMIT {
            return threads;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A thread that has more than it needs.
fn greedy<'a>(
    threads: &'a [Thread],
    for_files: &CapsHashSet,
    kept: &CapsHashSet,
) -> Option<&'a Thread> {
    let bits = |set: &CapsHashSet| set.iter().fold(0, |bits, one| bits | one.bitmask());
    threads.iter().find(|thread| {
        let mut needed = bits(for_files);
        if thread.name == CAPTURE_THREAD {
            needed |= bits(kept);
        }
        thread.permitted & !needed != 0
    })
}

/// A path of a new configuration is out of reach.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutOfReach {
    /// To be read.
    #[error(
        "{0} can't be read: permission denied. The sandbox leaves the daemon what was configured when it started: \
         restart flowproof to take in files from another folder"
    )]
    Read(PathBuf),
    /// To be written.
    #[error(
        "`state_directory` is now {0}, and the sandbox lets the daemon write only where it did when it started: restart \
         flowproof to move it"
    )]
    Write(PathBuf),
}

/// Checks before a reload that what `config` names can be reached from within.
///
/// # Errors
/// [`OutOfReach`] names the first path that can't.
pub fn check(config: &Config, file: Option<&Path>) -> Result<(), OutOfReach> {
    let Some(confined) = CONFINED.get() else {
        return Ok(());
    };
    if confined.landlock.is_some() && config.state_directory != confined.state_directory {
        return Err(OutOfReach::Write(config.state_directory.clone()));
    }
    let denied = |path: &PathBuf| {
        fs::File::open(path)
            .is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
    };
    match needs::configured(config, file).into_iter().find(denied) {
        Some(path) => Err(OutOfReach::Read(path)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use caps::Capability;

    use super::*;

    #[test]
    fn a_thread_that_keeps_too_much_is_found() {
        let thread = |name: &str, capabilities: &[Capability]| Thread {
            name: name.to_owned(),
            permitted: capabilities
                .iter()
                .fold(0, |bits, one| bits | one.bitmask()),
            no_new_privs: true,
            filtered: true,
        };
        let (raw, read) = (Capability::CAP_NET_RAW, Capability::CAP_DAC_READ_SEARCH);
        let check = |threads: &[Thread], for_files: &[Capability], expect: Option<&str>| {
            let for_files = for_files.iter().copied().collect();
            let kept = CapsHashSet::from([raw]);
            let found = greedy(threads, &for_files, &kept);
            assert_eq!(found.map(|thread| thread.name.as_str()), expect);
        };
        check(&[thread("web", &[]), thread("capture", &[raw])], &[], None);
        check(
            &[thread("capture", &[]), thread("web", &[raw])],
            &[],
            Some("web"),
        );
        check(&[thread("capture", &[read])], &[], Some("capture"));
        check(
            &[thread("web", &[read]), thread("capture", &[raw, read])],
            &[read],
            None,
        );
    }

    #[test]
    fn without_a_sandbox_nothing_is_taken_away() {
        let before = capabilities::permitted();
        assert_eq!(bare(capabilities::permitted), before);
        shed();
        keep_for(Backend::Pcap);
        seal();
        assert_eq!(capabilities::permitted(), before);
        assert_eq!(layers(), Layers::default());
        assert_eq!(check(&Config::default(), None), Ok(()));
    }
}
