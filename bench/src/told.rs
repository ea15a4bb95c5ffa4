//! How many requests a program told of, counted in what it wrote.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

/// What weir told of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// Records of requests, but of those that were left aside.
    pub(crate) requests: u64,
    /// Of them: found with their answers, and seen whole.
    pub(crate) whole: u64,
    /// The sum of what its summary calls lost.
    pub(crate) lost: u64,
}

/// Counts the records that weir wrote, but for requests of these operations.
pub(crate) fn by_weir(path: &Path, aside: &[&str]) -> Result<Told> {
    let aside: Vec<_> = aside.iter().map(|operation| format!(r#","operation":"{operation}","#)).collect();
    let mut told = Told::default();
    let mut summary = None;
    let mut file = BufReader::with_capacity(1 << 20, File::open(path)?);
    let mut line = String::new();
    while file.read_line(&mut line).context("cannot read what weir wrote")? > 0 {
        if line.starts_with(r#"{"kind":"request""#) {
            // Quotation marks inside of texts are escaped: only fields look so.
            if !aside.iter().any(|field| line.contains(field)) {
                told.requests += 1;
                let is_whole = [r#","matched":"yes","#, r#","capture":"complete","#]
                    .iter()
                    .all(|field| line.contains(field));
                told.whole += u64::from(is_whole);
            }
        } else if line.starts_with(r#"{"kind":"summary""#) {
            summary = Some(serde_json::from_str::<Value>(&line)?);
        }
        line.clear();
    }
    let summary = summary.context("weir wrote no summary")?;
    let reasons = summary["lost"].as_object().context("the summary has no losses")?;
    // Bodies that were left out under load are counted in bytes; their requests are not whole.
    let counts = reasons.iter().filter(|(reason, _)| !reason.ends_with("_bytes"));
    told.lost = counts.filter_map(|(_, count)| count.as_u64()).sum();
    Ok(told)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_weir_wrote_is_counted() {
        let request = |operation: &str, matched: &str, target: &str| {
            format!(
                "{{\"kind\":\"request\",\"protocol\":\"mysql\",\"operation\":\"{operation}\",\
                 \"target\":\"{target}\",\"matched\":\"{matched}\",\"capture\":\"complete\",\"attributes\":{{}}}}\n"
            )
        };
        let text = [
            request("LOGIN", "yes", "shop"),
            request("SELECT", "yes", "SELECT \\\",\\\"operation\\\":\\\"LOGIN\\\",\\\""),
            request("SELECT", "no_response", ""),
            "{\"kind\":\"summary\",\"lost\":{\"payload_ring_full\":2,\"payload_shed_bytes\":9}}\n".to_owned(),
        ]
        .concat();
        let path = std::env::temp_dir().join(format!("weir-bench-told-{}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        let told = by_weir(&path, &["LOGIN"]).unwrap();
        let all = by_weir(&path, &[]).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(told, Told { requests: 2, whole: 1, lost: 2 });
        assert_eq!(all, Told { requests: 3, whole: 2, lost: 2 });
    }
}
