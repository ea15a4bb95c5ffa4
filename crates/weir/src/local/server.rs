//! The end of the weir that runs.

use std::borrow::Cow;
use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::{Answer, MAX_REQUEST_BYTES, Request};
use crate::error::Error;

/// More at once are not answered.
const MAX_CLIENTS: usize = 64;
/// What may wait for a client that reads slowly; more is not written, and counted as lost.
const MAX_WAITING_BYTES: usize = 8 << 20;
/// How long a client may take to say what it wants, and not read at all before it is given up.
const PATIENCE: Duration = Duration::from_secs(10);

/// From a client.
pub(crate) enum Message {
    /// It wants something.
    Asked {
        /// The client's number, from 1 on.
        id: u64,
        /// What.
        request: Request,
        /// Where the answers go.
        client: Client,
    },
    /// It wants no more.
    Gone {
        /// The client's number.
        id: u64,
    },
}

/// Listens until it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    path: PathBuf,
}

impl Server {
    /// Listens at `path`; the receiver gets what clients ask.
    ///
    /// # Errors
    /// Another process listens there, or the socket cannot be made.
    pub(crate) fn start(path: &Path) -> Result<(Self, Receiver<Message>), Error> {
        let refused = |source| Error::Socket { path: path.to_owned(), source };
        let listener = listen(path).map_err(refused)?;
        let (sender, receiver) = unbounded();
        thread::Builder::new()
            .name("socket".into())
            .spawn(move || accept(&listener, &sender))
            .map_err(refused)?;
        Ok((Self { path: path.to_owned() }, receiver))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // What stays would answer nobody; the next start removes it.
        let _ = fs::remove_file(&self.path);
    }
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent()
        && !folder.exists()
    {
        DirBuilder::new().mode(0o700).create(folder)?;
    }
    match UnixStream::connect(path) {
        Ok(_) => return Err(io::ErrorKind::AddrInUse.into()),
        // Left by a weir that was killed.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)?,
        Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    // Whoever connects before this is asked who they are, as everybody is.
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

fn accept(listener: &UnixListener, messages: &Sender<Message>) {
    let clients = Arc::new(AtomicUsize::new(0));
    for (id, stream) in (1..).zip(listener.incoming()) {
        let Ok(stream) = stream else {
            // No descriptor left, most likely: until one is.
            thread::sleep(Duration::from_millis(100));
            continue;
        };
        if !is_permitted(&stream) || clients.load(Ordering::Relaxed) >= MAX_CLIENTS {
            continue;
        }
        clients.fetch_add(1, Ordering::Relaxed);
        let (messages, count) = (messages.clone(), Arc::clone(&clients));
        let served = thread::Builder::new().name("client".into()).spawn(move || {
            serve(id, stream, &messages);
            count.fetch_sub(1, Ordering::Relaxed);
        });
        if served.is_err() {
            clients.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Root, and whoever runs this weir.
fn is_permitted(stream: &UnixStream) -> bool {
    rustix::net::sockopt::socket_peercred(stream)
        .is_ok_and(|peer| peer.uid.is_root() || peer.uid == rustix::process::geteuid())
}

/// Hears one client out, to its end.
fn serve(id: u64, stream: UnixStream, messages: &Sender<Message>) {
    let Ok(client) = Client::new(&stream) else { return };
    if stream.set_read_timeout(Some(PATIENCE)).is_err() {
        return;
    }
    let mut reader = BufReader::new(&stream);
    let mut line = String::new();
    let read = reader.by_ref().take(MAX_REQUEST_BYTES).read_line(&mut line);
    let request = read.ok().and_then(|_| serde_json::from_str(&line).ok());
    let Some(request) = request else {
        client.fail("weir understands one line of JSON: the arguments of a command".to_owned(), None, 2);
        return;
    };
    if messages.send(Message::Asked { id, request, client }).is_err()
        || stream.set_read_timeout(None).is_err()
    {
        return;
    }
    // Nothing more is expected but the end.
    let _ = io::copy(&mut reader, &mut io::sink());
    let _ = messages.send(Message::Gone { id });
}

/// Where the answers to one client go. Nothing waits for the client: what it does not read in time is kept up to a
/// limit. When the last clone is dropped, what is kept is sent, and the connection closed.
#[derive(Debug, Clone)]
pub(crate) struct Client(Arc<Outgoing>);

#[derive(Debug)]
struct Outgoing {
    queue: Arc<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    /// Nothing more comes.
    closed: bool,
    /// The client takes nothing any more.
    broken: bool,
}

impl Queue {
    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.queue.lock().closed = true;
        self.queue.changed.notify_one();
    }
}

impl Client {
    fn new(stream: &UnixStream) -> io::Result<Self> {
        let queue = Arc::<Queue>::default();
        let mut stream = stream.try_clone()?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let outgoing = Arc::clone(&queue);
        thread::Builder::new().name("answers".into()).spawn(move || {
            send(&outgoing, &mut stream);
            // The other half ends as well: nobody is there for it.
            let _ = stream.shutdown(std::net::Shutdown::Both);
        })?;
        Ok(Self(Arc::new(Outgoing { queue })))
    }

    /// Whether what is written now would be kept.
    pub(crate) fn has_room(&self) -> bool {
        let waiting = self.0.queue.lock();
        !waiting.broken && waiting.bytes.len() < MAX_WAITING_BYTES
    }

    /// A writer to its standard output.
    pub(crate) fn output(&self) -> Box<dyn Write + Send> {
        Box::new(Output(self.clone()))
    }

    /// For its standard error.
    pub(crate) fn notice(&self, text: &str) {
        let _ = self.answer(&Answer::Notice(text.to_owned()), &[]);
    }

    /// It is done.
    pub(crate) fn end(&self) {
        let _ = self.answer(&Answer::End, &[]);
    }

    /// It is not done.
    pub(crate) fn refuse(&self, error: &Error) {
        self.fail(error.to_string(), error.advice().map(Cow::into_owned), error.code());
    }

    /// It is not done, for a reason of the command line's.
    pub(crate) fn fail(&self, message: String, advice: Option<String>, code: u8) {
        let _ = self.answer(&Answer::Failure { message, advice, code }, &[]);
    }

    fn answer(&self, answer: &Answer, output: &[u8]) -> io::Result<()> {
        let line = serde_json::to_vec(answer)?;
        let mut waiting = self.0.queue.lock();
        if waiting.broken {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        waiting.bytes.extend_from_slice(&line);
        waiting.bytes.push(b'\n');
        waiting.bytes.extend_from_slice(output);
        drop(waiting);
        self.0.queue.changed.notify_one();
        Ok(())
    }
}

struct Output(Client);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.answer(&Answer::Output(bytes.len()), bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Sends what waits, until nothing more comes.
fn send(queue: &Queue, stream: &mut UnixStream) {
    loop {
        let mut waiting = queue.lock();
        while waiting.bytes.is_empty() && !waiting.closed {
            waiting = queue.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        let bytes = std::mem::take(&mut waiting.bytes);
        drop(waiting);
        if bytes.is_empty() {
            return;
        }
        if stream.write_all(&bytes).is_err() {
            queue.lock().broken = true;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket() -> (PathBuf, Server, Receiver<Message>) {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("weir-socket-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name).join("weir.sock");
        let (server, messages) = Server::start(&path).unwrap();
        (path, server, messages)
    }

    fn ask(path: &Path, line: &str) -> UnixStream {
        let mut stream = UnixStream::connect(path).unwrap();
        stream.write_all(line.as_bytes()).unwrap();
        stream
    }

    fn lines(stream: UnixStream) -> Vec<String> {
        BufReader::new(stream).lines().map(Result::unwrap).collect()
    }

    #[test]
    fn a_client_is_heard_and_answered_and_its_end_is_told() {
        let (path, server, messages) = socket();
        let stream = ask(&path, "{\"arguments\":[\"observe\"],\"color\":false}\n");
        let Message::Asked { id, request, client } = messages.recv().unwrap() else { panic!("gone") };
        assert_eq!(request.arguments, ["observe"]);
        client.output().write_all(b"one\n").unwrap();
        client.notice("two");
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(matches!(messages.recv().unwrap(), Message::Gone { id: gone } if gone == id));
        client.end();
        drop(client);
        assert_eq!(lines(stream), ["{\"output\":4}", "one", "{\"notice\":\"two\"}", "\"end\""]);
        drop(server);
        assert!(!path.exists());
        fs::remove_dir(path.parent().unwrap()).unwrap();
    }

    #[test]
    fn nonsense_is_refused() {
        let (path, server, _messages) = socket();
        let answers = lines(ask(&path, "GET / HTTP/1.1\n"));
        assert!(answers[0].starts_with("{\"failure\":{\"message\":\"weir understands"), "{answers:?}");
        drop(server);
        fs::remove_dir(path.parent().unwrap()).unwrap();
    }

    #[test]
    fn a_client_that_does_not_read_is_not_waited_for() {
        let (path, server, messages) = socket();
        let stream = ask(&path, "{\"arguments\":[],\"color\":false}\n");
        let Message::Asked { client, .. } = messages.recv().unwrap() else { panic!("gone") };
        let piece = vec![b'x'; 1 << 20];
        let mut written = 0;
        while client.has_room() {
            client.output().write_all(&piece).unwrap();
            written += 1;
        }
        assert!((8..40).contains(&written), "{written} MiB");
        drop(stream);
        weir_testkit::wait_until(Duration::from_secs(10), "it is given up", || {
            client.output().write_all(b"more").is_err()
        });
        drop(server);
        fs::remove_dir(path.parent().unwrap()).unwrap();
    }

    #[test]
    fn one_listens_at_a_time_and_a_dead_ones_socket_is_replaced() {
        let (path, server, _messages) = socket();
        assert!(matches!(Server::start(&path), Err(Error::Socket { .. })));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(server);
        drop(UnixListener::bind(&path).unwrap());
        let (server, _messages) = Server::start(&path).unwrap();
        drop(server);
        fs::remove_dir(path.parent().unwrap()).unwrap();
    }
}
