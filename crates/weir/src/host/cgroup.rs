//! Container ids in the names of cgroups.

const ID_DIGITS: usize = 64;

/// The id of the container that a process belongs to, from the text of its
/// `/proc/PID/cgroup` (of version 1, 2, or both). Docker, Podman, containerd and
/// CRI-O name their cgroups after the container, with or without systemd:
/// `/docker/ID`, `docker-ID.scope`, `libpod-ID.scope`, `cri-containerd-ID.scope`,
/// `/kubepods/.../podUID/ID`.
///
/// Of nested containers, the innermost. Processes that watch over a container
/// (`conmon`) have a cgroup with its id too, but are not in it.
pub(crate) fn container_id(cgroups: &str) -> Option<&str> {
    cgroups.lines().find_map(|line| {
        // 4:memory:/docker/ID, 0::/system.slice/docker-ID.scope
        let path = line.splitn(3, ':').nth(2)?;
        path.rsplit('/').find_map(id_of_component)
    })
}

fn id_of_component(component: &str) -> Option<&str> {
    let name = component.strip_suffix(".scope").unwrap_or(component);
    let (prefix, id) = name.rsplit_once('-').unwrap_or(("", name));
    // containerd without systemd under Kubernetes: cri-containerd:ID after a slice
    let id = id.rsplit_once(':').map_or(id, |(_, id)| id);
    (is_container_id(id) && !prefix.ends_with("conmon")).then_some(id)
}

/// Whether it has the form of a full container id.
pub(crate) fn is_container_id(id: &str) -> bool {
    id.len() == ID_DIGITS && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4f1c0b7e9d2a4f1c0b7e9d2a4f1c0b7e9d2a4f1c0b7e9d2a4f1c0b7e9d2a0123";
    const INNER: &str = "aaaabbbbccccddddaaaabbbbccccddddaaaabbbbccccddddaaaabbbbccccdddd";

    #[test]
    fn finds_the_id() {
        for path in [
            format!("0::/system.slice/docker-{ID}.scope"),
            format!("0::/docker/{ID}"),
            format!("0::/docker/{ID}/init"),
            format!("0::/../{ID}"),
            format!("0::/machine.slice/libpod-{ID}.scope/container"),
            format!("0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope"),
            format!("0::/libpod_parent/libpod-{ID}"),
            format!(
                "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice/cri-containerd-{ID}.scope"
            ),
            format!("0::/kubepods/besteffort/pod6f0a2c5e-0d3e-11ee-be56-0242ac120002/{ID}"),
            format!("0::/kubepods.slice/kubepods-pod1.slice/crio-{ID}.scope"),
            format!("0::/system.slice/containerd.service/kubepods-pod1.slice:cri-containerd:{ID}"),
            format!("0::/default/{ID}"),
            format!(
                "12:pids:/docker/{ID}\n11:memory:/docker/{ID}\n1:name=systemd:/docker/{ID}\n0::/system.slice/containerd.service"
            ),
            format!("3:cpu,cpuacct:/\n2:memory:/docker/{ID}\n0::/"),
            format!("0::/docker/{INNER}/docker/{ID}"),
            format!("1:name=systemd:/system.slice/docker.service:x/docker/{ID}"),
        ] {
            assert_eq!(container_id(&path), Some(ID), "{path}");
        }
    }

    #[test]
    fn finds_none_where_there_is_none() {
        for path in [
            String::new(),
            "0::/".into(),
            "0::/system.slice/docker.service".into(),
            "0::/user.slice/user-1000.slice/session-2.scope".into(),
            format!("0::/docker/{}", &ID[..63]),
            format!("0::/docker/{ID}0"),
            format!("0::/docker/{}", ID.to_uppercase()),
            format!("0::/machine.slice/libpod-conmon-{ID}.scope"),
            format!("0::/machine.slice/crio-conmon-{ID}.scope"),
            ID.into(),
            "garbage\n::\n:::::".into(),
        ] {
            assert_eq!(container_id(&path), None, "{path}");
        }
    }
}
