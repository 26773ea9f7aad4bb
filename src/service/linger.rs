//! What the end of the last login does to a user's service, in words.

/// What logind says of a user.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Logout {
    /// Whether the user's service manager runs without a login; `None` if nobody knows.
    pub(crate) lingers: Option<bool>,
    /// `KillUserProcesses`: whether what a login started ends with it.
    pub(crate) kills: Option<bool>,
}

/// Which service manager a service has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manager {
    /// The user's.
    User,
    /// The machine's.
    System,
}

impl Logout {
    /// What a logout means for the service, and what to type; `user` is the person's name.
    pub(crate) fn told(self, manager: Manager, user: &str) -> Vec<String> {
        let enable =
            format!("  try: loginctl enable-linger {user} (as root where that is refused)");
        match (manager, self.lingers) {
            (Manager::System, _) => vec!["it runs whether or not anybody is logged in".to_owned()],
            (Manager::User, Some(true)) => {
                vec!["it starts at boot and outlives your logout: you linger".to_owned()]
            }
            (Manager::User, Some(false)) => vec![
                "it starts at your login and ends with your last logout; to have it from boot on:"
                    .to_owned(),
                enable,
            ],
            (Manager::User, None) => vec![
                "nobody could say whether it outlives your logout; to be sure:".to_owned(),
                enable,
            ],
        }
    }

    /// What a logout does to a supervisor in the background that no service runs, if that is its
    /// end.
    pub(crate) fn background(self) -> Option<&'static str> {
        (self.kills == Some(true)).then_some(
            "this machine ends what a login started when it is over (KillUserProcesses=yes)",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_a_logout_does_and_what_to_type() {
        let told = |lingers| Logout { lingers, kills: None }.told(Manager::User, "ann").join("\n");
        assert!(told(Some(true)).contains("outlives"));
        assert!(told(Some(false)).contains("ends with your last logout"));
        assert!(told(Some(false)).contains("try: loginctl enable-linger ann "));
        assert!(told(None).contains("try: loginctl enable-linger ann "));
        let system = Logout { lingers: Some(false), kills: None }.told(Manager::System, "ann");
        assert_eq!(system.len(), 1);
        assert!(Logout { lingers: None, kills: Some(true) }.background().is_some());
        assert!(Logout::default().background().is_none());
    }
}
