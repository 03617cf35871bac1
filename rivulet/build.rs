//! Makes sure that the folders whose files are embedded exist, so that the binary builds before the browser parts do.
//!
//! **Invariant:** never builds anything itself; without the browser parts the program serves a page that says how to get them.

use std::path::Path;

fn main() -> std::io::Result<()> {
    for folder in ["../sdk-wasm/dist", "../web-demo/dist"] {
        std::fs::create_dir_all(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder))?;
    }
    for watched in ["../sdk-wasm/dist", "../web-demo/dist", "build.rs"] {
        let _ = std::io::Write::write_all(
            &mut std::io::stdout(),
            format!("cargo::rerun-if-changed={watched}\n").as_bytes(),
        );
    }
    Ok(())
}
