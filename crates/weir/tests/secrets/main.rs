//! Secrets planted wherever the protocols carry any, and none of them in any
//! output: whole, split anywhere, broken off anywhere, with holes anywhere, and
//! joined late. What `--reveal` lets through is let through, and nothing else.
//!
//! One run of `weir read` reads a capture of thousands of connections, each a
//! dialogue of [`dialogues`] in one of its variants.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is a failed test")]

mod capture;
mod dialogues;

use std::io::Write;
use std::process::{Command, Stdio};

use capture::{Capture, Turn};
use dialogues::{CLASSES, DIALOGUES, Secrets};

const FORMATS: [&str; 5] = ["compact", "table", "json", "jsonl", "csv"];
/// Shorter pieces of a secret say nothing, and are found anywhere.
const PIECE_BYTES: usize = 4;

/// What `weir read` prints, on both its outputs.
fn read(arguments: &[&str], capture: &[u8]) -> String {
    let mut child = Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(["read", "-"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || input.write_all(capture).unwrap());
        child.wait_with_output().unwrap()
    });
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let errors = text(output.stderr);
    assert!(output.status.success(), "{errors}");
    text(output.stdout) + &errors
}

/// Where a piece of the secret stands, with what is around it.
fn leak<'a>(output: &'a str, secret: &str) -> Option<&'a str> {
    let of_secrets = |byte: &u8| Secrets::LETTERS.contains(&byte.to_ascii_lowercase());
    let mut rest = 0;
    // Letters of secrets are rare: few places need a second look.
    while let Some(start) = output.as_bytes()[rest..].iter().position(of_secrets).map(|at| rest + at) {
        let run = output.as_bytes()[start..].iter().take_while(|byte| of_secrets(byte)).count();
        rest = start + run;
        let text = output[start..rest].to_ascii_lowercase();
        let holds = |piece: &[u8]| text.contains(std::str::from_utf8(piece).unwrap());
        if run >= PIECE_BYTES && secret.as_bytes().windows(PIECE_BYTES).any(holds) {
            let line = output[..start].rfind('\n').map_or(0, |feed| feed + 1);
            return output[line..].lines().next();
        }
    }
    None
}

#[track_caller]
fn assert_hidden(output: &str, secret: (&str, &str), what: &str) {
    if let Some(line) = leak(output, secret.1) {
        panic!("{what}: the secret of class {:?} ({}) stands in:\n{line}", secret.0, secret.1);
    }
}

/// All dialogues, each whole.
fn whole() -> Vec<u8> {
    let mut capture = Capture::default();
    for dialogue in DIALOGUES {
        capture.connection(dialogue.port).play(&dialogue.turns());
    }
    capture.into_bytes()
}

/// Makes variants of a dialogue, one for each place.
type Make = fn(&mut Capture, u16, &[Turn], Places);

/// All dialogues, each in variants of a kind.
fn variants(make: Make, places: Places) -> Vec<u8> {
    let mut capture = Capture::default();
    for dialogue in DIALOGUES {
        make(&mut capture, dialogue.port, &dialogue.turns(), places);
    }
    capture.into_bytes()
}

/// Where a dialogue is divided, broken off ...
#[derive(Clone, Copy)]
enum Places {
    All,
    Some,
}

fn places(turns: &[Turn], places: Places) -> impl Iterator<Item = (usize, usize)> {
    let step = match places {
        Places::All => 1,
        Places::Some => 7,
    };
    let all = turns.iter().enumerate().flat_map(|(turn, (_, bytes))| {
        // Filling is the same everywhere.
        let differs = |at: usize| bytes[at.saturating_sub(9)..at].iter().any(|byte| *byte != b'a');
        (1..bytes.len()).filter(move |at| differs(*at)).map(move |at| (turn, at))
    });
    all.step_by(step)
}

/// Each message in two segments, divided anywhere.
fn split(capture: &mut Capture, port: u16, turns: &[Turn], some: Places) {
    for (turn, at) in places(turns, some) {
        let mut connection = capture.connection(port);
        connection.play(&turns[..turn]);
        let (client, bytes) = &turns[turn];
        connection.say(*client, &bytes[..at]).say(*client, &bytes[at..]).play(&turns[turn + 1..]);
    }
    let mut connection = capture.connection(port);
    for (client, bytes) in turns {
        for byte in bytes {
            connection.say(*client, &[*byte]);
        }
    }
}

/// The connection ends in the middle of a message, anywhere.
fn broken_off(capture: &mut Capture, port: u16, turns: &[Turn], some: Places) {
    for (turn, at) in places(turns, some) {
        let mut connection = capture.connection(port);
        let (client, bytes) = &turns[turn];
        connection.play(&turns[..turn]).say(*client, &bytes[..at]).close();
    }
}

/// Of one packet only the beginning was captured.
fn cut(capture: &mut Capture, port: u16, turns: &[Turn], some: Places) {
    for (turn, at) in places(turns, some) {
        let mut connection = capture.connection(port);
        let (client, bytes) = &turns[turn];
        connection.play(&turns[..turn]).say_cut(*client, bytes, at).play(&turns[turn + 1..]).close();
    }
}

