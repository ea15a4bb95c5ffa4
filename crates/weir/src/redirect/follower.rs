//! Follows containers: when something changes on the host, the rules are compiled
//! anew, and what is different is written.

use std::sync::Arc;
use std::time::{Duration, Instant};

use weir_core::directory::Directory;
use weir_core::redirect::{Resident, RuleError, Surroundings, Warning};
use weir_kernel::{Datapath, monotonic_now_ns};

use super::keeper::Keeper;
use super::request::{Answer, Request};
use crate::containers::{self, EngineChoice};
use crate::error::Error;
use crate::host::Places;
use crate::notice;

/// From the first of several changes to acting on all of them: a container that
/// starts is told of in several pieces.
const PAUSE: Duration = Duration::from_millis(10);
/// Following takes at most one part in so many of the time: on a host where a
/// thousand containers start, packets' events have to be read meanwhile.
const SHARE: u32 = 10;
/// Until the next attempt, where the kernel refused or somebody is awaited.
const RETRY: Duration = Duration::from_secs(1);
/// A container engine that is slow to say who is there must not end rules that
/// are in force: for so long after the start they stay as they are, if somebody
/// whom they name seems to be missing.
const PATIENCE: Duration = Duration::from_secs(10);

/// Rules that follow containers.
pub(crate) struct Follower {
    keeper: Keeper,
    places: Places,
    engine: EngineChoice,
    /// As [`Surroundings::accelerated`].
    accelerated: bool,
    due: Option<Instant>,
    /// Not to look at the host before then.
    not_before: Instant,
    /// Until then somebody may seem to be missing who is there.
    patient_until: Option<Instant>,
    /// What is wrong with the rules now; told when it became so.
    known: Vec<Warning>,
}

impl Follower {
    /// Takes over the rules of a datapath. To be called in the network namespace
    /// of the containers' interfaces.
    ///
    /// # Errors
    /// Its maps cannot be read, or the kernel gives no netlink socket.
    pub(crate) fn new(datapath: &Datapath, engine: EngineChoice, accelerated: bool) -> Result<Self, Error> {
        Ok(Self {
            keeper: Keeper::open(datapath)?,
            places: Places::open()?,
            patient_until: (engine != EngineChoice::None).then(|| Instant::now() + PATIENCE),
            engine,
            accelerated,
            due: None,
            not_before: Instant::now(),
            known: Vec::new(),
        })
    }

    /// Names of the rules, by their numbers.
    pub(crate) fn names(&self) -> impl Iterator<Item = (u32, Arc<str>)> {
        self.keeper.rules().iter().map(|(number, kept)| (number, kept.rule.name.as_str().into()))
    }

    /// Something changed on the host.
    pub(crate) fn changed(&mut self) {
        self.due.get_or_insert_with(|| self.not_before.max(Instant::now() + PAUSE));
    }

    /// When [`Follower::tick`] has work.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let expiry = self
            .keeper
            .next_expiry_ns()
            .map(|due_ns| Instant::now() + Duration::from_nanos(due_ns.saturating_sub(monotonic_now_ns())));
        [self.due, expiry].into_iter().flatten().min()
    }

    /// Does what is due. That the kernel refuses is told, and tried again.
    pub(crate) fn tick(&mut self, directory: &Directory) {
        if self.next_due().is_none_or(|due| due > Instant::now()) {
            return;
        }
        self.due = None;
        let begin = Instant::now();
        let followed = self.surroundings(directory).and_then(|surroundings| {
            self.keeper.remove_expired()?;
            let patient = self.patient_until.is_some_and(|end| Instant::now() < end);
            match patient && self.keeper.misses_somebody(&surroundings) {
                true => Ok(None),
                false => self.keeper.follow(&surroundings).map(Some),
            }
        });
        self.not_before = Instant::now() + begin.elapsed() * (SHARE - 1);
        match followed.transpose() {
            None => self.due = Some(Instant::now() + RETRY),
            Some(followed) => self.followed(followed),
        }
    }

    fn surroundings(&mut self, directory: &Directory) -> Result<Surroundings, Error> {
        Ok(Surroundings { accelerated: self.accelerated, ..self.places.read(directory)? })
    }

    fn followed(&mut self, followed: Result<Vec<Warning>, Error>) {
        match followed {
            Ok(warnings) => {
                for warning in warnings.iter().filter(|warning| !self.known.contains(warning)) {
                    notice(&warning.to_string());
                }
                self.known = warnings;
            }
            Err(error) => {
                notice(&format!("redirects are not up to date: {error}. Trying again"));
                self.due = Some(Instant::now() + RETRY);
            }
        }
    }

    /// Does what is asked, wholly or not at all.
    ///
    /// # Errors
    /// The rule makes no sense, there is no such rule, or the kernel refuses.
    pub(crate) fn answer(&mut self, request: &Request, directory: &Directory) -> Result<Answer, Error> {
        let mut surroundings = self.surroundings(directory)?;
        let answer = match self.keeper.answer(request, &surroundings) {
            // Perhaps it only does not run.
            Err(Error::Rule(RuleError::UnknownName { .. })) => {
                add_all_containers(&mut surroundings, &self.engine);
                self.keeper.answer(request, &surroundings)
            }
            answer => answer,
        }?;
        if let Answer::Added(_, warnings) = &answer {
            self.known.extend_from_slice(warnings);
        }
        Ok(answer)
    }
}

/// Puts in what only the engine knows: containers that do not run, and those
/// without an address.
pub(super) fn add_all_containers(surroundings: &mut Surroundings, engine: &EngineChoice) {
    for (container, running) in containers::all(engine) {
        let same = |one: &Resident| one.container.id == container.id;
        match running {
            _ if surroundings.residents.iter().any(same) => {}
            true => {
                let addresses = Vec::new();
                let container = container.into();
                surroundings.residents.push(Resident { container, addresses });
            }
            false => surroundings.stopped.push(container.into()),
        }
    }
}
