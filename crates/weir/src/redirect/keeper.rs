//! Keeps the rules: in the kernel as maps, beside it as texts.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use weir_core::redirect::{
    Compiled, Concern, KeptRule, Rule, RuleError, RuleId, RuleName, RuleSet, SshConnection, Surroundings,
    Warning,
};
use weir_kernel::{
    Datapath, FlowTable, PinDirectory, RedirectCounters, Redirects, RuleTexts, monotonic_now_ns,
};

use super::request::{Answer, Draft, Request, RuleStatus};
use super::status::{self, Live};
use crate::error::Error;

/// The text under this number is no rule's, but the highest number so far.
const LAST_NUMBER: u32 = 0;

/// The rules of one datapath. Whoever has it is the only one who writes them.
pub(crate) struct Keeper {
    redirects: Redirects,
    texts: RuleTexts,
    flows: FlowTable,
    rules: RuleSet,
    compiled: Compiled,
    /// What is to be known of the rules as they are compiled.
    warnings: Vec<Warning>,
}

impl Keeper {
    /// Takes over the rules that are in force in this datapath.
    ///
    /// # Errors
    /// Its maps cannot be read.
    pub(crate) fn open(datapath: &Datapath) -> Result<Self, Error> {
        let maps = |source| Error::System { action: "cannot open the tables of redirects", source };
        let redirects = datapath.redirects().map_err(maps)?;
        let (texts, flows) = (datapath.rule_texts()?, datapath.flow_table().map_err(maps)?);
        let mut keeper = Self::new(redirects, texts, flows)?;
        keeper.remove_expired()?;
        Ok(keeper)
    }

    /// The rules of pinned state, for looking at: whoever owns that may change
    /// them. None, where there is no such state.
    ///
    /// # Errors
    /// Its maps cannot be opened or read.
    pub(crate) fn pinned(pins: &PinDirectory) -> Result<Option<Self>, Error> {
        // The texts first: they tell a want of permission from a want of state.
        let Some(texts) = RuleTexts::pinned(pins)? else { return Ok(None) };
        match (Redirects::pinned(pins)?, FlowTable::pinned(pins)?) {
            (Some(redirects), Some(flows)) => {
                let mut keeper = Self::new(redirects, texts, flows)?;
                keeper.rules.remove_expired(monotonic_now_ns());
                Ok(Some(keeper))
            }
            _ => Ok(None),
        }
    }

    fn new(redirects: Redirects, texts: RuleTexts, flows: FlowTable) -> Result<Self, Error> {
        let rules = read_rules(&texts)?;
        let (compiled, warnings) = (Compiled::default(), Vec::new());
        Ok(Self { redirects, rules, flows, texts, compiled, warnings })
    }

