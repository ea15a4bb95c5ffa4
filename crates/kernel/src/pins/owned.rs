//! State that this process is the owner of.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::files::{entries, make_folder, remove_tree};
use super::{LINKS, MAPS, PinError};

/// The network namespace of the calling thread.
const THREAD_NAMESPACE: &str = "/proc/thread-self/ns/net";

/// The right to make, take over or remove state, until dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    pub(super) _folder: File,
}

/// State of another version, whose owner nobody else can become meanwhile.
#[derive(Debug)]
pub(crate) struct Former {
    pub(super) _folder: File,
    pub(crate) path: PathBuf,
    /// As its folder's name says.
    pub(crate) version: String,
}

/// The state's owner is whoever has this, until it is dropped.
#[derive(Debug)]
pub(crate) struct Owned {
    pub(super) folder: File,
    /// Its place.
    pub(super) path: PathBuf,
    /// Where it is now: in its place, or where state is in the making.
    pub(super) at: PathBuf,
    /// Of others, which are carried over.
    pub(super) formers: Vec<Former>,
    /// Until it is whole.
    pub(super) turn: Option<Turn>,
}

/// Where the links of a network namespace have their files.
#[derive(Debug)]
pub(crate) struct LinkFolders {
    /// Where files are to be made now.
    pub(crate) now: PathBuf,
    /// Where they are to be found afterwards.
    pub(crate) place: PathBuf,
    /// Those of other versions.
    pub(crate) formers: Vec<PathBuf>,
}

impl Owned {
    /// Whether it was not there before, as far as this version goes.
    pub(crate) fn is_new(&self) -> bool {
        self.at != self.path
    }

    /// Whether it is still there: somebody may have removed it regardless of its owner.
    pub(crate) fn is_in_place(&self) -> bool {
        let here = self.folder.metadata().map(|folder| folder.ino());
        let there = fs::metadata(&self.at).map(|folder| folder.ino());
        here.is_ok_and(|here| there.is_ok_and(|there| there == here))
    }

    /// Where the map of that name is pinned, or will be.
    pub(crate) fn map(&self, name: &str) -> PathBuf {
        maps(&self.at).join(name)
    }

    /// Its place.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// State of other versions that is to be carried over.
    pub(crate) fn formers(&self) -> &[Former] {
        &self.formers
    }

    /// Where its state is, and that of others.
    pub(crate) fn versions(&self) -> Vec<PathBuf> {
        self.formers.iter().map(|former| &former.path).chain([&self.at]).cloned().collect()
    }

    /// The folders of the links in the network namespace of the calling thread. Pins of links whose interfaces have
    /// gone are removed.
    pub(crate) fn links(&self) -> Result<LinkFolders, PinError> {
        let namespace = fs::metadata(THREAD_NAMESPACE)
            .map_err(|error| PinError::new("look at the network namespace", error))?;
        let number = namespace.ino().to_string();
        let formers = self.formers.iter().map(|former| &former.path);
        for version in self.versions() {
            for folder in entries(&links(&version)) {
                crate::attach::remove_pins_of_gone(&folder)?;
                if !folder.ends_with(&number) && fs::remove_dir(&folder).is_err() {
                    return Err(PinError::OtherNamespace { path: version });
                }
            }
        }
        let in_version = |version: &Path| links(version).join(&number);
        let folders = LinkFolders {
            now: in_version(&self.at),
            place: in_version(&self.path),
            formers: formers.map(|former| in_version(former)).collect(),
        };
        make_folder(&folders.now)?;
        Ok(folders)
    }

    /// It is whole: from now on it is there, for others too, and that of other versions is not.
    pub(crate) fn complete(&mut self) -> Result<(), PinError> {
        if self.is_new() {
            fs::rename(&self.at, &self.path)
                .map_err(|error| PinError::new(format!("make {}", self.path.display()), error))?;
            self.at.clone_from(&self.path);
        }
        for former in self.formers.drain(..) {
            remove_tree(&former.path)?;
        }
        self.turn = None;
        Ok(())
    }

    /// The state could not be completed: nothing of it remains if there was none before.
    pub(crate) fn abandon(self) {
        if self.is_new() {
            // What cannot be removed now is removed by the next start.
            let _ = remove_tree(&self.at);
        }
    }
}

/// Where the state in the folder of a version has its links, one folder a network namespace.
pub(crate) fn links(version: &Path) -> PathBuf {
    version.join(LINKS)
}

/// Where the state in the folder of a version has its maps.
pub(crate) fn maps(version: &Path) -> PathBuf {
    version.join(MAPS)
}
