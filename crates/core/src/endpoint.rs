//! Who stands behind an address.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde::Serialize;

/// A container, as its engine (or, without one, its cgroup or network
/// namespace) describes it. Shared by all records that mention it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Container {
    /// Full id of 64 hexadecimal digits, where an engine or a cgroup gave one.
    pub id: String,
    /// The engine's name for it, else the short id, the network namespace's
    /// name, or the veth's.
    pub name: String,
    /// Image reference, as the engine gives it.
    pub image: Option<String>,
    /// Compose project.
    pub project: Option<String>,
    /// Compose service, without the project.
    pub service: Option<String>,
    /// Compose replica number, where it is not 1.
    pub replica: Option<u32>,
}

impl Container {
    /// `project/service`, where compose made it.
    #[must_use]
    pub fn full_service(&self) -> Option<String> {
        match (&self.project, &self.service) {
            (Some(project), Some(service)) => Some(format!("{project}/{service}")),
            _ => None,
        }
    }
}

impl fmt::Display for Container {
    /// The shortest name that says which one: `shop/web`, `shop/web-2`, `nginx`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.project, &self.service, self.replica) {
            (Some(project), Some(service), Some(replica)) => write!(f, "{project}/{service}-{replica}"),
            (Some(project), Some(service), None) => write!(f, "{project}/{service}"),
            _ => f.write_str(&self.name),
        }
    }
}

/// What is known of an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Identity {
    /// A container of this host.
    Container(Arc<Container>),
    /// This host itself.
    Host,
    /// Outside; with the name for which a DNS answer gave the address.
    World(Option<Arc<str>>),
    /// Nobody that this host knows of: a redirect answers for the address.
    Virtual,
    /// A multicast or broadcast address: nobody in particular.
    Group,
}

/// One end of a flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its address.
    pub ip: IpAddr,
    /// Its port, if the protocol has ports.
    pub port: Option<u16>,
    /// Who it is.
    pub identity: Identity,
}

impl fmt::Display for Endpoint {
    /// As on a terminal line: `shop/web:43122`, `host:22`, `world/192.0.2.7:443`,
    /// `example.com:443`. Not escaped: names may come from the wire.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.identity {
            Identity::Container(container) => write!(f, "{container}")?,
            Identity::Host => f.write_str("host")?,
            Identity::World(Some(name)) => f.write_str(name)?,
            Identity::World(None) | Identity::Virtual | Identity::Group => {
                match self.identity {
                    Identity::Group => {}
                    Identity::Virtual => f.write_str("virtual/")?,
                    _ => f.write_str("world/")?,
                }
                match (self.ip, self.port) {
                    (IpAddr::V6(ip), Some(_)) => write!(f, "[{ip}]")?,
                    (ip, _) => write!(f, "{ip}")?,
                }
            }
        }
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

impl Serialize for Endpoint {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("ip", &self.ip)?;
        if let Some(port) = self.port {
            map.serialize_entry("port", &port)?;
        }
        match &self.identity {
            Identity::Container(container) => {
                map.serialize_entry("container", &container.name)?;
                if !container.id.is_empty() {
                    map.serialize_entry("container_id", &container.id)?;
                }
                if let Some(image) = &container.image {
                    map.serialize_entry("image", image)?;
                }
                if let Some(service) = container.full_service() {
                    map.serialize_entry("service", &service)?;
                }
            }
            Identity::Host => map.serialize_entry("name", "host")?,
            Identity::World(Some(name)) => map.serialize_entry("name", &**name)?,
            Identity::World(None) => map.serialize_entry("name", "world")?,
            Identity::Virtual => map.serialize_entry("name", "virtual")?,
            Identity::Group => map.serialize_entry("name", "multicast")?,
        }
        map.end()
    }
}