    /// Removes the rules whose time is over. The kernel knows that itself.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn remove_expired(&mut self) -> Result<(), Error> {
        for number in self.rules.remove_expired(monotonic_now_ns()) {
            self.texts.remove(number)?;
        }
        Ok(())
    }

    /// Makes this what the kernel follows.
    fn set(&mut self, (compiled, warnings): (Compiled, Vec<Warning>)) -> Result<(), Error> {
        self.redirects.set(&compiled)?;
        (self.compiled, self.warnings) = (compiled, warnings);
        Ok(())
    }

    /// The rules in force.
    pub(crate) fn rules(&self) -> &RuleSet {
        &self.rules
    }

    /// When the next rule ends by itself: CLOCK_MONOTONIC.
    pub(crate) fn next_expiry_ns(&self) -> Option<u64> {
        self.rules.iter().map(|(_, kept)| kept.expires_ns).filter(|due| *due != 0).min()
    }

    /// Containers or rules changed: brings the kernel's maps up to date. Says what the user should know.
    ///
    /// # Errors
    /// The kernel refuses. What was in force before is so still, as far as it
    /// was not replaced yet; the next call completes it.
    pub(crate) fn follow(&mut self, surroundings: &Surroundings) -> Result<Vec<Warning>, Error> {
        self.set(self.rules.compile(surroundings))?;
        Ok(self.warnings.clone())
    }

    /// Whether somebody whom a rule names is not there.
    pub(crate) fn misses_somebody(&self, surroundings: &Surroundings) -> bool {
        use Concern::{FromDown, MatchDown, TargetDown};
        let (_, warnings) = self.rules.compile(surroundings);
        warnings
            .iter()
            .any(|one| matches!(one.concern, FromDown { .. } | MatchDown { .. } | TargetDown { .. }))
    }

    /// Takes note of what is in force, and of where containers are now, and writes nothing.
    ///
    /// # Errors
    /// The kernel refuses to read.
    pub(crate) fn look(&mut self, surroundings: &Surroundings) -> Result<(), Error> {
        let (would_be, warnings) = self.rules.compile(surroundings);
        (self.compiled, self.warnings) = (self.redirects.in_force()?, warnings);
        for (number, kept) in self.rules.iter() {
            if status::addresses(number, &would_be) != status::addresses(number, &self.compiled) {
                let rule = kept.rule.name.to_string();
                self.warnings.push(Warning { rule, concern: Concern::NotFollowed });
            }
        }
        Ok(())
    }

    /// Does what is asked, wholly or not at all.
    ///
    /// # Errors
    /// The rule makes no sense, there is no such rule, or the kernel refuses.
    pub(crate) fn answer(&mut self, request: &Request, surroundings: &Surroundings) -> Result<Answer, Error> {
        match request {
            Request::Add(draft) => self.add(draft, surroundings),
            Request::List => {
                let (counters, live) = (self.redirects.counters()?, self.live()?);
                let rules =
                    self.rules.iter().map(|(number, kept)| self.status(number, kept, &counters, &live));
                Ok(Answer::Rules(rules.collect()))
            }
            Request::Show(name) => {
                let (number, kept) = self.rules.find(name)?;
                let (counters, live) = (self.redirects.counters()?, self.live()?);
                Ok(Answer::Rule(Box::new(self.status(number, kept, &counters, &live))))
            }
            Request::Remove(names) => {
                let found = names.iter().map(|name| self.rules.find(name).map(|(number, _)| number));
                let numbers = found.collect::<Result<Vec<_>, _>>()?;
                self.remove(&numbers, surroundings)
            }
            Request::RemoveAll => {
                let numbers: Vec<u32> = self.rules.iter().map(|(number, _)| number).collect();
                self.remove(&numbers, surroundings)
            }
        }
    }

    fn add(&mut self, draft: &Draft, surroundings: &Surroundings) -> Result<Answer, Error> {
        let Checked { rules, number, compiled, text, answer } = check(&self.rules, draft, surroundings)?;
        if !draft.dry_run {
            // The text first: whoever finds it can compile it anew.
            self.texts.write(LAST_NUMBER, &rules.last_number().to_string())?;
            self.texts.write(number, &text)?;
            if let Err(error) = self.set(compiled) {
                // As it was; if that fails too, the first error says why.
                let _ = self.redirects.set(&self.compiled);
                let _ = self.texts.remove(number);
                return Err(error);
            }
            self.rules = rules;
        }
        Ok(answer)
    }

    fn remove(&mut self, numbers: &[u32], surroundings: &Surroundings) -> Result<Answer, Error> {
        let mut rules = self.rules.clone();
        let mut removed = Vec::new();
        for number in numbers {
            // A name that was given twice is removed once.
            removed.extend(rules.remove(*number).map(|kept| kept.rule.name.to_string()));
        }
        self.set(rules.compile(surroundings))?;
        self.rules = rules;
        for number in numbers {
            self.texts.remove(*number)?;
        }
        Ok(Answer::Removed(removed))
    }

    fn status(
        &self,
        number: u32,
        kept: &KeptRule,
        counters: &BTreeMap<u32, RedirectCounters>,
        live: &Live,
    ) -> RuleStatus {
        let counters = counters.get(&number).copied().unwrap_or_default();
        let live = live.get(&number).copied().unwrap_or_default();
        let warnings = concerns(&kept.rule.name, &self.warnings);
        RuleStatus { warnings, ..status::of(number, kept, &self.compiled, &counters, live) }
    }

    /// The open connections of each rule.
    fn live(&self) -> Result<Live, Error> {
        let mut live = Live::new();
        for (key, translation) in self.redirects.translations()? {
            let Some(rule) = translation.rule.map(RuleId::number) else { continue };
            if self.flows.read(&key)?.is_some_and(|entry| status::is_open(&entry)) {
                *live.entry(rule).or_default() += 1;
            }
        }
        Ok(live)
    }
}

