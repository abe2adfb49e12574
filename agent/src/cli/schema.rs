//! `flowproof schema`: the JSON Schema of the files that people write, for editors and for checks without flowproof,
//! and of the events that programs read.

use clap::ValueEnum;
use schemars::Schema;

use super::{Error, Outcome, print};

/// Arguments of `flowproof schema`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Which kind of file, or of what the daemon writes
    kind: Kind,
}

/// The kinds of file that have a schema. A further kind is a variant here and a line in [`Kind::schema`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Requirements of one system: a rule pack
    Matrix,
    /// Deployed systems and what their roles stand for
    Site,
    /// How `flowproof run` watches, judges and reports
    Config,
    /// What happened: a line of `flowproof run --events`
    Event,
    /// Who may ask the web server: `flowproof run --web-config`
    Web,
}

impl Kind {
    fn schema(self) -> Schema {
        match self {
            Self::Matrix => crate::matrix::schema::schema(),
            Self::Site => crate::site::schema::schema(),
            Self::Config => crate::config::schema::schema(),
            Self::Event => crate::events::schema(),
            Self::Web => crate::web::config::schema::schema(),
        }
    }

    fn text(self) -> String {
        format!("{:#}\n", self.schema().as_value())
    }
}

/// Prints the schema.
pub(super) fn run(arguments: &Arguments) -> Result<Outcome, Error> {
    let text = arguments.kind.text();
    print(|out| out.write_all(text.as_bytes()))?;
    Ok(Outcome::Fine)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn published_schemas_are_the_generated_ones() {
        for kind in Kind::value_variants() {
            let name = kind.to_possible_value().unwrap().get_name().to_owned();
            let path =
                Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../rules/{name}.schema.json"));
            let published = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(
                published == kind.text(),
                "rules/{name}.schema.json is out of date: run `flowproof schema {name} > rules/{name}.schema.json`"
            );
        }
    }
}
