//! A namespace's own nftables and iptables.

use std::io::Write;
use std::net::SocketAddr;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use weir_testkit::Namespace;

/// iptables in front of nftables, as Debian, Ubuntu and Docker on them use it.
const IPTABLES: &str = "iptables-nft";
const IPTABLES_RESTORE: &str = "iptables-nft-restore";

/// Rules of the host's namespace.
pub(crate) struct Tables<'a>(&'a Namespace);

impl<'a> Tables<'a> {
    pub(crate) fn new(host: &'a Namespace) -> Self {
        Self(host)
    }

    /// The rules that Docker 20 to 27 writes for a host with `br0` (10.99.0.0/24)
    /// as its bridge and no published port: which frames meet connection
    /// tracking, and how many rules they pass, is as there.
    pub(crate) fn fill_like_docker(&self) -> Result<()> {
        self.feed(
            IPTABLES_RESTORE,
            &[],
            "*nat\n:DOCKER - [0:0]\n\
             -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n\
             -A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER\n\
             -A POSTROUTING -s 10.99.0.0/24 ! -o br0 -j MASQUERADE\n\
             -A DOCKER -i br0 -j RETURN\n\
             COMMIT\n\
             *filter\n:FORWARD DROP [0:0]\n\
             :DOCKER - [0:0]\n:DOCKER-USER - [0:0]\n\
             :DOCKER-ISOLATION-STAGE-1 - [0:0]\n:DOCKER-ISOLATION-STAGE-2 - [0:0]\n\
             -A FORWARD -j DOCKER-USER\n\
             -A FORWARD -j DOCKER-ISOLATION-STAGE-1\n\
             -A FORWARD -o br0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
             -A FORWARD -o br0 -j DOCKER\n\
             -A FORWARD -i br0 ! -o br0 -j ACCEPT\n\
             -A FORWARD -i br0 -o br0 -j ACCEPT\n\
             -A DOCKER-ISOLATION-STAGE-1 -i br0 ! -o br0 -j DOCKER-ISOLATION-STAGE-2\n\
             -A DOCKER-ISOLATION-STAGE-1 -j RETURN\n\
             -A DOCKER-ISOLATION-STAGE-2 -o br0 -j DROP\n\
             -A DOCKER-ISOLATION-STAGE-2 -j RETURN\n\
             -A DOCKER-USER -j RETURN\n\
             COMMIT\n",
        )
    }

    /// TCP and UDP from `asked` to `server`, in a table of its own.
    pub(crate) fn redirect_by_nftables(&self, asked: SocketAddr, server: SocketAddr) -> Result<()> {
        let rule = |protocol: &str| {
            format!("ip daddr {} {protocol} dport {} dnat to {server}\n", asked.ip(), asked.port())
        };
        let text = format!(
            "table ip bench {{\nchain prerouting {{\ntype nat hook prerouting priority dstnat;\n{}{}}}\n}}\n",
            rule("tcp"),
            rule("udp")
        );
        self.feed("nft", &["-f", "-"], &text)
    }

    /// The same in front of whatever the nat table has.
    pub(crate) fn redirect_by_iptables(&self, asked: SocketAddr, server: SocketAddr) {
        let (ip, port, server) = (asked.ip().to_string(), asked.port().to_string(), server.to_string());
        for protocol in ["tcp", "udp"] {
            self.0.run(
                IPTABLES,
                &[
                    "-w",
                    "-t",
                    "nat",
                    "-I",
                    "PREROUTING",
                    "-d",
                    &ip,
                    "-p",
                    protocol,
                    "--dport",
                    &port,
                    "-j",
                    "DNAT",
                    "--to-destination",
                    &server,
                ],
            );
        }
    }

    /// Without rules there is no connection tracking either.
    pub(crate) fn empty(&self) {
        self.0.run("nft", &["flush", "ruleset"]);
    }

    /// Runs `program` with `text` on its standard input.
    fn feed(&self, program: &str, args: &[&str], text: &str) -> Result<()> {
        let mut command = self.0.command(program);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot run {program}"))?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(text.as_bytes()).with_context(|| format!("{program} does not read its rules"))?;
        }
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("{program}: {}{}\n{text}", String::from_utf8_lossy(&output.stderr), output.status);
        }
        Ok(())
    }
}
