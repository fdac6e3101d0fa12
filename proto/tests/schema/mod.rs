//! The `.proto` files, compiled without `protoc`.

use std::path::Path;

use prost_types::FileDescriptorSet;

/// The descriptors of `proto/`.
pub fn compiled() -> FileDescriptorSet {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let files = ["session", "job", "artifact"]
        .map(|name| root.join(format!("ce/connector/v1/{name}.proto")));
    protox::compile(files, [root]).expect("the .proto files are right")
}
