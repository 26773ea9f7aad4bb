//! Fills in `%` tokens and `${NAME}`, and keeps hostile names away from shells. Pure.

use std::fmt::Write as _;

use ring::digest;

/// What tokens stand for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// `%h`: the host that is dialled.
    pub(super) host: String,
    /// `%n`: the host as typed.
    pub(super) asked: String,
    /// `%p`.
    pub(super) port: String,
    /// `%r`: the account over there.
    pub(super) user: String,
    /// `%k`: the name of the host key.
    pub(super) alias: String,
    /// `%j`: the last jump host, or nothing.
    pub(super) jump: String,
    /// `%l`: this machine.
    pub(super) local_host: String,
    /// `%u`: our account.
    pub(super) local_user: String,
    /// `%d`: our home.
    pub(super) home: String,
    /// `%i`: our number.
    pub(super) uid: String,
}

/// The tokens that most keywords take.
pub(super) const USUAL: &str = "CLdhijklnpru";
/// Those of `ProxyCommand` and `ProxyJump`.
pub(super) const PROXY: &str = "hknpr";
/// Those of `User`, which is part of `%r` and `%C`.
pub(super) const USER: &str = "Ldhijklnpu";

/// Whether what is filled in reaches a shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    /// It is a path or a name.
    Us,
    /// It is a command.
    Shell,
}

impl Facts {
    /// What a token stands for.
    fn of(&self, token: char) -> Option<String> {
        Some(match token {
            'C' => self.hash(),
            'L' => self.local_host.split('.').next().unwrap_or_default().to_owned(),
            'd' => self.home.clone(),
            'h' => self.host.clone(),
            'i' => self.uid.clone(),
            'j' => self.jump.clone(),
            'k' => self.alias.clone(),
            'l' => self.local_host.clone(),
            'n' => self.asked.clone(),
            'p' => self.port.clone(),
            'r' => self.user.clone(),
            'u' => self.local_user.clone(),
            _ => return None,
        })
    }

    /// `%C`: one name for a connection, as OpenSSH makes it.
    fn hash(&self) -> String {
        let text = [&self.local_host, &self.host, &self.port, &self.user, &self.jump]
            .map(String::as_str)
            .concat();
        let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
        digest.as_ref().iter().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").expect("a string takes everything");
            hex
        })
    }

    /// `text` with its tokens filled in; only those in `allowed` may stand there.
    pub(super) fn fill(&self, text: &str, allowed: &str, reader: Reader) -> Result<String, String> {
        self.fill_all(text, allowed, reader, None)
    }

    /// The same with each `${NAME}` filled in from `variable`.
    pub(super) fn fill_all(
        &self,
        text: &str,
        allowed: &str,
        reader: Reader,
        variable: Option<Variable<'_>>,
    ) -> Result<String, String> {
        let mut filled = String::new();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            rest = rest.get(c.len_utf8()..).unwrap_or_default();
            match (c, variable) {
                ('%', _) => {
                    let token = rest
                        .chars()
                        .next()
                        .ok_or("a `%` at the end means nothing; `%%` is a percent sign")?;
                    rest = rest.get(token.len_utf8()..).unwrap_or_default();
                    filled.push_str(&self.token(token, allowed, reader)?);
                }
                ('$', Some(variable)) if rest.starts_with('{') => {
                    let (value, after) = braced(rest, variable)?;
                    filled.push_str(&value);
                    rest = after;
                }
                _ => filled.push(c),
            }
        }
        Ok(filled)
    }

    fn token(&self, token: char, allowed: &str, reader: Reader) -> Result<String, String> {
        if token == '%' {
            return Ok("%".to_owned());
        }
        let value = if allowed.contains(token) { self.of(token) } else { None };
        let value = value
            .ok_or_else(|| format!("`%{}` is no token of this keyword", token.escape_debug()))?;
        if reader == Reader::Shell && is_foreign(token) && !is_harmless(&value) {
            return Err(format!(
                "`%{token}` stands for `{}`, which holds characters that a shell would take for \
                 more than a name",
                value.escape_debug()
            ));
        }
        Ok(value)
    }
}

/// Where variables come from.
pub(super) type Variable<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The value of the `{NAME}` in front of `text`, and what follows.
fn braced<'t>(text: &'t str, variable: Variable<'_>) -> Result<(String, &'t str), String> {
    let inside = text.strip_prefix('{').unwrap_or(text);
    let (name, after) = inside.split_once('}').ok_or("a `${` is never closed")?;
    if name.is_empty() {
        return Err("`${}` names no variable".to_owned());
    }
    let value = variable(name)
        .ok_or_else(|| format!("the environment variable `{}` is not set", name.escape_debug()))?;
    Ok((value, after))
}

