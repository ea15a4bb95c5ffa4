//! The end of the process that asks.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::thread;

use super::{Answer, Request};
use crate::error::Error;
use crate::{notice, signals};

/// To a weir that runs.
pub(crate) struct Connection(UnixStream);

/// Connects to the weir that answers at `path`. None: there is none, or it does not answer to this user.
pub(crate) fn connect(path: &Path) -> Option<Connection> {
    UnixStream::connect(path).ok().map(Connection)
}

impl Connection {
    /// Has the weir do what the user typed, and passes on what it says. The first signal asks it to come to an end, the
    /// second ends this process.
    ///
    /// # Errors
    /// It ends before it has answered; standard output cannot be written to.
    pub(crate) fn ask(self, request: &Request) -> Result<ExitCode, Error> {
        let lost = |source| Error::System { action: "cannot speak to the weir that runs", source };
        let mut stream = self.0;
        let mut line = serde_json::to_vec(request).map_err(|error| lost(error.into()))?;
        line.push(b'\n');
        stream.write_all(&line).map_err(lost)?;

        let signals = signals::channel().map_err(lost)?;
        let sending = stream.try_clone().map_err(lost)?;
        thread::Builder::new()
            .name("asks for the end".into())
            .spawn(move || {
                if signals.recv().is_ok() {
                    // It fails when the weir has closed the connection, and then the end is near.
                    let _ = sending.shutdown(Shutdown::Write);
                }
            })
            .map_err(lost)?;
        pass_on(BufReader::new(stream), &mut io::stdout().lock())
    }
}

fn pass_on(mut answers: impl BufRead, stdout: &mut impl Write) -> Result<ExitCode, Error> {
    let lost = |source| Error::System { action: "cannot understand the weir that runs", source };
    let mut line = String::new();
    loop {
        line.clear();
        if answers.read_line(&mut line).map_err(lost)? == 0 {
            return Err(Error::Ended);
        }
        match serde_json::from_str(&line).map_err(|error| lost(error.into()))? {
            Answer::Output(bytes) => {
                let mut output = answers.by_ref().take(bytes as u64);
                match io::copy(&mut output, stdout).and_then(|_| stdout.flush()) {
                    // A reader that has enough.
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
                    result => result.map_err(Error::Output)?,
                }
            }
            Answer::Notice(text) => notice(&text),
            Answer::Failure { message, advice, code } => {
                return Err(Error::Answered { message, advice, code });
            }
            Answer::End => return Ok(ExitCode::SUCCESS),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed_on(answers: &str) -> (String, Result<ExitCode, Error>) {
        let mut stdout = Vec::new();
        let result = pass_on(answers.as_bytes(), &mut stdout);
        (String::from_utf8(stdout).unwrap(), result)
    }

    #[test]
    fn output_is_passed_on_as_it_is() {
        let (stdout, result) = passed_on("{\"output\":7}\n{\"a\":1}{\"output\":2}\n\n\n\"end\"\n");
        assert_eq!(stdout, "{\"a\":1}\n\n");
        assert!(result.is_ok());
    }

    #[test]
    fn failures_keep_their_words_and_code() {
        let (_, result) = passed_on("{\"failure\":{\"message\":\"no\",\"code\":2}}\n");
        let error = result.unwrap_err();
        assert_eq!((error.to_string().as_str(), error.advice(), error.code()), ("no", None, 2));
    }

    #[test]
    fn an_end_without_an_answer_is_a_failure() {
        assert!(matches!(passed_on("{\"output\":1}\nx").1, Err(Error::Ended)));
        assert!(matches!(passed_on("what?\n").1, Err(Error::System { .. })));
    }
}
