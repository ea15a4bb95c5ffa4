//! Where what outlives a command is kept, and who is asked about it.

use std::path::PathBuf;

use clap::Args;
use weir_kernel::{DEFAULT_BPFFS, PinDirectory};

/// For every command that may meet state which outlives it.
#[derive(Debug, Clone, Args)]
pub struct StateArgs {
    /// The BPF file system, which holds rules and connections while no weir runs.
    #[arg(long, env = "WEIR_BPFFS", default_value = DEFAULT_BPFFS, value_name = "FOLDER", help_heading = "Host")]
    pub bpffs: PathBuf,

    /// Where the weir that runs answers other commands.
    #[arg(long, env = "WEIR_SOCKET", default_value = DEFAULT_SOCKET, value_name = "SOCKET", help_heading = "Host")]
    pub socket: PathBuf,
}

/// On a file system that is empty after a start of the host.
const DEFAULT_SOCKET: &str = "/run/weir/weir.sock";

impl StateArgs {
    /// Where programs, maps and links are pinned.
    #[must_use]
    pub fn pins(&self) -> PinDirectory {
        PinDirectory::new(&self.bpffs)
    }
}
