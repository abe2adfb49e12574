//! Azure's `ServiceTags_Public_*.json`, and those of its other clouds: one object a tag. Regional tags are tags of their
//! own (`Storage.WestEurope`), so names are taken as they are.

use serde::Deserialize;

use super::{Collector, Text};

/// One tag.
#[derive(Deserialize)]
pub(super) struct Value<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow)]
    properties: Properties<'a>,
}

#[derive(Deserialize)]
struct Properties<'a> {
    #[serde(borrow, rename = "addressPrefixes")]
    address_prefixes: Vec<Text<'a>>,
}

pub(super) fn read(values: Vec<Value<'_>>, into: &mut Collector<'_>) -> Option<()> {
    for value in values {
        let name = value.name.0;
        let Some(key) = into.tag(&name, &name) else {
            continue;
        };
        let within = format!(" (in the tag `{name}`)");
        for prefix in value.properties.address_prefixes {
            into.prefix(&prefix.0, std::slice::from_ref(&key), &within)?;
        }
    }
    Some(())
}
