//! Filters on the command line, and `--not` before one of them.

use std::ffi::OsString;

use clap::Args;
use jiff::Timestamp;
use weir_core::filter::{Criterion, Filter, FilterError};

macro_rules! filter_args {
    ($name:ident, $names:ident, $heading:literal, { $($extra:tt)* },
     $($field:ident / $negated:ident, $long:literal / $not_long:literal, $value:literal, $help:literal;)*) => {
        /// One list for each filter, and a hidden one for its negation, which
        /// [`expand_not`] writes.
        #[derive(Debug, Clone, Default, Args)]
        pub struct $name {
            $(
                #[doc = $help]
                #[arg(long = $long, value_name = $value, help_heading = $heading)]
                pub $field: Vec<String>,
                #[doc = concat!("What `--not --", $long, "` becomes.")]
                #[arg(long = $not_long, value_name = $value, hide = true)]
                pub $negated: Vec<String>,
            )*

            $($extra)*
        }

        /// Names of the filters, as they are typed.
        const $names: &[&str] = &[$($long),*];

        impl $name {
            fn add_lists(&self, filter: &mut Filter, now: Timestamp) -> Result<(), FilterError> {
                $(
                    for (values, negated) in [(&self.$field, false), (&self.$negated, true)] {
                        for value in values {
                            filter.add(parse($long, value, now)?, negated);
                        }
                    }
                )*
                Ok(())
            }
        }
    };
}

filter_args! {
    FilterArgs, NAMES, "Filters",
    {
        /// IPv4 only.
        #[arg(short = '4', help_heading = "Filters", conflicts_with = "ipv6_only")]
        pub ipv4_only: bool,

        /// IPv6 only.
        #[arg(short = '6', help_heading = "Filters")]
        pub ipv6_only: bool,

        /// Turn the next filter round: `--not --port 53`.
        #[arg(long = "not", help_heading = "Filters")]
        pub not: bool,
    },
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
    verdict / not_verdict, "verdict" / "not-verdict", "VERDICT",
        "forwarded or redirected.";
    interface / not_interface, "interface" / "not-interface", "NAME",
        "Watch these interfaces, by name or pattern, instead of all containers' veths.";
    ip_version / not_ip_version, "ip-version" / "not-ip-version", "4|6",
        "Version of IP.";
    since / not_since, "since" / "not-since", "TIME",
        "Flows that began since then: an age (5m) or a time (RFC 3339).";
}

filter_args! {
    AuditFilterArgs, AUDIT_NAMES, "Requests",
    {
        /// Those that failed, by what the server said.
        #[arg(long = "errors", help_heading = "Requests")]
        pub errors: bool,
        /// What `--not --errors` becomes.
        #[arg(long = "not-errors", hide = true, conflicts_with = "errors")]
        pub not_errors: bool,
    },
    method / not_method, "method" / "not-method", "NAME",
        "HTTP: the method (GET), or a pattern.";
    path / not_path, "path" / "not-path", "GLOB",
        "HTTP: the path, or a pattern: '/orders/*'.";
    status / not_status, "status" / "not-status", "STATUS",
        "The status: 404, 5xx, '>=400', NXDOMAIN.";
    operation / not_operation, "operation" / "not-operation", "NAME",
        "What was asked for: method, command, record type; or a pattern.";
    statement / not_statement, "statement" / "not-statement", "TEXT",
        "Databases: the statement contains this text; case does not matter.";
    key / not_key, "key" / "not-key", "GLOB",
        "What was asked for a key or a name is this one, or fits the pattern.";
    slow / not_slow, "slow" / "not-slow", "TIME",
        "The answer took this long or longer to begin (100ms, 2s).";
}

const ERRORS: &str = "errors";

impl FilterArgs {
    /// Checks and compiles.
    ///
    /// # Errors
    /// A value that its filter does not take.
    pub fn compile(&self, now: Timestamp) -> Result<Filter, FilterError> {
        let mut filter = Filter::default();
        self.add_lists(&mut filter, now)?;
        for (wanted, version) in [(self.ipv4_only, "4"), (self.ipv6_only, "6")] {
            if wanted {
                filter.add(Criterion::parse_ip_version(version)?, false);
            }
        }
        Ok(filter)
    }
}

impl AuditFilterArgs {
    /// Checks, compiles, and adds to those between whom.
    ///
    /// # Errors
    /// A value that its filter does not take.
    pub fn add_to(&self, filter: &mut Filter, now: Timestamp) -> Result<(), FilterError> {
        self.add_lists(filter, now)?;
        for (given, negated) in [(self.errors, false), (self.not_errors, true)] {
            if given {
                filter.add(Criterion::Errors, negated);
            }
        }
        Ok(())
    }
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
        "verdict" => Criterion::parse_verdict(value),
        "interface" => Criterion::parse_interface(value),
        "ip-version" => Criterion::parse_ip_version(value),
        "method" => Criterion::parse_method(value),
        "path" => Criterion::parse_path(value),
        "status" => Criterion::parse_status(value),
        "operation" => Criterion::parse_operation(value),
        "statement" => Criterion::parse_statement(value),
        "key" => Criterion::parse_key(value),
        "slow" => Criterion::parse_slow(value),
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
        let filter = name.split('=').next().unwrap_or_default();
        let mut all = NAMES.iter().chain(AUDIT_NAMES).chain([&ERRORS]);
        if !all.clone().any(|one| *one == filter) {
            let all: Vec<&str> = all.by_ref().copied().collect();
            return Err(format!(
                "--not stands before a filter (--{}, -4 or -6), not before {text:?}",
                all.join(", --")
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
        assert_eq!(expand("--not --errors --not --path /a").unwrap(), "--not-errors --not-path /a");
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
        let values =
            ["web", "web", "web", "world", "::/0", "1-2", "udp", "reset", "redirected", "lo", "4", "5m"];
        let audit_values = ["GET", "/a/*", "5xx", "GET", "users", "user:*", "100ms"];
        assert_eq!((NAMES.len(), AUDIT_NAMES.len()), (values.len(), audit_values.len()));
        for (name, value) in NAMES.iter().zip(values).chain(AUDIT_NAMES.iter().zip(audit_values)) {
            assert!(parse(name, value, Timestamp::UNIX_EPOCH).is_ok(), "{name} {value}");
        }
    }
}
