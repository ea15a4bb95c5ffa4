use super::*;
use crate::containers::EngineChoice;
use weir_testkit::{Topology, require_root};

fn is_interface(event: &HostEvent, wanted: impl Fn(&str) -> bool) -> bool {
    matches!(event, HostEvent::Interface(interface) if wanted(&interface.name))
}

#[test]
fn root_after_an_overrun_the_difference_is_told() {
    require_root!();
    let mut topology = Topology::with_containers(&["web", "db"]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (out, events) = crossbeam_channel::unbounded();
    let options = WatchOptions { engines: EngineChoice::None };
    // Its sockets stay in the host's namespace.
    let mut watcher =
        topology.host().enter(|| runtime.block_on(async { Watcher::open(options, &out) })).unwrap();
    watcher.notices.shrink();
    let at_start: Vec<HostEvent> = events.try_iter().collect();
    let web = at_start.iter().find_map(|event| match event {
        HostEvent::Interface(interface) if interface.name == "veth-web" => Some(interface.ifindex),
        _ => None,
    });
    let lines = (0..50).map(|n| format!("link add near{n} type veth peer name far{n}\n"));
    topology.host().ip_batch(&lines.collect::<String>());
    topology.remove_container("web");
    topology.add_container("cache");
    let mut told: Vec<HostEvent> = Vec::new();
    runtime.block_on(async {
        let all = async {
            while !told.iter().any(|event| is_interface(event, |name| name == "veth-cache")) {
                assert!(watcher.step().await.is_ok());
                told.extend(events.try_iter());
            }
        };
        tokio::time::timeout(Duration::from_secs(20), all).await.unwrap();
    });
    let told_of = |wanted: fn(&str) -> bool| told.iter().filter(|event| is_interface(event, wanted)).count();
    assert_eq!(told_of(|name| name.starts_with("near") || name.starts_with("far")), 100);
    assert!(told.contains(&HostEvent::InterfaceGone { ifindex: web.unwrap() }));
    assert_eq!(told_of(|name| name == "veth-db"), 0, "what did not change is not told again");
}
