//! A child process that a test watches, and that never outlives it.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::wait_until;

/// Which of a child's outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// A running child. Its output is kept; when the test fails, it is shown.
/// Dropping it kills it (SIGKILL) and waits for its end.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    child: Child,
    out: Arc<Lines>,
    err: Arc<Lines>,
    status: Option<ExitStatus>,
}

#[derive(Debug, Default)]
struct Lines {
    state: Mutex<LinesState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct LinesState {
    lines: Vec<String>,
    ended: bool,
}

impl Daemon {
    /// Starts `command`; `name` stands in messages. Standard input is as the
    /// command says; both outputs are taken, unless the command was told where
    /// its standard output goes by [`Daemon::start_with_stdout`].
    #[track_caller]
    pub fn start(name: &str, command: &mut Command) -> Self {
        command.stdout(Stdio::piped());
        Self::spawn(name, command)
    }

    /// As [`Daemon::start`], with standard output going to `stdout`.
    #[track_caller]
    pub fn start_with_stdout(name: &str, command: &mut Command, stdout: impl Into<Stdio>) -> Self {
        command.stdout(stdout);
        Self::spawn(name, command)
    }

    #[track_caller]
    fn spawn(name: &str, command: &mut Command) -> Self {
        let mut child =
            command.stderr(Stdio::piped()).spawn().unwrap_or_else(|e| panic!("cannot start {name}: {e}"));
        let (out, err) = (Arc::new(Lines::default()), Arc::new(Lines::default()));
        match child.stdout.take() {
            Some(pipe) => read_lines(pipe, Arc::clone(&out)),
            None => out.end(),
        }
        read_lines(child.stderr.take().expect("stderr is piped"), Arc::clone(&err));
        Self { name: name.to_owned(), child, out, err, status: None }
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The first line of `stream`, among those there are and those to come, for
    /// which `wanted` holds. Panics when `limit` passes or the stream ends first.
    #[track_caller]
    pub fn wait_for_line(&self, stream: Stream, limit: Duration, wanted: impl Fn(&str) -> bool) -> String {
        let lines = match stream {
            Stream::Out => &self.out,
            Stream::Err => &self.err,
        };
        let deadline = Instant::now() + limit;
        let mut seen = 0;
        loop {
            let (new, ended) = lines.after(seen, deadline);
            seen += new.len();
            if let Some(line) = new.into_iter().find(|line| wanted(line)) {
                return line;
            }
            assert!(!ended, "{}: the expected line did not come on {stream:?}: its output ended", self.name);
            let late = Instant::now() >= deadline;
            assert!(!late, "{}: the expected line did not come on {stream:?} in {limit:?}", self.name);
        }
    }

    /// The lines of standard output so far.
    #[must_use]
    pub fn stdout(&self) -> Vec<String> {
        self.out.state.lock().unwrap().lines.clone()
    }

    /// The lines of standard error so far.
    #[must_use]
    pub fn stderr(&self) -> Vec<String> {
        self.err.state.lock().unwrap().lines.clone()
    }

    /// Sends it a signal, such as `libc::SIGINT`.
    pub fn signal(&self, signal: i32) {
        assert!(self.status.is_none(), "{} has ended already", self.name);
        // SAFETY: kill has no memory effects; the child is not yet waited for,
        // so its id is still its own.
        unsafe { libc::kill(self.child.id().cast_signed(), signal) };
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("a child can be waited for");
        }
        self.status.is_none()
    }

    /// Waits for its end and for the rest of its output. Panics when `limit`
    /// passes first.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let (name, out, err) = (self.name.clone(), Arc::clone(&self.out), Arc::clone(&self.err));
        wait_until(limit, &format!("{name} ends"), || !self.is_running());
        wait_until(limit, &format!("the output of {name} ends"), || out.has_ended() && err.has_ended());
        self.status.expect("it has ended")
    }

    /// Sends it a signal and waits for its end.
    #[track_caller]
    pub fn stop(&mut self, signal: i32, limit: Duration) -> ExitStatus {
        self.signal(signal);
        self.wait(limit)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.status.is_none() {
            // Both fail only when it has ended already.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if thread::panicking() {
            for (stream, lines) in [("stdout", self.stdout()), ("stderr", self.stderr())] {
                eprintln!("---- {stream} of {} ({} lines)", self.name, lines.len());
                // The end says most; a packet log may have millions of lines.
                for line in &lines[lines.len().saturating_sub(200)..] {
                    eprintln!("{line}");
                }
            }
        }
    }
}

impl Lines {
    fn end(&self) {
        self.state.lock().unwrap().ended = true;
        self.changed.notify_all();
    }

    /// The lines after the first `seen`, and whether there will be no others.
    /// Waits for one until `deadline`.
    fn after(&self, seen: usize, deadline: Instant) -> (Vec<String>, bool) {
        let mut state = self.state.lock().unwrap();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if state.lines.len() > seen || state.ended || left.is_zero() {
                return (state.lines[seen..].to_vec(), state.ended);
            }
            state = self.changed.wait_timeout(state, left).unwrap().0;
        }
    }

    fn has_ended(&self) -> bool {
        self.state.lock().unwrap().ended
    }
}

fn read_lines(pipe: impl Read + Send + 'static, lines: Arc<Lines>) {
    thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        let mut bytes = Vec::new();
        while reader.read_until(b'\n', &mut bytes).is_ok_and(|count| count > 0) {
            let line = String::from_utf8_lossy(&bytes).trim_end_matches('\n').to_owned();
            lines.state.lock().unwrap().lines.push(line);
            lines.changed.notify_all();
            bytes.clear();
        }
        lines.end();
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn shell(script: &str) -> Daemon {
        Daemon::start("sh", Command::new("sh").args(["-c", script]))
    }

    #[test]
    fn lines_and_status() {
        let mut daemon = shell("echo one; echo two; echo oops >&2; exit 3");
        assert_eq!(daemon.wait_for_line(Stream::Out, LIMIT, |line| line.starts_with('t')), "two");
        assert_eq!(daemon.wait_for_line(Stream::Err, LIMIT, |_| true), "oops");
        assert_eq!(daemon.wait(LIMIT).code(), Some(3));
        assert_eq!(daemon.stdout(), ["one", "two"]);
    }

    #[test]
    fn a_signal_ends_it() {
        let mut daemon = shell("trap 'echo caught; exit 0' TERM; echo ready; while :; do sleep 0.05; done");
        daemon.wait_for_line(Stream::Out, LIMIT, |line| line == "ready");
        assert!(daemon.is_running());
        assert_eq!(daemon.stop(libc::SIGTERM, LIMIT).code(), Some(0));
        assert_eq!(daemon.stdout(), ["ready", "caught"]);
    }

    #[test]
    #[should_panic(expected = "did not come on Out: its output ended")]
    fn an_early_end_is_told() {
        shell("echo no").wait_for_line(Stream::Out, LIMIT, |line| line == "yes");
    }

    #[test]
    fn dropping_kills() {
        let daemon = shell("exec sleep 60");
        let id = daemon.id();
        drop(daemon);
        assert!(!std::path::Path::new(&format!("/proc/{id}")).exists());
    }
}
