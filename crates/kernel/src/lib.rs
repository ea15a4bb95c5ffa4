//! weir's kernel side: the BPF programs, loaded, attached and read.
//!
//! The only crate with clang, libbpf and `unsafe`. What it hands out are the
//! checked types of [`weir_core`].

mod abi;
pub mod attach;
mod carry;
mod clock;
mod datapath;
mod decode;
mod flows;
mod payloads;
mod pins;
mod reader;
mod redirects;
mod test_run;
mod texts;
mod translations;

pub use clock::monotonic_now_ns;
pub use datapath::{AuditOptions, Datapath, LoadError, Options, ProgramName};
pub use flows::{FlowTable, TableError};
pub use payloads::{Captures, CapturesError, PayloadListener};
pub use pins::{DEFAULT_BPFFS, PinDirectory, PinError};
pub use reader::ReaderError;
pub use redirects::{RedirectCounters, RedirectError, Redirects};
pub use test_run::{TestRun, test_run};
pub use texts::{RuleTexts, TextsError};

#[allow(
    missing_docs,
    unreachable_pub,
    unused_imports,
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    clippy::undocumented_unsafe_blocks
)]
mod skeleton {
    pub(crate) mod veth {
        include!(concat!(env!("OUT_DIR"), "/veth.skel.rs"));
    }
    pub(crate) mod abi {
        include!(concat!(env!("OUT_DIR"), "/abi.skel.rs"));
    }
}
