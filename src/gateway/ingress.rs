//! By which way a request came: whose address it has, and who a proxy or Tailscale says it is. Pure.

use std::net::IpAddr;

use hyper::{HeaderMap, header};
use ipnet::IpNet;

use super::{admission::PeerInfo, doors};
use crate::{protocol::Scope, secret::Secret};

/// Headers in which Tailscale says who asks.
const TAILSCALE_LOGIN: &str = "tailscale-user-login";
/// The header in which a proxy says the most that its user may do.
const SCOPES: &str = "x-openclaw-scopes";
/// The header that marks what came from the internet.
const TAILSCALE_FUNNEL: &str = "tailscale-funnel-request";

/// Which of the gateway's listeners a connection came in at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) enum Door {
    /// The one that everybody knows.
    #[default]
    Ordinary,
    /// The one that `tailscale serve`, started by us, leads to.
    Serve,
    /// The same of `tailscale funnel`.
    Funnel,
}

/// Whose word about others counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ways {
    /// `gateway.trustedProxies`.
    pub(super) proxies: Vec<IpNet>,
    /// `gateway.allowRealIpFallback`.
    pub(super) allow_real_ip: bool,
    /// The rules of auth mode `trusted-proxy`, where it is on.
    pub(super) rules: Option<ProxyRules>,
    /// Whether what Tailscale says of a user stands for the gateway's secret, on its own door.
    pub(super) allow_tailscale: bool,
}

impl Ways {
    /// Whether somebody else's word about a user lets that user in.
    pub(super) fn names_users(&self) -> bool {
        self.rules.is_some() || self.allow_tailscale
    }
}

/// `gateway.auth.trustedProxy`.
#[derive(Debug, Clone, Default)]
pub(crate) struct ProxyRules {
    /// The header that names the user, in small letters.
    pub(super) user_header: String,
    /// Headers that must be there as well.
    pub(super) required_headers: Vec<String>,
    /// Who may come in; whoever the proxy names if empty.
    pub(super) allow_users: Vec<String>,
    /// Whether the proxy may run on this machine.
    pub(super) allow_loopback: bool,
    /// What opens the gateway to programs of this machine that come without the proxy.
    pub(super) password: Option<Secret>,
}

impl ProxyRules {
    /// Whether programs of this machine have a way in of their own.
    pub(super) fn has_password(&self) -> bool {
        self.password.is_some()
    }
}

/// What somebody in between says of who asks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Word {
    /// Nothing that counts.
    #[default]
    None,
    /// A trusted proxy vouches for this user.
    User(String),
    /// The mode wants a proxy's word, and this is why there is none.
    NoUser(NoUser),
    /// Tailscale names this login; to be verified.
    Tailscale(String),
}

/// Why a proxy's word does not count. The reasons are OpenClaw's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NoUser {
    /// Somebody speaks for somebody else, and is no proxy that we trust or does not say for whom.
    Attribution,
    /// It did not come from a trusted proxy.
    UntrustedSource,
    /// It came from this machine, which was not allowed.
    LoopbackSource,
    /// It came from an address of this machine.
    OwnInterface,
    /// Which addresses are this machine's cannot be told.
    Interfaces,
    /// This header must be there.
    MissingHeader(String),
    /// The proxy names nobody.
    UserMissing,
    /// The user may not come in.
    UserNotAllowed,
}

impl NoUser {
    /// OpenClaw's word for it.
    pub(super) fn reason(&self) -> String {
        match self {
            Self::Attribution => "proxy_attribution_required".to_owned(),
            Self::UntrustedSource => "trusted_proxy_untrusted_source".to_owned(),
            Self::LoopbackSource => "trusted_proxy_loopback_source".to_owned(),
            Self::OwnInterface => "trusted_proxy_local_interface_source".to_owned(),
            Self::Interfaces => "trusted_proxy_local_interface_check_failed".to_owned(),
            Self::MissingHeader(name) => format!("trusted_proxy_missing_header_{name}"),
            Self::UserMissing => "trusted_proxy_user_missing".to_owned(),
            Self::UserNotAllowed => "trusted_proxy_user_not_allowed".to_owned(),
        }
    }

