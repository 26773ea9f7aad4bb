//! Files that nobody else may read: made whole or not at all, 0600, in folders of 0700.

use std::{
    fs::DirBuilder,
    io::{self, Write},
    os::unix::fs::DirBuilderExt,
    path::Path,
};

use crate::problem::{Class, Problem};

/// Makes `folder` and what leads to it; what is there already keeps its mode.
pub(super) fn make_folder(folder: &Path) -> Result<(), Problem> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| {
        Problem::new(Class::Config, format!("cannot use the folder {}: {error}", folder.display()))
            .fix(format!(
                "ls -ld {}, or choose another folder with OPENCLAW_STATE_DIR",
                folder.display()
            ))
    })
}

/// The text of `file`, trimmed; `None` without the file.
pub(super) fn read(file: &Path) -> Result<Option<String>, Problem> {
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unusable(file, &error)),
    }
}

/// Writes a new `file` of `text`; fails if there is one.
pub(super) fn create(file: &Path, text: &str) -> Result<(), Problem> {
    let folder = file.parent().unwrap_or_else(|| Path::new("."));
    make_folder(folder)?;
    let write = || {
        // A temporary file is 0600 from its first moment.
        let mut temporary = tempfile::NamedTempFile::new_in(folder)?;
        temporary.write_all(text.as_bytes())?;
        temporary.as_file().sync_all()?;
        temporary.persist_noclobber(file)?;
        std::fs::File::open(folder)?.sync_all()
    };
    write().map_err(|error: io::Error| unusable(file, &error))
}

fn unusable(file: &Path, error: &io::Error) -> Problem {
    Problem::new(Class::Config, format!("cannot use {}: {error}", file.display()))
        .fix(format!("ls -l {}", file.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn writes_once_and_for_the_owner_alone() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("rs/inner/secret");
        assert_eq!(read(&file).unwrap(), None);
        create(&file, "one\n").unwrap();
        assert_eq!(read(&file).unwrap().as_deref(), Some("one"));
        assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
        create(&file, "two").unwrap_err();
        assert_eq!(read(&file).unwrap().as_deref(), Some("one"));
    }
}
