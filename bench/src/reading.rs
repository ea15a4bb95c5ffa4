//! Requests found in captures: the same files through weir and through tshark.

mod file;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use weir_bench::{Dialogue, dialogues};

use crate::Plan;
use crate::process::cpu_of_ended_children;
use crate::report::{Table, grouped};
use crate::told;
use crate::turns::{Samples, by_turns};
use crate::workload::Folder;

/// No capture is larger.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Who reads.
#[derive(Debug, Clone, Copy)]
enum Reader {
    Weir,
    Tshark,
}

const READERS: [Reader; 2] = [Reader::Weir, Reader::Tshark];

/// Measures every dialogue.
pub(crate) fn measure(plan: &Plan) -> Result<Vec<Table>> {
    let folder = Folder::new()?;
    let rows = dialogues()
        .iter()
        .map(|dialogue| {
            row(plan, &folder, dialogue).with_context(|| format!("while reading: {}", dialogue.name))
        })
        .collect::<Result<_>>()?;
    Ok(vec![Table {
        title: "Reading captures".into(),
        note: format!(
            "The dialogues of \"Parsers\" as captures, in segments of at most 1,448 bytes: so many requests (or \
             pipelines) as fit into {} MiB, {} at most. weir read -o jsonl writes a record of each request; tshark \
             -r prints one field of each. CPU time of the process, less what it takes for a capture in which \
             nothing is asked; medians of {} rounds in turns, and the median (min to max) of the ratios in a \
             round. Told: requests, of WebSocket messages. All files are in memory.",
            FILE_BYTES_MAX >> 20,
            grouped(plan.reading_turns.into()),
            plan.reading_rounds
        ),
        columns: vec![
            "capture",
            "requests",
            "MB",
            "told by weir",
            "by tshark",
            "weir µs a request",
            "tshark µs",
            "tshark / weir",
        ],
        rows,
    }])
}

fn row(plan: &Plan, folder: &Folder, dialogue: &Dialogue) -> Result<Vec<String>> {
    let (empty, full) = (folder.path().join("empty.pcap"), folder.path().join("full.pcap"));
    let output = folder.path().join("told");
    let fitting = u32::try_from(FILE_BYTES_MAX / dialogue.round_bytes()).unwrap_or(u32::MAX);
    let rounds = fitting.min(plan.reading_turns);
    file::write(&empty, dialogue, 0)?;
    file::write(&full, dialogue, rounds)?;
    let requests = u64::from(rounds * dialogue.requests);
    let mut samples = Samples::of(READERS.len());
    let mut told = [0; READERS.len()];
    for round in 0..plan.reading_rounds {
        by_turns(round, &READERS, |which, reader| {
            let idle_s = reader.read(plan, dialogue, &empty, &output)?;
            let before = reader.told(dialogue, &output)?;
            let busy_s = reader.read(plan, dialogue, &full, &output)?;
            if let Some(told) = told.get_mut(which) {
                *told = reader.told(dialogue, &output)? - before;
            }
            samples.add(which, (busy_s - idle_s) * 1e6 / requests as f64);
            Ok(())
        })?;
    }
    let [by_weir, by_tshark] = told;
    ensure!(by_weir == requests, "weir told of {by_weir} of {requests} requests");
    let mb = std::fs::metadata(&full)?.len() as f64 / 1e6;
    let [weir, tshark] = [Reader::Weir, Reader::Tshark].map(|reader| samples.spread(reader as usize));
    Ok(vec![
        dialogue.name.to_owned(),
        grouped(requests),
        format!("{mb:.1}"),
        grouped(by_weir),
        grouped(by_tshark),
        format!("{:.2}", weir.context("nothing was measured")?.median),
        format!("{:.2}", tshark.context("nothing was measured")?.median),
        samples.ratio(Reader::Tshark as usize, Reader::Weir as usize)?.to_string(),
    ])
}

impl Reader {
    /// Reads a capture; the CPU seconds that it took.
    fn read(self, plan: &Plan, dialogue: &Dialogue, capture: &Path, output: &PathBuf) -> Result<f64> {
        let mut command = match self {
            Self::Weir => Command::new(&plan.weir),
            Self::Tshark => Command::new("tshark"),
        };
        match self {
            Self::Weir => command.args(["read", "-o", "jsonl"]).arg(capture),
            Self::Tshark => command.args(tshark(dialogue)).arg("-r").arg(capture),
        };
        let before = cpu_of_ended_children();
        let ended = command
            .stdin(Stdio::null())
            .stdout(File::create(output)?)
            .stderr(Stdio::piped())
            .output()
            .with_context(|| format!("cannot run {command:?}"))?;
        let cpu = cpu_of_ended_children().saturating_sub(before);
        if !ended.status.success() {
            bail!("{command:?}: {}\n{}", ended.status, String::from_utf8_lossy(&ended.stderr));
        }
        Ok(cpu.as_secs_f64())
    }

    /// Requests in what it wrote.
    fn told(self, dialogue: &Dialogue, output: &Path) -> Result<u64> {
        match self {
            Self::Tshark => told::by_tshark(output),
            Self::Weir if dialogue.is_counted_only => told::messages_by_weir(output),
            Self::Weir => told::by_weir(output, &[]).map(|told| told.whole),
        }
    }
}

/// Prints a value for each request.
fn tshark(dialogue: &Dialogue) -> Vec<String> {
    let field = dialogue.tshark_field;
    let transport = if dialogue.udp { "udp" } else { "tcp" };
    let filter = match dialogue.is_counted_only {
        true => field.to_owned(),
        false => format!("{field} && {transport}.dstport == {}", dialogue.port),
    };
    ["-n", "-T", "fields", "-E", "occurrence=a", "-e", field, "-Y", &filter].map(str::to_owned).to_vec()
}
