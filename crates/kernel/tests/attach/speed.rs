//! How long attaching takes.

use std::time::{Duration, Instant};

use weir_kernel::attach::Method;
use weir_testkit::{Namespace, require_root};

use crate::methods;
use crate::program::Weir;
use crate::wire::index;

const VETHS: u32 = 200;

/// Most of TCX's time is spent waiting, some 20 ms an interface (see the module's page): fewer will do.
const VETHS_TCX: u32 = 20;

#[test]
fn root_many_veths_are_attached_quickly() {
    require_root!();
    let namespace = Namespace::new("many");
    let lines: String = (0..VETHS).map(|i| format!("link add v{i} type veth peer name p{i}\n")).collect();
    namespace.ip_batch(&lines);
    namespace.enter(|| {
        let weir = Weir::load();
        for method in methods() {
            let (count, limit) = match method {
                Method::Tcx => (VETHS_TCX, Duration::from_secs(10)),
                Method::Clsact => (VETHS, Duration::from_secs(10)),
            };
            let attacher = weir.attacher(method);
            let indices: Vec<u32> = (0..count).map(|i| index(&format!("v{i}"))).collect();
            let start = Instant::now();
            let attached: Vec<_> = indices.iter().map(|&i| attacher.attach(i, true).unwrap()).collect();
            let attaching = start.elapsed();
            drop(attached);
            let detaching = start.elapsed() - attaching;
            println!("{method}: {count} veths attached in {attaching:?}, detached in {detaching:?}");
            assert!(attaching < limit, "{method}: {attaching:?}");
        }
    });
}
