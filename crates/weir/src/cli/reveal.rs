//! What is shown although it is left out by default.

use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use weir_core::reveal::{Class, Reveal};

/// What records may show.
#[derive(Debug, Clone, Args)]
pub struct RevealArgs {
    /// Show what is left out by default, of this class; may be given several times. Records that show
    /// it are marked. Passwords and the exchanges of authentication are never shown.
    #[arg(long, value_name = "CLASS", value_parser = class_parser(), help_heading = "Secrets")]
    pub reveal: Vec<Class>,
}

impl RevealArgs {
    /// Whether nothing is to be shown that is left out by default.
    pub(crate) fn is_empty(&self) -> bool {
        self.reveal.is_empty()
    }

    /// For [`weir_core::l7::Engine::revealing`].
    pub(crate) fn set(&self) -> Reveal {
        self.reveal.iter().copied().collect()
    }
}

fn class_parser() -> impl TypedValueParser<Value = Class> {
    let values = Class::ALL.map(|class| PossibleValue::new(class.name()).help(help(class)));
    PossibleValuesParser::new(values).try_map(|name| {
        Class::ALL.into_iter().find(|class| class.name() == name).ok_or("there is no such class")
    })
}

fn help(class: Class) -> &'static str {
    match class {
        Class::SqlLiterals => "Strings and numbers in SQL, except in statements that name a password",
        Class::Parameters => "Values bound to prepared statements, except to those that name a password",
        Class::RedisValues => "Arguments of Redis commands on data, except where one names a password",
        Class::QueryStrings => {
            "Values of URL parameters that look like keys, codes or sessions, but not like passwords or tokens"
        }
        Class::ErrorText => "What databases quote in their errors",
    }
}
