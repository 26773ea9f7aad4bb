//! The rules of `gateway.auth.mode: "trusted-proxy"`: all that is missing is named. Pure.

use super::{super::ingress::ProxyRules, Guard, Refusal, usable};
use crate::{
    config::{OpenClaw, SecretInput},
    problem::{Class, Problem},
};

/// What opens the gateway behind the proxy that `openclaw.json` describes. `has_token` is whether
/// somebody could come in by a token, past the proxy.
pub(super) fn rules(
    config: &OpenClaw,
    has_token: bool,
    password: Option<SecretInput>,
) -> Result<Guard, Vec<Refusal>> {
    let mut refusals = Vec::new();
    let mut refuse = |path, what: &str, fix: &str| {
        let message = format!("the auth mode is `trusted-proxy`, and {what}");
        let problem = Problem::new(Class::Config, message).fix(fix);
        refusals.push(Refusal { path, problem });
    };
    if has_token {
        refuse(
            "gateway.auth.token",
            "there is a token as well, by which one could come in past the proxy",
            "openclaw config unset gateway.auth.token, and unset OPENCLAW_GATEWAY_TOKEN",
        );
    }
    let gateway = &config.gateway;
    let rules = gateway.auth.trusted_proxy.clone().unwrap_or_default();
    let user_header = rules.user_header.as_deref().map(str::trim).unwrap_or_default();
    let name_it = "openclaw config set gateway.auth.trustedProxy.userHeader x-forwarded-user";
    if gateway.auth.trusted_proxy.is_none() {
        let what = "gateway.auth.trustedProxy says nothing of the proxy";
        refuse("gateway.auth.trustedProxy", what, name_it);
    } else if user_header.is_empty() {
        let what = "gateway.auth.trustedProxy.userHeader names no header";
        refuse("gateway.auth.trustedProxy.userHeader", what, name_it);
    }
    let is_name = |name: &str| hyper::header::HeaderName::from_bytes(name.as_bytes()).is_ok();
    if !user_header.is_empty() && !is_name(user_header) {
        let what = format!("{user_header:?} is no name of a header");
        refuse("gateway.auth.trustedProxy.userHeader", &what, name_it);
    }
    for odd in rules.required_headers.iter().filter(|name| !is_name(name)) {
        refuse(
            "gateway.auth.trustedProxy.requiredHeaders",
            &format!("{odd:?} is no name of a header"),
            "openclaw config set gateway.auth.trustedProxy.requiredHeaders '[\"x-forwarded-proto\"]'",
        );
    }
    if gateway.trusted_proxies.is_empty() {
        refuse(
            "gateway.trustedProxies",
            "gateway.trustedProxies names no proxy",
            "openclaw config set gateway.trustedProxies '[\"10.0.0.1\"]'",
        );
    } else if gateway.trusted_proxies.iter().all(|network| network.addr().is_loopback())
        && !rules.allow_loopback
    {
        refuse(
            "gateway.trustedProxies",
            "gateway.trustedProxies names this machine alone, which is refused without consent",
            "openclaw config set gateway.auth.trustedProxy.allowLoopback true, if the proxy is the \
             only way in",
        );
    }
    let password = match password.map(|password| usable(&password, "password")).transpose() {
        Ok(password) => password,
        Err(problem) => {
            refusals.push(Refusal { path: "gateway.auth.password", problem });
            None
        }
    };
    if !refusals.is_empty() {
        return Err(refusals);
    }
    Ok(Guard::Proxy(Box::new(ProxyRules {
        user_header: user_header.to_ascii_lowercase(),
        required_headers: rules.required_headers.clone(),
        allow_users: rules.allow_users.clone(),
        allow_loopback: rules.allow_loopback,
        password,
    })))
}