    /// Whether nothing else that the client shows helps: only who does not come by the proxy at all may
    /// come in by what its device holds.
    pub(super) fn is_final(&self, is_forwarded: bool) -> bool {
        match self {
            Self::UntrustedSource => false,
            Self::LoopbackSource => is_forwarded,
            Self::Attribution
            | Self::OwnInterface
            | Self::Interfaces
            | Self::MissingHeader(_)
            | Self::UserMissing
            | Self::UserNotAllowed => true,
        }
    }
}

/// The peer of a connection, as one request on it shows it. `is_own` tells whether an address is
/// one of this machine's, `None` where that cannot be told.
pub(super) fn arrival(
    ways: &Ways,
    headers: &HeaderMap,
    peer: &PeerInfo,
    is_own: impl Fn(IpAddr) -> Option<bool>,
) -> PeerInfo {
    let origin = headers.get(header::ORIGIN).map(|origin| {
        // One that is no text is no less a page.
        String::from_utf8_lossy(origin.as_bytes()).into_owned()
    });
    let is_forwarded = peer.is_forwarded || doors::is_forwarded(headers);
    let arrived = PeerInfo { origin, is_forwarded, ..peer.clone() };
    match peer.door {
        Door::Ordinary => by_proxy(ways, headers, arrived, is_own),
        Door::Serve | Door::Funnel => by_tailscale(headers, arrived),
    }
}

/// At the ordinary listener: what a trusted proxy says counts.
fn by_proxy(
    ways: &Ways,
    headers: &HeaderMap,
    peer: PeerInfo,
    is_own: impl Fn(IpAddr) -> Option<bool>,
) -> PeerInfo {
    let source = peer.address.to_canonical();
    let is_trusted = is_among(&ways.proxies, source);
    let client = if is_trusted { client(ways, headers) } else { None };
    let word = match &ways.rules {
        None => Word::None,
        Some(_) if doors::speaks_for_another(headers) && client.is_none() => {
            Word::NoUser(NoUser::Attribution)
        }
        Some(_) if !is_trusted => Word::NoUser(NoUser::UntrustedSource),
        Some(rules) => match user(rules, headers, source, is_own) {
            Ok(user) => Word::User(user),
            Err(why) => Word::NoUser(why),
        },
    };
    let cap = match word {
        Word::User(_) => cap(headers),
        Word::None | Word::NoUser(_) | Word::Tailscale(_) => None,
    };
    PeerInfo { address: client.unwrap_or(peer.address), word, cap, ..peer }
}

/// The scopes that a trusted proxy leaves its user; none for a header that is empty, unknown or no
/// text, or that stands there twice: one of the two may be the client's own.
fn cap(headers: &HeaderMap) -> Option<Vec<Scope>> {
    let mut lines = headers.get_all(SCOPES).iter();
    let line = lines.next()?;
    let text = if lines.next().is_none() { line.to_str().ok() } else { None };
    let words = text.unwrap_or_default().split(',');
    Some(words.filter_map(|word| Scope::parse(word.trim())).collect())
}

/// The user whom a trusted proxy names.
fn user(
    rules: &ProxyRules,
    headers: &HeaderMap,
    source: IpAddr,
    is_own: impl Fn(IpAddr) -> Option<bool>,
) -> Result<String, NoUser> {
    if source.is_loopback() {
        if !rules.allow_loopback {
            return Err(NoUser::LoopbackSource);
        }
    } else if is_own(source).ok_or(NoUser::Interfaces)? {
        return Err(NoUser::OwnInterface);
    }
    let missing = rules.required_headers.iter().find(|name| value(headers, name).is_none());
    if let Some(name) = missing {
        return Err(NoUser::MissingHeader(name.clone()));
    }
    // Twice is as good as never: one of the two may be the client's own.
    let user = value(headers, &rules.user_header).ok_or(NoUser::UserMissing)?;
    if !rules.allow_users.is_empty() && !rules.allow_users.contains(&user) {
        return Err(NoUser::UserNotAllowed);
    }
    Ok(user)
}

