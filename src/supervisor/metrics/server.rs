//! Hands the metrics out: `GET /metrics`, and nothing else.

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use http_body_util::Full;
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{self, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};
use tracing::{debug, info, warn};

use crate::problem::{Class, Problem};

/// Scrapers that may be connected at once.
const SCRAPERS_MOST: usize = 8;
/// How long a scrape may take, the wait for its request included.
const SCRAPE_LIMIT: Duration = Duration::from_secs(10);
/// The largest request head.
const HEAD_MOST: usize = 16 * 1024;
/// Between two tries when connections cannot be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// What the text is, as its specification names it.
const KIND: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Makes the text.
type Text = dyn Fn() -> Option<String> + Send + Sync;

/// The server; dropping it ends it and frees its port.
#[derive(Debug)]
pub(in crate::supervisor) struct Exporter {
    /// Where it listens.
    pub(in crate::supervisor) address: SocketAddr,
    task: JoinSet<()>,
}

impl Exporter {
    /// Listens at `address` and answers with what `text` makes.
    pub(in crate::supervisor) async fn start(
        address: SocketAddr,
        text: Arc<Text>,
    ) -> Result<Self, Problem> {
        check_address(address)?;
        let listener = TcpListener::bind(address).await.map_err(|error| {
            let is_taken = error.kind() == std::io::ErrorKind::AddrInUse;
            let class = if is_taken { Class::PortInUse } else { Class::Config };
            Problem::new(class, format!("the metrics cannot listen on {address}: {error}"))
                .fix("choose another address with --metrics ADDRESS:PORT, or --metrics off")
        })?;
        let address = listener.local_addr().unwrap_or(address);
        if address.ip().is_loopback() {
            info!(port = address.port(), "metrics are answered");
        } else {
            warn!(port = address.port(), "metrics are answered to other machines as well");
        }
        let mut task = JoinSet::new();
        task.spawn(accept(listener, text));
        Ok(Self { address, task })
    }

    /// Ends it; the port is free when this returns.
    pub(in crate::supervisor) async fn close(mut self) {
        self.task.shutdown().await;
    }
}

/// Refuses an address that names no port.
fn check_address(address: SocketAddr) -> Result<(), Problem> {
    if address.port() == 0 {
        return Err(Problem::new(Class::Usage, "the metrics need a port of their own")
            .fix("--metrics 127.0.0.1:9464"));
    }
    Ok(())
}

async fn accept(listener: TcpListener, text: Arc<Text>) {
    let places = Arc::new(Semaphore::new(SCRAPERS_MOST));
    let mut scrapes = JoinSet::new();
    loop {
        // Nobody closes the semaphore; whoever comes when it is empty waits in the kernel's queue.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                while scrapes.try_join_next().is_some() {}
                let text = Arc::clone(&text);
                scrapes.spawn(async move {
                    serve(stream, &text).await;
                    drop(place);
                });
            }
            Err(error) => {
                warn!(%error, "accepting a scrape failed");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, text: &Arc<Text>) {
    let local = stream.local_addr().ok().map(|address| address.ip());
    let service = service_fn(|request: Request<Incoming>| {
        let reply = answer(&request, local, text);
        std::future::ready(Ok::<_, Infallible>(reply))
    });
    let mut http = http1::Builder::new();
    // A scraper that comes once a minute need not stay in between.
    http.header_read_timeout(None).max_buf_size(HEAD_MOST).keep_alive(false);
    let served = http.serve_connection(TokioIo::new(stream), service);
    match timeout(SCRAPE_LIMIT, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "a scrape ended early"),
        Err(_) => debug!("a scrape took too long"),
    }
}

fn answer(
    request: &Request<Incoming>,
    local: Option<IpAddr>,
    text: &Arc<Text>,
) -> Response<Full<Bytes>> {
    if !is_ours(request.headers(), local) {
        let why = "ask by an address, `localhost` or this machine's name\n";
        return reply(StatusCode::FORBIDDEN, "text/plain; charset=utf-8", why.to_owned());
    }
    let plain = |status: StatusCode| {
        let word = status.canonical_reason().unwrap_or_default();
        reply(status, "text/plain; charset=utf-8", format!("{word}\n"))
    };
    match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => match text() {
            Some(text) => reply(StatusCode::OK, KIND, text),
            None => plain(StatusCode::INTERNAL_SERVER_ERROR),
        },
        (_, "/metrics") => {
            let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED);
            refused.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            refused
        }
        _ => plain(StatusCode::NOT_FOUND),
    }
}

