//! One line a record, for people.

use std::io::{self, Write};

use anstyle::Style;
use jiff::tz::TimeZone;
use weir_core::record::{FlowEvent, FlowRecord, PacketRecord, Record, RequestRecord};
use weir_core::text;

use super::cell::{Cell, Columns};
use super::stats_table::StatsTable;
use super::{Out, Sink, flow_cells, packet_cells, request_cells, summary};

pub(super) struct Compact {
    zone: TimeZone,
    color: bool,
    flows: Columns,
    packets: Columns,
    requests: Columns,
    stats: StatsTable,
    out: Out,
}

impl Compact {
    pub(super) fn new(zone: TimeZone, color: bool, out: Out) -> Self {
        Self {
            zone,
            color,
            // Time, client, server, protocol, state (as wide as the longest), bytes.
            flows: Columns::new(&[12, 0, 0, 0, 11, 0], 1),
            // Time, interface, source, destination, protocol.
            packets: Columns::new(&[15, 0, 0, 0, 0], 1),
            // Time, client, server, protocol, what was asked, status, latency, bytes.
            requests: Columns::new(&[12, 0, 0, 0, 0, 0, 7, 0], 1),
            stats: StatsTable::new(color),
            out,
        }
    }

    fn cell(&self) -> Cell {
        Cell::new(self.color)
    }

    fn flow(&mut self, flow: &FlowRecord) -> String {
        let mut extra = self.cell();
        if let Some(rtt_us) = flow.rtt_us {
            extra = extra.part(Style::new(), &format!("rtt {}", text::duration_us(rtt_us.into())));
        }
        if flow.event == FlowEvent::Close {
            extra = extra.part(Style::new(), &format!("lasted {}", text::duration_ms(flow.duration_ms)));
        }
        let bytes = format!("{} / {}", text::bytes(flow.sent_bytes), text::bytes(flow.received_bytes));
        let cells = [
            self.cell().time(&self.zone, flow.time, 3),
            self.cell().endpoint(&flow.client),
            self.cell().gap(1).plain("→ ").server(&flow.client, &flow.server, flow.translated.as_deref()),
            flow_cells::protocol(self.cell(), flow.protocol, flow.icmp_type),
            flow_cells::state(self.cell(), flow.state),
            self.cell().plain(&bytes),
            flow_cells::notes(extra, flow),
        ];
        self.flows.fit(&cells);
        self.flows.line(&cells)
    }

    fn packet(&mut self, packet: &PacketRecord) -> String {
        let mut detail = packet_cells::flags(self.cell(), packet);
        if packet.tcp_flags.is_some() {
            let named = [
                ("seq", packet.tcp_seq),
                ("ack", packet_cells::acknowledged(packet)),
                ("win", packet.tcp_window.map(u32::from)),
            ];
            let numbers: Vec<_> = named
                .into_iter()
                .filter_map(|(name, number)| number.map(|number| format!("{name} {number}")))
                .collect();
            detail = detail.part(Style::new(), &numbers.join(" "));
        }
        let mut length = format!("{} B", packet.length_bytes);
        if packet.payload_bytes > 0 {
            length.push_str(&format!(" ({} B payload)", packet.payload_bytes));
        }
        let cells = [
            self.cell().time(&self.zone, packet.time, 6),
            packet_cells::interface(self.cell(), packet),
            self.cell().endpoint(&packet.source),
            self.cell().gap(1).plain("→ ").endpoint(&packet.destination),
            flow_cells::protocol(self.cell(), packet.protocol, packet.icmp_type),
            detail.part(Style::new(), &length),
        ];
        self.packets.fit(&cells);
        self.packets.line(&cells)
    }

    fn request(&mut self, request: &RequestRecord) -> String {
        let latency = request.latency_us.map(text::duration_us);
        let cells = [
            self.cell().time(&self.zone, request.time, 3),
            self.cell().endpoint(&request.client),
            self.cell().gap(1).plain("→ ").server(
                &request.client,
                &request.server,
                request.translated.as_deref(),
            ),
            self.cell().plain(&request.protocol.to_uppercase()),
            request_cells::asked(self.cell(), request),
            request_cells::status(self.cell(), request),
            self.cell().right().plain(latency.as_deref().unwrap_or("-")),
            self.cell().plain(&request_cells::sizes(request)),
            request_cells::notes(self.cell(), request),
        ];
        self.requests.fit(&cells);
        self.requests.line(&cells)
    }
}

impl Sink for Compact {
    fn write(&mut self, record: &Record) -> io::Result<()> {
        match record {
            Record::Flow(flow) => {
                let line = self.flow(flow);
                writeln!(self.out, "{line}")
            }
            Record::Packet(packet) => {
                let line = self.packet(packet);
                writeln!(self.out, "{line}")
            }
            Record::Request(request) => {
                let line = self.request(request);
                writeln!(self.out, "{line}")
            }
            Record::Stats(stats) => {
                self.stats.push(stats);
                Ok(())
            }
            Record::Summary(record) => {
                self.stats.write(&mut self.out)?;
                summary::write(&mut self.out, self.color, record)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stats.write(&mut self.out)?;
        self.out.flush()
    }

    fn finish(&mut self) -> io::Result<()> {
        self.stats.write(&mut self.out)?;
        self.out.flush()
    }
}
