//! Answers clients: listener, handshake, methods, HTTP.
