//! A Docker engine of the tests' own: own socket, own data, own containerd, in
//! a network namespace. The host's engine, if there is one, is not touched.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::namespace::finish;
use crate::{Daemon, Namespace, wait_until};

/// Begins the name of an engine's folder; then come the test's process id and a number.
const FOLDER_PREFIX: &str = "weir-engine-";
/// The engine has to set up its storage and its bridge.
const START_LIMIT: Duration = Duration::from_secs(60);
/// The image that [`Engine::start`] makes: busybox, and nothing else.
pub const IMAGE: &str = "weir-test:1";
/// What is linked to busybox in the image.
const APPLETS: [&str; 6] = ["sh", "sleep", "cat", "nc", "httpd", "wget"];

/// A running engine. Dropping it removes its containers, its processes, its
/// mounts and its data.
#[derive(Debug)]
pub struct Engine {
    folder: PathBuf,
    // Dropped in this order: the engine before its containerd.
    dockerd: Option<Daemon>,
    containerd: Option<Daemon>,
    host: Namespace,
}

impl Engine {
    /// Starts one and makes [`IMAGE`] in it. Needs the Debian packages docker.io
    /// and busybox-static.
    ///
    /// # Panics
    /// If it cannot, with what the engine said.
    #[must_use]
    pub fn start() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        remove_leftovers();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("{FOLDER_PREFIX}{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).unwrap_or_else(|e| panic!("cannot make {}: {e}", folder.display()));
        let host = Namespace::new("engine");
        let mut engine = Self { folder, dockerd: None, containerd: None, host };
        engine.start_containerd();
        engine.start_dockerd();
        engine.import_image();
        engine
    }

    /// Without a containerd of its own it would use the host's, and the names
    /// in it.
    fn start_containerd(&mut self) {
        let config = self.folder.join("containerd.toml");
        let text = format!(
            "version = 2\nroot = \"{0}/containerd\"\nstate = \"{0}/containerd-state\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.internal.v1.opt\"]\n\
             [grpc]\naddress = \"{0}/containerd.sock\"\n",
            self.folder.display()
        );
        fs::write(&config, text).expect("the folder is ours");
        let mut command = self.host.command("containerd");
        self.containerd = Some(Daemon::start("containerd", command.arg("--config").arg(config)));
        let socket = self.folder.join("containerd.sock");
        wait_until(START_LIMIT, "containerd listens", || {
            let running = self.containerd.as_mut().is_some_and(Daemon::is_running);
            assert!(running, "containerd ended");
            socket.exists()
        });
    }

    fn start_dockerd(&mut self) {
        let at = |name: &str| self.folder.join(name).display().to_string();
        let mut command = self.host.command("dockerd");
        command.args(["--host", &self.docker_host(), "--containerd", &at("containerd.sock")]);
        command.args(["--data-root", &at("data"), "--exec-root", &at("exec"), "--pidfile", &at("pid")]);
        self.dockerd = Some(Daemon::start("dockerd", &mut command));
        wait_until(START_LIMIT, "the engine answers", || {
            let running = self.dockerd.as_mut().is_some_and(Daemon::is_running);
            assert!(running, "dockerd ended");
            self.socket().exists() && self.client().arg("version").output().is_ok_and(|o| o.status.success())
        });
    }

    fn import_image(&self) {
        let root = self.folder.join("image");
        let bin = root.join("bin");
        fs::create_dir_all(&bin).expect("the folder is ours");
        fs::copy("/bin/busybox", bin.join("busybox"))
            .expect("/bin/busybox (package busybox-static) is there");
        for applet in APPLETS {
            std::os::unix::fs::symlink("busybox", bin.join(applet)).expect("the folder is ours");
        }
        let tar = Command::new("tar").arg("-C").arg(&root).args(["-c", "."]).output().expect("tar runs");
        assert!(tar.status.success(), "tar: {}", String::from_utf8_lossy(&tar.stderr));
        let mut import = self.client();
        import.args(["import", "-", IMAGE]).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = import.spawn().expect("docker runs");
        child.stdin.take().expect("stdin is piped").write_all(&tar.stdout).expect("docker reads the image");
        assert!(child.wait().expect("docker ends").success(), "docker import failed");
    }

    /// The network namespace that is this engine's host.
    #[must_use]
    pub fn host(&self) -> &Namespace {
        &self.host
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.join("docker.sock")
    }

    fn docker_host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    fn client(&self) -> Command {
        let mut command = Command::new("docker");
        command.args(["--host", &self.docker_host()]).stdin(Stdio::null());
        command
    }

