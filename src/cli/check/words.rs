//! What a connection found out, in a few words for people and as scripts read it. Pure.

use std::time::Duration;

use crate::{
    cli::output::milliseconds,
    ssh::{Line, Negotiated, Standing, is_weak},
    tunnel::{Cause, Failure},
};

/// The algorithms in one line.
pub(super) fn algorithms(agreed: &Negotiated) -> String {
    let mac = agreed.mac.as_ref().map(|mac| format!(", mac {mac}")).unwrap_or_default();
    let strict = if agreed.strict { "strict" } else { "not strict" };
    let compressed = if agreed.compressed { ", compressed" } else { "" };
    format!("kex {} ({strict}), cipher {}{mac}{compressed}", agreed.kex, agreed.cipher)
}

/// The names among them that are only used where the configuration asks for them.
pub(super) fn weak(agreed: &Negotiated) -> Vec<String> {
    let names =
        [Some(&agreed.kex), Some(&agreed.host_key), Some(&agreed.cipher), agreed.mac.as_ref()];
    names.into_iter().flatten().filter(|name| is_weak(name)).cloned().collect()
}

/// The lines of known_hosts files behind it.
pub(super) fn lines_of(standing: &Standing) -> Vec<&Line> {
    match standing {
        Standing::OnFile(line) | Standing::Revoked(line) => vec![line],
        Standing::Certified { authority, .. } => vec![authority],
        Standing::Changed(lines) => lines.iter().collect(),
        Standing::Pinned | Standing::TakenAsNew | Standing::TakenByPerson | Standing::Unknown => {
            Vec::new()
        }
    }
}

/// The standing as scripts read it.
pub(super) fn standing_name(standing: &Standing) -> &'static str {
    match standing {
        Standing::OnFile(_) => "on_file",
        Standing::Certified { .. } => "certified",
        Standing::Pinned => "pinned",
        Standing::TakenAsNew => "taken_as_new",
        Standing::TakenByPerson => "taken_by_person",
        Standing::Unknown => "unknown",
        Standing::Changed(_) => "changed",
        Standing::Revoked(_) => "revoked",
    }
}

/// A failure in a few words; the whole of it stands below the steps.
pub(super) fn brief(failure: &Failure) -> String {
    match failure.cause {
        Cause::NameNotFound => "the name is not known",
        Cause::Refused => "the connection was refused",
        Cause::ConnectTimedOut => "no answer in time",
        Cause::NoRoute => "no route to the host",
        Cause::ClosedBeforeBanner { .. } => "closed before the server said anything",
        Cause::HandshakeTimedOut => "the server fell silent",
        Cause::LinkLost => "the connection broke",
        Cause::Doubted => "not asked since the machine was away",
        Cause::Protocol => "no common language",
        Cause::Authentication => "nothing that was offered let us in",
        Cause::NeedsPerson => "the right answer of a person is missing",
        Cause::Agent => "the agent does not help",
        Cause::HostKeyUnknown => "not on file",
        Cause::HostKeyChanged => "changed",
        Cause::HostKeyRevoked => "revoked",
        Cause::ForwardRefused => "the hop before does not allow it",
        Cause::PlaceTaken => "somebody listens there already",
        Cause::GatewayAbsent | Cause::GatewayStarting | Cause::NotAGateway => "no gateway answers",
        Cause::OtherCertificate => "another TLS certificate",
        Cause::NoPin => "it speaks TLS, and no certificate is pinned",
        Cause::Configuration => "a local file or option is wrong",
    }
    .to_owned()
}

/// A round trip for people, in a sentence.
pub(super) fn answers_in(trip: Duration) -> String {
    format!("answers in {}", milliseconds(trip))
}
