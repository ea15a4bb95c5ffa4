//! What a record can be asked.

use std::mem::discriminant;
use std::ops::RangeInclusive;

use ipnet::IpNet;
use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp};

use super::{Facts, FilterError, NamePattern, Selector, StatusPattern, parse_addresses, selector};
use crate::flow::Protocol;
use crate::l7;
use crate::record::{Attribute, RequestRecord, State, Verdict};

/// One flag of the command line with its value.
#[derive(Debug, Clone)]
pub enum Criterion {
    /// `--container`: either end is this container.
    Container(NamePattern),
    /// `--service`: either end is a container of this compose service.
    Service(NamePattern),
    /// `--from`: the client, or a packet's source.
    From(Selector),
    /// `--to`: the server, or a packet's destination.
    To(Selector),
    /// `--ip`: either end's address is in this range.
    Ip(IpNet),
    /// `--port`: either end's port is one of these.
    Port(RangeInclusive<u16>),
    /// `--protocol`: one of these.
    Protocol(Vec<Protocol>),
    /// `--protocol`: requests in this application protocol. Flows and packets
    /// have none.
    Application(&'static str),
    /// `--state`. Packets have none.
    State(State),
    /// `--verdict`: what weir did. Packets have none.
    Verdict(Verdict),
    /// `--interface`: seen at such a device.
    Interface(NamePattern),
    /// `--ip-version`, `-4`, `-6`.
    IpVersion(IpVersion),
    /// `--since`: not before this time.
    Since(Timestamp),
    /// `--method`: HTTP requests with such a method.
    Method(NamePattern),
    /// `--path`: HTTP requests for such a path.
    Path(NamePattern),
    /// `--status`: requests that were answered so.
    Status(StatusPattern),
    /// `--operation`: requests for such an operation.
    Operation(NamePattern),
    /// `--statement`: database requests whose statement contains this, in
    /// lower case.
    Statement(String),
    /// `--key`: requests for such a key or name.
    Key(NamePattern),
    /// `--slow`: requests whose answer took so many microseconds or more.
    Slow(u64),
    /// `--errors`: requests that failed.
    Errors,
}

/// The version of the Internet Protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IpVersion {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Criterion {
    /// `--container`: a name, `project/service` as weir shows it, four or more
    /// digits of an id, or a glob over names.
    ///
    /// # Errors
    /// If the text is empty or a broken glob.
    pub fn parse_container(text: &str) -> Result<Self, FilterError> {
        NamePattern::parse("container", text).map(Self::Container)
    }

    /// `--service`: `service`, `project/service`, or a glob over either.
    ///
    /// # Errors
    /// If the text is empty or a broken glob.
    pub fn parse_service(text: &str) -> Result<Self, FilterError> {
        NamePattern::parse("service", text).map(Self::Service)
    }

    /// `--from`: see [`Selector::parse`].
    ///
    /// # Errors
    /// As [`Selector::parse`].
    pub fn parse_from(text: &str) -> Result<Self, FilterError> {
        Selector::parse(text).map(Self::From)
    }

    /// `--to`: see [`Selector::parse`].
    ///
    /// # Errors
    /// As [`Selector::parse`].
    pub fn parse_to(text: &str) -> Result<Self, FilterError> {
        Selector::parse(text).map(Self::To)
    }

    /// `--ip`: an address, or a range in CIDR notation.
    ///
    /// # Errors
    /// If it is neither.
    pub fn parse_ip(text: &str) -> Result<Self, FilterError> {
        parse_addresses(text).map(Self::Ip)
    }

    /// `--port`: a number, or a range `8000-8080`.
    ///
    /// # Errors
    /// If it is neither.
    pub fn parse_port(text: &str) -> Result<Self, FilterError> {
        selector::parse_ports(text).map(Self::Port)
    }

