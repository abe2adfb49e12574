//! Doing work in another network namespace. A namespace is a thread's own, so the work gets a thread made for it, and
//! everything that it opens belongs to the namespace.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::thread;

use nix::sched::{CloneFlags, setns};

use super::{ProbeError, system};

/// Where `ip netns` keeps namespaces with a name.
const NAMED: &str = "/run/netns";

/// The file of a namespace: a path has a `/`, all else is a name of `ip netns`.
#[must_use]
pub fn path(text: &str) -> PathBuf {
    if text.contains('/') {
        PathBuf::from(text)
    } else {
        Path::new(NAMED).join(text)
    }
}

/// The `resolv.conf` that `ip netns exec` shows in a namespace with a name, if there is one.
#[must_use]
pub fn resolv_conf(text: &str) -> Option<PathBuf> {
    if text.contains('/') {
        return None;
    }
    let path = Path::new("/etc/netns").join(text).join("resolv.conf");
    path.exists().then_some(path)
}

/// Does `work` in the namespace of this file, or where we are.
///
/// # Errors
/// The namespace can't be opened or entered.
///
/// # Panics
/// When `work` does.
pub fn inside<T: Send>(
    namespace: Option<&Path>,
    work: impl FnOnce() -> T + Send,
) -> Result<T, ProbeError> {
    let Some(path) = namespace else {
        return Ok(work());
    };
    let file = File::open(path).map_err(|source| ProbeError::NoNamespace {
        path: path.to_owned(),
        source,
    })?;
    thread::scope(|scope| {
        thread::Builder::new()
            .name("probe".to_owned())
            .spawn_scoped(scope, || {
                setns(file.as_fd(), CloneFlags::CLONE_NEWNET).map_err(|source| {
                    ProbeError::Namespace {
                        path: path.to_owned(),
                        source,
                    }
                })?;
                Ok(work())
            })
            .map_err(system("starting a thread"))?
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_named_by_path_or_name() {
        assert_eq!(path("blue"), Path::new("/run/netns/blue"));
        assert_eq!(path("/proc/1/ns/net"), Path::new("/proc/1/ns/net"));
        assert_eq!(path("./here"), Path::new("./here"));
    }

    #[test]
    fn what_is_no_namespace_is_named_in_the_error() {
        let error = inside(Some(Path::new("/nowhere/blue")), || ()).unwrap_err();
        assert!(error.to_string().starts_with("/nowhere/blue: "), "{error}");
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = inside(Some(file.path()), || ()).unwrap_err();
        assert!(error.to_string().contains("CAP_SYS_ADMIN"), "{error}");
    }
}
