//! The local socket: other processes ask the weir that runs, in the words of the command line.
//!
//! A process connects and sends one line of JSON, a [`Request`]: the arguments that the user typed. Answers are lines
//! of JSON as well, each an [`Answer`]; what belongs on standard output follows its line as so many bytes. Whoever asked
//! closes its sending half to end what goes on (`weir observe`), and is then told the rest.
//!
//! Who may connect is a matter of the file's permissions (root's alone), and of the kernel's word on who it is.

mod client;
mod server;

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::cli::expand_not;
use crate::error::Error;

pub(crate) use client::connect;
pub(crate) use server::{Client, Message, Server};

/// The longest request, in bytes.
const MAX_REQUEST_BYTES: u64 = 64 << 10;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Request {
    /// As typed, without the program's name.
    pub(crate) arguments: Vec<String>,
    /// Whether the output is for a terminal that wants colours.
    pub(crate) color: bool,
    /// The IANA name of the time zone of whoever reads; none: that of the weir that answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) time_zone: Option<String>,
}

impl Request {
    /// What this process was asked.
    ///
    /// # Errors
    /// `--not` stands before nothing that it could turn round.
    pub(crate) fn typed(color: bool) -> Result<Self, Error> {
        let typed = expand_not(std::env::args_os()).map_err(Error::Usage)?;
        Ok(Self {
            arguments: typed.into_iter().skip(1).map(|word| word.to_string_lossy().into_owned()).collect(),
            color,
            time_zone: TimeZone::system().iana_name().map(str::to_owned),
        })
    }
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    /// So many bytes for standard output follow.
    Output(usize),
    /// For standard error: what the user should know.
    Notice(String),
    /// The last answer: it was not done, or not to the end.
    Failure {
        /// What failed and why.
        message: String,
        /// What to do about it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        advice: Option<String>,
        /// The exit code.
        code: u8,
    },
    /// The last answer: it is done.
    End,
}
