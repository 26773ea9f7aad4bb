//! What flags, variables and files come to, and what refuses the start.

use std::path::Path;

use super::*;
use crate::gateway::tests::paths;

fn decide(
    flags: &Flags,
    environment: &[(&str, &str)],
    config: &OpenClaw,
) -> Result<Settings, Problem> {
    let variable = |name: &str| {
        environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    };
    Settings::decide(flags, variable, config, paths(Path::new("/state")), &Machine::default())
}

fn known(text: &str) -> Option<SecretInput> {
    Some(SecretInput::Known(Secret::new(text)))
}

fn lan() -> Flags {
    Flags { bind: Some("lan".to_owned()), ..Flags::default() }
}

#[test]
fn the_port_comes_from_the_flag_then_the_environment_then_the_file() {
    let mut config = OpenClaw::default();
    let port = |flag, environment: &[(&str, &str)], config: &OpenClaw| {
        decide(&Flags { port: flag, ..Flags::default() }, environment, config).map(|s| s.port)
    };
    assert_eq!(port(None, &[], &config), Ok(18_789));
    config.gateway.port = Some(3);
    assert_eq!(port(None, &[], &config), Ok(3));
    let environment = [("OPENCLAW_GATEWAY_PORT", "2")];
    assert_eq!(port(None, &environment, &config), Ok(2));
    assert_eq!(port(Some(1), &environment, &config), Ok(1));
    let broken = [("OPENCLAW_GATEWAY_PORT", "many")];
    assert_eq!(port(None, &broken, &config).unwrap_err().class, Class::Config);
    assert_eq!(port(None, &[("OPENCLAW_GATEWAY_PORT", "")], &config), Ok(3));
}

#[test]
fn a_named_profile_listens_on_a_port_of_its_own_unless_told_otherwise() {
    let (home, paths) = Paths::temporary();
    let work = Paths { profile: Some("work".to_owned()), ..paths };
    let config = OpenClaw::load(&work).unwrap();
    let port = |environment, config: &OpenClaw| {
        decide(&Flags::default(), environment, config).map(|settings| settings.port)
    };
    assert_eq!(port(&[], &config), Ok(41_984));
    assert_eq!(port(&[("OPENCLAW_GATEWAY_PORT", "127.0.0.1:7")], &config), Ok(7));
    std::fs::create_dir_all(&work.state).unwrap();
    std::fs::write(&work.config, "{gateway: {port: 8}}").unwrap();
    assert_eq!(port(&[], &OpenClaw::load(&work).unwrap()), Ok(8));
    drop(home);
}

#[test]
fn a_gateway_that_runs_elsewhere_does_not_start_here() {
    let mut config = OpenClaw::default();
    config.gateway.mode = Some(Mode::Remote);
    let problem = decide(&Flags::default(), &[], &config).unwrap_err();
    assert_eq!(problem.class, Class::Config);
    assert!(problem.message.contains("gateway.mode"));
}

#[test]
fn beyond_loopback_wants_a_configured_secret() {
    let mut config = OpenClaw::default();
    config.gateway.remote.token = known("for calling others");
    config.gateway.remote.password = known("for calling others");
    let problem = decide(&lan(), &[], &config).unwrap_err();
    assert_eq!(problem.class, Class::Config);
    assert!(problem.message.contains("gateway.remote"), "{}", problem.message);
    assert!(problem.fix.is_some());

    config.gateway.auth.mode = Some(AuthMode::None);
    assert_eq!(decide(&lan(), &[], &config).unwrap_err().class, Class::Config);
    config.gateway.auth.mode = None;

    assert!(decide(&lan(), &[("OPENCLAW_GATEWAY_TOKEN", "t")], &config).is_ok());
    assert!(decide(&lan(), &[("OPENCLAW_GATEWAY_TOKEN", " ")], &config).is_err());
    let guard = decide(&lan(), &[("OPENCLAW_GATEWAY_PASSWORD", "p")], &config).unwrap().guard;
    assert!(matches!(guard, Guard::Password(_)));
    config.gateway.auth.token = known("t");
    assert!(matches!(decide(&lan(), &[], &config).unwrap().guard, Guard::Token(_)));
}

