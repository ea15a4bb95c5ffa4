//! Where and with what it was measured.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use jiff::Timestamp;

/// What the numbers depend on: (what, which).
#[derive(Debug)]
pub(crate) struct Machine(Vec<(&'static str, String)>);

impl Machine {
    /// This one, now.
    pub(crate) fn here() -> Self {
        let cpus = read("/proc/cpuinfo");
        let cpu = field(&cpus, "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
        let cores = cpus.lines().filter(|line| line.starts_with("processor")).count();
        let memory_kib = field(&read("/proc/meminfo"), "MemTotal")
            .and_then(|text| text.split_whitespace().next().and_then(|number| number.parse::<u64>().ok()))
            .unwrap_or(0);
        let virtual_machine = if cpus.contains(" hypervisor") { ", virtual" } else { "" };
        Self(vec![
            ("machine", format!("{cores} cores of {cpu}, {} GiB{virtual_machine}", memory_kib >> 20)),
            ("kernel", read("/proc/sys/kernel/osrelease").trim().to_owned()),
            (
                "other work",
                format!(
                    "load average {} before it began",
                    read("/proc/loadavg").split(' ').next().unwrap_or("?")
                ),
            ),
            ("date", Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string()),
            ("commit", commit()),
            (
                "compared with",
                [
                    ("tcpdump", "--version"),
                    ("tshark", "--version"),
                    ("nft", "--version"),
                    ("iptables-nft", "--version"),
                ]
                .map(|(program, flag)| version(program, flag))
                .join(", "),
            ),
            (
                "loads",
                [
                    ("iperf3", "--version"),
                    ("wrk", "-v"),
                    ("nginx", "-v"),
                    ("redis-server", "--version"),
                    ("mariadbd", "--version"),
                    ("sysbench", "--version"),
                ]
                .map(|(program, flag)| version(program, flag))
                .join(", "),
            ),
        ])
    }

    pub(crate) fn text(&self) -> String {
        self.0.iter().fold(String::new(), |mut text, (what, which)| {
            let _ = writeln!(text, "{what:<14} {which}");
            text
        })
    }

    /// When, what, and beside which other work.
    pub(crate) fn line(&self) -> String {
        let of = |name: &str| self.0.iter().find(|(what, _)| *what == name).map_or("", |(_, which)| which);
        format!("{}, commit {}, {}", of("date"), of("commit"), of("other work"))
    }

    pub(crate) fn markdown(&self) -> String {
        self.0.iter().fold("| | |\n| --- | --- |\n".to_owned(), |mut text, (what, which)| {
            let _ = writeln!(text, "| {what} | {which} |");
            text
        })
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn field(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}

/// With sudo, git would call somebody else's folder unsafe.
fn commit() -> String {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(["-c", "safe.directory=*"]).args(args).output();
        output
            .ok()
            .filter(|it| it.status.success())
            .map(|it| String::from_utf8_lossy(&it.stdout).trim().to_owned())
    };
    match git(&["rev-parse", "--short=10", "HEAD"]) {
        Some(commit)
            if git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|it| it.is_empty()) =>
        {
            commit
        }
        Some(commit) => format!("{commit} and changes"),
        None => "not known".to_owned(),
    }
}

/// A program and its version. Programs print it on either output, with this and
/// that around it.
fn version(program: &str, flag: &str) -> String {
    let Ok(output) = Command::new(program).arg(flag).output() else { return format!("{program}: not here") };
    let text = [output.stdout, output.stderr].concat();
    let version = find_version(&String::from_utf8_lossy(&text)).unwrap_or_default();
    format!("{program} {version}").trim_end().to_owned()
}

/// `Redis server v=7.0.15 sha=…`, `nginx version: nginx/1.22.1`: the first word
/// of the first line with a dot after a digit, from the digit on.
fn find_version(text: &str) -> Option<String> {
    text.lines().next()?.split_whitespace().find_map(|word| {
        let version = word.get(word.find(|character: char| character.is_ascii_digit())?..)?;
        version.contains('.').then(|| version.to_owned())
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn versions_are_found() {
        for (line, version) in [
            ("wrk debian/4.1.0-3+b2 [epoll] Copyright", "4.1.0-3+b2"),
            ("nginx version: nginx/1.22.1", "1.22.1"),
            ("iptables v1.8.9 (nf_tables)", "1.8.9"),
            ("Redis server v=7.0.15 sha=00000000:0", "7.0.15"),
            ("TShark (Wireshark) 4.0.17 (Git v4.0.17 packaged as 4.0.17-0)", "4.0.17"),
        ] {
            assert_eq!(super::find_version(line).as_deref(), Some(version), "{line}");
        }
        assert_eq!(super::find_version("no such option\n"), None);
    }
}
