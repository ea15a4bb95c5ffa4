//! `weir redirect`: rules that send connections elsewhere.
//!
//! What is asked goes to the weir that runs, if one does: it keeps the rules and
//! follows containers. Else this process does it and leaves programs, rules and
//! connections pinned: they hold, but nobody follows. With `--foreground` nothing
//! is pinned, and this process follows for as long as it runs.

mod follower;
mod keeper;
mod page;
mod request;
mod ssh;
mod status;

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use weir_core::directory::Directory;
use weir_core::redirect::{RuleError, Surroundings};
use weir_kernel::attach::remove_pinned;
use weir_kernel::{PinDirectory, PinError};

use crate::cli::{AttachChoice, RedirectArgs, RedirectCommand, expand_not};
use crate::containers::{self, EngineChoice};
use crate::error::Error;
use crate::host::{self, HostEvent, Places, WatchOptions};
use crate::local::{self, Client};
use crate::session::{Plan, Session};
use crate::{kernel_release, notice};
use keeper::Keeper;

pub(crate) use follower::Follower;
pub(crate) use request::{Answer, Request};

/// Whoever owns the state and does not answer will soon (a `weir run` that starts), or ends (another `weir redirect`).
/// Each may take seconds on a busy machine, and there may be some of them.
const OWNER_PATIENCE: Duration = Duration::from_secs(60);

/// Runs the command.
///
/// # Errors
/// The rule makes no sense, there is none of that name, or what keeps the kernel
/// from it.
pub fn run(arguments: &RedirectArgs) -> Result<ExitCode, Error> {
    kernel_release::check()?;
    let command = &arguments.command;
    match command {
        RedirectCommand::Add(add) if add.foreground => foreground(command),
        _ => ask_or_do(command),
    }
}

/// Has the weir that runs do it. Where none answers, this process does it, as soon as it is nobody else's turn.
fn ask_or_do(command: &RedirectCommand) -> Result<ExitCode, Error> {
    let deadline = Instant::now() + OWNER_PATIENCE;
    loop {
        if let Some(weir) = local::connect(&command.host().state.socket) {
            return weir.ask(&to_ask(command)?);
        }
        match alone(command) {
            Err(Error::Pin(PinError::InUse { .. })) if Instant::now() < deadline => {}
            done => return done,
        }
    }
}

/// For a weir that runs: tells another process what came of its request.
///
/// # Errors
/// It cannot be written as JSON.
pub(crate) fn answer_to(client: &Client, command: &RedirectCommand, answer: &Answer) -> Result<(), Error> {
    if let Answer::Added(_, warnings) = answer {
        warnings.iter().for_each(|warning| client.notice(&warning.to_string()));
    }
    let text = page::print(command, answer, Timestamp::now())?;
    // Whoever does not listen any more needs no answer.
    let _ = client.output().write_all(text.as_bytes());
    client.end();
    Ok(())
}

/// What was typed, for the weir that runs; it is told of this user's SSH
/// connection, not of that in which it was started itself.
fn to_ask(command: &RedirectCommand) -> Result<local::Request, Error> {
    let typed = expand_not(std::env::args_os()).map_err(Error::Usage)?;
    let mut arguments: Vec<String> =
        typed.into_iter().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    if let RedirectCommand::Add(add) = command
        && let Some(verb) = arguments.iter().position(|word| word == "add")
    {
        let ssh = ssh::connection(add).unwrap_or_default();
        arguments.insert(verb + 1, format!("--ssh-connection={ssh}"));
    }
    Ok(local::Request { arguments, color: false, time_zone: None })
}

/// As long as the command runs, and no longer.
fn foreground(command: &RedirectCommand) -> Result<ExitCode, Error> {
    let mut request = Request::new(command);
    // It comes before those that are pinned, and must not contradict them.
    let (would_be, _) =
        rehearse(&request, Keeper::pinned(&command.host().state.pins())?, &command.host().engine)?;
    if let (Request::Add(draft), Answer::Added(rule, _)) = (&mut request, would_be) {
        draft.name = Some(rule.name);
    }
    let mut session = Session::start(plan(command, None))?;
    session.until_ready()?;
    let answer = session.redirect(&request)?;
    tell(command, &answer)?;
    notice(match &answer {
        Answer::Added(rule, _) if rule.expires.is_some() => {
            "in force until its time is over, or this command ends (Ctrl-C)"
        }
        _ => "in force until this command ends (Ctrl-C)",
    });
    session.run_while_ruled()?;
    Ok(ExitCode::SUCCESS)
}

