//! What other processes ask of a weir that runs.

use clap::Parser;
use jiff::tz::TimeZone;

use super::Session;
use crate::audit;
use crate::cli::{AuditArgs, Cli, Command, ObserveArgs, RedirectCommand};
use crate::error::Error;
use crate::local::{Client, Request};
use crate::observe::{self, Observer};
use crate::redirect;

impl Session {
    pub(super) fn asked(&mut self, id: u64, request: &Request, client: Client) {
        let arguments = std::iter::once("weir").chain(request.arguments.iter().map(String::as_str));
        let done = match Cli::try_parse_from(arguments) {
            Ok(cli) => match cli.command {
                Command::Observe(arguments) => self.guest_of_flows(id, &arguments, request, &client),
                Command::Audit(arguments) => self.guest_of_requests(id, &arguments, request, &client),
                Command::Redirect(arguments) => self.redirect_for(&arguments.command, &client),
                _ => Err(Error::Usage("this is not for the weir that runs to do".to_owned())),
            },
            Err(error) => Err(Error::Usage(error.to_string())),
        };
        if let Err(error) = done {
            client.refuse(&error);
        }
    }

    /// Another process's `weir redirect`.
    fn redirect_for(&mut self, command: &RedirectCommand, client: &Client) -> Result<(), Error> {
        let answer = self.redirect(&redirect::Request::new(command))?;
        redirect::answer_to(client, command, &answer)
    }

    /// Another process's `weir observe`.
    fn guest_of_flows(
        &mut self,
        id: u64,
        arguments: &ObserveArgs,
        request: &Request,
        client: &Client,
    ) -> Result<(), Error> {
        let filter = observe::compile(arguments)?;
        let outlet = arguments.output.outlet_to(filter, zone_of(request), request.color, client.output());
        self.guest(id, Observer::of_flows(outlet, arguments), client)
    }

    /// Another process's `weir audit`.
    fn guest_of_requests(
        &mut self,
        id: u64,
        arguments: &AuditArgs,
        request: &Request,
        client: &Client,
    ) -> Result<(), Error> {
        if !self.pipeline.reads_payload() {
            return Err(Error::Usage("this weir does not read payload".to_owned()));
        }
        let observer = audit::observer_for(arguments, zone_of(request), request.color, client.output())?;
        self.guest(id, observer, client)
    }

    fn guest(&mut self, id: u64, observer: Observer, client: &Client) -> Result<(), Error> {
        let reader = client.clone();
        let observer = observer.not_waited_for(Box::new(move || reader.has_room()));
        self.pipeline.join(id, observer, &self.datapath.losses())?;
        self.copy_as_wanted()?;
        client.notice(&self.pipeline.greeting());
        self.guests.insert(id, client.clone());
        Ok(())
    }

    pub(super) fn leave(&mut self, id: u64) -> Result<(), Error> {
        self.pipeline.leave(id, &self.datapath.losses())?;
        self.copy_as_wanted()?;
        if let Some(client) = self.guests.remove(&id) {
            client.end();
        }
        Ok(())
    }
}

/// The time zone of whoever reads.
fn zone_of(request: &Request) -> TimeZone {
    let named = request.time_zone.as_deref().and_then(|name| TimeZone::get(name).ok());
    named.unwrap_or_else(TimeZone::system)
}
