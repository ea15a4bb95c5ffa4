//! redis-server.

use weir_testkit::{Topology, require_root};

use super::servers::{Client, Server};
use super::{assert_complete, audit, by_connection};
use crate::weir::text;

fn command(words: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n{word}\r\n", word.len()).into_bytes());
    }
    bytes
}

#[test]
fn root_pipelines_are_those_of_the_clients_log() {
    require_root!();
    let topology = Topology::with_containers(&["redis", "shop"]);
    let (redis, shop) = (topology.container("redis"), topology.container("shop"));
    let server = Server::redis(redis.namespace(), redis.ipv4());
    let weir = audit(topology.host(), &[]);

    let mut log: Vec<(u16, Vec<String>)> = Vec::new();
    for connection in 0..3 {
        let mut client = Client::connect(shop.namespace(), server.address);
        let mut asked = Vec::new();
        for round in 0..100 {
            // All answers to these are of one line.
            let mut batch = Vec::new();
            for index in 0..=round % 32 {
                let key = format!("key:{connection}:{round}:{index}");
                let value = "secret".repeat(index * 10);
                let words: &[&str] = match index % 4 {
                    0 => &["SET", &key, &value],
                    1 => &["INCR", &key],
                    2 => &["EXISTS", &key],
                    _ => &["LPUSH", "key:0:0:0", "wrong type"],
                };
                batch.extend(command(words));
                asked.push(format!("{} {}", words[0], words[1]));
            }
            client.send(&batch);
            for _ in 0..=round % 32 {
                client.until(b"\r\n");
            }
        }
        log.push((client.port(), asked));
    }
    log.sort_by_key(|(port, _)| *port);
    let run = weir.finish();
    let found = by_connection(&run, |record| {
        assert_eq!(record["protocol"], "redis");
        let wrong = text(&record["operation"]) == "LPUSH";
        assert_eq!(record["ok"], !wrong, "{record}");
        let target = text(&record["target"]);
        format!("{} {}", text(&record["operation"]), target.split(' ').next().unwrap_or_default())
    });
    let asked: Vec<Vec<String>> = log.into_iter().map(|(_, asked)| asked).collect();
    assert_eq!(
        found.iter().map(Vec::len).collect::<Vec<_>>(),
        asked.iter().map(Vec::len).collect::<Vec<_>>()
    );
    assert_eq!(found, asked);
    assert_complete(&run);
    assert!(!run.lines().contains("secret"));
    server.stop();
}
