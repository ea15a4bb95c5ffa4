//! Attaching to real devices, in network namespaces that the tests make.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod chain;
mod clsact;
mod killed;
mod program;
mod speed;
mod wire;

use weir_kernel::attach::{Method, probe};

/// What this kernel has; clsact goes anywhere.
fn methods() -> Vec<Method> {
    match probe().unwrap() {
        Method::Tcx => vec![Method::Tcx, Method::Clsact],
        Method::Clsact => vec![Method::Clsact],
    }
}
