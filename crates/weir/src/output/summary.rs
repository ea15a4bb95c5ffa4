//! A command's last lines: what was seen, and what was lost.

use std::io::{self, Write};

use weir_core::record::SummaryRecord;
use weir_core::text;

use super::cell::{BAD, Cell, DIM, GOOD};

pub(super) fn write(out: &mut impl Write, color: bool, summary: &SummaryRecord) -> io::Result<()> {
    let requests = summary.requests.map(|requests| format!("{}, ", counted(requests, "request")));
    let seen = format!(
        "{}{}, {}, {} in {}",
        requests.unwrap_or_default(),
        counted(summary.flows, "flow"),
        counted(summary.packets, "packet"),
        text::bytes(summary.bytes),
        text::duration_ms(summary.duration_ms)
    );
    let first = Cell::new(color).plain(&seen);
    let first = match summary.lost.is_empty() {
        true => first.plain("; ").styled(GOOD, "nothing lost"),
        false => first.plain("; ").styled(BAD, "lost:"),
    };
    writeln!(out, "{}", first.into_line())?;
    for (reason, count) in &summary.lost {
        let line = Cell::new(color).plain("  ").styled(BAD, &lost(reason, *count));
        writeln!(out, "{}", line.into_line())?;
    }
    if !summary.not_flows.is_empty() {
        let parts: Vec<_> =
            summary.not_flows.iter().map(|(reason, count)| not_flow(reason, *count)).collect();
        let line = Cell::new(color).styled(DIM, &format!("in no flow: {}", parts.join(", ")));
        writeln!(out, "{}", line.into_line())?;
    }
    if let Some(captured) = summary.captured_bytes {
        let left_out = match summary.left_out_bytes {
            Some(left_out) if left_out > 0 => format!(", {} of bodies left out", text::bytes(left_out)),
            _ => String::new(),
        };
        let line =
            Cell::new(color).styled(DIM, &format!("payload: {} read{left_out}", text::bytes(captured)));
        writeln!(out, "{}", line.into_line())?;
    }
    if !summary.not_parsed.is_empty() {
        let parts: Vec<_> =
            summary.not_parsed.iter().map(|(reason, count)| not_parsed(reason, *count)).collect();
        let line = Cell::new(color).styled(DIM, &format!("connections not read: {}", parts.join(", ")));
        writeln!(out, "{}", line.into_line())?;
    }
    Ok(())
}

/// What is missing, as a noun in the singular, and why. Reasons as in
/// `weir_core::loss`.
fn lost_words(reason: &str) -> Option<(&'static str, &'static str)> {
    Some(match reason {
        "malformed" => ("packet", "with a header that contradicts itself"),
        "truncated" => ("packet", "cut off within a header"),
        "fragment_unjoined" => ("fragment", "whose first one was not seen"),
        "table_full" => ("packet", "of flows that found no room in the flow table"),
        "redirect_refused" => ("packet", "that could not be redirected (weir redirect list)"),
        "headers_too_deep" => ("packet", "with too many VLAN tags or IPv6 extension headers"),
        "open_ring_full" => ("opening", "told late: the event ring was full"),
        "reopen_ring_full" => ("connection", "in the row of an older one: the event ring was full"),
        "close_ring_full" => ("end", "told late: the event ring was full"),
        "packet_ring_full" => ("packet", "not printed: the event ring was full"),
        "dns_ring_full" => ("DNS answer", "not read: the event ring was full"),
        "payload_ring_full" => ("piece", "of payload lost: its ring was full"),
        "payload_shed_bytes" => ("byte", "of bodies left out: the ring for payload was half full"),
        "dns_truncated" => ("DNS answer", "longer than what is captured, read in part"),
        "dns_names_evicted" => ("DNS name", "forgotten: there are too many"),
        "link_type_unknown" => ("packet", "of a link type that weir does not read"),
        "file_cut_off" => ("file", "that is cut off or damaged"),
        "stream_gaps_lost" => ("hole", "in TCP streams, acknowledged but not captured"),
        "stream_gaps_cut" => ("packet", "of streams captured only in part"),
        "stream_gaps_not_seen" => ("hole", "in TCP streams that nobody acknowledged"),
        "conversations_evicted" => {
            ("connection", "whose requests were not followed to the end: no memory left")
        }
        "conversations_refused" => ("connection", "not read: it began when there was no room for payload"),
        "messages_too_long" => ("message", "too long to be kept"),
        "tally_full" => ("packet", "in no flow, without room to count why"),
        "undecodable" => ("event", "that could not be understood"),
        _ => return None,
    })
}

fn lost(reason: &str, count: u64) -> String {
    match lost_words(reason) {
        Some((noun, why)) => format!("{} {why}", counted(count, noun)),
        None => format!("{}: {}", reason.replace('_', " "), text::count(count)),
    }
}

fn not_flow(reason: &str, count: u64) -> String {
    let what = match reason {
        "arp" => "ARP",
        "neighbor_discovery" => "IPv6 neighbor discovery",
        "non_ip" => "not IP",
        "further_hook" => "seen at a third device",
        other => other,
    };
    format!("{} {what}", text::count(count))
}

fn not_parsed(reason: &str, count: u64) -> String {
    let what = match reason {
        "not_understood" => "in a protocol that weir does not know",
        "encrypted" => "encrypted",
        "no_requests" => "without requests",
        "byte_limit" => "longer than what is read of one",
        other => other,
    };
    format!("{} {what}", text::count(count))
}

fn counted(count: u64, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", text::count(count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_core::l7::{Tally, Why};
    use weir_core::loss::{EventLosses, TallyReason};

    #[test]
    fn every_reason_has_words() {
        let tallied = TallyReason::ALL.into_iter().filter(|reason| reason.is_loss()).map(TallyReason::name);
        let events = EventLosses::default().named().map(|(name, _)| name);
        let requests = Tally::default().losses().map(|(name, _)| name);
        for reason in tallied.chain(events).chain(requests).chain([
            "dns_names_evicted",
            "file_cut_off",
            "link_type_unknown",
            "conversations_refused",
        ]) {
            assert!(lost_words(reason).is_some(), "{reason}");
        }
        for reason in TallyReason::ALL.into_iter().filter(|reason| !reason.is_loss()) {
            assert_ne!(not_flow(reason.name(), 1), format!("1 {}", reason.name()), "{reason:?}");
        }
        for why in Why::ALL {
            assert!(
                not_parsed(why.name(), 1).len() > 2 && !not_parsed(why.name(), 1).contains('_'),
                "{why:?}"
            );
        }
    }
}
