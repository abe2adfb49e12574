//! A real receiver of OTLP for the labs of events: rotel, an OpenTelemetry collector that its authors ship as one program
//! in a Python package. Debian has no collector, and the reference one is published where a package manager does not
//! reach. The package is only a container here: it is downloaded by pip, checked against its digest, and unpacked.

use std::{env::consts::ARCH, fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::{
    apt::{self, Need},
    shell::{run, say, target},
};

const VERSION: &str = "0.0.1a15";
/// Digests of the packages by architecture.
const DIGESTS: [(&str, &str); 2] = [
    (
        "x86_64",
        "2f4117e58410c933e0dc042a268ef738dab2e3a5d63b5831209acdac2a6ddcb7",
    ),
    (
        "aarch64",
        "4eb01f9e5d228e4086f63e16cf1d0fa6e92b724bde51f120932a742acec5b0ba",
    ),
];

/// Where the labs look for it: `flowproof_tests::receivers` has the same path.
fn folder() -> PathBuf {
    target().join("collector")
}

/// Brings the collector into the target folder, if it is not there.
///
/// # Errors
/// It can't be had here; the labs that need it are skipped then.
pub(crate) fn ensure() -> Result<()> {
    let folder = folder();
    let stamp = folder.join("version");
    if fs::read_to_string(&stamp).is_ok_and(|version| version == VERSION) {
        return Ok(());
    }
    let Some((_, digest)) = DIGESTS.iter().find(|(name, _)| *name == ARCH) else {
        bail!("there is no package of the collector for {ARCH}");
    };
    apt::ensure(&[
        Need::program("python3", "python3"),
        Need::program("pip3", "python3-pip"),
    ])?;
    say(format!(
        "downloading a collector for the labs: rotel {VERSION}"
    ));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).with_context(|| format!("can't make {}", folder.display()))?;
    let wanted = folder.join("requirements.txt");
    fs::write(
        &wanted,
        format!("rotel=={VERSION} --hash=sha256:{digest}\n"),
    )?;
    // Which Python is here does not matter, since none runs it.
    let platform = format!("manylinux_2_34_{ARCH}");
    run(Command::new("pip3")
        .args(["download", "--quiet", "--no-deps", "--require-hashes"])
        .args(["--only-binary=:all:", "--implementation", "cp"])
        .args(["--python-version", "3.11", "--abi", "cp311"])
        .args(["--platform", &platform, "--dest"])
        .arg(&folder)
        .arg("-r")
        .arg(&wanted))?;
    let package = folder.join(format!(
        "rotel-{VERSION}-cp311-cp311-manylinux_2_34_{ARCH}.whl"
    ));
    run(Command::new("python3")
        .args(["-m", "zipfile", "-e"])
        .arg(&package)
        .arg(&folder))?;
    fs::remove_file(&package)?;
    let program = folder.join("rotel/rotel-agent");
    let mut mode = fs::metadata(&program)
        .with_context(|| format!("no {}", program.display()))?
        .permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut mode, 0o755);
    fs::set_permissions(&program, mode)?;
    fs::write(stamp, VERSION)?;
    Ok(())
}
