//! Libraries that the program is run with, so that a test sees or changes what it asks of the kernel.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::support::{Home, run_to_end};

/// Builds the library of a source in this folder, in the folder of `home`.
pub(crate) fn library(home: &Home, source: &str) -> PathBuf {
    let library = home.path(source).with_extension("so");
    let mut compile = Command::new("cc");
    compile.args(["-shared", "-fPIC", "-o"]).arg(&library);
    compile.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab").join(source));
    let output = run_to_end(compile, Duration::from_secs(20));
    assert!(output.status.success(), "{output:?}");
    library
}