/// The rules whose texts are these.
///
/// # Errors
/// The texts cannot be read, or are not weir's.
pub(super) fn read_rules(texts: &RuleTexts) -> Result<RuleSet, Error> {
    let mut kept = BTreeMap::new();
    let mut last_number = 0;
    for (number, text) in texts.read()? {
        let garbled = |reason: String| Error::GarbledRule { number, reason };
        if number == LAST_NUMBER {
            last_number = text.parse().map_err(|_| garbled(format!("{text:?} is not a number")))?;
            continue;
        }
        let rule: KeptRule = serde_json::from_str(&text).map_err(|error| garbled(error.to_string()))?;
        kept.insert(number, rule);
    }
    Ok(RuleSet::new(kept, last_number))
}

/// What would come of adding a rule to these.
///
/// # Errors
/// It makes no sense, alone, on this host, or beside the others.
pub(super) fn preview(rules: &RuleSet, draft: &Draft, surroundings: &Surroundings) -> Result<Answer, Error> {
    check(rules, draft, surroundings).map(|checked| checked.answer)
}

/// Rules with one more, which makes sense.
struct Checked {
    rules: RuleSet,
    /// Of the new one, and its text.
    number: u32,
    text: String,
    compiled: (Compiled, Vec<Warning>),
    answer: Answer,
}

fn check(rules: &RuleSet, draft: &Draft, surroundings: &Surroundings) -> Result<Checked, Error> {
    let mut rules = rules.clone();
    let rule = Rule {
        name: draft.name.clone().unwrap_or_else(|| rules.free_name()),
        protocol: draft.protocol,
        from: draft.from.clone(),
        asked: draft.asked.clone(),
        target: draft.target.clone(),
        source: draft.source,
    };
    rule.check()?;
    let added = Timestamp::now();
    let expires = draft.lasts.map(|lasts| {
        let later = SignedDuration::try_from(lasts).unwrap_or(SignedDuration::MAX);
        added.saturating_add(later).unwrap_or(Timestamp::MAX)
    });
    let kept = KeptRule {
        means: surroundings.meanings(&rule),
        rule,
        added,
        expires,
        expires_ns: draft.lasts.map_or(0, expires_ns),
    };
    let text = text_of(&kept)?;
    let number = rules.add(kept.clone())?;
    let warnings = rules.check(number, surroundings)?;
    if let Some(ssh) = draft.ssh_connection.as_deref().and_then(SshConnection::parse) {
        rules.check_ssh(number, surroundings, ssh)?;
    }
    let compiled = rules.compile(surroundings);
    let status = status::of(number, &kept, &compiled.0, &RedirectCounters::default(), 0);
    Ok(Checked { rules, number, text, compiled, answer: Answer::Added(Box::new(status), warnings) })
}

fn concerns(name: &RuleName, warnings: &[Warning]) -> Vec<Concern> {
    let of_it = |warning: &&Warning| warning.rule == name.as_str();
    warnings.iter().filter(of_it).map(|warning| warning.concern.clone()).collect()
}

fn expires_ns(lasts: Duration) -> u64 {
    monotonic_now_ns().saturating_add(u64::try_from(lasts.as_nanos()).unwrap_or(u64::MAX))
}

fn text_of(kept: &KeptRule) -> Result<String, Error> {
    let text = serde_json::to_string(kept)
        .map_err(|error| Error::System { action: "cannot write a rule as JSON", source: error.into() })?;
    match text.len() > RuleTexts::TEXT_BYTES_MAX {
        true => Err(RuleError::TooLong { max: RuleTexts::TEXT_BYTES_MAX }.into()),
        false => Ok(text),
    }
}
