//! Filters that get other programs. `tc` can do that too, but gives a program that it takes from a file another name.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::RawFd;

use super::{Hook, descriptor, filters, interface_index};
use crate::Namespace;

const RTM_NEWTFILTER: u16 = 44;
/// `NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE`
const CHANGE: u16 = 0x405;
const NLMSG_ERROR: u16 = 2;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_FD: u16 = 6;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_FLAGS: u16 = 8;
/// What the program returns is the verdict.
const TCA_BPF_FLAG_ACT_DIRECT: u32 = 1;
const ETH_P_ALL: u16 = 3;

/// Has every filter whose program has a name for which there is a `program` run that one, under the same name.
#[track_caller]
pub(crate) fn replace_programs(namespace: &Namespace, program: impl Fn(&str) -> Option<RawFd>) {
    let qdiscs = namespace.run("tc", &["qdisc", "show"]);
    for qdisc in qdiscs.lines().filter(|line| line.starts_with("qdisc clsact ")) {
        let device = word_after(qdisc, "dev");
        for hook in Hook::BOTH {
            for filter in filters(namespace, device, hook) {
                let name = word_after(&filter, word_after(&filter, "handle"));
                if let Some(program) = program(name) {
                    replace_program(namespace, device, hook, &filter, (name, program));
                }
            }
        }
    }
}

/// `filter`: as `tc` shows it.
#[track_caller]
fn replace_program(
    namespace: &Namespace,
    device: &str,
    hook: Hook,
    filter: &str,
    (name, program): (&str, RawFd),
) {
    let handle = word_after(filter, "handle").trim_start_matches("0x");
    let handle = u32::from_str_radix(handle, 16).expect("a hexadecimal number");
    let preference: u16 = word_after(filter, "pref").parse().expect("a number");
    let parent: u32 = match hook {
        Hook::Ingress => 0xffff_fff2,
        Hook::Egress => 0xffff_fff3,
    };
    let info = u32::from(preference) << 16 | u32::from(ETH_P_ALL.to_be());
    let options = [
        attribute(TCA_BPF_FD, &program.to_ne_bytes()),
        attribute(TCA_BPF_NAME, &[name.as_bytes(), b"\0"].concat()),
        attribute(TCA_BPF_FLAGS, &TCA_BPF_FLAG_ACT_DIRECT.to_ne_bytes()),
    ];
    namespace.enter(|| {
        let header = [0, interface_index(device), handle, parent, info].map(u32::to_ne_bytes);
        let attributes = [attribute(TCA_KIND, b"bpf\0"), attribute(TCA_OPTIONS, &options.concat())];
        ask(RTM_NEWTFILTER, &[header.concat(), attributes.concat()].concat());
    });
}

#[track_caller]
fn word_after<'a>(line: &'a str, word: &str) -> &'a str {
    let after = line.split_whitespace().skip_while(|at| *at != word).nth(1);
    after.unwrap_or_else(|| panic!("nothing after {word} in {line}"))
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = 4 + value.len();
    let mut bytes = [(length as u16).to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(length.next_multiple_of(4), 0);
    bytes
}

/// Sends one request to the kernel, which must do what it says.
#[track_caller]
fn ask(kind: u16, message: &[u8]) {
    // SAFETY: the call takes no pointer.
    let socket =
        unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE) };
    let mut socket = File::from(descriptor(socket));
    let mut request = ((16 + message.len()) as u32).to_ne_bytes().to_vec();
    request.extend([kind, CHANGE].map(u16::to_ne_bytes).concat());
    // Its number, and the sender's.
    request.extend([0; 8]);
    request.extend(message);
    socket.write_all(&request).expect("the kernel takes a request");
    let mut answer = [0; 1024];
    let length = socket.read(&mut answer).expect("the kernel answers");
    assert!(length >= 20 && answer[4..6] == NLMSG_ERROR.to_ne_bytes(), "{:?}", &answer[..length]);
    let status = i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]);
    assert_eq!(status, 0, "{}", std::io::Error::from_raw_os_error(-status));
}
