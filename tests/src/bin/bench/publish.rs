//! `ce-agent prepare-and-publish` of the large Windows disk, beside an export of the same disk.

use std::fs;
use std::path::Path;

use anyhow::Result;
use ce_platform::Platform;
use ce_tests::agent::{Cost, ce_agent, drop_from_page_cache};
use ce_tests::tool::text;

use crate::guest::Draft;
use crate::memory;
use crate::prepare::{LargeGuest, TIME_LIMIT};

/// One round.
#[derive(Clone, Copy, Debug)]
pub struct PublishRound {
    /// `ce-agent prepare-and-publish`.
    pub both: Cost,
    /// `ce-agent export`.
    pub export: Cost,
}

/// The disk that is published.
pub struct StreamedGuest(LargeGuest);

impl StreamedGuest {
    /// A guest of Azure with the target device software, in `folder`, on the disk in `kept`.
    pub fn make(kept: &Path, folder: &Path) -> Result<Self> {
        let mut draft = Draft::windows();
        draft.install_drivers_of(Platform::Azure);
        draft.came_from(Platform::Azure);
        draft.install_provisioning();
        let guest = draft.guest();
        let guest = LargeGuest::of(&guest, "streamed.raw", kept, folder)?;
        Ok(Self(guest))
    }

    /// Runs both once.
    pub fn round(&self) -> Result<PublishRound> {
        let LargeGuest { source, folder, .. } = &self.0;
        let image = folder.join("published.vhdx");
        let options = ["--platform", "azure", "--to", text(&image)?];
        let both = self.0.run("prepare-and-publish", &options)?;
        fs::remove_file(&image)?;
        drop_from_page_cache(source)?;
        memory::fill(folder)?;
        let export = ce_agent(["export", text(source)?, "--to", text(&image)?, "--quiet"])?
            .time_limit(TIME_LIMIT)
            .expect_code(0)?
            .cost;
        fs::remove_file(&image)?;
        Ok(PublishRound { both, export })
    }
}
