//! Capabilities, which the kernel keeps by thread: what a thread starts with is what its maker had. So they are lowered
//! before there are other threads, and those that get one by one are counted afterwards (`threads`).

use std::path::{Path, PathBuf};

use caps::errors::CapsError;
use caps::{CapSet, Capability, CapsHashSet};
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{AccessFlags, faccessat};

use super::needs::{FILES, Needs};

/// What this thread may use; nothing if the kernel won't tell.
pub(super) fn effective() -> CapsHashSet {
    caps::read(None, CapSet::Effective).unwrap_or_default()
}

/// What this thread has.
pub(super) fn permitted() -> CapsHashSet {
    caps::read(None, CapSet::Permitted).unwrap_or_default()
}

/// Takes from this thread all but `keep`, for ever.
pub(super) fn limit(keep: &CapsHashSet) -> Result<(), CapsError> {
    let have = permitted();
    if have.is_subset(keep) {
        return Ok(());
    }
    let kept = have.intersection(keep).copied().collect();
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)
}

/// Takes away what a program that this one becomes, or starts, could have: nothing is inherited, nothing is added. Without
/// CAP_SETPCAP the bounding set stays, which adds nothing where no new privileges are to be had.
pub(super) fn let_nothing_be_inherited() -> Result<(), CapsError> {
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Inheritable)?;
    if effective().contains(&Capability::CAP_SETPCAP) {
        caps::clear(None, CapSet::Bounding)?;
    }
    Ok(())
}

/// The capabilities of [`FILES`] without which some configured file can't be used, and the first such file of each.
pub(super) fn for_files(needs: &Needs) -> Vec<(Capability, PathBuf)> {
    let have = permitted();
    if FILES.iter().all(|one| !have.contains(one)) {
        return Vec::new();
    }
    // Another thread, since what is given up does not come back.
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                limit(&CapsHashSet::new()).ok()?;
                let read = needs
                    .configured
                    .iter()
                    .find_map(|path| denied(path, AccessFlags::R_OK));
                let write = needs
                    .write
                    .iter()
                    .chain(&needs.pins)
                    .find_map(|path| denied(path, AccessFlags::R_OK | AccessFlags::W_OK));
                let found = [
                    (Capability::CAP_DAC_READ_SEARCH, read),
                    (Capability::CAP_DAC_OVERRIDE, write),
                ];
                Some(
                    found
                        .into_iter()
                        .filter_map(|(capability, path)| Some((capability, path?)))
                        .collect(),
                )
            })
            .join()
            .ok()
            .flatten()
            .unwrap_or_default()
    })
}

/// `path`, or what is directly in it, if this thread is denied it by permission bits. What is not there is not denied.
fn denied(path: &Path, access: AccessFlags) -> Option<PathBuf> {
    let denied = |path: &Path, access| {
        matches!(
            faccessat(AT_FDCWD, path, access, AtFlags::AT_EACCESS),
            Err(nix::errno::Errno::EACCES)
        )
    };
    if !path.is_dir() {
        return denied(path, access).then(|| path.to_owned());
    }
    if denied(path, access | AccessFlags::X_OK) {
        return Some(path.to_owned());
    }
    std::fs::read_dir(path)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(|entry| denied(entry, access))
}

/// The names, in a stable order.
pub(super) fn names(capabilities: &CapsHashSet) -> Vec<String> {
    let mut names: Vec<String> = capabilities.iter().map(ToString::to_string).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, chown};

    use super::*;

    #[test]
    fn a_thread_gives_up_what_it_does_not_keep() {
        let before = permitted();
        let keep = CapsHashSet::from([Capability::CAP_NET_RAW]);
        let after = std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    let_nothing_be_inherited().unwrap();
                    limit(&keep).unwrap();
                    // What is given up does not come back.
                    assert!(caps::set(None, CapSet::Permitted, &caps::all()).is_err());
                    assert_eq!(effective(), permitted());
                    std::thread::spawn(permitted).join().unwrap()
                })
                .join()
                .unwrap()
        });
        assert_eq!(after, before.intersection(&keep).copied().collect());
        assert_eq!(permitted(), before, "another thread's were taken");
    }

    #[test]
    fn files_of_others_are_told_from_files_that_root_owns() {
        let name = "files_of_others_are_told_from_files_that_root_owns";
        if !nix::unistd::geteuid().is_root() {
            flowproof_tests::skip::skip(name, "giving a file away needs root");
            return;
        }
        let lab = tempfile::tempdir().unwrap();
        let at = |path: &str| lab.path().join(path);
        for (file, mode) in [("own", 0o600), ("open", 0o644), ("private", 0o600)] {
            fs::write(at(file), "").unwrap();
            fs::set_permissions(at(file), fs::Permissions::from_mode(mode)).unwrap();
        }
        for path in ["open", "private"] {
            chown(at(path), Some(65534), Some(65534)).unwrap();
        }
        let check = |read: &[&str], write: &[&str], expect: &[(Capability, &str)]| {
            let paths = |paths: &[&str]| paths.iter().map(|path| at(path)).collect();
            let needs = Needs {
                configured: paths(read),
                write: paths(write),
                ..Needs::default()
            };
            let expect: Vec<_> = expect
                .iter()
                .map(|(capability, path)| (*capability, at(path)))
                .collect();
            assert_eq!(for_files(&needs), expect);
        };
        check(&["own", "open", "absent"], &["own", "absent"], &[]);
        let read = (Capability::CAP_DAC_READ_SEARCH, "private");
        check(&["own", "private"], &[], &[read]);
        check(&[], &["open"], &[(Capability::CAP_DAC_OVERRIDE, "open")]);
        // One of the files in a folder.
        check(&[""], &[], &[read]);
    }
}