#[test]
fn loopback_without_a_secret_uses_its_own_token_and_never_a_remotes() {
    let mut config = OpenClaw::default();
    config.gateway.remote.token = known("for calling others");
    let settings = decide(&Flags::default(), &[], &config).unwrap();
    assert!(matches!(settings.guard, Guard::OwnToken));
    assert_eq!(settings.listen, Listen::Loopback);
}

#[test]
fn of_a_token_and_a_password_somebody_says_which_one_counts() {
    let refused = |flags: &Flags, config: &OpenClaw| {
        let machine = Machine::default();
        let judged = Settings::judge(flags, |_| None, config, paths(Path::new("/s")), &machine);
        let found = judged.map(|_| ()).unwrap_err();
        assert_eq!(found.len(), 1, "{found:#?}");
        let Refusal { path, problem } = found.into_iter().next().unwrap();
        (path, problem.message, problem.fix.unwrap())
    };
    let mut config = OpenClaw::default();
    // What is there for calling others is no second one.
    config.gateway.remote.token = known("for calling others");
    config.gateway.auth.password = known("p");
    let mode = |flags: &Flags, environment: &[(&str, &str)], config: &OpenClaw| {
        decide(flags, environment, config).unwrap().guard.mode()
    };
    assert_eq!(mode(&Flags::default(), &[], &config), "password");
    let elsewhere = [("OPENCLAW_GATEWAY_TOKEN", "t")];
    assert_eq!(mode(&Flags::default(), &elsewhere, &config), "password");

    config.gateway.auth.token =
        Some(SecretInput::Unresolved { path: String::new(), reason: String::new() });
    for flags in [Flags::default(), lan()] {
        let (path, message, fix) = refused(&flags, &config);
        assert_eq!(path, "gateway.auth.mode");
        assert!(message.contains("gateway.auth.token and gateway.auth.password"), "{message}");
        assert!(fix.contains("config set gateway.auth.mode"), "{fix}");
    }
    config.gateway.auth.token = known("t");
    for (told, expected) in [(AuthMode::Token, "token"), (AuthMode::Password, "password")] {
        let flag = Flags { auth: Some(told), ..Flags::default() };
        assert_eq!(mode(&flag, &[], &config), expected);
        let mut config = config.clone();
        config.gateway.auth.mode = Some(told);
        assert_eq!(mode(&Flags::default(), &[], &config), expected);
    }
    let token = Flags { token: Some(Secret::new("typed")), ..Flags::default() };
    assert_eq!(mode(&token, &[], &config), "token");
    let both = Flags { password: Some(Secret::new("typed")), ..token };
    let (path, _, fix) = refused(&both, &OpenClaw::default());
    assert!(path.is_empty() && fix.contains("--auth"), "{path} {fix}");
}

#[test]
fn a_reference_that_leads_nowhere_is_not_replaced_by_another_secret() {
    let mut config = OpenClaw::default();
    config.gateway.auth.token = Some(SecretInput::Unresolved {
        path: "gateway.auth.token".to_owned(),
        reason: "gone".to_owned(),
    });
    let environment = [("OPENCLAW_GATEWAY_TOKEN", "t")];
    assert!(decide(&Flags::default(), &environment, &config).is_err());
}

#[test]
fn authentication_is_asked_where_the_mode_ends_up_and_not_by_its_name() {
    let decide_on = |bind: &str, machine: &Machine| {
        let flags = Flags { bind: Some(bind.to_owned()), ..Flags::default() };
        let state = paths(Path::new("/state"));
        Settings::decide(&flags, |_| None, &OpenClaw::default(), state, machine)
    };
    let inside = Machine::default();
    let outside = Machine { tailnet: Some("100.64.0.7".parse().unwrap()), has_loopback: false };
    for bind in ["auto", "tailnet"] {
        assert!(decide_on(bind, &inside).is_ok(), "{bind}");
        let problem = decide_on(bind, &outside).unwrap_err();
        assert!(problem.message.contains("beyond loopback"), "{}", problem.message);
    }
}

