//! Something to do for some seconds.

pub(crate) mod database;
mod folder;
pub(crate) mod keys;
pub(crate) mod requests;
pub(crate) mod streams;
pub(crate) mod web;

use std::net::SocketAddr;

use anyhow::Result;
use weir_testkit::Topology;

pub(crate) use folder::Folder;
use requests::{NewConnections, RequestResponse};
use streams::{Datagrams, Streams};
use web::Web;

/// A load between the containers `client` and `server`. Its servers run as long
/// as it lives.
pub(crate) trait Workload {
    /// For the table.
    fn name(&self) -> &'static str;

    /// Where its server listens.
    fn server(&self) -> SocketAddr;

    /// A rate of this work in words, with its unit.
    fn write(&self, rate: f64) -> String;

    /// Works for about so many seconds against `address`, which leads to the
    /// server; how much was done a second.
    fn run(&mut self, seconds: u32, address: SocketAddr) -> Result<f64>;
}

/// One of each kind that a network carries.
pub(crate) fn network_loads(topology: &Topology) -> Result<[Box<dyn Workload + '_>; 5]> {
    Ok([
        Box::new(Streams::start(topology, 1)?),
        Box::new(Datagrams::start(topology)?),
        Box::new(RequestResponse::start(topology)?),
        Box::new(NewConnections::start(topology)?),
        Box::new(Web::start(topology)?),
    ])
}

/// A load of requests that its server counts.
pub(crate) trait Requests: Workload {
    /// How many requests the server has been asked so far, by its own count.
    /// Asking for it does not go over the network that is measured.
    fn served(&mut self) -> Result<u64>;

    /// Operations, as weir names them, that the server does not count.
    fn not_counted(&self) -> &'static [&'static str] {
        &[]
    }

    /// Requests that weir is to audit in a second of one core, where there is a target.
    fn target_per_core_s(&self) -> Option<f64> {
        None
    }

    /// The field by which tshark tells a request.
    fn tshark_field(&self) -> &'static str;
}
