//! A report as people read it, and paste it: aligned, at most 80 columns, clear without colours.

use std::path::Path;

use super::report::{Kind, NotHonoured, Origin, Report, Setting, Step, Verdict};
use crate::cli::output::{Tone, milliseconds};

/// The longest line.
const WIDTH: usize = 80;
/// Where the details of a step begin.
const INDENT: usize = 4;

/// How to show things to this person.
#[derive(Clone, Copy)]
pub(super) struct Style<'a> {
    /// Puts text into a colour, or leaves it alone.
    pub(super) paint: &'a dyn Fn(Tone, &str) -> String,
    /// The home folder, which is shown as `~`.
    pub(super) home: &'a Path,
}

impl Report {
    /// The lines to print.
    pub(super) fn lines(&self, style: Style<'_>) -> Vec<String> {
        let mut page = Page { style, lines: Vec::new() };
        page.title(self);
        let mut hop = None;
        for step in &self.steps {
            if step.hop != hop && self.hops.len() > 1 {
                hop = step.hop;
                page.heading(self, step.hop);
            }
            page.step(step);
        }
        page.not_honoured(&self.not_honoured);
        page.end(self);
        page.lines
    }
}

/// The lines so far.
struct Page<'a> {
    style: Style<'a>,
    lines: Vec<String>,
}

