//! Keeps values by the rules of their keywords: the first counts, or all do, or something between.

use super::{
    keywords::{Count, Keyword, Kind},
    pattern,
    reader::{Place, Reader},
    settings::Said,
};

/// How many values a cumulative keyword may have.
const MOST_VALUES: usize = 100;

impl Reader<'_> {
    /// Keeps a value by the rules of its keyword.
    pub(super) fn take(
        &mut self,
        keyword: &Keyword,
        words: Vec<String>,
        place: &Place<'_>,
    ) -> Result<(), String> {
        let said = Said { words, origin: place.origin.clone(), users_own: place.reading.users_own };
        match (keyword.count, keyword.name) {
            (Count::Every, "SendEnv") => self.send(&said),
            (Count::Every, _) => return self.add(keyword, said),
            (Count::First, "ProxyJump") => self.jump(said),
            (Count::First, "RekeyLimit") => self.rekey(said),
            (Count::First, "ForwardAgent") => self.forward_agent(said),
            (Count::First, name) => {
                if name == "ProxyCommand" && !self.values.contains_key(name) {
                    self.suspect_proxy = !place.trusted;
                }
                self.values.entry(name).or_insert_with(|| vec![said]);
            }
        }
        Ok(())
    }

    fn add(&mut self, keyword: &Keyword, said: Said) -> Result<(), String> {
        let is_forward = matches!(keyword.kind, Kind::Forward(_));
        let values = self.values.entry(keyword.name).or_default();
        let is_same = |other: &Said| {
            other.words == said.words && (is_forward || other.users_own == said.users_own)
        };
        if values.iter().any(is_same) {
            return Ok(());
        }
        if values.len() >= MOST_VALUES && !is_forward {
            return Err(format!("stands there more than {MOST_VALUES} times"));
        }
        values.push(said);
        Ok(())
    }

    /// `SendEnv` takes back what a word with `-` in front matches.
    fn send(&mut self, said: &Said) {
        let values = self.values.entry("SendEnv").or_default();
        for word in &said.words {
            match word.strip_prefix('-') {
                Some(gone) => values
                    .retain(|value| !value.words.iter().any(|name| pattern::matches(name, gone))),
                None => values.push(Said { words: vec![word.clone()], ..said.clone() }),
            }
        }
    }

    /// Whichever of `ProxyJump` and `ProxyCommand` comes first counts, but `ProxyJump none` leaves
    /// room for a command.
    fn jump(&mut self, said: Said) {
        if self.values.contains_key("ProxyJump") {
            return;
        }
        if said.words.first().is_some_and(|word| word == "none") {
            self.values.insert("ProxyJump", vec![said]);
        } else if !self.values.contains_key("ProxyCommand") {
            let none = Said { words: vec!["none".to_owned()], ..said.clone() };
            self.values.insert("ProxyCommand", vec![none]);
            self.values.insert("ProxyJump", vec![said]);
        }
    }

    /// The bytes and the time of `RekeyLimit` are set apart from each other.
    fn rekey(&mut self, said: Said) {
        let values = self.values.entry("RekeyLimit").or_default();
        match values.first_mut() {
            None => values.push(said),
            Some(first) => {
                if first.words.len() == 1 {
                    first.words.extend(said.words.into_iter().skip(1));
                }
            }
        }
    }

    /// Whether an agent is forwarded, and which, are set apart from each other.
    fn forward_agent(&mut self, said: Said) {
        let is_flag = |said: &Said| said.words.iter().all(|word| word == "yes" || word == "no");
        let values = self.values.entry("ForwardAgent").or_default();
        if values.first().is_none_or(|first| is_flag(first) && !is_flag(&said)) {
            *values = vec![said];
        }
    }
}
