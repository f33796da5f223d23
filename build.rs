//! Hands the linker the order of the functions that run in a commit.

use std::env;
use std::path::Path;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=commit_path.ld");
    // A script that adds to the linker's own: of GNU ld and lld, not of Apple's.
    if env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        let root = env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
        let script = Path::new(&root).join("commit_path.ld");
        println!("cargo:rustc-cdylib-link-arg=-T{}", script.display());
    }
}
