//! Makes steps of what a connection told: which was done, which failed, which was not reached. Pure.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    login,
    report::{Kind, Line, Setting, Step, Verdict},
    seen::{News, Seen, Way},
    settings::keywords,
    words::{algorithms, brief, lines_of, standing_name, weak},
};
use crate::{ssh::Standing, tunnel::Failure};

/// A hop as it is to be made.
#[derive(Debug, Clone, Default)]
pub(super) struct HopPlan {
    /// The host as dialled.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) user: String,
    /// The ways to log in that the configuration does not allow, each with the reason.
    pub(super) switched_off: Vec<(&'static str, String)>,
    /// Whether nobody may be asked.
    pub(super) batch: bool,
    /// Whether a command stands in for the connection.
    pub(super) proxied: bool,
    /// What the configuration says, defaults apart.
    pub(super) settings: Vec<Setting>,
}

/// The end of the connecting: when, and why if it failed.
#[derive(Debug, Clone, Copy)]
pub(super) struct End<'a> {
    pub(super) at: Duration,
    pub(super) failure: Option<&'a Failure>,
}

/// The steps of every hop.
pub(super) fn of_hops(hops: &[HopPlan], news: &[News], end: End<'_>) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut blamed = false;
    for (number, hop) in hops.iter().enumerate() {
        let (seen, is_last) = Seen::gather(number, news, end.at);
        let failure = end.failure.filter(|_| is_last && !blamed);
        let walk = Walk { hop, number, seen: &seen, failure };
        let walked = walk.steps();
        blamed |= walked.iter().any(|step| step.verdict == Verdict::Failed);
        steps.extend(walked);
    }
    steps
}

/// The steps of one hop while they are made.
struct Walk<'a> {
    hop: &'a HopPlan,
    number: usize,
    seen: &'a Seen,
    failure: Option<&'a Failure>,
}

