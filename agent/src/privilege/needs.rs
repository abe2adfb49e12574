//! What the daemon still needs once it watches, each with its reason: capabilities by back end, paths by configuration.
//! Whoever gives the daemon another file to read adds it here, in [`configured`]; another to write, in [`Needs::of`].

use std::fs;
use std::path::{Path, PathBuf};

use caps::{Capability, CapsHashSet};

use crate::capture::Backend;
use crate::capture::ebpf::OBJECT_VARIABLE;
use crate::config::{BackendChoice, Config, EventTarget};

/// Capabilities that the kernel programs need as long as the daemon runs: a reload makes maps (BPF), an interface that
/// appears is attached to (NET_ADMIN), and if it has no link header its programs are only then given to the verifier, which
/// takes their pointer arithmetic only from whom it trusts (PERFMON).
const EBPF: [Capability; 3] = [
    Capability::CAP_BPF,
    Capability::CAP_NET_ADMIN,
    Capability::CAP_PERFMON,
];
/// What libpcap needs: a packet socket for every interface that appears or comes back.
const PCAP: [Capability; 1] = [Capability::CAP_NET_RAW];
/// Ports below 1024 are bound before anything is attached.
const ONLY_TO_START: [Capability; 1] = [Capability::CAP_NET_BIND_SERVICE];
/// Reading and writing what permission bits deny. Kept only where a configured file can't be used otherwise.
pub(super) const FILES: [Capability; 2] = [
    Capability::CAP_DAC_READ_SEARCH,
    Capability::CAP_DAC_OVERRIDE,
];

/// What the system reads on our behalf, beyond /proc and /sys: names of hosts, and libraries that look them up.
const SYSTEM: [&str; 15] = [
    "/proc",
    "/sys",
    "/usr",
    "/lib",
    "/lib64",
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/gai.conf",
    "/etc/nsswitch.conf",
    "/etc/services",
    "/etc/ld.so.cache",
    // Authorities that receivers of events are verified by: Debian's and Fedora's.
    "/etc/ssl/certs",
    "/etc/pki/tls/certs",
    "/dev/urandom",
];

/// Capabilities that `backend` needs all the time. CAP_SYS_ADMIN stands for those that were split off from it, where a
/// container grants only that.
pub(super) fn of_backend(backend: Backend, have: &CapsHashSet) -> CapsHashSet {
    let needed: &[Capability] = match backend {
        Backend::Ebpf => &EBPF,
        Backend::Pcap => &PCAP,
        Backend::Replay => &[],
    };
    let mut needed: CapsHashSet = needed.iter().copied().collect();
    let split = [Capability::CAP_BPF, Capability::CAP_PERFMON];
    if backend == Backend::Ebpf && split.iter().any(|one| !have.contains(one)) {
        needed.insert(Capability::CAP_SYS_ADMIN);
    }
    needed
}

/// Capabilities until something is attached.
pub(super) fn to_start(have: &CapsHashSet) -> CapsHashSet {
    let mut needed = of_backend(Backend::Ebpf, have);
    needed.extend(PCAP);
    needed.extend(ONLY_TO_START);
    needed
}

/// Names of what `backend` needs and this thread does not have; empty if there is nothing to complain about.
#[must_use]
pub fn missing(backend: Backend) -> Vec<String> {
    let have = super::capabilities::effective();
    if backend == Backend::Ebpf && have.contains(&Capability::CAP_SYS_ADMIN) {
        return missing_of(&[Capability::CAP_NET_ADMIN], &have);
    }
    match backend {
        Backend::Ebpf => missing_of(&EBPF, &have),
        Backend::Pcap => missing_of(&PCAP, &have),
        Backend::Replay => Vec::new(),
    }
}

fn missing_of(needed: &[Capability], have: &CapsHashSet) -> Vec<String> {
    needed
        .iter()
        .filter(|one| !have.contains(one))
        .map(ToString::to_string)
        .collect()
}

