//! All that read what comes out of the pipeline, each with its own filter, pace and end.

use std::collections::BTreeMap;
use std::time::Duration;

use weir_core::event::PacketSeen;
use weir_core::flow::Report;
use weir_core::l7::Found;
use weir_core::scene::Scene;

use super::observer::Observer;
use crate::audit::Translations;
use crate::error::Error;

/// Which observer: those of other processes have a number from 1 on.
pub(crate) type ObserverId = u64;

/// The observer that belongs to the process itself: its output is standard output, and what fails there is the
/// process's failure.
pub(crate) const OWN: ObserverId = 0;

/// Who reads what comes out.
#[derive(Default)]
pub(super) struct Observers(pub(super) BTreeMap<ObserverId, Observer>);

impl Observers {
    pub(super) fn flow(&mut self, scene: &mut Scene, report: Report<'_>) {
        if !self.0.values().any(Observer::shows_flows) {
            return;
        }
        let last_ns = report.entry.last_ns;
        let record = scene.flow_record(report);
        self.0.values_mut().for_each(|observer| observer.flow(&record, last_ns));
    }

    pub(super) fn packet(&mut self, scene: &mut Scene, packet: &PacketSeen) {
        if self.0.is_empty() {
            return;
        }
        let record = scene.packet_record(packet);
        self.0.values_mut().for_each(|observer| observer.packet(&record));
    }

    pub(super) fn request(&mut self, scene: &mut Scene, translations: &Translations, found: &mut Found) {
        let mut readers = self.0.values_mut().filter(|observer| observer.shows_requests());
        let Some(first) = readers.next() else { return };
        let translation = translations.of(&found.key, found.first_ns);
        let record = scene.request_record(found, translation);
        readers.for_each(|observer| observer.request(record.clone()));
        first.request(record);
    }

    /// What the most eager of them wants.
    pub(super) fn update_interval(&self) -> Option<Duration> {
        self.0.values().filter_map(Observer::update_interval).min()
    }

    /// An output that fails is the end of its observer, and of the process if it is the process's own.
    pub(super) fn check(&mut self) -> Result<(), Error> {
        for (id, observer) in &mut self.0 {
            match observer.check() {
                Err(error) if *id == OWN => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}
