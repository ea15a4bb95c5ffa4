//! How many requests a program told of, counted in what it wrote.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

/// Records of requests that weir wrote, and the sum of what its summary calls lost.
pub(crate) fn by_weir(path: &Path) -> Result<(u64, u64)> {
    let mut file = BufReader::with_capacity(1 << 20, File::open(path)?);
    let mut line = Vec::new();
    let (mut requests, mut lost) = (0, None);
    while file.read_until(b'\n', &mut line).context("cannot read what weir wrote")? > 0 {
        if line.starts_with(br#"{"kind":"request""#) {
            requests += 1;
        } else if line.starts_with(br#"{"kind":"summary""#) {
            let summary: Value = serde_json::from_slice(&line)?;
            let reasons = summary["lost"].as_object().context("the summary has no losses")?;
            // Bodies that were left out under load are counted in bytes.
            let counts = reasons.iter().filter(|(reason, _)| !reason.ends_with("_bytes"));
            lost = Some(counts.filter_map(|(_, count)| count.as_u64()).sum());
        }
        line.clear();
    }
    Ok((requests, lost.context("weir wrote no summary")?))
}

/// Values that tshark printed: a line for each packet, with commas in it where
/// several requests were in one packet.
pub(crate) fn by_tshark(path: &Path) -> Result<u64> {
    let mut file = BufReader::with_capacity(1 << 20, File::open(path)?);
    let mut line = Vec::new();
    let mut values = 0;
    while file.read_until(b'\n', &mut line).context("cannot read what tshark wrote")? > 0 {
        values += 1 + line.iter().filter(|byte| **byte == b',').count() as u64;
        line.clear();
    }
    Ok(values)
}

/// Messages of WebSocket connections that weir told of.
pub(crate) fn messages_by_weir(path: &Path) -> Result<u64> {
    let text = std::fs::read_to_string(path).context("cannot read what weir wrote")?;
    let mut messages = 0;
    for line in text.lines() {
        let record: Value = serde_json::from_str(line)?;
        for name in ["weir.websocket.sent_messages", "weir.websocket.received_messages"] {
            messages += record["attributes"][name].as_u64().unwrap_or(0);
        }
    }
    Ok(messages)
}