/// Files and folders that `config`, read from `file`, has the daemon read, at every reload too.
pub(super) fn configured(config: &Config, file: Option<&Path>) -> Vec<PathBuf> {
    file.into_iter()
        .map(Path::to_owned)
        .chain(config.matrix.iter().cloned())
        .chain(config.site.clone())
        .chain(config.draft.iter().cloned())
        .chain(config.draft_site.clone())
        .chain(config.tags.paths.iter().cloned())
        .chain(config.web.config.clone())
        .chain(event_files(config))
        .chain(std::env::var_os(OBJECT_VARIABLE).map(PathBuf::from))
        .collect()
}

/// What sinks of events speak TLS with; read anew for each connection.
fn event_files(config: &Config) -> impl Iterator<Item = PathBuf> {
    let syslog = config.events.syslog.as_ref().map(|syslog| &syslog.tls);
    let otlp = config.events.otlp.as_ref().map(|otlp| &otlp.tls);
    syslog.into_iter().chain(otlp).flat_map(|tls| {
        let identity = tls.identity.iter();
        let own = identity.flat_map(|own| [own.certificate.clone(), own.key.clone()]);
        tls.ca.clone().into_iter().chain(own)
    })
}

/// Where the daemon reads and writes. Folders stand for all that is below them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Needs {
    /// Files and folders of the configuration, as they are written there.
    pub(super) configured: Vec<PathBuf>,
    /// Folders of these, and what else is read.
    pub(super) read: Vec<PathBuf>,
    /// What is written and read.
    pub(super) write: Vec<PathBuf>,
    /// The folder for pins, if kernel programs may be used.
    pub(super) pins: Option<PathBuf>,
}

impl Needs {
    /// Of a configuration that was read from `file`; `named` are files that other files of it name.
    pub(super) fn of(config: &Config, file: Option<&Path>, named: &[PathBuf]) -> Self {
        let mut configured = configured(config, file);
        configured.extend_from_slice(named);
        let mut read: Vec<PathBuf> = SYSTEM.iter().map(PathBuf::from).collect();
        read.extend(folder_of_target(Path::new("/etc/resolv.conf")));
        for path in &configured {
            read.extend(folders(path));
        }
        let mut write = vec![config.state_directory.clone(), PathBuf::from("/dev/null")];
        if let Some(EventTarget::File(path)) = config.events.json.as_ref().map(|json| &json.target)
        {
            write.push(existing(folder(path)));
        }
        let pcap_for_certain =
            config.capture.backend == BackendChoice::Pcap || config.capture.pcap.filter.is_some();
        let pins = (!pcap_for_certain).then(|| config.capture.ebpf.pin_directory.clone());
        read.dedup();
        Self {
            configured,
            read,
            write,
            pins,
        }
    }
}

/// What has to be readable for `path` to be: a folder as it is; of a file its folder, since whoever edits or distributes
/// files puts a new one in the place of the old one; and the same of what symbolic links in it lead to.
fn folders(path: &Path) -> Vec<PathBuf> {
    if !path.is_dir() {
        return std::iter::once(folder(path))
            .chain(folder_of_target(path))
            .collect();
    }
    let linked = fs::read_dir(path)
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_symlink()))
        .filter_map(|entry| folder_of_target(&entry.path()));
    std::iter::once(path.to_owned()).chain(linked).collect()
}

/// The folder of a file; the file itself if it is in the root folder, which would open everything, or is no ordinary file.
fn folder(path: &Path) -> PathBuf {
    let special = fs::metadata(path).is_ok_and(|data| !data.is_file());
    match path.parent() {
        Some(folder) if folder == Path::new("") => PathBuf::from("."),
        Some(folder) if folder != Path::new("/") && !special => folder.to_owned(),
        Some(_) | None => path.to_owned(),
    }
}

