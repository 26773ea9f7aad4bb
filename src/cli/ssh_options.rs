//! The options of ssh(1) that a command takes: read from its line, put into a definition.

use std::path::{Path, PathBuf};

use crate::{
    config::{Destination, Family, Forward, Listen, SshOptions},
    problem::{Class, Problem},
    ssh,
};

/// Options with the meaning that ssh gives them.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(super) struct Arguments {
    // Reads what the fields below take out, so it comes first.
    #[command(flatten)]
    places: Places,
    /// Port of the SSH server
    #[arg(short, value_name = "PORT")]
    pub(super) port: Option<u16>,
    /// Private key file; may be repeated
    #[arg(short, value_name = "FILE")]
    pub(super) identity: Vec<PathBuf>,
    /// Jump hosts, comma-separated: `[user@]host[:port],…`
    #[arg(short = 'J', value_name = "HOPS")]
    pub(super) jump: Option<String>,
    /// Read this ssh configuration file instead of ~/.ssh/config and the machine's; `none` for no
    /// file
    #[arg(short = 'F', value_name = "FILE", overrides_with = "config_file")]
    pub(super) config_file: Option<PathBuf>,
    /// An option as in ssh_config, Key=Value; may be repeated
    #[arg(short = 'o', value_name = "KEY=VALUE")]
    pub(super) option: Vec<String>,
    /// User on the SSH server
    #[arg(short = 'l', value_name = "USER")]
    pub(super) login: Option<String>,
    /// IPv4 only
    #[arg(short = '4', conflicts_with = "ipv6")]
    pub(super) ipv4: bool,
    /// IPv6 only
    #[arg(short = '6')]
    pub(super) ipv6: bool,
    /// Agent forwarding (refused)
    #[arg(short = 'A', hide = true)]
    pub(super) forward_agent: bool,
    /// A SOCKS proxy (refused)
    #[arg(short = 'D', hide = true, value_name = "SPEC")]
    pub(super) dynamic_forward: Vec<String>,
    /// Accepted and ignored, as in `ssh -N -f -T -n -q`
    #[arg(short = 'N', hide = true, action = clap::ArgAction::Count)]
    pub(super) no_command: u8,
    #[arg(short = 'f', hide = true, action = clap::ArgAction::Count)]
    pub(super) background: u8,
    #[arg(short = 'T', hide = true, action = clap::ArgAction::Count)]
    pub(super) no_terminal: u8,
    #[arg(short = 'n', hide = true, action = clap::ArgAction::Count)]
    pub(super) no_input: u8,
    #[arg(short = 'q', hide = true, action = clap::ArgAction::Count)]
    pub(super) quiet: u8,
    /// Accept this host key of the last hop
    #[arg(long, value_name = "SHA256:…")]
    pub(super) accept_host_key: Option<String>,
    /// Forget a key that was unlocked: the next login asks for its passphrase again
    #[arg(long)]
    pub(super) no_remember: bool,
    /// Ask an idle server for a sign of life every 30 s instead of about every 5: for a battery;
    /// a link that dies unnoticed is then found out later, though at once when somebody comes
    #[arg(long, value_name = "on|off", num_args = 0..=1, require_equals = true, default_missing_value = "on", value_parser = clap::builder::BoolishValueParser::new())]
    pub(super) low_power: Option<bool>,
}

/// Where on the line the options stand of which the first one counts.
#[derive(Debug, Clone, Default)]
struct Places {
    port: Option<usize>,
    login: Option<usize>,
    options: Vec<usize>,
}

