//! What weir takes from an engine's description of a container.
//!
//! Names, labels and addresses come from whoever started the container: they
//! are cut to a sane length, and what is not well-formed is left out.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use bollard::models::{
    ContainerInspectResponse, ContainerStateStatusEnum as Status, ContainerSummary,
    ContainerSummaryStateEnum as SummaryState, EndpointSettings,
};
use weir_core::endpoint::Container;

use crate::host::cgroup::is_container_id;

/// Longest name, image or label that is taken over.
const TEXT_BYTES: usize = 256;
/// More networks than any container has.
const NETWORKS: usize = 256;

/// How a container is connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NetworkMode {
    /// In a network namespace that was made for it.
    Own,
    /// In one that is another's: the host's, or another container's.
    Shared,
}

/// A running container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Described {
    pub(crate) container: Container,
    pub(crate) network_mode: NetworkMode,
    /// Its first process, in the engine's process namespace.
    pub(crate) pid: Option<u32>,
    /// The file that stands for its network namespace.
    pub(crate) netns_path: Option<PathBuf>,
    pub(crate) addresses: BTreeSet<IpAddr>,
    /// Whether the engine is on this host for sure.
    pub(crate) local: bool,
}

/// Whether an entry of the list is about a container that runs.
pub(super) fn runs(summary: &ContainerSummary) -> bool {
    use SummaryState::{CREATED, DEAD, EXITED, REMOVING};
    !matches!(summary.state, Some(CREATED | EXITED | DEAD | REMOVING))
}

/// From an entry of the list, whether that container runs or not.
pub(super) fn summary(summary: ContainerSummary) -> Option<Described> {
    // Beside its own name there may be aliases as seen from others: /db/alias.
    let names = summary.names.unwrap_or_default();
    let own_name = names.iter().find(|name| !name.trim_start_matches('/').contains('/')).or(names.first());
    let labels = summary.labels.unwrap_or_default();
    let network_mode = mode(summary.host_config.and_then(|config| config.network_mode).as_deref());
    let networks = summary.network_settings.and_then(|settings| settings.networks);
    Some(Described {
        container: container(summary.id?, own_name.map(String::as_str), summary.image.as_deref(), &labels)?,
        addresses: addresses(&network_mode, networks),
        network_mode,
        pid: None,
        netns_path: None,
        local: false,
    })
}

/// From an inspection; `None` if it does not run.
pub(super) fn inspection(inspection: ContainerInspectResponse) -> Option<Described> {
    let state = inspection.state?;
    if !state.running.unwrap_or(matches!(state.status, Some(Status::RUNNING | Status::PAUSED))) {
        return None;
    }
    let config = inspection.config.unwrap_or_default();
    let labels = config.labels.unwrap_or_default();
    let network_mode = mode(inspection.host_config.and_then(|config| config.network_mode).as_deref());
    let settings = inspection.network_settings.unwrap_or_default();
    let netns_path = settings.sandbox_key.filter(|path| path.starts_with('/')).map(PathBuf::from);
    Some(Described {
        container: container(inspection.id?, inspection.name.as_deref(), config.image.as_deref(), &labels)?,
        addresses: addresses(&network_mode, settings.networks),
        pid: state.pid.and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid != 0),
        netns_path: netns_path.filter(|_| network_mode == NetworkMode::Own),
        network_mode,
        local: false,
    })
}

fn container(
    id: String,
    name: Option<&str>,
    image: Option<&str>,
    labels: &HashMap<String, String>,
) -> Option<Container> {
    // It becomes part of a path when the engine is asked about it.
    if !is_container_id(&id) {
        return None;
    }
    let name = name.map(|name| name.trim_start_matches('/')).and_then(text);
    // podman-compose of old has labels of its own, newer ones both.
    let label = |name| {
        let prefixes = ["com.docker.compose", "io.podman.compose"];
        prefixes.iter().find_map(|prefix| text(labels.get(&format!("{prefix}.{name}"))?))
    };
    Some(Container {
        name: name.unwrap_or_else(|| id.chars().take(12).collect()),
        image: image.and_then(text),
        project: label("project"),
        service: label("service"),
        replica: label("container-number")
            .and_then(|number| number.parse().ok())
            .filter(|number| *number != 1),
        id,
    })
}

fn mode(mode: Option<&str>) -> NetworkMode {
    match mode {
        Some("host") => NetworkMode::Shared,
        Some(mode) if mode.starts_with("container:") => NetworkMode::Shared,
        _ => NetworkMode::Own,
    }
}

fn addresses(mode: &NetworkMode, networks: Option<HashMap<String, EndpointSettings>>) -> BTreeSet<IpAddr> {
    if *mode == NetworkMode::Shared {
        return BTreeSet::new();
    }
    let networks = networks.unwrap_or_default();
    let of_network = |network: &EndpointSettings| {
        let v4 = network.ip_address.as_deref().and_then(|ip| ip.parse::<Ipv4Addr>().ok()).map(IpAddr::from);
        let v6 = network.global_ipv6_address.as_deref().and_then(|ip| ip.parse::<Ipv6Addr>().ok());
        [v4, v6.map(IpAddr::from)]
    };
    let all = networks.values().take(NETWORKS).flat_map(of_network).flatten();
    all.filter(|ip| !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast()).collect()
}

