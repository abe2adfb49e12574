//! The programs of the object by name, loaded once and shared by all interfaces.

use aya::Ebpf;
use aya::programs::SchedClassifier;

use super::super::CaptureError;
use super::{failed, object};

/// Decides about silent flows; never attached.
pub(super) const DECIDE: &str = "fp_decide";
/// All programs.
const ALL: [&str; 5] = [
    "fp_ingress",
    "fp_egress",
    "fp_ingress_l3",
    "fp_egress_l3",
    DECIDE,
];

/// Hands every program to the verifier.
pub(super) fn load_all(ebpf: &mut Ebpf) -> Result<(), CaptureError> {
    for name in ALL {
        let program = classifier(ebpf, name)?;
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
    Ok(())
}

/// A program by name.
pub(super) fn classifier<'a>(
    ebpf: &'a mut Ebpf,
    name: &str,
) -> Result<&'a mut SchedClassifier, CaptureError> {
    ebpf.program_mut(name)
        .and_then(|program| program.try_into().ok())
        .ok_or_else(|| CaptureError::Failed {
            action: format!("opening the kernel program {name}"),
            reason: "the kernel object has none; rebuild it with `cargo xtask ebpf`".to_owned(),
        })
}
