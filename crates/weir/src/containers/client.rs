//! The few questions that weir asks a container engine.

use std::collections::HashMap;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bollard::errors::Error as Failure;
use bollard::models::{ContainerSummary, EventMessage};
use bollard::query_parameters::{
    EventsOptionsBuilder, InspectContainerOptions, ListContainersOptionsBuilder,
};
use bollard::{API_DEFAULT_VERSION, Docker};
use futures_util::Stream;
use thiserror::Error;
use tokio::time::timeout;
use weir_core::endpoint::Container;

use super::EngineChoice;
use super::address::{Address, candidates};
use super::describe::{self, Described, bounded};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const VERSION_TIMEOUT: Duration = Duration::from_secs(3);
/// An engine under load takes its time for a thousand containers, and does not
/// describe one while it starts it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// The stream of events may be silent for ever, from its first byte on.
const EVENTS_TIMEOUT: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Events of the second before the list are asked for again: none falls
/// between the two, and hearing one twice does no harm.
const OVERLAP: Duration = Duration::from_secs(1);

/// Why an engine cannot be asked, or did not answer.
#[derive(Debug, Error)]
pub(crate) enum EngineError {
    #[error("no container engine was found: there is no socket at {0}")]
    NotFound(String),
    #[error("no permission to ask the container engine at {0}")]
    Denied(String),
    #[error("no container engine listens at {0} (connection refused)")]
    Refused(String),
    #[error("the container engine at {0} does not answer")]
    Silent(String),
    #[error("the container engine at {0} cannot be reached: {1}")]
    Unreachable(String, io::Error),
    #[error("weir cannot speak to a container engine at {0}")]
    Unsupported(String),
    #[error("what answers at {0} is not understood: {1}")]
    Unreadable(String, String),
    #[error("the container engine at {0} reports an error: {1}")]
    Reported(String, String),
    #[error("the container engine at {0} does not tell any more what happens; it ended or restarts")]
    Ended(String),
    #[error("asking a container engine: {0}")]
    Runtime(io::Error),
}

impl EngineError {
    /// What the user can do about it.
    pub(crate) fn remedy(&self) -> &'static str {
        match self {
            Self::NotFound(_) => {
                "If there is an engine, start it, or name its socket with --engine or DOCKER_HOST."
            }
            Self::Denied(_) => "Run weir as root, or as a member of the group that owns the socket.",
            Self::Refused(_) => {
                "Start the engine, or name another one's socket with --engine or DOCKER_HOST."
            }
            Self::Silent(_) | Self::Reported(..) | Self::Ended(_) => "Look into the engine's log.",
            Self::Unreachable(..) => "Check the address given with --engine or DOCKER_HOST.",
            Self::Unsupported(_) => "Name unix://PATH or tcp://HOST:PORT with --engine or DOCKER_HOST.",
            Self::Unreadable(..) => {
                "Check that --engine or DOCKER_HOST names an engine with Docker's API, 1.41 or newer."
            }
            Self::Runtime(_) => "Check the limits of open files and of memory.",
        }
    }
}

/// What an engine says of itself.
#[derive(Debug, Clone)]
pub(crate) struct Version {
    pub(crate) product: String,
    pub(crate) version: String,
    pub(crate) api_version: String,
}

/// An engine that answers.
#[derive(Clone)]
pub(super) struct Client {
    docker: Docker,
    socket: String,
    local: bool,
}

