//! What the container engine (Docker, Podman, or another with Docker's API)
//! says of its containers: names, images, compose services, addresses.
//!
//! weir only ever reads from it, works without it, and never asks regularly:
//! one list at the start, then the engine's own events.

mod address;
mod client;
mod describe;
mod session;

use std::time::Duration;

pub(crate) use describe::{Described, NetworkMode};
pub(crate) use session::{Command, EngineEvent, Session};

use client::{Client, EngineError, Version};
use weir_core::endpoint::Container;

/// What it costs to have no engine, for the user.
pub(crate) const COST: &str = "Containers go by the id in their cgroup, or by the name of their network \
     namespace or interface, without name, image and compose service.";

/// The end of what is said of an engine that does not answer. It is not true of a command that is over soon.
pub(crate) const GOES_ON: &str = " weir goes on, and asks again from time to time.";

/// Which container engine to ask.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum EngineChoice {
    /// The one in `DOCKER_HOST`; if that is not set, the first that answers of
    /// Docker's usual socket and Podman's.
    #[default]
    Auto,
    /// The one at this path, or `unix://` or `tcp://` URL.
    Socket(String),
    /// None at all.
    None,
}

/// What `weir doctor` says of the container engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineStatus {
    /// It answers.
    Connected {
        /// Path or URL of its socket.
        socket: String,
        /// As it calls itself: `Docker Engine`, `Podman Engine`.
        product: String,
        /// Version of the product.
        version: String,
        /// Newest version of the API that it speaks.
        api_version: String,
        /// Containers that are running now.
        running: usize,
    },
    /// None is asked, by choice.
    Off,
    /// It cannot be asked.
    Failed {
        /// What was tried and what happened.
        reason: String,
        /// What is missing because of it.
        cost: String,
        /// What to do about it.
        remedy: String,
    },
}

/// Looks for the container engine and asks it how it is; waits at most some
/// seconds for an answer.
#[must_use]
pub fn engine_status(choice: &EngineChoice) -> EngineStatus {
    if *choice == EngineChoice::None {
        return EngineStatus::Off;
    }
    let failed = |error: EngineError| EngineStatus::Failed {
        reason: error.to_string(),
        cost: COST.to_owned(),
        remedy: error.remedy().to_owned(),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(EngineError::Runtime(error)),
    };
    let status = runtime.block_on(async {
        let (client, Version { product, version, api_version }) = Client::find(choice).await?;
        let running = client.running().await?.len();
        Ok(EngineStatus::Connected {
            socket: client.socket().to_owned(),
            product,
            version,
            api_version,
            running,
        })
    });
    // A name lookup that hangs must not hold up the answer.
    runtime.shutdown_timeout(Duration::from_millis(10));
    status.unwrap_or_else(failed)
}

/// All containers that the engine has, each with whether it runs; waits at most
/// some seconds. Without an engine that answers: none.
pub(crate) fn all(choice: &EngineChoice) -> Vec<(Container, bool)> {
    if *choice == EngineChoice::None {
        return Vec::new();
    }
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return Vec::new();
    };
    let found = runtime.block_on(async { Client::find(choice).await?.0.all().await });
    // A name lookup that hangs must not hold up the answer.
    runtime.shutdown_timeout(Duration::from_millis(10));
    found.unwrap_or_default()
}
