//! What is told of requests and their answers.

use std::sync::Arc;

use smol_str::{SmolStr, format_smolstr};

use super::group::{Entry, Group, Work};
use super::{Session, wire};
use crate::l7::{Attribute, Context, Exchange, Gap, Part};
use crate::record::Capture;
use crate::reveal::Class;
use crate::sql::{error_text, made_up_text};

impl Session {
    pub(in crate::l7::postgresql) fn exchange(&self, operation: impl Into<SmolStr>) -> Box<Exchange> {
        self.who.exchange("postgresql", operation)
    }

    pub(super) fn not_executed(&self, cx: &mut Context<'_>, work: Work) {
        let mut exchange = self.describe(&work);
        exchange.ok = Some(false);
        exchange.error = Some("not executed: an earlier step failed".into());
        cx.emit(exchange);
    }

    pub(super) fn emit(&self, cx: &mut Context<'_>, work: Work, response: Option<Part>) {
        let mut exchange = self.describe(&work);
        exchange.response = response;
        match &work.outcome {
            Some(Ok(status)) => {
                // The end of a transaction that had failed before.
                let ok = !(work.rolled_back && matches!(exchange.operation.as_str(), "COMMIT" | "END"));
                exchange.ok = Some(ok);
                exchange.status = Some(SmolStr::new_static(if ok { status } else { "ROLLBACK" }));
                work.sizes(&mut exchange);
            }
            Some(Err(error)) => {
                exchange.ok = Some(false);
                let code = SmolStr::new(error.code.as_deref().unwrap_or("ERROR"));
                exchange.status = Some(code.clone());
                let statement = &work.statement;
                let may_show =
                    self.reveal.has(Class::ErrorText) && statement.statements > 0 && !statement.is_secret;
                let told = if error.is_made_up { made_up_text } else { error_text };
                let (text, revealed) = told(&error.message, may_show);
                if revealed {
                    exchange.revealed.insert(Class::ErrorText);
                }
                exchange.error = Some(format_smolstr!("{}: {text}", error.severity));
                exchange.set(Attribute::DbResponseStatusCode, code.clone());
                exchange.set(Attribute::ErrorType, code);
            }
            None => {}
        }
        cx.emit(exchange);
    }

    fn describe(&self, work: &Work) -> Box<Exchange> {
        let statement = &work.statement;
        let mut exchange = self.exchange(statement.operation.clone());
        exchange.request = work.request;
        exchange.note(work.capture);
        if !statement.operation.is_empty() {
            exchange.set(Attribute::DbOperationName, statement.operation.clone());
        }
        statement.describe(&mut exchange);
        exchange
    }

    /// What was asked in a group whose answer will not be known.
    pub(super) fn unpaired(&self, cx: &mut Context<'_>, group: Group, gap: Option<Gap>) {
        for work in group.entries.into_iter().filter_map(Entry::execution) {
            // A failure that was told is the end of it, whatever comes.
            let mut work = work;
            let response = work.response.filter(|_| work.outcome.is_some());
            if response.is_none() && work.response.is_some() {
                work.capture = work.capture.max(Capture::Truncated);
            }
            work.note(gap);
            self.emit(cx, work, response);
        }
    }

    pub(super) fn unpaired_entries(&mut self, cx: &mut Context<'_>, group: Group, gap: Option<Gap>) {
        self.entries = self.entries.saturating_sub(group.entries.len());
        self.unpaired(cx, group, gap);
    }

    /// A query of which only the beginning came.
    pub(in crate::l7::postgresql) fn query_cut_off(
        &self,
        cx: &mut Context<'_>,
        body: &[u8],
        part: Part,
        gap: Option<Gap>,
    ) {
        let statement = self.sql(wire::text(body).0, true);
        self.emit(cx, Work::new(Arc::new(statement), part, gap), None);
    }
}
