//! The published shape of a matrix file. These types exist only for the JSON Schema that editors use; `read` takes the
//! files apart itself, because it must report every error. A test holds the keys of both to each other.
#![expect(dead_code, reason = "the types are never built, only described")]

use std::collections::BTreeMap;

use schemars::JsonSchema;

/// Text. Numbers and truth values are taken as they are written.
#[derive(JsonSchema)]
#[serde(untagged)]
pub(crate) enum Text {
    /// Words.
    Words(#[schemars(length(min = 1))] String),
    /// A number, as text.
    Number(f64),
    /// A truth value, as text.
    Truth(bool),
}

/// An id: lower-case letters, digits and `-`.
#[derive(JsonSchema)]
pub(crate) struct Id(#[schemars(regex(pattern = r"^[a-z0-9-]{1,128}$"))] String);

/// A role that the system declares, or `localhost`, `broadcast`, `any`, `unknown`.
#[derive(JsonSchema)]
pub(crate) struct RoleName(#[schemars(regex(pattern = r"^[a-z0-9-]{1,128}$"))] String);

/// A protocol with the responder's port or ports: `tcp/443`, `udp/49152-65535`, `icmp`, `icmp/8` (a type), `icmpv6`,
/// `vrrp`, `sctp/5060`, `gre`, or an IP protocol number.
#[derive(JsonSchema)]
#[serde(untagged)]
pub(crate) enum ServiceText {
    /// The service as text.
    Text(#[schemars(regex(pattern = r"^[A-Za-z0-9]+(/[0-9]+(-[0-9]+)?)?$"))] String),
    /// An IP protocol number.
    Number(u8),
}

/// An address, a prefix, a DNS name (`*` is a wildcard), or a service tag `tag:Name`.
#[derive(JsonSchema)]
pub(crate) struct BindingText(#[schemars(length(min = 1))] String);

/// One vendor product: its roles, and who must reach whom on which port.
#[derive(JsonSchema)]
#[schemars(title = "flowproof matrix", deny_unknown_fields)]
pub(crate) struct MatrixFile {
    /// The id of the system, unique among all files of a site.
    system: Id,
    /// The name of the product.
    title: Text,
    /// The version of the product.
    version: Option<Text>,
    /// The document that the file was made from.
    document: Option<DocumentFields>,
    /// The roles by their ids.
    roles: Option<BTreeMap<Id, Option<RoleFields>>>,
    /// The rows of the matrix.
    requirements: Vec<RequirementFields>,
}

/// The document that a matrix was made from.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct DocumentFields {
    /// Its title.
    title: Text,
    /// The name of the file.
    file: Option<Text>,
}

/// A class of endpoints.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct RoleFields {
    /// The name that the document prints.
    title: Option<Text>,
    /// Endpoints that are the same at every site. A role with names needs no binding.
    names: Option<Vec<BindingText>>,
}

/// One row of the matrix.
#[derive(JsonSchema)]
#[schemars(
    deny_unknown_fields,
    extend(
        "if" = {"properties": {"necessity": {"const": "conditional"}}, "required": ["necessity"]},
        "then" = {"required": ["condition"]}
    )
)]
pub(crate) struct RequirementFields {
    /// The id of the requirement, unique in the file.
    id: Id,
    /// The end that the row is about.
    from: RoleName,
    /// The other end.
    to: RoleName,
    /// Protocols and ports of the responder. An empty list where the document names none.
    services: Vec<ServiceText>,
    /// Who initiates; `outbound` where it is missing.
    direction: Option<DirectionName>,
    /// Whether the product works without it; `required` where it is missing.
    necessity: Option<NecessityName>,
    /// When a conditional requirement is required.
    condition: Option<Text>,
    /// The application protocol, where the document names it.
    application: Option<Text>,
    /// What it is for.
    purpose: Option<Text>,
    /// Where it stands in the document.
    provenance: Option<ProvenanceFields>,
    /// What could not be made out in the document.
    doubts: Option<Vec<Text>>,
}

/// Who initiates.
#[derive(JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DirectionName {
    /// `from` initiates; the port is `to`'s.
    Outbound,
    /// `to` initiates; the port is `from`'s.
    Inbound,
    /// Either initiates, to the port on the other.
    Both,
}

/// Whether the product works without the requirement.
#[derive(JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum NecessityName {
    /// The product does not work without it.
    Required,
    /// The product works without it.
    Optional,
    /// Required if `condition` holds.
    Conditional,
}

/// Where in the document a requirement stands.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct ProvenanceFields {
    /// The heading of the table.
    section: Text,
    /// The row of the table.
    row: u32,
}

/// The JSON Schema of matrix files.
#[must_use]
pub fn schema() -> schemars::Schema {
    schemars::schema_for!(MatrixFile)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::read;
    use super::*;
    use crate::yaml::Keys;

    fn check<T: JsonSchema>(keys: Keys) {
        let schema = schemars::schema_for!(T);
        let schema = schema.as_value();
        let properties: BTreeSet<&str> = schema["properties"]
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!(properties, keys.all().collect());
        let required: BTreeSet<&str> = schema
            .get("required")
            .map(|list| {
                list.as_array()
                    .unwrap()
                    .iter()
                    .map(|key| key.as_str().unwrap())
                    .collect()
            })
            .unwrap_or_default();
        assert_eq!(required, keys.required.iter().copied().collect());
        assert_eq!(schema["additionalProperties"], false);
    }

    #[test]
    fn schema_and_reader_know_the_same_keys() {
        check::<MatrixFile>(read::SYSTEM);
        check::<DocumentFields>(read::DOCUMENT);
        check::<RoleFields>(read::ROLE);
        check::<RequirementFields>(read::REQUIREMENT);
        check::<ProvenanceFields>(read::PROVENANCE);
    }
}
