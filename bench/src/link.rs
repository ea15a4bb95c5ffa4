//! Devices by name.

use anyhow::{Context, Result};
use serde_json::Value;
use weir_testkit::Namespace;

/// A network device.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) mac: [u8; 6],
}

impl Link {
    pub(crate) fn of(namespace: &Namespace, device: &str) -> Result<Self> {
        let text = namespace.run("ip", &["-json", "link", "show", "dev", device]);
        parse(&text).with_context(|| format!("ip tells no index and address of {device}: {text}"))
    }
}

fn parse(text: &str) -> Option<Link> {
    let links: Value = serde_json::from_str(text).ok()?;
    let link = links.get(0)?;
    let mut mac = [0; 6];
    let mut bytes = link.get("address")?.as_str()?.split(':');
    for byte in &mut mac {
        *byte = u8::from_str_radix(bytes.next()?, 16).ok()?;
    }
    Some(Link { index: link.get("ifindex")?.as_u64()?.try_into().ok()?, mac })
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_ip_writes_is_read() {
        let link = super::parse(r#"[{"ifindex":7,"ifname":"eth0","address":"0a:00:00:00:00:ff"}]"#).unwrap();
        assert_eq!((link.index, link.mac), (7, [10, 0, 0, 0, 0, 255]));
        assert!(super::parse(r#"[{"ifindex":7}]"#).is_none());
    }
}
