//! Several commands about redirects at the same time: each waits for its turn.

use std::process::{Child, Output, Stdio};

use weir_testkit::{Daemon, Stream, require_root};

use crate::redirect::Host;
use crate::weir::LIMIT;

fn begin(host: &Host, args: &[&str]) -> Child {
    let mut command = host.weir(&[&["redirect"], args, &["--engine", "none"]].concat());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn root_rules_that_are_added_at_once_are_all_there() {
    require_root!();
    let host = Host::new(&["web"]);
    let what = |port: u16| format!("{}:{port}", host.name("web"));
    // The first of all makes what the others take over; of the last two only one can be.
    let names = ["one", "two", "three", "same", "same"];
    let children: Vec<Child> = (8000..)
        .zip(names)
        .map(|(port, name)| begin(&host, &["add", "--name", name, &what(port), ":80"]))
        .collect();
    let outputs: Vec<Output> = children.into_iter().map(|child| child.wait_with_output().unwrap()).collect();
    let (different, same) = outputs.split_at(3);
    for output in different {
        assert!(output.status.success(), "{}", stderr(output));
    }
    let (added, refused): (Vec<&Output>, Vec<&Output>) =
        same.iter().partition(|output| output.status.success());
    assert_eq!((added.len(), refused.len()), (1, 1), "{same:?}");
    assert!(stderr(refused[0]).contains("a rule named \"same\" already"), "{}", stderr(refused[0]));
    assert_eq!(host.rules().len(), 4);
}

#[test]
fn root_a_rule_is_added_while_weir_run_starts() {
    require_root!();
    let host = Host::new(&["web"]);
    let mut run = Daemon::start("weir run", &mut host.weir(&["run", "--engine", "none"]));
    weir_testkit::wait_until(LIMIT, "it owns the state", || host.bpffs().join("weir/new").exists());
    let added = begin(&host, &["add", &format!("{}:8080", host.name("web")), ":80"]);
    let added = added.wait_with_output().unwrap();
    assert!(added.status.success(), "{}", stderr(&added));
    assert_eq!(stderr(&added), "", "it was asked: the rule follows");
    run.wait_for_line(Stream::Err, LIMIT, |line| line.contains("answering at"));
    run.stop(libc::SIGTERM, LIMIT);
}
