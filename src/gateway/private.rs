//! Files that nobody else may read: made whole or not at all, 0600, in folders of 0700.

use std::{
    fs::{DirBuilder, Permissions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::Path,
};

use crate::problem::{Class, Problem};

/// Makes `folder`, one of ours, and what leads to it; a wider mode of `folder` itself is narrowed.
pub(super) fn make_folder(folder: &Path) -> Result<(), Problem> {
    let make = || {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        narrow(folder, 0o700)
    };
    make().map_err(|error: io::Error| {
        Problem::new(Class::Config, format!("cannot use the folder {}: {error}", folder.display()))
            .fix(format!(
                "ls -ld {}, or choose another folder with OPENCLAW_STATE_DIR",
                folder.display()
            ))
            .denied(&error)
    })
}

/// The text of `file`, one of ours, trimmed; `None` without the file. A wider mode is narrowed.
pub(super) fn read(file: &Path) -> Result<Option<String>, Problem> {
    let read = || {
        let text = std::fs::read_to_string(file)?;
        narrow(file, 0o600)?;
        Ok::<_, io::Error>(text)
    };
    match read() {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unusable(file, &error)),
    }
}

/// Writes a new `file` of `text`; fails if there is one.
pub(super) fn create(file: &Path, text: &str) -> Result<(), Problem> {
    let folder = file.parent().unwrap_or_else(|| Path::new("."));
    make_folder(folder)?;
    create_beside(file, text)
}

/// The same in a folder that is not ours and stays as it is.
pub(super) fn create_beside(file: &Path, text: &str) -> Result<(), Problem> {
    let folder = file.parent().unwrap_or_else(|| Path::new("."));
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

/// Takes away what `mode` does not give.
pub(super) fn narrow(path: &Path, mode: u32) -> io::Result<()> {
    let present = std::fs::metadata(path)?.permissions().mode() & 0o777;
    if present & !mode == 0 {
        return Ok(());
    }
    std::fs::set_permissions(path, Permissions::from_mode(present & mode))
}

fn unusable(file: &Path, error: &io::Error) -> Problem {
    Problem::new(Class::Config, format!("cannot use {}: {error}", file.display()))
        .fix(format!("ls -l {}", file.display()))
        .denied(error)
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn narrows_what_others_could_read() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("rs/secret");
        create(&file, "one").unwrap();
        std::fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        std::fs::set_permissions(file.parent().unwrap(), Permissions::from_mode(0o755)).unwrap();
        read(&file).unwrap();
        make_folder(file.parent().unwrap()).unwrap();
        assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
    }
}