fn read(text: &str) -> OpenClaw {
    let (_home, paths) = Paths::temporary();
    std::fs::create_dir_all(&paths.state).unwrap();
    std::fs::write(&paths.config, text).unwrap();
    OpenClaw::load(&paths).unwrap()
}

#[test]
fn a_trusted_proxy_that_is_half_described_refuses_to_start_by_name() {
    let good = "{gateway: {trustedProxies: ['10.0.0.1'], auth: {mode: 'trusted-proxy', \
                trustedProxy: {userHeader: 'X-Forwarded-User'}}}}";
    let settings = decide(&lan(), &[], &read(good)).unwrap();
    assert_eq!(settings.ways.rules.unwrap().user_header, "x-forwarded-user");
    let refused = |text: &str, environment: &[(&str, &str)]| {
        decide(&Flags::default(), environment, &read(text)).unwrap_err()
    };
    let token = refused(good, &[("OPENCLAW_GATEWAY_TOKEN", "t")]);
    assert!(token.message.contains("past the proxy"), "{}", token.message);
    for (text, key) in [
        ("auth: {mode: 'trusted-proxy'}", "gateway.auth.trustedProxy"),
        (
            "trustedProxies: ['10.0.0.1'], auth: {mode: 'trusted-proxy', trustedProxy: {}}",
            "userHeader",
        ),
        (
            "auth: {mode: 'trusted-proxy', trustedProxy: {userHeader: 'x-user'}}",
            "gateway.trustedProxies",
        ),
        (
            "trustedProxies: ['127.0.0.1'], \
             auth: {mode: 'trusted-proxy', trustedProxy: {userHeader: 'x-user'}}",
            "this machine alone",
        ),
        (
            "trustedProxies: ['10.0.0.1'], \
             auth: {mode: 'trusted-proxy', trustedProxy: {userHeader: 'x user'}}",
            "no name of a header",
        ),
    ] {
        let problem = refused(&format!("{{gateway: {{{text}}}}}"), &[]);
        assert_eq!(problem.class, Class::Config);
        assert!(problem.message.contains(key), "{}", problem.message);
        assert!(problem.fix.is_some());
    }
}

#[test]
fn tailscales_word_counts_with_serve_and_a_token_unless_told_otherwise() {
    let allowed = |text: &str| {
        let config = read(&format!("{{gateway: {{{text}}}}}"));
        decide(&Flags::default(), &[], &config).unwrap().ways.allow_tailscale
    };
    for (text, expected) in [
        ("tailscale: {mode: 'serve'}", true),
        ("tailscale: {mode: 'serve'}, auth: {token: 't'}", true),
        ("tailscale: {mode: 'serve'}, auth: {allowTailscale: false}", false),
        ("tailscale: {mode: 'serve'}, auth: {password: 'p'}", false),
        ("tailscale: {mode: 'serve'}, auth: {password: 'p', allowTailscale: true}", true),
        ("auth: {allowTailscale: true}", false),
        ("tailscale: {mode: 'off'}, auth: {allowTailscale: true}", false),
        ("tailscale: {mode: 'funnel'}, auth: {password: 'p', allowTailscale: true}", false),
    ] {
        assert_eq!(allowed(text), expected, "{text}");
    }
}

