//! Opens the database file: its mode, its settings, its health, and the way to the present version.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, Transaction, config::DbConfig};

use super::steps::STEPS;
use crate::problem::{Class, Problem, UNAVAILABLE};

/// The file below our folder.
const FILE: &str = "state.sqlite";
/// Copies from before a migration that are kept, the youngest ones.
const BACKUPS: usize = 3;
/// How long a statement waits for another process that reads the file (a backup program).
const BUSY: Duration = Duration::from_secs(5);

/// Opens `folder`'s database, made if there is none, at the version of this program.
///
/// A file that is damaged, or that a newer program wrote, is a problem with what to type; it is
/// never changed.
pub(super) fn open(folder: &Path) -> Result<Connection, Problem> {
    open_with(folder, STEPS)
}

/// Whether the database in `folder` is in order, as a start would find it; one that is not there is.
/// `Some` says what is damaged and will be mended by a start. Changes nothing but what a start of any
/// program does that opens it.
pub(super) fn look_at(folder: &Path) -> Result<Option<String>, Problem> {
    look_at_with(folder, STEPS.len())
}

fn look_at_with(folder: &Path, known: usize) -> Result<Option<String>, Problem> {
    let file = folder.join(FILE);
    if !file.exists() {
        return Ok(None);
    }
    let mut connection = connect(&file).map_err(|error| unusable(&file, &error))?;
    known_version(&connection, &file, known)?;
    match health(&connection, &file)? {
        Health::Sound => Ok(None),
        Health::Indexes(flaw) => {
            // Tried, and dropped.
            with_indexes_anew(&mut connection, &file)?;
            Ok(Some(format!(
                "an index of {} is damaged: {flaw}; its tables are whole",
                file.display()
            )))
        }
        Health::Damaged(flaw) => Err(damaged(&file, &flaw)),
    }
}

/// The same for tests, without a file.
#[cfg(test)]
pub(super) fn in_memory() -> Connection {
    let mut connection =
        Connection::open_in_memory().expect("a database in memory needs nothing but memory");
    connection.pragma_update(None, "foreign_keys", true).expect("a setting that SQLite has");
    migrate(&mut connection, STEPS, 0).expect("the steps are tested on every start");
    connection
}

fn open_with(folder: &Path, steps: &[&str]) -> Result<Connection, Problem> {
    let file = folder.join(FILE);
    make_private(folder, &file)?;
    let mut connection = connect(&file).map_err(|error| unusable(&file, &error))?;
    let known = steps.len();
    let found = known_version(&connection, &file, known)?;
    match health(&connection, &file)? {
        Health::Sound => {}
        Health::Indexes(flaw) => mend_indexes(&mut connection, &file, &flaw)?,
        Health::Damaged(flaw) => return Err(damaged(&file, &flaw)),
    }
    keep_all(&connection).map_err(|error| unusable(&file, &error))?;
    if found < known {
        if found > 0 {
            // Whatever kept it from being written may be otherwise at the next try.
            keep_copy(&connection, folder, found)
                .map_err(|error| unmoved(&file, &error).code(UNAVAILABLE))?;
        }
        migrate(&mut connection, steps, found).map_err(|error| stuck(&file, &error))?;
        tracing::info!(from = found, to = known, "database migrated");
    }
    Ok(connection)
}

fn too_new(file: &Path, found: usize, known: usize) -> Problem {
    Problem::new(
        Class::Config,
        format!(
            "{} was written by a newer openclaw (version {found} of its tables, this one knows {known}); it has not been touched",
            file.display()
        ),
    )
    .fix("update this openclaw, or choose another folder with OPENCLAW_STATE_DIR")
}

/// SQLite gives its other files (`-wal`) the mode of the database.
fn make_private(folder: &Path, file: &Path) -> Result<(), Problem> {
    let make = || {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        // Truncating nothing: a file that is there stays as it is.
        let opened = fs::OpenOptions::new().create(true).append(true).mode(0o600).open(file)?;
        let present = opened.metadata()?.permissions().mode() & 0o777;
        if present & !0o600 != 0 {
            opened.set_permissions(fs::Permissions::from_mode(present & 0o600))?;
        }
        Ok::<_, std::io::Error>(())
    };
    make().map_err(|error| {
        Problem::new(Class::Config, format!("cannot use {}: {error}", file.display()))
            .fix(format!("ls -ld {0} {1}", folder.display(), file.display()))
            .denied(&error)
    })
}