impl Page<'_> {
    fn title(&mut self, report: &Report) {
        let route: Vec<&str> = report.hops.iter().map(|hop| hop.label.as_str()).collect();
        let Some((target, via)) = route.split_last() else {
            return self.lines.push(format!("checking {}", report.target));
        };
        let via: Vec<String> = via.iter().map(|hop| format!(" via {hop}")).collect();
        let said = report.remote.as_deref().unwrap_or(&report.target);
        self.lines.push(format!("checking {said}: {target}{}", via.concat()));
    }

    fn heading(&mut self, report: &Report, hop: Option<usize>) {
        self.lines.push(String::new());
        let text = match hop.and_then(|number| Some((number, report.hops.get(number)?))) {
            Some((number, hop)) => {
                format!("hop {} of {}: {}", number + 1, report.hops.len(), hop.named)
            }
            None => "behind the last hop".to_owned(),
        };
        self.lines.push(text);
    }

    fn step(&mut self, step: &Step) {
        let (mark, word, tone) = marked(step.verdict);
        let took = step.took.map(milliseconds).unwrap_or_default();
        let label = step.kind.label();
        let head = format!("{mark} {label:<8}  {word:<6} {took:>8}  ");
        let room = WIDTH.saturating_sub(head.chars().count());
        let mut rows = wrapped(&self.tilde(&step.text), room).into_iter();
        let first = rows.next().unwrap_or_default();
        let painted = head.replacen(word, &self.paint(tone, word), usize::from(!word.is_empty()));
        let painted = painted.replacen(mark, &self.paint(tone, mark), 1);
        let text = match step.verdict {
            Verdict::NotReached => self.paint(Tone::Quiet, &first),
            Verdict::Ok | Verdict::Failed => first,
        };
        self.lines.push(format!("{painted}{text}").trim_end().to_owned());
        let margin = " ".repeat(head.chars().count());
        self.lines.extend(rows.map(|row| format!("{margin}{row}")));
        for line in &step.lines {
            self.detail(line.verdict, &line.text);
        }
        self.settings(&step.settings);
    }

    fn detail(&mut self, verdict: Option<Verdict>, text: &str) {
        let margin = " ".repeat(INDENT);
        let room = WIDTH - INDENT - 2;
        let rows = wrapped(&self.tilde(text), room);
        let mark = match verdict {
            Some(verdict) => {
                let (mark, _, tone) = marked(verdict);
                self.paint(tone, mark)
            }
            None => " ".to_owned(),
        };
        for (index, row) in rows.iter().enumerate() {
            let lead = if index == 0 { mark.as_str() } else { " " };
            let row = if verdict.is_none() { self.paint(Tone::Quiet, row) } else { row.clone() };
            self.lines.push(format!("{margin}{lead} {row}"));
        }
    }

    /// What the configuration says, where it says it in a column.
    fn settings(&mut self, settings: &[Setting]) {
        let said: Vec<(String, String)> = settings
            .iter()
            .map(|it| (format!("{} {}", it.keyword, self.tilde(&it.value)), self.place(&it.origin)))
            .collect();
        let widest = said.iter().map(|(said, _)| said.chars().count()).max().unwrap_or(0);
        let widest = widest.min(WIDTH / 2);
        for (said, place) in said {
            let room = widest.saturating_sub(said.chars().count());
            let text = format!("{said}{}  {place}", " ".repeat(room));
            let line = format!("{}{text}", " ".repeat(INDENT + 2));
            self.lines.push(self.paint(Tone::Quiet, &line));
        }
    }

    fn not_honoured(&mut self, notes: &[NotHonoured]) {
        if notes.is_empty() {
            return;
        }
        self.lines.push(String::new());
        self.lines.push("in your configuration, and without effect here".to_owned());
        for note in notes {
            let place = self.place(&note.origin);
            self.detail(None, &format!("{}  {place}: {}", note.keyword, note.reason));
        }
    }

    /// How it ended, and what to type next.
    fn end(&mut self, report: &Report) {
        self.lines.push(String::new());
        let Some(problem) = &report.problem else {
            let word = self.paint(Tone::Good, "everything works");
            let text = format!("{word}, in {}", milliseconds(report.took));
            self.lines.push(text);
            let next = match &report.remote {
                Some(name) => format!("next: openclaw remote status {name}"),
                None => "next: the same command with `connect` for `check`".to_owned(),
            };
            return self.lines.push(next);
        };
        let failed = report.steps.iter().find(|step| step.verdict == Verdict::Failed);
        let what = failed.map_or(Kind::Resolve, |step| step.kind).label();
        let said = self.tilde(&problem.message);
        let mut rows = wrapped(&format!("{what} failed: {said}"), WIDTH).into_iter();
        if let Some(first) = rows.next() {
            let words = format!("{what} failed");
            let painted = self.paint(Tone::Bad, &words);
            self.lines.push(first.replacen(&words, &painted, 1));
        }
        self.lines.extend(rows);
        let fix = problem.fix.as_deref().unwrap_or("the same command with -v says more");
        // Not broken up: it is there to be copied.
        self.lines.push(format!("try: {fix}"));
    }

    fn place(&self, origin: &Origin) -> String {
        match origin {
            Origin::CommandLine => "command line".to_owned(),
            Origin::File { path, line } => self.tilde(&format!("{}:{line}", path.display())),
        }
    }

    /// Text with the home folder as `~`.
    fn tilde(&self, text: &str) -> String {
        let home = self.style.home.display().to_string();
        if home.len() < 2 {
            return text.to_owned();
        }
        text.replace(&format!("{home}/"), "~/")
    }

    fn paint(&self, tone: Tone, text: &str) -> String {
        (self.style.paint)(tone, text)
    }
}

/// A verdict's mark, its word and its colour.
fn marked(verdict: Verdict) -> (&'static str, &'static str, Tone) {
    match verdict {
        Verdict::Ok => ("✓", "ok", Tone::Good),
        Verdict::Failed => ("✗", "failed", Tone::Bad),
        Verdict::NotReached => ("–", "", Tone::Quiet),
    }
}