/// `text` with a letter in place of each token of [`PROXY`]; `None` where another token stands.
pub(super) fn in_place(text: &str) -> Option<String> {
    let letter = || "x".to_owned();
    let facts = Facts {
        host: letter(),
        asked: letter(),
        port: letter(),
        user: letter(),
        alias: letter(),
        ..Facts::default()
    };
    facts.fill(text, PROXY, Reader::Us).ok()
}

/// Whether a token stands for something that others may have chosen.
fn is_foreign(token: char) -> bool {
    matches!(token, 'h' | 'j' | 'k' | 'n' | 'r')
}

/// Whether no shell could take `text` for anything but a word.
fn is_harmless(text: &str) -> bool {
    !text.starts_with('-') && text.chars().all(|c| c.is_alphanumeric() || "._-+@:%".contains(c))
}

/// `text` with each `${NAME}` filled in from `variable`.
pub(super) fn variables(text: &str, variable: Variable<'_>) -> Result<String, String> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, after) = rest.split_at(at);
        filled.push_str(before);
        let (value, after) = braced(after.strip_prefix('$').unwrap_or(after), variable)?;
        filled.push_str(&value);
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

/// `path` with `~` or `~user` in front filled in.
pub(super) fn tilde(
    path: &str,
    home: impl Fn(Option<&str>) -> Option<String>,
) -> Result<String, String> {
    let Some(rest) = path.strip_prefix('~') else { return Ok(path.to_owned()) };
    let (user, rest) = rest.split_once('/').unwrap_or((rest, ""));
    let named = (!user.is_empty()).then_some(user);
    let home = home(named).ok_or_else(|| match named {
        Some(user) => format!("there is no user `{}`", user.escape_debug()),
        None => "your account has no home".to_owned(),
    })?;
    let slash = if home.ends_with('/') { "" } else { "/" };
    Ok(format!("{home}{slash}{}", rest.trim_start_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            host: "box.example".into(),
            asked: "box".into(),
            port: "2222".into(),
            user: "me".into(),
            alias: "alias".into(),
            jump: "bastion".into(),
            local_host: "laptop.home".into(),
            local_user: "anna".into(),
            home: "/home/anna".into(),
            uid: "1000".into(),
        }
    }

    #[test]
    fn fills_in_every_token_that_the_keyword_takes() {
        let fill = |text| facts().fill(text, USUAL, Reader::Us);
        assert_eq!(
            fill("%% %L %d %h %i %j %k %l %n %p %r %u").as_deref(),
            Ok("% laptop /home/anna box.example 1000 bastion alias laptop.home box 2222 me anna")
        );
        assert_eq!(fill("%C").map(|hash| hash.len()), Ok(40));
        assert!(fill("%").is_err());
        assert!(fill("%x").is_err());
        assert!(facts().fill("%d", PROXY, Reader::Shell).is_err());
    }

    #[test]
    fn hostile_names_never_reach_a_shell() {
        for name in ["$(id)", "`id`", "a;b", "-x", "a b", "a'b", "a\nb", "a\\b", "a|b", "${IFS}"] {
            for token in ["%h", "%j", "%k", "%n", "%r"] {
                let name = name.to_owned();
                let facts = Facts {
                    host: name.clone(),
                    asked: name.clone(),
                    user: name.clone(),
                    alias: name.clone(),
                    jump: name.clone(),
                    ..facts()
                };
                assert!(facts.fill(token, USUAL, Reader::Shell).is_err(), "{token} {name}");
                assert_eq!(facts.fill(token, USUAL, Reader::Us), Ok(name));
            }
        }
    }

    #[test]
    fn fills_in_variables_and_homes() {
        let variable = |name: &str| (name == "A").then(|| "x".to_owned());
        assert_eq!(variables("/${A}/$A${A}", &variable).as_deref(), Ok("/x/$Ax"));
        for text in ["${B}", "${", "${}", "${A"] {
            assert!(variables(text, &variable).is_err(), "{text}");
        }
        let home = |user: Option<&str>| match user {
            None => Some("/home/me".to_owned()),
            Some("root") => Some("/".to_owned()),
            Some(_) => None,
        };
        for (path, expected) in [
            ("~", "/home/me/"),
            ("~/", "/home/me/"),
            ("~//a/b", "/home/me/a/b"),
            ("~root/a", "/a"),
            ("/a~", "/a~"),
            ("a", "a"),
        ] {
            assert_eq!(tilde(path, home).as_deref(), Ok(expected), "{path}");
        }
        assert!(tilde("~nobody-here/a", home).is_err());
    }
}
