//! Compiles the schema with protox, so that nobody needs `protoc`, and keeps its descriptors for reflection.

use prost::Message;
use std::error::Error;
use std::path::PathBuf;

const SCHEMA_ROOT: &str = "schema";
const SCHEMA_FILES: [&str; 4] = ["v1/admin.proto", "v1/control.proto", "v1/data.proto", "v1/lease.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={SCHEMA_ROOT}");
    let descriptors = protox::compile(SCHEMA_FILES, [SCHEMA_ROOT])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
