//! Where files name service tags, so that a tag which no provider's file has can be shown in its place.

use std::sync::Arc;

use super::SystemIndex;
use super::binding::Binding;
use crate::yaml::{Source, Span};

/// Who names a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UsedBy {
    /// A site file binds a role to it: without it the role is not recognized.
    Site,
    /// A rule pack names it, mostly beside DNS names.
    Pack,
}

/// A place that names a tag.
#[derive(Debug, Clone)]
pub struct TagUse {
    /// The name of the tag as it is written there.
    pub tag: String,
    /// Who names it.
    pub by: UsedBy,
    /// The system whose role it stands for.
    pub system: SystemIndex,
    pub(crate) source: Arc<Source>,
    pub(crate) span: Span,
}

impl TagUse {
    /// Those among the bindings of a role.
    pub(crate) fn among<'a>(
        bindings: &'a [(Binding, Span)],
        by: UsedBy,
        system: SystemIndex,
        source: &'a Arc<Source>,
    ) -> impl Iterator<Item = Self> + 'a {
        bindings.iter().filter_map(move |(binding, span)| {
            let Binding::Tag(tag) = binding else {
                return None;
            };
            Some(Self {
                tag: tag.clone(),
                by,
                system,
                source: Arc::clone(source),
                span: *span,
            })
        })
    }
}
