//! The state of the file for status, metrics and log. Each problem is logged once, and its end once.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::RunResult;
use super::lines::Listing;
use crate::metrics::{Sheet, amount};
use crate::ops::report::IngressFileReport;
use crate::sentence::sentence;

/// A handle; clones share one state. The default, with an empty path, is for an agent without such a file.
#[derive(Clone, Debug, Default)]
pub(crate) struct FileHealth(Arc<Mutex<IngressFileReport>>);

impl FileHealth {
    pub(super) fn of(path: &Path) -> Self {
        let path = path.display().to_string();
        Self(Arc::new(Mutex::new(IngressFileReport { path, ..IngressFileReport::default() })))
    }

    /// The current state, if there is a file.
    pub(crate) fn report(&self) -> Option<IngressFileReport> {
        let report = self.lock();
        (!report.path.is_empty()).then(|| report.clone())
    }

    pub(super) fn note(&self, outcome: RunResult) {
        if let Some((listing, former)) = &outcome.listed {
            self.note_listing(listing, *former);
        }
        match outcome.written {
            Ok(written) => self.note_good(written),
            Err(error) => {
                self.lock().failures += 1;
                self.note_problem(&error.to_string());
            }
        }
    }

    fn note_listing(&self, listing: &Listing, former: usize) {
        let mut report = self.lock();
        let before = std::mem::replace(&mut report.left_out, listing.left_out);
        (report.lines, report.former) = (listing.lines, former);
        drop(report);
        match (before, listing.left_out) {
            (0, 0) => {}
            (0, names) => tracing::warn!(
                names,
                lines = listing.lines,
                "host names are left out of the ingress file, because it is full or no line can express them: a gost \
                 that reads the file has no rule for them"
            ),
            (_, 0) => tracing::info!("the ingress file has all host names again"),
            (_, _) => {}
        }
    }

    /// The file is as it should be. `written`: it had to be written for that.
    fn note_good(&self, written: bool) {
        let mut report = self.lock();
        report.writes += u64::from(written);
        let was_bad = report.problem.take().is_some();
        drop(report);
        if was_bad {
            tracing::info!("the ingress file is written again");
        }
    }

    /// The file is not as it should be, for now.
    pub(super) fn note_problem(&self, why: &str) {
        let mut report = self.lock();
        let path = report.path.clone();
        let before = report.problem.replace(sentence!("cannot write {path}: {why}").to_string());
        drop(report);
        if before.is_none() {
            tracing::warn!(%path, "cannot write the ingress file, gost continues with the old one: {why}");
        }
    }

    fn lock(&self) -> MutexGuard<'_, IngressFileReport> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for FileHealth {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (report, mut figures) = (self.lock().clone(), Sheet::new(encoder));
        figures.level("gossd_ingress_file_lines", "Lines of the ingress file", amount(report.lines))?;
        let left_out = "Known host names that are left out of the ingress file";
        figures.level("gossd_ingress_file_left_out", left_out, amount(report.left_out))?;
        figures.count(
            "gossd_ingress_file_writes",
            "Times that the ingress file was written",
            report.writes,
        )?;
        let failures = "Times that the ingress file could not be written";
        figures.count("gossd_ingress_file_failures", failures, report.failures)?;
        let failing = f64::from(u8::from(report.problem.is_some()));
        figures.level("gossd_ingress_file_failing", "1 if the last write of the ingress file failed", failing)
    }
}