#[test]
fn what_would_open_the_gateway_by_tailscale_is_refused_by_the_key_in_the_way() {
    for (text, key) in [
        ("tailscale: {mode: 'funnel'}", "`password`"),
        ("tailscale: {mode: 'funnel'}, auth: {token: 't'}", "`password`"),
        ("tailscale: {mode: 'serve'}, auth: {mode: 'none'}", "`none`"),
        ("tailscale: {mode: 'serve'}, bind: 'lan', auth: {token: 't'}", "gateway.bind"),
    ] {
        let config = read(&format!("{{gateway: {{{text}}}}}"));
        let problem = decide(&Flags::default(), &[], &config).unwrap_err();
        assert_eq!(problem.class, Class::Config);
        assert!(problem.message.contains(key), "{}", problem.message);
    }
    let flags = Flags { tailscale: Some(TailscaleMode::Off), ..Flags::default() };
    let config = read("{gateway: {tailscale: {mode: 'funnel'}}}");
    assert!(decide(&flags, &[], &config).is_ok(), "the flag comes first");
}

#[test]
fn bounds_of_named_users_that_nobody_would_keep_are_refused_where_users_are_named() {
    let refused = |text: &str| {
        let config = read(&format!("{{gateway: {{roles: {{default: 'guest'}}, {text}}}}}"));
        let state = paths(Path::new("/state"));
        let machine = Machine::default();
        let judged = Settings::judge(&Flags::default(), |_| None, &config, state, &machine);
        judged.err().map(|found| found.iter().map(|it| it.path).collect::<Vec<_>>())
    };
    let proxy = "trustedProxies: ['10.0.0.1'], auth: {mode: 'trusted-proxy', trustedProxy: \
                 {userHeader: 'x-user'}}";
    for named in [proxy, "tailscale: {mode: 'serve'}, auth: {token: 't'}"] {
        assert_eq!(refused(named), Some(vec!["gateway.roles"]), "{named}");
    }
    for unnamed in [
        "auth: {token: 't'}",
        "tailscale: {mode: 'serve'}, auth: {token: 't', allowTailscale: false}",
        "tailscale: {mode: 'serve'}, auth: {password: 'p'}",
    ] {
        assert_eq!(refused(unnamed), None, "{unnamed}");
    }
}

#[test]
fn a_tailnet_address_that_comes_late_is_waited_for_where_a_secret_was_chosen() {
    let awaits = |text: &str| {
        let config = read(&format!("{{gateway: {{{text}}}}}"));
        decide(&Flags::default(), &[], &config).unwrap().awaits_tailnet
    };
    assert!(awaits("bind: 'tailnet', auth: {token: 't'}"));
    assert!(!awaits("bind: 'tailnet'"), "nobody chose a secret for more than loopback");
    assert!(!awaits("bind: 'loopback', auth: {token: 't'}"));
}

#[test]
fn everything_that_keeps_a_gateway_from_starting_is_said_at_once_each_at_its_key() {
    let refused = |text: &str| {
        let (config, state) = (read(text), paths(Path::new("/state")));
        let judged =
            Settings::judge(&Flags::default(), |_| None, &config, state, &Machine::default());
        judged.map(|_| ()).unwrap_err()
    };
    let found = refused(
        "{gateway: {mode: 'remote', bind: 'custom', customBindHost: 'nonsense', \
          tls: {enabled: true, certPath: '/x'}, tailscale: {mode: 'serve'}, \
          auth: {mode: 'none'}}}",
    );
    let at: Vec<_> = found.iter().map(|refusal| refusal.path).collect();
    let expected = [
        "gateway.mode",
        "gateway.tls.keyPath",
        "gateway.customBindHost",
        "gateway.bind",
        "gateway.tailscale.mode",
        "gateway.tailscale.mode",
    ];
    assert_eq!(at, expected);
    assert!(found.iter().all(|refusal| refusal.problem.fix.is_some()), "{found:#?}");
    let problem = as_problem(found);
    assert_eq!(problem.class, Class::Config);
    for key in expected {
        assert!(problem.message.contains(key), "{}", problem.message);
    }
    let found = refused(
        "{gateway: {auth: {mode: 'trusted-proxy', token: 't', password: ' ', \
          trustedProxy: {userHeader: 'x user', requiredHeaders: ['a b', 'ok']}}}}",
    );
    let at: Vec<_> = found.iter().map(|refusal| refusal.path).collect();
    let expected = [
        "gateway.auth.token",
        "gateway.auth.trustedProxy.userHeader",
        "gateway.auth.trustedProxy.requiredHeaders",
        "gateway.trustedProxies",
        "gateway.auth.password",
    ];
    assert_eq!(at, expected);
}

