//! Names and globs.

use globset::{GlobBuilder, GlobMatcher};

use super::FilterError;
use crate::endpoint::Container;

/// A shorter piece of an id would match too many containers by chance.
const ID_DIGITS_MIN: usize = 4;

/// An exact name, or a glob over names (`*`, `?`, `[ab]`, `{a,b}`; `*` matches
/// `/` too).
#[derive(Debug, Clone)]
pub struct NamePattern {
    text: String,
    glob: Option<Box<GlobMatcher>>,
}

impl NamePattern {
    pub(super) fn parse(what: &'static str, text: &str) -> Result<Self, FilterError> {
        if text.is_empty() {
            return Err(FilterError::Empty(what));
        }
        if !text.contains(['*', '?', '[', '{']) {
            return Ok(Self { text: text.to_owned(), glob: None });
        }
        let glob = GlobBuilder::new(text).literal_separator(false).build().map_err(|error| {
            FilterError::Glob { what, text: text.to_owned(), reason: error.kind().to_string() }
        })?;
        Ok(Self { text: text.to_owned(), glob: Some(Box::new(glob.compile_matcher())) })
    }

    /// As the user wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it may match several names.
    #[must_use]
    pub fn is_glob(&self) -> bool {
        self.glob.is_some()
    }

    /// Whether this is the name, or one of those that the glob means.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        match &self.glob {
            Some(glob) => glob.is_match(name),
            None => self.text == name,
        }
    }

    /// By the engine's name, the name as weir shows it, or a piece of the id.
    pub(super) fn is_container(&self, container: &Container) -> bool {
        self.matches(&container.name)
            || container.project.is_some() && self.matches(&container.to_string())
            || self.is_id_of(container)
    }

    /// With a `/` in the pattern `project/service`, else the service alone.
    pub(super) fn is_service(&self, container: &Container) -> bool {
        if self.text.contains('/') {
            return container.full_service().is_some_and(|service| self.matches(&service));
        }
        container.service.as_ref().is_some_and(|service| self.matches(service))
    }

    fn is_id_of(&self, container: &Container) -> bool {
        self.text.len() >= ID_DIGITS_MIN
            && self.text.bytes().all(|digit| digit.is_ascii_hexdigit())
            && container.id.get(..self.text.len()).is_some_and(|start| start.eq_ignore_ascii_case(&self.text))
    }
}
