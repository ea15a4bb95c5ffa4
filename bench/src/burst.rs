//! Many flows that open at once: is each of them told, or its loss counted?

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use serde_json::Value;
use weir_testkit::{Topology, wait_until};

use crate::Plan;
use crate::flood::Flood;
use crate::observer::CountedWeir;
use crate::report::{Table, grouped};

/// Measures with one sending core and with two.
pub(crate) fn measure(plan: &Plan) -> Result<Vec<Table>> {
    let mut rows = Vec::new();
    for senders in [1, 2] {
        for _ in 0..plan.burst_rounds {
            rows.push(row(plan, senders)?);
        }
    }
    Ok(vec![Table {
        title: "A burst of openings".into(),
        note: format!(
            "{} flows, one UDP packet each, sent by one core or by two as fast as they can; weir observe -o jsonl \
             with its default sizes. Told: from the first packet to weir's last record of an opening. Not \
             delivered: openings that found no room in the event ring, as weir counts them (it finds these \
             flows in the table later). Missing: packets that the interface counted and weir's flows do not \
             hold; the target is that none is.",
            grouped(u64::from(plan.burst_flows))
        ),
        columns: vec![
            "senders",
            "sent in ms",
            "openings a second",
            "told in ms",
            "flows sent",
            "flows in weir",
            "not delivered",
            "missing",
        ],
        rows,
    }])
}

fn row(plan: &Plan, senders: u32) -> Result<Vec<String>> {
    let topology = Topology::with_containers(&["a", "b"]);
    let (a, b) = (topology.container("a"), topology.container("b"));
    let flood = Flood::new(a, b)?;
    let weir = CountedWeir::start(topology.host(), &plan.weir)?;
    let before = topology.counters("a").rx_packets;

    let started = Instant::now();
    let share = plan.burst_flows / senders;
    std::thread::scope(|scope| {
        let flood = &flood;
        let threads: Vec<_> = (0..senders)
            .map(|sender| scope.spawn(move || flood.send(sender * share..(sender + 1) * share, None)))
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| anyhow!("a sender ended early"))?.map(drop))
    })?;
    let sent = started.elapsed();
    let flows = u64::from(share * senders);
    // A frame that the veth dropped never came to the host.
    let arrived = flows.min(topology.counters("a").rx_packets - before);
    wait_until(Duration::from_secs(60), "weir has told every opening", || weir.opened() >= arrived);
    let told = started.elapsed();
    let (_, summary) = weir.stop()?;

    let number = |name: &str| {
        summary.get(name).and_then(Value::as_u64).with_context(|| format!("no {name}: {summary}"))
    };
    let lost =
        |reason: &str| summary.pointer(&format!("/lost/{reason}")).and_then(Value::as_u64).unwrap_or(0);
    let (seen, packets) = (number("flows")?, number("packets")?);
    Ok(vec![
        senders.to_string(),
        format!("{:.0}", sent.as_secs_f64() * 1000.0),
        grouped((flows as f64 / sent.as_secs_f64()) as u64),
        format!("{:.0}", told.as_secs_f64() * 1000.0),
        grouped(arrived),
        grouped(seen),
        grouped(lost("open_ring_full")),
        grouped(arrived.saturating_sub(packets)),
    ])
}
