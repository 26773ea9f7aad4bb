//! Whether a gateway answers on a stream, asked without a login.

use std::{io, time::Duration};

use futures_util::StreamExt;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::{
    client_async_with_config,
    tungstenite::{Error, Message, error::ProtocolError, protocol::WebSocketConfig},
};

use crate::protocol::{Challenge, Frame};

/// What anybody may send before a login, bytes.
const LIMIT: usize = 64 * 1024;

/// A gateway accepts any loopback name with any port, so the proof need not know the port.
const HOST: &str = "127.0.0.1";

/// Why no gateway answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotAnswered {
    /// The other side closed the stream first.
    #[error("the connection was closed without an answer")]
    Closed,
    /// Nothing came in time.
    #[error("nothing was answered in time")]
    Silent,
    /// HTTP 503: a gateway that starts or has no room.
    #[error("it is still starting or has no room")]
    Starting,
    /// Something answered that no gateway says; the text tells what, for people.
    #[error("what answers is not a gateway: {0}")]
    NotAGateway(String),
    /// The stream broke.
    #[error("{0}")]
    Io(io::Error),
}

impl NotAnswered {
    /// A server of another kind; a parser's words say nothing to a person.
    fn not_http() -> Self {
        Self::NotAGateway("it does not speak HTTP".to_owned())
    }
}

impl From<Error> for NotAnswered {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the rest says how it is no WebSocket")]
    fn from(error: Error) -> Self {
        match error {
            Error::ConnectionClosed
            | Error::AlreadyClosed
            | Error::Protocol(
                ProtocolError::HandshakeIncomplete | ProtocolError::ResetWithoutClosingHandshake,
            ) => Self::Closed,
            Error::Io(error) => Self::from(error),
            Error::Http(response) if response.status() == StatusCode::SERVICE_UNAVAILABLE => {
                Self::Starting
            }
            Error::Http(response) => Self::NotAGateway(format!("HTTP {}", response.status())),
            Error::Protocol(ProtocolError::HttparseError(_)) => Self::not_http(),
            other => Self::NotAGateway(other.to_string()),
        }
    }
}

impl From<io::Error> for NotAnswered {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, TimedOut, UnexpectedEof};
        let kind = error.kind();
        if matches!(kind, UnexpectedEof | ConnectionReset | BrokenPipe) {
            Self::Closed
        } else if kind == TimedOut {
            Self::Silent
        } else {
            Self::Io(error)
        }
    }
}

impl From<hyper::Error> for NotAnswered {
    fn from(error: hyper::Error) -> Self {
        let source = std::error::Error::source(&error).and_then(|s| s.downcast_ref::<io::Error>());
        match source {
            Some(source) => Self::from(io::Error::new(source.kind(), source.to_string())),
            None if error.is_incomplete_message() || error.is_canceled() => Self::Closed,
            None if error.is_parse() => Self::not_http(),
            None => Self::NotAGateway(error.to_string()),
        }
    }
}

/// Reads the gateway's first word, `connect.challenge`, and hangs up; at most `patience` in all.
///
/// An OpenClaw gateway logs a warning each time.
pub(crate) async fn challenge<S>(stream: S, patience: Duration) -> Result<(), NotAnswered>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    tokio::time::timeout(patience, read_challenge(stream)).await.unwrap_or(Err(NotAnswered::Silent))
}

async fn read_challenge<S>(stream: S) -> Result<(), NotAnswered>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let limits =
        WebSocketConfig::default().max_message_size(Some(LIMIT)).max_frame_size(Some(LIMIT));
    let url = format!("ws://{HOST}/");
    let (mut socket, _) = client_async_with_config(url, stream, Some(limits)).await?;
    first_word(&mut socket).await?;
    match socket.close(None).await {
        // The proof is complete; how the far side takes the goodbye does not matter.
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The challenge that opens every conversation.
pub(super) async fn first_word<T>(socket: &mut T) -> Result<Challenge, NotAnswered>
where
    T: StreamExt<Item = Result<Message, Error>> + Unpin,
{
    loop {
        let text = match socket.next().await {
            None => return Err(NotAnswered::Closed),
            Some(Err(error)) => return Err(error.into()),
            Some(Ok(Message::Text(text))) => text,
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
            Some(Ok(Message::Close(_))) => return Err(NotAnswered::Closed),
            Some(Ok(Message::Binary(_))) => {
                return Err(NotAnswered::NotAGateway("its first word is binary".to_owned()));
            }
        };
        return match serde_json::from_str(&text) {
            Ok(Frame::Event(event)) if event.event == "connect.challenge" => {
                serde_json::from_value(event.payload.unwrap_or_default()).map_err(|error| {
                    NotAnswered::NotAGateway(format!("its challenge is malformed: {error}"))
                })
            }
            Ok(_) | Err(_) => {
                Err(NotAnswered::NotAGateway("its first word is no challenge".to_owned()))
            }
        };
    }
}

/// Asks `GET /healthz`; at most `patience` in all. Writes no line in any gateway's log.
pub(crate) async fn healthz<S>(stream: S, patience: Duration) -> Result<(), NotAnswered>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    tokio::time::timeout(patience, ask_healthz(stream)).await.unwrap_or(Err(NotAnswered::Silent))
}

