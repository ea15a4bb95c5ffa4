//! The map of translated connections: two entries each, one for each direction.

use std::io;

use libbpf_rs::{ErrorKind, MapCore, MapFlags, MapHandle};
use weir_core::flow::{FlowKey, Translation};

use crate::{abi, decode};

/// The key of what is sent to the client of a flow, as the server names it.
fn to_client(key: &FlowKey) -> abi::flow_key {
    abi::flow_key { way: abi::way::WAY_TO_CLIENT.0 as u8, ..decode::encode_key(key) }
}

fn read(map: &MapHandle, key: &abi::flow_key) -> io::Result<Option<abi::translation>> {
    let bytes = map.lookup(abi::as_bytes(key), MapFlags::ANY).map_err(io::Error::other)?;
    Ok(bytes.as_deref().and_then(abi::from_bytes))
}

fn delete(map: &MapHandle, key: &abi::flow_key) -> io::Result<()> {
    match map.delete(abi::as_bytes(key)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(io::Error::other(error)),
        _ => Ok(()),
    }
}

/// Removes both directions of a flow.
pub(crate) fn remove(map: &MapHandle, key: &FlowKey) -> io::Result<()> {
    let key = to_client(key);
    let Some(back) = read(map, &key)? else { return Ok(()) };
    // Toward the server only if it still leads to this flow: its client may have
    // begun another connection from the same port.
    let asked = back.other;
    let this = abi::flow_key { way: abi::way::WAY_TO_SERVER.0 as u8, ..key };
    if read(map, &asked)?.is_some_and(|there| abi::as_bytes(&there.other) == abi::as_bytes(&this)) {
        delete(map, &asked)?;
    }
    delete(map, &key)
}

/// Every translated connection: the flow as its server names it.
pub(crate) fn all(map: &MapHandle) -> io::Result<Vec<(FlowKey, Translation)>> {
    let mut found = Vec::new();
    for bytes in map.keys() {
        let Some(key) = abi::from_bytes::<abi::flow_key>(&bytes) else { continue };
        if u32::from(key.way) == abi::way::WAY_TO_CLIENT.0
            && let Some(back) = read(map, &key)?
        {
            found.push((decode::key(&key), decode::translation(&back)));
        }
    }
    Ok(found)
}