/// Whether the one `Host` header names this machine, and no web page asks: a page can reach our
/// port, and bend a name of its own to our address.
fn is_ours(headers: &HeaderMap, local: Option<IpAddr>) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let Some(name) = host.to_str().ok().and_then(host_of) else { return false };
    if headers.contains_key(header::ORIGIN) {
        return false;
    }
    match name.parse::<IpAddr>() {
        Ok(address) => {
            address.is_loopback()
                || local.is_some_and(|local| local.to_canonical() == address.to_canonical())
        }
        Err(_) => {
            name.eq_ignore_ascii_case("localhost")
                || nix::unistd::gethostname().is_ok_and(|own| {
                    own.to_str().is_some_and(|own| own.eq_ignore_ascii_case(&name))
                })
        }
    }
}

/// The host of `host[:port]`, without the brackets of IPv6; `None` if that is not its form.
fn host_of(text: &str) -> Option<String> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, port)
        }
        None => text.find(':').map_or((text, ""), |at| text.split_at(at)),
    };
    let is_port = |port: &str| port.strip_prefix(':').is_some_and(|p| p.parse::<u16>().is_ok());
    ((port.is_empty() || is_port(port)) && !host.is_empty()).then(|| host.to_owned())
}

fn reply(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut reply = Response::new(Full::new(Bytes::from(body)));
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    reply
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (header::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn a_page_that_bends_its_name_to_loopback_learns_nothing() {
        let local = Some(IpAddr::from([192, 0, 2, 7]));
        for host in ["127.0.0.1:9464", "localhost", "[::1]:9464", "LOCALHOST:1", "192.0.2.7:80"] {
            assert!(is_ours(&headers(&[("host", host)]), local), "{host}");
        }
        let foreign = [
            "evil.example",
            "127.evil.example",
            "localhost.evil.example",
            "0x7f.1",
            "[::2]",
            "192.0.2.8",
            "[localhost]",
            "localhost:x",
            "",
        ];
        for host in foreign {
            assert!(!is_ours(&headers(&[("host", host)]), local), "{host}");
        }
        assert!(!is_ours(&HeaderMap::new(), local));
        assert!(!is_ours(&headers(&[("host", "localhost"), ("host", "localhost")]), local));
        let page = [("host", "localhost"), ("origin", "http://localhost:3000")];
        assert!(!is_ours(&headers(&page), local));
        assert!(check_address(SocketAddr::from(([127, 0, 0, 1], 0))).is_err());
    }

    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(Duration::from_secs(10), stream.read_to_string(&mut answer))
            .await
            .unwrap()
            .unwrap();
        answer
    }

    #[tokio::test]
    async fn answers_scrapes_and_nothing_else() {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let text: Arc<Text> = Arc::new(|| Some("# EOF\n".to_owned()));
        let exporter = Exporter::start(free, Arc::clone(&text)).await.unwrap();
        let host = format!("Host: {}\r\n\r\n", exporter.address);
        let good = ask(free, &format!("GET /metrics HTTP/1.1\r\n{host}")).await;
        assert!(good.starts_with("HTTP/1.1 200") && good.ends_with("# EOF\n"), "{good}");
        assert!(good.to_lowercase().contains("content-type: application/openmetrics-text"));
        for (request, code) in
            [("POST /metrics", "405"), ("GET /", "404"), ("GET /metrics/", "404")]
        {
            let answer = ask(free, &format!("{request} HTTP/1.1\r\n{host}")).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {code}")), "{request}: {answer}");
        }
        let foreign = ask(free, "GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n").await;
        assert!(foreign.starts_with("HTTP/1.1 403"), "{foreign}");
        let taken = Exporter::start(free, text).await.unwrap_err();
        assert_eq!(taken.class, Class::PortInUse);
    }
}