    /// `docker ARGS`, to be run by the caller.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.client();
        command.args(args);
        command
    }

    /// Runs `docker ARGS` to its end; what it printed, without the last newline.
    #[track_caller]
    pub fn docker(&self, args: &[&str]) -> String {
        finish(self.client().args(args)).trim_end().to_owned()
    }

    /// Runs a container of [`IMAGE`] in the background; its id. `args`: of
    /// `docker run`, before the image; `command`: what it runs.
    #[track_caller]
    pub fn run(&self, name: &str, args: &[&str], command: &[&str]) -> String {
        self.docker(&[&["run", "--detach", "--name", name], args, &[IMAGE], command].concat())
    }

    /// The address of a container in a network.
    #[track_caller]
    #[must_use]
    pub fn address(&self, container: &str, network: &str) -> std::net::IpAddr {
        let format = format!("{{{{(index .NetworkSettings.Networks {network:?}).IPAddress}}}}");
        let text = self.docker(&["inspect", "--format", &format, container]);
        text.parse().unwrap_or_else(|e| panic!("address {text:?} of {container}: {e}"))
    }

    /// Kills dockerd alone, as a crash would. Containers go on.
    pub fn kill_dockerd(&mut self) {
        self.dockerd = None;
        let _ = fs::remove_file(self.socket());
        let _ = fs::remove_file(self.folder.join("pid"));
    }

    /// Starts dockerd again after [`Engine::kill_dockerd`].
    pub fn restart_dockerd(&mut self) {
        self.start_dockerd();
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if self.dockerd.as_mut().is_some_and(Daemon::is_running) {
            let ids = self.client().args(["ps", "--all", "--quiet", "--no-trunc"]).output();
            let ids =
                ids.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
            if !ids.trim().is_empty() {
                let mut remove = self.client();
                remove.args(["rm", "--force", "--volumes"]).args(ids.split_whitespace());
                let _ = remove.stdout(Stdio::null()).stderr(Stdio::null()).status();
            }
        }
        for daemon in [&mut self.dockerd, &mut self.containerd].into_iter().flatten() {
            if daemon.is_running() {
                daemon.signal(libc::SIGTERM);
                // It has some seconds to end in order; after that it is killed.
                let deadline = Instant::now() + Duration::from_secs(10);
                while daemon.is_running() && Instant::now() < deadline {
                    sleep(Duration::from_millis(10));
                }
            }
        }
        self.dockerd = None;
        self.containerd = None;
        remove(&self.folder);
    }
}

/// Removes what an engine left whose test was killed before it could.
fn remove_leftovers() {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let id =
            name.strip_prefix(FOLDER_PREFIX).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if id.is_some_and(|id| !Path::new(&format!("/proc/{id}")).exists()) {
            remove(&path);
        }
    }
}

/// Removes an engine's folder and whatever still lives in it: processes that
/// mention it (shims), processes of its containers, mounts, control groups.
fn remove(folder: &Path) {
    let ids = container_ids(folder);
    let deadline = Instant::now() + Duration::from_secs(10);
    // They are gone some time after they are killed, and mounts are in use until then.
    loop {
        let processes = processes_of(folder, &ids);
        if processes.is_empty() || Instant::now() > deadline {
            break;
        }
        for process in processes {
            // SAFETY: kill has no memory effects. The process belongs to an engine
            // that a test started: it names the folder, or a container in it.
            unsafe { libc::kill(process, libc::SIGKILL) };
        }
        sleep(Duration::from_millis(20));
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    // The last mounted first.
    for mount in mounts.lines().rev().filter_map(|line| line.split(' ').nth(4)) {
        if Path::new(mount).starts_with(folder) {
            let _ = Command::new("umount").args(["--lazy", mount]).stderr(Stdio::null()).status();
        }
    }
    for line in mounts.lines().filter(|line| line.contains(" - cgroup")) {
        for id in &ids {
            if let Some(root) = line.split(' ').nth(4) {
                // Only an empty one can be removed.
                let _ = fs::remove_dir(Path::new(root).join("docker").join(id));
            }
        }
    }
    if let Err(e) = fs::remove_dir_all(folder) {
        eprintln!("cannot remove {}: {e}", folder.display());
    }
}

fn container_ids(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder.join("data/containers")) else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|id| id.len() == 64)
        .collect()
}

fn processes_of(folder: &Path, container_ids: &[String]) -> Vec<i32> {
    let folder = folder.display().to_string();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    numbers
        .filter(|number| {
            let read = |file: &str| fs::read(format!("/proc/{number}/{file}")).unwrap_or_default();
            let (command, groups) = (read("cmdline"), read("cgroup"));
            let (command, groups) = (String::from_utf8_lossy(&command), String::from_utf8_lossy(&groups));
            command.contains(&folder) || container_ids.iter().any(|id| groups.contains(id))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_a_docker_engine_comes_and_goes() {
        crate::require_root!();
        let mut engine = Engine::start();
        let folder = engine.folder.clone();
        engine.run("web", &[], &["httpd", "-f", "-p", "80"]);
        let address = engine.address("web", "bridge").to_string();
        engine.run("client", &[], &["sleep", "1000"]);
        let url = format!("http://{address}/bin/busybox");
        wait_until(START_LIMIT, "the server answers", || {
            let mut wget = engine.client();
            wget.args(["exec", "client", "wget", "-q", "-O", "/dev/null", &url]).stderr(Stdio::null());
            wget.status().is_ok_and(|status| status.success())
        });
        // As after a crash: containers run, and nobody answers for them.
        engine.kill_dockerd();
        let ids = container_ids(&folder);
        assert_eq!(ids.len(), 2);
        assert!(processes_of(&folder, &ids).len() >= 4, "shims and containers");
        drop(engine);
        assert!(!folder.exists());
        assert!(processes_of(&folder, &ids).is_empty());
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&folder.display().to_string()), "{mounts}");
    }
}
