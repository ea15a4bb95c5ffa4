//! Where container engines listen.

use std::path::{Path, PathBuf};

use super::EngineChoice;

const DOCKER: &str = "/var/run/docker.sock";
const PODMAN: &str = "/run/podman/podman.sock";
/// Below `$XDG_RUNTIME_DIR`.
const PODMAN_OF_USER: &str = "podman/podman.sock";

/// Where one engine may listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    Unix(PathBuf),
    /// `host:port`, unencrypted.
    Tcp(String),
    /// A form that weir does not speak.
    Unsupported(String),
}

impl Address {
    pub(super) fn parse(text: &str) -> Self {
        match text.split_once("://") {
            None => Self::Unix(text.into()),
            Some(("unix", path)) => Self::Unix(path.into()),
            Some(("tcp" | "http", host)) if !host.is_empty() => {
                Self::Tcp(host.trim_end_matches('/').to_owned())
            }
            Some(_) => Self::Unsupported(text.to_owned()),
        }
    }
}

/// The places to try, in this order, and whether to be silent about those
/// that do not exist as long as another one answers.
pub(super) fn candidates(
    choice: &EngineChoice,
    environment: impl Fn(&str) -> Option<String>,
) -> Vec<Address> {
    let variable = |name| environment(name).filter(|value| !value.is_empty());
    match choice {
        EngineChoice::None => Vec::new(),
        EngineChoice::Socket(text) => vec![Address::parse(text)],
        EngineChoice::Auto => match variable("DOCKER_HOST") {
            Some(host) => vec![Address::parse(&host)],
            None => {
                let user = variable("XDG_RUNTIME_DIR").map(|folder| Path::new(&folder).join(PODMAN_OF_USER));
                [DOCKER, PODMAN].into_iter().map(PathBuf::from).chain(user).map(Address::Unix).collect()
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_forms_of_docker_host() {
        for (text, expected) in [
            ("/run/x.sock", Address::Unix("/run/x.sock".into())),
            ("unix:///run/x.sock", Address::Unix("/run/x.sock".into())),
            ("tcp://127.0.0.1:2375", Address::Tcp("127.0.0.1:2375".into())),
            ("tcp://[::1]:2375/", Address::Tcp("[::1]:2375".into())),
            ("http://engine:2375", Address::Tcp("engine:2375".into())),
            ("ssh://me@there", Address::Unsupported("ssh://me@there".into())),
            ("tcp://", Address::Unsupported("tcp://".into())),
        ] {
            assert_eq!(Address::parse(text), expected, "{text}");
        }
    }

    #[test]
    fn auto_takes_the_environment_first() {
        let auto = |pairs: &'static [(&str, &str)]| {
            candidates(&EngineChoice::Auto, |name| {
                pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
            })
        };
        assert_eq!(
            auto(&[("DOCKER_HOST", "tcp://e:1"), ("XDG_RUNTIME_DIR", "/x")]),
            [Address::Tcp("e:1".into())]
        );
        let usual = [Address::Unix(DOCKER.into()), Address::Unix(PODMAN.into())];
        assert_eq!(auto(&[("DOCKER_HOST", "")]), usual);
        let with_user = auto(&[("XDG_RUNTIME_DIR", "/run/user/1000")]);
        assert_eq!(with_user[2], Address::Unix("/run/user/1000/podman/podman.sock".into()));
    }
}
