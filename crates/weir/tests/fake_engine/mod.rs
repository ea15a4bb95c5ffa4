//! A container engine that exists only for a test: it answers the few questions
//! that weir asks, over a socket of its own, well or badly, as it is told.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// How it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// As an engine does.
    Well,
    /// Bytes that are no HTTP.
    Noise,
    /// HTTP, with a page for humans.
    Page,
    /// Status 500, with a message.
    Error,
    /// It takes questions and never answers.
    Never,
    /// Inspections as Podman gives them, with types that deviate.
    Podman,
}

/// A container of the engine.
#[derive(Debug, Clone)]
pub(crate) struct Fake {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) ip: String,
    pub(crate) network_mode: String,
    pub(crate) pid: u32,
    pub(crate) running: bool,
}

impl Fake {
    /// A container with an id that begins with `digit`.
    pub(crate) fn new(digit: char, name: &str, ip: &str) -> Self {
        Self {
            id: digit.to_string().repeat(64),
            name: name.into(),
            labels: Vec::new(),
            ip: ip.into(),
            network_mode: "bridge".into(),
            pid: 0,
            running: true,
        }
    }

    fn labels(&self) -> String {
        let labels: Vec<String> =
            self.labels.iter().map(|(key, value)| format!("{key:?}:{value:?}")).collect();
        format!("{{{}}}", labels.join(","))
    }

    fn networks(&self) -> String {
        format!(r#"{{"net":{{"IPAddress":"{}","GlobalIPv6Address":"","MacAddress":""}}}}"#, self.ip)
    }

    fn listed(&self) -> String {
        format!(
            r#"{{"Id":"{}","Names":["/{}"],"Image":"image:1","Labels":{},"State":"{}","HostConfig":
            {{"NetworkMode":"{}"}},"NetworkSettings":{{"Networks":{}}}}}"#,
            self.id,
            self.name,
            self.labels(),
            if self.running { "running" } else { "exited" },
            self.network_mode,
            self.networks(),
        )
    }

    fn inspected(&self, podman: bool) -> String {
        // Newer versions of the API allow a list only.
        let entrypoint = if podman { r#""/run.sh""# } else { r#"["/run.sh"]"# };
        format!(
            r#"{{"Id":"{}","Name":"/{}","State":{{"Status":"{}","Running":{},"Pid":{}}},"Config":{{"Image":"image:1",
            "Labels":{},"Entrypoint":{entrypoint}}},"HostConfig":{{"NetworkMode":"{}"}},"NetworkSettings":
            {{"Networks":{}}}}}"#,
            self.id,
            self.name,
            if self.running { "running" } else { "exited" },
            self.running,
            self.pid,
            self.labels(),
            self.network_mode,
            self.networks(),
        )
    }
}

struct State {
    manner: Manner,
    api_version: String,
    containers: BTreeMap<String, Fake>,
    /// Where events go.
    streams: Vec<UnixStream>,
    requests: Vec<String>,
}

pub(crate) struct FakeEngine {
    folder: PathBuf,
    state: Arc<Mutex<State>>,
}

impl FakeEngine {
    pub(crate) fn start(manner: Manner) -> Self {
        let engine = Self::absent();
        engine.state.lock().unwrap().manner = manner;
        engine.appear();
        engine
    }

