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
}

impl StateArgs {
    /// Where programs, maps and links are pinned.
    #[must_use]
    pub fn pins(&self) -> PinDirectory {
        PinDirectory::new(&self.bpffs)
    }
}