async fn ask_healthz<S>(stream: S) -> Result<(), NotAnswered>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get("/healthz")
        .header(header::HOST, HOST)
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| NotAnswered::NotAGateway(error.to_string()))?;
    let mut connection = std::pin::pin!(connection);
    let answer = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LIMIT).collect().await;
        Ok::<_, hyper::Error>((status, body.map(|body| body.to_bytes())))
    };
    let mut answer = std::pin::pin!(answer);
    let mut open = true;
    let (status, body) = loop {
        tokio::select! {
            biased;
            outcome = &mut answer => break outcome?,
            // The answer is told by its own future, the end of the connection included.
            _ = &mut connection, if open => open = false,
        }
    };
    if status == StatusCode::SERVICE_UNAVAILABLE {
        return Err(NotAnswered::Starting);
    }
    let live = body.ok().and_then(|body| serde_json::from_slice::<serde_json::Value>(&body).ok());
    match live.as_ref().and_then(|body| body.get("ok")).and_then(serde_json::Value::as_bool) {
        Some(true) if status.is_success() => Ok(()),
        Some(_) | None => {
            Err(NotAnswered::NotAGateway(format!("HTTP {status} without a gateway's health")))
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::SinkExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio_tungstenite::accept_async;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    /// A far side that reads once and answers `text`, then closes.
    async fn answers(mut far: DuplexStream, text: &'static str) {
        let mut buffer = [0; 4096];
        let read = far.read(&mut buffer).await.unwrap();
        assert!(read > 0);
        far.write_all(text.as_bytes()).await.unwrap();
    }

    async fn health_of(text: &'static str) -> Result<(), NotAnswered> {
        let (near, far) = duplex(65536);
        let (outcome, ()) = tokio::join!(healthz(near, PATIENCE), answers(far, text));
        outcome
    }

    async fn greeted_with(message: Message) -> Result<(), NotAnswered> {
        let (near, far) = duplex(65536);
        let gateway = async {
            let mut socket = accept_async(far).await.unwrap();
            socket.send(message).await.unwrap();
            while let Some(Ok(_)) = socket.next().await {}
        };
        let (outcome, ()) = tokio::join!(challenge(near, PATIENCE), gateway);
        outcome
    }

    #[tokio::test(start_paused = true)]
    async fn takes_a_challenge_for_a_gateway() {
        let challenge =
            r#"{"type":"event","event":"connect.challenge","payload":{"nonce":"n","ts":1}}"#;
        greeted_with(Message::text(challenge)).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn takes_another_first_word_for_something_else() {
        for message in [
            Message::text("hello"),
            Message::text(r#"{"type":"event","event":"tick"}"#),
            Message::text(r#"{"type":"event","event":"connect.challenge","payload":{}}"#),
            Message::binary(vec![1, 2, 3]),
        ] {
            let error = greeted_with(message).await.unwrap_err();
            assert!(matches!(error, NotAnswered::NotAGateway(_)), "{error}");
        }
        let error = greeted_with(Message::Close(None)).await.unwrap_err();
        assert!(matches!(error, NotAnswered::Closed), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn takes_other_servers_for_what_they_are() {
        let (near, far) = duplex(65536);
        let (outcome, ()) =
            tokio::join!(challenge(near, PATIENCE), answers(far, "SSH-2.0-OpenSSH_9.2\r\n\r\n"));
        let said = outcome.unwrap_err().to_string();
        assert_eq!(said, "what answers is not a gateway: it does not speak HTTP");

        let (near, far) = duplex(65536);
        let refusal = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
        let (outcome, ()) = tokio::join!(challenge(near, PATIENCE), answers(far, refusal));
        assert!(matches!(outcome, Err(NotAnswered::NotAGateway(_))), "{outcome:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn does_not_wait_for_a_silent_far_side() {
        for silent in [true, false] {
            let (near, far) = duplex(65536);
            if !silent {
                drop(far);
                let error = challenge(near, PATIENCE).await.unwrap_err();
                assert!(matches!(error, NotAnswered::Closed), "{error:?}");
                continue;
            }
            let error = challenge(near, PATIENCE).await.unwrap_err();
            assert!(matches!(error, NotAnswered::Silent), "{error:?}");
            drop(far);
        }
        let (near, _far) = duplex(65536);
        let error = healthz(near, PATIENCE).await.unwrap_err();
        assert!(matches!(error, NotAnswered::Silent), "{error:?}");
        let (near, far) = duplex(65536);
        drop(far);
        let error = healthz(near, PATIENCE).await.unwrap_err();
        assert!(matches!(error, NotAnswered::Closed), "{error:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn believes_only_a_gateways_health() {
        let live = "HTTP/1.1 200 OK\r\ncontent-length: 27\r\n\r\n{\"ok\":true,\"status\":\"live\"}";
        health_of(live).await.unwrap();
        let unclosed = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{\"ok\":true}";
        health_of(unclosed).await.unwrap();
        for other in [
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
            "HTTP/1.1 404 Not Found\r\ncontent-length: 11\r\n\r\n{\"ok\":true}",
            "SSH-2.0-OpenSSH_9.2\r\n\r\n",
        ] {
            let error = health_of(other).await.unwrap_err();
            assert!(matches!(error, NotAnswered::NotAGateway(_)), "{error:?}");
        }
        let busy = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
        let error = health_of(busy).await.unwrap_err();
        assert!(matches!(error, NotAnswered::Starting), "{error:?}");
    }
}
