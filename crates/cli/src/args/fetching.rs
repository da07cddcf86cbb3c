//! How documents are fetched by URL.

use std::path::{Path, PathBuf};

use colibri_engine::web::{self, FetchConfig};

use crate::{context::Context, error::Result, interrupt::Listening};

/// Options of commands that take URLs.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Fetching documents by URL")]
pub(crate) struct Fetching {
    /// Also from addresses that only this machine or its network can reach
    #[arg(long)]
    allow_private_urls: bool,
}

impl Fetching {
    /// As the engine has it; files are kept in `folder`.
    pub(crate) fn config(&self, folder: &Path) -> FetchConfig {
        FetchConfig {
            allow_private: self.allow_private_urls,
            ..FetchConfig::new(folder)
        }
    }

    /// The paths with URLs among them fetched into `folder`. One that cannot be is an error: it was named.
    ///
    /// # Errors
    /// Those of the fetch.
    pub(crate) fn paths(
        &self,
        context: &Context,
        listening: &Listening<'_>,
        paths: &[PathBuf],
        folder: &Path,
    ) -> Result<Vec<PathBuf>> {
        let config = self.config(folder);
        let mut found = Vec::new();
        for path in paths {
            let Some(url) = path.to_str().filter(|text| web::is_url(text)) else {
                found.push(path.clone());
                continue;
            };
            context.screen.status(&format!("fetching {url}"));
            let fetched = web::fetch(&config, url, listening.stop(), &|_| {})?;
            let from = if fetched.from_cache {
                "was fetched before"
            } else {
                "fetched"
            };
            context
                .screen
                .detail(&format!("{url} {from}: {} bytes", fetched.bytes));
            found.push(fetched.path);
        }
        context.screen.hide_bar();
        Ok(found)
    }
}
