//! Makes symbol names independent of where the checkout lies and of cargo's version.
//!
//! Cargo hashes a dependency's absolute path into `-C metadata`, rustc puts that into every mangled symbol, and BPF
//! objects keep the symbols of the functions that are not inlined. So the same sources in two folders would give two
//! objects. While the kernel object is built, cargo calls this program in rustc's place (`RUSTC_WRAPPER`); it replaces
//! the hash by the crate's name and version, and becomes rustc.

use std::{
    env,
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode},
};

/// The variable that tells this program that cargo calls it in rustc's place.
const MARK: &str = "FLOWPROOF_XTASK_AS_RUSTC";

/// Has cargo call rustc through this program.
pub(super) fn install(cargo: &mut Command) -> std::io::Result<()> {
    cargo
        .env(MARK, "1")
        .env("RUSTC_WRAPPER", env::current_exe()?);
    Ok(())
}

/// Becomes rustc if cargo called this program in its place; returns only if not, or on failure.
pub(crate) fn run_if_asked() -> Option<ExitCode> {
    env::var_os(MARK)?;
    let mut arguments = env::args().skip(1);
    let rustc = arguments.next()?;
    let variable = |name| env::var(name).unwrap_or_default();
    let arguments = rename(
        arguments.collect(),
        &format!(
            "{}-{}-{}",
            variable("CARGO_PKG_NAME"),
            variable("CARGO_PKG_VERSION"),
            variable("CARGO_CRATE_NAME")
        ),
    );
    let error = Command::new(&rustc).args(arguments).exec();
    eprintln!("xtask: can't start {rustc}: {error}");
    Some(ExitCode::FAILURE)
}

/// Replaces the value of `-C metadata`, but only in calls that compile for the kernel: build scripts and macros run on
/// the host and leave nothing in the object.
fn rename(mut arguments: Vec<String>, name: &str) -> Vec<String> {
    let for_kernel = arguments
        .windows(2)
        .any(|pair| matches!(pair, [flag, value] if flag == "--target" && value == super::TARGET));
    if for_kernel {
        for argument in &mut arguments {
            for prefix in ["metadata=", "-Cmetadata="] {
                if argument.starts_with(prefix) {
                    *argument = format!("{prefix}{name}");
                }
            }
        }
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::rename;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn a_kernel_crate_is_named_by_its_package() {
        assert_eq!(
            rename(
                words(
                    "--crate-name x --target bpfel-unknown-none -C metadata=0a1b -C extra-filename=-0a1b"
                ),
                "p-1-x"
            ),
            words(
                "--crate-name x --target bpfel-unknown-none -C metadata=p-1-x -C extra-filename=-0a1b"
            ),
        );
    }

    #[test]
    fn a_host_crate_keeps_its_hash() {
        let call = words("--crate-name build_script_build -C metadata=0a1b");
        assert_eq!(rename(call.clone(), "p-1-x"), call);
    }
}