impl Client {
    /// The first engine of the choice that answers.
    ///
    /// # Errors
    /// None does; of several, the reason of the first that at least exists.
    pub(super) async fn find(choice: &EngineChoice) -> Result<(Self, Version), EngineError> {
        let mut missing = Vec::new();
        let mut first_error = None;
        for address in candidates(choice, |name| std::env::var(name).ok()) {
            match Self::connect(&address).await {
                Ok(connected) => return Ok(connected),
                Err(EngineError::NotFound(path)) => missing.push(path),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        Err(first_error.unwrap_or_else(|| EngineError::NotFound(missing.join(", "))))
    }

    async fn connect(address: &Address) -> Result<(Self, Version), EngineError> {
        let seconds = REQUEST_TIMEOUT.as_secs();
        // A connection of our own first: it alone says clearly what is wrong.
        let (socket, docker) = match address {
            Address::Unix(path) => {
                let socket = path.display().to_string();
                reach(&socket, tokio::net::UnixStream::connect(path)).await?;
                (socket.clone(), Docker::connect_with_unix(&socket, seconds, API_DEFAULT_VERSION))
            }
            Address::Tcp(host) => {
                let socket = format!("tcp://{host}");
                reach(&socket, tokio::net::TcpStream::connect(host)).await?;
                (socket.clone(), Docker::connect_with_http(&socket, seconds, API_DEFAULT_VERSION))
            }
            Address::Unsupported(text) => return Err(EngineError::Unsupported(bounded(text))),
        };
        let docker = docker.map_err(|failure| understood(&socket, failure))?;
        let client = Self { docker, local: matches!(address, Address::Unix(_)), socket };
        let version = client.version().await?;
        Ok((client, version))
    }

    /// Path or URL, for the user.
    pub(super) fn socket(&self) -> &str {
        &self.socket
    }

    /// Whether its containers are this host's, and not perhaps another's.
    pub(super) fn is_local(&self) -> bool {
        self.local
    }

    async fn version(&self) -> Result<Version, EngineError> {
        // Paths without a version, which is how this library asks, are answered
        // in the newest one that the engine has: nothing to negotiate.
        let version = self.answer(VERSION_TIMEOUT, self.docker.version()).await?;
        let component =
            version.components.unwrap_or_default().into_iter().next().map(|component| component.name);
        let product = match component.as_deref() {
            None | Some("Engine") => "Docker Engine".to_owned(),
            Some(name) => bounded(name),
        };
        let unknown = || "unknown".to_owned();
        let api_version = version.api_version.ok_or_else(|| {
            EngineError::Unreadable(self.socket.clone(), "it does not say which API it speaks".to_owned())
        })?;
        Ok(Version {
            product,
            version: version.version.as_deref().map_or_else(unknown, bounded),
            api_version: bounded(&api_version),
        })
    }

    /// All running containers, without what only [`Client::inspect`] tells.
    pub(super) async fn running(&self) -> Result<Vec<Described>, EngineError> {
        let options = ListContainersOptionsBuilder::new().build();
        let list = self.answer(REQUEST_TIMEOUT, self.docker.list_containers(Some(options))).await?;
        Ok(list.into_iter().filter_map(describe::summary).collect())
    }

    /// All containers, each with whether it runs.
    pub(super) async fn all(&self) -> Result<Vec<(Container, bool)>, EngineError> {
        let options = ListContainersOptionsBuilder::new().all(true).build();
        let list = self.answer(REQUEST_TIMEOUT, self.docker.list_containers(Some(options))).await?;
        let described = list.into_iter().filter_map(|summary| {
            let runs = describe::runs(&summary);
            Some((describe::summary(summary)?.container, runs))
        });
        Ok(described.collect())
    }

    /// A container in whatever state, without what only [`Client::inspect`]
    /// tells: one that is being started still counts as what it was before. An
    /// engine answers this even while it is busy with the container.
    pub(super) async fn look_up(&self, id: &str) -> Result<Option<Described>, EngineError> {
        Ok(self.listed(id).await?.and_then(describe::summary))
    }

    async fn listed(&self, id: &str) -> Result<Option<ContainerSummary>, EngineError> {
        let filters = HashMap::from([("id", vec![id])]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let list = self.answer(REQUEST_TIMEOUT, self.docker.list_containers(Some(options))).await?;
        // The filter takes the beginning of an id too.
        Ok(list.into_iter().find(|summary| summary.id.as_deref() == Some(id)))
    }

    /// All about a container; `None` if it does not run or does not exist.
    pub(super) async fn inspect(&self, id: &str) -> Result<Option<Described>, EngineError> {
        let answer = self.docker.inspect_container(id, None::<InspectContainerOptions>);
        match self.answer(REQUEST_TIMEOUT, async { found(answer.await) }).await {
            Ok(answer) => Ok(answer.and_then(describe::inspection)),
            // Podman deviates from the API in fields that weir has no use for;
            // the list is simpler and has nearly all.
            Err(EngineError::Unreadable(..)) => {
                Ok(self.listed(id).await?.filter(describe::runs).and_then(describe::summary))
            }
            Err(error) => Err(error),
        }
    }

    /// What happens to containers and their networks, from now on (and from
    /// shortly before: see [`OVERLAP`]).
    pub(super) fn events(&self) -> impl Stream<Item = Result<EventMessage, EngineError>> + use<> {
        use futures_util::StreamExt;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let since = now.saturating_sub(OVERLAP).as_secs().to_string();
        let filters = HashMap::from([("type", vec!["container", "network"])]);
        let options = EventsOptionsBuilder::new().since(&since).filters(&filters).build();
        let socket = self.socket.clone();
        let docker = self.docker.clone().with_timeout(EVENTS_TIMEOUT);
        docker.events(Some(options)).map(move |event| {
            event.map_err(|failure| match understood(&socket, failure) {
                EngineError::Unreachable(socket, _) => EngineError::Ended(socket),
                error => error,
            })
        })
    }

    async fn answer<T>(
        &self,
        limit: Duration,
        request: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, EngineError> {
        match timeout(limit, request).await {
            Ok(answer) => answer.map_err(|failure| understood(&self.socket, failure)),
            Err(_) => Err(EngineError::Silent(self.socket.clone())),
        }
    }
}

fn found<T>(answer: Result<T, Failure>) -> Result<Option<T>, Failure> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(Failure::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
        Err(failure) => Err(failure),
    }
}

async fn reach<T>(socket: &str, connect: impl Future<Output = io::Result<T>>) -> Result<(), EngineError> {
    let socket = bounded(socket);
    match timeout(CONNECT_TIMEOUT, connect).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(match error.kind() {
            io::ErrorKind::NotFound => EngineError::NotFound(socket),
            io::ErrorKind::PermissionDenied => EngineError::Denied(socket),
            io::ErrorKind::ConnectionRefused => EngineError::Refused(socket),
            _ => EngineError::Unreachable(socket, error),
        }),
        Err(_) => Err(EngineError::Silent(socket)),
    }
}

fn understood(socket: &str, failure: Failure) -> EngineError {
    let socket = bounded(socket);
    match failure {
        Failure::RequestTimeoutError => EngineError::Silent(socket),
        Failure::DockerResponseServerError { status_code, message } => {
            EngineError::Reported(socket, bounded(&format!("{status_code}: {}", message.trim())))
        }
        Failure::IOError { err } => EngineError::Unreachable(socket, err),
        Failure::HyperLegacyError { err } if err.is_connect() => {
            EngineError::Unreachable(socket, io::Error::other(cause(&err)))
        }
        failure => EngineError::Unreadable(socket, bounded(&cause(&failure))),
    }
}

/// What is at the bottom of an error, which says more than what is on top.
fn cause(mut error: &(dyn std::error::Error + 'static)) -> String {
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
