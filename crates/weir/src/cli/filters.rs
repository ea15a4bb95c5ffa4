//! Filters on the command line, and `--not` before one of them.

use std::ffi::OsString;

use clap::Args;
use jiff::Timestamp;
use weir_core::filter::{Criterion, Filter, FilterError};

macro_rules! filter_args {
    ($($field:ident / $negated:ident, $long:literal / $not_long:literal, $value:literal, $help:literal;)*) => {
        /// One list for each filter, and a hidden one for its negation, which
        /// [`expand_not`] writes.
        #[derive(Debug, Clone, Default, Args)]
        pub struct FilterArgs {
            $(
                #[doc = $help]
                #[arg(long = $long, value_name = $value, help_heading = "Filters")]
                pub $field: Vec<String>,
                #[doc = concat!("What `--not --", $long, "` becomes.")]
                #[arg(long = $not_long, value_name = $value, hide = true)]
                pub $negated: Vec<String>,
            )*

            /// IPv4 only.
            #[arg(short = '4', help_heading = "Filters", conflicts_with = "ipv6_only")]
            pub ipv4_only: bool,

            /// IPv6 only.
            #[arg(short = '6', help_heading = "Filters")]
            pub ipv6_only: bool,

            /// Turn the next filter round: `--not --port 53`.
            #[arg(long = "not", help_heading = "Filters")]
            pub not: bool,
        }

        /// Names of the filters, as they are typed.
        const NAMES: &[&str] = &[$($long),*];

        impl FilterArgs {
            /// Checks and compiles.
            ///
            /// # Errors
            /// A value that its filter does not take.
            pub fn compile(&self, now: Timestamp) -> Result<Filter, FilterError> {
                let mut filter = Filter::default();
                $(
                    for (values, negated) in [(&self.$field, false), (&self.$negated, true)] {
                        for value in values {
                            filter.add(parse($long, value, now)?, negated);
                        }
                    }
                )*
                for (wanted, version) in [(self.ipv4_only, "4"), (self.ipv6_only, "6")] {
                    if wanted {
                        filter.add(Criterion::parse_ip_version(version)?, false);
                    }
                }
                Ok(filter)
            }
        }
    };
}

filter_args! {
    container / not_container, "container" / "not-container", "NAME",
        "Either end is this container: name, id, or pattern with * and ?.";
    service / not_service, "service" / "not-service", "NAME",
        "Either end is this compose service: `web` or `shop/web`, or a pattern.";
    from / not_from, "from" / "not-from", "WHO",
        "The client: container, service, `host`, `world`, address, range or name, with or without `:port`.";
    to / not_to, "to" / "not-to", "WHO",
        "The server, likewise.";
    ip / not_ip, "ip" / "not-ip", "CIDR",
        "Either end has an address in this range.";
    port / not_port, "port" / "not-port", "PORT",
        "Either end has this port, or one of a range (8000-8099).";
    protocol / not_protocol, "protocol" / "not-protocol", "NAME",
        "tcp, udp, icmp, icmpv6, sctp, ... or an IANA number.";
    state / not_state, "state" / "not-state", "STATE",
        "new, established, closing, closed, reset or idle.";
    interface / not_interface, "interface" / "not-interface", "NAME",
        "Watch these interfaces, by name or pattern, instead of all containers' veths.";
    ip_version / not_ip_version, "ip-version" / "not-ip-version", "4|6",
        "Version of IP.";
    since / not_since, "since" / "not-since", "TIME",
        "Flows that began since then: an age (5m) or a time (RFC 3339).";
}

fn parse(name: &str, value: &str, now: Timestamp) -> Result<Criterion, FilterError> {
    match name {
        "container" => Criterion::parse_container(value),
        "service" => Criterion::parse_service(value),
        "from" => Criterion::parse_from(value),
        "to" => Criterion::parse_to(value),
        "ip" => Criterion::parse_ip(value),
        "port" => Criterion::parse_port(value),
        "protocol" => Criterion::parse_protocol(value),
        "state" => Criterion::parse_state(value),
        "interface" => Criterion::parse_interface(value),
        "ip-version" => Criterion::parse_ip_version(value),
        _ => Criterion::parse_since(value, now),
    }
}

/// Writes `--not --port 53` as `--not-port 53`, which the parser understands:
/// an option cannot say by itself which one comes after it.
///
/// # Errors
/// What stands after `--not` is no filter.
pub fn expand_not(arguments: impl IntoIterator<Item = OsString>) -> Result<Vec<OsString>, String> {
    let mut expanded = Vec::new();
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        if argument != "--not" {
            expanded.push(argument);
            continue;
        }
        let next = arguments.next().unwrap_or_default();
        let text = next.to_string_lossy();
        if let Some(version) = ["4", "6"].into_iter().find(|version| text == format!("-{version}")) {
            expanded.push(format!("--not-ip-version={version}").into());
            continue;
        }
        let name = text.strip_prefix("--").unwrap_or_default();
        if !NAMES.contains(&name.split('=').next().unwrap_or_default()) {
            return Err(format!(
                "--not stands before a filter (--{}, -4 or -6), not before {text:?}",
                NAMES.join(", --")
            ));
        }
        expanded.push(format!("--not-{name}").into());
    }
    Ok(expanded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(line: &str) -> Result<String, String> {
        expand_not(line.split(' ').map(OsString::from))
            .map(|words| words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn not_belongs_to_the_next_filter() {
        assert_eq!(expand("--not --port 53 --to web").unwrap(), "--not-port 53 --to web");
        assert_eq!(expand("--port 53 --not --ip=10.0.0.0/8").unwrap(), "--port 53 --not-ip=10.0.0.0/8");
        assert_eq!(expand("--not -6").unwrap(), "--not-ip-version=6");
    }

    #[test]
    fn not_before_anything_else_is_refused() {
        for line in ["--not", "--not --for 3s", "--not web", "--not --not --port 3"] {
            assert!(expand(line).unwrap_err().contains("--not stands before a filter"), "{line}");
        }
    }

    #[test]
    fn every_name_has_a_parser() {
        let values = ["web", "web", "web", "world", "::/0", "1-2", "udp", "reset", "lo", "4", "5m"];
        for (name, value) in NAMES.iter().zip(values) {
            assert!(parse(name, value, Timestamp::UNIX_EPOCH).is_ok(), "{name} {value}");
        }
        assert_eq!(NAMES.len(), values.len());
    }
}
