//! The control socket's messages and its client end.
