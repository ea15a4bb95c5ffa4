//! A request as JSON, written field by field: there are more of these lines than of all others together, and a
//! general serializer took half of the time that a request costs.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use foldhash::fast::RandomState;
use jiff::Timestamp;
use serde::Serialize;
use weir_core::endpoint::Endpoint;
use weir_core::flow::ConnectionId;
use weir_core::record::{AttributeValue, Attributes, RequestRecord, Translated};

use super::serialize;

/// Connections whose ends are remembered; beyond them all are forgotten.
const CONNECTIONS_MAX: usize = 4_096;
/// Of a second that are written.
const FRACTION_DIGITS: usize = 9;

/// Writes requests, and remembers what is the same in many of them.
#[derive(Default)]
pub(super) struct Requests {
    time: TimeText,
    connections: HashMap<ConnectionId, Known, RandomState>,
}

impl Requests {
    /// Writes the same as the record's `Serialize` would.
    pub(super) fn write(&mut self, out: &mut Vec<u8>, request: &RequestRecord) -> io::Result<()> {
        let RequestRecord {
            time,
            flow,
            client,
            server,
            rule,
            translated,
            protocol,
            operation,
            target,
            status,
            ok,
            error,
            request_bytes,
            response_bytes,
            latency_us,
            total_us,
            matched,
            capture,
            attributes,
            revealed,
        } = request;
        out.extend_from_slice(b"{\"kind\":\"request\",\"time\":\"");
        out.extend_from_slice(self.time.of(*time));
        out.push(b'"');
        self.connection(out, &Connection { flow: *flow, client, server, rule, translated })?;
        out.extend_from_slice(b",\"protocol\":\"");
        out.extend_from_slice(protocol.as_bytes());
        out.extend_from_slice(b"\",\"operation\":");
        string(out, operation)?;
        if let Some(target) = target {
            out.extend_from_slice(b",\"target\":");
            string(out, target)?;
        }
        if let Some(status) = status {
            out.extend_from_slice(b",\"status\":");
            string(out, status)?;
        }
        if let Some(ok) = ok {
            out.extend_from_slice(if *ok { b",\"ok\":true" } else { b",\"ok\":false" });
        }
        if let Some(error) = error {
            out.extend_from_slice(b",\"error\":");
            string(out, error)?;
        }
        out.extend_from_slice(b",\"request_bytes\":");
        number(out, *request_bytes);
        out.extend_from_slice(b",\"response_bytes\":");
        number(out, *response_bytes);
        if let Some(latency_us) = latency_us {
            out.extend_from_slice(b",\"latency_us\":");
            number(out, *latency_us);
        }
        if let Some(total_us) = total_us {
            out.extend_from_slice(b",\"total_us\":");
            number(out, *total_us);
        }
        // As the protocol, these are names of the program's own.
        out.extend_from_slice(b",\"matched\":\"");
        out.extend_from_slice(matched.name().as_bytes());
        out.extend_from_slice(b"\",\"capture\":\"");
        out.extend_from_slice(capture.name().as_bytes());
        out.extend_from_slice(b"\",\"attributes\":");
        write_attributes(out, attributes)?;
        if !revealed.is_empty() {
            out.extend_from_slice(b",\"revealed\":");
            serialize(out, revealed)?;
        }
        out.push(b'}');
        Ok(())
    }

    /// The fields that say which connection it is, after others.
    fn connection(&mut self, out: &mut Vec<u8>, connection: &Connection<'_>) -> io::Result<()> {
        if let Some(known) = self.connections.get(&connection.flow)
            && known.is(connection)
        {
            out.extend_from_slice(&known.text);
            return Ok(());
        }
        let start = out.len();
        serialize(out, connection)?;
        // An object's fields, as part of the object that is being written.
        if let Some(brace) = out.get_mut(start) {
            *brace = b',';
        }
        out.pop();
        if self.connections.len() >= CONNECTIONS_MAX {
            self.connections.clear();
        }
        let text = out.get(start..).unwrap_or_default();
        self.connections.insert(connection.flow, Known::new(connection, text.into()));
        Ok(())
    }
}

