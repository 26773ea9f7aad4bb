//! Lengths, sizes, rates and places as a person says them.

use std::time::Duration;

use serde_json::Value;

/// A span as a person says it.
pub(super) fn span(span: Duration) -> String {
    match span.as_secs() {
        0 => format!("{} ms", span.as_millis()),
        seconds @ 1..=9 => format!("{}.{} s", seconds, span.subsec_millis() / 100),
        seconds @ 10..=119 => format!("{seconds} s"),
        seconds @ 120..=7199 => format!("{} min", seconds / 60),
        seconds @ 7200..=172_799 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        seconds => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// The same of milliseconds.
pub(super) fn span_ms(ms: u64) -> String {
    span(Duration::from_millis(ms))
}

/// A count of bytes as a person says it.
pub(super) fn bytes(count: u64) -> String {
    let units = ["kB", "MB", "GB", "TB"];
    let mut value = count as f64;
    let mut unit = "B";
    for next in units {
        // What would be written as 1000.0 is 1.0 of the next one.
        if value < 999.95 {
            break;
        }
        value /= 1000.0;
        unit = next;
    }
    if unit == "B" { format!("{count} B") } else { format!("{value:.1} {unit}") }
}

/// Where a forward of a status object begins and where it leads, with the machine that is meant where
/// that is not the usual one.
pub(super) fn places(forward: &Value) -> (String, String) {
    let text = |pointer: &str| match forward.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        None | Some(Value::Null) => String::new(),
        Some(other) => other.to_string(),
    };
    let place = |socket: &str, host: &str, port: &str| match (text(socket), text(host)) {
        (socket, _) if !socket.is_empty() => socket,
        (_, host) if host.is_empty() => text(port),
        (_, host) if host.contains(':') => format!("[{host}]:{}", text(port)),
        (_, host) => format!("{host}:{}", text(port)),
    };
    let from = match forward.pointer("/allocatedPort").and_then(Value::as_u64) {
        Some(port) => format!("{port} (chosen by the server)"),
        None => place("/socket", "/bind", "/port"),
    };
    let to = place("/hostSocket", "/host", "/hostPort");
    if text("/kind") == "remote" {
        let unseen = if text("/reach") == "unknown" {
            ", for others or not: that cannot be seen from here"
        } else {
            ""
        };
        return (format!("{from} over there{unseen}"), format!("{to} here"));
    }
    (from, to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_sizes_read_well() {
        for (ms, text) in [
            (143, "143 ms"),
            (3100, "3.1 s"),
            (42_000, "42 s"),
            (31_260_000, "8 h 41 min"),
            (200_000_000, "2 d 7 h"),
        ] {
            assert_eq!(span_ms(ms), text);
        }
        for (count, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (999_960, "1.0 MB"),
            (3_400_000_000, "3.4 GB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }
}
