//! The rules in force, as their user wrote them: kept in a map, so that they
//! live exactly as long as the programs and tables that follow them.

use std::collections::BTreeMap;
use std::io;

use libbpf_rs::{ErrorKind, MapCore, MapFlags, MapHandle, MapMut};

use crate::pins::PinDirectory;

/// Bytes of a value of the map; the kernel side says the same.
const TEXT_BYTES: usize = 4096;

/// Why rules cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum TextsError {
    /// A text that is longer than there is room.
    #[error("a rule of {bytes} bytes is longer than the {max} that are kept of it", max = RuleTexts::TEXT_BYTES_MAX)]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// More rules than there is room for.
    #[error("there is no room for another rule: the kernel keeps {max}", max = RuleTexts::RULES_MAX)]
    Full,
    /// The process lacks the right to.
    #[error("not permitted to {action}")]
    NotPermitted {
        /// What was tried.
        action: &'static str,
    },
    /// The kernel refuses.
    #[error("cannot {action}: {source}")]
    Refused {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

fn refused(action: &'static str) -> impl FnOnce(libbpf_rs::Error) -> TextsError {
    move |error| match error.kind() {
        ErrorKind::PermissionDenied => TextsError::NotPermitted { action },
        _ => TextsError::Refused { action, source: io::Error::other(error) },
    }
}

/// Texts by number, in the kernel.
pub struct RuleTexts {
    map: MapHandle,
}

impl RuleTexts {
    /// The longest text.
    pub const TEXT_BYTES_MAX: usize = TEXT_BYTES - 1;
    /// How many there may be.
    pub const RULES_MAX: usize = 4096;

    pub(crate) fn of(map: &MapMut<'_>) -> Result<Self, TextsError> {
        let map = MapHandle::try_from(map).map_err(refused("open the table of rules"))?;
        Ok(Self { map })
    }

    /// Those of pinned state, for reading, whoever owns it. `None`: there is no state.
    ///
    /// # Errors
    /// The kernel does not open the map.
    pub fn pinned(pins: &PinDirectory) -> Result<Option<Self>, TextsError> {
        match pins.open_map("redirect_texts") {
            Ok(map) => Ok(Some(Self { map })),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(refused("open the pinned table of rules")(error)),
        }
    }

    /// All texts.
    ///
    /// # Errors
    /// The kernel refuses to read.
    pub fn read(&self) -> Result<BTreeMap<u32, String>, TextsError> {
        let mut texts = BTreeMap::new();
        for key in self.map.keys() {
            // One that is removed meanwhile is not there.
            let value = self.map.lookup(&key, MapFlags::ANY).map_err(refused("read the table of rules"))?;
            let (Ok(number), Some(value)) = (<[u8; 4]>::try_from(&key[..]), value) else { continue };
            let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
            let text = String::from_utf8_lossy(&value[..end]).into_owned();
            texts.insert(u32::from_ne_bytes(number), text);
        }
        Ok(texts)
    }

    /// Keeps a text, in place of another with the same number.
    ///
    /// # Errors
    /// It is too long, there are too many, or the kernel refuses.
    pub fn write(&self, number: u32, text: &str) -> Result<(), TextsError> {
        if text.len() > Self::TEXT_BYTES_MAX {
            return Err(TextsError::TooLong { bytes: text.len() });
        }
        let mut value = vec![0; TEXT_BYTES];
        value[..text.len()].copy_from_slice(text.as_bytes());
        let written = self.map.update(&number.to_ne_bytes(), &value, MapFlags::ANY);
        written.map_err(|error| match error.kind() {
            ErrorKind::TooBig => TextsError::Full,
            _ => refused("write the table of rules")(error),
        })
    }

    /// Removes a text; that there is none is no failure.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn remove(&self, number: u32) -> Result<(), TextsError> {
        match self.map.delete(&number.to_ne_bytes()) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(refused("write the table of rules")(error))
            }
            _ => Ok(()),
        }
    }
}
