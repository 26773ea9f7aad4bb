//! The file of this program, and whether an upgrade has put another one in its place.

use std::{fs, os::unix::fs::MetadataExt, path::PathBuf};

/// The file that this process was started from.
#[derive(Debug)]
pub(super) struct Program {
    /// Its path and which file it was; `None` if it had none to begin with.
    file: Option<(PathBuf, (u64, u64))>,
}

impl Program {
    /// That of this process, now.
    pub(super) fn own() -> Self {
        Self {
            file: std::env::current_exe().ok().and_then(|path| Some((path.clone(), id(&path)?))),
        }
    }

    /// Whether another file is in its place, or none.
    pub(super) fn is_replaced(&self) -> bool {
        self.file.as_ref().is_some_and(|(path, was)| id(path) != Some(*was))
    }
}

fn id(path: &PathBuf) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|facts| (facts.dev(), facts.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sees_that_its_file_was_replaced_or_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("openclaw");
        fs::write(&path, "old").unwrap();
        let program = Program { file: id(&path).map(|id| (path.clone(), id)) };
        assert!(!program.is_replaced());
        fs::write(folder.path().join("new"), "new").unwrap();
        fs::rename(folder.path().join("new"), &path).unwrap();
        assert!(program.is_replaced());
        fs::remove_file(&path).unwrap();
        assert!(program.is_replaced());
        assert!(!Program::own().is_replaced());
        assert!(!Program { file: None }.is_replaced());
    }
}
