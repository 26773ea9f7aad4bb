//! What a client sends, as a request or as what is wrong with it.

use serde_json::json;
use tokio_tungstenite::tungstenite::{Error, error::ProtocolError};

use super::super::{admission::Refusal, outbox::Ending, tally::Malformed};
use crate::protocol::{Asked, Connect, ErrorShape, Flawed, Frame, Request, Response, close};

/// The first text of a client as a request, if it is one.
pub(in crate::gateway) fn first_request(text: &str) -> Option<Request> {
    match serde_json::from_str(text) {
        Ok(Frame::Request(request)) => {
            Some(request).filter(|it| !it.id.is_empty() && !it.method.is_empty())
        }
        Ok(Frame::Response(_) | Frame::Event(_)) | Err(_) => None,
    }
}

/// Any later text as a request, or the answer to what is none.
pub(in crate::gateway) fn asked(text: &str) -> Result<Asked<'_>, Response> {
    match Asked::read(text) {
        Some(asked) if !asked.id.is_empty() && !asked.method.is_empty() => Ok(asked),
        Some(_) | None => {
            let Flawed { id, why } = Flawed::read(text);
            let error = ErrorShape::invalid(format!("invalid request frame: {why}"));
            Err(Response::failure(id, error))
        }
    }
}

/// What a first request says of its client.
pub(in crate::gateway) fn parse_connect(request: &Request) -> Result<Connect, Refusal> {
    if request.method != "connect" {
        let error = ErrorShape::invalid("invalid handshake: first request must be connect");
        return Err(Refusal::new(error));
    }
    let params = request.params.clone().unwrap_or_else(|| json!({}));
    serde_path_to_error::deserialize(params).map_err(|error| {
        Refusal::new(ErrorShape::invalid(format!("invalid connect params: {error}")))
    })
}

/// What bytes that made no sense were, and how the connection ends; neither of a connection that
/// only stopped.
pub(super) fn flaw(error: &Error) -> Option<(Malformed, Ending)> {
    if matches!(error, Error::Capacity(_)) {
        let ending = Ending::close(close::TOO_LARGE, "message too large");
        return Some((Malformed::TooLarge, ending));
    }
    if matches!(error, Error::Utf8(_)) {
        return Some((Malformed::Utf8, Ending::close(close::NOT_TEXT, "text is not UTF-8")));
    }
    if matches!(error, Error::Protocol(error) if *error != ProtocolError::ResetWithoutClosingHandshake)
    {
        return Some((Malformed::Protocol, Ending::close(close::PROTOCOL, "protocol error")));
    }
    if let Error::Io(error) = error
        && error.kind() == std::io::ErrorKind::QuotaExceeded
    {
        let ending = Ending::close(close::TOO_LARGE, "too many bytes before authentication");
        return Some((Malformed::TooMuch, ending));
    }
    None
}