/// Opens it and changes nothing yet.
fn connect(file: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(file)?;
    connection.busy_timeout(BUSY)?;
    // Before the first read: with it no shared memory is needed, and nobody else comes in.
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.pragma_update(None, "trusted_schema", false)?;
    // What a write-ahead log holds stays there, should this go away again.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(connection)
}

/// Sets how it is written: what is confirmed is on the disk.
fn keep_all(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)
}

/// What SQLite finds when it reads everything, with the first flaw in its words.
enum Health {
    Sound,
    /// Indexes do not say what the tables do, as far as the first hundred flaws tell.
    Indexes(String),
    Damaged(String),
}

fn health(connection: &Connection, file: &Path) -> Result<Health, Problem> {
    let look = || {
        let mut statement = connection.prepare("PRAGMA integrity_check")?;
        let flaws = statement.query_map([], |row| row.get::<_, String>(0))?;
        flaws.collect::<rusqlite::Result<Vec<_>>>()
    };
    let flaws = look().map_err(|error| unusable(file, &error))?;
    let is_of_index = |flaw: &String| {
        let is_missing = flaw.starts_with("row ") && flaw.contains(" missing from index ");
        is_missing || flaw.starts_with("wrong # of entries in index ")
    };
    let are_of_indexes = flaws.iter().all(is_of_index);
    Ok(match flaws.into_iter().next() {
        Some(word) if word == "ok" => Health::Sound,
        Some(flaw) if are_of_indexes => Health::Indexes(flaw),
        Some(flaw) => Health::Damaged(flaw),
        None => Health::Damaged("SQLite does not say how it is".to_owned()),
    })
}

/// Makes the indexes anew from the rows; the file stays as it is where that does not make it sound.
fn mend_indexes(connection: &mut Connection, file: &Path, flaw: &str) -> Result<(), Problem> {
    let mended = with_indexes_anew(connection, file)?;
    mended.commit().map_err(|error| unusable(file, &error))?;
    tracing::warn!(file = %file.display(), was = flaw, "indexes were made anew");
    Ok(())
}

/// A transaction in which all is sound once its indexes were made anew.
fn with_indexes_anew<'a>(
    connection: &'a mut Connection,
    file: &Path,
) -> Result<Transaction<'a>, Problem> {
    let transaction = connection.transaction().map_err(|error| unusable(file, &error))?;
    transaction.execute_batch("REINDEX").map_err(|error| unusable(file, &error))?;
    match health(&transaction, file)? {
        Health::Sound => Ok(transaction),
        Health::Indexes(flaw) | Health::Damaged(flaw) => Err(damaged(file, &flaw)),
    }
}

/// The version of its tables, which is none that only a newer program knows.
fn known_version(connection: &Connection, file: &Path, known: usize) -> Result<usize, Problem> {
    let found = version(connection).map_err(|error| unusable(file, &error))?;
    if found > known { Err(too_new(file, found, known)) } else { Ok(found) }
}

fn version(connection: &Connection) -> rusqlite::Result<usize> {
    connection
        .query_row("PRAGMA user_version", [], |row| row.get::<_, u32>(0))
        .map(|found| usize::try_from(found).unwrap_or(usize::MAX))
}

/// Each step in a transaction of its own, with the version that it makes.
fn migrate(connection: &mut Connection, steps: &[&str], found: usize) -> rusqlite::Result<()> {
    for (index, step) in steps.iter().enumerate().skip(found) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", index + 1)?;
        transaction.commit()?;
    }
    Ok(())
}

