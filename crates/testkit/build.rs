//! Builds weir's programs as other versions of weir may have them: from copies of `bpf/` in which a few lines differ.

use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use libbpf_cargo::SkeletonBuilder;

/// A line of a file, and what stands there in the other version.
type Change = (&'static str, &'static str, &'static str);

/// Programs that do more, with other totals and a map that nobody else has; the layouts are the same.
const PROGRAMS: [Change; 3] = [
    (
        "maps.h",
        "__u64 keeper_ns = 0;\n",
        "__u64 packets_of_other_version = 0;\n\
         struct {\n\
         \t__uint(type, BPF_MAP_TYPE_ARRAY);\n\
         \t__type(key, __u32);\n\
         \t__type(value, __u64);\n\
         \t__uint(max_entries, 1);\n\
         } of_other_version SEC(\".maps\");\n\
         __u64 keeper_ns = 0;\n",
    ),
    (
        "veth.bpf.c",
        "\tresult = packet_parse(skb, &packet, ethernet);\n",
        "\t__u32 zero = 0;\n\
         \t__u64 *count = bpf_map_lookup_elem(&of_other_version, &zero);\n\
         \tif (count)\n\
         \t\t__sync_fetch_and_add(count, 1);\n\
         \tpackets_of_other_version++;\n\
         \tresult = packet_parse(skb, &packet, ethernet);\n",
    ),
    (
        "config.h",
        "const volatile struct config config = {};\n",
        "const volatile struct config config = { .redirect = 1 };\n",
    ),
];

/// Layouts that differ: members that are elsewhere, wider, or new.
const LAYOUTS: [Change; 4] = [
    ("abi.h", "\t__u64 first_ns;\n", "\t__u64 of_other_version[3];\n\t__u64 first_ns;\n"),
    ("abi.h", "\t__u32 next_seq;", "\t__u64 next_seq;"),
    ("abi.h", "\t__u64 edge;\t   ", "\t__u32 of_other_version;\n\t__u64 edge;\t   "),
    ("abi.h", "\t__u32 address_sum; ", "\t__u64 address_sum; "),
];

fn main() -> Result<(), Box<dyn Error>> {
    let bpf = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../bpf");
    println!("cargo:rerun-if-changed={}", bpf.display());
    build(&bpf, "other_programs", &PROGRAMS)?;
    build(&bpf, "other_layouts", &[&PROGRAMS[..], &LAYOUTS[..]].concat())
}

fn build(bpf: &Path, name: &str, changes: &[Change]) -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let folder = out.join(name);
    fs::create_dir_all(&folder)?;
    for entry in fs::read_dir(bpf)? {
        let entry = entry?;
        let mut text = fs::read_to_string(entry.path())?;
        for (_, from, to) in changes.iter().filter(|(file, ..)| entry.file_name() == *file) {
            if text.matches(from).count() != 1 {
                return Err(format!("{from:?} is not once in {}", entry.path().display()).into());
            }
            text = text.replace(from, to);
        }
        fs::write(folder.join(entry.file_name()), text)?;
    }
    // As in crates/kernel/build.rs.
    let multiarch = format!("/usr/include/{}-linux-gnu", env::var("CARGO_CFG_TARGET_ARCH")?);
    let arguments = ["-mcpu=v3", "-idirafter", &multiarch].map(OsString::from);
    SkeletonBuilder::new()
        .source(folder.join("veth.bpf.c"))
        .obj(out.join(format!("{name}.bpf.o")))
        .clang_args(arguments.iter())
        .build()
        .map_err(|error| format!("{name}: {error:?}").into())
}