    /// `--protocol`: a name or a number. `icmp` stands for both ICMP and
    /// ICMPv6, as users say it; `icmpv6` and the number 1 are exact.
    ///
    /// # Errors
    /// If there is no such protocol.
    pub fn parse_protocol(text: &str) -> Result<Self, FilterError> {
        if let Some(name) = l7::names().find(|name| name.eq_ignore_ascii_case(text)) {
            return Ok(Self::Application(name));
        }
        let protocol = Protocol::parse(text).ok_or_else(|| FilterError::Protocol(text.to_owned()))?;
        let both = text.eq_ignore_ascii_case("icmp");
        Ok(Self::Protocol(if both { vec![Protocol::ICMP, Protocol::ICMPV6] } else { vec![protocol] }))
    }

    /// `--state`: one of [`State::ALL`] by its name.
    ///
    /// # Errors
    /// If there is no such state.
    pub fn parse_state(text: &str) -> Result<Self, FilterError> {
        State::ALL
            .into_iter()
            .find(|state| state.name().eq_ignore_ascii_case(text))
            .map(Self::State)
            .ok_or_else(|| FilterError::State(text.to_owned()))
    }

    /// `--verdict`: one of [`Verdict::ALL`] by its name.
    ///
    /// # Errors
    /// If there is no such verdict.
    pub fn parse_verdict(text: &str) -> Result<Self, FilterError> {
        Verdict::ALL
            .into_iter()
            .find(|verdict| verdict.name().eq_ignore_ascii_case(text))
            .map(Self::Verdict)
            .ok_or_else(|| FilterError::Verdict(text.to_owned()))
    }

    /// `--interface`: a device name, or a glob.
    ///
    /// # Errors
    /// If the text is empty or a broken glob.
    pub fn parse_interface(text: &str) -> Result<Self, FilterError> {
        NamePattern::parse("interface", text).map(Self::Interface)
    }

    /// `--ip-version`: 4 or 6.
    ///
    /// # Errors
    /// If it is neither.
    pub fn parse_ip_version(text: &str) -> Result<Self, FilterError> {
        match text {
            "4" => Ok(Self::IpVersion(IpVersion::V4)),
            "6" => Ok(Self::IpVersion(IpVersion::V6)),
            _ => Err(FilterError::IpVersion(text.to_owned())),
        }
    }

