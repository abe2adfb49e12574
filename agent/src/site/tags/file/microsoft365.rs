//! The endpoints of Microsoft 365, as its web service gives them: a list of endpoint sets, each with names or prefixes
//! or both. The tags are `M365` (all of them), `M365.AREA`, `M365.AREA.CATEGORY` and `M365.ID`, where area, category and
//! id are those of the file: `M365.Exchange`, `M365.Exchange.Optimize`, `M365.1`.

use serde::Deserialize;

use super::{Collector, Text};

/// One endpoint set.
#[derive(Deserialize)]
pub(super) struct Set<'a> {
    id: u64,
    #[serde(borrow, rename = "serviceArea")]
    service_area: Text<'a>,
    #[serde(borrow)]
    category: Option<Text<'a>>,
    #[serde(borrow, default)]
    ips: Vec<Text<'a>>,
    #[serde(borrow, default)]
    urls: Vec<Text<'a>>,
}

pub(super) fn read(sets: Vec<Set<'_>>, into: &mut Collector<'_>) -> Option<()> {
    for set in sets {
        let area = set.service_area.0;
        let mut names = vec![
            "M365".to_owned(),
            format!("M365.{area}"),
            format!("M365.{}", set.id),
        ];
        if let Some(category) = set.category {
            names.push(format!("M365.{area}.{}", category.0));
        }
        let keys: Vec<String> = names
            .iter()
            .filter_map(|name| into.tag(name, &area))
            .collect();
        let within = format!(" (in the endpoint set {})", set.id);
        for prefix in set.ips {
            into.prefix(&prefix.0, &keys, &within)?;
        }
        for name in set.urls {
            into.name(&name.0, &keys, &within)?;
        }
    }
    Some(())
}
