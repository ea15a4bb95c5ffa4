//! What weir counts is what the devices count: exactly, in both directions, of
//! every veth.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use weir_testkit::traffic::{self, EchoServer};
use weir_testkit::{Counters, Daemon, Namespace, Stream, Topology, require_root, wait_until};

use crate::weir::{LIMIT, Run, Weir, at_interface, number};

const CONTAINERS: [&str; 2] = ["web", "db"];

/// A run of weir, and what each device counted in exactly the same time.
struct Measured {
    run: Run,
    devices: BTreeMap<&'static str, Counters>,
}

fn counters(topology: &Topology) -> BTreeMap<&'static str, Counters> {
    CONTAINERS.into_iter().map(|name| (name, topology.counters(name))).collect()
}

/// Runs `traffic` under weir. A packet that passes while weir starts or ends
/// would be counted by one side only: then it is done again.
#[track_caller]
fn measure(topology: &Topology, traffic: impl FnMut()) -> Measured {
    measure_with(topology, &[], traffic)
}

#[track_caller]
fn measure_with(topology: &Topology, args: &[&str], mut traffic: impl FnMut()) -> Measured {
    for _ in 0..5 {
        let before = counters(topology);
        let weir = Weir::observe(topology.host(), args);
        let at_start = counters(topology);
        traffic();
        let mut last = counters(topology);
        wait_until(LIMIT, "the devices fall silent", || {
            std::thread::sleep(Duration::from_millis(50));
            let now = counters(topology);
            std::mem::replace(&mut last, now) == last
        });
        let run = weir.finish();
        if before == at_start && last == counters(topology) {
            let devices = last.iter().map(|(name, counters)| (*name, *counters - before[name])).collect();
            return Measured { run, devices };
        }
    }
    panic!("there were packets on the wire at each start or end of weir");
}

impl Measured {
    /// Holds every sum against the devices' counters, and returns the packets
    /// counted. Nothing may be lost.
    #[track_caller]
    fn assert_equal(&self) -> u64 {
        assert_eq!(self.run.summary["lost"], serde_json::json!({}), "{}", self.run.summary);
        self.assert_equal_with_losses()
    }

    #[track_caller]
    fn assert_equal_with_losses(&self) -> u64 {
        let mut packets = 0;
        for (name, device) in &self.devices {
            let seen = at_interface(&self.run.summary, &format!("veth-{name}"));
            let context = format!("veth-{name}: weir {seen}, device {device:?}, {}", self.run.summary);
            assert_eq!(number(&seen["ingress_packets"]), device.rx_packets, "{context}");
            assert_eq!(number(&seen["ingress_bytes"]), device.rx_bytes, "{context}");
            // What a device throws away instead of sending it has passed the
            // hook already, and is in no byte counter of the device.
            assert_eq!(number(&seen["egress_packets"]), device.tx_packets + device.tx_dropped, "{context}");
            if device.tx_dropped == 0 {
                assert_eq!(number(&seen["egress_bytes"]), device.tx_bytes, "{context}");
            } else {
                assert!(number(&seen["egress_bytes"]) > device.tx_bytes, "{context}");
            }
            packets += number(&seen["ingress_packets"]) + number(&seen["egress_packets"]);
        }

        // The records add up to the same: flows, what is in no flow, what is lost.
        let in_flows: u64 = self
            .run
            .flows(|_| true)
            .iter()
            .flat_map(|flow| flow["interfaces"].as_array().expect("interfaces"))
            .map(|interface| number(&interface["ingress_packets"]) + number(&interface["egress_packets"]))
            .sum();
        let reasons = |field: &str| -> u64 {
            self.run.summary[field].as_object().expect("an object").values().map(number).sum()
        };
        assert_eq!(in_flows + reasons("not_flows") + reasons("lost"), packets, "{}", self.run.lines());
        packets
    }
}

/// iperf3 from web to db; its server ends with the client.
fn iperf3(topology: &Topology, args: &[&str]) {
    let (web, db) = (topology.container("web"), topology.container("db"));
    let mut command = db.namespace().command("iperf3");
    let mut server = Daemon::start("iperf3 server", command.args(["--server", "--one-off", "--forceflush"]));
    server.wait_for_line(Stream::Out, LIMIT, |line| line.starts_with("Server listening"));
    let address = db.ipv4().to_string();
    web.namespace().run("iperf3", &[&["--client", &address, "--connect-timeout", "5000"], args].concat());
    server.wait(LIMIT);
}

fn mixed(topology: &Topology) {
    let web: &Namespace = topology.container("web").namespace();
    let db = topology.container("db");
    for ip in [IpAddr::V4(db.ipv4()), IpAddr::V6(db.ipv6())] {
        let server = EchoServer::tcp(db.namespace(), ip);
        traffic::tcp_echo(web, server.address(), 5, 200_000);
        let server = EchoServer::udp(db.namespace(), ip);
        traffic::udp_echo(web, server.address(), 20, 3000); // in fragments
        traffic::ping(web, ip, 3, 56);
    }
    traffic::ping(web, Topology::HOST_IPV4, 3, 56);
    traffic::ping(web, Topology::HOST_IPV6, 3, 2000);
}

#[test]
fn root_sums_of_mixed_traffic() {
    require_root!();
    let topology = Topology::with_containers(&CONTAINERS);
    let packets = measure(&topology, || mixed(&topology)).assert_equal();
    assert!(packets > 200, "{packets}");
}

#[test]
fn root_sums_with_clsact() {
    require_root!();
    let topology = Topology::with_containers(&CONTAINERS);
    measure_with(&topology, &["--attach", "clsact"], || mixed(&topology)).assert_equal();
}

/// What has no room in the table is said to be lost, packet by packet.
#[test]
fn root_sums_when_the_table_is_full() {
    require_root!();
    let topology = Topology::with_containers(&CONTAINERS);
    let (web, db) = (topology.container("web").namespace(), topology.container("db"));
    let measured = measure_with(&topology, &["--max-flows", "16"], || {
        let server = EchoServer::udp(db.namespace(), db.ipv4());
        for _ in 0..200 {
            traffic::udp_echo(web, server.address(), 2, 100);
        }
    });
    let lost = measured.run.summary["lost"].as_object().expect("an object");
    assert_eq!(lost.keys().collect::<Vec<_>>(), ["table_full"], "{}", measured.run.summary);
    // Each of the 800 packets passes two hooks.
    assert!(measured.assert_equal_with_losses() >= 1600);
}

#[test]
fn root_sums_under_tcp_load() {
    require_root!();
    let topology = Topology::with_containers(&CONTAINERS);
    let measured = measure(&topology, || iperf3(&topology, &["--parallel", "4", "--time", "2"]));
    assert!(measured.assert_equal() > 1000);
}

#[test]
fn root_sums_under_tcp_load_in_small_segments() {
    require_root!();
    let topology = Topology::with_containers(&CONTAINERS);
    for name in CONTAINERS {
        topology.container(name).namespace().set_offloads("eth0", &["tso", "gso", "gro"], false);
    }
    let measured = measure(&topology, || {
        iperf3(&topology, &["--parallel", "2", "--time", "1", "--set-mss", "536", "--reverse"]);
    });
    assert!(measured.assert_equal() > 1000);
}

#[test]
fn root_sums_under_small_udp() {
    require_root!();
    let topology = Topology::with_containers(&CONTAINERS);
    let measured = measure(&topology, || {
        iperf3(&topology, &["--udp", "--bitrate", "0", "--length", "64", "--time", "2"]);
    });
    assert!(measured.assert_equal() > 10_000);
}
