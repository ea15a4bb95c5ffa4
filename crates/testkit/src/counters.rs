//! What `ip -s link` shows.

use std::ops::Sub;

use serde_json::Value;

use crate::Namespace;

/// A device's counters, as the kernel keeps them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames received: at a container's host-side veth, what the container sent.
    pub rx_packets: u64,
    /// Bytes of whole frames.
    pub rx_bytes: u64,
    /// Frames sent.
    pub tx_packets: u64,
    /// Bytes of whole frames.
    pub tx_bytes: u64,
    /// Received and thrown away by the device.
    pub rx_dropped: u64,
    /// Not sent: thrown away by the device, *after* TC egress programs saw them,
    /// and not in `tx_packets`. On a veth: the other end's queue was full.
    pub tx_dropped: u64,
}

impl Counters {
    /// Those of `device` in `namespace` now.
    #[track_caller]
    #[must_use]
    pub fn of(namespace: &Namespace, device: &str) -> Self {
        let text =
            crate::namespace::ip(&["-netns", namespace.name(), "-s", "-json", "link", "show", "dev", device]);
        let link: Value = serde_json::from_str(&text).expect("ip -json writes JSON");
        let number = |side: &str, name: &str| {
            link[0]["stats64"][side][name].as_u64().unwrap_or_else(|| panic!("no {side} {name} in {text}"))
        };
        Self {
            rx_packets: number("rx", "packets"),
            rx_bytes: number("rx", "bytes"),
            tx_packets: number("tx", "packets"),
            tx_bytes: number("tx", "bytes"),
            rx_dropped: number("rx", "dropped"),
            tx_dropped: number("tx", "dropped"),
        }
    }
}

impl Sub for Counters {
    type Output = Self;

    /// What was added since `earlier`.
    fn sub(self, earlier: Self) -> Self {
        Self {
            rx_packets: self.rx_packets - earlier.rx_packets,
            rx_bytes: self.rx_bytes - earlier.rx_bytes,
            tx_packets: self.tx_packets - earlier.tx_packets,
            tx_bytes: self.tx_bytes - earlier.tx_bytes,
            rx_dropped: self.rx_dropped - earlier.rx_dropped,
            tx_dropped: self.tx_dropped - earlier.tx_dropped,
        }
    }
}