/// The folder, or what there is of its path: where a folder is made later, events go on, at the price of what lies beside it.
/// Not the root folder, which would open everything.
fn existing(folder: PathBuf) -> PathBuf {
    let found = folder
        .ancestors()
        .take_while(|path| *path != Path::new("/"))
        .map(|path| {
            if path == Path::new("") {
                Path::new(".")
            } else {
                path
            }
        })
        .find(|path| path.exists())
        .map(Path::to_owned);
    match found {
        Some(found) => {
            if found != folder {
                tracing::warn!(
                    "the folder {} is not there: until the next start, the sandbox lets all of {} be written; make the folder \
                     and restart flowproof",
                    folder.display(),
                    found.display()
                );
            }
            found
        }
        None => folder,
    }
}

/// The folder of what a symbolic link leads to in the end.
fn folder_of_target(path: &Path) -> Option<PathBuf> {
    fs::symlink_metadata(path)
        .is_ok_and(|data| data.is_symlink())
        .then(|| fs::canonicalize(path).ok())
        .flatten()
        .map(|target| folder(&target))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::config::JsonConfig;

    #[test]
    fn folders_are_read_so_that_a_file_can_be_replaced() {
        let lab = tempfile::tempdir().unwrap();
        let at = |path: &str| lab.path().join(path);
        for folder in ["rules", "elsewhere", "logs"] {
            fs::create_dir(at(folder)).unwrap();
        }
        for file in ["rules/a.yaml", "elsewhere/b.yaml", "site.yaml"] {
            fs::write(at(file), "").unwrap();
        }
        symlink(at("elsewhere/b.yaml"), at("rules/b.yaml")).unwrap();
        let mut config = Config {
            matrix: vec![at("rules")],
            site: Some(at("site.yaml")),
            ..Config::default()
        };
        config.events.json = Some(JsonConfig::to(EventTarget::File(at("logs/events.json"))));
        let needs = Needs::of(&config, Some(Path::new("flowproof.yaml")), &[]);
        let real = |path: &str| fs::canonicalize(at(path)).unwrap();
        for path in [
            at("rules"),
            real("elsewhere"),
            lab.path().to_owned(),
            ".".into(),
        ] {
            assert!(needs.read.contains(&path), "{}", path.display());
        }
        assert!(needs.write.contains(&config.state_directory));
        assert!(needs.write.contains(&at("logs")));
        // One that is made later.
        config.events.json = Some(JsonConfig::to(EventTarget::File(at("logs/a/b/events"))));
        assert!(Needs::of(&config, None, &[]).write.contains(&at("logs")));
        assert_eq!(
            needs.pins.as_ref(),
            Some(&config.capture.ebpf.pin_directory)
        );
        config.capture.backend = BackendChoice::Pcap;
        assert_eq!(Needs::of(&config, None, &[]).pins, None);
    }

    #[test]
    fn the_root_folder_is_never_opened() {
        assert_eq!(folder(Path::new("/matrix.yaml")), Path::new("/matrix.yaml"));
        assert_eq!(folder(Path::new("/dev/null")), Path::new("/dev/null"));
        assert_eq!(folder(Path::new("matrix.yaml")), Path::new("."));
        let absent = Path::new("/flowproof-absent/events");
        assert_eq!(existing(absent.to_owned()), absent);
    }

    #[test]
    fn one_capability_for_all_is_taken_where_the_others_are_not_there() {
        let all = CapsHashSet::from_iter(EBPF);
        let check = |have: &CapsHashSet, expect: bool| {
            let kept = of_backend(Backend::Ebpf, have);
            assert_eq!(
                kept.contains(&Capability::CAP_SYS_ADMIN),
                expect,
                "{have:?}"
            );
        };
        check(&all, false);
        check(&CapsHashSet::from([Capability::CAP_SYS_ADMIN]), true);
        assert_eq!(
            of_backend(Backend::Pcap, &CapsHashSet::new()),
            CapsHashSet::from(PCAP)
        );
        assert!(to_start(&all).contains(&Capability::CAP_NET_BIND_SERVICE));
    }
}
