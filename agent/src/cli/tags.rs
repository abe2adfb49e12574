//! The flags that name service tags, for the verbs that read a site without being the daemon. They only look at its
//! last good copies.

use std::path::PathBuf;

use crate::site::tags::TagOptions;

/// Where service tags come from.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct TagArguments {
    /// Service tags, repeatable: a provider's file, or a folder of them (*.json, *.txt)
    #[arg(long, value_name = "PATH")]
    tags: Vec<PathBuf>,
    /// The daemon's state directory: tag files are held against their last good copies in it
    #[arg(long, value_name = "FOLDER", requires = "tags")]
    state_dir: Option<PathBuf>,
    /// Take tag files that shrank by more than half
    #[arg(long, requires = "state_dir")]
    accept_shrunk_tags: bool,
}

impl TagArguments {
    pub(super) fn options(&self) -> TagOptions {
        TagOptions {
            paths: self.tags.clone(),
            state_directory: self.state_dir.clone(),
            accept_shrunk: self.accept_shrunk_tags,
        }
    }
}
