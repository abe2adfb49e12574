//! `flowproof import` and `flowproof report --matrix`: on sheets that the tests write, on hostile input, and on vendors'
//! documents if they are at hand.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests")]
#![expect(
    clippy::print_stdout,
    reason = "the comparison with the packs prints its score"
)]

mod bad_input;
mod documents;
mod formats;
mod losslessness;
mod round_trip;
mod vendors;

use std::process::{Command, Output};

use flowproof::import::{Draft, Imported, Input, Options, import};

/// Imports a text under a file name.
fn draft(name: &str, bytes: impl Into<Vec<u8>>) -> Draft {
    let input = Input {
        name: name.to_owned(),
        bytes: bytes.into(),
    };
    match import(&[input], &Options::default()).unwrap() {
        Imported::Draft(draft) => *draft,
        Imported::Matrix(_) => panic!("{name} was taken for a matrix sheet"),
    }
}

/// Requirements of a draft in short: `from title > to title services direction`.
fn short(draft: &Draft) -> Vec<String> {
    let reading = flowproof::matrix::Matrix::read_text("draft.yaml", &draft.to_yaml());
    assert!(
        !reading.findings.has_errors(),
        "{:?}\n{}",
        reading.findings,
        draft.to_yaml()
    );
    let system = &reading.matrix.systems[0];
    let title = |role| match role {
        flowproof::matrix::RoleRef::Declared(index) => system.role(index).title.clone().unwrap(),
        flowproof::matrix::RoleRef::BuiltIn(role) => format!("={}", role.id()),
    };
    system
        .requirements
        .iter()
        .map(|requirement| {
            let services: Vec<String> = requirement
                .services
                .iter()
                .map(ToString::to_string)
                .collect();
            format!(
                "{} > {} {} {}",
                title(requirement.from),
                title(requirement.to),
                services.join(" "),
                requirement.direction.as_str()
            )
        })
        .collect()
}

fn flowproof(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_flowproof"))
        .args(arguments)
        .output()
        .unwrap()
}