/// A few bytes are missing, anywhere.
fn lost(capture: &mut Capture, port: u16, turns: &[Turn], some: Places) {
    for (turn, at) in places(turns, some) {
        let mut connection = capture.connection(port);
        let (client, bytes) = &turns[turn];
        let end = (at + 7).min(bytes.len());
        connection.play(&turns[..turn]).say(*client, &bytes[..at]).lose(*client, end - at);
        connection.say(*client, &bytes[end..]).play(&turns[turn + 1..]).close();
    }
}

/// The capture begins in the middle of a message, anywhere.
fn late(capture: &mut Capture, port: u16, turns: &[Turn], some: Places) {
    for (turn, at) in places(turns, some) {
        let mut connection = capture.connection_joined_late(port);
        let (client, bytes) = &turns[turn];
        connection.say(*client, &bytes[at..]).play(&turns[turn + 1..]).close();
    }
}

#[test]
fn the_test_can_tell() {
    let words: Vec<_> = CLASSES.iter().map(|class| Secrets::of(class)).chain([Secrets::NEVER]).collect();
    for (index, word) in words.iter().enumerate() {
        for other in words.iter().skip(index + 1) {
            assert!(leak(word, other).is_none(), "{word} and {other} have a piece in common");
        }
    }
    for word in words {
        let planted = DIALOGUES.iter().any(|dialogue| {
            dialogue.turns().iter().any(|(_, bytes)| String::from_utf8_lossy(bytes).contains(word))
        });
        assert!(planted, "{word} stands nowhere");
        assert!(leak(&format!("some {} words", &word[3..8]), word).is_some());
    }
    let output = read(&["-o", "jsonl"], &whole());
    let paired: Vec<_> = output.lines().filter(|line| line.contains("\"matched\":\"yes\"")).collect();
    for protocol in ["http", "websocket", "grpc", "redis", "postgresql", "mysql"] {
        let name = format!("\"protocol\":\"{protocol}\"");
        assert!(paired.iter().any(|line| line.contains(&name)), "{protocol} is not read:\n{output}");
    }
    let version = "\"network.protocol.version\":\"2\"";
    assert!(paired.iter().any(|line| line.contains(version)), "HTTP/2 is not read:\n{output}");
}

#[test]
fn whole_dialogues_show_nothing_and_what_is_asked_for() {
    let capture = whole();
    for format in FORMATS {
        for more in [&[][..], &["--stats", "--by", "route"], &["--stats", "--by", "statement"]] {
            let output = read(&[&["-o", format], more].concat(), &capture);
            for class in CLASSES {
                assert_hidden(&output, (class, Secrets::of(class)), &format!("{format} {more:?}"));
            }
            assert_hidden(&output, ("none", Secrets::NEVER), &format!("{format} {more:?}"));
        }
    }
    for shown in CLASSES {
        let output = read(&["-o", "jsonl", "--reveal", shown], &capture);
        assert!(output.contains(Secrets::of(shown)), "--reveal {shown} shows nothing:\n{output}");
        for line in output.lines().filter(|line| leak(line, Secrets::of(shown)).is_some()) {
            assert!(line.contains("\"revealed\":[\"") && line.contains(&format!("\"{shown}\"")), "{line}");
        }
        for class in CLASSES.into_iter().filter(|class| *class != shown) {
            assert_hidden(&output, (class, Secrets::of(class)), &format!("--reveal {shown}"));
        }
        assert_hidden(&output, ("none", Secrets::NEVER), &format!("--reveal {shown}"));
    }
}

/// No variant of a kind shows anything, in any format, and with everything
/// revealed none shows a password. Every format shows a part of what `jsonl` has:
/// the others need not be tried with each.
fn check(name: &str, make: Make) {
    let (all, some) = (variants(make, Places::All), variants(make, Places::Some));
    for format in FORMATS {
        let output = read(&["-o", format], if format == "jsonl" { &all } else { &some });
        for class in CLASSES {
            assert_hidden(&output, (class, Secrets::of(class)), &format!("{name}, {format}"));
        }
        assert_hidden(&output, ("none", Secrets::NEVER), &format!("{name}, {format}"));
    }
    let everything: Vec<&str> = CLASSES.iter().flat_map(|class| ["--reveal", *class]).collect();
    let output = read(&[&["-o", "jsonl"], &everything[..]].concat(), &all);
    assert_hidden(&output, ("none", Secrets::NEVER), &format!("{name}, everything revealed"));
    assert!(output.lines().count() > DIALOGUES.len(), "{name}: next to nothing was read");
}

#[test]
fn split_anywhere() {
    check("split", split);
}

#[test]
fn broken_off_anywhere() {
    check("broken off", broken_off);
}

#[test]
fn cut_anywhere() {
    check("cut", cut);
}

#[test]
fn with_a_hole_anywhere() {
    check("with a hole", lost);
}

#[test]
fn joined_late_anywhere() {
    check("joined late", late);
}