    /// An engine whose socket does not exist yet.
    pub(crate) fn absent() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("weir-engine-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let state = State {
            manner: Manner::Well,
            api_version: "1.41".into(),
            containers: BTreeMap::new(),
            streams: Vec::new(),
            requests: Vec::new(),
        };
        Self { folder, state: Arc::new(Mutex::new(state)) }
    }

    pub(crate) fn appear(&self) {
        let listener = UnixListener::bind(self.socket()).unwrap();
        let state = Arc::clone(&self.state);
        // Ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&state);
                thread::spawn(move || serve(&state, stream));
            }
        });
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join("engine.sock")
    }

    pub(crate) fn behave(&self, manner: Manner) {
        self.state.lock().unwrap().manner = manner;
    }

    /// Adds or changes a container, without an event.
    pub(crate) fn put(&self, container: &Fake) {
        self.state.lock().unwrap().containers.insert(container.id.clone(), container.clone());
    }

    /// Removes a container, without an event.
    pub(crate) fn remove(&self, container: &Fake) {
        self.state.lock().unwrap().containers.remove(&container.id);
    }

    /// Tells all who listen that something happened to a container.
    pub(crate) fn tell(&self, action: &str, container: &Fake) {
        self.tell_line(&format!(
            r#"{{"Type":"container","Action":"{action}","Actor":{{"ID":"{}","Attributes":{{"name":"{}"}}}},"scope":
            "local","time":1700000000,"timeNano":1700000000000000000}}"#,
            container.id, container.name
        ));
    }

    /// As [`FakeEngine::tell`], of a network that a container was joined to.
    pub(crate) fn tell_network(&self, action: &str, container: &Fake) {
        self.tell_line(&format!(
            r#"{{"Type":"network","Action":"{action}","Actor":{{"ID":"net","Attributes":{{"container":"{}"}}}}}}"#,
            container.id
        ));
    }

    pub(crate) fn tell_line(&self, line: &str) {
        let line = line.replace('\n', "") + "\n";
        let chunk = format!("{:x}\r\n{line}\r\n", line.len());
        for stream in &mut self.state.lock().unwrap().streams {
            stream.write_all(chunk.as_bytes()).unwrap();
        }
    }

    /// Ends the streams of events, in the middle of a line.
    pub(crate) fn break_streams(&self) {
        for mut stream in self.state.lock().unwrap().streams.drain(..) {
            let _ = stream.write_all(b"20\r\n{\"Type\":\"cont");
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Whether somebody listens to its events.
    pub(crate) fn is_heard(&self) -> bool {
        !self.state.lock().unwrap().streams.is_empty()
    }

    /// The first lines of all questions so far, without their parameters.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.state.lock().unwrap().requests.clone()
    }
}

impl Drop for FakeEngine {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn serve(state: &Mutex<State>, stream: UnixStream) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = stream;
    loop {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            match reader.read_line(&mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) if line.trim_end().is_empty() => break,
                Ok(_) => head.push(line),
            }
        }
        let mut state = state.lock().unwrap();
        let words: Vec<&str> = head[0].split_whitespace().collect();
        let path = words[1].split('?').next().unwrap().to_owned();
        state.requests.push(format!("{} {path}", words[0]));
        let answered = match state.manner {
            Manner::Never => continue,
            Manner::Noise => writer.write_all(b"\x15\x03\x01\x00\x02\x02\x0a\r\n\r\n"),
            Manner::Page => answer(&mut writer, "200 OK", "<html>It works!</html>"),
            Manner::Error => {
                answer(&mut writer, "500 Internal Server Error", r#"{"message":"out of order"}"#)
            }
            Manner::Well | Manner::Podman if path == "/events" => {
                let head =
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
                state.streams.push(writer.try_clone().unwrap());
                writer.write_all(head.as_bytes())
            }
            Manner::Well | Manner::Podman => {
                let (status, body) = body(&state, &path, words[1]);
                answer(&mut writer, status, &body)
            }
        };
        if answered.is_err() {
            return;
        }
    }
}

fn body(state: &State, path: &str, whole: &str) -> (&'static str, String) {
    let podman = state.manner == Manner::Podman;
    let all: Vec<&Fake> = state.containers.values().collect();
    match path {
        "/version" => {
            let product = if podman { "Podman Engine" } else { "Engine" };
            let version = format!(
                r#"{{"Version":"20.10.24","ApiVersion":"{}","Components":[{{"Name":"{product}","Version":"20.10.24"}}]}}"#,
                state.api_version
            );
            ("200 OK", version)
        }
        "/containers/json" => {
            let every = whole.contains("all=true");
            let listed = all.iter().filter(|container| every || container.running);
            let listed: Vec<String> = listed.map(|container| container.listed()).collect();
            ("200 OK", format!("[{}]", listed.join(",")))
        }
        _ => {
            let id = Path::new(path).parent().and_then(Path::file_name).unwrap().to_string_lossy();
            match all.iter().find(|container| container.id == id) {
                Some(container) => ("200 OK", container.inspected(podman)),
                None => ("404 Not Found", r#"{"message":"No such container"}"#.into()),
            }
        }
    }
}

fn answer(writer: &mut UnixStream, status: &str, body: &str) -> std::io::Result<()> {
    let length = body.len();
    write!(
        writer,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}