/// Not empty, and not longer than is sane.
fn text(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| bounded(text))
}

/// Its beginning, at most 256 bytes.
pub(super) fn bounded(text: &str) -> String {
    let end = (0..=TEXT_BYTES.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4f1c0b7e9d2a4f1c0b7e9d2a4f1c0b7e9d2a4f1c0b7e9d2a4f1c0b7e9d2a0123";

    fn labelled(labels: &[(&str, &str)]) -> Container {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        container(ID.into(), Some("/shop-web-1"), Some("nginx:1.27"), &labels).unwrap()
    }

    #[test]
    fn compose_labels_give_the_service() {
        let container = labelled(&[
            ("com.docker.compose.project", "shop"),
            ("com.docker.compose.service", "web"),
            ("com.docker.compose.container-number", "1"),
        ]);
        assert_eq!(container.to_string(), "shop/web");
        assert_eq!(container.name, "shop-web-1");
        assert_eq!(container.image.as_deref(), Some("nginx:1.27"));
        let second = labelled(&[
            ("io.podman.compose.project", "shop"),
            ("io.podman.compose.service", "web"),
            ("com.docker.compose.container-number", "2"),
        ]);
        assert_eq!(second.to_string(), "shop/web-2");
    }

    #[test]
    fn hostile_labels_are_cut_or_left_out() {
        let long = "ü".repeat(1000);
        let container = labelled(&[
            ("com.docker.compose.project", &long),
            ("com.docker.compose.service", ""),
            ("com.docker.compose.container-number", "99999999999999999999"),
        ]);
        assert_eq!(container.project.unwrap().len(), 256);
        assert_eq!((container.service, container.replica), (None, None));
    }

    #[test]
    fn an_id_that_is_none_is_refused() {
        for id in ["", "../../version", "4f1c", &ID.to_uppercase(), &format!("{ID}0")] {
            assert!(container(id.into(), None, None, &HashMap::new()).is_none(), "{id}");
        }
        assert_eq!(container(ID.into(), Some("/"), None, &HashMap::new()).unwrap().name, "4f1c0b7e9d2a");
    }

    #[test]
    fn reads_what_engine_20_10_answers() {
        let json = format!(
            r#"{{"Id":"{ID}","Created":"2026-11-22T10:00:00.5Z","Path":"sleep","State":{{"Status":"running",
            "Running":true,"Paused":false,"Pid":4242}},"Image":"sha256:00","Name":"/web","HostConfig":
            {{"NetworkMode":"default"}},"Config":{{"Image":"busybox:latest","Labels":{{}}}},"NetworkSettings":
            {{"Bridge":"","SandboxKey":"/var/run/docker/netns/5a1b","IPAddress":"172.17.0.2","Networks":{{"bridge":
            {{"IPAddress":"172.17.0.2","GlobalIPv6Address":"fd00::2"}},"other":{{"IPAddress":"","GlobalIPv6Address":
            "garbage"}}}}}}}}"#
        );
        let described = inspection(serde_json::from_str(&json).unwrap()).unwrap();
        assert_eq!(described.container.name, "web");
        assert_eq!(described.container.image.as_deref(), Some("busybox:latest"));
        assert_eq!(described.pid, Some(4242));
        assert_eq!(described.netns_path, Some("/var/run/docker/netns/5a1b".into()));
        let expected: Vec<IpAddr> = vec!["172.17.0.2".parse().unwrap(), "fd00::2".parse().unwrap()];
        assert_eq!(Vec::from_iter(described.addresses), expected);
        assert_eq!(described.network_mode, NetworkMode::Own);
    }

    #[test]
    fn a_container_in_anothers_namespace_has_no_addresses() {
        for mode in ["host".to_owned(), format!("container:{ID}")] {
            let json = format!(
                r#"{{"Id":"{ID}","Names":["/other/alias","/web"],"State":"running","HostConfig":{{"NetworkMode":
                "{mode}"}},"NetworkSettings":{{"Networks":{{"host":{{"IPAddress":"10.0.0.1"}}}}}}}}"#
            );
            let described = summary(serde_json::from_str(&json).unwrap()).unwrap();
            assert_eq!(described.container.name, "web");
            assert_eq!(described.network_mode, NetworkMode::Shared);
            assert!(described.addresses.is_empty());
        }
    }

    #[test]
    fn a_stopped_container_is_known_as_such() {
        for (state, running) in [("exited", false), ("dead", false), ("created", false), ("paused", true)] {
            let json = format!(r#"{{"Id":"{ID}","State":"{state}"}}"#);
            assert_eq!(runs(&serde_json::from_str(&json).unwrap()), running, "{state}");
        }
        let json = format!(r#"{{"Id":"{ID}","State":{{"Status":"exited","Running":false}}}}"#);
        assert_eq!(inspection(serde_json::from_str(&json).unwrap()), None);
    }
}