#[test]
fn a_token_that_a_gateway_made_for_itself_counts_beyond_loopback_once_somebody_says_so() {
    let (home, paths) = Paths::temporary();
    let fix = |flags: &Flags, config: &OpenClaw| {
        let machine = Machine::default();
        let problem = Settings::decide(flags, |_| None, config, paths.clone(), &machine);
        problem.unwrap_err().fix.unwrap()
    };
    let mut config = OpenClaw::default();
    // Nobody is sent to a file that is not there.
    let choose = "openclaw config set gateway.auth.token \"$(openssl rand -base64 32)\"";
    assert!(fix(&lan(), &config).starts_with(&format!("{choose}; or")));
    let own = paths.gateway_token();
    std::fs::create_dir_all(paths.own()).unwrap();
    std::fs::write(&own, "made by itself").unwrap();
    let command = format!("openclaw gateway run --bind lan --token-file {}; or", own.display());
    assert!(fix(&lan(), &config).starts_with(&command), "{}", fix(&lan(), &config));
    let served =
        Flags { tailscale: Some(TailscaleMode::Off), auth: Some(AuthMode::Token), ..lan() };
    let given = "run --bind lan --auth token --tailscale off --token-file ";
    assert!(fix(&served, &config).contains(given), "{}", fix(&served, &config));
    config.gateway.auth.mode = Some(AuthMode::None);
    let both = format!("{choose} && openclaw config set gateway.auth.mode token; or");
    assert!(fix(&lan(), &config).starts_with(&both), "{}", fix(&lan(), &config));
    let open = Flags { auth: Some(AuthMode::None), ..lan() };
    assert!(fix(&open, &config).contains("--auth none"), "{}", fix(&open, &config));
    drop(home);
    let flags = Flags { token: Some(Secret::new("what the file holds")), ..lan() };
    assert!(decide(&flags, &[], &OpenClaw::default()).is_ok());
}

#[test]
fn limits_are_those_of_the_file() {
    let config = read(
        "{gateway: {auth: {rateLimit: {maxAttempts: 3, windowMs: 1000, \
                       lockoutMs: 2000, exemptLoopback: false}}}}",
    );
    let limit = decide(&Flags::default(), &[], &config).unwrap().rate_limit;
    assert_eq!((limit.attempts, limit.exempt_loopback), (3, false));
    assert_eq!((limit.window.as_secs(), limit.lockout.as_secs()), (1, 2));
    assert_eq!(
        decide(&Flags::default(), &[], &read("{}")).unwrap().rate_limit,
        RateLimit::default()
    );
}

#[test]
fn newcomers_are_shut_out_where_neither_a_secret_nor_this_machine_lets_them_in() {
    let mut config = OpenClaw::default();
    let open = Flags { auth: Some(AuthMode::None), ..Flags::default() };
    let shuts = |flags: &Flags, config: &OpenClaw| {
        decide(flags, &[], config).unwrap().shuts_newcomers_out()
    };
    assert!(!shuts(&open, &config));
    config.gateway.nodes.pair_local = Some(false);
    assert!(shuts(&open, &config));
    assert!(!shuts(&Flags::default(), &config));
    config.gateway.auth.mode = Some(AuthMode::None);
    assert!(shuts(&Flags::default(), &config));
    let token = Flags { auth: Some(AuthMode::Token), ..Flags::default() };
    assert!(!shuts(&token, &config), "the flag goes before the file");
}
