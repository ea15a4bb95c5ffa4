//! Which interfaces are watched.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use weir_core::directory::Directory;
use weir_core::endpoint::Container;
use weir_core::filter::{Filter, NamePattern};
use weir_core::scene::Device;
use weir_core::text::escape;
use weir_kernel::attach::{AttachError, Attacher, Attachment};

use crate::error::Error;
use crate::host::Interface;
use crate::notice;

/// The interfaces of this network namespace, and weir's programs on some.
pub(crate) struct Watched {
    attacher: Attacher,
    /// Named by the user; none: all veths whose other end is elsewhere.
    wanted: Vec<NamePattern>,
    /// By index, with the name.
    present: BTreeMap<u32, String>,
    attached: HashMap<u32, Attachment>,
}

impl Watched {
    pub(crate) fn new(attacher: Attacher, wanted: Vec<NamePattern>) -> Self {
        Self { attacher, wanted, present: BTreeMap::new(), attached: HashMap::new() }
    }

    /// What records need to know of an interface.
    pub(super) fn device(interface: &Interface) -> Device {
        Device { name: interface.name.clone(), container_side: interface.is_container_side() }
    }

    /// An interface appeared or changed. Whether it is watched from now on, and
    /// was not before.
    pub(super) fn interface(&mut self, interface: &Interface) -> Result<bool, Error> {
        self.present.insert(interface.ifindex, interface.name.clone());
        if self.attached.contains_key(&interface.ifindex) || !self.is_wanted(interface) {
            return Ok(false);
        }
        match self.attacher.attach(interface.ifindex, interface.ethernet) {
            Ok(attachment) => {
                self.attached.insert(interface.ifindex, attachment);
                Ok(true)
            }
            Err(error) if error.is_gone() => Ok(false),
            Err(error @ AttachError::NotPermitted { .. }) => Err(error.into()),
            // One interface that refuses must not blind weir to the others.
            Err(error) if self.wanted.is_empty() => {
                notice(&format!("{error}; its traffic is not seen"));
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// An interface is gone. Whether it was watched.
    pub(super) fn gone(&mut self, ifindex: u32) -> bool {
        self.present.remove(&ifindex);
        self.attached.remove(&ifindex).is_some()
    }

    pub(super) fn detach(&mut self) {
        self.attached.clear();
    }

    /// What the user sees when nothing happens yet. Tests wait for it.
    pub(super) fn greeting(&self, directory: &Directory) -> String {
        const SHOWN: usize = 8;
        let method = self.attacher.method();
        let names = self.names(directory);
        if names.is_empty() {
            return format!(
                "no container is running; waiting for one, to watch it with {method} (Ctrl-C ends)"
            );
        }
        let list = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = match names.len().saturating_sub(SHOWN) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!("watching {list}{more} with {method} (Ctrl-C ends)")
    }

    /// Who is watched, as users know them: containers, else interfaces.
    fn names(&self, directory: &Directory) -> Vec<String> {
        let mut names: Vec<String> = self
            .attached
            .keys()
            .filter_map(|ifindex| match directory.owner(*ifindex) {
                Some(container) => Some(container.to_string()),
                None => self.present.get(ifindex).cloned(),
            })
            .collect();
        names.sort();
        names.dedup();
        names
    }

    /// Refuses names of interfaces, containers and services that do not exist:
    /// most are slips of the pen, and the user would wait for nothing.
    pub(super) fn check_names(&self, filter: &Filter, known: &[Arc<Container>]) -> Result<(), Error> {
        for pattern in self.wanted.iter().filter(|pattern| !pattern.is_glob()) {
            if !self.present.values().any(|name| pattern.matches(name)) {
                return Err(Error::UnknownName(format!(
                    "there is no interface named \"{}\"; there are: {}",
                    escape(pattern.as_str()),
                    list(self.present.values().cloned())
                )));
            }
        }
        if let Some(name) = filter.unknown_names(known).first() {
            let name = escape(name);
            return Err(Error::UnknownName(format!(
                "no container or service is named \"{name}\"; running: {}. \
                 For one that will start later, write a pattern: \"{name}*\"",
                list(known.iter().map(|container| container.to_string()))
            )));
        }
        Ok(())
    }

    fn is_wanted(&self, interface: &Interface) -> bool {
        if self.wanted.is_empty() {
            return interface.is_container_side();
        }
        self.wanted.iter().any(|pattern| pattern.matches(&interface.name))
    }
}

fn list(names: impl Iterator<Item = String>) -> String {
    let mut names: Vec<String> = names.map(|name| escape(&name).into_owned()).collect();
    names.sort();
    names.dedup();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}
