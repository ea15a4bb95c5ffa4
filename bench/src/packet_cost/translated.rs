//! Packets of a connection that is redirected.

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use weir_core::redirect::{
    Compiled, CompiledMatch, CompiledRule, CompiledTarget, InterfacePlace, Place, RuleId, SLOTS, TargetId,
};
use weir_kernel::{Datapath, Options};
use weir_testkit::packet::Frame;

use super::programs::renewing;
use super::{EGRESS, INGRESS, MAX_FLOWS, REPEAT, Row, Sample, Zero, single_runs};

/// Each row twice: with the packet made anew before each run, for a program may not run on what it has translated;
/// and one run a call, with caches as cold as the call leaves them. One of an untranslated flow stands beside them.
pub(super) fn rows(
    second: u32,
    row: impl Fn(&'static str, Option<f64>, Zero, Sample) -> Row,
) -> Result<Vec<Row>> {
    let options = Options { max_flows: MAX_FLOWS, redirects: true, ..Options::default() };
    let datapath = Arc::new(Datapath::load(&options).context("the programs do not load")?);
    let redirects = datapath.redirects().context("the redirects cannot be opened")?;
    redirects.set(&one_redirect(second)?).context("the redirect cannot be written")?;
    let frame = |from: &str, to: &str, ports: (u16, u16), flags| {
        Frame::between(from, to).tcp(ports.0, ports.1, flags).payload(&[0; 100]).build()
    };
    let (client, asked, server) = ("10.0.0.1", "10.0.0.2", "10.0.0.3");
    // The two connections begin.
    for (to, ports) in [(asked, (43122, 8080)), (server, (43123, 80))] {
        datapath.test_run(INGRESS, second, &frame(client, to, ports, "S"), 1)?;
        datapath.test_run(EGRESS, second, &frame(server, client, (80, ports.0), "SA"), 1)?;
        datapath.test_run(INGRESS, second, &frame(client, to, ports, "A"), 1)?;
    }
    let there = frame(client, asked, (43122, 8080), "A");
    let back = frame(server, client, (80, 43122), "A");
    let plain = frame(client, server, (43123, 80), "A");
    let measured = [
        ("known flow, redirects on", "one run a call: known flow, redirects on", Some(70.0), INGRESS, plain),
        (
            "translated, to the server",
            "one run a call: translated, to the server",
            Some(110.0),
            INGRESS,
            there,
        ),
        ("translated, to the client", "one run a call: translated, to the client", Some(110.0), EGRESS, back),
    ];
    let (mut many, mut single) = (Vec::new(), Vec::new());
    for (name, name_single, target_ns, program, frame) in measured {
        let fd = datapath.program(program).context("the program is not loaded")?;
        let (renewing, copy) = (renewing(&fd, &frame)?, frame.clone());
        let sample = move || renewing.run(second, &copy, REPEAT);
        many.push(row(name, target_ns, Zero::Renewed, Box::new(sample)));
        let datapath = Arc::clone(&datapath);
        let sample = move || single_runs(|_| Ok(datapath.test_run(program, second, &frame, 1)?.duration_ns));
        single.push(row(name_single, None, Zero::Single, Box::new(sample)));
    }
    many.append(&mut single);
    Ok(many)
}

/// Port 8080 of 10.0.0.2 goes to port 80 of 10.0.0.3, for the container behind this interface.
fn one_redirect(ifindex: u32) -> Result<Compiled> {
    let (asked, server) = (IpAddr::from([10, 0, 0, 2]), IpAddr::from([10, 0, 0, 3]));
    let rule = RuleId::new(1, 0).context("1 is the number of a rule")?;
    let mut compiled = Compiled { numbers: [rule.number()].into(), ..Compiled::default() };
    let ports = CompiledMatch { rule, protocol: 0, port_first: 8080, port_last: 8080, limited: false };
    compiled.matches.insert(asked, vec![ports]);
    let slots = vec![TargetId(1); SLOTS];
    compiled.rules.insert(rule, CompiledRule { expires_ns: 0, source: None, slots, fast_path: false });
    compiled.targets.insert(TargetId(1), CompiledTarget { address: server, port_first: 80 });
    let (host_mac, mac) = ([2, 0, 0, 0, 0, 9], [2, 0, 0, 0, 0, 3]);
    compiled.interfaces.insert(ifindex, InterfacePlace { bridge_ifindex: 1, host_mac, container_side: true });
    compiled.endpoints.insert(server, Place { ifindex: ifindex + 1, bridge_ifindex: 1, mac });
    Ok(compiled)
}
