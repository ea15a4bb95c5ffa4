//! Where the packets of captures were seen, and of which places they are wanted.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use weir_core::event::Hook;
use weir_core::filter::{Criterion, Filter, FilterError, NamePattern};
use weir_core::text::escape;

use super::capture::Frame;
use crate::cli::FilterArgs;
use crate::error::Error;

/// Of a section of a pcapng file, and more than any host has devices.
const NAMES_MAX: usize = 1_024;

/// Where a packet was seen, as far as its file says.
#[derive(Debug, Clone, Default)]
pub(super) struct Place {
    /// Name of the device.
    pub(super) interface: Option<Arc<str>>,
    /// Which way.
    pub(super) hook: Option<Hook>,
}

/// The places that are wanted: of all others nothing is read.
#[derive(Debug, Default)]
pub(super) struct Places {
    wanted: Vec<NamePattern>,
    refused: Vec<NamePattern>,
    /// Where packets were seen, if that is asked for.
    seen: BTreeSet<Arc<str>>,
    /// Devices that are known by their index only.
    by_index: HashMap<u32, Arc<str>>,
}

impl Places {
    /// # Errors
    /// Patterns that are none.
    pub(super) fn new(arguments: &FilterArgs) -> Result<Self, FilterError> {
        let patterns = |texts: &[String]| {
            let mut filter = Filter::default();
            for text in texts {
                filter.add(Criterion::parse_interface(text)?, false);
            }
            Ok(filter.take_interface_globs())
        };
        Ok(Self {
            wanted: patterns(&arguments.interface)?,
            refused: patterns(&arguments.not_interface)?,
            ..Self::default()
        })
    }

    /// Where a frame was seen.
    pub(super) fn of(&mut self, frame: &Frame<'_>) -> Place {
        let sighting = frame.interface.link.map(|link| link.sighting(frame.bytes)).unwrap_or_default();
        // The interface "any" is many; the frame says which of them.
        let by_index = sighting.ifindex.map(|index| self.name(index));
        Place {
            interface: by_index.or_else(|| frame.interface.name.clone()),
            hook: frame.direction.or(sighting.hook),
        }
    }

    fn name(&mut self, ifindex: u32) -> Arc<str> {
        if let Some(name) = self.by_index.get(&ifindex) {
            return Arc::clone(name);
        }
        let name: Arc<str> = format!("if{ifindex}").into();
        if self.by_index.len() < NAMES_MAX {
            self.by_index.insert(ifindex, Arc::clone(&name));
        }
        name
    }

    /// Whether what was seen there is to be read.
    pub(super) fn want(&mut self, place: &Place) -> bool {
        let is_one_of = |patterns: &[NamePattern]| {
            place.interface.as_ref().is_some_and(|name| patterns.iter().any(|one| one.matches(name)))
        };
        if self.wanted.is_empty() {
            return !is_one_of(&self.refused);
        }
        if let Some(name) = &place.interface
            && self.seen.len() < NAMES_MAX
            && !self.seen.contains(name)
        {
            self.seen.insert(Arc::clone(name));
        }
        is_one_of(&self.wanted) && !is_one_of(&self.refused)
    }

    /// Refuses names that were nowhere in the files: most are slips of the pen, and what
    /// was read is nothing.
    ///
    /// # Errors
    /// The name, and those that there were.
    pub(super) fn check(&self) -> Result<(), Error> {
        let unknown = |pattern: &&NamePattern| !self.seen.iter().any(|name| pattern.matches(name));
        if self.wanted.is_empty() {
            return Ok(());
        }
        if self.seen.is_empty() {
            return Err(Error::UnknownName(
                "--interface: these files do not tell at which interfaces packets were captured (pcapng may, \
                 pcap does only of the interface \"any\")"
                    .to_owned(),
            ));
        }
        let Some(pattern) = self.wanted.iter().filter(|pattern| !pattern.is_glob()).find(unknown) else {
            return Ok(());
        };
        let seen: Vec<_> = self.seen.iter().map(|name| escape(name)).collect();
        Err(Error::UnknownName(format!(
            "no packet was captured at an interface named \"{}\"; there are packets of: {}",
            escape(pattern.as_str()),
            seen.join(", ")
        )))
    }
}
