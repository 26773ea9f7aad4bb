//! The file of a day: `PREFIX2026-11-27.log`, and `PREFIX2026-11-27.1.log` before it once that is full.
//!
//! Days are those of UTC, so that a file does not depend on where the machine thinks it is.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use jiff::{Timestamp, civil::Date, tz::TimeZone};

/// Days whose files are kept.
const DAYS: usize = 7;
/// The size from which on a file is set aside, bytes; a day has two of them at most.
const LARGEST: u64 = 16 * 1024 * 1024;

/// The log of one program in one folder, which is made anew when somebody removes it.
#[derive(Debug)]
pub(crate) struct DayFile {
    folder: PathBuf,
    prefix: &'static str,
    largest: u64,
    open: Option<Open>,
    /// Whether the last line may lack its end.
    is_torn: bool,
}

#[derive(Debug)]
struct Open {
    day: Date,
    path: PathBuf,
    file: File,
    inode: u64,
    size: u64,
}

impl DayFile {
    /// The files of `prefix` in `folder`; nothing is made before the first line.
    pub(crate) fn new(folder: &Path, prefix: &'static str) -> Self {
        let folder = folder.to_owned();
        Self { folder, prefix, largest: LARGEST, open: None, is_torn: true }
    }

    /// Sets the size from which on a file is set aside, bytes.
    #[cfg(test)]
    fn largest(self, bytes: u64) -> Self {
        Self { largest: bytes, ..self }
    }

    /// Opens today's file, to say early what is wrong with the folder.
    pub(crate) fn check(&mut self) -> io::Result<()> {
        self.today(Timestamp::now()).map(drop)
    }

    /// Appends `text`, whole lines, to the file of the day of `now`. After an error the next text
    /// tries anew.
    pub(crate) fn append(&mut self, text: &[u8], now: Timestamp) -> io::Result<()> {
        let outcome = self.try_append(text, now);
        self.is_torn = outcome.is_err();
        if outcome.is_err() {
            self.open = None;
        }
        outcome
    }

    fn try_append(&mut self, text: &[u8], now: Timestamp) -> io::Result<()> {
        let (is_torn, largest) = (self.is_torn, self.largest);
        let length = text.len() as u64;
        let open = self.today(now)?;
        if open.size > 0 && open.size + length > largest {
            let aside = open.path.with_extension("1.log");
            fs::rename(&open.path, aside)?;
            self.open = None;
        }
        let open = self.today(now)?;
        // A line that goes on where another broke off would be lost with it.
        if is_torn && open.size > 0 {
            open.file.write_all(b"\n")?;
            open.size += 1;
        }
        open.file.write_all(text)?;
        open.size += length;
        Ok(())
    }

