//! Landlock: which files the daemon can reach at all, whoever it runs as. Rules hold for folders and what is below them, as
//! they are now; a folder that is replaced by another is out of reach until the next start.

use std::path::Path;

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, LandlockStatus, PathBeneath, PathFd, Ruleset,
    RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope,
};

use super::needs::Needs;

/// What is known of Landlock here; of older kernels the crate takes what they have.
const KNOWN: ABI = ABI::V6;

/// Confines this thread, and all that it starts, to what is needed: files are read where they are configured, written where
/// something is kept, and executed nowhere; processes outside get no signals. Returns the kernel's version of Landlock, none if
/// it has none.
pub(super) fn confine(needs: &Needs) -> Result<Option<i32>, RulesetError> {
    let all = AccessFs::from_all(KNOWN);
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let keep = read
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir;
    let mut rules = Ruleset::default()
        .handle_access(all)?
        .scope(Scope::from_all(KNOWN))?
        .create()?;
    for path in &needs.read {
        rules = allow(rules, path, read)?;
    }
    for path in needs.write.iter().chain(&needs.pins) {
        rules = allow(rules, path, keep)?;
    }
    // Empty folders for pins are taken away at the end, the topmost among them.
    if let Some(parent) = needs.pins.as_deref().and_then(Path::parent) {
        rules = allow(rules, parent, AccessFs::RemoveDir.into())?;
    }
    let status = rules.restrict_self()?;
    Ok(match (status.ruleset, status.landlock) {
        (
            RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced,
            LandlockStatus::Available {
                effective_abi,
                kernel_abi,
            },
        ) => Some(kernel_abi.unwrap_or(effective_abi as i32)),
        _ => None,
    })
}

/// Adds a rule; none for a path that is not there, or is none of a file system (a pipe by way of /proc), which needs none.
fn allow(
    rules: RulesetCreated,
    path: &Path,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, RulesetError> {
    let Ok(metadata) = path.metadata() else {
        return Ok(rules);
    };
    let Ok(opened) = PathFd::new(path) else {
        return Ok(rules);
    };
    let access = if metadata.is_dir() {
        access
    } else {
        access & AccessFs::from_file(KNOWN)
    };
    rules.add_rule(PathBeneath::new(opened, access))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::ErrorKind;
    use std::process::Command;

    use super::*;

    #[test]
    fn only_what_is_needed_can_be_reached() {
        let lab = tempfile::tempdir().unwrap();
        let at = |path: &str| lab.path().join(path);
        for folder in ["rules", "state", "other"] {
            fs::create_dir(at(folder)).unwrap();
            fs::write(at(folder).join("file"), "text").unwrap();
        }
        let needs = Needs {
            read: vec![at("rules"), at("absent"), "/proc".into()],
            write: vec![at("state"), "/dev/null".into()],
            ..Needs::default()
        };
        // A thread of its own, which takes the confinement with it.
        let confined = std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    nix::sys::prctl::set_no_new_privs().unwrap();
                    let version = confine(&needs).unwrap();
                    if version.is_none() {
                        return false;
                    }
                    let denied = |result: std::io::Result<()>| {
                        assert_eq!(result.unwrap_err().kind(), ErrorKind::PermissionDenied);
                    };
                    let read = |path: &str| fs::read(at(path)).map(drop);
                    read("rules/file").unwrap();
                    fs::read("/proc/self/status").unwrap();
                    denied(fs::write(at("rules/file"), "no"));
                    denied(read("other/file"));
                    denied(fs::read("/etc/passwd").map(drop));
                    fs::write(at("state/new"), "text").unwrap();
                    fs::rename(at("state/new"), at("state/file")).unwrap();
                    fs::create_dir(at("state/tags")).unwrap();
                    fs::write(at("state/tags/new"), "text").unwrap();
                    fs::remove_dir_all(at("state/tags")).unwrap();
                    fs::write("/dev/null", "text").unwrap();
                    denied(fs::write(at("other/new"), ""));
                    denied(fs::remove_file(at("rules/file")));
                    // Nothing may be executed, what can be read included.
                    let program = Command::new("/proc/self/exe").arg("--list").spawn();
                    denied(program.map(drop));
                    true
                })
                .join()
                .unwrap()
        });
        if !confined {
            flowproof_tests::skip::skip(
                "only_what_is_needed_can_be_reached",
                "this kernel has no Landlock",
            );
        }
        fs::read(at("other/file")).unwrap();
    }
}
