//! The conversation with the container engine: a list, then its events, and
//! again from the start whenever it breaks.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use bollard::models::{EventMessage, EventMessageTypeEnum};
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::time::{Instant, sleep_until};

use super::client::{Client, EngineError};
use super::{COST, Described, EngineChoice, GOES_ON};
use crate::host::cgroup::is_container_id;

/// Waiting times before the engine is tried again: this, then twice as long
/// each time, up to the last.
const FIRST_DELAY: Duration = Duration::from_millis(500);
const LAST_DELAY: Duration = Duration::from_secs(60);
/// A conversation that lasted so long was a good one: the next break begins
/// with the first delay again.
const GOOD: Duration = Duration::from_secs(30);
/// Containers that are inspected at the same time.
const INSPECTIONS: usize = 16;

/// What it costs that an engine fell silent.
const COST_OF_LOSS: &str = "Containers that start or are renamed meanwhile go by their ids.";

/// What the engine's side tells.
#[derive(Debug)]
pub(crate) enum EngineEvent {
    /// A container is running or about to, or is not as it was.
    Container(Box<Described>),
    /// It stopped.
    Gone(String),
    /// Just these are running.
    Running(BTreeSet<String>),
    /// For the user.
    Notice(String),
    /// The engine said all that it has to say for the time being, or cannot.
    Settled,
}

/// What can be asked of the engine's side.
#[derive(Debug)]
pub(crate) enum Command {
    /// Is this container the engine's? Also a sign that an engine is at work.
    LookUp(String),
    /// Say everything again.
    Repeat,
}

/// The engine's side, as a task of the runtime in which it was started.
pub(crate) struct Session {
    events: UnboundedReceiver<EngineEvent>,
    commands: UnboundedSender<Command>,
}

impl Session {
    /// To be called in a runtime. With [`EngineChoice::None`] it is silent.
    pub(crate) fn start(choice: EngineChoice) -> Self {
        let (tell, events) = mpsc::unbounded_channel();
        let (commands, asked) = mpsc::unbounded_channel();
        if choice == EngineChoice::None {
            // Not an error if nobody listens any more: then nobody waits either.
            let _ = tell.send(EngineEvent::Settled);
        } else {
            tokio::spawn(Speaker { choice, tell, asked }.run());
        }
        Self { events, commands }
    }

    /// Waits for ever when there is nothing (more) to come.
    pub(crate) async fn next(&mut self) -> EngineEvent {
        match self.events.recv().await {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }

    pub(crate) fn ask(&self, command: Command) {
        // Without an engine there is nobody to ask.
        let _ = self.commands.send(command);
    }
}

struct Speaker {
    choice: EngineChoice,
    tell: UnboundedSender<EngineEvent>,
    asked: UnboundedReceiver<Command>,
}

/// Nobody listens any more, or another reason to end a conversation.
enum End {
    Alone,
    Repeat,
    Broken(EngineError),
}

impl From<EngineError> for End {
    fn from(error: EngineError) -> Self {
        Self::Broken(error)
    }
}

impl Speaker {
    async fn run(mut self) {
        let mut delay = FIRST_DELAY;
        let mut silent = false; // the user knows that there is no engine
        loop {
            let begin = Instant::now();
            let (end, cost) = match Client::find(&self.choice).await {
                Ok((client, _)) => (self.converse(&client, &mut silent).await, COST_OF_LOSS),
                Err(error) => (End::Broken(error), COST),
            };
            match end {
                End::Alone => return,
                End::Repeat => continue,
                End::Broken(error) => {
                    if !silent {
                        silent = true;
                        self.say(EngineEvent::Notice(format!("{error}. {cost} {}{GOES_ON}", error.remedy())));
                    }
                    self.say(EngineEvent::Settled);
                }
            }
            if begin.elapsed() >= GOOD {
                delay = FIRST_DELAY;
            }
            if !self.wait(Instant::now() + delay).await {
                return;
            }
            delay = (delay * 2).min(LAST_DELAY);
        }
    }

    /// Waits until it is time to try again, or until a container's appearance
    /// says that an engine is at work (but not at once, in case it goes on and
    /// on). False: nobody listens any more.
    async fn wait(&mut self, until: Instant) -> bool {
        tokio::time::sleep(FIRST_DELAY).await;
        tokio::select! {
            () = sleep_until(until) => true,
            command = self.asked.recv() => command.is_some(),
        }
    }

    fn say(&self, event: EngineEvent) {
        // Whether somebody listens is seen by the end of the commands.
        let _ = self.tell.send(event);
    }

    async fn converse(&mut self, client: &Client, silent: &mut bool) -> End {
        match self.speak(client, silent).await {
            Ok(end) | Err(end) => end,
        }
    }