/// The text in rows of at most `width` characters; a word that is longer has a row of its own.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut rows: Vec<String> = Vec::new();
    for line in text.lines() {
        let mut row = String::new();
        for word in line.split(' ') {
            let fits = row.chars().count() + 1 + word.chars().count() <= width;
            if !row.is_empty() && !fits {
                rows.push(std::mem::take(&mut row));
            }
            if !row.is_empty() {
                row.push(' ');
            }
            row.push_str(word);
        }
        rows.push(row);
    }
    rows
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{super::report::*, *};
    use crate::problem::{Class, Problem};

    fn ms(count: u64) -> Option<Duration> {
        Some(Duration::from_millis(count))
    }

    fn file(line: usize) -> Origin {
        Origin::File { path: "/home/me/.ssh/config".into(), line }
    }

    fn failing() -> Report {
        let hop = |named: &str, label: &str| HopLabel { named: named.into(), label: label.into() };
        let at = |hop, step| Step { hop: Some(hop), ..step };
        let setting = |keyword: &str, value: &str, line| Setting {
            keyword: keyword.to_owned(),
            value: value.to_owned(),
            origin: file(line),
        };
        let mut connect = at(0, Step::ok(Kind::Connect, ms(12), "TCP to 192.0.2.1 port 2222"));
        connect.settings = vec![setting("Port", "2222", 3), setting("ConnectTimeout", "5", 14)];
        let mut login = at(1, Step::failed(Kind::Login, ms(1234), "nothing that was offered"));
        login.lines = vec![
            Line::plain("the server takes publickey"),
            Line {
                verdict: Some(Verdict::Failed),
                text: "refused    /home/me/.ssh/id ed25519 SHA256:abc".to_owned(),
            },
        ];
        Report {
            target: "myhost".to_owned(),
            hops: vec![hop("bastion", "me@192.0.2.1:2222"), hop("myhost", "me@10.0.0.7:22")],
            steps: vec![
                Step::ok(Kind::Resolve, ms(0), "/home/me/.ssh/config"),
                connect,
                login,
                Step::not_reached(Kind::Forward, None),
            ],
            not_honoured: vec![NotHonoured {
                keyword: "ControlMaster".to_owned(),
                origin: file(20),
                reason: "the supervisor shares the connection".to_owned(),
            }],
            problem: Some(
                Problem::new(
                    Class::SshAuth,
                    "10.0.0.7 port 22 did not let me in; it offers publickey; refused: \
                     /home/me/.ssh/id; and so on until the line is full",
                )
                .fix("name the right key with -i FILE"),
            ),
            ..Report::default()
        }
    }

    fn page(report: &Report) -> String {
        let style = Style { paint: &|_, text| text.to_owned(), home: Path::new("/home/me") };
        report.lines(style).join("\n")
    }

    #[test]
    fn a_page_is_aligned_and_says_what_to_type_next() {
        assert_eq!(
            page(&failing()),
            "checking myhost: me@10.0.0.7:22 via me@192.0.2.1:2222\n\
             ✓ resolve   ok       0.0 ms  ~/.ssh/config\n\
             \n\
             hop 1 of 2: bastion\n\
             ✓ connect   ok        12 ms  TCP to 192.0.2.1 port 2222\n      \
                   Port 2222         ~/.ssh/config:3\n      \
                   ConnectTimeout 5  ~/.ssh/config:14\n\
             \n\
             hop 2 of 2: myhost\n\
             ✗ login     failed  1234 ms  nothing that was offered\n      \
                   the server takes publickey\n    \
                 ✗ refused    ~/.ssh/id ed25519 SHA256:abc\n\
             \n\
             behind the last hop\n\
             – forward                    not reached\n\
             \n\
             in your configuration, and without effect here\n      \
                   ControlMaster  ~/.ssh/config:20: the supervisor shares the connection\n\
             \n\
             login failed: 10.0.0.7 port 22 did not let me in; it offers publickey; refused:\n\
             ~/.ssh/id; and so on until the line is full\n\
             try: name the right key with -i FILE"
        );
    }

    #[test]
    fn no_line_of_words_but_the_advice_is_longer_than_a_terminal() {
        let mut report = failing();
        let long = ["word"; 60].join(" ");
        report.steps[0].text.clone_from(&long);
        report.steps[1].lines.push(Line::plain(long.clone()));
        report.problem = Some(Problem::new(Class::SshAuth, long));
        for line in page(&report).lines() {
            assert!(line.chars().count() <= WIDTH, "{line}");
        }
    }

    #[test]
    fn colours_add_nothing_but_colours() {
        let painted = |_: Tone, text: &str| format!("\u{1b}[31m{text}\u{1b}[0m");
        let style = Style { paint: &painted, home: Path::new("/home/me") };
        let colored = failing().lines(style).join("\n");
        let plain = colored.replace("\u{1b}[31m", "").replace("\u{1b}[0m", "");
        assert_eq!(plain, page(&failing()));
    }
}
