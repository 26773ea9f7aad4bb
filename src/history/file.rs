//! The files of the history: one entry a line, two files at most, each of bounded size.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::Entry;

/// The file that is written.
const CURRENT: &str = "history.jsonl";
/// The one before it.
const FORMER: &str = "history.1.jsonl";
/// The size from which on a new file is begun, bytes; some three thousand entries.
const LARGEST: u64 = 512 * 1024;

/// Every entry of the files in `folder`, the oldest first. A line that cannot be read is passed
/// over: it is of a later version, or was cut off by a full disk.
pub(crate) fn read(folder: &Path) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for name in [FORMER, CURRENT] {
        match fs::read(folder.join(name)) {
            Ok(bytes) => entries.extend(parse(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(entries)
}

fn parse(bytes: &[u8]) -> impl Iterator<Item = Entry> {
    bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok())
}

/// The end that writes; one process has it.
#[derive(Debug)]
pub(super) struct Writer {
    folder: PathBuf,
    largest: u64,
    /// Whether the last line may lack its end.
    is_torn: bool,
}

impl Writer {
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), largest: LARGEST, is_torn: true }
    }

    /// Appends an entry. After an error the next entry tries anew.
    pub(super) fn append(&mut self, entry: &Entry) -> io::Result<()> {
        let outcome = self.try_append(entry);
        self.is_torn = outcome.is_err();
        outcome
    }

    /// Opens the file for each entry, which is rare: whoever removes the folder or moves the file
    /// away finds the next entry in a new one.
    fn try_append(&self, entry: &Entry) -> io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        let (mut file, mut size) = self.open()?;
        if size >= self.largest {
            fs::rename(self.folder.join(CURRENT), self.folder.join(FORMER))?;
            (file, size) = self.open()?;
        }
        // An empty line is nothing to a reader; a line that goes on where another broke off is lost.
        if self.is_torn && size > 0 {
            line.insert(0, b'\n');
        }
        file.write_all(&line)
    }

    fn open(&self) -> io::Result<(File, u64)> {
        if !self.folder.exists() {
            DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        }
        let path = self.folder.join(CURRENT);
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        let size = file.metadata()?.len();
        Ok((file, size))
    }
}

/// Reads what is written from now on.
#[derive(Debug)]
pub(crate) struct Follower {
    folder: PathBuf,
    /// Which file, and how much of it is known.
    place: Option<(u64, u64)>,
    /// The beginning of a line whose end is not written yet.
    rest: Vec<u8>,
}

impl Follower {
    /// Begins behind the last entry that is there; call it before [`read`] and nothing is missed.
    pub(crate) fn at_the_end(folder: &Path) -> Self {
        let place = fs::metadata(folder.join(CURRENT)).map(|known| (known.ino(), known.len())).ok();
        Self { folder: folder.to_owned(), place, rest: Vec::new() }
    }

    /// The entries written since the last call.
    pub(crate) fn next(&mut self) -> io::Result<Vec<Entry>> {
        let current = match File::open(self.folder.join(CURRENT)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let known = current.metadata()?;
        let mut entries = Vec::new();
        match self.place {
            Some((inode, offset)) if inode == known.ino() && offset <= known.len() => {
                if offset < known.len() {
                    entries.extend(self.read_on(current, offset)?);
                }
            }
            Some((inode, offset)) => {
                // The file that was followed has become the former one.
                if let Ok(former) = File::open(self.folder.join(FORMER))
                    && former.metadata()?.ino() == inode
                {
                    entries.extend(self.read_on(former, offset)?);
                }
                self.rest.clear();
                entries.extend(self.read_on(current, 0)?);
            }
            None => entries.extend(self.read_on(current, 0)?),
        }
        Ok(entries)
    }

    fn read_on(&mut self, mut file: File, offset: u64) -> io::Result<Vec<Entry>> {
        let inode = file.metadata()?.ino();
        file.seek(SeekFrom::Start(offset))?;
        let read = file.read_to_end(&mut self.rest)?;
        self.place = Some((inode, offset + read as u64));
        let whole = self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let lines: Vec<u8> = self.rest.drain(..whole).collect();
        Ok(parse(&lines).collect())
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::history::Happening;

    fn entry(second: i64) -> Entry {
        Entry {
            at: Timestamp::from_second(second).unwrap(),
            remote: Some("vps".to_owned()),
            forward: None,
            happening: Happening::Slept { ms: 1 },
        }
    }

    fn seconds(entries: &[Entry]) -> Vec<i64> {
        entries.iter().map(|entry| entry.at.as_second()).collect()
    }

    #[test]
    fn keeps_two_files_of_bounded_size_and_reads_both() {
        let home = tempfile::tempdir().unwrap();
        let mut writer = Writer { largest: 300, ..Writer::new(home.path()) };
        for second in 0..100 {
            writer.append(&entry(second)).unwrap();
        }
        let kept = seconds(&read(home.path()).unwrap());
        assert_eq!(kept.last(), Some(&99));
        assert!(kept.len() >= 4 && kept.windows(2).all(|pair| pair[1] == pair[0] + 1), "{kept:?}");
        for name in [CURRENT, FORMER] {
            assert!(fs::metadata(home.path().join(name)).unwrap().len() < 400);
        }
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_folder_that_is_lost_is_made_anew_with_the_next_entry() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("logs");
        let mut writer = Writer::new(&folder);
        writer.append(&entry(1)).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        writer.append(&entry(2)).unwrap();
        assert_eq!(seconds(&read(&folder).unwrap()), [2]);
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&folder.join(CURRENT))), (0o700, 0o600));
    }

    #[test]
    fn a_line_that_was_cut_off_costs_that_line_alone() {
        let home = tempfile::tempdir().unwrap();
        Writer::new(home.path()).append(&entry(1)).unwrap();
        let path = home.path().join(CURRENT);
        let mut torn = OpenOptions::new().append(true).open(&path).unwrap();
        torn.write_all(b"{\"at\":\"2026-11").unwrap();
        let mut writer = Writer::new(home.path());
        writer.append(&entry(2)).unwrap();
        writer.append(&entry(3)).unwrap();
        assert_eq!(seconds(&read(home.path()).unwrap()), [1, 2, 3]);
    }

    #[test]
    fn a_kind_of_a_later_version_is_passed_over() {
        let home = tempfile::tempdir().unwrap();
        let line = "{\"at\":\"2026-11-26T08:00:00Z\",\"event\":\"teleported\"}\n";
        fs::write(home.path().join(CURRENT), line).unwrap();
        Writer::new(home.path()).append(&entry(2)).unwrap();
        assert_eq!(seconds(&read(home.path()).unwrap()), [2]);
    }

    #[test]
    fn whoever_follows_misses_nothing_when_a_new_file_is_begun() {
        let home = tempfile::tempdir().unwrap();
        let mut follower = Follower::at_the_end(home.path());
        assert_eq!(follower.next().unwrap(), []);
        let mut writer = Writer { largest: 500, ..Writer::new(home.path()) };
        let mut seen = Vec::new();
        for second in 0..60 {
            writer.append(&entry(second)).unwrap();
            // Looks less often than is written, and so over the change of files.
            if second % 3 == 2 {
                seen.extend(seconds(&follower.next().unwrap()));
            }
        }
        assert_eq!(seen, (0..60).collect::<Vec<_>>());
        assert_eq!(Follower::at_the_end(home.path()).next().unwrap(), []);
    }
}
