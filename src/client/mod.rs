//! Talks to a gateway: which one, with which secret, and calls.
