//! Writes the CustomResourceDefinitions to a directory, `deploy/crds` of this repository by default.

use std::{env, error::Error, fs, path::PathBuf};

use muster_crds::crds;

fn main() -> Result<(), Box<dyn Error>> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/crds");
    let directory = env::args_os()
        .nth(1)
        .map_or_else(|| PathBuf::from(default), PathBuf::from);
    fs::create_dir_all(&directory)?;
    for crd in crds::all() {
        fs::write(directory.join(crds::file_name(&crd)), crds::to_yaml(&crd)?)?;
    }
    Ok(())
}