impl Walk<'_> {
    fn steps(&self) -> Vec<Step> {
        // A hop behind another one is looked up over there, and one behind a command by that.
        let looks_up = self.number == 0 && !self.hop.proxied;
        let mut steps = vec![self.connect(), self.server(), self.host_key(), self.login()];
        if looks_up {
            steps.insert(0, self.name());
        }
        // The first step that is not done is the one that failed.
        let open = steps.iter_mut().find(|step| step.verdict != Verdict::Ok);
        if let (Some(step), Some(failure)) = (open, self.failure)
            && step.verdict == Verdict::NotReached
        {
            step.verdict = Verdict::Failed;
            step.took = step.took.or_else(|| self.since_last());
            step.text = brief(failure);
        }
        for step in &mut steps {
            step.hop = Some(self.number);
            step.settings = self.settings(step.kind);
        }
        steps
    }

    /// The time of the step that failed.
    fn since_last(&self) -> Option<Duration> {
        let seen = self.seen;
        let marks = [
            seen.begun,
            seen.addresses.as_ref().map(|(at, _)| *at),
            seen.way.as_ref().map(|(at, _)| *at),
            seen.checking,
            seen.agreed.as_ref().map(|(at, _)| *at),
        ];
        let last = marks.into_iter().flatten().max()?;
        Some(seen.ended.saturating_sub(last))
    }

    fn settings(&self, kind: Kind) -> Vec<Setting> {
        let fits = |setting: &&Setting| {
            keywords(kind).iter().any(|word| setting.keyword.eq_ignore_ascii_case(word))
        };
        self.hop.settings.iter().filter(fits).cloned().collect()
    }

    fn name(&self) -> Step {
        let step = Step::not_reached(Kind::Name, None).with("host", self.hop.host.as_str());
        let Some((at, addresses)) = &self.seen.addresses else { return step };
        let texts: Vec<String> = addresses.iter().map(|it| it.ip().to_string()).collect();
        let text = match texts.as_slice() {
            [only] if *only == self.hop.host => format!("{only}, an address"),
            _ => format!("{} is {}", self.hop.host, texts.join(", ")),
        };
        let took = at.saturating_sub(self.seen.begun.unwrap_or_default());
        Step { verdict: Verdict::Ok, took: Some(took), text, ..step }.with("addresses", texts)
    }

    fn connect(&self) -> Step {
        let seen = self.seen;
        let mut step = Step::not_reached(Kind::Connect, None).with("port", self.hop.port);
        let failed: Vec<Value> = seen
            .missed
            .iter()
            .map(|(address, why)| json!({"address": address.ip().to_string(), "why": why}))
            .collect();
        // Of several addresses, those that failed are worth a line; a single one is the failure.
        if seen.addresses.as_ref().is_some_and(|(_, all)| all.len() > 1) {
            step.lines = seen
                .missed
                .iter()
                .map(|(address, why)| Line {
                    verdict: Some(Verdict::Failed),
                    text: format!("{}  {why}", address.ip()),
                })
                .collect();
        }
        step = step.with("failed", failed);
        let Some((at, way)) = &seen.way else { return step };
        let before = seen.addresses.as_ref().map(|(at, _)| *at).or(seen.begun).unwrap_or_default();
        let port = self.hop.port;
        let (name, text) = match way {
            Way::Tcp(address) => {
                step = step.with("address", address.ip().to_string());
                ("tcp", format!("TCP to {} port {port}", address.ip()))
            }
            Way::Command => ("proxy_command", "ProxyCommand runs".to_owned()),
            Way::Through => {
                step = step.with("throughHop", self.number);
                ("through", format!("through hop {} to {} port {port}", self.number, self.hop.host))
            }
        };
        let took = Some(at.saturating_sub(before));
        Step { verdict: Verdict::Ok, took, text, ..step }.with("way", name)
    }

    fn server(&self) -> Step {
        let seen = self.seen;
        let mut step = Step::not_reached(Kind::Server, None);
        let Some((banner, after)) = &seen.banner else { return step };
        step = step
            .with("banner", banner.as_str())
            .with("bannerMs", crate::cli::status::tenths(*after));
        if let Some((at, agreed)) = &seen.agreed {
            let before = seen.way.as_ref().map(|(at, _)| *at).unwrap_or_default();
            step.took = Some(at.saturating_sub(before));
            step.lines.push(Line::plain(algorithms(agreed)));
            let weak = weak(agreed);
            if !weak.is_empty() {
                let text =
                    format!("weak, and used because your options ask for it: {}", weak.join(", "));
                step.lines.push(Line { verdict: Some(Verdict::Failed), text });
            }
            step = step.with("weak", weak);
            step = step
                .with("kex", agreed.kex.as_str())
                .with("hostKeyAlgorithm", agreed.host_key.as_str())
                .with("cipher", agreed.cipher.as_str())
                .with("mac", agreed.mac.clone())
                .with("strictKex", agreed.strict)
                .with("compressed", agreed.compressed);
        } else if seen.host_key.is_none() {
            step.lines.push(Line::plain(format!("it says it is {banner}")));
            return step;
        } else {
            step.took = Some(*after);
        }
        Step { verdict: Verdict::Ok, text: banner.clone(), ..step }
    }

    fn host_key(&self) -> Step {
        let seen = self.seen;
        let step = Step::not_reached(Kind::HostKey, None);
        let Some((at, algorithm, fingerprint, standing)) = &seen.host_key else { return step };
        let took = seen.checking.map(|begun| at.saturating_sub(begun));
        let lines: Vec<Value> = lines_of(standing)
            .into_iter()
            .map(|line| json!({"path": line.path, "line": line.number}))
            .collect();
        let is_bad =
            matches!(standing, Standing::Unknown | Standing::Changed(_) | Standing::Revoked(_));
        let shown = format!("{algorithm} {fingerprint}");
        let mut step = step
            .with("algorithm", algorithm.as_str())
            .with("fingerprint", fingerprint.as_str())
            .with("standing", standing_name(standing))
            .with("lines", lines)
            .with("recordedIn", seen.recorded.clone());
        step.took = took;
        step.lines.push(Line::plain(shown));
        if let Standing::Certified { identity, .. } = standing {
            step.lines.push(Line::plain(format!("certificate `{identity}`")));
            step = step.with("certificate", identity.as_str());
        }
        step.lines
            .extend(seen.recorded.iter().map(|path| Line::plain(format!("written to {path}"))));
        let verdict = if is_bad { Verdict::Failed } else { Verdict::Ok };
        Step { verdict, text: standing.to_string(), ..step }
    }

    fn login(&self) -> Step {
        let seen = self.seen;
        let step = Step::not_reached(Kind::Login, None).with("user", self.hop.user.as_str());
        let outcome = match &seen.logged_in {
            Some(_) => login::Outcome::In,
            None => login::Outcome::NotIn,
        };
        let mut step = seen.logins.describe(step, self.hop, outcome);
        let begun = seen.authenticating.unwrap_or_default();
        let Some((at, method)) = &seen.logged_in else {
            step.took = seen.authenticating.map(|begun| seen.ended.saturating_sub(begun));
            return step;
        };
        let took = Some(at.saturating_sub(begun));
        let text = format!("{} by {method}", self.hop.user);
        Step { verdict: Verdict::Ok, took, text, ..step }.with("method", method.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, path::PathBuf};

    use super::{super::seen::What, *};
    use crate::{
        ssh::{Answer, Fact, Key, Line as FileLine, Negotiated},
        tunnel::Cause,
    };

    fn address(text: &str) -> SocketAddr {
        format!("{text}:22").parse().unwrap()
    }

    fn host() -> String {
        "box".to_owned()
    }

    fn line() -> FileLine {
        FileLine { path: PathBuf::from("/home/me/.ssh/known_hosts"), number: 3 }
    }

    fn host_key(standing: Standing) -> Fact {
        Fact::HostKey {
            algorithm: "ssh-ed25519".to_owned(),
            fingerprint: "SHA256:abc".to_owned(),
            standing,
        }
    }

    fn banner() -> Fact {
        let text = "SSH-2.0-OpenSSH_9.2p1".to_owned();
        Fact::Banner { text, after: Duration::from_millis(2) }
    }

    fn agreed() -> Fact {
        Fact::Algorithms(Negotiated {
            kex: "mlkem768x25519-sha256".to_owned(),
            host_key: "ssh-ed25519".to_owned(),
            cipher: "aes256-ctr".to_owned(),
            mac: Some("hmac-sha2-256".to_owned()),
            strict: true,
            compressed: false,
        })
    }

    fn methods(names: &[&str]) -> Fact {
        Fact::Methods(names.iter().map(|name| (*name).to_owned()).collect())
    }

    fn key(answer: Answer) -> Fact {
        let key = Key {
            algorithm: Some("ssh-ed25519".to_owned()),
            fingerprint: Some("SHA256:key".to_owned()),
            file: Some("/home/me/.ssh/id_ed25519".into()),
            in_agent: false,
        };
        Fact::Key { key, answer }
    }

    fn refused(cause: Cause) -> Failure {
        Failure::new(cause, "why")
    }

    /// News one millisecond apart.
    fn told(facts: Vec<What>) -> Vec<News> {
        let numbered = (0..).zip(facts);
        numbered.map(|(ms, what)| News { at: Duration::from_millis(ms), what }).collect()
    }

    fn facts(facts: Vec<Fact>) -> Vec<News> {
        told(facts.into_iter().map(What::Fact).collect())
    }

    fn hop() -> HopPlan {
        HopPlan {
            host: host(),
            port: 22,
            user: "me".to_owned(),
            switched_off: vec![("keyboard-interactive", "it is off".to_owned())],
            ..HopPlan::default()
        }
    }

    fn steps(hops: &[HopPlan], news: &[News], failure: Option<&Failure>) -> Vec<Step> {
        of_hops(hops, news, End { at: Duration::from_millis(100), failure })
    }

    /// Each step with its mark, in one text.
    fn marks(steps: &[Step]) -> String {
        let mark = |step: &Step| match step.verdict {
            Verdict::Ok => '+',
            Verdict::Failed => '!',
            Verdict::NotReached => '-',
        };
        let all = steps.iter().map(|step| format!("{}{}", mark(step), step.kind.name()));
        all.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_first_step_that_is_not_done_is_the_one_that_failed() {
        let all = vec![
            Fact::Hop(0),
            Fact::Addresses(vec![address("192.0.2.1")]),
            Fact::Connected { address: address("192.0.2.1"), took: Duration::from_millis(9) },
            banner(),
            host_key(Standing::OnFile(line())),
            agreed(),
            methods(&["publickey"]),
            Fact::LoggedIn { method: "publickey".to_owned() },
        ];
        let cases = [
            (1, Cause::NameNotFound, "!name -connect -server -host_key -login"),
            (2, Cause::Refused, "+name !connect -server -host_key -login"),
            (3, Cause::HandshakeTimedOut, "+name +connect !server -host_key -login"),
            (4, Cause::Protocol, "+name +connect !server -host_key -login"),
            (7, Cause::Authentication, "+name +connect +server +host_key !login"),
        ];
        for (told, cause, expected) in cases {
            let news = facts(all.iter().take(told).cloned().collect());
            let found = steps(&[hop()], &news, Some(&refused(cause)));
            assert_eq!(marks(&found), expected, "{cause:?}");
        }
        let found = steps(&[hop()], &facts(all), None);
        assert_eq!(marks(&found), "+name +connect +server +host_key +login");
        let took: Vec<_> = found.iter().map(|step| step.took.map(|it| it.as_millis())).collect();
        assert_eq!(took[..3], [Some(1), Some(1), Some(3)]);
    }

    #[test]
    fn a_host_key_that_is_not_taken_is_the_end() {
        for standing in
            [Standing::Unknown, Standing::Changed(vec![line()]), Standing::Revoked(line())]
        {
            let news = facts(vec![
                Fact::Hop(0),
                Fact::Addresses(vec![address("192.0.2.1")]),
                Fact::Connected { address: address("192.0.2.1"), took: Duration::ZERO },
                host_key(standing.clone()),
                banner(),
            ]);
            let found = steps(&[hop()], &news, Some(&refused(Cause::HostKeyChanged)));
            assert_eq!(marks(&found), "+name +connect +server !host_key -login", "{standing}");
            assert_eq!(found[3].detail["fingerprint"], "SHA256:abc");
            assert_eq!(found[3].detail["standing"], standing_name(&standing));
        }
    }

    #[test]
    fn a_hop_behind_another_or_a_command_is_not_looked_up_here() {
        let made = |number, way| {
            vec![
                Fact::Hop(number),
                way,
                banner(),
                host_key(Standing::OnFile(line())),
                agreed(),
                Fact::LoggedIn { method: "none".to_owned() },
            ]
        };
        let through = Fact::Through { took: Duration::ZERO };
        let command = Fact::Proxied { command: "nc --auth hunter2".to_owned() };
        let news = facts([made(0, command), made(1, through)].concat());
        let first = HopPlan { proxied: true, ..hop() };
        let found = steps(&[first, hop()], &news, None);
        let one = "+connect +server +host_key +login";
        assert_eq!(marks(&found), format!("{one} {one}"));
        assert_eq!(found.iter().map(|step| step.hop.unwrap()).sum::<usize>(), 4);
        assert_eq!(found[4].detail["throughHop"], 1);
        assert!(!format!("{found:?}").contains("hunter2"));
    }

    #[test]
    fn a_failure_of_the_second_hop_leaves_the_first_alone() {
        let news = facts(vec![
            Fact::Hop(0),
            Fact::Addresses(vec![address("192.0.2.1")]),
            Fact::Connected { address: address("192.0.2.1"), took: Duration::ZERO },
            banner(),
            host_key(Standing::TakenByPerson),
            agreed(),
            Fact::LoggedIn { method: "publickey".to_owned() },
            Fact::Hop(1),
        ]);
        let found = steps(&[hop(), hop(), hop()], &news, Some(&refused(Cause::ForwardRefused)));
        let rest = "-server -host_key -login";
        let expected =
            format!("+name +connect +server +host_key +login !connect {rest} -connect {rest}");
        assert_eq!(marks(&found), expected);
    }

    #[test]
    fn every_key_and_every_method_that_was_not_tried_is_told_with_its_reason() {
        let news = facts(vec![
            Fact::Hop(0),
            Fact::Addresses(vec![address("192.0.2.1")]),
            Fact::Connected { address: address("192.0.2.1"), took: Duration::ZERO },
            banner(),
            host_key(Standing::OnFile(line())),
            agreed(),
            methods(&["publickey", "password", "keyboard-interactive", "gssapi-with-mic"]),
            key(Answer::NotTried("is not there".to_owned())),
            key(Answer::Refused),
        ]);
        let hop = HopPlan { batch: true, ..hop() };
        let found = steps(&[hop], &news, Some(&refused(Cause::Authentication)));
        let login = found.last().unwrap();
        let lines: Vec<&str> = login.lines.iter().map(|line| line.text.as_str()).collect();
        let shown = "/home/me/.ssh/id_ed25519 ed25519 SHA256:key";
        assert_eq!(
            lines,
            [
                "the server takes publickey, password, keyboard-interactive, gssapi-with-mic",
                &format!("not tried  {shown}: is not there"),
                &format!("refused    {shown}"),
                "not tried  password: nobody may be asked",
                "not tried  keyboard-interactive: it is off",
                "not tried  gssapi-with-mic: not known here",
            ]
        );
        assert_eq!(login.detail["keys"][1]["answer"], "refused");
        assert_eq!(login.detail["methods"][0]["why"], "nobody may be asked");
    }

    #[test]
    fn a_key_that_could_not_be_used_is_not_called_none() {
        let told = |keys: Vec<Fact>| {
            let begun = vec![Fact::Hop(0), methods(&["publickey"])];
            let found = steps(&[hop()], &facts([begun, keys].concat()), None);
            found.last().unwrap().lines.last().unwrap().text.clone()
        };
        assert_eq!(told(vec![]), "not tried  publickey: there is no key to offer");
        let locked = key(Answer::NotTried("it is locked".to_owned()));
        assert_eq!(told(vec![locked]), "not tried  publickey: no key could be offered");
    }

    #[test]
    fn addresses_that_did_not_answer_are_told_beside_the_one_that_did() {
        let news = facts(vec![
            Fact::Hop(0),
            Fact::Addresses(vec!["[2001:db8::1]:22".parse().unwrap(), address("192.0.2.1")]),
            Fact::NotConnected {
                address: "[2001:db8::1]:22".parse().unwrap(),
                why: "network is unreachable".to_owned(),
            },
            Fact::Connected { address: address("192.0.2.1"), took: Duration::ZERO },
        ]);
        let found = steps(&[hop()], &news, Some(&refused(Cause::LinkLost)));
        assert_eq!(found[1].text, "TCP to 192.0.2.1 port 22");
        assert_eq!(found[1].lines[0].text, "2001:db8::1  network is unreachable");
    }

    #[test]
    fn settings_stand_with_the_step_that_they_mean() {
        let setting = |keyword: &str| Setting {
            keyword: keyword.to_owned(),
            value: "x".to_owned(),
            origin: super::super::report::Origin::CommandLine,
        };
        let settings = vec![setting("identityfile"), setting("Port"), setting("Ciphers")];
        let found = steps(&[HopPlan { settings, ..hop() }], &[], None);
        let where_: Vec<_> =
            found.iter().flat_map(|s| s.settings.iter().map(|it| (s.kind, &*it.keyword))).collect();
        assert_eq!(
            where_,
            [(Kind::Connect, "Port"), (Kind::Server, "Ciphers"), (Kind::Login, "identityfile")]
        );
    }
}