    async fn speak(&mut self, client: &Client, silent: &mut bool) -> Result<End, End> {
        let mut events = std::pin::pin!(client.events());
        let mut work = Inspections::new(client.clone());
        let running = client.running().await?;
        if std::mem::take(silent) {
            self.say(EngineEvent::Notice(format!(
                "the container engine at {} answers now.",
                client.socket()
            )));
        }
        let ids: BTreeSet<String> = running.iter().map(|described| described.container.id.clone()).collect();
        self.say(EngineEvent::Running(ids.clone()));
        running.into_iter().for_each(|described| self.say(container(client, described)));
        ids.into_iter().for_each(|id| work.want(id));
        let mut settled = false;
        let mut complained = false;
        loop {
            if !settled && work.is_idle() {
                settled = true;
                self.say(EngineEvent::Settled);
            }
            tokio::select! {
                event = events.next() => match event {
                    Some(event) => concerned(event?).into_iter().for_each(|id| work.want(id)),
                    None => return Ok(End::Broken(EngineError::Ended(client.socket().to_owned()))),
                },
                Answer { id, outcome, .. } = work.next(), if !work.is_idle() => match outcome {
                    Ok(Outcome::Runs(described)) => self.say(container(client, *described)),
                    Ok(Outcome::Gone) => self.say(EngineEvent::Gone(id)),
                    Ok(Outcome::Unknown) => {}
                    // The stream of events ends too then, and all is asked again.
                    Err(EngineError::Unreachable(..)) => {}
                    Err(error) => if !std::mem::replace(&mut complained, true) {
                        self.say(EngineEvent::Notice(format!(
                            "asking about container {id:.12}: {error}. It and others may go by their ids only. {}",
                            error.remedy()
                        )));
                    },
                },
                command = self.asked.recv() => match command {
                    Some(Command::LookUp(id)) => work.look_up(id),
                    Some(Command::Repeat) => return Ok(End::Repeat),
                    None => return Ok(End::Alone),
                },
            }
        }
    }
}

fn container(client: &Client, described: Described) -> EngineEvent {
    EngineEvent::Container(Box::new(Described { local: client.is_local(), ..described }))
}

/// The container that an event changes something about: its name, whether it
/// runs, its addresses. What it is now is asked, not taken from the event, so
/// that hearing an event late or twice does no harm.
fn concerned(event: EventMessage) -> Option<String> {
    let actor = event.actor?;
    let action = event.action?;
    let id = match event.typ? {
        EventMessageTypeEnum::CONTAINER => match action.as_str() {
            "start" | "die" | "stop" | "destroy" | "rename" => actor.id?,
            // As Podman calls them.
            "died" | "remove" | "cleanup" => actor.id?,
            _ => return None,
        },
        EventMessageTypeEnum::NETWORK => match action.as_str() {
            "connect" | "disconnect" => actor.attributes?.remove("container")?,
            _ => return None,
        },
        _ => return None,
    };
    is_container_id(&id).then_some(id)
}

/// What came of a question about a container.
enum Outcome {
    Runs(Box<Described>),
    Gone,
    /// Not one of this engine's.
    Unknown,
}

struct Answer {
    id: String,
    inspected: bool,
    outcome: Result<Outcome, EngineError>,
}

/// Questions about single containers: at most one at a time about each, so
/// that answers come in the order of the questions, and not too many in all.
struct Inspections {
    client: Client,
    running: FuturesUnordered<BoxFuture<'static, Answer>>,
    waiting: VecDeque<String>,
    /// Those that run, and whether to ask again when they have ended.
    again: HashMap<String, bool>,
}

impl Inspections {
    fn new(client: Client) -> Self {
        Self { client, running: FuturesUnordered::new(), waiting: VecDeque::new(), again: HashMap::new() }
    }

    fn is_idle(&self) -> bool {
        self.running.is_empty()
    }

    fn want(&mut self, id: String) {
        if let Some(again) = self.again.get_mut(&id) {
            *again = true;
        } else if self.again.len() >= INSPECTIONS {
            if !self.waiting.contains(&id) {
                self.waiting.push_back(id);
            }
        } else {
            self.inspect(id);
        }
    }

    fn inspect(&mut self, id: String) {
        self.again.insert(id.clone(), false);
        let client = self.client.clone();
        let question = async move {
            let outcome = match client.inspect(&id).await {
                Ok(Some(described)) => Ok(Outcome::Runs(Box::new(described))),
                Ok(None) => Ok(Outcome::Gone),
                Err(error) => Err(error),
            };
            Answer { id, inspected: true, outcome }
        };
        self.running.push(question.boxed());
    }

    /// Beside the inspections: it is quick where those may have to wait.
    fn look_up(&mut self, id: String) {
        let client = self.client.clone();
        let question = async move {
            let outcome = match client.look_up(&id).await {
                Ok(Some(described)) => Ok(Outcome::Runs(Box::new(described))),
                Ok(None) => Ok(Outcome::Unknown),
                Err(error) => Err(error),
            };
            Answer { id, inspected: false, outcome }
        };
        self.running.push(question.boxed());
    }

    async fn next(&mut self) -> Answer {
        let Some(answer) = self.running.next().await else { return std::future::pending().await };
        if answer.inspected && self.again.remove(&answer.id) == Some(true) {
            self.inspect(answer.id.clone());
        }
        while self.again.len() < INSPECTIONS
            && let Some(id) = self.waiting.pop_front()
        {
            self.inspect(id);
        }
        answer
    }
}
