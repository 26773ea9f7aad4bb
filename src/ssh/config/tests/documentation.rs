//! `docs/ssh_config.md` is written from the table.

use std::{env, fmt::Write as _, fs, path::Path};

use crate::ssh::config::keywords::{Count, KEYWORDS, Keyword, Kind, Treatment};

/// Set, it has the page written anew.
const WRITE: &str = "OPENCLAW_WRITE_DOCS";

const OPENING: &str = "\
# What of your ssh_config is honoured

`openclaw remote connect myhost` reads your configuration as `ssh` does: options of the command first,
then `~/.ssh/config`, then `/etc/ssh/ssh_config`, the first value of a keyword counting; `-F FILE` reads
that file alone, `-F none` nothing. The home is that of the password database, as with `ssh`. The
language is that of OpenSSH 10. A test asks the real `ssh -G` about every configuration in
`fixtures/ssh_config` and about generated ones, and compares keyword by keyword.

Every mistake of every file is told at once, each with its file, line and keyword. As with `ssh`, a
mistake in any block makes the file unusable for every host.

Where this page says *noted*, `openclaw remote check` says once, with file and line, that a setting is
not honoured. Where it says *refused*, leaving the setting out would be weaker than `ssh`, and the host
it is set for fails with exit code 2; other hosts go on.

Stricter than `ssh`, on purpose:

- Your own file and every included one must belong to you or root and be writable by nobody else, not
  even by your own group (`chmod go-w ~/.ssh/config`). A file that cannot be read is an error.
- `Match exec` and `ProxyCommand` count only from such a file or from the command line, with `-F` as
  well; a command of `Match exec` that takes longer than 10 seconds is an error.
- Names of hosts, accounts and jump hosts with characters that a shell could take for more than a name
  are refused wherever they stand. `DOMAIN\\user` is an account, but never part of a command.
- A `HostKeyAlias` that would change what a line of known hosts means is refused.
- NUL bytes, values that are not UTF-8, quotes that are never closed before the keyword, and ports by
  the name of a service are mistakes. Comments may be in any encoding.

`ForwardAgent yes` does not refuse the host: the connection is made without the agent, which is the safe
side, and noted. `UseKeychain` is understood everywhere, since configurations travel between machines.
";

#[test]
fn the_page_says_what_the_table_says() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ssh_config.md");
    let page = page();
    if env::var_os(WRITE).is_some() {
        fs::write(&file, &page).unwrap();
    }
    let written = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        written == page,
        "docs/ssh_config.md is not what the table says; write it anew with\n    {WRITE}=1 cargo test \
         --lib the_page_says_what_the_table_says"
    );
}

fn page() -> String {
    let mut page = OPENING.to_owned();
    let is_structure = |keyword: &&Keyword| keyword.kind == Kind::Structure;
    section(&mut page, "Blocks and files", KEYWORDS.iter().filter(is_structure));
    let rows = |wanted: fn(Treatment) -> bool| {
        let is_wanted =
            move |keyword: &&Keyword| wanted(keyword.treatment) && keyword.kind != Kind::Structure;
        KEYWORDS.iter().filter(is_wanted)
    };
    section(&mut page, "Used", rows(|is| is == Treatment::Used));
    section(&mut page, "Refused", rows(|is| matches!(is, Treatment::Refused(_))));
    section(&mut page, "Noted and not honoured", rows(|is| matches!(is, Treatment::Reported(_))));
    section(&mut page, "Understood, and without meaning here", rows(|is| is == Treatment::Ignored));
    section(&mut page, "Without effect in ssh as well", rows(|is| is == Treatment::Obsolete));
    page
}

fn section<'a>(page: &mut String, title: &str, rows: impl Iterator<Item = &'a Keyword>) {
    write!(page, "\n## {title}\n\n| keyword | default | what happens |\n|---|---|---|\n").unwrap();
    for keyword in rows {
        let mut name = format!("`{}`", keyword.name);
        for also in keyword.also {
            write!(name, ", `{also}`").unwrap();
        }
        if keyword.count == Count::Every {
            name.push_str(" (every one counts)");
        }
        let default = match keyword.default {
            [] => String::new(),
            words => format!("`{}`", words.join(" ")),
        };
        writeln!(page, "| {name} | {default} | {}{} |", keyword.says, harmless(keyword)).unwrap();
    }
}

/// The values that change nothing.
fn harmless(keyword: &Keyword) -> String {
    match keyword.treatment {
        Treatment::Reported(values) | Treatment::Refused(values) if !values.is_empty() => {
            let values: Vec<String> = values.iter().map(|value| format!("`{value}`")).collect();
            format!(" {} changes nothing.", values.join(" or "))
        }
        Treatment::Reported(_)
        | Treatment::Refused(_)
        | Treatment::Used
        | Treatment::Ignored
        | Treatment::Obsolete => String::new(),
    }
}

#[test]
fn the_table_has_every_keyword_once_with_a_sentence() {
    let mut names: Vec<String> = KEYWORDS
        .iter()
        .flat_map(|keyword| std::iter::once(&keyword.name).chain(keyword.also))
        .map(|name| name.to_lowercase())
        .collect();
    let all = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), all, "a keyword stands twice");
    for keyword in KEYWORDS {
        assert!(keyword.says.ends_with('.'), "{}: {}", keyword.name, keyword.says);
        assert!(!keyword.says.contains('|'), "{}", keyword.name);
    }
}
