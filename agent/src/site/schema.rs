//! The published shape of a site file, for the JSON Schema that editors use.
#![expect(dead_code, reason = "the types are never built, only described")]

use std::collections::BTreeMap;

use schemars::JsonSchema;

use crate::matrix::schema::{BindingText, Id, Text};

/// A role of a system: `system/role`.
#[derive(JsonSchema)]
pub(crate) struct RoleKey(
    #[schemars(regex(pattern = r"^[a-z0-9-]{1,128}/[a-z0-9-]{1,128}$"))] String,
);

/// An address or a prefix.
#[derive(JsonSchema)]
pub(crate) struct PrefixText(#[schemars(length(min = 1))] String);

/// Which systems are deployed at a site, and what their roles stand for there.
#[derive(JsonSchema)]
#[schemars(title = "flowproof site", deny_unknown_fields)]
pub(crate) struct SiteFile {
    /// The name of the site.
    site: Text,
    /// The ids of the systems that are deployed.
    systems: Vec<Id>,
    /// What the roles stand for.
    roles: Option<BTreeMap<RoleKey, Option<Vec<BindingText>>>>,
    /// The addresses and prefixes whose traffic the agent can see.
    observe: Option<Vec<PrefixText>>,
}

/// The JSON Schema of site files.
#[must_use]
pub fn schema() -> schemars::Schema {
    schemars::schema_for!(SiteFile)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::read::SITE;
    use super::*;

    #[test]
    fn schema_and_reader_know_the_same_keys() {
        let schema = schema();
        let schema = schema.as_value();
        let properties: BTreeSet<&str> = schema["properties"]
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!(properties, SITE.all().collect());
        let required: BTreeSet<&str> = schema["required"]
            .as_array()
            .unwrap()
            .iter()
            .map(|key| key.as_str().unwrap())
            .collect();
        assert_eq!(required, SITE.required.iter().copied().collect());
        assert_eq!(schema["additionalProperties"], false);
    }
}
