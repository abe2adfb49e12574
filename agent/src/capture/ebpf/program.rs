//! The programs of the object by name, loaded once and shared by all interfaces. Those for devices without a link header
//! are loaded when there is one.

use aya::Ebpf;
use aya::maps::ProgramArray;
use aya::programs::SchedClassifier;

use super::super::CaptureError;
use super::{failed, missing, object};

/// Decides about silent flows; never attached.
pub(super) const DECIDE: &str = "fp_decide";
/// What those at the hooks go on to.
const OTHER: &str = "fp_other";
/// The programs that every capture needs, so that a kernel that refuses them is found at once.
const NEEDED: [&str; 4] = [OTHER, "fp_ingress", "fp_egress", DECIDE];

/// Hands the programs that are needed in any case to the verifier, and puts the one that others go on to in its place.
pub(super) fn load_needed(ebpf: &mut Ebpf) -> Result<(), CaptureError> {
    NEEDED
        .into_iter()
        .try_for_each(|name| loaded(ebpf, name).map(|_| ()))?;
    let action = "passing packets from one kernel program to the other";
    let other = loaded(ebpf, OTHER)?
        .fd()
        .and_then(|fd| Ok(fd.try_clone()?))
        .map_err(|error| failed(action, &error))?;
    let map = ebpf
        .map_mut("PROGRAMS")
        .ok_or_else(|| missing("PROGRAMS"))?;
    ProgramArray::try_from(map)
        .and_then(|mut programs| programs.set(0, &other, 0))
        .map_err(|error| failed(action, &error))
}

/// A program by name, loaded by now.
pub(super) fn loaded<'a>(
    ebpf: &'a mut Ebpf,
    name: &str,
) -> Result<&'a mut SchedClassifier, CaptureError> {
    let program = classifier(ebpf, name)?;
    if program.fd().is_err() {
        program.load().map_err(|error| {
            object::permission(&error)
                .unwrap_or_else(|| failed(&format!("loading the kernel program {name}"), &error))
        })?;
        let verified = program
            .info()
            .ok()
            .and_then(|info| info.verified_instruction_count());
        tracing::debug!(
            name,
            verified_instructions = verified,
            "kernel program loaded"
        );
    }
    Ok(program)
}

/// A program by name, loaded or not.
fn classifier<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier, CaptureError> {
    ebpf.program_mut(name)
        .and_then(|program| program.try_into().ok())
        .ok_or_else(|| CaptureError::Failed {
            action: format!("opening the kernel program {name}"),
            reason: "the kernel object has none; rebuild it with `cargo xtask ebpf`".to_owned(),
        })
}