/// At a listener of Tailscale's: it says for whom, always.
fn by_tailscale(headers: &HeaderMap, peer: PeerInfo) -> PeerInfo {
    let is_told = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"]
        .iter()
        .all(|name| value(headers, name).is_some());
    let loopback =
        Ways { proxies: vec![IpNet::from(IpAddr::from([127, 0, 0, 1]))], ..Ways::default() };
    let client = client(&loopback, headers).filter(|_| is_told);
    let funnel = headers.get(TAILSCALE_FUNNEL);
    let is_right_door = match peer.door {
        Door::Funnel => funnel.is_none_or(|mark| mark == "?1"),
        Door::Serve | Door::Ordinary => funnel.is_none(),
    };
    let is_tailscaled = peer.address.to_canonical().is_loopback();
    let word = match client {
        Some(_) if is_right_door && is_tailscaled => match value(headers, TAILSCALE_LOGIN) {
            Some(login) if peer.door == Door::Serve => Word::Tailscale(login),
            Some(_) | None => Word::None,
        },
        Some(_) | None => Word::NoUser(NoUser::Attribution),
    };
    PeerInfo { address: client.unwrap_or(peer.address), is_forwarded: true, word, ..peer }
}

/// Whom a trusted proxy speaks for: the last address of the chain that is none of the proxies;
/// `None` where the chain is broken after it or ends on this machine. What stands before it is the
/// client's own, and nothing that it writes there matters.
fn client(ways: &Ways, headers: &HeaderMap) -> Option<IpAddr> {
    let lines = headers.get_all("x-forwarded-for");
    let mut chain =
        lines.iter().rev().flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
    let is_stranger = |client: &IpAddr| !is_among(&ways.proxies, *client);
    let client = if ways.allow_real_ip && !headers.contains_key("x-forwarded-for") {
        address(&value(headers, "x-real-ip")?).filter(is_stranger)?
    } else {
        loop {
            let part = std::str::from_utf8(chain.next()?).ok()?;
            let client = address(part)?;
            if is_stranger(&client) {
                break client;
            }
        }
    };
    (!client.is_loopback() && !client.is_unspecified()).then_some(client)
}

/// An address as proxies write it: with a port, in brackets, or bare.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.0,
        None => match text.split_once(':') {
            Some((host, port)) if !port.contains(':') => host,
            _ => text,
        },
    };
    bare.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

fn is_among(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address))
}

