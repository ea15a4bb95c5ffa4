//! One end of a flow, as `--from` and `--to` name it.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::{IpNet, Ipv4Net};

use super::{FilterError, NamePattern};
use crate::endpoint::{Endpoint, Identity};

/// Who, and at which port.
#[derive(Debug, Clone)]
pub struct Selector {
    who: Who,
    ports: Option<RangeInclusive<u16>>,
}

#[derive(Debug, Clone)]
enum Who {
    Anyone,
    Host,
    World,
    Virtual,
    Multicast,
    Addresses(IpNet),
    /// A container, a service or a DNS name. DNS knows no case: `lower` is for
    /// its names.
    Named {
        pattern: NamePattern,
        lower: NamePattern,
    },
}

impl Selector {
    /// A container, compose service, DNS name or a glob over these, an address
    /// or CIDR range, `host`, `world`, `virtual` or `multicast`; then, if wanted, `:port`
    /// or `:low-high`. `:port` alone is anyone at that port. IPv6 with a port
    /// stands in brackets.
    ///
    /// # Errors
    /// If the text is empty, a broken glob, or looks like an address, range or
    /// port and is none.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        if let Ok(range) = parse_addresses(text) {
            return Ok(Self { who: Who::Addresses(range), ports: None });
        }
        let (who, ports) = split_ports(text)?;
        let ports = ports.map(parse_ports).transpose()?;
        let who = match who {
            "" if ports.is_some() => Who::Anyone,
            "host" => Who::Host,
            "world" => Who::World,
            "virtual" => Who::Virtual,
            "multicast" => Who::Multicast,
            _ if looks_like_addresses(who) => Who::Addresses(parse_addresses(who)?),
            _ => Who::Named {
                pattern: NamePattern::parse("name", who)?,
                lower: NamePattern::parse("name", &who.trim_end_matches('.').to_lowercase())?,
            },
        };
        Ok(Self { who, ports })
    }

    pub(super) fn matches(&self, end: &Endpoint) -> bool {
        let at_port = |ports: &RangeInclusive<u16>| end.port.is_some_and(|port| ports.contains(&port));
        self.ports.as_ref().is_none_or(at_port) && self.who.matches(end)
    }
}

impl Who {
    fn matches(&self, end: &Endpoint) -> bool {
        match (self, &end.identity) {
            (Self::Anyone, _)
            | (Self::Host, Identity::Host)
            | (Self::World, Identity::World(_))
            | (Self::Virtual, Identity::Virtual)
            | (Self::Multicast, Identity::Group) => true,
            (Self::Addresses(range), _) => range.contains(&end.ip),
            (Self::Named { pattern, .. }, Identity::Container(container)) => {
                pattern.is_container(container) || pattern.is_service(container)
            }
            (Self::Named { lower, .. }, Identity::World(Some(name))) => lower.matches(name),
            _ => false,
        }
    }
}

/// Address or range, and port, of `[fd00::/8]:443`, `10.0.0.7:443`, `web:443`.
fn split_ports(text: &str) -> Result<(&str, Option<&str>), FilterError> {
    if let Some(rest) = text.strip_prefix('[')
        && let Some((address, after)) = rest.split_once(']')
        && parse_addresses(address).is_ok()
    {
        return match after.strip_prefix(':') {
            Some(ports) => Ok((address, Some(ports))),
            None if after.is_empty() => Ok((address, None)),
            None => Err(FilterError::Brackets(text.to_owned())),
        };
    }
    match text.rsplit_once(':') {
        None => Ok((text, None)),
        Some((who, _)) if who.contains(':') => Err(FilterError::Brackets(text.to_owned())),
        Some((who, ports)) => Ok((who, Some(ports))),
    }
}

/// Such a text is never a name: `10.0.0.300`, `10.0.0.0/33`, `::1/129`.
fn looks_like_addresses(text: &str) -> bool {
    let address = text.split('/').next().unwrap_or(text);
    address.contains(':')
        || address.contains('.') && address.bytes().all(|byte| byte == b'.' || byte.is_ascii_digit())
}

/// An address or a CIDR range; IPv4 in IPv6's clothes becomes IPv4.
pub(crate) fn parse_addresses(text: &str) -> Result<IpNet, FilterError> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address.to_canonical()));
    }
    if let Ok(range) = text.parse::<IpNet>() {
        let mapped_bits = range.prefix_len().checked_sub(96);
        return Ok(match (range.addr().to_canonical(), mapped_bits) {
            (IpAddr::V4(address), Some(bits)) if matches!(range, IpNet::V6(_)) => {
                Ipv4Net::new(address, bits).map_or(range, IpNet::V4)
            }
            _ => range,
        });
    }
    let wrong_prefix = text.split_once('/').and_then(|(address, _)| address.parse::<IpAddr>().ok());
    Err(match wrong_prefix {
        Some(address) => {
            FilterError::Prefix { text: text.to_owned(), bits: if address.is_ipv4() { 32 } else { 128 } }
        }
        None => FilterError::Address(text.to_owned()),
    })
}

/// `443` or `8000-8080`.
pub(super) fn parse_ports(text: &str) -> Result<RangeInclusive<u16>, FilterError> {
    let number = |digits: &str| match digits.bytes().all(|byte| byte.is_ascii_digit()) {
        true => digits.parse::<u16>().ok(),
        false => None,
    };
    let ports = match text.split_once('-') {
        None => number(text).map(|port| port..=port),
        Some((low, high)) => number(low).zip(number(high)).map(|(low, high)| low..=high),
    };
    match ports {
        None => Err(FilterError::Port(text.to_owned())),
        Some(ports) if ports.is_empty() => Err(FilterError::PortOrder(text.to_owned())),
        Some(ports) => Ok(ports),
    }
}
