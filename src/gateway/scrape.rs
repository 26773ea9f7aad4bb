//! Who may read the metrics: whoever has a token that opens them and nothing else.
//!
//! Being on loopback buys nothing, since a tunnel and a proxy look like loopback; the gateway's own
//! secret is not taken either, so that nobody can guess at it here and no scraper has to hold it.

use std::sync::{PoisonError, RwLock};

use hyper::{HeaderMap, header};

use crate::{logfile, secret::Secret};

/// What the text is, as its specification names it.
pub(super) const KIND: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The token of `rs/metrics-token`, and the log whose losses are counted.
pub(super) struct Scrapes {
    token: RwLock<Secret>,
    log: logfile::Handle,
}

impl Scrapes {
    /// Opens for `token`, which is random and long.
    pub(super) fn new(token: Secret, log: logfile::Handle) -> Self {
        Self { token: RwLock::new(token), log }
    }

    /// Opens for `token` and for no other from now on; whether it is another one.
    pub(super) fn open_for(&self, token: Secret) -> bool {
        let mut current = self.token.write().unwrap_or_else(PoisonError::into_inner);
        if current.matches(token.expose()) {
            return false;
        }
        self.log.conceal(&token);
        *current = token;
        true
    }

    /// Whether it is this token that opens now.
    pub(super) fn opens_for(&self, token: &Secret) -> bool {
        self.token.read().unwrap_or_else(PoisonError::into_inner).matches(token.expose())
    }

    /// How many lines the log has lost.
    pub(super) fn lost_lines(&self) -> u64 {
        self.log.lost()
    }

    /// Whether a request with these headers may read.
    pub(super) fn may_read(&self, headers: &HeaderMap) -> bool {
        let current = self.token.read().unwrap_or_else(PoisonError::into_inner);
        bearer(headers).is_some_and(|token| current.matches(token))
    }
}

/// The token of `Authorization: Bearer TOKEN`, if there is one such header and no other.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_opens_the_metrics() {
        let scrapes = Scrapes::new(Secret::new("right"), logfile::Handle::default());
        let asked = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, value.parse().unwrap());
            }
            scrapes.may_read(&headers)
        };
        assert!(asked(&["Bearer right"]) && asked(&["bearer  right"]));
        for wrong in ["Bearer wrong", "Bearer ", "Bearer", "right", "Basic right", ""] {
            assert!(!asked(&[wrong]), "{wrong}");
        }
        assert!(!asked(&[]) && !asked(&["Bearer right", "Bearer right"]));
        assert!(!scrapes.open_for(Secret::new("right")) && scrapes.open_for(Secret::new("new")));
        assert!(asked(&["Bearer new"]) && !asked(&["Bearer right"]));
    }
}
