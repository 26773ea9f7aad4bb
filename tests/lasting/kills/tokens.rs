//! A device's token: given, replaced, taken back, and given again. What was replaced or taken back
//! never opens anything any more.

use std::io;

use serde_json::json;

use super::{
    Dice,
    door::{Door, ask, request_in, text, token_in},
};
use crate::support::Device;

/// The device.
const DEVICE: u8 = 2;
/// What it holds, to replace its own token.
const SCOPES: [&str; 2] = ["operator.read", "operator.pairing"];

/// What is known of the token.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
enum Token {
    /// There is one, and only the gateway knows which.
    #[default]
    Somewhere,
    Held(String),
    TakenBack,
}

/// What was asked for last and not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    Replace,
    TakeBack,
    GiveAgain,
}

/// The device's token, and those that it had.
#[derive(Default)]
pub(super) struct Tokens {
    token: Token,
    open: Option<Open>,
    dead: Vec<String>,
}

impl Tokens {
    pub(super) async fn hold(&mut self, door: &Door) {
        let latest: Vec<String> = self.dead.iter().rev().take(3).cloned().collect();
        for dead in &latest {
            assert!(!opens(door, dead).await, "a token that is worth nothing opens: {self:?}");
        }
        let secret = door.secret();
        let device = Device::new(DEVICE);
        let held = match &self.token {
            Token::Held(token) => Some((token.clone(), opens(door, token).await)),
            Token::Somewhere | Token::TakenBack => None,
        };
        let (_, answer) = door.operator(&device, &secret, &SCOPES).await.unwrap();
        let is_in = answer["ok"] == true;
        if !is_in {
            request_in(&answer);
        }
        let is_right = match (&held, self.open) {
            (Some((_, opens)), None) => *opens && is_in,
            (Some(_), Some(Open::Replace)) => is_in,
            // Either nothing was taken back, or everything.
            (Some((_, opens)), Some(Open::TakeBack)) => *opens == is_in,
            (None, None) => is_in == (self.token == Token::Somewhere),
            (None, Some(Open::GiveAgain)) => true,
            (Some(_), Some(Open::GiveAgain)) | (None, Some(_)) => panic!("{self:?}"),
        };
        assert!(is_right, "let in: {is_in}, by its token: {held:?}; {self:?}");
        let before = held.map(|(token, _)| token);
        self.open = None;
        self.take_up(before, is_in.then(|| token_in(&answer)));
        if let Token::Held(token) = &self.token {
            assert!(opens(door, token).await, "a token that was given opens nothing: {self:?}");
        }
    }

    /// Takes up which token there is now, in the place of the one before.
    fn take_up(&mut self, before: Option<String>, now: Option<String>) {
        if before != now {
            self.dead.extend(before);
        }
        if let Some(now) = &now {
            assert!(!self.dead.contains(now), "a token came back: {self:?}");
        }
        self.token = now.map_or(Token::TakenBack, Token::Held);
    }

    pub(super) async fn change(
        &mut self,
        door: &Door,
        dice: &mut Dice,
        _count: u64,
    ) -> io::Result<()> {
        let (device, secret) = (Device::new(DEVICE), door.secret());
        let whose = json!({ "deviceId": device.id(), "role": "operator" });
        match (self.token.clone(), dice.below(3)) {
            (Token::Somewhere, _) => {
                let (_, hello) = door.operator(&device, &secret, &SCOPES).await?;
                self.take_up(None, Some(token_in(&hello)));
            }
            (Token::TakenBack, _) => {
                let (_, refused) = door.operator(&device, &secret, &SCOPES).await?;
                let request = json!({ "requestId": request_in(&refused) });
                self.open = Some(Open::GiveAgain);
                ask(&mut door.admin().await?, "device.pair.approve", request).await?;
                (self.token, self.open) = (Token::Somewhere, None);
            }
            (Token::Held(token), 0) => {
                let own = json!({ "deviceToken": token });
                let (mut wire, hello) = door.operator(&device, &own, &SCOPES).await?;
                assert_eq!(hello["ok"], true, "{hello}");
                self.open = Some(Open::Replace);
                let rotated = ask(&mut wire, "device.token.rotate", whose).await?;
                self.open = None;
                self.take_up(Some(token), Some(text(&rotated["token"])));
            }
            (Token::Held(token), 1) => {
                let mut admin = door.admin().await?;
                self.open = Some(Open::Replace);
                ask(&mut admin, "device.token.rotate", whose).await?;
                self.dead.push(token);
                (self.token, self.open) = (Token::Somewhere, None);
            }
            (Token::Held(token), _) => {
                let mut admin = door.admin().await?;
                self.open = Some(Open::TakeBack);
                ask(&mut admin, "device.token.revoke", whose).await?;
                self.open = None;
                self.take_up(Some(token), None);
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { token, open, dead } = self;
        write!(f, "{token:?}, asked for {open:?}, {} before it", dead.len())
    }
}

/// Whether a token lets its device in.
async fn opens(door: &Door, token: &str) -> bool {
    let own = json!({ "deviceToken": token });
    let (_, answer) = door.operator(&Device::new(DEVICE), &own, &SCOPES).await.unwrap();
    let is_refused = answer["error"]["details"]["code"] == "AUTH_DEVICE_TOKEN_MISMATCH";
    assert!(is_refused || answer["ok"] == true, "{answer}");
    !is_refused
}
