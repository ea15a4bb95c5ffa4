//! Runs `docs/by-hand.md`: every command must work, and print what the page says.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is a failed test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const PAGE: &str = include_str!("../../../docs/by-hand.md");
const OBJECT: &str = concat!(env!("OUT_DIR"), "/veth.bpf.o");

/// Commands, and what they print; both as they stand on the page.
struct Step {
    commands: String,
    output: String,
}

fn steps(page: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut pieces = page.split("\n```");
    pieces.next();
    while let Some(block) = pieces.next() {
        let (language, text) = block.split_once('\n').expect("a fence ends its line");
        match language {
            "sh" => steps.push(Step { commands: text.to_owned(), output: String::new() }),
            "text" => steps.last_mut().expect("output follows commands").output = text.to_owned(),
            other => panic!("docs/by-hand.md: blocks are sh or text, not {other:?}"),
        }
        pieces.next();
    }
    steps
}

/// Whether `line` is `pattern`, with anything in the place of each `…` and
/// any white space for white space.
fn matches(pattern: &str, line: &str) -> bool {
    let squeeze = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (pattern, line) = (squeeze(pattern), squeeze(line));
    let mut parts = pattern.split('…');
    let Some(mut rest) = line.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some((_, behind)) = rest.split_once(part) else { return false };
        rest = behind;
    }
    rest.ends_with(last)
}

/// The first line of `expected` that does not follow, in `output`, those before it.
fn first_missing<'e>(expected: &'e str, output: &str) -> Option<&'e str> {
    let mut lines = output.lines();
    expected.lines().find(|pattern| !lines.any(|line| matches(pattern, line)))
}

/// The page's names, made this run's own, and what stands behind them removed at the end.
struct Place {
    name: String,
    folder: PathBuf,
}

impl Place {
    fn new() -> Self {
        let name = format!("byhand{}", std::process::id());
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&name);
        let objects = folder.join("target/bpf");
        fs::create_dir_all(&objects).expect("the test's folder can be made");
        fs::copy(OBJECT, objects.join("veth.bpf.o")).expect("the object was built");
        Self { name, folder }
    }

    /// Standard output of `commands`, which must succeed.
    fn run(&self, commands: &str) -> String {
        let output = Command::new("bash")
            .args(["-e", "-o", "pipefail", "-c", commands])
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .output()
            .expect("bash runs");
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}\n{commands}{stdout}{stderr}", output.status);
        stdout
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // After a failure, the page's last commands did not run.
        for namespace in ["host", "box"] {
            let _ = Command::new("ip")
                .args(["netns", "del", &format!("{}-{namespace}", self.name)])
                .stderr(Stdio::null())
                .status();
        }
        let _ = Command::new("rm").arg("-rf").arg(format!("/sys/fs/bpf/{}", self.name)).status();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn root_the_page_works_as_written() {
    weir_testkit::require_root!();
    let steps = steps(PAGE);
    assert!(steps.len() > 5, "docs/by-hand.md lost its blocks");
    let place = Place::new();
    // `make bpf` would build in the middle of a test; it copies this same object.
    for step in steps.iter().filter(|step| step.commands.trim() != "make bpf") {
        let output = place.run(&step.commands.replace("byhand", &place.name));
        let expected = step.output.replace("byhand", &place.name);
        let missing = first_missing(&expected, &output);
        assert_eq!(missing, None, "\nafter:\n{}which printed:\n{output}", step.commands);
    }
    assert!(!Path::new("/run/netns").join(format!("{}-host", place.name)).exists());
    assert!(!Path::new("/sys/fs/bpf").join(&place.name).exists());
}

#[test]
fn ellipses_match_anything() {
    assert!(matches("a … c", "  a bb  c"));
    assert!(matches("a …", "a b c"));
    assert!(matches("… c", "a b c"));
    assert!(matches("plain", "plain"));
    assert!(!matches("plain", "plain and more"));
    assert!(!matches("a … d", "a b c"));
    assert!(!matches("… c", "a b c d"));
    assert_eq!(first_missing("a\nc", "a\nb\nc"), None);
    assert_eq!(first_missing("c\na", "a\nb\nc"), Some("a"));
}