/// Nobody runs: this process does it, and leaves what it makes.
fn alone(command: &RedirectCommand) -> Result<ExitCode, Error> {
    let request = Request::new(command);
    let host = command.host();
    let pins = host.state.pins();
    if pins.is_of_another_version() {
        // Nothing can be read in it before.
        return tell(command, &do_it(&request, command, &pins)?);
    }
    let keeper = Keeper::pinned(&pins)?;
    // What is wrong is said before anything is made.
    let (answer, is_all) = rehearse(&request, keeper, &host.engine)?;
    if is_all {
        return tell(command, &answer);
    }
    let existed = pins.exists();
    let done = do_it(&request, command, &pins);
    if done.is_err() && !existed && !is_ruled(&pins) {
        // Nothing of what was made for it shall remain, but what another process did in the meantime. If it cannot be
        // removed either, the first error says why.
        let _ = remove_pinned(&pins, false);
    }
    let answer = done?;
    let code = tell(command, &answer)?;
    if let Answer::Added(rule, _) = &answer {
        let end = if rule.expires.is_some() { "its time is over, or until " } else { "" };
        notice(&format!(
            "the rule holds until {end}`weir redirect remove` or `weir down`; it follows containers through restarts \
             and new addresses only while `weir run` runs"
        ));
    }
    Ok(code)
}

/// Whether somebody's rules are in force there, as far as can be told.
fn is_ruled(pins: &PinDirectory) -> bool {
    match Keeper::pinned(pins) {
        Ok(keeper) => keeper.is_some_and(|keeper| !keeper.rules().is_empty()),
        Err(_) => true,
    }
}

/// What would come of a request, and whether that is all there is to it.
fn rehearse(
    request: &Request,
    keeper: Option<Keeper>,
    engine: &EngineChoice,
) -> Result<(Answer, bool), Error> {
    let rules = keeper.as_ref().map(|keeper| keeper.rules().clone()).unwrap_or_default();
    match request {
        Request::Add(draft) => {
            let (mut surroundings, notices) = surroundings(engine)?;
            let answer = match keeper::preview(&rules, draft, &surroundings) {
                // Perhaps it only does not run, or nobody could be asked.
                Err(Error::Rule(RuleError::UnknownName { .. })) => {
                    let once =
                        notices.iter().map(|text| text.strip_suffix(containers::GOES_ON).unwrap_or(text));
                    once.for_each(notice);
                    follower::add_all_containers(&mut surroundings, engine);
                    keeper::preview(&rules, draft, &surroundings)
                }
                answer => answer,
            };
            Ok((answer?, draft.dry_run))
        }
        Request::List | Request::Show(_) => {
            let Some(mut keeper) = keeper else {
                if let Request::Show(name) = request {
                    rules.find(name)?;
                }
                return Ok((Answer::Rules(Vec::new()), true));
            };
            let (surroundings, _) = surroundings(engine)?;
            keeper.look(&surroundings)?;
            Ok((keeper.answer(request, &surroundings)?, true))
        }
        Request::Remove(names) => {
            names.iter().try_for_each(|name| rules.find(name).map(drop))?;
            Ok((Answer::Removed(names.clone()), false))
        }
        Request::RemoveAll => Ok((Answer::Removed(Vec::new()), rules.is_empty())),
    }
}

fn do_it(request: &Request, command: &RedirectCommand, pins: &PinDirectory) -> Result<Answer, Error> {
    let mut session = Session::start(plan(command, Some(pins)))?;
    let answer = session.until_ready().and_then(|()| session.redirect(request));
    session.end(Ok(()))?;
    answer
}

fn plan<'a>(command: &'a RedirectCommand, pins: Option<&'a PinDirectory>) -> Plan<'a> {
    Plan {
        pins,
        max_flows: None,
        packet_events: false,
        audit: None,
        redirects: true,
        accelerate: false,
        quiet: true,
        attach: AttachChoice::Auto,
        engine: &command.host().engine,
        interfaces: Vec::new(),
    }
}

/// Who is on this host now, and what the user should know if somebody is missing.
fn surroundings(engine: &EngineChoice) -> Result<(Surroundings, Vec<String>), Error> {
    let (events, _watch) = host::watch(WatchOptions { engines: engine.clone() })?;
    let (mut directory, mut notices) = (Directory::default(), Vec::new());
    for event in events {
        match event {
            HostEvent::Ready => break,
            HostEvent::Notice(text) => notices.push(text),
            event => event.tell(&mut directory),
        }
    }
    Ok((Places::open()?.read(&directory)?, notices))
}

/// Says what came of it.
fn tell(command: &RedirectCommand, answer: &Answer) -> Result<ExitCode, Error> {
    if let Answer::Added(_, warnings) = answer {
        warnings.iter().for_each(|warning| notice(&warning.to_string()));
    }
    let text = page::print(command, answer, Timestamp::now())?;
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        // A reader that has enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        written => written.map(|()| ExitCode::SUCCESS).map_err(Error::Output),
    }
}
