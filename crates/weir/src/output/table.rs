//! Records in columns under a header.

use std::io::{self, Write};

use jiff::tz::TimeZone;
use weir_core::record::{FlowEvent, FlowRecord, PacketRecord, Record, RequestRecord};
use weir_core::text;

use super::cell::{BOLD, Cell, Columns};
use super::stats_table::StatsTable;
use super::{Out, Sink, flow_cells, packet_cells, request_cells, summary};

/// Columns grow by so much at a time: each growth repeats the header.
const COLUMN_STEP: usize = 8;

const FLOW_COLUMNS: [(&str, usize); 11] = [
    ("TIME", 12),
    ("EVENT", 6),
    ("CLIENT", 24),
    ("SERVER", 24),
    ("PROTOCOL", 8),
    ("STATE", 11),
    ("SENT", 8),
    ("RECEIVED", 8),
    ("RTT", 8),
    ("DURATION", 9),
    ("NOTES", 0),
];

const PACKET_COLUMNS: [(&str, usize); 11] = [
    ("TIME", 15),
    ("INTERFACE", 16),
    ("SOURCE", 24),
    ("DESTINATION", 24),
    ("PROTOCOL", 8),
    ("LENGTH", 6),
    ("PAYLOAD", 7),
    ("FLAGS", 6),
    ("SEQ", 10),
    ("ACK", 10),
    ("WINDOW", 6),
];

const REQUEST_COLUMNS: [(&str, usize); 11] = [
    ("TIME", 12),
    ("CLIENT", 24),
    ("SERVER", 24),
    ("PROTOCOL", 8),
    ("REQUEST", 32),
    ("STATUS", 8),
    ("LATENCY", 8),
    ("TOTAL", 8),
    ("SENT", 8),
    ("RECEIVED", 8),
    ("NOTES", 0),
];

pub(super) struct Table {
    zone: TimeZone,
    color: bool,
    flows: Sheet,
    packets: Sheet,
    requests: Sheet,
    stats: StatsTable,
    out: Out,
}

/// The rows of one kind of record.
struct Sheet {
    names: [&'static str; 11],
    columns: Columns,
    header_written: bool,
}

impl Sheet {
    fn new(columns: [(&'static str, usize); 11]) -> Self {
        Self {
            names: columns.map(|(name, _)| name),
            columns: Columns::new(&columns.map(|(_, width)| width), COLUMN_STEP),
            header_written: false,
        }
    }

    /// The header stands above the first row, and again where a column grew.
    fn write(&mut self, out: &mut Out, color: bool, cells: &[Cell; 11]) -> io::Result<()> {
        // The last column has nothing to its right that it could move.
        let grew = cells.split_last().is_some_and(|(_, aligned)| self.columns.fit(aligned));
        if grew || !self.header_written {
            let mut header = self.names.map(|name| Cell::new(color).styled(BOLD, name));
            for (name, cell) in header.iter_mut().zip(cells) {
                name.align_as(cell);
            }
            writeln!(out, "{}", self.columns.line(&header))?;
            self.header_written = true;
        }
        writeln!(out, "{}", self.columns.line(cells))
    }
}

impl Table {
    pub(super) fn new(zone: TimeZone, color: bool, out: Out) -> Self {
        Self {
            zone,
            color,
            flows: Sheet::new(FLOW_COLUMNS),
            packets: Sheet::new(PACKET_COLUMNS),
            requests: Sheet::new(REQUEST_COLUMNS),
            stats: StatsTable::new(color),
            out,
        }
    }

    fn cell(&self) -> Cell {
        Cell::new(self.color)
    }

    /// What is not known is a dash.
    fn number(&self, text: Option<String>) -> Cell {
        self.cell().right().plain(text.as_deref().unwrap_or("-"))
    }

    fn flow(&self, flow: &FlowRecord) -> [Cell; 11] {
        let event = match flow.event {
            FlowEvent::Open => "open",
            FlowEvent::Update => "update",
            FlowEvent::Close => "close",
        };
        [
            self.cell().time(&self.zone, flow.time, 3),
            self.cell().plain(event),
            self.cell().endpoint(&flow.client),
            self.cell().server(&flow.client, &flow.server, flow.translated.as_deref()),
            flow_cells::protocol(self.cell(), flow.protocol, flow.icmp_type),
            flow_cells::state(self.cell(), flow.state),
            self.number(Some(text::bytes(flow.sent_bytes))),
            self.number(Some(text::bytes(flow.received_bytes))),
            self.number(flow.rtt_us.map(|rtt_us| text::duration_us(rtt_us.into()))),
            self.number(Some(text::duration_ms(flow.duration_ms))),
            flow_cells::notes(self.cell(), flow),
        ]
    }

    fn packet(&self, packet: &PacketRecord) -> [Cell; 11] {
        let number = |number: Option<u32>| self.number(number.map(|number| number.to_string()));
        let known = |cell: Cell| if cell.is_empty() { cell.plain("-") } else { cell };
        [
            self.cell().time(&self.zone, packet.time, 6),
            known(packet_cells::interface(self.cell(), packet)),
            self.cell().endpoint(&packet.source),
            self.cell().endpoint(&packet.destination),
            flow_cells::protocol(self.cell(), packet.protocol, packet.icmp_type),
            number(Some(packet.length_bytes)),
            number(Some(packet.payload_bytes)),
            known(packet_cells::flags(self.cell(), packet)),
            number(packet.tcp_seq),
            number(packet_cells::acknowledged(packet)),
            number(packet.tcp_window.map(u32::from)),
        ]
    }

    fn request(&self, request: &RequestRecord) -> [Cell; 11] {
        [
            self.cell().time(&self.zone, request.time, 3),
            self.cell().endpoint(&request.client),
            self.cell().server(&request.client, &request.server, request.translated.as_deref()),
            self.cell().plain(&request.protocol.to_uppercase()),
            request_cells::asked(self.cell(), request),
            request_cells::status(self.cell(), request),
            self.number(request.latency_us.map(text::duration_us)),
            self.number(request.total_us.map(text::duration_us)),
            self.number(Some(text::bytes(request.request_bytes))),
            self.number(Some(text::bytes(request.response_bytes))),
            request_cells::notes(self.cell(), request),
        ]
    }
}

impl Sink for Table {
    fn write(&mut self, record: &Record) -> io::Result<()> {
        match record {
            Record::Flow(flow) => {
                let cells = self.flow(flow);
                self.flows.write(&mut self.out, self.color, &cells)
            }
            Record::Packet(packet) => {
                let cells = self.packet(packet);
                self.packets.write(&mut self.out, self.color, &cells)
            }
            Record::Request(request) => {
                let cells = self.request(request);
                self.requests.write(&mut self.out, self.color, &cells)
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
