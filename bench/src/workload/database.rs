//! MariaDB under sysbench.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use weir_testkit::{Daemon, Namespace, Stream, Topology};

use super::{Folder, Requests, Workload};
use crate::report::grouped;

const PORT: u16 = 3306;
const START_LIMIT: Duration = Duration::from_secs(60);
const ROWS: &str = "1000";
/// User, password and database.
const NAME: &str = "bench";

/// sysbench's oltp_read_only on four connections: transactions of fourteen
/// prepared SELECTs, some of which give a hundred rows.
pub(crate) struct Database<'a> {
    client: &'a Namespace,
    address: SocketAddr,
    /// Questions that [`Database::served`] asked.
    asked: u64,
    folder: Folder,
    _mariadb: Daemon,
}

impl<'a> Database<'a> {
    pub(crate) fn start(topology: &'a Topology) -> Result<Self> {
        let (client, server) = (topology.container("client").namespace(), topology.container("server"));
        let address = SocketAddr::from((server.ipv4(), PORT));
        let folder = Folder::new()?;
        let data = folder.path().join("data");
        run(Command::new("mariadb-install-db")
            .args(["--no-defaults", "--user=root", "--auth-root-authentication-method=normal"])
            .args(["--skip-test-db", &format!("--datadir={}", data.display())]))?;
        let mut command = server.namespace().command("mariadbd");
        command.args(["--no-defaults", "--user=root", "--skip-log-bin", "--performance-schema=off"]);
        // Asking for its clients' names would be requests too.
        command.arg("--skip-name-resolve");
        command.args(["--innodb-flush-log-at-trx-commit=0", &format!("--bind-address={}", address.ip())]);
        command.arg(format!("--port={PORT}")).arg("--datadir").arg(&data);
        command
            .arg("--socket")
            .arg(folder.path().join("socket"))
            .arg("--pid-file")
            .arg(folder.path().join("id"));
        let mariadb = Daemon::start("mariadbd", &mut command);
        mariadb.wait_for_line(Stream::Err, START_LIMIT, |line| line.contains("ready for connections"));
        let database = Self { client, address, asked: 0, folder, _mariadb: mariadb };
        database.ask(&format!(
            "create database {NAME}; create user {NAME}@'%' identified by '{NAME}'; \
             grant all on {NAME}.* to {NAME}@'%'"
        ))?;
        database.sysbench("prepare", &[], database.address)?;
        Ok(database)
    }

    /// By the server's own socket, which is no network.
    fn ask(&self, statements: &str) -> Result<String> {
        run(Command::new("mariadb")
            .args([
                "--no-defaults",
                "--user=root",
                "--skip-column-names",
                "--execute",
                statements,
                "--socket",
            ])
            .arg(self.folder.path().join("socket")))
    }

    fn sysbench(&self, step: &str, args: &[&str], address: SocketAddr) -> Result<String> {
        let mut command = self.client.command("sysbench");
        command.args(["oltp_read_only", "--tables=1", &format!("--table-size={ROWS}")]);
        command.args([format!("--mysql-host={}", address.ip()), format!("--mysql-port={}", address.port())]);
        for option in ["user", "password", "db"] {
            command.arg(format!("--mysql-{option}={NAME}"));
        }
        run(command.args(args).arg(step))
    }
}

impl Workload for Database<'_> {
    fn name(&self) -> &'static str {
        "MariaDB under sysbench"
    }

    fn server(&self) -> SocketAddr {
        self.address
    }

    fn write(&self, rate: f64) -> String {
        format!("{}/s", grouped(rate as u64))
    }

    fn run(&mut self, seconds: u32, address: SocketAddr) -> Result<f64> {
        let text = self.sysbench("run", &["--threads=4", &format!("--time={seconds}")], address)?;
        rate(&text).with_context(|| format!("sysbench tells no rate: {text}"))
    }
}

impl Requests for Database<'_> {
    fn served(&mut self) -> Result<u64> {
        // Statements that clients had executed, no preparing, no closing; but the goodbye of each
        // connection, which is not answered, counts as a question too.
        let text = self.ask("show global status where variable_name in ('Questions', 'Connections')")?;
        self.asked += 1;
        let (questions, connections) =
            counters(&text).with_context(|| format!("MariaDB tells no counters: {text}"))?;
        Ok(questions.saturating_sub(connections + self.asked))
    }

    fn not_counted(&self) -> &'static [&'static str] {
        &["LOGIN", "PREPARE"]
    }

    fn tshark_field(&self) -> &'static str {
        "mysql.command"
    }
}

/// Runs a program to its end; what it printed.
fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("{command:?}: {}\n{text}{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(text)
}

/// Questions and connections: `Connections\t31\nQuestions\t50320\n`
fn counters(text: &str) -> Option<(u64, u64)> {
    let of = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    Some((of("Questions")?, of("Connections")?))
}

/// `    queries:    50320  (50203.83 per sec.)`
fn rate(text: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.trim().strip_prefix("queries:"))?;
    line.split('(').nth(1)?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_rate_is_found() {
        let text = "    transactions:  3145   (3137.74 per sec.)\n    queries:  50320  (50203.83 per sec.)\n";
        assert_eq!(super::rate(text), Some(50_203.83));
        assert_eq!(super::rate("FATAL: no connection\n"), None);
    }

    #[test]
    fn the_counters_are_found() {
        assert_eq!(super::counters("Connections\t31\nQuestions\t50320\n"), Some((50_320, 31)));
        assert_eq!(super::counters("Questions\t50320\n"), None);
    }
}