/// Copies the database beside itself before a migration and lets the oldest copies go.
fn keep_copy(connection: &Connection, folder: &Path, found: usize) -> Result<(), String> {
    let copy = folder.join(format!("{FILE}.before-{}", found + 1));
    if copy.exists() {
        // From a migration that did not come to its end: the database is still as it was then.
        fs::remove_file(&copy).map_err(|error| error.to_string())?;
    }
    fs::OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(&copy)
        .map_err(|error| error.to_string())?;
    let name = copy.to_str().ok_or("the folder's name is not text")?;
    connection.execute("VACUUM INTO ?1", [name]).map_err(|error| error.to_string())?;
    fs::File::open(&copy).and_then(|copy| copy.sync_all()).map_err(|error| error.to_string())?;
    let mut copies = copies(folder);
    while copies.len() > BACKUPS {
        let oldest = copies.remove(0);
        fs::remove_file(&oldest).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// The copies, the oldest first.
fn copies(folder: &Path) -> Vec<PathBuf> {
    let prefix = format!("{FILE}.before-");
    let mut found: Vec<(usize, PathBuf)> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let number = entry.file_name().to_str()?.strip_prefix(&prefix)?.parse().ok()?;
            Some((number, entry.path()))
        })
        .collect();
    found.sort();
    found.into_iter().map(|(_, path)| path).collect()
}

fn unusable(file: &Path, error: &rusqlite::Error) -> Problem {
    match error.sqlite_error_code() {
        // Before anybody writes, rows that break a rule are damage too.
        Some(
            rusqlite::ErrorCode::NotADatabase
            | rusqlite::ErrorCode::DatabaseCorrupt
            | rusqlite::ErrorCode::ConstraintViolation,
        ) => damaged(file, &error.to_string()),
        Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => {
            Problem::new(Class::Config, format!("{} is in use by another program", file.display()))
                .fix(format!("fuser -v {}", file.display()))
                .code(UNAVAILABLE)
        }
        _ => Problem::new(Class::Config, format!("cannot use {}: {error}", file.display()))
            .fix(format!("ls -l {}; df -h {}", file.display(), file.display()))
            .code(UNAVAILABLE),
    }
}

fn unmoved(file: &Path, error: &impl std::fmt::Display) -> Problem {
    Problem::new(
        Class::Config,
        format!("cannot bring {} to this version: {error}; nothing in it is lost", file.display()),
    )
    .fix(format!("df -h {}", file.display()))
}

/// A migration that failed: for want of room or a right it may come through at the next try.
fn stuck(file: &Path, error: &rusqlite::Error) -> Problem {
    let problem = unmoved(file, error);
    let is_of_the_system = matches!(
        error.sqlite_error_code(),
        Some(
            rusqlite::ErrorCode::DiskFull
                | rusqlite::ErrorCode::SystemIoFailure
                | rusqlite::ErrorCode::CannotOpen
                | rusqlite::ErrorCode::ReadOnly
        )
    );
    if is_of_the_system { problem.code(UNAVAILABLE) } else { problem }
}

/// Damage: what to type puts the file aside with its log, and brings back the youngest copy.
fn damaged(file: &Path, what: &str) -> Problem {
    let folder = file.parent().unwrap_or_else(|| Path::new("."));
    let copy = copies(folder).pop();
    let loss = if copy.is_some() { "" } else { "; without it devices must be paired again" };
    Problem::new(
        Class::Config,
        format!("{} is damaged: {what}; it has not been touched{loss}", file.display()),
    )
    .fix(put_aside(file, copy.as_deref()))
}