/// Which connection a request came on.
#[derive(Serialize)]
struct Connection<'a> {
    flow: ConnectionId,
    client: &'a Endpoint,
    server: &'a Endpoint,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: &'a Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    translated: &'a Option<Box<Translated>>,
}

/// A connection as it was when it was written last: names change.
struct Known {
    client: Endpoint,
    server: Endpoint,
    rule: Option<Arc<str>>,
    translated: Option<Box<Translated>>,
    text: Box<[u8]>,
}

impl Known {
    fn new(connection: &Connection<'_>, text: Box<[u8]>) -> Self {
        Self {
            client: connection.client.clone(),
            server: connection.server.clone(),
            rule: connection.rule.clone(),
            translated: connection.translated.clone(),
            text,
        }
    }

    fn is(&self, connection: &Connection<'_>) -> bool {
        self.client == *connection.client
            && self.server == *connection.server
            && self.rule == *connection.rule
            && self.translated == *connection.translated
    }
}

/// A time as it stands in records. Until the second is over, only its fraction is written anew.
#[derive(Default)]
struct TimeText {
    /// Seconds since 1970.
    second: Option<i64>,
    text: Vec<u8>,
}

impl TimeText {
    fn of(&mut self, time: Timestamp) -> &[u8] {
        // Before 1970 it is negative, and not what is written.
        let fraction_ns = u32::try_from(time.subsec_nanosecond()).ok();
        let second = fraction_ns.map(|_| time.as_second());
        if second.is_none() || second != self.second {
            self.second = second;
            self.text = format!("{time:.FRACTION_DIGITS$}").into_bytes();
        } else if let Some(mut rest) = fraction_ns {
            for digit in self.text.iter_mut().rev().skip(b"Z".len()).take(FRACTION_DIGITS) {
                *digit = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
        }
        &self.text
    }
}

fn write_attributes(out: &mut Vec<u8>, attributes: &Attributes) -> io::Result<()> {
    let start = out.len();
    for (attribute, value) in attributes.iter() {
        out.extend_from_slice(attribute.json_key().as_bytes());
        match value {
            AttributeValue::Number(value) => number(out, *value),
            AttributeValue::Text(value) => string(out, value)?,
            AttributeValue::Texts(_) => serialize(out, value)?,
        }
    }
    match out.get_mut(start) {
        Some(comma) => *comma = b'{',
        None => out.push(b'{'),
    }
    out.push(b'}');
    Ok(())
}

fn number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

fn string(out: &mut Vec<u8>, text: &str) -> io::Result<()> {
    if !is_plain(text.as_bytes()) {
        return serialize(out, text);
    }
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
    Ok(())
}

/// Printable ASCII throughout, and nothing that JSON escapes, as nearly all values are.
fn is_plain(bytes: &[u8]) -> bool {
    let Some(last) = bytes.last_chunk() else {
        return bytes.iter().all(|byte| PLAIN[usize::from(*byte)]);
    };
    // Eight at a time: the highest bit says of a byte that it is not plain. What is borrowed by
    // one byte from the next is borrowed by one that is not plain itself.
    let others = |eight: &[u8; 8]| {
        let eight = u64::from_le_bytes(*eight);
        let is = |byte: u8| (eight ^ each(byte)).wrapping_sub(each(1));
        eight | eight.wrapping_sub(each(b' ')) | is(b'"') | is(b'\\') | is(DELETE)
    };
    let (eights, _) = bytes.as_chunks();
    eights.iter().fold(others(last), |found, eight| found | others(eight)) & each(0x80) == 0
}

const DELETE: u8 = 0x7f;

/// Eight times this byte.
const fn each(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

static PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = b' ';
    while byte < DELETE {
        plain[byte as usize] = byte != b'"' && byte != b'\\';
        byte += 1;
    }
    plain
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_in_every_place_is_looked_at() {
        for length in 1..20 {
            for place in 0..length {
                for byte in 0..=255 {
                    let mut bytes = vec![b'x'; length];
                    bytes[place] = byte;
                    let expected = (b' '..DELETE).contains(&byte) && byte != b'"' && byte != b'\\';
                    assert_eq!(is_plain(&bytes), expected, "{}", bytes.escape_ascii());
                }
            }
        }
        assert!(is_plain(b""));
    }
}
