//! Redis.

use super::Dialogue;

pub(super) fn dialogues() -> Vec<Dialogue> {
    const KEY: &str = "key:000000001";
    let bulk = |bytes: usize| format!("${bytes}\r\n{}\r\n", "x".repeat(bytes));
    vec![
        redis("Redis, GET of 3 bytes", 1, &["GET", KEY], &bulk(3)),
        Dialogue {
            target_ns: Some(100.0),
            ..redis("Redis, GET of 3 bytes, pipelines of 16", 16, &["GET", KEY], &bulk(3))
        },
        redis("Redis, SET of 1 kB, pipelines of 16", 16, &["SET", KEY, &"x".repeat(1024)], "+OK\r\n"),
        redis("Redis, GET of 1 MB", 1, &["GET", KEY], &bulk(1 << 20)),
        redis(
            "Redis, LRANGE of 1,000 elements",
            1,
            &["LRANGE", KEY, "0", "-1"],
            &format!("*1000\r\n{}", bulk(20).repeat(1_000)),
        ),
    ]
}

fn redis(name: &'static str, pipeline: u32, words: &[&str], reply: &str) -> Dialogue {
    let mut command = format!("*{}\r\n", words.len());
    for word in words {
        command += &format!("${}\r\n{word}\r\n", word.len());
    }
    let times = pipeline as usize;
    Dialogue {
        name,
        protocol: "redis",
        port: 6379,
        turns: vec![(true, command.repeat(times).into()), (false, reply.repeat(times).into())],
        requests: pipeline,
        tshark_field: "resp.array.length",
        ..Dialogue::default()
    }
}
