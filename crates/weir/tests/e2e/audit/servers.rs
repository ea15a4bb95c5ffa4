//! Servers as Debian has them, in a container, with their files in a folder that goes with them.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use weir_testkit::{Daemon, Namespace, uninterrupted, wait_until};

use crate::weir::{LIMIT, Weir};

/// A folder of a test's own.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("weir-audit-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        // Servers that do not run as root read and write here.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn text(&self) -> &str {
        self.0.to_str().unwrap()
    }

    pub(super) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A running server.
pub(super) struct Server {
    // Before the folder: it writes there.
    daemon: Daemon,
    pub(super) folder: Folder,
    pub(super) address: SocketAddr,
}

impl Server {
    /// Starts it, and waits until it listens.
    pub(super) fn start(
        name: &str,
        command: &mut Command,
        folder: Folder,
        namespace: &Namespace,
        address: SocketAddr,
    ) -> Self {
        let daemon = Daemon::start(name, command);
        wait_until(LIMIT, &format!("{name} at {address}"), || {
            namespace.enter(|| TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok())
        });
        Self { daemon, folder, address }
    }

    /// nginx, whose files are in the folder's `www`.
    pub(super) fn nginx(namespace: &Namespace, ip: Ipv4Addr) -> Self {
        let folder = Folder::new();
        fs::create_dir(folder.path().join("www")).unwrap();
        fs::set_permissions(folder.path().join("www"), fs::Permissions::from_mode(0o755)).unwrap();
        folder.write("www/index.html", "hello\n");
        let config = folder.write(
            "nginx.conf",
            &format!(
                "daemon off; master_process off; pid {0}/pid; error_log {0}/errors;\n\
                 events {{ worker_connections 512; }}\n\
                 http {{\n\
                   access_log off; keepalive_requests 1000000; sendfile on;\n\
                   client_body_temp_path {0}/bodies; proxy_temp_path {0}/proxy; fastcgi_temp_path {0}/fastcgi;\n\
                   uwsgi_temp_path {0}/uwsgi; scgi_temp_path {0}/scgi;\n\
                   client_max_body_size 0;\n\
                   server {{\n\
                     listen {ip}:80;\n\
                     root {0}/www;\n\
                     location /echo/ {{ return 200 \"$request_uri\\n\"; }}\n\
                     location /gone/ {{ return 503; }}\n\
                   }}\n\
                 }}\n",
                folder.text()
            ),
        );
        let mut command = namespace.command("nginx");
        command.arg("-c").arg(config).arg("-e").arg(folder.path().join("errors"));
        Self::start("nginx", &mut command, folder, namespace, SocketAddr::new(IpAddr::V4(ip), 80))
    }

    pub(super) fn redis(namespace: &Namespace, ip: Ipv4Addr) -> Self {
        let folder = Folder::new();
        let mut command = namespace.command("redis-server");
        command.args([
            "--port",
            "6379",
            "--save",
            "",
            "--appendonly",
            "no",
            "--protected-mode",
            "no",
            "--dir",
        ]);
        command.arg(folder.path());
        Self::start("redis-server", &mut command, folder, namespace, SocketAddr::new(IpAddr::V4(ip), 6379))
    }

    pub(super) fn postgresql(namespace: &Namespace, ip: Ipv4Addr) -> Self {
        let folder = Folder::new();
        let programs = programs("/usr/lib/postgresql", "bin/postgres");
        let data = folder.path().join("data");
        // It refuses to run as root.
        let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
        let status = Command::new("setpriv")
            .args(nobody)
            .arg(programs.join("initdb"))
            .args(["--auth=trust", "--username=shop", "--no-sync", "--encoding=UTF8", "--locale=C", "-D"])
            .arg(&data)
            .env("HOME", folder.path())
            .stdout(std::process::Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "initdb");
        let rules = "host all all all trust\n";
        fs::OpenOptions::new()
            .append(true)
            .open(data.join("pg_hba.conf"))
            .unwrap()
            .write_all(rules.as_bytes())
            .unwrap();
        let mut command = namespace.command("setpriv");
        command.args(nobody).arg(programs.join("postgres")).arg("-D").arg(&data);
        command.args(["-h", &ip.to_string(), "-k", folder.text(), "-c", "fsync=off"]);
        Self::start("postgres", &mut command, folder, namespace, SocketAddr::new(IpAddr::V4(ip), 5432))
    }

