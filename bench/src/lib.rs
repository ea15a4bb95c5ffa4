//! What is said in every protocol that weir reads, and a client and a server that say it: for the
//! tables of `weir-bench` and for the benchmarks of criterion (`cargo bench -p weir-bench`).

mod cpu;
mod dialogue;
mod talk;

pub use cpu::cpu_time;
pub use dialogue::{Dialogue, Turn, dialogues};
pub use talk::{Listener, Parsers, Place, Talk};