impl clap::FromArgMatches for Places {
    fn from_arg_matches(matches: &clap::ArgMatches) -> Result<Self, clap::Error> {
        let all = |id: &str| matches.indices_of(id).into_iter().flatten();
        Ok(Self {
            port: all("port").next(),
            login: all("login").next(),
            options: all("option").collect(),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &clap::ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl clap::Args for Places {
    fn augment_args(command: clap::Command) -> clap::Command {
        command
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        command
    }
}

impl Arguments {
    /// Whether the short option at `place` comes before the `-o` of number `number`.
    fn is_first(&self, place: Option<usize>, number: usize) -> bool {
        let other = self.places.options.get(number);
        place.zip(other).is_some_and(|(place, other)| place < *other)
    }

    /// Whether a short option at `place` comes after the `-o` that says the same.
    fn is_late(&self, keyword: &str, place: Option<usize>) -> bool {
        let Some(place) = place else { return false };
        self.option.iter().zip(&self.places.options).any(|(text, other)| {
            *other < place
                && key_value(text).is_ok_and(|(key, _)| key.eq_ignore_ascii_case(keyword))
        })
    }

    /// The `-o` options, without those that a short option before them has settled.
    fn options(&self) -> Result<Vec<(String, String)>, Problem> {
        let (mut options, mut problems) = (Vec::new(), Vec::new());
        for (number, text) in self.option.iter().enumerate() {
            let (key, value) = match key_value(text) {
                Ok(both) => both,
                Err(problem) => {
                    problems.push(problem);
                    continue;
                }
            };
            let is_settled = match key.to_ascii_lowercase().as_str() {
                "port" => self.is_first(self.places.port, number),
                "user" => self.is_first(self.places.login, number),
                _ => false,
            };
            if !is_settled {
                options.push((key, value));
            }
        }
        Problem::of_all(problems).map_or(Ok(options), Err)
    }

    /// Refuses what a tunnel must not or cannot do, with the reason.
    pub(super) fn refuse_unsupported(&self) -> Result<(), Problem> {
        let refused = |what: &str, fix: &str| Err(Problem::new(Class::Usage, what).fix(fix));
        if self.forward_agent {
            return refused(
                "-A is refused: a forwarded agent lets the far host log in as you elsewhere",
                "use -J to go through a host without lending it your agent",
            );
        }
        if !self.dynamic_forward.is_empty() {
            return refused("-D: a SOCKS proxy is not supported", "use ssh -D beside the tunnel");
        }
        Ok(())
    }

    /// Whether any is given that says how to reach a target.
    pub(super) fn is_given(&self) -> bool {
        self.port.is_some()
            || !self.identity.is_empty()
            || self.jump.is_some()
            || self.config_file.is_some()
            || !self.option.is_empty()
            || self.login.is_some()
            || self.ipv4
            || self.ipv6
    }

    /// Puts what is given in the place of what was said before; relative paths are those of
    /// `folder`.
    pub(super) fn change(&self, options: &mut SshOptions, folder: &Path) -> Result<(), Problem> {
        options.port =
            self.port.or(options.port).filter(|_| !self.is_late("port", self.places.port));
        let user = self.login.clone().or(options.user.take());
        options.user = user.filter(|_| !self.is_late("user", self.places.login));
        if !self.identity.is_empty() {
            options.identities.clone_from(&self.identity);
        }
        if let Some(hops) = &self.jump {
            // `none` stays: it says that the ssh configuration's jumps do not count.
            options.jumps = hops.split(',').map(str::to_owned).collect();
        }
        if !self.option.is_empty() {
            options.options = self.options()?;
        }
        options.family = match (self.ipv4, self.ipv6) {
            (true, _) => Family::V4,
            (_, true) => Family::V6,
            _ => options.family,
        };
        options.config_file = self.config_file.clone().or(options.config_file.take());
        options.no_remember |= self.no_remember;
        options.low_power = self.low_power.unwrap_or(options.low_power);
        options.host_key_pin = self.accept_host_key.clone().or(options.host_key_pin.take());
        ssh::anchor(options, folder);
        Ok(())
    }
}

/// What to say of a flag of ssh(1) that is not taken here; `None` if it is none.
pub(super) fn not_taken(flag: &str) -> Option<Problem> {
    let never = "leave it away: nothing else changes";
    let (why, fix) = match flag {
        "-C" => ("compression is an option here", "-o Compression=yes"),
        "-g" => ("forwards for other machines too are an option here", "-o GatewayPorts=yes"),
        "-b" => ("the address to dial from is an option here", "-o BindAddress=ADDRESS"),
        "-B" => ("the interface to dial from is an option here", "-o BindInterface=NAME"),
        "-c" => ("ciphers are an option here", "-o Ciphers=NAMES"),
        "-m" => ("message authentication codes are an option here", "-o MACs=NAMES"),
        "-X" | "-Y" => {
            ("ssh shows windows of the far host with it, a tunnel forwards none", "use ssh -X")
        }
        "-W" => (
            "ssh joins its own input and output to HOST:PORT with it, a tunnel listens on ports",
            "-L PORT:HOST:PORT, or use ssh -W",
        ),
        "-M" | "-S" => {
            ("ssh shares its sessions with it, and ours are never shared with it", never)
        }
        "-t" => ("ssh asks for a terminal with it, and no command is run over there", never),
        "-a" => ("an agent is never forwarded anyway", never),
        "-x" => ("windows are never forwarded anyway", never),
        _ => return None,
    };
    Some(Problem::new(Class::Usage, format!("{flag} is not taken: {why}")).fix(fix))
}

/// `-L SPEC`, its socket on this machine, if it has one, found from `folder`.
pub(super) fn local_forward(spec: &str, folder: &Path) -> Result<Forward, Problem> {
    let wrong = |why: &str| {
        Problem::new(Class::Usage, format!("-L {spec}: {why}")).fix("-L 8080:127.0.0.1:8080")
    };
    let Forward { listen, to } = ssh::read_local(spec).map_err(wrong)?;
    let listen = match listen {
        Listen::Socket(path) => Listen::Socket(anchored(path, folder).map_err(wrong)?),
        port @ Listen::Port { .. } => port,
    };
    Ok(Forward { listen, to })
}

/// `-R SPEC`, likewise.
pub(super) fn remote_forward(spec: &str, folder: &Path) -> Result<Forward, Problem> {
    let wrong = |why: &str| {
        Problem::new(Class::Usage, format!("-R {spec}: {why}")).fix("-R 8080:127.0.0.1:8080")
    };
    let Forward { listen, to } = ssh::read_remote(spec).map_err(wrong)?;
    let to = match to {
        Destination::Socket(path) => Destination::Socket(anchored(path, folder).map_err(wrong)?),
        port @ Destination::Port { .. } => port,
    };
    Ok(Forward { listen, to })
}

/// The socket in full.
fn anchored(path: String, folder: &Path) -> Result<String, &'static str> {
    if path.contains('%') || path.contains("${") {
        return Err("tokens and variables have their meaning in -o LocalForward=… and in files");
    }
    let full = folder.join(path).to_string_lossy().into_owned();
    if full.len() > LONGEST_PATH {
        return Err("the path of its socket is longer than 107 bytes");
    }
    Ok(full)
}

/// The longest path that a socket can have, bytes.
const LONGEST_PATH: usize = 107;

fn key_value(option: &str) -> Result<(String, String), Problem> {
    // As in a file: blanks, with one `=` at most among them, end the keyword.
    let option = option.trim();
    let end = option.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(option.len());
    let (key, rest) = option.split_at(end);
    let rest = rest.trim_start();
    if key.is_empty() || rest.is_empty() {
        return Err(Problem::new(Class::Usage, format!("-o {option}: not Key=Value"))
            .fix("write it as in ssh_config(5), such as -o ConnectTimeout=5"));
    }
    let value = rest.strip_prefix('=').unwrap_or(rest).trim_start();
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_for_a_flag_is_understood() {
        for flag in ["-C", "-g", "-b", "-B", "-c", "-m"] {
            let fix = not_taken(flag).unwrap().fix.unwrap();
            let (key, _) = key_value(fix.strip_prefix("-o ").unwrap()).unwrap();
            let page = include_str!("../../docs/ssh_config.md");
            assert!(page.contains(&format!("| `{key}` |")), "{flag}: {key}");
        }
        assert!(not_taken("-W").unwrap().message.contains("HOST:PORT"));
        assert_eq!(not_taken("-p"), None);
    }

    #[test]
    fn splits_options_at_the_first_sign() {
        let split = |text| key_value(text).map(|(key, value)| format!("{key}|{value}"));
        assert_eq!(split("Port=22").unwrap(), "Port|22");
        assert_eq!(split("Port 22").unwrap(), "Port|22");
        assert_eq!(split("Port = 22 ").unwrap(), "Port|22");
        assert_eq!(split("ProxyCommand=a=b").unwrap(), "ProxyCommand|a=b");
        assert_eq!(split("ProxyCommand nc -o a=b").unwrap(), "ProxyCommand|nc -o a=b");
        assert!(split("Port").is_err() && split("=22").is_err());
    }

    #[test]
    fn sockets_of_this_machine_are_found_from_where_the_person_stands() {
        let folder = Path::new("/home/me");
        let local = |spec| local_forward(spec, folder).map(|forward| forward.to_string());
        assert_eq!(local("./db.sock:./far.sock").unwrap(), "/home/me/./db.sock:./far.sock");
        let remote = |spec| remote_forward(spec, folder).map(|forward| forward.to_string());
        assert_eq!(remote("./db.sock:./far.sock").unwrap(), "./db.sock:/home/me/./far.sock");
        assert_eq!(remote("8080:/run/x").unwrap(), "8080:/run/x");
        let long = format!("/{}:db:1", "x".repeat(107));
        for wrong in ["/run/%n:db:1", "${HOME}/x:db:1", &long, "8080:db"] {
            let problem = local_forward(wrong, folder).unwrap_err();
            assert_eq!((problem.class, problem.fix.is_some()), (Class::Usage, true), "{wrong}");
        }
        assert!(remote_forward("1080", folder).unwrap_err().message.contains("SOCKS"));
    }
}