    /// Today's file; another one than before if the day has changed or somebody took it away.
    fn today(&mut self, now: Timestamp) -> io::Result<&mut Open> {
        let day = TimeZone::UTC.to_datetime(now).date();
        let is_there = self.open.as_ref().is_some_and(|open| {
            open.day == day
                && fs::symlink_metadata(&open.path).is_ok_and(|known| known.ino() == open.inode)
        });
        if !is_there {
            self.open = Some(self.opened(day)?);
            self.prune(day);
        }
        self.open.as_mut().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn opened(&self, day: Date) -> io::Result<Open> {
        if !self.folder.exists() {
            DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        }
        let path = self.folder.join(format!("{}{day}.log", self.prefix));
        // Whoever put a link there wants us to write somewhere else.
        let flags = nix::fcntl::OFlag::O_NOFOLLOW.bits();
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .custom_flags(flags)
            .open(&path)?;
        let known = file.metadata()?;
        if known.permissions().mode() & 0o077 != 0 {
            file.set_permissions(Permissions::from_mode(0o600))?;
        }
        Ok(Open { day, path, file, inode: known.ino(), size: known.len() })
    }

    /// Removes the files of days long gone; what cannot be removed stays until tomorrow.
    fn prune(&self, today: Date) {
        for name in outdated(&names(&self.folder), self.prefix, today) {
            let _kept = fs::remove_file(self.folder.join(name));
        }
    }
}

impl Write for DayFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.append(bytes, Timestamp::now())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The newest file of `prefix` in `folder`; a log reader begins with it.
pub(crate) fn newest(folder: &Path, prefix: &str) -> Option<PathBuf> {
    let names = names(folder);
    let name = names.iter().filter(|name| day_of(name, prefix).is_some()).max()?;
    Some(folder.join(name))
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.collect()
}

/// The day in the name of one of our files.
fn day_of(name: &str, prefix: &str) -> Option<Date> {
    let day = name.strip_prefix(prefix)?.strip_suffix(".log")?;
    day.strip_suffix(".1").unwrap_or(day).parse().ok()
}

/// Which of `names` are of days before the last [`DAYS`] that have a file, today's included.
fn outdated<'a>(names: &'a [String], prefix: &str, today: Date) -> Vec<&'a str> {
    let mut days: BTreeSet<Date> = names.iter().filter_map(|name| day_of(name, prefix)).collect();
    days.insert(today);
    let Some(oldest) = days.iter().rev().nth(DAYS - 1) else { return Vec::new() };
    let is_old = |name: &&String| day_of(name, prefix).is_some_and(|day| day < *oldest);
    names.iter().filter(is_old).map(String::as_str).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFIX: &str = "gateway-";

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn file(home: &Path) -> DayFile {
        DayFile::new(&home.join("rs/logs"), PREFIX)
    }

    fn read(home: &Path, name: &str) -> String {
        fs::read_to_string(home.join("rs/logs").join(name)).unwrap()
    }

    #[test]
    fn each_day_has_its_file_for_the_owner_alone() {
        let home = tempfile::tempdir().unwrap();
        let mut file = file(home.path());
        file.append(b"one\n", at("2026-11-26T23:59:59Z")).unwrap();
        file.append(b"two\n", at("2026-11-27T00:00:00Z")).unwrap();
        assert_eq!(read(home.path(), "gateway-2026-11-26.log"), "one\n");
        assert_eq!(read(home.path(), "gateway-2026-11-27.log"), "two\n");
        let folder = home.path().join("rs/logs");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder), 0o700);
        let newest = newest(&folder, PREFIX).unwrap();
        assert_eq!(newest, folder.join("gateway-2026-11-27.log"));
        assert_eq!(mode(&newest), 0o600);
    }

    #[test]
    fn seven_days_are_kept_and_files_of_others_left_alone() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("rs/logs");
        fs::create_dir_all(&folder).unwrap();
        for name in ["supervisor.2020-01-01.log", "gateway-notes.log", "gateway-2026-13-01.log"] {
            fs::write(folder.join(name), "").unwrap();
        }
        for day in 10..=20 {
            fs::write(folder.join(format!("gateway-2026-11-{day}.log")), "").unwrap();
        }
        fs::write(folder.join("gateway-2026-11-14.1.log"), "").unwrap();
        file(home.path()).append(b"x\n", at("2026-11-27T12:00:00Z")).unwrap();
        let mut left: Vec<String> = names(&folder);
        left.retain(|name| day_of(name, PREFIX).is_some());
        left.sort();
        let days = [15, 16, 17, 18, 19, 20, 27];
        assert_eq!(left, days.map(|day| format!("gateway-2026-11-{day}.log")));
        assert_eq!(names(&folder).len(), 7 + 3);
    }

    #[test]
    fn a_day_takes_no_more_than_two_files() {
        let home = tempfile::tempdir().unwrap();
        let mut file = file(home.path()).largest(20);
        for number in 0..20 {
            file.append(format!("line {number:03}\n").as_bytes(), at("2026-11-27T00:00:00Z"))
                .unwrap();
        }
        assert_eq!(read(home.path(), "gateway-2026-11-27.log"), "line 018\nline 019\n");
        assert_eq!(read(home.path(), "gateway-2026-11-27.1.log"), "line 016\nline 017\n");
    }

    #[test]
    fn a_file_that_somebody_took_away_is_made_anew_and_a_wide_one_narrowed() {
        let home = tempfile::tempdir().unwrap();
        let (mut file, now) = (file(home.path()), at("2026-11-27T00:00:00Z"));
        file.append(b"one\n", now).unwrap();
        let path = home.path().join("rs/logs/gateway-2026-11-27.log");
        fs::remove_dir_all(home.path().join("rs")).unwrap();
        file.append(b"two\n", now).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two\n");
        fs::remove_file(&path).unwrap();
        fs::write(&path, "cut off").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        file.is_torn = true;
        file.append(b"three\n", now).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "cut off\nthree\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_link_in_the_place_of_the_log_is_not_followed() {
        let home = tempfile::tempdir().unwrap();
        let (mut file, now) = (file(home.path()), at("2026-11-27T00:00:00Z"));
        let folder = home.path().join("rs/logs");
        fs::create_dir_all(&folder).unwrap();
        let other = home.path().join("other");
        std::os::unix::fs::symlink(&other, folder.join("gateway-2026-11-27.log")).unwrap();
        file.append(b"one\n", now).unwrap_err();
        assert!(!other.exists());
    }
}
