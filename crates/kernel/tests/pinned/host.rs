//! Two containers, a BPF file system, and processes that own the state there.

use std::env;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use weir_core::flow::{FlowEntry, FlowKey};
use weir_kernel::attach::{AttachError, Attacher, Attachment, Method, probe};
use weir_kernel::{Datapath, Options, PinDirectory};
use weir_testkit::{Bpffs, Daemon, Stream, Topology};

pub(crate) const LIMIT: Duration = Duration::from_secs(60);
pub(crate) const OPTIONS: Options = Options {
    max_flows: 64,
    packet_events: false,
    audit: None,
    redirects: false,
    accelerate: false,
    without_ethernet: false,
};

const BPFFS: &str = "WEIR_TEST_BPFFS";
const METHOD: &str = "WEIR_TEST_METHOD";
const ATTACHED: &str = "attached";
const DEVICES: [&str; 2] = ["veth-web", "veth-db"];

/// What this kernel has; clsact goes anywhere.
pub(crate) fn methods() -> Vec<Method> {
    match probe().unwrap() {
        Method::Tcx => vec![Method::Tcx, Method::Clsact],
        Method::Clsact => vec![Method::Clsact],
    }
}

/// A host with the containers `web` and `db`.
pub(crate) struct Host {
    pub(crate) topology: Topology,
    pub(crate) bpffs: Bpffs,
}

/// This process as an owner of the state.
pub(crate) struct Owner {
    pub(crate) datapath: Datapath,
    attacher: Attacher,
    _attachments: Vec<Attachment>,
}

impl Host {
    pub(crate) fn new() -> Self {
        Self { topology: Topology::with_containers(&["web", "db"]), bpffs: Bpffs::new() }
    }

    pub(crate) fn pins(&self) -> PinDirectory {
        PinDirectory::new(self.bpffs.path())
    }

    /// Makes or takes over the state, and attaches to both containers.
    pub(crate) fn own(&self, method: Method) -> Owner {
        self.own_with(&OPTIONS, method)
    }

    pub(crate) fn own_with(&self, options: &Options, method: Method) -> Owner {
        self.topology.host().enter(|| own(options, &self.pins(), method))
    }

    /// Another process that does the same, and goes on until it is killed.
    pub(crate) fn owning_process(&self, method: Method) -> Daemon {
        let mut command = self.topology.host().command(env::current_exe().unwrap());
        command
            .args(["--exact", "host::child", "--ignored", "--nocapture"])
            .env(BPFFS, self.bpffs.path())
            .env(METHOD, method.to_string());
        let process = Daemon::start("owner", &mut command);
        process.wait_for_line(Stream::Out, LIMIT, |line| line.contains(ATTACHED));
        process
    }

    /// As after a `kill -9` of a weir that was attached to both containers.
    pub(crate) fn leave(&self, method: Method) {
        self.owning_process(method).stop(libc::SIGKILL, LIMIT);
    }

    pub(crate) fn ping(&self, count: usize) {
        weir_testkit::traffic::ping(
            self.topology.container("web").namespace(),
            self.topology.container("db").ipv4(),
            count,
            56,
        );
    }

    /// One ping after another from web to db, until it is asked how many there were.
    pub(crate) fn start_pinging(&self) -> Pinging {
        let mut ping = self.topology.container("web").namespace().command("ping");
        ping.args(["-n", "-i", "0.002", &self.topology.container("db").ipv4().to_string()]);
        let ping = Daemon::start("ping", &mut ping);
        ping.wait_for_line(Stream::Out, LIMIT, |line| line.contains("icmp_seq="));
        Pinging(ping)
    }

    /// Kernel's numbers of the programs at the containers' devices, in the order of device and hook.
    pub(crate) fn programs(&self) -> Vec<Option<u32>> {
        self.topology.host().enter(|| {
            let found =
                DEVICES.map(|device| weir_kernel::attach::survey(index(device), &self.pins()).unwrap());
            found.into_iter().flatten().map(|program| program.program_id).collect()
        })
    }

    /// Files below the folder of the state.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut folders = vec![self.pins().path()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                match entry.file_type().unwrap().is_dir() {
                    true => folders.push(entry.path()),
                    false => files.push(entry.path()),
                }
            }
        }
        files
    }
}

/// A ping that goes on.
pub(crate) struct Pinging(Daemon);

impl Pinging {
    /// Ends it: how many packets it sent. All were answered.
    #[track_caller]
    pub(crate) fn finish(mut self) -> u64 {
        assert!(self.0.stop(libc::SIGINT, LIMIT).success());
        let said = self.0.stdout();
        let numbers = said.iter().find(|line| line.contains(" packets transmitted, ")).unwrap();
        let mut numbers = numbers.split(' ').filter_map(|word| word.parse::<u64>().ok());
        let (sent, received) = (numbers.next().unwrap(), numbers.next().unwrap());
        // It may end before it has read the last answer.
        assert!(received + 1 >= sent, "{received} of {sent} came back");
        sent
    }
}

impl Owner {
    /// The only ICMP flow.
    pub(crate) fn pings(&self) -> FlowEntry {
        let mut found: Vec<(FlowKey, FlowEntry)> = Vec::new();
        self.datapath.flow_table().unwrap().visit(|key, entry| found.push((key, entry))).unwrap();
        found.retain(|(key, _)| key.protocol.0 == 1);
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0).1
    }

    pub(crate) fn attach(
        &self,
        host: &Host,
        device: &str,
        ethernet: bool,
    ) -> Result<Attachment, AttachError> {
        host.topology.host().enter(|| self.attacher.attach(index(device), ethernet))
    }
}

fn own(options: &Options, pins: &PinDirectory, method: Method) -> Owner {
    let mut datapath = Datapath::pinned(options, pins).unwrap();
    let attacher = Attacher::of(method, &mut datapath).unwrap();
    let attachments = DEVICES.map(|device| attacher.attach(index(device), true).unwrap());
    Owner { datapath, attacher, _attachments: attachments.into() }
}

#[test]
#[ignore = "the other process of these tests"]
fn child() {
    let (Some(bpffs), Ok(wanted)) = (env::var_os(BPFFS), env::var(METHOD)) else { return };
    let method = methods().into_iter().find(|method| method.to_string() == wanted).unwrap();
    let _owner = own(&OPTIONS, &PinDirectory::new(bpffs), method);
    println!("{ATTACHED}");
    loop {
        thread::park();
    }
}

pub(crate) fn index(device: &str) -> u32 {
    let device = std::ffi::CString::new(device).unwrap();
    // SAFETY: the name ends in zero.
    let index = unsafe { libc::if_nametoindex(device.as_ptr()) };
    assert_ne!(index, 0, "no device {device:?} here");
    index
}
