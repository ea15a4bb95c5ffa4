//! A capture, made of connections. Frames are bare IPv4 and TCP.

/// Whether the client speaks, and what.
pub(crate) type Turn = (bool, Vec<u8>);

const RAW_IP: u32 = 101;
const SYN: u8 = 2;
const ACK: u8 = 16;
const FIN_ACK: u8 = 17;
/// No packet is longer: longer messages come in several.
const SEGMENT_BYTES: usize = 1_400;

#[derive(Default)]
pub(crate) struct Capture {
    bytes: Vec<u8>,
    connections: u32,
    packets: u32,
}

pub(crate) struct Connection<'a> {
    capture: &'a mut Capture,
    client: [u8; 4],
    /// By whether the client sends.
    ports: [u16; 2],
    next: [u32; 2],
}

impl Capture {
    pub(crate) fn connection(&mut self, port: u16) -> Connection<'_> {
        let mut connection = self.connection_joined_late(port);
        connection.segment(true, SYN, &[], 0);
        connection.next[1] += 1;
        connection.segment(false, SYN | ACK, &[], 0);
        connection.next[0] += 1;
        connection
    }

    pub(crate) fn connection_joined_late(&mut self, port: u16) -> Connection<'_> {
        self.connections += 1;
        let [_, b, c, d] = self.connections.to_be_bytes();
        Connection { capture: self, client: [10, b, c, d], ports: [port, 40_000], next: [1_000, 2_000] }
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        let mut file = 0xa1b2_c3d4_u32.to_le_bytes().to_vec();
        file.extend_from_slice(&[2, 0, 4, 0]);
        for field in [0, 0, 65_535, RAW_IP] {
            file.extend_from_slice(&field.to_le_bytes());
        }
        file.extend_from_slice(&self.bytes);
        file
    }

    fn packet(&mut self, frame: &[u8], sent_bytes: usize) {
        self.packets += 1;
        let (seconds, microseconds) = (1_000_000_000 + self.packets / 1_000, self.packets % 1_000 * 1_000);
        for field in [seconds, microseconds, frame.len() as u32, sent_bytes as u32] {
            self.bytes.extend_from_slice(&field.to_le_bytes());
        }
        self.bytes.extend_from_slice(frame);
    }
}

impl Connection<'_> {
    pub(crate) fn play(&mut self, turns: &[Turn]) -> &mut Self {
        for (client, bytes) in turns {
            self.say(*client, bytes);
        }
        self
    }

    pub(crate) fn say(&mut self, client: bool, bytes: &[u8]) -> &mut Self {
        for piece in bytes.chunks(SEGMENT_BYTES) {
            self.segment(client, ACK, piece, 0);
            self.lose(client, piece.len());
        }
        self
    }

    /// Of what was sent, `at` bytes were captured.
    pub(crate) fn say_cut(&mut self, client: bool, bytes: &[u8], at: usize) -> &mut Self {
        self.segment(client, ACK, &bytes[..at], bytes.len() - at);
        self.lose(client, bytes.len())
    }

    /// So many bytes pass unseen.
    pub(crate) fn lose(&mut self, client: bool, bytes: usize) -> &mut Self {
        self.next[usize::from(client)] += bytes as u32;
        self
    }

    pub(crate) fn close(&mut self) -> &mut Self {
        for client in [true, false] {
            self.segment(client, FIN_ACK, &[], 0);
            self.lose(client, 1);
        }
        self
    }

    fn segment(&mut self, client: bool, flags: u8, payload: &[u8], missing_bytes: usize) {
        let from = usize::from(client);
        let server = [192, 0, 2, 1];
        let (source, destination) = if client { (self.client, server) } else { (server, self.client) };
        let length = 40 + payload.len() + missing_bytes;
        let mut frame = vec![0x45, 0];
        frame.extend_from_slice(&(length as u16).to_be_bytes());
        frame.extend_from_slice(&[0, 0, 0, 0, 64, 6, 0, 0]);
        frame.extend_from_slice(&source);
        frame.extend_from_slice(&destination);
        frame.extend_from_slice(&self.ports[from].to_be_bytes());
        frame.extend_from_slice(&self.ports[1 - from].to_be_bytes());
        frame.extend_from_slice(&self.next[from].to_be_bytes());
        frame.extend_from_slice(&self.next[1 - from].to_be_bytes());
        frame.extend_from_slice(&[0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        frame.extend_from_slice(payload);
        self.capture.packet(&frame, length);
    }
}
