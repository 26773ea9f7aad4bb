//! The migrations: step N brings a database of version N - 1 to version N.
//!
//! A step that has been released never changes, comments included; what comes later is another step.

/// Every step, in order; its place is the version (`PRAGMA user_version`) that it makes.
pub(super) const STEPS: &[&str] = &[
    include_str!("steps/1-devices.sql"),
    include_str!("steps/2-nodes.sql"),
    include_str!("steps/3-answers.sql"),
    include_str!("steps/4-waiting.sql"),
    include_str!("steps/5-host-rules.sql"),
    include_str!("steps/6-join-offers.sql"),
    include_str!("steps/7-setup-delivery.sql"),
    include_str!("steps/8-former-tokens.sql"),
    include_str!("steps/9-approvals.sql"),
];