/// The value of a header that stands there once and is not blank.
fn value(headers: &HeaderMap, name: &str) -> Option<String> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?.trim().to_owned();
    (values.next().is_none() && !value.is_empty()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::{client as ends, *};

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in [("host", "127.0.0.1:18789")].iter().chain(pairs) {
            let name: header::HeaderName = name.parse().unwrap();
            headers.append(name, value.parse().unwrap());
        }
        headers
    }

    fn ways() -> Ways {
        Ways {
            proxies: vec!["10.0.0.0/24".parse().unwrap(), "127.0.0.1/32".parse().unwrap()],
            rules: Some(ProxyRules {
                user_header: "x-forwarded-user".to_owned(),
                required_headers: vec!["x-forwarded-proto".to_owned()],
                allow_users: vec!["nick@example.com".to_owned()],
                ..ProxyRules::default()
            }),
            ..Ways::default()
        }
    }

    fn from(address: &str) -> PeerInfo {
        PeerInfo { address: address.parse().unwrap(), ..PeerInfo::loopback() }
    }

    const GOOD: [(&str, &str); 3] = [
        ("x-forwarded-for", "203.0.113.9"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-user", "nick@example.com"),
    ];

    fn word(ways: &Ways, source: &str, pairs: &[(&str, &str)]) -> Word {
        arrival(ways, &headers(pairs), &from(source), |_| Some(false)).word
    }

    fn refused(ways: &Ways, source: &str, pairs: &[(&str, &str)]) -> NoUser {
        let word = word(ways, source, pairs);
        let Word::NoUser(why) = word else { panic!("{word:?}") };
        why
    }

    #[test]
    fn a_trusted_proxy_says_who_it_is_and_where_from() {
        let arrived = arrival(&ways(), &headers(&GOOD), &from("10.0.0.1"), |_| Some(false));
        assert_eq!(arrived.word, Word::User("nick@example.com".to_owned()));
        assert_eq!(arrived.address, "203.0.113.9".parse::<IpAddr>().unwrap());
        assert!(arrived.is_forwarded);
        // The address is followed in the other modes, too, and nobody is named.
        let plain = Ways { rules: None, ..ways() };
        let arrived = arrival(&plain, &headers(&GOOD), &from("10.0.0.1"), |_| Some(false));
        assert_eq!((arrived.word, arrived.address.to_string()), (Word::None, "203.0.113.9".into()));
        let stranger = arrival(&plain, &headers(&GOOD), &from("192.0.2.1"), |_| Some(false));
        assert_eq!(stranger.address.to_string(), "192.0.2.1");
    }

    #[test]
    fn a_proxy_may_leave_its_user_less_and_nobody_else_may() {
        let caps = |source: &str, value: &str| {
            let pairs = [&GOOD[..], &[(SCOPES, value)]].concat();
            arrival(&ways(), &headers(&pairs), &from(source), |_| Some(false)).cap
        };
        let both = Some(vec![Scope::Read, Scope::Write]);
        assert_eq!(caps("10.0.0.1", "operator.read, operator.write"), both);
        assert_eq!(caps("10.0.0.1", ""), Some(Vec::new()));
        assert_eq!(caps("10.0.0.1", "operator.everything"), Some(Vec::new()));
        assert_eq!(caps("192.0.2.1", "operator.read"), None);
        // The client's own line beside the proxy's widens nothing, nor does one that is no text.
        let line = (SCOPES, "operator.read");
        let twice = headers(&[&GOOD[..], &[line, (SCOPES, "operator.admin")]].concat());
        let mut binary = headers(&GOOD);
        let text = header::HeaderValue::from_bytes(b"operator.read,\xff").unwrap();
        binary.insert(SCOPES, text);
        for headers in [twice, binary] {
            let arrived = arrival(&ways(), &headers, &from("10.0.0.1"), |_| Some(false));
            assert_eq!(arrived.cap, Some(Vec::new()), "{headers:?}");
        }
        let arrived = arrival(&ways(), &headers(&GOOD), &from("10.0.0.1"), |_| Some(false));
        assert_eq!(arrived.cap, None);
    }

    #[test]
    fn the_word_of_anybody_else_is_nothing() {
        let ways = ways();
        assert_eq!(refused(&ways, "192.0.2.1", &GOOD), NoUser::Attribution);
        let bare = [("remote-user", "nick@example.com")];
        assert_eq!(refused(&ways, "192.0.2.1", &bare), NoUser::UntrustedSource);
        assert_eq!(refused(&ways, "127.0.0.1", &GOOD), NoUser::LoopbackSource);
        for (answer, why) in [(Some(true), NoUser::OwnInterface), (None, NoUser::Interfaces)] {
            let arrived = arrival(&ways, &headers(&GOOD), &from("10.0.0.1"), |_| answer);
            assert_eq!(arrived.word, Word::NoUser(why));
        }
    }

    #[test]
    fn a_proxy_on_this_machine_needs_consent() {
        let mut ways = ways();
        ways.rules.as_mut().unwrap().allow_loopback = true;
        assert_eq!(word(&ways, "127.0.0.1", &GOOD), Word::User("nick@example.com".to_owned()));
        // And must be listed all the same.
        assert_eq!(refused(&ways, "127.0.0.2", &GOOD), NoUser::Attribution);
    }

    #[test]
    fn every_required_header_is_there_once_and_not_blank() {
        let ways = ways();
        let with = |name: &str, value: &'static str| {
            let mut pairs: Vec<_> = GOOD.into_iter().filter(|(other, _)| *other != name).collect();
            if !value.is_empty() {
                pairs.push((name_of(name), value));
            }
            pairs
        };
        fn name_of(name: &str) -> &'static str {
            GOOD.iter().map(|(known, _)| *known).find(|known| *known == name).unwrap()
        }
        let missing = NoUser::MissingHeader("x-forwarded-proto".to_owned());
        assert_eq!(refused(&ways, "10.0.0.1", &with("x-forwarded-proto", "")), missing);
        assert_eq!(refused(&ways, "10.0.0.1", &with("x-forwarded-proto", "  ")), missing);
        let user = |value| refused(&ways, "10.0.0.1", &with("x-forwarded-user", value));
        assert_eq!(user(""), NoUser::UserMissing);
        assert_eq!(user(" "), NoUser::UserMissing);
        assert_eq!(user("eve@example.com"), NoUser::UserNotAllowed);
        let twice = [&GOOD[..], &[("x-forwarded-user", "nick@example.com")]].concat();
        assert_eq!(refused(&ways, "10.0.0.1", &twice), NoUser::UserMissing);
    }

    #[test]
    fn the_chain_is_read_from_its_end_and_must_lead_off_this_machine() {
        let ways = ways();
        let client = |pairs: &[(&str, &str)]| {
            ends(&ways, &headers(pairs)).map(|address| address.to_string())
        };
        for (chain, expected) in [
            ("1.2.3.4, 203.0.113.9", Some("203.0.113.9")),
            ("203.0.113.9, 10.0.0.7", Some("203.0.113.9")),
            ("203.0.113.9:4711", Some("203.0.113.9")),
            ("[2001:db8::1]:4711", Some("2001:db8::1")),
            ("2001:db8::1", Some("2001:db8::1")),
            ("::ffff:203.0.113.9", Some("203.0.113.9")),
            ("127.0.0.1", None),
            ("::1", None),
            ("127.0.0.2", None),
            ("10.0.0.7", None),
            ("nonsense, 203.0.113.9", Some("203.0.113.9")),
            ("x,, 203.0.113.9, 10.0.0.7", Some("203.0.113.9")),
            ("203.0.113.9, unknown", None),
            ("203.0.113.9, unknown, 10.0.0.7", None),
            ("", None),
        ] {
            assert_eq!(client(&[("x-forwarded-for", chain)]).as_deref(), expected, "{chain}");
        }
        let lines = [("x-forwarded-for", "nonsense"), ("x-forwarded-for", "203.0.113.9")];
        assert_eq!(client(&lines).as_deref(), Some("203.0.113.9"));
        let mut binary = headers(&[]);
        let line = header::HeaderValue::from_bytes(b"\xff, 203.0.113.9").unwrap();
        binary.insert("x-forwarded-for", line);
        assert!(ends(&ways, &binary).is_some());
        assert_eq!(client(&[("x-real-ip", "203.0.113.9")]), None);
        let with_fallback = Ways { allow_real_ip: true, ..ways.clone() };
        let real = headers(&[("x-real-ip", "203.0.113.9")]);
        assert!(ends(&with_fallback, &real).is_some());
    }

    fn tailscale(door: Door, pairs: &[(&str, &str)]) -> PeerInfo {
        let peer = PeerInfo { door, ..PeerInfo::loopback() };
        arrival(&Ways::default(), &headers(pairs), &peer, |_| Some(false))
    }

    const SERVED: [(&str, &str); 4] = [
        ("x-forwarded-for", "100.64.0.9"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "box.tail.ts.net"),
        ("tailscale-user-login", "me@example.com"),
    ];

    #[test]
    fn tailscale_names_a_user_at_its_own_door_only() {
        let served = tailscale(Door::Serve, &SERVED);
        assert_eq!(served.word, Word::Tailscale("me@example.com".to_owned()));
        assert_eq!(served.address.to_string(), "100.64.0.9");
        assert!(!served.is_direct_loopback());
        let ordinary = tailscale(Door::Ordinary, &SERVED);
        assert_eq!((ordinary.word, ordinary.is_forwarded), (Word::None, true));
        let funnel = tailscale(Door::Funnel, &SERVED);
        assert_eq!(funnel.word, Word::None, "whoever comes by Funnel must know the password");
    }

    #[test]
    fn what_tailscale_did_not_forward_has_no_business_at_its_door() {
        for gone in 0..3 {
            let mut pairs = SERVED.to_vec();
            pairs.remove(gone);
            let word = tailscale(Door::Serve, &pairs).word;
            assert_eq!(word, Word::NoUser(NoUser::Attribution), "{gone}");
        }
        assert!(!tailscale(Door::Serve, &[]).is_direct_loopback());
        let public = [&SERVED[..], &[(TAILSCALE_FUNNEL, "?1")]].concat();
        assert_eq!(tailscale(Door::Serve, &public).word, Word::NoUser(NoUser::Attribution));
        assert_eq!(tailscale(Door::Funnel, &public).word, Word::None);
        let odd = [&SERVED[..], &[(TAILSCALE_FUNNEL, "yes")]].concat();
        assert_eq!(tailscale(Door::Funnel, &odd).word, Word::NoUser(NoUser::Attribution));
    }
}