/// One line for a shell. It moves into a folder that is not there yet: typed twice it ends at its
/// first word, and nothing is overwritten.
fn put_aside(file: &Path, copy: Option<&Path>) -> String {
    let beside = |end: &str| {
        let mut name = file.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    };
    let (mut aside, mut number) = (beside(".damaged"), 1);
    while aside.exists() {
        number += 1;
        aside = beside(&format!(".damaged-{number}"));
    }
    let aside = quoted(&aside);
    let mut words = format!("mkdir {aside}");
    // SQLite would apply these to whatever stands in the file's place. The file goes last: where
    // one of them cannot be moved, all that is damaged is still found at the next start.
    let others = ["-wal", "-shm", "-journal"].map(beside);
    for part in others.iter().map(PathBuf::as_path).filter(|part| part.exists()).chain([file]) {
        words += &format!(" && mv {} {aside}", quoted(part));
    }
    if let Some(copy) = copy {
        words += &format!(" && cp {} {}", quoted(copy), quoted(file));
    }
    words
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn mode(file: &Path) -> u32 {
        fs::metadata(file).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn makes_files_for_the_owner_alone_with_every_write_on_disk() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("rs");
        let connection = open(&folder).unwrap();
        connection
            .execute("INSERT INTO setup_code VALUES ('a', x'00', 'node', 1, 2, NULL, NULL)", [])
            .unwrap();
        for file in ["state.sqlite", "state.sqlite-wal"] {
            assert_eq!(mode(&folder.join(file)), 0o600, "{file}");
        }
        let text = |name| {
            connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, String>(0))
        };
        let number =
            |name| connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, u32>(0));
        assert_eq!(text("journal_mode").unwrap(), "wal");
        assert_eq!((number("synchronous").unwrap(), number("foreign_keys").unwrap()), (2, 1));
        assert_eq!(number("user_version").unwrap() as usize, STEPS.len());
    }

    #[test]
    fn nobody_else_opens_it() {
        let home = tempfile::tempdir().unwrap();
        let _first = open(home.path()).unwrap();
        let second = Connection::open(home.path().join(FILE)).unwrap();
        assert!(second.query_row("SELECT count(*) FROM device", [], |_| Ok(())).is_err());
    }

    #[test]
    fn a_file_of_a_newer_program_is_left_as_it_is() {
        let home = tempfile::tempdir().unwrap();
        open_with(home.path(), &["CREATE TABLE a (b)", "CREATE TABLE c (d)"]).unwrap();
        let before = fs::read(home.path().join(FILE)).unwrap();
        let problem = open_with(home.path(), &["CREATE TABLE a (b)"]).unwrap_err();
        assert_eq!(problem.class, Class::Config);
        assert!(problem.message.contains("newer"), "{problem}");
        assert_eq!(fs::read(home.path().join(FILE)).unwrap(), before);
    }

    #[test]
    fn a_migration_that_the_system_denied_may_be_tried_again() {
        let failed = |code| {
            let error = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None);
            stuck(Path::new("state.sqlite"), &error)
        };
        let (full, wrong) = (rusqlite::ffi::SQLITE_FULL, rusqlite::ffi::SQLITE_ERROR);
        assert!(!failed(full).is_lasting() && failed(wrong).is_lasting());
    }

    /// Whether a shell comes to the end of this line.
    fn type_in(line: &str) -> bool {
        assert_eq!(line.lines().count(), 1, "{line}");
        Command::new("sh").args(["-c", line]).stderr(Stdio::null()).status().unwrap().success()
    }

    #[test]
    fn damage_is_named_with_what_to_type_and_nothing_is_overwritten() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join(FILE);
        fs::write(&file, "this is no database, and never was one").unwrap();
        let problem = open(home.path()).unwrap_err();
        assert!(problem.message.contains("damaged"), "{problem}");
        assert!(problem.message.ends_with("devices must be paired again"), "{problem}");
        assert!(type_in(&problem.fix.unwrap()));
        assert!(!file.exists());
        let file = home.path().join("state.sqlite.damaged").join(FILE);
        assert_eq!(fs::read_to_string(&file).unwrap(), "this is no database, and never was one");
    }

    #[test]
    fn a_page_that_was_overwritten_is_found_at_the_start() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join(FILE);
        drop(open(home.path()).unwrap());
        let mut bytes = fs::read(&file).unwrap();
        let length = bytes.len();
        bytes[4_096..length].fill(0xA5);
        fs::write(&file, &bytes).unwrap();
        assert!(open(home.path()).unwrap_err().message.contains("damaged"));
    }

    /// Overwrites the second page, in which the first table is.
    fn damage(file: &Path) {
        let mut bytes = fs::read(file).unwrap();
        bytes[4_096..8_192].fill(0xA5);
        fs::write(file, &bytes).unwrap();
    }

    #[test]
    fn the_advice_puts_the_log_aside_as_well_and_is_harmless_the_second_time() {
        let home = tempfile::tempdir().unwrap();
        let (running, folder) = (home.path().join("running"), home.path().join("it's \"mine\""));
        let steps = ["CREATE TABLE a (b)", "CREATE TABLE c (d)"];
        let old = open_with(&running, &steps[..1]).unwrap();
        old.execute("INSERT INTO a VALUES (7)", []).unwrap();
        drop(old);
        let lives = open_with(&running, &steps).unwrap();
        lives.execute("INSERT INTO c VALUES (8)", []).unwrap();
        fs::create_dir(&folder).unwrap();
        let wal = format!("{FILE}-wal");
        for name in [FILE, &wal, "state.sqlite.before-2"] {
            fs::copy(running.join(name), folder.join(name)).unwrap();
        }
        let file = folder.join(FILE);
        damage(&file);
        let read = |folder: &Path| [FILE, &wal].map(|name| fs::read(folder.join(name)).unwrap());
        let before = read(&folder);
        assert!(!before[1].is_empty(), "what was written last is in the log alone");
        let fix = open_with(&folder, &steps).unwrap_err().fix.unwrap();
        assert!(type_in(&fix), "{fix}");
        assert!(!folder.join(&wal).exists());
        let aside = folder.join("state.sqlite.damaged");
        assert_eq!(read(&aside), before);
        let restored = open_with(&folder, &steps).unwrap();
        let count = |db: &Connection, table: &str| {
            let count = format!("SELECT count(*) FROM {table}");
            db.query_row(&count, [], |row| row.get::<_, u32>(0)).unwrap()
        };
        assert_eq!((count(&restored, "a"), count(&restored, "c")), (1, 0), "as the copy was");
        restored.execute("INSERT INTO c VALUES (9)", []).unwrap();
        drop(restored);
        assert!(!type_in(&fix), "typed again");
        let restored = open_with(&folder, &steps).unwrap();
        assert_eq!(count(&restored, "c"), 1);
        drop(restored);
        damage(&file);
        let fix = open_with(&folder, &steps).unwrap_err().fix.unwrap();
        assert!(type_in(&fix), "{fix}");
        assert!(folder.join("state.sqlite.damaged-2").join(FILE).exists());
        assert_eq!(read(&aside), before);
    }

    /// A database whose index lacks a row.
    fn with_a_row_out_of_an_index(folder: &Path) {
        drop(open(folder).unwrap());
        // The index is out of sight while a row is written.
        for step in [
            "CREATE TABLE kept AS SELECT * FROM sqlite_schema WHERE name = 'answer_by_age'; \
             DELETE FROM sqlite_schema WHERE name = 'answer_by_age'",
            "INSERT INTO answer VALUES (x'01', x'02', 'boot', 1, 0, 'text'); \
             INSERT INTO sqlite_schema SELECT * FROM kept; DROP TABLE kept",
        ] {
            let other = Connection::open(folder.join(FILE)).unwrap();
            other.pragma_update(None, "writable_schema", true).unwrap();
            other.execute_batch(step).unwrap();
        }
    }

    #[test]
    fn an_index_that_misses_a_row_is_named_and_a_start_makes_it_anew() {
        let home = tempfile::tempdir().unwrap();
        with_a_row_out_of_an_index(home.path());
        let flaw = look_at(home.path()).unwrap().unwrap();
        assert!(flaw.contains("answer_by_age") && flaw.contains("are whole"), "{flaw}");
        let connection = open(home.path()).unwrap();
        let rows = "SELECT count(*) FROM answer INDEXED BY answer_by_age WHERE at > 0";
        let count = connection.query_row(rows, [], |row| row.get::<_, u32>(0));
        assert_eq!(count.unwrap(), 1);
        drop(connection);
        assert_eq!(look_at(home.path()).unwrap(), None);
    }

    #[test]
    fn a_file_of_a_newer_program_keeps_even_a_damaged_index_and_its_journal() {
        let home = tempfile::tempdir().unwrap();
        with_a_row_out_of_an_index(home.path());
        let file = home.path().join(FILE);
        // As a copy that was made for keeping has it.
        let other = Connection::open(&file).unwrap();
        other.pragma_update(None, "journal_mode", "DELETE").unwrap();
        drop(other);
        let before = fs::read(&file).unwrap();
        let problem = open_with(home.path(), &STEPS[1..]).unwrap_err();
        assert!(problem.message.contains("newer"), "{problem}");
        assert_eq!(fs::read(&file).unwrap(), before);
    }

    #[test]
    fn a_file_of_a_newer_program_keeps_the_log_that_a_kill_left() {
        let home = tempfile::tempdir().unwrap();
        let (running, left) = (home.path().join("running"), home.path().join("left"));
        fs::create_dir(&left).unwrap();
        let steps = ["CREATE TABLE a (b)", "CREATE TABLE c (d)"];
        let _lives = open_with(&running, &steps).unwrap();
        let files = [FILE.to_owned(), format!("{FILE}-wal")];
        for name in &files {
            fs::copy(running.join(name), left.join(name)).unwrap();
        }
        assert!(open_with(&left, &steps[..1]).unwrap_err().message.contains("newer"));
        assert!(look_at_with(&left, 1).unwrap_err().message.contains("newer"));
        for name in &files {
            assert_eq!(fs::read(running.join(name)).unwrap(), fs::read(left.join(name)).unwrap());
        }
    }

    #[test]
    fn indexes_that_cannot_be_made_anew_leave_the_file_as_it_is() {
        let home = tempfile::tempdir().unwrap();
        drop(open_with(home.path(), &["CREATE TABLE a (b)"]).unwrap());
        let file = home.path().join(FILE);
        let other = Connection::open(&file).unwrap();
        // The rows of one key are two, which no index of single keys can hold.
        for step in [
            "INSERT INTO a VALUES (1), (1)",
            "PRAGMA writable_schema = 1; CREATE UNIQUE INDEX c ON a (b) WHERE b > 1; \
             UPDATE sqlite_schema SET sql = 'CREATE UNIQUE INDEX c ON a (b)' WHERE name = 'c'",
        ] {
            other.execute_batch(step).unwrap();
        }
        drop(other);
        let before = fs::read(&file).unwrap();
        let problem = open_with(home.path(), &["CREATE TABLE a (b)"]).unwrap_err();
        assert!(problem.message.contains("it has not been touched"), "{problem}");
        assert_eq!(
            look_at(home.path()).unwrap_err(),
            problem,
            "what a look says is what a start does"
        );
        assert_eq!(fs::read(&file).unwrap(), before);
    }

    #[test]
    fn a_migration_keeps_a_copy_and_no_more_than_three() {
        let home = tempfile::tempdir().unwrap();
        let steps: Vec<String> = (0..6).map(|n| format!("CREATE TABLE t{n} (a)")).collect();
        let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
        for known in 1..=steps.len() {
            let connection = open_with(home.path(), &steps[..known]).unwrap();
            connection.execute(&format!("INSERT INTO t{} VALUES (1)", known - 1), []).unwrap();
        }
        let copies = copies(home.path());
        assert_eq!(copies.len(), 3);
        assert!(copies.last().unwrap().ends_with("state.sqlite.before-6"));
        assert!(copies.iter().all(|copy| mode(copy) == 0o600));
        let copy = Connection::open(copies.last().unwrap()).unwrap();
        assert_eq!(version(&copy).unwrap(), 5);
        copy.query_row("SELECT a FROM t4", [], |_| Ok(())).unwrap();
    }

    /// The tables of a database, with the names and types of their columns.
    fn tables(db: &Connection) -> Vec<(String, Vec<(String, String)>)> {
        let mut names = db
            .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY rowid")
            .unwrap();
        let names = names.query_map([], |row| row.get(0)).unwrap();
        let columns = |table: String| {
            let mut columns =
                db.prepare("SELECT name, type FROM pragma_table_info(?1) ORDER BY cid").unwrap();
            let columns = columns.query_map([&table], |row| Ok((row.get(0)?, row.get(1)?)));
            let columns = columns.unwrap().map(Result::unwrap).collect();
            (table, columns)
        };
        names.map(Result::unwrap).map(columns).collect()
    }

    /// Puts a row with something in every column into every table.
    fn fill(db: &Connection) {
        for (table, columns) in tables(db) {
            let values = columns.iter().map(|(_, of)| match of.as_str() {
                "INTEGER" => "1",
                "BLOB" => "x'0101'",
                _ => "'one'",
            });
            let values: Vec<&str> = values.collect();
            db.execute(&format!("INSERT INTO {table} VALUES ({})", values.join(", ")), []).unwrap();
        }
    }

    /// What stands in these tables and columns.
    fn rows(db: &Connection, tables: &[(String, Vec<(String, String)>)]) -> Vec<String> {
        let mut found = Vec::new();
        for (table, columns) in tables {
            let columns: Vec<String> =
                columns.iter().map(|(name, _)| format!("quote({name})")).collect();
            let text = format!("SELECT {} FROM {table}", columns.join(" || ' ' || "));
            let mut rows = db.prepare(&text).unwrap();
            let rows = rows.query_map([], |row| row.get::<_, String>(0)).unwrap();
            found.extend(rows.map(|row| format!("{table}: {}", row.unwrap())));
        }
        found
    }

    /// Of each step that some database may have been through, the SHA-256.
    const FINGERPRINTS: &[&str] = &[
        "edef6b0243c6b2cc4637eaedaa1290c074db02703417a917e47646b082a46618",
        "35dc43b39f6e9f0f28af6c7acf10f158c12d278a0fa73f38c1cb2a62faed3360",
        "e373c41e0fbe340eacfd78aa61ca98b560a15814a0e043a6f1c0315ba3debb9b",
        "c9ce32b0d54c3773a0904e2b589303c9bb1c2bfc2e0dc8dfbe32fdb87d0127d5",
        "4c8254496dcf975d5ef5b674fb088c89ca583aad5b6a82e093dca914911c57c6",
        "9bea530a5fbd33ea8c6050828af810693384adb3416b6f7bf0351520c9367399",
        "9b617452d3f6edd1c9be6b08bd54e4b2f6669992ce6f008da4c7946a3c4a6fe6",
        "21d1e4df403278c941bfb448ceec78e1fde8ad07c489cee233a58e9eb8ca180c",
        "0bb92ac411afb9ae587593e17dce59fe30801d31536537bb6fd704b2e519276c",
    ];

    #[test]
    fn a_step_that_databases_have_been_through_never_changes() {
        let of = |step: &&str| {
            let digest = ring::digest::digest(&ring::digest::SHA256, step.as_bytes());
            digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        };
        let steps: Vec<String> = STEPS.iter().map(of).collect();
        assert_eq!(
            steps, FINGERPRINTS,
            "a database that has been through a step never goes through it again: leave the step as \
             it was, put what you want to change into a new step at the end of STEPS, and only add \
             the new one's SHA-256 here"
        );
    }

    #[test]
    fn the_database_of_every_version_before_opens_is_copied_first_and_keeps_everything() {
        for known in 1..STEPS.len() {
            let home = tempfile::tempdir().unwrap();
            let old = open_with(home.path(), &STEPS[..known]).unwrap();
            fill(&old);
            let had = tables(&old);
            let before = rows(&old, &had);
            assert_eq!(before.len(), had.len());
            drop(old);
            let now = open(home.path()).unwrap();
            assert_eq!(version(&now).unwrap(), STEPS.len());
            assert_eq!(rows(&now, &had), before, "from version {known}");
            let copy = home.path().join(format!("{FILE}.before-{}", known + 1));
            assert_eq!(mode(&copy), 0o600);
            // What an older program would open again is what it had.
            let copy = Connection::open(copy).unwrap();
            assert_eq!((version(&copy).unwrap(), tables(&copy)), (known, had.clone()));
            assert_eq!(rows(&copy, &had), before);
        }
    }

    #[test]
    fn a_step_that_fails_leaves_the_version_before_it() {
        let home = tempfile::tempdir().unwrap();
        drop(open_with(home.path(), &["CREATE TABLE a (b)"]).unwrap());
        let broken = ["CREATE TABLE a (b)", "CREATE TABLE c (d); nonsense"];
        open_with(home.path(), &broken).unwrap_err();
        let connection = open_with(home.path(), &["CREATE TABLE a (b)"]).unwrap();
        assert!(connection.query_row("SELECT count(*) FROM c", [], |_| Ok(())).is_err());
    }
}