    /// `--since`: how long ago (`90s`, `2h 30m`, `1d`), or a time (RFC 3339).
    ///
    /// # Errors
    /// If it is neither, or out of range.
    pub fn parse_since(text: &str, now: Timestamp) -> Result<Self, FilterError> {
        let wrong = || FilterError::Since(text.to_owned());
        if let Ok(time) = text.parse::<Timestamp>() {
            return Ok(Self::Since(time));
        }
        let ago: Span = text.parse().map_err(|_| wrong())?;
        let ago = ago.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| wrong())?;
        if ago.is_negative() {
            return Err(wrong());
        }
        now.checked_sub(ago).map(Self::Since).map_err(|_| wrong())
    }

    /// `--method`: a name or a glob; case does not matter.
    ///
    /// # Errors
    /// If the text is empty or a broken glob.
    pub fn parse_method(text: &str) -> Result<Self, FilterError> {
        NamePattern::parse("method", &text.to_uppercase()).map(Self::Method)
    }

    /// `--path`: a path or a glob, without the query.
    ///
    /// # Errors
    /// If the text is empty or a broken glob.
    pub fn parse_path(text: &str) -> Result<Self, FilterError> {
        NamePattern::parse("path", text).map(Self::Path)
    }

    /// `--status`: see [`StatusPattern::parse`].
    ///
    /// # Errors
    /// As [`StatusPattern::parse`].
    pub fn parse_status(text: &str) -> Result<Self, FilterError> {
        StatusPattern::parse(text).map(Self::Status)
    }

    /// `--operation`: a name or a glob; case does not matter.
    ///
    /// # Errors
    /// If the text is empty or a broken glob.
    pub fn parse_operation(text: &str) -> Result<Self, FilterError> {
        NamePattern::parse("operation", &text.to_uppercase()).map(Self::Operation)
    }

    /// `--statement`: any text; case does not matter.
    ///
    /// # Errors
    /// If it is empty.
    pub fn parse_statement(text: &str) -> Result<Self, FilterError> {
        if text.is_empty() {
            return Err(FilterError::Empty("statement"));
        }
        Ok(Self::Statement(text.to_lowercase()))
    }

    /// `--key`: a key, a name, or a glob.
    ///
    /// # Errors
    /// If the text is empty or a broken glob.
    pub fn parse_key(text: &str) -> Result<Self, FilterError> {
        NamePattern::parse("key", text).map(Self::Key)
    }

    /// `--slow`: a duration (`100ms`, `2s`).
    ///
    /// # Errors
    /// If it is none, or negative.
    pub fn parse_slow(text: &str) -> Result<Self, FilterError> {
        let duration: Option<SignedDuration> = text.parse().ok();
        let microseconds = duration.and_then(|duration| u64::try_from(duration.as_micros()).ok());
        microseconds.map(Self::Slow).ok_or_else(|| FilterError::Duration(text.to_owned()))
    }

    pub(super) fn is_of_same_flag(&self, other: &Self) -> bool {
        let is_protocol = |one: &Self| matches!(one, Self::Protocol(_) | Self::Application(_));
        discriminant(self) == discriminant(other) || is_protocol(self) && is_protocol(other)
    }

    pub(super) fn matches(&self, facts: &Facts<'_>) -> bool {
        match self {
            Self::Container(pattern) => facts.either_container(|container| pattern.is_container(container)),
            Self::Service(pattern) => facts.either_container(|container| pattern.is_service(container)),
            Self::From(selector) => facts.clients().any(|client| selector.matches(client)),
            Self::To(selector) => facts.servers().any(|server| selector.matches(server)),
            Self::Ip(range) => facts.ends().any(|end| range.contains(&end.ip)),
            Self::Port(ports) => facts.ends().any(|end| end.port.is_some_and(|port| ports.contains(&port))),
            Self::Protocol(protocols) => facts.protocol.is_some_and(|protocol| protocols.contains(&protocol)),
            Self::Application(name) => facts.application == Some(name),
            Self::State(state) => facts.state == Some(*state),
            Self::Verdict(verdict) => facts.verdict() == Some(*verdict),
            Self::Interface(pattern) => facts.interfaces().any(|name| pattern.matches(name)),
            Self::IpVersion(version) => facts.from.ip.is_ipv4() == (*version == IpVersion::V4),
            Self::Since(time) => facts.time >= *time,
            Self::Method(_)
            | Self::Path(_)
            | Self::Status(_)
            | Self::Operation(_)
            | Self::Statement(_)
            | Self::Key(_)
            | Self::Slow(_)
            | Self::Errors => facts.request().is_some_and(|request| self.matches_request(request)),
        }
    }

    fn matches_request(&self, request: &RequestRecord) -> bool {
        let text = |attribute| request.attributes.text(attribute);
        match self {
            Self::Method(pattern) => {
                text(Attribute::HttpRequestMethod).is_some()
                    && pattern.matches(&request.operation.to_uppercase())
            }
            Self::Path(pattern) => text(Attribute::UrlPath).is_some_and(|path| pattern.matches(path)),
            Self::Status(pattern) => request.status.as_ref().is_some_and(|status| pattern.matches(status)),
            Self::Operation(pattern) => pattern.matches(&request.operation.to_uppercase()),
            Self::Statement(part) => {
                text(Attribute::DbQueryText).is_some_and(|statement| statement.to_lowercase().contains(part))
            }
            Self::Key(pattern) => request.target.as_ref().is_some_and(|target| pattern.matches(target)),
            Self::Slow(least) => request.latency_us.is_some_and(|latency| latency >= *least),
            Self::Errors => request.ok == Some(false),
            _ => false,
        }
    }
}
