//! Compiles the programs of `bpf/` and generates their typed skeletons.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use libbpf_cargo::SkeletonBuilder;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bpf = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../bpf");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    // Where Debian and Ubuntu keep <asm/types.h>; clang does not look there for the bpf target.
    let multiarch = format!("/usr/include/{}-linux-gnu", env::var("CARGO_CFG_TARGET_ARCH")?);
    // v3 (32-bit arithmetic) is understood from Linux 5.1 on, without the
    // fetching atomics (5.12), which the programs do not use.
    let arguments: Vec<OsString> =
        ["-mcpu=v3", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter", "-idirafter", &multiarch]
            .into_iter()
            .map(OsString::from)
            .collect();
    for name in ["veth", "abi"] {
        let source = bpf.join(format!("{name}.bpf.c"));
        SkeletonBuilder::new()
            .source(&source)
            .obj(out.join(format!("{name}.bpf.o")))
            .clang_args(arguments.iter())
            .build_and_generate(out.join(format!("{name}.skel.rs")))
            .map_err(|error| format!("{}: {error:?}", source.display()))?;
    }
    println!("cargo:rerun-if-changed={}", bpf.display());
    println!("cargo:rustc-env=ABI_VERSION={}", abi_version(&bpf.join("abi.h"))?);
    Ok(())
}

/// The number that the header gives itself; pinned state carries it in its name.
fn abi_version(header: &Path) -> Result<String, Box<dyn std::error::Error>> {
    let text = std::fs::read_to_string(header)?;
    let version = text.lines().find_map(|line| line.strip_prefix("#define ABI_VERSION "));
    Ok(version.ok_or("abi.h defines no ABI_VERSION")?.trim().to_owned())
}
