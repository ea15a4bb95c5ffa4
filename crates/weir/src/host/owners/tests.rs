use super::*;

const ID: &str = "4f1c0b7e9d2a4f1c0b7e9d2a4f1c0b7e9d2a4f1c0b7e9d2a4f1c0b7e9d2a0123";
const OTHER: &str = "aaaabbbbccccddddaaaabbbbccccddddaaaabbbbccccddddaaaabbbbccccdddd";

fn ip(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

fn named(id: &str, name: &str) -> Container {
    Container { id: id.into(), name: name.into(), ..Container::default() }
}

fn by_id(id: &str) -> Found {
    Found { container_id: Some(id.into()), name: None }
}

/// What was told, in short.
fn told(owners: &mut Owners) -> Vec<String> {
    let short = |event| match event {
        HostEvent::Owner { ifindex, container } => {
            format!(
                "{ifindex} is {}",
                container.map_or("nobody's".into(), |container| container.name.clone())
            )
        }
        HostEvent::Addresses { container, addresses } => format!("{} has {addresses:?}", container.name),
        HostEvent::ContainerGone { id } => format!("{} is gone", id.chars().take(4).collect::<String>()),
        other => format!("{other:?}"),
    };
    owners.take_events().into_iter().map(short).collect()
}

#[test]
fn without_an_engine_the_best_name_is_taken() {
    let mut owners = Owners::default();
    owners.put_veth(7, "veth7", Some(1));
    assert!(told(&mut owners).is_empty(), "before anybody looked");
    assert!(owners.wants_owner(1) && owners.wants_addresses(1));
    assert_eq!(owners.put_found(1, Found::default()), None);
    assert_eq!(told(&mut owners), ["7 is veth7"]);
    owners.put_found(1, Found { container_id: None, name: Some("blue".into()) });
    owners.put_addresses(1, vec![ip(2), "127.0.0.1".parse().unwrap()]);
    assert_eq!(told(&mut owners), ["7 is blue", "blue has [10.0.0.2]"]);
    // An engine may know more about it.
    assert_eq!(owners.put_found(1, by_id(ID)), Some(ID.to_owned()));
    assert_eq!(told(&mut owners), ["7 is 4f1c0b7e9d2a", "blue is gone", "4f1c0b7e9d2a has [10.0.0.2]"]);
    assert!(!owners.wants_owner(1) && !owners.wants_addresses(1));
    // Found again, it is nothing new.
    assert_eq!(owners.put_found(1, by_id(ID)), None);
    assert!(told(&mut owners).is_empty());
    owners.remove_veth(7);
    owners.remove_namespace(1);
    assert_eq!(told(&mut owners), ["4f1c is gone"]);
}

#[test]
fn two_veths_of_a_namespace_have_one_owner() {
    let mut owners = Owners::default();
    owners.put_veth(8, "veth8", Some(1));
    owners.put_veth(7, "veth7", Some(1));
    owners.put_found(1, Found::default());
    owners.put_addresses(1, vec![ip(2)]);
    assert_eq!(told(&mut owners), ["7 is veth7", "8 is veth7", "veth7 has [10.0.0.2]"]);
}

#[test]
fn the_engine_knows_better_whatever_comes_first() {
    for engine_first in [true, false] {
        let mut owners = Owners::default();
        owners.put_veth(7, "veth7", Some(1));
        if engine_first {
            owners.put_container(named(ID, "web"), None, vec![ip(2)]);
            assert_eq!(told(&mut owners), ["web has [10.0.0.2]"]);
            owners.put_found(1, by_id(ID));
            assert_eq!(told(&mut owners), ["7 is web"]);
        } else {
            owners.put_found(1, by_id(ID));
            assert_eq!(told(&mut owners), ["7 is 4f1c0b7e9d2a"]);
            owners.put_container(named(ID, "web"), None, vec![ip(2)]);
            assert_eq!(told(&mut owners), ["7 is web", "web has [10.0.0.2]"]);
        }
        owners.put_container(named(ID, "front"), None, vec![ip(2)]);
        assert_eq!(told(&mut owners), ["7 is front", "front has [10.0.0.2]"]);
        owners.put_container(named(ID, "front"), Some(1), vec![ip(2)]);
        assert!(told(&mut owners).is_empty());
    }
}

#[test]
fn a_stopped_container_keeps_its_veth_until_that_goes() {
    let mut owners = Owners::default();
    owners.put_veth(7, "veth7", Some(1));
    owners.put_container(named(ID, "web"), Some(1), vec![ip(2)]);
    assert_eq!(told(&mut owners), ["7 is web", "web has [10.0.0.2]"]);
    owners.remove_container(ID);
    assert_eq!(told(&mut owners), ["4f1c is gone"]);
    owners.put_addresses(1, vec![ip(2)]);
    owners.put_found(1, Found::default());
    owners.put_veth(7, "renamed", Some(1));
    owners.remove_container(ID);
    assert!(told(&mut owners).is_empty());
    owners.put_veth(7, "renamed", None);
    assert_eq!(told(&mut owners), ["7 is nobody's"]);
    // It starts again, in a new namespace with the old number.
    owners.remove_namespace(1);
    owners.put_veth(8, "veth8", Some(1));
    owners.put_container(named(ID, "web"), Some(1), vec![ip(3)]);
    assert_eq!(told(&mut owners), ["8 is web", "web has [10.0.0.3]"]);
}

#[test]
fn a_number_that_is_used_again_means_another() {
    let mut owners = Owners::default();
    owners.put_veth(7, "veth7", Some(1));
    owners.put_container(named(ID, "web"), Some(1), vec![ip(2)]);
    told(&mut owners);
    // The engine has not said yet that it stopped.
    owners.remove_veth(7);
    owners.remove_namespace(1);
    owners.put_veth(9, "veth9", Some(1));
    assert!(told(&mut owners).is_empty());
    owners.put_found(1, by_id(OTHER));
    assert_eq!(told(&mut owners), ["9 is aaaabbbbcccc"]);
    owners.keep_containers(&BTreeSet::new());
    assert_eq!(told(&mut owners), ["4f1c is gone"]);
}

#[test]
fn after_doubt_owners_stay_until_they_are_found_again() {
    let mut owners = Owners::default();
    owners.put_veth(7, "veth7", Some(1));
    owners.put_container(named(ID, "web"), Some(1), vec![ip(2)]);
    told(&mut owners);
    assert_eq!(owners.doubt_namespaces(), [1]);
    owners.put_veth(8, "veth8", Some(1));
    assert!(owners.wants_owner(1));
    assert_eq!(told(&mut owners), ["8 is web"]);
    owners.put_found(1, by_id(OTHER));
    assert_eq!(told(&mut owners), ["7 is aaaabbbbcccc", "8 is aaaabbbbcccc"]);
}

#[test]
fn a_container_that_moved_has_no_addresses_of_its_old_namespace() {
    let mut owners = Owners::default();
    owners.put_veth(7, "veth7", Some(1));
    owners.put_container(named(ID, "web"), Some(1), vec![]);
    owners.put_addresses(1, vec![ip(2)]);
    assert_eq!(told(&mut owners), ["7 is web", "web has [10.0.0.2]"]);
    // Restarted, while another container keeps the old namespace.
    owners.remove_veth(7);
    owners.put_veth(9, "veth9", Some(2));
    owners.put_container(named(ID, "web"), Some(2), vec![]);
    owners.put_addresses(2, vec![ip(3)]);
    assert_eq!(told(&mut owners).last().unwrap(), "web has [10.0.0.3]");
}
