//! The running kernel's version.

use crate::error::{Error, MINIMUM_KERNEL};

/// The release as `uname -r` prints it.
#[must_use]
pub fn release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// Major and minor number of a release.
#[must_use]
pub fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Whether the running kernel is new enough.
///
/// # Errors
/// It is not.
pub fn check() -> Result<(), Error> {
    let release = release();
    // A release that is no version says nothing against the kernel.
    match (version(&release), version(MINIMUM_KERNEL)) {
        (Some(found), Some(minimum)) if found < minimum => Err(Error::OldKernel { found: release }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_have_two_numbers_that_matter() {
        assert_eq!(version("6.1.0-32-cloud-amd64"), Some((6, 1)));
        assert_eq!(version("5.15.167.4-microsoft-standard-WSL2"), Some((5, 15)));
        assert_eq!(version("2.6.78"), Some((2, 6)));
        assert_eq!(version("linux"), None);
    }
}