    pub(super) fn mariadb(namespace: &Namespace, ip: Ipv4Addr) -> Self {
        let folder = Folder::new();
        let data = folder.path().join("data");
        let status = Command::new("mariadb-install-db")
            .args([
                "--no-defaults",
                "--user=nobody",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
            ])
            .arg(format!("--datadir={}", data.display()))
            .stdout(std::process::Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "mariadb-install-db");
        let start = folder.write(
            "start.sql",
            "CREATE USER 'shop'@'%' IDENTIFIED BY 'sesame';\nCREATE DATABASE shop;\nGRANT ALL ON shop.* TO 'shop'@'%';\n",
        );
        let mut command = namespace.command("mariadbd");
        command
            .args(["--no-defaults", "--user=nobody", "--port=3306", "--skip-log-bin", "--skip-name-resolve"])
            .arg(format!("--bind-address={ip}"))
            .arg(format!("--datadir={}", data.display()))
            .arg(format!("--socket={}/socket", folder.text()))
            .arg(format!("--init-file={}", start.display()));
        Self::start("mariadbd", &mut command, folder, namespace, SocketAddr::new(IpAddr::V4(ip), 3306))
    }

    /// HTTP/2 without TLS.
    pub(super) fn nghttpd(namespace: &Namespace, ip: Ipv4Addr) -> Self {
        let folder = Folder::new();
        folder.write("index.html", "hello\n");
        let mut command = namespace.command("nghttpd");
        command.args(["--no-tls", "--address", &ip.to_string(), "--htdocs", folder.text(), "8080"]);
        Self::start("nghttpd", &mut command, folder, namespace, SocketAddr::new(IpAddr::V4(ip), 8080))
    }

    /// Ends it as its operator would.
    pub(super) fn stop(mut self) {
        self.daemon.stop(libc::SIGTERM, LIMIT);
    }
}

/// Has `ask` download much from a container. Until the kernel is told what it need not copy, it copies all:
/// so much as a weir that is not optimized takes on a machine that has no time for it comes until then, a
/// megabyte a second.
pub(super) fn download(weir: &Weir, server: &Namespace, ask: impl FnOnce()) {
    // In whole packets, of which none is dropped.
    let pace = |verb: &str, rate: &str| {
        let tbf = ["dev", "eth0", "root", "tbf", "rate", rate, "burst", "256kb", "limit", "16mb"];
        server.run("tc", &[&["qdisc", verb], &tbf[..]].concat());
    };
    pace("add", "8mbit");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let told = || weir_testkit::map_has_entries(weir.daemon.id(), "captures");
            wait_until(LIMIT, "the kernel is told what it need not copy", told);
            pace("change", "800mbit");
        });
        ask();
    });
}

/// The newest version's programs.
fn programs(root: &str, probe: &str) -> PathBuf {
    let versions =
        fs::read_dir(root).unwrap_or_else(|error| panic!("{root}: {error}; make/packages.sh test"));
    let newest =
        versions.map(|version| version.unwrap().path()).filter(|path| path.join(probe).exists()).max();
    newest.unwrap().join("bin")
}

/// A client's connection, from which answers are read to where they must end.
pub(super) struct Client {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Client {
    pub(super) fn connect(namespace: &Namespace, address: SocketAddr) -> Self {
        let stream = namespace.enter(|| TcpStream::connect_timeout(&address, LIMIT)).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, unread: Vec::new() }
    }

    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub(super) fn port(&self) -> u16 {
        self.stream.local_addr().unwrap().port()
    }

    fn more(&mut self) {
        let mut buffer = [0; 65536];
        let count = uninterrupted(|| self.stream.read(&mut buffer)).unwrap();
        assert!(count > 0, "the server hung up");
        self.unread.extend_from_slice(&buffer[..count]);
    }

    /// Up to and with `end`.
    pub(super) fn until(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = self.unread.windows(end.len()).position(|window| window == end) {
                return self.unread.drain(..at + end.len()).collect();
            }
            self.more();
        }
    }

    pub(super) fn exactly(&mut self, mut count: u64) {
        while count > 0 {
            if self.unread.is_empty() {
                self.more();
            }
            let here = self.unread.len().min(usize::try_from(count).unwrap_or(usize::MAX));
            self.unread.drain(..here);
            count -= here as u64;
        }
    }
}
