//! Changes that a log makes to a file, kept beside it instead of being written.

use std::collections::BTreeMap;

use crate::units::{FileOffset, buffer_index, length_of};

/// Changed pages and zeroed ranges of a file; later ones replace earlier ones.
///
/// All borders are multiples of [`PAGE_LENGTH`], so that pages are replaced whole and only ranges
/// of zeros are ever cut. Each change adds at most two runs.
#[derive(Debug, Default)]
pub(crate) struct Overlay {
    /// Runs by where they begin; they do not overlap.
    runs: BTreeMap<u64, Run>,
}

#[derive(Debug)]
struct Run {
    end: u64,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Page(Box<[u8; PAGE_LENGTH]>),
    Zeros,
}

impl Overlay {
    /// Puts `page` at `offset`, a multiple of [`PAGE_LENGTH`]; none if that overflows.
    pub(crate) fn put_page(&mut self, offset: u64, page: Box<[u8; PAGE_LENGTH]>) -> Option<()> {
        let end = offset.checked_add(length_of(page.as_slice()))?;
        self.put(offset, end, Content::Page(page));
        Some(())
    }

    /// Zeros `length` bytes from `offset`, both multiples of [`PAGE_LENGTH`]; none on overflow.
    pub(crate) fn put_zeros(&mut self, offset: u64, length: u64) -> Option<()> {
        let end = offset.checked_add(length)?;
        if length > 0 {
            self.put(offset, end, Content::Zeros);
        }
        Some(())
    }

    fn put(&mut self, start: u64, end: u64, content: Content) {
        self.cut(start);
        self.cut(end);
        while let Some((&covered, _)) = self.runs.range(start..end).next() {
            self.runs.remove(&covered);
        }
        self.runs.insert(start, Run { end, content });
    }

    /// Splits the run that reaches over `at`, which can only be one of zeros.
    fn cut(&mut self, at: u64) {
        if let Some((_, run)) = self.runs.range_mut(..at).next_back()
            && run.end > at
        {
            let end = std::mem::replace(&mut run.end, at);
            let content = Content::Zeros;
            self.runs.insert(at, Run { end, content });
        }
    }

    /// Changes `buffer`, which holds the bytes of the file from `offset` on.
    pub(crate) fn apply(&self, offset: FileOffset, buffer: &mut [u8]) {
        let start = offset.0;
        let end = start.saturating_add(length_of(buffer));
        let before = self.runs.range(..start).next_back();
        for (&run_start, run) in before.into_iter().chain(self.runs.range(start..end)) {
            let (from, to) = (run_start.max(start), run.end.min(end));
            let (Some(inside), Some(length)) = (from.checked_sub(start), to.checked_sub(from))
            else {
                continue;
            };
            let inside = buffer_index(inside);
            let target = buffer.get_mut(inside..inside.saturating_add(buffer_index(length)));
            let Some(target) = target else { continue };
            match &run.content {
                Content::Zeros => target.fill(0),
                Content::Page(page) => {
                    let skip = buffer_index(from.saturating_sub(run_start));
                    for (byte, changed) in target.iter_mut().zip(page.iter().skip(skip)) {
                        *byte = *changed;
                    }
                }
            }
        }
    }
}

/// The unit of a log in bytes.
pub(crate) const PAGE_LENGTH: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_overlay_reads_as_the_file_it_stands_for(
            changes in prop::collection::vec((0..24_u64, 0..8_u64, any::<bool>()), 0..40),
            start in 0..100_000_usize,
            length in 0..40_000_usize,
        ) {
            let mut model = vec![0xEE_u8; 32 * PAGE_LENGTH];
            let mut overlay = Overlay::default();
            for (i, (page, pages, zeros)) in changes.into_iter().enumerate() {
                let offset = page * 4096;
                let at = buffer_index(offset);
                if zeros {
                    overlay.put_zeros(offset, pages * 4096).expect("no overflow");
                    model[at..at + buffer_index(pages * 4096)].fill(0);
                } else {
                    let fill = u8::try_from(i).expect("under 40");
                    overlay.put_page(offset, Box::new([fill; PAGE_LENGTH])).expect("no overflow");
                    model[at..at + PAGE_LENGTH].fill(fill);
                }
            }
            let end = (start + length).min(model.len());
            let start = start.min(end);
            let mut found = vec![0xEE; end - start];
            overlay.apply(FileOffset(u64::try_from(start).expect("small")), &mut found);
            prop_assert_eq!(&found, &model[start..end]);
        }
    }
}
